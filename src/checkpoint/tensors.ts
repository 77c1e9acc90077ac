import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import type { Tensor } from './safetensors.js';

/** Shared weights as safetensors entries, under their own names. */
export function weightTensors(weights: SharedWeights, prefix = ''): Map<string, Tensor<'F32'>> {
  return new Map(weights.tensors.map(({ name, shape }) => [prefix + name, { dtype: 'F32', shape, data: weights.tensor(name) }]));
}

/** Name of a child's golden logits. */
export const goldenOf = (id: string): string => `${id}/golden`;

/** What a child's int8 model is made of and proves itself by. */
export interface Int8Calibration {
  /** Of its activations: [n, 2], least and most in the order of `rangedValues`. */
  readonly ranges: Float32Array;
  /** The int8 model's logits for the golden photograph, [classes]. */
  readonly golden: Float32Array;
}

/** Names of a child's `Int8Calibration`. */
export const int8Of = (id: string): { readonly ranges: string; readonly golden: string } => ({ ranges: `${id}/int8/ranges`, golden: `${id}/int8/golden` });

/** Children's statistics, golden logits and what int8 needs as safetensors entries: `id/layer/mean`, `id/layer/variance`, `id/golden`, `id/int8/ranges`, `id/int8/golden`. */
export function statisticsTensors(
  statistics: ReadonlyMap<string, Statistics>,
  golden: ReadonlyMap<string, Float32Array> = new Map(),
  int8: ReadonlyMap<string, Int8Calibration> = new Map(),
): Map<string, Tensor<'F32'>> {
  const tensors = new Map<string, Tensor<'F32'>>();
  for (const [id, layers] of statistics)
    for (const [layer, { mean, variance }] of layers) {
      tensors.set(`${id}/${layer}/mean`, { dtype: 'F32', shape: [mean.length], data: mean });
      tensors.set(`${id}/${layer}/variance`, { dtype: 'F32', shape: [variance.length], data: variance });
    }
  for (const [id, data] of golden) tensors.set(goldenOf(id), { dtype: 'F32', shape: [data.length], data });
  for (const [id, { ranges, golden: logits }] of int8) {
    tensors.set(int8Of(id).ranges, { dtype: 'F32', shape: [ranges.length / 2, 2], data: ranges });
    tensors.set(int8Of(id).golden, { dtype: 'F32', shape: [logits.length], data: logits });
  }
  return tensors;
}

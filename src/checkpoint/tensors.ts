import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import type { Tensor } from './safetensors.js';

/** Shared weights as safetensors entries, under their own names. */
export function weightTensors(weights: SharedWeights, prefix = ''): Map<string, Tensor<'F32'>> {
  return new Map(weights.tensors.map(({ name, shape }) => [prefix + name, { dtype: 'F32', shape, data: weights.tensor(name) }]));
}

/** Name of a child's golden logits. */
export const goldenOf = (id: string): string => `${id}/golden`;

/** Name of the ranges of a child's activations, of which int8 is made: [n, 2], least and most in the order of `rangedValues`. */
export const rangesOf = (id: string): string => `${id}/ranges`;

/** Children's statistics, golden logits and ranges as safetensors entries: `id/layer/mean`, `id/layer/variance`, `id/golden`, `id/ranges`. */
export function statisticsTensors(
  statistics: ReadonlyMap<string, Statistics>,
  golden: ReadonlyMap<string, Float32Array> = new Map(),
  ranges: ReadonlyMap<string, Float32Array> = new Map(),
): Map<string, Tensor<'F32'>> {
  const tensors = new Map<string, Tensor<'F32'>>();
  for (const [id, layers] of statistics)
    for (const [layer, { mean, variance }] of layers) {
      tensors.set(`${id}/${layer}/mean`, { dtype: 'F32', shape: [mean.length], data: mean });
      tensors.set(`${id}/${layer}/variance`, { dtype: 'F32', shape: [variance.length], data: variance });
    }
  for (const [id, data] of golden) tensors.set(goldenOf(id), { dtype: 'F32', shape: [data.length], data });
  for (const [id, data] of ranges) tensors.set(rangesOf(id), { dtype: 'F32', shape: [data.length / 2, 2], data });
  return tensors;
}

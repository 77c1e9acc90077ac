import { sharedTensors } from '../../src/graph/buildGraph.js';
import type { Batch } from '../../src/graph/engine.js';
import { batchNorms, elements, type Graph, type SharedTensor } from '../../src/graph/graph.js';
import type { Statistics } from '../../src/graph/statistics.js';
import { SharedWeights } from '../../src/graph/weights.js';
import { key, stream, type Stream } from '../../src/random.js';
import type { SearchSpace } from '../../src/space/space.js';

/**
 * Shared weights in which every tensor matters: no γ, β or bias is zero (at γ = 0 a test would exercise no block). Kernels are scaled
 * by their fan in, so that activations and logits stay within a few orders of 1 with `randomStatistics`, whatever the depth.
 */
export function randomWeights(space: SearchSpace, seed: number): SharedWeights {
  return randomTensors(sharedTensors(space), seed);
}

/** The same for any list of tensors. */
export function randomTensors(tensors: readonly SharedTensor[], seed: number): SharedWeights {
  const weights = new SharedWeights(tensors);
  for (const tensor of weights.tensors) {
    const draws = stream(key('test weights'), seed, key(tensor.name));
    const draw = distribution(tensor);
    const data = weights.tensor(tensor.name);
    for (let i = 0; i < data.length; i++) data[i] = draw(draws);
  }
  return weights;
}

function distribution({ name, shape }: SharedTensor): (draws: Stream) => number {
  if (shape.length > 1) {
    const deviation = Math.sqrt(1.5 / elements(shape.slice(1)));
    return (draws) => draws.normal() * deviation;
  }
  return name.endsWith('.gamma') ? (draws) => signed(draws, 0.5, 1.3) : (draws) => signed(draws, 0.05, 0.5);
}

/** Uniform over ±[least, most]: never near zero, of either sign. */
function signed(draws: Stream, least: number, most: number): number {
  const sign = draws.uniform() < 0.5 ? -1 : 1;
  return sign * (least + draws.uniform() * (most - least));
}

/** Statistics for every batch norm of the graph: means of either sign, positive variances; none is 0 or 1. */
export function randomStatistics(graph: Graph, seed: number): Statistics {
  return new Map(
    batchNorms(graph).map(({ name, shape }) => {
      const draws = stream(key('test statistics'), seed, key(name));
      const mean = Float32Array.from({ length: shape.at(-1)! }, () => signed(draws, 0.05, 0.4));
      const variance = Float32Array.from(mean, () => 0.6 + 1.4 * draws.uniform());
      return [name, { mean, variance }];
    }),
  );
}

/** Images for a graph's input, standard normal: [count, 3, height, width]. */
export function randomBatch(graph: Graph, count: number, seed: number): Batch {
  const draws = stream(key('test images'), seed);
  return { data: Float32Array.from({ length: count * elements(graph.nodes[0]!.shape) }, () => draws.normal()), count };
}

import { inputsOf, type BatchNorm, type Conv2d, type DepthwiseConv2d, type Graph } from './graph.js';
import type { ChannelStatistics, Statistics } from './statistics.js';
import type { SharedWeights } from './weights.js';

/**
 * The batch norms that vanish into the convolution before them, by that convolution's name: those that alone read its output. (The
 * graph's convolutions have no bias and no activation of their own.)
 */
export function foldableBatchNorms(graph: Graph): ReadonlyMap<string, BatchNorm> {
  const readers = new Map<string, number>();
  for (const input of graph.nodes.flatMap(inputsOf)) readers.set(input, (readers.get(input) ?? 0) + 1);
  const convolutions = new Set(graph.nodes.filter(({ op }) => op === 'conv2d' || op === 'depthwiseConv2d').map(({ name }) => name));
  const foldable = new Map<string, BatchNorm>();
  for (const node of graph.nodes) {
    if (node.op !== 'batchNorm') continue;
    if (convolutions.has(node.input) && readers.get(node.input) === 1) foldable.set(node.input, node);
  }
  return foldable;
}

/** A convolution's weights: kernel [out, in / group, k, k], and what it adds, [out]. */
export interface ConvolutionWeights {
  readonly kernel: Float32Array;
  readonly bias?: Float32Array;
}

/** Each convolution of a graph with its weights, the batch norm after it folded in where it can be. */
export function foldedConvolutions(graph: Graph, weights: SharedWeights, statistics: Statistics): (node: Conv2d | DepthwiseConv2d) => ConvolutionWeights {
  const foldable = foldableBatchNorms(graph);
  return (node) => {
    const kernel = weights.gather(node.kernel);
    const batchNorm = foldable.get(node.name);
    return batchNorm ? foldBatchNorm(kernel, batchNorm, weights, statistics.get(batchNorm.name)!) : { kernel };
  };
}

/**
 * The convolution that equals `kernel` followed by the batch norm: kernel · γ / √(σ² + ε) and bias β − μ · γ / √(σ² + ε), in double
 * precision, rounded once.
 * @param kernel [out, …], a copy of the weights: it is written into
 */
function foldBatchNorm(
  kernel: Float32Array,
  batchNorm: BatchNorm,
  weights: SharedWeights,
  { mean, variance }: ChannelStatistics,
): { kernel: Float32Array; bias: Float32Array } {
  const gamma = weights.gather(batchNorm.gamma);
  const beta = weights.gather(batchNorm.beta);
  const channels = gamma.length;
  const each = kernel.length / channels;
  const bias = new Float32Array(channels);
  for (let c = 0; c < channels; c++) {
    const scale = gamma[c]! / Math.sqrt(variance[c]! + batchNorm.epsilon);
    for (let i = c * each; i < (c + 1) * each; i++) kernel[i] = kernel[i]! * scale;
    bias[c] = beta[c]! - mean[c]! * scale;
  }
  return { kernel, bias };
}

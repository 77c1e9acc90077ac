import type { BatchNorm } from '../graph/graph.js';
import type { ChannelStatistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';

/**
 * The convolution that equals `kernel` followed by the batch norm: kernel · γ / √(σ² + ε) and bias β − μ · γ / √(σ² + ε), in double
 * precision, rounded once.
 * @param kernel [out, …]
 */
export function foldBatchNorm(
  kernel: Float32Array,
  batchNorm: BatchNorm,
  weights: SharedWeights,
  { mean, variance }: ChannelStatistics,
): { kernel: Float32Array; bias: Float32Array } {
  const gamma = weights.gather(batchNorm.gamma);
  const beta = weights.gather(batchNorm.beta);
  const channels = gamma.length;
  const each = kernel.length / channels;
  const folded = new Float32Array(kernel.length);
  const bias = new Float32Array(channels);
  for (let c = 0; c < channels; c++) {
    const scale = gamma[c]! / Math.sqrt(variance[c]! + batchNorm.epsilon);
    for (let i = c * each; i < (c + 1) * each; i++) folded[i] = kernel[i]! * scale;
    bias[c] = beta[c]! - mean[c]! * scale;
  }
  return { kernel: folded, bias };
}

import type { Statistics } from '../graph/statistics.js';

/**
 * How far the pooled means of batches are expected to be from those of infinitely many, as a part of the channel's standard deviation: the standard error of the mean
 * over batches; of each batch norm the root of the channels' mean square, and of all batch norms the largest. Variances converge with the means: both are averages
 * over the same images.
 * @param batches at least two, of one size but the last
 */
export function standardError(batches: readonly { readonly statistics: Statistics }[]): number {
  const n = batches.length;
  let largest = 0;
  for (const name of batches[0]!.statistics.keys()) {
    const parts = batches.map(({ statistics }) => statistics.get(name)!);
    const channels = parts[0]!.mean.length;
    let sum = 0;
    for (let c = 0; c < channels; c++) {
      let mean = 0;
      let variance = 0;
      for (const part of parts) {
        mean += part.mean[c]! / n;
        variance += part.variance[c]! / n;
      }
      let between = 0;
      for (const part of parts) between += (part.mean[c]! - mean) ** 2 / (n - 1);
      // A channel that is always the same has converged.
      if (between > 0) sum += between / n / (variance + between);
    }
    largest = Math.max(largest, Math.sqrt(sum / channels));
  }
  return largest;
}

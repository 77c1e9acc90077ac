import { batchNorms, type Graph } from './graph.js';

/** Mean and variance per channel of one batch norm. */
export interface ChannelStatistics {
  readonly mean: Float32Array;
  readonly variance: Float32Array;
}

/** Batch-norm statistics of one child, by the name of the batch norm. */
export type Statistics = ReadonlyMap<string, ChannelStatistics>;

/** Throws unless the statistics are those of the graph: every batch norm, the right width. */
export function checkStatistics(graph: Graph, statistics: Statistics): void {
  for (const { name, shape } of batchNorms(graph)) {
    const width = shape.at(-1)!;
    const got = statistics.get(name);
    if (got?.mean.length !== width || got.variance.length !== width)
      throw new Error(`${name}: expected statistics of ${width} channels, got ${got ? got.mean.length : 'none'}.`);
  }
}

/**
 * Statistics over all batches from those of each (biased variances): the law of total variance, in double precision. Batches count
 * by their size.
 */
export function pooledStatistics(batches: readonly { readonly size: number; readonly statistics: Statistics }[]): Statistics {
  const total = batches.reduce((sum, batch) => sum + batch.size, 0);
  const pooled = new Map<string, ChannelStatistics>();
  for (const [name, first] of batches[0]?.statistics ?? []) {
    const mean = new Float64Array(first.mean.length);
    const square = new Float64Array(first.mean.length);
    for (const { size, statistics } of batches) {
      const part = statistics.get(name)!;
      for (let c = 0; c < mean.length; c++) {
        mean[c]! += (size / total) * part.mean[c]!;
        square[c]! += (size / total) * (part.variance[c]! + part.mean[c]! ** 2);
      }
    }
    const variance = square.map((s, c) => Math.max(0, s - mean[c]! ** 2));
    pooled.set(name, { mean: Float32Array.from(mean), variance: Float32Array.from(variance) });
  }
  return pooled;
}

import { INPUT } from '../graph/modelNames.js';
import { setImmediate as letEventsIn } from 'node:timers/promises';
import type { Batch } from '../graph/engine.js';
import type { Graph } from '../graph/graph.js';
import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { createSession, feed, view } from './engine.js';
import { Histogram } from './histogram.js';
import { observedModel } from './model.js';
import type { ActivationRanges } from './quantise.js';

export type { ActivationRanges } from './quantise.js';

export interface RangeOptions {
  /** Threads that one run may use, at least 1. Default: 1. */
  readonly threads?: number;
  /** Gives up between two batches. */
  readonly signal?: AbortSignal;
}

/**
 * The ranges that a child's int8 model needs: of every quantised value what loses least of it (`Histogram.range`), over the batches, [count, 3, resolution, resolution].
 * A hundred images suffice: 128 of CIFAR-10 give the accuracy of 512, to 0.2 points either way. Blocks the thread that calls it, but for a moment after each batch.
 * @throws the signal's reason; Error where there is no batch
 */
export async function activationRanges(
  graph: Graph,
  weights: SharedWeights,
  statistics: Statistics,
  batches: Iterable<Batch>,
  { threads = 1, signal }: RangeOptions = {},
): Promise<ActivationRanges> {
  const { values, model } = observedModel(graph, weights, statistics);
  const session = await createSession(model, threads, { lean: true });
  const observed = values.map((value) => ({ ...value, histogram: new Histogram() }));
  let count = 0;
  try {
    for (const batch of batches) {
      await letEventsIn();
      signal?.throwIfAborted();
      const outputs = await session.run(feed(session, batch));
      for (const { name, histogram } of observed) histogram.add(name === INPUT ? batch.data : view(outputs, name));
      count++;
    }
  } finally {
    await session.release();
  }
  if (count === 0) throw new Error('Expected at least one batch to take ranges from, got none.');
  return Float32Array.from(observed.flatMap(({ histogram, becomes }) => histogram.range(becomes)));
}

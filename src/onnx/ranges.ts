import { setImmediate as letEventsIn } from 'node:timers/promises';
import type { Batch } from '../graph/engine.js';
import type { Graph } from '../graph/graph.js';
import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { createSession, feed, values } from './engine.js';
import { INPUT } from './emit.js';
import { observedModel } from './model.js';
import type { ActivationRanges } from './quantise.js';

export type { ActivationRanges } from './quantise.js';

export interface RangeOptions { readonly threads?: number; readonly signal?: AbortSignal }

export async function activationRanges(graph: Graph, weights: SharedWeights, statistics: Statistics, batches: Iterable<Batch>, { threads = 1, signal }: RangeOptions = {}): Promise<ActivationRanges> {
  const session = await createSession(observedModel(graph, weights, statistics), threads);
  const ranges = new Map<string, [number, number]>();
  try {
    for (const batch of batches) {
      await letEventsIn();
      signal?.throwIfAborted();
      const outputs = await session.run(feed(session, batch));
      widen(ranges, INPUT, batch.data);
      for (const name of session.outputNames) widen(ranges, name, values(outputs, name));
    }
  } finally {
    await session.release();
  }
  return ranges;
}

function widen(ranges: Map<string, [number, number]>, name: string, data: Float32Array): void {
  let [least, most] = ranges.get(name) ?? [0, 0];
  for (const value of data) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  ranges.set(name, [least, most]);
}

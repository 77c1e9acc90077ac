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
const BINS = 2048;
const METHOD = process.env['METHOD'] ?? 'mse';

export async function activationRanges(graph: Graph, weights: SharedWeights, statistics: Statistics, batches: Iterable<Batch>, { threads = 1, signal }: RangeOptions = {}): Promise<ActivationRanges> {
  const session = await createSession(observedModel(graph, weights, statistics), threads);
  const list = [...batches];
  const ranges = new Map<string, [number, number]>();
  const histograms = new Map<string, Float64Array>();
  const each = async (visit: (name: string, data: Float32Array) => void): Promise<void> => {
    for (const batch of list) {
      await letEventsIn();
      signal?.throwIfAborted();
      const outputs = await session.run(feed(session, batch));
      visit(INPUT, batch.data);
      for (const name of session.outputNames) visit(name, values(outputs, name));
    }
  };
  try {
    await each((name, data) => widen(ranges, name, data));
    await each((name, data) => count(histograms, ranges.get(name)!, name, data));
  } finally {
    await session.release();
  }
  const swishes = new Set(graph.nodes.flatMap((n) => (n.op === 'activation' && n.function === 'swish' ? [n.input.replace(/bn$/, 'conv')] : [])));
  if (METHOD === 'minmax') return ranges;
  return new Map([...ranges].map(([name, range]) => {
    if (METHOD.startsWith('p')) return [name, percentile(histograms.get(name)!, range, Number(METHOD.slice(1)))];
    const r = mse(histograms.get(name)!, range, METHOD === 'mseswish' && swishes.has(name));
    if (process.env['SHOW']) console.log(name, range, r);
    return [name, r];
  }));
}

function widen(ranges: Map<string, [number, number]>, name: string, data: Float32Array): void {
  let [least, most] = ranges.get(name) ?? [0, 0];
  for (const value of data) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  ranges.set(name, [least, most]);
}

function count(histograms: Map<string, Float64Array>, [least, most]: readonly [number, number], name: string, data: Float32Array): void {
  const h = histograms.get(name) ?? new Float64Array(BINS);
  const scale = BINS / (most - least);
  for (const value of data) { const i = Math.min(Math.floor((value - least) * scale), BINS - 1); h[i] = h[i]! + 1; }
  histograms.set(name, h);
}

function percentile(h: Float64Array, [least, most]: readonly [number, number], p: number): [number, number] {
  const total = h.reduce((a, b) => a + b);
  const cut = total * (1 - p / 100);
  let lo = 0, hi = BINS - 1, s = 0;
  while (s + h[lo]! <= cut) s += h[lo++]!;
  s = 0;
  while (s + h[hi]! <= cut) s += h[hi--]!;
  const w = (most - least) / BINS;
  return [Math.fround(least + lo * w), Math.fround(least + (hi + 1) * w)];
}

const POW = Number(process.env['POW'] ?? 2);
function mse(h: Float64Array, [least, most]: readonly [number, number], swish: boolean): [number, number] {
  const f = (x: number): number => (swish ? x / (1 + Math.exp(-x)) : x);
  const w = (most - least) / BINS;
  const error = (lo: number, hi: number): number => {
    const step = (hi - lo) / 255;
    const zero = Math.round(-lo / step);
    let sum = 0;
    for (let i = 0; i < BINS; i++) {
      if (h[i] === 0) continue;
      const x = least + (i + 0.5) * w;
      const q = Math.min(Math.max(Math.round(x / step) + zero, 0), 255);
      const y = (q - zero) * step;
      const inside = q > 0 && q < 255;
      // within a bin of many steps or few: rounding error is uniform
      const slope = swish ? Math.abs((f(x + 1e-3) - f(x - 1e-3)) / 2e-3) : 1;
      sum += h[i]! * (inside ? (POW === 2 ? slope * slope * step * step / 12 : (slope*step/2)**POW/(POW+1)) : Math.abs(f(x) - f(y)) ** POW);
    }
    return sum;
  };
  let best: [number, number] = [least, most];
  let bestError = error(...best);
  for (let round = 0; round < 3; round++) {
    for (let k = 1; k <= 50; k++) {
      const hi = most * k / 50;
      const e = error(best[0], hi);
      if (e < bestError) { bestError = e; best = [best[0], hi]; }
    }
    if (least < 0) for (let k = 1; k <= 50; k++) {
      const lo = least * k / 50;
      const e = error(lo, best[1]);
      if (e < bestError) { bestError = e; best = [lo, best[1]]; }
    }
  }
  return [Math.fround(best[0]), Math.fround(best[1])];
}

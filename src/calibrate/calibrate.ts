import { createHash } from 'node:crypto';
import { setImmediate as letEventsIn } from 'node:timers/promises';
import type { CalibrationCrops } from '../checkpoint/checkpoint.js';
import { normalisedBatch, type Preprocessing } from '../data/preprocess.js';
import { freeAtOnce } from '../memory.js';
import type { Batch, Engine } from '../graph/engine.js';
import { batchNorms, type Graph } from '../graph/graph.js';
import { pooledStatistics, type Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { standardError } from './convergence.js';
import type { PrefixStore } from './prefixStore.js';
import { segmentsOf } from './segments.js';

/** Raised by whatever changes the statistics that come of the same checkpoint, child and engine: kept ones of another version are not used. */
export const calibrationVersion = 2;

/**
 * Calibration stops at the first batch after which no batch norm's means are expected to change by more than this part of their channels' standard deviation
 * (`standardError`). What that costs in accuracy: bench/README.md.
 */
export const TOLERANCE = 0.05;

/** Batches before which nothing can be said of how far they differ. */
const LEAST_BATCHES = 2;

/** What calibration depends on, besides the child: a pure function of these and of the engine. */
export interface CalibrationSource {
  readonly crops: CalibrationCrops;
  readonly preprocessing: Preprocessing;
  /** Crops a batch. The last batch may be smaller. */
  readonly batch: number;
}

export interface CalibrateOptions {
  /** Gives up between two segments of a batch. */
  readonly signal?: AbortSignal | undefined;
  /** Default `TOLERANCE`; 0: all crops. */
  readonly tolerance?: number;
  /** What children that begin alike share, and the name in it of all that a result depends on besides the graph: the weights and the crops. */
  readonly prefixes?: { readonly store: PrefixStore; readonly context: string } | undefined;
}

export interface Calibration {
  readonly statistics: Statistics;
  /** Crops that it took. */
  readonly images: number;
}

/**
 * Batch-norm statistics of one child over the calibration crops, centre-resized to the child's resolution, until they have converged (the paper's section 3.1,
 * "Batch norm calibration"). The result is the same whatever was calibrated before, to the bit: a store of prefixes saves time and nothing else.
 * @throws the signal's reason
 */
export async function calibrate(engine: Engine, graph: Graph, weights: SharedWeights, source: CalibrationSource, options: CalibrateOptions = {}): Promise<Calibration> {
  return calibrateOn(engine, graph, weights, batches(source, graph.nodes[0]!.shape[0]!), options);
}

/** The same over any batches, [count, 3, resolution, resolution]. @throws Error where there is none */
export async function calibrateOn(
  engine: Engine,
  graph: Graph,
  weights: SharedWeights,
  batches: Iterable<Batch>,
  { signal, tolerance = TOLERANCE, prefixes }: CalibrateOptions = {},
): Promise<Calibration> {
  const segments = segmentsOf(graph);
  const digests = prefixes && digestsOf(segments, [prefixes.context, engine.name]);
  /** Opened when first needed: a child whose beginning is known needs only the rest. */
  const open = segments.map((segment, i) => lazily(() => engine.calibrationSegment(segment, weights, { last: i === segments.length - 1 })));
  const parts: { size: number; statistics: Statistics }[] = [];
  const result = (): Calibration => ({ statistics: ordered(graph, pooledStatistics(parts)), images: parts.reduce((sum, { size }) => sum + size, 0) });
  try {
    for (const batch of batches) {
      const keyOf = (segment: number): string => `${digests![segment]!}/${parts.length}`;
      // What is known of this batch: the output of the deepest segment, and all statistics up to it.
      const known = prefixes ? deepest(segments.length - 1, (segment) => prefixes.store.get(keyOf(segment))) : undefined;
      let { output, statistics } = known?.prefix ?? { output: batch.data, statistics: new Map() as Statistics };
      /** Whether nobody else has the output: neither the store nor whoever made the batch. */
      let ours = false;
      for (let i = known ? known.segment + 1 : 0; i < segments.length; i++) {
        await letEventsIn();
        signal?.throwIfAborted();
        const segment = await open[i]!.value();
        const ran = await segment.run({ data: output, count: batch.count });
        if (ours) freeAtOnce(output);
        statistics = new Map([...statistics, ...ran.statistics]);
        if (!ran.output) break; // the last one
        output = ran.output;
        ours = !prefixes?.store.set(keyOf(i), { output, statistics });
      }
      parts.push({ size: batch.count, statistics });
      if (parts.length >= LEAST_BATCHES && standardError(parts) <= tolerance) return result();
    }
  } finally {
    // One that could not be opened has said so already.
    for (const each of open) await (await each.opened?.catch(() => undefined))?.dispose();
  }
  if (parts.length === 0) throw new Error('Expected at least one batch to calibrate on, got none.');
  return result();
}

/** The crops as a child of a resolution takes them, batch by batch. Each is there until the next one is asked for. */
export function* batches({ crops, preprocessing, batch }: CalibrationSource, resolution: number): Generator<Batch> {
  const size = preprocessing.crop ** 2 * 3;
  for (let from = 0; from < crops.count; from += batch) {
    const to = Math.min(from + batch, crops.count);
    const data = normalisedBatch(crops.crops.subarray(from * size, to * size), preprocessing, resolution, 'NCHW');
    try {
      yield { data, count: to - from };
    } finally {
      freeAtOnce(data);
    }
  }
}

/** Of each segment a digest of it and of all before it, and of what else its output depends on. */
function digestsOf(segments: readonly Graph[], context: readonly string[]): string[] {
  const hash = createHash('sha256').update(JSON.stringify(context));
  return segments.map(({ nodes }) => hash.update(JSON.stringify(nodes)).copy().digest('base64'));
}

function deepest<T>(below: number, find: (segment: number) => T | undefined): { readonly segment: number; readonly prefix: T } | undefined {
  for (let segment = below - 1; segment >= 0; segment--) {
    const prefix = find(segment);
    if (prefix !== undefined) return { segment, prefix };
  }
  return undefined;
}

/** In the order of the graph, wherever each came from. */
function ordered(graph: Graph, statistics: Statistics): Statistics {
  return new Map(batchNorms(graph).map(({ name }) => [name, statistics.get(name)!]));
}

function lazily<T>(make: () => Promise<T>): { value(): Promise<T>; opened: Promise<T> | undefined } {
  const lazy = {
    opened: undefined as Promise<T> | undefined,
    value: (): Promise<T> => (lazy.opened ??= make()),
  };
  return lazy;
}

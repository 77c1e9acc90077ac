import { latencyPredictor, latencyTableFormat, operationKey, type LatencyTable, type Operation } from '../cost/latency.js';
import { buildGraph } from '../graph/buildGraph.js';
import { formatArchitecture, biggest, smallest, type Architecture } from '../space/architecture.js';
import { sampleArchitecture } from '../space/sample.js';
import type { SearchSpace } from '../space/space.js';
import { measureLatency, profileChild, runtimeName, type LatencyOptions, type ProfiledChild } from './latency.js';

export interface TableOptions extends LatencyOptions {
  readonly device: string;
  /** Children to profile: the smallest, the biggest and random ones. At least 4. */
  readonly children: number;
  readonly seed: number;
  /** Ends it between two children, by throwing its reason. */
  readonly signal?: AbortSignal;
  readonly progress?: (done: number, all: number, architecture: string, seconds: number) => void;
}

/**
 * Makes the table of this machine: ONNX Runtime profiles children of the space, equal operations are averaged, and all are scaled so that their sum, with
 * an overhead that every run has, gives the children's latencies measured without a profile.
 */
export async function makeLatencyTable(space: SearchSpace, options: TableOptions): Promise<LatencyTable> {
  const { device, children, seed, threads, signal, progress } = options;
  const architectures = [smallest(space), biggest(space), ...Array.from({ length: children - 2 }, (_, i) => sampleArchitecture(space, [seed, i]))];
  const profiles: ProfiledChild[] = [];
  for (const architecture of architectures) {
    signal?.throwIfAborted();
    const profile = await profileChild(buildGraph(space, architecture), options);
    profiles.push(profile);
    progress?.(profiles.length, children, formatArchitecture(architecture), profile.seconds);
  }
  const { overhead, scale } = scaling(profiles);
  const entries = new Map<string, { operation: Operation; times: number[] }>();
  for (const { operation, seconds } of profiles.flatMap(({ operations }) => operations)) {
    const key = operationKey(operation);
    const entry = entries.get(key) ?? { operation, times: [] };
    entry.times.push(seconds);
    entries.set(key, entry);
  }
  return {
    format: latencyTableFormat,
    version: 1,
    device,
    runtime: runtimeName(),
    threads,
    measured: new Date().toISOString(),
    overhead,
    operations: [...entries.values()].map(({ operation, times }) => ({ ...operation, seconds: scale * mean(times) })),
  };
}

/** The line from a child's profiled operations to its measured latency, by least squares of the relative error; neither part negative. */
function scaling(profiles: readonly ProfiledChild[]): { readonly overhead: number; readonly scale: number } {
  const points = profiles.map(({ seconds, operations }) => ({ sum: operations.reduce((total, operation) => total + operation.seconds, 0), seconds }));
  const weighted = (of: (point: { readonly sum: number; readonly seconds: number }) => number): number => points.reduce((total, point) => total + of(point) / point.seconds ** 2, 0);
  const [w, x, y, xx, xy] = [weighted(() => 1), weighted((p) => p.sum), weighted((p) => p.seconds), weighted((p) => p.sum ** 2), weighted((p) => p.sum * p.seconds)];
  const scale = (w * xy - x * y) / (w * xx - x * x);
  const overhead = (y - scale * x) / w;
  return overhead >= 0 && scale > 0 ? { overhead, scale } : { overhead: 0, scale: xy / xx };
}

/** How far a table's predictions are off on children that it was not made from. */
export interface LatencyError {
  readonly children: number;
  /** Of |predicted − measured| / measured. */
  readonly median: number;
  readonly p90: number;
}

/** Measures random children, others than those of a table of the same seed, and compares. */
export async function latencyError(space: SearchSpace, table: LatencyTable, { count, seed, signal, ...options }: LatencyOptions & { readonly count: number; readonly seed: number; readonly signal?: AbortSignal }): Promise<LatencyError> {
  const predict = latencyPredictor(table);
  const errors: number[] = [];
  for (let i = 0; i < count; i++) {
    signal?.throwIfAborted();
    const graph = buildGraph(space, heldOut(space, seed, i));
    const measured = await measureLatency(graph, options);
    errors.push(Math.abs(predict(graph).seconds - measured) / measured);
  }
  errors.sort((a, b) => a - b);
  return { children: count, median: errors[Math.floor(count / 2)]!, p90: errors[Math.floor(count * 0.9)]! };
}

/** Keyed apart from the children that a table is made from. */
function heldOut(space: SearchSpace, seed: number, i: number): Architecture {
  return sampleArchitecture(space, [seed, i, 1]);
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, v) => sum + v, 0) / values.length;
}

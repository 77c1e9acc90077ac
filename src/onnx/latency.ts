import { LOGITS } from '../graph/modelNames.js';
import { readFile, readdir, mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tensor, type InferenceSession } from 'onnxruntime-node';
import { z } from 'zod';
import { operationsOf, type GraphOperation } from '../cost/latency.js';
import { batchNorms, parameters, type Graph } from '../graph/graph.js';
import type { Statistics } from '../graph/statistics.js';
import { SharedWeights } from '../graph/weights.js';
import { createSession } from './engine.js';
import { onnxModel } from './model.js';

export interface LatencyOptions {
  readonly threads: number;
  /** Runs that are timed, after as many again that are not. */
  readonly runs?: number;
}

/** What runs the operations, with its version. */
export function runtimeName(): string {
  const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json') as { readonly version: string };
  return `onnxruntime-node ${version}, CPU`;
}

/** Seconds of one image through a child in ONNX Runtime: the median of its runs. Weights do not matter. Blocks the thread that calls it. */
export async function measureLatency(graph: Graph, { threads, runs = 30 }: LatencyOptions): Promise<number> {
  const session = await sessionOf(graph, threads);
  try {
    return median(await timed(session, graph, runs));
  } finally {
    await session.release();
  }
}

/** How long each operation of a child takes. */
export interface ProfiledChild {
  /** Seconds of the whole, measured without a profile. */
  readonly seconds: number;
  /** The graph's operations with their seconds, by ONNX Runtime's own profile: what the time between them, and layouts, cost is not in there. */
  readonly operations: readonly (GraphOperation & { readonly seconds: number })[];
}

/** Measures a child, then has ONNX Runtime profile each of its nodes. Blocks the thread that calls it. */
export async function profileChild(graph: Graph, options: LatencyOptions): Promise<ProfiledChild> {
  const seconds = await measureLatency(graph, options);
  const folder = await mkdtemp(join(tmpdir(), 'bignas-profile-'));
  try {
    const session = await sessionOf(graph, options.threads, join(folder, 'profile'));
    try {
      await timed(session, graph, options.runs ?? 30);
    } finally {
      session.endProfiling();
      await session.release();
    }
    const [file] = await readdir(folder);
    const nodes = nodeSeconds(JSON.parse(await readFile(join(folder, file!), 'utf8')));
    const operations = operationsOf(graph).map((operation) => ({ ...operation, seconds: 0 }));
    const places = new Map(operations.flatMap(({ nodes: names }, i) => names.map((name) => [name, i])));
    for (const [name, time] of nodes) {
      const place = placeOf(name, places);
      if (place !== undefined) operations[place]!.seconds += time;
    }
    return { seconds, operations };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The operation whose node an ONNX node was written for: `stem.conv_nchwc` and `stem.swish/QuickGeluFusion/` for `stem.conv` and `stem.swish`. */
function placeOf(name: string, places: ReadonlyMap<string, number>): number | undefined {
  for (let end = name.length; end > 0; end--) {
    const place = places.get(name.slice(0, end));
    if (place !== undefined && (end === name.length || name[end] === '/' || name[end] === '_')) return place;
  }
  // The classifier is called by its output.
  return name.startsWith(LOGITS) ? places.get('classifier') : undefined;
}

const profileSchema = z.array(z.looseObject({ cat: z.string().optional(), name: z.string().optional(), dur: z.number().optional() }));

/** Median seconds of each node of a profile of ONNX Runtime. */
function nodeSeconds(profile: unknown): Map<string, number> {
  const times = new Map<string, number[]>();
  for (const { cat, name, dur } of profileSchema.parse(profile))
    if (cat === 'Node' && name?.endsWith('_kernel_time') && dur !== undefined) {
      const node = name.slice(0, -'_kernel_time'.length);
      times.set(node, [...(times.get(node) ?? []), dur * 1e-6]);
    }
  return new Map([...times].map(([node, list]) => [node, mean(list.sort((a, b) => a - b).slice(0, Math.ceil(list.length * 0.75)))]));
}

/** Of the faster three quarters: whole microseconds are too coarse for a median, and the slow ones are other programs' doing. */
function mean(values: readonly number[]): number {
  return values.reduce((sum, v) => sum + v, 0) / values.length;
}

async function timed(session: InferenceSession, graph: Graph, runs: number): Promise<number[]> {
  const [height, width, channels] = graph.nodes[0]!.shape as [number, number, number];
  const input = new Tensor('float32', Float32Array.from({ length: channels * height * width }, (_, i) => Math.sin(i)), [1, channels, height, width]);
  const times: number[] = [];
  for (let run = 0; run < 2 * runs; run++) {
    const started = performance.now();
    await session.run({ [session.inputNames[0]!]: input }, [LOGITS]);
    if (run >= runs) times.push((performance.now() - started) / 1000);
  }
  return times;
}

function sessionOf(graph: Graph, threads: number, profile?: string): Promise<InferenceSession> {
  return createSession(anyModel(graph), threads, profile === undefined ? {} : { profile });
}

/** The child with weights that keep its activations of ordinary size: denormal numbers would be slow. */
function anyModel(graph: Graph): Uint8Array {
  const tensors = new Map(parameters(graph).map(({ tensor }) => [tensor.name, tensor]));
  const weights = new SharedWeights([...tensors.values()]);
  for (let i = 0; i < weights.data.length; i++) weights.data[i] = 0.1 * Math.sin(i);
  const statistics: Statistics = new Map(
    batchNorms(graph).map(({ name, shape }) => [name, { mean: new Float32Array(shape.at(-1)!), variance: new Float32Array(shape.at(-1)!).fill(1) }]),
  );
  return onnxModel(graph, weights, statistics);
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

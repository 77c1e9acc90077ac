import { decodeSafetensors, encodeSafetensors, type Tensor } from '../checkpoint/safetensors.js';
import { file, readContainer, writeContainer, type Container, type Crc32, type Files } from '../encoding/container.js';
import { sha256Hex, sha256Sums } from '../encoding/sha256.js';
import { buildGraph } from '../graph/buildGraph.js';
import { elements, parameters, type Graph, type Parameter } from '../graph/graph.js';
import { standaloneGraph, weightsFrom } from '../graph/standalone.js';
import type { SharedWeights } from '../graph/weights.js';
import { parseArchitecture } from '../space/architecture.js';
import { ARCHITECTURE, GRAPH, graphJson, readArchitecture, STATISTICS, WEIGHTS, weightsFile } from './unfolded.js';

/**
 * Updates of unfolded bundles: children share weights, so a device that holds one child and wants another needs the elements that the first lacks, and the
 * second's statistics. No dependency: a browser applies them.
 */

export const deltaFormat = 'bignas-delta';
export const deltaVersion = 1;

const DELTA = 'delta.json';
const ELEMENTS = 'delta.safetensors';
export const MANIFEST = 'manifest.json';
export const SUMS = 'SHA256SUMS';

/** Files that go along as they are; what follows from them is left out. */
const VERBATIM = [MANIFEST, 'README.md', 'golden.safetensors', STATISTICS, ARCHITECTURE] as const;

/** `delta.json`: between what it leads. */
export interface DeltaHead {
  readonly format: typeof deltaFormat;
  readonly version: number;
  /** The bundle that it is applied to. */
  readonly from: { readonly architecture: string; readonly checkpoint: string };
  /** The bundle that comes of it. */
  readonly to: { readonly architecture: string; readonly container: Container; readonly bytes: number; readonly sha256: string; readonly files: readonly string[] };
}

/** The first of a child's tensors that another child does not hold whole; undefined where the child nests in the other. */
export function outside(child: Graph, other: Graph): Parameter | undefined {
  const theirs = bySharedTensor(other);
  return parameters(child).find((parameter) => {
    const place = theirs.get(parameter.tensor.name);
    return !place || parameter.size.some((size, d) => parameter.begin[d]! < place.begin[d]! || parameter.begin[d]! + size > place.begin[d]! + place.size[d]!);
  });
}

export interface DeltaOptions {
  /** Hex SHA-256 of the checkpoint that both come of. */
  readonly checkpoint: string;
  /** The child that the device holds. */
  readonly have: { readonly graph: Graph; readonly architecture: string };
  /** The child that it wants, on the shared tensors, and its unfolded bundle's files. */
  readonly want: { readonly graph: Graph; readonly architecture: string; readonly files: Files };
  readonly container: Container;
  readonly crc32?: Crc32 | undefined;
}

/** The files of a delta bundle: what `want` has beyond `have`. */
export async function deltaFiles(weights: SharedWeights, { checkpoint, have, want, container, crc32 }: DeltaOptions): Promise<Files> {
  const full = writeContainer(container, want.files, crc32);
  const head: DeltaHead = {
    format: deltaFormat,
    version: deltaVersion,
    from: { architecture: have.architecture, checkpoint },
    to: { architecture: want.architecture, container, bytes: full.length, sha256: await sha256Hex(full), files: [...want.files.keys()] },
  };
  const held = bySharedTensor(have.graph);
  const missing = new Map<string, Tensor<'F32'>>();
  for (const parameter of parameters(want.graph)) {
    const values = weights.gather(parameter);
    const rest = missingRuns(parameter, held.get(parameter.tensor.name));
    const length = rest.reduce((sum, run) => sum + run.length, 0);
    if (length === 0) continue;
    const data = new Float32Array(length);
    let at = 0;
    for (const { begin, length: run } of rest) {
      data.set(values.subarray(begin, begin + run), at);
      at += run;
    }
    missing.set(parameter.tensor.name, { dtype: 'F32', shape: [length], data });
  }
  const files = new Map<string, Uint8Array>([[DELTA, new TextEncoder().encode(`${JSON.stringify(head, null, 2)}\n`)]]);
  for (const name of VERBATIM) files.set(name, file(want.files, name));
  files.set(ELEMENTS, encodeSafetensors(missing, { format: deltaFormat }));
  files.set(SUMS, await sha256Sums(files));
  return files;
}

/**
 * The whole bundle that a delta leads to, byte for byte as a server would send it.
 * @param have the unfolded bundle (float32) that the delta is made for
 * @throws Error that says what is wrong; nothing is returned that is not whole
 */
export async function applyDelta(have: Uint8Array, delta: Uint8Array, crc32?: Crc32): Promise<Uint8Array> {
  const update = within('the delta', () => readContainer(delta, crc32).files);
  const head = within('the delta', () => readHead(update));
  const held = within('the bundle', () => readContainer(have, crc32).files);
  const from = within('the bundle', () => readArchitecture(held));
  const checkpoint = checkpointOf(held);
  if (checkpoint !== head.from.checkpoint) throw new Error(`The bundle is of checkpoint ${checkpoint}, the delta is for one of ${head.from.checkpoint}. Download the whole bundle.`);
  if (from.architecture !== head.from.architecture) throw new Error(`The bundle is of ${from.architecture}, the delta is for ${head.from.architecture}.`);
  const to = within('the delta', () => readArchitecture(update));
  const graph = buildGraph(to.space, parseArchitecture(to.space, to.architecture));
  const weights = within('the delta', () => mergedWeights(graph, buildGraph(from.space, parseArchitecture(from.space, from.architecture)), held, update));

  const standalone = standaloneGraph(graph);
  const rebuilt = new Map([...update, [WEIGHTS, weightsFile(weights)], [GRAPH, graphJson(standalone)]]);
  const files = new Map<string, Uint8Array>();
  for (const name of head.to.files) files.set(name, name === SUMS ? await sha256Sums(files) : file(rebuilt, name));
  const bundle = writeContainer(head.to.container, files, crc32);
  const digest = await sha256Hex(bundle);
  if (digest !== head.to.sha256) throw new Error(`What came of it has SHA-256 ${digest}, expected ${head.to.sha256}: the bundle's weights are damaged, or this bignas writes another version. Download the whole bundle.`);
  return bundle;
}

/** Whether files are those of a delta bundle. */
export function isDelta(files: Files): boolean {
  return files.has(DELTA);
}

export function readHead(files: Files): DeltaHead {
  const head = JSON.parse(new TextDecoder().decode(file(files, DELTA))) as Partial<DeltaHead> | null;
  if (head?.format !== deltaFormat || typeof head.version !== 'number' || !head.from || !head.to) throw new Error(`${DELTA} is not a ${deltaFormat}`);
  if (head.version > deltaVersion) throw new Error(`it has format version ${head.version}, this bignas reads up to ${deltaVersion}: update bignas`);
  return head as DeltaHead;
}

function checkpointOf(files: Files): string {
  const manifest = JSON.parse(new TextDecoder().decode(file(files, MANIFEST))) as { readonly checkpoint?: { readonly digest?: unknown } } | null;
  const digest = manifest?.checkpoint?.digest;
  if (typeof digest !== 'string') throw new Error(`The bundle's ${MANIFEST} names no checkpoint.`);
  return digest;
}

/** The wanted child's weights: what both have from the held one, the rest from the update. */
function mergedWeights(want: Graph, have: Graph, held: Files, update: Files): SharedWeights {
  const [theirs, news] = [decodeSafetensors(file(held, WEIGHTS)), decodeSafetensors(file(update, ELEMENTS))];
  const places = bySharedTensor(have);
  const byName = new Map(parameters(want).map((parameter) => [parameter.tensor.name, parameter]));
  const float32 = (tensor: Tensor | undefined, name: string, length: number): Float32Array => {
    if (tensor?.dtype !== 'F32' || tensor.data.length !== length) throw new Error(`tensor ${name}: expected ${length} float32 values, got ${tensor ? `${tensor.data.length} of ${tensor.dtype}` : 'none'}`);
    return tensor.data as Float32Array;
  };
  return weightsFrom(standaloneGraph(want), (name) => {
    const parameter = byName.get(name)!;
    const place = places.get(name);
    const values = new Float32Array(elements(parameter.size));
    if (place) copyShared(parameter, values, place, float32(theirs.get(name), name, elements(place.size)));
    const runs = missingRuns(parameter, place);
    const length = runs.reduce((sum, run) => sum + run.length, 0);
    if (length === 0) return values;
    const data = float32(news.get(name), name, length);
    let at = 0;
    for (const { begin, length: run } of runs) {
      values.set(data.subarray(at, at + run), begin);
      at += run;
    }
    return values;
  });
}

interface Run {
  readonly begin: number;
  readonly length: number;
}

/** The runs of a slice's elements, in its own row-major order, that another slice of the same tensor does not hold. */
function missingRuns({ begin, size }: Parameter, held: Parameter | undefined): Run[] {
  if (!held) return [{ begin: 0, length: elements(size) }];
  // Of each dimension the part that both have, counted from this slice's begin.
  const both = size.map((n, d) => {
    const from = Math.max(begin[d]!, held.begin[d]!) - begin[d]!;
    const to = Math.min(begin[d]! + n, held.begin[d]! + held.size[d]!) - begin[d]!;
    return { from, to: Math.max(from, to) };
  });
  /** From this dimension on nothing is missing. */
  let whole = size.length;
  while (whole > 0 && both[whole - 1]!.from === 0 && both[whole - 1]!.to === size[whole - 1]) whole--;
  if (whole === 0) return [];
  const runs: Run[] = [];
  const push = (at: number, length: number): void => {
    const last = runs.at(-1);
    if (length === 0) return;
    if (last && last.begin + last.length === at) runs[runs.length - 1] = { begin: last.begin, length: last.length + length };
    else runs.push({ begin: at, length });
  };
  const visit = (d: number, at: number): void => {
    const inner = elements(size.slice(d + 1));
    const { from, to } = both[d]!;
    push(at, from * inner);
    if (d < whole - 1) for (let i = from; i < to; i++) visit(d + 1, at + i * inner);
    push(at + to * inner, (size[d]! - to) * inner);
  };
  visit(0, 0);
  return runs;
}

/** Copies the elements that two slices of a tensor have in common. */
function copyShared(to: Parameter, into: Float32Array, from: Parameter, values: Float32Array): void {
  // Trailing dimensions that both have alike are contiguous in both.
  let last = to.size.length - 1;
  while (last > 0 && to.size[last] === from.size[last] && to.begin[last] === from.begin[last]) last--;
  const inner = elements(to.size.slice(last + 1));
  const least = to.size.map((_, d) => Math.max(to.begin[d]!, from.begin[d]!));
  const most = to.size.map((n, d) => Math.min(to.begin[d]! + n, from.begin[d]! + from.size[d]!));
  const visit = (d: number, toRow: number, fromRow: number): void => {
    for (let i = least[d]!; i < most[d]!; i++) {
      const [toAt, fromAt] = [toRow * to.size[d]! + i - to.begin[d]!, fromRow * from.size[d]! + i - from.begin[d]!];
      if (d < last) visit(d + 1, toAt, fromAt);
      else {
        const length = (most[d]! - i) * inner;
        into.set(values.subarray(fromAt * inner, fromAt * inner + length), toAt * inner);
        return;
      }
    }
  };
  visit(0, 0, 0);
}

function bySharedTensor(graph: Graph): ReadonlyMap<string, Parameter> {
  return new Map(parameters(graph).map((parameter) => [parameter.tensor.name, parameter]));
}

function within<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new Error(`Of ${what}: ${(error as Error).message}.`, { cause: error });
  }
}

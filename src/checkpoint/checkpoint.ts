import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { costOf } from '../cost/cost.js';
import { BignasError, shown } from '../errors.js';
import { buildGraph, sharedTensors } from '../graph/buildGraph.js';
import { batchNorms, elements, type Graph } from '../graph/graph.js';
import type { ChannelStatistics, Statistics } from '../graph/statistics.js';
import { SharedWeights } from '../graph/weights.js';
import { parseArchitecture } from '../space/architecture.js';
import { architectureId } from '../space/identity.js';
import { writeFolderAtomic } from '../files/atomic.js';
import { storedFrontierSchema, type ChildRecord, type Costs, type Frontier } from './frontier.js';
import { checkpointFiles, checkpointFormat, checkpointVersion, manifestSchema, type CheckpointFile, type Manifest } from './manifest.js';
import { decodeSafetensors, encodeSafetensors, type Tensor, type Tensors } from './safetensors.js';
import { goldenOf, int8Of, statisticsTensors, weightTensors, type Int8Calibration } from './tensors.js';

/** Training crops for calibration, uint8 at the fixed size. */
export interface CalibrationCrops {
  /** [count, crop, crop, 3] */
  readonly crops: Uint8Array;
  readonly count: number;
}

/** The shared weights and all a server needs to use them, read and checked. */
export interface Checkpoint {
  readonly folder: string;
  readonly manifest: Manifest;
  /** Hex SHA-256 of manifest.json, which holds every other file's. */
  readonly digest: string;
  /** On shared memory, so that workers use the same bytes. */
  readonly weights: SharedWeights;
  readonly calibration: CalibrationCrops;
  readonly frontier: Frontier;
  /** Calibrated statistics of the frontier's children, by id. */
  readonly statistics: ReadonlyMap<string, Statistics>;
  /** Logits for the golden photograph (`goldenLogits`) of children that have statistics, by id. Before format version 4 there were none. */
  readonly golden: ReadonlyMap<string, Float32Array>;
  /** What their int8 models need, where it is known. */
  readonly int8: ReadonlyMap<string, Int8Calibration>;
}

/** What a writer gives: a checkpoint before its files exist. */
export type CheckpointContent = Omit<Checkpoint, 'folder' | 'digest' | 'manifest'> & {
  readonly manifest: Omit<Manifest, 'format' | 'version' | 'files'>;
};

/** A checkpoint that was read, as a writer takes it. */
export function contentOf({ weights, calibration, frontier, statistics, golden, int8, manifest: { format: _f, version: _v, files: _files, ...manifest } }: Checkpoint): CheckpointContent {
  return { weights, calibration, frontier, statistics, golden, int8, manifest };
}

/** Every child that a frontier names, once. */
export function frontierChildren({ family, front }: Frontier): ChildRecord[] {
  return [...new Map([...Object.values(family), ...front].map((child) => [child.id, child])).values()];
}

/**
 * Writes a checkpoint whole or not at all.
 * @param extra further files of the folder (a run's optimiser state), which are no part of the checkpoint.
 */
export async function writeCheckpoint(
  folder: string,
  content: CheckpointContent,
  extra: ReadonlyMap<string, Uint8Array> = new Map(),
): Promise<void> {
  const { crop } = content.manifest.preprocessing;
  const { crops, count } = content.calibration;
  const files: Record<CheckpointFile, Uint8Array> = {
    'weights.safetensors': encodeSafetensors(weightTensors(content.weights), { format: checkpointFormat }),
    'calibration.safetensors': encodeSafetensors(new Map([['crops', { dtype: 'U8', shape: [count, crop, crop, 3], data: crops }]])),
    'frontier.json': json(content.frontier),
    'statistics.safetensors': encodeSafetensors(statisticsTensors(content.statistics, content.golden, content.int8)),
  };
  const manifest: Manifest = {
    format: checkpointFormat,
    version: checkpointVersion,
    ...content.manifest,
    files: Object.fromEntries(checkpointFiles.map((name) => [name, sha256(files[name])])) as Record<CheckpointFile, string>,
  };
  await writeFolderAtomic(folder, new Map<string, Uint8Array>([...Object.entries(files), ...extra, ['manifest.json', json(manifest)]]));
}

/**
 * Reads a checkpoint, or the latest one of a training run's folder. Every name, shape, type and hash is checked before use.
 * @throws BignasError CHECKPOINT_INVALID or CHECKPOINT_NEWER, naming the file at fault.
 */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const folder = await checkpointFolder(path);
  const manifestBytes = await read(folder, 'manifest.json');
  const manifest = parseManifest(folder, manifestBytes);
  const files = {} as Record<CheckpointFile, Uint8Array>;
  for (const name of checkpointFiles) {
    files[name] = await read(folder, name);
    const got = sha256(files[name]);
    if (got !== manifest.files[name])
      throw invalid(folder, name, `its SHA-256 is ${got}, the manifest says ${manifest.files[name]}. The file is damaged or was replaced: copy the checkpoint again`);
  }
  const weights = inFile(folder, 'weights.safetensors', () => readWeights(manifest, decodeSafetensors(files['weights.safetensors'])));
  const calibration = inFile(folder, 'calibration.safetensors', () => readCrops(manifest, decodeSafetensors(files['calibration.safetensors'])));
  const frontier = inFile(folder, 'frontier.json', () => readFrontier(manifest, files['frontier.json']));
  const { statistics, golden, int8 } = inFile(folder, 'statistics.safetensors', () => readStatistics(manifest, frontierChildren(frontier), decodeSafetensors(files['statistics.safetensors'])));
  return { folder, manifest, digest: sha256(manifestBytes), weights, calibration, frontier, statistics, golden, int8 };
}

/** The checkpoint's own folder: `path`, or the step that a training run's `latest` names. */
export async function checkpointFolder(path: string): Promise<string> {
  const folder = resolve(path);
  const latest = await readFile(join(folder, 'latest'), 'utf8').catch(() => undefined);
  if (latest === undefined) return folder;
  const step = latest.trim();
  if (!/^step-\d+$/.test(step)) throw invalid(folder, 'latest', `expected a name such as step-100, got ${shown(step)}`);
  return join(folder, step);
}

function parseManifest(folder: string, bytes: Uint8Array): Manifest {
  let data: unknown;
  try {
    data = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    throw invalid(folder, 'manifest.json', `it is not JSON (${(error as Error).message})`);
  }
  const head = z.object({ format: z.literal(checkpointFormat), version: z.int().positive() }).safeParse(data);
  if (!head.success) throw invalid(folder, 'manifest.json', `it is not a ${checkpointFormat}`);
  if (head.data.version > checkpointVersion)
    throw new BignasError(
      'CHECKPOINT_NEWER',
      `The checkpoint ${folder} has format version ${head.data.version}; this bignas reads up to ${checkpointVersion}. Update bignas.`,
    );
  const result = manifestSchema.safeParse(data);
  if (!result.success) throw invalid(folder, 'manifest.json', z.prettifyError(result.error));
  if (result.data.dataset.classes.length !== result.data.space.classes)
    throw invalid(folder, 'manifest.json', `${result.data.dataset.classes.length} class names for ${result.data.space.classes} classes`);
  return result.data;
}

function readWeights(manifest: Manifest, tensors: Tensors): SharedWeights {
  const wanted = sharedTensors(manifest.space);
  const count = wanted.reduce((sum, { shape }) => sum + elements(shape), 0);
  const weights = new SharedWeights(wanted, new Float32Array(new SharedArrayBuffer(count * 4)));
  expectNames(tensors, new Set(wanted.map(({ name }) => name)));
  for (const { name, shape } of wanted) weights.tensor(name).set(expectTensor(tensors, name, 'F32', shape).data);
  if (!weights.data.every(Number.isFinite)) throw new Error('a weight is not a finite number');
  return weights;
}

function readCrops(manifest: Manifest, tensors: Tensors): CalibrationCrops {
  const { crop } = manifest.preprocessing;
  const count = manifest.calibration.images;
  expectNames(tensors, new Set(['crops']));
  return { crops: expectTensor(tensors, 'crops', 'U8', [count, crop, crop, 3]).data as Uint8Array, count };
}

function readFrontier(manifest: Manifest, bytes: Uint8Array): Frontier {
  const result = storedFrontierSchema.safeParse(JSON.parse(Buffer.from(bytes).toString('utf8')));
  if (!result.success) throw new Error(z.prettifyError(result.error));
  const { family, front } = result.data;
  const checked = (child: StoredChild): ChildRecord => ({ ...child, costs: { ...checkedCosts(manifest, child), ...(child.costs.latency && { latency: child.costs.latency }) } });
  return {
    family: Object.fromEntries(Object.entries(family).map(([name, child]) => [name, checked(child)])) as Frontier['family'],
    front: front.map(checked) as [ChildRecord, ...ChildRecord[]],
  };
}

type StoredChild = z.infer<typeof storedFrontierSchema>['front'][number];

/** A child's costs by its graph, with which those of the file must agree where they are exact. */
function checkedCosts({ space }: Manifest, { id, architecture, costs }: StoredChild): Costs {
  const parsed = parseArchitecture(space, architecture);
  const expected = architectureId(space, parsed);
  if (id !== expected) throw new Error(`the id of ${architecture} is ${expected}, the file says ${id}`);
  const computed = costsOf(buildGraph(space, parsed));
  for (const cost of ['flops', 'params'] as const)
    if (costs[cost].value !== computed[cost].value) throw new Error(`the ${cost} of ${architecture} are ${computed[cost].value}, the file says ${costs[cost].value}`);
  return computed;
}

/** A graph's costs as a frontier has them. */
export function costsOf(graph: Graph): Costs {
  const { flops, params, bytes, memory } = costOf(graph);
  return {
    flops: { value: flops, how: 'measured' },
    params: { value: params, how: 'measured' },
    bytes: { value: bytes, how: 'predicted' },
    memory: { value: memory, how: 'predicted' },
  };
}

/** Calibrated statistics and golden logits by id, from safetensors entries: every name, shape and value is checked. */
export function readStatistics(
  manifest: Pick<Manifest, 'space'>,
  children: readonly Pick<ChildRecord, 'id' | 'architecture'>[],
  tensors: Tensors,
): { readonly statistics: Map<string, Statistics>; readonly golden: Map<string, Float32Array>; readonly int8: Map<string, Int8Calibration> } {
  const wanted = new Set<string>();
  const statistics = new Map<string, Statistics>();
  const golden = new Map<string, Float32Array>();
  const int8 = new Map<string, Int8Calibration>();
  const logits = (name: string): Float32Array => {
    wanted.add(name);
    const { data } = expectTensor(tensors, name, 'F32', [manifest.space.classes]);
    if (!data.every(Number.isFinite)) throw new Error(`tensor ${name} holds a value that is no logit`);
    return data as Float32Array;
  };
  for (const { id, architecture } of children) {
    const layers = batchNorms(buildGraph(manifest.space, parseArchitecture(manifest.space, architecture)));
    // A frontier's child may come without statistics; then it is calibrated when asked for.
    if (layers[0] && !tensors.has(`${id}/${layers[0].name}/mean`)) continue;
    const child = new Map<string, ChannelStatistics>();
    for (const { name, shape } of layers) {
      const part = (which: 'mean' | 'variance'): Float32Array => {
        const key = `${id}/${name}/${which}`;
        wanted.add(key);
        const { data } = expectTensor(tensors, key, 'F32', [shape.at(-1)!]);
        if (!data.every((v) => Number.isFinite(v) && (which === 'mean' || v >= 0))) throw new Error(`tensor ${key} holds a value that is no ${which}`);
        return data as Float32Array;
      };
      child.set(name, { mean: part('mean'), variance: part('variance') });
    }
    statistics.set(id, child);
    if (tensors.has(goldenOf(id))) golden.set(id, logits(goldenOf(id)));
    const names = int8Of(id);
    const ranges = tensors.get(names.ranges);
    if (ranges) {
      wanted.add(names.ranges);
      const { data } = expectTensor(tensors, names.ranges, 'F32', [ranges.data.length / 2, 2]);
      int8.set(id, { ranges: data as Float32Array, golden: logits(names.golden) });
    }
  }
  expectNames(tensors, wanted);
  return { statistics, golden, int8 };
}

function expectNames(tensors: Tensors, wanted: ReadonlySet<string>): void {
  for (const name of wanted) if (!tensors.has(name)) throw new Error(`tensor ${name} is missing`);
  for (const name of tensors.keys()) if (!wanted.has(name)) throw new Error(`tensor ${name} does not belong there`);
}

function expectTensor(tensors: Tensors, name: string, dtype: Tensor['dtype'], shape: readonly number[]): Tensor {
  const tensor = tensors.get(name);
  if (!tensor) throw new Error(`tensor ${name} is missing`);
  if (tensor.dtype !== dtype || tensor.shape.join() !== shape.join())
    throw new Error(`tensor ${name}: expected ${dtype} [${shape}], got ${tensor.dtype} [${tensor.shape}]`);
  return tensor;
}

/** The graph of a child that a checkpoint's space holds, from its canonical text. */
export function graphOf({ manifest }: Pick<Checkpoint, 'manifest'>, architecture: string): Graph {
  return buildGraph(manifest.space, parseArchitecture(manifest.space, architecture));
}

async function read(folder: string, name: string): Promise<Uint8Array> {
  try {
    return await readFile(join(folder, name));
  } catch (error) {
    throw invalid(folder, name, `it cannot be read (${(error as Error).message})`);
  }
}

function inFile<T>(folder: string, name: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw invalid(folder, name, (error as Error).message);
  }
}

function invalid(folder: string, file: string, reason: string): BignasError {
  return new BignasError('CHECKPOINT_INVALID', `The checkpoint ${folder} cannot be used: ${file}: ${reason}.`);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A value as a checkpoint's files have it. */
export function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}

import { createHash, randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { LRUCache } from 'lru-cache';
import { onnxBundle } from '../../src/bundle/bundle.js';
import { describeChild } from '../../src/bundle/child.js';
import type { BundleManifest } from '../../src/bundle/manifest.js';
import { calibrate, calibrationVersion } from '../../src/calibrate/calibrate.js';
import { PrefixStore } from '../../src/calibrate/prefixStore.js';
import { openCheckpoint, type Checkpoint } from '../../src/checkpoint/checkpoint.js';
import { BignasError } from '../../src/errors.js';
import { writeFileAtomic } from '../../src/files/atomic.js';
import { buildGraph } from '../../src/graph/buildGraph.js';
import type { Engine } from '../../src/graph/engine.js';
import type { Graph } from '../../src/graph/graph.js';
import type { Statistics } from '../../src/graph/statistics.js';
import type { SharedWeights } from '../../src/graph/weights.js';
import { onnxModel } from '../../src/onnx/model.js';
import { parseArchitecture, type Architecture } from '../../src/space/architecture.js';
import { StatisticsFolder, type KeptChild } from '../statisticsFolder.js';
import { receiveCheckpoint, sendCheckpoint, shareCheckpoint, type SentCheckpoint } from './checkpoint.js';
import { Transferred, type Handlers } from './protocol.js';

export interface BuildWorkerData {
  /** What is served, by serial number. */
  readonly checkpoints: readonly HeldCheckpoint[];
  readonly threads: number;
  /** Where bundles are written. */
  readonly folder: string;
  /** Bytes of computed statistics that are kept. */
  readonly statisticsBytes: number;
  /** Bytes that are kept of what children that begin alike share while they are calibrated; at least 1. */
  readonly prefixBytes: number;
  /** Where computed statistics are kept over restarts; undefined: nowhere. */
  readonly statisticsFolder: { readonly path: string; readonly maxBytes: number } | undefined;
}

/** A checkpoint and the number by which it is asked for: two of one digest may be held for a while. */
export interface HeldCheckpoint {
  readonly serial: number;
  readonly checkpoint: SentCheckpoint;
}

/** Where a child's statistics came from: the checkpoint, the disk, this worker's memory, or a calibration. */
export type StatisticsSource = 'checkpoint' | 'disk' | 'memory' | 'computed';

/** How a child was built. */
export interface BuildReport {
  /** Seconds, without the calibration. */
  readonly build: number;
  /** Seconds of the calibration; null where the statistics were there already. */
  readonly calibration: number | null;
  readonly source: StatisticsSource;
  /** What went wrong with kept statistics, for the log; the child is right all the same. */
  readonly warnings: readonly string[];
}

/** A child of a held checkpoint. */
export interface AskedChild {
  readonly serial: number;
  /** Canonical text. */
  readonly architecture: string;
}

export interface BuildRole {
  /** Reads and checks a checkpoint, or a training run's latest, and keeps it until it is released. */
  open: { input: { readonly serial: number; readonly path: string }; output: SentCheckpoint };
  release: { input: { readonly serial: number }; output: undefined };
  /** A child, as the run worker loads it. */
  build: { input: AskedChild; output: { readonly model: Uint8Array<ArrayBuffer>; readonly report: BuildReport } };
  /** A child, as a user downloads it: a file of the folder. */
  bundle: { input: AskedChild; output: BuiltBundle };
}

export interface BuiltBundle {
  readonly file: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly report: BuildReport;
}

interface Calibrated {
  readonly statistics: Statistics;
  readonly engine: BundleManifest['calibration']['engine'];
}

/** What a build worker builds with. */
export interface BuildEngine {
  readonly engine: Engine;
  readonly version: string;
  /** A child as the run worker loads it. */
  readonly modelOf: (graph: Graph, weights: SharedWeights, statistics: Statistics, id: string) => Uint8Array;
}

/** What a build worker answers. */
export function buildHandlers({ folder, statisticsBytes, prefixBytes, statisticsFolder, checkpoints: sent }: BuildWorkerData, held: HeldCheckpoints, { engine, version, modelOf }: BuildEngine): Handlers<BuildRole> {
  for (const one of sent) held.set(one.serial, receiveCheckpoint(one.checkpoint));
  const kept = statisticsFolder && new StatisticsFolder(statisticsFolder.path, statisticsFolder.maxBytes, `${engine.name}-${version}-${calibrationVersion}`);
  const prefixes = new PrefixStore(prefixBytes);
  /** Statistics computed here: a child that left memory is not calibrated again. */
  const computed = new LRUCache<string, Calibrated>({
    maxSize: statisticsBytes,
    sizeCalculation: ({ statistics }) => [...statistics.values()].reduce((sum, { mean, variance }) => sum + mean.byteLength + variance.byteLength, 0),
  });

  async function calibrated({ serial, architecture: text }: AskedChild, signal: AbortSignal): Promise<CalibratedChild> {
    const checkpoint = heldCheckpoint(held, serial);
    const architecture = parseArchitecture(checkpoint.manifest.space, text);
    const { id } = describeChild(checkpoint, architecture);
    const graph = buildGraph(checkpoint.manifest.space, architecture);
    return { checkpoint, architecture, id, graph, ...(await statisticsOf(checkpoint, { id, architecture: text }, graph, signal)) };
  }

  async function statisticsOf(checkpoint: Checkpoint, child: KeptChild, graph: Graph, signal: AbortSignal): Promise<Found> {
    const found = (calibrated: Calibrated, source: StatisticsSource): Found => ({ calibrated, report: { source, calibration: null, warnings } });
    const warnings: string[] = [];
    const warned = (error: unknown): undefined => {
      warnings.push((error as Error).message);
    };
    const shipped = checkpoint.statistics.get(child.id);
    if (shipped) return found({ statistics: shipped, engine: null }, 'checkpoint');
    const key = `${checkpoint.digest}/${child.id}`;
    const known = computed.get(key);
    if (known) return found(known, 'memory');
    const ours = (statistics: Statistics): Calibrated => ({ statistics, engine: { name: engine.name, version } });
    const stored = await kept?.read(checkpoint, child).catch(warned);
    if (stored) {
      const calibrated = ours(stored);
      computed.set(key, calibrated);
      return found(calibrated, 'disk');
    }
    const { manifest, weights, calibration: crops } = checkpoint;
    const started = performance.now();
    const source = { crops, preprocessing: manifest.preprocessing, batch: manifest.calibration.batch };
    const { statistics } = await calibrate(engine, graph, weights, source, { signal, prefixes: { store: prefixes, context: checkpoint.digest } });
    const calibrated = ours(statistics);
    const calibration = since(started);
    computed.set(key, calibrated);
    await kept?.write(checkpoint, child, calibrated.statistics).catch(warned);
    return { calibrated, report: { source: 'computed', calibration, warnings } };
  }

  return {
    async open({ serial, path }) {
      const checkpoint = shareCheckpoint(await openCheckpoint(path));
      held.set(serial, checkpoint);
      return sendCheckpoint(checkpoint);
    },
    release({ serial }) {
      held.delete(serial);
      return undefined;
    },
    async build(asked, signal) {
      const { checkpoint, graph, id, calibrated: { statistics }, report } = await calibrated(asked, signal);
      const started = performance.now();
      const model = ownBuffer(modelOf(graph, checkpoint.weights, statistics, id));
      return new Transferred({ model, report: { build: since(started), ...report } }, [model.buffer]);
    },
    async bundle(asked, signal) {
      const { checkpoint, architecture, graph, id, calibrated: { statistics, engine: by }, report } = await calibrated(asked, signal);
      const started = performance.now();
      const model = onnxModel(graph, checkpoint.weights, statistics, { name: id });
      const zip = onnxBundle(checkpoint, { description: describeChild(checkpoint, architecture), model, statistics, engine: by });
      const sha256 = createHash('sha256').update(zip).digest('hex');
      const file = `${randomUUID()}.zip`; // not the digest: an evicted bundle and its successor may both be there
      await mkdir(folder, { recursive: true }); // temporary folders get cleaned
      await writeFileAtomic(join(folder, file), zip).catch((error: unknown) => storageFull(error, zip.length));
      return { file, sha256, bytes: zip.length, report: { build: since(started), ...report } };
    },
  };
}

/** The checkpoints that a worker has been given, by serial number. */
export type HeldCheckpoints = Map<number, Checkpoint>;

export function heldCheckpoint(held: HeldCheckpoints, serial: number): Checkpoint {
  const checkpoint = held.get(serial);
  if (!checkpoint) throw new Error(`Checkpoint ${serial} is not held.`);
  return checkpoint;
}

interface Found {
  readonly calibrated: Calibrated;
  readonly report: Omit<BuildReport, 'build'>;
}

interface CalibratedChild extends Found {
  readonly checkpoint: Checkpoint;
  readonly architecture: Architecture;
  readonly id: string;
  readonly graph: Graph;
}

function storageFull(error: unknown, bytes: number): never {
  if (!['ENOSPC', 'EDQUOT', 'EFBIG'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  throw new BignasError('STORAGE_FULL', `The server has no room on its disk for the bundle's ${bytes} bytes.`, { bytes }, { cause: error });
}

/** The same bytes on a buffer that holds nothing else, so that it can move to another thread. */
function ownBuffer(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return bytes.buffer instanceof ArrayBuffer && bytes.byteLength === bytes.buffer.byteLength ? (bytes as Uint8Array<ArrayBuffer>) : new Uint8Array(bytes);
}

function since(started: number): number {
  return (performance.now() - started) / 1000;
}

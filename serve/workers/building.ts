import { createHash } from 'node:crypto';
import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as letEventsIn } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import { bundleFiles, bundleParts, fastCrc32 } from '../../src/bundle/bundle.js';
import { describeChild } from '../../src/bundle/child.js';
import { deltaFiles } from '../../src/bundle/delta.js';
import type { BundleOptions } from '../../src/bundle/formats.js';
import type { BundleManifest } from '../../src/bundle/manifest.js';
import { calibrate, calibrationVersion } from '../../src/calibrate/calibrate.js';
import { goldenLogits } from '../../src/calibrate/golden.js';
import { calibrateInt8, int8Version } from '../../src/calibrate/int8.js';
import { PrefixStore } from '../../src/calibrate/prefixStore.js';
import { openCheckpoint, type Checkpoint } from '../../src/checkpoint/checkpoint.js';
import { BignasError } from '../../src/errors.js';
import { writeFileAtomic } from '../../src/files/atomic.js';
import { buildGraph } from '../../src/graph/buildGraph.js';
import type { Engine } from '../../src/graph/engine.js';
import type { Graph } from '../../src/graph/graph.js';
import type { Statistics } from '../../src/graph/statistics.js';
import type { SharedWeights } from '../../src/graph/weights.js';
import type { Files } from '../../src/encoding/container.js';
import { formatArchitecture, parseArchitecture, type Architecture } from '../../src/space/architecture.js';
import { StatisticsFolder, type KeptChild, type KeptStatistics } from '../statisticsFolder.js';
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
  readonly warnings: string[];
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
  bundle: { input: AskedBundle; output: BuiltBundle };
}

export interface AskedBundle extends AskedChild {
  readonly options: BundleOptions;
  /** Canonical text of the child that a delta leads from; undefined: the whole bundle. */
  readonly have: string | undefined;
  /** What the file's name begins with. */
  readonly key: string;
}

export interface BuiltBundle {
  /** `key-sha256.container`: its name says what is in it, and whether it is whole. */
  readonly file: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly report: BuildReport;
}

interface Calibrated extends KeptStatistics {
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
export function buildHandlers({ folder, statisticsBytes, prefixBytes, statisticsFolder, threads, checkpoints: sent }: BuildWorkerData, held: HeldCheckpoints, { engine, version, modelOf }: BuildEngine): Handlers<BuildRole> {
  for (const one of sent) held.set(one.serial, receiveCheckpoint(one.checkpoint));
  const kept = statisticsFolder && new StatisticsFolder(statisticsFolder.path, statisticsFolder.maxBytes, `${engine.name}-${version}-${calibrationVersion}-${int8Version}`);
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
    const key = keyOf(checkpoint, child);
    const known = computed.get(key);
    if (known) return found(known, shipped ? 'checkpoint' : 'memory');
    if (shipped) return found({ statistics: shipped, golden: checkpoint.golden.get(child.id), int8: checkpoint.int8.get(child.id), engine: null }, 'checkpoint');
    const ours = (kept: KeptStatistics): Calibrated => ({ ...kept, engine: { name: engine.name, version } });
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
    const calibrated = ours({ statistics });
    const calibration = since(started);
    computed.set(key, calibrated);
    await kept?.write(checkpoint, child, calibrated).catch(warned);
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
      const { options, have, key } = asked;
      const child = await calibrated(asked, signal);
      const started = performance.now();
      const { checkpoint, architecture, graph, report } = child;
      const { statistics, engine: by, golden, int8 } = await proven(child, options, signal);
      const files = await bundleFiles(checkpoint, { description: describeChild(checkpoint, architecture), graph, statistics, golden: golden!, int8, engine: by }, options);
      const parts = bundleParts(options.container, have === undefined ? files : await updateFrom(have, child, files, options));
      const bytes = parts.reduce((sum, { length }) => sum + length, 0);
      await mkdir(folder, { recursive: true }); // temporary folders get cleaned
      // Written while it is hashed. What is found at the next start is checked by its name.
      const unnamed = join(folder, `.${key}.partial-${process.pid}`);
      const written = writeFileAtomic(unnamed, parts, { synced: false }).then(() => undefined, (error: unknown) => error);
      const sha256 = await digestMeanwhile(parts);
      const failure = await written;
      if (failure !== undefined) storageFull(failure, bytes);
      const file = `${key}-${sha256}.${options.container}`;
      await rename(unnamed, join(folder, file));
      return { file, sha256, bytes, report: { build: since(started), ...report } };
    },
  };

  /** What a bundle needs besides statistics; computed once a child, and kept with them. */
  async function proven({ checkpoint, id, architecture, graph, calibrated: known, report }: CalibratedChild, { dtype }: BundleOptions, signal: AbortSignal): Promise<Calibrated> {
    const { weights, manifest, calibration: crops } = checkpoint;
    const { preprocessing, calibration: { batch } } = manifest;
    let { golden, int8 } = known;
    if (golden && (dtype !== 'int8' || int8)) return known;
    golden ??= await goldenLogits(engine, graph, weights, known.statistics, preprocessing);
    if (dtype === 'int8') int8 ??= await calibrateInt8(graph, weights, known.statistics, { crops, preprocessing, batch }, { threads, signal });
    const child: KeptChild = { id, architecture: formatArchitecture(architecture) };
    const now: Calibrated = { ...known, golden, int8 };
    computed.set(keyOf(checkpoint, child), now);
    if (now.engine) await kept?.write(checkpoint, child, now).catch((error: unknown) => report.warnings.push((error as Error).message));
    return now;
  }
}

async function updateFrom(have: string, { checkpoint, architecture, graph }: CalibratedChild, files: Files, { container }: BundleOptions): Promise<Files> {
  const { space } = checkpoint.manifest;
  const held = { architecture: have, graph: buildGraph(space, parseArchitecture(space, have)) };
  const want = { architecture: formatArchitecture(architecture), graph, files };
  return deltaFiles(checkpoint.weights, { checkpoint: checkpoint.digest, have: held, want, container, crc32: fastCrc32 });
}

function keyOf({ digest }: Checkpoint, { id }: Pick<KeptChild, 'id'>): string {
  return `${digest}/${id}`;
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

/** Hex SHA-256 of the parts, one after another, a piece at a time: what is written meanwhile goes on between two. */
async function digestMeanwhile(parts: readonly Uint8Array[]): Promise<string> {
  const hash = createHash('sha256');
  for (const part of parts)
    for (let at = 0; at < part.length; at += 2 ** 20) {
      await letEventsIn();
      hash.update(part.subarray(at, at + 2 ** 20));
    }
  return hash.digest('hex');
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

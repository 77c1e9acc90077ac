/**
 * The build worker: slices, calibrates, folds and serialises children, and makes bundles of them. Nothing here runs a prediction, so
 * a long calibration holds none up.
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { workerData } from 'node:worker_threads';
import { LRUCache } from 'lru-cache';
import { onnxBundle } from '../../src/bundle/bundle.js';
import { describeChild } from '../../src/bundle/child.js';
import type { BundleManifest } from '../../src/bundle/manifest.js';
import { calibrate } from '../../src/calibrate/calibrate.js';
import { writeFileAtomic } from '../../src/files/atomic.js';
import { buildGraph } from '../../src/graph/buildGraph.js';
import type { Graph } from '../../src/graph/graph.js';
import type { Statistics } from '../../src/graph/statistics.js';
import { onnxEngine } from '../../src/onnx/engine.js';
import { onnxModel } from '../../src/onnx/model.js';
import { parseArchitecture, type Architecture } from '../../src/space/architecture.js';
import { receiveCheckpoint, type SentCheckpoint } from './checkpoint.js';
import { serveRole, Transferred } from './protocol.js';

export interface BuildWorkerData {
  readonly checkpoint: SentCheckpoint;
  readonly threads: number;
  /** Where bundles are written. */
  readonly folder: string;
  /** Bytes of computed statistics that are kept. */
  readonly statisticsBytes: number;
}

/** How long it took. `calibration` is null where the statistics were there already. */
export interface BuildSeconds {
  readonly build: number;
  readonly calibration: number | null;
}

export interface BuildRole {
  /** A child, as the run worker loads it. */
  build: { input: { readonly architecture: string }; output: { readonly model: Uint8Array; readonly seconds: BuildSeconds } };
  /** A child, as a user downloads it: a file of the folder. */
  bundle: { input: { readonly architecture: string }; output: BuiltBundle };
}

export interface BuiltBundle {
  readonly file: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly seconds: BuildSeconds;
}

interface Calibrated {
  readonly statistics: Statistics;
  readonly engine: BundleManifest['calibration']['engine'];
}

const { threads, folder, statisticsBytes, checkpoint: sent } = workerData as BuildWorkerData;
const checkpoint = receiveCheckpoint(sent);
const { manifest, weights } = checkpoint;
const engine = onnxEngine({ threads });
const { version: engineVersion } = createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string };

/** Statistics computed here, by the child's id: a child that left memory is not calibrated again. */
const computed = new LRUCache<string, Calibrated>({
  maxSize: statisticsBytes,
  sizeCalculation: ({ statistics }) => [...statistics.values()].reduce((sum, { mean, variance }) => sum + mean.byteLength + variance.byteLength, 0),
});

serveRole<BuildRole>({
  async build({ architecture }) {
    const { model, seconds } = await built(parseArchitecture(manifest.space, architecture));
    return new Transferred({ model, seconds }, model.byteLength === model.buffer.byteLength ? [model.buffer] : []);
  },
  async bundle({ architecture: text }) {
    const architecture = parseArchitecture(manifest.space, text);
    const { model, seconds, calibrated } = await built(architecture);
    const started = performance.now();
    const zip = onnxBundle(checkpoint, { description: describeChild(checkpoint, architecture), model, ...calibrated });
    const sha256 = createHash('sha256').update(zip).digest('hex');
    const file = `${randomUUID()}.zip`; // not the digest: an evicted bundle and its successor may both be there
    await mkdir(folder, { recursive: true }); // temporary folders get cleaned
    await writeFileAtomic(join(folder, file), zip);
    return { file, sha256, bytes: zip.length, seconds: { ...seconds, build: seconds.build + since(started) } };
  },
});

async function built(architecture: Architecture): Promise<{ model: Uint8Array; seconds: BuildSeconds; calibrated: Calibrated }> {
  const { id } = describeChild(checkpoint, architecture);
  const graph = buildGraph(manifest.space, architecture);
  const { calibrated, seconds: calibration } = await statisticsOf(id, graph);
  const started = performance.now();
  const model = onnxModel(graph, weights, calibrated.statistics, { name: id });
  return { model, calibrated, seconds: { build: since(started), calibration } };
}

async function statisticsOf(id: string, graph: Graph): Promise<{ calibrated: Calibrated; seconds: number | null }> {
  const shipped = checkpoint.statistics.get(id);
  if (shipped) return { calibrated: { statistics: shipped, engine: null }, seconds: null };
  const known = computed.get(id);
  if (known) return { calibrated: known, seconds: null };
  const started = performance.now();
  const statistics = await calibrate(engine, graph, weights, {
    crops: checkpoint.calibration,
    preprocessing: manifest.preprocessing,
    batch: manifest.calibration.batch,
  });
  const calibrated: Calibrated = { statistics, engine: { name: engine.name, version: engineVersion } };
  computed.set(id, calibrated);
  return { calibrated, seconds: since(started) };
}

function since(started: number): number {
  return (performance.now() - started) / 1000;
}

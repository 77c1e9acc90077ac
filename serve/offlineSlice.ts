import { copyFile, mkdtemp, rename, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { bundleName, bundleOptions } from '../src/bundle/formats.js';
import { openCheckpoint } from '../src/checkpoint/checkpoint.js';
import { onnxEngine } from '../src/onnx/engine.js';
import { onnxModel } from '../src/onnx/model.js';
import { askedBundle } from './askedBundle.js';
import { childOf, parseQuery, sliceQuery } from './schemas.js';
import { served } from './served.js';
import { buildHandlers, type BuiltBundle } from './workers/building.js';
import { sendCheckpoint } from './workers/checkpoint.js';

export interface OfflineSlice {
  /** A checkpoint's folder, or a training run's. */
  readonly checkpoint: string;
  /** As of `GET /slice`. */
  readonly query: Readonly<Record<string, string | undefined>>;
  /** Where the bundle goes. Default: a name of its own in the working folder. */
  readonly output: string | undefined;
  /** Where calibrated statistics are kept, and may lie already; undefined: nowhere. */
  readonly cacheFolder: string | undefined;
  readonly threads: number;
}

export interface WrittenBundle extends Pick<BuiltBundle, 'sha256' | 'bytes'> {
  readonly path: string;
  /** Canonical text. */
  readonly architecture: string;
  /** Seconds of its calibration; null where its statistics were there. */
  readonly calibration: number | null;
}

const STATISTICS_BYTES = 256 * 2 ** 20;

/** Cuts a child out of a checkpoint and writes its bundle: the bytes that a server on this machine sends. @throws what `GET /slice` answers errors with */
export async function sliceOffline({ checkpoint: path, query: texts, output, cacheFolder, threads }: OfflineSlice): Promise<WrittenBundle> {
  const checkpoint = await openCheckpoint(path);
  const query = parseQuery(sliceQuery, Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== undefined)));
  const options = bundleOptions(query);
  const from = served(0, checkpoint, []);
  const { child, have } = askedBundle(from, childOf(from, query).child, options, query);
  const target = resolve(output ?? bundleName(checkpoint.manifest.space.name, child.id, options, have?.id));
  // Beside its place, so that moving it there is one step.
  const folder = await mkdtemp(join(dirname(target), '.bignas-slice-'));
  try {
    const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string };
    const data = {
      checkpoints: [{ serial: 0, checkpoint: sendCheckpoint(checkpoint) }],
      threads,
      folder,
      statisticsBytes: STATISTICS_BYTES,
      prefixBytes: 1,
      statisticsFolder: cacheFolder === undefined ? undefined : { path: join(cacheFolder, 'statistics'), maxBytes: STATISTICS_BYTES },
    };
    const handlers = buildHandlers(data, new Map(), { engine: onnxEngine({ threads }), version, modelOf: (graph, weights, statistics, id) => onnxModel(graph, weights, statistics, { name: id }) });
    const asked = { serial: 0, architecture: child.architecture, options, have: have?.architecture, key: 'bundle' };
    const built = (await handlers.bundle(asked, new AbortController().signal)) as BuiltBundle;
    await move(join(folder, built.file), target);
    return { path: target, sha256: built.sha256, bytes: built.bytes, architecture: child.architecture, calibration: built.report.calibration };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function move(from: string, to: string): Promise<void> {
  await rename(from, to).catch(async (error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    await copyFile(from, to);
  });
}

import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { availableParallelism } from 'node:os';
import type { Logger } from 'pino';
import { calibrationVersion } from '../src/calibrate/calibrate.js';
import { int8Version } from '../src/calibrate/int8.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import type { LatencyTable } from '../src/cost/latency.js';
import { BignasError } from '../src/errors.js';
import { Admission } from './admission.js';
import { bundleFolder } from './bundleFolder.js';
import { Bundles } from './bundles.js';
import type { ChildDescription } from '../src/bundle/child.js';
import type { RunGroup } from './batches.js';
import { Children } from './children.js';
import { memoryParts, STATISTICS_BYTES, warnOfMemory } from './memory.js';
import { Metrics } from './metrics.js';
import type { SecurityOptions } from './middleware/security.js';
import { Predictions } from './predictions.js';
import { BodyRoom } from './body.js';
import { Buffers } from './buffers.js';
import { packageVersion } from './packageVersion.js';
import { Reloader } from './reload.js';
import { InService, nextSerial, served, type Served } from './served.js';
import type { BuildReport, BuildRole, BuildWorkerData } from './workers/building.js';
import { sendCheckpoint, shareCheckpoint } from './workers/checkpoint.js';
import type { ImageRole, ImageWorkerData } from './workers/image.js';
import type { Role } from './workers/protocol.js';
import type { RunRole, RunWorkerData } from './workers/running.js';
import type { TensorflowRole } from './workers/tensorflow.js';
import { Thread } from './workers/thread.js';

/** What computes. `auto`: TensorFlow where it sees a GPU, else ONNX Runtime. */
export const engineChoices = ['auto', 'onnx', 'tensorflow'] as const;

export interface ServiceOptions {
  /** Default onnx. */
  readonly engine?: (typeof engineChoices)[number];
  /** Threads of the engine in each worker that uses it, at least 1. */
  readonly threads: number;
  /** Run workers, at least 1. A child lives in one of them. */
  readonly workers: number;
  /** Bytes by which the server grows at most (`memoryParts`), and again of bundles on disk. */
  readonly cacheBytes: number;
  /** Bytes of a request's body. */
  readonly maxBody: number;
  /** Requests that compute or wait for it; more are refused. */
  readonly queue: number;
  /** A folder where calibrated statistics and bundles are kept over restarts, of each as many bytes as of children. Default: nowhere. */
  readonly cacheFolder?: string | undefined;
  /** Who may do what. Default: everything but administration is open. */
  readonly security?: SecurityOptions;
  /** Whether the family is had in memory from the start, so that a deadline has it to choose from. Default: not. */
  readonly warm?: boolean;
  /** Images that run together, at most. Default 16: activations of more cost memory and gain no throughput on a CPU. */
  readonly maxBatch?: number;
  /** Images a request. Default 32. */
  readonly maxImages?: number;
  /** Pixels of a request's images together, each counted before it is decoded. Default 50 million. */
  readonly maxPixels?: number;
  /** Latencies of other devices, by which a query may choose. Default: none. */
  readonly latencyTables?: readonly LatencyTable[];
  /** Milliseconds without progress after which a download is given up. Default 60 000. */
  readonly stalledMs?: number;
}

/** Everything that the routes use. */
export interface Services {
  readonly inService: InService;
  readonly reloader: Reloader;
  readonly children: Children;
  readonly bundles: Bundles;
  readonly predictions: Predictions;
  readonly maxImages: number;
  /** What those that compute may hold, once more for bodies that are still being read. */
  readonly room: BodyRoom;
  readonly buffers: Buffers;
  readonly images: readonly Thread<ImageRole>[];
  readonly build: Thread<BuildRole>;
  readonly run: readonly Thread<RunRole>[];
  /** Of all run workers. */
  readonly lanes: readonly Thread<RunRole>[];
  readonly admission: Admission;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly options: ServiceOptions;
  /** Whether the server has been told to stop. */
  draining: boolean;
  /** Ends the workers; what they were asked fails with SHUTTING_DOWN. */
  readonly close: () => Promise<void>;
}

/** Lanes of a run worker: each has a part of its threads, and of each child that many ask for a copy. */
const MOST_LANES = 4;
/** Bytes of memory for bodies and network inputs that is kept while nobody uses it. */
const UNUSED_BYTES = 32 * 2 ** 20;

/**
 * Starts the workers. Resolves when all are ready.
 * @param path where the checkpoint was opened, and is read again by a reload
 * @throws what keeps one from starting
 */
export async function startServices(opened: Checkpoint, path: string, options: ServiceOptions, logger: Logger): Promise<Services> {
  const metrics = new Metrics();
  const retire = (old: Pick<Served, 'serial'>): void => {
    children.retire(old);
    build.call('release', { serial: old.serial }).catch((error: unknown) => {
      // A worker that died meanwhile no longer has it.
      logger.debug({ err: error }, 'a checkpoint was not released');
    });
  };
  const inService = new InService(served(nextSerial(), shareCheckpoint(opened), options.latencyTables ?? []), retire);
  metrics.serve(inService.current.checkpoint);
  // Of no use to later servers unless their statistics are, too.
  const folder = options.cacheFolder === undefined ? await bundleFolder() : join(options.cacheFolder, 'bundles');

  const start = <M extends Role<M>>(role: string, data: () => unknown, onDeath?: (thread: Thread<M>) => void): Thread<M> => {
    const thread: Thread<M> = new Thread<M>({
      role,
      file: new URL(`./workers/${role}.js`, import.meta.url),
      data,
      onDeath: (error) => {
        metrics.workerDeaths.inc({ role });
        logger.error({ err: error, role }, 'a worker died; it is being started again');
        onDeath?.(thread);
      },
    });
    metrics.workerDeaths.inc({ role }, 0);
    return thread;
  };
  const { threads, workers, cacheBytes, maxImages = 32, maxPixels = 50_000_000, maxBatch = 16, cacheFolder } = options;
  const parts = memoryParts(cacheBytes, opened);
  warnOfMemory(cacheBytes, opened, logger);
  const images = Array.from({ length: imageWorkers() }, () => start<ImageRole>('image', () => ({ maxImages, maxPixels }) satisfies ImageWorkerData));
  const buildData = (): BuildWorkerData => ({
    checkpoints: inService.all.map(({ serial, checkpoint }) => ({ serial, checkpoint: sendCheckpoint(checkpoint) })),
    threads,
    folder,
    statisticsBytes: STATISTICS_BYTES,
    prefixBytes: parts.prefixes,
    statisticsFolder: cacheFolder === undefined ? undefined : { path: join(cacheFolder, 'statistics'), maxBytes: cacheBytes },
  });
  /** Once there: a worker may die before. */
  const memory: { children?: Children } = {};
  const startRun = <M extends Role<M> & RunRole>(role: string, data: () => unknown): Thread<M> =>
    start<M>(role, data, (thread) => {
      memory.children?.forget(thread);
    });
  const tensorflow = await tensorflowThread(options.engine ?? 'onnx', () => startRun<TensorflowRole>('tensorflow', buildData), logger).catch(async (error: unknown) => {
    await Promise.all(images.map((thread) => thread.close()));
    throw error;
  });
  const build: Thread<BuildRole> = tensorflow ?? start<BuildRole>('build', buildData);
  const startRunners = (count: number, each: number): Thread<RunRole>[] => Array.from({ length: count }, () => startRun<RunRole>('run', () => ({ threads: each }) satisfies RunWorkerData));
  const laneCount = threads === 1 ? 0 : Math.min(threads, MOST_LANES);
  const groups: RunGroup[] = tensorflow
    ? [{ worker: tensorflow, lanes: [] }]
    : Array.from({ length: workers }, () => ({ worker: startRunners(1, threads)[0]!, lanes: startRunners(laneCount, Math.floor(threads / laneCount)) }));
  const run = groups.map(({ worker }) => worker);
  const lanes = groups.flatMap((group) => group.lanes);

  const onBuilt = (of: Served, id: string, { build: seconds, calibration, source, warnings }: BuildReport): void => {
    metrics.buildSeconds.observe(seconds);
    if (calibration !== null) metrics.calibrationSeconds.observe(calibration);
    metrics.calibrations.inc({ source });
    of.calibrated.set(id, true);
    for (const warning of warnings) logger.warn({ warning }, 'kept statistics could not be used');
  };
  const observer = (cache: 'children' | 'bundles') =>
    metrics.cacheObserver(cache, (error) => {
      logger.error({ err: error, cache }, 'a cached value could not be disposed of');
    });
  const onLanesLack = ({ architecture }: ChildDescription, err: unknown): void => {
    logger.warn({ err, architecture }, 'the lanes lack a child that many ask for');
  };
  const buffers = new Buffers(UNUSED_BYTES);
  const children = new Children({ build, run: groups, maxBytes: parts.children, observer: observer('children'), onBuilt, maxBatch, batchObserver: metrics.batchObserver, buffers, onLanesLack });
  memory.children = children;
  const maker = `${packageVersion()}-${tensorflow ? 'tensorflow' : 'onnx'}-${calibrationVersion}-${int8Version}`;
  const bundles = await Bundles.open({ build, folder, maxBytes: cacheBytes, maker, observer: observer('bundles'), onBuilt });
  const all = [...new Set<Thread<ImageRole> | Thread<BuildRole> | Thread<RunRole>>([...images, build, ...run, ...lanes])];
  const close = async (): Promise<void> => {
    await Promise.all(all.map((thread) => thread.close()));
    if (options.cacheFolder === undefined) await rm(folder, { recursive: true, force: true });
  };
  try {
    await Promise.all(all.map((thread) => thread.ready));
  } catch (error) {
    await close();
    throw error;
  }
  const warm = (family: Served): void => {
    if (options.warm) void warmFamily(family, inService, children, parts.children, logger);
  };
  warm(inService.current);
  const admission = new Admission(options.queue, (count) => {
    metrics.requestsInFlight.set(count);
  });
  const reloader = new Reloader({ inService, build, children, retire, warm, metrics, logger, options }, path);
  const predictions = new Predictions(children, images, buffers, admission, metrics);
  const room = new BodyRoom(options.queue * options.maxBody);
  return { inService, reloader, children, bundles, predictions, maxImages, room, buffers, images, build, run, lanes, admission, metrics, logger, options, draining: false, close };
}

/**
 * The TensorFlow worker, where the choice is for it.
 * @throws what keeps it from starting, where nothing else is allowed
 */
async function tensorflowThread(choice: (typeof engineChoices)[number], start: () => Thread<TensorflowRole>, logger: Logger): Promise<Thread<TensorflowRole> | undefined> {
  // Loading TensorFlow takes seconds and hundreds of MiB: not where there can be no GPU.
  if (choice === 'onnx' || (choice === 'auto' && !gpuDevices.some((path) => existsSync(path)))) return undefined;
  const thread = start();
  try {
    await thread.ready;
    const device = await thread.call('device', undefined);
    if (choice === 'tensorflow' || device === 'gpu') {
      logger.info({ device }, 'TensorFlow computes');
      return thread;
    }
    logger.info('TensorFlow sees no GPU: ONNX Runtime computes');
  } catch (error) {
    if (choice === 'tensorflow') {
      await thread.close();
      throw new BignasError('ENGINE_MISSING', `TensorFlow cannot compute here: ${(error as Error).message}`, {}, { cause: error });
    }
    logger.warn({ err: error }, 'TensorFlow is of no use here: ONNX Runtime computes');
  }
  await thread.close();
  return undefined;
}

/** Device files of NVIDIA's driver, on Linux and on Windows's Linux. */
const gpuDevices = ['/dev/nvidiactl', '/dev/nvidia0', '/dev/dxg'];

/**
 * Half the processors, from two to four: an image of the size that cameras make takes tens of milliseconds of one, its prediction a few; and one worker alone waits for its thread pool half of the time.
 */
function imageWorkers(): number {
  return Math.max(2, Math.min(4, Math.floor(availableParallelism() / 2)));
}

/**
 * Builds the family one after another, the cheapest first, as far as it fits into memory: those whose statistics the checkpoint has, since a calibration would hold
 * up what clients ask for. Nothing waits for it. It ends when another checkpoint is served.
 */
async function warmFamily(served: Served, inService: InService, children: Children, maxBytes: number, logger: Logger): Promise<void> {
  const { checkpoint } = served;
  const { family } = checkpoint.frontier;
  for (const child of [...new Map(Object.values(family).map((record) => [record.id, record])).values()].sort((a, b) => a.costs.bytes.value - b.costs.bytes.value)) {
    if (!checkpoint.statistics.has(child.id)) continue;
    if (inService.current !== served) return;
    if (children.bytes + 3 * child.costs.bytes.value > maxBytes) return;
    try {
      await children.warm(served, served.describe(child.architecture));
    } catch (error) {
      if (inService.current !== served || (error instanceof BignasError && error.code === 'SHUTTING_DOWN')) return;
      logger.warn({ err: error, architecture: child.architecture }, 'a child could not be warmed');
    }
  }
}

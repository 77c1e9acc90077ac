import { rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { Logger } from 'pino';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import type { Frontier } from '../src/checkpoint/frontier.js';
import type { LatencyTable } from '../src/cost/latency.js';
import { frontierOnDevice } from '../src/search/devices.js';
import { describeChild } from '../src/bundle/child.js';
import { BignasError } from '../src/errors.js';
import { parseArchitecture } from '../src/space/architecture.js';
import { Admission } from './admission.js';
import { bundleFolder } from './bundleFolder.js';
import { Bundles } from './bundles.js';
import { Children } from './children.js';
import { Metrics } from './metrics.js';
import type { BuildRole, BuildSeconds, BuildWorkerData } from './workers/build.js';
import { sendCheckpoint, shareCheckpoint, sharedBytes } from './workers/checkpoint.js';
import type { ImageRole, ImageWorkerData } from './workers/image.js';
import type { Role } from './workers/protocol.js';
import type { RunRole, RunWorkerData } from './workers/run.js';
import { Thread } from './workers/thread.js';

export interface ServiceOptions {
  /** Threads of the engine in each worker that uses it, at least 1. */
  readonly threads: number;
  /** Run workers, at least 1. A child lives in one of them. */
  readonly workers: number;
  /** Bytes of children in memory, and again of bundles on disk. */
  readonly cacheBytes: number;
  /** Bytes of a request's body. */
  readonly maxBody: number;
  /** Requests that compute or wait for it; more are refused. */
  readonly queue: number;
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
  readonly checkpoint: Checkpoint;
  /** The frontier with a device's latencies, by the device's name. */
  readonly devices: ReadonlyMap<string, Frontier>;
  readonly children: Children;
  readonly bundles: Bundles;
  readonly images: readonly Thread<ImageRole>[];
  readonly build: Thread<BuildRole>;
  readonly run: readonly Thread<RunRole>[];
  readonly admission: Admission;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly options: ServiceOptions;
  /** Whether the server has been told to stop. */
  draining: boolean;
  /** Ends the workers; what they were asked fails with SHUTTING_DOWN. */
  close(): Promise<void>;
}

/** Bytes of batch-norm statistics that the build worker keeps: some hundred large children. */
const STATISTICS_BYTES = 64 * 2 ** 20;

/** Starts the workers. Resolves when all are ready. @throws what keeps one from starting */
export async function startServices(opened: Checkpoint, options: ServiceOptions, logger: Logger): Promise<Services> {
  const checkpoint = shareCheckpoint(opened);
  const { space } = checkpoint.manifest;
  const devices = new Map((options.latencyTables ?? []).map((table) => [table.device, frontierOnDevice(space, checkpoint.frontier, table)]));
  const metrics = new Metrics();
  metrics.sharedWeightBytes.set(sharedBytes(checkpoint).weights);
  metrics.checkpointInfo.set({ checkpoint: checkpoint.manifest.name, space: checkpoint.manifest.space.name, digest: checkpoint.digest }, 1);
  const folder = await bundleFolder();

  const start = <M extends Role<M>>(
    role: string,
    data: unknown,
    onDeath?: (thread: Thread<M>) => void,
  ): Thread<M> => {
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
  const { threads, workers, cacheBytes: maxBytes, maxImages = 32, maxPixels = 50_000_000, maxBatch = 16 } = options;
  const { preprocessing } = checkpoint.manifest;
  const images = Array.from({ length: imageWorkers() }, () =>
    start<ImageRole>('image', { preprocessing, maxImages, maxPixels } satisfies ImageWorkerData),
  );
  const build = start<BuildRole>('build', {
    checkpoint: sendCheckpoint(checkpoint),
    threads,
    folder,
    statisticsBytes: STATISTICS_BYTES,
  } satisfies BuildWorkerData);
  const run = Array.from({ length: workers }, () =>
    start<RunRole>('run', { threads } satisfies RunWorkerData, (thread) => {
      children.forget(thread);
    }),
  );

  const onBuilt = (seconds: BuildSeconds): void => {
    metrics.buildSeconds.observe(seconds.build);
    if (seconds.calibration !== null) metrics.calibrationSeconds.observe(seconds.calibration);
  };
  const observer = (cache: 'children' | 'bundles') =>
    metrics.cacheObserver(cache, (error) => {
      logger.error({ err: error, cache }, 'a cached value could not be disposed of');
    });
  const children = new Children({
    build, run, maxBytes, observer: observer('children'), onBuilt, maxBatch,
    batchObserver: {
      ran: (rows, predictions) => {
        metrics.batchRows.observe(rows);
        metrics.batchPredictions.observe(predictions);
      },
    },
  });
  const bundles = new Bundles({ build, folder, maxBytes, observer: observer('bundles'), onBuilt });
  const all = [...images, build, ...run];
  const close = async (): Promise<void> => {
    await Promise.all(all.map((thread) => thread.close()));
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await Promise.all(all.map((thread) => thread.ready));
  } catch (error) {
    await close();
    throw error;
  }
  if (options.warm) void warmFamily(checkpoint, children, maxBytes, logger);
  const admission = new Admission(options.queue, (count) => {
    metrics.requestsInFlight.set(count);
  });
  return { checkpoint, devices, children, bundles, images, build, run, admission, metrics, logger, options, draining: false, close };
}

/** Half the processors, up to four: an image of the size that cameras make takes tens of milliseconds of one, its prediction a few. */
function imageWorkers(): number {
  return Math.max(1, Math.min(4, Math.floor(availableParallelism() / 2)));
}

/**
 * Builds the family one after another, the cheapest first, as far as it fits into memory: those whose statistics the checkpoint has, since a calibration would hold
 * up what clients ask for. Nothing waits for it.
 */
async function warmFamily(checkpoint: Checkpoint, children: Children, maxBytes: number, logger: Logger): Promise<void> {
  const { family } = checkpoint.frontier;
  for (const child of [...new Map(Object.values(family).map((record) => [record.id, record])).values()].sort((a, b) => a.costs.bytes.value - b.costs.bytes.value)) {
    if (!checkpoint.statistics.has(child.id)) continue;
    if (children.bytes + 3 * child.costs.bytes.value > maxBytes) return;
    try {
      await children.warm(describeChild(checkpoint, parseArchitecture(checkpoint.manifest.space, child.architecture)));
    } catch (error) {
      if (error instanceof BignasError && error.code === 'SHUTTING_DOWN') return;
      logger.warn({ err: error, architecture: child.architecture }, 'a child could not be warmed');
    }
  }
}

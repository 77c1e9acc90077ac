import type { Logger } from 'pino';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import { calibrationBytes } from '../src/cost/memory.js';
import { buildGraph } from '../src/graph/buildGraph.js';
import { biggest } from '../src/space/architecture.js';

/** What a busy server has more than an idle one, whatever it keeps: libraries' code, the workers' heaps, predictions, what glibc does not return. */
const BUSY_BYTES = 64 * 2 ** 20;
/** Bytes of batch-norm statistics that the build worker keeps, so that no child is calibrated twice: more than a thousand children of the shipped checkpoint. */
export const STATISTICS_BYTES = 64 * 2 ** 20;
/** Resident bytes over those that are kept: what is kept lies between holes that calibrations and children left. */
const HOLES = 1.6;
/** Part of what is kept that children share, where they begin alike, while they are calibrated. */
const PREFIX_PART = 1 / 4;
/** Part of --cache-bytes that is kept at least, where the rest leaves too little. */
const LEAST_KEPT = 1 / 8;

/** How --cache-bytes is shared out: with all of it taken, a server is larger than an idle one by no more. */
export interface MemoryParts {
  readonly children: number;
  readonly prefixes: number;
  /** What the calibration of the space's largest child takes, at most. */
  readonly calibration: number;
  /** Bytes from which on the bound holds; fewer are exceeded by what is missing. */
  readonly needed: number;
}

export function memoryParts(cacheBytes: number, { manifest: { space, calibration } }: Pick<Checkpoint, 'manifest'>): MemoryParts {
  const largest = buildGraph(space, { ...biggest(space), resolution: Math.max(...space.resolutions) });
  const taken = calibrationBytes(largest, Math.min(calibration.batch, calibration.images));
  const fixed = taken + BUSY_BYTES + STATISTICS_BYTES;
  const kept = Math.max(LEAST_KEPT * cacheBytes, (cacheBytes - fixed) / HOLES);
  return {
    children: Math.ceil((1 - PREFIX_PART) * kept),
    prefixes: Math.ceil(PREFIX_PART * kept),
    calibration: taken,
    needed: Math.ceil(fixed / (1 - HOLES * LEAST_KEPT)),
  };
}

/**
 * Says where the bound does not hold for a checkpoint.
 * @param begun the one that the server began with: its caches keep their sizes, so a larger calibration goes beyond
 */
export function warnOfMemory(cacheBytes: number, checkpoint: Pick<Checkpoint, 'manifest'>, logger: Logger, begun?: Pick<Checkpoint, 'manifest'>): void {
  const { calibration, needed } = memoryParts(cacheBytes, checkpoint);
  const facts = { cacheBytes, calibration, needed };
  if (cacheBytes < needed)
    logger.warn(facts, 'memory will go beyond --cache-bytes: the calibration of the largest child takes so many bytes for a moment, and from so many needed the bound holds');
  else if (begun && calibration > memoryParts(cacheBytes, begun).calibration)
    logger.warn(facts, 'memory may go beyond --cache-bytes: the calibration of the largest child takes more than that of the checkpoint that the server began with; start it again to share the memory out anew');
}

// How a server's glibc deals with memory. Plain JavaScript without dependencies, as everything in this folder.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

/**
 * For small images. What a prediction frees is kept for the next one, whichever child that is of. A calibration's activations, which are larger, go back to the kernel at once: kept, they would leave holes
 * between what stays, and the server would grow to twice as much.
 */
export const SERVER_ENVIRONMENT = {
  MALLOC_ARENA_MAX: '1',
  MALLOC_MMAP_THRESHOLD_: '2097152',
  MALLOC_TRIM_THRESHOLD_: '33554432',
};

/** Pixels of a side, above which a prediction's activations are as large as that. */
const LARGE_CROP = 64;

/** For the checkpoint that is served: of large images glibc keeps every block, since asking the kernel anew in each run takes batches up to a quarter of their speed. */
export function serverEnvironment(args, environment, shipped) {
  const { values } = parseArgs({ args, options: { checkpoint: { type: 'string' } }, strict: false });
  const crop = cropOf(typeof values.checkpoint === 'string' ? values.checkpoint : environment.BIGNAS_CHECKPOINT || shipped);
  return crop > LARGE_CROP ? { ...SERVER_ENVIRONMENT, MALLOC_MMAP_MAX_: '0' } : SERVER_ENVIRONMENT;
}

/** Of a checkpoint or a training run's latest one; undefined where there is none: the server says so. */
function cropOf(folder) {
  try {
    const latest = join(folder, 'latest');
    const checkpoint = existsSync(latest) ? join(folder, readFileSync(latest, 'utf8').trim()) : folder;
    return JSON.parse(readFileSync(join(checkpoint, 'manifest.json'), 'utf8')).preprocessing.crop;
  } catch {
    return undefined;
  }
}

/** A thread of the loader: makes the crops of its part of each batch, straight into shared memory. */
import { parentPort, workerData } from 'node:worker_threads';
import { sentError, type SentError } from '../errors.js';
import type { Augmentation } from './augment.js';
import type { SkippedImage, SplitSource } from './dataset.js';
import { openSplit } from './openSplit.js';

export interface LoaderData {
  readonly source: SplitSource;
  readonly augmentation: Omit<Augmentation, 'epoch'>;
}

export interface LoaderTask {
  readonly id: number;
  readonly indices: Uint32Array;
  readonly epoch: number;
  /** indices × crop × crop × 3, on shared memory. */
  readonly out: Uint8Array;
}

/** Which images were replaced, or why the task failed. */
export type LoaderAnswer =
  | { readonly id: number; readonly skipped: readonly SkippedImage[] }
  | { readonly id: number; readonly error: SentError };

const port = parentPort;
if (!port) throw new Error('This file runs as a worker thread.');
const { source, augmentation } = workerData as LoaderData;

let skipped: SkippedImage[] = [];
const split = openSplit(source, (images) => skipped.push(...images));

async function run({ id, indices, epoch, out }: LoaderTask): Promise<LoaderAnswer> {
  skipped = [];
  try {
    out.set(await split.augmented(indices, { ...augmentation, epoch }));
    return { id, skipped };
  } catch (error) {
    return { id, error: sentError(error) };
  }
}

let last = Promise.resolve();
port.on('message', (task: LoaderTask) => {
  last = last.then(async () => port.postMessage(await run(task)));
});

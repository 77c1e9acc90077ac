/** The order of training: stateless in seed and step, so that a resumed run draws the batches of an unbroken one. */
import { BignasError, shown } from '../errors.js';
import { key, permutation } from '../random.js';

export interface BatchIndices {
  /** Indices into the training split, `batch` of them. */
  readonly indices: Uint32Array;
  /** Epoch of the step, from 0: augmentation depends on it. */
  readonly epoch: number;
}

const PURPOSE = key('shuffle');

/** Steps of an epoch: the last, partial batch is dropped (other images are in it each epoch). */
export function stepsPerEpoch(count: number, batch: number): number {
  if (!Number.isSafeInteger(batch) || batch < 1 || batch > count) {
    throw new BignasError(
      'OPTION_INVALID',
      `Expected the batch to be a whole number from 1 to the ${count} training images, got ${shown(batch)}`,
    );
  }
  return Math.floor(count / batch);
}

/** The last permutation made: a pure function's value, kept because an epoch's steps all ask for the same one. */
let last: { count: number; seed: number; epoch: number; order: Uint32Array } | undefined;

/** The order of an epoch. Shared between callers: do not write into it. */
function epochOrder(count: number, seed: number, epoch: number): Uint32Array {
  if (last?.count !== count || last.seed !== seed || last.epoch !== epoch) {
    last = { count, seed, epoch, order: permutation(count, PURPOSE, seed, epoch) };
  }
  return last.order;
}

/** The batch of global step `step` (from 0): within an epoch no image comes twice. */
export function batchIndices(count: number, batch: number, seed: number, step: number): BatchIndices {
  const steps = stepsPerEpoch(count, batch);
  const epoch = Math.floor(step / steps);
  const first = (step % steps) * batch;
  return { indices: epochOrder(count, seed, epoch).slice(first, first + batch), epoch };
}

/** Training's batches, made ahead by worker threads: a training step blocks the thread that calls it. */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { BignasError, receivedError, shown } from '../errors.js';
import type { AugmentationKind } from './augment.js';
import { batchIndices } from './batches.js';
import type { Dataset, SkippedImage } from './dataset.js';
import type { LoaderAnswer, LoaderData, LoaderTask } from './loaderWorker.js';

export interface LoaderOptions {
  readonly dataset: Dataset;
  /** Images a step. */
  readonly batch: number;
  /** Decides the order of the images, and their random crops. */
  readonly seed: number;
  /** Decides the crops in its place: other crops of the same images, where children see different patches. Default: `seed`. */
  readonly cropSeed?: number;
  readonly kind: AugmentationKind;
  /** As in `Augmentation`. */
  readonly cutout?: number;
  /**
   * Worker threads, from 1; no result depends on it. Default: one fewer than the processor has, at most 8. Photos are decoded in libuv's
   * pool, which all threads share: `npm run train` gives it as many as the processor has.
   */
  readonly threads?: number;
  /** Steps made before they are asked for, from 0. Default 2. */
  readonly ahead?: number;
  /** Step at which training ends: none is made from it on. Default: never. */
  readonly steps?: number;
}

export interface LoadedBatch {
  /** Indices into the training split. */
  readonly indices: Uint32Array;
  readonly epoch: number;
  /** batch × crop × crop × 3, uint8: as `split.augmented` makes them. Written over after the next call of `batch`. */
  readonly crops: Uint8Array;
}

export interface Loader {
  /**
   * The batch of step `step` (from 0), and the order to make the next ones. Any step may be asked for, ascending ones come without waiting;
   * one call at a time.
   * @throws what the split throws, such as DATA_INVALID
   */
  batch(step: number): Promise<LoadedBatch>;
  /** Ends the threads; what is under way fails. */
  close(): Promise<void>;
}

/** Starts the threads. In memory are `ahead` + 2 batches, whatever the data set's size. */
export function openLoader({ dataset, batch, seed, cropSeed = seed, kind, cutout, threads = defaultThreads(), ahead = 2, steps = Infinity }: LoaderOptions): Loader {
  const split = dataset.splits.train;
  const length = dataset.preprocessing.crop ** 2 * 3;
  for (const [name, value, least] of [['threads', threads, 1], ['ahead', ahead, 0]] as const)
    if (!Number.isSafeInteger(value) || value < least) throw new BignasError('OPTION_INVALID', `Expected \`${name}\` to be a whole number from ${least}, got ${shown(value)}`);
  batchIndices(split.count, batch, seed, 0); // a batch that cannot be is refused before threads start
  const data: LoaderData = { source: split.source, augmentation: { seed: cropSeed, kind, ...(cutout !== undefined && { cutout }) } };
  const workers = Array.from({ length: Math.min(threads, batch) }, (_, i) => new LoaderThread(data, i));

  interface Pending {
    readonly indices: Uint32Array;
    readonly epoch: number;
    readonly crops: Uint8Array;
    /** Settles when no thread writes into `crops` any more. */
    readonly done: Promise<void>;
  }
  const pending = new Map<number, Pending>();
  const free: Uint8Array[] = [];
  let given: Uint8Array | undefined;
  let closed = false;

  const request = (step: number): Pending => {
    const { indices, epoch } = batchIndices(split.count, batch, seed, step);
    const crops = free.pop() ?? new Uint8Array(new SharedArrayBuffer(batch * length));
    const parts = workers.map(async (worker, i) => {
      const from = Math.floor((i * batch) / workers.length);
      const to = Math.floor(((i + 1) * batch) / workers.length);
      split.skip(await worker.make({ indices: indices.slice(from, to), epoch, out: crops.subarray(from * length, to * length) }));
    });
    const done = Promise.allSettled(parts).then((settled) => {
      const failed = settled.find((part) => part.status === 'rejected');
      if (failed) throw failed.reason;
    });
    done.catch(() => undefined); // whoever asks for the step hears of it
    return { indices, epoch, crops, done };
  };
  const forget = (step: number, { crops, done }: Pending): void => {
    pending.delete(step);
    const release = (): void => void free.push(crops);
    done.then(release, release);
  };

  return {
    async batch(step) {
      if (closed) throw new Error('The loader is closed.');
      if (given) free.push(given);
      given = undefined;
      // After a jump, what was made for the old place is let go.
      for (const [other, made] of pending) if (other < step || other > step + ahead) forget(other, made);
      for (let next = step; next <= step + ahead && (next === step || next < steps); next++)
        if (!pending.has(next)) pending.set(next, request(next));
      const made = pending.get(step)!;
      try {
        await made.done;
      } catch (error) {
        forget(step, made);
        throw error;
      }
      pending.delete(step);
      given = made.crops;
      return { indices: made.indices, epoch: made.epoch, crops: made.crops };
    },
    async close() {
      closed = true;
      await Promise.all(workers.map((worker) => worker.close()));
    },
  };
}

function defaultThreads(): number {
  return Math.min(Math.max(availableParallelism() - 1, 1), 8);
}

/** One worker and what it was asked. It takes its tasks in order, all of them posted at once: nobody posts while a step computes. */
class LoaderThread {
  readonly #worker: Worker;
  readonly #asked = new Map<number, { readonly resolve: (skipped: readonly SkippedImage[]) => void; readonly reject: (error: Error) => void }>();
  #count = 0;
  #failure: Error | undefined;

  constructor(data: LoaderData, i: number) {
    this.#worker = new Worker(new URL('loaderWorker.js', import.meta.url), { workerData: data, name: `bignas-data-${i}` });
    this.#worker.on('message', (answer: LoaderAnswer) => {
      const asked = this.#asked.get(answer.id);
      this.#asked.delete(answer.id);
      if ('error' in answer) asked?.reject(receivedError(answer.error));
      else asked?.resolve(answer.skipped);
    });
    this.#worker.on('error', (error) => this.#fail(error instanceof Error ? error : new Error(String(error))));
    this.#worker.on('exit', (code) => this.#fail(new Error(`A thread that loads images ended with ${code}.`)));
  }

  make(task: Omit<LoaderTask, 'id'>): Promise<readonly SkippedImage[]> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const id = ++this.#count;
      this.#asked.set(id, { resolve, reject });
      this.#worker.postMessage({ ...task, id } satisfies LoaderTask);
    });
  }

  async close(): Promise<void> {
    this.#fail(new Error('The loader was closed.'));
    await this.#worker.terminate();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#asked.values()) reject(this.#failure);
    this.#asked.clear();
  }
}

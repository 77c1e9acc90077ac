import { Worker, type Transferable } from 'node:worker_threads';
import { BignasError, receivedError } from '../../src/errors.js';
import type { Cancel, Message, Question, Role } from './protocol.js';

export interface ThreadOptions {
  /** For logs and metrics. */
  readonly role: string;
  /** The compiled file that calls `serveRole`. */
  readonly file: URL;
  /** What a worker that is started gets, cloned; large things in it lie on shared memory. */
  readonly data: () => unknown;
  /** Called when a worker died without being told to; a new one is on its way. */
  readonly onDeath?: (error: Error) => void;
}

interface Job {
  readonly question: Question;
  readonly transfer: readonly Transferable[];
  readonly signal: AbortSignal | undefined;
  readonly givesWay: boolean;
  readonly turn: (() => void) | undefined;
  /** Whether the worker was told to stop with it. */
  cancelled: boolean;
  resolve(output: unknown): void;
  reject(error: Error): void;
}

/**
 * MiB of a worker's young objects. What is large in a worker lies outside the heap of JavaScript, so more (48 by default) makes nothing faster, but stays resident in every worker that was ever busy.
 */
const YOUNG_MIB = 6;
/** Milliseconds that a worker has to end what it does when it is closed. */
const CLOSE_MS = 5000;
/** Least milliseconds between two starts of a worker, doubled with every start that fails, up to the most. */
const RESTART_MS = { least: 100, most: 30_000 };

/**
 * One worker thread and the queue before it. It answers one question at a time, in order, so its memory is that of one. A worker
 * that dies is started again; what it had been asked fails with WORKER_LOST, as does what waits behind it, since a new worker knows
 * nothing of the old one's children.
 */
export class Thread<M extends Role<M>> {
  readonly role: string;
  readonly #options: ThreadOptions;
  readonly #waiting: Job[] = [];
  #worker: Worker;
  #active: Job | undefined;
  #state: 'starting' | 'ready' | 'down' | 'closed' = 'starting';
  #generation = 0;
  #failures = 0;
  #questions = 0;
  #becameReady: () => void = () => undefined;
  #failedToStart: (error: Error) => void = () => undefined;
  /** Resolves when the first worker is ready; rejects where it cannot start. */
  readonly ready: Promise<void>;

  constructor(options: ThreadOptions) {
    this.role = options.role;
    this.#options = options;
    this.ready = new Promise((resolve, reject) => {
      this.#becameReady = resolve;
      this.#failedToStart = reject;
    });
    this.ready.catch(() => undefined); // whoever awaits it hears of it
    this.#worker = this.#start();
  }

  get isReady(): boolean {
    return this.#state === 'ready';
  }

  /** How often a worker was started before this one: what one generation knew the next does not. */
  get generation(): number {
    return this.#generation;
  }

  /** Questions under way or waiting. */
  get load(): number {
    return this.#waiting.length + (this.#active ? 1 : 0);
  }

  /** The worker of now; for tests of what happens when it dies. */
  get worker(): Worker {
    return this.#worker;
  }

  /**
   * @param transfer buffers that move to the worker; the caller no longer has them
   * @param signal takes the question back as long as the worker has not begun with it
   * @param givesWay once taken back, it is given up even if the worker has begun, as soon as another question waits
   * @param turn called when the worker is free for the question; what it throws is the answer
   * @throws what the worker threw; BignasError WORKER_LOST or SHUTTING_DOWN; the signal's reason
   */
  call<K extends keyof M & string>(
    method: K,
    input: M[K]['input'],
    { transfer = [], signal, givesWay = false, turn }: { transfer?: readonly Transferable[]; signal?: AbortSignal | undefined; givesWay?: boolean; turn?: () => void } = {},
  ): Promise<M[K]['output']> {
    if (this.#state === 'closed') return Promise.reject(stopping());
    if (this.#state === 'down') return Promise.reject(this.lost());
    return new Promise((resolve, reject) => {
      this.#waiting.push({ question: { kind: 'question', id: ++this.#questions, method, input }, transfer, signal, givesWay, turn, cancelled: false, resolve, reject });
      if (givesWay) signal?.addEventListener('abort', () => this.#giveWay(), { once: true });
      this.#next();
      this.#giveWay();
    });
  }

  /** The error of whoever asked a worker that is no more. */
  lost(): BignasError {
    return new BignasError('WORKER_LOST', `The ${this.role} worker died while it had this request. It is being started again: ask once more.`);
  }

  /**
   * Ends the worker. What it was asked fails with SHUTTING_DOWN. Native code that is at work when its thread ends aborts the whole process, so the worker is given
   * time to come to the end of what it does, or to the point where it can be given up.
   */
  async close(): Promise<void> {
    const worker = this.#worker;
    const still = new Promise<void>((resolve) => {
      const under = this.#active?.question.id;
      if (under === undefined && this.#state !== 'starting') {
        resolve();
        return;
      }
      worker.on('message', (message: Message) => {
        if (message.kind === 'ready' ? under === undefined : message.id === under) resolve();
      });
      worker.on('exit', () => resolve());
      setTimeout(resolve, CLOSE_MS).unref();
      if (under !== undefined) worker.postMessage({ kind: 'cancel', id: under } satisfies Cancel);
    });
    this.#state = 'closed';
    this.#failAll(stopping());
    await still;
    await worker.terminate();
  }

  #start(): Worker {
    const worker = new Worker(this.#options.file, {
      workerData: this.#options.data(),
      name: `bignas-${this.role}`,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
    });
    worker.on('message', (message: Message) => {
      if (worker === this.#worker && this.#state !== 'closed') this.#receive(message);
    });
    let failure: Error | undefined;
    worker.on('error', (error) => {
      failure = error instanceof Error ? error : new Error(String(error));
    });
    worker.on('exit', (code) => {
      if (worker === this.#worker && this.#state !== 'closed') this.#died(failure ?? new Error(`the worker exited with ${code}`));
    });
    return worker;
  }

  #died(error: Error): void {
    const failedToStart = this.#state === 'starting';
    this.#failures = failedToStart ? this.#failures + 1 : 0;
    this.#state = 'down';
    this.#generation++;
    this.#failedToStart(error);
    this.#failAll(this.lost());
    this.#options.onDeath?.(error);
    const restart = (): void => {
      if (this.#state !== 'down') return;
      this.#state = 'starting';
      try {
        this.#worker = this.#start();
      } catch (cause) {
        this.#died(cause instanceof Error ? cause : new Error(String(cause))); // no memory or threads are left for one
      }
    };
    // At once, so that requests of a moment later wait for it instead of failing; later where it cannot even start.
    if (!failedToStart) restart();
    else setTimeout(restart, Math.min(RESTART_MS.most, RESTART_MS.least * 2 ** this.#failures)).unref();
  }

  #receive(message: Message): void {
    if (message.kind === 'ready') {
      this.#state = 'ready';
      this.#becameReady();
    } else {
      const job = this.#active;
      if (job?.question.id !== message.id) return;
      this.#active = undefined;
      if (message.kind === 'output') job.resolve(message.output);
      else job.reject(job.cancelled ? (job.signal!.reason as Error) : receivedError(message.error));
    }
    this.#next();
  }

  #next(): void {
    while (this.#state === 'ready' && !this.#active) {
      const job = this.#waiting.shift();
      if (!job) return;
      if (job.signal?.aborted) {
        job.reject(job.signal.reason as Error);
        continue;
      }
      this.#active = job;
      try {
        job.turn?.();
        this.#worker.postMessage(job.question, job.transfer);
      } catch (error) {
        this.#active = undefined;
        job.reject(error as Error);
      }
    }
  }

  /** Tells the worker to stop with what nobody waits for, if somebody waits for something else. */
  #giveWay(): void {
    const job = this.#active;
    if (!job?.givesWay || !job.signal?.aborted || job.cancelled || this.#waiting.length === 0) return;
    job.cancelled = true;
    this.#worker.postMessage({ kind: 'cancel', id: job.question.id } satisfies Cancel);
  }

  #failAll(error: Error): void {
    this.#active?.reject(error);
    this.#active = undefined;
    for (const job of this.#waiting.splice(0)) job.reject(error);
  }
}

function stopping(): BignasError {
  return new BignasError('SHUTTING_DOWN', 'The server is stopping. Ask another one, or this one when it is back.');
}

/** The thread of the shortest queue. */
export function leastLoaded<T extends { readonly load: number }>(threads: readonly T[]): T {
  return threads.reduce((a, b) => (b.load < a.load ? b : a));
}

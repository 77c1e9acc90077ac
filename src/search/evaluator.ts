import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { CalibrationSource } from '../calibrate/calibrate.js';
import { PrefixStore } from '../calibrate/prefixStore.js';
import type { Accuracy } from '../checkpoint/frontier.js';
import { openSplit } from '../data/openSplit.js';
import type { SplitSource } from '../data/dataset.js';
import { BignasError, receivedError } from '../errors.js';
import { buildGraph } from '../graph/buildGraph.js';
import type { Engine } from '../graph/engine.js';
import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { formatArchitecture, type Architecture } from '../space/architecture.js';
import type { SearchSpace } from '../space/space.js';
import { evaluate } from './evaluate.js';
import type { EvaluatorAnswer, EvaluatorMessage } from './evaluatorWorker.js';

/** Everything that measures a child; a structured clone of it works in another thread. */
export interface EvaluatorData {
  readonly space: SearchSpace;
  /** On shared memory. */
  readonly weights: Float32Array;
  readonly source: CalibrationSource;
}

/** A task: which child on which images. */
export interface EvaluationTask {
  readonly architecture: Architecture;
  readonly split: SplitSource;
  /** So many of the split's images. */
  readonly images: number;
}

export interface MeasuredChild {
  readonly accuracy: Accuracy;
  readonly statistics: Statistics;
  /** That it took. */
  readonly seconds: number;
}

/** Calibrates and measures children, several at a time. */
export interface Evaluator {
  readonly engine: Engine['name'];
  /** Tasks that are worked on at once. */
  readonly parallel: number;
  evaluate(task: EvaluationTask): Promise<MeasuredChild>;
  close(): Promise<void>;
}

/** Bytes of what children that begin alike share, in a thread. */
const PREFIX_BYTES = 256 * 2 ** 20;

/** One child after another on this thread, by any engine. */
export function localEvaluator(engine: Engine, { space, source }: EvaluatorData, weights: SharedWeights): Evaluator {
  const prefixes = { store: new PrefixStore(PREFIX_BYTES), context: 'these weights and crops' };
  return {
    engine: engine.name,
    parallel: 1,
    async evaluate({ architecture, split, images }) {
      const started = performance.now();
      const measured = await evaluate(engine, buildGraph(space, architecture), weights, source, openSplit(split, unreadable), { images, prefixes });
      return { ...measured, seconds: (performance.now() - started) / 1000 };
    },
    close: () => Promise.resolve(),
  };
}

/**
 * ONNX Runtime with one thread in each of so many workers: two cores measure two children faster than one child twice. A result does not
 * depend on the number of workers.
 */
export function threadedEvaluator(data: EvaluatorData, workers: number): Evaluator {
  const threads = Array.from({ length: workers }, () => new EvaluatorThread(data));
  return {
    engine: 'onnx',
    parallel: workers,
    evaluate: (task) => threads.reduce((a, b) => (b.waiting < a.waiting ? b : a)).evaluate(task),
    close: async () => {
      await Promise.all(threads.map((thread) => thread.close()));
    },
  };
}

class EvaluatorThread {
  readonly #worker: Worker;
  readonly #pending = new Map<number, { resolve: (measured: MeasuredChild) => void; reject: (error: Error) => void }>();
  #tasks = 0;
  #lost: Error | undefined;

  constructor(data: EvaluatorData) {
    this.#worker = new Worker(new URL('evaluatorWorker.js', import.meta.url), { workerData: data, name: 'bignas-evaluator' });
    this.#worker.on('message', (answer: EvaluatorAnswer) => {
      const pending = this.#pending.get(answer.id);
      this.#pending.delete(answer.id);
      if ('measured' in answer) pending?.resolve(answer.measured);
      else pending?.reject(receivedError(answer.error));
    });
    this.#worker.on('error', (error) => this.#end(error instanceof Error ? error : new Error(String(error))));
    this.#worker.on('exit', () => this.#end(new BignasError('WORKER_LOST', 'A worker that measures children ended. What it had measured is kept: search again.')));
  }

  get waiting(): number {
    return this.#pending.size;
  }

  evaluate({ architecture, split, images }: EvaluationTask): Promise<MeasuredChild> {
    if (this.#lost) return Promise.reject(this.#lost);
    const id = this.#tasks++;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject });
      this.#worker.postMessage({ id, architecture: formatArchitecture(architecture), split, images } satisfies EvaluatorMessage);
    });
  }

  /** Ends when the tasks under way are done: ONNX Runtime does not survive that its thread is ended while it computes. */
  async close(): Promise<void> {
    if (this.#lost) return;
    const ended = once(this.#worker, 'exit');
    this.#worker.postMessage('close' satisfies EvaluatorMessage);
    await ended;
  }

  #end(error: Error): void {
    this.#lost ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#lost);
    this.#pending.clear();
  }
}

/** A photo that cannot be read would change what an accuracy is a fraction of. */
function unreadable(images: readonly { readonly path: string; readonly reason: string }[]): void {
  const [first] = images;
  if (first) throw new BignasError('DATA_INVALID', `An image that children are measured on cannot be read: ${first.path}: ${first.reason}. Remove it, or put it back.`);
}

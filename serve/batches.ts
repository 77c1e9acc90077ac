import { RunTimes } from './runTimes.js';
import type { RunRole } from './workers/run.js';
import type { Thread } from './workers/thread.js';
import type { ClassProbability } from './workers/top.js';

/** What one prediction asks of a child: [count, 3, resolution, resolution], moved to the worker. */
export interface Images {
  readonly data: Float32Array<ArrayBuffer>;
  readonly count: number;
}

export interface Classified {
  /** The most probable classes of each image, best first. */
  readonly classes: ClassProbability[][];
  /** Milliseconds from being asked to the answer. */
  readonly milliseconds: number;
  /** Images that ran together with these, these included. */
  readonly rows: number;
}

export interface BatchObserver {
  /** A batch was run: its rows, those of how many predictions. */
  ran(rows: number, predictions: number, seconds: number): void;
}

interface Prediction {
  readonly child: number;
  readonly images: Images;
  readonly top: number;
  readonly signal: AbortSignal;
  readonly asked: number;
  readonly resolve: (classified: Classified) => void;
  readonly reject: (error: unknown) => void;
  /** Called when it leaves the queue. */
  readonly left: () => void;
}

/**
 * The predictions before one run worker. One batch runs at a time; those that come meanwhile wait and then share the next one, those of one child together,
 * the child first whose prediction waits longest. So a lone client never waits for others, and many clients fill batches by themselves: nobody waits longer for
 * company than the batch under way takes. A batch is as large as gains throughput, by what the child's runs took, and never larger than `most`.
 */
export class Batches {
  #waiting: Prediction[] = [];
  #running = false;
  readonly #times = new Map<number, RunTimes>();

  /** @param most rows of a batch; a larger prediction runs in several */
  constructor(
    private readonly worker: Thread<RunRole>,
    private readonly most: number,
    private readonly observer: BatchObserver,
  ) {}

  /** Predictions that wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** @param signal takes the prediction back as long as it waits @throws what the worker throws, to all of a batch; the signal's reason */
  classify(child: number, images: Images, top: number, signal: AbortSignal): Promise<Classified> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const gone = (): void => {
        this.#waiting = this.#waiting.filter((other) => other !== prediction);
        reject(signal.reason as Error);
      };
      const prediction: Prediction = { child, images, top, signal, asked: performance.now(), resolve, reject, left: () => signal.removeEventListener('abort', gone) };
      signal.addEventListener('abort', gone, { once: true });
      this.#waiting.push(prediction);
      this.#next();
    });
  }

  /** Forgets what is known of a child that left the worker. */
  forget(child: number): void {
    this.#times.delete(child);
  }

  #next(): void {
    const [first] = this.#waiting;
    if (this.#running || !first) return;
    const times = this.#timesOf(first.child);
    const most = times.batch(this.most);
    const batch: Prediction[] = [];
    let rows = 0;
    for (const prediction of this.#waiting) {
      if (prediction.child !== first.child || (batch.length > 0 && rows + prediction.images.count > most)) continue;
      batch.push(prediction);
      rows += prediction.images.count;
    }
    this.#waiting = this.#waiting.filter((prediction) => !batch.includes(prediction));
    for (const { left } of batch) left();
    this.#running = true;
    void this.#run(batch, rows, times).finally(() => {
      this.#running = false;
      this.#next();
    });
  }

  async #run(batch: readonly Prediction[], rows: number, times: RunTimes): Promise<void> {
    try {
      const parts = batch.map(({ images, top }) => ({ ...images, top }));
      const { classes, runs } = await this.worker.call('classify', { child: batch[0]!.child, parts, most: this.most }, { transfer: parts.map(({ data }) => data.buffer) });
      let seconds = 0;
      for (const run of runs) {
        times.observe(run.rows, run.seconds);
        seconds += run.seconds;
      }
      this.observer.ran(rows, batch.length, seconds);
      const now = performance.now();
      batch.forEach(({ asked, resolve }, i) => resolve({ classes: classes[i]!, milliseconds: now - asked, rows }));
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  #timesOf(child: number): RunTimes {
    let times = this.#times.get(child);
    if (!times) this.#times.set(child, (times = new RunTimes()));
    return times;
  }
}

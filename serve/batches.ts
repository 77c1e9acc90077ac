import { BignasError } from '../src/errors.js';
import { RunTimes } from './runTimes.js';
import type { Answer, RunRole } from './workers/running.js';
import type { Thread } from './workers/thread.js';

/** What one prediction asks of a child: [count, 3, resolution, resolution], moved to the worker. */
export interface Images {
  readonly data: Float32Array<ArrayBuffer>;
  readonly count: number;
}

export interface Classified {
  readonly answer: Answer;
  /** Milliseconds from being asked to the answer. */
  readonly milliseconds: number;
  /** Images that ran together with these, these included. */
  readonly rows: number;
}

export interface BatchObserver {
  /** A batch was run: its rows, those of how many predictions. */
  ran(rows: number, predictions: number, seconds: number): void;
  /** A prediction began to run after so many seconds of waiting for its turn. */
  waited(seconds: number): void;
  /** Predictions that wait, of this worker: one more or one less. */
  waiting(change: 1 | -1): void;
}

/** Milliseconds after which a prediction without a deadline comes before those with one that are due later. */
const patience = 1000;

interface Prediction {
  readonly child: number;
  readonly images: Images;
  readonly top: number | undefined;
  readonly signal: AbortSignal;
  readonly asked: number;
  /** When it should be answered (`performance.now()`): the earliest comes first. */
  readonly due: number;
  /** Whether it is of no use after that. */
  readonly hard: boolean;
  readonly resolve: (classified: Classified) => void;
  readonly reject: (error: unknown) => void;
  /** Called when it leaves the queue. */
  readonly left: () => void;
}

/**
 * The predictions before one run worker. One batch runs at a time; those that come meanwhile wait and then share the next one, those of one child together,
 * the child first whose prediction is due first. So a lone client never waits for others, and many clients fill batches by themselves: nobody waits longer for
 * company than the batch under way takes. A batch is as large as gains throughput, by what the child's runs took, and never larger than `most`.
 */
export class Batches {
  #waiting: Prediction[] = [];
  /** The batch under way: when it is expected to end. */
  #running: { readonly until: number } | undefined;
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

  /** Milliseconds until a prediction that is asked for now would begin, if none that is due before it comes; 0 where the worker is idle. */
  get backlog(): number {
    const children = new Map<number, number>();
    for (const { child, images } of this.#waiting) children.set(child, (children.get(child) ?? 0) + images.count);
    const waiting = [...children].reduce((sum, [child, rows]) => sum + (this.milliseconds(child, rows) ?? 0), 0);
    return Math.max(0, (this.#running?.until ?? 0) - performance.now()) + waiting;
  }

  /** Milliseconds that a child's run of so many rows takes; undefined before its first run. */
  milliseconds(child: number, rows: number): number | undefined {
    const seconds = this.#times.get(child)?.seconds(rows);
    return seconds === undefined ? undefined : 1000 * seconds;
  }

  /**
   * @param deadline milliseconds (`performance.now()`) after which the answer is of no use: when that cannot be met any more, it is not computed
   * @param signal takes the prediction back as long as it waits
   * @throws what the worker throws, to all of a batch; BignasError DEADLINE_MISSED; the signal's reason
   */
  classify(child: number, images: Images, top: number | undefined, signal: AbortSignal, deadline?: number): Promise<Classified> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const gone = (): void => {
        this.#waiting = this.#waiting.filter((other) => other !== prediction);
        prediction.left();
        reject(signal.reason as Error);
      };
      const asked = performance.now();
      const prediction: Prediction = {
        child, images, top, signal, asked, resolve, reject,
        due: deadline ?? asked + patience,
        hard: deadline !== undefined,
        left: () => {
          signal.removeEventListener('abort', gone);
          this.observer.waiting(-1);
        },
      };
      signal.addEventListener('abort', gone, { once: true });
      this.#waiting.push(prediction);
      this.observer.waiting(1);
      this.#next();
    });
  }

  /** Forgets what is known of a child that left the worker. */
  forget(child: number): void {
    this.#times.delete(child);
  }

  #next(): void {
    if (this.#running) return;
    this.#dropHopeless();
    const first = this.#waiting.reduce<Prediction | undefined>((a, b) => (a && a.due <= b.due ? a : b), undefined);
    if (!first) return;
    const times = this.#timesOf(first.child);
    const most = times.batch(this.most);
    const batch: Prediction[] = [];
    let rows = 0;
    for (const prediction of [first, ...this.#waiting.filter((other) => other !== first)]) {
      if (prediction.child !== first.child || (batch.length > 0 && rows + prediction.images.count > most)) continue;
      batch.push(prediction);
      rows += prediction.images.count;
    }
    this.#waiting = this.#waiting.filter((prediction) => !batch.includes(prediction));
    const now = performance.now();
    for (const { left, asked } of batch) {
      left();
      this.observer.waited((now - asked) / 1000);
    }
    this.#running = { until: performance.now() + (this.milliseconds(first.child, rows) ?? 0) };
    void this.#run(batch, rows, times).finally(() => {
      this.#running = undefined;
      this.#next();
    });
  }

  /** Refuses predictions that could not be answered in time even if they ran now. */
  #dropHopeless(): void {
    const now = performance.now();
    const hopeless = this.#waiting.filter(({ child, images, due, hard }) => hard && now + (this.milliseconds(child, images.count) ?? 0) > due);
    if (hopeless.length === 0) return;
    this.#waiting = this.#waiting.filter((prediction) => !hopeless.includes(prediction));
    for (const { left, reject } of hopeless) {
      left();
      reject(new BignasError('DEADLINE_MISSED', 'The deadline came before the prediction could be computed: others were due before it. Ask for a later one, or for a smaller child.'));
    }
  }

  async #run(batch: readonly Prediction[], rows: number, times: RunTimes): Promise<void> {
    try {
      const parts = batch.map(({ images, top }) => ({ ...images, top }));
      const { answers, runs } = await this.worker.call('classify', { child: batch[0]!.child, parts, most: this.most }, { transfer: parts.map(({ data }) => data.buffer) });
      let seconds = 0;
      for (const run of runs) {
        times.observe(run.rows, run.seconds);
        seconds += run.seconds;
      }
      this.observer.ran(rows, batch.length, seconds);
      const now = performance.now();
      batch.forEach(({ asked, resolve }, i) => resolve({ answer: answers[i]!, milliseconds: now - asked, rows }));
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

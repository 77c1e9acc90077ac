import type { Buffers } from './buffers.js';
import { missed } from './deadlines.js';
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

/** Seconds that a run of one image takes, at least, where lanes are worth it: of shorter ones many together in one batch have less to do on the way there and back. */
const LEAST_FOR_LANES = 0.004;

/** Milliseconds after which a prediction without a deadline comes before those with one that are due later. */
const patience = 1000;

/** A run worker and its lanes: workers with a part of its threads each, which run side by side in its stead. Many predictions are done sooner by one thread each than by all threads on each. */
export interface RunGroup {
  readonly worker: Thread<RunRole>;
  readonly lanes: readonly Thread<RunRole>[];
}

/** A child in the worker of a group. */
export interface RunChild {
  /** By which the workers know it. */
  readonly number: number;
  /** Rows of a batch, at most; a larger prediction runs in several. */
  readonly most: number;
  /** Asks for the lanes, because several predictions wait: where they have the child, they have it until `release` is called (once). */
  readonly holdLanes: () => InLanes | undefined;
}

export interface InLanes {
  /** By which the lanes know the child: each copy has one of its own. */
  readonly number: number;
  readonly release: () => void;
}

/** What a child's runs take with all threads, and in lanes. */
interface ChildTimes {
  readonly alone: RunTimes;
  readonly lanes: RunTimes;
}

interface Prediction {
  readonly child: RunChild;
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
 * The predictions before one run worker. One batch runs at a time; those that come meanwhile wait and then share the next one, those of one child together, the child first whose prediction is due
 * first. So a lone client never waits for others, and many clients fill batches by themselves: nobody waits longer for company than the batch under way takes. A batch is as large as gains
 * throughput, by what the child's runs took, and never larger than the child allows.
 *
 * Where several predictions of a child wait that takes long enough and that the lanes have, each lane takes a batch as soon as it is free. The worker and its lanes never run at one time.
 */
export class Batches {
  #waiting: Prediction[] = [];
  /** When the runs under way are expected to end: the worker's, or those of lanes. */
  readonly #running = new Map<Thread<RunRole>, number>();
  readonly #times = new Map<number, ChildTimes>();
  /** Images of predictions that come when they are decoded, by child. */
  readonly #announced = new Map<number, number>();

  constructor(
    private readonly group: RunGroup,
    private readonly observer: BatchObserver,
    private readonly buffers: Buffers,
  ) {}

  /** Predictions that wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Counts images that will come, as soon as they are decoded, until what it returns is called. */
  announce({ number }: RunChild, count: number): () => void {
    const add = (rows: number): void => {
      const all = (this.#announced.get(number) ?? 0) + rows;
      if (all === 0) this.#announced.delete(number);
      else this.#announced.set(number, all);
    };
    add(count);
    return () => add(-count);
  }

  /**
   * Milliseconds until a prediction that is asked for now would begin, if none that is due before it comes, what is announced included; 0 where nothing runs.
   * @param lanesHaveIt whether its child is in the lanes: others wait until all of them are free
   */
  backlog(lanesHaveIt: boolean): number {
    const children = new Map(this.#announced);
    for (const { child, images } of this.#waiting) children.set(child.number, (children.get(child.number) ?? 0) + images.count);
    const side = this.#inLanes ? this.group.lanes.length : 1;
    const waiting = [...children].reduce((sum, [child, rows]) => sum + (this.milliseconds(child, rows) ?? 0) / side, 0);
    const now = performance.now();
    const ends = [...this.#running.values()].map((until) => Math.max(0, until - now));
    const lanesIdle = this.#inLanes && ends.length < this.group.lanes.length;
    // Whoever waits beside an idle lane waits for all of them.
    if (lanesIdle && lanesHaveIt && children.size === 0) return 0;
    return waiting + (this.#inLanes && lanesHaveIt && !lanesIdle ? Math.min(...ends) : Math.max(0, ...ends));
  }

  /** Milliseconds that a child's run of so many rows takes, as things stand; undefined before its first run. */
  milliseconds(child: number, rows: number): number | undefined {
    const times = this.#times.get(child);
    const seconds = (this.#inLanes ? times?.lanes.seconds(rows) : undefined) ?? times?.alone.seconds(rows);
    return seconds === undefined ? undefined : 1000 * seconds;
  }

  get #inLanes(): boolean {
    return this.#running.size > 0 && !this.#running.has(this.group.worker);
  }

  /**
   * @param deadline milliseconds (`performance.now()`) after which the answer is of no use: when that cannot be met any more, it is not computed
   * @param signal takes the prediction back as long as it waits
   * @throws what the worker throws, to all of a batch; BignasError DEADLINE_MISSED; the signal's reason
   */
  classify(child: RunChild, images: Images, top: number | undefined, signal: AbortSignal, deadline?: number): Promise<Classified> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const gone = (): void => {
        this.#waiting = this.#waiting.filter((other) => other !== prediction);
        prediction.left();
        this.buffers.give([images.data.buffer]);
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
    this.#dropHopeless();
    while (this.#begin());
  }

  /** Begins the next batch. @returns false where there is none, or nobody is free for it */
  #begin(): boolean {
    const { worker, lanes } = this.group;
    const idle = lanes.filter((lane) => !this.#running.has(lane));
    if (this.#running.has(worker) || (this.#inLanes && idle.length === 0)) return false;
    const first = this.#waiting.reduce<Prediction | undefined>((a, b) => (a && a.due <= b.due ? a : b), undefined);
    if (!first) return false;
    const { child } = first;
    const alike = [first, ...this.#waiting.filter((other) => other !== first && other.child.number === child.number)];
    const worthwhile = (this.#timesOf(child.number).alone.seconds(1) ?? 0) >= LEAST_FOR_LANES;
    const held = worthwhile && (this.#inLanes || alike.length > 1) ? child.holdLanes() : undefined;
    if (this.#inLanes && !held) return false; // it needs all threads, and is next
    const free = held ? idle : [worker];
    const times = this.#timesOf(child.number)[held ? 'lanes' : 'alone'];
    const limit = held ? Math.ceil(child.most / lanes.length) : child.most;
    // What waits is shared out to those who are free.
    const most = Math.min(times.batch(limit), Math.ceil(rowsOf(alike) / free.length));
    const batch: Prediction[] = [];
    for (const prediction of alike) if (batch.length === 0 || rowsOf(batch) + prediction.images.count <= most) batch.push(prediction);
    this.#waiting = this.#waiting.filter((prediction) => !batch.includes(prediction));
    const now = performance.now();
    for (const { left, asked } of batch) {
      left();
      this.observer.waited((now - asked) / 1000);
    }
    const runner = free[0]!;
    this.#running.set(runner, now + 1000 * (times.seconds(rowsOf(batch)) ?? 0));
    void this.#run(runner, held?.number ?? child.number, batch, limit, times).finally(() => {
      held?.release();
      this.#running.delete(runner);
      this.#next();
    });
    return true;
  }

  /** Refuses predictions that could not be answered in time even if they ran now. */
  #dropHopeless(): void {
    const now = performance.now();
    const hopeless = this.#waiting.filter(({ child, images, due, hard }) => hard && now + (this.milliseconds(child.number, images.count) ?? 0) > due);
    if (hopeless.length === 0) return;
    this.#waiting = this.#waiting.filter((prediction) => !hopeless.includes(prediction));
    for (const { left, images, reject } of hopeless) {
      left();
      this.buffers.give([images.data.buffer]);
      reject(missed());
    }
  }

  async #run(runner: Thread<RunRole>, number: number, batch: readonly Prediction[], most: number, times: RunTimes): Promise<void> {
    try {
      const parts = batch.map(({ images: { data, count }, top }) => ({ data, count, top }));
      const began = performance.now();
      const { answers, runs, spent } = await runner.call('classify', { child: number, parts, most }, { transfer: parts.map(({ data }) => data.buffer) });
      this.buffers.give(spent);
      const now = performance.now();
      const rows = rowsOf(batch);
      const seconds = runs.reduce((sum, run) => sum + run.seconds, 0);
      this.observer.ran(rows, batch.length, seconds);
      // The way there and back is part of what a run takes.
      const way = Math.max(0, (now - began) / 1000 - seconds);
      for (const run of runs) times.observe(run.rows, run.seconds + way / runs.length);
      batch.forEach(({ asked, resolve }, i) => resolve({ answer: answers[i]!, milliseconds: now - asked, rows }));
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  #timesOf(child: number): ChildTimes {
    let times = this.#times.get(child);
    if (!times) this.#times.set(child, (times = { alone: new RunTimes(), lanes: new RunTimes() }));
    return times;
  }
}

function rowsOf(predictions: readonly Prediction[]): number {
  return predictions.reduce((sum, { images }) => sum + images.count, 0);
}

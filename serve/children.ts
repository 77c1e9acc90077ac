import type { ChildDescription } from '../src/bundle/child.js';
import { Batches, type BatchObserver, type Images } from './batches.js';
import { HeldCache, type CacheObserver, type Held } from './heldCache.js';
import type { BuildRole, BuildSeconds } from './workers/build.js';
import type { RunRole } from './workers/run.js';
import type { Thread } from './workers/thread.js';
import type { ClassProbability } from './workers/top.js';

/** Resident bytes of a session over those of its model: the weights, as the engine packs them, and activations. */
const SESSION_FACTOR = 2;
/** Bytes of a session whatever its model. */
const SESSION_BYTES = 2 ** 20;

export interface ChildrenOptions {
  readonly build: Thread<BuildRole>;
  readonly run: readonly Thread<RunRole>[];
  readonly maxBytes: number;
  readonly observer: CacheObserver;
  readonly onBuilt: (seconds: BuildSeconds) => void;
  /** Images that run together, at most. */
  readonly maxBatch: number;
  readonly batchObserver: BatchObserver;
}

/** A child in a run worker. All its predictions go to that worker. */
interface LoadedChild extends Held {
  readonly worker: Thread<RunRole>;
  readonly generation: number;
  readonly number: number;
}

/** The children in memory: built once however many ask at once, bounded in bytes, never freed under a prediction. */
export class Children {
  readonly #cache: HeldCache<LoadedChild>;
  readonly #options: ChildrenOptions;
  /** How many children each worker has, or is being given. */
  readonly #held = new Map<Thread<RunRole>, number>();
  readonly #batches: ReadonlyMap<Thread<RunRole>, Batches>;
  #loaded = 0;

  constructor(options: ChildrenOptions) {
    this.#options = options;
    this.#cache = new HeldCache(options);
    this.#batches = new Map(options.run.map((worker) => [worker, new Batches(worker, options.maxBatch, options.batchObserver)]));
  }

  get bytes(): number {
    return this.#cache.bytes;
  }

  has({ id }: ChildDescription): boolean {
    return this.#cache.has(id);
  }

  /**
   * The most probable classes of each image, the milliseconds until the child was ready and that it then took, waiting for its turn included, and how
   * many images ran together.
   * @param images moved to the worker
   * @param signal takes the prediction back as long as it waits; the child is built all the same
   * @param deadline as `Batches.classify` has it
   */
  classify(description: ChildDescription, images: Images, top: number, signal: AbortSignal, deadline?: number): Promise<{ classes: ClassProbability[][]; ready: number; run: number; rows: number }> {
    const started = performance.now();
    return this.#cache.use(
      description.id,
      () => this.#load(description),
      async ({ worker, generation, number }) => {
        const ready = performance.now();
        if (generation !== worker.generation) throw worker.lost();
        const { classes, milliseconds, rows } = await this.#batches.get(worker)!.classify(number, images, top, signal, deadline);
        return { classes, ready: ready - started, run: milliseconds, rows };
      },
    );
  }

  /** Milliseconds that one image is expected to wait and to run; undefined for a child that is not in memory or did not run yet. */
  expected(id: string): { readonly wait: number; readonly run: number } | undefined {
    const child = this.#cache.peek(id);
    if (!child || child.generation !== child.worker.generation) return undefined;
    const batches = this.#batches.get(child.worker)!;
    const run = batches.milliseconds(child.number, 1);
    return run === undefined ? undefined : { wait: batches.backlog, run };
  }

  /** Has a child in memory, and knows how long its runs take. */
  async warm(description: ChildDescription): Promise<void> {
    const { resolution } = description;
    for (const count of [1, 4]) {
      const images = { data: new Float32Array(count * 3 * resolution ** 2), count };
      await this.classify(description, images, 1, new AbortController().signal);
    }
  }

  /** Forgets the children of a worker that died; they are built again, from statistics that are kept, when somebody asks. */
  forget(worker: Thread<RunRole>): void {
    this.#cache.forget((child) => child.worker === worker);
  }

  async #load({ architecture }: ChildDescription): Promise<LoadedChild> {
    const { model, seconds } = await this.#options.build.call('build', { architecture });
    this.#options.onBuilt(seconds);
    const worker = this.#emptiest();
    const number = ++this.#loaded;
    const bytes = SESSION_BYTES + SESSION_FACTOR * model.byteLength;
    this.#hold(worker, 1);
    try {
      await worker.call('load', { child: number, model }, { transfer: [model.buffer as ArrayBuffer] });
    } catch (error) {
      this.#hold(worker, -1);
      throw error;
    }
    const { generation } = worker;
    return {
      bytes,
      worker,
      generation,
      number,
      dispose: async () => {
        this.#hold(worker, -1);
        this.#batches.get(worker)!.forget(number);
        // What died with its worker is gone.
        if (worker.generation === generation) await worker.call('unload', { child: number });
      },
    };
  }

  /** The worker of the fewest children: a child stays where it is, and load says nothing while the server is quiet. */
  #emptiest(): Thread<RunRole> {
    const held = (worker: Thread<RunRole>): number => this.#held.get(worker) ?? 0;
    return this.#options.run.reduce((a, b) => ((held(b) - held(a) || b.load - a.load) < 0 ? b : a));
  }

  #hold(worker: Thread<RunRole>, more: 1 | -1): void {
    this.#held.set(worker, (this.#held.get(worker) ?? 0) + more);
  }
}

import type { ChildDescription } from '../src/bundle/child.js';
import { Batches, type BatchObserver, type Images } from './batches.js';
import { HeldCache, type CacheObserver, type Held } from './heldCache.js';
import type { Served } from './served.js';
import type { BuildReport, BuildRole } from './workers/building.js';
import type { Answer, RunRole } from './workers/running.js';
import type { Thread } from './workers/thread.js';

/** Resident bytes of a session over those of its ONNX model, whichever engine runs it: the weights, as the engine packs them. Measured with the next one: 2.7 MiB for models of 1.1 MiB, 28 to 39 for 27.5. */
const SESSION_FACTOR = 1.25;
/** Bytes of a session whatever its model: its nodes and its thread. */
const SESSION_BYTES = 1.5 * 2 ** 20;

export interface ChildrenOptions {
  readonly build: Thread<BuildRole>;
  readonly run: readonly Thread<RunRole>[];
  readonly maxBytes: number;
  readonly observer: CacheObserver;
  readonly onBuilt: (served: Served, id: string, report: BuildReport) => void;
  /** Images that run together, at most. */
  readonly maxBatch: number;
  readonly batchObserver: BatchObserver;
}

/** A child in a run worker. All its predictions go to that worker. */
interface LoadedChild extends Held {
  /** Of the checkpoint. */
  readonly serial: number;
  readonly description: ChildDescription;
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

  /** Whether the child is in memory, being made, or neither. */
  stateOf(served: Served, { id }: ChildDescription): 'ready' | 'making' | undefined {
    return this.#cache.stateOf(keyOf(served, id));
  }

  /** The children of a checkpoint that are in memory, the one used last first. */
  loaded({ serial }: Served): ChildDescription[] {
    return this.#cache.values().flatMap((child) => (child.serial === serial ? [child.description] : []));
  }

  /**
   * Each image's classes, the milliseconds until the child was ready and that it then took, waiting for its turn included, and how
   * many images ran together.
   * @param images moved to the worker
   * @param signal takes the prediction back as long as it waits; where nobody else waits for the child, it is built only as long as nobody waits for another
   * @param deadline as `Batches.classify` has it
   */
  classify(served: Served, description: ChildDescription, images: Images, top: number | undefined, signal: AbortSignal, deadline?: number): Promise<{ answer: Answer; ready: number; run: number; rows: number }> {
    const started = performance.now();
    return this.#cache.use(
      keyOf(served, description.id),
      (orphaned) => this.#load(served, description, orphaned),
      async ({ worker, generation, number }) => {
        const ready = performance.now();
        if (generation !== worker.generation) throw worker.lost();
        const { answer, milliseconds, rows } = await this.#batches.get(worker)!.classify(number, images, top, signal, deadline);
        return { answer, ready: ready - started, run: milliseconds, rows };
      },
      signal,
    );
  }

  /** Milliseconds that one image is expected to wait and to run; undefined for a child that is not in memory or did not run yet. */
  expected(served: Served, id: string): { readonly wait: number; readonly run: number } | undefined {
    const child = this.#cache.peek(keyOf(served, id));
    if (!child || child.generation !== child.worker.generation) return undefined;
    const batches = this.#batches.get(child.worker)!;
    const run = batches.milliseconds(child.number, 1);
    return run === undefined ? undefined : { wait: batches.backlog, run };
  }

  /** Has a child in memory, and knows how long its runs take. @throws Error where its answer is no number */
  async warm(served: Served, description: ChildDescription): Promise<void> {
    const { resolution } = description;
    for (const count of [1, 4]) {
      const images = { data: new Float32Array(count * 3 * resolution ** 2), count };
      const { answer } = await this.classify(served, description, images, undefined, new AbortController().signal);
      if (!('probabilities' in answer) || !answer.probabilities.every(Number.isFinite)) throw new Error(`${description.architecture} answers with what is no number.`);
    }
  }

  /** Has a child in memory, without running it. */
  async build(served: Served, description: ChildDescription): Promise<void> {
    await this.#cache.use(
      keyOf(served, description.id),
      (orphaned) => this.#load(served, description, orphaned),
      () => Promise.resolve(),
    );
  }

  /** Forgets the children of a worker that died; they are built again, from statistics that are kept, when somebody asks. */
  forget(worker: Thread<RunRole>): void {
    this.#cache.forget((child) => child.worker === worker);
  }

  /** Forgets the children of a checkpoint that is served no more. */
  retire({ serial }: Served): void {
    this.#cache.forget((child) => child.serial === serial);
  }

  async #load(served: Served, description: ChildDescription, orphaned: AbortSignal): Promise<LoadedChild> {
    const { serial } = served;
    const asked = { serial, architecture: description.architecture };
    const { model, report } = await this.#options.build.call('build', asked, { signal: orphaned, givesWay: true });
    this.#options.onBuilt(served, description.id, report);
    const worker = this.#emptiest();
    const number = ++this.#loaded;
    const bytes = SESSION_BYTES + Math.ceil(SESSION_FACTOR * Math.max(model.byteLength, description.costs.bytes.value));
    this.#hold(worker, 1);
    try {
      await worker.call('load', { child: number, model, asked }, { transfer: [model.buffer] });
    } catch (error) {
      this.#hold(worker, -1);
      throw error;
    }
    const { generation } = worker;
    return {
      serial,
      description,
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

/** Children of two checkpoints may have one id. */
function keyOf({ serial }: Served, id: string): string {
  return `${serial}/${id}`;
}

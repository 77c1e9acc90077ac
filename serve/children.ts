import type { ChildDescription } from '../src/bundle/child.js';
import type { Buffers } from './buffers.js';
import { Batches, type BatchObserver, type Images, type InLanes, type RunChild, type RunGroup } from './batches.js';
import type { Expected } from './deadlines.js';
import { HeldCache, type CacheObserver, type Held } from './heldCache.js';
import type { Served } from './served.js';
import type { AskedChild, BuildReport, BuildRole } from './workers/building.js';
import type { Answer, RunRole } from './workers/running.js';
import type { Thread } from './workers/thread.js';

/** Resident bytes of a session over those of its ONNX model, whichever engine runs it: the weights, as the engine packs them. Measured with the next one: 2.7 MiB for models of 1.1 MiB, 28 to 39 for 27.5. */
const SESSION_FACTOR = 1.25;
/** Bytes of a session whatever its model: its nodes and its thread. */
const SESSION_BYTES = 1.5 * 2 ** 20;
/** Bytes of activations of a batch, beyond which it does not gain: they leave the processor's caches. */
const ACTIVATION_BYTES = 64 * 2 ** 20;

/** How often several predictions of a child have to wait, before the lanes are given it as well, and again before that is tried once more: each takes as much memory for it again. */
const CROWDED = 8;
/** Part of the memory for children that is free afterwards, or the lanes get no child: it would cost others their place. */
const SPARE_PART = 1 / 4;

export interface ChildrenOptions {
  readonly build: Thread<BuildRole>;
  readonly run: readonly RunGroup[];
  readonly maxBytes: number;
  readonly observer: CacheObserver;
  readonly onBuilt: (served: Served, id: string, report: BuildReport) => void;
  /** Images that run together, at most. */
  readonly maxBatch: number;
  readonly batchObserver: BatchObserver;
  /** The lanes could not be given a child. */
  readonly onLanesLack: (description: ChildDescription, error: unknown) => void;
  /** Where the images' memory goes in the end. */
  readonly buffers: Buffers;
}

/** A child in workers of a group. */
interface InWorkers extends Held {
  /** By which these workers know it: a copy's is its own. */
  readonly number: number;
  /** Of the checkpoint. */
  readonly serial: number;
  readonly workers: readonly { readonly worker: Thread<RunRole>; readonly generation: number }[];
}

/** A child in a run worker. All its predictions go to that worker, or to its lanes. */
interface LoadedChild extends InWorkers {
  readonly description: ChildDescription;
  readonly group: RunGroup;
  readonly run: RunChild;
}

/** The children in memory: built once however many ask at once, bounded in bytes, never freed under a prediction. */
export class Children {
  readonly #cache: HeldCache<LoadedChild | InWorkers>;
  readonly #options: ChildrenOptions;
  /** How many children each worker has, or is being given. */
  readonly #held = new Map<RunGroup, number>();
  readonly #batches: ReadonlyMap<RunGroup, Batches>;
  #loaded = 0;
  /** Serials of checkpoints that are served no more. */
  readonly #retired = new Set<number>();

  constructor(options: ChildrenOptions) {
    this.#options = options;
    this.#cache = new HeldCache(options);
    this.#batches = new Map(options.run.map((group) => [group, new Batches(group, options.batchObserver, options.buffers)]));
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
    return this.#cache.values().flatMap((child) => ('run' in child && child.serial === serial ? [child.description] : []));
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
    return this.#use(
      served,
      description,
      async (child) => {
        const ready = performance.now();
        const { group, run } = child;
        if (!isAlive(child)) throw group.worker.lost();
        const { answer, milliseconds, rows } = await this.#batches.get(group)!.classify(run, images, top, signal, deadline);
        return { answer, ready: ready - started, run: milliseconds, rows };
      },
      signal,
    );
  }

  /** What a prediction of so many images is expected to wait and to run now, by a child's id; undefined for one that is not in memory or did not run yet. The queues are looked through once for all children. */
  expected(served: Served, count: number): (id: string) => Expected | undefined {
    const waits = { lanes: new Map<Batches, number>(), alone: new Map<Batches, number>() };
    return (id) => {
      const key = keyOf(served, id);
      const child = this.#cache.peek(key);
      if (!child || !('run' in child) || !isAlive(child)) return undefined;
      const batches = this.#batches.get(child.group)!;
      const run = batches.milliseconds(child.run.number, count);
      if (run === undefined) return undefined;
      const copy = this.#cache.peek(lanesKey(key));
      const lanesHaveIt = copy !== undefined && isIn(child.group.lanes, copy);
      const known = waits[lanesHaveIt ? 'lanes' : 'alone'];
      const wait = known.get(batches) ?? batches.backlog(lanesHaveIt);
      known.set(batches, wait);
      return { wait, run };
    };
  }

  /** Counts images that are being decoded for a child in memory as waiting for it, until what it returns is called. */
  announce(served: Served, id: string, count: number): () => void {
    const child = this.#cache.peek(keyOf(served, id));
    if (!child || !('run' in child)) return () => undefined;
    return this.#batches.get(child.group)!.announce(child.run, count);
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
    await this.#use(served, description, () => Promise.resolve());
  }

  /** Forgets the children of a worker that died; they are built again, from statistics that are kept, when somebody asks. */
  forget(worker: Thread<RunRole>): void {
    this.#cache.forget(({ workers }) => workers.some((each) => each.worker === worker));
  }

  /** Forgets the children of a checkpoint that is served no more, also those that are still being made. */
  retire({ serial }: Pick<Served, 'serial'>): void {
    this.#retired.add(serial);
    this.#cache.forget((child) => child.serial === serial);
  }

  async #use<T>(served: Served, description: ChildDescription, work: (child: LoadedChild) => Promise<T>, signal?: AbortSignal): Promise<T> {
    try {
      return await this.#cache.use(
        keyOf(served, description.id),
        (orphaned) => this.#load(served, description, orphaned),
        (child) => work(child as LoadedChild), // by its key
        signal,
      );
    } finally {
      this.#forgetRetired(served);
    }
  }

  /** What was made while its checkpoint was retired. */
  #forgetRetired(served: Served): void {
    if (this.#retired.has(served.serial)) this.retire(served);
  }

  async #load(served: Served, description: ChildDescription, orphaned: AbortSignal): Promise<LoadedChild> {
    const { build, onBuilt, maxBatch } = this.#options;
    const asked = { serial: served.serial, architecture: description.architecture };
    const { model, report } = await build.call('build', asked, { signal: orphaned, givesWay: true });
    onBuilt(served, description.id, report);
    const group = this.#emptiest();
    const number = ++this.#loaded;
    const most = Math.max(1, Math.min(maxBatch, Math.floor(ACTIVATION_BYTES / description.costs.memory.value)));
    let crowded = 0;
    const holdLanes = (): InLanes | undefined => this.#holdLanes(served, description, group, ++crowded % CROWDED === 0);
    this.#hold(group, 1);
    try {
      const child = await this.#loadInto([group.worker], number, description, model, asked);
      return {
        ...child,
        description,
        group,
        run: { number, most, holdLanes },
        dispose: async () => {
          this.#hold(group, -1);
          this.#batches.get(group)!.forget(number);
          await child.dispose();
        },
      };
    } catch (error) {
      this.#hold(group, -1);
      throw error;
    }
  }

  /** Lets the child stay in the lanes, where they have it. @param wanted whether they are given it, where there is room; they have it for a later batch */
  #holdLanes(served: Served, description: ChildDescription, { lanes }: RunGroup, wanted: boolean): InLanes | undefined {
    if (lanes.length === 0) return undefined;
    const key = lanesKey(keyOf(served, description.id));
    const held = this.#cache.hold(key);
    if (held) {
      const { value, release } = held;
      if (isIn(lanes, value)) return { number: value.number, release };
      // A lane died, or the child is in another group than it was.
      release();
      this.#cache.forget((other) => other === value);
    }
    const { build, maxBytes } = this.#options;
    const room = (1 - SPARE_PART) * maxBytes - this.#cache.bytes;
    if (!wanted || this.#cache.stateOf(key) || build.load > 0 || room < lanes.length * sessionBytes(description)) return undefined;
    const load = async (): Promise<InWorkers> => {
      const asked = { serial: served.serial, architecture: description.architecture };
      const { model } = await build.call('build', asked);
      return this.#loadInto(lanes, ++this.#loaded, description, model, asked);
    };
    // Where it fails, the child goes on as it was.
    this.#cache
      .use(key, load, () => Promise.resolve())
      .catch((error: unknown) => {
        this.#options.onLanesLack(description, error);
      })
      .finally(() => this.#forgetRetired(served));
    return undefined;
  }

  /** Loads a child into workers, all or none. @param model moved to the first of them */
  async #loadInto(workers: readonly Thread<RunRole>[], number: number, description: ChildDescription, model: Uint8Array<ArrayBuffer>, asked: AskedChild): Promise<InWorkers> {
    const loaded = workers.map((worker) => ({ worker, generation: worker.generation }));
    const dispose = async (): Promise<void> => {
      // What died with its worker is gone.
      await Promise.all(loaded.filter(({ worker, generation }) => worker.generation === generation).map(({ worker }) => worker.call('unload', { child: number })));
    };
    const bytes = workers.length * sessionBytes(description, model.byteLength);
    // Each its own, before the first is sent: a worker that is busy gets it later.
    const models = workers.map((_, i) => (i === 0 ? model : model.slice()));
    const results = await Promise.allSettled(workers.map((worker, i) => worker.call('load', { child: number, model: models[i]!, asked, flops: description.costs.flops.value }, { transfer: [models[i]!.buffer] })));
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) {
      await dispose();
      throw failed.reason;
    }
    return { number, serial: asked.serial, workers: loaded, bytes, dispose };
  }

  /** The group of the fewest children: a child stays where it is, and load says nothing while the server is quiet. */
  #emptiest(): RunGroup {
    const held = (group: RunGroup): number => this.#held.get(group) ?? 0;
    return this.#options.run.reduce((a, b) => ((held(b) - held(a) || b.worker.load - a.worker.load) < 0 ? b : a));
  }

  #hold(group: RunGroup, more: 1 | -1): void {
    this.#held.set(group, (this.#held.get(group) ?? 0) + more);
  }
}

/** Resident bytes of a child's session. */
function sessionBytes({ costs }: ChildDescription, modelBytes = 0): number {
  return SESSION_BYTES + Math.ceil(SESSION_FACTOR * Math.max(modelBytes, costs.bytes.value));
}

/** Whether no worker died since the child was loaded. */
function isAlive({ workers }: InWorkers): boolean {
  return workers.every(({ worker, generation }) => worker.generation === generation);
}

/** Whether all these workers have it. */
function isIn(workers: readonly Thread<RunRole>[], loaded: InWorkers): boolean {
  return isAlive(loaded) && loaded.workers.every(({ worker }, i) => worker === workers[i]);
}

/** Of a child's copies in the lanes, by the child's. */
function lanesKey(key: string): string {
  return `${key}/lanes`;
}

/** Children of two checkpoints may have one id. */
function keyOf({ serial }: Served, id: string): string {
  return `${serial}/${id}`;
}

import type { Admission } from './admission.js';
import type { Buffers } from './buffers.js';
import type { Images } from './batches.js';
import type { ChildDescription } from '../src/bundle/child.js';
import { BignasError, type ErrorCode } from '../src/errors.js';
import type { Children } from './children.js';
import { childInTime, Lateness, missed, RecentMean } from './deadlines.js';
import { nameLabel, type Metrics } from './metrics.js';
import { childOf, deadlineOf, type ChosenChild, type DeadlineQuery } from './schemas.js';
import type { Served } from './served.js';
import { buffersOf } from './workers/asked.js';
import type { ImageRole, PreparedImages, SentImages } from './workers/image.js';
import type { Answer } from './workers/running.js';
import { leastLoaded, type Thread } from './workers/thread.js';

/** What every protocol's prediction is made of. */
export interface PredictionAsked {
  readonly served: Served;
  /** Which child, from what the client said; it may depend on how much of the deadline is gone. */
  readonly choice: Choice;
  /** Classes of each image that are wanted; undefined: all probabilities. */
  readonly top: number | undefined;
  readonly signal: AbortSignal;
}

export interface Choice {
  /** Milliseconds from the request's head to its answer; undefined: no deadline. */
  readonly deadline: number | undefined;
  /** When the request's head was there (`performance.now()`). */
  readonly arrived: number;
  /**
   * @param spent milliseconds since then
   * @param count images, as far as that is known before they are decoded
   * @param decodes whether they are to be decoded first
   */
  readonly child: (spent: number, count: number, decodes: boolean) => ChosenInTime;
}

type ChosenInTime = ChosenChild & { readonly expected?: number; readonly slid?: boolean };

/** What a client sent to be classified: images to decode, or tensors, [count, 3, resolution, resolution]. */
export type Input = { readonly sent: SentImages } | { readonly tensor: Images & { readonly resolution: number } };

export interface Predicted {
  readonly child: ChildDescription;
  readonly choice: ChosenChild['choice'];
  readonly answer: Answer;
  readonly count: number;
  /** File name of each image, where the client gave one. */
  readonly files: readonly (string | undefined)[];
  /** Images that ran together. */
  readonly batch: number;
  readonly deadline: { readonly asked: number; readonly expected: number; readonly took: number; readonly met: boolean; readonly slid: boolean } | undefined;
  readonly milliseconds: { readonly decode: number; readonly ready: number; readonly run: number };
}

/** Refusals that a deadline causes. */
const refusals: readonly ErrorCode[] = ['DEADLINE_TOO_SHORT', 'DEADLINE_MISSED', 'OVERLOADED'];

/** Classifies images with the child that is asked for: the one way that every protocol takes. */
export class Predictions {
  /** What an image takes, from when a worker is free for it. */
  readonly #decode = new RecentMean();
  readonly #late = new Lateness();

  constructor(
    private readonly children: Children,
    private readonly images: readonly Thread<ImageRole>[],
    private readonly buffers: Buffers,
    private readonly admission: Admission,
    private readonly metrics: Metrics,
  ) {}

  /**
   * Reads what a client says of the child.
   * @param arrived when the request's head was there (`performance.now()`)
   * @param resolution of the tensor that the client sent, if it is one
   * @throws BignasError for what is wrong with it, before anything is computed
   */
  choose(served: Served, query: DeadlineQuery, { arrived = performance.now(), resolution }: { readonly arrived?: number; readonly resolution?: number | undefined } = {}): Choice {
    const asked = deadlineOf(served, query, resolution);
    if (!asked) {
      const chosen = childOf(served, query, { resolution });
      return { deadline: undefined, arrived, child: () => chosen };
    }
    const child = (spent: number, count: number, decodes: boolean): ChosenInTime => {
      const each = decodes ? this.#decode.milliseconds : 0;
      // Bodies that wait for an image worker are decoded first.
      const reached = { spent, queue: each * leastLoaded(this.images).load, decode: each * count };
      const { child, expected, slid } = childInTime(asked.children, asked.asked, reached, this.#late.milliseconds, this.children.expected(served, count));
      return { child: { ...served.describe(child.architecture), costs: child.costs }, choice: 'most accurate in time', expected, slid };
    };
    return { deadline: asked.asked.deadline, arrived, child };
  }

  /** @throws BignasError OVERLOADED where `predict` would, before a body is read */
  check(): void {
    this.admission.check();
  }

  /** @throws BignasError for an image or tensor that is none, OVERLOADED, DEADLINE_TOO_SHORT, DEADLINE_MISSED, and what the workers throw */
  async predict({ served, choice: { deadline, arrived, child: choose }, top, signal }: PredictionAsked, input: Input): Promise<Predicted> {
    const { children, metrics } = this;
    const leave = this.admission.enter();
    try {
      const started = performance.now();
      const count = countOf(input);
      const due = deadline === undefined ? undefined : arrived + deadline;
      const { child, choice, expected, slid = false } = choose(started - arrived, count, 'sent' in input);
      const arrive = children.announce(served, child.id, count);
      // Before the child is made: what cannot be answered shall not cost a calibration.
      const prepared = await this.#prepare(served, child, input, signal, due).finally(arrive);
      const decoded = performance.now();
      const { answer, ready, run, rows } = await children.classify(served, child, prepared, top, signal, due);
      const took = performance.now() - arrived;
      if (deadline !== undefined) {
        this.#late.observe(took - expected!);
        metrics.deadlines.inc({ result: took <= deadline ? 'met' : 'missed' });
      }
      if (slid) metrics.slides.inc();
      metrics.predictions.inc({ name: nameLabel(child.name) }, prepared.count);
      return {
        child,
        choice,
        answer,
        count: prepared.count,
        files: prepared.files,
        batch: rows,
        deadline: deadline === undefined ? undefined : { asked: deadline, expected: round(expected!), took: round(took), met: took <= deadline, slid },
        milliseconds: { decode: round(decoded - started), ready: round(ready), run: round(run) },
      };
    } catch (error) {
      if (deadline !== undefined && error instanceof BignasError && refusals.includes(error.code)) {
        if (error.code === 'DEADLINE_MISSED') this.#late.observe(Infinity);
        metrics.deadlines.inc({ result: 'refused' });
      }
      throw error;
    } finally {
      leave();
    }
  }

  async #prepare(served: Served, { resolution, architecture }: ChildDescription, input: Input, signal: AbortSignal, due = Infinity): Promise<PreparedImages> {
    if ('tensor' in input) {
      const { resolution: got, ...images } = input.tensor;
      if (got !== resolution)
        throw new BignasError('TENSOR_INVALID', `Expected \`input\` to have the shape [N, 3, ${resolution}, ${resolution}] for the child ${architecture}, got ${got} pixels. Send images to decode, or name a child of that resolution.`, { resolution });
      return { ...images, files: [], spent: [] };
    }
    const { preprocessing } = served.checkpoint.manifest;
    const { sent } = input;
    const count = countOf(input);
    const sentMemory = 'body' in sent ? [sent.body.buffer] : buffersOf(sent);
    const memory = this.buffers.take(count * 3 * resolution ** 2 * Float32Array.BYTES_PER_ELEMENT);
    let began = 0;
    const turn = (): void => {
      began = performance.now();
      if (began + this.#decode.milliseconds * count <= due) return;
      this.buffers.give([...sentMemory, memory]);
      throw missed();
    };
    const prepared = await leastLoaded(this.images).call('prepare', { sent, resolution, preprocessing, memory }, { transfer: [...sentMemory, memory], signal, turn });
    this.#decode.observe((performance.now() - began) / prepared.count);
    this.buffers.give(prepared.spent);
    return prepared;
  }
}

/** Images of an input; of a form, which may have several, one. */
function countOf(input: Input): number {
  if ('tensor' in input) return input.tensor.count;
  return 'body' in input.sent ? 1 : input.sent.images.length;
}

/** Milliseconds to two digits: more would be noise. */
export function round(milliseconds: number): number {
  return Math.round(milliseconds * 100) / 100;
}

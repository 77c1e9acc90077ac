import type { ChildRecord } from '../src/checkpoint/frontier.js';
import { BignasError } from '../src/errors.js';
import { byAccuracy, fits, type Budget } from '../src/search/select.js';

/** What a request with a deadline allows. */
export interface DeadlineAsked {
  /** Milliseconds from the request's head to its answer. */
  readonly deadline: number;
  /** Top-1 accuracy that the child must have, a fraction. */
  readonly minAccuracy: number;
  readonly budget: Budget;
}

/** What a child is expected to take, in milliseconds. */
export interface Expected {
  /** From now until it begins, if the images were there already. */
  readonly wait: number;
  readonly run: number;
}

/** What a request takes, whichever its child is, in milliseconds. */
export interface Reached {
  /** It has taken so far. */
  readonly spent: number;
  /** Others are decoded before it. */
  readonly queue: number;
  /** Its own images are decoded. */
  readonly decode: number;
}

export interface DeadlineChoice {
  readonly child: ChildRecord;
  /** Milliseconds from the request's head to its answer. */
  readonly expected: number;
  /** Whether a more accurate child would have been taken if nobody else were served. */
  readonly slid: boolean;
}

/** Part of answers that may come later than expected and `Lateness`. */
const TOO_LATE = 0.01;
/** Milliseconds that an answer moves the estimate by. */
const PACE = 1;
/** Milliseconds after which half of it is forgotten: the machine was busy with something else, and few may ask now. */
const HALF_LIFE = 10_000;

/**
 * By how much answers come later than expected, all but one in a hundred: an online estimate of the quantile, which rises with each answer that comes later still and
 * falls a little with each other one, and with time.
 */
export class Lateness {
  #value = 0;
  #at = performance.now();

  get milliseconds(): number {
    return this.#value * 0.5 ** ((performance.now() - this.#at) / HALF_LIFE);
  }

  /** @param late milliseconds that an answer came later than was expected; negative: sooner; Infinity: it did not come in time and was given up */
  observe(late: number): void {
    const value = this.milliseconds;
    this.#value = Math.max(0, value + PACE * (late > value ? 1 - TOO_LATE : -TOO_LATE));
    this.#at = performance.now();
  }
}

/** Part of the mean that an observation makes, at least. */
const NEWEST = 0.02;
/** Times the mean that an observation counts at most: the machine stood still while it was made. */
const OUTLIER = 10;
/** Milliseconds after which the mean is an old story: requests that it kept away may be in time by now. */
const STALE = 5000;

/** What something took lately: a running mean that a moment's standstill does not spoil. */
export class RecentMean {
  #value = 0;
  #count = 0;
  #at = -Infinity;

  /** 0 where it is not known. */
  get milliseconds(): number {
    return performance.now() - this.#at < STALE ? this.#value : 0;
  }

  observe(milliseconds: number): void {
    this.#count++;
    const bounded = this.#count === 1 ? milliseconds : Math.min(milliseconds, OUTLIER * this.#value);
    this.#value += Math.max(NEWEST, 1 / this.#count) * (bounded - this.#value);
    this.#at = performance.now();
  }
}

/** Part of a deadline that is kept for what is not foreseen. */
const reserve = 0.1;

/**
 * The most accurate of the children that is expected to answer in time under the load of now: of those in memory, as another would have to be built first.
 * @param late milliseconds by which answers come later than expected now and then: the child is one that makes it even so, where there is one
 * @param expectedOf undefined for a child that is not in memory
 * @throws BignasError OVERLOADED where the queue alone makes all of them late, DEADLINE_TOO_SHORT where none would be in time even so, BUDGET_TOO_SMALL where none is allowed
 */
export function childInTime(
  children: readonly ChildRecord[],
  { deadline, minAccuracy, budget }: DeadlineAsked,
  { spent, queue, decode }: Reached,
  late: number,
  expectedOf: (id: string) => Expected | undefined,
): DeadlineChoice {
  const allowed = children.filter((child) => fits(child, budget) && (child.accuracy?.value ?? 0) >= minAccuracy);
  if (allowed.length === 0)
    throw new BignasError('BUDGET_TOO_SMALL', `No child has an accuracy of ${minAccuracy} within the budget. Allow less accuracy, or more cost.`, { budget, minAccuracy });
  const ready = allowed.flatMap((child) => {
    const expected = expectedOf(child.id);
    // Those before it run while it is decoded.
    return expected ? [{ child, alone: spent + decode + expected.run, expected: spent + Math.max(queue + decode, expected.wait) + expected.run }] : [];
  });
  if (ready.length === 0) throw new BignasError('OVERLOADED', 'The children that are allowed are not in memory yet. Ask again in a second.');
  const most = deadline * (1 - reserve);
  ready.sort((a, b) => byAccuracy(a.child, b.child));
  const inTime = ready.filter(({ expected }) => expected <= most);
  // Where none is sure to, the fastest may make it all the same.
  const chosen = inTime.find(({ expected }) => expected + late <= most) ?? inTime.sort((a, b) => a.expected - b.expected)[0];
  const ideal = ready.find(({ alone }) => alone <= most);
  if (chosen) return { child: chosen.child, expected: chosen.expected, slid: chosen !== ideal };
  if (ideal) throw new BignasError('OVERLOADED', `The server is busy: even the fastest child would answer after ${Math.min(...ready.map(({ expected }) => Math.ceil(expected)))} ms. Ask again in a second.`, { deadline });
  const fastest = ready.reduce((a, b) => (b.alone < a.alone ? b : a));
  throw new BignasError('DEADLINE_TOO_SHORT', `Expected \`deadline\` to be ${Math.ceil(fastest.alone / (1 - reserve))} ms or more: the fastest child allowed takes ${Math.ceil(fastest.alone)} ms.`, {
    deadline,
    fastest: { id: fastest.child.id, architecture: fastest.child.architecture, milliseconds: Math.ceil(fastest.alone) },
  });
}

/** The error of a prediction that would come too late by now. */
export function missed(): BignasError {
  return new BignasError('DEADLINE_MISSED', 'The deadline came before the prediction could be computed: others were due before it. Ask for a later one, or for a smaller child.');
}

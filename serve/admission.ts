import { BignasError } from '../src/errors.js';

/**
 * How many requests may compute or wait for it at one time. Beyond it they are refused at once rather than made to wait. A request
 * whose client is gone keeps its place until its work has ended: the place stands for the work.
 */
export class Admission {
  #count = 0;
  /** Seconds between two places given back, a running mean. */
  #interval: number | undefined;
  #given: number | undefined;

  constructor(
    /** At least 1. */
    readonly limit: number,
    readonly observe: (count: number) => void,
  ) {}

  /** Requests that hold a place. */
  get count(): number {
    return this.#count;
  }

  /** Seconds after which who was refused may ask again: until half of those who have a place are expected to have left it, from 1 to 60. */
  get retryAfter(): number {
    return Math.max(1, Math.min(60, Math.ceil((this.#count / 2) * (this.#interval ?? 0))));
  }

  /** @throws BignasError OVERLOADED where `enter` would */
  check(): void {
    if (this.#count >= this.limit)
      throw new BignasError('OVERLOADED', `The server computes ${this.#count} requests, its limit. Ask again in ${this.retryAfter} s.`, { limit: this.limit });
  }

  /** @returns what gives the place back, once however often it is called. @throws BignasError OVERLOADED */
  enter(): () => void {
    this.check();
    this.observe(++this.#count);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#observeInterval();
      this.observe(--this.#count);
    };
  }

  #observeInterval(): void {
    const now = performance.now();
    // A pause in which nobody asked says nothing of how fast places come free.
    if (this.#given !== undefined && this.#count > 1) {
      const interval = (now - this.#given) / 1000;
      this.#interval = this.#interval === undefined ? interval : 0.9 * this.#interval + 0.1 * interval;
    }
    this.#given = now;
  }
}

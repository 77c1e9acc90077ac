import { BignasError } from '../src/errors.js';

/**
 * How many requests may compute or wait for it at one time. Beyond it they are refused at once rather than made to wait. A request
 * whose client is gone keeps its place until its work has ended: the place stands for the work.
 */
export class Admission {
  #count = 0;

  constructor(
    /** At least 1. */
    readonly limit: number,
    readonly observe: (count: number) => void,
  ) {}

  /** Requests that hold a place. */
  get count(): number {
    return this.#count;
  }

  /** @throws BignasError OVERLOADED where `enter` would */
  check(): void {
    if (this.#count >= this.limit)
      throw new BignasError('OVERLOADED', `The server computes ${this.#count} requests, its limit. Ask again in a second.`, { limit: this.limit });
  }

  /** @returns what gives the place back, once however often it is called. @throws BignasError OVERLOADED */
  enter(): () => void {
    this.check();
    this.observe(++this.#count);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.observe(--this.#count);
    };
  }
}

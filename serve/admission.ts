import type { RequestHandler } from 'express';
import { BignasError } from '../src/errors.js';

/** How many requests may compute or wait for it at one time. Beyond it they are refused at once rather than made to wait. */
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

  /** @returns what gives the place back, once however often it is called. @throws BignasError OVERLOADED */
  enter(): () => void {
    if (this.#count >= this.limit)
      throw new BignasError('OVERLOADED', `The server computes ${this.#count} requests, its limit. Ask again in a second.`, { limit: this.limit });
    this.observe(++this.#count);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.observe(--this.#count);
    };
  }
}

/**
 * Gives every request a place until its answer is sent or its client is gone.
 * @example app.post('/predict', admit(services.admission), predict)
 */
export function admit(admission: Admission): RequestHandler {
  return function admitRequest(_request, response, next) {
    response.once('close', admission.enter());
    next();
  };
}

import { LRUCache } from 'lru-cache';
import { freeAtOnce } from '../memory.js';
import type { Statistics } from '../graph/statistics.js';

/** What calibrating one batch up to a segment's end came to. */
export interface Prefix {
  /** The segment's output, [count, channels, height, width]. */
  readonly output: Float32Array;
  /** Of this batch, of every batch norm up to there. */
  readonly statistics: Statistics;
}

/** Bytes of a map's entry and its key, beside its arrays. */
const ENTRY_BYTES = 1024;

/**
 * Prefixes of children that were calibrated, bounded in bytes: those not used for the longest time go first. What goes is freed at once, so one that was found is good until the next one is set: children
 * that share a store are calibrated one after another.
 */
export class PrefixStore {
  readonly #lru: LRUCache<string, Prefix>;
  #hits = 0;

  constructor(maxBytes: number) {
    this.#lru = new LRUCache({
      maxSize: maxBytes,
      dispose: ({ output }) => freeAtOnce(output),
      sizeCalculation: ({ output, statistics }) => ENTRY_BYTES + output.byteLength + [...statistics.values()].reduce((sum, { mean, variance }) => sum + mean.byteLength + variance.byteLength, 0),
    });
  }

  get bytes(): number {
    return this.#lru.calculatedSize;
  }

  /** Prefixes that were found. */
  get hits(): number {
    return this.#hits;
  }

  get(key: string): Prefix | undefined {
    const prefix = this.#lru.get(key);
    if (prefix) this.#hits++;
    return prefix;
  }

  /** @returns whether it has room; the store owns the output then */
  set(key: string, prefix: Prefix): boolean {
    return this.#lru.set(key, prefix).has(key);
  }
}

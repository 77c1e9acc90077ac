/** How fast an old measurement is forgotten: each counts so much of the next one. */
const memory = 0.95;
/** A batch is large enough when it has so much of the throughput that an endless one would have. */
const enough = 0.9;

/** Milliseconds after which what a run took is an old story: the machine may have been busy with something else then. */
const stale = 5000;
/** How fast the shortest run is forgotten, a run. */
const forgetting = 1.01;

/**
 * How long a child's runs take, learned from those that it did: a constant and a part for each row, by least squares over the latest ones.
 */
export class RunTimes {
  /** Sums over runs: weight, rows, seconds, rows², rows · seconds. */
  #sums = { w: 0, x: 0, y: 0, xx: 0, xy: 0 };

  /** The shortest run of each size, with some patience for a machine that becomes slower. */
  readonly #shortest = new Map<number, number>();
  #observed = 0;

  observe(rows: number, seconds: number): void {
    this.#observed = performance.now();
    this.#shortest.set(rows, Math.min(seconds, forgetting * (this.#shortest.get(rows) ?? Infinity)));
    const { w, x, y, xx, xy } = this.#sums;
    this.#sums = { w: memory * w + 1, x: memory * x + rows, y: memory * y + seconds, xx: memory * xx + rows ** 2, xy: memory * xy + rows * seconds };
  }

  /**
   * Seconds of a run of so many rows; undefined before the first run. A child that was slow once would never be asked again, and never be found fast: so after a while
   * the shortest run counts.
   */
  seconds(rows: number): number | undefined {
    const line = this.#line();
    const lately = line && line.start + line.row * rows;
    const shortest = this.#shortest.get(rows);
    return lately !== undefined && shortest !== undefined && performance.now() - this.#observed > stale ? Math.min(lately, shortest) : lately;
  }

  /**
   * Rows beyond which a larger batch gains little throughput, but at least twice as many as runs had lately, so that larger ones are tried; `most` before
   * runs of two sizes are known.
   */
  batch(most: number): number {
    const { w, x, xx } = this.#sums;
    const line = this.#line();
    if (!line || line.row <= 0 || w * xx - x * x <= 1e-9 * w * xx) return most;
    const gains = Math.ceil((line.start / line.row) * (enough / (1 - enough)));
    return Math.max(1, Math.min(most, Math.max(gains, Math.ceil((2 * x) / w))));
  }

  /** Neither part negative; of runs of one size alone, all time is the rows'. */
  #line(): { readonly start: number; readonly row: number } | undefined {
    const { w, x, y, xx, xy } = this.#sums;
    if (w === 0) return undefined;
    const spread = w * xx - x * x;
    if (spread <= 1e-9 * w * xx) return { start: 0, row: y / x };
    const row = (w * xy - x * y) / spread;
    const start = (y - row * x) / w;
    if (row < 0) return { start: y / w, row: 0 };
    return start < 0 ? { start: 0, row: xy / xx } : { start, row };
  }
}

/** How fast an old measurement is forgotten: each counts so much of the next one. */
const memory = 0.95;
/** A batch is large enough when it has so much of the best throughput. */
const enough = 0.95;
/** How fast a measured throughput is forgotten, a run of its size. */
const forgetful = 0.8;
/** Runs between two tries of a batch that is larger than what seems large enough: it may have been measured while the machine was busy. */
const triesEvery = 64;
/** Runs of the largest size alone after which half of it is tried. */
const HALF_AFTER = 8;

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
  /** Rows a second of runs of more than 2^(i − 1) rows, up to 2^i. */
  readonly #rates: (number | undefined)[] = [];
  #runs = 0;

  observe(rows: number, seconds: number): void {
    this.#observed = performance.now();
    this.#runs++;
    const size = Math.ceil(Math.log2(rows));
    const rate = rows / Math.max(seconds, 1e-9);
    this.#rates[size] = forgetful * (this.#rates[size] ?? rate) + (1 - forgetful) * rate;
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
   * Rows that a batch should have, at most: the fewest that reach the best throughput. That rises with the rows, until their activations no longer fit into the
   * processor's caches; so twice as many are tried as long as it rises, and now and then afterwards. `most` before runs of two sizes are known; half of it is tried soon.
   */
  batch(most: number): number {
    const largest = Math.ceil(Math.log2(most));
    const rates = Array.from(this.#rates.slice(0, largest + 1));
    if (rates.filter((rate) => rate !== undefined).length < 2) {
      // Batches that were always full say nothing of smaller ones.
      return rates.length > largest && this.#runs % HALF_AFTER === 0 ? Math.ceil(most / 2) : most;
    }
    const best = Math.max(0, ...rates.map((rate) => rate ?? 0));
    const good = (rate: number | undefined): boolean => rate !== undefined && rate >= enough * best;
    if (good(rates.at(-1)) && rates.length <= largest) return Math.min(most, 2 ** rates.length);
    const size = rates.findIndex(good);
    const tried = this.#runs % triesEvery === 0 && size < largest ? 1 + ((this.#runs / triesEvery) % (largest - size)) : 0;
    return Math.min(most, 2 ** (size + tried));
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

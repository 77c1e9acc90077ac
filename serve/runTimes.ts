/** How fast an old measurement is forgotten: each counts so much of the next one. */
const memory = 0.95;
/** A batch is large enough when it has so much of the best throughput. */
const enough = 0.95;
/** How fast a measured throughput is forgotten, a run. */
const forgetful = 0.9;
/** Runs before another size of a batch is tried than the one that seems best, doubled after each try up to `triesEvery`: that one may have been measured while the machine was busy. */
const FIRST_TRY = 8;
const triesEvery = 64;

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
  /** Which run was the latest of that size. */
  readonly #lastRun: (number | undefined)[] = [];
  #runs = 0;

  observe(rows: number, seconds: number): void {
    this.#observed = performance.now();
    this.#runs++;
    const size = Math.ceil(Math.log2(rows));
    const rate = rows / Math.max(seconds, 1e-9);
    // What a size did long ago says little: the machine may have been busy then.
    const old = forgetful ** (this.#runs - (this.#lastRun[size] ?? 0));
    this.#rates[size] = old * (this.#rates[size] ?? rate) + (1 - old) * rate;
    this.#lastRun[size] = this.#runs;
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
   * processor's caches; so twice as many are tried as long as it rises, and other sizes now and then, more often at first. `most` before runs of two sizes are known.
   */
  batch(most: number): number {
    const largest = Math.ceil(Math.log2(most));
    const rates = Array.from(this.#rates.slice(0, largest + 1));
    const known = rates.filter((rate) => rate !== undefined).length;
    const best = Math.max(0, ...rates.map((rate) => rate ?? 0));
    const good = (rate: number | undefined): boolean => rate !== undefined && rate >= enough * best;
    if (known > 1 && good(rates.at(-1)) && rates.length <= largest) return Math.min(most, 2 ** rates.length);
    const size = known > 1 ? rates.findIndex(good) : largest;
    return Math.min(most, 2 ** (this.#tried(size, largest) ?? size));
  }

  /** Another size than the one that seems best, if it is time for that: the next smaller ones, then the larger ones from the largest on. */
  #tried(size: number, largest: number): number | undefined {
    const early = Math.log2(this.#runs) - Math.log2(FIRST_TRY);
    const tries = this.#runs >= triesEvery ? Math.log2(triesEvery / FIRST_TRY) + this.#runs / triesEvery - 1 : early;
    if (largest === 0 || tries < 0 || !Number.isInteger(tries)) return undefined;
    return (size + largest - (tries % largest)) % (largest + 1);
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

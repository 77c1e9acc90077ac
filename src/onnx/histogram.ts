const BINS = 2048;

/** Bounds that are tried on each side of zero. */
const CANDIDATES = 128;

/** How often a value's elements were how large. Its bins widen as it needs them. */
export class Histogram {
  readonly #counts = new Float64Array(BINS);
  #from = 0;
  #to = 0;

  /** @throws Error for an element that is not finite */
  add(data: Float32Array): void {
    this.#reach(data);
    if (this.#to === this.#from) return; // nothing but zeros
    const counts = this.#counts;
    const perUnit = BINS / (this.#to - this.#from);
    for (let i = 0; i < data.length; i++) {
      const value = data[i]!;
      // Zero is represented exactly, however wide the range is: of no weight, and half of what comes out of a ReLU.
      if (value !== 0) counts[Math.min(Math.floor((value - this.#from) * perUnit), BINS - 1)]!++;
    }
  }

  /**
   * The range, zero included, whose 256 steps have the least mean absolute error: a quarter of a step within, all that lies beyond it outside. Of the ways
   * measured (bench/slice) it costs the least accuracy; squares, which weigh the few far ones more, and the extremes themselves cost several times as much.
   */
  range(): readonly [least: number, most: number] {
    const { below, sumBelow } = this.#cumulated();
    const [all, sum] = [below[BINS]!, sumBelow[BINS]!];
    const edge = (bound: number): number => Math.min(Math.max(Math.round(((bound - this.#from) / (this.#to - this.#from)) * BINS), 0), BINS);
    const bounds = (furthest: number) =>
      Array.from({ length: CANDIDATES }, (_, k) => (furthest * (CANDIDATES - k)) / CANDIDATES).map((bound) => ({ bound, at: edge(bound) }));
    let best: readonly [number, number] = [this.#from, this.#to];
    let leastError = Infinity;
    for (const low of this.#from < 0 ? bounds(this.#from) : [{ bound: 0, at: edge(0) }])
      for (const high of this.#to > 0 ? bounds(this.#to) : [{ bound: 0, at: edge(0) }]) {
        const within = ((below[high.at]! - below[low.at]!) * (high.bound - low.bound)) / 255 / 4;
        const outside = low.bound * below[low.at]! - sumBelow[low.at]! + (sum - sumBelow[high.at]!) - high.bound * (all - below[high.at]!);
        if (within + outside >= leastError) continue;
        leastError = within + outside;
        best = [low.bound, high.bound];
      }
    return [Math.fround(best[0]), Math.fround(best[1])];
  }

  /** Elements below each bin's edge, and their sum. */
  #cumulated(): { readonly below: Float64Array; readonly sumBelow: Float64Array } {
    const below = new Float64Array(BINS + 1);
    const sumBelow = new Float64Array(BINS + 1);
    const width = (this.#to - this.#from) / BINS;
    for (let i = 0; i < BINS; i++) {
      below[i + 1] = below[i]! + this.#counts[i]!;
      sumBelow[i + 1] = sumBelow[i]! + this.#counts[i]! * (this.#from + (i + 0.5) * width);
    }
    return { below, sumBelow };
  }

  /** Widens until all of the data lie within; of empty bins, to just there. */
  #reach(data: Float32Array): void {
    let [least, most] = [0, 0];
    for (let i = 0; i < data.length; i++) {
      const value = data[i]!;
      if (!Number.isFinite(value)) throw new Error(`Expected finite activations, got ${value}.`);
      if (value < least) least = value;
      else if (value > most) most = value;
    }
    if (this.#to === this.#from) [this.#from, this.#to] = [outwards(least), outwards(most)];
    while (least < this.#from) this.#double(1);
    while (most > this.#to) this.#double(0);
  }

  /** Doubles the bins' width. What was counted moves to the lower (0) or the upper (1) half. */
  #double(half: 0 | 1): void {
    const pairs = Float64Array.from({ length: BINS / 2 }, (_, i) => this.#counts[2 * i]! + this.#counts[2 * i + 1]!);
    this.#counts.fill(0);
    this.#counts.set(pairs, (half * BINS) / 2);
    if (half === 0) this.#to += this.#to - this.#from;
    else this.#from -= this.#to - this.#from;
  }
}

/** Of four significant bits, and no nearer to zero. What rounding does differently on another machine then moves no bin's edge. */
function outwards(value: number): number {
  if (value === 0) return 0;
  const unit = 2 ** (Math.floor(Math.log2(Math.abs(value))) - 3);
  return Math.sign(value) * Math.ceil(Math.abs(value) / unit) * unit;
}

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
   * The range, zero included, whose 256 steps have the least mean absolute error in what becomes of the value: a quarter of a step within, all that lies beyond it outside.
   * Of the ways measured (bench/README.md) it costs the least accuracy; squares, which weigh the few far ones more, and the extremes themselves cost several
   * times as much.
   * @param becomes what the network makes of an element: far below zero, a swish makes nothing of it, and steps would be wasted there
   */
  range(becomes: (x: number) => number = (x) => x): readonly [least: number, most: number] {
    const [from, to] = [this.#from, this.#to];
    if (from === to) return [0, 0];
    const width = (to - from) / BINS;
    const edge = (bound: number): number => Math.min(Math.max(Math.round(((bound - from) / (to - from)) * BINS), 0), BINS);
    const middles = Float64Array.from({ length: BINS }, (_, i) => from + (i + 0.5) * width);
    const images = middles.map(becomes);
    // Of the elements below each bin's edge: how much what becomes of them changes with them, summed.
    const slopes = new Float64Array(BINS + 1);
    for (let i = 0; i < BINS; i++) slopes[i + 1] = slopes[i]! + this.#counts[i]! * Math.abs(becomes(from + (i + 1) * width) - becomes(from + i * width)) / width;
    /** Each bound on a side, and the error of what lies beyond it. */
    const bounds = (furthest: number) =>
      Array.from({ length: furthest === 0 ? 1 : CANDIDATES }, (_, k) => {
        const bound = (furthest * (CANDIDATES - k)) / CANDIDATES;
        const at = edge(bound);
        const image = becomes(bound);
        let outside = 0;
        for (let i = furthest < 0 ? 0 : at; i < (furthest < 0 ? at : BINS); i++) outside += this.#counts[i]! * Math.abs(images[i]! - image);
        return { bound, at, outside };
      });
    let best: readonly [number, number] = [from, to];
    let leastError = Infinity;
    const highs = bounds(Math.max(to, 0));
    for (const low of bounds(Math.min(from, 0)))
      for (const high of highs) {
        const within = ((slopes[high.at]! - slopes[low.at]!) * (high.bound - low.bound)) / 255 / 4;
        if (within + low.outside + high.outside >= leastError) continue;
        leastError = within + low.outside + high.outside;
        best = [low.bound, high.bound];
      }
    return [Math.fround(best[0]), Math.fround(best[1])];
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

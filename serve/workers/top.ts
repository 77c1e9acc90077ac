/** A class by its index, and how probable it is (0 … 1). */
export interface ClassProbability {
  readonly index: number;
  readonly probability: number;
}

/**
 * The `top` most probable classes of each image, best first (the lower index first where equal): softmax in double precision.
 * @param logits [count, classes]
 */
export function topClasses(logits: Float32Array, count: number, top: number): ClassProbability[][] {
  const classes = logits.length / count;
  return Array.from({ length: count }, (_, i) => {
    const row = logits.subarray(i * classes, (i + 1) * classes);
    const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Float64Array.from(row, (logit) => Math.exp(logit - most));
    const sum = powers.reduce((a, b) => a + b, 0);
    return [...powers.keys()]
      .sort((a, b) => powers[b]! - powers[a]! || a - b)
      .slice(0, top)
      .map((index) => ({ index, probability: powers[index]! / sum }));
  });
}

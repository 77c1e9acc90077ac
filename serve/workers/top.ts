/** A class by its index, and how probable it is (0 … 1). */
export interface ClassProbability {
  readonly index: number;
  readonly probability: number;
}

/**
 * The `top` most probable classes of each image, best first (the lower index first where equal).
 * @param logits [count, classes]
 */
export function topClasses(logits: Float32Array, count: number, top: number): ClassProbability[][] {
  const classes = logits.length / count;
  return Array.from({ length: count }, (_, i) => {
    const row = probabilities(logits.subarray(i * classes, (i + 1) * classes));
    return [...row.keys()]
      .sort((a, b) => row[b]! - row[a]! || a - b)
      .slice(0, top)
      .map((index) => ({ index, probability: row[index]! }));
  });
}

/** Every class's probability, [count, classes]. @param logits [count, classes] */
export function softmax(logits: Float32Array, count: number): Float32Array<ArrayBuffer> {
  const classes = logits.length / count;
  const all = new Float32Array(logits.length);
  for (let i = 0; i < count; i++) all.set(probabilities(logits.subarray(i * classes, (i + 1) * classes)), i * classes);
  return all;
}

/** Softmax of one image's logits, in double precision. */
function probabilities(row: Float32Array): Float64Array {
  const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Float64Array.from(row, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

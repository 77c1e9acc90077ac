/** first, first + step, … up to last, both included. */
export function range(first: number, last: number, step = 1): [number, ...number[]] {
  return [first, ...Array.from({ length: Math.floor((last - first) / step) }, (_, i) => first + (i + 1) * step)];
}

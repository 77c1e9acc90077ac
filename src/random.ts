/**
 * Stateless randomness (the paper's appendix C): a draw is a function of its keys alone (seed, step, layer, image, …), so every
 * replica and every resumed run draws the same. Nothing here keeps a generator between calls.
 */

/** Avalanche of 32 bits (MurmurHash3's finaliser). */
function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A uint32 that depends on every bit of every key; keys are taken as integers below 2^53. */
export function hash(...keys: readonly number[]): number {
  let h = 0x9e3779b9;
  for (const key of keys) {
    h = mix(h ^ (key >>> 0));
    h = (Math.imul(h, 5) + 0xe6546b64 + Math.floor(key / 0x1_0000_0000)) >>> 0;
  }
  return mix(h ^ keys.length);
}

/** A uint32 key of a text (FNV-1a), so that a named purpose can be among the keys. */
export function key(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/** A stream of draws for one set of keys. */
export interface Stream {
  /** Uniform in [0, 1), 32 bits. */
  uniform(): number;
  /** Uniform integer in [0, n). */
  integer(n: number): number;
  /** Standard normal (Box–Muller). */
  normal(): number;
}

/** The draws of these keys, in order: the i-th is a hash of the keys and i. */
export function stream(...keys: readonly number[]): Stream {
  const base = hash(...keys);
  const base2 = hash(...keys, 0x5bd1e995);
  let i = 0;
  const uniform = (): number => mix(mix(base ^ Math.imul(++i, 0x9e3779b1)) ^ base2) / 0x1_0000_0000;
  return {
    uniform,
    integer: (n) => Math.floor(uniform() * n),
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  };
}

/** A permutation of 0 … n − 1 (Fisher–Yates). */
export function permutation(n: number, ...keys: readonly number[]): Uint32Array {
  const draws = stream(...keys);
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = draws.integer(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

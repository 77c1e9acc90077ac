import { BignasError, shown } from '../../src/errors.js';

/** Numbers as nested lists have them. */
export interface Tensor {
  /** Lengths of the lists, the outermost first. */
  readonly shape: readonly number[];
  /** In row-major order. */
  readonly data: Float32Array<ArrayBuffer>;
}

/** Dimensions that a list may have at most. */
const MOST_DIMENSIONS = 8;

/**
 * The numbers of nested lists of equal lengths.
 * @param most numbers that there can be, such as half the bytes of the JSON text: no memory is taken for more
 * @throws BignasError TENSOR_INVALID, naming the place
 */
export function tensorOf(lists: unknown, name: string, most: number): Tensor {
  const shape: number[] = [];
  for (let at = lists; Array.isArray(at); at = (at as readonly unknown[])[0]) shape.push(at.length);
  const size = shape.reduce((product, length) => product * length, 1);
  if (shape.length === 0 || shape.length > MOST_DIMENSIONS || size === 0) throw invalid(name, 'nested lists of numbers', lists);
  if (size > most) throw new BignasError('TENSOR_INVALID', `Expected \`${name}\` to be lists of equal lengths; its first ones (${shape.join(' × ')}) are longer than all of it can be.`);
  const data = new Float32Array(size);
  let written = 0;
  const write = (list: unknown, dimension: number): void => {
    if (!Array.isArray(list) || list.length !== shape[dimension]) throw invalid(name, `lists of equal lengths (${shape.join(' × ')})`, list);
    if (dimension === shape.length - 1) for (const value of list as readonly unknown[]) data[written++] = finite(value, name);
    else for (const inner of list as readonly unknown[]) write(inner, dimension + 1);
  };
  write(lists, 0);
  return { shape, data };
}

/** @throws BignasError TENSOR_INVALID where a value is no finite 32-bit number */
export function checkFinite(data: Float32Array, name: string): void {
  // A sum is finite where all of its terms are, and nearly always then: looking at each takes several times as long.
  // Four sums, since each addition waits for the one before it.
  let [a, b, c, d] = [0, 0, 0, 0];
  const whole = data.length - (data.length % 4);
  for (let i = 0; i < whole; i += 4) {
    a += data[i]!;
    b += data[i + 1]!;
    c += data[i + 2]!;
    d += data[i + 3]!;
  }
  for (let i = whole; i < data.length; i++) a += data[i]!;
  if (Number.isFinite(a + b + c + d)) return;
  for (const value of data) finite(value, name);
}

function finite(value: unknown, name: string): number {
  // A larger number would become infinite as a 32-bit one.
  if (typeof value === 'number' && Number.isFinite(Math.fround(value))) return value;
  throw invalid(name, 'finite 32-bit numbers', value);
}

export function invalid(name: string, expected: string, got: unknown): BignasError {
  return new BignasError('TENSOR_INVALID', `Expected \`${name}\` to be ${expected}, got ${typeof got === 'number' ? String(got) : shown(got)}.`, { tensor: name });
}

/**
 * The inner loops of a resize in WebAssembly: typed arrays check every index and JavaScript has no vectors, and the same loops in it
 * take three times as long. There are two of them, so they are assembled here, instruction by instruction, without a tool. They add
 * and multiply doubles as JavaScript does, term after term: the same bits.
 */

/** The part of the global that is used; the compiler's `lib` for Node has none. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: object };
};

export interface ResizeKernel {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): unknown };
  /**
   * count × lanes sums, as doubles that hold float32 values: lane j of output i is the sum over k, from 0 and in this order, of
   * weight `i * taps + k` times the double that lies j doubles after `starts[i] + k * step`. Lanes go by fours: up to `SPARE_LANES`
   * more are read after the last input and written after the last output. At least one output, one tap and one lane.
   * @param starts address of `count` int32 addresses @param weights address of count × taps doubles @param step bytes @param to address
   */
  weightedSums(starts: number, count: number, weights: number, taps: number, step: number, lanes: number, to: number): void;
  /** Rounds `lanes` doubles from address `from` on (halves up) and clamps them to 0 … 255: one byte each, from `from` on. */
  roundToBytes(from: number, lanes: number): void;
}

const SPARE_LANES = 3;
const PAGE_BYTES = 65_536;
export const BYTES_PER_DOUBLE = Float64Array.BYTES_PER_ELEMENT;

let instance: ResizeKernel | undefined;

/** The kernel of this thread. */
export function resizeKernel(): ResizeKernel {
  instance ??= new WebAssembly.Instance(new WebAssembly.Module(assemble())).exports as ResizeKernel;
  return instance;
}

/** A row's values, rounded (halves up) and clamped to 0 … 255. The row, an array of the kernel's, holds them from now on and no doubles. */
export function roundedRow(row: Float64Array<ArrayBuffer>): Uint8Array {
  resizeKernel().roundToBytes(row.byteOffset, row.length);
  return new Uint8Array(row.buffer, row.byteOffset, row.length);
}

/** Arrays of so many doubles in the kernel's memory, each with lanes to spare after it: valid until the next call. */
export function kernelArrays<const L extends readonly number[]>(...lengths: L): { [K in keyof L]: Float64Array<ArrayBuffer> } {
  const { memory } = resizeKernel();
  const ends = lengths.map((_, i) => lengths.slice(0, i + 1).reduce((sum, length) => sum + length + SPARE_LANES, 0));
  const missing = ends.at(-1)! * BYTES_PER_DOUBLE - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
  return lengths.map((length, i) => new Float64Array(memory.buffer, (ends[i]! - length - SPARE_LANES) * BYTES_PER_DOUBLE, length)) as { [K in keyof L]: Float64Array<ArrayBuffer> };
}

type Code = readonly number[];

// The binary format's numbers (LEB128, from 0), lists and sections; then the instructions, of which V is a vector of two doubles.
const leb = (n: number): Code => (n < 64 ? [n] : [(n & 127) | 128, ...leb(n >> 7)]);
const list = (...items: Code[]): Code => [...leb(items.length), ...items.flat()];
const sized = (code: Code): Code => [...leb(code.length), ...code];
const section = (id: number, ...items: Code[]): Code => [id, ...sized(list(...items))];
const name = (text: string): Code => sized(Array.from(text, (letter) => letter.charCodeAt(0)));

const [I32, V128] = [0x7f, 0x7b];
const get = (local: number): Code => [0x20, local];
const set = (local: number, value: Code): Code => [...value, 0x21, local];
/** Runs its body again while the condition holds. */
const loop = (body: Code[], condition: Code): Code => [0x03, 0x40, ...body.flat(), ...condition, 0x0d, 0, 0x0b];
const constant = (n: number): Code => [0x41, ...leb(n)];
const add = (a: Code, b: Code): Code => [...a, ...b, 0x6a];
const shift = (a: Code, bits: number): Code => [...a, ...constant(bits), 0x74];
const less = (a: Code, b: Code): Code => [...a, ...b, 0x49];
const load = (address: Code): Code => [...address, 0x28, 2, 0];
const constantV = (bytes: number[]): Code => [0xfd, 0x0c, ...bytes, ...bytes];
const loadV = (address: Code, offset: number): Code => [...address, 0xfd, 0x00, 3, offset];
const loadTwiceV = (address: Code): Code => [...address, 0xfd, 0x0a, 3, 0];
const storeV = (address: Code, offset: number, value: Code): Code => [...address, ...value, 0xfd, 0x0b, 3, offset];
const addV = (a: Code, b: Code): Code => [...a, ...b, 0xfd, 0xf0, 1];
const multiplyV = (a: Code, b: Code): Code => [...a, ...b, 0xfd, 0xf2, 1];
const froundV = (a: Code): Code => [...a, 0xfd, 0x5e, 0xfd, 0x5f]; // to float32 and back
const truncateV = (a: Code): Code => [...a, 0xfd, 0xfc, 1]; // to two int32 and two zeros, saturating
const firstHalves = (a: Code, b: Code): Code => [...a, ...b, 0xfd, 0x0d, ...[0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]];
const int16 = (a: Code): Code => [...a, ...a, 0xfd, 0x85, 1]; // from int32, saturating
const uint8 = (a: Code): Code => [...a, ...a, 0xfd, 0x66]; // from int16, saturating
const storeFour = (address: Code, bytes: Code): Code => [...address, ...bytes, 0xfd, 0x5a, 0, 0, 0];

const zeros = constantV([0, 0, 0, 0, 0, 0, 0, 0]);
const halves = constantV([0, 0, 0, 0, 0, 0, 0xe0, 0x3f]);

function weightedSums(): Code {
  const [starts, count, weights, taps, step, lanes, to] = [0, 1, 2, 3, 4, 5, 6];
  const [endOfStarts, lane, from, weight, endOfWeights, low, high, factor] = [7, 8, 9, 10, 11, 12, 13, 14];
  return [
    set(taps, shift(get(taps), 3)), // both in bytes from here on
    set(lanes, shift(get(lanes), 3)),
    set(endOfStarts, add(get(starts), shift(get(count), 2))),
    loop([
      set(endOfWeights, add(get(weights), get(taps))),
      set(lane, constant(0)),
      loop([
        set(from, add(load(get(starts)), get(lane))),
        set(weight, get(weights)),
        set(low, zeros),
        set(high, zeros),
        loop([
          set(factor, loadTwiceV(get(weight))),
          set(low, addV(get(low), multiplyV(get(factor), loadV(get(from), 0)))),
          set(high, addV(get(high), multiplyV(get(factor), loadV(get(from), 16)))),
          set(from, add(get(from), get(step))),
          set(weight, add(get(weight), constant(8))),
        ], less(get(weight), get(endOfWeights))),
        storeV(add(get(to), get(lane)), 0, froundV(get(low))),
        storeV(add(get(to), get(lane)), 16, froundV(get(high))),
        set(lane, add(get(lane), constant(32))),
      ], less(get(lane), get(lanes))),
      set(to, add(get(to), get(lanes))),
      set(weights, get(endOfWeights)),
      set(starts, add(get(starts), constant(4))),
    ], less(get(starts), get(endOfStarts))),
  ].flat();
}

function roundToBytes(): Code {
  const [from, lanes, to, end, low, high] = [0, 1, 2, 3, 4, 5];
  return [
    set(to, get(from)),
    set(end, add(get(from), shift(get(lanes), 3))),
    loop([
      // Towards zero is down, except below zero, where all become 0.
      set(low, truncateV(addV(loadV(get(from), 0), halves))),
      set(high, truncateV(addV(loadV(get(from), 16), halves))),
      set(low, firstHalves(get(low), get(high))),
      set(low, int16(get(low))),
      storeFour(get(to), uint8(get(low))),
      set(to, add(get(to), constant(4))),
      set(from, add(get(from), constant(32))),
    ], less(get(from), get(end))),
  ].flat();
}

function assemble(): Uint8Array {
  const type = (inputs: number): Code => [0x60, ...list(...new Array<Code>(inputs).fill([I32])), ...list()];
  const code = (i32: number, v128: number, instructions: Code): Code => sized([...list([i32, I32], [v128, V128]), ...instructions, 0x0b]); // locals first
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, type(7), type(2)),
    ...section(3, [0], [1]), // the functions' types
    ...section(5, [0, 1]), // a memory of one page or more
    ...section(7, [...name('memory'), 2, 0], [...name('weightedSums'), 0, 0], [...name('roundToBytes'), 0, 1]), // exports
    ...section(10, code(5, 3, weightedSums()), code(2, 2, roundToBytes())),
  ]);
}

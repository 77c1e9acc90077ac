/** Bicubic resizing, the one reference implementation. Sums in double precision, in one order: every machine computes the same. */
import { BignasError, shown } from '../errors.js';
import { BYTES_PER_DOUBLE, kernelArrays, resizeKernel, roundedRow } from './resizeKernel.js';

/** Keys's cubic convolution kernel with a = −0.5; zero from 2 on. */
function keys(x: number): number {
  x = Math.abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

/** One axis of a resize: output i is the sum over k of `weights[i * taps + k]` times input `start[i] + k`. */
export interface ResizeMatrix {
  /** First input of each output; `start[i] + taps <= from` always, so that a loop over the taps needs no bounds check. */
  readonly start: Int32Array;
  /** outputs × taps, each row's sum 1; rows that need fewer taps are padded with zeros. */
  readonly weights: Float32Array;
  readonly taps: number;
}

/** The rows `first` … `first + count − 1` of the matrix: a crop of a long panorama needs few of very many. */
function matrixRows(from: number, to: number, first: number, count: number): ResizeMatrix {
  const ratio = from / to;
  const widening = Math.max(ratio, 1);
  const radius = 2 * widening;
  const taps = Math.min(from, Math.ceil(2 * radius)); // inputs within the kernel's open support
  const start = new Int32Array(count);
  const weights = new Float32Array(count * taps);
  const row = new Float64Array(taps);
  for (let i = 0; i < count; i++) {
    const centre = (first + i + 0.5) * ratio;
    const begin = Math.min(Math.max(Math.floor(centre - radius - 0.5) + 1, 0), from - taps);
    let sum = 0;
    for (let k = 0; k < taps; k++) {
      row[k] = keys((begin + k + 0.5 - centre) / widening);
      sum += row[k]!;
    }
    start[i] = begin;
    for (let k = 0; k < taps; k++) weights[i * taps + k] = row[k]! / sum;
  }
  return { start, weights, taps };
}

/** Whole matrices are few (a space's resolutions), but sizes may come from clients: the memory is bounded, the oldest leave. */
const memory = new Map<string, ResizeMatrix>();
const MEMORY_ENTRIES = 64;

/** @throws BignasError PARAMETER_INVALID unless it is a whole number of pixels */
export function checkSize(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new BignasError('PARAMETER_INVALID', `Expected \`${name}\` to be a whole number of pixels from 1, got ${shown(value)}`);
  }
}

/**
 * The weights that resize one axis from `from` to `to` pixels: bicubic with a = −0.5, half-pixel centres, antialiased when
 * shrinking, renormalised at the borders. TensorFlow's `tf.image.resize(method="bicubic", antialias=True)` and Pillow's
 * `Image.resize(BICUBIC)` on mode F have the same weights. Shared between callers: do not write into it.
 */
export function resizeMatrix(from: number, to: number): ResizeMatrix {
  const name = `${from}>${to}`;
  const known = memory.get(name);
  if (known) return known;
  checkSize('from', from);
  checkSize('to', to);
  const matrix = matrixRows(from, to, 0, to);
  const oldest = memory.size < MEMORY_ENTRIES ? undefined : memory.keys().next().value;
  if (oldest !== undefined) memory.delete(oldest);
  memory.set(name, matrix);
  return matrix;
}

/** The same weights as a dense matrix, to × from, row-major, for engines that resize by a matrix product. */
export function denseResizeMatrix(from: number, to: number): Float32Array {
  const { start, weights, taps } = resizeMatrix(from, to);
  const dense = new Float32Array(to * from);
  for (let i = 0; i < to; i++) dense.set(weights.subarray(i * taps, (i + 1) * taps), i * from + start[i]!);
  return dense;
}

/** A rectangle of the resized image, in its pixels. */
export interface Region {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
}

/** Rows held beyond the taps of one output: with fewer, rows are moved more often. */
const SPARE_ROWS = 32;

/**
 * Resizes `pixels` (height × width × channels) as if to toHeight × toWidth and hands over the rows of the region of it from the top:
 * each region.width × channels float32 values, in the units of the input, unrounded and unclamped. Only the inputs that the region
 * depends on are read; they must be finite.
 * @param take reads the row before it returns, and resizes nothing: all resizes of a thread share the memory that the row lies in
 */
export function resizeRows(
  pixels: Uint8Array | Float32Array,
  height: number,
  width: number,
  channels: number,
  toHeight: number,
  toWidth: number,
  region: Region,
  take: (row: Float64Array<ArrayBuffer>, y: number) => void,
): void {
  for (const [name, value] of Object.entries({ height, width, channels, toHeight, toWidth })) checkSize(name, value);
  if (pixels.length !== height * width * channels) {
    throw new BignasError('PARAMETER_INVALID', `Expected ${height}×${width}×${channels} values, got ${pixels.length}`);
  }
  const whole = region.top === 0 && region.left === 0 && region.height === toHeight && region.width === toWidth;
  const across = whole ? resizeMatrix(width, toWidth) : matrixRows(width, toWidth, region.left, region.width);
  const down = whole ? resizeMatrix(height, toHeight) : matrixRows(height, toHeight, region.top, region.height);

  const firstColumn = across.start[0]!; // starts never decrease
  const columns = across.start[region.width - 1]! + across.taps - firstColumn;
  const firstRow = down.start[0]!;
  const rows = down.start[region.height - 1]! + down.taps - firstRow;
  const held = Math.min(rows, down.taps + SPARE_ROWS);
  const stride = region.width * channels;
  const pixelBytes = channels * BYTES_PER_DOUBLE;
  const rowBytes = stride * BYTES_PER_DOUBLE;

  // The line of pixels, `held` lines resized across, and the row that sums up some of these.
  const [line, narrow, row, acrossWeights, downWeights, addresses] = kernelArrays(
    columns * channels, held * stride, stride, across.weights.length, down.weights.length, region.width + 1,
  );
  const kernel = resizeKernel();
  acrossWeights.set(across.weights);
  downWeights.set(down.weights);
  const starts = new Int32Array(addresses.buffer, addresses.byteOffset, region.width + 1);
  for (let x = 0; x < region.width; x++) starts[x] = line.byteOffset + (across.start[x]! - firstColumn) * pixelBytes;
  const downStart = starts.subarray(region.width);

  let top = firstRow; // `narrow` holds the rows from `top` to before `next`
  let next = firstRow;
  for (let y = 0; y < region.height; y++) {
    const start = down.start[y]!;
    const end = start + down.taps;
    if (end > top + held) {
      narrow.copyWithin(0, (start - top) * stride, (next - top) * stride);
      top = start;
    }
    for (; next < end; next++) {
      const from = (next * width + firstColumn) * channels;
      line.set(pixels.subarray(from, from + line.length));
      kernel.weightedSums(starts.byteOffset, region.width, acrossWeights.byteOffset, across.taps, pixelBytes, channels, narrow.byteOffset + (next - top) * rowBytes);
    }
    downStart[0] = narrow.byteOffset + (start - top) * rowBytes;
    kernel.weightedSums(downStart.byteOffset, 1, downWeights.byteOffset + y * down.taps * BYTES_PER_DOUBLE, down.taps, rowBytes, stride, row.byteOffset);
    take(row, y);
  }
}

/** The same, as an array: region.height × region.width × channels; the region is the whole by default. */
export function resizeImage(
  pixels: Uint8Array | Float32Array,
  height: number,
  width: number,
  channels: number,
  toHeight: number,
  toWidth: number,
  region: Region = { top: 0, left: 0, height: toHeight, width: toWidth },
): Float32Array {
  const stride = region.width * channels;
  let out: Float32Array | undefined; // made when the sizes have been checked
  resizeRows(pixels, height, width, channels, toHeight, toWidth, region, (row, y) => {
    out ??= new Float32Array(region.height * stride);
    out.set(row, y * stride);
  });
  return out!;
}

/** The region of a resized image, region.height × region.width × channels, rounded (halves up) and clamped to 0 … 255. */
export function resizeToBytes(
  pixels: Uint8Array | Float32Array, height: number, width: number, channels: number, toHeight: number, toWidth: number, region: Region,
): Uint8Array {
  const stride = region.width * channels;
  const out = new Uint8Array(region.height * stride);
  resizeRows(pixels, height, width, channels, toHeight, toWidth, region, (row, y) => out.set(roundedRow(row), y * stride));
  return out;
}

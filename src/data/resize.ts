/** Bicubic resizing, the one reference implementation. Pure TypeScript in double precision: every machine computes the same. */
import { BignasError, shown } from '../errors.js';

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

/**
 * Resizes `pixels` (height × width × channels) as if to toHeight × toWidth and returns the region of it (the whole by default),
 * region.height × region.width × channels, in the units of the input, unrounded and unclamped. Only the inputs that the region
 * depends on are read.
 */
export function resizeImage(
  pixels: Uint8Array | Float32Array,
  height: number,
  width: number,
  channels: number,
  toHeight: number,
  toWidth: number,
  region: Region = { top: 0, left: 0, height: toHeight, width: toWidth },
): Float32Array {
  for (const [name, value] of Object.entries({ height, width, channels, toHeight, toWidth })) checkSize(name, value);
  if (pixels.length !== height * width * channels) {
    throw new BignasError('PARAMETER_INVALID', `Expected ${height}×${width}×${channels} values, got ${pixels.length}`);
  }
  const whole = region.top === 0 && region.left === 0 && region.height === toHeight && region.width === toWidth;
  const across = whole ? resizeMatrix(width, toWidth) : matrixRows(width, toWidth, region.left, region.width);
  const down = whole ? resizeMatrix(height, toHeight) : matrixRows(height, toHeight, region.top, region.height);

  const firstRow = down.start[0]!; // starts never decrease
  const rows = down.start[region.height - 1]! + down.taps - firstRow;
  const narrow = new Float32Array(rows * region.width * channels); // rows × region.width × channels
  if (channels === 3) resizeAcross3(pixels, width, firstRow, rows, across, narrow);
  else resizeAcross(pixels, width, channels, firstRow, rows, across, narrow);

  const stride = region.width * channels;
  const out = new Float32Array(region.height * stride);
  const sum = new Float64Array(stride);
  for (let y = 0; y < region.height; y++) {
    sum.fill(0);
    for (let k = 0; k < down.taps; k++) {
      const weight = down.weights[y * down.taps + k]!;
      if (weight === 0) continue;
      const at = (down.start[y]! + k - firstRow) * stride;
      for (let x = 0; x < stride; x++) sum[x] = sum[x]! + weight * narrow[at + x]!;
    }
    out.set(sum, y * stride);
  }
  return out;
}

function resizeAcross(
  pixels: Uint8Array | Float32Array, width: number, channels: number,
  firstRow: number, rows: number, { start, weights, taps }: ResizeMatrix, out: Float32Array,
): void {
  let to = 0;
  for (let y = firstRow; y < firstRow + rows; y++) {
    for (let x = 0; x < start.length; x++) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        let at = (y * width + start[x]!) * channels + c;
        for (let k = x * taps; k < (x + 1) * taps; k++, at += channels) sum += weights[k]! * pixels[at]!;
        out[to++] = sum;
      }
    }
  }
}

/** The same for three channels, which a photo of 12 megapixels spends its time in. */
function resizeAcross3(
  pixels: Uint8Array | Float32Array, width: number,
  firstRow: number, rows: number, { start, weights, taps }: ResizeMatrix, out: Float32Array,
): void {
  let to = 0;
  for (let y = firstRow; y < firstRow + rows; y++) {
    for (let x = 0; x < start.length; x++) {
      let red = 0, green = 0, blue = 0;
      let at = (y * width + start[x]!) * 3;
      for (let k = x * taps, end = k + taps; k < end; k++, at += 3) {
        const weight = weights[k]!;
        red += weight * pixels[at]!;
        green += weight * pixels[at + 1]!;
        blue += weight * pixels[at + 2]!;
      }
      out[to] = red;
      out[to + 1] = green;
      out[to + 2] = blue;
      to += 3;
    }
  }
}

/**
 * The operations of AutoAugment (Cubuk et al., 2019) as Pillow defines them, to the grey level: nearest-neighbour geometry in its 16.16
 * fixed point, its luma, its truncations. Each works in place on one crop (side × side × 3, uint8, RGB).
 */

/** What comes in from outside is middle grey, as in EfficientNet's and the paper's code: near the data's mean. */
export const GREY = 128;

/** How a pixel's centre maps from the output to the input: x' = a·x + b·y + c, y' = d·x + e·y + f, in pixels. */
type Affine = readonly [a: number, b: number, c: number, d: number, e: number, f: number];

function affine(image: Uint8Array, side: number, [a, b, c, d, e, f]: Affine): void {
  const from = new Uint8Array(image);
  const fixed = (value: number): number => Math.floor(value * 65536 + 0.5);
  const [ax, bx, dy, ey] = [fixed(a), fixed(b), fixed(d), fixed(e)];
  let rowX = fixed(c + a * 0.5 + b * 0.5);
  let rowY = fixed(f + d * 0.5 + e * 0.5);
  for (let y = 0, to = 0; y < side; y++, rowX += bx, rowY += ey) {
    for (let x = 0, atX = rowX, atY = rowY; x < side; x++, to += 3, atX += ax, atY += dy) {
      const [column, row] = [atX >> 16, atY >> 16];
      if (column < 0 || column >= side || row < 0 || row >= side) {
        image[to] = image[to + 1] = image[to + 2] = GREY;
      } else {
        const source = (row * side + column) * 3;
        image[to] = from[source]!;
        image[to + 1] = from[source + 1]!;
        image[to + 2] = from[source + 2]!;
      }
    }
  }
}

/** @param slope columns that a row moves against the one above it */
export function shearX(image: Uint8Array, side: number, slope: number): void {
  affine(image, side, [1, slope, 0, 0, 1, 0]);
}

export function shearY(image: Uint8Array, side: number, slope: number): void {
  affine(image, side, [1, 0, 0, slope, 1, 0]);
}

/** @param pixels whole ones are moved, the rest is dropped */
export function translateX(image: Uint8Array, side: number, pixels: number): void {
  affine(image, side, [1, 0, Math.trunc(pixels), 0, 1, 0]);
}

export function translateY(image: Uint8Array, side: number, pixels: number): void {
  affine(image, side, [1, 0, 0, 0, 1, Math.trunc(pixels)]);
}

/** @param degrees anticlockwise, about the centre */
export function rotate(image: Uint8Array, side: number, degrees: number): void {
  const angle = (-degrees * Math.PI) / 180;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const centre = side / 2;
  affine(image, side, [cos, sin, centre - centre * (cos + sin), -sin, cos, centre - centre * (cos - sin)]);
}

/** Every value of every channel through its channel's table. */
function through(image: Uint8Array, tables: readonly Uint8Array[]): void {
  const [red, green, blue] = tables as [Uint8Array, Uint8Array, Uint8Array];
  for (let i = 0; i < image.length; i += 3) {
    image[i] = red[image[i]!]!;
    image[i + 1] = green[image[i + 1]!]!;
    image[i + 2] = blue[image[i + 2]!]!;
  }
}

function pointwise(image: Uint8Array, of: (value: number) => number): void {
  const table = Uint8Array.from({ length: 256 }, (_, value) => of(value));
  through(image, [table, table, table]);
}

export function invert(image: Uint8Array): void {
  pointwise(image, (value) => 255 - value);
}

/** Inverts the values from `threshold` on. */
export function solarize(image: Uint8Array, threshold: number): void {
  pointwise(image, (value) => (value < threshold ? value : 255 - value));
}

/** Keeps the upper `bits` bits of each value. */
export function posterize(image: Uint8Array, bits: number): void {
  const mask = 256 - 2 ** (8 - bits);
  pointwise(image, (value) => value & mask);
}

function histograms(image: Uint8Array): [Uint32Array, Uint32Array, Uint32Array] {
  const [red, green, blue] = [new Uint32Array(256), new Uint32Array(256), new Uint32Array(256)];
  for (let i = 0; i < image.length; i += 3) {
    red[image[i]!]!++;
    green[image[i + 1]!]!++;
    blue[image[i + 2]!]!++;
  }
  return [red, green, blue];
}

const identity = Uint8Array.from({ length: 256 }, (_, value) => value);
const clamped = (value: number): number => (value <= 0 ? 0 : value >= 255 ? 255 : Math.trunc(value));

/** Stretches each channel to 0 … 255. */
export function autoContrast(image: Uint8Array): void {
  through(image, histograms(image).map((counts) => {
    const low = counts.findIndex((n) => n > 0);
    const high = counts.findLastIndex((n) => n > 0);
    if (high <= low) return identity;
    const scale = 255 / (high - low);
    return identity.map((value) => clamped(value * scale - low * scale));
  }));
}

/** Makes each channel's histogram flat, as far as a table can. */
export function equalize(image: Uint8Array): void {
  through(image, histograms(image).map((counts) => {
    const step = Math.floor((image.length / 3 - counts[counts.findLastIndex((n) => n > 0)]!) / 255);
    if (step === 0) return identity;
    let below = step >> 1;
    return identity.map((value) => {
      const level = Math.min(Math.floor(below / step), 255);
      below += counts[value]!;
      return level;
    });
  }));
}

/** Pillow's blend: from `plain` (factor 0) to `value` (1) and beyond, in single precision, truncated. */
function blend(plain: number, value: number, factor: number): number {
  return clamped(Math.fround(plain + Math.fround(factor * (value - plain))));
}

/** ITU-R 601 luma, rounded. */
function luma(image: Uint8Array, i: number): number {
  return (image[i]! * 19595 + image[i + 1]! * 38470 + image[i + 2]! * 7471 + 0x8000) >> 16;
}

/** @param factor 0: black; 1: as it is */
export function brightness(image: Uint8Array, factor: number): void {
  const by = Math.fround(factor);
  pointwise(image, (value) => blend(0, value, by));
}

/** @param factor 0: the mean grey; 1: as it is */
export function contrast(image: Uint8Array, factor: number): void {
  const by = Math.fround(factor);
  let sum = 0;
  for (let i = 0; i < image.length; i += 3) sum += luma(image, i);
  const mean = Math.floor(sum / (image.length / 3) + 0.5);
  pointwise(image, (value) => blend(mean, value, by));
}

/** @param factor 0: black and white; 1: as it is */
export function colour(image: Uint8Array, factor: number): void {
  const by = Math.fround(factor);
  for (let i = 0; i < image.length; i += 3) {
    const grey = luma(image, i);
    for (let c = i; c < i + 3; c++) image[c] = blend(grey, image[c]!, by);
  }
}

/** @param factor 0: smoothed by (1 1 1, 1 5 1, 1 1 1) / 13; 1: as it is. The border, which has no neighbours, stays. */
export function sharpness(image: Uint8Array, side: number, factor: number): void {
  const by = Math.fround(factor);
  const from = new Uint8Array(image);
  const row = side * 3;
  for (let y = 1; y < side - 1; y++) {
    for (let i = y * row + 3; i < (y + 1) * row - 3; i++) {
      const sum =
        from[i - row - 3]! + from[i - row]! + from[i - row + 3]! +
        from[i - 3]! + 5 * from[i]! + from[i + 3]! +
        from[i + row - 3]! + from[i + row]! + from[i + row + 3]!;
      image[i] = blend(Math.floor(sum / 13 + 0.5), from[i]!, by);
    }
  }
}

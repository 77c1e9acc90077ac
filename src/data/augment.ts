/**
 * Random changes to training crops. Stateless (the paper's appendix C): what happens to an image is a function of seed, epoch and
 * the image's index alone, not of its batch or of what ran before.
 */
import { BignasError } from '../errors.js';
import { key, stream, type Stream } from '../random.js';

/**
 * `none`: the crop as it is. `flip`: mirrored left to right, half of the time. `cifar`: He et al. (2016), section 4.2: a random
 * crop of the image padded by 4 pixels, then `flip`.
 */
export type AugmentationKind = 'none' | 'flip' | 'cifar';

export interface Augmentation {
  readonly seed: number;
  readonly epoch: number;
  readonly kind: AugmentationKind;
  /** Side in pixels of a grey square put at a random place (DeVries and Taylor, 2017, clipped at the borders); 0 (default): none. */
  readonly cutout?: number;
}

const PURPOSE = key('augmentation');
const PADDING = 4;
/** Padding is black before normalisation, as torchvision's RandomCrop(32, padding=4) has it. */
const BLACK = 0;
/** Cutout's square is middle grey, near the data's mean, where zero after normalisation would be. */
const GREY = 128;

/**
 * Augments crops (N × side × side × 3, uint8) in place.
 * @param indices the image's index in its split, for each of the N: with seed and epoch it decides the draws.
 * @returns `crops`
 */
export function augmentBatch(crops: Uint8Array, indices: ArrayLike<number>, options: Augmentation): Uint8Array {
  if (indices.length === 0 && crops.length === 0) return crops;
  const side = Math.sqrt(crops.length / 3 / indices.length);
  if (!Number.isInteger(side)) {
    throw new BignasError('DATA_INVALID', `Expected ${indices.length} square RGB crops, got ${crops.length} bytes`);
  }
  const { seed, epoch, kind, cutout = 0 } = options;
  const scratch = new Uint8Array(side * side * 3);
  for (let n = 0; n < indices.length; n++) {
    const image = crops.subarray(n * scratch.length, (n + 1) * scratch.length);
    const draws = stream(PURPOSE, seed, epoch, indices[n]!);
    // Every image makes the same draws in the same order, whatever they decide: one option does not shift the others' draws.
    const top = draws.integer(2 * PADDING + 1) - PADDING;
    const left = draws.integer(2 * PADDING + 1) - PADDING;
    const flip = draws.integer(2) === 1;
    if (kind === 'cifar') shift(image, scratch, side, top, left);
    if (kind !== 'none' && flip) mirror(image, side);
    if (cutout > 0) cutOut(image, side, cutout, draws);
  }
  return crops;
}

/** The image moves so that its pixel (top, left) comes to (0, 0); what comes in from outside is padding. */
function shift(image: Uint8Array, scratch: Uint8Array, side: number, top: number, left: number): void {
  if (top === 0 && left === 0) return;
  scratch.set(image);
  image.fill(BLACK);
  const fromLeft = Math.max(left, 0);
  const width = side - Math.abs(left);
  if (width <= 0) return;
  for (let y = Math.max(-top, 0); y < Math.min(side, side - top); y++) {
    const from = ((y + top) * side + fromLeft) * 3;
    image.set(scratch.subarray(from, from + width * 3), (y * side + fromLeft - left) * 3);
  }
}

function mirror(image: Uint8Array, side: number): void {
  for (let y = 0; y < side; y++) {
    for (let a = y * side * 3, b = a + (side - 1) * 3; a < b; a += 3, b -= 3) {
      for (let c = 0; c < 3; c++) {
        const value = image[a + c]!;
        image[a + c] = image[b + c]!;
        image[b + c] = value;
      }
    }
  }
}

function cutOut(image: Uint8Array, side: number, size: number, draws: Stream): void {
  const top = draws.integer(side) - (size >> 1);
  const left = draws.integer(side) - (size >> 1);
  const from = Math.max(left, 0);
  const to = Math.min(left + size, side);
  for (let y = Math.max(top, 0); y < Math.min(top + size, side); y++) {
    image.fill(GREY, (y * side + from) * 3, (y * side + to) * 3);
  }
}

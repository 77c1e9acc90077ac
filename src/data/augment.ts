/**
 * Random changes to training crops. Stateless (the paper's appendix C): what happens to an image is a function of seed, epoch and
 * the image's index alone, not of its batch or of what ran before.
 */
import { BignasError } from '../errors.js';
import { key, stream, type Stream } from '../random.js';
import { autoAugment, type PolicyName } from './autoaugment.js';
import { GREY } from './imageOperations.js';
import { fixedCrop, type Preprocessing, type RgbImage } from './preprocess.js';
import { randomResizedCrop } from './randomResizedCrop.js';

interface Steps {
  /**
   * How an image becomes a crop of the fixed size. `centre`: as in evaluation. `resized`: a random rectangle of it, resized
   * (`randomResizedCrop`). A data set that holds crops, such as CIFAR-10, has these for its images: `centre` leaves them as they are,
   * `resized` cuts from them.
   */
  readonly crop: 'centre' | 'resized';
  /** A random crop of the crop, padded by 4 black pixels. */
  readonly shift: boolean;
  /** Mirrored left to right, half of the time. */
  readonly flip: boolean;
  readonly policy?: PolicyName;
  /** Side in pixels of the grey square, unless the caller names one. */
  readonly cutout: number;
}

/** What a kind of augmentation does, in this order. */
const steps = {
  /** The crop of evaluation. */
  none: { crop: 'centre', shift: false, flip: false, cutout: 0 },
  /** That crop, mirrored half of the time. */
  flip: { crop: 'centre', shift: false, flip: true, cutout: 0 },
  /** He et al. (2016), section 4.2: a random crop of the image padded by 4 pixels, then `flip`. */
  cifar: { crop: 'centre', shift: true, flip: true, cutout: 0 },
  /** `cifar`, then AutoAugment's policy for CIFAR-10 and a cutout of 16 pixels (Cubuk et al., 2019, section 4.1). */
  'cifar-autoaugment': { crop: 'centre', shift: true, flip: true, policy: 'cifar10', cutout: 16 },
  /** Inception's random resized crop, then `flip`. */
  imagenet: { crop: 'resized', shift: false, flip: true, cutout: 0 },
  /** `imagenet`, then AutoAugment's policy for ImageNet: the paper's pipeline. */
  'imagenet-autoaugment': { crop: 'resized', shift: false, flip: true, policy: 'imagenet', cutout: 0 },
} as const satisfies Record<string, Steps>;

export type AugmentationKind = keyof typeof steps;

/** The kinds of augmentation, from the least to the most. */
export const augmentationKinds = Object.keys(steps) as [AugmentationKind, ...AugmentationKind[]];

export interface Augmentation {
  readonly seed: number;
  readonly epoch: number;
  readonly kind: AugmentationKind;
  /** Side in pixels of a grey square put at a random place (DeVries and Taylor, 2017, clipped at the borders); 0: none. Default: the kind's. */
  readonly cutout?: number;
}

/** The draws of each: streams of their own, so that one step does not shift another's draws. */
const PURPOSE = key('augmentation');
const RESIZED = key('random resized crop');
const AUTO_AUGMENT = key('autoaugment');

const PADDING = 4;
/** Padding is black before normalisation, as torchvision's RandomCrop(32, padding=4) has it. */
const BLACK = 0;

/**
 * The random crop of one image (crop × crop × 3, uint8, the caller's own).
 * @param index the image's index in its split: with seed and epoch it decides the draws
 */
export function trainingCrop(image: RgbImage, p: Preprocessing, index: number, options: Augmentation): Uint8Array {
  if (steps[options.kind].crop === 'resized') return augmentCrop(resizedCrop(image, p.crop, index, options), p.crop, index, options);
  const crop = fixedCrop(image, p);
  return augmentCrop(crop === image.pixels ? new Uint8Array(crop) : crop, p.crop, index, options);
}

/**
 * The same for images that are crops already (N × side × side × 3, uint8), in place.
 * @param indices the image's index in its split, for each of the N
 * @returns `crops`
 */
export function augmentBatch(crops: Uint8Array, indices: ArrayLike<number>, options: Augmentation): Uint8Array {
  if (indices.length === 0 && crops.length === 0) return crops;
  const side = Math.sqrt(crops.length / 3 / indices.length);
  if (!Number.isInteger(side)) {
    throw new BignasError('DATA_INVALID', `Expected ${indices.length} square RGB crops, got ${crops.length} bytes`);
  }
  const length = side * side * 3;
  for (let n = 0; n < indices.length; n++) {
    const image = crops.subarray(n * length, (n + 1) * length);
    if (steps[options.kind].crop === 'resized') image.set(resizedCrop({ pixels: image, height: side, width: side }, side, indices[n]!, options));
    augmentCrop(image, side, indices[n]!, options);
  }
  return crops;
}

function resizedCrop(image: RgbImage, side: number, index: number, { seed, epoch }: Augmentation): Uint8Array {
  return randomResizedCrop(image, side, stream(RESIZED, seed, epoch, index));
}

/** What follows on the crop, whichever way it was made. In place; returns it. */
function augmentCrop(image: Uint8Array, side: number, index: number, { seed, epoch, kind, cutout }: Augmentation): Uint8Array {
  const { shift: shifts, flip: flips, policy, cutout: usual }: Steps = steps[kind];
  const draws = stream(PURPOSE, seed, epoch, index);
  // Every image makes the same draws in the same order, whatever they decide: one option does not shift the others' draws.
  const top = draws.integer(2 * PADDING + 1) - PADDING;
  const left = draws.integer(2 * PADDING + 1) - PADDING;
  const flip = draws.integer(2) === 1;
  if (shifts) shift(image, side, top, left);
  if (flips && flip) mirror(image, side);
  if (policy) autoAugment(image, side, policy, stream(AUTO_AUGMENT, seed, epoch, index));
  const square = cutout ?? usual;
  if (square > 0) cutOut(image, side, square, draws);
  return image;
}

/** The image moves so that its pixel (top, left) comes to (0, 0); what comes in from outside is padding. */
function shift(image: Uint8Array, side: number, top: number, left: number): void {
  if (top === 0 && left === 0) return;
  const from = new Uint8Array(image);
  image.fill(BLACK);
  const fromLeft = Math.max(left, 0);
  const width = side - Math.abs(left);
  if (width <= 0) return;
  for (let y = Math.max(-top, 0); y < Math.min(side, side - top); y++) {
    const at = ((y + top) * side + fromLeft) * 3;
    image.set(from.subarray(at, at + width * 3), (y * side + fromLeft - left) * 3);
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

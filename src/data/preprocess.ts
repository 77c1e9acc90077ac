/**
 * From an image to a network's input: the one reference implementation, which evaluation, calibration, serving and the docs all
 * use. Two steps, as in the paper (appendix C): a photo becomes one uint8 crop of fixed size; the crop becomes the input at any
 * resolution by bicubic resizing. In double precision and one order, so that every machine computes the same.
 */
import { z } from 'zod';
import { BignasError } from '../errors.js';
import { checkSize, resizeRows, resizeToBytes } from './resize.js';

const pixels = z.int().min(1).max(4096);
const channelTriple = z.tuple([z.number(), z.number(), z.number()]);

export const preprocessingSchema = z
  .strictObject({
    shorterSide: pixels.describe("pixels: the image's shorter side is resized to this, its aspect kept (the other side rounded)"),
    crop: pixels.describe('pixels: side of the square cut from the centre (offsets rounded down); at most `shorterSide`'),
    resize: z
      .strictObject({
        kernel: z.literal('bicubic').describe('separable cubic convolution (Keys, 1981)'),
        a: z.literal(-0.5).describe("the kernel's free parameter, no unit"),
        halfPixelCentres: z.literal(true).describe('pixel i covers [i, i + 1) and has its centre at i + 0.5'),
        antialias: z.literal(true).describe('when shrinking, the kernel is widened by the ratio of the sizes'),
      })
      .describe('how images are resized, both to the crop and from the crop to a resolution; weights that fall outside are renormalised'),
    rounding: z
      .literal('uint8-after-crop')
      .describe('the crop is rounded (halves up) and clamped to 0 … 255; the resized input is neither rounded nor clamped'),
    mean: channelTriple.describe('per channel R, G, B, of values scaled to 0 … 1: subtracted'),
    deviation: z
      .tuple([z.number().positive(), z.number().positive(), z.number().positive()])
      .describe('per channel R, G, B, of values scaled to 0 … 1: divided by, after the mean is subtracted'),
    colour: z.literal('RGB').describe('order of the channels'),
  })
  .refine((p) => p.crop <= p.shorterSide, { message: '`crop` must be at most `shorterSide`', path: ['crop'] })
  .describe('how an image becomes the input of a network');

export type Preprocessing = z.infer<typeof preprocessingSchema>;

/** What every preprocessing has in common: the parts that this file implements in one way only. */
export const bicubic = { kernel: 'bicubic', a: -0.5, halfPixelCentres: true, antialias: true } as const;

/** An image of 8 bits a channel: `pixels` is height × width × 3, RGB. */
export interface RgbImage {
  readonly pixels: Uint8Array;
  readonly height: number;
  readonly width: number;
}

/**
 * The crop (crop × crop × 3, uint8) of an image: its shorter side resized to `shorterSide`, the centre cut out, rounded and
 * clamped. An image that has the crop's size already is returned as it is, so a crop's crop is itself.
 */
export function fixedCrop(image: RgbImage, p: Preprocessing): Uint8Array {
  const { pixels, height, width } = image;
  if (height === p.crop && width === p.crop && pixels.length === height * width * 3) return pixels;
  const shorter = Math.min(height, width);
  const toHeight = Math.round((height * p.shorterSide) / shorter);
  const toWidth = Math.round((width * p.shorterSide) / shorter);
  const region = {
    top: Math.floor((toHeight - p.crop) / 2),
    left: Math.floor((toWidth - p.crop) / 2),
    height: p.crop,
    width: p.crop,
  };
  return resizeToBytes(pixels, height, width, 3, toHeight, toWidth, region);
}

/**
 * 1 / 255 in two parts, because dividing is slow. For x of float32's 24 bits, x × HIGH + x × LOW is the double nearest to x / 255: the
 * first product is exact, the error of the second under 2^-76 of the whole, and x / 255 keeps 2^-62 away from halfway between doubles.
 */
const HIGH_255TH = Math.fround(1 / 255);
const LOW_255TH = (1 - HIGH_255TH * 255) / 255;

/**
 * A network's input from crops (N × crop × crop × 3, uint8): each resized to resolution × resolution without rounding or clamping
 * (left alone when it has that size), then (x / 255 − mean) / deviation.
 * @param memory where the result goes, if there is room for it
 * @returns N × resolution × resolution × 3 for NHWC, N × 3 × resolution × resolution for NCHW.
 */
export function normalisedBatch(
  crops: Uint8Array, p: Preprocessing, resolution: number, layout: 'NHWC' | 'NCHW', memory = new ArrayBuffer(0),
): Float32Array<ArrayBuffer> {
  checkSize('resolution', resolution);
  const cropLength = p.crop * p.crop * 3;
  const count = crops.length / cropLength;
  if (!Number.isInteger(count)) {
    throw new BignasError('PARAMETER_INVALID', `Expected a multiple of ${p.crop}×${p.crop}×3 bytes, got ${crops.length}`);
  }
  const area = resolution * resolution;
  const [pixelStride, channelStride] = layout === 'NHWC' ? [3, 1] : [1, area];
  const length = count * area * 3;
  const batch = memory.byteLength < length * Float32Array.BYTES_PER_ELEMENT ? new Float32Array(length) : new Float32Array(memory, 0, length);
  const whole = { top: 0, left: 0, height: resolution, width: resolution };
  for (let n = 0; n < count; n++) {
    const crop = crops.subarray(n * cropLength, (n + 1) * cropLength);
    const to = n * area * 3;
    if (resolution === p.crop) normalise(crop, p, batch, to, pixelStride, channelStride);
    else resizeRows(crop, p.crop, p.crop, 3, resolution, resolution, whole, (row, y) => normalise(row, p, batch, to + y * resolution * pixelStride, pixelStride, channelStride));
  }
  return batch;
}

/** Pixels (RGB, each value of float32's 24 bits) to their places in a batch, the first one's red to `to`. */
function normalise(
  values: Uint8Array | Float64Array, { mean, deviation }: Preprocessing, batch: Float32Array, to: number, pixelStride: number, channelStride: number,
): void {
  const [redMean, greenMean, blueMean] = mean;
  const [redDeviation, greenDeviation, blueDeviation] = deviation;
  for (let i = 0; i < values.length; i += 3, to += pixelStride) {
    const red = values[i]!, green = values[i + 1]!, blue = values[i + 2]!;
    batch[to] = (red * HIGH_255TH + red * LOW_255TH - redMean) / redDeviation;
    batch[to + channelStride] = (green * HIGH_255TH + green * LOW_255TH - greenMean) / greenDeviation;
    batch[to + 2 * channelStride] = (blue * HIGH_255TH + blue * LOW_255TH - blueMean) / blueDeviation;
  }
}

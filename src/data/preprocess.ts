/**
 * From an image to a network's input: the one reference implementation, which evaluation, calibration, serving and the docs all
 * use. Two steps, as in the paper (appendix C): a photo becomes one uint8 crop of fixed size; the crop becomes the input at any
 * resolution by bicubic resizing. Pure TypeScript in double precision, so that every machine computes the same.
 */
import { z } from 'zod';
import { BignasError } from '../errors.js';
import { checkSize, resizeImage } from './resize.js';

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
  return rounded(resizeImage(pixels, height, width, 3, toHeight, toWidth, region));
}

/** Resized values as a crop has them: rounded (halves up) and clamped to 0 … 255. */
export function rounded(values: Float32Array): Uint8Array {
  const crop = new Uint8Array(values.length);
  for (let i = 0; i < crop.length; i++) crop[i] = Math.min(Math.max(Math.floor(values[i]! + 0.5), 0), 255);
  return crop;
}

/**
 * A network's input from crops (N × crop × crop × 3, uint8): each resized to resolution × resolution without rounding or clamping
 * (left alone when it has that size), then (x / 255 − mean) / deviation.
 * @returns N × resolution × resolution × 3 for NHWC, N × 3 × resolution × resolution for NCHW.
 */
export function normalisedBatch(
  crops: Uint8Array, p: Preprocessing, resolution: number, layout: 'NHWC' | 'NCHW',
): Float32Array {
  checkSize('resolution', resolution);
  const cropLength = p.crop * p.crop * 3;
  const count = crops.length / cropLength;
  if (!Number.isInteger(count)) {
    throw new BignasError('PARAMETER_INVALID', `Expected a multiple of ${p.crop}×${p.crop}×3 bytes, got ${crops.length}`);
  }
  const area = resolution * resolution;
  const [pixelStride, channelStride] = layout === 'NHWC' ? [3, 1] : [1, area];
  const batch = new Float32Array(count * area * 3);
  for (let n = 0; n < count; n++) {
    const crop = crops.subarray(n * cropLength, (n + 1) * cropLength);
    const resized = resolution === p.crop ? crop : resizeImage(crop, p.crop, p.crop, 3, resolution, resolution);
    for (let c = 0; c < 3; c++) {
      const mean = p.mean[c]!;
      const deviation = p.deviation[c]!;
      let to = n * area * 3 + c * channelStride;
      for (let i = c; i < area * 3; i += 3, to += pixelStride) batch[to] = (resized[i]! / 255 - mean) / deviation;
    }
  }
  return batch;
}

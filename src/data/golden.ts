import { fixedCrop, normalisedBatch, type Preprocessing, type RgbImage } from './preprocess.js';

function draw({ crop }: Preprocessing): RgbImage {
  const [height, width] = [crop + Math.ceil(crop / 4), crop + Math.ceil(crop / 2)];
  /** Goes up and down between 0 and 255. */
  const wave = (at: number, period: number): number => Math.floor((510 * Math.abs((at % period) - Math.floor(period / 2))) / period);
  const pixels = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const [v, u] = [Math.floor((256 * y) / height), Math.floor((256 * x) / width)];
      for (let c = 0; c < 3; c++) {
        const sum = wave(3 * u + 5 * v + 70 * c, 401) + wave(2 * v + 1021 - u + 110 * c, 263) + wave(Math.floor((u * v) / 64) + 90 * c, 509);
        pixels[(y * width + x) * 3 + c] = Math.min(255, Math.floor(sum / 3));
      }
    }
  return { pixels, height, width };
}

interface Drawn {
  readonly photo: RgbImage;
  readonly crop: Uint8Array;
  /** By layout and resolution. */
  readonly inputs: Map<string, Float32Array>;
}

/** Drawn once for a checkpoint, whose manifest has one preprocessing: a bundle is built in little more time than this takes. */
const drawn = new WeakMap<Preprocessing, Drawn>();

function drawnFor(preprocessing: Preprocessing): Drawn {
  let known = drawn.get(preprocessing);
  if (!known) {
    const photo = draw(preprocessing);
    drawn.set(preprocessing, (known = { photo, crop: fixedCrop(photo, preprocessing), inputs: new Map() }));
  }
  return known;
}

/**
 * The photograph that every bundle's golden vector is computed from: drawn by whole-number arithmetic, so that it is the same everywhere and nobody's. Its sides
 * differ from each other and from the crop's, so that all of the preprocessing takes part. Not to be written into.
 */
export function goldenPhoto(preprocessing: Preprocessing): RgbImage {
  return drawnFor(preprocessing).photo;
}

/** The golden photograph as a network takes it, one image. Not to be written into. */
export function goldenInput(preprocessing: Preprocessing, resolution: number, layout: 'NCHW' | 'NHWC'): Float32Array {
  const { crop, inputs } = drawnFor(preprocessing);
  const key = `${layout} ${resolution}`;
  let input = inputs.get(key);
  if (!input) inputs.set(key, (input = normalisedBatch(crop, preprocessing, resolution, layout)));
  return input;
}

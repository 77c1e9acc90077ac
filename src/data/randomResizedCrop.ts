import type { Stream } from '../random.js';
import type { RgbImage } from './preprocess.js';
import { resizeToBytes } from './resize.js';

/** A rectangle of an image, in its pixels. */
interface Rectangle {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
}

const AREA = { least: 0.08, most: 1 };
const ASPECT = { least: 3 / 4, most: 4 / 3 };
const ATTEMPTS = 10;

/**
 * The rectangle of Inception's crop (Szegedy et al., 2015), as torchvision draws it: an area of 8 to 100 % of the image, evenly, an
 * aspect of 3/4 to 4/3, evenly in its logarithm, anywhere it fits. An image too long for ten such draws gives its centre, cut to
 * the nearest legal aspect.
 */
export function drawRectangle(height: number, width: number, draws: Stream): Rectangle {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const area = height * width * (AREA.least + (AREA.most - AREA.least) * draws.uniform());
    const aspect = Math.exp(Math.log(ASPECT.least) + Math.log(ASPECT.most / ASPECT.least) * draws.uniform());
    const [w, h] = [Math.round(Math.sqrt(area * aspect)), Math.round(Math.sqrt(area / aspect))];
    if (w < 1 || h < 1 || w > width || h > height) continue;
    return { top: draws.integer(height - h + 1), left: draws.integer(width - w + 1), height: h, width: w };
  }
  const h = Math.min(height, Math.max(1, Math.round(width / ASPECT.least)));
  const w = Math.min(width, Math.max(1, Math.round(height * ASPECT.most)));
  return { top: (height - h) >> 1, left: (width - w) >> 1, height: h, width: w };
}

/** A random rectangle of the image, resized to side × side by the reference preprocessing's bicubic: side × side × 3, uint8. */
export function randomResizedCrop(image: RgbImage, side: number, draws: Stream): Uint8Array {
  const { top, left, height, width } = drawRectangle(image.height, image.width, draws);
  const pixels = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * image.width + left) * 3;
    pixels.set(image.pixels.subarray(from, from + width * 3), y * width * 3);
  }
  return resizeToBytes(pixels, height, width, 3, side, side, { top: 0, left: 0, height: side, width: side });
}

/**
 * Photos as people send them, to 8-bit RGB pixels. Decoding runs in libuv's thread pool, on the main thread's behalf or a worker's;
 * this file keeps every image to one thread of it, so that parallelism comes from many images and one cannot take the machine.
 */
import sharp from 'sharp';
import { BignasError } from '../errors.js';
import type { RgbImage } from './preprocess.js';

sharp.concurrency(1);
sharp.cache(false); // no image comes twice: libvips's cache of operations would only hold memory

export interface DecodeLimits {
  /** Pixels, width × height: read from the header, before any memory is taken. Default 50 million, minimum 1. */
  readonly maxPixels?: number;
}

const DEFAULT_MAX_PIXELS = 50_000_000;
/** Seconds of decoding after which libvips gives up: fifty million pixels take one or two. */
const TIMEOUT_SECONDS = 30;
/** What transparency is flattened onto: most transparent pictures were drawn to stand on a page. */
const BACKGROUND = '#ffffff';
const accepted: readonly string[] = ['JPEG', 'PNG', 'WebP'];

/**
 * Decodes a JPEG, PNG or WebP image: the first frame of an animation, turned upright by its EXIF orientation, transparency on
 * white, grey, CMYK and 16-bit images converted (by their ICC profile, if they carry one) to sRGB of 8 bits a channel.
 * @throws IMAGE_UNREADABLE for anything else, and for files that are cut short or damaged; IMAGE_TOO_LARGE over `maxPixels`.
 */
export async function decodeImage(bytes: Uint8Array, limits: DecodeLimits = {}): Promise<RgbImage> {
  const maxPixels = limits.maxPixels ?? DEFAULT_MAX_PIXELS;
  const format = recognise(bytes);
  if (!accepted.includes(format)) {
    throw new BignasError(
      'IMAGE_UNREADABLE',
      `Expected an image (${accepted.join(', ')}), got ${bytes.length} bytes${format ? ` of type ${format}` : ''}`,
      { accepted },
    );
  }
  const tooLarge = (error: unknown): Promise<never> => refused(bytes, format, maxPixels, error);
  if (maxPixels < 1) return tooLarge(new Error('no pixels are left')); // to the decoder 0 is no limit
  // `error` refuses what is cut short or damaged; `warning` would also refuse photos with stray bytes, which cameras write. Pixels are counted in the header, before any memory is taken.
  const image = sharp(bytes, { failOn: 'error', limitInputPixels: maxPixels });
  const { data, info } = await image
    .autoOrient()
    .flatten({ background: BACKGROUND })
    .toColourspace('srgb')
    .timeout({ seconds: TIMEOUT_SECONDS })
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true })
    .catch(tooLarge);
  if (info.channels !== 3) throw new Error(`sharp gave ${info.channels} channels instead of 3`);
  return { pixels: new Uint8Array(data.buffer, data.byteOffset, data.length), height: info.height, width: info.width };
}

/** Says why: too many pixels, or not to be read at all. */
async function refused(bytes: Uint8Array, format: string, maxPixels: number, error: unknown): Promise<never> {
  const { width, height } = await sharp(bytes, { failOn: 'error', limitInputPixels: false })
    .metadata()
    .catch(() => unreadable(format, error));
  if (width * height <= maxPixels) return unreadable(format, error);
  throw new BignasError(
    'IMAGE_TOO_LARGE',
    `Expected an image of at most ${maxPixels} pixels, got ${width}×${height} (${width * height} pixels)`,
    { maxPixels, width, height },
  );
}

function unreadable(format: string, error: unknown): never {
  const reason = (error instanceof Error ? error.message : String(error)).trim().replaceAll(/\s*\n\s*/g, '; ');
  const message = `The ${format} image is cut short, damaged or of an unknown kind (${reason})`;
  throw new BignasError('IMAGE_UNREADABLE', message, { accepted }, { cause: error });
}

/** Formats by their first bytes (as Latin-1). A file's name and content type are not asked: they are often wrong. */
const magic: readonly (readonly [RegExp, string])[] = [
  [/^\xff\xd8\xff/, 'JPEG'],
  [/^\x89PNG\r\n\x1a\n/, 'PNG'],
  [/^RIFF....WEBP/s, 'WebP'],
  [/^GIF8[79]a/, 'GIF'],
  [/^(?:II\*\0|MM\0\*|II\+\0|MM\0\+)/, 'TIFF'],
  [/^BM/, 'BMP'],
  [/^....ftypavi[fs]/s, 'AVIF'],
  [/^....ftyp(?:hei|hev|mif|msf)/s, 'HEIC'],
  [/^(?:\xff\x0a|\0\0\0\x0cJXL )/, 'JPEG XL'],
  [/^%PDF-/, 'PDF'],
  [/^PK\x03\x04/, 'ZIP'],
  [/^\s*(?:<\?xml[^>]*>\s*)?<svg/i, 'SVG'],
  [/^\s*<(?:!doctype html|html)/i, 'HTML'],
];

/** The type of a file; '' if unknown. */
function recognise(bytes: Uint8Array): string {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 256)).toString('latin1');
  const format = magic.find(([pattern]) => pattern.test(head))?.[1];
  return format ?? (/^[\t\n\f\r\x20-\x7e]+$/.test(head) ? 'text' : '');
}

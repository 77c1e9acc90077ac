/** The image worker: bodies to network inputs. All decoding, resizing and parsing of what clients send happens here. */
import { workerData } from 'node:worker_threads';
import { decodeImage } from '../../src/data/images.js';
import { fixedCrop, normalisedBatch, type Preprocessing } from '../../src/data/preprocess.js';
import { BignasError } from '../../src/errors.js';
import { imagesOf, type SentImage } from './bodies.js';
import { serveRole, Transferred } from './protocol.js';

export interface ImageWorkerData {
  readonly preprocessing: Preprocessing;
  readonly maxImages: number;
  /** Of all images of a request together. */
  readonly maxPixels: number;
}

export interface ImageRole {
  prepare: {
    input: { readonly body: Uint8Array; readonly contentType: string | undefined; readonly resolution: number };
    output: PreparedImages;
  };
}

export interface PreparedImages {
  /** [count, 3, resolution, resolution] */
  readonly data: Float32Array<ArrayBuffer>;
  readonly count: number;
  /** File name of each image, where the client gave one. */
  readonly files: readonly (string | undefined)[];
}

const { preprocessing, maxImages, maxPixels } = workerData as ImageWorkerData;

serveRole<ImageRole>({
  async prepare({ body, contentType, resolution }) {
    const images = await imagesOf(body, contentType, { maxImages });
    const size = preprocessing.crop ** 2 * 3;
    const crops = new Uint8Array(images.length * size);
    // One after the other: a decoded photo is large, its crop is not.
    let left = maxPixels;
    for (const [i, image] of images.entries()) {
      const { crop, pixels } = await cropOf(image, i, images.length, left);
      crops.set(crop, i * size);
      left -= pixels;
    }
    const data = normalisedBatch(crops, preprocessing, resolution, 'NCHW') as Float32Array<ArrayBuffer>;
    return new Transferred({ data, count: images.length, files: images.map(({ file }) => file) }, [data.buffer]);
  },
});

/** @param left pixels that the images before this one have left of the request's */
async function cropOf({ bytes, file }: SentImage, i: number, count: number, left: number): Promise<{ crop: Uint8Array; pixels: number }> {
  if (bytes.length === 0) throw new BignasError('BODY_EMPTY', `Image ${i} has no bytes.`, { image: i, file });
  try {
    const image = await decodeImage(bytes, { maxPixels: left });
    return { crop: fixedCrop(image, preprocessing), pixels: image.width * image.height };
  } catch (error) {
    if (!(error instanceof BignasError) || (count === 1 && file === undefined)) throw error;
    // Of many images, which one it was.
    const tooMany = error.code === 'IMAGE_TOO_LARGE';
    const together = tooMany && left < maxPixels ? `; the images of a request may have ${maxPixels} pixels together` : '';
    throw new BignasError(
      error.code,
      `Image ${i}: ${error.message}${together}`,
      { ...error.details, ...(tooMany && { maxPixels }), image: i, ...(file !== undefined && { file }) },
      { cause: error },
    );
  }
}

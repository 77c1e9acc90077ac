/** The image worker: bodies to network inputs. All decoding, resizing and parsing of what clients send happens here. */
import { workerData } from 'node:worker_threads';
import { decodeImage } from '../../src/data/images.js';
import { fixedCrop, normalisedBatch, type Preprocessing } from '../../src/data/preprocess.js';
import { BignasError } from '../../src/errors.js';
import { buffersOf } from './asked.js';
import { inferRequest, type InferAsked } from './inferRequest.js';
import { predictRequest, type PredictAsked } from './predictRequest.js';
import { imagesOf, tooManyImages, type SentImage } from './bodies.js';
import { serveRole, Transferred } from './protocol.js';

export interface ImageWorkerData {
  readonly maxImages: number;
  /** Of all images of a request together. */
  readonly maxPixels: number;
}

/** Images as a client sent them: a whole body of some content type, or one after the other. */
export type SentImages = { readonly body: Uint8Array<ArrayBuffer>; readonly contentType: string | undefined } | { readonly images: readonly Uint8Array<ArrayBuffer>[] };

export interface ImageRole {
  /** @param memory where the result goes, if there is room for it */
  prepare: {
    input: { readonly sent: SentImages; readonly resolution: number; readonly preprocessing: Preprocessing; readonly memory: ArrayBuffer };
    output: PreparedImages;
  };
  infer: { input: LargeRequest & { readonly jsonLength: number | undefined }; output: InferAsked };
  predict: { input: LargeRequest; output: PredictAsked };
}

/** The protocols' requests that are too large to be read on the thread that answers all clients. */
export interface LargeRequest {
  readonly body: Uint8Array<ArrayBuffer>;
}

export interface PreparedImages {
  /** [count, 3, resolution, resolution] */
  readonly data: Float32Array<ArrayBuffer>;
  readonly count: number;
  /** File name of each image, where the client gave one. */
  readonly files: readonly (string | undefined)[];
  /** Memory that nobody needs any more, back to the asking thread: of what was sent, above all. */
  readonly spent: readonly ArrayBuffer[];
}

const { maxImages, maxPixels } = workerData as ImageWorkerData;

serveRole<ImageRole>({
  async prepare({ sent, resolution, preprocessing, memory }) {
    const images = 'images' in sent ? sent.images.map((bytes): SentImage => ({ bytes, file: undefined })) : await imagesOf(sent.body, sent.contentType, { maxImages });
    if (images.length > maxImages) throw tooManyImages(maxImages, images.length);
    const size = preprocessing.crop ** 2 * 3;
    const crops = new Uint8Array(images.length * size);
    // One after the other: a decoded photo is large, its crop is not.
    let left = maxPixels;
    for (const [i, image] of images.entries()) {
      const { crop, pixels } = await cropOf(image, i, images.length, left, preprocessing);
      crops.set(crop, i * size);
      left -= pixels;
    }
    const data = normalisedBatch(crops, preprocessing, resolution, 'NCHW', memory);
    const spent = [...('body' in sent ? [sent.body.buffer] : buffersOf(sent)), ...(data.buffer === memory ? [] : [memory])];
    return new Transferred({ data, count: images.length, files: images.map(({ file }) => file), spent }, [data.buffer, ...spent]);
  },
  infer({ body, jsonLength }) {
    const asked = inferRequest(body, jsonLength, { maxImages });
    return new Transferred(asked, buffersOf(asked.input));
  },
  predict({ body }) {
    const asked = predictRequest(body, { maxImages });
    return new Transferred(asked, buffersOf(asked.input));
  },
});

/** @param left pixels that the images before this one have left of the request's */
async function cropOf({ bytes, file }: SentImage, i: number, count: number, left: number, preprocessing: Preprocessing): Promise<{ crop: Uint8Array; pixels: number }> {
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

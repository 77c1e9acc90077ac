/** What the requests of the protocols come to, whichever a client speaks. */
import { tooManyImages } from './bodies.js';
import { invalid } from './lists.js';

/** Images to decode, or the network's input itself. */
export type AskedInput =
  | { readonly images: readonly Uint8Array<ArrayBuffer>[] }
  | {
      /** [count, 3, resolution, resolution], normalised */
      readonly tensor: { readonly data: Float32Array<ArrayBuffer>; readonly count: number; readonly resolution: number };
    };

export interface InputLimits {
  /** Images a request, at least 1. */
  readonly maxImages: number;
}

/** @throws BignasError BODY_TOO_LARGE or TENSOR_INVALID where a request has too many images, or none */
export function checkCount(count: number, name: string, { maxImages }: InputLimits): void {
  if (count > maxImages) throw tooManyImages(maxImages, count);
  if (count === 0) throw invalid(name, 'at least one image', 0);
}

/** The buffers that an input can move between threads with. */
export function buffersOf(input: AskedInput): ArrayBuffer[] {
  return 'tensor' in input ? [input.tensor.data.buffer] : [...new Set(input.images.map(({ buffer }) => buffer))];
}

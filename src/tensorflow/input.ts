import type { Rank, Tensor4D } from '@tensorflow/tfjs-node-gpu';
import type { Preprocessing } from '../data/preprocess.js';
import { denseResizeMatrix } from '../data/resize.js';
import { tf } from './tf.js';

/** Crops as a normalised tensor at the fixed size: uint8 [n · crop · crop · 3] to float32 [n, crop, crop, 3]. */
export function normalised(crops: Uint8Array, { crop, mean, deviation }: Preprocessing): Tensor4D {
  return tf.tidy(() => {
    const pixels = tf.tensor(Int32Array.from(crops), [crops.length / (crop * crop * 3), crop, crop, 3], 'int32');
    const scaled = tf.div(tf.cast(pixels, 'float32'), 255);
    return tf.div<Tensor4D>(tf.sub(scaled, tf.tensor1d(mean)), tf.tensor1d(deviation));
  });
}

/**
 * Bicubic resizing as two matrix products by the reference implementation's own weights (`denseResizeMatrix`), so that training and
 * serving resize alike. Normalising first or last is the same, since every row of the matrix sums to 1.
 * @param x [n, size, size, 3]
 * @returns [n, resolution, resolution, 3]; `x` itself (a new handle) where the size is right
 */
export function resized(x: Tensor4D, resolution: number): Tensor4D {
  const [n, size, , c] = x.shape;
  if (size === resolution) return tf.clone(x);
  return tf.tidy(() => {
    const matrix = tf.tensor2d(denseResizeMatrix(size, resolution), [resolution, size]);
    const along = (axisFirst: Tensor4D): Tensor4D => {
      const [, a, b, d] = axisFirst.shape;
      const product = tf.matMul(matrix, tf.reshape<Rank.R2>(axisFirst, [size, a * b * d]));
      return tf.reshape<Rank.R4>(product, [resolution, a, b, d]);
    };
    const rows = along(tf.transpose(x, [1, 2, 0, 3])); // [r, w, n, c]
    const columns = along(tf.transpose(rows, [1, 0, 2, 3])); // [r(w), r(h), n, c]
    return tf.reshape<Rank.R4>(tf.transpose(columns, [2, 1, 0, 3]), [n, resolution, resolution, c]);
  });
}

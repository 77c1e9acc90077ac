import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Tensor, Tensor1D, Tensor2D, Tensor4D } from '@tensorflow/tfjs-node-gpu';
import { batchNormTraining, depthwiseConv2d, nativeKernels, squeezeExcite, swish } from '../src/tensorflow/kernels.js';
import { normalised, resized } from '../src/tensorflow/input.js';
import { tf } from '../src/tensorflow/tf.js';
import { cifar10Preprocessing } from '../src/data/cifar10.js';
import { normalisedBatch } from '../src/data/preprocess.js';

/** Largest difference over the largest value. */
function difference(a: Tensor, b: Tensor): number {
  const [x, y] = [a.dataSync(), b.dataSync()];
  let worst = 0;
  let largest = 1e-3;
  y.forEach((v, i) => {
    worst = Math.max(worst, Math.abs(v - x[i]!));
    largest = Math.max(largest, Math.abs(v));
  });
  return worst / largest;
}

/** Value and gradients of two ways to compute one thing agree. */
function agree(what: string, inputs: Tensor[], dy: Tensor, one: (...x: Tensor[]) => Tensor, other: (...x: Tensor[]) => Tensor): void {
  const [a, b] = [one, other].map((f) => tf.valueAndGrads((...x: Tensor[]) => tf.sum(tf.mul(f(...x), dy)))(inputs));
  for (const [i, grad] of a!.grads.entries()) {
    const d = difference(grad, b!.grads[i]!);
    assert(d < 2e-5, `${what}, gradient ${i}: ${d}`);
  }
  const d = difference(one(...inputs), other(...inputs));
  assert(d < 2e-5, `${what}, value: ${d}`);
}

const sizes: [number, number, number][] = [[3, 5, 8], [2, 7, 12], [4, 16, 37], [64, 9, 96], [1, 2, 336]];

test('our kernels are built in', () => assert(nativeKernels || (tf.backend() as unknown as { isUsingGpuDevice: boolean }).isUsingGpuDevice));

test('batch norm with and without swish: kernels, TensorFlow and the definition agree', () => {
  for (const [n, h, c] of sizes) {
    // A mean far from 0, so that a variance of one pass would cancel.
    const inputs = [tf.randomNormal([n, h, h, c], 30, 2, 'float32', 1), tf.randomNormal([c], 0, 1, 'float32', 2), tf.randomNormal([c], 0, 1, 'float32', 3)];
    const dy = tf.randomNormal([n, h, h, c], 0, 1, 'float32', 4);
    for (const activation of ['none', 'swish'] as const) {
      const by = (native: boolean) => (...[x, g, b]: Tensor[]): Tensor => batchNormTraining(x as Tensor4D, g as Tensor1D, b as Tensor1D, 1e-3, activation, native);
      const definition = (...[x, g, b]: Tensor[]): Tensor => {
        const { mean, variance } = tf.moments(x!, [0, 1, 2]);
        const y = tf.add(tf.mul(tf.div(tf.sub(x!, mean), tf.sqrt(tf.add(variance, 1e-3))), g!), b!);
        return activation === 'swish' ? tf.mul(y, tf.sigmoid(y)) : y;
      };
      agree(`[${n}, ${h}, ${h}, ${c}] ${activation}, native`, inputs, dy, by(true), definition);
      agree(`[${n}, ${h}, ${h}, ${c}] ${activation}, TensorFlow's`, inputs, dy, by(false), definition);
    }
  }
});

test('swish and squeeze-and-excitation agree with their definitions', () => {
  const x = tf.linspace(-40, 40, 401);
  agree('swish', [x], tf.onesLike(x), (v) => swish(v), (v) => tf.mul(v, tf.sigmoid(v)));
  for (const [n, h, c] of sizes) {
    const weights = [tf.randomNormal([3, c], 0, 1, 'float32', 1), tf.randomNormal([3], 0, 1, 'float32', 2), tf.randomNormal([c, 3], 0, 1, 'float32', 3), tf.randomNormal([c], 0, 1, 'float32', 4)];
    const inputs = [tf.randomNormal([n, h, h, c], 0, 1, 'float32', 5), ...weights];
    const by = (native: boolean) => (...[v, a, b, d, e]: Tensor[]): Tensor => squeezeExcite(v as Tensor4D, [a as Tensor2D, b as Tensor1D, d as Tensor2D, e as Tensor1D], native);
    const definition = (...[v, a, b, d, e]: Tensor[]): Tensor => {
      const reduced = tf.add(tf.matMul(tf.mean<Tensor2D>(v!, [1, 2]), a as Tensor2D, false, true), b!);
      const gate = tf.sigmoid(tf.add(tf.matMul(tf.mul<Tensor2D>(reduced, tf.sigmoid(reduced)), d as Tensor2D, false, true), e!));
      return tf.mul(v!, tf.reshape(gate, [n, 1, 1, c]));
    };
    const dy = tf.randomNormal([n, h, h, c], 0, 1, 'float32', 6);
    agree(`[${n}, ${h}, ${h}, ${c}], native`, inputs, dy, by(true), definition);
    agree(`[${n}, ${h}, ${h}, ${c}]`, inputs, dy, by(false), definition);
  }
});

test("depthwise convolution's gradients agree with tfjs's", () => {
  for (const [n, h, c] of sizes)
    for (const k of [3, 5, 7])
      for (const stride of [1, 2]) {
        const inputs = [tf.randomNormal([n, h, h, c], 0, 1, 'float32', 1), tf.randomNormal([k, k, c, 1], 0, 1, 'float32', 2)];
        const out = Math.ceil(h / stride);
        const by = (native: boolean) => (...[x, f]: Tensor[]): Tensor => depthwiseConv2d(x as Tensor4D, f as Tensor4D, stride, native);
        agree(`[${n}, ${h}, ${h}, ${c}] k ${k} stride ${stride}`, inputs, tf.randomNormal([n, out, out, c], 0, 1, 'float32', 3), by(true), by(false));
      }
});

test('not-a-number goes through, so that a diverged network is seen', () => {
  const x = tf.tensor4d([1, 2, Number.NaN, 4], [1, 2, 2, 1]);
  for (const activation of ['none', 'swish'] as const) {
    const y = batchNormTraining(x, tf.ones([1]), tf.zeros([1]), 1e-3, activation);
    assert(y.dataSync().every((v) => Number.isNaN(v)));
  }
});

test('training resizes and normalises as the reference implementation does', () => {
  const crops = Uint8Array.from({ length: 3 * 32 * 32 * 3 }, (_, i) => (i * 7919) % 256);
  for (const resolution of [20, 24, 32, 36]) {
    const ours = resized(normalised(crops, cifar10Preprocessing), resolution);
    assert.deepEqual(ours.shape, [3, resolution, resolution, 3]);
    const reference = tf.tensor4d(normalisedBatch(crops, cifar10Preprocessing, resolution, 'NHWC'), [3, resolution, resolution, 3]);
    assert(difference(ours, reference) < 1e-5);
  }
});

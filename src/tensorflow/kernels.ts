import type { Tensor, Tensor1D, Tensor2D, Tensor4D, TensorInfo } from '@tensorflow/tfjs-node-gpu';
import { tf } from './tf.js';

/**
 * Layers whose gradients tfjs would compose of many small ops, on kernels called by name. On a CPU they are our own
 * (native/kernels.cc, built into the addon), which touch memory as few times as can be; on a GPU, and with an addon without them,
 * TensorFlow's fused batch norm and tfjs's ops.
 */

interface Attribute {
  readonly name: string;
  readonly type: number;
  readonly value: unknown;
}

interface NodeBackend {
  readonly isUsingGpuDevice: boolean;
  readonly binding: Readonly<
    Record<'TF_ATTR_INT' | 'TF_ATTR_FLOAT' | 'TF_ATTR_BOOL' | 'TF_ATTR_STRING' | 'TF_ATTR_TYPE' | 'TF_FLOAT', number>
  >;
  executeMultipleOutputs(name: string, attributes: readonly Attribute[], inputs: readonly TensorInfo[], outputs: number): Tensor[];
}

type Save = (tensors: Tensor[]) => void;

const backend = tf.backend() as unknown as NodeBackend;
const { binding } = backend;

const float = (name: string, value: number): Attribute => ({ name, type: binding.TF_ATTR_FLOAT, value });
const integer = (name: string, value: number): Attribute => ({ name, type: binding.TF_ATTR_INT, value });
const boolean = (name: string, value: boolean): Attribute => ({ name, type: binding.TF_ATTR_BOOL, value });
const string = (name: string, value: string): Attribute => ({ name, type: binding.TF_ATTR_STRING, value });
const floatType = (name: string): Attribute => ({ name, type: binding.TF_ATTR_TYPE, value: binding.TF_FLOAT });

function execute(name: string, attributes: readonly Attribute[], inputs: readonly TensorInfo[], outputs = 1): Tensor[] {
  return backend.executeMultipleOutputs(name, attributes, inputs, outputs);
}

/** Whether our own kernels are there and run on this device. */
export const nativeKernels = !backend.isUsingGpuDevice && hasNativeKernels();

function hasNativeKernels(): boolean {
  return tf.tidy(() => {
    try {
      execute('BignasSumProduct', [], [tf.zeros([1, 1, 1, 1]), tf.zeros([1, 1, 1, 1])]);
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * Batch norm by the batch's own mean and biased variance over batch, height and width, then swish where asked.
 * @param x [n, h, w, c]
 * @param gamma [c]
 * @param beta [c]
 * @param native whether by our own kernel; tests compare the two
 */
export function batchNormTraining(
  x: Tensor4D,
  gamma: Tensor1D,
  beta: Tensor1D,
  epsilon: number,
  activation: 'none' | 'swish' = 'none',
  native = nativeKernels,
): Tensor4D {
  if (native) return nativeBatchNorm(x, gamma, beta, epsilon, activation === 'swish');
  const y = fusedBatchNorm(x, gamma, beta, epsilon);
  return activation === 'swish' ? swish(y) : y;
}

/** Keeps x and the statistics; the value before the activation is computed anew by the gradient. */
function nativeBatchNorm(x: Tensor4D, gamma: Tensor1D, beta: Tensor1D, epsilon: number, activate: boolean): Tensor4D {
  const attributes = [float('epsilon', epsilon), boolean('swish', activate)];
  const f = tf.customGrad((...args) => {
    const save = args.pop() as unknown as Save;
    const inputs = args as Tensor[];
    const [y, mean, inverse] = execute('BignasBatchNorm', attributes, inputs, 3) as [Tensor, Tensor, Tensor];
    save([...inputs, mean, inverse]);
    return {
      value: y,
      gradFunc: (dy: Tensor | Tensor[], saved: Tensor[]) => execute('BignasBatchNormGrad', attributes, [dy as Tensor, ...saved], 3),
    };
  });
  return f(x, gamma, beta) as Tensor4D;
}

/** TensorFlow's own fused kernel: 2.6 times faster a step than tfjs's composed gradient. */
function fusedBatchNorm(x: Tensor4D, gamma: Tensor1D, beta: Tensor1D, epsilon: number): Tensor4D {
  const attributes = [floatType('T'), floatType('U'), float('epsilon', epsilon), string('data_format', 'NHWC'), boolean('is_training', true)];
  const f = tf.customGrad((...args) => {
    const save = args.pop() as unknown as Save;
    const [input, scale, offset] = args as [Tensor, Tensor, Tensor];
    const none = tf.zeros([0]);
    const [y, , , ...reserves] = execute('FusedBatchNormV3', attributes, [input, scale, offset, none, none], 6) as [Tensor, ...Tensor[]];
    save([input, scale, ...reserves]);
    return {
      value: y,
      gradFunc: (dy: Tensor | Tensor[], saved: Tensor[]) =>
        execute('FusedBatchNormGradV3', attributes, [dy as Tensor, ...saved], 5).slice(0, 3),
    };
  });
  return f(x, gamma, beta) as Tensor4D;
}

/** SoftplusGrad(g, x) = g · σ(x): softplus's derivative is σ, so it gives swish in one pass, and half of its gradient. */
function timesSigmoid(g: TensorInfo, x: TensorInfo): Tensor {
  return execute('SoftplusGrad', [floatType('T')], [g, x])[0]!;
}

/** swish(x) = x · σ(x). */
export function swish<T extends Tensor>(x: T): T {
  const f = tf.customGrad((input, save) => {
    const y = timesSigmoid(input as T, input as T);
    (save as Save)([input as T, y]);
    return { value: y, gradFunc: (dy: Tensor | Tensor[], saved: Tensor[]) => swishGradient(dy as Tensor, saved[0]!, saved[1]!) };
  });
  return f(x) as T;
}

/** dx = u · (1 + x − y) with u = dy · σ(x). */
function swishGradient(dy: Tensor, x: Tensor, y: Tensor): Tensor {
  const u = timesSigmoid(dy, x);
  return tf.add(u, tf.mul(u, tf.sub(x, y)));
}

/** Depthwise convolution, padding SAME. @param x [n, h, w, c] @param kernel [k, k, c, 1] */
export function depthwiseConv2d(x: Tensor4D, kernel: Tensor4D, stride: number, native = nativeKernels): Tensor4D {
  const k = kernel.shape[0];
  if (!native || k > 7) return tf.depthwiseConv2d(x, kernel, stride, 'same');
  const f = tf.customGrad((input, filter, save) => {
    (save as unknown as Save)([input as Tensor, filter as Tensor]);
    return {
      value: tf.depthwiseConv2d(input as Tensor4D, filter as unknown as Tensor4D, stride, 'same'),
      gradFunc: (dy: Tensor | Tensor[], saved: Tensor[]) => {
        const [input, filter] = saved as [Tensor4D, Tensor4D];
        const inputShape = input.shape;
        const dx = tf.engine().runKernel(
          'DepthwiseConv2dNativeBackpropInput',
          { dy: dy as Tensor, filter },
          { strides: [stride, stride], pad: 'same', dilations: [1, 1], inputShape },
        ) as Tensor;
        return [dx, execute('BignasDepthwiseFilterGrad', [integer('kernel', k), integer('stride', stride)], [input, dy as Tensor])[0]!];
      },
    };
  });
  return f(x, kernel);
}

/** Weights of a squeeze-and-excitation: reduce [bottleneck, c], its bias, expand [c, bottleneck], its bias. */
export type SqueezeExciteWeights = readonly [Tensor2D, Tensor1D, Tensor2D, Tensor1D];

/**
 * x · σ(expand(swish(reduce(mean of x)))), with a gradient that touches x's size as few times as can be: tfjs's own gradient of the
 * mean alone costs three passes over it.
 * @param x [n, h, w, c]
 */
export function squeezeExcite(x: Tensor4D, weights: SqueezeExciteWeights, native = nativeKernels): Tensor4D {
  const f = tf.customGrad((...args) => {
    const save = args.pop() as unknown as Save;
    const [input, reduce, reduceBias, expand, expandBias] = args as [Tensor4D, ...SqueezeExciteWeights];
    const [n, h, w, c] = input.shape;
    const perImage = (t: Tensor): Tensor => tf.reshape(t, [n, 1, 1, c]);
    const pooled = tf.mean<Tensor2D>(input, [1, 2]); // [n, c]
    const reduced = tf.add<Tensor2D>(tf.matMul(pooled, reduce, false, true), reduceBias); // [n, bottleneck]
    const active = timesSigmoid(reduced, reduced) as Tensor2D;
    const gate = tf.sigmoid<Tensor2D>(tf.add(tf.matMul(active, expand, false, true), expandBias)); // [n, c]
    save([input, reduce, expand, pooled, reduced, active, gate]);
    return {
      value: tf.mul(input, perImage(gate)),
      gradFunc: (dy: Tensor | Tensor[], saved: Tensor[]) => {
        const [input, ...rest] = saved as [Tensor, ...Tensor2D[]];
        const [reduce, expand, pooled, reduced, active, gate] = rest as [Tensor2D, Tensor2D, Tensor2D, Tensor2D, Tensor2D, Tensor2D];
        const g = dy as Tensor;
        const dGate = native ? execute('BignasSumProduct', [], [g, input])[0]! : tf.sum(tf.mul(g, input), [1, 2]);
        const dExpanded = tf.mul<Tensor2D>(dGate, tf.mul(gate, tf.sub(1, gate))); // [n, c]
        const dReduced = swishGradient(tf.matMul(dExpanded, expand), reduced, active) as Tensor2D; // [n, bottleneck]
        const dMean = tf.div(tf.matMul(dReduced, reduce), h * w);
        const dx = native
          ? execute('BignasScaleShift', [], [g, gate, dMean])[0]!
          : tf.add(tf.mul(g, perImage(gate)), perImage(dMean));
        return [dx, tf.matMul(dReduced, pooled, true), tf.sum(dReduced, 0), tf.matMul(dExpanded, active, true), tf.sum(dExpanded, 0)];
      },
    };
  });
  return f(x, ...weights) as Tensor4D;
}

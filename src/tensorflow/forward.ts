import type { Tensor, Tensor1D, Tensor2D, Tensor4D } from '@tensorflow/tfjs-node-gpu';
import { inputsOf, type ActivationFunction, type BatchNorm, type Graph, type GraphNode, type Parameter, type SqueezeExcite } from '../graph/graph.js';
import { batchNormTraining, depthwiseConv2d, squeezeExcite, swish } from './kernels.js';
import { tf } from './tf.js';

/** What a forward pass does at the nodes that behave differently in training, calibration and inference. */
export interface Mode {
  /** `activation` is what follows, where nothing else reads the batch norm: the two are one layer. */
  batchNorm(node: BatchNorm, x: Tensor4D, gamma: Tensor1D, beta: Tensor1D, activation: 'none' | 'swish'): Tensor4D;
  /** The identity where not given. */
  dropout?(x: Tensor2D): Tensor2D;
}

/** Every batch norm by its batch's own statistics. */
export const training: Mode = {
  batchNorm: ({ epsilon }, x, gamma, beta, activation) => batchNormTraining(x, gamma, beta, epsilon, activation),
};

/** A parameter's slice as a tensor of shape `parameter.size`; kernels [out, in, height, width]. */
export type ParameterTensor = (parameter: Parameter) => Tensor;

/**
 * Logits of a batch.
 * @param x [n, resolution, resolution, 3], normalised
 * @returns [n, classes]
 */
export function forward(graph: Graph, parameter: ParameterTensor, x: Tensor4D, mode: Mode): Tensor2D {
  const fused = fusedActivations(graph);
  const values = new Map<string, Tensor>();
  const value = (name: string): Tensor => values.get(name)!;
  for (const node of graph.nodes) {
    if (node.op === 'input') values.set(node.name, x);
    else if (node.op === 'activation' && fused.has(node.input)) values.set(node.name, value(node.input));
    else values.set(node.name, evaluate(node, value, parameter, mode, fused.has(node.name) ? 'swish' : 'none'));
  }
  return value(graph.nodes.at(-1)!.name) as Tensor2D;
}

/** Names of the batch norms that only a swish reads. */
function fusedActivations(graph: Graph): ReadonlySet<string> {
  const readers = new Map<string, GraphNode[]>();
  for (const node of graph.nodes) for (const name of inputsOf(node)) readers.set(name, [...(readers.get(name) ?? []), node]);
  const alone = graph.nodes.filter(({ op, name }) => {
    const [reader, ...others] = readers.get(name) ?? [];
    return op === 'batchNorm' && others.length === 0 && reader?.op === 'activation' && reader.function === 'swish';
  });
  return new Set(alone.map(({ name }) => name));
}

function evaluate(
  node: Exclude<GraphNode, { op: 'input' }>,
  value: (name: string) => Tensor,
  parameter: ParameterTensor,
  mode: Mode,
  activation: 'none' | 'swish',
): Tensor {
  if (node.op === 'add') return tf.add(value(node.inputs[0]), value(node.inputs[1]));
  if (node.op === 'concatenate') return tf.concat(node.inputs.map(value), 3);
  const input = value(node.input);
  const image = input as Tensor4D;
  switch (node.op) {
    case 'conv2d':
      return tf.conv2d(image, tf.transpose(parameter(node.kernel) as Tensor4D, [2, 3, 1, 0]), node.stride, 'same');
    case 'depthwiseConv2d':
      return depthwiseConv2d(image, dilated(tf.transpose(parameter(node.kernel) as Tensor4D, [2, 3, 0, 1]), node.dilation ?? 1), node.stride);
    case 'batchNorm':
      return mode.batchNorm(node, image, parameter(node.gamma) as Tensor1D, parameter(node.beta) as Tensor1D, activation);
    case 'activation':
      return activate(node.function, input);
    case 'squeezeExcite': {
      const layers = [
        matrix(parameter(node.reduceKernel)),
        parameter(node.reduceBias) as Tensor1D,
        matrix(parameter(node.expandKernel)),
        parameter(node.expandBias) as Tensor1D,
      ] as const;
      return node.activation || node.gate ? plainSqueezeExcite(image, layers, node) : squeezeExcite(image, layers);
    }
    case 'fitChannels':
      return fitChannels(image, node.shape[2]!);
    case 'averagePool':
      return tf.avgPool(image, node.window, node.stride, 'same');
    case 'maxPool':
      return tf.maxPool(image, node.window, node.stride, 'same');
    case 'shift': {
      const [n, h, w, c] = image.shape;
      return tf.pad(tf.slice(image, [0, 1, 1, 0], [n, h - 1, w - 1, c]), [[0, 0], [0, 1], [0, 1], [0, 0]]);
    }
    case 'globalAveragePool':
      return tf.mean(image, [1, 2]);
    case 'dropout':
      return mode.dropout ? mode.dropout(input as Tensor2D) : input;
    case 'dense':
      return tf.add(tf.matMul(input as Tensor2D, matrix(parameter(node.kernel)), false, true), parameter(node.bias));
  }
}

function activate(kind: ActivationFunction, x: Tensor): Tensor {
  switch (kind) {
    case 'swish':
      return swish(x);
    case 'relu':
      return tf.relu(x);
    case 'relu6':
      return tf.relu6(x);
    case 'hardSwish':
      return tf.mul(x, hardSigmoid(x));
  }
}

function hardSigmoid(x: Tensor): Tensor {
  return tf.div(tf.relu6(tf.add(x, 3)), 6);
}

/** Squeeze-and-excitation of other networks than ours, of TensorFlow's ops. */
function plainSqueezeExcite(
  x: Tensor4D,
  [reduce, reduceBias, expand, expandBias]: readonly [Tensor2D, Tensor1D, Tensor2D, Tensor1D],
  { activation, gate }: Pick<SqueezeExcite, 'activation' | 'gate'>,
): Tensor4D {
  const [n, , , c] = x.shape;
  const reduced = activate(activation ?? 'swish', tf.add(tf.matMul(tf.mean(x, [1, 2]) as Tensor2D, reduce, false, true), reduceBias)) as Tensor2D;
  const expanded = tf.add(tf.matMul(reduced, expand, false, true), expandBias);
  return tf.mul(x, tf.reshape(gate === 'hardSigmoid' ? hardSigmoid(expanded) : tf.sigmoid(expanded), [n, 1, 1, c]));
}

/** A kernel [k, k, channels, 1] with zeros between its elements: TensorFlow has no gradient of a dilated depthwise convolution. */
function dilated(kernel: Tensor4D, dilation: number): Tensor4D {
  if (dilation === 1) return kernel;
  const [k, , channels] = kernel.shape;
  const spread = tf.pad(tf.reshape(kernel, [k, 1, k, 1, channels]), [[0, 0], [0, dilation - 1], [0, 0], [0, dilation - 1], [0, 0]]);
  const size = (k - 1) * dilation + 1;
  return tf.slice(tf.reshape(spread, [k * dilation, k * dilation, channels, 1]) as Tensor4D, [0, 0, 0, 0], [size, size, channels, 1]);
}

/** A kernel of [out, in] or [out, in, 1, 1] as [out, in]. */
function matrix(kernel: Tensor): Tensor2D {
  return tf.reshape(kernel, [kernel.shape[0], kernel.shape[1]!]);
}

function fitChannels(x: Tensor4D, channels: number): Tensor4D {
  const [n, h, w, c] = x.shape;
  if (channels < c) return tf.slice(x, [0, 0, 0, 0], [n, h, w, channels]);
  return tf.pad(x, [[0, 0], [0, 0], [0, 0], [0, channels - c]]);
}

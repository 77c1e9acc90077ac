import { IMAGE, INPUT, LOGITS, PROBABILITIES } from '../graph/modelNames.js';
import type { Preprocessing } from '../data/preprocess.js';
import { foldableBatchNorms, foldedConvolutions, type ConvolutionWeights } from '../graph/folding.js';
import {
  type ActivationFunction,
  type AveragePool,
  type BatchNorm,
  type Conv2d,
  type Dense,
  type DepthwiseConv2d,
  type FitChannels,
  type Graph,
  type GraphNode,
  type MaxPool,
  type Parameter,
  type Shift,
  type SqueezeExcite,
} from '../graph/graph.js';
import { checkStatistics, type Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { TfBuilder, type Attributes, type TfGraph, type TfValue } from './nodes.js';
import { emitPreprocessing } from './preprocessing.js';

export interface TfGraphOptions {
  /** How files hold weights of two or more dimensions. Computation is in float32. */
  readonly dtype: 'float32' | 'float16';
  /** Makes it part of the graph: the input is then an image. */
  readonly preprocessing?: Preprocessing;
}

/**
 * A child as a TensorFlow graph: `input` float32 [N, height, width, 3] (normalised) or, with preprocessing, `image` uint8 [N, any height, any
 * width, 3] (RGB); outputs `logits` and `probabilities`, both [N, classes], for any N. Batch norm is folded into the convolutions where it can be.
 */
export function tfGraph(graph: Graph, weights: SharedWeights, statistics: Statistics, { dtype, preprocessing }: TfGraphOptions): TfGraph {
  checkStatistics(graph, statistics);
  const [first, last] = [graph.nodes[0], graph.nodes.at(-1)];
  if (first?.op !== 'input' || last?.op !== 'dense') throw new Error('Expected a graph from an input to a dense layer.');

  const input: TfValue = preprocessing
    ? { name: IMAGE, type: 'DT_UINT8', shape: [-1, -1, -1, 3] }
    : { name: INPUT, type: 'DT_FLOAT', shape: [-1, ...first.shape] };
  const b = new TfBuilder(dtype, [input.name, LOGITS, PROBABILITIES]);
  const given = b.placeholder(input);
  const emitter = new Emitter(b, graph, weights, statistics, preprocessing ? emitPreprocessing(b, given, preprocessing, first.shape[0]!) : given);
  for (const node of graph.nodes) emitter.emit(node);
  b.output('Softmax', PROBABILITIES, b.output('Identity', LOGITS, emitter.value(last.name)));
  return b.build(input, [LOGITS, PROBABILITIES].map((name) => ({ name, type: 'DT_FLOAT', shape: [-1, ...last.shape] })));
}

/** Attributes of a window with SAME padding, which in TensorFlow is the graph's. */
function window(stride: number): Attributes {
  return { strides: { ints: [1, stride, stride, 1] }, padding: { s: 'SAME' }, data_format: { s: 'NHWC' } };
}

class Emitter {
  /** The TensorFlow value that holds a node's output: a node that is the identity has that of its input. */
  readonly #values = new Map<string, string>();
  readonly #shapes: ReadonlyMap<string, readonly number[]>;
  readonly #foldable: ReadonlyMap<string, BatchNorm>;
  readonly #convolutionWeights: (node: Conv2d | DepthwiseConv2d) => ConvolutionWeights;

  constructor(
    private readonly b: TfBuilder,
    graph: Graph,
    private readonly weights: SharedWeights,
    private readonly statistics: Statistics,
    private readonly input: string,
  ) {
    this.#shapes = new Map(graph.nodes.map(({ name, shape }) => [name, shape]));
    this.#foldable = foldableBatchNorms(graph);
    this.#convolutionWeights = foldedConvolutions(graph, weights, statistics);
  }

  emit(node: GraphNode): void {
    this.#values.set(node.name, this.#write(node));
  }

  /** Writes a node and returns the value that holds its output. */
  #write(node: GraphNode): string {
    const { b } = this;
    switch (node.op) {
      case 'input':
        return this.input;
      case 'conv2d':
        return this.#convolution(node);
      case 'depthwiseConv2d':
        return this.#depthwiseConvolution(node);
      case 'batchNorm':
        return this.#batchNorm(node);
      case 'activation':
        return this.#activation(node.function, node.name, this.value(node.input));
      case 'squeezeExcite':
        return this.#squeezeExcite(node);
      case 'fitChannels':
        return this.#fitChannels(node);
      case 'add':
        return b.node('AddV2', node.name, node.inputs.map((input) => this.value(input)));
      case 'averagePool':
      case 'maxPool':
        return this.#pool(node);
      case 'shift':
        return this.#shift(node);
      case 'concatenate':
        return this.#concatenate(node.name, node.inputs);
      case 'globalAveragePool':
        return b.reduce('Mean', node.name, this.value(node.input), [1, 2], { keep: false });
      case 'dropout':
        return this.value(node.input);
      case 'dense':
        return this.#dense(node);
    }
  }

  value(name: string): string {
    const value = this.#values.get(name);
    if (value === undefined) throw new Error(`${name} is read before it is written.`);
    return value;
  }

  #convolution(node: Conv2d): string {
    const { kernel, bias } = this.#convolutionWeights(node);
    return this.#conv2d(node.name, this.value(node.input), node.kernel.size, kernel, bias, node.stride);
  }

  /** @param size the kernel's, [out, in, height, width] */
  #conv2d(name: string, x: string, size: readonly number[], kernel: Float32Array, bias: Float32Array | undefined, stride = 1): string {
    const [out, within, height, width] = size as [number, number, number, number];
    const operand = this.b.weight(`${name}/kernel`, [height, width, within, out], outputsLast(kernel, out, within, height * width));
    return this.#biased('Conv2D', name, [x, operand], { ...window(stride), dilations: { ints: [1, 1, 1, 1] } }, bias);
  }

  #depthwiseConvolution(node: DepthwiseConv2d): string {
    const { name, stride, dilation = 1 } = node;
    const { kernel, bias } = this.#convolutionWeights(node);
    const [channels, , height, width] = node.kernel.size as [number, number, number, number];
    const operand = this.b.weight(`${name}/kernel`, [height, width, channels, 1], outputsLast(kernel, channels, 1, height * width));
    const attributes = { ...window(stride), dilations: { ints: [1, dilation, dilation, 1] } };
    return this.#biased('DepthwiseConv2dNative', name, [this.value(node.input), operand], attributes, bias);
  }

  /** An operation and, where there is one, a bias added to its channels; the result has the name. */
  #biased(op: string, name: string, inputs: readonly string[], attributes: Attributes, bias: Float32Array | undefined): string {
    const { b } = this;
    if (!bias) return b.node(op, name, inputs, attributes);
    const x = b.node(op, `${name}/product`, inputs, attributes);
    return b.node('BiasAdd', name, [x, b.weight(`${name}/bias`, [bias.length], bias)], { data_format: { s: 'NHWC' } });
  }

  /** One that does not vanish into a convolution, as a scale and a shift: γ / √(σ² + ε) and β − μ · γ / √(σ² + ε), in double precision. */
  #batchNorm(node: BatchNorm): string {
    const { b } = this;
    const { name, input, epsilon } = node;
    const x = this.value(input);
    if (this.#foldable.has(input)) return x;
    const { mean, variance } = this.statistics.get(name)!;
    const beta = this.weights.gather(node.beta);
    const scale = Float64Array.from(this.weights.gather(node.gamma), (gamma, c) => gamma / Math.sqrt(variance[c]! + epsilon));
    const shift = Float32Array.from(beta, (value, c) => value - mean[c]! * scale[c]!);
    const scaled = b.node('Mul', `${name}/scaled`, [x, b.weight(`${name}/scale`, [scale.length], Float32Array.from(scale))]);
    return b.node('AddV2', name, [scaled, b.weight(`${name}/shift`, [shift.length], shift)]);
  }

  #activation(kind: ActivationFunction, name: string, x: string): string {
    const { b } = this;
    switch (kind) {
      case 'swish':
        return b.node('Mul', name, [x, b.node('Sigmoid', `${name}/sigmoid`, [x])]);
      case 'relu':
        return b.node('Relu', name, [x]);
      case 'relu6':
        return b.node('Relu6', name, [x]);
      case 'hardSwish':
        return b.node('Mul', name, [x, this.#hardSigmoid(`${name}/hardSigmoid`, x)]);
    }
  }

  #hardSigmoid(name: string, x: string): string {
    const { b } = this;
    const clipped = b.node('Relu6', `${name}/relu6`, [b.node('AddV2', `${name}/sum`, [x, b.scalar(`${name}/three`, 3)])]);
    return b.node('Mul', name, [clipped, b.scalar(`${name}/sixth`, 1 / 6)]);
  }

  #squeezeExcite(node: SqueezeExcite): string {
    const { b } = this;
    const { name, activation = 'swish', gate = 'sigmoid' } = node;
    const x = this.value(node.input);
    const layer = (part: string, from: string, kernel: Parameter, bias: Parameter): string =>
      this.#conv2d(`${name}/${part}`, from, kernel.size, this.weights.gather(kernel), this.weights.gather(bias));
    const mean = b.reduce('Mean', `${name}/mean`, x, [1, 2], { keep: true });
    const reduced = layer('reduce', mean, node.reduceKernel, node.reduceBias);
    const active = this.#activation(activation, `${name}/${activation}`, reduced);
    const expanded = layer('expand', active, node.expandKernel, node.expandBias);
    const scale = gate === 'sigmoid' ? b.node('Sigmoid', `${name}/scale`, [expanded]) : this.#hardSigmoid(`${name}/scale`, expanded);
    return b.node('Mul', name, [x, scale]);
  }

  #fitChannels({ name, input, shape }: FitChannels): string {
    const { b } = this;
    const [from, to] = [this.#shapes.get(input)!.at(-1)!, shape.at(-1)!];
    const x = this.value(input);
    if (to > from) return b.pad(name, x, [[0, 0], [0, 0], [0, 0], [0, to - from]]);
    return b.stridedSlice(name, x, { begin: [0, 0, 0, 0], end: [0, 0, 0, to], strides: [1, 1, 1, 1] }, { begin: [0, 1, 2, 3], end: [0, 1, 2] });
  }

  #pool({ op, name, input, window: size, stride }: AveragePool | MaxPool): string {
    const { b } = this;
    const x = this.value(input);
    // Every so-manieth pixel. Not a pooling: XNNPACK, which TensorFlow Lite and TF.js use, has none of one pixel.
    if (size === 1) return b.stridedSlice(name, x, { begin: [0, 0, 0, 0], end: [0, 0, 0, 0], strides: [1, stride, stride, 1] }, { begin: [0, 1, 2, 3], end: [0, 1, 2, 3] });
    return b.node(op === 'maxPool' ? 'MaxPool' : 'AvgPool', name, [x], { ...window(stride), ksize: { ints: [1, size, size, 1] } });
  }

  #shift({ name, input }: Shift): string {
    const { b } = this;
    // Padded first: what is cut from an image of one pixel is then not empty.
    const padded = b.pad(`${name}/padded`, this.value(input), [[0, 0], [0, 1], [0, 1], [0, 0]]);
    return b.stridedSlice(name, padded, { begin: [0, 1, 1, 0], end: [0, 0, 0, 0], strides: [1, 1, 1, 1] }, { begin: [0, 3], end: [0, 1, 2, 3] });
  }

  #concatenate(name: string, inputs: readonly string[]): string {
    const { b } = this;
    const operands = [...inputs.map((input) => this.value(input)), b.integers(`${name}/axis`, [3], [])];
    return b.node('ConcatV2', name, operands, { N: { i: inputs.length }, Tidx: { type: 'DT_INT32' } });
  }

  #dense({ name, input, kernel, bias }: Dense): string {
    const operand = this.b.weight(`${name}/kernel`, kernel.size, this.weights.gather(kernel));
    return this.#biased('MatMul', name, [this.value(input), operand], { transpose_a: { b: false }, transpose_b: { b: true } }, this.weights.gather(bias));
  }
}

/** Output channels, and input channels, that a kernel's layout is changed at a time. */
const BLOCK = 32;

/** A kernel [out, in, height · width] as TensorFlow has it: [height · width, in, out]. A depthwise one, with in = 1, as [height · width, channels]. */
function outputsLast(kernel: Float32Array, out: number, within: number, area: number): Float32Array {
  const moved = new Float32Array(kernel.length);
  // A block at a time, so that reads and writes both stay within the processor's caches.
  for (let o0 = 0; o0 < out; o0 += BLOCK)
    for (let i0 = 0; i0 < within; i0 += BLOCK)
      for (let i = i0; i < Math.min(i0 + BLOCK, within); i++)
        for (let at = 0; at < area; at++)
          for (let o = o0; o < Math.min(o0 + BLOCK, out); o++) moved[(at * within + i) * out + o] = kernel[(o * within + i) * area + at]!;
  return moved;
}

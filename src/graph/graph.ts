/**
 * A network as an immutable list of nodes in the order of execution. Everything that reads a network (cost, TensorFlow, ONNX,
 * bundles) reads this and knows no architecture. Activations are [height, width, channels] or [channels] without the batch.
 */

/** How a shared tensor starts. `deviation` is of a normal distribution around 0, `limit` of a uniform one. */
export type Initial =
  | { readonly kind: 'constant'; readonly value: number }
  /** γ of a residual branch's last batch norm. */
  | { readonly kind: 'residualScale' }
  | { readonly kind: 'normal'; readonly deviation: number }
  | { readonly kind: 'uniform'; readonly limit: number };

/** A tensor of the shared weights, whole. Kernels are [out, in, height, width], output channel first. */
export interface SharedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly initial: Initial;
  /** Whether weight decay applies: kernels only, no biases, no batch norm. */
  readonly decays: boolean;
}

/** The part of a shared tensor that a graph uses: from `begin`, `size` long in every dimension. */
export interface Parameter {
  readonly tensor: SharedTensor;
  readonly begin: readonly number[];
  readonly size: readonly number[];
}

interface NodeBase {
  readonly name: string;
  /** Output shape without the batch. */
  readonly shape: readonly number[];
  /** Part of a skip connection across a stage transition, which the paper's FLOPs leave out. */
  readonly transition?: true;
}

interface Unary extends NodeBase {
  readonly input: string;
}

/** Zero padding is SAME: output = ⌈size / stride⌉, the odd pixel after. */
export interface Conv2d extends Unary {
  readonly op: 'conv2d';
  /** [out, in, k, k] */
  readonly kernel: Parameter;
  readonly stride: number;
}

export interface DepthwiseConv2d extends Unary {
  readonly op: 'depthwiseConv2d';
  /** [channels, 1, k, k] */
  readonly kernel: Parameter;
  readonly stride: number;
  /** Distance of the kernel's elements; 1 where absent. Only at stride 1. */
  readonly dilation?: number;
}

/** Per channel (x − mean) / √(variance + ε) · γ + β. Mean and variance are not shared: a child has its own, by calibration. */
export interface BatchNorm extends Unary {
  readonly op: 'batchNorm';
  readonly gamma: Parameter;
  readonly beta: Parameter;
  readonly epsilon: number;
}

/**
 * swish(x) = x · sigmoid(x); relu6(x) = min(max(x, 0), 6); hardSwish(x) = x · hardSigmoid(x), where hardSigmoid(x) = relu6(x + 3) / 6 (MobileNetV3,
 * Howard et al., 2019).
 */
export type ActivationFunction = 'swish' | 'relu' | 'relu6' | 'hardSwish';

export interface Activation extends Unary {
  readonly op: 'activation';
  readonly function: ActivationFunction;
}

/** x · gate(expand(activation(reduce(mean of x over height and width)))), both layers with biases. */
export interface SqueezeExcite extends Unary {
  readonly op: 'squeezeExcite';
  /** swish where absent. */
  readonly activation?: 'relu';
  /** sigmoid where absent. */
  readonly gate?: 'hardSigmoid';
  /** [bottleneck, channels, 1, 1] */
  readonly reduceKernel: Parameter;
  readonly reduceBias: Parameter;
  /** [channels, bottleneck, 1, 1] */
  readonly expandKernel: Parameter;
  readonly expandBias: Parameter;
}

/** Channels cut to the lower ones, or padded with zeros after the last, to the width of `shape`. */
export interface FitChannels extends Unary {
  readonly op: 'fitChannels';
}

export interface Add extends NodeBase {
  readonly op: 'add';
  readonly inputs: readonly [string, string];
}

/** Mean over a window, SAME; padding is not counted in the mean. */
export interface AveragePool extends Unary {
  readonly op: 'averagePool';
  readonly window: number;
  readonly stride: number;
}

/** Maximum over a window, SAME. */
export interface MaxPool extends Unary {
  readonly op: 'maxPool';
  readonly window: number;
  readonly stride: number;
}

/** The image without its first row and column, with a row and a column of zeros after its last ones (NASNet's and DARTS's factorised reduction). */
export interface Shift extends Unary {
  readonly op: 'shift';
}

/** Channels of all inputs, one input after the other. */
export interface Concatenate extends NodeBase {
  readonly op: 'concatenate';
  readonly inputs: readonly string[];
}

export interface GlobalAveragePool extends Unary {
  readonly op: 'globalAveragePool';
}

/** Where training may drop features; the identity elsewhere. The rate belongs to the recipe. */
export interface Dropout extends Unary {
  readonly op: 'dropout';
}

export interface Dense extends Unary {
  readonly op: 'dense';
  /** [out, in] */
  readonly kernel: Parameter;
  readonly bias: Parameter;
}

export interface Input extends NodeBase {
  readonly op: 'input';
}

export type GraphNode =
  | Input
  | Conv2d
  | DepthwiseConv2d
  | BatchNorm
  | Activation
  | SqueezeExcite
  | FitChannels
  | Add
  | AveragePool
  | MaxPool
  | Shift
  | Concatenate
  | GlobalAveragePool
  | Dropout
  | Dense;

/** The first node is the only input, the last the output (logits). */
export interface Graph {
  readonly nodes: readonly GraphNode[];
}

/** Names of the nodes that a node reads. */
export function inputsOf(node: GraphNode): readonly string[] {
  switch (node.op) {
    case 'input':
      return [];
    case 'add':
    case 'concatenate':
      return node.inputs;
    default:
      return [node.input];
  }
}

/** The parameters of a node, in a fixed order. */
export function parametersOf(node: GraphNode): readonly Parameter[] {
  switch (node.op) {
    case 'conv2d':
    case 'depthwiseConv2d':
      return [node.kernel];
    case 'batchNorm':
      return [node.gamma, node.beta];
    case 'squeezeExcite':
      return [node.reduceKernel, node.reduceBias, node.expandKernel, node.expandBias];
    case 'dense':
      return [node.kernel, node.bias];
    default:
      return [];
  }
}

/** All parameters of a graph, in the order of its nodes. */
export function parameters(graph: Graph): Parameter[] {
  return graph.nodes.flatMap((node) => parametersOf(node));
}

export function batchNorms(graph: Graph): BatchNorm[] {
  return graph.nodes.filter((node) => node.op === 'batchNorm');
}

/** SAME padding of one axis: [before, after] in pixels. */
export function samePadding(size: number, kernel: number, stride: number): [number, number] {
  const total = Math.max((Math.ceil(size / stride) - 1) * stride + kernel - size, 0);
  const before = Math.floor(total / 2);
  return [before, total - before];
}

/** Number of elements of a shape. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}

import { INPUT } from '../graph/modelNames.js';
import {
  samePadding,
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
import type { SharedWeights } from '../graph/weights.js';
import type { OnnxBuilder } from './builder.js';
import { floatAttribute, intAttribute, intsAttribute, type AttributeProto } from './proto.js';

/** How batch norm is written: the one thing in which models of a graph differ. */
export interface Normalisation {
  /** What a convolution multiplies by and adds: kernel [out, in / group, k, k], bias [out]. */
  convolution(node: Conv2d | DepthwiseConv2d): { readonly kernel: Float32Array; readonly bias?: Float32Array };
  /** Writes the batch norm of the value `x` and returns its result's name. */
  batchNorm(b: OnnxBuilder, node: BatchNorm, x: string): string;
}

/** Writes every node of a graph. Values have the names of their nodes, activations the shape [N, channels, height, width]. */
export function emitGraph(b: OnnxBuilder, graph: Graph, weights: SharedWeights, normalisation: Normalisation): string {
  const emitter = new Emitter(b, graph, weights, normalisation);
  for (const node of graph.nodes) emitter.emit(node);
  return emitter.value(graph.nodes.at(-1)!.name);
}

class Emitter {
  /** The ONNX value that holds a node's output: a node that is the identity has that of its input. */
  readonly #values = new Map<string, string>();
  readonly #shapes: ReadonlyMap<string, readonly number[]>;

  constructor(
    private readonly b: OnnxBuilder,
    graph: Graph,
    private readonly weights: SharedWeights,
    private readonly normalisation: Normalisation,
  ) {
    this.#shapes = new Map(graph.nodes.map(({ name, shape }) => [name, shape]));
  }

  emit(node: GraphNode): void {
    this.#values.set(node.name, this.#write(node));
  }

  /** Writes a node and returns the value that holds its output. */
  #write(node: GraphNode): string {
    const { b } = this;
    switch (node.op) {
      case 'input':
        return INPUT;
      case 'conv2d':
        return this.#convolution(node, 1);
      case 'depthwiseConv2d':
        return this.#convolution(node, node.shape.at(-1)!);
      case 'batchNorm':
        return this.normalisation.batchNorm(b, node, this.value(node.input));
      case 'activation':
        return this.#activation(node.function, node.name, this.value(node.input));
      case 'squeezeExcite':
        return this.#squeezeExcite(node);
      case 'fitChannels':
        return this.#fitChannels(node);
      case 'add':
        return b.node('Add', node.name, node.inputs.map((input) => this.value(input)));
      case 'averagePool':
      case 'maxPool':
        return this.#pool(node);
      case 'shift':
        return this.#shift(node);
      case 'concatenate':
        return b.node('Concat', node.name, node.inputs.map((input) => this.value(input)), [intAttribute('axis', 1)]);
      case 'globalAveragePool':
        return b.node('Flatten', node.name, [b.node('GlobalAveragePool', `${node.name}/mean`, [this.value(node.input)])]);
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

  #parameter(parameter: Parameter): string {
    return this.b.tensor(parameter.tensor.name, parameter.size, this.weights.gather(parameter));
  }

  #convolution(node: Conv2d | DepthwiseConv2d, group: number): string {
    const { b } = this;
    const { kernel, bias } = this.normalisation.convolution(node);
    const inputs = [this.value(node.input), b.tensor(node.kernel.tensor.name, node.kernel.size, kernel)];
    if (bias) inputs.push(b.tensor(`${node.name}.bias`, [bias.length], bias));
    return b.node('Conv', node.name, inputs, [
      ...this.#window(node.input, node.kernel.size.slice(2), node.stride, 'dilation' in node ? node.dilation : 1),
      intAttribute('group', group),
    ]);
  }

  /** Attributes of a window with SAME padding, written out as [top, left, bottom, right]: ONNX's own SAME is deprecated. */
  #window(input: string, kernel: readonly number[], stride: number, dilation = 1): AttributeProto[] {
    const [h, w] = this.#shapes.get(input) as [number, number];
    const reach = (side: number): number => (side - 1) * dilation + 1;
    const [top, bottom] = samePadding(h, reach(kernel[0]!), stride);
    const [left, right] = samePadding(w, reach(kernel[1]!), stride);
    return [
      intsAttribute('kernel_shape', kernel),
      intsAttribute('strides', [stride, stride]),
      intsAttribute('pads', [top, left, bottom, right]),
      ...(dilation > 1 ? [intsAttribute('dilations', [dilation, dilation])] : []),
    ];
  }

  #activation(kind: ActivationFunction, name: string, x: string): string {
    const { b } = this;
    switch (kind) {
      case 'swish':
        return b.node('Mul', name, [x, b.node('Sigmoid', `${name}/sigmoid`, [x])]);
      case 'relu':
        return b.node('Relu', name, [x]);
      case 'relu6':
        return b.node('Clip', name, [x, b.tensor(`${name}/least`, [], Float32Array.of(0)), b.tensor(`${name}/most`, [], Float32Array.of(6))]);
      case 'hardSwish':
        return b.node('HardSwish', name, [x]);
    }
  }

  #squeezeExcite(node: SqueezeExcite): string {
    const { b } = this;
    const { name } = node;
    const x = this.value(node.input);
    const mean = b.node('GlobalAveragePool', `${name}/mean`, [x]);
    const reduced = b.node('Conv', `${name}/reduce`, [mean, this.#parameter(node.reduceKernel), this.#parameter(node.reduceBias)]);
    const { activation = 'swish', gate = 'sigmoid' } = node;
    const active = this.#activation(activation, `${name}/${activation}`, reduced);
    const expanded = b.node('Conv', `${name}/expand`, [active, this.#parameter(node.expandKernel), this.#parameter(node.expandBias)]);
    const scale = gate === 'sigmoid' ? b.node('Sigmoid', `${name}/scale`, [expanded]) : b.node('HardSigmoid', `${name}/scale`, [expanded], [floatAttribute('alpha', 1 / 6)]);
    return b.node('Mul', name, [x, scale]);
  }

  #fitChannels({ name, input, shape }: FitChannels): string {
    const { b } = this;
    const [from, to] = [this.#shapes.get(input)!.at(-1)!, shape.at(-1)!];
    const x = this.value(input);
    if (to > from) return b.node('Pad', name, [x, b.integers(`${name}/pads`, [0, 0, 0, 0, 0, to - from, 0, 0])]);
    return b.node('Slice', name, [x, b.integers(`${name}/starts`, [0]), b.integers(`${name}/ends`, [to]), b.integers(`${name}/axes`, [1])]);
  }

  #pool({ op, name, input, window, stride }: AveragePool | MaxPool): string {
    // Every so-manieth pixel. Not a pooling: ONNX Runtime would move a padding before it into it, and refuse that.
    if (window === 1) return this.#slice(name, this.value(input), { starts: [0, 0], steps: [stride, stride] });
    const attributes = this.#window(input, [window, window], stride);
    if (op === 'maxPool') return this.b.node('MaxPool', name, [this.value(input)], attributes);
    return this.b.node('AveragePool', name, [this.value(input)], [...attributes, intAttribute('count_include_pad', 0)]);
  }

  #shift({ name, input }: Shift): string {
    const cut = this.#slice(`${name}/cut`, this.value(input), { starts: [1, 1], steps: [1, 1] });
    return this.b.node('Pad', name, [cut, this.b.integers(`${name}/pads`, [0, 0, 0, 0, 0, 0, 1, 1])]);
  }

  /** Rows and columns from `starts` to the end. */
  #slice(name: string, x: string, { starts, steps }: { readonly starts: readonly number[]; readonly steps: readonly number[] }): string {
    const { b } = this;
    const end = 2 ** 31 - 1; // beyond any image
    return b.node('Slice', name, [x, b.integers(`${name}/starts`, starts), b.integers(`${name}/ends`, [end, end]), b.integers(`${name}/axes`, [2, 3]), b.integers(`${name}/steps`, steps)]);
  }

  #dense({ name, input, kernel, bias }: Dense): string {
    const operands = [this.value(input), this.#parameter(kernel), this.#parameter(bias)];
    return this.b.node('Gemm', name, operands, [intAttribute('transB', 1)]);
  }
}

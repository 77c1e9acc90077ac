import { elements, type ActivationFunction, type Graph, type GraphNode, type Initial, type Parameter, type SqueezeExcite } from './graph.js';

const zeros: Initial = { kind: 'constant', value: 0 };
const ones: Initial = { kind: 'constant', value: 1 };

/** A width in use and the width of the shared tensor it is cut from. */
export interface Width {
  readonly used: number;
  readonly full: number;
}

/** A node's output as the next one takes it: its name, shape in use, and the full width behind its channels. */
export interface Value {
  readonly name: string;
  readonly shape: readonly number[];
  readonly full: number;
}

/** `Width` of a network that is no slice of anything, or of a slice. */
export function width(used: number, full = used): Width {
  return { used, full };
}

/**
 * Appends nodes and derives their shapes, slices and initial values; knows no network. Names of parameters are the node's name and
 * a suffix, so two graphs that name a node alike share its weights.
 */
export class GraphBuilder {
  readonly #nodes: GraphNode[] = [];

  build(): Graph {
    return { nodes: this.#nodes };
  }

  input(resolution: number, channels: number): Value {
    return this.#append({ op: 'input', name: 'input', shape: [resolution, resolution, channels] }, channels);
  }

  /**
   * Convolution without a bias (a batch norm follows). Lower-index channels; the centre of a kernel of size `kernel.full`.
   * Starts normal with deviation √(2 / (k² · out)) of the full tensor (He, fan out, as EfficientNet).
   */
  conv2d(name: string, x: Value, out: Width, kernel: Width, stride: number, transition?: true): Value {
    const [h, w, c] = hwc(x);
    return this.#append(
      {
        op: 'conv2d',
        name,
        input: x.name,
        shape: [Math.ceil(h / stride), Math.ceil(w / stride), out.used],
        kernel: kernelSlice(name, out, width(c, x.full), kernel, kernel.full ** 2 * out.full),
        stride,
        ...(transition && { transition }),
      },
      out.full,
    );
  }

  depthwiseConv2d(name: string, x: Value, kernel: Width, stride: number, dilation = 1): Value {
    const [h, w, c] = hwc(x);
    return this.#append(
      {
        op: 'depthwiseConv2d',
        name,
        input: x.name,
        shape: [Math.ceil(h / stride), Math.ceil(w / stride), c],
        kernel: kernelSlice(name, width(c, x.full), width(1), kernel, kernel.full ** 2),
        stride,
        ...(dilation > 1 && { dilation }),
      },
      x.full,
    );
  }

  batchNorm(name: string, x: Value, epsilon: number, { gamma = ones, transition }: { gamma?: Initial; transition?: true } = {}): Value {
    const channels = width(x.shape.at(-1)!, x.full);
    return this.#append(
      {
        op: 'batchNorm',
        name,
        input: x.name,
        shape: x.shape,
        gamma: vector(`${name}.gamma`, channels, gamma),
        beta: vector(`${name}.beta`, channels, zeros),
        epsilon,
        ...(transition && { transition }),
      },
      x.full,
    );
  }

  swish(name: string, x: Value): Value {
    return this.activation(name, x, 'swish');
  }

  activation(name: string, x: Value, kind: ActivationFunction): Value {
    return this.#append({ op: 'activation', name, input: x.name, shape: x.shape, function: kind }, x.full);
  }

  squeezeExcite(name: string, x: Value, bottleneck: Width, { activation, gate }: Pick<SqueezeExcite, 'activation' | 'gate'> = {}): Value {
    const channels = width(x.shape.at(-1)!, x.full);
    return this.#append(
      {
        op: 'squeezeExcite',
        name,
        input: x.name,
        shape: x.shape,
        reduceKernel: kernelSlice(`${name}.reduce`, bottleneck, channels, width(1), bottleneck.full),
        reduceBias: vector(`${name}.reduce.bias`, bottleneck, zeros),
        expandKernel: kernelSlice(`${name}.expand`, channels, bottleneck, width(1), channels.full),
        expandBias: vector(`${name}.expand.bias`, channels, zeros),
        ...(activation && { activation }),
        ...(gate && { gate }),
      },
      x.full,
    );
  }

  /** The identity where the width is right already. */
  fitChannels(name: string, x: Value, channels: Width): Value {
    const [h, w, c] = hwc(x);
    if (c === channels.used) return x;
    return this.#append({ op: 'fitChannels', name, input: x.name, shape: [h, w, channels.used] }, channels.full);
  }

  add(name: string, x: Value, y: Value): Value {
    if (x.shape.join() !== y.shape.join()) throw new Error(`${name}: cannot add shapes [${x.shape}] and [${y.shape}]`);
    return this.#append({ op: 'add', name, inputs: [x.name, y.name], shape: x.shape }, x.full);
  }

  averagePool(name: string, x: Value, window: number, stride: number, transition?: true): Value {
    return this.#append({ op: 'averagePool', name, input: x.name, shape: pooled(x, stride), window, stride, ...(transition && { transition }) }, x.full);
  }

  maxPool(name: string, x: Value, window: number, stride: number): Value {
    return this.#append({ op: 'maxPool', name, input: x.name, shape: pooled(x, stride), window, stride }, x.full);
  }

  shift(name: string, x: Value): Value {
    return this.#append({ op: 'shift', name, input: x.name, shape: x.shape }, x.full);
  }

  /** Only of values that are no slices: a slice of a concatenation is none of its parts. */
  concatenate(name: string, values: readonly Value[]): Value {
    const [h, w] = hwc(values[0]!);
    for (const value of values)
      if (value.shape[0] !== h || value.shape[1] !== w || value.shape[2] !== value.full) throw new Error(`${name}: cannot join shapes ${values.map(({ shape }) => `[${shape}]`).join(', ')}`);
    const channels = values.reduce((sum, { full }) => sum + full, 0);
    return this.#append({ op: 'concatenate', name, inputs: values.map((value) => value.name), shape: [h, w, channels] }, channels);
  }

  globalAveragePool(name: string, x: Value): Value {
    return this.#append({ op: 'globalAveragePool', name, input: x.name, shape: [x.shape.at(-1)!] }, x.full);
  }

  dropout(name: string, x: Value): Value {
    return this.#append({ op: 'dropout', name, input: x.name, shape: x.shape }, x.full);
  }

  dense(name: string, x: Value, out: number): Value {
    const initial: Initial = { kind: 'uniform', limit: 1 / Math.sqrt(out) };
    const size = [out, x.shape.at(-1)!];
    return this.#append(
      {
        op: 'dense',
        name,
        input: x.name,
        shape: [out],
        kernel: {
          tensor: { name: `${name}.kernel`, shape: [out, x.full], initial, decays: true },
          begin: [0, 0],
          size,
        },
        bias: vector(`${name}.bias`, width(out), zeros),
      },
      out,
    );
  }

  #append(node: GraphNode, full: number): Value {
    this.#nodes.push(node);
    return { name: node.name, shape: node.shape, full };
  }
}

function pooled(x: Value, stride: number): number[] {
  const [h, w, c] = hwc(x);
  return [Math.ceil(h / stride), Math.ceil(w / stride), c];
}

function hwc(x: Value): [number, number, number] {
  const [h, w, c] = x.shape;
  if (h === undefined || w === undefined || c === undefined) throw new Error(`${x.name}: expected [height, width, channels], got [${x.shape}]`);
  return [h, w, c];
}

function kernelSlice(name: string, out: Width, into: Width, kernel: Width, fanOut: number): Parameter {
  const centre = (kernel.full - kernel.used) / 2;
  return {
    tensor: {
      name: `${name}.kernel`,
      shape: [out.full, into.full, kernel.full, kernel.full],
      initial: { kind: 'normal', deviation: Math.sqrt(2 / fanOut) },
      decays: true,
    },
    begin: [0, 0, centre, centre],
    size: [out.used, into.used, kernel.used, kernel.used],
  };
}

function vector(name: string, channels: Width, initial: Initial): Parameter {
  return { tensor: { name, shape: [channels.full], initial, decays: false }, begin: [0], size: [channels.used] };
}

/** Elements of the slice that a parameter uses. */
export function parameterCount(parameter: Parameter): number {
  return elements(parameter.size);
}

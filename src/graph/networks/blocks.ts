import { GraphBuilder, width, type Value, type Width } from '../builder.js';
import type { ActivationFunction, SqueezeExcite } from '../graph.js';

/** Shorthand for the layers that the networks have in common. A width is whole where it is a number. */
export class Blocks {
  readonly b = new GraphBuilder();

  /** @param epsilon of every batch norm */
  constructor(private readonly epsilon: number) {}

  batchNorm(name: string, x: Value): Value {
    return this.b.batchNorm(`${name}.bn`, x, this.epsilon);
  }

  /** Convolution, batch norm and, where one is named, activation. */
  conv(name: string, x: Value, out: number | Width, kernel: number, stride: number, activation?: ActivationFunction): Value {
    return this.#activated(name, this.batchNorm(name, this.b.conv2d(`${name}.conv`, x, typeof out === 'number' ? width(out) : out, width(kernel), stride)), activation);
  }

  depthwise(name: string, x: Value, kernel: number, stride: number, activation?: ActivationFunction): Value {
    return this.#activated(name, this.batchNorm(name, this.b.depthwiseConv2d(`${name}.conv`, x, width(kernel), stride)), activation);
  }

  /**
   * Inverted residual block (Sandler et al., 2018): expansion, depthwise convolution, squeeze-and-excitation, projection; added to its input where both have
   * one shape.
   * @param expanded channels between; no expansion where they are the input's
   */
  invertedResidual(name: string, input: Value, { out, expanded, kernel, stride, activation, bottleneck, squeezeExcite = {} }: InvertedResidual): Value {
    let x = input;
    if (expanded !== input.full) x = this.conv(`${name}.expand`, x, expanded, 1, 1, activation);
    x = this.depthwise(`${name}.depthwise`, x, kernel, stride, activation);
    if (bottleneck !== undefined) x = this.b.squeezeExcite(`${name}.se`, x, width(bottleneck), squeezeExcite);
    x = this.conv(`${name}.project`, x, out, 1, 1);
    return x.shape.join() === input.shape.join() ? this.b.add(`${name}.add`, x, input) : x;
  }

  /** Pooling to one pixel, dropout, dense. */
  classify(x: Value, classes: number): ReturnType<GraphBuilder['build']> {
    this.b.dense('classifier', this.b.dropout('head.dropout', this.b.globalAveragePool('head.pool', x)), classes);
    return this.b.build();
  }

  #activated(name: string, x: Value, activation: ActivationFunction | undefined): Value {
    return activation === undefined ? x : this.b.activation(`${name}.${activation}`, x, activation);
  }
}

export interface InvertedResidual {
  readonly out: number;
  readonly expanded: number;
  readonly kernel: number;
  readonly stride: number;
  readonly activation: ActivationFunction;
  /** Channels of the squeeze-and-excitation's bottleneck; none without. */
  readonly bottleneck?: number | undefined;
  readonly squeezeExcite?: Pick<SqueezeExcite, 'activation' | 'gate'>;
}

/** Rounded to the nearest multiple of `divisor`, but never below 90 % of the value (the MobileNets' and EfficientNets' rule for scaled widths). */
export function divisible(channels: number, divisor = 8): number {
  const rounded = Math.max(divisor, Math.floor((channels + divisor / 2) / divisor) * divisor);
  return rounded < 0.9 * channels ? rounded + divisor : rounded;
}

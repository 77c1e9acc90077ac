import type { Batch } from '../../src/graph/engine.js';
import type { BatchNorm, Graph, GraphNode, Parameter } from '../../src/graph/graph.js';
import type { ChannelStatistics, Statistics } from '../../src/graph/statistics.js';
import type { SharedWeights } from '../../src/graph/weights.js';

/**
 * What a graph means, in naive loops and double precision: the oracle of every engine. It shares no code with them; padding, slices
 * and pooling are worked out here again. Meant for small networks: about 10^8 multiply-adds a second.
 */

/** An activation, [count, channels, height, width]; features are 1×1. */
interface Activation {
  readonly data: Float64Array;
  readonly shape: readonly [number, number, number, number];
}

/** Logits, [count, classes]. @param batch [count, 3, height, width] */
export function referenceLogits(graph: Graph, weights: SharedWeights, statistics: Statistics, batch: Batch): Float64Array {
  return interpret(graph, weights, batch, ({ name }) => statistics.get(name)!);
}

/** Each batch norm's mean and biased variance over this batch, every one computed behind those before it. */
export function referenceStatistics(graph: Graph, weights: SharedWeights, batch: Batch): Statistics {
  const statistics = new Map<string, ChannelStatistics>();
  interpret(graph, weights, batch, ({ name }, x) => {
    const own = moments(x);
    statistics.set(name, { mean: Float32Array.from(own.mean), variance: Float32Array.from(own.variance) });
    return own;
  });
  return statistics;
}

interface Moments {
  readonly mean: ArrayLike<number>;
  readonly variance: ArrayLike<number>;
}
type MomentsOf = (node: BatchNorm, x: Activation) => Moments;

function interpret(graph: Graph, weights: SharedWeights, batch: Batch, momentsOf: MomentsOf): Float64Array {
  const values = new Map<string, Activation>();
  let last: Activation | undefined;
  for (const node of graph.nodes) {
    last = evaluate(node, values, weights, batch, momentsOf);
    const [, c, h, w] = last.shape;
    const expected = node.shape.length === 1 ? [1, 1, ...node.shape] : node.shape;
    if ([h, w, c].join() !== expected.join()) throw new Error(`${node.name}: has shape [${[h, w, c]}], the graph says [${node.shape}].`);
    values.set(node.name, last);
  }
  return last!.data;
}

function evaluate(
  node: GraphNode,
  values: ReadonlyMap<string, Activation>,
  weights: SharedWeights,
  batch: Batch,
  momentsOf: MomentsOf,
): Activation {
  const read = (parameter: Parameter): Float64Array => slice(weights, parameter);
  switch (node.op) {
    case 'input': {
      const [h, w, c] = node.shape as [number, number, number];
      return { data: Float64Array.from(batch.data), shape: [batch.count, c, h, w] };
    }
    case 'add': {
      const [a, b] = node.inputs.map((name) => values.get(name)!) as [Activation, Activation];
      return { data: a.data.map((v, i) => v + b.data[i]!), shape: a.shape };
    }
    case 'conv2d':
      return convolution(values.get(node.input)!, read(node.kernel), node.kernel.size, node.stride, false);
    case 'depthwiseConv2d':
      return convolution(values.get(node.input)!, read(node.kernel), node.kernel.size, node.stride, true, node.dilation);
    case 'batchNorm': {
      const x = values.get(node.input)!;
      const { mean, variance } = momentsOf(node, x);
      const gamma = read(node.gamma);
      const beta = read(node.beta);
      return perChannel(x, (v, c) => ((v - mean[c]!) / Math.sqrt(variance[c]! + node.epsilon)) * gamma[c]! + beta[c]!);
    }
    case 'activation':
      return perChannel(values.get(node.input)!, activations[node.function]);
    case 'squeezeExcite': {
      const x = values.get(node.input)!;
      const reduced = linear(average(x), read(node.reduceKernel), read(node.reduceBias));
      const scale = linear(perChannel(reduced, activations[node.activation ?? 'swish']), read(node.expandKernel), read(node.expandBias));
      return perChannel(x, (v, c, n) => v * (node.gate === 'hardSigmoid' ? hardSigmoid : sigmoid)(scale.data[n * x.shape[1] + c]!));
    }
    case 'fitChannels':
      return fit(values.get(node.input)!, node.shape.at(-1)!);
    case 'averagePool':
      return pool(values.get(node.input)!, node.window, node.stride, (pixels) => pixels.reduce((sum, v) => sum + v, 0) / pixels.length);
    case 'maxPool':
      return pool(values.get(node.input)!, node.window, node.stride, (pixels) => Math.max(...pixels));
    case 'shift': {
      const x = values.get(node.input)!;
      const [, , h, w] = x.shape;
      return {
        shape: x.shape,
        data: x.data.map((_, i) => {
          const [row, column] = [Math.floor(i / w) % h, i % w];
          return row === h - 1 || column === w - 1 ? 0 : x.data[i + w + 1]!;
        }),
      };
    }
    case 'concatenate': {
      const parts = node.inputs.map((name) => values.get(name)!);
      const [count, , h, w] = parts[0]!.shape;
      const channels = parts.reduce((sum, { shape }) => sum + shape[1], 0);
      const data: number[] = [];
      for (let n = 0; n < count; n++)
        for (const { data: part, shape: [, c] } of parts) data.push(...part.subarray(n * c * h * w, (n + 1) * c * h * w));
      return { data: Float64Array.from(data), shape: [count, channels, h, w] };
    }
    case 'globalAveragePool':
      return average(values.get(node.input)!);
    case 'dropout':
      return values.get(node.input)!;
    case 'dense':
      return linear(values.get(node.input)!, read(node.kernel), read(node.bias));
  }
}

/** The values that a parameter names, one index at a time. */
function slice(weights: SharedWeights, { tensor, begin, size }: Parameter): Float64Array {
  const whole = weights.tensor(tensor.name);
  const out: number[] = [];
  const visit = (dimension: number, offset: number): void => {
    if (dimension === size.length) {
      out.push(whole[offset]!);
      return;
    }
    for (let i = 0; i < size[dimension]!; i++) visit(dimension + 1, offset * tensor.shape[dimension]! + begin[dimension]! + i);
  };
  visit(0, 0);
  return Float64Array.from(out);
}

function sigmoid(v: number): number {
  return 1 / (1 + Math.exp(-v));
}

const hardSigmoid = (x: number): number => Math.min(1, Math.max(0, x / 6 + 0.5));
const activations = {
  swish,
  relu: (x: number): number => Math.max(0, x),
  relu6: (x: number): number => Math.min(6, Math.max(0, x)),
  hardSwish: (x: number): number => x * hardSigmoid(x),
};

function swish(v: number): number {
  return v * sigmoid(v);
}

function perChannel(x: Activation, f: (value: number, channel: number, image: number) => number): Activation {
  const [, channels, h, w] = x.shape;
  const data = x.data.map((v, i) => {
    const plane = Math.floor(i / (h * w));
    return f(v, plane % channels, Math.floor(plane / channels));
  });
  return { data, shape: x.shape };
}

function moments(x: Activation): { readonly mean: Float64Array; readonly variance: Float64Array } {
  const [count, channels, h, w] = x.shape;
  const pixels = count * h * w;
  const mean = new Float64Array(channels);
  const variance = new Float64Array(channels);
  perChannel(x, (v, c) => (mean[c]! += v / pixels));
  perChannel(x, (v, c) => (variance[c]! += (v - mean[c]!) ** 2 / pixels));
  return { mean, variance };
}

/** SAME: ⌈size / stride⌉ outputs, centred; an odd pixel of padding comes after. */
function convolution(x: Activation, kernel: Float64Array, size: readonly number[], stride: number, depthwise: boolean, dilation = 1): Activation {
  const [count, channels, h, w] = x.shape;
  const [out, into, kh, kw] = size as [number, number, number, number];
  const oh = Math.ceil(h / stride);
  const ow = Math.ceil(w / stride);
  const top = Math.floor(Math.max(0, (oh - 1) * stride + (kh - 1) * dilation + 1 - h) / 2);
  const left = Math.floor(Math.max(0, (ow - 1) * stride + (kw - 1) * dilation + 1 - w) / 2);
  const data = new Float64Array(count * out * oh * ow);
  let at = 0;
  for (let n = 0; n < count; n++)
    for (let o = 0; o < out; o++)
      for (let y = 0; y < oh; y++)
        for (let z = 0; z < ow; z++, at++) {
          let sum = 0;
          for (let i = 0; i < into; i++)
            for (let ky = 0; ky < kh; ky++) {
              const row = y * stride + ky * dilation - top;
              if (row < 0 || row >= h) continue;
              const plane = (n * channels + (depthwise ? o : i)) * h + row;
              for (let kx = 0; kx < kw; kx++) {
                const column = z * stride + kx * dilation - left;
                if (column < 0 || column >= w) continue;
                sum += x.data[plane * w + column]! * kernel[((o * into + i) * kh + ky) * kw + kx]!;
              }
            }
          data[at] = sum;
        }
  return { data, shape: [count, out, oh, ow] };
}

/** A dense layer on features, or a 1×1 convolution on 1×1 pixels. */
function linear(x: Activation, kernel: Float64Array, bias: Float64Array): Activation {
  const [count, into] = x.shape;
  const out = bias.length;
  const data = new Float64Array(count * out);
  for (let n = 0; n < count; n++)
    for (let o = 0; o < out; o++) {
      let sum = bias[o]!;
      for (let i = 0; i < into; i++) sum += kernel[o * into + i]! * x.data[n * into + i]!;
      data[n * out + o] = sum;
    }
  return { data, shape: [count, out, 1, 1] };
}

/** The mean over height and width. */
function average(x: Activation): Activation {
  const [count, channels, h, w] = x.shape;
  const data = new Float64Array(count * channels);
  perChannel(x, (v, c, n) => (data[n * channels + c]! += v / (h * w)));
  return { data, shape: [count, channels, 1, 1] };
}

/** 2×2, stride 2: the mean of those pixels that exist. */
/** What `of` makes of the pixels that a window finds; the padding is shared out, the odd pixel after. */
function pool(x: Activation, window: number, stride: number, of: (pixels: readonly number[]) => number): Activation {
  const [count, channels, h, w] = x.shape;
  const [oh, ow] = [Math.ceil(h / stride), Math.ceil(w / stride)];
  const before = (size: number, out: number): number => Math.floor(Math.max(0, (out - 1) * stride + window - size) / 2);
  const [top, left] = [before(h, oh), before(w, ow)];
  const data: number[] = [];
  for (let plane = 0; plane < count * channels; plane++)
    for (let y = 0; y < oh; y++)
      for (let z = 0; z < ow; z++) {
        const pixels: number[] = [];
        for (let row = y * stride - top; row < y * stride - top + window; row++)
          for (let column = z * stride - left; column < z * stride - left + window; column++)
            if (row >= 0 && row < h && column >= 0 && column < w) pixels.push(x.data[(plane * h + row) * w + column]!);
        data.push(of(pixels));
      }
  return { data: Float64Array.from(data), shape: [count, channels, oh, ow] };
}

/** Cut to the lower channels, or zeros after the last. */
function fit(x: Activation, width: number): Activation {
  const [count, channels, h, w] = x.shape;
  const data = new Float64Array(count * width * h * w);
  const kept = Math.min(channels, width) * h * w;
  for (let n = 0; n < count; n++)
    data.set(x.data.subarray(n * channels * h * w, n * channels * h * w + kept), n * width * h * w);
  return { data, shape: [count, width, h, w] };
}

import { INPUT, LOGITS, PROBABILITIES } from '../graph/modelNames.js';
import type { Preprocessing } from '../data/preprocess.js';
import { foldableBatchNorms, foldedConvolutions } from '../graph/folding.js';
import type { Graph } from '../graph/graph.js';
import { checkStatistics, type Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { OnnxBuilder, type Content, type ModelOptions } from './builder.js';
import { emitGraph, type Normalisation } from './emit.js';
import { inHalfPrecision } from './half.js';
import { emitPreprocessing, imageInput } from './preprocessing.js';
import { batchOf, DataType, floatAttribute, valueOf, type ValueInfoProto } from './proto.js';
import { quantised, rangedValues, type ActivationRanges, type RangedValue } from './quantise.js';

/** Of weights and activations. `input` and the outputs are float32 in any case. */
export type DType = 'float32' | 'float16' | 'int8';

export type OnnxModelOptions = ModelOptions & {
  /** Puts the preprocessing into the model: its input is then `image`, uint8 [N, H, W, 3] of any size, RGB. */
  readonly preprocessing?: Preprocessing;
} & (
    | { /** Default: float32. */ readonly dtype?: 'float32' | 'float16' }
    | { readonly dtype: 'int8'; /** By `activationRanges`. */ readonly ranges: ActivationRanges }
  );

/**
 * A child as an ONNX model: `input` float32 [N, 3, height, width] (normalised) or `image` uint8 [N, H, W, 3] (see `preprocessing`), outputs `logits` and
 * `probabilities`, both float32 [N, classes], for any N. Batch norm is folded into the convolutions. The same arguments give the same bytes.
 */
export function onnxModel(graph: Graph, weights: SharedWeights, statistics: Statistics, options: OnnxModelOptions = {}): Uint8Array {
  const network = inDType(floatNetwork(graph, weights, statistics), options);
  const { preprocessing } = options;
  const b = new OnnxBuilder();
  if (preprocessing) emitPreprocessing(b, preprocessing, graph.nodes[0]!.shape[0]!, INPUT);
  b.append(network);
  b.node('Softmax', PROBABILITIES, [LOGITS]);
  const shape = graph.nodes.at(-1)!.shape;
  return b.build([preprocessing ? imageInput() : inputOf(graph)], [batchOf(LOGITS, shape), batchOf(PROBABILITIES, shape)], options);
}

/** The values whose ranges an int8 model needs, and the float32 model whose outputs they are, but for its input. */
export function observedModel(graph: Graph, weights: SharedWeights, statistics: Statistics): { readonly values: readonly RangedValue[]; readonly model: Uint8Array } {
  const b = new OnnxBuilder();
  const network = floatNetwork(graph, weights, statistics);
  b.append(network);
  const values = rangedValues(network, INPUT);
  return { values, model: b.build([inputOf(graph)], values.filter(({ name }) => name !== INPUT).map(({ name }) => valueOf(name, DataType.float))) };
}

function inputOf(graph: Graph): ValueInfoProto {
  const [height, width, channels] = graph.nodes[0]!.shape as [number, number, number];
  return batchOf(INPUT, [channels, height, width]);
}

/** From `input` to `logits`. */
function floatNetwork(graph: Graph, weights: SharedWeights, statistics: Statistics): Content {
  checkStatistics(graph, statistics);
  const [input, last] = [graph.nodes[0], graph.nodes.at(-1)];
  if (input?.op !== 'input' || last?.op !== 'dense') throw new Error('Expected a graph from an input to a dense layer.');
  const b = new OnnxBuilder();
  // Nothing reads the last node, and its parameters have names of their own.
  const named: Graph = { nodes: [...graph.nodes.slice(0, -1), { ...last, name: LOGITS }] };
  emitGraph(b, named, weights, folded(graph, weights, statistics));
  return b.content();
}

function inDType(network: Content, options: OnnxModelOptions): Content {
  switch (options.dtype) {
    case 'float16':
      return inHalfPrecision(network, { input: INPUT, output: LOGITS });
    case 'int8':
      return quantised(network, INPUT, options.ranges);
    default:
      return network;
  }
}

/** Batch norm with calibrated statistics, folded where it can be. */
function folded(graph: Graph, weights: SharedWeights, statistics: Statistics): Normalisation {
  const foldable = foldableBatchNorms(graph);
  return {
    convolution: foldedConvolutions(graph, weights, statistics),
    batchNorm(b, node, x) {
      if (foldable.has(node.input)) return x;
      const { mean, variance } = statistics.get(node.name)!;
      const shape = [mean.length];
      const operands = [
        b.tensor(node.gamma.tensor.name, shape, weights.gather(node.gamma)),
        b.tensor(node.beta.tensor.name, shape, weights.gather(node.beta)),
        b.tensor(`${node.name}.mean`, shape, mean),
        b.tensor(`${node.name}.variance`, shape, variance),
      ];
      return b.node('BatchNormalization', node.name, [x, ...operands], [floatAttribute('epsilon', node.epsilon)]);
    },
  };
}

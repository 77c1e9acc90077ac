import { foldableBatchNorms, foldedConvolutions } from '../graph/folding.js';
import type { Graph } from '../graph/graph.js';
import { checkStatistics, type Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { OnnxBuilder, type ModelOptions } from './builder.js';
import { emitGraph, INPUT, type Normalisation } from './emit.js';
import { batchOf, floatAttribute } from './proto.js';

/** Name of the outputs: logits and their softmax, both [N, classes]. */
export const LOGITS = 'logits';
export const PROBABILITIES = 'probabilities';

/**
 * A child as an ONNX model: `input` float32 [N, 3, height, width] (normalised), outputs `logits` and `probabilities`, both
 * [N, classes], for any N. Batch norm is folded into the convolutions. The same arguments give the same bytes.
 */
export function onnxModel(graph: Graph, weights: SharedWeights, statistics: Statistics, options: ModelOptions = {}): Uint8Array {
  checkStatistics(graph, statistics);
  const [input, last] = [graph.nodes[0], graph.nodes.at(-1)];
  if (input?.op !== 'input' || last?.op !== 'dense') throw new Error('Expected a graph from an input to a dense layer.');
  const [height, width, channels] = input.shape as [number, number, number];

  const b = new OnnxBuilder();
  // Nothing reads the last node, and its parameters have names of their own.
  const named: Graph = { nodes: [...graph.nodes.slice(0, -1), { ...last, name: LOGITS }] };
  emitGraph(b, named, weights, folded(graph, weights, statistics));
  b.node('Softmax', PROBABILITIES, [LOGITS]);
  return b.build([batchOf(INPUT, [channels, height, width])], [batchOf(LOGITS, last.shape), batchOf(PROBABILITIES, last.shape)], options);
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

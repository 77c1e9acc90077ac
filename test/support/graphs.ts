import { GraphBuilder, width, type Value } from '../../src/graph/builder.js';
import { parameters, type Graph } from '../../src/graph/graph.js';
import type { SharedWeights } from '../../src/graph/weights.js';
import { randomTensors } from './random.js';

/** Weights for all tensors of one graph. */
export function weightsOf(graph: Graph, seed: number): SharedWeights {
  return randomTensors([...new Map(parameters(graph).map(({ tensor }) => [tensor.name, tensor])).values()], seed);
}

/** Every operation that a graph may have. */
export function everyOperation(resolution: number): Graph {
  const b = new GraphBuilder();
  const bn = (name: string, x: Value): Value => b.batchNorm(`${name}.bn`, x, 1e-3);
  let x = bn('stem', b.conv2d('stem', b.input(resolution, 3), width(6), width(3), 1));
  x = b.concatenate('joined', (['relu', 'relu6', 'hardSwish', 'swish'] as const).map((kind) => b.activation(kind, x, kind)));
  x = b.squeezeExcite('excited', x, width(5), { activation: 'relu', gate: 'hardSigmoid' });
  x = b.squeezeExcite('excited again', x, width(5), { activation: 'relu' });
  x = b.add('sum', bn('dilated', b.depthwiseConv2d('dilated', x, width(3), 1, 2)), bn('far', b.depthwiseConv2d('far', x, width(5), 1, 2)));
  x = b.concatenate('pooled', [
    b.averagePool('average', x, 3, 2), b.maxPool('most', x, 3, 2), b.averagePool('every other', b.shift('shifted', x), 1, 2), b.maxPool('two', x, 2, 2),
  ]);
  x = b.add('same size', b.averagePool('mean', x, 3, 1), b.maxPool('max', x, 3, 1));
  x = b.activation('dense.hardSwish', b.dense('dense', b.globalAveragePool('gap', x), 7), 'hardSwish');
  b.dense('classifier', x, 3);
  return b.build();
}

/** b.conv is read twice and c.bn follows an addition: of three batch norms, only a.bn folds. */
export function oddGraph(size: number): Graph {
  const b = new GraphBuilder();
  let x: Value = b.input(size, 3);
  x = b.batchNorm('a.bn', b.conv2d('a.conv', x, width(5), width(3), 1), 1e-3);
  const shared = b.conv2d('b.conv', x, width(5), width(1), 1);
  x = b.add('b.add', b.batchNorm('b.bn', shared, 1e-3), shared);
  x = b.shift('shift', b.averagePool('pool', b.batchNorm('c.bn', x, 1e-3), 2, 2));
  x = b.fitChannels('wider', x, width(7));
  x = b.fitChannels('narrower', b.swish('swish', x), width(4));
  x = b.globalAveragePool('mean', b.squeezeExcite('se', b.depthwiseConv2d('d.conv', x, width(5), 2), width(2)));
  b.dense('classifier', x, 3);
  return b.build();
}

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { modelBytes } from '../src/cost/bytes.js';
import { costOf } from '../src/cost/cost.js';
import { latencyPredictor, operationKey, operationsOf, parseLatencyTable, type LatencyTable } from '../src/cost/latency.js';
import { peakActivationBytes } from '../src/cost/memory.js';
import { buildGraph } from '../src/graph/buildGraph.js';
import { GraphBuilder, width } from '../src/graph/builder.js';
import { batchNorms, type Graph } from '../src/graph/graph.js';
import { profileChild } from '../src/onnx/latency.js';
import { makeLatencyTable } from '../src/onnx/latencyTable.js';
import { onnxModel } from '../src/onnx/model.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { imagenet } from '../src/space/presets/imagenet.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { randomWeights } from './support/random.js';

const graphOf = (space: typeof tiny, seed: number): Graph => buildGraph(space, sampleArchitecture(space, [seed]));

describe('memory', () => {
  test('of networks counted by hand', () => {
    const b = new GraphBuilder();
    let x = b.input(8, 3); // 192
    x = b.conv2d('a', x, width(4), width(3), 1); // 256
    x = b.batchNorm('bn', x, 1e-3); // folded
    const skip = b.swish('swish', x); // over it
    x = b.conv2d('b', skip, width(8), width(1), 2); // 4 × 4 × 8 = 128, beside 256
    x = b.conv2d('c', x, width(16), width(1), 1); // 256, beside 128 and, while the skip waits, 256
    const pooled = b.averagePool('pool', skip, 2, 2); // 4 × 4 × 4 = 64, beside 256 and 256
    x = b.add('add', x, b.fitChannels('fit', pooled, width(16))); // fit: 256 beside 64 and 256; add: over one of them
    x = b.globalAveragePool('gap', x);
    b.dense('classifier', x, 2);
    assert.equal(peakActivationBytes(b.build()), 4 * (128 + 256 + 256));

    const chain = new GraphBuilder();
    chain.dense('classifier', chain.globalAveragePool('gap', chain.input(10, 3)), 1000);
    assert.equal(peakActivationBytes(chain.build()), 4 * (3 + 1000));
  });

  test('is at least the largest layer with its input, at most all activations', () => {
    for (let seed = 0; seed < 20; seed++) {
      const graph = graphOf(cifar10, seed);
      const sizes = graph.nodes.map(({ shape }) => 4 * shape.reduce((a, n) => a * n, 1));
      const memory = peakActivationBytes(graph);
      assert(memory >= Math.max(...sizes) && memory <= sizes.reduce((a, n) => a + n, 0), `${memory}`);
    }
  });
});

test('the bytes of a model are told to 1 %, from the largest space to the smallest', () => {
  for (const [space, count, tolerance] of [[imagenet, 2, 0.002], [cifar10, 8, 0.002], [tiny, 8, 0.03]] as const) {
    const weights = randomWeights(space, 1);
    for (let seed = 0; seed < count; seed++) {
      const graph = graphOf(space, seed);
      const statistics = new Map(batchNorms(graph).map(({ name, shape }) => [name, { mean: new Float32Array(shape.at(-1)!), variance: new Float32Array(shape.at(-1)!).fill(1) }]));
      const { length } = onnxModel(graph, weights, statistics);
      assert(Math.abs(modelBytes(graph) / length - 1) < tolerance, `${space.name}: ${modelBytes(graph)} told, ${length} written`);
      assert.equal(costOf(graph).bytes, modelBytes(graph));
    }
  }
});

describe('latency', () => {
  /** A device on which time follows a law: a constant, a part for each multiply-add, a part for each element. */
  const law = (graph: Graph): number => operationsOf(graph).reduce((sum, { operation: { op, input, output }, flops }) => sum + lawOf(op, flops, input, output), 1e-4);
  const lawOf = (op: string, flops: number, input: readonly number[], output: readonly number[]): number => {
    const elements = [input, output].reduce((sum, shape) => sum + shape.reduce((a, n) => a * n, 1), 0);
    return 5e-6 + (op === 'depthwiseConv2d' ? 4e-10 : 1e-10) * flops + 1e-9 * elements;
  };
  const tableOf = (graphs: readonly Graph[]): LatencyTable => {
    const operations = new Map(graphs.flatMap(operationsOf).map(({ operation, flops }) => [operationKey(operation), { ...operation, seconds: lawOf(operation.op, flops, operation.input, operation.output) }]));
    return { format: 'bignas-latency-table', version: 1, device: 'law', runtime: 'a law', threads: 1, overhead: 1e-4, operations: [...operations.values()] };
  };

  test('is the sum of what the table has; what it has not is interpolated', () => {
    const seen = Array.from({ length: 12 }, (_, seed) => graphOf(cifar10, seed));
    const predict = latencyPredictor(parseLatencyTable(JSON.parse(JSON.stringify(tableOf(seen)))));
    for (const graph of seen) {
      const { seconds, known } = predict(graph);
      assert(Math.abs(seconds / law(graph) - 1) < 1e-9);
      assert.equal(known, 1);
    }
    for (let seed = 100; seed < 130; seed++) {
      const graph = graphOf(cifar10, seed);
      const { seconds, known } = predict(graph);
      assert(known < 1);
      assert(Math.abs(seconds / law(graph) - 1) < 0.02, `seed ${seed}: ${seconds}, by the law ${law(graph)}`);
    }
  });

  test('a large table is taken in a moment', () => {
    const operations = Array.from({ length: 100_000 }, (_, i) => ({ op: 'conv2d', input: [i + 1], output: [1], seconds: 1e-6 }));
    const started = performance.now();
    latencyPredictor({ ...tableOf([graphOf(cifar10, 1)]), operations });
    assert(performance.now() - started < 5000);
  });

  test('a convolution takes its batch norm and its activation with it', () => {
    const operations = operationsOf(graphOf(cifar10, 1));
    assert(operations.every(({ operation: { op } }) => !['batchNorm', 'activation', 'dropout', 'input'].includes(op)));
    const [stem] = operations;
    assert.deepEqual(stem!.nodes, ['stem.conv', 'stem.bn', 'stem.swish']);
    assert.equal(stem!.operation.activation, 'swish');
    const nodes = operations.flatMap((operation) => operation.nodes);
    assert.equal(new Set(nodes).size, nodes.length);
  });

  test('a table that lacks a kind of operation, or is none, is refused by name', () => {
    const table = tableOf([graphOf(cifar10, 1)]);
    const without = latencyPredictor({ ...table, operations: table.operations.filter(({ op }) => op !== 'squeezeExcite') });
    assert.throws(() => without(graphOf(cifar10, 1)), { code: 'LATENCY_TABLE_INVALID', message: /has no squeezeExcite/ });
    const bad = { ...table, operations: [{ ...table.operations[0]!, seconds: -1 }] };
    assert.throws(() => parseLatencyTable(bad), { code: 'LATENCY_TABLE_INVALID', message: /seconds/ });
    assert.throws(() => parseLatencyTable({ ...table, version: 2 }), { code: 'LATENCY_TABLE_INVALID' });
    assert.throws(() => parseLatencyTable(null), { code: 'LATENCY_TABLE_INVALID' });
  });

  test('ONNX Runtime profiles every operation of a child; a table is made of them', async () => {
    const graph = graphOf(tiny, 3);
    const { seconds, operations } = await profileChild(graph, { threads: 1, runs: 5 });
    assert(seconds > 0);
    // An addition may be done by the convolution before it; nothing else takes no time.
    for (const { operation, seconds: time } of operations) assert(time > 0 || ['add', 'fitChannels', 'averagePool'].includes(operation.op), operationKey(operation));
    const table = parseLatencyTable(JSON.parse(JSON.stringify(await makeLatencyTable(tiny, { device: 'here', children: 5, seed: 0, threads: 1, runs: 3 }))));
    assert.equal(table.device, 'here');
    assert(latencyPredictor(table)(graphOf(tiny, 77)).seconds > 0);
  });
});

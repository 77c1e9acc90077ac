import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { GraphBuilder, width, type Value } from '../src/graph/builder.js';
import { calibrateOn } from '../src/calibrate/calibrate.js';
import { buildGraph } from '../src/graph/buildGraph.js';
import type { Batch } from '../src/graph/engine.js';
import { parameters, type Graph } from '../src/graph/graph.js';
import type { Statistics } from '../src/graph/statistics.js';
import type { SharedWeights } from '../src/graph/weights.js';
import { loadModel, onnxEngine } from '../src/onnx/engine.js';
import { foldableBatchNorms } from '../src/graph/folding.js';
import { onnxModel } from '../src/onnx/model.js';
import { biggest, formatArchitecture } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import type { SearchSpace } from '../src/space/space.js';
import { close } from './support/close.js';
import { randomBatch, randomStatistics, randomTensors, randomWeights } from './support/random.js';
import { referenceLogits, referenceStatistics } from './support/reference.js';

const engine = onnxEngine({ threads: 1 });

async function logits(graph: Graph, weights: SharedWeights, statistics: Statistics, batch: Batch): Promise<Float32Array> {
  const child = await engine.load(graph, weights, statistics);
  try {
    return await child.run(batch);
  } finally {
    await child.dispose();
  }
}

function checkRandomChildren(space: SearchSpace, numRuns: number): Promise<void> {
  const count = fc.constantFrom(1, 5);
  const resolution = fc.constantFrom(...space.resolutions);
  const property = fc.asyncProperty(fc.nat(), count, resolution, async (seed, count, resolution) => {
    const architecture = sampleArchitecture(space, [seed], resolution);
    const graph = buildGraph(space, architecture);
    const weights = randomWeights(space, seed);
    const statistics = randomStatistics(graph, seed);
    const batch = randomBatch(graph, count, seed);
    const expected = referenceLogits(graph, weights, statistics, batch);
    close(await logits(graph, weights, statistics, batch), expected, 1e-5, formatArchitecture(architecture));
  });
  return fc.assert(property, { numRuns });
}

test('a child in ONNX Runtime gives the logits that its graph means: tiny', () => checkRandomChildren(tiny, 60));
test('a child in ONNX Runtime gives the logits that its graph means: cifar10', () => checkRandomChildren(cifar10, 10));

test('a graph with every pooling size and a batch norm that cannot fold', async () => {
  for (const size of [1, 2, 3, 13]) {
    const graph = oddGraph(size);
    const weights = randomTensors(parameters(graph).map(({ tensor }) => tensor), size);
    const statistics = randomStatistics(graph, size);
    const batch = randomBatch(graph, 2, size);
    assert.deepEqual([...foldableBatchNorms(graph).keys()], ['a.conv']);
    close(await logits(graph, weights, statistics, batch), referenceLogits(graph, weights, statistics, batch), 1e-5, `size ${size}`);
  }
});

/** b.conv is read twice and c.bn follows an addition: of three batch norms, only a.bn folds. */
function oddGraph(size: number): Graph {
  const b = new GraphBuilder();
  let x: Value = b.input(size, 3);
  x = b.batchNorm('a.bn', b.conv2d('a.conv', x, width(5), width(3), 1), 1e-3);
  const shared = b.conv2d('b.conv', x, width(5), width(1), 1);
  x = b.add('b.add', b.batchNorm('b.bn', shared, 1e-3), shared);
  x = b.averagePool('pool', b.batchNorm('c.bn', x, 1e-3), 2, 2);
  x = b.fitChannels('wider', x, width(7));
  x = b.fitChannels('narrower', b.swish('swish', x), width(4));
  x = b.globalAveragePool('mean', b.squeezeExcite('se', b.depthwiseConv2d('d.conv', x, width(5), 2), width(2)));
  b.dense('classifier', x, 3);
  return b.build();
}

test('probabilities are the softmax of the logits, and an image does not depend on those beside it', async () => {
  const graph = buildGraph(tiny, biggest(tiny));
  const bytes = onnxModel(graph, randomWeights(tiny, 1), randomStatistics(graph, 1));
  const [h, w, c] = graph.nodes[0]!.shape as [number, number, number];
  const batch = randomBatch(graph, 5, 1);
  const session = await InferenceSession.create(bytes);
  const outputs = await session.run({ input: new Tensor('float32', batch.data, [5, c, h, w]) });
  const all = outputs['logits']!.data as Float32Array;
  const probabilities = outputs['probabilities']!.data as Float32Array;
  await session.release();

  const child = await loadModel(bytes, 1);
  for (let image = 0; image < 5; image++) {
    const [from, to] = [image * tiny.classes, (image + 1) * tiny.classes];
    const own = all.slice(from, to);
    const alone = await child.run({ data: batch.data.slice(image * h * w * c, (image + 1) * h * w * c), count: 1 });
    close(alone, own, 1e-5, `image ${image} alone`);
    const exponentials = Array.from(own, Math.exp);
    const sum = exponentials.reduce((a, b) => a + b);
    close(probabilities.slice(from, to), exponentials.map((e) => e / sum), 1e-5, `probabilities of image ${image}`);
  }
  await assert.rejects(child.run({ data: new Float32Array(7), count: 1 }));
  await child.dispose();
});

test('the same child is the same bytes, whatever the order of its metadata', () => {
  const build = (metadata: Record<string, string>): Uint8Array => {
    const graph = buildGraph(cifar10, sampleArchitecture(cifar10, [3]));
    return onnxModel(graph, randomWeights(cifar10, 3), randomStatistics(graph, 3), { metadata });
  };
  const bytes = build({ architecture: 'r32', licence: 'none' });
  assert.deepEqual(bytes, build({ licence: 'none', architecture: 'r32' }));
  assert.notDeepEqual(bytes, build({ licence: 'some', architecture: 'r32' }));
});

test('images and models may lie on shared memory', async () => {
  const share = <T extends Float32Array | Uint8Array>(values: T, shared: T): T => (shared.set(values), shared);
  const graph = buildGraph(tiny, biggest(tiny));
  const bytes = onnxModel(graph, randomWeights(tiny, 1), randomStatistics(graph, 1));
  const { data, count } = randomBatch(graph, 2, 1);
  const child = await loadModel(share(bytes, new Uint8Array(new SharedArrayBuffer(bytes.length))), 1);
  const shared = share(data, new Float32Array(new SharedArrayBuffer(data.byteLength)));
  assert.deepEqual(await child.run({ data: shared, count }), await child.run({ data, count }));
  await child.dispose();
});

test('statistics of another child are refused', () => {
  const graph = buildGraph(tiny, biggest(tiny));
  const other = buildGraph(tiny, sampleArchitecture(tiny, [1]));
  assert.throws(() => onnxModel(graph, randomWeights(tiny, 1), randomStatistics(other, 1)), /expected statistics of/);
});

/** Statistics agree: means to `tolerance` of a deviation, variances to `tolerance` of themselves. */
function closeStatistics(actual: Statistics, expected: Statistics, tolerance: number): void {
  assert.deepEqual([...actual.keys()], [...expected.keys()]);
  for (const [name, { mean, variance }] of expected) {
    const got = actual.get(name)!;
    assert.equal(got.mean.length, mean.length);
    assert.equal(got.variance.length, mean.length);
    for (let c = 0; c < mean.length; c++) {
      const offset = Math.abs(got.mean[c]! - mean[c]!) / Math.sqrt(variance[c]!);
      assert.ok(offset <= tolerance, `${name}: mean of channel ${c} is ${got.mean[c]}, expected ${mean[c]}`);
      const ratio = Math.abs(got.variance[c]! / variance[c]! - 1);
      assert.ok(ratio <= tolerance, `${name}: variance of channel ${c} is ${got.variance[c]}, expected ${variance[c]}`);
    }
  }
}

test("calibration gives each batch norm the batch's own mean and biased variance", async () => {
  for (const [space, seeds, count] of [[tiny, [1, 2, 3, 4, 5, 6], 12], [cifar10, [1], 4]] as const)
    for (const seed of seeds) {
      const graph = buildGraph(space, sampleArchitecture(space, [seed]));
      const weights = randomWeights(space, seed);
      const batch = randomBatch(graph, count, seed);
      closeStatistics((await calibrateOn(engine, graph, weights, [batch])).statistics, referenceStatistics(graph, weights, batch), 1e-3);
    }
});

test('calibration pools batches by their size', async () => {
  const graph = buildGraph(tiny, sampleArchitecture(tiny, [7]));
  const weights = randomWeights(tiny, 7);
  const batches = [randomBatch(graph, 12, 1), randomBatch(graph, 30, 2)];
  const [a, b] = batches.map((batch) => referenceStatistics(graph, weights, batch)) as [Statistics, Statistics];
  const [p, q] = [12 / 42, 30 / 42];
  const pooled = new Map(
    [...a].map(([name, first]) => {
      const second = b.get(name)!;
      const mean = first.mean.map((m, c) => p * m + q * second.mean[c]!);
      const spread = (m: number, c: number): number => (m - mean[c]!) ** 2;
      const variance = mean.map(
        (_, c) =>
          p * (first.variance[c]! + spread(first.mean[c]!, c)) + q * (second.variance[c]! + spread(second.mean[c]!, c)),
      );
      return [name, { mean, variance }];
    }),
  );
  closeStatistics((await calibrateOn(engine, graph, weights, batches, { tolerance: 0 })).statistics, pooled, 1e-3);
  await assert.rejects(calibrateOn(engine, graph, weights, []), /at least one batch/);
});

test('calibration keeps the variance of values far from zero', async () => {
  const b = new GraphBuilder();
  const x = b.batchNorm('bn', b.conv2d('conv', b.input(8, 3), width(4), width(1), 1), 1e-3);
  b.dense('classifier', b.globalAveragePool('mean', x), 2);
  const graph = b.build();
  const weights = randomTensors(parameters(graph).map(({ tensor }) => tensor), 1);
  const { data, count } = randomBatch(graph, 4, 1);
  const far = { data: data.map((v) => 300 + 0.1 * v), count };
  closeStatistics((await calibrateOn(engine, graph, weights, [far])).statistics, referenceStatistics(graph, weights, far), 5e-3);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { calibrateOn } from '../src/calibrate/calibrate.js';
import { buildGraph } from '../src/graph/buildGraph.js';
import type { Engine } from '../src/graph/engine.js';
import type { Graph } from '../src/graph/graph.js';
import type { Statistics } from '../src/graph/statistics.js';
import type { SharedWeights } from '../src/graph/weights.js';
import { onnxEngine } from '../src/onnx/engine.js';
import { formatArchitecture } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { imagenet } from '../src/space/presets/imagenet.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { tensorflowEngine } from '../src/tensorflow/engine.js';
import { tf } from '../src/tensorflow/tf.js';
import { randomBatch, randomStatistics, randomWeights } from './support/random.js';

const onnx = onnxEngine();

async function logits(engine: Engine, graph: Graph, weights: SharedWeights, statistics: Statistics, seed: number, count: number): Promise<Float32Array> {
  const child = await engine.load(graph, weights, statistics);
  try {
    return await child.run(randomBatch(graph, count, seed));
  } finally {
    await child.dispose();
  }
}

/** Both engines on one random child; every γ, β, mean and variance is random and not 0. */
async function compare(space: typeof tiny, weights: SharedWeights, seed: number, count: number): Promise<void> {
  const architecture = sampleArchitecture(space, [seed]);
  const graph = buildGraph(space, architecture);
  const statistics = randomStatistics(graph, seed);
  const a = await logits(onnx, graph, weights, statistics, seed, count);
  const b = await logits(tensorflowEngine, graph, weights, statistics, seed, count);
  assert.equal(a.length, count * space.classes);
  const largest = Math.max(...a.map(Math.abs));
  assert(largest > 1e-3);
  const worst = Math.max(...a.map((v, i) => Math.abs(v - b[i]!)));
  assert(worst <= 1e-4 * largest, `${formatArchitecture(architecture)}: ${worst} of ${largest}`);
}

for (const [space, children, count] of [[tiny, 50, 3], [cifar10, 50, 2], [imagenet, 5, 1]] as const)
  test(`TensorFlow and ONNX Runtime agree on ${children} random children of ${space.name}`, async () => {
    const weights = randomWeights(space, 1);
    for (let seed = 0; seed < children; seed++) await compare(space, weights, seed, count);
  });

test('both engines calibrate alike', async () => {
  for (const [space, seeds] of [[tiny, 10], [cifar10, 2]] as const) {
    const weights = randomWeights(space, 2);
    for (let seed = 0; seed < seeds; seed++) {
      const graph = buildGraph(space, sampleArchitecture(space, [seed]));
      // Batches of unlike sizes: each counts by its size.
      const batches = (): ReturnType<typeof randomBatch>[] => [randomBatch(graph, 16, seed), randomBatch(graph, 16, seed + 1), randomBatch(graph, 5, seed + 2)];
      const a = (await calibrateOn(onnx, graph, weights, batches(), { tolerance: 0 })).statistics;
      const b = (await calibrateOn(tensorflowEngine, graph, weights, batches(), { tolerance: 0 })).statistics;
      assert.deepEqual([...a.keys()].sort(), [...b.keys()].sort());
      for (const [name, { mean, variance }] of a) {
        const other = b.get(name)!;
        variance.forEach((v, c) => {
          const deviation = Math.sqrt(v) + 1e-3;
          assert(Math.abs(mean[c]! - other.mean[c]!) < 2e-3 * deviation, `${name} mean`);
          assert(Math.abs(v - other.variance[c]!) < 2e-3 * deviation ** 2, `${name} variance: ${v} and ${other.variance[c]}`);
        });
      }
    }
  }
});

test('the TensorFlow engine leaves nothing behind', async () => {
  const graph = buildGraph(tiny, sampleArchitecture(tiny, [1]));
  const weights = randomWeights(tiny, 1);
  const { statistics } = await calibrateOn(tensorflowEngine, graph, weights, [randomBatch(graph, 4, 1)]);
  const before = tf.memory().numTensors;
  await calibrateOn(tensorflowEngine, graph, weights, [randomBatch(graph, 4, 1)]);
  await logits(tensorflowEngine, graph, weights, statistics, 1, 2);
  assert.equal(tf.memory().numTensors, before);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { calibrateOn } from '../src/calibrate/calibrate.js';
import { standardError } from '../src/calibrate/convergence.js';
import { PrefixStore } from '../src/calibrate/prefixStore.js';
import { segmentsOf } from '../src/calibrate/segments.js';
import { buildGraph } from '../src/graph/buildGraph.js';
import { batchNorms, inputsOf } from '../src/graph/graph.js';
import { networks } from '../src/graph/networks/index.js';
import type { Statistics } from '../src/graph/statistics.js';
import { onnxEngine } from '../src/onnx/engine.js';
import { key, stream } from '../src/random.js';
import { biggest, smallest } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { imagenet } from '../src/space/presets/imagenet.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { tensorflowEngine } from '../src/tensorflow/engine.js';
import { randomBatch, randomWeights } from './support/random.js';

const onnx = onnxEngine({ threads: 1 });

test('a graph is cut where everything goes through one node, and no batch norm is lost', () => {
  const graphs = [tiny, cifar10, imagenet].flatMap((space) => [smallest(space), biggest(space), ...[1, 2, 3].map((seed) => sampleArchitecture(space, [seed]))].map((architecture) => buildGraph(space, architecture)));
  for (const graph of graphs) {
    const segments = segmentsOf(graph);
    assert.deepEqual(segments.flatMap((segment) => batchNorms(segment)), batchNorms(graph));
    for (const [i, { nodes }] of segments.entries()) {
      const [input, ...rest] = nodes;
      assert.equal(input!.op, 'input');
      if (i > 0) assert.deepEqual([input!.name, input!.shape], [segments[i - 1]!.nodes.at(-1)!.name, segments[i - 1]!.nodes.at(-1)!.shape]);
      const known = new Set([input!.name]);
      for (const node of rest) {
        assert.ok(inputsOf(node).every((name) => known.has(name)), node.name);
        known.add(node.name);
      }
    }
  }
  assert.ok(segmentsOf(buildGraph(imagenet, biggest(imagenet))).length >= 4);
});

for (const engine of [onnx, tensorflowEngine])
  test(`${engine.name}: the result is the same to the bit whatever was calibrated before, and whatever of it was kept`, async () => {
    const weights = randomWeights(tiny, 1);
    const children = [1, 2, 3, 4].map((seed) => buildGraph(tiny, sampleArchitecture(tiny, [seed], tiny.resolutions[0])));
    // Some that begin as another one does, and go on differently.
    for (const graph of children.slice(0, 2)) children.push(graph, buildGraph(tiny, sampleArchitecture(tiny, [9], tiny.resolutions[0])));
    const batches = (graph: (typeof children)[number]) => [1, 2, 3].map((seed) => randomBatch(graph, 6, seed));
    const options = { tolerance: 0 };
    const alone = [];
    for (const graph of children) alone.push((await calibrateOn(engine, graph, weights, batches(graph), options)).statistics);
    const draws = stream(key('calibration order'), 1);
    for (const maxBytes of [2 ** 24, 20_000, 6000]) {
      const store = new PrefixStore(maxBytes);
      for (let i = 0; i < 16; i++) {
        const which = draws.integer(children.length);
        const { statistics } = await calibrateOn(engine, children[which]!, weights, batches(children[which]!), { ...options, prefixes: { store, context: 'x' } });
        assert.deepEqual([...statistics], [...alone[which]!]);
        assert.ok(store.bytes <= maxBytes);
      }
      if (maxBytes === 2 ** 24) assert.ok(store.hits > 10, `${store.hits} prefixes were shared`);
    }
    // Other weights have other prefixes.
    const other = randomWeights(tiny, 2);
    const store = new PrefixStore(2 ** 24);
    await calibrateOn(engine, children[0]!, weights, batches(children[0]!), { ...options, prefixes: { store, context: 'weights 1' } });
    const { statistics } = await calibrateOn(engine, children[0]!, other, batches(children[0]!), { ...options, prefixes: { store, context: 'weights 2' } });
    assert.deepEqual([...statistics], [...(await calibrateOn(engine, children[0]!, other, batches(children[0]!), options)).statistics]);
  });

test('it stops once the means have converged, and not before two batches', async () => {
  const graph = buildGraph(tiny, smallest(tiny));
  const weights = randomWeights(tiny, 1);
  const batches = Array.from({ length: 10 }, (_, seed) => randomBatch(graph, 8, seed));
  const images = async (tolerance: number, from = batches): Promise<number> => (await calibrateOn(onnx, graph, weights, from, { tolerance })).images;
  assert.equal(await images(0), 80);
  assert.equal(await images(1), 16);
  const some = await images(0.12);
  assert.ok(some > 16 && some < 80, `${some} images`);
  assert.equal(await images(0.12), some);
  assert.equal(await images(0, Array.from({ length: 5 }, () => batches[0]!)), 16, 'batches that are all the same have converged');
});

test('the standard error is that of the means over batches, in deviations', () => {
  const batch = (mean: number[], variance: number[]): { statistics: Statistics } => ({ statistics: new Map([['bn', { mean: Float32Array.from(mean), variance: Float32Array.from(variance) }]]) });
  // Means 1 and 3 around 2: their variance is 2, that of their mean 1; the channel's own 4 + 2. The other channel never changes.
  const error = standardError([batch([1, 5], [4, 0]), batch([3, 5], [4, 0])]);
  assert.ok(Math.abs(error - Math.sqrt(1 / 6 / 2)) < 1e-12, String(error));
});

test('it is given up between two segments', async () => {
  const graph = buildGraph(tiny, smallest(tiny));
  const weights = randomWeights(tiny, 1);
  const controller = new AbortController();
  let asked = 0;
  function* endless() {
    for (;;) {
      if (++asked === 3) controller.abort(new Error('enough'));
      yield randomBatch(graph, 4, asked);
    }
  }
  await assert.rejects(calibrateOn(onnx, graph, weights, endless(), { tolerance: 0, signal: controller.signal }), /enough/);
  assert.equal(asked, 3);
});

test('networks of other families are cut as well', () => {
  for (const [name, network] of Object.entries(networks)) {
    const graph = network.build({ classes: 10, resolution: 64 });
    assert.deepEqual(segmentsOf(graph).flatMap((segment) => batchNorms(segment)), batchNorms(graph), name);
  }
});

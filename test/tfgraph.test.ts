import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { loadGraphModel, type GraphModel } from '@tensorflow/tfjs-converter';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { bicubic, fixedCrop, normalisedBatch, type Preprocessing } from '../src/data/preprocess.js';
import { float16Bits, float16Values } from '../src/encoding/float16.js';
import { buildGraph } from '../src/graph/buildGraph.js';
import { GraphBuilder, width } from '../src/graph/builder.js';
import type { Batch } from '../src/graph/engine.js';
import { foldableBatchNorms } from '../src/graph/folding.js';
import type { Graph } from '../src/graph/graph.js';
import { networks } from '../src/graph/networks/index.js';
import type { Statistics } from '../src/graph/statistics.js';
import type { SharedWeights } from '../src/graph/weights.js';
import { onnxModel } from '../src/onnx/model.js';
import { biggest, formatArchitecture } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import type { SearchSpace } from '../src/space/space.js';
import { tfGraph, type TfGraphOptions } from '../src/tfgraph/emit.js';
import { graphModelFiles } from '../src/tfgraph/graphModel.js';
import { isConstant, type TfGraph } from '../src/tfgraph/nodes.js';
import { savedModelFiles } from '../src/tfgraph/savedModel.js';
import { close } from './support/close.js';
import { everyOperation, oddGraph, weightsOf } from './support/graphs.js';
import { channelsLast } from './support/layout.js';
import { randomBatch, randomStatistics, randomWeights } from './support/random.js';
import { execute, loadFiles, tf } from './support/tfjs.js';

const OUTPUTS = ['logits', 'probabilities'] as const;

async function withModel<T>(graph: TfGraph, use: (model: GraphModel) => T | Promise<T>): Promise<T> {
  const model = await loadFiles(graphModelFiles(graph));
  try {
    return await use(model);
  } finally {
    model.dispose();
  }
}

/** Logits and probabilities in ONNX Runtime. */
async function onnxOutputs(graph: Graph, weights: SharedWeights, statistics: Statistics, batch: Batch): Promise<Float32Array[]> {
  const [h, w, c] = graph.nodes[0]!.shape as [number, number, number];
  const session = await InferenceSession.create(onnxModel(graph, weights, statistics));
  const outputs = await session.run({ input: new Tensor('float32', batch.data, [batch.count, c, h, w]) });
  await session.release();
  return OUTPUTS.map((name) => outputs[name]!.data as Float32Array);
}

/** Logits and probabilities in TF.js. */
function tfOutputs(graph: Graph, tfg: TfGraph, { data, count }: Batch): Promise<Float32Array[]> {
  const [h, w, c] = graph.nodes[0]!.shape as [number, number, number];
  return withModel(tfg, (model) => execute(model, 'input', tf.tensor4d(channelsLast(data, c, h * w), [count, h, w, c]), OUTPUTS));
}

async function check(graph: Graph, weights: SharedWeights, seed: number, count: number, what: string): Promise<void> {
  const statistics = randomStatistics(graph, seed);
  const batch = randomBatch(graph, count, seed);
  const expected = await onnxOutputs(graph, weights, statistics, batch);
  const got = await tfOutputs(graph, tfGraph(graph, weights, statistics, { dtype: 'float32' }), batch);
  for (const i of OUTPUTS.keys()) close(got[i]!, expected[i]!, 1e-4, `${what}: ${OUTPUTS[i]!}`);
}

function checkRandomChildren(space: SearchSpace, numRuns: number): Promise<void> {
  const property = fc.asyncProperty(fc.nat(), fc.constantFrom(1, 3), fc.constantFrom(...space.resolutions), async (seed, count, resolution) => {
    const architecture = sampleArchitecture(space, [seed], resolution);
    await check(buildGraph(space, architecture), randomWeights(space, seed), seed, count, formatArchitecture(architecture));
  });
  return fc.assert(property, { numRuns });
}

describe('a GraphModel in TF.js gives what the ONNX model gives', () => {
  test('tiny', () => checkRandomChildren(tiny, 40));
  test('cifar10', () => checkRandomChildren(cifar10, 6));

  for (const [name, { build }] of Object.entries(networks))
    test(name, () => {
      const graph = build({ classes: 10, resolution: 33 });
      return check(graph, weightsOf(graph, 1), 1, 1, name);
    });

  test('every operation, odd sizes included', async () => {
    for (const resolution of [9, 12]) {
      const graph = everyOperation(resolution);
      await check(graph, weightsOf(graph, 3), 3, 2, `${resolution} pixels`);
    }
  });

  test('batch norms that cannot fold, and images down to a pixel', async () => {
    for (const size of [1, 2, 3, 13]) {
      const graph = oddGraph(size);
      assert.deepEqual([...foldableBatchNorms(graph).keys()], ['a.conv']);
      await check(graph, weightsOf(graph, size), size, 2, `${size} pixels`);
    }
  });
});

/** A child of random weights and its TensorFlow graph. */
function child(space: SearchSpace, options: TfGraphOptions) {
  const graph = buildGraph(space, biggest(space));
  const [weights, statistics] = [randomWeights(space, 1), randomStatistics(graph, 1)];
  return { graph, weights, statistics, tfg: tfGraph(graph, weights, statistics, options) };
}

test('weights as halves compute as their values do, and take half the bytes', async () => {
  const { graph, tfg } = child(cifar10, { dtype: 'float16' });
  const halved = (values: Float32Array): Float32Array => float16Values(float16Bits(values));
  const rounded: TfGraph = {
    ...tfg,
    nodes: tfg.nodes.map((node) => {
      if (!isConstant(node) || node.halves === undefined) return node;
      const { name, op, shape, values } = node;
      return { name, op, shape, values: halved(values as Float32Array) };
    }),
  };
  const batch = randomBatch(graph, 1, 1);
  const [got, expected] = [await tfOutputs(graph, tfg, batch), await tfOutputs(graph, rounded, batch)];
  assert.deepEqual(got, expected);
  const size = (of: TfGraph): number => [...graphModelFiles(of)].reduce((sum, [name, bytes]) => sum + (name.endsWith('.bin') ? bytes.length : 0), 0);
  assert.ok(size(tfg) < 0.6 * size(rounded));
  assert.ok(savedModelFiles(tfg).get('saved_model.pb')!.length < 0.7 * savedModelFiles(rounded).get('saved_model.pb')!.length);
});

test('the same child is the same bytes', () => {
  for (const dtype of ['float32', 'float16'] as const) {
    const files = (): [string, Uint8Array][] => {
      const { tfg } = child(tiny, { dtype, preprocessing: preprocessing(10, 8) });
      return [...savedModelFiles(tfg), ...graphModelFiles(tfg)];
    };
    assert.deepEqual(files(), files());
  }
});

test("names are TensorFlow's and unique, also where a node has an output's name", async () => {
  const b = new GraphBuilder();
  let x = b.batchNorm('_1 ×', b.conv2d('probabilities', b.input(4, 3), width(2), width(3), 1), 1e-3);
  x = b.batchNorm('1_ ×', b.swish('1', x), 1e-3);
  b.dense('logits', b.globalAveragePool('1_/scale', x), 3);
  const graph = b.build();
  const tfg = tfGraph(graph, weightsOf(graph, 1), randomStatistics(graph, 1), { dtype: 'float16' });
  const names = tfg.nodes.flatMap((node) => (isConstant(node) && node.halves !== undefined ? [node.name, node.halves] : [node.name]));
  assert.equal(new Set(names).size, names.length);
  for (const name of names) assert.match(name, /^[A-Za-z0-9.][A-Za-z0-9_.\\/-]*$/);
  const [logits, probabilities] = await tfOutputs(graph, tfg, randomBatch(graph, 1, 1));
  close([...logits!].map(Math.exp).map((e, _, all) => e / all.reduce((a, c) => a + c)), probabilities!, 1e-5, 'softmax');
});

test('a GraphModel is loaded over HTTP, its weights in files of 4 MiB', async () => {
  const graph = networks['mobilenet-v2-1.3'].build({ classes: 10, resolution: 32 });
  const files = graphModelFiles(tfGraph(graph, weightsOf(graph, 1), randomStatistics(graph, 1), { dtype: 'float32' }));
  const shards = [...files].filter(([name]) => name.endsWith('.bin'));
  assert.deepEqual(shards.map(([name]) => name), shards.map((_, i) => `group1-shard${i + 1}of${shards.length}.bin`));
  assert.ok(shards.length > 1);
  for (const [, bytes] of shards.slice(0, -1)) assert.equal(bytes.length, 4 * 2 ** 20);
  const server = createServer(({ url }, response) => {
    response.end(files.get(url!.slice(1)));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const model = await loadGraphModel(`http://127.0.0.1:${(server.address() as AddressInfo).port}/model.json`);
    assert.deepEqual(model.inputs.map(({ name, shape }) => [name, shape]), [['input', [-1, ...graph.nodes[0]!.shape]]]);
    assert.deepEqual(model.outputs.map(({ name }) => name), [...OUTPUTS]);
    model.dispose();
  } finally {
    server.close();
  }
});

const preprocessing = (shorterSide: number, crop: number): Preprocessing => ({
  shorterSide, crop, resize: bicubic, rounding: 'uint8-after-crop', mean: [0.4, 0.5, 0.6], deviation: [0.2, 0.25, 0.3], colour: 'RGB',
});

/** A picture without symmetries, with edges. */
function picture(height: number, width: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: height * width * 3 }, (_, i) => {
    const [at, c] = [Math.floor(i / 3), i % 3];
    const [y, x] = [Math.floor(at / width), at % width];
    return y * 31 + x * 17 + c * 71 + y * x * 7 + seed * 13;
  });
}

describe('preprocessing in the graph is the reference one', () => {
  const sizes = [[60, 40], [40, 60], [41, 97], [20, 20], [24, 24], [7, 11], [20, 33], [1, 30], [30, 1], [1, 1], [150, 200]] as const;

  for (const [shorterSide, crop] of [[24, 20], [20, 20]] as const)
    test(`shorter side ${shorterSide}, crop ${crop}`, async () => {
      const p = preprocessing(shorterSide, crop);
      // 13 pixels: resized from the crop.
      const graph = buildGraph(tiny, { ...biggest(tiny), resolution: 13 });
      const [weights, statistics] = [randomWeights(tiny, 1), randomStatistics(graph, 1)];
      await withModel(tfGraph(graph, weights, statistics, { dtype: 'float16', preprocessing: p }), (model) => {
        for (const [height, width] of sizes) checkPreprocessing(model, p, 13, height, width);
      });
    });

  test('a crop at its own resolution', async () => {
    const { resolution } = biggest(tiny);
    const p = preprocessing(resolution + 5, resolution);
    const { tfg } = child(tiny, { dtype: 'float32', preprocessing: p });
    await withModel(tfg, (model) => {
      for (const [height, width] of [[40, 50], [resolution, resolution]] as const) checkPreprocessing(model, p, resolution, height, width);
    });
  });

  test('the probabilities are those of the crop that the reference makes', async () => {
    const { resolution } = biggest(tiny);
    const p = preprocessing(resolution, resolution);
    const { graph, weights, statistics, tfg } = child(tiny, { dtype: 'float32', preprocessing: p });
    const pixels = picture(resolution, resolution, 1);
    const data = normalisedBatch(fixedCrop({ pixels, height: resolution, width: resolution }, p), p, resolution, 'NCHW');
    const expected = await onnxOutputs(graph, weights, statistics, { data, count: 1 });
    await withModel(tfg, (model) => {
      const got = execute(model, 'image', tf.tensor4d(pixels, [1, resolution, resolution, 3], 'int32'), OUTPUTS);
      for (const i of OUTPUTS.keys()) close(got[i]!, expected[i]!, 1e-4, OUTPUTS[i]!);
    });
  });
});

/** Two images of one size, in a batch. */
function checkPreprocessing(model: GraphModel, p: Preprocessing, resolution: number, height: number, width: number): void {
  const what = `${height}×${width}`;
  const images = [1, 2].map((seed) => picture(height, width, seed));
  const batch = tf.tensor4d(Buffer.concat(images), [images.length, height, width, 3], 'int32');
  const [planes, input] = execute(model, 'image', batch, ['preprocessing/clamped', 'preprocessing/input']) as [Float32Array, Float32Array];
  const area = p.crop ** 2;
  const crops = Uint8Array.from(images.flatMap((_, n) => [...channelsLast(planes.subarray(n * 3 * area, (n + 1) * 3 * area), 3, area)]));
  const expected = Buffer.concat(images.map((pixels) => fixedCrop({ pixels, height, width }, p)));
  // Sums that end near a half may be rounded to either side.
  const off = expected.filter((value, i) => value !== crops[i]);
  assert.ok(expected.every((value, i) => Math.abs(value - crops[i]!) <= 1), what);
  assert.ok(off.length <= 1e-3 * expected.length, `${what}: ${off.length} of ${expected.length} values of the crop differ`);
  if (height === p.crop && width === p.crop) assert.equal(off.length, 0);
  close(input, normalisedBatch(crops, p, resolution, 'NHWC'), 1e-5, what);
}

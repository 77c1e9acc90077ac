import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { bicubic, fixedCrop, normalisedBatch, type Preprocessing, type RgbImage } from '../src/data/preprocess.js';
import { buildGraph } from '../src/graph/buildGraph.js';
import type { Batch } from '../src/graph/engine.js';
import { parameters, type Graph } from '../src/graph/graph.js';
import { networks } from '../src/graph/networks/index.js';
import type { Statistics } from '../src/graph/statistics.js';
import type { SharedWeights } from '../src/graph/weights.js';
import { OnnxBuilder } from '../src/onnx/builder.js';
import { loadModel } from '../src/onnx/engine.js';
import { Histogram } from '../src/onnx/histogram.js';
import { onnxModel, type OnnxModelOptions } from '../src/onnx/model.js';
import { emitPreprocessing, imageInput } from '../src/onnx/preprocessing.js';
import { batchOf, DataType, intAttribute, type TensorProto } from '../src/onnx/proto.js';
import { quantised, rangedValues } from '../src/onnx/quantise.js';
import { activationRanges } from '../src/onnx/ranges.js';
import { key, stream } from '../src/random.js';
import { biggest, formatArchitecture } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import type { SearchSpace } from '../src/space/space.js';
import { randomBatch, randomStatistics, randomTensors, randomWeights } from './support/random.js';

/** Halves have 11 bits: 5e-4 a rounding; the largest difference measured over these networks is 8e-4. */
const HALF_TOLERANCE = 4e-3;

/**
 * Random weights make what 8 bits suit least: channels of all scales in one range, and nothing that errors average out to. Measured over these networks: 0.7 % to 8.6 %,
 * most with the deepest (EfficientNet-B1, NASNet-A). A wrong zero point, step or padding gives tens of per cent.
 */
const INT8_TOLERANCE = 0.16;

/** Between int8 operators and the arithmetic that the file means, which round in different places: a few steps of the last ones. Measured: up to 2.6 %. */
const JOINED_TOLERANCE = 0.08;

interface Child {
  readonly name: string;
  readonly graph: Graph;
  readonly weights: SharedWeights;
  readonly statistics: Statistics;
  readonly batch: Batch;
}

function childOf(name: string, graph: Graph, weights: SharedWeights, seed: number): Child {
  return { name, graph, weights, statistics: randomStatistics(graph, seed), batch: randomBatch(graph, 3, seed) };
}

function randomChild(space: SearchSpace, seed: number, resolution?: number): Child {
  const architecture = sampleArchitecture(space, [seed], resolution);
  return childOf(formatArchitecture(architecture), buildGraph(space, architecture), randomWeights(space, seed), seed);
}

function* literature(): Generator<Child> {
  for (const [name, { build }] of Object.entries(networks)) {
    const graph = build({ classes: 10, resolution: 64 });
    const tensors = new Map(parameters(graph).map(({ tensor }) => [tensor.name, tensor]));
    yield childOf(name, graph, randomTensors([...tensors.values()], 1), 1);
  }
}

function modelOf({ graph, weights, statistics }: Child, options?: OnnxModelOptions): Uint8Array {
  return onnxModel(graph, weights, statistics, options);
}

async function int8Options({ graph, weights, statistics, batch }: Child): Promise<OnnxModelOptions> {
  return { dtype: 'int8', ranges: await activationRanges(graph, weights, statistics, [batch]) };
}

async function logits(bytes: Uint8Array, batch: Batch): Promise<Float32Array> {
  const model = await loadModel(bytes, 1);
  try {
    return await model.run(batch);
  } finally {
    await model.dispose();
  }
}

/** As the file says, operator by operator, nothing joined. */
async function literally(bytes: Uint8Array, { graph, batch }: Child): Promise<Float32Array> {
  const [height, width, channels] = graph.nodes[0]!.shape as [number, number, number];
  const session = await InferenceSession.create(bytes, { graphOptimizationLevel: 'disabled', intraOpNumThreads: 1 });
  const outputs = await session.run({ input: new Tensor('float32', batch.data, [batch.count, channels, height, width]) });
  await session.release();
  return outputs['logits']!.data as Float32Array;
}

/** Asserts that values agree to `tolerance` of the largest expected one. */
function close(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number, what: string): void {
  assert.equal(actual.length, expected.length, what);
  const largest = Math.max(...Array.from(expected, Math.abs));
  const difference = Math.max(...Array.from(expected, (value, i) => Math.abs(value - actual[i]!)));
  assert.ok(difference <= tolerance * largest, `${what}: differs by ${difference} where the largest value is ${largest}`);
}

async function checkHalf(child: Child): Promise<void> {
  const expected = await logits(modelOf(child), child.batch);
  close(await logits(modelOf(child, { dtype: 'float16' }), child.batch), expected, HALF_TOLERANCE, `${child.name} in halves`);
}

async function checkInt8(child: Child): Promise<void> {
  const bytes = modelOf(child, await int8Options(child));
  const got = await logits(bytes, child.batch);
  close(got, await literally(bytes, child), JOINED_TOLERANCE, `${child.name} joined`);
  close(got, await logits(modelOf(child), child.batch), INT8_TOLERANCE, `${child.name} in int8`);
}

describe('a child in half precision and in int8 is near the same child in float32', () => {
  const check = (space: SearchSpace, numRuns: number) =>
    fc.assert(
      fc.asyncProperty(fc.nat(), fc.constantFrom(...space.resolutions), async (seed, resolution) => {
        const child = randomChild(space, seed, resolution);
        await checkHalf(child);
        await checkInt8(child);
      }),
      { numRuns },
    );
  test('tiny', () => check(tiny, 20));
  test('cifar10', () => check(cifar10, 4));
  test('the networks of the literature', async () => {
    for (const child of literature()) {
      await checkHalf(child);
      await checkInt8(child);
    }
  });
});

test('float32 is the default, and the same arguments give the same bytes', async () => {
  const child = randomChild(cifar10, 3);
  const int8 = await int8Options(child);
  const preprocessing = preprocessingOf(40, 32);
  for (const options of [{}, { dtype: 'float16' }, int8, { ...int8, preprocessing }] as const) assert.deepEqual(modelOf(child, options), modelOf(child, options));
  assert.deepEqual(modelOf(child, { dtype: 'float32' }), modelOf(child));
  assert.deepEqual(await int8Options(child), int8);
});

test('files shrink with their numbers', async () => {
  const child = childOf('biggest', buildGraph(cifar10, biggest(cifar10)), randomWeights(cifar10, 1), 1);
  const whole = modelOf(child).length;
  assert.ok(modelOf(child, { dtype: 'float16' }).length < 0.55 * whole);
  assert.ok(modelOf(child, await int8Options(child)).length < 0.45 * whole);
});

test('probabilities of halves are the softmax of the logits in float32', async () => {
  const child = randomChild(tiny, 1);
  const [height, width, channels] = child.graph.nodes[0]!.shape as [number, number, number];
  const session = await InferenceSession.create(modelOf(child, { dtype: 'float16' }));
  const outputs = await session.run({ input: new Tensor('float32', child.batch.data, [3, channels, height, width]) });
  await session.release();
  const exponentials = Array.from((outputs['logits']!.data as Float32Array).subarray(0, tiny.classes), Math.exp);
  const sum = exponentials.reduce((a, b) => a + b);
  close((outputs['probabilities']!.data as Float32Array).subarray(0, tiny.classes), exponentials.map((e) => e / sum), 1e-5, 'probabilities');
});

test('ONNX Runtime computes every layer of an int8 model on bytes', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'bignas-int8-'));
  try {
    for (const child of [randomChild(cifar10, 1), ...[...literature()].filter(({ name }) => ['resnet-50', 'mobilenet-v2-1.3', 'mnasnet-a1'].includes(name))]) {
      const file = join(folder, 'optimised.onnx');
      const session = await InferenceSession.create(modelOf(child, await int8Options(child)), { optimizedModelFilePath: file, logSeverityLevel: 3 });
      await session.release();
      const text = (await readFile(file)).toString('latin1');
      // A node's op_type: field 4, with its length.
      const count = (opType: string): number => text.split(`"${String.fromCharCode(opType.length)}${opType}`).length - 1;
      const convolutions = child.graph.nodes.reduce((sum, { op }) => sum + (op === 'squeezeExcite' ? 2 : op === 'conv2d' || op === 'depthwiseConv2d' ? 1 : 0), 0);
      assert.equal(count('QLinearConv'), convolutions, child.name);
      assert.equal(count('QGemm'), 1, child.name);
      assert.deepEqual(['Conv', 'FusedConv', 'Gemm', 'DequantizeLinear', 'Relu', 'Clip'].map(count), [0, 0, 0, 0, 0, 0], child.name);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

/** A convolution [3, 2, 1, 1] with a bias, between `input` and `y`. */
function convolution(kernel: readonly number[], bias: readonly number[]) {
  const b = new OnnxBuilder();
  b.node('Conv', 'y', ['input', b.tensor('kernel', [3, 2, 1, 1], Float32Array.from(kernel)), b.tensor('bias', [3], Float32Array.from(bias))], [intAttribute('group', 1)]);
  return b.content();
}

test('what becomes of a value: its swish, its gate, or itself where it is read otherwise as well', () => {
  const b = new OnnxBuilder();
  b.node('Relu', 'a', ['input']);
  b.node('Sigmoid', 'gate', ['a']);
  b.node('Mul', 'swish', ['a', 'gate']);
  b.node('AveragePool', 'pooled', ['swish']);
  b.node('HardSigmoid', 'hard', ['pooled']);
  b.node('Mul', 'scaled', ['swish', 'hard']);
  const becomes = new Map(rangedValues(b.content(), 'input').map((value) => [value.name, value.becomes]));
  assert.deepEqual([...becomes.keys()].sort(), ['a', 'input', 'pooled', 'scaled', 'swish']);
  const at = (name: string): number[] => [-4, 0.5].map((x) => becomes.get(name)!(x));
  close(Float32Array.from(at('a')), [-4 / (1 + Math.exp(4)), 0.5 / (1 + Math.exp(-0.5))], 1e-6, 'swish');
  close(Float32Array.from(at('pooled')), [0, 0.5 / 6 + 0.5], 1e-6, 'gate');
  for (const name of ['input', 'swish', 'scaled']) assert.deepEqual(at(name), [-4, 0.5]);
});

test('weights are whole steps of their channel up to 64, biases whole steps of the products', () => {
  const content = convolution([1, -0.25, 0, 0, 1e-12, 0], [0.5, 0, 3]);
  assert.deepEqual(rangedValues(content, 'input').map(({ name }) => name), ['input', 'y']);
  const { initializers } = quantised(content, 'input', Float32Array.of(-1, 3, 0, 1));
  const of = (name: string): TensorProto => initializers.find((tensor) => tensor.name === name)!;
  const bytes = (name: string): Uint8Array => of(name).rawData.slice();
  const inputStep = new Float32Array(bytes('input/step').buffer)[0]!;
  assert.equal(inputStep, Math.fround(4 / 255));
  assert.deepEqual(bytes('input/zero'), Uint8Array.of(64));
  assert.equal(of('kernel/quantised').dataType, DataType.int8);
  assert.deepEqual([...new Int8Array(bytes('kernel/quantised').buffer)].slice(0, 4), [64, -16, 0, 0]);
  const biases = new Int32Array(bytes('bias/quantised').buffer);
  const steps = new Float32Array(bytes('bias/step').buffer);
  const kernelSteps = new Float32Array(bytes('kernel/step').buffer);
  biases.forEach((value, c) => {
    assert.ok(Math.abs(value) <= 2 ** 30 + 64, 'leaves room for the sum');
    assert.ok(Math.abs(value * steps[c]! - [0.5, 0, 3][c]!) <= steps[c]!);
    assert.equal(steps[c], Math.fround(kernelSteps[c]! * inputStep));
    assert.ok(steps[c]! > 0);
  });
});

test('a range that is missing or infinite is refused', () => {
  const content = convolution([1, 1, 1, 1, 1, 1], [0, 0, 0]);
  assert.throws(() => quantised(content, 'input', Float32Array.of(0, 1)), /Expected ranges of 2 values, got 1/);
  assert.throws(() => quantised(content, 'input', Float32Array.of(0, Infinity, 0, 1)), /input: expected a finite range/);
});

describe('the range of a histogram', () => {
  test('of evenly spread values is all of them, zero included, in float32', () => {
    const histogram = new Histogram();
    histogram.add(Float32Array.from({ length: 10_000 }, (_, i) => i / 10_000 + 0.1));
    const [least, most] = histogram.range();
    assert.equal(least, 0);
    assert.ok(Math.abs(most - 1.1) < 0.01, `${most}`);
    assert.equal(most, Math.fround(most));
  });

  test('leaves out few that are far, whenever they come', () => {
    const draws = stream(key('test histogram'), 1);
    const many = Float32Array.from({ length: 100_000 }, () => draws.normal());
    for (const parts of [[many, Float32Array.of(500, -300)], [Float32Array.of(500, -300), many]]) {
      const histogram = new Histogram();
      for (const part of parts) histogram.add(part);
      const [least, most] = histogram.range();
      assert.ok(least > -12 && least < -1.5 && most < 12 && most > 1.5, `${least} to ${most}`);
    }
  });

  test('of what a swish reads wastes no steps on what it makes nothing of', () => {
    const draws = stream(key('test histogram'), 2);
    const histogram = new Histogram();
    histogram.add(Float32Array.from({ length: 100_000 }, () => 10 * draws.normal() - 10));
    const [plain, swish] = [histogram.range(), histogram.range((x) => x / (1 + Math.exp(-x)))];
    assert.ok(plain[0] < -25 && swish[0] > -15 && swish[0] < -2, `${plain[0]} and ${swish[0]}`);
    assert.ok(swish[1] > 10, `${swish[1]}`);
  });

  test('of zeros alone is zero; what is not finite is refused', () => {
    const histogram = new Histogram();
    histogram.add(new Float32Array(10));
    assert.deepEqual(histogram.range().map((bound) => bound + 0), [0, 0]);
    assert.throws(() => histogram.add(Float32Array.of(1, NaN)), /finite/);
  });
});

test('taking ranges ends by its signal, and needs a batch', async () => {
  const { graph, weights, statistics, batch } = randomChild(tiny, 1);
  await assert.rejects(activationRanges(graph, weights, statistics, []), /at least one batch/);
  await assert.rejects(activationRanges(graph, weights, statistics, [batch], { signal: AbortSignal.abort(new Error('enough')) }), /enough/);
});

function preprocessingOf(shorterSide: number, crop: number): Preprocessing {
  return { shorterSide, crop, resize: bicubic, rounding: 'uint8-after-crop', mean: [0.4914, 0.4822, 0.4465], deviation: [0.247, 0.2435, 0.2616], colour: 'RGB' };
}

/** Noise: nothing of it is smooth, so that every weight matters. */
function images(count: number, height: number, width: number): RgbImage[] {
  const draws = stream(key('test photos'), height, width);
  return Array.from({ length: count }, () => ({ pixels: Uint8Array.from({ length: height * width * 3 }, () => Math.floor(256 * draws.uniform())), height, width }));
}

function imageTensor(photos: readonly RgbImage[]): Tensor {
  const { height, width } = photos[0]!;
  return new Tensor('uint8', Uint8Array.from(photos.flatMap(({ pixels }) => [...pixels])), [photos.length, height, width, 3]);
}

function reference(photos: readonly RgbImage[], preprocessing: Preprocessing, resolution: number): Float32Array {
  return normalisedBatch(Uint8Array.from(photos.flatMap((photo) => [...fixedCrop(photo, preprocessing)])), preprocessing, resolution, 'NCHW');
}

describe('preprocessing in the model', () => {
  const sizes = [[48, 31], [31, 48], [200, 301], [32, 32], [40, 40], [32, 33], [7, 5], [1, 1], [50, 1], [1, 90], [900, 40]] as const;
  for (const [shorterSide, crop, resolution] of [[32, 32, 32], [32, 32, 20], [40, 33, 48]] as const)
    test(`gives the reference's input: shorter side ${shorterSide}, crop ${crop}, resolution ${resolution}`, async () => {
      const preprocessing = preprocessingOf(shorterSide, crop);
      const b = new OnnxBuilder();
      emitPreprocessing(b, preprocessing, resolution, 'input');
      const session = await InferenceSession.create(b.build([imageInput()], [batchOf('input', [3, resolution, resolution])]));
      for (const [height, width] of sizes) {
        const photos = images(2, height, width);
        const { input } = await session.run({ image: imageTensor(photos) });
        const expected = reference(photos, preprocessing, resolution);
        assert.deepEqual(input!.dims, [2, 3, resolution, resolution]);
        // A pixel of the crop that lies at a half may be rounded the other way: a step of 1/255 of a few pixels. All else is equal.
        const differences = Array.from(input!.data as Float32Array, (value, i) => Math.abs(value - expected[i]!));
        assert.ok(Math.max(...differences) <= 1.5 / 255 / 0.24, `${height}×${width}: ${Math.max(...differences)}`);
        const rounded = differences.filter((difference) => difference > 1e-5).length;
        assert.ok(rounded <= 0.02 * differences.length, `${height}×${width}: ${rounded} of ${differences.length}`);
      }
      await session.release();
    });

  test('goes before a child of any type', async () => {
    const child = randomChild(tiny, 2);
    const resolution = child.graph.nodes[0]!.shape[0]!;
    const preprocessing = preprocessingOf(24, 20);
    const photos = images(3, 37, 29);
    const batch = { data: reference(photos, preprocessing, resolution), count: 3 };
    for (const options of [{}, { dtype: 'float16' }, await int8Options({ ...child, batch })] as const) {
      const session = await InferenceSession.create(modelOf(child, { ...options, preprocessing }));
      assert.deepEqual(session.inputNames, ['image']);
      const outputs = await session.run({ image: imageTensor(photos) });
      await session.release();
      close(outputs['logits']!.data as Float32Array, await logits(modelOf(child, options), batch), 2e-2, options.dtype ?? 'float32');
    }
  });
});

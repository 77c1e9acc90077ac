import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildGraph } from '../src/graph/buildGraph.js';
import { parameters } from '../src/graph/graph.js';
import type { SharedWeights } from '../src/graph/weights.js';
import { stream } from '../src/random.js';
import { biggest, formatArchitecture, smallest, type Architecture } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { imagenet } from '../src/space/presets/imagenet.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { denseResizeMatrix } from '../src/data/resize.js';
import { tf } from '../src/tensorflow/tf.js';
import { sandwich } from '../src/train/children.js';
import { sandwichGradients, type TrainingBatch } from '../src/train/sandwich.js';
import { randomWeights } from './support/random.js';
import { referenceLogits, referenceStatistics } from './support/reference.js';

const count = 3;
const crop = 14;
type SandwichRecipe = Parameters<typeof sandwichGradients>[5];
const recipe: SandwichRecipe = { seed: 5, dropout: 0, weightDecay: 0.01, labelSmoothing: 0, regularisation: 'biggest', distillation: 'in-place' };
const paper = ['biggest', 'random', 'random', 'smallest'];

const draws = stream(1, 2, 3);
const images = Float32Array.from({ length: count * crop * crop * 3 }, () => draws.normal()); // [n, crop, crop, 3]
const labels = [1, 0, 3];

function batch(): TrainingBatch {
  const oneHot = Float32Array.from({ length: count * tiny.classes }, (_, i) => (labels[Math.floor(i / tiny.classes)] === i % tiny.classes ? 1 : 0));
  return { views: [tf.tensor4d(images, [count, crop, crop, 3])], labels: tf.tensor2d(oneHot, [count, tiny.classes]), indices: [0, 1, 2], share: 1 };
}

function gradientsOf(weights: SharedWeights, children: readonly Architecture[], options: SandwichRecipe = recipe): { gradients: SharedWeights; losses: number[] } {
  const gradients = weights.like();
  const part = batch();
  const losses = sandwichGradients(tiny, weights, gradients, part, children, options, 0).map(({ loss }) => loss);
  tf.dispose([...part.views, part.labels]);
  return { gradients, losses };
}

/** Training-mode logits in double precision: batch statistics, bicubic input by plain loops. */
function oracleLogits(weights: SharedWeights, architecture: Architecture): Float64Array {
  const graph = buildGraph(tiny, architecture);
  const r = architecture.resolution;
  const matrix = denseResizeMatrix(crop, r);
  const data = new Float32Array(count * 3 * r * r);
  for (let n = 0; n < count; n++)
    for (let c = 0; c < 3; c++)
      for (let y = 0; y < r; y++)
        for (let x = 0; x < r; x++) {
          let sum = 0;
          for (let i = 0; i < crop; i++)
            for (let j = 0; j < crop; j++) sum += matrix[y * crop + i]! * matrix[x * crop + j]! * images[((n * crop + i) * crop + j) * 3 + c]!;
          data[((n * 3 + c) * r + y) * r + x] = sum;
        }
  return referenceLogits(graph, weights, referenceStatistics(graph, weights, { data, count }), { data, count });
}

function softmax(logits: Float64Array): Float64Array {
  const out = new Float64Array(logits.length);
  for (let n = 0; n < count; n++) {
    const row = logits.subarray(n * tiny.classes, (n + 1) * tiny.classes);
    const sum = row.reduce((total, v) => total + Math.exp(v), 0);
    row.forEach((v, i) => (out[n * tiny.classes + i] = Math.exp(v) / sum));
  }
  return out;
}

function crossEntropy(targets: ArrayLike<number>, logits: Float64Array): number {
  return -softmax(logits).reduce((sum, p, i) => sum + targets[i]! * Math.log(p), 0) / count;
}

test('a step takes the biggest, two random and the smallest child at paired resolutions', () => {
  for (const space of [cifar10, imagenet]) {
    const children = sandwich(space, { seed: 1, sandwich: paper }, 7);
    assert.deepEqual(children[0], biggest(space));
    assert.deepEqual(children[3], smallest(space));
    assert.deepEqual(children.map(({ resolution }) => resolution).sort((a, b) => a - b), space.trainResolutions);
    assert.deepEqual(sandwich(space, { seed: 1, sandwich: paper }, 7), children);
    assert.notDeepEqual(sandwich(space, { seed: 1, sandwich: paper }, 8), children);
    assert.notDeepEqual(sandwich(space, { seed: 2, sandwich: paper }, 7), children);
  }
});

test('random children train at trained resolutions, also where only two are trained', () => {
  const two = { ...tiny, trainResolutions: [12, 14] as [number, ...number[]] };
  for (let step = 0; step < 20; step++)
    for (const { resolution } of sandwich(two, { seed: 1, sandwich: paper }, step)) assert(two.trainResolutions.includes(resolution));
});

test("a step's gradient is the sum over the sandwich's children, the teacher's labels frozen (finite differences)", () => {
  const weights = randomWeights(tiny, 3);
  const children = sandwich(tiny, { seed: 11, sandwich: paper }, 0);
  const { gradients, losses } = gradientsOf(weights, children);

  const hard = Float64Array.from({ length: count * tiny.classes }, (_, i) => (labels[Math.floor(i / tiny.classes)] === i % tiny.classes ? 1 : 0));
  const soft = softmax(oracleLogits(weights, children[0]!));
  const targets = (i: number): Float64Array => (i === 0 ? hard : soft);
  children.forEach((child, i) => {
    const expected = crossEntropy(targets(i), oracleLogits(weights, child));
    assert(Math.abs(losses[i]! - expected) < 1e-4, `${formatArchitecture(child)}: ${losses[i]} and ${expected}`);
  });

  const decay = (): number =>
    weights.tensors.reduce((sum, { name, decays }) => sum + (decays ? weights.tensor(name).reduce((s, w) => s + w * w, 0) : 0), 0) * (recipe.weightDecay / 2);
  const total = (): number => children.reduce((sum, child, i) => sum + crossEntropy(targets(i), oracleLogits(weights, child)), decay());

  // One weight of every shared tensor, wherever a kernel's centre or rim it is.
  let checked = 0;
  for (const { name } of weights.tensors) {
    const data = weights.tensor(name);
    const i = stream(9, name.length, data.length).integer(data.length);
    const w = data[i]!;
    const difference = (h: number): number => {
      data[i] = w + h;
      const [up, high] = [total(), data[i]];
      data[i] = w - h;
      const [down, low] = [total(), data[i]];
      data[i] = w;
      return (up - down) / (high - low);
    };
    const numeric = difference(2e-3);
    const got = gradients.tensor(name)[i]!;
    const tolerance = 5e-4 + 2e-3 * Math.abs(numeric);
    assert(Math.abs(got - numeric) < tolerance, `${name}[${i}]: ${got}, by finite differences ${numeric}`);
    if (Math.abs(numeric) > 4 * tolerance) checked++;
  }
  assert(checked > weights.tensors.length / 2, `only ${checked} gradients differ from 0`);
});

test('the gradients of children add up one by one', () => {
  const weights = randomWeights(tiny, 4);
  const options = { ...recipe, weightDecay: 0 };
  const teacher = biggest(tiny);
  const student = sampleArchitecture(tiny, [1], 10);
  const both = gradientsOf(weights, [teacher, student], options).gradients;
  const twice = gradientsOf(weights, [teacher, student, student], options).gradients;
  const alone = gradientsOf(weights, [teacher], options).gradients;
  both.data.forEach((g, i) => assert(Math.abs(twice.data[i]! - g - (g - alone.data[i]!)) < 1e-5 * Math.max(1, Math.abs(g))));
});

test('a weight that no child uses gets no gradient, with weight decay too', () => {
  const weights = randomWeights(tiny, 6);
  const children = [sampleArchitecture(tiny, [2], 12), smallest(tiny)];
  const used = weights.like();
  for (const child of children)
    for (const parameter of parameters(buildGraph(tiny, child))) used.scatterAdd(parameter, weights.gather(parameter).fill(1));
  const { gradients } = gradientsOf(weights, children);
  assert(used.data.some((n) => n === 0));
  gradients.data.forEach((g, i) => used.data[i] === 0 && assert.equal(g, 0));
  assert(gradients.data.filter((g) => g !== 0).length > 0.9 * used.data.filter((n) => n > 0).length);
});

test('dropout acts on the first child alone', () => {
  const weights = randomWeights(tiny, 7);
  const student = smallest(tiny);
  // So high a rate drops every feature: the teacher's logits are the classifier's biases, its soft labels their softmax.
  const { losses } = gradientsOf(weights, [biggest(tiny), student], { ...recipe, weightDecay: 0, dropout: 0.9999999 });
  const biases = Float64Array.from({ length: count * tiny.classes }, (_, i) => weights.tensor('classifier.bias')[i % tiny.classes]!);
  const hard = Float64Array.from(biases, (_, i) => (labels[Math.floor(i / tiny.classes)] === i % tiny.classes ? 1 : 0));
  assert(Math.abs(losses[0]! - crossEntropy(hard, biases)) < 1e-5);
  const expected = crossEntropy(softmax(biases), oracleLogits(weights, student));
  assert(Math.abs(losses[1]! - expected) < 1e-4, `${losses[1]} and ${expected}`);
  assert(Math.abs(expected - crossEntropy(softmax(biases), biases)) > 1e-2, 'a student with dropout would be told');
});

test('weight decay acts on the first child alone', () => {
  const weights = randomWeights(tiny, 7);
  const student = smallest(tiny);
  const plain = { ...recipe, dropout: 0, weightDecay: 0 };
  // With a teacher whose dropout is off, weight decay changes no student's gradient.
  const difference = (options: SandwichRecipe): number[] => {
    const both = gradientsOf(weights, [biggest(tiny), student], options).gradients.data;
    const alone = gradientsOf(weights, [biggest(tiny)], options).gradients.data;
    return [...both].map((g, i) => g - alone[i]!);
  };
  const [a, b] = [difference({ ...plain, weightDecay: 0.01 }), difference(plain)];
  a.forEach((g, i) => assert(Math.abs(g - b[i]!) < 1e-5));
});

test('a weight that is not a number shows in the loss and in the gradient', () => {
  const weights = randomWeights(tiny, 8);
  weights.tensor('classifier.bias')[0] = Number.NaN;
  const { gradients, losses } = gradientsOf(weights, [biggest(tiny)]);
  assert(Number.isNaN(losses[0]));
  assert(!gradients.data.every(Number.isFinite)); // which is what a trainer's check of every step looks at
});

test('a step leaves no tensor behind', () => {
  const weights = randomWeights(tiny, 9);
  const children = sandwich(tiny, { seed: 1, sandwich: paper }, 0);
  gradientsOf(weights, children, { ...recipe, dropout: 0.2 });
  const before = tf.memory().numTensors;
  gradientsOf(weights, children, { ...recipe, dropout: 0.2 });
  assert.equal(tf.memory().numTensors, before);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sharedTensors } from '../src/graph/buildGraph.js';
import { initialWeights, type SharedWeights } from '../src/graph/weights.js';
import { stream } from '../src/random.js';
import { biggest, formatArchitecture, smallest, uniform, type Architecture } from '../src/space/architecture.js';
import { tiny } from '../src/space/presets/tiny.js';
import { tf } from '../src/tensorflow/tf.js';
import { defaultRecipe, recipeChanges, type Recipe, type RecipeOptions } from '../src/train/recipe.js';
import { sandwich } from '../src/train/children.js';
import { sandwichGradients } from '../src/train/sandwich.js';
import { learningRate } from '../src/train/schedule.js';
import { randomWeights } from './support/random.js';

const base: RecipeOptions = { seed: 3, batch: 24, steps: 1000, stepsPerEpoch: 8, augmentation: 'flip', short: true, learningRate: 0.02 };
const plain: Partial<RecipeOptions> = { dropout: 0, weightDecay: 0, labelSmoothing: 0 };
const count = 4;
const crop = 14;
const draws = stream(7);
const views = [0, 1, 2, 3].map(() => Float32Array.from({ length: count * crop * crop * 3 }, () => draws.normal()));
const weights = randomWeights(tiny, 4);

/** The gradient and the losses of a step's children under a recipe, on one view or several. */
function stepOf(options: Partial<RecipeOptions>, children: readonly Architecture[], shown = views.slice(0, 1)): { gradients: SharedWeights; losses: number[] } {
  const recipe = defaultRecipe({ ...base, ...options });
  const gradients = weights.like();
  const batch = {
    views: shown.map((view) => tf.tensor4d(view, [count, crop, crop, 3])),
    labels: tf.tensor2d([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]),
    indices: [5, 6, 7, 8],
    share: 1,
  };
  const losses = sandwichGradients(tiny, weights, gradients, batch, children, recipe, 0);
  tf.dispose([...batch.views, batch.labels]);
  return { gradients, losses: losses.map(({ loss }) => loss) };
}

function near(a: Float32Array, b: Float32Array, tolerance = 1e-5): boolean {
  const scale = a.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  return a.every((v, i) => Math.abs(v - b[i]!) <= tolerance * scale);
}

function total(parts: readonly SharedWeights[]): Float32Array {
  return weights.data.map((_, i) => parts.reduce((sum, { data }) => sum + data[i]!, 0));
}

test('schedules: exponential, cosine and linear, each with a constant ending at any part of the rate', () => {
  const at = (step: number, options: Partial<RecipeOptions>): number => {
    const recipe: Recipe = defaultRecipe({ ...base, ...options });
    return learningRate(recipe, step) / recipe.learningRate.initial;
  };
  const close = (got: number, expected: number): void => assert(Math.abs(got - expected) < 1e-9, `${got} instead of ${expected}`);
  close(at(0, {}), 1 / 50); // warm-up of 5 %
  // Exponential falls to 5 % at three quarters, whatever its ending.
  for (const constantEnding of [0, 0.03, 0.05, 0.08, 0.1]) {
    close(at(500, { constantEnding }), 0.05 ** (500 / 750));
    close(at(999, { constantEnding }), Math.max(constantEnding, 0.05 ** (999 / 750)));
  }
  close(at(999, {}), 0.05);
  close(at(500, { schedule: 'cosine' }), 0.5);
  close(at(1000, { schedule: 'cosine' }), 0);
  close(at(999, { schedule: 'cosine', constantEnding: 0.1 }), 0.1);
  close(at(400, { schedule: 'linear' }), 0.6);
  close(at(990, { schedule: 'linear' }), 0.01);
});

test("He initialisation differs from zero γ in the residual branches' last batch norms alone", () => {
  const tensors = sharedTensors(tiny);
  const [zero, he] = [initialWeights(tensors, 1), initialWeights(tensors, 1, 'he')];
  const differing = tensors.filter(({ name }) => zero.tensor(name).some((w, i) => w !== he.tensor(name)[i])).map(({ name }) => name);
  assert.deepEqual(
    differing,
    tensors.map(({ name }) => name).filter((name) => name.endsWith('project.bn.gamma')),
  );
  assert(differing.length > 0);
  for (const name of differing) {
    assert(zero.tensor(name).every((w) => w === 0));
    assert(he.tensor(name).every((w) => w === 1));
  }
});

test('without distillation every child learns from the labels', () => {
  const children = [biggest(tiny), smallest(tiny)];
  const both = stepOf({ ...plain, distillation: 'labels' }, children);
  const alone = children.map((child) => stepOf(plain, [child]));
  assert(near(both.gradients.data, total(alone.map(({ gradients }) => gradients))));
  assert.deepEqual(both.losses, alone.map(({ losses }) => losses[0]));
  assert(!near(stepOf(plain, children).gradients.data, both.gradients.data));
});

test('regularisation acts on the first child, or on all', () => {
  const children = [biggest(tiny), smallest(tiny)];
  const options = { weightDecay: 0.1, dropout: 0, labelSmoothing: 0.2, distillation: 'labels' } as const;
  const [first, second] = children.map((child) => stepOf(options, [child])); // alone, each is first
  const bare = stepOf({ ...plain, distillation: 'labels' }, [children[1]!]);
  const sum = (...list: readonly { gradients: SharedWeights }[]): Float32Array => total(list.map(({ gradients }) => gradients));
  assert(near(stepOf(options, children).gradients.data, sum(first!, bare)));
  assert(near(stepOf({ ...options, regularisation: 'all' }, children).gradients.data, sum(first!, second!)));
  // Dropout of a second child draws its own mask.
  const dropped = { ...plain, dropout: 0.5, distillation: 'labels' } as const;
  assert.equal(stepOf(dropped, children).losses[1], bare.losses[0]);
  assert.notEqual(stepOf({ ...dropped, regularisation: 'all' }, children).losses[1], bare.losses[0]);
});

test('smoothed labels: the loss is the mix of the cross entropies with the labels and with the uniform distribution', () => {
  const loss = (labelSmoothing: number): number => stepOf({ ...plain, labelSmoothing }, [biggest(tiny)]).losses[0]!;
  // Linear in ε.
  assert(Math.abs(loss(0.2) - (loss(0) + 2 * (loss(0.1) - loss(0)))) < 1e-5);
  assert.notEqual(loss(0.1), loss(0));
});

test('with different patches each child sees its own', () => {
  const children = [biggest(tiny), smallest(tiny)];
  const options = { ...plain, distillation: 'labels' } as const;
  const different = stepOf(options, children, views.slice(0, 2));
  assert.deepEqual(different.losses, [stepOf(options, [children[0]!]).losses[0], stepOf(options, [children[1]!], [views[1]!]).losses[0]]);
});

test('the sandwich holds the children that the recipe names, an architecture too', () => {
  const middle = uniform(tiny, (legal) => legal[legal.length >> 1]!, 10);
  const children = sandwich(tiny, { seed: 1, sandwich: ['biggest', formatArchitecture(middle), 'random'] }, 5);
  assert.deepEqual(children.slice(0, 2), [biggest(tiny), middle]);
  assert.deepEqual(children[2], sandwich(tiny, { seed: 1, sandwich: ['random'] }, 5)[0]);
  assert.throws(() => sandwich(tiny, { seed: 1, sandwich: ['largest'] }, 0), { code: 'ARCHITECTURE_MALFORMED' });
});

test('a list of another length is one change, with both sides', () => {
  const [long, short] = [defaultRecipe(base), defaultRecipe({ ...base, sandwich: ['biggest', 'smallest'] })];
  assert.deepEqual(recipeChanges(long, short), [{ option: 'sandwich', from: long.sandwich, to: short.sandwich }]);
  assert.deepEqual(recipeChanges(short, defaultRecipe({ ...base, sandwich: ['biggest', 'smallest'] })), []);
});

test('options that contradict each other are refused', () => {
  assert.throws(() => defaultRecipe({ ...base, parts: 7 }), { code: 'OPTION_INVALID', message: /batch of 24 cannot be cut into 7/ });
  assert.throws(() => defaultRecipe({ ...base, sandwich: ['random', 'random'] }), { code: 'OPTION_INVALID', message: /needs `biggest` as the first child/ });
  assert.doesNotThrow(() => defaultRecipe({ ...base, sandwich: ['random', 'random'], distillation: 'labels' }));
});

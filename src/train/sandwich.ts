import type { Tensor2D, Tensor4D } from '@tensorflow/tfjs-node-gpu';
import { BignasError } from '../errors.js';
import { buildGraph } from '../graph/buildGraph.js';
import { parameters, type Graph } from '../graph/graph.js';
import type { SharedWeights } from '../graph/weights.js';
import { key, stream } from '../random.js';
import { biggest, formatArchitecture, smallest, type Architecture } from '../space/architecture.js';
import { sampleArchitecture } from '../space/sample.js';
import type { SearchSpace } from '../space/space.js';
import { training, type Mode } from '../tensorflow/forward.js';
import { addGradients, softCrossEntropy } from '../tensorflow/gradients.js';
import { resized } from '../tensorflow/input.js';
import { tf } from '../tensorflow/tf.js';
import type { Recipe } from './recipe.js';

/** A training batch at the fixed crop size. */
export interface TrainingBatch {
  /** [n, crop, crop, 3], normalised. */
  readonly images: Tensor4D;
  /** [n, classes], a distribution each. */
  readonly labels: Tensor2D;
  /** Which image each row is: decides its dropout. */
  readonly indices: ArrayLike<number>;
}

export interface ChildLoss {
  readonly architecture: Architecture;
  /** Mean cross entropy over the batch, in nats: against the labels for the biggest child, its soft labels for the others. */
  readonly loss: number;
}

/**
 * The children of a step (sandwich rule, the paper's section 3.1): biggest, random ones, smallest. Resolutions are paired as in
 * appendix C: the biggest takes the highest, the smallest the lowest, the random ones those between.
 */
export function sandwich(space: SearchSpace, recipe: Pick<Recipe, 'seed' | 'randomChildren'>, step: number): Architecture[] {
  const inner = space.trainResolutions.slice(1, -1);
  const between = inner.length > 0 ? inner : space.trainResolutions;
  const random = Array.from({ length: recipe.randomChildren }, (_, i) =>
    sampleArchitecture(space, [recipe.seed, step, i], between[between.length - 1 - (i % between.length)]),
  );
  return [biggest(space), ...random, smallest(space)];
}

/**
 * One step's gradient, summed over the children into `gradients`. The first child is the teacher: it learns from the labels, alone is
 * regularised (dropout, weight decay), and its softmax is what the others learn from, frozen (in-place distillation, section 3.1).
 * @throws BignasError LOSS_NOT_FINITE, naming the step and the child.
 */
export function sandwichGradients(
  space: SearchSpace,
  weights: SharedWeights,
  gradients: SharedWeights,
  batch: TrainingBatch,
  children: readonly Architecture[],
  recipe: Pick<Recipe, 'seed' | 'dropout' | 'weightDecay'>,
  step: number,
): ChildLoss[] {
  let targets = batch.labels;
  const losses: ChildLoss[] = [];
  children.forEach((architecture, i) => {
    const teacher = i === 0;
    const graph = buildGraph(space, architecture);
    const x = resized(batch.images, architecture.resolution);
    const mode = teacher ? withDropout(recipe, step, batch.indices) : training;
    const { loss, logits } = addGradients(graph, weights, gradients, x, mode, (y) => softCrossEntropy(targets, y));
    if (teacher && children.length > 1) targets = tf.softmax(logits);
    tf.dispose([x, logits]);
    if (!Number.isFinite(loss))
      throw new BignasError('LOSS_NOT_FINITE', `The loss of step ${step} is ${loss} in the child ${formatArchitecture(architecture)}. Lower the learning rate.`);
    if (teacher) addWeightDecay(graph, weights, gradients, recipe.weightDecay);
    losses.push({ architecture, loss });
  });
  if (targets !== batch.labels) targets.dispose();
  return losses;
}

/** The gradient of weightDecay / 2 · Σ w² over the kernels that a child uses. */
function addWeightDecay(graph: Graph, weights: SharedWeights, gradients: SharedWeights, weightDecay: number): void {
  if (weightDecay === 0) return;
  for (const parameter of parameters(graph))
    if (parameter.tensor.decays) gradients.scatterAdd(parameter, weights.gather(parameter).map((w) => weightDecay * w));
}

/** Inverted dropout whose mask is a function of seed, step and image. */
function withDropout({ seed, dropout }: Pick<Recipe, 'seed' | 'dropout'>, step: number, indices: ArrayLike<number>): Mode {
  if (dropout === 0) return training;
  return {
    ...training,
    dropout: (x) => {
      const [n, features] = x.shape;
      const mask = new Float32Array(n * features);
      for (let row = 0; row < n; row++) {
        const draws = stream(key('dropout'), seed, step, indices[row]!);
        for (let i = 0; i < features; i++) mask[row * features + i] = draws.uniform() < dropout ? 0 : 1 / (1 - dropout);
      }
      return tf.mul(x, tf.tensor2d(mask, [n, features]));
    },
  };
}

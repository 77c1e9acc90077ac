import type { Tensor2D, Tensor4D } from '@tensorflow/tfjs-node-gpu';
import { buildGraph } from '../graph/buildGraph.js';
import { parameters, type Graph } from '../graph/graph.js';
import type { SharedWeights } from '../graph/weights.js';
import { key, stream } from '../random.js';
import type { Architecture } from '../space/architecture.js';
import type { SearchSpace } from '../space/space.js';
import { training, type Mode } from '../tensorflow/forward.js';
import { addGradients, softCrossEntropy, type LossAndLogits } from '../tensorflow/gradients.js';
import { resized } from '../tensorflow/input.js';
import { tf } from '../tensorflow/tf.js';
import type { Recipe } from './recipe.js';

/** A part of a step's batch, at the fixed crop size. */
export interface TrainingBatch {
  /** [n, crop, crop, 3] each, normalised: one for all children, or one a child. */
  readonly views: readonly Tensor4D[];
  /** [n, classes], a distribution each. */
  readonly labels: Tensor2D;
  /** Which image each row is: decides its dropout. */
  readonly indices: ArrayLike<number>;
  /** Part of the step's images that these are, 0 to 1: its loss weighs as much. */
  readonly share: number;
}

export interface ChildLoss {
  readonly architecture: Architecture;
  /** Mean cross entropy over the batch, in nats: against the labels, or the soft labels of the first child. */
  readonly loss: number;
}

/**
 * One step's gradient on a part of its batch, summed over the children into `gradients`. The first child is the teacher: it learns from the
 * labels, and its softmax is what the others learn from, frozen (in-place distillation, section 3.1). It alone is regularised (dropout,
 * weight decay, smoothed labels), unless the recipe says all are.
 */
export function sandwichGradients(
  space: SearchSpace,
  weights: SharedWeights,
  gradients: SharedWeights,
  batch: TrainingBatch,
  children: readonly Architecture[],
  recipe: Pick<Recipe, 'seed' | 'dropout' | 'weightDecay' | 'labelSmoothing' | 'regularisation' | 'distillation'>,
  step: number,
): ChildLoss[] {
  let softLabels: Tensor2D | undefined;
  const losses = children.map((architecture, i) => {
    const regularised = i === 0 || recipe.regularisation === 'all';
    const { loss, logits } = childGradients(space, weights, gradients, batch, { architecture, place: i, regularised, targets: softLabels }, recipe, step);
    if (i === 0 && children.length > 1 && recipe.distillation === 'in-place') softLabels = tf.softmax(logits);
    logits.dispose();
    return { architecture, loss };
  });
  softLabels?.dispose();
  return losses;
}

/** A child's part in a step. */
export interface SteppedChild {
  readonly architecture: Architecture;
  /** Among the step's children: decides its view and its dropout. */
  readonly place: number;
  /** Whether dropout, weight decay and smoothed labels act on it. */
  readonly regularised: boolean;
  /** [n, classes], soft labels of a teacher; the batch's labels where not given. */
  readonly targets?: Tensor2D | undefined;
}

/** One child's gradient on a part of a step's batch, added into `gradients`. The caller disposes of the logits. */
export function childGradients(
  space: SearchSpace,
  weights: SharedWeights,
  gradients: SharedWeights,
  batch: TrainingBatch,
  { architecture, place, regularised, targets: softLabels }: SteppedChild,
  recipe: Pick<Recipe, 'seed' | 'dropout' | 'weightDecay' | 'labelSmoothing'>,
  step: number,
): LossAndLogits {
  const targets = softLabels ?? tf.tidy(() => smooth(batch.labels, regularised ? recipe.labelSmoothing : 0));
  const graph = buildGraph(space, architecture);
  const x = resized(batch.views[place % batch.views.length]!, architecture.resolution);
  const mode = regularised ? withDropout(recipe, step, place, batch.indices) : training;
  const result = addGradients(graph, weights, gradients, x, mode, (y) => softCrossEntropy(targets, y), batch.share);
  tf.dispose(softLabels ? [x] : [x, targets]);
  if (regularised) addWeightDecay(graph, weights, gradients, batch.share * recipe.weightDecay);
  return result;
}

/** (1 − ε) · labels + ε / classes (Szegedy et al., 2016). */
function smooth(labels: Tensor2D, epsilon: number): Tensor2D {
  return epsilon === 0 ? tf.clone(labels) : tf.add(tf.mul(labels, 1 - epsilon), epsilon / labels.shape[1]);
}

/** The gradient of weightDecay / 2 · Σ w² over the kernels that a child uses. */
function addWeightDecay(graph: Graph, weights: SharedWeights, gradients: SharedWeights, weightDecay: number): void {
  if (weightDecay === 0) return;
  for (const parameter of parameters(graph))
    if (parameter.tensor.decays) gradients.scatterAdd(parameter, weights.gather(parameter), weightDecay);
}

/** Inverted dropout whose mask is a function of seed, step, child and image. */
function withDropout({ seed, dropout }: Pick<Recipe, 'seed' | 'dropout'>, step: number, child: number, indices: ArrayLike<number>): Mode {
  if (dropout === 0) return training;
  return {
    ...training,
    dropout: (x) => {
      const [n, features] = x.shape;
      const mask = new Float32Array(n * features);
      for (let row = 0; row < n; row++) {
        const draws = stream(key('dropout'), seed, step, child, indices[row]!);
        for (let i = 0; i < features; i++) mask[row * features + i] = draws.uniform() < dropout ? 0 : 1 / (1 - dropout);
      }
      return tf.mul(x, tf.tensor2d(mask, [n, features]));
    },
  };
}

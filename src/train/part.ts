import type { Preprocessing } from '../data/preprocess.js';
import { SharedWeights } from '../graph/weights.js';
import { sharedTensors } from '../graph/buildGraph.js';
import type { SearchSpace } from '../space/space.js';
import { normalised } from '../tensorflow/input.js';
import { tf } from '../tensorflow/tf.js';
import { sandwich } from './children.js';
import type { Recipe } from './recipe.js';
import { sandwichGradients, type ChildLoss, type TrainingBatch } from './sandwich.js';

/** What stays the same over a run: enough to compute a step's gradient from weights and images anywhere. */
export interface TrainingContext {
  readonly space: SearchSpace;
  readonly preprocessing: Preprocessing;
  readonly classes: number;
  readonly recipe: Recipe;
}

/** A part of a step's batch, as it travels to whoever computes it. */
export interface Part {
  /** Images' indices in the training split, n of them. */
  readonly indices: Uint32Array;
  /** [n], class indices. */
  readonly labels: Uint16Array;
  /** n × crop × crop × 3, uint8: one for all children, or one a child. */
  readonly views: readonly Uint8Array[];
  /** Part of the step's images that these are, 0 to 1. */
  readonly share: number;
}

/** A step's work, whole or some of its parts. */
export interface StepTask {
  readonly step: number;
  /** Seed of the step's draws. */
  readonly seed: number;
  /** The shared weights, flat. */
  readonly weights: Float32Array;
  readonly parts: readonly Part[];
}

export interface PartResult {
  /** In the layout of the weights. */
  readonly gradients: Float32Array;
  /** A loss a child, over the part's images. */
  readonly losses: readonly ChildLoss[];
}

/** A function that computes a step's parts on this thread, which it blocks. */
export function partGradients({ space, preprocessing, classes, recipe }: TrainingContext): (task: StepTask) => PartResult[] {
  const tensors = sharedTensors(space);
  return ({ step, seed, weights, parts }) => {
    const shared = new SharedWeights(tensors, weights);
    const drawing = { ...recipe, seed };
    const children = sandwich(space, drawing, step);
    return parts.map((part) => {
      const gradients = shared.like();
      const batch = trainingBatch(part, preprocessing, classes);
      const losses = sandwichGradients(space, shared, gradients, batch, children, drawing, step);
      tf.dispose([...batch.views, batch.labels]);
      return { gradients: gradients.data, losses };
    });
  };
}

/** A part's images and labels as tensors; the caller disposes of them. */
export function trainingBatch({ indices, labels, views, share }: Part, preprocessing: Preprocessing, classes: number): TrainingBatch {
  const tensors = tf.tidy(() => ({
    views: views.map((crops) => normalised(crops, preprocessing)),
    labels: tf.cast(tf.oneHot(tf.tensor1d(Int32Array.from(labels), 'int32'), classes), 'float32').as2D(labels.length, classes),
  }));
  return { ...tensors, indices, share };
}

import type { Dataset } from '../data/dataset.js';
import { batchIndices } from '../data/batches.js';
import type { SearchSpace } from '../space/space.js';
import { normalised } from '../tensorflow/input.js';
import { tf } from '../tensorflow/tf.js';
import type { Recipe } from './recipe.js';
import { applyGradients, type TrainingState } from './rmsprop.js';
import { sandwich, sandwichGradients, type ChildLoss } from './sandwich.js';
import { learningRate } from './schedule.js';

/** What a step did. */
export interface StepReport {
  /** Steps done, this one included. */
  readonly step: number;
  readonly rate: number;
  /** Of the biggest child first, of the smallest last. */
  readonly losses: readonly ChildLoss[];
  readonly seconds: number;
}

export interface TrainingRun {
  readonly space: SearchSpace;
  readonly dataset: Dataset;
  readonly recipe: Recipe;
  readonly state: TrainingState;
  /** Called after each step, with the state as the step left it; the next one waits for it. */
  readonly afterStep: (report: StepReport) => Promise<void> | void;
  /** Ends the run after the step under way. */
  readonly signal?: AbortSignal;
}

/**
 * Trains the single-stage model from `state` to the recipe's last step. No running averages of batch norms are kept: children are
 * calibrated when they are used. What a step draws depends on seed, step and image alone, so a resumed run ends with the same bits.
 */
export async function train({ space, dataset, recipe, state, afterStep, signal }: TrainingRun): Promise<void> {
  const split = dataset.splits.train;
  const classes = dataset.classes.length;
  const gradients = state.weights.like();

  const load = async (step: number): Promise<{ indices: Uint32Array; crops: Uint8Array }> => {
    const { indices, epoch } = batchIndices(split.count, recipe.batch, recipe.seed, step);
    return { indices, crops: await split.augmented(indices, { seed: recipe.seed, epoch, kind: recipe.augmentation }) };
  };

  while (state.step < recipe.steps && !signal?.aborted) {
    const started = performance.now();
    const { step } = state;

    // 1. One batch of crops, shared by all children.
    const { indices, crops } = await load(step);
    const images = normalised(crops, dataset.preprocessing); // [n, crop, crop, 3]
    const labels = tf.tidy(() => tf.oneHot(tf.tensor1d(Int32Array.from(indices, (i) => split.labels[i]!), 'int32'), classes).toFloat());

    // 2. The sandwich's gradients, summed.
    gradients.data.fill(0);
    const children = sandwich(space, recipe, step);
    const batch = { images, labels: labels as Parameters<typeof sandwichGradients>[3]['labels'], indices };
    const losses = sandwichGradients(space, state.weights, gradients, batch, children, recipe, step);
    tf.dispose([images, labels]);

    // 3. One update of the shared weights and of their average.
    const rate = learningRate(recipe, step);
    applyGradients(state, gradients, rate, recipe);

    state.step++;
    const seconds = (performance.now() - started) / 1000;
    state.seconds += seconds;
    await afterStep({ step: state.step, rate, losses, seconds });
  }
}

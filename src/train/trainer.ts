import type { Dataset } from '../data/dataset.js';
import { openLoader, type LoadedBatch, type Loader } from '../data/loader.js';
import { hash, key } from '../random.js';
import type { Part, PartResult } from './part.js';
import { checkStep } from './divergence.js';
import type { Recipe } from './recipe.js';
import type { Replicas } from './replicas.js';
import { applyGradients, type TrainingState } from './rmsprop.js';
import type { ChildLoss } from './sandwich.js';
import { learningRate } from './schedule.js';

/** What a step did. */
export interface StepReport {
  /** Steps done, this one included. */
  readonly step: number;
  readonly rate: number;
  /** A loss a child, over the whole batch: the teacher's first. */
  readonly losses: readonly ChildLoss[];
  readonly seconds: number;
}

export interface TrainingRun {
  readonly dataset: Dataset;
  readonly recipe: Recipe;
  readonly state: TrainingState;
  readonly replicas: Replicas;
  /** Called after each step, with the state as the step left it; the next one waits for it. */
  readonly afterStep: (report: StepReport) => Promise<void> | void;
  /** Ends the run after the step under way. */
  readonly signal?: AbortSignal;
}

/**
 * Trains the single-stage model from `state` to the recipe's last step. No running averages of batch norms are kept: children are
 * calibrated when they are used. What a step draws depends on seed, step and image alone, so a resumed run ends with the same bits.
 * @throws BignasError LOSS_NOT_FINITE, before the step has changed the state
 */
export async function train({ dataset, recipe, state, replicas, afterStep, signal }: TrainingRun): Promise<void> {
  const gradients = state.weights.like();
  const loaders = openViews(dataset, recipe);
  try {
    while (state.step < recipe.steps && !signal?.aborted) {
      const started = performance.now();
      const { step } = state;

      // 1. The step's images, made ready while earlier steps ran, in parts.
      const views = await Promise.all(loaders.map((loader) => loader.batch(step)));
      const parts = partsOf(views, dataset.splits.train.labels, recipe);

      // 2. The sandwich's gradients, summed over the parts in order.
      const results = await replicas.run({ step, seed: recipe.seed, weights: state.weights.data, parts });
      sum(results, gradients.data);
      const losses = meanLosses(results, parts);
      checkStep(step + 1, losses, gradients);

      // 3. One update of the shared weights and of their average.
      const rate = learningRate(recipe, step);
      applyGradients(state, gradients, rate, recipe);

      state.step++;
      const seconds = (performance.now() - started) / 1000;
      state.seconds += seconds;
      await afterStep({ step: state.step, rate, losses, seconds });
    }
  } finally {
    await Promise.all(loaders.map((loader) => loader.close()));
  }
}

/** One loader for all children, or one a child: the same images, other crops. */
function openViews(dataset: Dataset, recipe: Recipe): Loader[] {
  const { batch, seed, steps, augmentation: kind } = recipe;
  return Array.from({ length: recipe.patches === 'same' ? 1 : recipe.sandwich.length }, (_, view) =>
    openLoader({ dataset, batch, seed, cropSeed: view === 0 ? seed : hash(seed, key('view'), view), kind, steps }),
  );
}

/** A step's batch, cut. */
function partsOf(views: readonly LoadedBatch[], labels: Uint16Array, recipe: Recipe): Part[] {
  const { indices, crops } = views[0]!;
  const rows = recipe.batch / recipe.parts;
  const bytes = crops.length / recipe.parts;
  return Array.from({ length: recipe.parts }, (_, p) => {
    const members = indices.slice(p * rows, (p + 1) * rows);
    return {
      indices: members,
      labels: Uint16Array.from(members, (i) => labels[i]!),
      views: views.map((view) => view.crops.subarray(p * bytes, (p + 1) * bytes)),
      share: 1 / recipe.parts,
    };
  });
}

/** Sums the parts' gradients into `into`, in order: floating-point sums depend on it. */
function sum(results: readonly PartResult[], into: Float32Array): void {
  results.forEach(({ gradients }, p) => {
    if (p === 0) into.set(gradients);
    else for (let i = 0; i < into.length; i++) into[i]! += gradients[i]!;
  });
}

function meanLosses(results: readonly PartResult[], parts: readonly Part[]): ChildLoss[] {
  return results[0]!.losses.map(({ architecture }, child) => ({
    architecture,
    loss: results.reduce((total, { losses }, p) => total + parts[p]!.share * losses[child]!.loss, 0),
  }));
}

import { execFileSync } from 'node:child_process';
import { cpus } from 'node:os';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CalibrationSource } from '../calibrate/calibrate.js';
import type { CheckpointContent } from '../checkpoint/checkpoint.js';
import type { Manifest, TrainingRecord } from '../checkpoint/manifest.js';
import type { Dataset } from '../data/dataset.js';
import type { SearchSpace } from '../space/space.js';
import { tf } from '../tensorflow/tf.js';
import type { Recipe } from './recipe.js';
import type { TrainingState } from './rmsprop.js';
import type { EvaluatedStep } from './runFolder.js';

/** What happened to a run besides its steps. */
export interface RunRecord {
  readonly from: TrainingRecord['from'];
  readonly recipeChanges: NonNullable<TrainingRecord['recipeChanges']>;
  readonly rollbacks: NonNullable<TrainingRecord['rollbacks']>;
  /** The last step that was evaluated, if this session or the checkpoint that it began from did. */
  readonly measured: EvaluatedStep | undefined;
}

/** The record of the run in a checkpoint. */
export function recordIn({ step, from, recipeChanges = [], rollbacks = [], validation }: TrainingRecord): RunRecord {
  return { from, recipeChanges, rollbacks, measured: validation && { step, biggest: validation.biggest, smallest: validation.smallest } };
}

/** Passes over the training images after `step` steps, where the batch may have changed on the way. */
export function epochsAt(step: number, recipe: Pick<Recipe, 'stepsPerEpoch'>, recipeChanges: RunRecord['recipeChanges']): number {
  let [epochs, from] = [0, 0];
  for (const { step: to, changes } of recipeChanges) {
    const perEpoch = changes.find(({ option }) => option === 'stepsPerEpoch')?.from;
    if (typeof perEpoch !== 'number') continue;
    epochs += (to - from) / perEpoch;
    from = to;
  }
  return epochs + (step - from) / recipe.stepsPerEpoch;
}

/** A run's manifest after the state's step. */
export function manifestOf(
  { space, dataset, recipe }: { readonly space: SearchSpace; readonly dataset: Dataset; readonly recipe: Recipe },
  state: TrainingState,
  { from, recipeChanges, rollbacks, measured }: RunRecord,
  source: CalibrationSource,
  scores: Manifest['scores'],
): CheckpointContent['manifest'] {
  const { train: t, validation, test } = dataset.splits;
  const processors = cpus();
  return {
    name: space.name,
    space,
    dataset: {
      name: dataset.name,
      classes: [...dataset.classes] as [string, ...string[]],
      splits: dataset.digest,
      images: { train: t.count, validation: validation.count, test: test.count },
    },
    preprocessing: dataset.preprocessing,
    training: {
      recipe,
      step: state.step,
      totalSteps: recipe.steps,
      epochs: epochsAt(state.step, recipe, recipeChanges),
      seconds: state.seconds,
      ...(measured?.step === state.step && { validation: { images: validation.count, biggest: measured.biggest, smallest: measured.smallest } }),
      ...(from && { from }),
      ...(recipeChanges.length > 0 && { recipeChanges }),
      ...(rollbacks.length > 0 && { rollbacks }),
      weights: 'averaged',
      hardware: `${processors.length} × ${processors[0]?.model ?? 'unknown processor'}`,
      versions: { node: process.versions.node, tensorflow: tensorflowVersion() },
      commit: commit(),
    },
    calibration: { images: source.crops.count, batch: source.batch },
    scores,
    licence: 'Apache-2.0',
  };
}

function tensorflowVersion(): string {
  return (tf.backend() as unknown as { readonly binding: { readonly TF_Version: string } }).binding.TF_Version;
}

/** Commit of bignas, where it runs from a working tree of its own; marked where files differ from it. */
export function commit(): string | null {
  const cwd = fileURLToPath(new URL('../../..', import.meta.url));
  const git = (...args: string[]): string => execFileSync('git', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    // Inside somebody else's repository (as a package of theirs) the commit would be theirs.
    if (relative(git('rev-parse', '--show-toplevel'), cwd) !== '') return null;
    return git('rev-parse', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '-modified');
  } catch {
    return null;
  }
}

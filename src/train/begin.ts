import { isDeepStrictEqual } from 'node:util';
import { BignasError } from '../errors.js';
import { sharedTensors } from '../graph/buildGraph.js';
import { initialWeights } from '../graph/weights.js';
import { spaceDigest } from '../space/identity.js';
import { takeWeights } from './from.js';
import { recipeChanges } from './recipe.js';
import { initialState, type TrainingState } from './rmsprop.js';
import { bestStep, hasRun, resumeRun, type EvaluatedStep } from './runFolder.js';
import { recordIn, type RunRecord } from './runManifest.js';
import type { SessionOptions } from './session.js';

/** A run as its folder has it, or at its beginning. */
export interface Begun {
  readonly state: TrainingState;
  readonly record: RunRecord;
  readonly best: EvaluatedStep | undefined;
  /** Whether the state is on disk. */
  readonly saved: boolean;
  /** Whether the record is not. */
  readonly changed: boolean;
}

/** The state before the first step. */
export function beginning({ space, recipe, from }: SessionOptions): TrainingState {
  const weights = initialWeights(sharedTensors(space), recipe.seed, recipe.initialisation);
  if (from) takeWeights(weights, from, space);
  return initialState(weights);
}

/** The run's beginning, or the run in the folder. Never overwrites a run by accident. */
export async function begin(options: SessionOptions): Promise<Begun> {
  const { space, dataset, recipe, output, resume, changeRecipe = false, from, report } = options;
  const exists = await hasRun(output);
  if (exists && !resume)
    throw new BignasError('OPTION_INVALID', `The folder ${output} holds a run already. Go on with it by --resume, or give another --output.`);
  if (!exists) {
    if (resume) report.line(`The folder ${output} holds no run yet: starting one.`);
    const record = { from: from?.record, recipeChanges: [], rollbacks: [], measured: undefined };
    return { state: beginning(options), record, best: undefined, saved: false, changed: false };
  }
  const { manifest, recipe: old, state } = await resumeRun(output);
  const mismatch = (what: string): BignasError => new BignasError('RESUME_MISMATCH', `The run in ${output} ${what}, or give another --output.`);
  for (const [what, had, has] of [
    ['search space', spaceDigest(manifest.space), spaceDigest(space)],
    ['set of training images', manifest.dataset.splits, dataset.digest],
  ])
    if (had !== has) throw mismatch(`has another ${what}. Resume with the --space and --data it was started with`);
  if (!isDeepStrictEqual(manifest.preprocessing, dataset.preprocessing))
    throw mismatch(`cuts its images to ${manifest.preprocessing.crop} pixels, asked for ${dataset.preprocessing.crop}. Resume with the --crop it was started with`);
  const begunFrom = manifest.training.from?.digest;
  if (from && from.record.digest !== begunFrom)
    throw mismatch(`began from ${begunFrom === undefined ? 'random weights' : `the checkpoint ${begunFrom.slice(0, 12)}`}, asked for ${from.record.digest.slice(0, 12)}. Leave out --from, which decides nothing any more`);
  const changes = recipeChanges(old, recipe);
  const changed = changes.length > 0;
  const list = changes.map(({ option, from, to }) => `${option}: the run has ${String(from)}, asked for ${String(to)}`);
  if (changed && !changeRecipe)
    throw mismatch(`has another recipe:\n  ${list.join('\n  ')}\nResume with the options it was started with, change them for the rest of it by --change-recipe`);
  if (changes.some(({ option }) => option === 'initialisation')) throw mismatch('began from other weights, which no option changes any more. Leave --initialisation as it was');
  if (recipe.steps < state.step) throw mismatch(`has done ${state.step} steps, asked for ${recipe.steps}. Ask for as many at least`);
  const record = recordIn(manifest.training);
  return {
    state,
    record: changed ? { ...record, recipeChanges: [...record.recipeChanges, { step: state.step, changes }] } : record,
    best: await bestStep(output),
    saved: true,
    changed,
  };
}


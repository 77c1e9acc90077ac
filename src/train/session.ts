import { execFileSync } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeCheckpoint, type CheckpointContent } from '../checkpoint/checkpoint.js';
import type { FamilyName } from '../checkpoint/frontier.js';
import type { CalibrationSource } from '../calibrate/calibrate.js';
import { calibrationCrops } from '../data/calibrationCrops.js';
import type { Dataset } from '../data/dataset.js';
import { BignasError } from '../errors.js';
import { buildGraph, sharedTensors } from '../graph/buildGraph.js';
import type { Engine } from '../graph/engine.js';
import { initialWeights } from '../graph/weights.js';
import { coarseFrontier, coarseGrid, testScores, type MeasuredFrontier } from '../search/coarse.js';
import { evaluate } from '../search/evaluate.js';
import { frontierOf, recordOf } from '../search/family.js';
import { biggest, smallest } from '../space/architecture.js';
import { spaceDigest, type SearchSpace } from '../space/space.js';
import { tf } from '../tensorflow/tf.js';
import type { TrainingContext } from './part.js';
import { checkSameRecipe, type Recipe } from './recipe.js';
import { localReplica, processReplicas } from './replicas.js';
import { initialState, type TrainingState } from './rmsprop.js';
import { alone, hasRun, resumeRun, saveStep } from './runFolder.js';
import { train, type StepReport } from './trainer.js';

/** When a run writes a checkpoint: every so many steps, or every so many minutes of training. */
export type SaveEvery = { readonly steps: number } | { readonly minutes: number };

export interface SessionOptions {
  readonly space: SearchSpace;
  readonly dataset: Dataset;
  readonly recipe: Recipe;
  /** The run's folder: `step-N/`, `latest`, and in the end `checkpoint/`. */
  readonly output: string;
  readonly resume: boolean;
  readonly saveEvery: SaveEvery;
  /** Steps between evaluations of the biggest and the smallest child. */
  readonly evaluateEvery: number;
  /** Crops that the checkpoint carries for calibration. */
  readonly calibrationImages: number;
  readonly engine: Engine;
  /** Processes that share a step's work; 1: this one alone. */
  readonly replicas: number;
  readonly signal: AbortSignal;
  readonly report: SessionReporter;
}

/** Where a session tells what it does. */
export interface SessionReporter {
  line(text: string): void;
  step(report: StepReport & { readonly totalSteps: number; readonly epoch: number; readonly images: number }): void;
  evaluation(step: number, accuracies: Readonly<Record<'biggest' | 'smallest', number>>): void;
}

const calibrationBatch = 128;

/**
 * Trains to the recipe's last step, or until the signal; then measures the coarse grid and writes `checkpoint/`, which a server takes.
 * @returns the finished checkpoint's folder, or undefined where the signal ended the run first (it can be resumed).
 */
export async function runSession(options: SessionOptions): Promise<string | undefined> {
  const { output } = options;
  try {
    await mkdir(output, { recursive: true });
    return await alone(output, () => trainAndMeasure(options));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof BignasError || code === undefined || !code.startsWith('E') || code.startsWith('ERR_')) throw error;
    const mend = code === 'ENOSPC' ? 'Make room on that disk' : 'Mend that, or give another --output';
    throw new BignasError('OPTION_INVALID', `The run in ${output} cannot be written: ${message}. ${mend}; then --resume goes on from the last checkpoint.`, {}, { cause: error });
  }
}

async function trainAndMeasure(options: SessionOptions): Promise<string | undefined> {
  const { space, dataset, recipe, output, report, engine, signal } = options;
  const state = await begin(options);
  const { crops, indices } = await calibrationCrops(dataset.splits.train, options.calibrationImages, recipe.seed);
  const source: CalibrationSource = { crops: { crops, count: indices.length }, preprocessing: dataset.preprocessing, batch: calibrationBatch };
  const unmeasured: MeasuredFrontier = {
    frontier: frontierOf(space, coarseGrid(space).map((architecture) => recordOf(space, architecture))),
    statistics: new Map(),
  };
  const content = (measured: MeasuredFrontier, scores: CheckpointContent['manifest']['scores']): Omit<CheckpointContent, 'weights'> => ({
    calibration: source.crops,
    ...measured,
    manifest: manifestOf(options, state, source, scores),
  });
  const save = (): Promise<void> => saveStep(output, content(unmeasured, null), state);

  let saved = state.seconds;
  const context: TrainingContext = { space, preprocessing: dataset.preprocessing, classes: dataset.classes.length, recipe };
  const replicas = options.replicas > 1 ? processReplicas(context, options.replicas) : localReplica(context);
  await train({
    dataset,
    recipe,
    state,
    replicas,
    signal,
    afterStep: async (step) => {
      const epoch = state.step / recipe.stepsPerEpoch;
      report.step({ ...step, totalSteps: recipe.steps, epoch, images: recipe.batch });
      const last = state.step === recipe.steps;
      if (last || due(options.saveEvery, state, saved)) {
        await save();
        saved = state.seconds;
      }
      if (last || state.step % options.evaluateEvery === 0) {
        const measure = async (end: typeof biggest): Promise<number> =>
          (await evaluate(engine, buildGraph(space, end(space)), state.average, source, dataset.splits.validation)).accuracy.value;
        report.evaluation(state.step, { biggest: await measure(biggest), smallest: await measure(smallest) });
      }
    },
  }).finally(() => replicas.close());
  if (state.step < recipe.steps) {
    await save();
    report.line(`Stopped after step ${state.step}. Go on with --resume.`);
    return undefined;
  }

  report.line(`Calibrating and measuring ${coarseGrid(space).length} children on ${dataset.splits.validation.count} validation images.`);
  const measured = await coarseFrontier(engine, space, state.average, source, dataset.splits.validation, {
    signal,
    progress: (done, all, child) =>
      report.line(`  ${done}/${all}  ${child.architecture}  ${(child.costs.flops.value / 1e6).toFixed(1)} MFLOPs  ${percent(child.accuracy!.value)}`),
  });
  if (!measured) {
    report.line('Stopped before all children were measured. Measure them with --resume.');
    return undefined;
  }
  const accuracyById = await testScores(engine, space, state.average, measured, source, dataset.splits.test);
  const scores = { split: 'test' as const, images: dataset.splits.test.count, accuracy: accuracyById };
  for (const [name, child] of Object.entries(measured.frontier.family) as [FamilyName, typeof measured.frontier.front[number]][])
    report.line(`  ${name.padEnd(8)} ${(child.costs.flops.value / 1e6).toFixed(1)} MFLOPs  ${percent(accuracyById[child.id]!)} on the test split`);
  const folder = join(output, 'checkpoint');
  await writeCheckpoint(folder, { ...content(measured, scores), weights: state.average });
  return folder;
}

/** A fresh state, or that of the run in the folder. Never overwrites a run by accident. */
async function begin({ space, dataset, recipe, output, resume, report }: SessionOptions): Promise<TrainingState> {
  const exists = await hasRun(output);
  if (exists && !resume)
    throw new BignasError('OPTION_INVALID', `The folder ${output} holds a run already. Go on with it by --resume, or give another --output.`);
  if (!exists) {
    if (resume) report.line(`The folder ${output} holds no run yet: starting one.`);
    return initialState(initialWeights(sharedTensors(space), recipe.seed, recipe.initialisation));
  }
  const run = await resumeRun(output);
  checkSameRecipe(run.recipe, recipe);
  for (const [what, had, has] of [
    ['search space', spaceDigest(run.manifest.space), spaceDigest(space)],
    ['set of training images', run.manifest.dataset.splits, dataset.digest],
  ])
    if (had !== has) throw new BignasError('RESUME_MISMATCH', `The run in ${output} has another ${what}. Resume with the --space and --data it was started with, or give another --output.`);
  report.line(`Resuming after step ${run.state.step} of ${recipe.steps}.`);
  return run.state;
}

function due(every: SaveEvery, state: TrainingState, saved: number): boolean {
  return 'steps' in every ? state.step % every.steps === 0 : state.seconds - saved >= every.minutes * 60;
}

function manifestOf(
  { space, dataset, recipe }: SessionOptions,
  state: TrainingState,
  source: CalibrationSource,
  scores: CheckpointContent['manifest']['scores'],
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
      epochs: state.step / recipe.stepsPerEpoch,
      seconds: state.seconds,
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
function commit(): string | null {
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

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(2)} %`;
}

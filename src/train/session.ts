import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { writeFileAtomic } from '../files/atomic.js';
import { alone } from '../files/lock.js';
import { unwritable } from '../files/unwritable.js';
import { json, writeCheckpoint, type CheckpointContent } from '../checkpoint/checkpoint.js';
import type { FamilyName } from '../checkpoint/frontier.js';
import type { Manifest } from '../checkpoint/manifest.js';
import type { CalibrationSource } from '../calibrate/calibrate.js';
import { calibrationCrops } from '../data/calibrationCrops.js';
import type { Dataset } from '../data/dataset.js';
import { BignasError } from '../errors.js';
import { buildGraph } from '../graph/buildGraph.js';
import type { Engine } from '../graph/engine.js';
import { coarseFrontier, coarseGrid, testScores, type MeasuredFrontier } from '../search/coarse.js';
import { evaluate } from '../search/evaluate.js';
import { frontierOf, recordOf } from '../search/family.js';
import { biggest, formatArchitecture, smallest } from '../space/architecture.js';
import type { SearchSpace } from '../space/space.js';
import { begin, beginning, type Begun } from './begin.js';
import type { From } from './from.js';
import type { TrainingContext } from './part.js';
import { drawSeed, maxRollbacks, NotFinite } from './divergence.js';
import type { Recipe } from './recipe.js';
import { localReplica, processReplicas, type Replicas } from './replicas.js';
import type { TrainingState } from './rmsprop.js';
import { hasRun, nameBest, resumeRun, saveStep, type EvaluatedStep } from './runFolder.js';
import { epochsAt, manifestOf, recordIn, type RunRecord } from './runManifest.js';
import { train } from './trainer.js';
import type { SessionReporter } from './watch/events.js';
import { writePlots } from './watch/plot.js';
import { watchRun, type RunWatch } from './watch/watch.js';

/** When a run writes a checkpoint: every so many steps, or every so many minutes of training. */
export type SaveEvery = { readonly steps: number } | { readonly minutes: number };

export interface SessionOptions {
  readonly space: SearchSpace;
  readonly dataset: Dataset;
  readonly recipe: Recipe;
  /** What the run begins with. Default: random weights. */
  readonly from?: From | undefined;
  /** The run's folder: `step-N/`, `latest`, `best`, its history, and in the end `checkpoint/`. */
  readonly output: string;
  readonly resume: boolean;
  /**
   * Goes on with a run of another recipe under this one: from there on it does what a run of this recipe does at that step (rate, batch,
   * place in the data), from the weights and moments that the run has. Recorded in the manifest. Default: refused.
   */
  readonly changeRecipe?: boolean;
  readonly saveEvery: SaveEvery;
  /** Steps kept beside the best one. At least 1, the latest. */
  readonly keep: number;
  /** Steps between evaluations of the biggest and the smallest child. One that is better than all before is saved. */
  readonly evaluateEvery: number;
  /** Crops that the checkpoint carries for calibration. */
  readonly calibrationImages: number;
  readonly engine: Engine;
  /** Processes that share a step's work; 1: this one alone. */
  readonly replicas: number;
  readonly signal: AbortSignal;
  readonly report: SessionReporter;
}

const calibrationBatch = 128;
const divergenceReport = 'not-finite.json';

/**
 * Trains to the recipe's last step, or until the signal; then measures the coarse grid and writes `checkpoint/`, which a server takes.
 * A step whose loss or gradient is not finite sends the run back to its last checkpoint, from where it draws anew.
 * @returns the finished checkpoint's folder, or undefined where the signal ended the run first (it can be resumed).
 * @throws BignasError LOSS_NOT_FINITE where going back three times did not help
 */
export async function runSession(options: SessionOptions): Promise<string | undefined> {
  const { output, report } = options;
  try {
    await mkdir(output, { recursive: true });
    return await alone(output, 'trains', async () => {
      const begun = await begin(options);
      const watch = await watchRun({ folder: output, step: begun.state.step, report });
      try {
        return await new Session(options, begun, watch, await calibrationSource(options)).run();
      } finally {
        await watch.close();
      }
    });
  } catch (error) {
    throw unwritable(error, `The run in ${output}`, 'give another --output', 'then --resume goes on from the last checkpoint') ?? error;
  }
}

/** A run's way from the step where it stands to its end. */
class Session {
  private state: TrainingState;
  private record: RunRecord;
  private best: EvaluatedStep | undefined;
  /** The last checkpoint. */
  private saved: { readonly step: number | undefined; readonly seconds: number };
  /** Of the last step. */
  private children: readonly string[] = [];

  constructor(
    private readonly options: SessionOptions,
    private readonly begun: Begun,
    private readonly watch: RunWatch,
    private readonly source: CalibrationSource,
  ) {
    ({ state: this.state, record: this.record, best: this.best } = begun);
    this.saved = { step: begun.saved ? begun.state.step : undefined, seconds: begun.state.seconds };
  }

  async run(): Promise<string | undefined> {
    const { signal, report, from } = this.options;
    if (from && !this.begun.saved) await this.save(); // whoever resumes before the first checkpoint leaves out --from
    if (this.begun.changed) {
      await this.save(); // before anything is done under the new recipe
      const { step, changes } = this.record.recipeChanges.at(-1)!;
      await this.watch.recipeChanged(step, changes);
    }
    const { space, dataset, recipe, replicas: count } = this.options;
    const context: TrainingContext = { space, preprocessing: dataset.preprocessing, classes: dataset.classes.length, recipe };
    const replicas = count > 1 ? processReplicas(context, count) : localReplica(context);
    try {
      while (!(await this.train(replicas)));
    } finally {
      await replicas.close();
    }
    if (!signal.aborted) return this.measure();
    report.line(`Stopped after step ${this.state.step}. Go on with --resume.`);
    return undefined;
  }

  /**
   * Trains to the last step, or until the signal, and saves.
   * @returns false where it went back to the last checkpoint instead
   */
  private async train(replicas: Replicas): Promise<boolean> {
    try {
      await this.settle();
      await this.takeSteps(replicas);
      if (this.saved.step !== this.state.step) await this.save(); // the signal came
      return true;
    } catch (error) {
      if (!(error instanceof NotFinite)) throw error;
      await this.goBack(error);
      return false;
    }
  }

  private takeSteps(replicas: Replicas): Promise<void> {
    const { dataset, recipe, signal } = this.options;
    return train({
      dataset,
      recipe: { ...recipe, seed: drawSeed(recipe.seed, this.record.rollbacks.at(-1)?.salt ?? 0) },
      state: this.state,
      replicas,
      signal,
      afterStep: async (step) => {
        await setImmediate(); // steps may follow each other without a turn of the event loop, in which signals are heard
        this.children = step.losses.map(({ architecture }) => formatArchitecture(architecture));
        const epoch = epochsAt(step.step, recipe, this.record.recipeChanges);
        await this.watch.step({ ...step, totalSteps: recipe.steps, epoch, images: recipe.batch, children: recipe.sandwich });
        await this.settle();
      },
    });
  }

  /** Saves and evaluates the step where the run stands, where that is due and not done: a run that was killed does the rest of it here. */
  private async settle(): Promise<void> {
    const { recipe, evaluateEvery, output, keep, signal } = this.options;
    const { step } = this.state;
    if (step === 0 || signal.aborted) return;
    const last = step === recipe.steps;
    if (this.saved.step !== step && (last || this.saveDue())) await this.save();
    if (this.record.measured?.step !== step && (last || step % evaluateEvery === 0)) await this.evaluate();
    const { measured } = this.record;
    if (measured?.step !== step || !isBetter(measured, this.best)) return;
    if (this.saved.step !== step) await this.save();
    await nameBest(output, step, keep);
    this.best = measured;
  }

  private saveDue(): boolean {
    const { saveEvery } = this.options;
    return 'steps' in saveEvery ? this.state.step % saveEvery.steps === 0 : this.state.seconds - this.saved.seconds >= saveEvery.minutes * 60;
  }

  /** Writes a checkpoint, or what has changed in the one of this step. */
  private async save(): Promise<void> {
    const { output, keep } = this.options;
    await this.watch.flush(); // the history never ends before the checkpoint
    const written = await saveStep(output, this.content(unmeasured(this.options.space), null), this.state, keep);
    this.saved = { step: this.state.step, seconds: this.state.seconds };
    if (written) await this.watch.saved(this.state.step);
  }

  private content(measured: MeasuredFrontier, scores: Manifest['scores']): Omit<CheckpointContent, 'weights'> {
    return { calibration: this.source.crops, ...measured, manifest: manifestOf(this.options, this.state, this.record, this.source, scores) };
  }

  /** Measures the biggest and the smallest child of the averaged weights, unless the signal comes. Training does not depend on it. */
  private async evaluate(): Promise<void> {
    const { space, dataset, engine, signal } = this.options;
    const { step, average } = this.state;
    const accuracyOf = async (end: typeof biggest): Promise<number> =>
      (await evaluate(engine, buildGraph(space, end(space)), average, this.source, dataset.splits.validation, { signal })).accuracy.value;
    const accuracies = await unlessAborted(signal, async () => ({ biggest: await accuracyOf(biggest), smallest: await accuracyOf(smallest) }));
    if (!accuracies) return;
    await this.watch.evaluation(step, accuracies);
    this.record = { ...this.record, measured: { step, ...accuracies } };
    if (this.saved.step === step) await this.save();
  }

  /** Back to the last checkpoint, from where the run draws anew. A run that is killed meanwhile comes to the same point again. */
  private async goBack(fault: NotFinite): Promise<void> {
    const { output } = this.options;
    const { step: from, message: reason } = fault;
    const children = fault.children.length > 0 ? fault.children : this.children;
    const { rollbacks } = this.record;
    if (rollbacks.length === maxRollbacks) throw await this.givenUp({ from, reason, children });
    const last = (await hasRun(output)) ? await resumeRun(output) : undefined;
    this.state = last?.state ?? beginning(this.options);
    const rollback = { from, to: this.state.step, salt: rollbacks.length + 1, reason, children: [...children] };
    this.record = { ...this.record, rollbacks: [...rollbacks, rollback], measured: last && recordIn(last.manifest.training).measured };
    this.saved = { step: last && this.state.step, seconds: this.state.seconds };
    await this.save();
    await this.watch.rollback(rollback);
  }

  private async givenUp(fault: { readonly from: number; readonly reason: string; readonly children: readonly string[] }): Promise<BignasError> {
    const { output, recipe } = this.options;
    const { rollbacks } = this.record;
    const report = join(output, divergenceReport);
    await writeFileAtomic(report, json({ ...fault, rollbacks, recipe }));
    const steps = rollbacks.map(({ from, to }) => `${from} (back to ${to})`).join(', ');
    return new BignasError(
      'LOSS_NOT_FINITE',
      `${fault.reason} The run went back ${rollbacks.length} times already, from step ${steps}, and stops here; its last checkpoint is whole. ` +
        `${report} names the children of these steps. Go on with --resume --change-recipe and a lower --learning-rate ` +
        `(it is ${recipe.learningRate.initial}), or look at the images: --seed and the step say which they were.`,
    );
  }

  /** Measures all children of the coarse grid and writes `checkpoint/`. */
  private async measure(): Promise<string | undefined> {
    const { space, dataset, output, report, engine, signal } = this.options;
    const { average } = this.state;
    const { validation, test } = dataset.splits;
    report.line(`Calibrating and measuring ${coarseGrid(space).length} children on ${validation.count} validation images.`);
    const results = await unlessAborted(signal, async () => {
      const measured = await coarseFrontier(engine, space, average, this.source, validation, {
        signal,
        progress: (done, all, child) =>
          report.line(`  ${done}/${all}  ${child.architecture}  ${(child.costs.flops.value / 1e6).toFixed(1)} MFLOPs  ${percent(child.accuracy!.value)}`),
      });
      return { measured, accuracy: await testScores(engine, space, average, measured, this.source, test, { signal }) };
    });
    if (!results) {
      report.line('Stopped before all children were measured. Measure them with --resume.');
      return undefined;
    }
    const { measured, accuracy } = results;
    for (const [name, child] of Object.entries(measured.frontier.family) as [FamilyName, typeof measured.frontier.front[number]][])
      report.line(`  ${name.padEnd(8)} ${(child.costs.flops.value / 1e6).toFixed(1)} MFLOPs  ${percent(accuracy[child.id]!)} on the test split`);
    const folder = join(output, 'checkpoint');
    await writeCheckpoint(folder, { ...this.content(measured, { split: 'test', images: test.count, accuracy }), weights: average });
    await this.watch.flush();
    await writePlots(output);
    if (this.best && this.best.step < this.state.step)
      report.line(`Step ${this.best.step} was better on the validation images: ${join(output, `step-${this.best.step}`)} has its weights.`);
    return folder;
  }
}

/** What the children of a step's checkpoint are: their accuracies and statistics are not known yet. */
function unmeasured(space: SearchSpace): MeasuredFrontier {
  return { frontier: frontierOf(space, coarseGrid(space).map((architecture) => recordOf(space, architecture))), statistics: new Map(), golden: new Map(), int8: new Map() };
}

async function calibrationSource({ dataset, recipe, calibrationImages }: SessionOptions): Promise<CalibrationSource> {
  const { crops, indices } = await calibrationCrops(dataset.splits.train, calibrationImages, recipe.seed);
  return { crops: { crops, count: indices.length }, preprocessing: dataset.preprocessing, batch: calibrationBatch };
}

/** The best step is the one with the highest mean accuracy of the biggest and the smallest child; of equal ones the first. */
function isBetter(a: EvaluatedStep, b: EvaluatedStep | undefined): boolean {
  return b === undefined || a.biggest + a.smallest > b.biggest + b.smallest;
}

/** What `work` gives; undefined where the signal ended it. */
async function unlessAborted<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    return undefined;
  }
}

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(2)} %`;
}

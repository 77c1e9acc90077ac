import { mkdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { calibrationVersion } from '../calibrate/calibrate.js';
import { goldenLogitsOf } from '../calibrate/golden.js';
import { calibrateInt8 } from '../calibrate/int8.js';
import { contentOf, frontierChildren, json, writeCheckpoint, type Checkpoint } from '../checkpoint/checkpoint.js';
import { familyNames, type ChildRecord, type Costs, type FamilyName, type Frontier } from '../checkpoint/frontier.js';
import type { Manifest } from '../checkpoint/manifest.js';
import type { Int8Calibration } from '../checkpoint/tensors.js';
import type { Dataset, Split } from '../data/dataset.js';
import { BignasError } from '../errors.js';
import { writeFileAtomic } from '../files/atomic.js';
import { alone } from '../files/lock.js';
import { unwritable } from '../files/unwritable.js';
import { writePlot } from '../plot/plot.js';
import { latencyPredictor, type LatencyTable } from '../cost/latency.js';
import { buildGraph } from '../graph/buildGraph.js';
import type { Statistics } from '../graph/statistics.js';
import { onnxEngine } from '../onnx/engine.js';
import { measureLatency } from '../onnx/latency.js';
import { parseArchitecture, type Architecture } from '../space/architecture.js';
import { coarseGrid, paperGrid } from './coarse.js';
import { compareWithRandom, randomChildrenAt, scalings, type RandomComparison } from './compare.js';
import { mapped } from './devices.js';
import type { Evaluator } from './evaluator.js';
import { frontierOf, recordOf } from './family.js';
import { plotChildren, type PlottedChildren } from './plots.js';
import { crossValidatedError, fitPredictor, predictorError, type PredictorError } from './predictor.js';
import { orderOf } from './evaluate.js';
import { fineSearch, measure, sampleOf, type Measuring } from './search.js';
import { bestOf, paretoFront, type Budget } from './select.js';
import { EvaluationStore, type ImagesMeasured } from './store.js';
import { searchTargets } from './targets.js';

export interface SearchOptions {
  readonly checkpoint: Checkpoint;
  /** The one that the checkpoint was trained on. */
  readonly dataset: Dataset;
  /** Where evaluations, plots and the report lie. */
  readonly output: string;
  readonly evaluator: Evaluator;
  /** Which images decide: never the test split. `images` of it. */
  readonly images: ImagesMeasured;
  /** What to search for beyond the whole front: one child each. */
  readonly budgets: readonly Budget[];
  /** Children to measure beyond the coarse grid. */
  readonly evaluations: number;
  readonly seed: number;
  readonly predictor: boolean;
  /** Random children to measure at the multiply-adds of each of S, M, L and XL. */
  readonly random: number;
  /** Whether to measure the scalings of one architecture beside the front. */
  readonly compare: boolean;
  /** Whether to measure the chosen children on the test images, in the end. */
  readonly test: boolean;
  /** Latencies of a device, among the costs that are searched. */
  readonly latencyTable?: LatencyTable;
  /** Whether to measure the latency of the chosen children on this machine, one thread, in the end. */
  readonly latency: boolean;
  /** Whether to write the frontier into the checkpoint. */
  readonly write: boolean;
  readonly signal: AbortSignal;
  readonly report: (line: string) => void;
}

/** What a search found, as `search.json` has it. */
export interface SearchReport {
  readonly checkpoint: string;
  readonly seed: number;
  readonly images: ImagesMeasured;
  readonly coarse: number;
  readonly mutated: number;
  /** Of them, evaluated by this call; the others were found in the store. */
  readonly evaluated: number;
  readonly predictor: { readonly crossValidated: PredictorError; readonly random?: PredictorError };
  readonly family: Readonly<Record<FamilyName, ChildRecord>>;
  readonly front: readonly ChildRecord[];
  /** What answers each budget that was asked for; null where no child that was measured fits it. */
  readonly budgets: readonly { readonly budget: Budget; readonly child: ChildRecord | null }[];
  readonly random?: readonly (RandomComparison & { readonly name: FamilyName; readonly test?: RandomComparison })[];
  readonly scalings?: readonly { readonly name: string; readonly children: readonly ChildRecord[] }[];
}

/**
 * Searches a checkpoint's space coarse to fine and writes what it found: the report and the plots into `output`, the frontier with its
 * statistics into the checkpoint. Can be ended at any time and called again: what was evaluated is kept.
 * @throws BignasError OPTION_INVALID, SEARCH_MISMATCH, SEARCH_INVALID; the signal's reason
 */
export async function searchSession(options: SearchOptions): Promise<SearchReport> {
  const { output, images } = options;
  if (images.split === 'test') throw new Error('Children are chosen on validation or training images, never on the test split.');
  checkOptions(options);
  try {
    await mkdir(output, { recursive: true });
    return await alone(output, 'searches', () => search(options));
  } catch (error) {
    throw unwritable(error, `The search in ${output}`, 'give another --output', 'then the same command goes on') ?? error;
  }
}

async function search(options: SearchOptions): Promise<SearchReport> {
  const { checkpoint, dataset, output, evaluator, images } = options;
  const { manifest } = checkpoint;
  const store = await EvaluationStore.open(output, checkpoint, {
    weights: manifest.files['weights.safetensors'],
    calibration: manifest.files['calibration.safetensors'],
    batch: manifest.calibration.batch,
    calibrationVersion,
    splits: manifest.dataset.splits,
    engine: evaluator.engine,
    order: orderOf(dataset.splits[images.split]),
  });
  try {
    return await new SearchSession(options, store, dataset.splits[images.split]).run();
  } finally {
    await store.close();
  }
}

function checkOptions({ checkpoint: { folder, manifest }, dataset, images, write, budgets, latencyTable, latency }: SearchOptions): void {
  if (latency && latencyTable && latencyTable.device !== hostname())
    throw new BignasError('OPTION_INVALID', `The latency table is of ${latencyTable.device}, and --latency measures on ${hostname()}: one frontier has the latencies of one device. Leave out one of them.`);
  if (!latencyTable && budgets.some(({ latency }) => latency !== undefined))
    throw new BignasError('OPTION_INVALID', 'A --budget of latency needs the latencies of a device: give --latency-table, which bignas-profile makes.');
  if (write && /^step-\d+$/.test(basename(folder)))
    throw new BignasError('OPTION_INVALID', `${folder} is a step of a run that may go on, and is not written into. Give the run's checkpoint/ when it has one, or a copy, or --no-write.`);
  if (dataset.digest !== manifest.dataset.splits)
    throw new BignasError('SEARCH_MISMATCH', `The checkpoint was trained on other images than --data has now (${dataset.name}). Give the --data and --crop that it was trained with.`);
  const { count } = dataset.splits[images.split];
  if (images.images > count) throw new BignasError('OPTION_INVALID', `Expected --images up to ${count}, the images of the ${images.split} split, got ${images.images}.`);
}

class SearchSession {
  readonly #measuring: Measuring;
  #evaluated = 0;

  constructor(
    private readonly options: SearchOptions,
    private readonly store: EvaluationStore,
    split: Split,
  ) {
    const { checkpoint, evaluator, images, signal } = options;
    const { space } = checkpoint.manifest;
    const { latencyTable: table } = options;
    const predict = table && latencyPredictor(table);
    const latencyOf = (architecture: Architecture): Pick<Costs, 'latency'> => (predict ? { latency: { value: predict(buildGraph(space, architecture)).seconds, how: 'predicted', device: table!.device } } : {});
    const record: Measuring['recordOf'] = (architecture, accuracy) => {
      const counted = recordOf(space, architecture, accuracy);
      return { ...counted, costs: { ...counted.costs, ...latencyOf(architecture) } };
    };
    this.#measuring = { space, evaluator, store, split: split.source, images, signal, recordOf: record };
  }

  async run(): Promise<SearchReport> {
    const { checkpoint, output, budgets, evaluations, seed, predictor, images, report } = this.options;
    const { space } = checkpoint.manifest;

    // 1. Coarse to fine.
    const grid = coarseGrid(space, paperGrid);
    const coarse = await measure(grid, this.#telling('coarse', grid.length));
    const targets = [...budgets, ...searchTargets(coarse)];
    const mutated = await fineSearch(coarse, { targets, evaluations, seed, predictor }, this.#telling('fine', evaluations));

    // 2. The frontier: with the children that earlier searches wrote into the checkpoint, so that none makes it worse.
    const found = [...coarse, ...mutated];
    const children = [...found, ...(await this.#earlier(found))];
    const frontier = await this.#timed(frontierOf(space, children, budgets));
    const written = new Map(frontierChildren(frontier).map((child) => [child.id, child]));
    const answers = budgets.map((budget) => ({ budget, child: written.get(bestOf(children, budget)?.id ?? '') ?? null }));

    // 3. What it is worth: against random children, against scaling one architecture.
    const samples = found.map((child) => sampleOf(space, child));
    const random = await this.#random(frontier);
    const crossValidated = crossValidatedError(space, samples);
    const fitted = new Set(found.map(({ id }) => id));
    const unseen = random?.children.filter(({ id }) => !fitted.has(id)) ?? [];
    const onRandom = unseen.length > 0 ? predictorError(fitPredictor(space, samples), unseen.map((child) => sampleOf(space, child))) : undefined;
    const compared = this.options.compare ? await this.#scalings() : undefined;

    const result: SearchReport = {
      checkpoint: checkpoint.digest,
      seed,
      images,
      coarse: coarse.length,
      mutated: mutated.length,
      evaluated: this.#evaluated,
      predictor: { crossValidated, ...(onRandom && { random: onRandom }) },
      family: frontier.family,
      front: frontier.front,
      budgets: answers,
      ...(random && { random: random.comparisons }),
      ...(compared && { scalings: compared }),
    };
    await writePlot(output, 'coarse', await plotChildren('Coarse grid', byResolution(coarse)));
    const front = { name: 'front', children: flopsFront(frontier), line: true };
    await writePlot(output, 'fine', await plotChildren('Coarse and fine', [{ name: 'coarse', children: coarse }, { name: 'mutated', children: mutated }, front]));
    if (compared) await writePlot(output, 'compare', await plotChildren('Searched, and one architecture scaled', [front, ...compared.map((scaling) => ({ ...scaling, line: true }))]));
    const scores = await this.#testScores(frontier);
    await writeFileAtomic(join(output, 'search.json'), json(result));
    this.#tell(result, scores);
    if (this.options.write) {
      const content = contentOf(checkpoint);
      const statistics = await this.#statistics(frontier);
      const { space, preprocessing } = checkpoint.manifest;
      const golden = await goldenLogitsOf(onnxEngine(), { space, preprocessing, weights: checkpoint.weights }, { frontier, statistics });
      await writeCheckpoint(checkpoint.folder, { ...content, frontier, statistics, golden, int8: await this.#int8(frontier, statistics), manifest: { ...content.manifest, scores } });
      report(`Written into ${checkpoint.folder}: ${frontierChildren(frontier).length} children, ready to serve.`);
    }
    report(`Report and plots: ${resolve(output)}`);
    return result;
  }

  #telling(what: string, all: number): Measuring {
    let done = 0;
    return {
      ...this.#measuring,
      progress: ({ architecture, costs, accuracy }, how) => {
        if (how === 'measured') this.#evaluated++;
        this.options.report(`${what} ${++done}/${all}  ${percent(accuracy!.value)}  ${(costs.flops.value / 1e6).toFixed(2)} MFLOPs  ${architecture}${how === 'stored' ? '  (known)' : ''}`);
      },
    };
  }

  /** Random children beside the family, on the search's images and, where that is asked for, on the test images. */
  async #random({ family }: Frontier): Promise<{ readonly comparisons: NonNullable<SearchReport['random']>; readonly children: ChildRecord[] } | undefined> {
    const { random, seed, checkpoint, test } = this.options;
    if (random === 0) return undefined;
    const { space } = checkpoint.manifest;
    const comparisons: NonNullable<SearchReport['random']>[number][] = [];
    const all: ChildRecord[] = [];
    for (const name of ['S', 'M', 'L', 'XL'] as const) {
      const searched = family[name];
      const architectures = randomChildrenAt(space, searched.costs.flops.value, random, seed, searched.architecture);
      if (architectures.length === 0) continue;
      const children = await measure(architectures, this.#telling(`random, like ${name}`, architectures.length));
      const onTest = test ? await this.#onTest([searched, ...children]) : undefined;
      comparisons.push({ name, ...compareWithRandom(searched, children), ...(onTest && { test: compareWithRandom(onTest[0]!, onTest.slice(1)) }) });
      all.push(...children);
    }
    return { comparisons, children: all };
  }

  async #scalings(): Promise<NonNullable<SearchReport['scalings']>> {
    const compared = [];
    for (const { name, children } of scalings(this.options.checkpoint.manifest.space))
      compared.push({ name, children: await measure(children, this.#telling(`${name} scaling`, children.length)) });
    return compared;
  }

  #onTest(children: readonly ChildRecord[]): Promise<ChildRecord[]> {
    const { space } = this.#measuring;
    const { test } = this.options.dataset.splits;
    return measure(
      children.map(({ architecture }) => parseArchitecture(space, architecture)),
      { ...this.#measuring, split: test.source, images: { split: 'test', images: test.count } },
    );
  }

  async #testScores(frontier: Frontier): Promise<Manifest['scores']> {
    const { test, dataset, report } = this.options;
    if (!test) return null;
    const children = frontierChildren(frontier);
    report(`Measuring ${children.length} chosen children on the ${dataset.splits.test.count} test images, which decide nothing.`);
    const scored = await this.#onTest(children);
    return { split: 'test', images: dataset.splits.test.count, accuracy: Object.fromEntries(scored.map(({ id, accuracy }) => [id, accuracy!.value])) };
  }

  /** The frontier with latencies measured here, where that is asked for. */
  async #timed(frontier: Frontier): Promise<Frontier> {
    const { latency, signal, report, checkpoint } = this.options;
    if (!latency) return frontier;
    const { space } = checkpoint.manifest;
    const children = frontierChildren(frontier);
    report(`Measuring the latency of ${children.length} chosen children, one thread.`);
    const seconds = new Map<string, number>();
    for (const { id, architecture } of children) {
      signal.throwIfAborted();
      seconds.set(id, await measureLatency(buildGraph(space, parseArchitecture(space, architecture)), { threads: 1 }));
    }
    return mapped(frontier, (child) => ({ ...child, costs: { ...child.costs, latency: { value: seconds.get(child.id)!, how: 'measured', device: hostname() } } }));
  }

  /**
   * Children of the checkpoint's frontier that this search did not come by, measured as its own are: what the frontier says of them may be of another engine,
   * other images or another rule of calibration, and its latencies of another device.
   */
  #earlier(found: readonly ChildRecord[]): Promise<ChildRecord[]> {
    const { space } = this.#measuring;
    const ids = new Set(found.map(({ id }) => id));
    const earlier = frontierChildren(this.options.checkpoint.frontier).filter(({ id }) => !ids.has(id));
    return measure(earlier.map(({ architecture }) => parseArchitecture(space, architecture)), this.#telling('earlier', earlier.length));
  }

  async #statistics(frontier: Frontier): Promise<Map<string, Statistics>> {
    const statistics = new Map<string, Statistics>();
    for (const child of frontierChildren(frontier)) statistics.set(child.id, await this.store.statistics(child));
    return statistics;
  }

  async #int8(frontier: Frontier, statistics: ReadonlyMap<string, Statistics>): Promise<Map<string, Int8Calibration>> {
    const { checkpoint } = this.options;
    const { manifest: { space, preprocessing, calibration }, weights, calibration: crops } = checkpoint;
    const int8 = new Map<string, Int8Calibration>();
    for (const { id, architecture } of frontierChildren(frontier)) {
      const graph = buildGraph(space, parseArchitecture(space, architecture));
      int8.set(id, await calibrateInt8(graph, weights, statistics.get(id)!, { crops, preprocessing, batch: calibration.batch }));
    }
    return int8;
  }

  #tell({ family, budgets, predictor, random, scalings: scaled }: SearchReport, scores: Manifest['scores']): void {
    const { report, images } = this.options;
    report(`\nThe family (accuracy on ${images.images} ${images.split} images${scores ? `, on ${scores.images} test images` : ''}):`);
    for (const name of familyNames) {
      const { id, architecture, costs, accuracy } = family[name];
      report(`  ${name.padEnd(8)} ${(costs.flops.value / 1e6).toFixed(2).padStart(7)} MFLOPs  ${percent(accuracy!.value)}${scores ? `  ${percent(scores.accuracy[id]!)}` : ''}  ${architecture}`);
    }
    for (const { budget, child } of budgets) {
      const asked = Object.entries(budget).map(([cost, limit]) => `${cost}=${limit}`).join(',');
      report(child ? `  ${asked}: ${percent(child.accuracy!.value)}  ${child.architecture}` : `  ${asked}: no child that was measured fits.`);
    }
    const { crossValidated, random: onRandom } = predictor;
    const said = ({ children, kendall, meanAbsolute }: PredictorError): string => `Kendall's τ ${kendall.toFixed(2)}, mean error ${(100 * meanAbsolute).toFixed(2)} points, ${children} children`;
    report(`Predictor: ${said(crossValidated)} (cross-validated)${onRandom ? `; ${said(onRandom)} (random ones, not fitted)` : ''}`);
    for (const { name, test, ...validation } of random ?? [])
      for (const [split, { searched, random: { children, median }, margin, noise }] of [[images.split, validation], ...(test ? [['test', test] as const] : [])] as const)
        report(`  ${name} against the median of ${children} random children of its multiply-adds, ${split}: ${percent(searched)} and ${percent(median)}, margin ${(100 * margin).toFixed(2)} points, standard error ${(100 * noise).toFixed(2)}`);
    for (const { name, children } of scaled ?? [])
      report(`  scaling ${name}: ${children.map(({ costs, accuracy }) => `${(costs.flops.value / 1e6).toFixed(1)} MFLOPs ${percent(accuracy!.value)}`).join(', ')}`);
  }
}

function byResolution(children: readonly ChildRecord[]): PlottedChildren[] {
  const resolutionOf = ({ architecture }: ChildRecord): string => architecture.slice(1, architecture.indexOf('_'));
  const resolutions = [...new Set(children.map(resolutionOf))].sort((a, b) => Number(a) - Number(b));
  return resolutions.map((resolution) => ({ name: `${resolution} × ${resolution}`, children: children.filter((child) => resolutionOf(child) === resolution) }));
}

/** The front over multiply-adds alone. */
function flopsFront({ front }: Frontier): ChildRecord[] {
  return paretoFront(front, 'flops');
}

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(2)} %`;
}

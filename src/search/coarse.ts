import type { CalibrationSource } from '../calibrate/calibrate.js';
import { goldenLogitsOf } from '../calibrate/golden.js';
import { frontierChildren } from '../checkpoint/checkpoint.js';
import type { ChildRecord, Frontier } from '../checkpoint/frontier.js';
import type { Split } from '../data/dataset.js';
import { buildGraph } from '../graph/buildGraph.js';
import type { Engine } from '../graph/engine.js';
import type { Int8Calibration } from '../checkpoint/tensors.js';
import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { biggest, formatArchitecture, parseArchitecture, smallest, type Architecture, type MbconvArchitecture } from '../space/architecture.js';
import type { MbconvSpace, SearchSpace } from '../space/space.js';
import { isNetworkSpace } from '../space/kind.js';
import { accuracy, evaluate, type EvaluateOptions } from './evaluate.js';
import { frontierOf, recordOf } from './family.js';

/** How many values of each dimension a coarse grid takes. */
export interface GridSize {
  /** Depth multipliers, from the least to the most. */
  readonly depths: number;
  /** Width multipliers. */
  readonly widths: number;
  /** Kernels of the stages: 2: the smallest everywhere, or the largest; 4: also one in the earlier half of the stages and the other in the later. */
  readonly kernels: 2 | 4;
}

/** After training: enough to choose a family from. */
export const quickGrid: GridSize = { depths: 3, widths: 2, kernels: 2 };
/** The paper's (section 4.4): four depths, two widths, four kernels, at five resolutions. */
export const paperGrid: GridSize = { depths: 4, widths: 2, kernels: 4 };

/**
 * The coarse half of the search (the paper's section 3.2): resolutions, one depth and one width multiplier for the whole network, kernels by
 * stage. Every trained resolution and the biggest legal one. The smallest and the biggest child are among them.
 */
export function coarseGrid(space: MbconvSpace, size?: GridSize): MbconvArchitecture[];
export function coarseGrid(space: SearchSpace, size?: GridSize): Architecture[];
export function coarseGrid(space: SearchSpace, { depths, widths, kernels }: GridSize = quickGrid): Architecture[] {
  const legal = space.resolutions.filter((r) => r >= space.trainResolutions[0]!);
  const resolutions = [...new Set([...space.trainResolutions, legal.at(-1)!])];
  if (isNetworkSpace(space)) return resolutions.flatMap((resolution) => space.widths.map((width): Architecture => ({ resolution, width })));
  const place = (list: readonly number[], at: number): number => list[Math.round(at * (list.length - 1))]!;
  const steps = (n: number): number[] => Array.from({ length: n }, (_, i) => i / (n - 1));
  const half = space.stages.length / 2;
  const kernelAt: readonly ((stage: number) => number)[] = [() => 0, () => 1, (stage) => (stage < half ? 0 : 1), (stage) => (stage < half ? 1 : 0)];
  const grid = resolutions.flatMap((resolution) =>
    steps(depths).flatMap((depth) =>
      steps(widths).flatMap((width) =>
        kernelAt.slice(0, kernels).map((kernel): Architecture => ({
          resolution,
          stem: place(space.stem.channels, width),
          stages: space.stages.map((stage, i) => {
            const layer = { kernel: place(stage.kernels, kernel(i)), channels: place(stage.channels, width) };
            return Array.from({ length: place(stage.depths, depth) }, () => layer);
          }),
          head: place(space.head.channels, width),
        })),
      ),
    ),
  );
  const all = [smallest(space), biggest(space), ...grid];
  return [...new Map(all.map((architecture) => [formatArchitecture(architecture), architecture])).values()];
}

export interface MeasuredFrontier {
  readonly frontier: Frontier;
  /** Calibrated statistics of the frontier's children, by id. */
  readonly statistics: ReadonlyMap<string, Statistics>;
  /** Their golden logits; what int8 needs is computed when it is asked for. */
  readonly golden: ReadonlyMap<string, Float32Array>;
  readonly int8: ReadonlyMap<string, Int8Calibration>;
}

export interface MeasureOptions extends Pick<EvaluateOptions, 'signal'> {
  readonly progress?: (done: number, all: number, child: ChildRecord) => void;
}

/** Calibrates and measures every child of the coarse grid on a split, and keeps the frontier. The test split is refused. */
export async function coarseFrontier(
  engine: Engine,
  space: SearchSpace,
  weights: SharedWeights,
  source: CalibrationSource,
  split: Split,
  { progress, ...options }: MeasureOptions = {},
): Promise<MeasuredFrontier> {
  if (split.name === 'test') throw new Error('Children are chosen on validation or training images, never on the test split.');
  const grid = coarseGrid(space);
  const records: ChildRecord[] = [];
  const statistics = new Map<string, Statistics>();
  for (const architecture of grid) {
    const measured = await evaluate(engine, buildGraph(space, architecture), weights, source, split, options);
    const record = recordOf(space, architecture, measured.accuracy);
    records.push(record);
    statistics.set(record.id, measured.statistics);
    progress?.(records.length, grid.length, record);
  }
  const frontier = frontierOf(space, records);
  const kept = new Map(frontierChildren(frontier).map(({ id }) => [id, statistics.get(id)!]));
  const golden = await goldenLogitsOf(engine, { space, preprocessing: source.preprocessing, weights }, { frontier, statistics: kept }, options.signal);
  return { frontier, statistics: kept, golden, int8: new Map() };
}

/** Top-1 accuracy of every child of a frontier on the test split, by id: the final report, which decides nothing. */
export async function testScores(
  engine: Engine,
  space: SearchSpace,
  weights: SharedWeights,
  { frontier, statistics }: MeasuredFrontier,
  source: Pick<CalibrationSource, 'preprocessing'>,
  split: Split,
  options?: EvaluateOptions,
): Promise<Record<string, number>> {
  const scores: Record<string, number> = {};
  for (const { id, architecture } of frontierChildren(frontier)) {
    const graph = buildGraph(space, parseArchitecture(space, architecture));
    scores[id] = (await accuracy(engine, graph, weights, statistics.get(id)!, source, split, options)).value;
  }
  return scores;
}

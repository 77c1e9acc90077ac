import type { CalibrationSource } from '../calibrate/calibrate.js';
import { frontierChildren } from '../checkpoint/checkpoint.js';
import type { ChildRecord, Frontier } from '../checkpoint/frontier.js';
import type { Split } from '../data/dataset.js';
import { buildGraph } from '../graph/buildGraph.js';
import type { Engine } from '../graph/engine.js';
import type { Statistics } from '../graph/statistics.js';
import type { SharedWeights } from '../graph/weights.js';
import { biggest, formatArchitecture, parseArchitecture, smallest, type Architecture } from '../space/architecture.js';
import type { SearchSpace } from '../space/space.js';
import { accuracy, evaluate, type EvaluateOptions } from './evaluate.js';
import { frontierOf, recordOf } from './family.js';

/**
 * The coarse half of the search (the paper's section 3.2): resolutions, one depth, one width and one kernel multiplier for the whole
 * network. Every resolution from the smallest trained one to the biggest legal one in at most five steps; least, middle and most
 * depth; least and most width and kernel. The smallest and the biggest child are among them.
 */
export function coarseGrid(space: SearchSpace): Architecture[] {
  const legal = space.resolutions.filter((r) => r >= space.trainResolutions[0]!);
  const resolutions = [...new Set([...space.trainResolutions, legal.at(-1)!])];
  const place = (list: readonly number[], at: number): number => list[Math.round(at * (list.length - 1))]!;
  const grid = resolutions.flatMap((resolution) =>
    [0, 0.5, 1].flatMap((depth) =>
      [0, 1].flatMap((width) =>
        [0, 1].map((kernel): Architecture => ({
          resolution,
          stem: place(space.stem.channels, width),
          stages: space.stages.map((stage) => {
            const layer = { kernel: place(stage.kernels, kernel), channels: place(stage.channels, width) };
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
  return { frontier, statistics: kept };
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

import { calibrate } from '../../src/calibrate/calibrate.js';
import { goldenLogitsOf } from '../../src/calibrate/golden.js';
import { graphOf, openCheckpoint, writeCheckpoint, type Checkpoint } from '../../src/checkpoint/checkpoint.js';
import { familyNames, type ChildRecord, type FamilyName, type Frontier } from '../../src/checkpoint/frontier.js';
import { bicubic, type Preprocessing } from '../../src/data/preprocess.js';
import type { Statistics } from '../../src/graph/statistics.js';
import { onnxEngine } from '../../src/onnx/engine.js';
import { key, stream } from '../../src/random.js';
import { familyBudgets, recordOf } from '../../src/search/family.js';
import { biggest, smallest } from '../../src/space/architecture.js';
import { sampleArchitecture } from '../../src/space/sample.js';
import type { SearchSpace } from '../../src/space/space.js';
import { randomWeights } from './random.js';

export interface CheckpointOptions {
  readonly seed?: number;
  /** Names of the family whose statistics the checkpoint carries. Default: smallest, S and biggest. */
  readonly calibrated?: readonly FamilyName[];
  /** Calibration crops. Default 16, in batches of 8. */
  readonly crops?: number;
}

/**
 * Writes a checkpoint of random weights: every tensor matters, the crops are noise, the accuracies are made up (the more multiply-adds the
 * better), the statistics are computed. The family has one child near each of its budgets.
 */
export async function makeCheckpoint(space: SearchSpace, folder: string, options: CheckpointOptions = {}): Promise<Checkpoint> {
  const { seed = 1, calibrated = ['smallest', 'S', 'biggest'], crops: count = 16 } = options;
  const weights = randomWeights(space, seed);
  const size = Math.max(...space.trainResolutions);
  const preprocessing: Preprocessing = {
    shorterSide: size,
    crop: size,
    resize: bicubic,
    rounding: 'uint8-after-crop',
    mean: [0.49, 0.48, 0.45],
    deviation: [0.25, 0.24, 0.26],
    colour: 'RGB',
  };
  const draws = stream(key('test crops'), seed);
  const crops = Uint8Array.from({ length: count * size ** 2 * 3 }, () => draws.integer(256));
  const frontier = randomFrontier(space, seed);
  const statistics = new Map<string, Statistics>();
  for (const name of calibrated) {
    const { id, architecture } = frontier.family[name];
    const graph = graphOf({ manifest: { space } as Checkpoint['manifest'] }, architecture);
    statistics.set(id, (await calibrate(onnxEngine({ threads: 1 }), graph, weights, { crops: { crops, count }, preprocessing, batch: 8 })).statistics);
  }
  const test = Object.fromEntries(Object.values(frontier.family).map(({ id, accuracy }) => [id, accuracy!.value]));
  await writeCheckpoint(folder, {
    manifest: {
      name: `random-${space.name}`,
      space,
      dataset: {
        name: 'noise',
        classes: Array.from({ length: space.classes }, (_, i) => `class ${i}`) as [string, ...string[]],
        splits: '0'.repeat(64),
        images: { train: count, validation: 0, test: 0 },
      },
      preprocessing,
      training: {
        recipe: { seed },
        step: 0,
        totalSteps: 0,
        epochs: 0,
        seconds: 0,
        weights: 'initial',
        hardware: 'none',
        versions: {},
        commit: null,
      },
      calibration: { images: count, batch: 8 },
      scores: { split: 'test', images: 100, accuracy: test },
      licence: 'Apache-2.0',
    },
    weights,
    calibration: { crops, count },
    frontier,
    statistics,
    golden: await goldenLogitsOf(onnxEngine({ threads: 1 }), { space, preprocessing, weights }, { frontier, statistics }),
    int8: new Map(),
  });
  return openCheckpoint(folder);
}

/** A family with a child within each budget, and a front of these and a few more. */
function randomFrontier(space: SearchSpace, seed: number): Frontier {
  // Half of them at the lowest resolution, so that some lie near the smallest.
  const sampled = Array.from({ length: 64 }, (_, i) => recordOf(space, sampleArchitecture(space, [seed, i], i % 2 ? space.resolutions[0] : undefined)));
  const [low, high] = [recordOf(space, smallest(space)), recordOf(space, biggest(space))];
  const all = [low, ...sampled, high].sort((a, b) => a.costs.flops.value - b.costs.flops.value);
  const budgets = familyBudgets(space);
  const below = (limit: number): ChildRecord => all.findLast((child) => child.costs.flops.value <= limit)!;
  const family = { smallest: low, S: below(budgets.S), M: below(budgets.M), L: below(budgets.L), XL: below(budgets.XL), biggest: high };
  const span = Math.log(high.costs.flops.value / low.costs.flops.value);
  const measured = (child: ChildRecord): ChildRecord => ({
    ...child,
    accuracy: {
      value: Math.round(1e4 * (0.5 + (0.3 * Math.log(child.costs.flops.value / low.costs.flops.value)) / span)) / 1e4,
      split: 'validation',
      images: 5000,
    },
  });
  const named = Object.fromEntries(familyNames.map((name) => [name, measured(family[name])])) as Frontier['family'];
  return { family: named, front: [...new Map(Object.values(named).map((child) => [child.id, child])).values()] as Frontier['front'] };
}

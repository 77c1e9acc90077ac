import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { compareSides, outOfTolerance } from '../../bench/train/check.js';
import { planTraining, writePlan, type Planned } from '../../bench/train/plan.js';
import { bignas, pytorch } from '../../bench/train/sides.js';
import { batchNorms } from '../../src/graph/graph.js';
import type { SearchSpace } from '../../src/space/space.js';
import { cifar10 } from '../../src/space/presets/cifar10.js';
import { tiny } from '../../src/space/presets/tiny.js';

/** The trainer against an implementation of its step that shares no code with it: forward, backward, distillation, optimiser, average. */

let folder: string;
let python: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'bignas-bench-'));
  const setUp = new URL('../../../bench/train/setup.mjs', import.meta.url).href;
  python = await ((await import(setUp)) as { pytorch: () => Promise<string> }).pytorch();
});
after(() => rm(folder, { recursive: true, force: true }));

async function planned(space: SearchSpace, batch: number, parts: number): Promise<Planned> {
  const whole = await planTraining({ space, batch, parts, steps: 2, seed: 3, log: () => undefined });
  const plan = { ...whole.plan, recipe: { ...whole.plan.recipe, dropout: 0, labelSmoothing: 0.1, weightDecay: 1e-2 } };
  await writePlan(folder, { ...whole, plan });
  return { ...whole, plan };
}

async function wrong({ plan, weights }: Planned, replicas: number): Promise<string[]> {
  const sides = [await bignas(folder, { threads: 2 }, replicas), pytorch(folder, { python, threads: 2 }, plan.recipe.parts)] as const;
  try {
    return outOfTolerance(await compareSides(...sides, plan, weights.data, folder)).map(({ what }) => what);
  } finally {
    await Promise.all(sides.map((side) => side.close()));
  }
}

test("the trainer's steps have PyTorch's losses, gradient and weights", async () => {
  assert.deepEqual(await wrong(await planned(tiny, 12, 1), 1), []);
});

test('so they do in parts and replicas, and in the space that is timed', async () => {
  assert.deepEqual(await wrong(await planned(cifar10, 8, 2), 2), []);
});

test('the comparison fails where one side computes something else', async () => {
  const plan = await planned(tiny, 12, 1);
  // PyTorch alone reads the graphs: a batch norm's ε that is ten times too large.
  for (const graph of Object.values(plan.plan.graphs))
    for (const node of batchNorms(graph)) Object.assign(node, { epsilon: 10 * node.epsilon });
  await writePlan(folder, plan);
  assert.ok((await wrong(plan, 1)).includes('summed gradient of step 1'));
});

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { deviations, outOfTolerance, tolerance } from '../bench/train/check.js';
import { readPlan, writePlan, type Plan, type Planned } from '../bench/train/plan.js';
import { ownTimes } from '../bench/train/profile.js';
import { profileTable, spread, summarise, summaryTable } from '../bench/train/report.js';
import { peakOfTree, startSide } from '../bench/train/side.js';
import { sharedTensors } from '../src/graph/buildGraph.js';
import { initialWeights } from '../src/graph/weights.js';
import { tiny } from '../src/space/presets/tiny.js';
import { applyGradients, initialState } from '../src/train/rmsprop.js';
import { defaultRecipe } from '../src/train/recipe.js';
import { syntheticDataset } from './support/dataset.js';

const folder = await mkdtemp(join(tmpdir(), 'bignas-bench-test-'));
after(() => rm(folder, { recursive: true, force: true }));

const recipe = defaultRecipe({ seed: 1, batch: 4, steps: 2, stepsPerEpoch: 2, augmentation: 'flip', short: true, learningRate: 0.1 });
const steps = [0, 1].map(() => ({ rate: 0.1, children: ['biggest', 'smallest'], labels: [] }));

/** A side's trace by the trainer's own optimiser, from gradients made up here. */
function trace(gradientOf: (i: number) => number, losses: readonly (readonly number[])[] = [[2, 1], [1.5, 0.5]]) {
  const start = initialWeights(sharedTensors(tiny), 1);
  const state = initialState(start.like(start.data.slice()));
  const after = () => {
    applyGradients(state, start.like(start.data.map((_, i) => gradientOf(i))), 0.1, recipe);
    state.step++;
    const copy = (part: { data: Float32Array }): Float32Array => part.data.slice();
    return { weights: copy(state.weights), meanSquare: copy(state.meanSquare), momentum: copy(state.momentum), average: copy(state.average) };
  };
  return { start: start.data, trace: { losses, states: [after(), after()] as const } };
}

test('two sides that compute the same pass the check; a loss, a gradient or a NaN that differs does not', () => {
  const { start, trace: same } = trace((i) => Math.sin(i));
  const wrongOf = (other: typeof same): string[] => outOfTolerance(deviations(other, same, { recipe, steps }, start)).map(({ what }) => what);
  assert.deepEqual(wrongOf(same), []);
  assert.deepEqual(wrongOf(trace((i) => Math.sin(i) * (1 + tolerance / 10)).trace), []);
  assert.deepEqual(wrongOf({ ...same, losses: [[2, 1], [1.5, 0.51]] }), ['loss of step 2, child smallest']);
  assert.deepEqual(wrongOf({ ...same, losses: [[NaN, 1], [1.5, 0.5]] }), ['loss of step 1, child biggest']);
  // One weight in a hundred has another gradient, as where one layer's padding is wrong.
  assert.ok(wrongOf(trace((i) => Math.sin(i) + (i % 100 === 0 ? 0.1 : 0)).trace).includes('summed gradient of step 1'));
});

test('the gradient is read back from the momentum and the mean square of the first step', () => {
  const { start, trace: twice } = trace((i) => 2 * Math.sin(i));
  const { trace: once } = trace((i) => Math.sin(i));
  const gradient = deviations(twice, once, { recipe, steps }, start).find(({ what }) => what.startsWith('summed gradient'))!;
  assert.ok(Math.abs(gradient.relative - 1) < 1e-4, `${gradient.relative}`);
});

test('a plan comes back from its folder as it was written, with every step’s augmented crops', async () => {
  const dataset = syntheticDataset(4, 14, { train: 8, validation: 4, test: 4 });
  const weights = initialWeights(sharedTensors(tiny), 5);
  const images = await dataset.splits.train.crops([0, 1, 2, 3, 4, 5, 6, 7]);
  const plan: Plan = {
    space: tiny, recipe, preprocessing: dataset.preprocessing, labels: [...dataset.splits.train.labels], tensors: [], graphs: {}, steps,
  };
  const planned: Planned = { plan, weights, dataset, images };
  await writePlan(folder, planned);
  const read = await readPlan(folder);
  assert.deepEqual(read.plan, plan);
  assert.deepEqual(read.weights.data, weights.data);
  assert.deepEqual(await read.dataset.splits.train.crops([0, 1, 2, 3, 4, 5, 6, 7]), images);
  assert.equal((await readFile(join(folder, 'crops.bin'))).length, 2 * recipe.batch * 14 * 14 * 3);
});

test('the table has medians, quartiles and who is faster', () => {
  assert.deepEqual(spread([4, 1, 3, 2, 5]), { median: 3, lower: 2, upper: 4 });
  const rounds = [{ bignas: 1, PyTorch: 2 }, { bignas: 2, PyTorch: 2 }, { bignas: 1, PyTorch: 3 }];
  const summary = summarise(rounds, 'bignas', 100, { bignas: 2 ** 21, PyTorch: 2 ** 20 });
  assert.deepEqual(summary.map(({ ratio, imagesPerSecond }) => [ratio.median, imagesPerSecond.median]), [[1, 100], [2, 50]]);
  assert.match(summaryTable(summary, 'bignas'), /PyTorch +50 \(42–50\) +50 +2\.00 \(1\.50–2\.50\) +1 MiB/);
  const rows = [{ name: 'Conv2D', seconds: 0.3, calls: 20 }, { name: 'Mul', seconds: 0.1, calls: 4 }, { name: 'Add', seconds: 0.1, calls: 2 }];
  const table = profileTable({ title: 'Kernels', rows }, 0.5, 2, 1);
  assert.match(table, /Conv2D +150\.0 +60\.0 % +10/);
  assert.match(table, /2 more +100\.0 +40\.0 %/);
});

test("a profile's own times leave out idling and the addon's native functions", () => {
  const frame = (functionName: string, url: string) => ({ functionName, url, scriptId: '0', lineNumber: 6, columnNumber: 0 });
  const nodes = [frame('applyGradients', 'file:///x/dist/src/train/rmsprop.js'), frame('', ''), frame('(idle)', '')].map((callFrame, id) => ({ id, callFrame }));
  const rows = ownTimes({ nodes, samples: [0, 1, 0, 2], timeDeltas: [1000, 5000, 2000, 9000] });
  assert.deepEqual(rows, [{ name: 'applyGradients (src/train/rmsprop.js:7)', seconds: 0.003 }]);
});

test('a process and its children count as one in peak memory', async () => {
  const child = "const held = Buffer.alloc(100 * 2 ** 20, 1); process.stdout.write('held\\n'); setInterval(() => held, 1000)";
  const parent = spawn(process.execPath, ['-e', `require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(child)}], { stdio: ['pipe', 'inherit', 'inherit'] })`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    await new Promise((resolve) => parent.stdout.once('data', resolve));
    assert.ok(peakOfTree(parent.pid!) > 140 * 2 ** 20);
  } finally {
    for (const pid of (await readFile(`/proc/${parent.pid!}/task/${parent.pid!}/children`, 'utf8')).trim().split(' ')) process.kill(Number(pid));
    parent.kill();
  }
});

test('a side that dies is named, with what it was told', async () => {
  const side = startSide('PyTorch', [process.execPath, '-e', 'process.stdin.once("data", () => process.exit(3))'], {});
  await assert.rejects(side.run(2), /PyTorch ended with 3 when it was told \{"run":2\}/);
  await side.close();
});

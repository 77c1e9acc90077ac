import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { childNames, recipeOf, rows, runNamed, runs } from '../bench/evidence/plan.js';
import { writeReport } from '../bench/evidence/report.js';
import { readResult, resultFile, type Result } from '../bench/evidence/result.js';
import { frozenTeacher, jointTeacher } from '../bench/evidence/teachers.js';
import type { SharedWeights } from '../src/graph/weights.js';
import { biggest, formatArchitecture, parseArchitecture } from '../src/space/architecture.js';
import { tiny } from '../src/space/presets/tiny.js';
import { partGradients, type StepTask, type TrainingContext } from '../src/train/part.js';
import { defaultRecipe } from '../src/train/recipe.js';
import { applyGradients, initialState } from '../src/train/rmsprop.js';
import { learningRate } from '../src/train/schedule.js';
import { syntheticDataset } from './support/dataset.js';
import { randomWeights } from './support/random.js';

const root = mkdtempSync(join(tmpdir(), 'bignas-evidence-'));
after(() => rmSync(root, { recursive: true, force: true }));

test('every row runs what exists, what it needs included, and all sides have one budget', () => {
  for (const { runs: names } of rows) names.forEach(runNamed);
  for (const run of runs) {
    if (run.needs) assert.deepEqual(runNamed(run.needs).needs, undefined, 'what is needed needs nothing itself');
    const recipe = recipeOf(run, 1, 351);
    assert.equal(recipe.steps, run.training.kind === 'fineTuning' ? 351 : 5 * 351, run.name);
    assert.equal(recipe.batch, 128);
  }
  assert.equal(new Set(runs.map(({ name }) => name)).size, runs.length);
  assert.deepEqual(new Set(rows.flatMap((row) => row.runs)), new Set(runs.map(({ name }) => name)));
});

const dataset = syntheticDataset(4, 14, { train: 12, validation: 4, test: 4 });
const student = parseArchitecture(tiny, 'r10_c4_3x4_5x8-3x4_3x8-5x12_c24');
const indices = Uint32Array.from({ length: 12 }, (_, i) => i);
const recipe = defaultRecipe({ seed: 3, batch: 12, parts: 1, steps: 10, stepsPerEpoch: 1, augmentation: 'none', short: true, learningRate: 5, sandwich: [formatArchitecture(student)] });
const context: TrainingContext = { space: tiny, preprocessing: dataset.preprocessing, classes: 4, recipe };

async function task(weights: SharedWeights): Promise<StepTask> {
  const views = [await dataset.splits.train.crops(indices)];
  return { step: 4, seed: recipe.seed, weights: weights.data, parts: [{ indices, labels: dataset.splits.train.labels, views, share: 1 }] };
}

/** The student's gradient in a sandwich of one set of weights: that of both children less that of the biggest alone. */
async function inSandwich(weights: SharedWeights): Promise<{ student: Float64Array; teacher: Float32Array }> {
  const gradients = async (sandwich: [string, ...string[]]) => partGradients({ ...context, recipe: { ...recipe, sandwich } })(await task(weights))[0]!.gradients;
  const both = await gradients(['biggest', formatArchitecture(student)]);
  const teacher = await gradients(['biggest']);
  return { student: Float64Array.from(both, (g, i) => g - teacher[i]!), teacher };
}

function assertNear(actual: Float32Array, expected: ArrayLike<number>, what: string): void {
  const largest = Array.from(expected).reduce((most, g) => Math.max(most, Math.abs(g)), 0);
  assert(largest > 1e-3, `${what}: something to compare`);
  actual.forEach((g, i) => assert(Math.abs(g - expected[i]!) < 1e-4 * largest, `${what}: ${g} at ${i}, expected ${expected[i]}`));
}

test('a teacher trained alongside teaches as the sandwich\'s biggest child does, and learns as it does', async () => {
  const weights = randomWeights(tiny, 7);
  const state = initialState(weights.like(weights.data.slice()));
  const expected = await inSandwich(weights);
  const replicas = jointTeacher(context, state);
  const [result] = await replicas.run(await task(weights));
  assertNear(result!.gradients, expected.student, 'student');

  const alone = initialState(weights.like(weights.data.slice()));
  applyGradients(alone, weights.like(expected.teacher), learningRate(recipe, 4), recipe);
  const moved = alone.weights.data.map((w, i) => w - weights.data[i]!);
  assertNear(state.weights.data.map((w, i) => w - weights.data[i]!), moved, 'teacher');
  // Another step begins with no gradient of the last one.
  const again = initialState(weights.like(weights.data.slice()));
  const fresh = jointTeacher(context, again);
  await fresh.run(await task(weights));
  assert.deepEqual(again.weights.data, state.weights.data);
});

test('a frozen teacher teaches its own answers, at its own resolution', async () => {
  const weights = randomWeights(tiny, 7);
  const asked: number[] = [];
  // Sure of each image's label: a student learns from it as from the labels, without regularisation.
  const sure = {
    run: ({ data, count }: { readonly data: Float32Array; readonly count: number }) => {
      asked.push(data.length);
      return Promise.resolve(Float32Array.from({ length: count * 4 }, (_, i) => (dataset.splits.train.labels[Math.floor(i / 4)] === i % 4 ? 100 : 0)));
    },
    dispose: () => Promise.resolve(),
  };
  const architecture = biggest(tiny);
  const [result] = await frozenTeacher(context, { architecture, child: sure }).run(await task(weights));
  const plain = partGradients({ ...context, recipe: { ...recipe, dropout: 0, weightDecay: 0 } })(await task(weights))[0]!;
  assertNear(result!.gradients, plain.gradients, 'student');
  assert.deepEqual(asked, [12 * 3 * architecture.resolution ** 2]);
});

test('the report writes means and ranges between its markers, from results alone', async () => {
  const [docs, results] = [join(root, 'docs'), join(root, 'docs', 'evidence', 'results')];
  mkdirSync(results, { recursive: true });
  const sections = ['table-3', 'table-2', 'initialisation', 'schedule', 'regularisation', 'distillation', 'runs'];
  writeFileSync(join(docs, 'evidence.md'), `# Before\n${sections.map((name) => `<!-- ${name} -->\nold\n<!-- end of ${name} -->\n`).join('between\n')}after\n`);
  const result = (run: string, seed: number, of: number): Result => ({
    run, seed, space: 'cifar10-micro', recipe: recipeOf(runNamed(run), seed, 351), commit: 'abc', hardware: 'a processor', seconds: 60,
    validation: [{ step: 351, accuracy: { biggest: of, smallest: of / 2 } }, { step: 702, accuracy: { biggest: of, smallest: of / 2 } }],
    final: { validation: { biggest: of, smallest: of / 2 }, test: Object.fromEntries(childNames.map((child, i) => [child, of - i / 100])) },
  });
  const put = (r: Result): void => writeFileSync(resultFile(results, r.run, r.seed), JSON.stringify(r));
  put(result('supernet', 0, 0.6));
  put(result('supernet', 1, 0.64));
  put(result('he', 1, 0.5));
  await writeReport(docs, results);
  const text = readFileSync(join(docs, 'evidence.md'), 'utf8');
  assert.match(text, /\| zero γ \| 62\.0 \(60\.0–64\.0\) \| 61\.0 \(59\.0–63\.0\) /);
  assert.match(text, /\| He \| 50\.0 \(one seed\) /);
  assert.match(text, /\| biggest \| 2\.09 \| 59\.0 \(57\.0–61\.0\) \| – \| – \| – \| – \|/);
  assert.match(text, /3 runs, 0\.1 hours of training steps; the longest run of the supernet took 1\.0 minutes\./);
  assert(text.startsWith('# Before\n') && text.endsWith('after\n') && !text.includes('old'));
  const plot = readFileSync(join(docs, 'evidence', 'initialisation.svg'), 'utf8');
  assert.match(plot, />He<\/text>/);
  const ends = [...plot.matchAll(/<path [^>]*d="M[^"]+L(\S+),\S+?" stroke="#\w+" stroke-width="1.5"/g)].map(([, x]) => Number(x));
  assert.deepEqual(ends, Array(6).fill(560), 'all curves go to the end of the run');

  writeFileSync(resultFile(results, 'he', 1), '{"run":"he"}');
  await assert.rejects(readResult(results, 'he', 1), /is no result/);
  writeFileSync(join(docs, 'evidence.md'), '# Nothing\n');
  rmSync(resultFile(results, 'he', 1));
  await assert.rejects(writeReport(docs, results), /no markers of table-3/);
});

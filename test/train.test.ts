import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openCheckpoint } from '../src/checkpoint/checkpoint.js';
import { sharedTensors } from '../src/graph/buildGraph.js';
import { SharedWeights } from '../src/graph/weights.js';
import { onnxEngine } from '../src/onnx/engine.js';
import { stream } from '../src/random.js';
import { tiny } from '../src/space/presets/tiny.js';
import { tf } from '../src/tensorflow/tf.js';
import { defaultRecipe, type Recipe } from '../src/train/recipe.js';
import { applyGradients, initialState } from '../src/train/rmsprop.js';
import { learningRate } from '../src/train/schedule.js';
import { resumeRun } from '../src/train/runFolder.js';
import { runSession, type SessionOptions } from '../src/train/session.js';
import type { SessionReporter } from '../src/train/watch/events.js';
import { syntheticDataset } from './support/dataset.js';

const folder = await mkdtemp(join(tmpdir(), 'bignas-train-'));
after(() => rm(folder, { recursive: true, force: true }));

const dataset = syntheticDataset(4, 14, { train: 192, validation: 96, test: 64 });
const recipe = (steps: number): Recipe =>
  defaultRecipe({ seed: 3, batch: 24, steps, stepsPerEpoch: 8, augmentation: 'flip', short: true, learningRate: 0.02 });

interface Seen {
  readonly lines: string[];
  readonly steps: number[];
  readonly losses: number[];
}

function session(name: string, steps: number, options: Partial<SessionOptions> = {}): { options: SessionOptions; seen: Seen } {
  const seen: Seen = { lines: [], steps: [], losses: [] };
  return {
    seen,
    options: {
      space: tiny,
      dataset,
      recipe: recipe(steps),
      output: join(folder, name),
      resume: false,
      saveEvery: { steps: 5 },
      keep: 2,
      evaluateEvery: 1000,
      calibrationImages: 64,
      engine: onnxEngine({ threads: 1 }),
      replicas: 1,
      signal: new AbortController().signal,
      report: {
        line: (text) => seen.lines.push(text),
        step: ({ step, losses }) => {
          seen.steps.push(step);
          seen.losses.push(losses[0]!.loss);
        },
        evaluation: () => undefined,
        resumed: () => undefined,
        saved: () => undefined,
        rollback: () => undefined,
        recipeChanged: () => undefined,
      },
      ...options,
    },
  };
}

test('the learning rate warms up, decays exponentially and ends constant at 5 %', () => {
  const r: Recipe = { ...recipe(1000), learningRate: { initial: 0.1, warmup: 50, schedule: 'exponential', decay: 0.97, decaySteps: 5, floor: 0.05 } };
  assert.equal(learningRate(r, 0), 0.1 / 50);
  assert(Math.abs(learningRate(r, 49) - 0.1 * 0.97 ** (49 / 5)) < 1e-12);
  assert(Math.abs(learningRate(r, 105) / learningRate(r, 100) - 0.97) < 1e-12);
  const constantFrom = Math.ceil((5 * Math.log(0.05)) / Math.log(0.97));
  assert(learningRate(r, constantFrom - 2) > 0.1 * 0.05);
  for (const step of [constantFrom, 700, 999]) assert(Math.abs(learningRate(r, step) - 0.005) < 1e-15);
});

test("RMSProp's update is TensorFlow's", () => {
  const weights = new SharedWeights(sharedTensors(tiny).slice(0, 4));
  const draws = stream(1);
  weights.data.forEach((_, i) => (weights.data[i] = draws.normal()));
  const variable = tf.variable(tf.tensor1d(weights.data));
  const slots = [tf.variable(tf.onesLike(variable)), tf.variable(tf.zerosLike(variable))];
  const state = initialState(weights);
  for (let step = 0; step < 5; step++) {
    const gradients = weights.like(Float32Array.from(weights.data, () => draws.normal()));
    // The update rule written with tensors: Tieleman and Hinton's, ε inside the root as in TensorFlow.
    const g = tf.tensor1d(gradients.data);
    slots[0]!.assign(tf.add(tf.mul(0.9, slots[0]!), tf.mul(0.1, tf.square(g))));
    slots[1]!.assign(tf.add(tf.mul(0.9, slots[1]!), tf.div(tf.mul(0.05, g), tf.sqrt(tf.add(slots[0]!, 1e-3)))));
    variable.assign(tf.sub(variable, slots[1]!));
    applyGradients(state, gradients, 0.05, { rmsprop: { decay: 0.9, momentum: 0.9, epsilon: 1e-3 }, averaging: 0.999 });
    state.step++;
  }
  const expected = variable.dataSync();
  state.weights.data.forEach((w, i) => assert(Math.abs(w - expected[i]!) < 1e-5, `${w} ${expected[i]}`));
  assert(state.average.data.some((a, i) => a !== state.weights.data[i]));
});

test('a run learns, writes a checkpoint that opens, and measures its children', async () => {
  const { options, seen } = session('whole', 80);
  const finished = await runSession(options);
  assert.equal(finished, join(options.output, 'checkpoint'));
  const mean = (list: number[]): number => list.reduce((a, b) => a + b, 0) / list.length;
  assert(mean(seen.losses.slice(-8)) < 0.7 * mean(seen.losses.slice(0, 8)), `${seen.losses.slice(0, 8)} … ${seen.losses.slice(-8)}`);

  const checkpoint = await openCheckpoint(finished);
  const { manifest, frontier, statistics } = checkpoint;
  assert.equal(manifest.training.step, 80);
  assert.deepEqual(manifest.training.recipe, recipe(80));
  assert.deepEqual(Object.keys(frontier.family), ['smallest', 'S', 'M', 'L', 'XL', 'biggest']);
  for (const child of [...Object.values(frontier.family), ...frontier.front]) {
    assert.deepEqual([child.accuracy?.split, child.accuracy?.images], ['validation', 96]);
    assert(statistics.has(child.id));
    assert.equal(typeof manifest.scores!.accuracy[child.id], 'number');
  }
  assert(frontier.family.biggest.accuracy!.value > 0.5, `${frontier.family.biggest.accuracy!.value}`);
  // A run's own folder opens as its latest step, which any server takes.
  assert.equal((await openCheckpoint(options.output)).manifest.training.step, 80);
  assert.deepEqual((await readdir(options.output)).sort(), ['best', 'checkpoint', 'history.jsonl', 'latest', 'plot.png', 'plot.svg', 'step-75', 'step-80', 'tensorboard']);
});

test('an interrupted run that resumes ends with the same bits', async () => {
  const whole = session('unbroken', 23);
  await runSession(whole.options);
  let resumed = false;
  for (const at of [4, 11, 19, Infinity]) {
    const stop = new AbortController();
    const part = session('broken', 23, { resume: resumed, signal: stop.signal });
    const { report } = part.options;
    const stopping: SessionReporter = {
      ...report,
      step: (r) => {
        void report.step(r);
        if (r.step === at) stop.abort();
      },
    };
    const finished = await runSession({ ...part.options, report: stopping });
    assert.equal(finished !== undefined, at === Infinity);
    resumed = true;
  }
  const [a, b] = [await resumeRun(join(folder, 'unbroken')), await resumeRun(join(folder, 'broken'))];
  assert.equal(a.state.step, 23);
  for (const part of ['weights', 'meanSquare', 'momentum', 'average'] as const) assert.deepEqual(b.state[part].data, a.state[part].data, part);
});

test('a run is not overwritten, nor resumed under another recipe, nor from a damaged state', async () => {
  await runSession(session('guarded', 6).options);
  await assert.rejects(runSession(session('guarded', 6).options), /holds a run already/);
  await assert.rejects(runSession(session('guarded', 7, { resume: true }).options), /steps: the run has 6, asked for 7/);
  const narrower = { ...tiny, stages: tiny.stages.map((stage) => ({ ...stage, kernels: [3] })) } as unknown as typeof tiny;
  await assert.rejects(runSession(session('guarded', 6, { resume: true, space: narrower }).options), /another search space/);
  await assert.rejects(runSession(session('guarded', 6, { resume: true, dataset: { ...dataset, digest: '1'.repeat(64) } }).options), /another set of training images/);
  await writeFile(join(folder, 'guarded', 'lock'), `${process.ppid} ${hostname()}\n`);
  await assert.rejects(runSession(session('guarded', 6, { resume: true }).options), new RegExp(`Process ${process.ppid} on .* trains in`));
  await writeFile(join(folder, 'guarded', 'lock'), `4194303 ${hostname()}\n`); // of a process that is gone
  await mkdir(join(folder, 'guarded', '.step-3.partial-77'));
  const file = join(folder, 'guarded', 'step-6', 'training.safetensors');
  const bytes = await readFile(file);
  bytes[bytes.length - 3]! ^= 1;
  await writeFile(file, bytes);
  await assert.rejects(runSession(session('guarded', 6, { resume: true }).options), /training\.safetensors is damaged/);
  assert.deepEqual((await readdir(join(folder, 'guarded'))).filter((name) => name.startsWith('.') || name === 'lock'), []);
  await writeFile(join(folder, 'file'), '');
  await assert.rejects(runSession(session('file', 6).options), /cannot be written: .*give another --output/);
});

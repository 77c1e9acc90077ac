import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Tensor } from '@tensorflow/tfjs-node-gpu';
import { openCheckpoint } from '../src/checkpoint/checkpoint.js';
import type { TrainingRecord } from '../src/checkpoint/manifest.js';
import { batchIndices } from '../src/data/batches.js';
import type { BignasError } from '../src/errors.js';
import { sharedTensors } from '../src/graph/buildGraph.js';
import { initialWeights, SharedWeights } from '../src/graph/weights.js';
import { onnxEngine } from '../src/onnx/engine.js';
import { stream } from '../src/random.js';
import { biggest, smallest } from '../src/space/architecture.js';
import { tiny } from '../src/space/presets/tiny.js';
import { tf } from '../src/tensorflow/tf.js';
import { checkStep, type NotFinite } from '../src/train/divergence.js';
import { fromCheckpoint, takeWeights } from '../src/train/from.js';
import { defaultRecipe, type Recipe } from '../src/train/recipe.js';
import { applyGradients, initialState } from '../src/train/rmsprop.js';
import { learningRate } from '../src/train/schedule.js';
import { resumeRun, saveStep } from '../src/train/runFolder.js';
import { runSession, type SessionOptions } from '../src/train/session.js';
import type { Accuracies, Rollback, SessionReporter } from '../src/train/watch/events.js';
import { eventsOf, readHistory } from '../src/train/watch/history.js';
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
  readonly evaluations: Map<number, Accuracies>;
  readonly rollbacks: Rollback[];
}

function session(name: string, steps: number, options: Partial<SessionOptions> = {}): { options: SessionOptions; seen: Seen } {
  const seen: Seen = { lines: [], steps: [], losses: [], evaluations: new Map(), rollbacks: [] };
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
        evaluation: (step, accuracies) => void seen.evaluations.set(step, accuracies),
        resumed: () => undefined,
        saved: () => undefined,
        rollback: (event) => void seen.rollbacks.push(event),
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

/** Runs a session and stops it when a step is reported for which `at` holds. */
function stopping({ options }: ReturnType<typeof session>, at: (step: number) => boolean): Promise<string | undefined> {
  const stop = new AbortController();
  const report: SessionReporter = {
    ...options.report,
    step: (event) => {
      void options.report.step(event);
      if (at(event.step)) stop.abort();
    },
  };
  return runSession({ ...options, report, signal: stop.signal });
}

async function assertSameBits(run: string, expected: string): Promise<void> {
  const [a, b] = [await resumeRun(join(folder, expected)), await resumeRun(join(folder, run))];
  assert.equal(b.state.step, a.state.step);
  for (const part of ['weights', 'meanSquare', 'momentum', 'average'] as const) assert.deepEqual(b.state[part].data, a.state[part].data, part);
}

const read = (run: string, file: string): Promise<string> => readFile(join(folder, run, file), 'utf8');
const stepsIn = async (run: string): Promise<string[]> => (await readdir(join(folder, run))).filter((name) => name.startsWith('step-')).sort();

test('an interrupted run that resumes ends with the same bits, and the same best step', async () => {
  const evaluateEvery = 4;
  const whole = session('unbroken', 23, { evaluateEvery });
  await runSession(whole.options);
  const evaluations = new Map<number, Accuracies>();
  for (const at of [3, 8, 12, 19, Infinity]) { // 8 and 12 are evaluated: by the session that resumes
    const part = session('broken', 23, { resume: at > 3, evaluateEvery });
    assert.equal((await stopping(part, (step) => step === at)) !== undefined, at === Infinity);
    for (const [step, accuracies] of part.seen.evaluations) evaluations.set(step, accuracies);
  }
  await assertSameBits('broken', 'unbroken');
  assert.deepEqual(evaluations, whole.seen.evaluations);
  assert.deepEqual([...evaluations.keys()], [4, 8, 12, 16, 20, 23]);

  const mean = ({ biggest, smallest }: Accuracies): number => (biggest + smallest) / 2;
  const highest = Math.max(...[...evaluations.values()].map(mean));
  const [best, accuracies] = [...evaluations].find(([, accuracies]) => mean(accuracies) === highest)!;
  for (const run of ['unbroken', 'broken']) {
    assert.equal(await read(run, 'best'), `step-${best}\n`);
    const { manifest } = await openCheckpoint(join(folder, run, `step-${best}`));
    assert.deepEqual(manifest.training.validation, { images: 96, ...accuracies });
    assert.deepEqual(await stepsIn(run), [...new Set([`step-${best}`, 'step-20', 'step-23'])].sort());
  }
});

test('the best step is kept however old it is, and found again where a kill kept it from being named', async () => {
  // The children's true accuracy rises. Answers that do not depend on them have the best step be the first one, by the tie.
  const engine: SessionOptions['engine'] = { ...onnxEngine({ threads: 1 }), load: () => Promise.resolve({ run: ({ count }) => Promise.resolve(new Float32Array(4 * count)), dispose: () => Promise.resolve() }) };
  const options = { engine, evaluateEvery: 3, saveEvery: { steps: 2 }, keep: 3 };
  assert.equal(await stopping(session('best', 20, options), (step) => step === 17), undefined);
  assert.equal(await read('best', 'best'), 'step-3\n');
  assert.deepEqual(await stepsIn('best'), ['step-14', 'step-16', 'step-17', 'step-3']);
  assert.equal(await stopping(session('best2', 20, options), (step) => step === 4), undefined);
  await rm(join(folder, 'best2', 'step-4'), { recursive: true });
  await rm(join(folder, 'best2', 'best'));
  await writeFile(join(folder, 'best2', 'latest'), 'step-3\n'); // as a kill leaves it between the two renamings
  await stopping(session('best2', 20, { ...options, resume: true }), (step) => step === 5);
  assert.equal(await read('best2', 'best'), 'step-3\n');
});

test('a signal is heard within a step, also where no step waits for anything', async () => {
  const stop = new AbortController();
  const { options, seen } = session('signalled', 400, { saveEvery: { steps: 1000 }, signal: stop.signal });
  const report: SessionReporter = { ...options.report, step: (event) => { void options.report.step(event); if (event.step === 3) setTimeout(() => stop.abort(), 0); } };
  assert.equal(await runSession({ ...options, report }), undefined);
  assert(seen.steps.length < 8, `${seen.steps.length} steps`);
  assert.equal(await read('signalled', 'latest'), `step-${seen.steps.length}\n`);
});

test('a signal during an evaluation or the measuring ends the run at once; resumed, it evaluates and measures', async () => {
  await runSession(session('quiet', 6, { evaluateEvery: 4 }).options);
  const expected = await openCheckpoint(join(folder, 'quiet', 'checkpoint'));
  // Batches of images before the signal, in session after session: in the evaluation of step 4, of step 6, among the grid's 60 children, in the golden logits of those that are kept, in the tests.
  for (const [calls, step] of [[1, 4], [4, 6], [12, 6], [62, 6], [62 + expected.golden.size, 6]] as const) {
    const stop = new AbortController();
    const onnx = onnxEngine({ threads: 1 });
    let left: number = calls;
    const engine: SessionOptions['engine'] = {
      ...onnx,
      load: async (...args) => {
        const child = await onnx.load(...args);
        return {
          dispose: () => child.dispose(),
          run: (batch) => {
            if (--left === 0) stop.abort();
            return child.run(batch);
          },
        };
      },
    };
    const { options, seen } = session('stopped', 6, { evaluateEvery: 4, engine, resume: true, signal: stop.signal });
    assert.equal(await runSession(options), undefined);
    assert(stop.signal.aborted && left === 0, `after ${calls} batches ${-left} more: ${seen.lines.join('\n')}`);
    assert.equal(await read('stopped', 'latest'), `step-${step}\n`);
  }
  const { frontier, manifest } = await openCheckpoint((await runSession(session('stopped', 6, { evaluateEvery: 4, resume: true }).options))!);
  assert.deepEqual(frontier, expected.frontier);
  assert.deepEqual(manifest.scores, expected.manifest.scores);
  assert.equal(await read('stopped', 'best'), await read('quiet', 'best'));
});

/** Where this holds for the labels of a part of a batch, its losses are not numbers: as if the batch were at fault. */
let faulty: (labels: readonly number[]) => boolean = () => false;

{
  const [oneHot, log] = (['OneHot', 'Log'] as const).map((name) => tf.getKernel(name, 'tensorflow'));
  let fails = false;
  const replace = (kernel: typeof oneHot, kernelFunc: NonNullable<typeof oneHot>['kernelFunc']): void => {
    tf.unregisterKernel(kernel!.kernelName, 'tensorflow');
    tf.registerKernel({ ...kernel!, kernelFunc });
  };
  replace(oneHot, (args) => {
    fails = faulty([...tf.tidy(() => (args.inputs['indices'] as Tensor).clone().dataSync())]);
    return oneHot!.kernelFunc(args);
  });
  replace(log, (args) => {
    const y = log!.kernelFunc(args) as Tensor;
    return fails ? tf.tidy(() => tf.mul(y, NaN)) : y;
  });
}

/** Labels of the first part of the batch of a step, from 0, under the recipe's seed. */
const labelsOf = (step: number): string => Array.from(batchIndices(192, 24, 3, step).indices.slice(0, 12), (i) => i % 4).join();

test('a step that is not finite sends the run back to its last checkpoint, from where it draws anew; the same rollbacks give the same bits', async () => {
  const last = (step: number): boolean => step === 16; // the children's accuracies do not matter here
  await stopping(session('sound', 16), last);
  faulty = (labels) => [12, 3].map(labelsOf).includes(labels.join()); // step 4 before the first checkpoint, step 13 after the second
  try {
    const { options, seen } = session('back', 16);
    await stopping({ options, seen }, last);
    // Other draws since step 0: the batch that would fail in step 13 is not drawn any more.
    const [{ children, ...rollback }] = (await openCheckpoint(join(folder, 'back'))).manifest.training.rollbacks! as [NonNullable<TrainingRecord['rollbacks']>[number]];
    assert.equal(seen.rollbacks.length, 1);
    assert.deepEqual([rollback.from, rollback.to, rollback.salt], [4, 0, 1]);
    assert.match(rollback.reason, /^The loss of step 4 is NaN in the child r\d+_/);
    assert.equal(children.length, 4);
    assert.deepEqual(seen.steps, [1, 2, 3, ...Array.from({ length: 16 }, (_, i) => i + 1)]);
    assert.deepEqual(eventsOf(await readHistory(options.output), 'rollback').map(({ from, step, salt }) => [from, step, salt]), [[4, 0, 1]]);
    assert.notDeepEqual((await resumeRun(options.output)).state.weights.data, (await resumeRun(join(folder, 'sound'))).state.weights.data);

    faulty = (labels) => labels.join() === labelsOf(12);
    const later = session('back2', 16);
    await stopping(later, last);
    assert.deepEqual(later.seen.rollbacks.map(({ from, to, salt }) => [from, to, salt]), [[13, 10, 1]]);
    assert.deepEqual(later.seen.steps, [...Array.from({ length: 12 }, (_, i) => i + 1), 11, 12, 13, 14, 15, 16]);

    // Stopped on its second way through step 12: the rest knows the salt.
    const broken = session('back3', 16);
    await stopping(broken, (step) => step === 12 && broken.seen.rollbacks.length === 1);
    const rest = session('back3', 16, { resume: true });
    await stopping(rest, last);
    assert.deepEqual(rest.seen.steps, [13, 14, 15, 16]);
    await assertSameBits('back3', 'back2');
    assert.deepEqual((await openCheckpoint(join(folder, 'back3'))).manifest.training.rollbacks!.map(({ from, to, salt }) => [from, to, salt]), [[13, 10, 1]]);
  } finally {
    faulty = () => false;
  }
});

test('a run goes back three times at most, over all its sessions, and then stops with a report', async () => {
  try {
    const { options, seen } = session('lost', 16);
    await stopping({ options, seen }, (step) => step === 6);
    faulty = () => true;
    const second = session('lost', 16, { resume: true });
    await assert.rejects(runSession(second.options), (error: BignasError) => {
      assert.equal(error.code, 'LOSS_NOT_FINITE');
      assert.match(error.message, /step 7 .* went back 3 times already.*not-finite\.json.*--change-recipe and a lower --learning-rate \(it is 0\.02\)/s);
      return true;
    });
    assert.deepEqual(second.seen.rollbacks.map(({ from, to, salt }) => [from, to, salt]), [[7, 6, 1], [7, 6, 2], [7, 6, 3]]);
    const report = JSON.parse(await read('lost', 'not-finite.json')) as { from: number; children: string[]; rollbacks: unknown[] };
    assert.deepEqual([report.from, report.children.length, report.rollbacks.length], [7, 4, 3]);
    const third = session('lost', 16, { resume: true });
    await assert.rejects(runSession(third.options), /went back 3 times already/);
    assert.deepEqual(third.seen.rollbacks, []);
    faulty = () => false;
    await stopping(session('lost', 16, { resume: true }), (step) => step === 8);
    assert.equal(await read('lost', 'latest'), 'step-8\n');
  } finally {
    faulty = () => false;
  }
});

test('replicas go back and stop as one process does', async () => {
  // At this rate a few steps are enough for weights that are no numbers.
  const { options, seen } = session('lost by two', 12, { recipe: { ...recipe(12), learningRate: { ...recipe(12).learningRate, initial: 1e30, warmup: 0 } }, replicas: 2 });
  await assert.rejects(runSession(options), { code: 'LOSS_NOT_FINITE', message: /went back 3 times already/ });
  assert.deepEqual(seen.rollbacks.map(({ to, salt }) => [to, salt]), [[0, 1], [0, 2], [0, 3]]);
  assert.equal((await resumeRun(options.output)).state.step, 0);
});

test('a gradient that is not finite, or whose square is not, is found; a state that is not finite is never written', async () => {
  const state = initialState(new SharedWeights(sharedTensors(tiny)));
  const gradients = state.weights.like();
  const losses = [{ architecture: biggest(tiny), loss: 1 }];
  checkStep(1, losses, gradients);
  for (const value of [Infinity, NaN, -Infinity, 1e25]) {
    gradients.data[7] = value;
    assert.throws(() => checkStep(5, losses, gradients), (error: NotFinite) => error.step === 5 && error.children[0]!.startsWith('r') && /gradient of step 5/.test(error.message));
  }
  assert.throws(() => checkStep(5, [...losses, { architecture: smallest(tiny), loss: Infinity }], state.weights), /loss of step 5 is Infinity in the child/);
  for (const part of ['weights', 'meanSquare', 'momentum', 'average'] as const) {
    state[part].data[3] = NaN;
    await assert.rejects(saveStep(join(folder, 'nowhere'), {} as Parameters<typeof saveStep>[1], state, 2), { code: 'LOSS_NOT_FINITE' });
    state[part].data[3] = 0;
  }
});

test('a run goes on under another recipe where it is told to, and says so; what cannot change does not', async () => {
  await stopping(session('changed', 6), (step) => step === 6);
  const longer = { ...recipe(10), batch: 48, stepsPerEpoch: 4 };
  const change = { recipe: longer, resume: true, changeRecipe: true };
  const narrower = { ...tiny, stages: tiny.stages.map((stage) => ({ ...stage, kernels: [3] })) } as unknown as typeof tiny;
  for (const [options, message] of [
    [{ space: narrower }, /another search space/],
    [{ dataset: { ...dataset, digest: '1'.repeat(64) } }, /another set of training images/],
    [{ dataset: { ...dataset, preprocessing: { ...dataset.preprocessing, shorterSide: 20, crop: 20 } } }, /cuts its images to 14 pixels, asked for 20/],
    [{ recipe: recipe(5) }, /has done 6 steps, asked for 5/],
    [{ recipe: { ...longer, initialisation: 'he' } }, /Leave --initialisation/],
  ] as const)
    await assert.rejects(runSession(session('changed', 10, { ...change, ...options }).options), (error: BignasError) => error.code === 'RESUME_MISMATCH' && message.test(error.message));
  // Recorded before the first step: who is stopped there goes on without being told again.
  await runSession(session('changed', 10, { ...change, signal: AbortSignal.abort() }).options);
  const { options, seen } = session('changed', 10, { recipe: longer, resume: true });
  const { manifest } = await openCheckpoint((await runSession(options))!);
  assert.deepEqual(seen.steps, [7, 8, 9, 10]);
  assert.deepEqual(manifest.training.recipe, longer);
  const [{ step, changes }] = manifest.training.recipeChanges! as [NonNullable<TrainingRecord['recipeChanges']>[number]];
  assert.equal(step, 6);
  for (const expected of [{ option: 'steps', from: 6, to: 10 }, { option: 'batch', from: 24, to: 48 }])
    assert.deepEqual(changes.find(({ option }) => option === expected.option), expected);
  assert(changes.some(({ option }) => option.startsWith('learningRate.')) && !changes.some(({ option }) => option === 'seed'));
  assert.equal(manifest.training.epochs, 6 / 8 + 4 / 4);
  assert.deepEqual(eventsOf(await readHistory(options.output), 'recipe').map((event) => [event.step, event.changes]), [[6, changes]]);
});

test('a run goes on with more children a step, or fewer, and can be resumed after it', async () => {
  await stopping(session('sandwiches', 3), (step) => step === 3);
  for (const [steps, sandwich] of [[4, ['biggest', 'smallest']], [5, ['biggest', 'random', 'random', 'random', 'smallest']]] as const) {
    const changed = { recipe: { ...recipe(steps), sandwich: [...sandwich] as [string, ...string[]] } };
    await stopping(session('sandwiches', steps, { ...changed, resume: true, changeRecipe: true }), (step) => step === steps);
    await runSession(session('sandwiches', steps, { ...changed, resume: true, signal: AbortSignal.abort() }).options);
  }
  assert.deepEqual((await resumeRun(join(folder, 'sandwiches'))).manifest.training.recipeChanges!.map(({ changes }) => changes.find(({ option }) => option === 'sandwich')!.to), [
    ['biggest', 'smallest'],
    ['biggest', 'random', 'random', 'random', 'smallest'],
  ]);
  // What was written before lists were one option.
  const path = join(folder, 'sandwiches', 'step-5', 'manifest.json');
  const manifest = JSON.parse(await readFile(path, 'utf8')) as { training: { recipeChanges: unknown[] } };
  manifest.training.recipeChanges.push({ step: 5, changes: [{ option: 'sandwich.2', from: 'random' }] });
  await writeFile(path, JSON.stringify(manifest));
  assert.equal((await resumeRun(join(folder, 'sandwiches'))).state.step, 5);
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

test('a run begins from the weights of a checkpoint, and of other classes draws the classifier anew', async () => {
  const trained = session('from-trained', 6);
  const checkpoint = await openCheckpoint((await runSession(trained.options))!);

  const same = fromCheckpoint(checkpoint, tiny, dataset.classes);
  const kept = initialWeights(sharedTensors(tiny), 3);
  takeWeights(kept, same, tiny);
  assert.deepEqual(kept.data, checkpoint.weights.data);
  assert.equal(same.record.classifier, 'kept');

  const wide = { ...tiny, classes: tiny.classes + 2 };
  const other = fromCheckpoint(checkpoint, wide, Array.from({ length: wide.classes }, (_, i) => `class ${i}`));
  const [drawn, fresh] = [initialWeights(sharedTensors(wide), 3), initialWeights(sharedTensors(wide), 3)];
  takeWeights(drawn, other, wide);
  for (const { name } of drawn.tensors)
    assert.deepEqual(drawn.tensor(name), name.startsWith('classifier') ? fresh.tensor(name) : checkpoint.weights.tensor(name), name);
  // As many classes, but others: their classifier is of no use either.
  assert.equal(fromCheckpoint(checkpoint, tiny, dataset.classes.map((name) => `another ${name}`)).record.classifier, 'drawn');
  assert.throws(() => fromCheckpoint(checkpoint, { ...tiny, name: 'tinier', stages: tiny.stages.slice(0, -1) } as typeof tiny, dataset.classes), /do not fit/);

  // Also of one that was killed before its first checkpoint.
  const killed = session('from-killed', 4, { from: same });
  await assert.rejects(runSession({ ...killed.options, report: { ...killed.options.report, step: () => { throw new Error('killed'); } } }), /killed/);
  await stopping(session('from-killed', 4, { resume: true }), (step) => step === 4);
  assert.deepEqual((await resumeRun(killed.options.output)).manifest.training.from, same.record);

  // It is in the manifest, which a resumed run keeps; a run from elsewhere is not gone on with.
  const stop = new AbortController();
  const begun = session('from', 6, { from: same, signal: stop.signal });
  begun.options.report.step = ({ step }) => {
    if (step === 3) stop.abort();
  };
  await runSession(begun.options);
  await assert.rejects(runSession({ ...begun.options, resume: true, from: { ...same, record: { ...same.record, digest: '0'.repeat(64) } } }), /began from the checkpoint/);
  await assert.rejects(runSession({ ...trained.options, resume: true, from: same }), /began from random weights/);
  const unbroken = session('from-unbroken', 6, { from: same });
  const [a, b] = await Promise.all([runSession({ ...session('from', 6).options, resume: true }), runSession(unbroken.options)].map(async (run) => openCheckpoint((await run)!)));
  assert.deepEqual(a!.manifest.training.from, same.record);
  assert.deepEqual(a!.weights.data, b!.weights.data);
  assert.notDeepEqual(a!.weights.data, checkpoint.weights.data);
});

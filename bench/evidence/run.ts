/** One run, in a process of its own: node run.js RUN SEED RESULTS WORK SCALE */
import { mkdir, readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { calibrate } from '../../src/calibrate/calibrate.js';
import { json } from '../../src/checkpoint/checkpoint.js';
import { weightTensors } from '../../src/checkpoint/tensors.js';
import { decodeSafetensors, encodeSafetensors } from '../../src/checkpoint/safetensors.js';
import { stepsPerEpoch } from '../../src/data/batches.js';
import { calibrationCrops } from '../../src/data/calibrationCrops.js';
import { loadCifar10 } from '../../src/data/cifar10.js';
import type { SplitName } from '../../src/data/dataset.js';
import { writeFileAtomic } from '../../src/files/atomic.js';
import { buildGraph, sharedTensors } from '../../src/graph/buildGraph.js';
import { initialWeights, type SharedWeights } from '../../src/graph/weights.js';
import { onnxEngine } from '../../src/onnx/engine.js';
import { evaluate } from '../../src/search/evaluate.js';
import { biggest } from '../../src/space/architecture.js';
import type { TrainingContext } from '../../src/train/part.js';
import { localReplica, type Replicas } from '../../src/train/replicas.js';
import { initialState } from '../../src/train/rmsprop.js';
import { commit } from '../../src/train/runManifest.js';
import { train } from '../../src/train/trainer.js';
import { batch, children, recipeOf, runNamed, space, type ChildName } from './plan.js';
import { resultFile, weightsFile, type Result } from './result.js';
import { frozenTeacher, jointTeacher } from './teachers.js';

const [name, seedText, results, work, scaleText] = process.argv.slice(2) as [string, string, string, string, string];
const [seed, scale] = [Number(seedText), Number(scaleText)];
const run = runNamed(name);
const { training } = run;

const dataset = await loadCifar10({ log: console.log });
const { splits, preprocessing, classes } = dataset;
const recipe = recipeOf(run, seed, stepsPerEpoch(splits.train.count, batch), scale);
const context: TrainingContext = { space, preprocessing, classes: classes.length, recipe };
const engine = onnxEngine({ threads: 1 });
const { crops, indices } = await calibrationCrops(splits.train, 512, 0);
const source = { crops: { crops, count: indices.length }, preprocessing, batch: 128 };

const begin = (): SharedWeights => initialWeights(sharedTensors(space), recipe.seed, recipe.initialisation);
const state = initialState(training.kind === 'fineTuning' ? await savedWeights(run.needs!) : begin());
const watched: readonly ChildName[] = training.kind === 'supernet' ? ['biggest', 'smallest'] : run.measured;
const validation: Result['validation'][number][] = [];
const every = Math.ceil(recipe.stepsPerEpoch / 2);

await train({
  dataset,
  recipe,
  state,
  replicas: await replicas(),
  afterStep: async ({ step, losses }) => {
    if (step % every !== 0) return;
    validation.push({ step, accuracy: await accuracies(watched, 'validation') });
    console.log(`${name} seed ${seed}: step ${step}/${recipe.steps}, loss ${losses[0]!.loss.toFixed(3)}, ${JSON.stringify(validation.at(-1)!.accuracy)}, ${((recipe.batch * step) / state.seconds).toFixed(0)} images/s`);
  },
});

await mkdir(results, { recursive: true });
await mkdir(work, { recursive: true });
await writeFileAtomic(weightsFile(work, name, seed), encodeSafetensors(weightTensors(state.average)));
const result: Result = {
  run: name,
  seed,
  space: space.name,
  recipe,
  commit: commit(),
  hardware: `1 thread of ${cpus()[0]?.model ?? 'unknown processor'}`,
  seconds: state.seconds,
  validation,
  final: { validation: await accuracies(run.measured, 'validation'), test: await accuracies(run.measured, 'test') },
};
await writeFileAtomic(resultFile(results, name, seed), json(result));
console.log(`${name} seed ${seed}: ${JSON.stringify(result.final.test)} on the test images, ${(state.seconds / 60).toFixed(1)} minutes`);

async function replicas(): Promise<Replicas> {
  switch (training.kind) {
    case 'frozenTeacher': {
      const architecture = biggest(space);
      const graph = buildGraph(space, architecture);
      const weights = await savedWeights(run.needs!);
      return frozenTeacher(context, { architecture, child: await engine.load(graph, weights, (await calibrate(engine, graph, weights, source)).statistics) });
    }
    case 'jointTeacher':
      return jointTeacher(context, initialState(begin()));
    default:
      return localReplica(context);
  }
}

async function accuracies(names: readonly ChildName[], split: SplitName): Promise<Partial<Record<ChildName, number>>> {
  const measured: Partial<Record<ChildName, number>> = {};
  for (const child of names) measured[child] = (await evaluate(engine, buildGraph(space, children[child]), state.average, source, splits[split])).accuracy.value;
  return measured;
}

async function savedWeights(of: string): Promise<SharedWeights> {
  const tensors = decodeSafetensors(await readFile(weightsFile(work, of, seed)));
  const weights = begin();
  for (const { name: tensor } of weights.tensors) weights.tensor(tensor).set(tensors.get(tensor)!.data);
  return weights;
}

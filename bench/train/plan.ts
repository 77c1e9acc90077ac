import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { batchIndices } from '../../src/data/batches.js';
import { loadCifar10 } from '../../src/data/cifar10.js';
import { memorySplit, type Dataset } from '../../src/data/dataset.js';
import { fixedCrop, type Preprocessing } from '../../src/data/preprocess.js';
import { buildGraph, sharedTensors } from '../../src/graph/buildGraph.js';
import type { Graph } from '../../src/graph/graph.js';
import { SharedWeights, initialWeights } from '../../src/graph/weights.js';
import { key, stream } from '../../src/random.js';
import { formatArchitecture } from '../../src/space/architecture.js';
import type { SearchSpace } from '../../src/space/space.js';
import { defaultRecipe, type Recipe } from '../../src/train/recipe.js';
import { sandwich } from '../../src/train/children.js';
import { learningRate } from '../../src/train/schedule.js';

/**
 * What both sides compute, as a folder: `plan.json`, `weights.bin` (float32, one tensor after the other), `images.bin` (uint8 crops that
 * our trainer draws and augments), `crops.bin` (the crops that it comes to, step by step, for the side that has no data pipeline).
 */
export interface Plan {
  readonly space: SearchSpace;
  readonly recipe: Recipe;
  readonly preprocessing: Preprocessing;
  readonly labels: readonly number[];
  readonly tensors: readonly { readonly name: string; readonly shape: readonly number[]; readonly decays: boolean }[];
  /** By the architecture's text. */
  readonly graphs: Readonly<Record<string, Graph>>;
  readonly steps: readonly PlannedStep[];
}

export interface PlannedStep {
  readonly rate: number;
  /** Texts of architectures, the biggest first. */
  readonly children: readonly string[];
  readonly labels: readonly number[];
}

export interface PlanOptions {
  readonly space: SearchSpace;
  readonly batch: number;
  /** Parts of a batch; the recipe's own number where not given. */
  readonly parts?: number | undefined;
  readonly steps: number;
  readonly seed: number;
  readonly log: (line: string) => void;
}

/** A plan with what goes into its folder. */
export interface Planned {
  readonly plan: Plan;
  readonly weights: SharedWeights;
  readonly dataset: Dataset;
  /** All of the training split, as `crops` gives them. */
  readonly images: Uint8Array;
}

/** Batches in an epoch of the plan: few, so that neither side's memory is that of a data set. */
const batches = 16;

/** The space, with a class for each of CIFAR-10's at least, and real images of the space's crop size. */
export async function realImages(space: SearchSpace, count: number, log: (line: string) => void): Promise<{ space: SearchSpace; dataset: Dataset }> {
  const cifar = await loadCifar10({ log });
  const { train } = cifar.splits;
  const side = cifar.preprocessing.crop;
  const indices = Uint32Array.from({ length: count }, (_, i) => i % train.count);
  const crops = await train.crops(indices);
  const labels = Array.from(indices, (i) => train.labels[i]!);
  const classes = Math.max(space.classes, cifar.classes.length);
  // The paper's fixed crop; CIFAR-10's photos are enlarged to it.
  const crop = space.name === 'imagenet' ? 224 : side;
  const preprocessing: Preprocessing = { ...cifar.preprocessing, shorterSide: crop, crop };
  const fitted = new Uint8Array(count * crop * crop * 3);
  for (let i = 0; i < count; i++)
    fitted.set(fixedCrop({ pixels: crops.subarray(i * side * side * 3, (i + 1) * side * side * 3), height: side, width: side }, preprocessing), i * crop * crop * 3);
  return { space: { ...space, classes }, dataset: datasetOf(preprocessing, classes, fitted, labels) };
}

function datasetOf(preprocessing: Preprocessing, classes: number, crops: Uint8Array, labels: readonly number[]): Dataset {
  const split = memorySplit('train', crops, labels, preprocessing.crop);
  return {
    name: 'benchmark',
    source: 'CIFAR-10',
    classes: Array.from({ length: classes }, (_, i) => `class ${i}`),
    preprocessing,
    splits: { train: split, validation: split, test: split },
    augmentation: 'cifar',
    digest: '',
  };
}

/** The paper's recipe as `bignas-train` takes it, and a plan of its first steps. */
export async function planTraining(options: PlanOptions): Promise<Planned> {
  const { batch, parts, steps, seed } = options;
  const { space, dataset } = await realImages(options.space, batches * batch, options.log);
  const short = space.name !== 'imagenet';
  const recipe = defaultRecipe({ seed, batch, parts, steps, stepsPerEpoch: batches, augmentation: short ? dataset.augmentation : 'flip', short });
  const { train } = dataset.splits;
  const graphs: Record<string, Graph> = {};
  const planned = Array.from({ length: steps }, (_, step): PlannedStep => {
    const children = sandwich(space, recipe, step).map((architecture) => {
      const text = formatArchitecture(architecture);
      graphs[text] ??= buildGraph(space, architecture);
      return text;
    });
    const { indices } = batchIndices(train.count, batch, seed, step);
    return { rate: learningRate(recipe, step), children, labels: Array.from(indices, (i) => train.labels[i]!) };
  });
  const plan: Plan = {
    space,
    recipe,
    preprocessing: dataset.preprocessing,
    labels: Array.from(train.labels),
    tensors: sharedTensors(space).map(({ name, shape, decays }) => ({ name, shape, decays })),
    graphs,
    steps: planned,
  };
  const all = Uint32Array.from({ length: train.count }, (_, i) => i);
  return { plan, weights: liveWeights(space, seed), dataset, images: await train.crops(all) };
}

/** Initial weights in which every tensor matters: what starts constant (γ, which is 0 at a block's end; β; biases) is drawn from ½ to 1. */
function liveWeights(space: SearchSpace, seed: number): SharedWeights {
  const weights = initialWeights(sharedTensors(space), seed);
  for (const { name, initial } of weights.tensors) {
    if (initial.kind !== 'constant') continue;
    const draws = stream(key('benchmark weights'), seed, key(name));
    const data = weights.tensor(name);
    for (let i = 0; i < data.length; i++) data[i] = 0.5 + 0.5 * draws.uniform();
  }
  return weights;
}

/** Writes the folder that both sides read. Little-endian, as both sides' processors are. */
export async function writePlan(folder: string, { plan, weights, dataset, images }: Planned): Promise<void> {
  const { recipe } = plan;
  const { train } = dataset.splits;
  const { crop } = plan.preprocessing;
  await mkdir(folder, { recursive: true });
  const length = recipe.batch * crop * crop * 3;
  const crops = new Uint8Array(plan.steps.length * length);
  for (let step = 0; step < plan.steps.length; step++) {
    const { indices, epoch } = batchIndices(train.count, recipe.batch, recipe.seed, step);
    crops.set(await train.augmented(indices, { seed: recipe.seed, epoch, kind: recipe.augmentation }), step * length);
  }
  await writeFile(join(folder, 'plan.json'), JSON.stringify(plan));
  await writeFile(join(folder, 'weights.bin'), weights.data);
  await writeFile(join(folder, 'images.bin'), images);
  await writeFile(join(folder, 'crops.bin'), crops);
}

/** The folder as our trainer takes it. */
export async function readPlan(folder: string): Promise<{ plan: Plan; weights: SharedWeights; dataset: Dataset }> {
  const plan = JSON.parse(await readFile(join(folder, 'plan.json'), 'utf8')) as Plan;
  const { preprocessing, space, labels } = plan;
  return {
    plan,
    weights: new SharedWeights(sharedTensors(space), await readFloats(join(folder, 'weights.bin'))),
    dataset: datasetOf(preprocessing, space.classes, new Uint8Array(await readFile(join(folder, 'images.bin'))), labels),
  };
}

/** A file of float32. */
export async function readFloats(file: string): Promise<Float32Array> {
  const bytes = new Uint8Array(await readFile(file)); // copied, so that it is aligned
  return new Float32Array(bytes.buffer);
}

#!/usr/bin/env node
import { Command, Option } from 'commander';
import { stepsPerEpoch } from '../src/data/batches.js';
import { loadCifar10 } from '../src/data/cifar10.js';
import { BignasError } from '../src/errors.js';
import { loadSpace } from '../src/space/presets/index.js';
import { sandwich } from '../src/train/children.js';
import { progressLine } from '../src/train/progress.js';
import { defaultRecipe } from '../src/train/recipe.js';
import type { SaveEvery } from '../src/train/session.js';
import { naturalNumber, positiveInteger, positiveNumber } from './numbers.js';
import { addRecipeOptions, type RecipeSwitches } from './recipeOptions.js';

interface Options extends RecipeSwitches {
  readonly data: string;
  readonly space: string;
  readonly epochs?: number;
  readonly steps?: number;
  readonly batch: number;
  readonly seed: number;
  readonly output: string;
  readonly resume?: true;
  readonly saveEvery: SaveEvery;
  readonly evaluateEvery?: number;
  readonly calibrationImages: number;
  readonly replicas?: number;
  readonly engine: 'auto' | 'onnx' | 'tensorflow';
}

const command = new Command('bignas-train')
  .description('Trains the single-stage model: one set of weights from which children of every size are sliced.')
  .addOption(new Option('--data <name>', 'the images to learn from; fetched on first use').choices(['cifar10']).default('cifar10'))
  .option('--space <name|file>', 'search space: imagenet, cifar10, tiny or a .json file', 'cifar10')
  .addOption(new Option('--epochs <n>', 'passes over the training images').argParser(positiveInteger).conflicts('steps'))
  .option('--steps <n>', 'training steps, instead of epochs (default: 6 epochs)', positiveInteger)
  .option('--batch <n>', 'images a step', positiveInteger, 64)
  .option('--seed <n>', 'decides every random draw', naturalNumber, 0)
  .requiredOption('--output <folder>', 'where the run lies: its checkpoints, and in the end checkpoint/')
  .option('--resume', 'go on with the run in the output folder')
  .option('--save-every <n|minutes>', 'checkpoint every n steps, or minutes such as 5m', saveEvery, { minutes: 5 })
  .option('--evaluate-every <n>', 'steps between evaluations (default: an epoch)', positiveInteger)
  .option('--calibration-images <n>', 'training crops that the checkpoint carries', positiveInteger, 512)
  .option('--replicas <n>', 'processes that share a step (default: one a core, up to the parts of a batch; 1 on a GPU)', positiveInteger)
  .addOption(new Option('--engine <name>', 'what calibrates and measures children; auto: TensorFlow where it has a GPU').choices(['auto', 'onnx', 'tensorflow']).default('auto'));
addRecipeOptions(command);

async function main(options: Options): Promise<void> {
  const line = (text: string): void => console.log(text);
  const preset = loadSpace(options.space); // before anything is fetched
  const dataset = await loadCifar10({ log: line });
  const space = { ...preset, classes: dataset.classes.length };
  const perEpoch = stepsPerEpoch(dataset.splits.train.count, options.batch);
  const steps = options.steps ?? (options.epochs ?? 6) * perEpoch;
  const recipe = defaultRecipe({
    ...options,
    steps,
    stepsPerEpoch: perEpoch,
    augmentation: options.augmentation ?? dataset.augmentation,
    short: space.name !== 'imagenet',
  });
  sandwich(space, recipe, 0); // its architectures are read before anything starts

  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      line(`${signal}: finishing the step under way, then writing a checkpoint.`);
      stop.abort();
    });

  // TensorFlow loads only now: help and bad options need no engine.
  const { runSession } = await import('../src/train/session.js');
  const { defaultReplicas, evaluationEngine } = await import('../src/train/engines.js');
  const progress = progressLine(process.stdout);
  const folder = await runSession({
    space,
    dataset,
    recipe,
    output: options.output,
    resume: options.resume ?? false,
    saveEvery: options.saveEvery,
    evaluateEvery: options.evaluateEvery ?? perEpoch,
    calibrationImages: options.calibrationImages,
    engine: await evaluationEngine(options.engine),
    replicas: options.replicas ?? defaultReplicas(recipe.parts),
    signal: stop.signal,
    report: progress,
  });
  if (folder) line(`Done: ${folder}\nServe it: npm start -- --checkpoint ${folder}`);
}

function saveEvery(text: string): SaveEvery {
  const minutes = /^(\d+(?:\.\d+)?)m$/.exec(text);
  return minutes ? { minutes: positiveNumber(minutes[1]!) } : { steps: positiveInteger(text) };
}

try {
  await main(command.parse().opts<Options>());
} catch (error) {
  if (!(error instanceof BignasError)) throw error;
  console.error(`bignas-train: ${error.message}`);
  process.exitCode = 1;
}

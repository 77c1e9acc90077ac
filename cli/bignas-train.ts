#!/usr/bin/env node
import { Command, Option } from 'commander';
import { openCheckpoint } from '../src/checkpoint/checkpoint.js';
import { stepsPerEpoch } from '../src/data/batches.js';
import { loadCifar10 } from '../src/data/cifar10.js';
import { loadFolder } from '../src/data/folder.js';
import { BignasError } from '../src/errors.js';
import { networkSpace } from '../src/graph/networks/index.js';
import { networkNames, type NetworkName } from '../src/space/networkNames.js';
import { loadSpace } from '../src/space/presets/index.js';
import { countArchitectures } from '../src/space/space.js';
import { sandwich } from '../src/train/children.js';
import { fromCheckpoint } from '../src/train/from.js';
import { progressLine } from '../src/train/progress.js';
import { defaultRecipe } from '../src/train/recipe.js';
import type { SaveEvery } from '../src/train/session.js';
import { naturalNumber, positiveInteger, positiveNumber } from './numbers.js';
import { addRecipeOptions, type RecipeSwitches } from './recipeOptions.js';

interface Options extends RecipeSwitches {
  readonly data: string;
  readonly crop: number;
  readonly maxCorrupt?: number;
  readonly space: string;
  readonly network?: NetworkName;
  readonly from?: string;
  readonly epochs?: number;
  readonly steps?: number;
  readonly batch: number;
  readonly seed: number;
  readonly output: string;
  readonly resume?: true;
  readonly changeRecipe?: true;
  readonly saveEvery: SaveEvery;
  readonly keep: number;
  readonly evaluateEvery?: number;
  readonly calibrationImages: number;
  readonly replicas?: number;
  readonly engine: 'auto' | 'onnx' | 'tensorflow';
}

const command = new Command('bignas-train')
  .description('Trains the single-stage model: one set of weights from which children of every size are sliced.')
  .optionsGroup('What is trained:')
  .option('--data <name|folder>', 'the images: cifar10 (fetched on first use), or a folder with train/<class>/ and, where there are any, val/ and test/', 'cifar10')
  .option('--crop <pixels>', 'side of the crops of a folder of photos', positiveInteger, 224)
  .option('--max-corrupt <n>', 'unreadable images of a folder that are skipped before the run stops (default: 1 % of them, at least 10)', naturalNumber)
  .option('--space <name|file>', 'search space: imagenet, cifar10, cifar10-micro, tiny or a .json file', 'cifar10')
  .addOption(new Option('--network <name>', 'a network of the literature instead of a search space, for crops of the data\'s size').choices(networkNames).conflicts('space'))
  .option('--from <checkpoint>', 'begin with the weights of a checkpoint of this space; for other classes than its own, the classifier is drawn anew')
  .optionsGroup('Recipe (kept in the checkpoint; a run goes on under its own):')
  .addOption(new Option('--epochs <n>', 'passes over the training images').argParser(positiveInteger).conflicts('steps'))
  .option('--steps <n>', 'training steps, instead of epochs (default: 6 epochs)', positiveInteger)
  .option('--batch <n>', 'images a step', positiveInteger, 64)
  .option('--seed <n>', 'decides every random draw', naturalNumber, 0)
  .optionsGroup('The run:')
  .requiredOption('--output <folder>', 'where the run lies: its checkpoints, its history, and in the end checkpoint/')
  .option('--resume', 'go on with the run in the output folder, bit for bit')
  .addOption(
    new Option('--change-recipe', 'go on with it under the recipe of these options, from its latest checkpoint on (more --steps, another rate)').implies({ resume: true }),
  )
  .addOption(new Option('--save-every <n|minutes>', 'checkpoint every n steps, or minutes such as 5m').argParser(saveEvery).default({ minutes: 5 }, '5m'))
  .option('--keep <n>', 'checkpoints that are kept: the last n, and the best one', positiveInteger, 2)
  .option('--evaluate-every <n>', 'steps between evaluations on the validation images (default: an epoch)', positiveInteger)
  .option('--calibration-images <n>', 'training crops that the checkpoint carries', positiveInteger, 512)
  .option('--replicas <n>', 'processes that share a step (default: one a core, up to the parts of a batch; 1 on a GPU)', positiveInteger)
  .addOption(new Option('--engine <name>', 'what calibrates and measures children; auto: TensorFlow where it has a GPU').choices(['auto', 'onnx', 'tensorflow']).default('auto'));
addRecipeOptions(command);

async function main(options: Options): Promise<void> {
  const progress = progressLine(process.stdout);
  const line = (text: string): void => progress.line(text);
  for (const name of ['crop', 'maxCorrupt'] as const)
    if (options.data === 'cifar10' && command.getOptionValueSource(name) === 'cli')
      throw new BignasError('OPTION_INVALID', `--${name === 'crop' ? 'crop' : 'max-corrupt'} is for a folder of photos, and --data is cifar10. Leave it out, or give the folder.`);
  const preset = options.network === undefined ? loadSpace(options.space) : undefined; // before anything is fetched
  const dataset = options.data === 'cifar10' ? await loadCifar10({ log: line }) : await loadFolder({ folder: options.data, crop: options.crop, log: line, ...(options.maxCorrupt !== undefined && { maxCorrupt: options.maxCorrupt }) });
  const classes = dataset.classes.length;
  const space = preset ? { ...preset, classes } : networkSpace(options.network!, { classes, resolution: dataset.preprocessing.crop });
  const perEpoch = stepsPerEpoch(dataset.splits.train.count, options.batch);
  const steps = options.steps ?? (options.epochs ?? 6) * perEpoch;
  const recipe = defaultRecipe({
    ...options,
    steps,
    stepsPerEpoch: perEpoch,
    augmentation: options.augmentation ?? dataset.augmentation,
    short: space.name !== 'imagenet',
    // Of a space of one architecture there is no sandwich.
    sandwich: options.sandwich ?? (countArchitectures(space) === 1n ? ['biggest'] : undefined),
  });
  sandwich(space, recipe, 0); // its architectures are read before anything starts

  const from = options.from === undefined ? undefined : fromCheckpoint(await openCheckpoint(options.from), space, dataset.classes);

  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      line(`${signal}: finishing what is under way, then writing a checkpoint. Once more ends it at once.`);
      stop.abort();
    });

  // Whoever reads the output may go (a pipe, a terminal): no reason to lose what was trained since the last checkpoint. A terminal's hangup
  // comes twice, from it and through npm run train; nohup does not keep it away, as Node undoes what it inherits.
  process.on('SIGHUP', () => stop.abort());
  for (const output of [process.stdout, process.stderr]) output.on('error', () => stop.abort());

  // TensorFlow loads only now: help and bad options need no engine.
  const { runSession } = await import('../src/train/session.js');
  const { defaultReplicas, evaluationEngine } = await import('../src/train/engines.js');
  const folder = await runSession({
    space,
    dataset,
    recipe,
    from,
    output: options.output,
    resume: options.resume ?? false,
    changeRecipe: options.changeRecipe ?? false,
    saveEvery: options.saveEvery,
    keep: options.keep,
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

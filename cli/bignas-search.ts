#!/usr/bin/env node
import { availableParallelism } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { openCheckpoint } from '../src/checkpoint/checkpoint.js';
import { loadCifar10 } from '../src/data/cifar10.js';
import { loadFolder } from '../src/data/folder.js';
import { BignasError } from '../src/errors.js';
import { threadedEvaluator } from '../src/search/evaluator.js';
import { readLatencyTable } from './latencyTables.js';
import { parseBudget } from '../src/search/budget.js';
import type { Budget } from '../src/search/select.js';
import { searchSession } from '../src/search/session.js';
import { naturalNumber, positiveInteger } from './numbers.js';
import { packagePath } from '../serve/packagePath.js';

interface Options {
  readonly checkpoint: string;
  readonly data?: string;
  readonly output?: string;
  readonly budget: readonly Budget[];
  readonly evaluations: number;
  readonly seed: number;
  readonly split: 'validation' | 'train';
  readonly images?: number;
  readonly predictor: boolean;
  readonly latencyTable?: string;
  readonly latency?: true;
  readonly random: number;
  readonly compare?: true;
  readonly test: boolean;
  readonly write: boolean;
  readonly workers: number;
}

const command = new Command('bignas-search')
  .description("Finds the children of a checkpoint that are worth serving, coarse to fine, and writes them into it: GET /slice?flops=600M then is a look-up.")
  .option('--checkpoint <folder>', 'a finished checkpoint', packagePath('checkpoints', 'cifar10'))
  .option('--data <name|folder>', 'the images that it was trained on: cifar10, or a folder (default: cifar10 where it was that)')
  .option('--output <folder>', 'where evaluations are kept, and plots and report written (default: beside the checkpoint, NAME-search)')
  .optionsGroup('The search:')
  .option('--budget <bounds>', 'look for this child beside the whole front, such as flops=600M or flops=600M,params=5M; may be repeated', budgets, [])
  .option('--evaluations <n>', 'children to measure beyond the coarse grid', naturalNumber, 240)
  .option('--seed <n>', 'decides the mutations', naturalNumber, 0)
  .addOption(new Option('--split <name>', 'images that accuracies are measured on: validation (held out of training), or train, as in the paper').choices(['validation', 'train']).default('validation'))
  .option('--images <n>', 'n of them (default: all, of train 5000)', positiveInteger)
  .option('--no-predictor', 'mutations are measured as they are drawn; none is chosen by predicted accuracy')
  .option('--workers <n>', 'children that are measured at once', positiveInteger, availableParallelism())
  .option('--latency-table <file>', 'latencies of a device, made by bignas-profile: they are searched, too')
  .option('--latency', 'measure the chosen children on this machine, one thread, in the end')
  .optionsGroup('What it is worth:')
  .option('--random <n>', 'measure n random children of the multiply-adds of each of S, M, L and XL beside them', naturalNumber, 0)
  .option('--compare', 'measure single-size scaling of one architecture (compound, width, depth, resolution) beside the front')
  .option('--no-test', 'do not measure the chosen children on the test images in the end')
  .option('--no-write', 'leave the checkpoint as it is');

async function main(options: Options): Promise<void> {
  const report = (line: string): void => console.log(line);
  const checkpoint = await openCheckpoint(options.checkpoint);
  const { manifest } = checkpoint;
  const data = options.data ?? (manifest.dataset.name === 'cifar10' ? 'cifar10' : undefined);
  if (data === undefined) throw new BignasError('OPTION_INVALID', `The checkpoint was trained on ${manifest.dataset.name}: give its folder as --data.`);
  const dataset = data === 'cifar10' ? await loadCifar10({ log: report }) : await loadFolder({ folder: data, crop: manifest.preprocessing.crop, log: report });
  const { count } = dataset.splits[options.split];

  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => stop.abort(new BignasError('SHUTTING_DOWN', `${signal}: stopped. What was measured is kept: the same command goes on.`)));

  const evaluator = threadedEvaluator({
    space: manifest.space,
    weights: checkpoint.weights.data,
    source: { crops: checkpoint.calibration, preprocessing: manifest.preprocessing, batch: manifest.calibration.batch },
  }, options.workers);
  try {
    const { latencyTable: path, ...rest } = options;
    await searchSession({
      ...rest,
      ...(path !== undefined && { latencyTable: await readLatencyTable(path) }),
      latency: options.latency ?? false,
      checkpoint,
      dataset,
      output: options.output ?? join(dirname(checkpoint.folder), `${basename(checkpoint.folder)}-search`),
      evaluator,
      images: { split: options.split, images: options.images ?? (options.split === 'train' ? Math.min(5000, count) : count) },
      budgets: options.budget,
      compare: options.compare ?? false,
      signal: stop.signal,
      report,
    });
  } finally {
    await evaluator.close();
  }
}

function budgets(text: string, before: readonly Budget[]): Budget[] {
  try {
    return [...before, parseBudget(text)];
  } catch (error) {
    if (error instanceof BignasError) throw new InvalidArgumentError(error.message);
    throw error;
  }
}

try {
  await main(command.parse().opts<Options>());
} catch (error) {
  if (!(error instanceof BignasError)) throw error;
  console.error(`bignas-search: ${error.message}`);
  process.exitCode = 1;
}

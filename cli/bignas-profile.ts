#!/usr/bin/env node
import { access, constants } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { openCheckpoint } from '../src/checkpoint/checkpoint.js';
import type { LatencyTable } from '../src/cost/latency.js';
import { BignasError } from '../src/errors.js';
import { writeFileAtomic } from '../src/files/atomic.js';
import { unwritable } from '../src/files/unwritable.js';
import { latencyError, makeLatencyTable } from '../src/onnx/latencyTable.js';
import { loadSpace } from '../src/space/presets/index.js';
import { readLatencyTable } from './latencyTables.js';
import { naturalNumber, positiveInteger } from './numbers.js';

interface Options {
  readonly space?: string;
  readonly checkpoint?: string;
  readonly output: string;
  readonly device: string;
  readonly threads: number;
  readonly children: number;
  readonly runs: number;
  readonly seed: number;
  readonly check: number;
  readonly onlyCheck?: true;
}

const command = new Command('bignas-profile')
  .description('Measures how long the operations of a space take on this machine and writes a table, from which any child\'s latency is predicted (docs/latency.md).')
  .option('--space <name|file>', 'search space: a preset or a .json file (default: cifar10)')
  .addOption(new Option('--checkpoint <folder>', 'the space of a checkpoint, instead').conflicts('space'))
  .option('--output <file>', 'the table', 'latency.json')
  .option('--device <name>', 'what the table calls this machine', deviceName, hostname())
  .option('--threads <n>', 'threads of a run', positiveInteger, 1)
  .option('--children <n>', 'children to profile', positiveInteger, 80)
  .option('--runs <n>', 'timed runs of each, once plain and once profiled', positiveInteger, 30)
  .option('--seed <n>', 'decides which children', naturalNumber, 0)
  .option('--check <n>', 'measure n other random children and say how far predictions are off', naturalNumber, 20)
  .option('--only-check', 'check a table that is there, and write none');

/** As a latency table may have it. */
function deviceName(text: string): string {
  if (text.length < 1 || text.length > 100) throw new InvalidArgumentError('Expected a name of 1 to 100 characters.');
  return text;
}

async function main(options: Options): Promise<void> {
  if (options.children < 4) throw new BignasError('OPTION_INVALID', `Expected --children to be 4 or more, got ${options.children}.`);
  const space = options.checkpoint === undefined ? loadSpace(options.space ?? 'cifar10') : (await openCheckpoint(options.checkpoint)).manifest.space;
  const { threads, runs, seed, device, children, check } = options;
  let table: LatencyTable;
  if (options.onlyCheck) table = await readLatencyTable(options.output);
  else {
    await access(dirname(resolve(options.output)), constants.W_OK); // before minutes of measuring
    table = await makeLatencyTable(space, {
      device, children, seed, threads, runs,
      progress: (done, all, architecture, seconds) => console.log(`${done}/${all}  ${milliseconds(seconds)}  ${architecture}`),
    });
    await writeFileAtomic(options.output, `${JSON.stringify(table, null, 1)}\n`);
    console.log(`${options.output}: ${table.operations.length} operations of ${device}.`);
  }
  if (check === 0) return;
  const error = await latencyError(space, table, { threads, runs, seed, count: check });
  console.log(`On ${error.children} other children predictions are off by ${percent(error.median)} (median), ${percent(error.p90)} (nine of ten are nearer).`);
}

function milliseconds(seconds: number): string {
  return `${(1000 * seconds).toFixed(3)} ms`;
}

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)} %`;
}

try {
  await main(command.parse().opts<Options>());
} catch (error) {
  const told = error instanceof BignasError ? error : unwritable(error, 'The table', 'give another --output');
  if (!told) throw error;
  console.error(`bignas-profile: ${told.message}`);
  process.exitCode = 1;
}

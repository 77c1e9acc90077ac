/** `npm run bench:train`: one sandwich training step of bignas against the same step in PyTorch eager, in turn. README.md beside this. */
import { rmSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, constants, cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { BignasError } from '../../src/errors.js';
import { loadSpace } from '../../src/space/presets/index.js';
import { defaultReplicas } from '../../src/train/engines.js';
import { compareSides, outOfTolerance, tolerance, type Deviation } from './check.js';
import { planTraining, writePlan, type PlanOptions } from './plan.js';
import { profileTable, summarise, summaryTable } from './report.js';
import type { ProfileAnswer, Side } from './side.js';
import { bignas, pytorch, tunedPytorch, type Machine } from './sides.js';

interface Options extends Machine {
  readonly space: string;
  readonly batch?: number;
  readonly parts?: number;
  readonly replicas?: number;
  readonly rounds: number;
  readonly steps: number;
  readonly warmup: number;
  readonly seed: number;
  readonly check?: true;
  readonly output?: string;
}

const options = new Command('bench:train')
  .description('Times one sandwich training step of bignas and of PyTorch eager on the same network, images and children, in turn.')
  .option('--space <name|file>', 'search space', 'cifar10')
  .option('--batch <n>', 'images a step (default: 128; imagenet 8)', positiveInteger)
  .option('--parts <n>', 'parts of a batch in bignas (default: as bignas-train; PyTorch takes it whole)', positiveInteger)
  .option('--replicas <n>', 'processes of bignas that share a step (default: as bignas-train)', positiveInteger)
  .option('--rounds <n>', 'turns of each side', positiveInteger, 7)
  .option('--steps <n>', 'steps a turn', positiveInteger, 4)
  .option('--warmup <n>', 'steps before the first turn', positiveInteger, 4)
  .option('--threads <n>', 'threads of each side, all its processes together (default: the cores)', positiveInteger, availableParallelism())
  .option('--seed <n>', 'decides children, images and weights', positiveInteger, 1)
  .option('--check', 'only check that both sides compute the same')
  .option('--output <file>', 'where the results go as JSON')
  .addOption(new Option('--python <path>', 'an interpreter that has PyTorch').makeOptionMandatory().hideHelp())
  .parse()
  .opts<Options>();

const say = (text: string): void => console.log(text);

async function main(): Promise<void> {
  const space = loadSpace(options.space);
  const batch = options.batch ?? (space.name === 'imagenet' ? 8 : 128);
  const network: Network = { space, batch, parts: options.parts, seed: options.seed, log: say };
  const folder = await mkdtemp(join(tmpdir(), 'bignas-bench-'));
  // The sides end by themselves when their input does.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      rmSync(folder, { recursive: true, force: true });
      process.exit(128 + constants.signals[signal]);
    });
  try {
    const check = await checkSides(folder, network);
    if (options.check) return;
    const result = await compare(folder, network);
    if (options.output) await writeFile(options.output, `${JSON.stringify({ ...result, check }, null, 2)}\n`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

type Network = Omit<PlanOptions, 'steps'>;

/** @throws BignasError where the sides do not compute the same */
async function checkSides(parent: string, network: Network): Promise<Deviation[]> {
  say('Checking that both sides compute the same: two steps without dropout');
  const planned = await planTraining({ ...network, steps: 2 });
  const plan = { ...planned.plan, recipe: { ...planned.plan.recipe, dropout: 0 } };
  const folder = join(parent, 'check');
  await writePlan(folder, { ...planned, plan });
  const { parts } = plan.recipe;
  const sides = [await bignas(folder, options, replicasFor(parts)), pytorch(folder, options, parts)];
  const deviations = await withSides(sides, ([ours, theirs]) => compareSides(ours!, theirs!, plan, planned.weights.data, folder));
  for (const { what, relative } of deviations) say(`  ${relative.toExponential(1)}  ${what}`);
  const wrong = outOfTolerance(deviations);
  if (wrong.length > 0)
    throw new BignasError(
      'INTERNAL',
      `The sides do not compute the same, so their times would say nothing. Expected relative differences up to ${tolerance}, got:\n` +
        wrong.map(({ what, relative }) => `  ${relative.toPrecision(3)}  ${what}`).join('\n') +
        '\nWhat one side does and the other does not must go into bench/train/pytorch.py or be switched off in bench/train/plan.ts.',
    );
  return deviations;
}

async function compare(parent: string, network: Network): Promise<object> {
  const { rounds, steps, warmup, seed, threads } = options;
  // Past the rounds: the profiled steps and one before them, and one that the trainer makes ready ahead.
  const planned = await planTraining({ ...network, steps: warmup + (rounds + 1) * steps + 2 });
  const folder = join(parent, 'timed');
  await writePlan(folder, planned);
  const load = loadavg()[0]!;
  const { parts } = planned.plan.recipe;
  const replicas = replicasFor(parts);
  const sides = [await bignas(folder, options, replicas), pytorch(folder, options, 1), await tunedPytorch(folder, options, 1)];
  return withSides(sides, async () => {
    say(`\nSpace ${network.space.name}, batch ${network.batch}, ${rounds} rounds of ${steps} steps each, after ${warmup} of warm-up; bignas: ${parts} part(s) of a batch in ${replicas} process(es)`);
    for (const side of sides) await side.run(warmup);
    const times: Record<string, number>[] = [];
    for (let round = 0; round < rounds; round++) {
      const turns: Record<string, number> = {};
      for (const side of sides) turns[side.name] = (await side.run(steps)).seconds;
      times.push(turns);
      say(`  round ${round + 1}/${rounds}: ${sides.map(({ name }) => `${name} ${((turns[name]! / steps) * 1000).toFixed(0)} ms a step`).join(', ')}`);
    }
    const ours = sides[0]!.name;
    const peaks = Object.fromEntries(sides.map((side) => [side.name, side.peakMemory()]));
    const summary = summarise(times, ours, network.batch * steps, peaks);
    say(`\n${summaryTable(summary, ours)}\n\nMedians over the rounds (quartiles). ${differences}`);
    if (load > 0.5) say(`The machine was busy when this began (load average ${load.toFixed(1)}): measure again when it is quiet.`);
    const profiles: Record<string, ProfileAnswer> = {};
    for (const [title, side] of [
      ['bignas, all parts computed by one replica', await bignas(folder, { threads: Math.max(1, Math.floor(threads / replicas)) }, 1)],
      [sides[2]!.name, sides[2]!],
    ] as const) {
      sides.push(side);
      await side.run(1);
      const profile = (profiles[title] = await side.profile(steps));
      say(`\nWhere the time goes in ${title}, profiled (${((profile.seconds / steps) * 1000).toFixed(0)} ms a step so):`);
      for (const part of profile.tables) say(`\n${profileTable(part, profile.seconds, steps)}`);
    }
    const processors = cpus();
    return {
      date: new Date().toISOString(),
      machine: { processors: processors.length, model: processors[0]?.model, load, node: process.versions.node },
      options: { space: network.space.name, batch: network.batch, rounds, steps, warmup, parts, replicas, seed, threads },
      summary,
      rounds: times,
      profiles,
    };
  });
}

const differences =
  'Both sides resize the input, run and differentiate the four children, and update weights and average. ' +
  'bignas also draws, crops and augments its images and draws a mask of dropout for each image; PyTorch is given the crops and drops out by its own generator. ' +
  'bignas computes a batch in parts, each normalised by itself, where it has several; PyTorch computes it whole.';

function replicasFor(parts: number): number {
  return options.replicas ?? defaultReplicas(parts);
}

/** Closes the sides whatever happens. */
async function withSides<T>(sides: Side[], work: (sides: Side[]) => Promise<T>): Promise<T> {
  try {
    return await work(sides);
  } finally {
    await Promise.all(sides.map((side) => side.close()));
  }
}

function positiveInteger(text: string): number {
  const n = Number(text);
  if (!Number.isSafeInteger(n) || n < 1) throw new InvalidArgumentError('Expected a whole number from 1.');
  return n;
}

try {
  await main();
} catch (error) {
  if (!(error instanceof BignasError)) throw error;
  console.error(`bench:train: ${error.message}`);
  process.exitCode = 1;
}

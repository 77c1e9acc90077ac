import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { stepsPerEpoch } from '../../src/data/batches.js';
import { naturalNumber, positiveInteger, positiveNumber } from '../../cli/numbers.js';
import { batch, recipeOf, rows, runNamed, type Run } from './plan.js';
import { writeReport } from './report.js';
import { readResult, weightsFile } from './result.js';

/** Images of CIFAR-10 that are trained on. */
const trainingImages = 45_000;

interface RunOptions {
  readonly seeds: readonly number[];
  readonly jobs: number;
  readonly results: string;
  readonly work: string;
  readonly scale: number;
}

/** A run with a seed. */
interface Job {
  readonly run: Run;
  readonly seed: number;
}

const root = fileURLToPath(new URL('../../../', import.meta.url));
const results = `${root}docs/evidence/results`;
const program = new Command('npm run evidence --').description('Runs the experiments behind docs/evidence.md, and writes its tables and plots.');

program
  .command('list')
  .description('the rows, and what each reproduces of the paper')
  .action(() => {
    for (const { name, reproduces, runs } of rows) console.log(`${name.padEnd(16)} ${reproduces} (${runs.length} runs a seed)`);
  });

program
  .command('run')
  .description('runs what rows need and what has no result yet; the supernet and the teacher are shared by the rows')
  .argument('<rows...>', 'names of rows, or all')
  .option('--seeds <list>', 'seeds, such as 0,1', (text) => text.split(',').map(naturalNumber), [0, 1])
  .option('--jobs <n>', 'runs side by side, one thread each', positiveInteger, 2)
  .option('--results <folder>', 'where results are kept', results)
  .option('--work <folder>', 'where weights are kept that other runs begin with', `${root}runs/evidence`)
  .option('--scale <x>', 'of the epochs, for a trial', positiveNumber, 1)
  .action(async (names: string[], options: RunOptions) => runRows(names, options));

program
  .command('report')
  .description('writes the tables and plots of docs/evidence.md from the results alone')
  .option('--results <folder>', 'where results are kept', results)
  .action((options: { readonly results: string }) => writeReport(`${root}docs`, options.results));

async function runRows(names: readonly string[], options: RunOptions): Promise<void> {
  const wanted = names.includes('all') ? rows : names.map((name) => rows.find((row) => row.name === name) ?? program.error(`Expected rows among ${rows.map((row) => row.name).join(', ')} or all, got ${name}.`));
  const jobs = options.seeds.flatMap((seed) => withNeeds(wanted.flatMap((row) => row.runs)).map((run): Job => ({ run, seed })));
  const missing: Job[] = [];
  for (const job of jobs) if (!(await isDone(job, options))) missing.push(job);
  missing.unshift(...withoutWeights(jobs, missing, options));
  console.log(`${jobs.length} runs, ${jobs.length - missing.length} are done.`);

  const pending = new Map(missing.map((job) => [keyOf(job), job]));
  const running = new Set<Promise<void>>();
  try {
    while (pending.size > 0 || running.size > 0) {
      const underWay = running.size;
      const ready = [...pending.values()].find(({ run: { needs }, seed }) => {
        const needed = needs && keyOf({ run: runNamed(needs), seed });
        return !needed || (!pending.has(needed) && !started.has(needed));
      });
      if (ready && underWay < options.jobs) {
        const key = keyOf(ready);
        pending.delete(key);
        started.add(key);
        const end = runJob(ready, options).then(() => {
          started.delete(key);
          running.delete(end);
        });
        running.add(end);
      } else await Promise.race(running);
    }
  } finally {
    await Promise.allSettled(running); // where one failed, those beside it still end: a second command would start them again
  }
}

/** Jobs under way. */
const started = new Set<string>();

function keyOf({ run, seed }: Job): string {
  return `${run.name} ${seed}`;
}

/** Runs in an order in which what one needs comes before it, each once. */
function withNeeds(names: readonly string[]): Run[] {
  const ordered = new Map<string, Run>();
  const visit = (name: string): void => {
    const run = runNamed(name);
    if (run.needs) visit(run.needs);
    ordered.set(name, run);
  };
  names.forEach(visit);
  return [...ordered.values()];
}

/** Whether there is a result of this very recipe. */
async function isDone({ run, seed }: Job, { results: folder, scale }: RunOptions): Promise<boolean> {
  const result = await readResult(folder, run.name, seed);
  return isDeepStrictEqual(result?.recipe, recipeOf(run, seed, stepsPerEpoch(trainingImages, batch), scale));
}

/** Runs that have a result, but not the weights that another run without one begins with: results travel, weights do not. */
function withoutWeights(jobs: readonly Job[], missing: readonly Job[], { work }: RunOptions): Job[] {
  const needed = new Set(missing.flatMap(({ run, seed }) => (run.needs ? [keyOf({ run: runNamed(run.needs), seed })] : [])));
  return jobs.filter((job) => needed.has(keyOf(job)) && !missing.includes(job) && !existsSync(weightsFile(work, job.run.name, job.seed)));
}

/** @throws Error where it fails */
function runJob({ run, seed }: Job, { results: folder, work, scale }: RunOptions): Promise<void> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('run.js', import.meta.url)), run.name, String(seed), folder, work, String(scale)], {
    env: { ...process.env, TF_NUM_INTRAOP_THREADS: '1' },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => (code === 0 ? resolve() : reject(new Error(`${run.name} seed ${seed} ended with ${signal ?? String(code)}. What is finished is kept: the same command goes on.`))));
  });
}

await program.parseAsync();

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { watch } from 'node:fs';
import { mkdir, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { openCheckpoint } from '../../src/checkpoint/checkpoint.js';
import { eventsOf, readHistory } from '../../src/train/watch/history.js';

const cli = fileURLToPath(new URL('../../cli/bignas-train.js', import.meta.url));
const folder = await mkdtemp(join(tmpdir(), 'bignas-kill-'));
after(() => rm(folder, { recursive: true, force: true }));

interface Run {
  readonly ended: Promise<number | null>;
  readonly output: () => string;
  /** Until the output has it; false where the run ended first. */
  has(pattern: RegExp): Promise<boolean>;
  kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null>;
}

type Options = Readonly<Record<string, string | number>>;

/** Starts or resumes a run on CIFAR-10; `shell` is what a shell does before it becomes the run. */
function start(output: string, options: Options, shell = ':'): Run {
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const child = spawn('bash', ['-c', `${shell} && exec "$@"`, 'bash', process.execPath, cli, '--data', 'cifar10', ...args, '--output', output, '--resume'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
  let over = false;
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve)).finally(() => (over = true));
  return {
    ended,
    output: () => text,
    has: async (pattern) => {
      while (!pattern.test(text) && !over) await wait(5);
      return pattern.test(text);
    },
    kill: (signal) => {
      child.kill(signal);
      return ended;
    },
  };
}

/** Runs to the measuring of the children, which it stops. */
async function trained(output: string, options: Options): Promise<void> {
  const run = start(output, options);
  assert(await run.has(/Calibrating and measuring/), run.output());
  assert.equal(await run.kill('SIGTERM'), 0, run.output());
  assert.match(run.output(), /Stopped before all children were measured\. Measure them with --resume/);
}

/** Kills a run with SIGKILL as soon as it begins to write its n-th checkpoint from now on, `later` milliseconds into it. */
async function killWriting(run: Run, output: string, n: number, later: number): Promise<void> {
  let seen = 0;
  const began = new Promise<void>((resolve) => {
    const watcher = watch(output, (_, name) => {
      // Nothing else makes such a name; each name is heard of several times.
      if (name === null || !/^\.step-\d+\.partial-/.test(name) || name.includes('old')) return;
      if (names.has(name)) return;
      names.add(name);
      if (++seen === n) {
        watcher.close();
        resolve();
      }
    });
    const names = new Set<string>();
    void run.ended.then(() => { watcher.close(); resolve(); });
  });
  await began;
  if (later > 0) await wait(later);
  await run.kill('SIGKILL');
}

const latestOf = async (run: string): Promise<number> => Number(/\d+/.exec(await readFile(join(run, 'latest'), 'utf8').catch(() => '0'))![0]);

/** Whether the writing of a checkpoint has begun and not ended: a partial folder or file, or a step that `latest` does not name yet. */
async function halfWritten(run: string): Promise<boolean> {
  const latest = await latestOf(run);
  return (await readdir(run)).some((name) => /^\.(step-\d+|latest|best)\.partial-/.test(name) || Number(/^step-(\d+)$/.exec(name)?.[1] ?? 0) > latest);
}

async function assertSameRun(run: string, expected: string, steps: number): Promise<void> {
  for (const name of ['training.safetensors', 'weights.safetensors']) {
    const [a, b] = await Promise.all([expected, run].map((path) => readFile(join(path, `step-${steps}`, name))));
    assert(a!.equals(b!), `${name} differs`);
  }
  assert.equal(await readFile(join(run, 'best'), 'utf8'), await readFile(join(expected, 'best'), 'utf8'));
  const history = await readHistory(run);
  assert.deepEqual(eventsOf(history, 'step').map(({ step }) => step), Array.from({ length: steps }, (_, i) => i + 1));
  const losses = async (path: string): Promise<unknown> => eventsOf(await readHistory(path), 'step').map((event) => event.losses);
  assert.deepEqual(await losses(run), await losses(expected));
  assert.deepEqual((await readdir(run)).filter((name) => name.startsWith('.') || name === 'lock'), []);
}

const tinySteps = 240;
const tiny = { space: 'tiny', steps: tinySteps, batch: 64, seed: 7, 'save-every': 3, 'evaluate-every': 30 };
const unbroken = join(folder, 'unbroken');

test('a run that is killed twenty times or more, at random and while it writes checkpoints, ends with the bits of an unbroken one', { timeout: 1_800_000 }, async () => {
  await trained(unbroken, tiny);
  const broken = join(folder, 'broken');
  await mkdir(broken);
  const kills: string[] = [];
  let writing = 0;
  // Whether a kill falls into a write of some milliseconds is luck: a few more, where it was bad.
  while (kills.length < 20 || (writing < 8 && kills.length < 30)) {
    const run = start(broken, tiny);
    if (kills.length % 5 < 3) await killWriting(run, broken, 1 + (kills.length % 3), (kills.length % 4) * 4);
    else {
      assert(await run.has(/saved/), run.output());
      await wait(Math.random() * 1500);
      await run.kill('SIGKILL');
    }
    assert.equal(await run.ended, null, `the run ended before it was killed often enough: ${run.output()}`);
    const half = await halfWritten(broken);
    if (half) writing++;
    kills.push(`${await latestOf(broken)}${half ? ' (writing)' : ''}`);
  }
  console.log(`killed ${kills.length} times, ${writing} of them while a checkpoint was written; the latest one then: ${kills.join(', ')}`);
  assert(writing >= 8, `${writing} kills fell into the writing of a checkpoint`);
  assert(new Set(kills).size > 8 && (await latestOf(broken)) < tinySteps, 'kills fell into a run that went on in between');
  const last = start(broken, tiny);
  assert.equal(await last.ended, 0, last.output());
  await assertSameRun(broken, unbroken, tinySteps);
  assert.equal((await openCheckpoint(join(broken, 'checkpoint'))).manifest.training.step, tinySteps);
});

test('files that may not grow stop a run, and nothing is lost', { timeout: 600_000 }, async () => {
  const output = join(folder, 'limited');
  const first = start(output, tiny);
  assert(await first.has(/step 6 {2}saved/), first.output());
  assert.equal(await first.kill('SIGTERM'), 0, first.output());
  const before = await latestOf(output);
  // The crops alone have 1.5 MB; the weights, written before them, fit.
  const full = start(output, tiny, 'ulimit -f 400');
  assert.equal(await full.ended, 1, full.output());
  assert.match(full.output(), /cannot be written: EFBIG.*Make room there; then --resume goes on/);
  assert.equal(await latestOf(output), before);
  assert(!(await halfWritten(output)));
  await trained(output, tiny);
  await assertSameRun(output, unbroken, tinySteps);
});

const mounts = spawnSync('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'none', tmpdir()]).status === 0;

test('a disk that is full stops a run, and nothing is lost', { timeout: 600_000, skip: mounts ? false : 'no file system can be mounted here' }, async () => {
  const [output, disk] = [join(folder, 'full'), join(folder, 'disk')];
  await mkdir(disk);
  // Room for two steps of 1.8 MB, not for a third beside them. The disk is gone with the shell, which copies the run before.
  const script = `mount -t tmpfs -o size=4500k none '${disk}' && "$@"; code=$?; cp -r '${disk}/run' '${output}'; exit $code`;
  const args = Object.entries(tiny).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const { status, stderr } = spawnSync('unshare', ['-rm', 'bash', '-c', script, 'bash', process.execPath, cli, ...args, '--output', join(disk, 'run')], { encoding: 'utf8' });
  assert.equal(status, 1, stderr);
  assert.match(stderr, /cannot be written: ENOSPC.*Make room there; then --resume goes on/);
  assert.equal(await latestOf(output), 6);
  assert(!(await halfWritten(output)));
  await trained(output, tiny);
  await assertSameRun(output, unbroken, tinySteps);
});

test('the same in the space of the shipped checkpoint, killed twice', { timeout: 1_200_000 }, async () => {
  const options = { space: 'cifar10', steps: 12, batch: 32, seed: 7, 'save-every': 2, 'evaluate-every': 100 };
  const whole = join(folder, 'whole');
  await trained(whole, options);
  const broken = join(folder, 'twice');
  await mkdir(broken);
  const first = start(broken, options);
  await killWriting(first, broken, 2, 0);
  assert.equal(await first.ended, null);
  assert(await halfWritten(broken) && (await latestOf(broken)) === 2);
  const second = start(broken, options);
  assert(await second.has(/step 6 {2}saved/), second.output());
  assert.equal(await second.kill('SIGKILL'), null);
  await trained(broken, options);
  await assertSameRun(broken, whole, 12);
});

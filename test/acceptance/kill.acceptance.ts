import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const cli = fileURLToPath(new URL('../../cli/bignas-train.js', import.meta.url));
const folder = await mkdtemp(join(tmpdir(), 'bignas-kill-'));
after(() => rm(folder, { recursive: true, force: true }));

const steps = 240;

interface Run {
  readonly ended: Promise<number | null>;
  readonly output: () => string;
  kill(): void;
}

function start(output: string): Run {
  // A checkpoint every third step, so that kills also fall into its writing.
  const child = spawn(process.execPath, [
    cli, '--data', 'cifar10', '--space', 'tiny', '--steps', String(steps), '--batch', '64', '--seed', '7', '--output', output, '--resume',
    '--save-every', '3', '--evaluate-every', '1000',
  ], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
  return {
    ended: new Promise((resolve) => child.once('exit', (code) => resolve(code))),
    output: () => text,
    kill: () => child.kill('SIGKILL'),
  };
}

async function final(run: string): Promise<Buffer[]> {
  return Promise.all(['training.safetensors', 'weights.safetensors'].map((name) => readFile(join(run, `step-${steps}`, name))));
}

test('a run on CIFAR-10 killed with SIGKILL at random times ends with the bits of an unbroken one', { timeout: 1_200_000 }, async () => {
  const unbroken = join(folder, 'unbroken');
  const whole = start(unbroken);
  assert.equal(await whole.ended, 0, whole.output());

  const broken = join(folder, 'broken');
  const killedAt: number[] = [];
  while (killedAt.length < 10) {
    const run = start(broken);
    // Killed some time after its first step, in a later one or while a checkpoint is written.
    while (!/step \d+\/\d+/.test(run.output()) && (await Promise.race([run.ended.then(() => 'ended'), wait(20)])) !== 'ended');
    const ended = await Promise.race([run.ended.then(() => true), wait(Math.random() * 1500)]);
    assert(!ended, `the run ended before it was killed ten times: ${run.output()}`);
    run.kill();
    await run.ended;
    killedAt.push(Number(/\d+/.exec(await readFile(join(broken, 'latest'), 'utf8').catch(() => '0'))));
  }
  console.log(`killed ten times; checkpoints then: ${killedAt.join(', ')}`);
  assert(new Set(killedAt).size > 2 && killedAt.at(-1)! < steps, 'kills fell into a run that went on in between');
  const last = start(broken);
  assert.equal(await last.ended, 0, last.output());
  const [a, b] = [await final(unbroken), await final(broken)];
  a.forEach((bytes, i) => assert(bytes.equals(b[i]!), `file ${i} differs`));
  const left = (await readdir(broken)).filter((name) => name.startsWith('.'));
  assert.deepEqual(left, []);
});

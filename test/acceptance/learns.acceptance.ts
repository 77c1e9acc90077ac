import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openCheckpoint } from '../../src/checkpoint/checkpoint.js';

const cli = fileURLToPath(new URL('../../cli/bignas-train.js', import.meta.url));
const folder = await mkdtemp(join(tmpdir(), 'bignas-learns-'));
after(() => rm(folder, { recursive: true, force: true }));

/** What two cores without a GPU do in half an hour. */
const epochs = '3';

test('from scratch on CIFAR-10, within 30 minutes of training: over 60 % with the biggest child, over 50 % with the smallest', { timeout: 5_400_000 }, async () => {
  const output = join(folder, 'run');
  const run = spawn(process.execPath, [cli, '--epochs', epochs, '--output', output], { stdio: 'inherit' });
  assert.equal(await new Promise((resolve) => run.once('exit', resolve)), 0);
  const { manifest, frontier } = await openCheckpoint(join(output, 'checkpoint'));
  const score = (name: 'biggest' | 'smallest'): number => manifest.scores!.accuracy[frontier.family[name].id]!;
  console.log(`${(manifest.training.seconds / 60).toFixed(1)} minutes: biggest ${score('biggest')}, smallest ${score('smallest')} of the test images`);
  assert(score('biggest') > 0.6);
  assert(score('smallest') > 0.5);
});

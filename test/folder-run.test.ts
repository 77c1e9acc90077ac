import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import request from 'supertest';
import { openCheckpoint } from '../src/checkpoint/checkpoint.js';
import { photo, putOddFolder } from './support/photoFolder.js';
import { testServer } from './support/server.js';

const cli = fileURLToPath(new URL('../cli/bignas-train.js', import.meta.url));
const folder = await mkdtemp(join(tmpdir(), 'bignas-folder-run-'));
after(() => rm(folder, { recursive: true, force: true }));

test('bignas-train on a folder of odd photographs: trains to the end, says what it skipped and why, and is served', async () => {
  const [data, output] = [join(folder, '照片'), join(folder, 'run')];
  await putOddFolder(data);
  const run = spawn(
    process.execPath,
    [cli, '--data', data, '--crop', '16', '--space', 'tiny', '--steps', '12', '--batch', '8', '--replicas', '2', '--calibration-images', '16', '--output', output],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const [said, complained, code] = await Promise.all([text(run.stdout), text(run.stderr), new Promise((resolve) => run.once('exit', resolve))]);
  assert.equal(code, 0, complained);
  for (const skipped of [
    /^Skipped train\/dog\/animated\.gif: is no JPEG, PNG or WebP by its name$/m,
    /^Skipped train\/dog\/notes\.txt: /m,
    /^Skipped train\/dog\/broken link\.jpg: /m,
    /^Skipped train\/cat\/truncated\.jpg: .*cut short/m, // found out while it trains
    /^Skipped train\/dog\/disguised\.jpg: /m,
    /^Skipped val\/cat\/truncated\.jpg: .*cut short/m,
    /train\/empty/m,
  ])
    assert.match(said, skipped);
  assert.doesNotMatch(said, /Skipped \S*(cmyk|16 bits|one\.png|turned|一只鸟)/);

  const { manifest } = await openCheckpoint(join(output, 'checkpoint'));
  assert.deepEqual([manifest.training.step, [...manifest.dataset.classes]], [12, ['cat', 'dog', '鸟']]);
  assert.equal(manifest.space.classes, 3);
  const server = await testServer(join(output, 'checkpoint'));
  try {
    const answer = await request(server.url).post('/predict?arch=M').set('Content-Type', 'image/png').send(await (await photo(7)).png().toBuffer()).expect(200);
    const { predictions } = answer.body as { predictions: { classes: { label: string }[] }[] };
    assert.deepEqual(new Set(predictions[0]!.classes.map(({ label }) => label)), new Set(['cat', 'dog', '鸟']));
  } finally {
    await server.stop(1000);
  }
});

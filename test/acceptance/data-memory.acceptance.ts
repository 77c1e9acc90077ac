import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { link, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { peakOfTree } from '../../bench/train/side.js';
import { photo, put } from '../support/photoFolder.js';

const root = await mkdtemp(join(tmpdir(), 'bignas-memory-'));
after(() => rm(root, { recursive: true, force: true }));

const DISTINCT = 300;
const CLASSES = 10;
const STEPS = 100;

/** `count` JPEGs in ten classes, links to a few hundred distinct ones. */
async function makeFolder(name: string, count: number): Promise<string> {
  const folder = join(root, name);
  for (let c = 0; c < CLASSES; c++) await mkdir(join(folder, `train/class ${c}`), { recursive: true });
  for (let i = 0; i < count; i++) await link(join(root, 'distinct', `${i % DISTINCT}.jpg`), join(folder, `train/class ${i % CLASSES}`, `${i}.jpg`));
  return folder;
}

/** Loads, then makes the same number of batches; prints its peak resident memory in KiB. */
const script = `
  import { loadFolder } from ${JSON.stringify(new URL('../../src/data/folder.js', import.meta.url).href)};
  import { openLoader } from ${JSON.stringify(new URL('../../src/data/loader.js', import.meta.url).href)};
  const dataset = await loadFolder({ folder: process.argv[2], crop: 64, log: () => undefined });
  const loader = openLoader({ dataset, batch: 64, seed: 1, kind: 'imagenet-autoaugment', threads: 2 });
  for (let step = 0; step < ${STEPS}; step++) await loader.batch(step);
  await loader.close();
  const { train, validation, test } = dataset.splits;
  console.log(JSON.stringify({ images: train.count + validation.count + test.count, peak: process.resourceUsage().maxRSS }));`;

const counts = [1_000, 50_000];
for (let i = 0; i < DISTINCT; i++) await put(root, `distinct/${i}.jpg`, await (await photo(i)).jpeg().toBuffer());
const folders = new Map<number, string>();
for (const count of counts) folders.set(count, await makeFolder(String(count), count));

test('loading a folder of 50,000 images takes the memory of one of 1,000, within 10 %', { timeout: 1_200_000 }, async (t) => {
  await put(root, 'load.mjs', script);
  const peaks: number[] = [];
  for (const count of counts) {
    const folder = folders.get(count)!;
    const said = JSON.parse(execFileSync(process.execPath, [join(root, 'load.mjs'), folder], { encoding: 'utf8' })) as { images: number; peak: number };
    assert.equal(said.images, count);
    peaks.push(said.peak);
    t.diagnostic(`${count} images: peak ${(said.peak / 1024).toFixed(0)} MiB`);
  }
  assertWithinTenth(peaks);
});

test('training on it, too: the trainer, its replicas and its threads', { timeout: 1_200_000 }, async (t) => {
  const cli = fileURLToPath(new URL('../../cli/bignas-train.js', import.meta.url));
  const peaks: number[] = [];
  for (const count of counts) {
    const args = ['--data', folders.get(count)!, '--crop', '64', '--space', 'tiny', '--batch', '64', '--steps', '100000', '--replicas', '2', '--evaluate-every', '200000'];
    const run = spawn(process.execPath, [cli, ...args, '--output', join(root, `run ${count}`)], { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = once(run, 'exit');
    let peak = 0;
    for await (const line of createInterface({ input: run.stdout })) {
      if (Number(/^step (\d+)\//.exec(line)?.[1] ?? 0) < STEPS || peak > 0) continue;
      peak = peakOfTree(run.pid!) / 1024;
      run.kill('SIGTERM');
    }
    assert.deepEqual(await ended, [0, null]);
    peaks.push(peak);
    t.diagnostic(`${count} images: peak of all processes ${(peak / 1024).toFixed(0)} MiB`);
  }
  assertWithinTenth(peaks);
});

function assertWithinTenth([few, many]: readonly number[]): void {
  assert.ok(few! > 0 && many! <= 1.1 * few!, `${((100 * many!) / few! - 100).toFixed(1)} % more`);
}

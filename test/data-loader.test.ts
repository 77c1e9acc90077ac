import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { batchIndices } from '../src/data/batches.js';
import { loadCifar10 } from '../src/data/cifar10.js';
import type { Dataset } from '../src/data/dataset.js';
import { loadFolder } from '../src/data/folder.js';
import { openLoader, type LoaderOptions } from '../src/data/loader.js';
import { syntheticDataset } from './support/dataset.js';
import { put, putOddFolder, putPhotos } from './support/photoFolder.js';

const root = await mkdtemp(join(tmpdir(), 'bignas-loader-'));
after(() => rm(root, { recursive: true, force: true }));
const folder = (name: string, lines: string[] = [], maxCorrupt?: number): Promise<Dataset> =>
  loadFolder({ folder: join(root, name), crop: 24, log: (line) => lines.push(line), ...(maxCorrupt !== undefined && { maxCorrupt }) });

type Made = { readonly indices: Uint32Array; readonly epoch: number; readonly crops: Uint8Array };

/** What a loader gives for these steps, copied out before the next one is asked for. */
async function made(options: LoaderOptions, steps: readonly number[]): Promise<Made[]> {
  const loader = openLoader(options);
  try {
    const all: Made[] = [];
    for (const step of steps) {
      const { indices, epoch, crops } = await loader.batch(step);
      all.push({ indices, epoch, crops: crops.slice() });
    }
    return all;
  } finally {
    await loader.close();
  }
}

/** The same on this thread. */
async function unthreaded({ dataset: { splits: { train } }, batch, seed, cropSeed = seed, kind }: LoaderOptions, steps: readonly number[]): Promise<Made[]> {
  const all: Made[] = [];
  for (const step of steps) {
    const { indices, epoch } = batchIndices(train.count, batch, seed, step);
    all.push({ indices, epoch, crops: await train.augmented(indices, { seed: cropSeed, epoch, kind }) });
  }
  return all;
}

describe('batches made by threads', () => {
  test('are those made without, whatever the number of threads and of steps ahead', async () => {
    await putOddFolder(join(root, 'odd'));
    const lines: string[] = [];
    for (const [dataset, kind, batch] of [
      [syntheticDataset(4, 12, { train: 50, validation: 4, test: 4 }), 'cifar-autoaugment', 16],
      [await loadCifar10({ log: () => undefined }), 'cifar', 128],
      [await folder('odd', lines), 'imagenet-autoaugment', 8],
    ] as const) {
      const steps = [0, 1, 2, 3, 4, 5, 6];
      const wanted = await unthreaded({ dataset, kind, batch, seed: 3 }, steps);
      for (const [threads, ahead] of [[1, 0], [2, 2], [5, 3]] as const)
        assert.deepEqual(await made({ dataset, kind, batch, seed: 3, threads, ahead }, steps), wanted, `${dataset.name}, ${threads} threads, ${ahead} ahead`);
    }
    for (const path of ['train/cat/truncated.jpg', 'train/dog/disguised.jpg'])
      assert.equal(lines.filter((line) => line.startsWith(`Skipped ${path}:`)).length, 1, 'said once, whichever threads met it');
  });

  test('start at any step, also in the middle of an epoch, and jump; crops may have a seed of their own', async () => {
    const dataset = syntheticDataset(4, 12, { train: 50, validation: 4, test: 4 });
    const options = { dataset, kind: 'imagenet', batch: 16, seed: 8, cropSeed: 9, threads: 2 } as const;
    assert.equal(batchIndices(50, 16, 8, 7).epoch, 2);
    const steps = [7, 8, 9, 3, 4, 30, 7];
    assert.deepEqual(await made({ ...options, steps: 10 }, steps), await unthreaded(options, steps));
  });

  test('take memory for a few steps, used again and again', async () => {
    const dataset = syntheticDataset(4, 12, { train: 50, validation: 4, test: 4 });
    const loader = openLoader({ dataset, kind: 'flip', batch: 16, seed: 1, threads: 2, ahead: 2 });
    const buffers = new Set<ArrayBufferLike>();
    for (let step = 0; step < 40; step++) buffers.add((await loader.batch(step)).crops.buffer);
    await loader.close();
    assert.ok(buffers.size <= 4, `${buffers.size} buffers`);
  });

  test('are made while this thread is blocked, the one just ordered too', async () => {
    const options = { dataset: await loadCifar10({ log: () => undefined }), kind: 'cifar-autoaugment', batch: 64, seed: 1, threads: 1, ahead: 2 } as const;
    const [wanted] = await unthreaded(options, [12]);
    const loader = openLoader(options);
    const buffers = new Set<ArrayBufferLike>();
    for (let step = 0; step <= 10; step++) buffers.add((await loader.batch(step)).crops.buffer);
    // From here on this thread takes no message: step 12 was ordered by the call for step 10.
    const clock = new Int32Array(new SharedArrayBuffer(4));
    const there = (): boolean => [...buffers].some((buffer) => Buffer.compare(new Uint8Array(buffer), wanted!.crops) === 0);
    for (let waited = 0; !there() && waited < 2000; waited++) Atomics.wait(clock, 0, 0, 10);
    assert.ok(there());
    await loader.close();
  });
});

describe('a loader that cannot go on', () => {
  test('gives the error of the data set, with its code, and may be asked again', async () => {
    await putPhotos(join(root, 'bad'), 'train/a', 12, 0);
    await putPhotos(join(root, 'bad'), 'val/a', 2, 20);
    for (let i = 0; i < 4; i++) await put(root, `bad/train/a/bad${i}.jpg`, 'no image');
    const dataset = await folder('bad', [], 1);
    const loader = openLoader({ dataset, kind: 'imagenet', batch: 12, seed: 1, threads: 3 });
    for (let i = 0; i < 2; i++) await assert.rejects(loader.batch(0), { name: 'BignasError', code: 'DATA_INVALID', message: /than the 1 that are allowed/ });
    await loader.close();

    for (let i = 0; i < 3; i++) await put(root, `hopeless/train/b/${i}.png`, 'no image');
    await putPhotos(join(root, 'hopeless'), 'train/a', 9, 0);
    const other = openLoader({ dataset: await folder('hopeless'), kind: 'imagenet', batch: 8, seed: 1, threads: 2 });
    await assert.rejects(other.batch(0), { code: 'DATA_INVALID', message: /None of the 1 training images/ });
    await other.close();
  });

  test('refuses options before it starts threads', () => {
    const dataset = syntheticDataset(4, 12, { train: 50, validation: 4, test: 4 });
    for (const wrong of [{ batch: 51 }, { batch: 0 }, { threads: 0 }, { threads: 1.5 }, { ahead: -1 }])
      assert.throws(() => openLoader({ dataset, kind: 'flip', batch: 8, seed: 1, ...wrong }), { code: 'OPTION_INVALID' });
  });

  test('is closed while busy: what it was asked fails, and so does what it is asked then', async () => {
    const dataset = await folder('odd');
    const loader = openLoader({ dataset, kind: 'imagenet-autoaugment', batch: 30, seed: 1, threads: 2 });
    const refused = assert.rejects(loader.batch(0), /closed/);
    await loader.close();
    await refused;
    await assert.rejects(loader.batch(1), /closed/);
  });

  test('leaves a process that ends', async () => {
    const url = (path: string): string => JSON.stringify(new URL(path, import.meta.url).href);
    const script = `
      import { openLoader } from ${url('../src/data/loader.js')};
      import { syntheticDataset } from ${url('./support/dataset.js')};
      const loader = openLoader({ dataset: syntheticDataset(4, 64, { train: 50, validation: 4, test: 4 }), kind: 'imagenet-autoaugment', batch: 40, seed: 1, threads: 2, ahead: 50 });
      await loader.batch(0);
      await loader.close();
      console.log('closed');`;
    await put(root, 'closes.mjs', script);
    const child = spawn(process.execPath, [join(root, 'closes.mjs')], { stdio: ['ignore', 'pipe', 'inherit'], timeout: 60_000 });
    let said = '';
    child.stdout.on('data', (data: Buffer) => (said += data.toString()));
    assert.equal(await new Promise((resolve) => child.once('exit', resolve)), 0, said);
    assert.equal(said, 'closed\n');
  });
});

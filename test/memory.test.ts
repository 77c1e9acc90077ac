import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { memoryParts, warnOfMemory } from '../serve/memory.js';
import { packagePath } from '../serve/packagePath.js';
import { PrefixStore } from '../src/calibrate/prefixStore.js';
import { openCheckpoint } from '../src/checkpoint/checkpoint.js';
import { imagenet } from '../src/space/presets/imagenet.js';
import { freeAtOnce } from '../src/memory.js';

const MIB = 2 ** 20;

test('what is freed at once is gone before any garbage collection', async () => {
  freeAtOnce(new Float32Array(1));
  await sleep(50); // the first ones wait until the port's other end has closed
  const array = new Float32Array(8 * MIB).fill(1);
  const before = process.memoryUsage().arrayBuffers;
  freeAtOnce(array);
  assert.equal(array.length, 0);
  assert.ok(before - process.memoryUsage().arrayBuffers >= 31 * MIB);
  const shared = new Float32Array(new SharedArrayBuffer(16));
  freeAtOnce(shared);
  assert.equal(shared.length, 4);
});

test('a store of prefixes frees what goes, and leaves to its owner what it has no room for', () => {
  const store = new PrefixStore(2 * MIB);
  const prefix = (floats: number) => ({ output: new Float32Array(floats), statistics: new Map() });
  const [first, second, tooLarge] = [prefix(MIB / 4), prefix(MIB / 4), prefix(MIB)];
  assert.ok(store.set('first', first));
  assert.ok(store.set('second', second));
  assert.equal(first.output.length, 0);
  assert.ok(!store.set('too large', tooLarge));
  assert.equal(tooLarge.output.length, MIB);
  assert.equal(store.get('second')!.output.length, MIB / 4);
});

test('--cache-bytes has room for what is kept and for a calibration, or says how many it needs', async () => {
  const checkpoint = await openCheckpoint(packagePath('checkpoints', 'cifar10'));
  for (const cacheBytes of [256 * MIB, 512 * MIB, 4096 * MIB]) {
    const { children, prefixes, calibration, needed } = memoryParts(cacheBytes, checkpoint);
    assert.ok(needed <= cacheBytes);
    assert.ok(children + prefixes + calibration < cacheBytes);
  }
  const small = memoryParts(64 * MIB, checkpoint);
  assert.ok(small.needed > 64 * MIB && small.children > 0 && small.prefixes > 0);
  // From there on what is kept grows with --cache-bytes, and no sooner.
  const kept = (cacheBytes: number): number => memoryParts(cacheBytes, checkpoint).children / cacheBytes;
  assert.ok(Math.abs(kept(small.needed) - kept(64 * MIB)) < 1e-3);
  assert.ok(kept(2 * small.needed) > kept(small.needed));
});

test('a checkpoint for which memory was not shared out is told of, by what has to be done', async () => {
  const { manifest } = await openCheckpoint(packagePath('checkpoints', 'cifar10'));
  const small = { manifest };
  const large = { manifest: { ...manifest, space: imagenet } };
  const warnings = (cacheBytes: number, checkpoint: typeof small, begun?: typeof small): string[] => {
    const lines: string[] = [];
    warnOfMemory(cacheBytes, checkpoint, pino({ level: 'warn' }, { write: (line) => lines.push((JSON.parse(line) as { msg: string }).msg) }), begun);
    return lines;
  };
  const enough = memoryParts(0, large).needed;
  assert.deepEqual(warnings(enough, large), []);
  assert.match(warnings(enough - 1, large).join('\n'), /^memory will go beyond --cache-bytes/);
  assert.deepEqual(warnings(enough, large, large), []);
  assert.deepEqual(warnings(enough, small, large), []);
  assert.match(warnings(enough, large, small).join('\n'), /start it again/);
});

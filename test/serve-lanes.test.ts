import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { BignasClient } from '../serve/client.js';
import type { RunningServer } from '../serve/server.js';
import { smallest } from '../src/space/architecture.js';
import { imagenet } from '../src/space/presets/imagenet.js';
import { stream } from '../src/random.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { temporaryFolder, testServer } from './support/server.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let server: RunningServer;

before(async () => {
  folder = await temporaryFolder();
  // Its runs take milliseconds: shorter ones are not worth lanes.
  const checkpoint = await makeCheckpoint(imagenet, join(folder.path, 'checkpoint'), { calibrated: [], crops: 16 });
  server = await testServer(checkpoint.folder, { threads: 2, cacheBytes: 2 ** 30 });
});
after(async () => {
  await server.stop(1000);
  await folder.remove();
});

test('a child that many ask for is given to the lanes, answers the same there, and goes on without them when one dies', async () => {
  const { children, lanes } = server.services;
  const client = new BignasClient(server.url);
  const { resolution } = smallest(imagenet);
  const tensors = Array.from({ length: 4 }, (_, seed) => {
    const draws = stream(99, seed);
    return Float32Array.from({ length: 3 * resolution ** 2 }, () => draws.normal());
  });
  const ask = async (i: number): Promise<Float32Array> => (await client.infer(tensors[i % 4]!, [1, 3, resolution, resolution], { arch: 'smallest' })).probabilities;
  const alone: Float32Array[] = [];
  for (let i = 0; i < 4; i++) alone.push(await ask(i));
  const one = children.bytes;
  const together = async (): Promise<void> => {
    const answers = await Promise.all(Array.from({ length: 12 }, (_, i) => ask(i)));
    answers.forEach((answer, i) => answer.forEach((value, c) => assert(Math.abs(value - alone[i % 4]![c]!) < 1e-5)));
  };
  const inLanes = async (): Promise<void> => {
    for (let round = 0; children.bytes <= one && round < 60; round++) await together();
    assert.equal(children.bytes, 3 * one, 'a copy for each of the two lanes');
  };
  await inLanes();
  await together();
  await together();

  await lanes[0]!.worker.terminate();
  assert.equal(children.bytes, one);
  await together();
  await inLanes();
});

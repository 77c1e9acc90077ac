import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { unzipSync } from 'fflate';
import { BignasClient } from '../serve/client.js';
import type { RunningServer } from '../serve/server.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import { decodeImage } from '../src/data/images.js';
import { fixedCrop, normalisedBatch } from '../src/data/preprocess.js';
import { tiny } from '../src/space/presets/tiny.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { png } from './support/images.js';
import { temporaryFolder, testServer } from './support/server.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let server: RunningServer;
let client: BignasClient;
const token = 't'.repeat(32);

before(async () => {
  folder = await temporaryFolder();
  checkpoint = await makeCheckpoint(tiny, folder.path);
  server = await testServer(folder.path, { security: { tokens: { predict: [token], slice: [token], admin: [] }, rateLimit: undefined, corsOrigins: [], trustedProxies: 0 } });
  client = new BignasClient(`${server.url}/`, { token });
});
after(async () => {
  await server.stop(1000);
  await folder.remove();
});

test('speaks with the server: predictions of images and tensors, bundles, what there is', async () => {
  assert.equal(await client.ready(), true);
  const photo = await png(24, 24);
  const one = await client.predict(photo, { arch: 'M', top: tiny.classes });
  assert.equal(one.id, checkpoint.frontier.family.M.id);
  const several = await client.predict([photo, photo], { arch: 'M', top: 1 });
  assert.deepEqual(several.predictions.map(({ classes }) => classes), [one, one].map(({ predictions }) => predictions[0]!.classes.slice(0, 1)));
  const { preprocessing } = await client.space();
  const { resolution } = await client.arch('M');
  const tensor = normalisedBatch(fixedCrop(await decodeImage(photo), preprocessing), preprocessing, resolution, 'NCHW');
  const { probabilities, classes } = await client.infer(tensor, [1, 3, resolution, resolution], { arch: 'M' });
  assert.equal(classes, tiny.classes);
  for (const { index, probability } of one.predictions[0]!.classes) assert.ok(Math.abs(probabilities[index]! - probability) < 1e-6);
  const bundle = (await client.slice({ flops: checkpoint.frontier.family.M.costs.flops.value }))!;
  const bytes = new Uint8Array(await new Response(bundle.body).arrayBuffer());
  assert.equal(bytes.length, bundle.length);
  assert.ok('model.onnx' in unzipSync(bytes));
  assert.equal(await client.slice({ flops: checkpoint.frontier.family.M.costs.flops.value }, { etag: bundle.etag }), undefined);
  assert.ok((await client.archs()).front.length > 0);
});

test('an error has the server\'s words, its code, and when to ask again', async () => {
  await assert.rejects(client.predict(Uint8Array.from([1, 2]), { arch: 'M' }), { name: 'BignasClientError', status: 400, message: /Expected an image/ });
  await assert.rejects(client.infer(new Float32Array(3), [1, 3, 1, 1], { arch: 'M' }), { status: 400, problem: undefined, message: /shape/ });
  await assert.rejects(new BignasClient(server.url).predict(new Uint8Array(1)), (error: { problem: { code: string } }) => error.problem.code === 'UNAUTHORISED');
});

test('asks again when the server is busy, as often and as soon as told', async (t) => {
  let asked = 0;
  const busy = createServer((_request, response) => {
    asked++;
    if (asked % 3 === 0) response.setHeader('Content-Type', 'application/json').end('{"front": []}');
    else response.writeHead(503, { 'Retry-After': '0' }).end('<html>');
  }).listen(0, '127.0.0.1');
  t.after(() => busy.close());
  await new Promise((resolve) => busy.once('listening', resolve));
  const url = `http://127.0.0.1:${(busy.address() as AddressInfo).port}`;
  assert.deepEqual(await new BignasClient(url).archs(), { front: [] });
  assert.equal(asked, 3);
  await assert.rejects(new BignasClient(url, { retries: 1 }).archs(), { status: 503, message: /503: <html>/ });
  assert.equal(asked, 5);
  asked++; // the next one would be answered
  await assert.rejects(new BignasClient(url, { longestWait: -1 }).archs(), { status: 503, retryAfter: 0 });
  assert.equal(asked, 7);
});

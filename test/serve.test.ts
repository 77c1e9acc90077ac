import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { unzipSync } from 'fflate';
import request from 'supertest';
import type { RunningServer } from '../serve/server.js';
import { bundleManifestSchema } from '../src/bundle/manifest.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import { familyNames } from '../src/checkpoint/frontier.js';
import { decodeImage } from '../src/data/images.js';
import { fixedCrop, normalisedBatch } from '../src/data/preprocess.js';
import { loadModel } from '../src/onnx/engine.js';
import { formatArchitecture } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { jpeg, png, webp } from './support/images.js';
import { parsePrometheus, valueOf, type Family } from './support/prometheus.js';
import { temporaryFolder, testServer } from './support/server.js';
import { binary } from './support/binary.js';

interface Answer {
  readonly id: string;
  readonly architecture: string;
  readonly name?: string;
  readonly choice: string;
  readonly resolution: number;
  readonly costs: { flops: { value: number } };
  readonly accuracy: { value: number } | null;
  readonly predictions: { file?: string; classes: { label: string; index: number; probability: number }[] }[];
  readonly milliseconds: Record<string, number>;
}

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let server: RunningServer;
let photo: Buffer;

before(async () => {
  folder = await temporaryFolder();
  checkpoint = await makeCheckpoint(cifar10, folder.path);
  server = await testServer(folder.path);
  photo = await png(48, 40);
});
after(async () => {
  await server.stop(1000);
  await folder.remove();
});

/** An architecture of the space that the frontier does not have. */
const own = (seed: number): string => formatArchitecture(sampleArchitecture(cifar10, [4711, seed]));

const post = (query: string, body: Buffer | string = photo, type = 'image/png', url = server.url) =>
  request(url).post(`/predict${query}`).set('Content-Type', type).send(body);

async function predict(query: string, body?: Buffer | string, type?: string, url?: string): Promise<Answer> {
  const response = await post(query, body, type, url);
  assert.equal(response.status, 200, response.text);
  return response.body as Answer;
}

async function metrics(url = server.url): Promise<Map<string, Family>> {
  return parsePrometheus((await request(url).get('/metrics').expect(200).expect('Content-Type', /^text\/plain; version=0\.0\.4/)).text);
}

describe('POST /predict', () => {
  test('answers for every name, an id, an architecture of the caller, budgets, and nothing', async () => {
    for (const name of familyNames) {
      const answer = await predict(`?arch=${name}&top=10`);
      assert.equal(answer.id, checkpoint.frontier.family[name].id);
      const { classes } = answer.predictions[0]!;
      assert.equal(classes.length, 10);
      assert.ok(Math.abs(classes.reduce((sum, { probability }) => sum + probability, 0) - 1) < 1e-9);
      assert.ok(classes.every(({ probability }, i) => i === 0 || probability <= classes[i - 1]!.probability));
      assert.ok(classes.every(({ label, index }) => label === checkpoint.manifest.dataset.classes[index]));
    }
    const { id } = checkpoint.frontier.family.L;
    assert.equal((await predict(`?arch=${id}`)).name, 'L');
    const mine = await predict(`?arch=${own(0)}`);
    assert.equal(mine.architecture, own(0));
    assert.equal(mine.name, undefined);
    assert.equal(mine.accuracy, null);
    assert.ok(mine.costs.flops.value > 1e6);
    assert.equal(mine.predictions[0]!.classes.length, 5);

    const bound = checkpoint.frontier.family.M.costs.flops.value;
    const within = await predict(`?flops=${bound}`);
    assert.deepEqual([within.name, within.choice], ['M', 'most accurate within the budget']);
    const both = await predict('?flops=1e9&params=600K');
    assert.ok(both.costs.flops.value <= 1e9);
    const best = await predict('');
    assert.deepEqual([best.name, best.choice], ['biggest', 'most accurate']);
  });

  test('takes the same image raw, in a form, in JSON, and in every format', async () => {
    const raw = (await predict('?arch=S')).predictions[0]!;
    const again = async (body: Buffer | string, type: string) => (await predict('?arch=S', body, type)).predictions[0]!.classes;
    assert.deepEqual(await again(photo, 'application/octet-stream'), raw.classes);
    assert.deepEqual(await again(await webp(48, 40), 'image/webp'), raw.classes);
    assert.deepEqual(await again(JSON.stringify({ images: [photo.toString('base64')] }), 'application/json'), raw.classes);

    const form = await request(server.url).post('/predict?arch=S').attach('a', photo, 'one.png').attach('b', await jpeg(48, 40), 'two.jpg').field('note', 'x').expect(200);
    const { predictions } = form.body as Answer;
    assert.deepEqual(predictions.map(({ file }) => file), ['one.png', 'two.jpg']);
    assert.deepEqual(predictions[0]!.classes.map(({ index }) => index), raw.classes.map(({ index }) => index));
    assert.ok(Math.abs(predictions[0]!.classes[0]!.probability - raw.classes[0]!.probability) < 1e-6);
    // A JPEG of it is almost the same picture.
    assert.ok(Math.abs(predictions[1]!.classes[0]!.probability - raw.classes[0]!.probability) < 0.1);
  });

  test('a child is built and calibrated once, however many ask at once', async () => {
    const earlier = await metrics();
    const answers = await Promise.all(Array.from({ length: 20 }, () => predict(`?arch=${own(1)}`)));
    for (const { predictions } of answers) assert.deepEqual(predictions, answers[0]!.predictions);
    const later = await metrics();
    const grown = (name: string, labels = {}): number => valueOf(later, name, labels) - valueOf(earlier, name, labels);
    assert.equal(grown('bignas_cache_misses_total', { cache: 'children' }), 1);
    assert.equal(grown('bignas_cache_hits_total', { cache: 'children' }), 19);
    assert.equal(grown('bignas_build_seconds_count'), 1);
    assert.equal(grown('bignas_calibration_seconds_count'), 1);
  });

  test('children come and go under a small bound while requests run', async () => {
    const maxBytes = 40 * 2 ** 20;
    const small = await testServer(folder.path, { cacheBytes: maxBytes });
    try {
      const answers = await Promise.all(Array.from({ length: 48 }, (_, i) => predict(`?arch=${own(i % 8)}`, photo, 'image/png', small.url)));
      for (const [i, answer] of answers.entries()) assert.deepEqual(answer.predictions, answers[i % 8]!.predictions);
      // In turn, so that each has to make room.
      for (let i = 0; i < 8; i++) assert.deepEqual((await predict(`?arch=${own(i)}`, photo, 'image/png', small.url)).predictions, answers[i]!.predictions);
      const after = await metrics(small.url);
      assert.ok(valueOf(after, 'bignas_cache_evictions_total', { cache: 'children' }) > 0);
      const bytes = valueOf(after, 'bignas_cache_bytes', { cache: 'children' });
      assert.ok(bytes > 0 && bytes <= maxBytes, `${bytes} bytes`);
      assert.equal(valueOf(after, 'bignas_calibration_seconds_count'), 8, 'an evicted child keeps its statistics');
    } finally {
      await small.stop(1000);
    }
  });

  test('beyond the queue it answers 503 at once', async () => {
    const narrow = await testServer(folder.path, { queue: 2 });
    try {
      const all = await Promise.all(Array.from({ length: 12 }, (_, i) => post(`?arch=${own(i)}`, photo, 'image/png', narrow.url)));
      const refused = all.filter(({ status }) => status === 503);
      assert.ok(refused.length > 0 && refused.length < 12);
      assert.ok(all.every(({ status }) => status === 200 || status === 503));
      assert.deepEqual([refused[0]!.get('Retry-After'), (refused[0]!.body as { code: string }).code], ['1', 'OVERLOADED']);
      assert.equal((await post('', photo, 'image/png', narrow.url)).status, 200);
      assert.equal(valueOf(await metrics(narrow.url), 'bignas_http_requests_in_flight'), 0);
    } finally {
      await narrow.stop(1000);
    }
  });

  test('a worker that dies is replaced; its children are built again when asked for', async () => {
    const fragile = await testServer(folder.path);
    try {
      const first = await predict('?arch=M', photo, 'image/png', fragile.url);
      for (const thread of [fragile.services.run[0]!, fragile.services.build, fragile.services.images[0]!]) {
        const underWay = thread === fragile.services.run[0] ? undefined : post(`?arch=${own(2)}`, photo, 'image/png', fragile.url).then((r) => r);
        await thread.worker.terminate();
        const status = (await underWay)?.status ?? 200;
        assert.ok(status === 200 || status === 503);
        assert.deepEqual((await predict('?arch=M', photo, 'image/png', fragile.url)).predictions, first.predictions);
      }
      // The build worker, which no request waited for, may still be starting.
      for (let i = 0; i < 100 && (await request(fragile.url).get('/v2/health/ready')).status !== 200; i++) await sleep(50);
      await request(fragile.url).get('/v2/health/ready').expect(200, { ready: true });
      const after = await metrics(fragile.url);
      for (const role of ['run', 'build', 'image']) assert.equal(valueOf(after, 'bignas_worker_deaths_total', { role }), 1);
    } finally {
      await fragile.stop(1000);
    }
  });

  test('a client that hangs up takes its request back', async () => {
    const controller = new AbortController();
    const asked = fetch(`${server.url}/predict?arch=${own(30)}`, { method: 'POST', body: new Uint8Array(photo), signal: controller.signal }).catch(() => 'gone');
    setTimeout(() => controller.abort(), 5);
    assert.equal(await asked, 'gone');
    await predict('?arch=M');
    // Its child may still be in the making.
    for (let i = 0; i < 100 && server.services.admission.count > 0; i++) await sleep(50);
    assert.equal(valueOf(await metrics(), 'bignas_http_requests_in_flight'), 0);
  });
});

describe('GET /slice', () => {
  const slice = (query: string) => request(server.url).get(`/slice${query}`).buffer(true).parse(binary);

  test('gives a bundle that is the same every time, and that computes what the server answers', async () => {
    const architecture = own(3);
    const first = await slice(`?arch=${architecture}`).expect(200).expect('Content-Type', 'application/zip');
    const bytes = first.body as Buffer;
    assert.equal(first.get('ETag'), `"${sha256(bytes)}"`);
    assert.equal(first.get('Content-Location'), `/slice?arch=${architecture}&format=onnx`);
    assert.match(first.get('Content-Disposition')!, /^attachment; filename="bignas-cifar10-[0-9a-f]{12}\.zip"$/);
    const other = await testServer(folder.path);
    try {
      const again = await request(other.url).get(`/slice?arch=${architecture}`).buffer(true).parse(binary);
      assert.deepEqual(again.body, bytes);
    } finally {
      await other.stop(1000);
    }

    const files = unzipSync(bytes);
    const manifest = bundleManifestSchema.parse(JSON.parse(Buffer.from(files['manifest.json']!).toString()));
    assert.deepEqual(Object.keys(files).sort(), ['README.md', 'SHA256SUMS', 'golden.safetensors', 'manifest.json', 'model.onnx']);
    for (const [name, digest] of Object.entries(manifest.files)) assert.equal(sha256(files[name]!), digest);
    assert.deepEqual(manifest.labels, checkpoint.manifest.dataset.classes);
    assert.deepEqual([manifest.architecture, manifest.checkpoint.digest, manifest.calibration.engine?.name], [architecture, checkpoint.digest, 'onnx']);

    const { resolution, ...preprocessing } = manifest.preprocessing;
    const model = await loadModel(files['model.onnx']!, 1);
    const logits = await model.run({ data: normalisedBatch(fixedCrop(await decodeImage(photo), preprocessing), preprocessing, resolution, 'NCHW'), count: 1 });
    await model.dispose();
    const powers = [...logits].map(Math.exp);
    const sum = powers.reduce((a, b) => a + b, 0);
    for (const { index, probability } of (await predict(`?arch=${architecture}&top=10`)).predictions[0]!.classes)
      assert.ok(Math.abs(powers[index]! / sum - probability) < 1e-6);
  });

  test('gives the most accurate child within the bounds', async () => {
    const { L, XL } = checkpoint.frontier.family;
    const response = await slice(`?flops=${XL.costs.flops.value - 1}`).expect(200);
    assert.equal(response.get('Content-Location'), `/slice?arch=${L.architecture}&format=onnx`);
  });

  test('knows HEAD, If-None-Match, Range and If-Range', async () => {
    const whole = await slice('?arch=S').expect(200);
    const bytes = whole.body as Buffer;
    const etag = whole.get('ETag')!;
    const head = await request(server.url).head('/slice?arch=S').expect(200);
    assert.deepEqual([head.get('ETag'), head.get('Content-Length')], [etag, String(bytes.length)]);
    await slice('?arch=S').set('If-None-Match', etag).expect(304);
    await slice('?arch=S').set('If-None-Match', '"other"').expect(200);
    const part = await slice('?arch=S').set('Range', 'bytes=100-299').expect(206).expect('Content-Range', `bytes 100-299/${bytes.length}`);
    assert.deepEqual(part.body, bytes.subarray(100, 300));
    const rest = await slice('?arch=S').set('Range', `bytes=${bytes.length - 10}-`).set('If-Range', etag).expect(206);
    assert.deepEqual(rest.body, bytes.subarray(-10));
    await slice('?arch=S').set('Range', 'bytes=5-9').set('If-Range', '"other"').expect(200);
    const beyond = await request(server.url).get('/slice?arch=S').set('Range', `bytes=${bytes.length}-`).expect(416).expect('Content-Range', `bytes */${bytes.length}`);
    assert.equal((beyond.body as { code: string }).code, 'RANGE_INVALID');
  });

  test('builds a bundle once, however many ask at once', async () => {
    const earlier = await metrics();
    const all = await Promise.all(Array.from({ length: 10 }, () => slice(`?arch=${own(5)}`).expect(200)));
    assert.ok(all.every(({ body }) => (body as Buffer).equals(all[0]!.body as Buffer)));
    assert.equal(valueOf(await metrics(), 'bignas_build_seconds_count') - valueOf(earlier, 'bignas_build_seconds_count'), 1);
  });
});

describe('what there is', () => {
  test('/archs, /archs/:arch, /space, /, /errors and the probes', async () => {
    const archs = (await request(server.url).get('/archs').expect(200)).body as { family: Record<string, Answer & { calibration: string }>; front: Answer[] };
    assert.deepEqual(Object.keys(archs.family), [...familyNames]);
    assert.equal(archs.family['S']!.calibration, 'in the checkpoint');
    assert.equal(archs.front.length, checkpoint.frontier.front.length);
    const one = (await request(server.url).get(`/archs/${own(9)}`).expect(200)).body as Answer & { calibration: string; loaded: boolean };
    assert.deepEqual([one.architecture, one.calibration, one.loaded], [own(9), 'when asked for', false]);
    const space = (await request(server.url).get('/space').expect(200)).body as { space: unknown; architectures: string };
    assert.deepEqual(space.space, cifar10);
    assert.match(space.architectures, /^\d+$/);
    const index = (await request(server.url).get('/').expect(200)).body as { routes: { path: string }[] };
    for (const path of ['/predict', '/slice', '/archs', '/metrics']) assert.ok(index.routes.some((route) => route.path === path));
    await request(server.url).get('/errors').expect(200);
    await request(server.url).get('/v2/health/live').expect(200, { live: true });
    await request(server.url).get('/v2/health/ready').expect(200, { ready: true });
  });

  test('a request has an id: its own where that is legal', async () => {
    assert.equal((await request(server.url).get('/').set('X-Request-Id', 'mine-1')).get('X-Request-Id'), 'mine-1');
    assert.match((await request(server.url).get('/').set('X-Request-Id', 'not mine!')).get('X-Request-Id')!, /^[0-9a-f-]{36}$/);
  });

  test('/metrics is Prometheus text with what an operator asks for', async () => {
    await predict('?arch=M');
    await predict(`?arch=${own(0)}`);
    const all = await metrics();
    assert.ok([...all.keys()].every((name) => name.startsWith('bignas_')), 'one prefix');
    assert.ok(valueOf(all, 'bignas_http_request_duration_seconds_count', { method: 'POST', route: '/predict', status: '200' }) > 0);
    for (const name of [...familyNames, 'other']) valueOf(all, 'bignas_predictions_total', { name });
    assert.ok(valueOf(all, 'bignas_predictions_total', { name: 'M' }) > 0);
    assert.ok(valueOf(all, 'bignas_predictions_total', { name: 'other' }) > 0);
    assert.equal(all.get('bignas_predictions_total')!.samples.get('bignas_predictions_total')!.length, familyNames.length + 1, 'bounded');
    assert.ok(valueOf(all, 'bignas_slices_total', { name: 'S' }) > 0);
    assert.equal(valueOf(all, 'bignas_shared_weight_bytes'), checkpoint.weights.data.byteLength);
    assert.ok(valueOf(all, 'bignas_build_seconds_sum') > 0);
    assert.ok(valueOf(all, 'bignas_calibration_seconds_sum') > 0);
    for (const name of ['hits_total', 'misses_total', 'evictions_total', 'bytes']) valueOf(all, `bignas_cache_${name}`, { cache: 'children' });
    assert.ok(all.has('bignas_nodejs_eventloop_lag_p99_seconds') && all.has('bignas_process_resident_memory_bytes'));
  });
});

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

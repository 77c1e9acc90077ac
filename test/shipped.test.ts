import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import sharp, { type Sharp } from 'sharp';
import { verifyBundle } from '../src/bundle/verify.js';
import { goldenLogitsOf } from '../src/calibrate/golden.js';
import type { RunningServer } from '../serve/server.js';
import { openCheckpoint, type Checkpoint } from '../src/checkpoint/checkpoint.js';
import { familyNames } from '../src/checkpoint/frontier.js';
import { loadCifar10 } from '../src/data/cifar10.js';
import type { Dataset } from '../src/data/dataset.js';
import { onnxEngine } from '../src/onnx/engine.js';
import { accuracy } from '../src/search/evaluate.js';
import { graphOf } from '../src/checkpoint/checkpoint.js';
import { testServer } from './support/server.js';

const folder = fileURLToPath(new URL('../../checkpoints/cifar10', import.meta.url));

let checkpoint: Checkpoint;
let dataset: Dataset;
let server: RunningServer;
before(async () => {
  checkpoint = await openCheckpoint(folder);
  dataset = await loadCifar10({ log: (line) => console.log(line) });
  server = await testServer(folder);
});
after(() => server.stop(10_000));

interface Answer {
  readonly architecture: string;
  readonly name?: string;
  readonly predictions: readonly { readonly classes: readonly { readonly label: string; readonly probability: number }[] }[];
}

/** One test image of each class. */
async function tenImages(): Promise<{ label: string; pixels: Uint8Array }[]> {
  const { test: split } = dataset.splits;
  return Promise.all(
    dataset.classes.map(async (label, i) => ({ label, pixels: await split.crops([split.labels.indexOf(i)]) })),
  );
}

async function post(query: string, body: Uint8Array, type: string): Promise<Answer> {
  const response = await fetch(`${server.url}/predict?${query}`, { method: 'POST', body: body as Uint8Array<ArrayBuffer>, headers: { 'content-type': type } });
  assert.equal(response.status, 200, await response.clone().text());
  return (await response.json()) as Answer;
}

test('the manifest says how it was trained and what each child scores on the 10,000 test images', () => {
  const { training, scores, dataset: data } = checkpoint.manifest;
  assert.equal(training.step, training.totalSteps);
  assert(training.seconds > 600 && training.commit !== null);
  assert.deepEqual(data.images, { train: 45_000, validation: 5_000, test: 10_000 });
  assert.equal(data.splits, dataset.digest);
  assert.equal(scores?.images, 10_000);
  for (const name of familyNames) assert.equal(typeof scores.accuracy[checkpoint.frontier.family[name].id], 'number');
  assert(scores.accuracy[checkpoint.frontier.family.biggest.id]! > 0.6);
  assert(scores.accuracy[checkpoint.frontier.family.smallest.id]! > 0.5);
});

test('its weights score what the manifest says, to a thousandth (the smallest child, all test images)', async () => {
  const { id, architecture } = checkpoint.frontier.family.smallest;
  const graph = graphOf(checkpoint, architecture);
  const measured = await accuracy(onnxEngine(), graph, checkpoint.weights, checkpoint.statistics.get(id)!, checkpoint.manifest, dataset.splits.test);
  assert(Math.abs(measured.value - checkpoint.manifest.scores!.accuracy[id]!) <= 0.001, `${measured.value}`);
});

test('ten test images of ten classes, as PNG and as JPEG, are answered by children of every size', async () => {
  const own = 'r26_c16_3x8_3x16-3x16_5x24-3x32_3x48-5x56-3x64_5x96_c288';
  for (const child of ['arch=smallest', 'arch=S', 'arch=biggest', `arch=${own}`]) {
    let right = 0;
    for (const { label, pixels } of await tenImages()) {
      const image = (): Sharp => sharp(pixels, { raw: { width: 32, height: 32, channels: 3 } });
      const [png, jpeg] = [await image().png().toBuffer(), await image().jpeg({ quality: 95 }).toBuffer()];
      for (const [body, type] of [[png, 'image/png'], [jpeg, 'image/jpeg']] as const) {
        const { predictions } = await post(`${child}&top=10`, body, type);
        const classes = predictions[0]!.classes;
        assert.deepEqual(new Set(classes.map((c) => c.label)), new Set(dataset.classes));
        assert(Math.abs(classes.reduce((sum, c) => sum + c.probability, 0) - 1) < 1e-4);
        if (classes[0]!.label === label) right++;
      }
    }
    assert(right >= 8, `${child}: ${right} of 20 right`); // chance: 2
  }
});

test('a photograph of any size is answered', async () => {
  const pixels = await dataset.splits.test.crops([0]);
  const photo = await sharp(pixels, { raw: { width: 32, height: 32, channels: 3 } }).resize(1600, 1200, { fit: 'cover' }).jpeg().toBuffer();
  const { predictions } = await post('flops=5M', photo, 'image/jpeg');
  assert.equal(predictions[0]!.classes.length, 5);
});

test('its children give the golden logits that it has of them, and their bundles prove it in int8, too', async () => {
  const { weights, manifest, statistics, golden, int8, frontier } = checkpoint;
  const { space, preprocessing } = manifest;
  const again = await goldenLogitsOf(onnxEngine({ threads: 1 }), { space, preprocessing, weights }, { frontier, statistics });
  assert.deepEqual([...golden.keys()].sort(), [...statistics.keys()].sort());
  for (const [id, logits] of golden) {
    const most = Math.max(...logits.map(Math.abs));
    again.get(id)!.forEach((logit, i) => assert.ok(Math.abs(logit - logits[i]!) <= 1e-4 * most, `${id}: ${logit} for ${logits[i]}`));
  }
  assert.deepEqual([...int8.keys()].sort(), [...statistics.keys()].sort());
  for (const name of ['smallest', 'M', 'biggest'] as const)
    for (const dtype of ['float32', 'float16', 'int8']) {
      const response = await fetch(`${server.url}/slice?arch=${name}&dtype=${dtype}`);
      const { difference } = await verifyBundle(new Uint8Array(await response.arrayBuffer()));
      assert.ok(difference < { float32: 1e-5, float16: 5e-3, int8: 1e-3 }[dtype]!, `${name} in ${dtype}: ${difference}`);
    }
});

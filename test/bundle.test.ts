import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { unzipSync } from 'fflate';
import { onnxBundle, statisticsDigest } from '../src/bundle/bundle.js';
import { describeChild } from '../src/bundle/child.js';
import { bundleManifestSchema } from '../src/bundle/manifest.js';
import { reproducibleZip } from '../src/bundle/zip.js';
import { graphOf, type Checkpoint } from '../src/checkpoint/checkpoint.js';
import { onnxModel } from '../src/onnx/model.js';
import { parseArchitecture } from '../src/space/architecture.js';
import { tiny } from '../src/space/presets/tiny.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { temporaryFolder } from './support/server.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
before(async () => {
  folder = await temporaryFolder();
  checkpoint = await makeCheckpoint(tiny, folder.path);
});
after(() => folder.remove());

function bundle(): Uint8Array {
  const { id, architecture } = checkpoint.frontier.family.smallest;
  const statistics = checkpoint.statistics.get(id)!;
  const description = describeChild(checkpoint, parseArchitecture(tiny, architecture));
  return onnxBundle(checkpoint, { description, statistics, engine: null, model: onnxModel(graphOf(checkpoint, architecture), checkpoint.weights, statistics) });
}

test('a bundle is the same bytes every time, and its manifest says all of it', () => {
  const bytes = bundle();
  assert.deepEqual(bundle(), bytes);
  const files = unzipSync(bytes);
  const manifest = bundleManifestSchema.parse(JSON.parse(Buffer.from(files['manifest.json']!).toString()));
  const { smallest } = checkpoint.frontier.family;
  assert.equal(manifest.name, 'smallest');
  assert.deepEqual(manifest.accuracy, smallest.accuracy);
  assert.deepEqual(manifest.test, { value: checkpoint.manifest.scores!.accuracy[smallest.id], images: 100 });
  assert.equal(manifest.costs.flops.value, smallest.costs.flops.value);
  assert.deepEqual(manifest.inputs[0]!.shape, ['batch', 3, 8, 8]);
  const readme = Buffer.from(files['README.md']!).toString();
  for (const part of [smallest.architecture, 'onnxruntime', 'BICUBIC', 'exif_transpose', 'alpha_composite', `resolution=${manifest.preprocessing.resolution}`]) assert.ok(readme.includes(part), part);
});

test('the time zone of a machine is not in the zip', () => {
  const file = fileURLToPath(new URL('../src/bundle/zip.js', import.meta.url));
  const script = `import { reproducibleZip } from ${JSON.stringify(file)}; process.stdout.write(Buffer.from(reproducibleZip(new Map([['a', new Uint8Array(3)]]))).toString('hex'));`;
  const hex = (TZ: string): string => spawnSync(process.execPath, ['--input-type=module', '-e', script], { env: { ...process.env, TZ }, encoding: 'utf8' }).stdout;
  const here = Buffer.from(reproducibleZip(new Map([['a', new Uint8Array(3)]]))).toString('hex');
  for (const zone of ['UTC', 'America/Los_Angeles', 'Pacific/Kiritimati']) assert.equal(hex(zone), here, zone);
});

test('the digest of statistics depends on every value, not on their order', () => {
  const statistics = checkpoint.statistics.get(checkpoint.frontier.family.smallest.id)!;
  const digest = statisticsDigest(statistics);
  assert.equal(statisticsDigest(new Map([...statistics].reverse())), digest);
  const changed = new Map([...statistics].map(([name, { mean, variance }], i) => [name, { mean, variance: i === 0 ? variance.map((v) => v + 1e-3) : variance }]));
  assert.notEqual(statisticsDigest(changed), digest);
});

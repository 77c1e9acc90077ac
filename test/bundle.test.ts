import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { unzipSync } from 'fflate';
import { bundleFiles, bundleParts, statisticsDigest, type BundledChild } from '../src/bundle/bundle.js';
import { describeChild } from '../src/bundle/child.js';
import { abilities, bundleFormats, bundleOptions, bundleQuery, defaultBundle, type BundleOptions } from '../src/bundle/formats.js';
import { bundleManifestSchema, type BundleManifest } from '../src/bundle/manifest.js';
import { readUnfolded } from '../src/bundle/unfolded.js';
import { calibrateInt8 } from '../src/calibrate/int8.js';
import { graphOf, type Checkpoint } from '../src/checkpoint/checkpoint.js';
import { decodeSafetensors } from '../src/checkpoint/safetensors.js';
import { concatenated, readContainer, writeContainer, type Files } from '../src/encoding/container.js';
import { crc32 } from '../src/encoding/crc32.js';
import { sha256Hex } from '../src/encoding/sha256.js';
import { BignasError } from '../src/errors.js';
import { onnxModel } from '../src/onnx/model.js';
import { parseArchitecture } from '../src/space/architecture.js';
import { tiny } from '../src/space/presets/tiny.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { temporaryFolder } from './support/server.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let child: BundledChild;
before(async () => {
  folder = await temporaryFolder();
  checkpoint = await makeCheckpoint(tiny, folder.path);
  const { id, architecture } = checkpoint.frontier.family.smallest;
  const description = describeChild(checkpoint, parseArchitecture(tiny, architecture));
  const graph = graphOf(checkpoint, architecture);
  const statistics = checkpoint.statistics.get(id)!;
  const { preprocessing } = checkpoint.manifest;
  const int8 = await calibrateInt8(graph, checkpoint.weights, statistics, { crops: checkpoint.calibration, preprocessing, batch: 8 });
  child = { description, graph, statistics, golden: checkpoint.golden.get(id)!, int8, engine: null };
});
after(() => folder.remove());

/** Every kind of bundle there is. */
const kinds = bundleFormats.flatMap((format) =>
  abilities[format].dtypes.flatMap((dtype) => (abilities[format].preprocess ? [false, true] : [false]).map((preprocess): BundleOptions => ({ format, dtype, preprocess, container: 'zip' }))),
);
const text = (files: Files, name: string): string => Buffer.from(files.get(name)!).toString();
const manifestOf = (files: Files): BundleManifest => bundleManifestSchema.parse(JSON.parse(text(files, 'manifest.json')));

test('every kind of bundle is the same bytes every time, and its manifest, README, digests and golden vector are there', async () => {
  for (const options of kinds) {
    const what = bundleQuery(options);
    const files = await bundleFiles(checkpoint, child, options);
    assert.deepEqual(concatenated(bundleParts('zip', await bundleFiles(checkpoint, child, options))), concatenated(bundleParts('zip', files)), what);
    const manifest = manifestOf(files);
    const { smallest } = checkpoint.frontier.family;
    assert.equal(manifest.name, 'smallest');
    assert.deepEqual(manifest.accuracy, smallest.accuracy);
    assert.deepEqual(manifest.test, { value: checkpoint.manifest.scores!.accuracy[smallest.id], images: 100 });
    assert.equal(manifest.costs.flops.value, smallest.costs.flops.value);
    assert.deepEqual({ format: manifest.model.format, dtype: manifest.model.dtype, preprocess: manifest.model.preprocess, container: 'zip' }, options);
    const names = [...files.keys()].filter((name) => name !== 'SHA256SUMS');
    assert.deepEqual(text(files, 'SHA256SUMS').trimEnd().split('\n').map((line) => line.slice(66)), names);
    for (const line of text(files, 'SHA256SUMS').trimEnd().split('\n')) assert.equal(await sha256Hex(files.get(line.slice(66))!), line.slice(0, 64));
    for (const name of names) if (name !== 'manifest.json') assert.equal(manifest.files[name], await sha256Hex(files.get(name)!), name);
    assert.equal(manifest.costs.bytes.value, manifest.model.files.reduce((sum, name) => sum + files.get(name)!.length, 0));
    const golden = decodeSafetensors(files.get('golden.safetensors')!);
    assert.equal(golden.has('input'), !options.preprocess, what);
    assert.ok(Math.abs((golden.get('probabilities')!.data as Float32Array).reduce((sum, p) => sum + p, 0) - 1) < 1e-6);
    const readme = text(files, 'README.md');
    for (const part of [smallest.architecture, ...(options.format === 'safetensors' ? ['load_file'] : options.preprocess ? [] : ['without rounding or clamping'])]) assert.ok(readme.includes(part), `${what}: ${part}`);
  }
});

test('an unfolded bundle is the child: what is written from it equals what the server writes', async () => {
  const files = await bundleFiles(checkpoint, child, { ...defaultBundle, format: 'safetensors' });
  const { graph, weights, statistics, architecture } = readUnfolded(files);
  assert.equal(architecture, child.description.architecture);
  const { id } = child.description;
  assert.deepEqual(onnxModel(graph, weights, statistics, { name: id }), (await bundleFiles(checkpoint, child, defaultBundle)).get('model.onnx'));
});

test('what cannot be had is refused with what can', () => {
  const refused = (asked: Parameters<typeof bundleOptions>[0], code: string, legal: readonly string[]): void => {
    assert.throws(() => bundleOptions(asked), (error) => {
      assert.ok(error instanceof BignasError);
      assert.deepEqual([error.code, error.details['legal']], [code, legal]);
      return true;
    });
  };
  refused({ format: 'pickle' }, 'FORMAT_UNKNOWN', bundleFormats);
  refused({ dtype: 'bfloat16' }, 'PARAMETER_INVALID', ['float32', 'float16', 'int8']);
  refused({ format: 'tfjs', dtype: 'int8' }, 'PARAMETER_INVALID', ['float32', 'float16']);
  refused({ format: 'safetensors', preprocess: 'true' }, 'PARAMETER_INVALID', ['false']);
  refused({ preprocess: 'yes' }, 'PARAMETER_INVALID', ['false', 'true']);
  refused({ container: 'rar' }, 'PARAMETER_INVALID', ['zip', 'tar']);
  assert.deepEqual(bundleOptions({}), defaultBundle);
});

test('containers are read by other programs, and by ours only where every byte is as it was written', () => {
  const name = fc.stringMatching(/^[a-z][a-zA-Z0-9./-]{0,30}[a-z]$/);
  fc.assert(fc.property(fc.dictionary(name, fc.uint8Array({ maxLength: 700 }), { minKeys: 1, maxKeys: 4 }), fc.constantFrom('zip' as const, 'tar' as const), fc.nat(), fc.integer({ min: 1, max: 255 }), (entries, container, where, change) => {
    const files = new Map(Object.entries(entries));
    const bytes = writeContainer(container, files);
    assert.deepEqual(readContainer(bytes), { container, files });
    if (container === 'zip') assert.deepEqual({ ...unzipSync(bytes) }, { ...entries });
    const damaged = Uint8Array.from(bytes);
    damaged[where % bytes.length]! ^= change;
    // A tar has no digest of what it holds: that is what SHA256SUMS is for.
    const isRead = (): boolean => {
      try {
        return readContainer(damaged).container === container;
      } catch {
        return false;
      }
    };
    if (container === 'zip') assert.equal(isRead(), false);
    assert.throws(() => readContainer(bytes.subarray(0, bytes.length - 1)));
    assert.throws(() => readContainer(Uint8Array.from([...bytes, 0])));
  }));
  assert.equal(crc32(new TextEncoder().encode('123456789')), 0xcbf43926);
});

test('the digest of statistics depends on every value, not on their order', () => {
  const statistics = checkpoint.statistics.get(checkpoint.frontier.family.smallest.id)!;
  const digest = statisticsDigest(statistics);
  assert.equal(statisticsDigest(new Map([...statistics].reverse())), digest);
  const changed = new Map([...statistics].map(([name, { mean, variance }], i) => [name, { mean, variance: i === 0 ? variance.map((v) => v + 1e-3) : variance }]));
  assert.notEqual(statisticsDigest(changed), digest);
});

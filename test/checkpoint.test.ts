import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cp, mkdir, readFile, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openCheckpoint, writeCheckpoint, type Checkpoint } from '../src/checkpoint/checkpoint.js';
import { checkpointFiles, checkpointVersion, type CheckpointFile } from '../src/checkpoint/manifest.js';
import { decodeSafetensors, encodeSafetensors, type Tensor } from '../src/checkpoint/safetensors.js';
import { tiny } from '../src/space/presets/tiny.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { temporaryFolder } from './support/server.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let copies = 0;
before(async () => {
  folder = await temporaryFolder();
  checkpoint = await makeCheckpoint(tiny, join(folder.path, 'whole'));
});
after(() => folder.remove());

/** A copy of the checkpoint, changed; `hash` names files whose hash the manifest then has again, so that only their content is wrong. */
async function changed(change: (path: string) => Promise<void>, ...hash: CheckpointFile[]): Promise<string> {
  const path = join(folder.path, `copy-${++copies}`);
  await cp(checkpoint.folder, path, { recursive: true });
  await change(path);
  await editManifest(path, (manifest) => manifest, hash);
  return path;
}

type Json = Record<string, unknown>;

async function editManifest(path: string, edit: (manifest: Json) => Json, hash: readonly CheckpointFile[] = []): Promise<void> {
  const file = join(path, 'manifest.json');
  const manifest = edit(JSON.parse(await readFile(file, 'utf8')) as Json);
  const files = manifest['files'] as Record<string, string>;
  for (const name of hash) files[name] = createHash('sha256').update(await readFile(join(path, name))).digest('hex');
  await writeFile(file, JSON.stringify(manifest));
}

async function editTensors(path: string, name: CheckpointFile, edit: (tensors: Map<string, Tensor>) => void): Promise<void> {
  const file = join(path, name);
  const tensors = new Map(decodeSafetensors(await readFile(file)));
  edit(tensors);
  await writeFile(file, encodeSafetensors(tensors));
}

const refused = (path: string, message: RegExp, code = 'CHECKPOINT_INVALID') => assert.rejects(openCheckpoint(path), { name: 'BignasError', code, message });

test('what is written is read again, and written again it is the same files', async () => {
  const { manifest, weights, calibration, frontier, statistics, golden, int8 } = checkpoint;
  assert.ok(weights.data.buffer instanceof SharedArrayBuffer);
  assert.equal(statistics.size, 3);
  const { files: _files, format: _format, version: _version, ...content } = manifest;
  const again = join(folder.path, 'again');
  await writeCheckpoint(again, { manifest: content, weights, calibration, frontier, statistics, golden, int8 });
  for (const name of [...checkpointFiles, 'manifest.json'])
    assert.deepEqual(await readFile(join(again, name)), await readFile(join(checkpoint.folder, name)), name);
  const reread = await openCheckpoint(again);
  assert.equal(reread.digest, checkpoint.digest);
  assert.deepEqual([...reread.weights.data], [...weights.data]);
  assert.deepEqual(reread.calibration.crops, calibration.crops);
  assert.deepEqual(reread.statistics, statistics);
  assert.deepEqual(reread.frontier, frontier);
});

test('a byte flipped anywhere in any file is refused', async () => {
  for (const name of checkpointFiles) {
    const size = (await readFile(join(checkpoint.folder, name))).length;
    for (const at of [0, 9, Math.floor(size / 2), size - 1]) {
      const path = await changed(async (copy) => {
        const bytes = await readFile(join(copy, name));
        bytes[at]! ^= 0x10;
        await writeFile(join(copy, name), bytes);
      });
      await refused(path, new RegExp(`${name.replace('.', '\\.')}.*SHA-256`));
      await rm(path, { recursive: true });
    }
  }
});

test('a file cut short, or missing, is refused by its name', async () => {
  for (const name of checkpointFiles) {
    await refused(await changed((copy) => truncate(join(copy, name), 100)), new RegExp(name.replace('.', '\\.')));
    await refused(await changed((copy) => rm(join(copy, name))), new RegExp(`${name.replace('.', '\\.')}.*cannot be read`));
  }
  await refused(join(folder.path, 'nowhere'), /manifest\.json.*cannot be read/);
  const unreadable = await changed(() => Promise.resolve());
  await writeFile(join(unreadable, 'manifest.json'), '{ "format": ');
  await refused(unreadable, /manifest\.json.*not JSON/);
});

test('tensors that are missing, too many, of another shape or type, or not finite, are refused though the hashes are right', async () => {
  const weights = 'weights.safetensors';
  const cases: [CheckpointFile, (tensors: Map<string, Tensor>) => void, RegExp][] = [
    [weights, (t) => t.delete('stem.conv.kernel'), /stem\.conv\.kernel is missing/],
    [weights, (t) => t.set('more', { dtype: 'F32', shape: [1], data: new Float32Array(1) }), /more does not belong/],
    [weights, (t) => t.set('classifier.bias', { dtype: 'F32', shape: [2, 2], data: new Float32Array(4) }), /classifier\.bias: expected F32 \[4\], got F32 \[2,2\]/],
    [weights, (t) => t.set('classifier.bias', { dtype: 'I32', shape: [4], data: new Int32Array(4) }), /classifier\.bias: expected F32 \[4\], got I32/],
    [weights, (t) => t.set('classifier.bias', { dtype: 'F32', shape: [4], data: Float32Array.of(1, NaN, 0, 0) }), /not a finite number/],
    ['calibration.safetensors', (t) => t.set('crops', { dtype: 'U8', shape: [1, 14, 14, 3], data: new Uint8Array(588) }), /crops: expected U8 \[16,14,14,3\]/],
    ['statistics.safetensors', (t) => t.delete([...t.keys()].findLast((name) => name.endsWith('/variance'))!), /is missing/],
    ['statistics.safetensors', (t) => (t.get([...t.keys()].find((name) => name.endsWith('/golden'))!)!.data[0] = NaN), /holds a value that is no logit/],
    ['statistics.safetensors', (t) => (t.get([...t.keys()].find((name) => name.endsWith('/variance'))!)!.data[0] = -1), /holds a value that is no variance/],
    ['statistics.safetensors', (t) => (t.get([...t.keys()].find((name) => name.endsWith('/mean'))!)!.data[0] = NaN), /holds a value that is no mean/],
    ['statistics.safetensors', (t) => t.set('000000000000/stem.bn/mean', { dtype: 'F32', shape: [4], data: new Float32Array(4) }), /does not belong/],
  ];
  for (const [name, edit, message] of cases) {
    await refused(await changed((copy) => editTensors(copy, name, edit), name), message);
  }
});

test('a safetensors file whose header lies is refused', async () => {
  const header = (text: string, claimed = text.length, data = 0): Uint8Array => {
    const bytes = new Uint8Array(8 + text.length + data);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(claimed), true);
    bytes.set(new TextEncoder().encode(text), 8);
    return bytes;
  };
  const bad: Uint8Array[] = [
    new Uint8Array(3),
    header('{}', 1e15),
    header('[]'),
    header('{'),
    header('{}', 2, 4),
    header('{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}', undefined, 8),
    header('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', undefined, 4),
    header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,400]}}', undefined, 4),
    header('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', undefined, 4),
    header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', undefined, 8),
    header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', undefined, 4),
    header('{"a":null}'),
  ];
  for (const bytes of bad) {
    assert.throws(() => decodeSafetensors(bytes), Error, Buffer.from(bytes).toString());
    await refused(await changed((copy) => writeFile(join(copy, 'weights.safetensors'), bytes), 'weights.safetensors'), /weights\.safetensors/);
  }
});

test('a manifest or a frontier that does not fit is refused', async () => {
  const manifest = (edit: (manifest: Json) => Json) => changed((copy) => editManifest(copy, edit));
  await refused(await manifest((m) => ({ ...m, version: checkpointVersion + 1 })), /Update bignas/, 'CHECKPOINT_NEWER');
  await refused(await manifest((m) => ({ ...m, version: 0 })), /manifest\.json/);
  await refused(await manifest((m) => ({ ...m, format: 'other' })), /not a bignas-checkpoint/);
  await refused(await manifest((m) => ({ ...m, extra: 1 })), /extra/);
  await refused(await manifest((m) => ({ ...m, dataset: { ...(m['dataset'] as Json), classes: ['one'] } })), /1 class names for 4 classes/);
  await refused(await manifest((m) => ({ ...m, space: { ...(m['space'] as Json), head: { channels: [16] } } })), /head/);
  const frontier = (edit: (text: string) => string) =>
    changed(async (copy) => {
      const file = join(copy, 'frontier.json');
      await writeFile(file, edit(await readFile(file, 'utf8')));
    }, 'frontier.json');
  const { id, architecture } = checkpoint.frontier.family.biggest;
  await refused(await frontier((text) => text.replaceAll(id, '0123456789ab')), /frontier\.json.*the file says 0123456789ab/);
  await refused(await frontier((text) => text.replaceAll(architecture, architecture.replace('r14', 'r99'))), /frontier\.json.*resolution/);
  const { value } = checkpoint.frontier.family.biggest.costs.flops;
  await refused(await frontier((text) => text.replaceAll(`"value": ${value}`, '"value": 1')), /flops of .* the file says 1\b/);
  await refused(await frontier(() => '{}'), /frontier\.json/);
  await refused(await frontier(() => 'null'), /frontier\.json/);
});

test("a training run's folder is its latest step; a name that leads elsewhere is refused", async () => {
  const run = join(folder.path, 'run');
  await mkdir(run);
  await cp(checkpoint.folder, join(run, 'step-7'), { recursive: true });
  await writeFile(join(run, 'latest'), 'step-7\n');
  assert.equal((await openCheckpoint(run)).digest, checkpoint.digest);
  await writeFile(join(run, 'latest'), '../whole');
  await refused(run, /latest/);
});

test('a writer that fails leaves the checkpoint that was there, and nothing else', async () => {
  const path = join(folder.path, 'kept');
  await cp(checkpoint.folder, path, { recursive: true });
  const { manifest, weights, calibration, frontier, statistics, golden, int8 } = checkpoint;
  const failing = new Map([['optimiser.safetensors', 'not bytes' as unknown as Uint8Array], ['folder/that/is/not/there', new Uint8Array(1)]]);
  await assert.rejects(writeCheckpoint(path, { manifest, weights, calibration, frontier, statistics, golden, int8 }, failing));
  assert.equal((await openCheckpoint(path)).digest, checkpoint.digest);
  assert.deepEqual((await readdir(folder.path)).filter((name) => name.includes('partial')), []);
});

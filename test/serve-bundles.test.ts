import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import request from 'supertest';
import { z } from 'zod';
import type { RunningServer } from '../serve/server.js';
import { download } from '../serve/download.js';
import { applyDelta } from '../src/bundle/delta.js';
import { bundleManifestSchema } from '../src/bundle/manifest.js';
import { verifyBundle } from '../src/bundle/verify.js';
import { openCheckpoint, type Checkpoint } from '../src/checkpoint/checkpoint.js';
import { readContainer } from '../src/encoding/container.js';
import { bundleOnnx } from '../src/slice/index.js';
import { formatArchitecture, uniform } from '../src/space/architecture.js';
import { tiny } from '../src/space/presets/tiny.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { binary } from './support/binary.js';
import { parsePrometheus, valueOf } from './support/prometheus.js';
import { temporaryFolder, testServer } from './support/server.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let server: RunningServer;
const cli = fileURLToPath(new URL('../cli/bignas-slice.js', import.meta.url));

before(async () => {
  folder = await temporaryFolder();
  await makeCheckpoint(tiny, join(folder.path, 'checkpoint'));
  checkpoint = await openCheckpoint(join(folder.path, 'checkpoint'));
  server = await testServer(checkpoint.folder, { cacheFolder: join(folder.path, 'cache') });
});
after(async () => {
  await server.stop(2000);
  await folder.remove();
});

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const slice = (query: string, from = server) => request(from.url).get(`/slice?${query}`).buffer(true).parse(binary);
const bytesOf = async (query: string): Promise<Buffer> => (await slice(query).expect(200)).body as Buffer;
/** Exit status and output of the command line. */
async function run(...args: string[]): Promise<{ status: number; output: string }> {
  const environment = { ...process.env, BIGNAS_CACHE: join(folder.path, 'cli-cache') };
  return promisify(execFile)(process.execPath, [cli, ...args], { cwd: folder.path, env: environment }).then(
    ({ stdout, stderr }) => ({ status: 0, output: stdout + stderr }),
    (error: unknown) => {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { status: code, output: stdout + stderr };
    },
  );
}

/** A child that nobody else asks for, in every format. */
const architecture = formatArchitecture(uniform(tiny, (list) => list[0]!, tiny.resolutions.at(-1)!));

describe('GET /slice in every format', () => {
  test('is right, is what its digest says, and has its options in its address', async () => {
    const names = new Set<string>();
    for (const query of ['format=onnx', 'format=onnx&dtype=float16&preprocess=true', 'format=onnx&dtype=int8', 'format=tfjs&preprocess=true', 'format=savedmodel&container=tar', 'format=safetensors&dtype=float16']) {
      const response = await slice(`arch=${architecture}&${query}`).expect(200);
      const bytes = response.body as Buffer;
      const { manifest, container } = await verifyBundle(bytes);
      assert.equal(response.get('ETag'), `"${sha256(bytes)}"`);
      assert.equal(response.get('Content-Location'), `/slice?arch=${architecture}&${query}`);
      assert.equal(response.get('Content-Type'), container === 'zip' ? 'application/zip' : 'application/x-tar');
      assert.ok(response.get('Content-Disposition')!.endsWith(`.${container}"`));
      names.add(response.get('Content-Disposition')!);
      assert.equal(manifest.checkpoint.digest, checkpoint.digest);
    }
    assert.equal(names.size, 6, 'no download replaces another');
  });

  test('takes the container from Accept unless it is said', async () => {
    const accepting = (accept: string, query = '') => slice(`arch=S${query}`).set('Accept', accept).expect(200);
    assert.equal((await accepting('application/x-tar')).get('Content-Type'), 'application/x-tar');
    assert.match((await accepting('application/x-tar')).get('Vary')!, /Accept/);
    assert.equal((await accepting('application/x-tar', '&container=zip')).get('Content-Type'), 'application/zip');
    assert.equal((await accepting('*/*')).get('Content-Type'), 'application/zip');
    assert.equal((await accepting('text/html')).get('Content-Type'), 'application/zip');
  });

  test('publishes the schema of its manifests', async () => {
    const { body } = (await request(server.url).get('/schemas/bundle-manifest.json').expect(200)) as { body: unknown };
    assert.deepEqual(body, JSON.parse(JSON.stringify(z.toJSONSchema(bundleManifestSchema))));
    const printed = await run('schema');
    assert.deepEqual(JSON.parse(printed.output), body);
  });
});

describe('deltas', () => {
  test('lead to the whole bundle, from which ONNX is written as the server does', async () => {
    const [have, want] = [await bytesOf('arch=smallest&format=safetensors'), await bytesOf('arch=biggest&format=safetensors&container=tar')];
    const delta = await bytesOf('arch=biggest&format=safetensors&have=smallest&container=tar');
    const made = await applyDelta(have, delta);
    assert.deepEqual(Buffer.from(made), want);
    assert.deepEqual(Buffer.from(bundleOnnx(made)), Buffer.from(readContainer(await bytesOf('arch=biggest')).files.get('model.onnx')!));
    assert.ok((await verifyBundle(delta)).delta);
  });

  test('are refused where a pair does not nest, a format cannot be updated, or nobody knows what is held', async () => {
    const refused = async (query: string, status: number, code: string) => {
      const { body } = (await request(server.url).get(`/slice?${query}`).expect(status)) as { body: Record<string, unknown> };
      assert.equal(body['code'], code);
      return body;
    };
    const { biggest } = checkpoint.frontier.family;
    const nesting = await refused('arch=smallest&have=biggest&format=safetensors', 422, 'DELTA_NOT_NESTED');
    assert.match(String(nesting['detail']), new RegExp(`of ${biggest.architecture} is`));
    const names = nesting['nesting'] as string[];
    assert.ok(!names.includes('biggest') && !names.includes('smallest'));
    for (const name of names) await bytesOf(`arch=smallest&have=${name}&format=safetensors`);
    const all = await slice('arch=smallest&have=biggest&format=safetensors&overlap=true').expect(200);
    assert.deepEqual(await bytesOf(all.get('Content-Location')!.split('?')[1]!), all.body);
    for (const query of ['', '&format=onnx', '&format=tfjs', '&format=safetensors&dtype=float16']) await refused(`arch=biggest&have=smallest${query}`, 400, 'DELTA_IMPOSSIBLE');
    const unknown = await refused('arch=biggest&have=gigantic&format=safetensors', 404, 'ARCHITECTURE_UNKNOWN');
    assert.equal(unknown['parameter'], 'have');
    assert.ok((unknown['legal'] as { names: string[] }).names.includes('XL'));
  });
});

describe('kept bundles', () => {
  test('outlive the server; one that was damaged meanwhile is built again', async () => {
    const cacheFolder = join(folder.path, 'kept');
    const first = await testServer(checkpoint.folder, { cacheFolder });
    const whole = (await slice('arch=M', first).expect(200)).body as Buffer;
    const other = (await slice('arch=S', first).expect(200)).body as Buffer;
    await first.stop(2000);
    const files = await readdir(join(cacheFolder, 'bundles'));
    assert.equal(files.length, 2);
    const path = join(cacheFolder, 'bundles', files.find((name) => name.includes(sha256(other)))!);
    const damaged = await readFile(path);
    damaged[damaged.length >> 1]! ^= 1;
    await writeFile(path, damaged);
    const second = await testServer(checkpoint.folder, { cacheFolder });
    try {
      assert.deepEqual((await slice('arch=M', second).expect(200)).body, whole);
      const built = async (): Promise<number | undefined> => valueOf(parsePrometheus((await request(second.url).get('/metrics')).text), 'bignas_build_seconds_count', {});
      assert.equal(await built(), 0, 'it was there');
      assert.deepEqual(await Promise.all([slice('arch=S', second), slice('arch=S', second)]).then((answers) => answers.map(({ body }) => sha256(body as Buffer))), [sha256(other), sha256(other)]);
      assert.equal(await built(), 1);
    } finally {
      await second.stop(2000);
    }
  });

  test('take no more of the disk than they may, also those of servers before', async () => {
    const cacheFolder = join(folder.path, 'little');
    const first = await testServer(checkpoint.folder, { cacheFolder });
    for (const name of ['smallest', 'S', 'M', 'L']) await slice(`arch=${name}`, first).expect(200);
    await first.stop(2000);
    const second = await testServer(checkpoint.folder, { cacheFolder, cacheBytes: 100_000 });
    try {
      await slice('arch=XL', second).expect(200);
      let bytes = 0;
      for (const name of await readdir(join(cacheFolder, 'bundles'))) bytes += (await readFile(join(cacheFolder, 'bundles', name))).length;
      assert.ok(bytes <= 100_000, `${bytes} bytes`);
    } finally {
      await second.stop(2000);
    }
  });
});

describe('bundles that leave as soon as nobody uses them', () => {
  test('are there for all who ask, also where somebody cleans the folder', async () => {
    const cacheFolder = join(folder.path, 'crowded');
    const crowded = await testServer(checkpoint.folder, { cacheFolder, cacheBytes: 1 });
    const expected = new Map<string, string>();
    for (const name of ['smallest', 'M']) expected.set(name, sha256((await slice(`arch=${name}`, crowded).expect(200)).body as Buffer));
    try {
      let left = 120;
      const client = async (i: number): Promise<void> => {
        while (left-- > 0) {
          const name = (left + i) % 2 ? 'M' : 'smallest';
          assert.equal(sha256((await slice(`arch=${name}`, crowded).expect(200)).body as Buffer), expected.get(name));
        }
      };
      await Promise.all(Array.from({ length: 6 }, (_, i) => client(i)));
    } finally {
      await crowded.stop(2000);
    }
    assert.deepEqual((await readdir(join(cacheFolder, 'bundles'))).length, 0);
    const roomy = await testServer(checkpoint.folder, { cacheFolder });
    try {
      for (let i = 0; i < 30; i++) {
        await slice('arch=M', roomy).expect(200);
        for (const name of await readdir(join(cacheFolder, 'bundles'))) await rm(join(cacheFolder, 'bundles', name), { force: true });
      }
    } finally {
      await roomy.stop(2000);
    }
  });
});

describe('bignas-slice', () => {
  test('makes the bytes that a server sends, offline and by download', async () => {
    for (const [i, options] of [['--arch', architecture], ['--arch', 'M', '--format', 'tfjs', '--preprocess'], ['--arch', 'biggest', '--format', 'safetensors', '--have', 'smallest']].entries()) {
      const query = options.map((word, at) => (word.startsWith('--') ? `${at > 0 ? '&' : ''}${word.slice(2)}=${options[at + 1]?.startsWith('--') === false ? options[at + 1]! : 'true'}` : '')).join('');
      const expected = await bytesOf(query);
      const offline = await run('--checkpoint', checkpoint.folder, ...options, '--output', `offline-${i}`);
      assert.equal(offline.status, 0, offline.output);
      assert.deepEqual(await readFile(join(folder.path, `offline-${i}`)), expected);
      const fetched = await run('get', '--server', server.url, ...options, '--output', `fetched-${i}`);
      assert.equal(fetched.status, 0, fetched.output);
      assert.deepEqual(await readFile(join(folder.path, `fetched-${i}`)), expected);
    }
    assert.deepEqual((await readdir(folder.path)).filter((name) => name.startsWith('.bignas') || name.includes('.part')), []);
  });

  test('verifies, applies and converts', async () => {
    const path = (name: string): string => join(folder.path, name);
    await writeFile(path('have.zip'), await bytesOf('arch=smallest&format=safetensors'));
    await writeFile(path('delta.zip'), await bytesOf('arch=biggest&format=safetensors&have=smallest'));
    assert.equal((await run('apply', 'have.zip', 'delta.zip', '-o', 'made.zip')).status, 0);
    assert.deepEqual(await readFile(path('made.zip')), await bytesOf('arch=biggest&format=safetensors'));
    assert.equal((await run('onnx', 'made.zip', '-o', 'model.onnx')).status, 0);
    assert.deepEqual(await readFile(path('model.onnx')), Buffer.from(readContainer(await bytesOf('arch=biggest')).files.get('model.onnx')!));
    assert.match((await run('verify', 'made.zip')).output, /right\. .* safetensors in float32; golden vector within/);
    assert.match((await run('verify', 'delta.zip')).output, /right\. A delta from/);
    const damaged = await readFile(path('made.zip'));
    damaged[5000]! ^= 4;
    await writeFile(path('damaged.zip'), damaged);
    for (const [args, message] of [
      [['verify', 'damaged.zip'], /is not right: /],
      [['verify', 'none.zip'], /cannot be read/],
      [['verify', 'model.onnx'], /neither a zip nor a tar/],
      [['apply', 'made.zip', 'delta.zip', '-o', 'no.zip'], /the delta is for/],
      [['onnx', 'delta.zip', '-o', 'no.onnx'], /holds no/],
      [['--arch', 'gigantic'], /Expected `arch` to be a name/],
      [['--arch', 'M', '--format', 'tfjs', '--dtype', 'int8'], /Expected `dtype` to be one that tfjs has/],
      [['--arch', 'M', '--format', 'pdf'], /Allowed choices are onnx, tfjs/],
      [['--arch', 'M', '--server', server.url, '--checkpoint', 'x'], /either --checkpoint or --server/],
      [['--arch', 'gigantic', '--server', server.url], /answers 404: Expected `arch`/],
      [['--arch', 'M', '--server', 'http://127.0.0.1:1'], /ECONNREFUSED/],
      [['--arch', 'M', '--server', server.url, '-o', 'nowhere/no.zip'], /ENOENT.*nowhere/],
      [['--arch', 'M', '-o', 'nowhere/no.zip'], /ENOENT.*nowhere/],
      [['onnx', 'made.zip', '-o', 'nowhere/no.onnx'], /ENOENT.*nowhere/],
    ] as const) {
      const { status, output } = await run(...args, ...(args[0].startsWith('--') && !args.includes('--server' as never) ? ['--checkpoint', checkpoint.folder] : []));
      assert.equal(status, 1, args.join(' '));
      assert.match(output, message);
      assert.doesNotMatch(output, /\n {4}at /, 'a clear error has no stack');
    }
    assert.deepEqual((await readdir(folder.path)).filter((name) => name.startsWith('no.')), []);
  });

  test('goes on with a download that an earlier call began, unless the bundle is another by now', async () => {
    const whole = await bytesOf('arch=biggest');
    const output = join(folder.path, 'begun.zip');
    await mkdir(folder.path, { recursive: true });
    for (const [part, etag, most] of [[whole.subarray(0, 5000), `"${sha256(whole)}"`, 1], [Buffer.alloc(5000), '"of another"', 1], [whole, `"${sha256(whole)}"`, 1]] as const) {
      await writeFile(`${output}.part`, part);
      await writeFile(`${output}.part.etag`, etag);
      const { requests } = await download({ server: server.url, query: { arch: 'biggest' }, output, token: undefined });
      assert.deepEqual(await readFile(output), whole);
      assert.equal(requests, most);
    }
    // Its beginning is wrong: that is found in the end, and the download begun anew.
    await writeFile(`${output}.part`, Buffer.alloc(5000));
    await writeFile(`${output}.part.etag`, `"${sha256(whole)}"`);
    assert.equal((await download({ server: server.url, query: { arch: 'biggest' }, output, token: undefined })).requests, 2);
    assert.deepEqual(await readFile(output), whole);
  });
});

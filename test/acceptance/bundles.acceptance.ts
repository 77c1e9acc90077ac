import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { io } from '@tensorflow/tfjs-core';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { BignasClient } from '../../serve/client.js';
import { download } from '../../serve/download.js';
import type { RunningServer } from '../../serve/server.js';
import { applyDelta } from '../../src/bundle/delta.js';
import { graphOf, openCheckpoint, type Checkpoint } from '../../src/checkpoint/checkpoint.js';
import { loadCifar10 } from '../../src/data/cifar10.js';
import { normalisedBatch } from '../../src/data/preprocess.js';
import { readContainer, type Files } from '../../src/encoding/container.js';
import { littleEndian } from '../../src/encoding/littleEndian.js';
import { standaloneWeights } from '../../src/graph/standalone.js';
import { bundleOnnx } from '../../src/slice/index.js';
import { formatArchitecture } from '../../src/space/architecture.js';
import { sampleArchitecture } from '../../src/space/sample.js';
import { startChromium } from '../support/chromium.js';
import { tensorflowPython, userPython } from '../support/python.js';
import { testServer } from '../support/server.js';

type WeightSpecs = NonNullable<io.ModelArtifacts['weightSpecs']>;

const shipped = fileURLToPath(new URL('../../../checkpoints/cifar10', import.meta.url));
const cli = fileURLToPath(new URL('../../cli/bignas-slice.js', import.meta.url));
const IMAGES = 100;

let folder: string;
let server: RunningServer;
let checkpoint: Checkpoint;
let crops: Uint8Array;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bignas-bundles-test-'));
  checkpoint = await openCheckpoint(shipped);
  server = await testServer(shipped, { cacheFolder: join(folder, 'cache'), maxBody: 2 ** 24, maxImages: IMAGES });
  const { splits } = await loadCifar10({ log: console.log });
  crops = await splits.test.crops(Array.from({ length: IMAGES }, (_, i) => i));
});
after(async () => {
  await server.stop(5000);
  rmSync(folder, { recursive: true, force: true });
});

async function slice(query: string): Promise<Uint8Array> {
  // This thread computes for longer than the server, which is on it, keeps a connection.
  const response = await fetch(`${server.url}/slice?${query}`, { headers: { Connection: 'close' } });
  const bytes = new Uint8Array(await response.arrayBuffer());
  assert.equal(response.status, 200, Buffer.from(bytes).toString().slice(0, 500));
  return bytes;
}

async function runOnnx(model: Uint8Array, feeds: Record<string, Tensor>): Promise<Float32Array> {
  const session = await InferenceSession.create(model);
  const { probabilities } = await session.run(feeds);
  await session.release();
  return probabilities!.data as Float32Array;
}

/** Probabilities in float32 agree within 1e-4, and so does the class. @returns the largest difference */
function agree(what: string, got: ArrayLike<number>, expected: Float32Array, tolerance = 1e-4): number {
  assert.equal(got.length, expected.length, what);
  let worst = 0;
  for (let n = 0; n < expected.length; n += 10) {
    const [a, b] = [Array.from(got).slice(n, n + 10), [...expected.subarray(n, n + 10)]];
    worst = Math.max(worst, ...a.map((value, i) => Math.abs(value - b[i]!)));
    if (tolerance <= 1e-4) assert.equal(a.indexOf(Math.max(...a)), b.indexOf(Math.max(...b)), `${what}: the class of image ${n / 10}`);
  }
  assert.ok(worst <= tolerance, `${what} differs by ${worst}`);
  return worst;
}

const ONNX = `
import json, sys, numpy, onnx, onnxruntime
for folder in sys.argv[1:]:
    model = onnx.load(f"{folder}/onnx/model.onnx"); onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(f"{folder}/onnx/model.onnx")
    x = numpy.load(f"{folder}/nchw.npy")
    print(json.dumps(session.run(["probabilities"], {"input": x})[0].ravel().tolist()))
`;
const TENSORFLOW = `
import json, sys, numpy, tensorflow as tf
for folder in sys.argv[1:]:
    x = numpy.load(f"{folder}/nhwc.npy")
    run = tf.saved_model.load(f"{folder}/savedmodel").signatures["serving_default"]
    lite = tf.lite.Interpreter(model_content=tf.lite.TFLiteConverter.from_saved_model(f"{folder}/savedmodel").convert()).get_signature_runner("serving_default")
    print(json.dumps([run(input=tf.constant(x))["probabilities"].numpy().ravel().tolist(), lite(input=x)["probabilities"].ravel().tolist()]))
`;

function npy(values: Float32Array, shape: readonly number[]): Buffer {
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(', ')}), }`;
  const padded = `${header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11)}\n`;
  const head = Buffer.from([0x93, ...Buffer.from('NUMPY'), 1, 0, padded.length & 255, padded.length >> 8]);
  return Buffer.concat([head, Buffer.from(padded), littleEndian(values)]);
}

function write(target: string, files: Files): void {
  mkdirSync(target, { recursive: true });
  for (const [name, bytes] of files) writeFileSync(join(target, name), bytes);
}

function python(interpreter: string, script: string, folders: readonly string[]): string[] {
  const output = execFileSync(interpreter, ['-c', script, ...folders], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 2 ** 28, env: { ...process.env, CUDA_VISIBLE_DEVICES: '', TF_CPP_MIN_LOG_LEVEL: '3' } });
  return output.split('\n').filter((line) => line.startsWith('['));
}

describe('30 random children in every format give what the server answers, on 100 test images', () => {
  const architectures = Array.from({ length: 30 }, (_, i) => sampleArchitecture(cifar10Space(), [77, i]));
  const expected: Float32Array[] = [];
  const folders: string[] = [];

  before(async () => {
    const client = new BignasClient(server.url);
    const { preprocessing } = checkpoint.manifest;
    for (const [i, architecture] of architectures.entries()) {
      const { resolution } = architecture;
      const arch = formatArchitecture(architecture);
      const [nchw, nhwc] = [normalisedBatch(crops, preprocessing, resolution, 'NCHW'), normalisedBatch(crops, preprocessing, resolution, 'NHWC')];
      expected.push((await client.infer(nchw, [IMAGES, 3, resolution, resolution], { arch })).probabilities);
      const target = join(folder, `child-${i}`);
      for (const format of ['onnx', 'savedmodel']) write(join(target, format), readContainer(await slice(`arch=${arch}&format=${format}`)).files);
      writeFileSync(join(target, 'nchw.npy'), npy(nchw, [IMAGES, 3, resolution, resolution]));
      writeFileSync(join(target, 'nhwc.npy'), npy(nhwc, [IMAGES, resolution, resolution, 3]));
      folders.push(target);
    }
  });

  test('ONNX Runtime in Node: onnx, with preprocessing in it, and plain weights', async () => {
    const worst = [0, 0, 0];
    for (const [i, architecture] of architectures.entries()) {
      const { resolution } = architecture;
      const arch = formatArchitecture(architecture);
      const input = new Tensor('float32', normalisedBatch(crops, checkpoint.manifest.preprocessing, resolution, 'NCHW'), [IMAGES, 3, resolution, resolution]);
      const image = new Tensor('uint8', crops, [IMAGES, 32, 32, 3]);
      const plain = readFileSync(join(folders[i]!, 'onnx', 'model.onnx'));
      const unfolded = bundleOnnx(await slice(`arch=${arch}&format=safetensors`));
      assert.deepEqual(Buffer.from(unfolded), plain);
      worst[0] = Math.max(worst[0]!, agree(arch, await runOnnx(plain, { input }), expected[i]!));
      const prepares = readContainer(await slice(`arch=${arch}&preprocess=true`)).files.get('model.onnx')!;
      worst[1] = Math.max(worst[1]!, agree(arch, await runOnnx(prepares, { image }), expected[i]!));
      const half = readContainer(await slice(`arch=${arch}&dtype=float16&container=tar`)).files.get('model.onnx')!;
      worst[2] = Math.max(worst[2]!, agree(arch, await runOnnx(half, { input }), expected[i]!, 0.05));
    }
    console.log(`ONNX Runtime in Node: ${worst[0]}, with preprocessing ${worst[1]}, float16 ${worst[2]}`);
  });

  test('TensorFlow.js in Node', async () => {
    const tf = await import('@tensorflow/tfjs-core');
    await import('@tensorflow/tfjs-backend-cpu');
    const { loadGraphModel } = await import('@tensorflow/tfjs-converter');
    tf.enableProdMode();
    await tf.setBackend('cpu');
    let worst = 0;
    for (const [i, architecture] of architectures.entries()) {
      const { resolution } = architecture;
      const arch = formatArchitecture(architecture);
      const { files } = readContainer(await slice(`arch=${arch}&format=tfjs`));
      const { modelTopology, weightsManifest } = JSON.parse(Buffer.from(files.get('model.json')!).toString()) as { modelTopology: object; weightsManifest: { paths: string[]; weights: WeightSpecs }[] };
      const weightData = Uint8Array.from(Buffer.concat(weightsManifest.flatMap(({ paths }) => paths.map((path) => files.get(path)!)))).buffer;
      const model = await loadGraphModel(tf.io.fromMemory({ modelTopology, weightSpecs: weightsManifest.flatMap(({ weights }) => weights), weightData }));
      const input = tf.tensor(normalisedBatch(crops, checkpoint.manifest.preprocessing, resolution, 'NHWC'), [IMAGES, resolution, resolution, 3]);
      const output = model.execute({ input }, 'probabilities') as ReturnType<typeof tf.tensor>;
      worst = Math.max(worst, agree(arch, await output.data(), expected[i]!));
      tf.dispose([input, output]);
      model.dispose();
    }
    console.log(`TensorFlow.js in Node: ${worst}`);
  });

  test('ONNX Runtime in Python, which onnx.checker likes', () => {
    const results = python(userPython(), ONNX, folders).map((line) => JSON.parse(line) as number[]);
    assert.equal(results.length, 30);
    console.log(`ONNX Runtime in Python: ${Math.max(...results.map((got, i) => agree(`child ${i}`, got, expected[i]!)))}`);
  });

  test("TensorFlow in Python, and its own conversion to TensorFlow Lite", () => {
    const results = python(tensorflowPython(), TENSORFLOW, folders).map((line) => JSON.parse(line) as [number[], number[]]);
    assert.equal(results.length, 30);
    for (const [which, name] of ['TensorFlow', 'TensorFlow Lite'].entries()) console.log(`${name}: ${Math.max(...results.map((got, i) => agree(`${name}, child ${i}`, got[which]!, expected[i]!)))}`);
  });
});

function cifar10Space() {
  return (JSON.parse(readFileSync(join(shipped, 'manifest.json'), 'utf8')) as Checkpoint['manifest']).space;
}

describe('downloads', () => {
  /** Passes requests on to the server, and cuts a hundred answers off at random. */
  async function cuttingProxy(cuts: number): Promise<{ readonly url: string; left: () => number; close: () => void }> {
    let left = cuts;
    let random = 12345;
    const draw = (below: number): number => (random = (random * 1103515245 + 12345) % 2 ** 31) % below;
    const proxy = createServer((request, response) => {
      httpRequest(`${server.url}${request.url!}`, { method: request.method!, headers: request.headers }, (answer) => {
        response.writeHead(answer.statusCode!, answer.headers);
        const length = Number(answer.headers['content-length'] ?? 0);
        let room = request.method === 'GET' && left > 0 && length > 2 ? 1 + draw(Math.min(length - 1, 20_000)) : Infinity;
        if (room < Infinity) left--;
        answer.on('data', (chunk: Buffer) => {
          if (room <= 0) return;
          response.write(chunk.subarray(0, room));
          room -= chunk.length;
          if (room <= 0) setTimeout(() => response.destroy(), 2);
        });
        answer.on('end', () => {
          if (room > 0) response.end();
        });
      }).end();
    });
    await new Promise<void>((done) => proxy.listen(0, '127.0.0.1', done));
    return { url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`, left: () => left, close: () => proxy.close() };
  }

  test('one that is cut a hundred times and gone on with is whole', async () => {
    const proxy = await cuttingProxy(100);
    const output = join(folder, 'cut.zip');
    const whole = await slice('arch=biggest');
    const { requests } = await download({ server: proxy.url, query: { arch: 'biggest' }, output, token: undefined });
    assert.deepEqual(readFileSync(output), Buffer.from(whole));
    console.log(`${requests} requests, ${100 - proxy.left()} of them cut`);
    assert.ok(requests > 80);
    proxy.close();
  });
});

describe('the same bytes', () => {
  test('in two folders, under two locales and time zones, and from a server', async () => {
    for (const query of [['--format', 'onnx'], ['--format', 'onnx', '--dtype', 'int8'], ['--format', 'tfjs', '--preprocess'], ['--format', 'savedmodel', '--container', 'tar'], ['--format', 'safetensors']]) {
      const digests = await Promise.all(
        [{ TZ: 'Pacific/Kiritimati', LANG: 'de_DE.UTF-8', LC_ALL: 'de_DE.UTF-8' }, { TZ: 'America/Los_Angeles', LANG: 'C', LC_ALL: 'C' }].map(async (environment, i) => {
          const own = join(folder, `place-${i}`, 'of its own');
          mkdirSync(own, { recursive: true });
          await cp(shipped, join(own, 'checkpoint'), { recursive: true });
          const output = join(own, 'bundle');
          execFileSync(process.execPath, [cli, 'get', '--checkpoint', join(own, 'checkpoint'), '--arch', 'L', ...query, '--output', output], { cwd: own, env: { ...process.env, ...environment, BIGNAS_CACHE: join(own, 'cache') } });
          return sha256(readFileSync(output));
        }),
      );
      const asked = new URLSearchParams({ arch: 'L' });
      for (let i = 0; i < query.length; i++) if (query[i]!.startsWith('--')) asked.set(query[i]!.slice(2), query[i + 1]?.startsWith('--') === false ? query[i + 1]! : 'true');
      digests.push(sha256(await slice(asked.toString())));
      assert.equal(new Set(digests).size, 1, `${query.join(' ')}: ${digests.join(', ')}`);
    }
  });
});

describe('in a browser', () => {
  test('a child is cut out of a checkpoint by ranges; deltas of the family: bytes, and the whole bundle to the byte', async () => {
    const stored = readFileSync(join(shipped, 'weights.safetensors'));
    const web = createServer((request, response) => {
      const path = request.url!.split('?')[0]!;
      if (path === '/weights.safetensors') {
        const [begin, end] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range!)!.slice(1).map(Number) as [number, number];
        return response.writeHead(206, { 'Content-Range': `bytes ${begin}-${end}/${stored.length}` }).end(stored.subarray(begin, end + 1));
      }
      if (path === '/') return response.setHeader('Content-Type', 'text/html').end('<!doctype html>');
      if (extname(path) !== '.js') return response.writeHead(404).end();
      const file = fileURLToPath(new URL(`../..${path}`, import.meta.url));
      return response.setHeader('Content-Type', 'text/javascript').end(readFileSync(file));
    });
    await new Promise<void>((done) => web.listen(0, '127.0.0.1', done));
    const browser = await startChromium();
    try {
      const page = await browser.context.newPage();
      await page.goto(`http://127.0.0.1:${(web.address() as AddressInfo).port}/`);
      for (const { architecture } of Object.values(checkpoint.frontier.family)) {
        const cut = await page.evaluate<{ digest: string; readBytes: number; childBytes: number; requests: number }>(`(async () => {
          const { fetchChild, httpReader } = await import('/src/slice/index.js');
          const { weights, readBytes, childBytes, requests } = await fetchChild(${JSON.stringify(checkpoint.manifest.space)}, '${architecture}', httpReader('/weights.safetensors'));
          const digest = Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', weights.data)), (b) => b.toString(16).padStart(2, '0')).join('');
          return { digest, readBytes, childBytes, requests };
        })()`);
        const { data } = standaloneWeights(graphOf(checkpoint, architecture), checkpoint.weights);
        assert.equal(cut.digest, sha256(littleEndian(data)));
        assert.ok(cut.readBytes <= 1.3 * cut.childBytes);
        console.log(`${architecture}: ${cut.readBytes} bytes in ${cut.requests} requests, ${(cut.readBytes / cut.childBytes).toFixed(2)} times the child's`);
      }
      for (const [have, want] of [['S', 'M'], ['M', 'L'], ['L', 'XL'], ['S', 'XL'], ['S', 'biggest']] as const) {
        const refused = await fetch(`${server.url}/slice?arch=${want}&have=${have}&format=safetensors`, { method: 'HEAD' });
        const delta = await slice(`arch=${want}&have=${have}&format=safetensors&overlap=true`);
        const [from, to] = [await slice(`arch=${have}&format=safetensors`), await slice(`arch=${want}&format=safetensors`)];
        console.log(`${have} to ${want}: ${delta.length} of ${to.length} bytes (${((100 * delta.length) / to.length).toFixed(0)} %)${refused.status === 422 ? ', does not nest' : ''}`);
        assert.deepEqual(Buffer.from(await applyDelta(from, delta)), Buffer.from(to));
        const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
        const onnx = readContainer(await slice(`arch=${want}`)).files.get('model.onnx')!;
        const made = await page.evaluate<{ bundle: string; model: string }>(`(async () => {
          const { applyDelta, bundleOnnx } = await import('/src/slice/index.js');
          const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const hex = async (data) => Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', data)), (b) => b.toString(16).padStart(2, '0')).join('');
          const bundle = await applyDelta(bytes('${base64(from)}'), bytes('${base64(delta)}'));
          return { bundle: await hex(bundle), model: await hex(bundleOnnx(bundle)) };
        })()`);
        assert.deepEqual(made, { bundle: sha256(to), model: sha256(onnx) });
      }
    } finally {
      await browser.close();
      web.close();
    }
  });
});

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

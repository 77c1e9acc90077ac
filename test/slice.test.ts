import assert from 'node:assert/strict';
import { createReadStream, readFileSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bundleFiles, bundleParts } from '../src/bundle/bundle.js';
import { describeChild } from '../src/bundle/child.js';
import { applyDelta, deltaFiles, outside } from '../src/bundle/delta.js';
import { defaultBundle } from '../src/bundle/formats.js';
import { verifyBundle } from '../src/bundle/verify.js';
import { graphOf, openCheckpoint, type Checkpoint } from '../src/checkpoint/checkpoint.js';
import { concatenated, writeContainer } from '../src/encoding/container.js';
import { BignasError } from '../src/errors.js';
import { parameters } from '../src/graph/graph.js';
import { standaloneWeights } from '../src/graph/standalone.js';
import { onnxModel } from '../src/onnx/model.js';
import { bundleOnnx, fetchChild, httpReader, type RangeReader } from '../src/slice/index.js';
import { formatArchitecture, parseArchitecture, uniform, type MbconvArchitecture } from '../src/space/architecture.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { tiny } from '../src/space/presets/tiny.js';
import { randomStatistics } from './support/random.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { temporaryFolder } from './support/server.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let random: Checkpoint;
before(async () => {
  folder = await temporaryFolder();
  random = await makeCheckpoint(tiny, folder.path);
});
after(() => folder.remove());

/** A child's unfolded bundle, its statistics made up. */
async function unfolded(checkpoint: Checkpoint, architecture: string, container: 'zip' | 'tar' = 'zip') {
  const graph = graphOf(checkpoint, architecture);
  const statistics = randomStatistics(graph, 7);
  const golden = new Float32Array(checkpoint.manifest.space.classes);
  const description = describeChild(checkpoint, parseArchitecture(checkpoint.manifest.space, architecture));
  const files = await bundleFiles(checkpoint, { description, graph, statistics, golden, engine: null }, { ...defaultBundle, format: 'safetensors' });
  return { graph, architecture, statistics, id: description.id, files, bundle: concatenated(bundleParts(container, files)) };
}

/** A child that nests in another: of every width, depth and kernel no more, and where a stage ends no wider than where the other's does: the next stage reads that. */
function nestedIn({ stem, stages, head }: MbconvArchitecture, other: MbconvArchitecture, resolution: number): MbconvArchitecture {
  return {
    resolution,
    stem: Math.min(stem, other.stem),
    head: Math.min(head, other.head),
    stages: stages.map((layers, i) =>
      layers.slice(0, other.stages[i]!.length).map(({ kernel, channels }, j) => ({ kernel: Math.min(kernel, other.stages[i]![j]!.kernel), channels: Math.min(channels, other.stages[i]![j]!.channels, other.stages[i]!.at(-1)!.channels) })),
    ),
  };
}

test('a delta makes the whole bundle of the other child, to the byte, nested or not', async () => {
  for (let i = 0; i < 10; i++) {
    const want = sampleArchitecture(tiny, [41, i]);
    const any = sampleArchitecture(tiny, [42, i]);
    for (const have of [nestedIn(any, want, any.resolution), any]) {
      const [from, to] = [await unfolded(random, formatArchitecture(have)), await unfolded(random, formatArchitecture(want), i % 2 ? 'tar' : 'zip')];
      if (have !== any) assert.equal(outside(from.graph, to.graph), undefined);
      const delta = writeContainer('zip', await deltaFiles(random.weights, { checkpoint: random.digest, have: from, want: to, container: i % 2 ? 'tar' : 'zip' }));
      assert.deepEqual(await applyDelta(from.bundle, delta), to.bundle);
      assert.deepEqual(bundleOnnx(to.bundle), onnxModel(to.graph, random.weights, to.statistics, { name: to.id }));
      assert.equal((await verifyBundle(delta)).delta?.to.architecture, to.architecture);
    }
  }
});

test('a child nests where no width, depth or kernel is larger; else the tensor at fault is named', () => {
  const [least, most] = [uniform(tiny, (list) => list[0]!), uniform(tiny, (list) => list.at(-1)!)].map((architecture) => graphOf(random, formatArchitecture(architecture))) as [never, never];
  assert.equal(outside(least, most), undefined);
  assert.ok(outside(most, least));
});

test('a delta for another bundle, a damaged one and another checkpoint are refused', async () => {
  const { smallest, biggest } = random.frontier.family;
  const [from, to] = [await unfolded(random, smallest.architecture), await unfolded(random, biggest.architecture)];
  const options = { checkpoint: random.digest, have: from, want: to, container: 'zip' } as const;
  const delta = writeContainer('zip', await deltaFiles(random.weights, options));
  await assert.rejects(applyDelta(to.bundle, delta), /The bundle is of .*, the delta is for/);
  await assert.rejects(applyDelta(delta, delta), /holds no weights\.safetensors|bundle/);
  await assert.rejects(applyDelta(from.bundle.subarray(0, 900), delta), /Of the bundle: /);
  await assert.rejects(applyDelta(from.bundle, from.bundle), /Of the delta: it holds no delta\.json/);
  const other = writeContainer('zip', await deltaFiles(random.weights, { ...options, checkpoint: 'f'.repeat(64) }));
  await assert.rejects(applyDelta(from.bundle, other), /is of checkpoint .*, the delta is for one of f/);
  // A weight changed, everything else made to fit: only what comes of it tells.
  const weights = Uint8Array.from(from.files.get('weights.safetensors')!);
  weights[weights.length - 1]! ^= 64;
  await assert.rejects(applyDelta(writeContainer('zip', new Map([...from.files, ['weights.safetensors', weights]])), delta), /expected .*damaged/);
});

test('any byte flipped, in either container, fails to verify', async () => {
  for (const container of ['zip', 'tar'] as const) {
    const { id, architecture } = random.frontier.family.smallest;
    const graph = graphOf(random, architecture);
    const description = describeChild(random, parseArchitecture(tiny, architecture));
    const child = { description, graph, statistics: random.statistics.get(id)!, golden: random.golden.get(id)!, engine: null };
    const bundle = concatenated(bundleParts(container, await bundleFiles(random, child, { ...defaultBundle, container })));
    assert.ok((await verifyBundle(bundle)).difference <= 1e-4);
    for (let i = 0; i < bundle.length; i++) {
      const damaged = Uint8Array.from(bundle);
      damaged[i]! ^= 1 << i % 8;
      await assert.rejects(verifyBundle(damaged), (error) => error instanceof BignasError && error.code === 'BUNDLE_INVALID', `byte ${i} of ${bundle.length} of the ${container}`);
    }
  }
});

test('a model that computes something else fails to verify though every digest fits', async () => {
  const { id, architecture } = random.frontier.family.smallest;
  const graph = graphOf(random, architecture);
  const description = describeChild(random, parseArchitecture(tiny, architecture));
  const golden = random.golden.get(id)!.map((logit, i) => logit + i);
  const child = { description, graph, statistics: random.statistics.get(id)!, golden, engine: null };
  for (const format of ['onnx', 'tfjs', 'savedmodel', 'safetensors'] as const)
    await assert.rejects(async () => verifyBundle(concatenated(bundleParts('zip', await bundleFiles(random, child, { ...defaultBundle, format })))), /differ by/);
});

test('every format gives its golden vector in its runtime', async () => {
  const { id, architecture } = random.frontier.family.S;
  const graph = graphOf(random, architecture);
  const description = describeChild(random, parseArchitecture(tiny, architecture));
  const child = { description, graph, statistics: random.statistics.get(id)!, golden: random.golden.get(id)!, engine: null };
  for (const format of ['onnx', 'tfjs', 'savedmodel', 'safetensors'] as const)
    for (const dtype of ['float32', 'float16'] as const)
      for (const preprocess of format === 'safetensors' ? [false] : [false, true]) await verifyBundle(concatenated(bundleParts('zip', await bundleFiles(random, child, { format, dtype, preprocess, container: 'zip' }))));
});

/** A web server of one folder that answers ranges, as any does. */
async function fileServer(root: string): Promise<{ readonly server: Server; readonly url: string }> {
  const server = createServer((request, response) => {
    void (async () => {
      const path = join(root, request.url!);
      const { size } = await stat(path);
      const [, begin, end] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
      if (begin === undefined) return response.writeHead(200).end(await readFile(path));
      response.writeHead(206, { 'Content-Range': `bytes ${begin}-${end}/${size}` });
      return createReadStream(path, { start: Number(begin), end: Number(end) }).pipe(response);
    })();
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

test('a child is cut out of a checkpoint on a web server with at most 1.3 times its bytes', async () => {
  const path = fileURLToPath(new URL('../../checkpoints/cifar10', import.meta.url));
  const checkpoint = await openCheckpoint(path);
  const { space } = checkpoint.manifest;
  const { server, url } = await fileServer(path);
  try {
    const { smallest, M, L, XL, biggest } = checkpoint.frontier.family;
    for (const architecture of [smallest, M, L, XL, biggest].map((child) => child.architecture).concat(Array.from({ length: 3 }, (_, i) => formatArchitecture(sampleArchitecture(space, [5, i]))))) {
      let read = 0;
      const reader = httpReader(`${url}/weights.safetensors`);
      const counting: RangeReader = async (begin, end) => {
        const bytes = await reader(begin, end);
        read += bytes.length;
        return bytes;
      };
      const child = await fetchChild(space, architecture, counting);
      const graph = graphOf(checkpoint, architecture);
      assert.deepEqual(child.weights.data, standaloneWeights(graph, checkpoint.weights).data);
      assert.equal(child.childBytes, 4 * parameters(graph).reduce((sum, { size }) => sum + size.reduce((a, b) => a * b, 1), 0));
      assert.equal(child.readBytes, read);
      assert.ok(read <= 1.3 * child.childBytes, `${architecture}: ${read} bytes for ${child.childBytes}`);
    }
    // A Buffer's slices are views, as those of other arrays are not.
    const file = await readFile(join(path, 'weights.safetensors'));
    const fromBuffer = await fetchChild(space, smallest.architecture, (begin, end) => Promise.resolve(file.subarray(begin, end)), { overhead: 1 });
    assert.deepEqual(fromBuffer.weights.data, standaloneWeights(graphOf(checkpoint, smallest.architecture), checkpoint.weights).data);
    await assert.rejects(fetchChild(tiny, formatArchitecture(uniform(tiny, (list) => list[0]!)), httpReader(`${url}/weights.safetensors`)), /not of this search space/);
  } finally {
    server.close();
  }
});

test('the slicer depends on nothing: every import of it is a file of ours', () => {
  const seen = new Set<string>();
  const visit = (path: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const [, from, alone, dynamic] of readFileSync(path, 'utf8').matchAll(/^(?:import|export)\s[^;=]*?\sfrom\s'([^']+)'|^import\s'([^']+)'|\bimport\('([^']+)'\)/gm)) {
      const name = from ?? alone ?? dynamic!;
      assert.ok(name.startsWith('.'), `${path} imports ${name}`);
      visit(resolve(dirname(path), name));
    }
  };
  visit(fileURLToPath(new URL('../src/slice/index.js', import.meta.url)));
  assert.ok(seen.size > 20);
});

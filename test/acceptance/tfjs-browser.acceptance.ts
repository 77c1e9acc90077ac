import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { dirname, extname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { Page } from 'playwright-core';
import { calibrate } from '../../src/calibrate/calibrate.js';
import { graphOf, openCheckpoint } from '../../src/checkpoint/checkpoint.js';
import { loadCifar10 } from '../../src/data/cifar10.js';
import { fixedCrop, normalisedBatch, type Preprocessing } from '../../src/data/preprocess.js';
import { littleEndian } from '../../src/encoding/littleEndian.js';
import { buildGraph } from '../../src/graph/buildGraph.js';
import { networks } from '../../src/graph/networks/index.js';
import { onnxEngine } from '../../src/onnx/engine.js';
import { onnxModel } from '../../src/onnx/model.js';
import { formatArchitecture } from '../../src/space/architecture.js';
import { sampleArchitecture } from '../../src/space/sample.js';
import { tfGraph } from '../../src/tfgraph/emit.js';
import { graphModelFiles } from '../../src/tfgraph/graphModel.js';
import { startChromium } from '../support/chromium.js';
import { everyOperation, oddGraph, weightsOf } from '../support/graphs.js';
import { channelsLast } from '../support/layout.js';
import { randomBatch, randomStatistics } from '../support/random.js';

const BACKENDS = ['cpu', 'wasm', 'webgl'] as const;

const PAGE = `<!doctype html>
<script src="/tfjs/tf.min.js"></script>
<script src="/wasm/tf-backend-wasm.min.js"></script>
<script>
  tf.wasm.setWasmPaths('/wasm/');
  async function run(backend, folder, { name, type, shape }) {
    if (!(await tf.setBackend(backend))) throw new Error(backend + ' does not start');
    const bytes = await (await fetch(folder + 'input.bin')).arrayBuffer();
    const values = type === 'int32' ? Int32Array.from(new Uint8Array(bytes)) : new Float32Array(bytes);
    const model = await tf.loadGraphModel(folder + 'model.json');
    const input = tf.tensor(values, shape, type);
    const outputs = model.execute({ [name]: input }, ['logits', 'probabilities']);
    const result = await Promise.all(outputs.map(async (output) => Array.from(await output.data())));
    tf.dispose([input, outputs]);
    model.dispose();
    if (tf.getBackend() !== backend) throw new Error('it ran on ' + tf.getBackend());
    return result;
  }
</script>`;

type Outputs<T> = readonly [logits: T, probabilities: T];

interface Case {
  readonly what: string;
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly input: { readonly name: string; readonly type: 'float32' | 'int32'; readonly shape: readonly number[] };
  /** ONNX Runtime's. */
  readonly expected: Outputs<Float32Array>;
  readonly classes: number;
}

const served = new Map<string, Uint8Array>();
const require = createRequire(import.meta.url);
const bundles = {
  tfjs: join(dirname(require.resolve('@tensorflow/tfjs/package.json')), 'dist'),
  wasm: join(dirname(require.resolve('@tensorflow/tfjs-backend-wasm/package.json')), 'dist'),
};
const contentTypes: Readonly<Record<string, string>> = { '.js': 'text/javascript', '.json': 'application/json', '.wasm': 'application/wasm', '.html': 'text/html' };

let server: Server;
let browser: Awaited<ReturnType<typeof startChromium>>;
let page: Page;

/** The page, its scripts, and the models. */
function content(path: string): Uint8Array | undefined {
  if (path === '/index.html') return Buffer.from(PAGE);
  const [, folder, name] = /^\/(tfjs|wasm)\/([\w.-]+)$/.exec(path) ?? [];
  return folder === undefined ? served.get(path) : readFileSync(join(bundles[folder as keyof typeof bundles], name!));
}

before(async () => {
  server = createServer(({ url }, response) => {
    const body = content(url!);
    if (body) response.setHeader('Content-Type', contentTypes[extname(url!)] ?? 'application/octet-stream').end(body);
    else response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  browser = await startChromium();
  page = await browser.context.newPage();
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/index.html`);
});
after(async () => {
  await browser.close();
  server.close();
});

async function onnxOutputs(model: Uint8Array, data: Float32Array, shape: readonly number[]): Promise<Outputs<Float32Array>> {
  const session = await InferenceSession.create(model);
  const { logits, probabilities } = await session.run({ input: new Tensor('float32', data, shape) });
  await session.release();
  return [logits!.data as Float32Array, probabilities!.data as Float32Array];
}

/** The largest difference, in units of `scale`. */
function difference(actual: ArrayLike<number>, expected: ArrayLike<number>, scale = 1): number {
  assert.equal(actual.length, expected.length);
  return Math.max(...Array.from(actual, (value, i) => Math.abs(value - expected[i]!))) / scale;
}

/** Serves each case's files in a folder of its own and runs it on a backend. */
async function check(cases: readonly Case[], inputs: readonly Uint8Array[], backend: (typeof BACKENDS)[number], tolerance = 1e-4): Promise<void> {
  let worst = [0, 0];
  for (const [i, { what, files, input, expected: [logits, probabilities], classes }] of cases.entries()) {
    for (const [name, bytes] of [...files, ['input.bin', inputs[i]!] as const]) served.set(`/${i}/${name}`, bytes);
    const got = await page.evaluate<Outputs<number[]>>(`run(${JSON.stringify(backend)}, '/${i}/', ${JSON.stringify(input)})`);
    served.clear();
    const differences = [difference(got[0], logits, Math.max(...logits.map(Math.abs))), difference(got[1], probabilities)];
    // So that what is not a number is no agreement.
    assert.ok(differences.every((value) => value <= tolerance), `${what}: ${backend} differs by ${differences}`);
    for (let n = 0; n < logits.length; n += classes) assert.equal(top(got[1].slice(n, n + classes)), top(probabilities.subarray(n, n + classes)), `${what}: image ${n / classes}`);
    worst = worst.map((value, at) => Math.max(value, differences[at]!));
  }
  console.log(`${backend}, ${cases.length} models: logits differ by ${worst[0]!.toExponential(1)} of the largest at most, probabilities by ${worst[1]!.toExponential(1)}`);
}

const top = (values: ArrayLike<number>): number => Array.from(values).indexOf(Math.max(...Array.from(values)));

describe('TF.js in a browser gives the probabilities of ONNX Runtime: children of the shipped checkpoint', () => {
  const IMAGES = 100;
  const cases: Case[] = [];
  const inputs: Uint8Array[] = [];

  before(async () => {
    const { weights, manifest, calibration } = await openCheckpoint(fileURLToPath(new URL('../../../checkpoints/cifar10', import.meta.url)));
    const { splits } = await loadCifar10({ log: console.log });
    const crops = await splits.test.crops(Array.from({ length: IMAGES }, (_, i) => i));
    const { preprocessing, space } = manifest;
    for (let seed = 0; seed < 30; seed++) {
      const architecture = sampleArchitecture(space, [seed]);
      const graph = buildGraph(space, architecture);
      const { statistics } = await calibrate(onnxEngine(), graph, weights, { crops: calibration, preprocessing, batch: manifest.calibration.batch });
      const [side] = graph.nodes[0]!.shape as [number];
      cases.push({
        what: formatArchitecture(architecture),
        files: graphModelFiles(tfGraph(graph, weights, statistics, { dtype: 'float32' })),
        input: { name: 'input', type: 'float32', shape: [IMAGES, side, side, 3] },
        expected: await onnxOutputs(onnxModel(graph, weights, statistics), normalisedBatch(crops, preprocessing, side, 'NCHW'), [IMAGES, 3, side, side]),
        classes: space.classes,
      });
      inputs.push(littleEndian(normalisedBatch(crops, preprocessing, side, 'NHWC')));
    }
  });

  for (const backend of BACKENDS) test(backend, () => check(cases, inputs, backend));
});

describe('TF.js in a browser gives the probabilities of ONNX Runtime: networks of the literature, and every operation', () => {
  const cases: Case[] = [];
  const inputs: Uint8Array[] = [];

  before(async () => {
    const graphs = [
      ...Object.entries(networks).map(([what, { build }]) => [what, build({ classes: 10, resolution: 33 })] as const),
      ...[9, 12].map((size) => [`every operation, ${size} pixels`, everyOperation(size)] as const),
      ...[1, 2, 3, 13].map((size) => [`${size} pixels`, oddGraph(size)] as const),
    ];
    for (const [what, graph] of graphs) {
      const [side] = graph.nodes[0]!.shape as [number];
      const [weights, statistics, { data, count }] = [weightsOf(graph, 1), randomStatistics(graph, 1), randomBatch(graph, 2, 1)];
      cases.push({
        what,
        files: graphModelFiles(tfGraph(graph, weights, statistics, { dtype: 'float32' })),
        input: { name: 'input', type: 'float32', shape: [count, side, side, 3] },
        expected: await onnxOutputs(onnxModel(graph, weights, statistics), data, [count, 3, side, side]),
        classes: graph.nodes.at(-1)!.shape[0]!,
      });
      inputs.push(littleEndian(channelsLast(data, 3, side ** 2)));
    }
  });

  for (const backend of BACKENDS) test(backend, () => check(cases, inputs, backend));
});

describe('TF.js in a browser gives the probabilities of ONNX Runtime: photos, with preprocessing in the graph', () => {
  const cases: Case[] = [];
  const inputs: Uint8Array[] = [];

  before(async () => {
    const { weights, manifest, statistics: all, frontier } = await openCheckpoint(fileURLToPath(new URL('../../../checkpoints/cifar10', import.meta.url)));
    const { id, architecture } = frontier.family.M;
    const graph = graphOf({ manifest }, architecture);
    const statistics = all.get(id)!;
    const preprocessing: Preprocessing = { ...manifest.preprocessing, shorterSide: 40 };
    const files = graphModelFiles(tfGraph(graph, weights, statistics, { dtype: 'float32', preprocessing }));
    const [side] = graph.nodes[0]!.shape as [number];
    for (const [height, width] of [[480, 640], [97, 41], [32, 32], [20, 32], [1, 30], [33, 1]] as const) {
      const pixels = Uint8Array.from({ length: height * width * 3 }, (_, i) => 128 + 100 * Math.sin((i % (width * 3)) / 50 + i / (width * 90)));
      const reference = normalisedBatch(fixedCrop({ pixels, height, width }, preprocessing), preprocessing, side, 'NCHW');
      cases.push({
        what: `${height}×${width}`, files, input: { name: 'image', type: 'int32', shape: [1, height, width, 3] },
        expected: await onnxOutputs(onnxModel(graph, weights, statistics), reference, [1, 3, side, side]), classes: manifest.space.classes,
      });
      inputs.push(pixels);
    }
  });

  // A value of the crop that ends near a half may be rounded to either side.
  for (const backend of BACKENDS) test(backend, () => check(cases, inputs, backend, 1e-3));
});

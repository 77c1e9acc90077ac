import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Tensor2D, Tensor4D } from '@tensorflow/tfjs-node-gpu';
import { flops, params } from '../src/cost/cost.js';
import type { Engine } from '../src/graph/engine.js';
import { parameters, type Graph } from '../src/graph/graph.js';
import { buildGraph, sharedTensors } from '../src/graph/buildGraph.js';
import { networks, networkSpace } from '../src/graph/networks/index.js';
import type { SharedWeights } from '../src/graph/weights.js';
import { openCheckpoint } from '../src/checkpoint/checkpoint.js';
import { onnxEngine } from '../src/onnx/engine.js';
import { formatArchitecture, parseArchitecture } from '../src/space/architecture.js';
import { countArchitectures, parseSpace } from '../src/space/space.js';
import { training } from '../src/tensorflow/forward.js';
import { addGradients, softCrossEntropy } from '../src/tensorflow/gradients.js';
import { tensorflowEngine } from '../src/tensorflow/engine.js';
import { tf } from '../src/tensorflow/tf.js';
import request from 'supertest';
import { everyOperation, weightsOf } from './support/graphs.js';
import { photo, putPhotos } from './support/photoFolder.js';
import { testServer } from './support/server.js';
import { randomBatch, randomStatistics, randomTensors } from './support/random.js';
import { referenceLogits } from './support/reference.js';

async function logits(engine: Engine, graph: Graph, weights: SharedWeights, count: number): Promise<Float32Array> {
  const child = await engine.load(graph, weights, randomStatistics(graph, 1));
  try {
    return await child.run(randomBatch(graph, count, 1));
  } finally {
    await child.dispose();
  }
}

function assertNear(a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number, what: string): void {
  const largest = Math.max(...Array.from(a).map(Math.abs));
  assert(largest > 1e-3 && largest < 1e6, `${what}: logits of ${largest}`);
  const worst = Math.max(...Array.from(a, (v, i) => Math.abs(v - b[i]!)));
  assert.equal(a.length, b.length);
  assert(worst <= tolerance * largest, `${what}: ${worst} of ${largest}`);
}

/** Half a unit of the last digit that a paper gives: 4.2 million may be 4.25. */
function rounding(value: number): number {
  const digits = value.toExponential().replace(/e.*$/, '').replace('.', '').length;
  return 0.5 * 10 ** (Math.floor(Math.log10(value)) - digits + 1);
}

describe('networks of the literature', () => {
  /** Whose paper counts multiply-adds by a rule that we do not know: docs/networks.md says so. */
  const unexplained = { darts: 0.08 } as const;

  for (const [name, { published, build }] of Object.entries(networks))
    test(`${name} has the parameters and the multiply-adds that its paper gives, within 2 %`, () => {
      const graph = build({ classes: 1000, resolution: published.resolution });
      const off = (got: number, wanted: number): number => Math.max(0, Math.abs(got - wanted) - rounding(wanted)) / wanted;
      const more = (unexplained as Readonly<Record<string, number>>)[name];
      assert(off(params(graph), published.params) < 0.02, `${params(graph)} parameters, the paper says ${published.params}`);
      const away = Math.abs(flops(graph) / published.flops - 1);
      assert(away < (more ?? 0.02), `${flops(graph)} multiply-adds, the paper says ${published.flops}`);
      if (more !== undefined) assert(away > 0.02, 'no longer unexplained');
    });

  test('both engines give the same logits for each of them', async () => {
    for (const [name, { build }] of Object.entries(networks)) {
      const graph = build({ classes: 10, resolution: 64 });
      const weights = weightsOf(graph, 1);
      assertNear(await logits(onnxEngine(), graph, weights, 2), await logits(tensorflowEngine, graph, weights, 2), 1e-4, name);
    }
  });

  test('each can be trained: every weight has a gradient', () => {
    for (const name of ['mobilenet-v3-large-1.0', 'darts', 'nasnet-a-mobile', 'resnet-50'] as const) {
      const graph = networks[name].build({ classes: 4, resolution: 64 });
      const weights = weightsOf(graph, 2);
      const gradients = weights.like();
      const x = tf.randomNormal([3, 64, 64, 3], 0, 1, 'float32', 5) as Tensor4D;
      const { loss, logits: y } = addGradients(graph, weights, gradients, x, training, (answer) => softCrossEntropy(tf.oneHot(tf.tensor1d([0, 1, 2], 'int32'), 4).toFloat() as Tensor2D, answer));
      tf.dispose([x, y]);
      assert(Number.isFinite(loss), name);
      for (const { name: tensor } of weights.tensors) assert(gradients.tensor(tensor).some((g) => g !== 0), `${name}: ${tensor}`);
      assert(gradients.data.every(Number.isFinite), name);
    }
  });
});

test('a slimmable network is a space: its widths are slices of one set of weights, in both engines', async () => {
  const space = networkSpace('slimmable-mobilenet-v1', { classes: 5, resolution: 32 });
  assert.equal(countArchitectures(space), 4n);
  const texts = space.widths.map((at) => formatArchitecture(parseArchitecture(space, `r32_w${at}`)));
  assert.deepEqual(texts, ['r32_w0.25', 'r32_w0.5', 'r32_w0.75', 'r32_w1']);
  for (const bad of ['r32', 'r32_w0.3', 'r64_w1', 'r32_w1_c3', 'r32_wide']) assert.throws(() => parseArchitecture(space, bad), /Expected/, bad);
  assert.deepEqual(parseSpace(JSON.parse(JSON.stringify(space))), space);
  assert.throws(() => parseSpace({ ...space, network: 'lenet' }), { code: 'SPACE_INVALID', message: /network/ });

  const weights = randomTensors(sharedTensors(space), 1);
  const answers: Float32Array[] = [];
  for (const text of texts) {
    const graph = buildGraph(space, parseArchitecture(space, text));
    const answer = await logits(onnxEngine(), graph, weights, 2);
    assertNear(answer, await logits(tensorflowEngine, graph, weights, 2), 1e-4, text);
    answers.push(answer);
    // Equal to the network of that width whose weights are the lower channels.
    const own = buildGraph({ ...space, widths: [Number(text.slice(5))] }, parseArchitecture(space, text));
    const cut = randomTensors([...new Map(parameters(own).map(({ tensor }) => [tensor.name, tensor])).values()], 9);
    for (const parameter of parameters(graph)) cut.tensor(parameter.tensor.name).set(weights.gather(parameter));
    assertNear(answer, await logits(onnxEngine(), own, cut, 2), 1e-6, `${text}, alone`);
  }
  assert.notDeepEqual(answers[0], answers[3]);
});

test('bignas-train --network trains one, and its checkpoint is served and sliced', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'bignas-network-'));
  const cli = fileURLToPath(new URL('../cli/bignas-train.js', import.meta.url));
  try {
    for (const i of [0, 1]) await putPhotos(join(folder, 'photos'), `train/${'ab'[i]!}`, 24, 30 * i);
    const run = async (...args: string[]): Promise<void> => {
      const child = spawn(process.execPath, [cli, '--data', join(folder, 'photos'), '--crop', '32', '--steps', '3', '--batch', '4', '--replicas', '1', '--calibration-images', '8', ...args], { stdio: 'ignore' });
      assert.equal(await new Promise((resolve) => child.once('exit', resolve)), 0);
    };
    await run('--network', 'slimmable-mobilenet-v1', '--output', join(folder, 'run'));
    const checkpoint = await openCheckpoint(join(folder, 'run', 'checkpoint'));
    assert.deepEqual(checkpoint.manifest.training.recipe['sandwich'], ['biggest', 'random', 'random', 'smallest']);
    const server = await testServer(checkpoint.folder);
    try {
      const { body } = await request(server.url).get('/archs').expect(200) as { body: { family: Record<string, { architecture: string }> } };
      assert.deepEqual([body.family['smallest']!.architecture, body.family['biggest']!.architecture], ['r32_w0.25', 'r32_w1']);
      await request(server.url).post('/predict?arch=r32_w0.5').set('Content-Type', 'image/png').send(await (await photo(3)).png().toBuffer()).expect(200);
      await request(server.url).head('/slice?params=1M').expect(200);
    } finally {
      await server.stop(1000);
    }
    await run('--network', 'mnasnet-a1', '--output', join(folder, 'single'));
    const single = await openCheckpoint(join(folder, 'single', 'checkpoint'));
    assert.deepEqual(single.manifest.training.recipe['sandwich'], ['biggest']);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test('docs/networks.md has these figures', () => {
  const text = readFileSync(fileURLToPath(new URL('../../docs/networks.md', import.meta.url)), 'utf8');
  const millions = (value: number): string => (value / 1e6).toFixed(value < 1e7 ? 2 : 0);
  const off = (got: number, wanted: number): string => `${got < wanted ? '−' : '+'}${Math.abs(100 * (got / wanted - 1)).toFixed(1)} %`;
  const lines = Object.entries(networks).map(([name, { title, published: p, build }]) => {
    const graph = build({ classes: 1000, resolution: p.resolution });
    const [f, n] = [flops(graph), params(graph)];
    const cited = p.bignas === undefined ? '' : ` (BigNAS: ${millions(p.bignas)})`;
    return `| ${title} (\`${name}\`) | ${p.resolution} | ${millions(p.flops)}${cited} | ${millions(f)} | ${off(f, p.flops)} | ${millions(p.params)} | ${millions(n)} | ${off(n, p.params)} | ${(100 * p.accuracy).toFixed(1)} % | ${p.source} |`;
  });
  const head = '| network | pixels | MFLOPs, paper | ours | off | M parameters, paper | ours | off | top-1, paper | source |\n|---|---|---|---|---|---|---|---|---|---|';
  const table = [head, ...lines].join('\n');
  assert.equal(/<!-- networks -->\n([^]*)\n<!-- end of networks -->/.exec(text)?.[1], table, `the table must be\n${table}\n`);
});

test('every operation means the same to both engines and to plain loops, odd sizes included', async () => {
  for (const resolution of [9, 12]) {
    const graph = everyOperation(resolution);
    const weights = weightsOf(graph, 3);
    const expected = referenceLogits(graph, weights, randomStatistics(graph, 1), randomBatch(graph, 2, 1));
    assertNear(expected, await logits(onnxEngine(), graph, weights, 2), 1e-5, `ONNX Runtime, ${resolution}`);
    assertNear(expected, await logits(tensorflowEngine, graph, weights, 2), 1e-5, `TensorFlow, ${resolution}`);
  }
});

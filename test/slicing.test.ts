import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildGraph, sharedTensors } from '../src/graph/buildGraph.js';
import { batchNorms, elements, parameters, type Graph, type GraphNode, type Parameter } from '../src/graph/graph.js';
import type { ChannelStatistics, Statistics } from '../src/graph/statistics.js';
import { initialWeights, SharedWeights } from '../src/graph/weights.js';
import { biggest, smallest, type MbconvArchitecture } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import type { SearchSpace } from '../src/space/space.js';
import { randomBatch, randomStatistics, randomWeights } from './support/random.js';
import { referenceLogits } from './support/reference.js';

/** Every weight is its own index, so a slice tells where it was taken. */
function indexed(space: SearchSpace): SharedWeights {
  const weights = new SharedWeights(sharedTensors(space));
  for (const { name } of weights.tensors) weights.tensor(name).forEach((_, i, data) => (data[i] = i));
  return weights;
}

function parameterNamed(graph: Graph, name: string): Parameter {
  const parameter = parameters(graph).find(({ tensor }) => tensor.name === name);
  assert(parameter, name);
  return parameter;
}

test('a 3×3 kernel is the centre of the shared 5×5', () => {
  const parameter = parameterNamed(buildGraph(tiny, smallest(tiny)), 'stage2.layer1.depthwise.conv.kernel');
  assert.deepEqual(parameter.tensor.shape, [16, 1, 5, 5]);
  assert.deepEqual(parameter.size, [8, 1, 3, 3]);
  const rows = (c: number): number[] => [6, 7, 8, 11, 12, 13, 16, 17, 18].map((i) => c * 25 + i);
  assert.deepEqual([...indexed(tiny).gather(parameter)], Array.from({ length: 8 }, (_, c) => rows(c)).flat());
});

test('a narrow layer takes the lower-index channels, in and out', () => {
  const parameter = parameterNamed(buildGraph(tiny, smallest(tiny)), 'stage3.layer1.project.conv.kernel');
  assert.deepEqual(parameter.tensor.shape, [12, 24, 1, 1]);
  assert.deepEqual(parameter.size, [8, 12, 1, 1]);
  const expected = Array.from({ length: 8 }, (_, o) => Array.from({ length: 12 }, (_, i) => o * 24 + i)).flat();
  assert.deepEqual([...indexed(tiny).gather(parameter)], expected);
});

test('a shallow stage has the lower-index layers', () => {
  const names = (architecture: MbconvArchitecture): Set<string> =>
    new Set(buildGraph(tiny, architecture).nodes.flatMap(({ name }) => /^stage3\.layer\d/.exec(name) ?? []));
  assert.deepEqual(names(smallest(tiny)), new Set(['stage3.layer1']));
  const two = biggest(tiny);
  assert.deepEqual(names({ ...two, stages: [two.stages[0]!, two.stages[1]!, two.stages[2]!.slice(0, 2)] }), new Set(['stage3.layer1', 'stage3.layer2']));
});

test('scatterAdd is the adjoint of gather', () => {
  const weights = randomWeights(tiny, 1);
  fc.assert(
    fc.property(fc.nat(), (seed) => {
      for (const parameter of parameters(buildGraph(tiny, sampleArchitecture(tiny, [seed])))) {
        const values = weights.gather(parameter);
        const into = weights.like();
        into.scatterAdd(parameter, values);
        // ⟨gather(w), v⟩ = ⟨w, scatter(v)⟩ with v = gather(w), and what lies outside stays 0.
        const inner = values.reduce((sum, v) => sum + v * v, 0);
        const outer = weights.data.reduce((sum, w, i) => sum + w * into.data[i]!, 0);
        assert(Math.abs(inner - outer) < 1e-4 * Math.max(1, inner));
        assert.equal(into.data.filter((v) => v !== 0).length, values.filter((v) => v !== 0).length);
      }
    }),
    { numRuns: 20 },
  );
});

test('a slice outside its tensor, values of the wrong size and unknown names are refused', () => {
  const weights = new SharedWeights(sharedTensors(tiny));
  const parameter = parameterNamed(buildGraph(tiny, smallest(tiny)), 'stage3.layer1.project.conv.kernel');
  assert.throws(() => weights.gather({ ...parameter, begin: [6, 0, 0, 0] }), /does not lie in/);
  assert.throws(() => weights.scatterAdd(parameter, new Float32Array(3)), /expected 96 values, got 3/);
  assert.throws(() => weights.tensor('stem'), /No shared tensor/);
});

/**
 * The full network at the child's resolution with all that the child lacks masked to zero (appendix C): channels behind each batch
 * norm by γ = β = 0, the rim of a 5×5 kernel by zeros, channels of a sum by cutting and padding, layers by a residual branch of zero.
 */
function masked(space: SearchSpace, child: MbconvArchitecture, weights: SharedWeights, statistics: Statistics): { graph: Graph; weights: SharedWeights; statistics: Statistics } {
  const full = buildGraph(space, { ...biggest(space), resolution: child.resolution });
  const used = new Map(parameters(buildGraph(space, child)).map((parameter) => [parameter.tensor.name, parameter]));
  const zeroed = weights.like();
  // Only what the child uses is kept, at the place where it lies; written without `gather`'s own index arithmetic.
  for (const { tensor } of parameters(full)) {
    const parameter = used.get(tensor.name);
    const from = weights.tensor(tensor.name);
    const to = zeroed.tensor(tensor.name);
    const kernelLike = tensor.shape.length > 1;
    if (!parameter) continue;
    const { begin, size } = parameter;
    // Kernels keep every input and output channel (a masked channel's activation is 0 anyway); only the rim is masked.
    const keep: [number, number][] = tensor.shape.map((n, d) => (kernelLike && d < 2 && !tensor.name.includes('.se.') ? [0, n] : [begin[d]!, begin[d]! + size[d]!]));
    for (let i = 0; i < from.length; i++) {
      let rest = i;
      let inside = true;
      for (let d = tensor.shape.length - 1; d >= 0; d--) {
        const at = rest % tensor.shape[d]!;
        rest = Math.floor(rest / tensor.shape[d]!);
        inside &&= at >= keep[d]![0] && at < keep[d]![1];
      }
      if (inside) to[i] = from[i]!;
    }
  }
  const widths = (name: string): number => {
    const [, stage, layer] = /^stage(\d+)\.layer(\d+)\.add$/.exec(name)!;
    const layers = child.stages[Number(stage) - 1]!;
    return layers[Math.min(Number(layer), layers.length) - 1]!.channels;
  };
  const nodes = full.nodes.flatMap((node): GraphNode[] => {
    if (node.op !== 'add') return [node];
    const sum: GraphNode = { ...node, name: `${node.name}.sum` };
    const [h, w] = node.shape;
    const cut: GraphNode = { op: 'fitChannels', name: `${node.name}.cut`, input: sum.name, shape: [h!, w!, widths(node.name)] };
    return [sum, cut, { op: 'fitChannels', name: node.name, input: cut.name, shape: node.shape }];
  });
  const padded = new Map<string, ChannelStatistics>();
  for (const { name, shape } of batchNorms(full)) {
    const own = statistics.get(name);
    const mean = new Float32Array(shape.at(-1)!);
    const variance = new Float32Array(shape.at(-1)!).fill(1);
    if (own) {
      mean.set(own.mean);
      variance.set(own.variance);
    }
    padded.set(name, { mean, variance });
  }
  return { graph: { nodes }, weights: zeroed, statistics: padded };
}

for (const [space, runs] of [[tiny, 60], [cifar10, 4]] as const)
  test(`slicing equals masking in ${space.name}`, () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const child = sampleArchitecture(space, [seed]);
        const graph = buildGraph(space, child);
        const weights = randomWeights(space, seed);
        const statistics = randomStatistics(graph, seed);
        const batch = randomBatch(graph, 1, seed);
        const sliced = referenceLogits(graph, weights, statistics, batch);
        const mask = masked(space, child, weights, statistics);
        const whole = referenceLogits(mask.graph, mask.weights, mask.statistics, batch);
        const largest = Math.max(...sliced.map(Math.abs));
        assert(largest > 1e-3, 'the network computes something');
        sliced.forEach((v, i) => assert(Math.abs(v - whole[i]!) < 1e-6 * largest, `${v} and ${whole[i]}`));
      }),
      { numRuns: runs, seed: 1 },
    );
  });

test('the biggest child uses every shared weight, each once', () => {
  for (const space of [tiny, cifar10]) {
    const count = new SharedWeights(sharedTensors(space));
    for (const parameter of parameters(buildGraph(space, biggest(space)))) count.scatterAdd(parameter, new Float32Array(elements(parameter.size)).fill(1));
    assert(count.data.every((n) => n === 1));
  }
});

test("every child's tensors are those of the space", () => {
  const shared = new Map(sharedTensors(cifar10).map((tensor) => [tensor.name, JSON.stringify(tensor)]));
  for (let seed = 0; seed < 50; seed++)
    for (const { tensor } of parameters(buildGraph(cifar10, sampleArchitecture(cifar10, [seed])))) assert.equal(JSON.stringify(tensor), shared.get(tensor.name));
});

test('last batch norms of residual branches start at 0, those of skips and all others at 1', () => {
  const weights = initialWeights(sharedTensors(cifar10), 0);
  for (const { name } of weights.tensors) {
    if (!name.endsWith('.gamma')) continue;
    const start = name.endsWith('.project.bn.gamma') ? 0 : 1;
    assert(weights.tensor(name).every((g) => g === start), name);
  }
  assert(weights.tensors.some(({ name }) => name.endsWith('skip.bn.gamma')));
});

test('skips are wired by the space alone', () => {
  const skips = (architecture: MbconvArchitecture): string[] =>
    buildGraph(cifar10, architecture).nodes.filter(({ transition }) => transition).map(({ name }) => name);
  const expected = skips(smallest(cifar10));
  assert(expected.includes('stage2.layer1.skip.pool') && expected.includes('stage4.layer1.skip.conv') && !expected.includes('stage4.layer1.skip.pool'));
  for (let seed = 0; seed < 50; seed++) assert.deepEqual(skips(sampleArchitecture(cifar10, [seed])), expected);
});

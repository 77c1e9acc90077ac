import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { flops, params } from '../src/cost/cost.js';
import { BignasError } from '../src/errors.js';
import { buildGraph } from '../src/graph/buildGraph.js';
import { biggest, checkArchitecture, formatArchitecture, parseArchitecture, smallest } from '../src/space/architecture.js';
import { architectureId, spaceDigest } from '../src/space/identity.js';
import { loadSpace, presets } from '../src/space/presets/index.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { imagenet } from '../src/space/presets/imagenet.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { countArchitectures, parseSpace } from '../src/space/space.js';

const seeds = fc.integer({ min: 0, max: 2 ** 31 });

/** The paper's child near 650 MFLOPs (its section 4.2). */
const near650 = 'r256_c32_3x16_3x24-3x24_5x48-5x48_3x88-3x88_5x128-5x128-5x128-5x128_5x216-5x216-5x216-5x216_3x352_c1408';

test('an architecture and its text are the same value', () => {
  for (const space of Object.values(presets))
    fc.assert(
      fc.property(seeds, (seed) => {
        const architecture = sampleArchitecture(space, [seed]);
        const text = formatArchitecture(architecture);
        assert.match(text, /^[a-z0-9_-]+$/);
        assert.deepEqual(parseArchitecture(space, text), architecture);
      }),
    );
});

test('ids are short, stable, and differ between spaces and architectures', () => {
  assert.match(architectureId(cifar10, smallest(cifar10)), /^[0-9a-f]{12}$/);
  assert.equal(architectureId(cifar10, smallest(cifar10)), architectureId(parseSpace(JSON.parse(JSON.stringify(cifar10))), smallest(cifar10)));
  assert.notEqual(architectureId(cifar10, smallest(cifar10)), architectureId({ ...cifar10, classes: 11 }, smallest(cifar10)));
  const ids = new Set(Array.from({ length: 500 }, (_, i) => architectureId(cifar10, sampleArchitecture(cifar10, [i]))));
  assert.equal(ids.size, 500);
});

test("a space's digest does not depend on the order of its keys", () => {
  const reversed = Object.fromEntries(Object.entries(tiny).reverse());
  assert.equal(spaceDigest(parseSpace(reversed)), spaceDigest(tiny));
});

test('random architectures are legal, stateless, and reach every value', () => {
  for (const space of Object.values(presets)) {
    const sampled = Array.from({ length: 400 }, (_, i) => sampleArchitecture(space, [7, i]));
    for (const architecture of sampled) checkArchitecture(space, architecture);
    assert.deepEqual(sampleArchitecture(space, [7, 13]), sampled[13]);
    space.stages.forEach((stage, i) => {
      assert.deepEqual(new Set(sampled.map(({ stages }) => stages[i]!.length)), new Set(stage.depths));
      assert.deepEqual(new Set(sampled.flatMap(({ stages }) => stages[i]!.map(({ channels }) => channels))), new Set(stage.channels));
      assert.deepEqual(new Set(sampled.flatMap(({ stages }) => stages[i]!.map(({ kernel }) => kernel))), new Set(stage.kernels));
    });
    assert.deepEqual(new Set(sampled.map(({ resolution }) => resolution)), new Set(space.resolutions));
  }
});

test("a layer draws the same whatever another stage's depth", () => {
  const wide = sampleArchitecture(cifar10, [3]);
  const deeper = { ...cifar10, stages: cifar10.stages.map((stage, i) => (i === 1 ? { ...stage, depths: [2] as [number] } : stage)) };
  const other = sampleArchitecture(deeper, [3]);
  assert.deepEqual(other.stages[4], wide.stages[4]);
});

test('a text at fault names the field and what is legal there', () => {
  const good = formatArchitecture(smallest(cifar10));
  const cases: [string, RegExp, Record<string, unknown>][] = [
    ['', /8 fields/, {}],
    ['r32_c16', /8 fields/, {}],
    [good.replace('r20', '20'), /resolution such as `r32`/, { field: 'resolution' }],
    [good.replace('3x24', '3*24'), /stage 3 to be layers/, { field: 'stage 3', legal: { depths: [1, 2, 3], channels: [24, 32], kernels: [3, 5] } }],
    [good.replace('3x24', '7x24'), /kernel of stage 3, layer 1 to be 3 or 5, got 7/, { field: 'stage 3' }],
    [good.replace('3x24', '3x25'), /channels of stage 3, layer 1 to be 24 or 32, got 25/, { field: 'stage 3' }],
    [good.replace('3x24', '3x24-3x24-3x24-3x24'), /layers of stage 3 to be 1, 2 or 3, got 4/, { field: 'stage 3' }],
    [good.replace('r20', 'r21'), /resolution to be 20, 22.*got 21/, { field: 'resolution' }],
    [good.replace('c256', 'c257'), /head's channels/, { field: 'head' }],
    ['x'.repeat(10_000), /8 fields/, {}],
  ];
  for (const [text, message, details] of cases)
    assert.throws(
      () => parseArchitecture(cifar10, text),
      (error) => {
        assert(error instanceof BignasError);
        assert.match(error.code, /^ARCHITECTURE_(MALFORMED|OUTSIDE_SPACE)$/);
        assert.match(error.message, message);
        assert(error.message.length < 400, error.message);
        for (const [name, value] of Object.entries(details)) assert.deepEqual(error.details[name], value);
        return true;
      },
      text.slice(0, 40),
    );
});

test('a space at fault is refused with the field', () => {
  assert.throws(() => parseSpace({ ...tiny, colour: 'red' }), /colour/);
  assert.throws(() => parseSpace({ ...tiny, trainResolutions: [9, 11, 99] }), /trainResolutions must be among resolutions/);
  assert.throws(() => parseSpace({ ...tiny, stages: [{ ...tiny.stages[0], kernels: [4] }] }), /kernels must be odd and at least 3/);
  assert.throws(() => parseSpace({ ...tiny, stages: [{ ...tiny.stages[0], kernels: [1, 3] }] }), /kernels must be odd and at least 3/);
  assert.throws(() => parseSpace({ ...tiny, stages: [{ ...tiny.stages[0], depths: [1, 30_000_000] }] }), /depths/);
  assert.throws(() => loadSpace('imagnet'), /imagenet, cifar10, cifar10-micro, tiny or a \.json file, got `imagnet`/);
  assert.throws(() => loadSpace('/nowhere/space.json'), /cannot be read/);
});

test("imagenet counts the paper's FLOPs, transitions apart", () => {
  const cases: [string, number, number][] = [
    [formatArchitecture(smallest(imagenet)), 207e6, 218e6],
    [formatArchitecture(biggest(imagenet)), 1843e6, 1892e6],
    [near650, 637e6, 659e6],
  ];
  for (const [text, plain, withTransitions] of cases) {
    const graph = buildGraph(imagenet, parseArchitecture(imagenet, text));
    assert(Math.abs(flops(graph, { transitions: false }) / plain - 1) < 0.02, `${text}: ${flops(graph, { transitions: false })}`);
    assert(Math.abs(flops(graph) / withTransitions - 1) < 0.02, `${text}: ${flops(graph)}`);
  }
});

test('imagenet holds over 10^12 children', () => {
  assert.equal(countArchitectures(imagenet), 1213905480756756480000n);
  assert.equal(countArchitectures({ ...tiny, resolutions: [8], stages: [tiny.stages[0]!] }), BigInt(2 * (2 + 2 ** 2) * 2));
});

test('costs of a network counted by hand', () => {
  // tiny's smallest at 8×8: stem 3×3×3→4 at 4×4; three blocks of 4, 4 and 8 channels; head 16; 4 classes.
  const graph = buildGraph(tiny, smallest(tiny));
  const stem = 16 * 27 * 4;
  const stage1 = 16 * 9 * 4 + 2 * 4 + 16 * 4 * 4;
  const stage2 = 16 * 4 * 8 + 4 * 9 * 8 + 2 * 8 + 4 * 8 * 4;
  const stage3 = 4 * 4 * 12 + 4 * 9 * 12 + 2 * 12 + 4 * 12 * 8;
  const head = 4 * 8 * 16 + 16 * 4;
  assert.equal(flops(graph, { transitions: false }), stem + stage1 + stage2 + stage3 + head);
  assert.equal(flops(graph) - flops(graph, { transitions: false }), 4 * 4 * 8);
  const block = (into: number, hidden: number, out: number): number =>
    (hidden === into ? 0 : into * hidden + 2 * hidden) + 9 * hidden + 2 * hidden + (hidden + 1 + hidden + hidden) + hidden * out + 2 * out;
  const expected = 27 * 4 + 8 + block(4, 4, 4) + block(4, 8, 4) + block(4, 12, 8) + (4 * 8 + 16) + (8 * 16 + 32) + (16 * 4 + 4);
  assert.equal(params(graph), expected);
});

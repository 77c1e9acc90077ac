import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, existsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { calibrate } from '../src/calibrate/calibrate.js';
import { frontierChildren, openCheckpoint, type Checkpoint } from '../src/checkpoint/checkpoint.js';
import type { ChildRecord } from '../src/checkpoint/frontier.js';
import { memorySplit, type Dataset } from '../src/data/dataset.js';
import { BignasError } from '../src/errors.js';
import { buildGraph } from '../src/graph/buildGraph.js';
import { onnxEngine } from '../src/onnx/engine.js';
import { costOf } from '../src/cost/cost.js';
import { key, stream } from '../src/random.js';
import { coarseGrid, paperGrid } from '../src/search/coarse.js';
import { compareWithRandom, randomChildrenAt, randomTolerance, scalings } from '../src/search/compare.js';
import { localEvaluator, threadedEvaluator, type Evaluator } from '../src/search/evaluator.js';
import { placesOf } from '../src/search/evaluate.js';
import { frontierOf, recordOf } from '../src/search/family.js';
import { fitGaussianProcess } from '../src/search/gaussianProcess.js';
import { mutate } from '../src/search/mutate.js';
import { crossValidatedError, fitPredictor, kendall, predictorError } from '../src/search/predictor.js';
import { fineSearch, measure, type Measuring } from '../src/search/search.js';
import { searchSession, type SearchOptions, type SearchReport } from '../src/search/session.js';
import { networkSpace } from '../src/graph/networks/index.js';
import { makeLatencyTable } from '../src/onnx/latencyTable.js';
import { bestOf } from '../src/search/select.js';
import { EvaluationStore, evaluationsFile } from '../src/search/store.js';
import { checkArchitecture, formatArchitecture, parseArchitecture, smallest, type Architecture, type MbconvArchitecture } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { imagenet } from '../src/space/presets/imagenet.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { makeCheckpoint } from './support/checkpoint.js';

const root = mkdtempSync(join(tmpdir(), 'bignas-search-'));
after(() => rmSync(root, { recursive: true, force: true }));

const subject = { weights: 'a'.repeat(64), calibration: 'b'.repeat(64), batch: 8, calibrationVersion: 2, splits: 'c'.repeat(64), engine: 'onnx', order: 'first' } as const;
const checkpoint = { manifest: { space: cifar10 } } as Checkpoint;
const images = { split: 'validation', images: 100 } as const;

/** A made-up accuracy: it grows with the multiply-adds, less so for large kernels early and narrow late stages: no grid point is best. */
function madeUp(architecture: Architecture): number {
  const { flops } = costOf(buildGraph(cifar10, architecture));
  const { stages } = architecture as MbconvArchitecture;
  const early = stages[2]!.filter(({ kernel }) => kernel === 5).length;
  const late = stages[4]!.reduce((sum, { channels }) => sum + channels, 0) / 224;
  return 0.5 + 0.1 * Math.log(flops / 2e6) - 0.01 * early + 0.04 * late - 0.03 * Math.abs(stages[3]!.length - 3);
}

/** An evaluator of made-up accuracies that keeps count. */
function counting(): Evaluator & { readonly evaluated: string[] } {
  const evaluated: string[] = [];
  return {
    engine: 'onnx',
    parallel: 3,
    evaluated,
    evaluate: async ({ architecture }) => {
      await new Promise((resolve) => setTimeout(resolve, evaluated.length % 3)); // out of order
      evaluated.push(formatArchitecture(architecture));
      return { accuracy: { value: madeUp(architecture), ...images }, statistics: new Map(), seconds: 1 };
    },
    close: () => Promise.resolve(),
  };
}

async function measuring(folder: string, evaluator: Evaluator, more: Partial<Measuring> = {}): Promise<Measuring> {
  const store = await EvaluationStore.open(join(root, folder), checkpoint, subject);
  const split = memorySplit('validation', new Uint8Array(12), [0], 2).source;
  return { space: cifar10, evaluator, store, split, images, recordOf: (architecture, accuracy) => recordOf(cifar10, architecture, accuracy), ...more };
}

const options = { targets: [{ flops: 4e6 }, { flops: 9e6 }, { flops: 9e6, params: 3e5 }, { flops: 2e7 }], evaluations: 24, seed: 5, predictor: true };

describe('coarse to fine', () => {
  test("the grid is the paper's: resolutions, depth and width of the whole network, kernels by stage", () => {
    const grid = coarseGrid(imagenet, paperGrid);
    assert.equal(new Set(grid.map(formatArchitecture)).size, grid.length);
    assert.equal(new Set(grid.map(({ resolution }) => resolution)).size, 5);
    const kernels = new Set(grid.map(({ stages }) => stages.map(([layer]) => layer!.kernel).join()));
    assert.equal(kernels.size, 4);
    for (const architecture of grid) checkArchitecture(imagenet, architecture);
  });

  test('a mutation is legal, a function of its keys, and touches every dimension', () => {
    const from = smallest(imagenet);
    const changed = new Set<string>();
    for (let i = 0; i < 200; i++) {
      const child = checkArchitecture(imagenet, mutate(imagenet, from, 0.15, [i]));
      assert.deepEqual(mutate(imagenet, from, 0.15, [i]), child);
      if (child.resolution !== from.resolution) changed.add('resolution');
      if (child.stem !== from.stem) changed.add('stem');
      if (child.head !== from.head) changed.add('head');
      child.stages.forEach((layers, s) => {
        if (layers.length !== from.stages[s]!.length) changed.add(`depth ${s}`);
        if (layers[0]!.channels !== from.stages[s]![0]!.channels) changed.add(`channels ${s}`);
        if (layers[0]!.kernel !== from.stages[s]![0]!.kernel) changed.add(`kernel ${s}`);
      });
    }
    assert.deepEqual(mutate(imagenet, from, 0, [1]), from);
    const elastic = imagenet.stages.flatMap(({ channels, depths, kernels }, s) => [
      ...(channels.length > 1 ? [`channels ${s}`] : []),
      ...(depths.length > 1 ? [`depth ${s}`] : []),
      ...(kernels.length > 1 ? [`kernel ${s}`] : []),
    ]);
    for (const dimension of [...elastic, 'resolution', 'head']) assert(changed.has(dimension), dimension);
  });

  test('a killed search evaluates nothing twice and ends as an unbroken one', async () => {
    const whole = await measuring('whole', counting());
    const coarse = await measure(coarseGrid(cifar10), whole);
    const expected = await fineSearch(coarse, options, whole);
    assert.equal(expected.length, options.evaluations);
    await whole.store.close();

    const evaluated: string[] = [];
    for (const limit of [7, 60, 5, 1000]) {
      const stop = new AbortController();
      const evaluator = counting();
      const part = await measuring('killed', evaluator, { signal: stop.signal, progress: () => evaluator.evaluated.length >= limit && stop.abort() });
      const run = measure(coarseGrid(cifar10), part).then((grid) => fineSearch(grid, options, part));
      if (limit < 1000) await assert.rejects(run, { name: 'AbortError' });
      else assert.deepEqual(await run, expected);
      await part.store.close();
      // A kill may cut the last line off.
      if (limit === 7) appendFileSync(join(root, 'killed', evaluationsFile), '{"id":"0123');
      evaluated.push(...evaluator.evaluated);
    }
    assert.equal(new Set(evaluated).size, evaluated.length);
    assert.equal(evaluated.length, coarseGrid(cifar10).length + options.evaluations);
  });

  test('mutated children fit their targets and beat the grid, with and without a predictor; another seed finds others', async () => {
    const m = await measuring('fine', counting());
    const coarse = await measure(coarseGrid(cifar10), m);
    const best = (children: readonly ChildRecord[], limit: number): number =>
      Math.max(...children.filter(({ costs }) => costs.flops.value <= limit).map(({ accuracy }) => accuracy!.value));
    for (const predictor of [true, false]) {
      const fine = await fineSearch(coarse, { ...options, evaluations: 60, predictor }, m);
      for (const limit of [4e6, 9e6]) assert(best(fine, limit) > best(coarse, limit), `${limit}, predictor ${predictor}`);
    }
    const [a, b] = [await fineSearch(coarse, options, m), await fineSearch(coarse, { ...options, seed: 6 }, m)];
    assert.notDeepEqual(a.map(({ id }) => id), b.map(({ id }) => id));
    await m.store.close();
  });

  test('a child that cannot be measured ends the search with its reason', async () => {
    const evaluator: Evaluator = { ...counting(), evaluate: () => Promise.reject(new BignasError('DATA_INVALID', 'no such image')) };
    const m = await measuring('failing', evaluator);
    await assert.rejects(measure(coarseGrid(cifar10), m), /no such image/);
    await m.store.close();
  });
});

test('an evaluation that cannot be kept does not drop those that come after it', async () => {
  const m = await measuring('full', counting());
  const kept: string[] = [];
  let tries = 0;
  const store = { find: () => undefined, add: (evaluation: { readonly id: string }) => (++tries === 1 ? Promise.reject(new Error('ENOSPC')) : Promise.resolve(void kept.push(evaluation.id))) } as unknown as EvaluationStore;
  await assert.rejects(measure(coarseGrid(cifar10).slice(0, 9), { ...m, store }), /ENOSPC/);
  assert.equal(kept.length, 2, 'the two that were under way');
  await m.store.close();
});

test('part of a split whose images lie class by class has all classes; the whole is the whole', () => {
  const labels = Array.from({ length: 90 }, (_, i) => Math.floor(i / 30));
  assert.deepEqual([...new Set(placesOf(90, 10, 'spread').map((place) => labels[place]))], [0, 1, 2]);
  for (const order of ['first', 'spread'] as const) assert.deepEqual(placesOf(7, 7, order), [0, 1, 2, 3, 4, 5, 6]);
  assert.deepEqual(placesOf(90, 3, 'first'), [0, 1, 2]);
});

describe('a frontier', () => {
  const record = (architecture: Architecture, value: number): ChildRecord => recordOf(cifar10, architecture, { value, split: 'validation', images: 100 });
  const grid = coarseGrid(cifar10, paperGrid);

  test('holds no child that another one equals at less, where accuracies are equal, too', () => {
    const children = grid.map((architecture) => record(architecture, Math.round(20 * Math.min(0.8, madeUp(architecture))) / 20));
    const costs = ['flops', 'params', 'bytes', 'memory'] as const;
    for (const a of frontierOf(cifar10, children).front)
      for (const b of children)
        assert(!(b.accuracy!.value >= a.accuracy!.value && costs.every((cost) => b.costs[cost].value <= a.costs[cost].value) && costs.some((cost) => b.costs[cost].value < a.costs[cost].value)), `${a.architecture} is beaten by ${b.architecture}`);
  });

  test('holds the best child within a budget of several bounds', () => {
    const children = grid.map((architecture) => record(architecture, madeUp(architecture)));
    let others = 0;
    for (const flops of [3e6, 6e6, 1.2e7])
      for (const params of [150e3, 250e3, 400e3])
        for (const memory of [70e3, 110e3, 150e3]) {
          const budget = { flops, params, memory };
          const best = bestOf(children, budget);
          assert.equal(bestOf(frontierChildren(frontierOf(cifar10, children, [budget])), budget), best);
          if (bestOf(frontierChildren(frontierOf(cifar10, children)), budget) !== best) others++;
        }
    assert(others > 0, 'some of them lie on no single front');
  });
});

describe('the store of evaluations', () => {
  test('removes what a killed writer of statistics left', async () => {
    const folder = join(root, 'leftovers');
    mkdirSync(join(folder, 'statistics'), { recursive: true });
    writeFileSync(join(folder, 'statistics', '.0123.safetensors.partial-9'), 'x');
    await (await EvaluationStore.open(folder, checkpoint, subject)).close();
    assert.deepEqual(readdirSync(join(folder, 'statistics')), []);
  });

  test('refuses evaluations of other weights, and lines that are none, naming them', async () => {
    const m = await measuring('store', counting());
    await measure(coarseGrid(cifar10).slice(0, 2), m);
    await m.store.close();
    const folder = join(root, 'store');
    await assert.rejects(EvaluationStore.open(folder, checkpoint, { ...subject, weights: 'd'.repeat(64) }), { code: 'SEARCH_MISMATCH', message: /another weights/ });
    const path = join(folder, evaluationsFile);
    const length = readFileSync(path).length;
    appendFileSync(path, '{"id":"zz"}\n');
    await assert.rejects(EvaluationStore.open(folder, checkpoint, subject), { code: 'SEARCH_INVALID', message: /Line 4 of .*evaluations\.jsonl is no evaluation/ });
    truncateSync(path, length);
    const again = await EvaluationStore.open(folder, checkpoint, subject);
    const id = recordOf(cifar10, coarseGrid(cifar10)[0]!).id;
    assert.equal(again.find(id, images)?.accuracy.value, madeUp(coarseGrid(cifar10)[0]!));
    assert.equal(again.find(id, { split: 'train', images: 100 }), undefined);
    assert.equal(again.find(id, { split: 'validation', images: 99 }), undefined);
    await again.close();
  });
});

describe('the accuracy predictor', () => {
  const samples = (n: number, from: number): { architecture: Architecture; accuracy: number }[] =>
    Array.from({ length: n }, (_, i) => {
      const architecture = sampleArchitecture(cifar10, [from + i]);
      return { architecture, accuracy: madeUp(architecture) + 0.003 * stream(key('noise'), from + i).normal() };
    });

  test("ranks children that it has not seen; Kendall's τ is that of the textbook", () => {
    const pairs = (predicted: number[], measured: number[]): { predicted: number; measured: number }[] => predicted.map((p, i) => ({ predicted: p, measured: measured[i]! }));
    assert.equal(kendall(pairs([1, 2, 3, 4], [10, 20, 30, 40])), 1);
    assert.equal(kendall(pairs([1, 2, 3, 4], [4, 3, 2, 1])), -1);
    assert.equal(kendall(pairs([1, 2, 3, 4], [1, 2, 4, 3])), 4 / 6);
    assert.equal(kendall(pairs([1, 1, 2, 3], [1, 2, 3, 4])), 5 / Math.sqrt(5 * 6)); // τ-b counts the tie out
    const error = predictorError(fitPredictor(cifar10, samples(120, 0)), samples(50, 1000));
    assert(error.kendall > 0.8, `τ ${error.kendall}`);
    assert(error.meanAbsolute < 0.01, `mean error ${error.meanAbsolute}`);
    const crossValidated = crossValidatedError(cifar10, samples(60, 0));
    assert.equal(crossValidated.children, 60);
    assert(crossValidated.kendall > 0.7, `τ ${crossValidated.kendall}`);
  });

  test('one more child than it fits does not halve what it is fitted on; of one child it says what it has', () => {
    const many = samples(401, 0);
    const off = (n: number): number => predictorError(fitPredictor(cifar10, many.slice(0, n)), samples(60, 5000)).meanAbsolute;
    assert(off(401) < 1.1 * off(400), `${off(401)} and ${off(400)}`);
    const b0 = networkSpace('efficientnet-b0', { classes: 10, resolution: 32 });
    const only = coarseGrid(b0).map((architecture) => ({ architecture, accuracy: 0.5 }));
    assert.equal(only.length, 1);
    assert.equal(fitPredictor(b0, only).predict(only[0]!.architecture).mean, 0.5);
    assert.equal(crossValidatedError(b0, only).children, 0);
  });

  test('learns nothing from noise, and does not claim to', () => {
    const noise = (n: number, from: number): { architecture: Architecture; accuracy: number }[] =>
      samples(n, from).map(({ architecture }, i) => ({ architecture, accuracy: stream(key('pure noise'), from + i).uniform() }));
    assert(Math.abs(predictorError(fitPredictor(cifar10, noise(80, 0)), noise(50, 500)).kendall) < 0.3);
  });

  test('a Gaussian process returns to what it was fitted on, and knows where it knows nothing', () => {
    const points = [[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0.5]];
    const regression = fitGaussianProcess(points, points.map(([x, y]) => Math.sin(x!) + y!));
    for (const [x, y] of points) assert(Math.abs(regression.predict([x!, y!]).mean - Math.sin(x!) - y!) < 0.1);
    assert(regression.predict([9, -9]).deviation > 5 * regression.predict([0.5, 0.4]).deviation);
  });
});

describe('what a search is compared with', () => {
  test('random children stand at the multiply-adds asked for, are different, and a function of the seed', () => {
    const target = 6e6;
    const children = randomChildrenAt(cifar10, target, 12, 1);
    assert.equal(new Set(children.map(formatArchitecture)).size, 12);
    for (const child of children) assert(Math.abs(Math.log(costOf(buildGraph(cifar10, child)).flops / target)) <= randomTolerance);
    assert.deepEqual(randomChildrenAt(cifar10, target, 12, 1), children);
    assert.notDeepEqual(randomChildrenAt(cifar10, target, 12, 2), children);
    assert.deepEqual(randomChildrenAt(cifar10, 1e9, 3, 1), []);
    const least = smallest(cifar10);
    const near = costOf(buildGraph(cifar10, least)).flops;
    assert(randomChildrenAt(cifar10, near, 20, 0).map(formatArchitecture).includes(formatArchitecture(least)));
    assert(!randomChildrenAt(cifar10, near, 20, 0, formatArchitecture(least)).map(formatArchitecture).includes(formatArchitecture(least)));
  });

  test('the margin is over the median, its error that of two proportions and of a median', () => {
    const child = (value: number): ChildRecord => ({ ...recordOf(cifar10, smallest(cifar10)), accuracy: { value, split: 'validation', images: 100 } });
    const { margin, noise, random } = compareWithRandom(child(0.8), [child(0.5), child(0.7), child(0.4), child(0.6)]);
    assert.deepEqual(random, { children: 4, median: 0.55, least: 0.4, most: 0.7 });
    assert(Math.abs(margin - 0.25) < 1e-12);
    const spread = (0.15 ** 2 + 0.15 ** 2 + 0.05 ** 2 + 0.05 ** 2) / 3;
    assert(Math.abs(noise - Math.sqrt((0.8 * 0.2 + 0.55 * 0.45) / 100 + ((Math.PI / 2) * spread) / 4)) < 1e-12);
    const alike = compareWithRandom(child(0.8), [child(0.55), child(0.55)]);
    assert(Math.abs(alike.noise - Math.sqrt((0.8 * 0.2 + 0.55 * 0.45) / 100)) < 1e-12);
  });

  test('a scaling changes its own dimension alone, and grows', () => {
    const all = scalings(cifar10);
    assert.deepEqual(all.map(({ name }) => name), ['compound', 'width', 'depth', 'resolution']);
    for (const { name, children } of all) {
      assert(children.length > 1, name);
      const costs = children.map((child) => costOf(buildGraph(cifar10, checkArchitecture(cifar10, child))).flops);
      costs.slice(1).forEach((cost, i) => assert(cost > costs[i]!, name));
    }
    assert.equal(new Set((all[1]!.children as MbconvArchitecture[]).map(({ resolution, stages }) => `${resolution} ${stages.map((layers) => layers.length).join()}`)).size, 1);
    assert.equal(new Set(all[3]!.children.map((child) => formatArchitecture({ ...child, resolution: 20 }))).size, 1);
  });
});

describe('a search of a checkpoint', () => {
  const noise = (name: 'train' | 'validation' | 'test', count: number): ReturnType<typeof memorySplit> => {
    const draws = stream(key(name));
    const side = 14;
    return memorySplit(name, Uint8Array.from({ length: count * side ** 2 * 3 }, () => draws.integer(256)), Array.from({ length: count }, (_, i) => i % 4), side);
  };
  const dataset: Dataset = {
    name: 'noise', source: 'a test', classes: ['a', 'b', 'c', 'd'], augmentation: 'none', digest: '0'.repeat(64),
    splits: { train: noise('train', 40), validation: noise('validation', 30), test: noise('test', 20) },
    preprocessing: {} as Dataset['preprocessing'], // the checkpoint's own is used
  };
  const dataOf = ({ weights, manifest, calibration }: Checkpoint) => ({
    space: tiny, weights: weights.data, source: { crops: calibration, preprocessing: manifest.preprocessing, batch: manifest.calibration.batch },
  });

  test('says what answers each budget, and has latencies of one device alone', async () => {
    const folder = join(root, 'devices');
    const before = await makeCheckpoint(tiny, folder);
    const evaluator = threadedEvaluator(dataOf(before), 1);
    const search = (checkpoint: Checkpoint, more: Partial<SearchOptions>): ReturnType<typeof searchSession> =>
      searchSession({
        checkpoint, dataset, evaluator, output: join(root, 'devices-search'), images: { split: 'validation', images: 30 }, budgets: [], evaluations: 8, seed: 1, predictor: true, random: 0,
        compare: false, test: false, latency: false, write: true, signal: new AbortController().signal, report: () => undefined, ...more,
      });
    try {
      await assert.rejects(search(before, { budgets: [{ latency: 1e-3 }] }), { code: 'OPTION_INVALID', message: /--latency-table/ });
      await assert.rejects(search(before, { output: '/dev/null/search' }), { code: 'OPTION_INVALID', message: /cannot be written: ENOTDIR/ });
      const table = await makeLatencyTable(tiny, { device: 'phone', children: 4, seed: 0, threads: 1, runs: 1 });
      const two = { params: 1500, memory: 2500 };
      const { budgets } = await search(before, { latencyTable: table, budgets: [two, { flops: 1 }] });
      assert.equal(budgets[1]!.child, null);
      const first = await openCheckpoint(folder);
      assert.deepEqual(bestOf(frontierChildren(first.frontier), two), budgets[0]!.child);
      for (const [device, more] of [['laptop', { latencyTable: { ...table, device: 'laptop' } }], [undefined, {}]] as const) {
        await search(await openCheckpoint(folder), { seed: 2, ...more });
        const { frontier, statistics } = await openCheckpoint(folder);
        assert.deepEqual(new Set(frontierChildren(frontier).map(({ costs }) => costs.latency?.device)), new Set([device]));
        assert.equal(statistics.size, frontierChildren(frontier).length);
      }
    } finally {
      await evaluator.close();
    }
  });

  test('writes the frontier, calibrated statistics and test scores into it; the evaluators agree; again it evaluates nothing', async () => {
    const folder = join(root, 'tiny');
    const before = await makeCheckpoint(tiny, folder);
    const evaluator = threadedEvaluator(dataOf(before), 2);
    const search = (checkpoint: Checkpoint, more: Partial<SearchOptions> = {}): ReturnType<typeof searchSession> =>
      searchSession({
        checkpoint, dataset, evaluator, output: join(root, 'tiny-search'), images: { split: 'validation', images: 30 }, budgets: [{ params: 3000 }],
        evaluations: 10, seed: 1, predictor: true, random: 2, compare: true, test: true, latency: true, write: true, signal: new AbortController().signal, report: () => undefined, ...more,
      });
    try {
      await assert.rejects(search(before, { dataset: { ...dataset, digest: '1'.repeat(64) } }), { code: 'SEARCH_MISMATCH' });
      await assert.rejects(search(before, { images: { split: 'validation', images: 31 } }), { code: 'OPTION_INVALID' });

      const found = await search(before);
      assert.equal(found.mutated, 10);
      const after = await openCheckpoint(folder);
      assert.deepEqual(after.frontier, { family: found.family, front: found.front });
      assert.deepEqual(after.weights.data, before.weights.data);
      const children = new Map([...Object.values(found.family), ...found.front].map((child) => [child.id, child]));
      assert.deepEqual(new Set(Object.keys(after.manifest.scores!.accuracy)), new Set(children.keys()));
      assert.deepEqual(new Set(after.statistics.keys()), new Set(children.keys()));

      // A child's statistics and accuracy are those of one calibration on this thread.
      const { id, architecture, accuracy } = found.family.M;
      const { space, source } = dataOf(after);
      const parsed = parseArchitecture(tiny, architecture);
      const graph = buildGraph(space, parsed);
      assert.deepEqual(after.statistics.get(id), (await calibrate(onnxEngine({ threads: 1 }), graph, after.weights, source)).statistics);
      const local = localEvaluator(onnxEngine({ threads: 1 }), dataOf(after), after.weights);
      assert.deepEqual((await local.evaluate({ architecture: parsed, split: dataset.splits.validation.source, images: 30 })).accuracy, accuracy);

      const again = await search(after);
      assert.equal(again.evaluated, 0);
      const untimed = (report: SearchReport): string => JSON.stringify({ ...report, evaluated: 0, checkpoint: '' }, (name, value: unknown) => (name === 'latency' ? undefined : value));
      assert.equal(untimed(again), untimed(found));
      const { latency } = found.family.M.costs;
      assert.equal(latency!.how, 'measured');
      assert(latency!.value > 1e-6 && latency!.value < 1);
      for (const plot of ['coarse', 'fine', 'compare']) assert(existsSync(join(root, 'tiny-search', `${plot}.svg`)), plot);
    } finally {
      await evaluator.close();
    }
  });
});

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import request from 'supertest';
import type { RunningServer } from '../serve/server.js';
import { parseOptions } from '../serve/options.js';
import { contentOf, frontierChildren, openCheckpoint, writeCheckpoint, type Checkpoint } from '../src/checkpoint/checkpoint.js';
import { costNames, type ChildRecord, type CostName, type Frontier } from '../src/checkpoint/frontier.js';
import { latencyPredictor, operationKey, operationsOf, type LatencyTable } from '../src/cost/latency.js';
import { buildGraph } from '../src/graph/buildGraph.js';
import { key, stream } from '../src/random.js';
import { recordOf } from '../src/search/family.js';
import { biggest, parseArchitecture, smallest } from '../src/space/architecture.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { answerTo, budgets, expected } from './support/budgets.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { temporaryFolder, testServer } from './support/server.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let server: RunningServer;

/** A frontier of random children with made-up accuracies and latencies: many of them are beaten by others, some are equal. */
function frontier(): Frontier {
  const draws = stream(key('budgets'));
  const child = (architecture: Parameters<typeof recordOf>[1]): ChildRecord => {
    const record = recordOf(tiny, architecture, { value: Math.round(20 * draws.uniform()) / 20, split: 'validation', images: 20 });
    return { ...record, costs: { ...record.costs, latency: { value: 0.001 + 0.02 * draws.uniform(), how: 'measured', device: 'here' } } };
  };
  const children = Array.from({ length: 40 }, (_, i) => child(sampleArchitecture(tiny, [i])));
  const [low, high] = [child(smallest(tiny)), child(biggest(tiny))];
  return { family: { smallest: low, S: children[0]!, M: children[1]!, L: children[2]!, XL: children[3]!, biggest: high }, front: children as [ChildRecord, ...ChildRecord[]] };
}

/** A device on which every operation takes a time of its own that says nothing of its size. */
function oddDevice(device: string): LatencyTable {
  const operations = new Map(
    frontierChildren(checkpoint.frontier)
      .flatMap(({ architecture }) => operationsOf(buildGraph(tiny, parseArchitecture(tiny, architecture))))
      .map(({ operation }) => [operationKey(operation), { ...operation, seconds: 1e-4 * stream(key(device), key(operationKey(operation))).uniform() }]),
  );
  return { format: 'bignas-latency-table', version: 1, device, runtime: 'none', threads: 1, overhead: 1e-3, operations: [...operations.values()] };
}

before(async () => {
  folder = await temporaryFolder();
  const content = contentOf(await makeCheckpoint(tiny, join(folder.path, 'checkpoint')));
  await writeCheckpoint(join(folder.path, 'checkpoint'), { ...content, frontier: frontier(), statistics: new Map(), golden: new Map(), int8: new Map() });
  checkpoint = await openCheckpoint(join(folder.path, 'checkpoint'));
  server = await testServer(checkpoint.folder, { latencyTables: [oddDevice('phone'), oddDevice('watch')] });
});
after(async () => {
  await server.stop(1000);
  await folder.remove();
});

const answer = (query: string): Promise<string> => answerTo(server.url, query);

describe('a budget is answered with the best child that fits, by brute force', () => {
  for (const cost of costNames)
    test(cost, async () => {
      const children = frontierChildren(checkpoint.frontier).map((record) => ({ record, cost: record.costs[cost]!.value }));
      const unit: Record<CostName, string> = { flops: '', params: '', bytes: 'B', memory: '', latency: 's' };
      for (const limit of budgets(children.map((child) => child.cost))) {
        const text = cost === 'latency' ? limit.toFixed(15) : String(limit);
        assert.equal(await answer(`${cost}=${text}${unit[cost]}`), expected(children, Number(text)), `${cost}=${text}`);
      }
    });

  test('latency on a device that the server has a table of, and on one that the client brings', async () => {
    for (const device of ['phone', 'watch']) {
      const predict = latencyPredictor(oddDevice(device));
      const children = frontierChildren(checkpoint.frontier).map((record) => ({ record, cost: predict(buildGraph(tiny, parseArchitecture(tiny, record.architecture))).seconds }));
      for (const limit of budgets(children.map(({ cost }) => cost)).slice(0, 20))
        assert.equal(await answer(`latency=${limit.toFixed(15)}s&device=${device}`), expected(children, Number(limit.toFixed(15))));
      const limit = children.map(({ cost }) => cost).sort((a, b) => a - b)[20]!;
      const brought = await request(server.url).post(`/slice?latency=${(limit * 1e3).toFixed(12)}ms`).send({ ...oddDevice(device), device: 'my own' }).expect(200);
      assert.equal(/arch=([^&]+)/.exec(brought.get('Content-Location')!)![1], expected(children, Number((limit * 1e3).toFixed(12)) * 1e-3));
    }
  });

  test('several bounds hold together', async () => {
    const { costs: { flops, params } } = checkpoint.frontier.front[5]!;
    const children = frontierChildren(checkpoint.frontier).filter(({ costs }) => costs.flops.value <= flops.value).map((record) => ({ record, cost: record.costs.params.value }));
    assert.equal(await answer(`flops=${flops.value}&params=${params.value}`), expected(children, params.value));
  });
});

describe('latencies that are not there', () => {
  const codeOf = (response: request.Response): unknown => (response.body as { code?: unknown }).code;

  test('an unknown device, a table that is none, a body without a budget', async () => {
    const unknown = await request(server.url).get('/slice?latency=20ms&device=toaster').expect(400);
    assert.deepEqual((unknown.body as { legal: unknown }).legal, ['phone', 'watch']);
    for (const body of ['no json', '{}', '[]']) assert.equal(codeOf(await request(server.url).post('/slice?latency=20ms').send(body).expect(400)), 'LATENCY_TABLE_INVALID');
    const { operations, ...table } = oddDevice('phone');
    const response = await request(server.url).post('/slice?latency=20ms').send({ ...table, operations: operations.filter(({ op }) => op !== 'dense') }).expect(400);
    assert.match((response.body as { detail: string }).detail, /has no dense/);
    assert.equal(codeOf(await request(server.url).post('/slice?flops=1M').send(oddDevice('phone')).expect(400)), 'PARAMETER_INVALID');
    assert.equal(codeOf(await request(server.url).get('/slice?latency=20').expect(400)), 'BUDGET_MALFORMED');
  });

  test('a checkpoint without latencies says how to have them; one table is then meant', async () => {
    const plain = await makeCheckpoint(tiny, join(folder.path, 'plain'));
    const [without, withOne] = [await testServer(plain.folder), await testServer(plain.folder, { latencyTables: [oddDevice('phone')] })];
    try {
      const response = await request(without.url).get('/slice?latency=20ms').expect(422);
      assert.equal(codeOf(response), 'COST_UNKNOWN');
      await request(withOne.url).head('/slice?latency=1s').expect(200);
    } finally {
      await Promise.all([without.stop(1000), withOne.stop(1000)]);
    }
  });

  test('a table is read when the server starts', async () => {
    const path = join(folder.path, 'phone.json');
    await writeFile(path, JSON.stringify(oddDevice('phone')));
    assert.deepEqual(parseOptions({ latencyTable: [path] }, 'x', {}).latencyTables, [oddDevice('phone')]);
    await writeFile(path, '{"format":"bignas-latency-table"}');
    assert.throws(() => parseOptions({ latencyTable: [path] }, 'x', {}), { code: 'OPTION_INVALID', message: /phone\.json.* is none/s });
  });
});

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { frontierChildren, openCheckpoint } from '../../src/checkpoint/checkpoint.js';
import { costNames, type CostName } from '../../src/checkpoint/frontier.js';
import { latencyError, makeLatencyTable } from '../../src/onnx/latencyTable.js';
import { paretoFront } from '../../src/search/select.js';
import type { SearchReport } from '../../src/search/session.js';
import { cifar10 } from '../../src/space/presets/cifar10.js';
import { answerTo, budgets, expected } from '../support/budgets.js';
import { testServer } from '../support/server.js';

const cli = fileURLToPath(new URL('../../cli/bignas-search.js', import.meta.url));
const root = await mkdtemp(join(tmpdir(), 'bignas-search-'));
after(() => rm(root, { recursive: true, force: true }));

/** Runs a search of the copy to its end, or kills it after so many lines. @returns seconds */
async function search(lines = Infinity): Promise<number> {
  const started = performance.now();
  const args = ['--checkpoint', join(root, 'checkpoint'), '--output', join(root, 'search'), '--random', '20', '--compare', '--latency'];
  const run = spawn(process.execPath, [cli, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(run, 'exit');
  let seen = 0;
  for await (const line of createInterface({ input: run.stdout })) {
    if (!/^(coarse|fine|earlier|random|width|depth|resolution|compound) /.test(line)) console.log(line);
    if (++seen === lines) run.kill('SIGKILL');
  }
  assert.deepEqual(await ended, lines === Infinity ? [0, null] : [null, 'SIGKILL']);
  return (performance.now() - started) / 1000;
}

test('the shipped checkpoint is searched: killed twice, nothing is evaluated twice; what is found beats random children', { timeout: 7_200_000 }, async (t) => {
  await cp(fileURLToPath(new URL('../../../checkpoints/cifar10', import.meta.url)), join(root, 'checkpoint'), { recursive: true });
  let seconds = await search(60);
  seconds += await search(300);
  seconds += await search();
  t.diagnostic(`${(seconds / 60).toFixed(1)} minutes, random children, scalings and test scores included`);

  const lines = (await readFile(join(root, 'search', 'evaluations.jsonl'), 'utf8')).trimEnd().split('\n').slice(1).map((line) => JSON.parse(line) as { id: string; accuracy: { split: string } });
  assert.equal(new Set(lines.map(({ id, accuracy }) => `${id} ${accuracy.split}`)).size, lines.length);

  const report = JSON.parse(await readFile(join(root, 'search', 'search.json'), 'utf8')) as SearchReport;
  for (const { name, margin, noise } of report.random!) {
    t.diagnostic(`${name}: ${(100 * margin).toFixed(2)} points over the median random child, standard error ${(100 * noise).toFixed(2)}`);
    assert(margin > noise, name);
  }
  const { crossValidated, random } = report.predictor;
  t.diagnostic(`Kendall's τ ${random!.kendall.toFixed(2)} on ${random!.children} random children that were not fitted, ${crossValidated.kendall.toFixed(2)} cross-validated`);
  assert(random!.children >= 50 && random!.kendall > 0);

  const checkpoint = await openCheckpoint(join(root, 'checkpoint'));
  const children = frontierChildren(checkpoint.frontier);
  for (const { id } of children) assert(checkpoint.statistics.has(id));
  for (const cost of costNames) {
    const front = paretoFront(checkpoint.frontier.front, cost);
    front.slice(1).forEach((child, i) => assert(child.accuracy!.value > front[i]!.accuracy!.value && child.costs[cost]!.value > front[i]!.costs[cost]!.value));
  }
  const server = await testServer(checkpoint.folder);
  try {
    const unit: Record<CostName, string> = { flops: '', params: '', bytes: 'B', memory: '', latency: 's' };
    for (const cost of costNames) {
      const costs = children.map((record) => ({ record, cost: record.costs[cost]!.value }));
      for (const limit of budgets(costs.map((child) => child.cost)).slice(0, 50)) {
        const text = cost === 'latency' ? limit.toFixed(15) : String(limit);
        assert.equal(await answerTo(server.url, `${cost}=${text}${unit[cost]}`), expected(costs, Number(text)), `${cost}=${text}`);
      }
    }
  } finally {
    await server.stop(5000);
  }
});

test('latency is predicted to 10 %, on 100 children that the table was not made from', { timeout: 1_800_000 }, async (t) => {
  const table = await makeLatencyTable(cifar10, { device: 'here', children: 80, seed: 0, threads: 1 });
  const { children, median, p90 } = await latencyError(cifar10, table, { count: 100, seed: 0, threads: 1 });
  t.diagnostic(`${children} children: off by ${(100 * median).toFixed(1)} % in the median, nine of ten by less than ${(100 * p90).toFixed(1)} %`);
  assert(median < 0.1);
});

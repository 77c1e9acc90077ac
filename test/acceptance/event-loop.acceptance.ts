import assert from 'node:assert/strict';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { after, before, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import type { RunningServer } from '../../serve/server.js';
import { frontierChildren, type Checkpoint } from '../../src/checkpoint/checkpoint.js';
import { flops } from '../../src/cost/cost.js';
import { buildGraph } from '../../src/graph/buildGraph.js';
import { bestOf } from '../../src/search/select.js';
import { formatArchitecture } from '../../src/space/architecture.js';
import { imagenet } from '../../src/space/presets/imagenet.js';
import { sampleArchitecture } from '../../src/space/sample.js';
import { makeCheckpoint } from '../support/checkpoint.js';
import type { ClientData, ClientReport } from '../support/clientThread.js';
import { jpeg } from '../support/images.js';
import { temporaryFolder, testServer } from '../support/server.js';

/** Milliseconds that the main thread may be late, at p99 (the bound). */
const MOST_LAG_MS = 50;
const CHILDREN = 6;
const MONITOR_MS = 5;

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let server: RunningServer;

before(async () => {
  folder = await temporaryFolder();
  checkpoint = await makeCheckpoint(imagenet, folder.path, { calibrated: [], crops: 64 });
  server = await testServer(folder.path, { threads: availableParallelism(), cacheBytes: 2 ** 30 });
});
after(async () => {
  await server.stop(1000);
  await folder.remove();
});

/** Different children within a tenth of 600 MFLOPs. */
function near600M(count: number): string[] {
  const found: string[] = [];
  for (let i = 0; found.length < count; i++) {
    const architecture = sampleArchitecture(imagenet, [600, i]);
    if (Math.abs(flops(buildGraph(imagenet, architecture)) / 600e6 - 1) < 0.1) found.push(formatArchitecture(architecture));
  }
  return found;
}

test('the main thread is on time while children near 600M are built, calibrated and run', async (t) => {
  const photo = await jpeg(800, 600);
  const architectures = near600M(CHILDREN);
  const lag = monitorEventLoopDelay({ resolution: MONITOR_MS });
  const started = performance.now();
  lag.enable();
  const client = new Worker(new URL('../support/clientThread.js', import.meta.url), {
    workerData: { url: server.url, architectures, photo: new Uint8Array(photo), predictions: 8 } satisfies ClientData,
  });
  const [{ cold, warm, bundleBytes, failures }] = (await once(client, 'message')) as [ClientReport];
  lag.disable();
  const late = (percentile: number): number => Math.max(0, lag.percentile(percentile) / 1e6 - MONITOR_MS);
  const middle = (times: number[]): string => times.sort((a, b) => a - b)[times.length >> 1]!.toFixed(1);
  t.diagnostic(
    `${CHILDREN} children in ${((performance.now() - started) / 1000).toFixed(1)} s; first answer ${middle(cold)} ms, later ${middle(warm)} ms (medians); ` +
      `event loop late by ${late(50).toFixed(1)} ms at p50, ${late(99).toFixed(1)} at p99, ${late(100).toFixed(1)} at most`,
  );
  assert.deepEqual(failures, []);
  assert.ok(bundleBytes.every((bytes) => bytes > 10e6));
  assert.ok(late(99) < MOST_LAG_MS, `late by ${late(99)} ms at p99`);
});

test('a calibration holds up no prediction of a child that is there', async (t) => {
  const photo = new Uint8Array(await jpeg(320, 320));
  const predict = async (architecture: string): Promise<void> => {
    const response = await fetch(`${server.url}/predict?arch=${architecture}`, { method: 'POST', body: photo });
    assert.equal(response.status, 200, await response.text());
  };
  const [warm, cold] = near600M(CHILDREN + 1).slice(-2) as [string, string];
  await predict(warm);
  const calibrated = new AbortController();
  const calibration = predict(cold).then(() => calibrated.abort());
  const times: number[] = [];
  for (;;) {
    const sent = performance.now();
    await predict(warm);
    if (calibrated.signal.aborted) break;
    times.push(performance.now() - sent);
  }
  await calibration;
  t.diagnostic(`${times.length} predictions while another child was calibrated, the slowest in ${Math.max(...times).toFixed(0)} ms`);
  assert.ok(times.length >= 5);
});

test('GET /slice?flops=600M gives the most accurate child that fits', async () => {
  const expected = bestOf(frontierChildren(checkpoint.frontier), { flops: 600e6 })!;
  const others = checkpoint.frontier.front.filter(({ costs }) => costs.flops.value > 600e6);
  assert.ok(others.length > 0, 'the bound must bind');
  const response = await fetch(`${server.url}/slice?flops=600M`);
  await response.arrayBuffer();
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('content-location'), `/slice?arch=${expected.architecture}&format=onnx`);
});

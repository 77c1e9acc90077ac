/** What goes wrong around a server: nothing is lost, and it stays up. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, rename, rm, symlink, truncate } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatArchitecture } from '../../src/space/architecture.js';
import { cifar10 } from '../../src/space/presets/cifar10.js';
import { sampleArchitecture } from '../../src/space/sample.js';
import { makeCheckpoint } from '../support/checkpoint.js';
import { png } from '../support/images.js';
import { parsePrometheus, valueOf } from '../support/prometheus.js';
import { temporaryFolder } from '../support/server.js';
import { addressOf, startProcess, type ProcessOptions, type ServerProcess } from '../support/serverProcess.js';

const KILLS = 30;
const RELOADS = 100;
const CONNECTIONS = 10_000;

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let photo: Uint8Array<ArrayBuffer>;
const started: ChildProcess[] = [];
const place = (name: string): string => join(folder.path, name);

before(async () => {
  folder = await temporaryFolder();
  photo = new Uint8Array(await png(40, 40));
  for (const seed of [1, 2]) await makeCheckpoint(cifar10, place(`checkpoint-${seed}`), { seed, crops: 64 });
});
after(async () => {
  for (const child of started) child.kill('SIGKILL');
  await folder.remove();
});

function start(args: readonly string[], options: Partial<ProcessOptions> = {}): ServerProcess {
  const server = startProcess(['--port', '0', '--threads', '1', '--no-warm', ...args], { cache: place('cache'), ...options });
  started.push(server.child);
  return server;
}

async function stopped({ child, ended, output }: ServerProcess): Promise<void> {
  child.kill('SIGTERM');
  assert.equal(await ended, 0, output.err);
}

async function predict(url: string, arch: string): Promise<{ status: number; text: string; predictions: string }> {
  const answer = await fetch(`${url}/predict?arch=${arch}`, { method: 'POST', body: photo, headers: { 'Content-Type': 'image/png' } });
  const text = await answer.text();
  return { status: answer.status, text, predictions: JSON.stringify((JSON.parse(text) as { predictions?: unknown }).predictions) };
}

const metric = async (url: string, name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> => valueOf(parsePrometheus(await (await fetch(`${url}/metrics`)).text()), name, labels);
const own = (seed: number): string => formatArchitecture(sampleArchitecture(cifar10, [5150, seed]));

test(`${KILLS} SIGKILLs, during calibrations and writes of the cache: the next server answers the same, and finds whole files`, async (t) => {
  const checkpoint = ['--checkpoint', place('checkpoint-1')];
  const reference = new Map<string, string>();
  const clean = start([...checkpoint, '--no-cache-folder']);
  const url = await addressOf(clean);
  for (let i = 0; i < 8; i++) reference.set(own(i), (await predict(url, own(i))).predictions);
  await stopped(clean);

  for (let kill = 0; kill < KILLS; kill++) {
    const server = start(checkpoint);
    const address = await addressOf(server);
    const asked = [...reference.keys()].map((arch) => predict(address, arch).catch(() => undefined));
    await sleep(kill * 25); // from before the first calibration to after the last
    server.child.kill('SIGKILL');
    assert.equal(await server.ended, 'SIGKILL');
    for (const answer of await Promise.all(asked)) if (answer?.status === 200) assert.ok([...reference.values()].includes(answer.predictions));
  }
  const server = start(checkpoint);
  const address = await addressOf(server);
  for (const [arch, predictions] of reference) assert.equal((await predict(address, arch)).predictions, predictions);
  assert.doesNotMatch(server.output.err, /could not be used/, 'no file was damaged');
  t.diagnostic(`of 8 children ${await metric(address, 'bignas_calibrations_total', { source: 'disk' })} were found on disk`);
  await stopped(server);
});

test('a disk that is full: predictions go on, a bundle is refused, nothing half-written stays', { skip: process.platform === 'win32' }, async () => {
  const cache = place('full');
  const server = start(['--checkpoint', place('checkpoint-1')], { cache, largestFile: 1024 });
  const url = await addressOf(server);
  assert.equal((await predict(url, own(1))).status, 200);
  const slice = await fetch(`${url}/slice?arch=M`);
  assert.equal(slice.status, 507);
  assert.equal(((await slice.json()) as { code: string }).code, 'STORAGE_FULL');
  assert.deepEqual(await readdir(join(cache, 'serve', 'statistics')).catch(() => []), []);
  assert.equal((await predict(url, own(2))).status, 200);
  assert.equal((await fetch(`${url}/v2/health/ready`)).status, 200);
  await stopped(server);
});

test(`${RELOADS} reloads under load, to another checkpoint, to a corrupt one and back: no request fails, memory does not grow`, async (t) => {
  const link = place('served');
  const point = async (to: string): Promise<void> => {
    await symlink(place(to), `${link}.new`);
    await rename(`${link}.new`, link);
  };
  await makeCheckpoint(cifar10, place('corrupt'), { seed: 3, crops: 64 });
  await truncate(join(place('corrupt'), 'weights.safetensors'), 100_000);
  await point('checkpoint-1');
  const server = start(['--checkpoint', link]);
  const url = await addressOf(server);
  const answers = new Map<string, Set<string>>();
  const failures: string[] = [];
  let loading = true;
  const clients = ['M', 'S', own(1), own(2)].map(async (arch) => {
    while (loading) {
      const { status, text, predictions } = await predict(url, arch);
      if (status !== 200) failures.push(text);
      answers.set(arch, (answers.get(arch) ?? new Set()).add(predictions));
    }
  });
  const resident: number[] = [];
  for (let i = 1; i <= RELOADS; i++) {
    const corrupt = i % 10 === 0;
    await point(corrupt ? 'corrupt' : `checkpoint-${(i % 2) + 1}`);
    const before = server.output.err.length;
    server.child.kill('SIGHUP');
    while (!/"msg":"(?:reloaded|the new checkpoint was refused)/.test(server.output.err.slice(before))) await sleep(5);
    resident.push(Number(/VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${server.child.pid}/status`, 'utf8'))![1]) / 1024);
  }
  loading = false;
  await Promise.all(clients);
  assert.deepEqual(failures, []);
  for (const [arch, different] of answers) assert.equal(different.size, 2, `${arch}: one answer of each checkpoint`);
  assert.equal(await metric(url, 'bignas_reloads_total', { result: 'refused' }), RELOADS / 10);
  const mean = (part: readonly number[]): number => part.reduce((sum, value) => sum + value, 0) / part.length;
  const [early, late] = [mean(resident.slice(20, 40)), mean(resident.slice(-20))];
  t.diagnostic(`resident: ${early.toFixed(0)} MiB after 20 to 40 reloads, ${late.toFixed(0)} MiB after the last 20`);
  assert.ok(late < 1.1 * early, `${late} MiB after ${early} MiB`);
  await stopped(server);
  await rm(link);
});

test('clients that send a byte a second are sent away, and hold nobody up', async () => {
  const server = start(['--checkpoint', place('checkpoint-1')]);
  const url = await addressOf(server);
  const slow = async (text: string, first: number): Promise<{ answer: string; seconds: number }> => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    await once(socket, 'connect');
    const began = performance.now();
    let answer = '';
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString())).on('error', () => undefined);
    const closed = once(socket, 'close');
    socket.write(text.slice(0, first));
    let at = first;
    const dribble = setInterval(() => socket.write(text[at++] ?? 'x'), 1000);
    await closed;
    clearInterval(dribble);
    return { answer, seconds: (performance.now() - began) / 1000 };
  };
  const head = 'POST /predict?arch=M HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n';
  const [inHead, inBody] = await Promise.all([
    slow(head, 1),
    slow(head, head.length),
    (async () => {
      for (let i = 0; i < 40; i++) {
        assert.equal((await predict(url, 'M')).status, 200);
        await sleep(1000);
      }
    })(),
  ]);
  assert.match(inHead.answer, /^HTTP\/1\.1 408 .*REQUEST_TOO_SLOW/s);
  assert.match(inBody.answer, /^HTTP\/1\.1 408 .*REQUEST_TOO_SLOW/s);
  assert.ok(inHead.seconds < 30 && inBody.seconds < 80, `${inHead.seconds} s, ${inBody.seconds} s`);
  await stopped(server);
});

test(`${CONNECTIONS} connections, opened and dropped`, async (t) => {
  const server = start(['--checkpoint', place('checkpoint-1')]);
  const url = await addressOf(server);
  const port = Number(new URL(url).port);
  const files = async (): Promise<number> => (await readdir(`/proc/${server.child.pid}/fd`)).length;
  assert.equal((await predict(url, 'M')).status, 200);
  const before = await files();
  for (let opened = 0; opened < CONNECTIONS; opened += 500) {
    const sockets = await Promise.all(
      Array.from({ length: 500 }, async (_, i) => {
        const socket = connect(port, '127.0.0.1').on('error', () => undefined);
        await once(socket, 'connect');
        if (i % 3 === 1) socket.write('POST /predict?arch=M HTTP/1.1\r\n');
        if (i % 3 === 2) socket.write('POST /predict?arch=M HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc');
        return socket;
      }),
    );
    assert.equal((await predict(url, 'M')).status, 200);
    for (const [i, socket] of sockets.entries()) {
      if (i % 2) socket.destroy();
      else socket.resetAndDestroy();
    }
  }
  for (let tries = 0; (await files()) > before + 20; tries++) {
    assert.ok(tries < 100, `${await files()} files are open, ${before} were`);
    await sleep(100);
  }
  t.diagnostic(`open files: ${before} before, ${await files()} after`);
  assert.equal((await predict(url, 'M')).status, 200);
  assert.equal(await metric(url, 'bignas_http_requests_in_flight'), 0);
  await stopped(server);
});

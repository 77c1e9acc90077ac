import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import request from 'supertest';
import { MOST_REQUESTS } from '../serve/app.js';
import { clientErrors } from '../serve/clientError.js';
import type { ServerOptions } from '../serve/options.js';
import type { RunningServer } from '../serve/server.js';
import { describeChild, type ChildDescription } from '../src/bundle/child.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import type { ErrorCode } from '../src/errors.js';
import { parseArchitecture } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { blankPng, png } from './support/images.js';
import { temporaryFolder, testServer } from './support/server.js';
import { defaultBundle } from '../src/bundle/formats.js';

/** What clients do that are slow, gone, greedy or broken: nobody else may notice. */

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let photo: Buffer;

before(async () => {
  folder = await temporaryFolder();
  checkpoint = await makeCheckpoint(cifar10, folder.path);
  photo = await png(40, 32);
});
after(() => folder.remove());

async function withServer(options: Partial<ServerOptions>, work: (server: RunningServer) => Promise<void>): Promise<void> {
  const server = await testServer(folder.path, options);
  try {
    await work(server);
  } finally {
    await server.stop(500);
  }
}

const childNamed = (name: 'S' | 'M' | 'biggest'): ChildDescription =>
  describeChild(checkpoint, parseArchitecture(cifar10, checkpoint.frontier.family[name].architecture));

/** Waits until `read` gives the value. */
async function becomes(value: number, read: () => number | Promise<number>): Promise<void> {
  for (let i = 0; i < 100 && (await read()) !== value; i++) await sleep(50);
  assert.equal(await read(), value);
}

/** A connection on which `written` was sent. It reads nothing until it is told to. */
async function connection({ url }: RunningServer, written: string | Buffer): Promise<Socket> {
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.write(written, resolve));
  return socket;
}

const post = ({ url }: RunningServer, body: Buffer | string, type = 'image/png') => request(url).post('/predict?arch=S').set('Content-Type', type).send(body);
const codeOf = ({ body }: request.Response): ErrorCode => (body as { code: ErrorCode }).code;
const getBiggest = 'GET /slice?arch=biggest HTTP/1.1\r\nHost: x\r\n\r\n';

describe('connections', () => {
  test('requests sent ahead on a connection that is then reset leave nothing behind', () =>
    // No room in the cache: the bundles' bytes are those of bundles that somebody still uses.
    withServer({ cacheBytes: 1 }, async (server) => {
      const sockets = await Promise.all(Array.from({ length: 10 }, () => connection(server, getBiggest.repeat(6))));
      await sleep(300);
      for (const socket of sockets) socket.resetAndDestroy();
      const { admission, bundles } = server.services;
      await becomes(0, () => admission.count);
      await becomes(0, () => bundles.bytes);
    }));

  test('requests sent ahead are answered in order', () =>
    withServer({}, async (server) => {
      const paths = ['/space', '/nope', '/v2/health/live'];
      const written = paths.map((path, i) => `GET ${path} HTTP/1.1\r\nHost: x\r\n${i === 2 ? 'Connection: close\r\n' : ''}\r\n`).join('');
      const answers = await text(await connection(server, written));
      assert.deepEqual(answers.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 404', 'HTTP/1.1 200']);
    }));

  test('a connection ends with its last answer, also of a client that does not listen', () =>
    withServer({}, async (server) => {
      const socket = await connection(server, '');
      const ask = 'GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n';
      let answers = '';
      const ended = new Promise((resolve) => socket.once('close', resolve));
      socket.on('data', (chunk: Buffer) => {
        const some = chunk.toString();
        answers += some;
        // One at a time: each answer has one such line.
        if (some.includes('HTTP/1.1 503')) socket.destroy();
        else socket.write(ask.repeat(some.split('HTTP/1.1 ').length - 1));
      });
      socket.write(ask);
      await ended;
      assert.deepEqual([answers.match(/HTTP\/1\.1 200/g)?.length, answers.match(/^Connection: close/gm)?.length], [MOST_REQUESTS, 1]);
    }));

  test('a stalled download holds no place, and ends', () =>
    withServer({ queue: 1, stalledMs: 400 }, async (server) => {
      const bytes = (await request(server.url).get('/slice?arch=biggest').expect(200)).get('Content-Length');
      // More than the sockets' buffers hold.
      const socket = await connection(server, getBiggest.repeat(Math.ceil(2 ** 26 / Number(bytes))));
      await sleep(200);
      assert.equal(server.services.admission.count, 0);
      await request(server.url).get('/slice?arch=S').expect(200);
      await becomes(1, async () => {
        const { values } = await server.services.metrics.requestSeconds.get();
        return values.find(({ metricName, labels }) => metricName?.endsWith('_count') && labels.status === '499')?.value ?? 0;
      });
      socket.destroy();
    }));

  test('a slow body holds no place; the bytes of all are bounded', () =>
    withServer({ queue: 1, maxBody: 64 * 1024 }, async (server) => {
      const head = 'POST /predict?arch=S HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 60000\r\n\r\n';
      const slow = await Promise.all(Array.from({ length: 8 }, () => connection(server, `${head}abc`)));
      await post(server, photo).expect(200);
      slow[0]!.write(Buffer.alloc(50_000));
      await sleep(100);
      const refused = await post(server, Buffer.alloc(50_000));
      assert.deepEqual([refused.status, codeOf(refused)], [503, 'OVERLOADED']);
      for (const socket of slow) socket.destroy();
      await sleep(100);
      assert.equal(codeOf(await post(server, Buffer.alloc(50_000))), 'IMAGE_UNREADABLE', 'what was cut short gave its room back');
      await post(server, photo).expect(200);
    }));

  test("what Node's parser refuses is a problem document", () =>
    withServer({}, async (server) => {
      for (const [written, status, code] of [
        ['no HTTP at all\r\n\r\n', 400, 'REQUEST_MALFORMED'],
        [`GET / HTTP/1.1\r\nHost: x\r\nCookie: ${'x'.repeat(20_000)}\r\n\r\n`, 431, 'REQUEST_HEAD_TOO_LARGE'],
      ] as const)
        assertProblem(await text(await connection(server, written)), status, code);
      const late = new PassThrough();
      clientErrors(pino({ level: 'silent' }))(Object.assign(new Error('late'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }), late);
      assertProblem(await text(late), 408, 'REQUEST_TOO_SLOW');
    }));
});

function assertProblem(answer: string, status: number, code: ErrorCode): void {
  const [head, body] = answer.split('\r\n\r\n') as [string, string];
  assert.match(head, new RegExp(`^HTTP/1\\.1 ${status} .*application/problem\\+json`, 's'));
  assert.match(head, new RegExp(`Content-Length: ${Buffer.byteLength(body)}\r\n`));
  const document = JSON.parse(body) as { status: number; code: string };
  assert.deepEqual([document.status, document.code], [status, code]);
}

describe('bundles', () => {
  test('a bundle and its successor have one file, which is there while either is in use', () =>
    withServer({ cacheBytes: 1 }, async ({ services: { bundles, inService } }) => {
      const never = new AbortController().signal;
      const asked = { child: childNamed('S'), options: defaultBundle, have: undefined, nested: true };
      await bundles.use(inService.current, asked, never, async (first) => {
        await bundles.use(inService.current, asked, never, (second) => {
          assert.equal(second.sha256, first.sha256);
          assert.equal(second.file, first.file);
          return Promise.resolve();
        });
        assert.ok(existsSync(join(bundles.folder, first.file)), 'it is in use');
      });
    }));

  test('a cleaned temporary folder costs a build, no more', () =>
    withServer({}, async (server) => {
      const slice = async (name: string) => (await request(server.url).get(`/slice?arch=${name}`).expect(200)).get('ETag');
      const etag = await slice('S');
      await rm(server.services.bundles.folder, { recursive: true });
      assert.deepEqual(await Promise.all([slice('S'), slice('S')]), [etag, etag]);
      await slice('M');
    }));

  test('the folder of a server that was killed is removed by the next; that of a living one is not', async () => {
    const folderOf = (pid: number): string => join(tmpdir(), `bignas-bundles-${pid}-test`);
    const [dead, living] = [folderOf(spawnSync(process.execPath, ['-e', '']).pid), folderOf(process.pid)];
    await Promise.all([dead, living].map((path) => mkdir(path)));
    try {
      await withServer({}, () => {
        assert.deepEqual([existsSync(dead), existsSync(living)], [false, true]);
        return Promise.resolve();
      });
    } finally {
      await rm(living, { recursive: true });
      await rm(dead, { recursive: true, force: true });
    }
  });

  test('a condition that fails is 412, without the headers of the bundle', () =>
    withServer({}, async (server) => {
      const get = (name: string, value: string) => request(server.url).get('/slice?arch=S').set(name, value);
      const etag = (await get('If-Match', '*').expect(200)).get('ETag')!;
      await get('If-Match', etag).expect(200);
      for (const [name, value, status, code] of [
        ['If-Match', '"other"', 412, 'PRECONDITION_FAILED'],
        ['If-Unmodified-Since', 'Thu, 01 Jan 1970 00:00:00 GMT', 412, 'PRECONDITION_FAILED'],
        ['Range', 'bytes=999999999-', 416, 'RANGE_INVALID'],
      ] as const) {
        const response = await get(name, value).expect(status).expect('Content-Type', /^application\/problem\+json/);
        assert.equal(codeOf(response), code);
        for (const header of ['ETag', 'Content-Disposition', 'Content-Location', 'Cache-Control']) assert.equal(response.get(header), undefined, header);
      }
    }));
});

describe('bodies', () => {
  test('the pixels of a request count together', () =>
    withServer({ maxPixels: 5000 }, async (server) => {
      const form = (...images: Buffer[]) => images.reduce((sent, image) => sent.attach('a', image, 'a.png'), request(server.url).post('/predict?arch=S'));
      await form(blankPng(50, 50), blankPng(50, 50)).expect(200);
      const response = await form(blankPng(50, 50), blankPng(50, 40), blankPng(50, 11)).expect(413);
      const { code, detail, image, maxPixels } = response.body as { code: string; detail: string; image: number; maxPixels: number };
      assert.deepEqual([code, image, maxPixels], ['IMAGE_TOO_LARGE', 2, 5000]);
      assert.match(detail, /at most 500 pixels.*5000 pixels together/);
    }));

  test('an invalid JSON body is answered shortly, whatever its length', () =>
    withServer({}, async (server) => {
      for (const body of [
        { images: Array.from({ length: 100_000 }, () => 1) },
        { images: [Array.from({ length: 100_000 }, () => 1)] },
        { images: 'x'.repeat(200_000) },
        { images: [], ['x'.repeat(200_000)]: 1 },
        Array.from({ length: 100_000 }, () => 'x'),
      ]) {
        const { status, text } = await post(server, JSON.stringify(body), 'application/json');
        assert.ok(status === 400 || status === 413);
        assert.ok(text.length < 1000, `${text.length} characters`);
      }
      const second = await post(server, JSON.stringify({ images: [photo.toString('base64'), 7] }), 'application/json');
      assert.deepEqual([codeOf(second), (second.body as { image: number }).image], ['BODY_MALFORMED', 1]);
    }));

  test('too many fields of a form are an error: a file behind them would be lost', () =>
    withServer({}, async (server) => {
      const form = (fields: number) => {
        const sent = request(server.url).post('/predict?arch=S').attach('a', photo, 'a.png');
        for (let i = 0; i < fields; i++) sent.field(`f${i}`, 'x');
        return sent.attach('b', photo, 'b.png');
      };
      const { predictions } = (await form(32).expect(200)).body as { predictions: unknown[] };
      assert.equal(predictions.length, 2);
      for (const fields of [33, 70]) {
        const response = await form(fields).expect(400);
        assert.equal(codeOf(response), 'BODY_MALFORMED');
        assert.match((response.body as { detail: string }).detail, /more than 32 fields/);
      }
    }));
});

test('children spread over the run workers of a quiet server', (t) =>
  withServer({ workers: 2 }, async (server) => {
    const calls = server.services.run.map((thread) => t.mock.method(thread, 'call'));
    for (const name of ['S', 'M', 'L', 'XL']) await request(server.url).post(`/predict?arch=${name}`).set('Content-Type', 'image/png').send(photo).expect(200);
    const loads = calls.map(({ mock }) => mock.calls.filter(({ arguments: [method] }) => method === 'load').length);
    assert.deepEqual(loads, [2, 2]);
  }));

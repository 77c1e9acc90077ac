import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Validator } from '@seriousme/openapi-schema-validator';
import request from 'supertest';
import type { SecurityOptions } from '../serve/middleware/security.js';
import { parseOptions } from '../serve/options.js';
import type { RunningServer } from '../serve/server.js';
import type { Checkpoint } from '../src/checkpoint/checkpoint.js';
import type { LatencyTable } from '../src/cost/latency.js';
import { formatArchitecture } from '../src/space/architecture.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { png } from './support/images.js';
import { parsePrometheus, valueOf } from './support/prometheus.js';
import { temporaryFolder, testServer } from './support/server.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let checkpoint: Checkpoint;
let photo: Buffer;

before(async () => {
  folder = await temporaryFolder();
  checkpoint = await makeCheckpoint(tiny, join(folder.path, 'checkpoint'));
  photo = await png(20, 20);
});
after(() => folder.remove());

/** An architecture that the checkpoint has no statistics of. */
const own = (seed: number): string => formatArchitecture(sampleArchitecture(tiny, [99, seed]));

async function withServer(options: Parameters<typeof testServer>[1], work: (server: RunningServer) => Promise<void>, path = checkpoint.folder): Promise<void> {
  const server = await testServer(path, options);
  try {
    await work(server);
  } finally {
    await server.stop(1000);
  }
}

const predict = (server: RunningServer, query = '') => request(server.url).post(`/predict${query}`).set('Content-Type', 'image/png').send(photo);

async function metric(server: RunningServer, name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
  return valueOf(parsePrometheus((await request(server.url).get('/metrics').expect(200)).text), name, labels);
}

describe('who may do what', () => {
  const open: SecurityOptions = { tokens: { predict: [], slice: [], admin: [] }, rateLimit: undefined, corsOrigins: [], trustedProxies: 0 };
  const token = { predict: 'p'.repeat(20), other: 'q'.repeat(20), slice: 's'.repeat(20), admin: 'a'.repeat(20) };

  test('each scope has its own tokens; a route of none is open', () =>
    withServer({ security: { ...open, tokens: { predict: [token.other, token.predict], slice: [token.slice], admin: [token.admin] } } }, async (server) => {
      const bearer = (name: keyof typeof token) => ({ Authorization: `Bearer ${token[name]}` });
      const none = await predict(server).expect(401);
      assert.equal((none.body as { code: string }).code, 'UNAUTHORISED');
      assert.match(none.get('WWW-Authenticate')!, /^Bearer realm="bignas"$/);
      assert.match((await predict(server).set('Authorization', 'Bearer nobody').expect(401)).get('WWW-Authenticate')!, /invalid_token/);
      await predict(server).set('Authorization', `Basic ${token.predict}`).expect(401);
      await predict(server).set(bearer('slice')).expect(403);
      await predict(server).set(bearer('predict')).expect(200);
      await predict(server).set(bearer('other')).expect(200);
      await request(server.url).post('/v2/models/M/infer').send({}).expect(401);
      await request(server.url).post('/v1/models/M:predict').send({}).expect(401);
      await request(server.url).get('/slice?arch=S').set(bearer('predict')).expect(403);
      await request(server.url).get('/slice?arch=S').set(bearer('slice')).expect(200);
      await request(server.url).post('/admin/reload').set(bearer('slice')).expect(403);
      await request(server.url).post('/admin/reload').set(bearer('admin')).expect(200);
      for (const path of ['/', '/archs', '/space', '/metrics', '/v2/health/ready', '/v2/models/M', '/openapi.json']) await request(server.url).get(path).expect(200);
    }));

  test('without tokens all is open but administration', () =>
    withServer({}, async (server) => {
      await predict(server).expect(200);
      await request(server.url).post('/admin/reload').expect(403);
    }));

  test('a client has so many requests; more are told when to come back', () =>
    withServer({ security: { ...open, rateLimit: { requests: 3, seconds: 60 } } }, async (server) => {
      for (let i = 0; i < 3; i++) assert.match((await predict(server).expect(200)).get('RateLimit')!, new RegExp(`r=${2 - i}`));
      const refused = await predict(server).expect(429);
      assert.equal((refused.body as { code: string }).code, 'RATE_LIMITED');
      assert.ok(Number(refused.get('Retry-After')) > 0);
      await request(server.url).get('/v2/health/live').expect(200); // a probe is no client
    }));

  test('pages of other origins need to be listed', () =>
    withServer({ security: { ...open, corsOrigins: ['https://example.org'] } }, async (server) => {
      const from = (origin: string) => request(server.url).get('/archs').set('Origin', origin);
      assert.equal((await from('https://example.org')).get('Access-Control-Allow-Origin'), 'https://example.org');
      assert.equal((await from('https://example.com')).get('Access-Control-Allow-Origin'), undefined);
      const asked = await request(server.url).options('/predict').set('Origin', 'https://example.org').set('Access-Control-Request-Method', 'POST').expect(204);
      assert.match(asked.get('Access-Control-Allow-Methods')!, /POST/);
      const headers = await from('https://example.org');
      assert.equal(headers.get('X-Content-Type-Options'), 'nosniff');
      assert.match(headers.get('Content-Security-Policy')!, /default-src 'none'/);
    }));

  test('options are checked, and no error shows a token', () => {
    const { security, cacheFolder } = parseOptions({ rateLimit: '600/60s', corsOrigin: ['*', 'https://example.org'], trustProxy: '1', cacheFolder: false }, 'x', { BIGNAS_TOKEN_PREDICT: ` ${token.predict}, ${token.other}` });
    assert.deepEqual(security, { tokens: { predict: [token.predict, token.other], slice: [], admin: [] }, rateLimit: { requests: 600, seconds: 60 }, corsOrigins: ['*', 'https://example.org'], trustedProxies: 1 });
    assert.equal(cacheFolder, undefined);
    for (const [options, environment, message] of [
      [{ rateLimit: '600' }, {}, /--rate-limit to be requests in a time/],
      [{ corsOrigin: ['https://example.org/path'] }, {}, /--cors-origin/],
      [{ corsOrigin: ['example'] }, {}, /--cors-origin/],
      [{ trustProxy: '17' }, {}, /--trust-proxy/],
      [{}, { BIGNAS_TOKEN_ADMIN: 'secret' }, /^(?!.*secret).*BIGNAS_TOKEN_ADMIN/],
    ] as const)
      assert.throws(() => parseOptions(options, 'x', environment), { code: 'OPTION_INVALID', message });
  });
});

describe('GET /openapi.json', () => {
  test('is a valid document of every route', () =>
    withServer({}, async (server) => {
      const { body } = (await request(server.url).get('/openapi.json').expect(200)) as { body: object };
      const checked = await new Validator().validate(structuredClone(body) as Record<string, unknown>);
      assert.ok(checked.valid, JSON.stringify(checked.errors));
      const document = body as { openapi: string; paths: Record<string, Record<string, { operationId?: string }>> };
      assert.equal(document.openapi, '3.1.0');
      const { routes } = (await request(server.url).get('/')).body as { routes: { path: string; methods: string[] }[] };
      const listed = routes.flatMap(({ path, methods }) => methods.filter((method) => method !== 'HEAD').map((method) => `${method} ${path.replace(/(?<=\/):(\w+)/g, '{$1}')}`));
      const described = Object.entries(document.paths).flatMap(([path, operations]) => ['get', 'post'].filter((method) => method in operations).map((method) => `${method.toUpperCase()} ${path}`));
      assert.deepEqual(described.filter((each) => !['GET /', 'GET /openapi.json'].includes(each)).sort(), listed.sort());
      const ids = Object.values(document.paths).flatMap((operations) => Object.values(operations).flatMap(({ operationId }) => operationId ?? []));
      assert.equal(new Set(ids).size, ids.length);
    }));
});

describe('statistics are kept', () => {
  test('on disk over restarts; a damaged file is found, told, and made again', async () => {
    const cacheFolder = join(folder.path, 'cache');
    const source = (server: RunningServer, name: string): Promise<number> => metric(server, 'bignas_calibrations_total', { source: name });
    const answers: string[] = [];
    const ask = async (server: RunningServer): Promise<void> => {
      const { body } = (await predict(server, `?arch=${own(1)}`).expect(200)) as { body: { predictions: unknown } };
      answers.push(JSON.stringify(body.predictions));
    };
    await withServer({ cacheFolder }, async (server) => {
      await ask(server);
      await ask(server);
      assert.deepEqual([await source(server, 'computed'), await source(server, 'disk')], [1, 0]);
    });
    await withServer({ cacheFolder }, async (server) => {
      await ask(server);
      assert.deepEqual([await source(server, 'computed'), await source(server, 'disk')], [0, 1]);
    });
    const statistics = join(cacheFolder, 'statistics');
    const [file, ...others] = await readdir(statistics);
    assert.deepEqual(others, []);
    const path = join(statistics, file!);
    const whole = await readFile(path);
    for (const damage of [() => truncate(path, whole.length - 1), () => writeFile(path, ''), () => writeFile(path, Buffer.from(whole).fill(1, whole.length - 4))]) {
      await damage();
      await withServer({ cacheFolder }, async (server) => {
        await ask(server);
        assert.deepEqual([await source(server, 'computed'), await source(server, 'disk')], [1, 0]);
      });
      assert.deepEqual(await readFile(path), whole);
    }
    // Where the folder cannot be written, the answer is the same.
    await rm(statistics, { recursive: true });
    await writeFile(statistics, 'no folder');
    await withServer({ cacheFolder }, ask);
    assert.equal(new Set(answers).size, 1);
  });
});

describe('Prefer: respond-async', () => {
  test('a child that is not there is made in the background, with a place to poll', () =>
    withServer({}, async (server) => {
      const asked = () => predict(server, `?arch=${own(2)}`).set('Prefer', 'respond-async');
      const first = await asked().expect(202);
      assert.equal(first.get('Preference-Applied'), 'respond-async');
      const poll = first.get('Location')!;
      for (let i = 0; ; i++) {
        const { body } = (await request(server.url).get(poll).expect(200)) as { body: { calibration: string } };
        if (body.calibration === 'computed') break;
        assert.ok(i < 200, body.calibration);
        await sleep(25);
      }
      await asked().expect(200);
      await predict(server, '?arch=S').set('Prefer', 'respond-async').expect(200); // its statistics are in the checkpoint
      await request(server.url).post(`/v2/models/${own(3)}/infer`).set('Prefer', 'respond-async').send({ inputs: [{ name: 'image', shape: [1], datatype: 'BYTES', data: [photo.toString('base64')] }] }).expect(202);
    }));
});

describe('a checkpoint is replaced', () => {
  test('under load without a failed request; a damaged one is refused and the old one stays', async () => {
    const place = join(folder.path, 'place');
    const put = async (of: string): Promise<void> => {
      // As a deployment does it: the new folder is whole before it has the name.
      await rm(`${place}.old`, { recursive: true, force: true });
      await rename(place, `${place}.old`).catch(() => undefined);
      await rename(of, place);
    };
    const copies = async (seed: number): Promise<string> => {
      const path = join(folder.path, `copy-${seed}-${Math.random()}`);
      await mkdir(path);
      await makeCheckpoint(tiny, path, { seed });
      return path;
    };
    await put(await copies(1));
    await withServer(
      { queue: 64 },
      async (server) => {
        const { inService, reloader } = server.services;
        const first = inService.current.checkpoint.digest;
        await predict(server, '?arch=M').expect(200);
        const load = new AbortController();
        const failures: string[] = [];
        const clients = Array.from({ length: 4 }, async (_, i) => {
          while (!load.signal.aborted) {
            const answer = await predict(server, ['?arch=M', '?arch=S', `?arch=${own(7)}`, ''][i]);
            if (answer.status !== 200) failures.push(answer.text);
          }
        });
        for (let seed = 2; seed < 6; seed++) {
          await put(await copies(seed));
          assert.equal((await reloader.reload()).result, 'ok');
        }
        assert.equal((await reloader.reload()).result, 'unchanged');
        const served = inService.current.checkpoint.digest;
        assert.notEqual(served, first);
        const bad = await copies(9);
        await truncate(join(bad, 'weights.safetensors'), 1000);
        await put(bad);
        await assert.rejects(reloader.reload(), { code: 'RELOAD_REFUSED', message: /weights\.safetensors/ });
        await rm(place, { recursive: true });
        await assert.rejects(reloader.reload(), { code: 'RELOAD_REFUSED' });
        assert.equal(inService.current.checkpoint.digest, served);
        load.abort();
        await Promise.all(clients);
        assert.deepEqual(failures, []);
        for (let i = 0; inService.all.length > 1; i++) {
          assert.ok(i < 100, 'old checkpoints are let go');
          await sleep(20);
        }
        assert.equal(await metric(server, 'bignas_reloads_total', { result: 'ok' }), 4);
        assert.equal(await metric(server, 'bignas_reloads_total', { result: 'refused' }), 2);
      },
      place,
    );
  });
});

test('a checkpoint that cannot be served leaves nothing behind in the worker that opened it', async (t) => {
  const place = join(folder.path, 'refused');
  await makeCheckpoint(tiny, place);
  const latencyTables: LatencyTable[] = [];
  await withServer(
    { latencyTables },
    async ({ services: { build, reloader } }) => {
      latencyTables.push({ format: 'bignas-latency-table', version: 1, device: 'phone', runtime: 'none', threads: 1, overhead: 0, operations: [] });
      await rm(place, { recursive: true });
      await makeCheckpoint(tiny, place, { seed: 3 });
      const call = t.mock.method(build, 'call');
      await assert.rejects(reloader.reload(), { code: 'RELOAD_REFUSED', message: /phone/ });
      const asked = call.mock.calls.map(({ arguments: [method, input] }) => ({ method, serial: (input as { serial: number }).serial }));
      assert.deepEqual(asked.map(({ method }) => method), ['open', 'release']);
      assert.equal(asked[0]!.serial, asked[1]!.serial);
    },
    place,
  );
});

describe('--engine tensorflow', () => {
  test('answers as ONNX Runtime does, children of the checkpoint and others', () =>
    withServer({ engine: 'tensorflow' }, (tensorflow) =>
      withServer({ engine: 'onnx' }, async (onnx) => {
        for (const arch of ['smallest', 'M', 'biggest', own(11), own(12)]) {
          const [ours, theirs] = await Promise.all([tensorflow, onnx].map(async (server) => {
            const { body } = (await predict(server, `?arch=${arch}&top=1000`).expect(200)) as { body: { predictions: { classes: { index: number; probability: number }[] }[] } };
            return body.predictions[0]!.classes.toSorted((a, b) => a.index - b.index).map(({ probability }) => probability);
          }));
          ours!.forEach((probability, i) => assert.ok(Math.abs(probability - theirs![i]!) < 1e-4, `${arch}, class ${i}: ${probability} and ${theirs![i]}`));
        }
        const { body } = (await request(tensorflow.url).post('/v2/models/M/infer').send({ inputs: [{ name: 'image', shape: [1], datatype: 'BYTES', data: [photo.toString('base64')] }] }).expect(200)) as { body: { outputs: unknown[] } };
        assert.equal(body.outputs.length, 1);
        await request(tensorflow.url).get('/slice?arch=M').expect(200);
        // The worker dies, and comes again with nothing lost.
        await tensorflow.services.build.worker.terminate();
        for (let i = 0; (await request(tensorflow.url).get('/v2/health/ready')).status !== 200; i++) {
          assert.ok(i < 400, 'ready again');
          await sleep(25);
        }
        await predict(tensorflow, '?arch=M').expect(200);
      }),
    ));
});

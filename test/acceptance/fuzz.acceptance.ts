/** What nobody should send: no crash, no answer of status 500, none that takes long. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { familyNames } from '../../src/checkpoint/frontier.js';
import type { RunningServer } from '../../serve/server.js';
import { tiny } from '../../src/space/presets/tiny.js';
import { key, stream } from '../../src/random.js';
import { makeCheckpoint } from '../support/checkpoint.js';
import { jpeg, png, webp } from '../support/images.js';
import { parsePrometheus, valueOf } from '../support/prometheus.js';
import { schemathesisPython } from '../support/python.js';
import { temporaryFolder, testServer } from '../support/server.js';

const IMAGES = 10_000;
/** Milliseconds that one may take. */
const LONGEST = 2000;
/** Sent side by side. */
const CLIENTS = 8;
const token = 'a'.repeat(32);

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let server: RunningServer;

before(async () => {
  folder = await temporaryFolder();
  const { folder: checkpoint } = await makeCheckpoint(tiny, join(folder.path, 'checkpoint'), { calibrated: familyNames });
  server = await testServer(checkpoint, { queue: 64, warm: true, security: { tokens: { predict: [], slice: [], admin: [token] }, rateLimit: undefined, corsOrigins: [], trustedProxies: 0 } });
});
after(async () => {
  await server.stop(1000);
  await folder.remove();
});

test('a fuzzer that reads the OpenAPI document finds no 500 on any route', async (t) => {
  // 503 and 504 are the server's words for a deadline that cannot be met: no defect.
  await writeFile(join(folder.path, 'schemathesis.toml'), '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503, 504]\n');
  const checks = 'not_a_server_error,response_schema_conformance,content_type_conformance';
  const { stdout } = await promisify(execFile)(
    schemathesisPython(),
    ['-m', 'schemathesis.cli', 'run', `${server.url}/openapi.json`, '--checks', checks, '--phases', 'examples,coverage,fuzzing', '--max-examples', '100', '--seed', '1', '--no-color', '-H', `Authorization: Bearer ${token}`],
    { maxBuffer: 2 ** 26, cwd: folder.path },
  ).catch((error: unknown) => {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    return assert.fail(`${stdout}${stderr}`.slice(-8000));
  });
  t.diagnostic(stdout.split('\n').slice(-20).join('\n'));
  const problems = parsePrometheus(await (await fetch(`${server.url}/metrics`)).text());
  assert.equal(valueOf(problems, 'bignas_problems_total', { code: 'INTERNAL' }), 0);
  assert.equal((await fetch(`${server.url}/v2/health/ready`)).status, 200);
});

test(`${IMAGES} mutated images: every one is answered, with 200 or 4xx, within ${LONGEST} ms`, async (t) => {
  const originals = await Promise.all([jpeg(64, 48), png(40, 40), webp(50, 30), jpeg(300, 200), png(200, 120)]);
  const draws = stream(key('mutations'), 1);
  const statuses = new Map<number, number>();
  let slowest = 0;
  let sent = 0;
  const client = async (): Promise<void> => {
    while (sent < IMAGES) {
      const image = mutated(originals[sent++ % originals.length]!, (below) => draws.integer(below));
      const started = performance.now();
      const answer = await fetch(`${server.url}/predict?arch=S`, { method: 'POST', body: image, headers: { 'Content-Type': 'image/jpeg' } });
      await answer.arrayBuffer();
      slowest = Math.max(slowest, performance.now() - started);
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  t.diagnostic(`statuses ${JSON.stringify(Object.fromEntries(statuses))}, slowest ${slowest.toFixed(0)} ms`);
  for (const status of statuses.keys()) assert.ok([200, 400, 413, 415].includes(status), `status ${status}`);
  assert.ok(statuses.get(200)! > 100 && statuses.get(400)! > 100, 'both kinds are among them');
  assert.ok(slowest < LONGEST, `${slowest} ms`);
  assert.equal(server.services.images[0]!.generation, 0, 'no worker died');
});

/** Bytes changed, left out, doubled or cut off, in one place or several. */
function mutated(image: Buffer, integer: (below: number) => number): Uint8Array<ArrayBuffer> {
  let bytes = Uint8Array.from(image);
  for (let i = 1 + integer(8); i > 0; i--) {
    const at = integer(bytes.length);
    switch (integer(6)) {
      case 0:
        bytes[at] = integer(256);
        break;
      case 1:
        bytes[at]! ^= 1 << integer(8);
        break;
      case 2:
        bytes.fill(integer(2) * 255, at, at + integer(16));
        break;
      case 3: // headers say sizes
        bytes[integer(Math.min(64, bytes.length))] = [0, 1, 127, 128, 255][integer(5)]!;
        break;
      case 4:
        bytes = bytes.slice(0, Math.max(1, at));
        break;
      default:
        bytes = Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(Math.max(0, at - integer(64)))]);
    }
  }
  return bytes;
}

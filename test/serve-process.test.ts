import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { formatArchitecture } from '../src/space/architecture.js';
import { cifar10 } from '../src/space/presets/cifar10.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { png } from './support/images.js';
import { temporaryFolder } from './support/server.js';
import { addressOf, startProcess, type ServerProcess } from './support/serverProcess.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
const started: ChildProcess[] = [];

before(async () => {
  folder = await temporaryFolder();
  await makeCheckpoint(cifar10, folder.path, { crops: 128 });
});
after(async () => {
  for (const child of started) child.kill('SIGKILL');
  await folder.remove();
});

function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): ServerProcess {
  const server = startProcess(args, { env, cache: join(folder.path, 'cache') });
  started.push(server.child);
  return server;
}

const predict = async (url: string, architecture: string, body: Buffer): Promise<number> => {
  const response = await fetch(`${url}/predict?arch=${architecture}`, { method: 'POST', body: new Uint8Array(body), headers: { connection: 'close' } });
  await response.text();
  return response.status;
};

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} under load: what was accepted is answered, the exit code is 0`, async () => {
    const server = start(['--checkpoint', folder.path, '--port', '0', '--threads', '1']);
    const url = await addressOf(server);
    const photo = await png(40, 40);
    assert.equal(await predict(url, 'M', photo), 200);
    const asked = Array.from({ length: 12 }, (_, i) => predict(url, formatArchitecture(sampleArchitecture(cifar10, [77, i])), photo));
    // Accepted when the first of them is answered: they were sent together, and each child takes its calibration.
    await Promise.race(asked);
    server.child.kill(signal);
    assert.deepEqual(await Promise.all(asked), Array.from({ length: 12 }, () => 200));
    assert.equal(await server.ended, 0, server.output.err);
    await assert.rejects(predict(url, 'M', photo), 'it no longer listens');
    const lines = server.output.err.trim().split('\n').map((line) => JSON.parse(line) as { msg: string; status?: number });
    assert.ok(lines.filter(({ msg }) => msg === 'request').length === 13);
  });
}

test('options and environment say where it listens; what is not legal is said, with the exit code 1', async (t) => {
  const env = start(['--checkpoint', folder.path, '--threads', '1', '--log-level', 'silent'], { HOST: '127.0.0.1', PORT: '0' });
  const url = await addressOf(env);
  assert.equal((await fetch(`${url}/v2/health/ready`)).status, 200);
  env.child.kill('SIGTERM');
  assert.equal(await env.ended, 0);

  const taken = createServer().listen(0, '127.0.0.1');
  t.after(() => taken.close());
  await once(taken, 'listening');
  const { port } = taken.address() as { port: number };
  const cases: [string[], RegExp][] = [
    [['--port', '99999'], /Expected --port to be a whole number from 0 to 65535, got `99999`/],
    [['--port', 'http'], /--port/],
    [['--workers', '0'], /Expected --workers to be a whole number from 1 to 64, got `0`/],
    [['--threads', '1.5'], /--threads/],
    [['--cache-bytes', 'much'], /Expected --cache-bytes to be bytes such as 256MiB, got `much`/],
    [['--max-body', '2GiB'], /Expected --max-body to be bytes .* at most 1073741824/],
    [['--queue', '-1'], /--queue/],
    [['--log-level', 'loud'], /--log-level to be trace, debug/],
    [['--checkpoint', '/nowhere'], /The checkpoint \/nowhere cannot be used: manifest\.json/],
    [['--no-such-option'], /unknown option/],
    [['--checkpoint', folder.path, '--port', String(port)], /cannot listen on 127\.0\.0\.1:\d+ .*--port/],
  ];
  for (const [args, message] of cases) {
    const server = start(args);
    assert.equal(await server.ended, 1, args.join(' '));
    assert.match(server.output.err, message);
    assert.equal(server.output.out, '');
    assert.doesNotMatch(server.output.err, /\n\s+at /, 'no stack');
  }
});

test('--engine tensorflow where TensorFlow is not installed: says so, and ends with 1', async () => {
  const withoutTensorflow = `import M from "node:module"; const load = M._load; M._load = (name, ...more) => { if (name.startsWith("@tensorflow/tfjs-node")) throw new Error("no such package"); return load(name, ...more); }`;
  const server = start(['--checkpoint', folder.path, '--port', '0', '--engine', 'tensorflow'], { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(withoutTensorflow)}` });
  assert.equal(await server.ended, 1);
  assert.match(server.output.err, /TensorFlow cannot compute here: The TensorFlow engine is not installed \(no such package\)/);
  assert.doesNotMatch(server.output.err, /ReferenceError/);
});

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Thread } from '../serve/workers/thread.js';
import type { BignasError } from '../src/errors.js';

interface EchoRole {
  echo: { input: Uint8Array; output: Uint8Array };
  wait: { input: number; output: string };
  coded: { input: undefined; output: undefined };
  broken: { input: undefined; output: undefined };
  exit: { input: undefined; output: undefined };
}

const protocol = new URL('../serve/workers/protocol.js', import.meta.url).href;
const errors = new URL('../src/errors.js', import.meta.url).href;
const source = `
  import { serveRole, Transferred } from ${JSON.stringify(protocol)};
  import { BignasError } from ${JSON.stringify(errors)};
  serveRole({
    echo: (bytes) => new Transferred(bytes, [bytes.buffer]),
    wait: (ms) => new Promise((resolve) => setTimeout(resolve, ms, 'waited ' + ms)),
    coded: () => { throw new BignasError('BODY_EMPTY', 'empty', { image: 3 }); },
    broken: () => { throw new TypeError('a defect'); },
    exit: () => process.exit(7),
  });`;

const threads: { close(): Promise<void> }[] = [];
after(() => Promise.all(threads.map((thread) => thread.close())));

function start(code = source): { thread: Thread<EchoRole>; deaths: Error[] } {
  const deaths: Error[] = [];
  const file = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
  const thread = new Thread<EchoRole>({ role: 'echo', file, data: () => undefined, onDeath: (error) => deaths.push(error) });
  threads.push(thread);
  return { thread, deaths };
}

test('buffers move there and back; questions are answered in order', async () => {
  const { thread } = start();
  const bytes = Uint8Array.from([1, 2, 3]);
  const order: string[] = [];
  const slow = thread.call('wait', 20).then((text) => order.push(text));
  const echoed = thread.call('echo', bytes, { transfer: [bytes.buffer] }).then((got) => {
    order.push('echo');
    return got;
  });
  assert.equal(thread.load, 2);
  await slow;
  assert.deepEqual([...(await echoed)], [1, 2, 3]);
  assert.equal(bytes.byteLength, 0, 'moved, not copied');
  assert.deepEqual(order, ['waited 20', 'echo']);
});

test('a question may say at its turn that it is too late; the worker does not get it, and the next one is asked', async () => {
  const { thread } = start();
  const first = thread.call('wait', 20);
  let turn = false;
  const late = thread.call('exit', undefined, {
    turn: () => {
      turn = true;
      throw new Error('too late');
    },
  });
  const next = thread.call('wait', 1);
  assert.equal(turn, false);
  await first;
  await assert.rejects(late, /too late/);
  assert.equal(await next, 'waited 1');
  assert.equal(thread.load, 0);
});

test('errors cross with their code and details, others with their message', async () => {
  const { thread } = start();
  await assert.rejects(thread.call('coded', undefined), { name: 'BignasError', code: 'BODY_EMPTY', message: 'empty', details: { image: 3 } });
  await assert.rejects(thread.call('broken', undefined), { name: 'Error', message: 'a defect' });
  await assert.rejects(thread.call('wait', Symbol('not to be cloned') as unknown as number), /could not be cloned/);
  assert.equal(await thread.call('wait', 1), 'waited 1');
});

test('a question that waits can be taken back', async () => {
  const { thread } = start();
  const controller = new AbortController();
  const first = thread.call('wait', 20);
  const second = thread.call('wait', 5000, { signal: controller.signal });
  controller.abort(new Error('gone'));
  await assert.rejects(second, /gone/);
  assert.equal(await first, 'waited 20');
});

test('a worker that dies is started again; what it had been asked fails', async () => {
  const { thread, deaths } = start();
  const lost = await Promise.allSettled([thread.call('exit', undefined), thread.call('wait', 1)]);
  for (const result of lost) assert.equal(((result as PromiseRejectedResult).reason as BignasError).code, 'WORKER_LOST');
  assert.equal(thread.generation, 1);
  assert.equal(await thread.call('wait', 1), 'waited 1');
  assert.match(deaths[0]!.message, /exited with 7/);
});

test('a worker that cannot start says so, and is tried again ever more seldom', async () => {
  const { thread, deaths } = start('throw new Error("no library");');
  await assert.rejects(thread.ready, /no library/);
  await assert.rejects(thread.call('wait', 1), { code: 'WORKER_LOST' });
  await sleep(1200);
  assert.ok(deaths.length >= 2 && deaths.length <= 5, `${deaths.length} starts`);
  assert.equal(thread.isReady, false);
});

test('after it is closed nothing is taken', async () => {
  const { thread } = start();
  const refused = assert.rejects(thread.call('wait', 5000), { code: 'SHUTTING_DOWN' });
  await thread.close();
  await refused;
  await assert.rejects(thread.call('wait', 1), { code: 'SHUTTING_DOWN' });
});

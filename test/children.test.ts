import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RunGroup } from '../serve/batches.js';
import { Buffers } from '../serve/buffers.js';
import { Children } from '../serve/children.js';
import type { Served } from '../serve/served.js';
import type { BuildRole } from '../serve/workers/building.js';
import { Transferred } from '../serve/workers/protocol.js';
import { runHandlers, threadsOf, type RunRole } from '../serve/workers/running.js';
import type { Thread } from '../serve/workers/thread.js';
import type { ChildDescription } from '../src/bundle/child.js';
import { BignasError } from '../src/errors.js';

// Children in workers that die at the worst moments: the handlers are the real ones, the threads and the runs are not.

type Handlers = ReturnType<typeof runHandlers>;
type Method = keyof RunRole;

/** Milliseconds of a run that is worth lanes. */
const RUN_MS = 8;

class FakeThread {
  generation = 0;
  readonly load = 0;
  sessions = 0;
  classified = 0;
  loads = 0;
  /** Milliseconds that the next load takes. */
  slowLoad = 0;
  runMs = RUN_MS;
  #handlers = this.#boot();
  #queue = Promise.resolve();
  #asked = new Set<(error: Error) => void>();

  get thread(): Thread<RunRole> {
    return this as unknown as Thread<RunRole>;
  }

  lost(): BignasError {
    return new BignasError('WORKER_LOST', 'lost');
  }

  /** One question after the other, as a thread has it; of a dead one nothing is heard. */
  call(method: Method, input: unknown): Promise<unknown> {
    const { generation } = this;
    const handlers = this.#handlers;
    return new Promise((resolve, reject) => {
      this.#asked.add(reject);
      this.#queue = this.#queue.then(async () => {
        if (method === 'classify') this.classified++;
        if (method === 'load') {
          this.loads++;
          const slow = this.slowLoad;
          this.slowLoad = 0;
          await sleep(slow);
        }
        try {
          const output: unknown = await (handlers[method] as (input: unknown) => unknown)(input);
          if (generation === this.generation) resolve(output instanceof Transferred ? (output.value as unknown) : output);
        } catch (error) {
          if (generation === this.generation) reject(error as Error);
        }
        this.#asked.delete(reject);
      });
    });
  }

  die(children: Children): void {
    this.generation++;
    this.sessions = 0;
    for (const reject of this.#asked) reject(this.lost());
    this.#asked = new Set();
    this.#queue = Promise.resolve();
    this.#handlers = this.#boot();
    children.forget(this.thread);
  }

  #boot(): Handlers {
    return runHandlers(() => {
      this.sessions++;
      return Promise.resolve({
        run: async ({ count }: { count: number }) => {
          await sleep(this.runMs);
          return new Float32Array(count * 2);
        },
        dispose: () => {
          this.sessions--;
          return Promise.resolve();
        },
      });
    });
  }
}

const served = { serial: 1 } as Served;
const describeFake = (id: string): ChildDescription => ({
  id, architecture: id, name: undefined, resolution: 2, accuracy: null, test: null,
  costs: { flops: { value: 1e9 }, memory: { value: 2 ** 20 }, bytes: { value: 1000 } } as ChildDescription['costs'],
});
const SESSION = 1.5 * 2 ** 20 + 1250;

function setUp(groups: readonly { worker: FakeThread; lanes: readonly FakeThread[] }[], maxBytes = 2 ** 30) {
  const lacks: unknown[] = [];
  const build = { load: 0, milliseconds: 1, call: async () => {
    await sleep(build.milliseconds);
    return { model: new Uint8Array(1000), report: {} };
  } };
  const nothing = (): void => undefined;
  const children = new Children({
    build: build as unknown as Thread<BuildRole>,
    run: groups.map(({ worker, lanes }): RunGroup => ({ worker: worker.thread, lanes: lanes.map(({ thread }) => thread) })),
    maxBytes, maxBatch: 16, onBuilt: nothing,
    observer: { hit: nothing, miss: nothing, eviction: nothing, bytes: nothing, error: (error) => lacks.push(error) },
    batchObserver: { ran: nothing, waited: nothing, waiting: nothing },
    buffers: new Buffers(2 ** 20),
    onLanesLack: (_description, error) => lacks.push(error),
  });
  const ask = (id: string): Promise<string> =>
    children.classify(served, describeFake(id), { data: new Float32Array(12), count: 1 }, 1, new AbortController().signal).then(
      () => 'ok',
      (error: unknown) => (error instanceof BignasError ? error.code : String(error)),
    );
  const together = (id: string): Promise<string[]> => Promise.all(Array.from({ length: 12 }, () => ask(id)));
  const intoLanes = async (id: string): Promise<void> => {
    const before = children.bytes;
    for (let round = 0; children.bytes <= before && round < 60; round++) await together(id);
    assert.ok(children.bytes > before, 'the lanes were given the child');
  };
  return { children, build, ask, together, intoLanes, lacks };
}

const oneGroup = () => {
  const [worker, first, second] = [new FakeThread(), new FakeThread(), new FakeThread()];
  return { group: { worker, lanes: [first, second] }, worker, first, second };
};
const all = Array.from({ length: 12 }, () => 'ok');

test('a child whose worker died is built again and asked for by its own number in lanes that still have it', async () => {
  const { group, worker, first, second } = oneGroup();
  const { children, ask, together, intoLanes } = setUp([group]);
  await ask('a');
  await intoLanes('a');
  worker.die(children);
  await ask('a');
  for (let round = 0; round < 4; round++) assert.deepEqual(await together('a'), all);
  assert.deepEqual([worker.sessions, first.sessions, second.sessions], [1, 1, 1]);
});

test('a child that was evicted while its lanes were kept is built again and answers', async () => {
  const { group } = oneGroup();
  const { children, ask, together, intoLanes } = setUp([group], Math.ceil(5.4 * SESSION));
  await ask('x');
  await ask('a');
  await intoLanes('a');
  const busy = together('a');
  await ask('x');
  await busy;
  await ask('c');
  await ask('d'); // the child was used before its lanes were, and leaves first
  for (let round = 0; round < 4; round++) assert.deepEqual(await together('a'), all);
  assert.ok(children.bytes <= 5.4 * SESSION);
});

test('of two groups a child never runs in the lanes of the other one', async () => {
  const [here, there] = [oneGroup(), oneGroup()];
  const { children, ask, together, intoLanes } = setUp([here.group, there.group]);
  await ask('a');
  await intoLanes('a');
  const [had, other] = here.worker.sessions > 0 ? [here, there] : [there, here];
  had.worker.die(children);
  // Another child takes its place, so that it is built in the other group.
  await ask('b');
  const rebuilt = await together('a');
  assert.deepEqual(rebuilt, all);
  for (let round = 0; round < 20; round++) assert.deepEqual(await together('a'), all);
  assert.ok(other.worker.sessions > 0 || had.worker.sessions > 1);
});

test('a copy that replaces a dead one is not taken away with it', async () => {
  const { group, first, second } = oneGroup();
  const { children, ask, together, intoLanes } = setUp([group]);
  await ask('a');
  await intoLanes('a');
  first.runMs = second.runMs = 100;
  const before = together('a');
  await sleep(3 * RUN_MS); // both lanes are at it
  second.die(children);
  await sleep(1); // its lane is free
  const loads = first.loads;
  const rest = together('a'); // so many ask that it is given to the lanes anew, behind the batch
  await sleep(5);
  first.runMs = second.runMs = RUN_MS;
  const answers = new Set([...(await before), ...(await rest)]);
  assert.equal(first.loads, loads + 1);
  answers.delete('ok');
  answers.delete('WORKER_LOST');
  assert.deepEqual([...answers], []);
  for (let round = 0; round < 20; round++) assert.deepEqual(await together('a'), all);
  assert.deepEqual([first.sessions, second.sessions], [1, 1]);
});

test('a lane that dies while a child is given to it does not keep it from being given again', async () => {
  const { group, first, second } = oneGroup();
  const { children, ask, together, lacks } = setUp([group]);
  await ask('a');
  second.slowLoad = 150;
  while (second.loads === 0) await together('a');
  await sleep(20);
  first.die(children); // it had the child, its neighbour does not have it yet
  await sleep(200);
  const before = first.classified;
  for (let round = 0; round < 40 && first.classified === before; round++) await together('a');
  assert.ok(first.classified > before, 'it runs in the lanes');
  assert.deepEqual([first.sessions, second.sessions, lacks.length], [1, 1, 0]);
});

test('what waits for a worker that dies is told to ask once more', async () => {
  const worker = new FakeThread();
  worker.runMs = 40;
  const { children, ask } = setUp([{ worker, lanes: [] }]);
  await ask('a');
  const running = ask('a');
  await sleep(5);
  const waiting = Promise.all([ask('a'), ask('a'), ask('a')]);
  await sleep(5);
  worker.die(children);
  assert.deepEqual([await running, ...(await waiting)], Array.from({ length: 4 }, () => 'WORKER_LOST'));
  assert.equal(await ask('a'), 'ok');
});

test('a child that is made while its checkpoint is retired does not stay in memory', async () => {
  const { children, build } = setUp([{ worker: new FakeThread(), lanes: [] }]);
  build.milliseconds = 30;
  const built = children.build(served, describeFake('a'));
  await sleep(5);
  children.retire(served);
  await built;
  assert.equal(children.bytes, 0);
  assert.deepEqual(children.loaded(served), []);
});

test('a child has as many threads as its runs are worth, one at least', () => {
  assert.deepEqual([0, 2e6, 18e6, 25e6, 600e6].map((flops) => threadsOf(flops, 8)), [1, 1, 1, 2, 8]);
  assert.equal(threadsOf(600e6, 1), 1);
});

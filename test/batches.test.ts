import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Batches, type BatchObserver, type Images, type InLanes, type RunChild } from '../serve/batches.js';
import { Buffers } from '../serve/buffers.js';
import { RunTimes } from '../serve/runTimes.js';
import type { Answer, RunRole } from '../serve/workers/running.js';
import type { Thread } from '../serve/workers/thread.js';

type Input = RunRole['classify']['input'];
type Output = RunRole['classify']['output'];

/** A worker whose answers the test gives: each image's first value comes back as its class. */
function worker() {
  const asked: { input: Input; answer: (secondsOf?: (rows: number) => number) => void; fail: (error: Error) => void }[] = [];
  const thread = {
    call: (_method: 'classify', input: Input) =>
      new Promise<Output>((resolve, reject) => {
        const rows = input.parts.reduce((sum, { count }) => sum + count, 0);
        asked.push({
          input,
          answer: (secondsOf = () => 0.01) =>
            resolve({
              answers: input.parts.map(({ data, count }) => ({ classes: Array.from({ length: count }, (_, i) => [{ index: data[i]!, probability: 1 }]) })),
              runs: [{ rows, seconds: secondsOf(rows) }],
              spent: input.parts.map(({ data }) => data.buffer),
            }),
          fail: reject,
        });
      }),
  } as unknown as Thread<RunRole>;
  return { thread, asked };
}

const child = (number: number, most = 16): RunChild => ({ number, most, holdLanes: () => undefined });
const images = (...values: number[]): Images => ({ data: Float32Array.from(values), count: values.length });
const buffers = new Buffers(2 ** 20);
const observer: BatchObserver = { ran: () => undefined, waited: () => undefined, waiting: () => undefined };
const indices = (answer: Answer): number[] => ('classes' in answer ? answer.classes.map(([best]) => best!.index) : []);
const never = new AbortController().signal;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const rowsOf = ({ input: { parts } }: { input: Input }): number[] => parts.flatMap(({ data }) => [...data]);

describe('predictions of one child share a batch', () => {
  test('a lone one runs at once; those that come meanwhile run together, each with its own answer', async () => {
    const { thread, asked } = worker();
    const ran: number[][] = [];
    const batches = new Batches({ worker: thread, lanes: [] }, { ...observer, ran: (rows, predictions) => void ran.push([rows, predictions]) }, buffers);
    const first = batches.classify(child(1), images(7), 1, never);
    assert.equal(asked.length, 1);
    const others = [images(1, 2), images(3), images(4)].map((each) => batches.classify(child(1), each, 1, never));
    assert.equal(batches.waiting, 3);
    asked[0]!.answer();
    assert.equal((await first).rows, 1);
    await turn();
    assert.deepEqual(rowsOf(asked[1]!), [1, 2, 3, 4]);
    asked[1]!.answer();
    assert.deepEqual((await Promise.all(others)).map(({ answer, rows }) => [rows, indices(answer)]), [[4, [1, 2]], [4, [3]], [4, [4]]]);
    assert.deepEqual(ran, [[1, 1], [4, 3]]);
    assert.equal(batches.waiting, 0);
  });

  test('children do not mix, and the child whose prediction waits longest comes first', async () => {
    const { thread, asked } = worker();
    const batches = new Batches({ worker: thread, lanes: [] }, observer, buffers);
    const all = [[1, 10], [2, 20], [1, 11], [3, 30], [2, 21]].map(([number, value]) => batches.classify(child(number!), images(value!), 1, never));
    for (let i = 0; i < 4; i++) {
      asked[i]!.answer();
      await turn();
    }
    await Promise.all(all);
    assert.deepEqual(asked.map((each) => [each.input.child, ...rowsOf(each)]), [[1, 10], [2, 20, 21], [1, 11], [3, 30]]);
  });

  test('a batch has no more rows than are told, but a prediction of more runs all the same', async () => {
    const { thread, asked } = worker();
    const batches = new Batches({ worker: thread, lanes: [] }, observer, buffers);
    const all = [images(0), images(1, 2, 3), images(4, 5), images(6), images(7, 8, 9, 10, 11, 12)].map((each) => batches.classify(child(1, 4), each, 1, never));
    for (let i = 0; i < 4; i++) {
      asked[i]!.answer((rows) => 0.001 * (1 + rows)); // throughput grows up to any size
      await turn();
    }
    await Promise.all(all);
    assert.deepEqual(asked.map(rowsOf), [[0], [1, 2, 3, 6], [4, 5], [7, 8, 9, 10, 11, 12]]);
  });

  /** Batches that know what a run of child 1 takes: 20 ms at least. */
  async function afterOneRun(): Promise<{ batches: Batches; asked: ReturnType<typeof worker>['asked'] }> {
    const { thread, asked } = worker();
    const batches = new Batches({ worker: thread, lanes: [] }, observer, buffers);
    const first = batches.classify(child(1), images(1), 1, never);
    asked[0]!.answer(() => 0.02);
    await first;
    await turn();
    return { batches, asked };
  }

  test('the one that is due first runs first; one that cannot be in time any more is not run', async () => {
    const { batches, asked } = await afterOneRun();
    const now = performance.now();
    const running = batches.classify(child(1), images(2), 1, never);
    const late = batches.classify(child(2), images(3), 1, never, now + 500);
    const soon = batches.classify(child(1), images(4), 1, never, now + 300);
    const hopeless = assert.rejects(batches.classify(child(1), images(5), 1, never, now + 10), { code: 'DEADLINE_MISSED' });
    assert(batches.backlog(false) > 20 && batches.backlog(false) < 1000);
    asked[1]!.answer(() => 0.02);
    await running;
    await hopeless;
    await turn();
    assert.deepEqual(rowsOf(asked[2]!), [4]);
    asked[2]!.answer(() => 0.02);
    await soon;
    await turn();
    assert.deepEqual(rowsOf(asked[3]!), [3]);
    asked[3]!.answer();
    await late;
    assert.equal(batches.backlog(false), 0);
  });

  test('what is being decoded counts as waiting', async () => {
    const { batches } = await afterOneRun();
    assert.equal(batches.backlog(false), 0);
    const arrives = [batches.announce(child(1), 1), batches.announce(child(1), 3)];
    const all = batches.backlog(false);
    assert(all >= 80, String(all));
    arrives[1]!();
    assert(Math.abs(batches.backlog(false) - all / 4) < 1e-9);
    arrives[0]!();
    assert.equal(batches.backlog(false), 0);
  });

  test('one whose client hangs up leaves the queue and is not run; what fails fails for its batch alone', async () => {
    const { thread, asked } = worker();
    const batches = new Batches({ worker: thread, lanes: [] }, observer, buffers);
    const first = batches.classify(child(1), images(1), 1, never);
    const client = new AbortController();
    const gone = batches.classify(child(1), images(2), 1, client.signal);
    const stays = batches.classify(child(1), images(3), 1, never);
    client.abort(new Error('hung up'));
    await assert.rejects(gone, /hung up/);
    asked[0]!.fail(new Error('out of memory'));
    await assert.rejects(first, /out of memory/);
    await turn();
    assert.deepEqual(rowsOf(asked[1]!), [3]);
    asked[1]!.answer();
    assert.equal(indices((await stays).answer)[0], 3);
    await assert.rejects(batches.classify(child(1), images(4), 1, AbortSignal.abort(new Error('before'))), /before/);
    assert.equal(asked.length, 2);
  });
});

describe('lanes run batches of one child side by side', () => {
  const COPY = 99;
  const lanesOf = (count: number) => {
    const [alone, ...lanes] = Array.from({ length: count + 1 }, worker);
    const held = { now: 0, most: 0 };
    const holdLanes = (): InLanes => {
      held.most = Math.max(held.most, ++held.now);
      return { number: COPY, release: () => held.now-- };
    };
    return { alone: alone!, lanes, held, batches: new Batches({ worker: alone!.thread, lanes: lanes.map(({ thread }) => thread) }, observer, buffers), shared: { ...child(1), holdLanes } };
  };

  const long = (): number => 0.01; // short runs are not worth lanes

  test('a lone prediction has all threads; several are shared out to the lanes, each of which takes more as soon as it is free', async () => {
    const { alone, lanes, held, batches, shared } = lanesOf(2);
    const first = batches.classify(shared, images(0), 1, never);
    const all = [1, 2, 3, 4, 5].map((value) => batches.classify(shared, images(value), 1, never));
    assert.deepEqual([alone.asked.length, lanes[0]!.asked.length, held.now], [1, 0, 0], 'nothing runs beside the worker');
    alone.asked[0]!.answer(long);
    await first;
    await turn();
    assert.deepEqual(lanes.map(({ asked }) => rowsOf(asked[0]!)), [[1, 2, 3], [4, 5]]);
    assert.deepEqual([alone.asked[0]!.input.child, ...lanes.map(({ asked }) => asked[0]!.input.child)], [1, COPY, COPY], 'the lanes know it by another number');
    assert.equal(held.now, 2);
    const later = batches.classify(shared, images(6), 1, never);
    lanes[1]!.asked[0]!.answer();
    await turn();
    assert.deepEqual(rowsOf(lanes[1]!.asked[1]!), [6]);
    lanes[1]!.asked[1]!.answer();
    lanes[0]!.asked[0]!.answer();
    assert.deepEqual((await Promise.all([...all, later])).map(({ answer }) => indices(answer)[0]), [1, 2, 3, 4, 5, 6]);
    await turn();
    assert.equal(held.now, 0);
    const last = batches.classify(shared, images(7), 1, never);
    assert.equal(alone.asked.length, 2);
    alone.asked[1]!.answer();
    await last;
  });

  test('where a lane is idle a child that the lanes have begins at once, and another one when all are', async () => {
    const { alone, lanes, batches, shared } = lanesOf(2);
    const seconds = (): number => 0.3;
    const round = (n: number): Promise<unknown>[] => Array.from({ length: n }, (_, i) => batches.classify(shared, images(i), 1, never));
    const first = round(1);
    alone.asked.shift()!.answer(seconds);
    await Promise.all(first);
    await turn();
    for (const last of [false, true]) { // first, what their runs take is learned
      const some = round(3);
      alone.asked.shift()!.answer(seconds);
      await turn();
      const [early, late] = lanes.map(({ asked }) => asked.shift()!);
      if (last) assert(batches.backlog(true) > 200, 'both run');
      early!.answer(seconds);
      await turn();
      if (last) {
        assert.equal(batches.backlog(true), 0);
        assert(batches.backlog(false) > 200);
        const other = batches.classify(child(2), images(9), 1, never);
        assert(batches.backlog(true) > 200, 'one waits for all lanes, and is before');
        late!.answer(seconds);
        await Promise.all(some);
        await turn();
        alone.asked.shift()!.answer();
        await other;
      } else {
        late!.answer(seconds);
        await Promise.all(some);
        await turn();
      }
    }
  });

  test('a child that the lanes lack waits until they are done, and those due later wait behind it', async () => {
    const { alone, lanes, batches, shared } = lanesOf(2);
    const before = batches.classify(shared, images(9), 1, never);
    alone.asked.shift()!.answer(long);
    await before;
    await turn();
    const first = batches.classify(child(2), images(0), 1, never);
    const early = [batches.classify(shared, images(1), 1, never), batches.classify(shared, images(2), 1, never)];
    alone.asked[0]!.answer(long);
    await first;
    await turn();
    const other = batches.classify(child(2), images(3), 1, never);
    const late = batches.classify(shared, images(4), 1, never);
    lanes[0]!.asked[0]!.answer();
    await turn();
    assert.deepEqual([alone.asked.length, lanes[0]!.asked.length], [1, 1]);
    lanes[1]!.asked[0]!.fail(new Error('out of memory'));
    await assert.rejects(early[1]!, /out of memory/);
    await early[0];
    await turn();
    assert.deepEqual(rowsOf(alone.asked[1]!), [3]);
    alone.asked[1]!.answer();
    await other;
    await turn();
    alone.asked[2]!.answer();
    await late;
  });
});

test('memory for bodies and inputs is used again, as large as is asked for, and not kept beyond the bound', () => {
  const pool = new Buffers(300_000);
  const [small, large] = [pool.take(1000), pool.take(100_000)];
  assert.equal(small.byteLength, 1000);
  assert(large.byteLength >= 100_000 && large.byteLength < 200_000);
  pool.give([small, large]);
  assert.equal(pool.bytes, large.byteLength);
  assert.notEqual(pool.take(400_000), large);
  assert.notEqual(pool.take(65_536 / 2), large, 'small memory is not worth looking for');
  assert.equal(pool.take(90_000), large);
  assert.equal(pool.bytes, 0);
  structuredClone(large, { transfer: [large] }); // has moved to another thread
  pool.give([large]);
  assert.equal(pool.bytes, 0);
  const many = Array.from({ length: 4 }, () => pool.take(100_000));
  pool.give(many);
  assert.deepEqual([pool.bytes, many[0]!.byteLength, many[1]!.byteLength], [2 * many[3]!.byteLength, 0, 0], 'the oldest are freed at once');
});

describe('how long runs take', () => {
  test('is a line through the latest of them', () => {
    const times = new RunTimes();
    assert.equal(times.seconds(1), undefined);
    for (const rows of [1, 4, 2, 8, 16]) times.observe(rows, 0.002 + 0.001 * rows);
    assert(Math.abs(times.seconds(10)! - 0.012) < 1e-9);
    for (let i = 0; i < 200; i++) times.observe(1 + (i % 4), 0.01 * (1 + (i % 4))); // the machine has become slower, and nothing is constant
    assert(Math.abs(times.seconds(3)! - 0.03) < 1e-3);
  });

  test('a child that was slow once is tried again after a while', (t) => {
    const now = t.mock.method(performance, 'now', () => 0);
    const times = new RunTimes();
    times.observe(1, 0.01);
    for (let i = 0; i < 30; i++) times.observe(1, 0.1); // something else had the machine
    assert(times.seconds(1)! > 0.07);
    now.mock.mockImplementation(() => 6000);
    assert(times.seconds(1)! < 0.015);
    times.observe(1, 0.1);
    assert(times.seconds(1)! > 0.07);
  });

  test('runs of one size alone, and noise, give nothing absurd', () => {
    const times = new RunTimes();
    for (let i = 0; i < 5; i++) times.observe(4, 0.02);
    assert(Math.abs(times.seconds(8)! - 0.04) < 1e-9);
    times.observe(1, 0.05); // a hiccup: a larger batch seems faster
    assert(times.seconds(16)! >= 0 && times.seconds(1)! >= 0);
    assert(times.batch(32) >= 1);
  });

  test('a batch is as large as gains throughput: twice as large is tried as long as it does, and again after a while', () => {
    const times = new RunTimes();
    const run = (rows: number, rate: number): void => times.observe(rows, rows / rate);
    assert.equal(times.batch(16), 16);
    run(1, 97);
    assert.equal(times.batch(16), 16); // one size says nothing
    run(2, 103);
    assert.equal(times.batch(16), 4);
    run(4, 112);
    assert.equal(times.batch(16), 8);
    run(8, 82); // its activations do not fit into the caches
    assert.equal(times.batch(16), 4);
    assert.equal(times.batch(3), 3);
    for (let i = 0; i < 20; i++) run(3, 105); // smaller ones do as well
    assert.equal(times.batch(16), 2);
    const tried: number[] = [];
    for (let i = 0; i < 2000; i++) {
      const rows = times.batch(16);
      tried.push(rows);
      run(rows, rows === 8 ? 130 : 100); // the machine has become quiet
    }
    assert.equal(tried.at(-1), 8);
    assert(tried.filter((rows) => rows > 8).length < 50);
  });

  test('where batches were always full, smaller ones are tried as well', () => {
    const times = new RunTimes();
    const tried: number[] = [];
    for (let i = 0; i < 1000; i++) {
      const rows = times.batch(6);
      tried.push(rows);
      times.observe(rows, rows / (rows <= 4 ? 58 : 50));
    }
    assert.deepEqual(tried.slice(0, 9), [6, 6, 6, 6, 6, 6, 6, 6, 3]);
    assert(tried.slice(9).filter((rows) => rows === 4).length > 900);
  });
});

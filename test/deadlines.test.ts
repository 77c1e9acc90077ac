import assert from 'node:assert/strict';
import { rename, rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import request from 'supertest';
import { childInTime, Lateness, RecentMean, type Expected, type Reached } from '../serve/deadlines.js';
import type { RunningServer } from '../serve/server.js';
import { frontierChildren, type Checkpoint } from '../src/checkpoint/checkpoint.js';
import type { ChildRecord, Frontier } from '../src/checkpoint/frontier.js';
import { BignasError } from '../src/errors.js';
import { recordOf } from '../src/search/family.js';
import { tiny } from '../src/space/presets/tiny.js';
import { sampleArchitecture } from '../src/space/sample.js';
import { makeCheckpoint } from './support/checkpoint.js';
import { png } from './support/images.js';
import { temporaryFolder, testServer } from './support/server.js';

describe('the child of a deadline', () => {
  /** Children 0 … 4, the later the more accurate and the slower: 10, 20, … 50 ms. */
  const children = Array.from({ length: 5 }, (_, i): ChildRecord => ({ ...recordOf(tiny, sampleArchitecture(tiny, [i])), accuracy: { value: 0.5 + i / 10, split: 'validation', images: 100 } }));
  const frontier = { family: { smallest: children[0], S: children[0], M: children[1], L: children[2], XL: children[3], biggest: children[4] }, front: children } as unknown as Frontier;
  const all = { minAccuracy: 0, budget: {} };
  const reached = (some: Partial<Reached> = {}): Reached => ({ spent: 0, queue: 0, decode: 0, ...some });
  const place = (child: ChildRecord): number => children.findIndex(({ id }) => id === child.id);
  const loaded = (wait: number, places = [0, 1, 2, 3, 4]) => (id: string): Expected | undefined => {
    const i = children.findIndex((child) => child.id === id);
    return places.includes(i) ? { wait, run: 10 * (i + 1) } : undefined;
  };

  test('is the most accurate that makes it, with a tenth in reserve', () => {
    for (const [deadline, expected] of [[1000, 4], [60, 4], [55, 3], [40, 2], [12, 0]] as const)
      assert.equal(place(childInTime(frontierChildren(frontier), { deadline, ...all }, reached(), 0, loaded(0)).child), expected, String(deadline));
    const { expected, slid } = childInTime(frontierChildren(frontier), { deadline: 60, ...all }, reached({ spent: 2, decode: 1 }), 0, loaded(0));
    assert.deepEqual([expected, slid], [53, false]);
  });

  test('slides to smaller ones under load, down to the accuracy that is asked for, and no further', () => {
    const slid = childInTime(frontierChildren(frontier), { deadline: 60, ...all }, reached(), 0, loaded(30));
    assert.deepEqual([place(slid.child), slid.slid, slid.expected], [1, true, 50]);
    assert.throws(() => childInTime(frontierChildren(frontier), { deadline: 60, minAccuracy: 0.7, budget: {} }, reached(), 0, loaded(30)), { code: 'OVERLOADED', message: /would answer after 60 ms/ });
    assert.equal(place(childInTime(frontierChildren(frontier), { deadline: 60, minAccuracy: 0.7, budget: {} }, reached(), 0, loaded(20)).child), 2);
    assert.throws(() => childInTime(frontierChildren(frontier), { deadline: 60, minAccuracy: 0.95, budget: {} }, reached(), 0, loaded(0)), { code: 'BUDGET_TOO_SMALL' });
  });

  test('is refused at once where none can make it, and says what could', () => {
    assert.throws(() => childInTime(frontierChildren(frontier), { deadline: 5, ...all }, reached(), 0, loaded(0)), (error: BignasError) => {
      assert.equal(error.code, 'DEADLINE_TOO_SHORT');
      assert.match(error.message, /to be 12 ms or more: the fastest child allowed takes 10 ms/);
      assert.equal((error.details['fastest'] as { id: string }).id, children[0]!.id);
      return true;
    });
    assert.throws(() => childInTime(frontierChildren(frontier), { deadline: 30, ...all }, reached({ spent: 25 }), 0, loaded(0)), { code: 'DEADLINE_TOO_SHORT' });
  });

  test('is one that makes it even as late as answers come now and then; the fastest, where none is sure to', () => {
    const choose = (late: number, wait = 0) => childInTime(frontierChildren(frontier), { deadline: 60, ...all }, reached(), late, loaded(wait));
    assert.deepEqual([0, 10, 25, 44, 60].map((late) => place(choose(late).child)), [4, 3, 1, 0, 0]);
    assert.deepEqual([choose(10).slid, choose(10).expected], [true, 40]);
    assert.throws(() => choose(0, 50), { code: 'OVERLOADED' });
    assert.equal(place(choose(30, 40).child), 0);
  });

  test('waits for those before it while it is decoded itself', () => {
    const choose = (queue: number, wait: number) => childInTime(frontierChildren(frontier), { deadline: 100, ...all }, reached({ queue, decode: 5 }), 0, loaded(wait));
    assert.deepEqual([choose(20, 0), choose(20, 25), choose(0, 25)].map(({ expected }) => expected), [75, 75, 75]);
    assert.equal(choose(0, 35).expected, 85);
    assert.equal(place(choose(50, 0).child), 2);
    // It is the queue, not the request, that makes it late: it may ask again.
    assert.throws(() => choose(90, 0), { code: 'OVERLOADED' });
  });

  test('what decoding takes is the mean of late; one standstill does not spoil it, and what kept all away is forgotten', (t) => {
    let now = 1000;
    t.mock.method(performance, 'now', () => now);
    const mean = new RecentMean();
    assert.equal(mean.milliseconds, 0);
    mean.observe(40); // the first is cold
    assert.equal(mean.milliseconds, 40);
    for (let i = 0; i < 200; i++) mean.observe(i % 2 === 0 ? 1 : 3);
    assert(mean.milliseconds > 1.8 && mean.milliseconds < 2.5, String(mean.milliseconds));
    const before = mean.milliseconds;
    mean.observe(2000);
    assert(mean.milliseconds < 1.2 * before, String(mean.milliseconds));
    for (let i = 0; i < 400; i++) mean.observe(30);
    assert(mean.milliseconds > 29, String(mean.milliseconds));
    now += 6000;
    assert.equal(mean.milliseconds, 0);
    mean.observe(30);
    assert(mean.milliseconds > 29);
  });

  test('how late answers come is learned from them, and forgotten', (t) => {
    let now = 1000;
    t.mock.method(performance, 'now', () => now);
    const lateness = new Lateness();
    for (let i = 0; i < 20_000; i++) lateness.observe(i % 200 === 0 ? 50 : i % 20 === 0 ? 10 : -5);
    assert(lateness.milliseconds > 8 && lateness.milliseconds < 14, `${lateness.milliseconds}`); // one in two hundred comes later than 10
    for (let i = 0; i < 60; i++) lateness.observe(100);
    const bad = lateness.milliseconds;
    assert(bad > 60);
    now += 10_000;
    assert(Math.abs(lateness.milliseconds - bad / 2) < 1e-9);
    for (let i = 0; i < 10_000; i++) lateness.observe(-1);
    assert.equal(lateness.milliseconds, 0);
  });

  test('is one that is in memory, and within the budgets', () => {
    assert.equal(place(childInTime(frontierChildren(frontier), { deadline: 1000, ...all }, reached(), 0, loaded(0, [1, 3])).child), 3);
    assert.throws(() => childInTime(frontierChildren(frontier), { deadline: 1000, ...all }, reached(), 0, loaded(0, [])), { code: 'OVERLOADED', message: /not in memory yet/ });
    const flops = children[2]!.costs.flops.value;
    const { child } = childInTime(frontierChildren(frontier), { deadline: 1000, minAccuracy: 0, budget: { flops } }, reached(), 0, loaded(0));
    assert(child.costs.flops.value <= flops);
  });
});

describe('a server with a deadline', () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let checkpoint: Checkpoint;
  let server: RunningServer;
  let photo: Buffer;
  const post = (query: string) => request(server.url).post(`/predict?${query}`).set('Content-Type', 'image/png').send(photo);
  interface Answer { readonly choice: string; readonly id: string; readonly deadline: { readonly asked: number; readonly expected: number; readonly took: number; readonly met: boolean; readonly slid: boolean }; readonly code: string }

  before(async () => {
    folder = await temporaryFolder();
    checkpoint = await makeCheckpoint(tiny, join(folder.path, 'checkpoint'), { calibrated: ['smallest', 'S', 'M', 'L', 'XL', 'biggest'] });
    server = await testServer(checkpoint.folder, { warm: true });
    photo = await png(20, 20);
    const { biggest } = checkpoint.frontier.family;
    for (let tries = 0; tries < 200 && !server.services.children.expected(server.services.inService.current, 1)(biggest.id); tries++) await sleep(50);
  });
  after(async () => {
    await server.stop(1000);
    await folder.remove();
  });

  test('has its family in memory, and answers with the best child in time', async () => {
    const { body } = (await post('deadline=20s').expect(200)) as { body: Answer };
    assert.equal(body.choice, 'most accurate in time');
    assert.equal(body.id, checkpoint.frontier.family.biggest.id);
    assert.deepEqual([body.deadline.asked, body.deadline.met, body.deadline.slid], [20000, true, false]);
    assert(body.deadline.expected > 0 && body.deadline.took > 0);
  });

  test('counts on all images of a request', async (t) => {
    const { children, inService: { current: { describe } } } = server.services;
    const expected = t.mock.method(children, 'expected', (_served: unknown, count: number) => () => ({ wait: 0, run: 1000 * count }));
    const { resolution } = describe(checkpoint.frontier.family.M.architecture);
    const infer = (count: number, deadline: string) =>
      request(server.url).post('/v2/models/bignas/infer').send({ inputs: [{ name: 'input', shape: [count, 3, resolution, resolution], datatype: 'FP32', data: new Array(count * 3 * resolution ** 2).fill(0) }], parameters: { deadline } });
    await infer(3, '2s').expect(504);
    await infer(3, '4s').expect(200);
    assert(expected.mock.calls.every(({ arguments: [, count] }) => count === 3));
    await post('deadline=1200ms').expect(200);
    await post('deadline=800ms').expect(504);
  });

  test('slides after predictions that were given up, as after late ones', async (t) => {
    const { children, predictions, inService } = server.services;
    t.mock.method(children, 'expected', () => (id: string) => ({ wait: 0, run: id === checkpoint.frontier.family.biggest.id ? 500 : 1 }));
    const chosen = (): string => predictions.choose(inService.current, { deadline: '600ms' }).child(0, 1, false).child.id;
    assert.equal(chosen(), checkpoint.frontier.family.biggest.id);
    const classify = t.mock.method(children, 'classify', () => Promise.reject(new BignasError('DEADLINE_MISSED', 'too late')));
    for (let i = 0; i < 60; i++) await post('deadline=600ms').expect(504);
    assert.notEqual(chosen(), checkpoint.frontier.family.biggest.id);
    classify.mock.restore();
  });

  test('what cannot be in time any more when it is its turn is not decoded', async (t) => {
    const { images, children } = server.services;
    let asked = 0;
    let go = (): void => undefined;
    const gone = new Promise<void>((resolve) => (go = resolve));
    for (const { worker } of images) {
      const post = worker.postMessage.bind(worker);
      t.mock.method(worker, 'postMessage', (...message: Parameters<typeof post>) => {
        asked++;
        void gone.then(() => {
          post(...message);
        });
      });
    }
    // Nobody answers: all workers are busy until the deadline is over.
    const busy = images.map(() => post('arch=M').expect(200));
    const all = Promise.all(busy);
    while (asked < images.length) await sleep(5);
    t.mock.method(children, 'expected', () => () => ({ wait: 0, run: 1 }));
    const late = post('deadline=200ms').then(({ status, body }) => [status, (body as Answer).code]);
    await sleep(300);
    go();
    await all;
    assert.deepEqual(await late, [504, 'DEADLINE_MISSED']);
    assert.equal(asked, images.length);
  });

  test('a checkpoint that replaces another has its family in memory as well', async () => {
    const { children, inService, reloader } = server.services;
    const all = ['smallest', 'S', 'M', 'L', 'XL', 'biggest'] as const;
    const next = await makeCheckpoint(tiny, join(folder.path, 'next'), { seed: 2, calibrated: all });
    await rm(checkpoint.folder, { recursive: true });
    await rename(next.folder, checkpoint.folder);
    assert.equal((await reloader.reload()).result, 'ok');
    const { family } = inService.current.checkpoint.frontier;
    const ids = new Set(all.map((name) => family[name].id));
    const missing = (): string[] => [...ids].filter((id) => !children.loaded(inService.current).some((child) => child.id === id));
    for (let tries = 0; tries < 200 && missing().length > 0; tries++) await sleep(50);
    assert.deepEqual(missing(), []);
  });

  test('refuses what cannot be: 504 before anything is computed', async () => {
    const { body } = (await post('deadline=1us').expect(504)) as { body: Answer };
    assert.equal(body.code, 'DEADLINE_TOO_SHORT');
    for (const [query, code] of [['deadline=20s&arch=M', 'PARAMETER_INVALID'], ['min_accuracy=0.5', 'PARAMETER_INVALID'], ['deadline=20s&min_accuracy=2', 'PARAMETER_INVALID'], ['deadline=soon', 'BUDGET_MALFORMED']] as const) {
      const answer = (await post(query).expect(400)) as { body: Answer };
      assert.equal(answer.body.code, code, query);
    }
    await post('deadline=20s&min_accuracy=1.0').expect(422);
  });

  test('counts deadlines met and refused', async () => {
    const { text } = await request(server.url).get('/metrics');
    assert.match(text, /bignas_deadlines_total\{result="met"\} [1-9]/);
    assert.match(text, /bignas_deadlines_total\{result="refused"\} [1-9]/);
    assert.match(text, /bignas_batch_rows_count [1-9]/);
  });

  test('under a crowd, whoever is answered with 200 has an answer; the others are refused, and none is lost', async () => {
    const answers = await Promise.all(Array.from({ length: 60 }, () => post('deadline=150ms').then(({ status, body }) => ({ status, body: body as Answer }))));
    assert(answers.every(({ status }) => [200, 503, 504].includes(status)), JSON.stringify(answers.map(({ status }) => status)));
    assert(answers.some(({ status }) => status === 200));
  });
});

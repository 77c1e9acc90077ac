import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { formatArchitecture } from '../src/space/architecture.js';
import { AppendFile } from '../src/files/appendFile.js';
import { eventsOf, historyFile, readHistory } from '../src/train/watch/history.js';
import { watchRun } from '../src/train/watch/watch.js';
import { hearing, stepEvent, steps } from './support/run.js';

let folder: string;
const file = (): string => join(folder, historyFile);
/** The history as event and step: `step 3`. */
const outline = async (): Promise<string[]> => (await readHistory(folder)).map(({ event, step }) => `${event} ${step}`);
const silent = hearing().report;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bignas-history-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('a history has all that happened, in its order, and the reporter hears it, too', async () => {
  const { heard, report } = hearing();
  const watch = await watchRun({ folder, step: 0, report });
  await steps(watch, 1, 2);
  await watch.flush();
  await watch.saved(2);
  await watch.evaluation(2, { biggest: 0.5, smallest: 0.25 });
  await watch.close();

  const history = await readHistory(folder);
  assert.deepEqual(await outline(), ['start 0', 'step 1', 'step 2', 'save 2', 'evaluation 2']);
  const event = stepEvent(2);
  const { time, ...written } = eventsOf(history, 'step')[1]!;
  assert.ok(Math.abs(Date.now() - Date.parse(time)) < 3_600_000);
  assert.deepEqual(written, {
    event: 'step', step: 2, epoch: 0.2, rate: 0.05, seconds: 0.5, imagesPerSecond: 128,
    losses: event.losses.map(({ architecture, loss }, i) => ({ child: event.children[i], architecture: formatArchitecture(architecture), loss })),
  });
  assert.deepEqual(eventsOf(history, 'evaluation')[0]!.accuracy, { biggest: 0.5, smallest: 0.25 });
  assert.deepEqual(heard, [['step', stepEvent(1)], ['step', event], ['saved', 2], ['evaluation', 2, { biggest: 0.5, smallest: 0.25 }]]);
});

test('steps wait in memory; a flush before the checkpoint has them on disk', async () => {
  const watch = await watchRun({ folder, step: 0, report: silent });
  await steps(watch, 1, 20);
  assert.equal(readFileSync(file(), 'utf8'), '');
  await watch.flush();
  assert.equal((await outline()).length, 21);
  await watch.close();
});

test('a run that resumes at a step drops what came after it, and says that it resumed', async () => {
  const first = await watchRun({ folder, step: 0, report: silent });
  await steps(first, 1, 3);
  await first.saved(3);
  await first.evaluation(3, { biggest: 0.5, smallest: 0.25 });
  await steps(first, 4, 6);
  await first.close();
  const kept = readFileSync(file(), 'utf8').split('\n').slice(0, 6).join('\n');

  const { heard, report } = hearing();
  const second = await watchRun({ folder, step: 3, report });
  await steps(second, 4, 4);
  await second.close();
  assert.deepEqual(await outline(), ['start 0', 'step 1', 'step 2', 'step 3', 'save 3', 'evaluation 3', 'resume 3', 'step 4']);
  assert.ok(readFileSync(file(), 'utf8').startsWith(`${kept}\n`), 'what is kept has the same bytes');
  assert.deepEqual(heard[0], ['resumed', 3]);

  // A run that was killed before its checkpoint had the evaluation evaluates again.
  const third = await watchRun({ folder, step: 3, report: silent });
  await third.evaluation(3, { biggest: 0.5, smallest: 0.25 });
  await steps(third, 4, 5);
  await third.evaluation(5, { biggest: 0.75, smallest: 0.5 });
  await third.rollback({ from: 6, to: 3, salt: 1, reason: 'no' });
  await steps(third, 4, 5);
  await third.evaluation(5, { biggest: 0.5, smallest: 0.5 });
  await third.close();
  assert.deepEqual(eventsOf(await readHistory(folder), 'evaluation').map(({ step, accuracy }) => [step, accuracy.biggest]), [[3, 0.5], [5, 0.5]]);

  // A run that begins anew has no past.
  await (await watchRun({ folder, step: 0, report: silent })).close();
  assert.deepEqual(await outline(), ['start 0']);
});

test('a last line that a kill cut off is passed over, and gone when the run resumes: wherever it was cut', async () => {
  const watch = await watchRun({ folder, step: 0, report: silent });
  await steps(watch, 1, 2);
  await watch.close();
  const whole = readFileSync(file());
  const lastLine = whole.lastIndexOf('\n', whole.length - 2) + 1;
  for (const cut of [lastLine, lastLine + 1, Math.floor((lastLine + whole.length) / 2), whole.length - 1]) {
    writeFileSync(file(), whole.subarray(0, cut));
    assert.deepEqual(await outline(), ['start 0', 'step 1']);
    const resumed = await watchRun({ folder, step: 1, report: silent });
    await steps(resumed, 2, 2);
    await resumed.close();
    assert.deepEqual(await outline(), ['start 0', 'step 1', 'resume 1', 'step 2']);
  }
});

test('a rollback drops the steps it undid, and is kept itself', async () => {
  const { heard, report } = hearing();
  const watch = await watchRun({ folder, step: 0, report });
  await steps(watch, 1, 2);
  await watch.saved(2);
  await steps(watch, 3, 4);
  const rollback = { from: 5, to: 2, salt: 1, reason: 'The loss of step 5 is NaN.' };
  await watch.rollback(rollback);
  await steps(watch, 3, 3);
  await watch.close();
  assert.deepEqual(await outline(), ['start 0', 'step 1', 'step 2', 'save 2', 'rollback 2', 'step 3']);
  const { time: _, ...written } = eventsOf(await readHistory(folder), 'rollback')[0]!;
  assert.deepEqual(written, { event: 'rollback', step: 2, from: 5, salt: 1, reason: 'The loss of step 5 is NaN.' });
  assert.deepEqual(heard.find(([name]) => name === 'rollback'), ['rollback', rollback]);
});

test('a run without a history resumes and begins one', async () => {
  const watch = await watchRun({ folder, step: 7, report: silent });
  await steps(watch, 8, 8);
  await watch.close();
  assert.deepEqual(await outline(), ['start 7', 'resume 7', 'step 8']);
});

test('what is no history is refused with its line and its reason', async () => {
  await assert.rejects(readHistory(folder), { code: 'HISTORY_INVALID', message: /is missing or empty/ });
  const watch = await watchRun({ folder, step: 0, report: silent });
  await steps(watch, 1, 1);
  await watch.close();
  const good = readFileSync(file(), 'utf8');
  for (const [line, message] of [
    ['{"event":', /Line 3 of .* is no JSON: `{"event":`/],
    ['{"event":"save","step":-1,"time":"2026-01-01T00:00:00Z"}', /Line 3 of .* is no event of a history: step: /],
    ['{"event":"party","step":1,"time":"2026-01-01T00:00:00Z"}', /Line 3 of .* is no event of a history: event: /],
  ] as const) {
    writeFileSync(file(), `${good}${line}\n${good.split('\n')[1]}\n`);
    await assert.rejects(readHistory(folder), { code: 'HISTORY_INVALID', message });
    await assert.rejects(watchRun({ folder, step: 1, report: silent }), { code: 'HISTORY_INVALID', message });
  }
  writeFileSync(file(), good.replace('"version":1', '"version":2,"news":true'));
  await assert.rejects(readHistory(folder), { code: 'HISTORY_INVALID', message: /later version of bignas: update it/ });
});

test('characters of several bytes survive the cuts between chunks', async () => {
  const watch = await watchRun({ folder, step: 0, report: silent });
  const reason = 'ü漢'.repeat(40_000); // over the size of a read
  await watch.rollback({ from: 1, to: 0, salt: 1, reason });
  await watch.close();
  assert.equal(eventsOf(await readHistory(folder), 'rollback')[0]!.reason, reason);
});

/** Adds 3000 bytes, flushes them, adds as many again, which go beyond the limit on a file's size, and tries to flush them twice. */
const overTheLimit = `
  import { AppendFile } from ${JSON.stringify(new URL('../src/files/appendFile.js', import.meta.url).href)};
  const file = await AppendFile.open(process.argv[1]);
  for (const text of ['a', 'b']) {
    file.add(Buffer.from(text.repeat(2999) + '\\n'));
    for (let attempt = 0; attempt < 2; attempt++) await file.flush({ sync: true }).catch((error) => console.log(error.code));
  }
`;

test('a disk that is full is an error, and leaves whole records', { skip: !existsSync('/bin/bash') }, () => {
  const path = join(folder, 'limited');
  // The shell's limit on a file's size stands for the disk's: a write goes through in part, and then fails.
  const run = spawnSync('/bin/bash', ['-c', 'ulimit -f 4; exec "$@"', 'bash', process.execPath, '--input-type=module', '-e', overTheLimit, path], { encoding: 'utf8' });
  assert.equal(run.status, 0, run.stderr);
  assert.deepEqual(run.stdout.trim().split('\n'), ['EFBIG', 'EFBIG']);
  assert.equal(readFileSync(path, 'utf8'), `${'a'.repeat(2999)}\n`);
});

test('what waits when a flush failed is written by the next one, once', async () => {
  const path = join(folder, 'file');
  const appending = await AppendFile.open(path);
  const handle = (appending as unknown as { file: { writeFile: (bytes: Uint8Array) => Promise<void> } }).file;
  const { writeFile } = handle;
  appending.add(Buffer.from('one\n'));
  await appending.flush();
  appending.add(Buffer.from('two\n'));
  handle.writeFile = async (bytes) => {
    await writeFile.call(handle, bytes.subarray(0, 2));
    throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
  };
  await assert.rejects(appending.flush(), { code: 'ENOSPC' });
  assert.equal(readFileSync(path, 'utf8'), 'one\n');
  handle.writeFile = writeFile;
  appending.add(Buffer.from('three\n'));
  await appending.close();
  assert.equal(readFileSync(path, 'utf8'), 'one\ntwo\nthree\n');
  // One who opens it again goes on at its end.
  appendFileSync(path, 'four\n');
  const again = await AppendFile.open(path);
  again.add(Buffer.from('five\n'));
  await again.close();
  assert.equal(readFileSync(path, 'utf8'), 'one\ntwo\nthree\nfour\nfive\n');
});

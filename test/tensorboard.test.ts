import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { crc32c, tfRecord } from '../src/train/watch/tfrecord.js';
import { watchRun } from '../src/train/watch/watch.js';
import { hearing, stepEvent, steps } from './support/run.js';

let folder: string;
const silent = hearing().report;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bignas-tensorboard-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('CRC-32C gives the vectors of RFC 3720, appendix B.4', () => {
  const readCommand = Buffer.from('01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000', 'hex');
  for (const [bytes, crc] of [
    [new Uint8Array(32), 0x8a9136aa],
    [new Uint8Array(32).fill(0xff), 0x62a8ab43],
    [Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    [Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
    [readCommand, 0xd9963a56],
  ] as const)
    assert.equal(crc32c(bytes).toString(16), crc.toString(16));
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
});

test('a record has the bytes that TensorBoard writes', () => {
  // tensorboard.summary.writer.record_writer.RecordWriter of TensorBoard 2.21, of b'bignas'.
  assert.equal(Buffer.from(tfRecord(Buffer.from('bignas'))).toString('hex'), '06000000000000007369d5376269676e6173b2053884');
});

test('the event files hold the scalars of every step, framed and checked', async () => {
  const watch = await watchRun({ folder, step: 0, report: silent });
  await steps(watch, 1, 3);
  await watch.evaluation(3, { biggest: 0.75, smallest: 0.5 });
  await watch.close();
  const [name, ...others] = readdirSync(join(folder, 'tensorboard'));
  assert.deepEqual(others, []);
  assert.match(name!, new RegExp(`^events\\.out\\.tfevents\\.\\d{10}\\..+\\.${process.pid}\\.0$`));
  const events = eventsIn(name!);
  assert.equal(events[0]!.version, 'brain.Event:2');
  assert.deepEqual(events[1], { step: 1, start: true, scalars: {} });
  const { losses, rate } = stepEvent(2);
  const [biggest, one, other, smallest] = losses.map(({ loss }) => loss);
  assert.deepEqual(events[3], {
    step: 2,
    scalars: rounded({ 'loss/biggest': biggest!, 'loss/random': (one! + other!) / 2, 'loss/smallest': smallest!, learning_rate: rate, images_per_second: 128 }),
  });
  assert.deepEqual(events[5], { step: 3, scalars: { 'accuracy/biggest': 0.75, 'accuracy/smallest': 0.5 } });
  assert.equal(events.length, 6);
});

test('each session, and each rollback, begins a file behind the others that takes back the steps beyond its own', async () => {
  const first = await watchRun({ folder, step: 0, report: silent });
  await steps(first, 1, 4);
  await first.rollback({ from: 5, to: 3, salt: 1, reason: 'NaN.' });
  await steps(first, 4, 4);
  await first.close();
  const second = await watchRun({ folder, step: 2, report: silent });
  await steps(second, 3, 3);
  await second.close();
  const files = readdirSync(join(folder, 'tensorboard')).sort();
  assert.deepEqual(files.map((name) => eventsIn(name).slice(1).map(({ step, start }) => (start ? `start ${step}` : step))), [
    ['start 1', 1, 2, 3, 4],
    ['start 4', 4],
    ['start 3', 3],
  ]);
});

interface ReadEvent {
  readonly version?: string;
  readonly step?: number;
  readonly start?: boolean;
  readonly scalars: Record<string, number>;
}

/** Reads an event file by TFRecord's and protobuf's definitions, without the code that wrote it. */
function eventsIn(name: string): ReadEvent[] {
  const bytes = readFileSync(join(folder, 'tensorboard', name));
  const events: ReadEvent[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    const data = bytes.subarray(at + 12, at + 12 + length);
    assert.equal(data.length, length, 'the record is whole');
    assert.equal(unmasked(bytes.readUInt32LE(at + 8)), slowCrc(bytes.subarray(at, at + 8)));
    assert.equal(unmasked(bytes.readUInt32LE(at + 12 + length)), slowCrc(data));
    events.push(readEvent(data));
    at += 12 + length + 4;
  }
  return events;
}

/** tsl/lib/hash/crc32c.h: Unmask */
function unmasked(masked: number): number {
  const rotated = (masked - 0xa282ead8) >>> 0;
  return ((rotated >>> 17) | (rotated << 15)) >>> 0;
}

/** By long division, a bit at a time. */
function slowCrc(bytes: Uint8Array): number {
  let rest = 0xffffffff;
  for (const byte of bytes)
    for (let bit = 0; bit < 8; bit++) {
      const out = (rest ^ (byte >>> bit)) & 1;
      rest = (rest >>> 1) ^ (out ? 0x82f63b78 : 0);
    }
  return ~rest >>> 0;
}

function readEvent(data: Buffer): ReadEvent {
  const fields = fieldsOf(data);
  const time = (fields.get(1)![0] as Buffer).readDoubleLE();
  assert.ok(Math.abs(Date.now() / 1000 - time) < 3600);
  const scalars = (fields.get(5) ?? []).flatMap((summary) => (fieldsOf(summary as Buffer).get(1) ?? []).map((value) => fieldsOf(value as Buffer)));
  const log = fields.get(7)?.[0];
  return {
    ...(fields.has(3) && { version: String(fields.get(3)![0]) }),
    ...(fields.has(2) && { step: fields.get(2)![0] as number }),
    ...(log !== undefined && { start: fieldsOf(log as Buffer).get(1)![0] === 1 }),
    scalars: Object.fromEntries(scalars.map((value) => [String(value.get(1)![0]), (value.get(2)![0] as Buffer).readFloatLE()])),
  };
}

/** A message's fields by number: varints as numbers, all else as bytes. */
function fieldsOf(data: Buffer): Map<number, (number | Buffer)[]> {
  const fields = new Map<number, (number | Buffer)[]>();
  let at = 0;
  const varint = (): number => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = data[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  const bytes = (length: number): Buffer => data.subarray(at, (at += length));
  while (at < data.length) {
    const tag = varint();
    const read = { 0: varint, 1: () => bytes(8), 2: () => bytes(varint()), 5: () => bytes(4) }[tag & 7];
    assert.ok(read, `wire type ${tag & 7}`);
    fields.set(tag >>> 3, [...(fields.get(tag >>> 3) ?? []), read()]);
  }
  return fields;
}

function rounded(values: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([tag, value]) => [tag, Math.fround(value)]));
}

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import protobuf from 'protobufjs/light.js';
import { float16Bits, float16Values } from '../src/encoding/float16.js';
import { encodeMessage, message, type Message } from '../src/encoding/wire.js';

const leaf: Message = message(['text', 1, 'string'], ['blob', 2, 'bytes'], ['numbers', 3, 'int', 'repeated'], ['floats', 9, 'float', 'repeated']);
const root: Message = message(['f', 20, 'float'], ['i', 1, 'int'], ['b', 2, 'bool'], ['leaf', 3, () => leaf], ['leaves', 4, () => leaf, 'repeated'], ['named', 5, () => leaf, 'map'], ['words', 6, 'string', 'repeated']);
const theirs = protobuf.Root.fromJSON({
  nested: {
    Leaf: {
      fields: {
        text: { id: 1, type: 'string' }, blob: { id: 2, type: 'bytes' },
        numbers: { id: 3, type: 'int64', rule: 'repeated' }, floats: { id: 9, type: 'float', rule: 'repeated' },
      },
    },
    Root: {
      fields: {
        i: { id: 1, type: 'int64' }, b: { id: 2, type: 'bool' }, leaf: { id: 3, type: 'Leaf' }, leaves: { id: 4, type: 'Leaf', rule: 'repeated' },
        named: { keyType: 'string', id: 5, type: 'Leaf' } as unknown as protobuf.IField, words: { id: 6, type: 'string', rule: 'repeated' }, f: { id: 20, type: 'float' },
      },
    },
  },
}).lookupType('Root');

const aLeaf = fc.record({ text: fc.string({ unit: 'binary' }), blob: fc.uint8Array({ maxLength: 1000 }), numbers: fc.array(fc.maxSafeInteger()), floats: fc.array(fc.float({ noNaN: true })) });
const word = fc.stringMatching(/^[a-z]{1,5}$/);
const aRoot = fc.record({
  i: fc.maxSafeInteger(), b: fc.boolean(), leaf: aLeaf, leaves: fc.array(aLeaf, { maxLength: 4 }), named: fc.dictionary(word, aLeaf, { maxKeys: 3, noNullPrototype: true }), words: fc.array(fc.string({ unit: 'binary' })),
  f: fc.float({ noNaN: true }),
}, { requiredKeys: [] });

test('a message is read by another implementation as it was written', () => {
  fc.assert(fc.property(aRoot, (value) => {
    const read = theirs.toObject(theirs.decode(encodeMessage(root, value)), { longs: Number, bytes: Array, defaults: true }) as Record<string, unknown>;
    const plain = ({ text, blob, numbers, floats }: { text: string; blob: Uint8Array; numbers: number[]; floats: number[] }): unknown => ({ text, blob: [...blob], numbers, floats });
    const expected: Record<string, unknown> = { i: 0, b: false, leaf: null, leaves: [], named: {}, words: [], f: 0 };
    for (const [key, field] of Object.entries(value)) {
      if (key === 'leaf') expected[key] = plain(field as never);
      else if (key === 'leaves') expected[key] = (field as never[]).map(plain);
      else if (key === 'named') expected[key] = Object.fromEntries(Object.entries(field as Record<string, never>).map(([name, entry]) => [name, plain(entry)]));
      else expected[key] = field;
    }
    assert.deepEqual(read, expected);
  }));
});

test('a number that has no exact int64 is refused', () => {
  assert.throws(() => encodeMessage(root, { i: 2 ** 60 }), /whole number/);
  assert.throws(() => encodeMessage(root, { i: 0.5 }), /whole number/);
});

test('half precision: every half is itself, and others go to the nearest, ties to even', () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((bits) => (bits & 0x7c00) !== 0x7c00 || (bits & 0x3ff) === 0);
  assert.deepEqual(float16Bits(float16Values(all)), all);
  fc.assert(fc.property(fc.float({ noNaN: true, min: -65000, max: 65000 }), (value) => {
    const [bits] = float16Bits(Float32Array.of(value));
    const magnitude = bits! & 0x7fff;
    const at = (candidate: number): number => float16Values(Uint16Array.of(candidate | (bits! & 0x8000)))[0]!;
    const error = Math.abs(at(magnitude) - value);
    for (const other of [magnitude - 1, magnitude + 1]) {
      if (other < 0 || other > 0x7bff) continue;
      const further = Math.abs(at(other) - value);
      assert.ok(error < further || (error === further && magnitude % 2 === 0), `${value}: ${magnitude}, but ${other} is nearer`);
    }
  }), { numRuns: 2000 });
  assert.deepEqual([...float16Bits(Float32Array.of(65519.99, 65520, Infinity, -Infinity, 2 ** -25, 1.0000001 * 2 ** -25, 0, -0))], [0x7bff, 0x7c00, 0x7c00, 0xfc00, 0, 1, 0, 0x8000]);
});

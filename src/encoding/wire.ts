/**
 * Protocol buffers' wire format, written from descriptors: what ONNX and TensorFlow models are files of. It depends on nothing, so that models can be
 * written in a browser, and nothing depends on the clock or the machine: the same value is the same bytes everywhere.
 */

/** Repeated numbers are packed. A `map` is a message's entries by key, in the order of its iteration. */
export type Rule = 'optional' | 'repeated' | 'map';
type Scalar = 'int' | 'bool' | 'float' | 'string' | 'bytes';

export interface Field {
  readonly name: string;
  readonly number: number;
  /** A scalar's type, or a message's. */
  readonly type: Scalar | (() => Message);
  readonly rule: Rule;
}

/** A message's fields; they are written in the order of their numbers. */
export type Message = readonly Field[];

export type FieldType = Field['type'];

/** A message type: its fields as [name, number, type, rule]. A message is named by a function, so that types may hold each other. */
export function message(...fields: readonly (readonly [name: string, number: number, type: FieldType, rule?: Rule])[]): Message {
  return fields.map(([name, number, type, rule = 'optional']) => ({ name, number, type, rule })).sort((a, b) => a.number - b.number);
}

const WIRE = { varint: 0, bytes: 2, float: 5 } as const;

/** The bytes of a message. Undefined fields are left out; others are written, defaults included. @throws Error for a number that has no exact int64 */
export function encodeMessage(type: Message, value: object): Uint8Array {
  const chunks = new Chunks();
  writeMessage(chunks, type, value);
  return chunks.joined();
}

function writeMessage(chunks: Chunks, type: Message, value: object): void {
  for (const { name, number, type: fieldType, rule } of type) {
    const field = (value as Readonly<Record<string, unknown>>)[name];
    if (field === undefined) continue;
    if (rule === 'map') {
      for (const [key, entry] of Object.entries(field as Readonly<Record<string, object>>)) {
        writeField(chunks, number, () => message(['key', 1, 'string'], ['value', 2, fieldType]), { key, value: entry });
      }
    } else if (rule === 'optional') writeField(chunks, number, fieldType, field);
    else if (fieldType === 'int' || fieldType === 'bool' || fieldType === 'float') writePacked(chunks, number, fieldType, field as readonly (number | boolean)[]);
    else for (const item of field as readonly unknown[]) writeField(chunks, number, fieldType, item);
  }
}

function writeField(chunks: Chunks, number: number, type: FieldType, value: unknown): void {
  switch (type) {
    case 'int':
    case 'bool':
      chunks.varint(8 * number + WIRE.varint);
      chunks.varint(Number(value));
      return;
    case 'float':
      chunks.varint(8 * number + WIRE.float);
      chunks.float(value as number);
      return;
    case 'string':
      writeBytes(chunks, number, new TextEncoder().encode(value as string));
      return;
    case 'bytes':
      writeBytes(chunks, number, value as Uint8Array);
      return;
    default: {
      const inner = new Chunks();
      writeMessage(inner, type(), value as object);
      chunks.varint(8 * number + WIRE.bytes);
      chunks.varint(inner.length);
      chunks.append(inner);
    }
  }
}

function writePacked(chunks: Chunks, number: number, type: 'int' | 'bool' | 'float', values: readonly (number | boolean)[]): void {
  if (values.length === 0) return;
  const inner = new Chunks();
  for (const value of values) {
    if (type === 'float') inner.float(value as number);
    else inner.varint(Number(value));
  }
  chunks.varint(8 * number + WIRE.bytes);
  chunks.varint(inner.length);
  chunks.append(inner);
}

function writeBytes(chunks: Chunks, number: number, bytes: Uint8Array): void {
  chunks.varint(8 * number + WIRE.bytes);
  chunks.varint(bytes.length);
  chunks.bytes(bytes);
}

/** Below this many bytes a copy is cheaper than a chunk of its own. */
const COPIED = 256;

/** Bytes to be: small ones gathered, large ones kept by reference until all are joined. */
class Chunks {
  readonly #done: Uint8Array[] = [];
  #open: number[] = [];
  length = 0;

  varint(value: number): void {
    if (!Number.isSafeInteger(value)) throw new Error(`Expected a whole number, got ${value}.`);
    if (value < 0) {
      // Two's complement in 64 bits: always ten bytes.
      let rest = BigInt.asUintN(64, BigInt(value));
      for (; rest > 127n; rest >>= 7n) this.#byte(Number(rest & 127n) | 128);
      this.#byte(Number(rest));
      return;
    }
    for (; value > 127; value = Math.floor(value / 128)) this.#byte((value % 128) | 128);
    this.#byte(value);
  }

  float(value: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    this.bytes(bytes);
  }

  bytes(bytes: Uint8Array): void {
    if (bytes.length <= COPIED) {
      for (const byte of bytes) this.#byte(byte);
      return;
    }
    this.#close();
    this.#done.push(bytes);
    this.length += bytes.length;
  }

  append(other: Chunks): void {
    if (other.#done.length === 0) {
      for (const byte of other.#open) this.#byte(byte);
      return;
    }
    this.#close();
    other.#close();
    this.#done.push(...other.#done);
    this.length += other.length;
  }

  joined(): Uint8Array {
    this.#close();
    const all = new Uint8Array(this.length);
    let at = 0;
    for (const chunk of this.#done) {
      all.set(chunk, at);
      at += chunk.length;
    }
    return all;
  }

  #byte(byte: number): void {
    this.#open.push(byte);
    this.length++;
  }

  #close(): void {
    if (this.#open.length === 0) return;
    this.#done.push(Uint8Array.from(this.#open));
    this.#open = [];
  }
}

import { elements } from '../graph/graph.js';

/** The element types that a checkpoint uses. */
interface Arrays {
  readonly F32: Float32Array;
  /** Bits of halves. */
  readonly F16: Uint16Array;
  readonly U8: Uint8Array;
  readonly I32: Int32Array;
}
type DType = keyof Arrays;
const arrays = { F32: Float32Array, F16: Uint16Array, U8: Uint8Array, I32: Int32Array } as const;

export interface Tensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly data: Arrays[D];
}

export type Tensors = ReadonlyMap<string, Tensor>;

const maximumHeader = 100_000_000; // the format's own limit, in bytes

/**
 * The bytes of a safetensors file: header length (uint64, little-endian), JSON header, data. The same tensors in the same order give
 * the same bytes.
 */
export function encodeSafetensors(tensors: Tensors, metadata: Readonly<Record<string, string>> = {}): Uint8Array {
  let end = 0;
  const header: Record<string, unknown> = Object.keys(metadata).length > 0 ? { __metadata__: metadata } : {};
  for (const [name, { dtype, shape, data }] of tensors) {
    if (elements(shape) !== data.length) throw new Error(`${name}: ${data.length} elements do not fill [${shape}].`);
    const begin = end;
    end += data.byteLength;
    header[name] = { dtype, shape, data_offsets: [begin, end] };
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.ceil(json.length / 8) * 8; // so that the data is aligned
  const bytes = new Uint8Array(8 + padded + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.fill(0x20, 8, 8 + padded);
  bytes.set(json, 8);
  let at = 8 + padded;
  for (const { data } of tensors.values()) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return bytes;
}

/**
 * Reads a safetensors file. Nothing in it is trusted: the header must be JSON, every type known, the tensors must tile the data
 * without gap or overlap.
 * @throws Error that says what is wrong.
 */
export function decodeSafetensors(bytes: Uint8Array): Tensors {
  if (bytes.length < 8) throw new Error(`expected at least 8 bytes, got ${bytes.length}`);
  const length = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(Math.min(maximumHeader, bytes.length - 8)))
    throw new Error(`the header claims ${length} bytes, but ${bytes.length - 8} follow`);
  const dataAt = 8 + Number(length);
  const entries = decodeHeader(bytes.subarray(8, dataAt));
  const tensors = new Map<string, Tensor>();
  let expected = 0;
  for (const { name, dtype, shape, begin, end } of entries) {
    if (begin !== expected) throw new Error(`tensor ${name} begins at ${begin}, expected ${expected}`);
    const size = elements(shape) * arrays[dtype].BYTES_PER_ELEMENT;
    if (end - begin !== size || dataAt + end > bytes.length)
      throw new Error(`tensor ${name} of [${shape}] needs ${size} bytes, has ${Math.min(end, bytes.length - dataAt) - begin}`);
    // Copied, so that it is aligned whatever the header's length.
    const data = new arrays[dtype](new Uint8Array(bytes.subarray(dataAt + begin, dataAt + end)).buffer);
    tensors.set(name, { dtype, shape, data });
    expected = end;
  }
  if (dataAt + expected !== bytes.length) throw new Error(`${bytes.length - dataAt - expected} bytes follow the last tensor`);
  return tensors;
}

/** A tensor's place: bytes from the end of the header on. */
export interface TensorPlace {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** What a safetensors header says, in the order of the data. @throws Error that says what is wrong */
export function decodeHeader(json: Uint8Array): TensorPlace[] {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json));
  } catch (error) {
    throw new Error(`the header is not JSON (${(error as Error).message})`, { cause: error });
  }
  if (header === null || typeof header !== 'object' || Array.isArray(header)) throw new Error('the header is not an object');
  return Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, value]) => ({ name, ...entry(name, value) }))
    .sort((a, b) => a.begin - b.begin);
}

function entry(name: string, value: unknown): { dtype: DType; shape: number[]; begin: number; end: number } {
  const natural = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  const { dtype, shape, data_offsets } = (value ?? {}) as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(arrays, dtype))
    throw new Error(`tensor ${name} has type ${String(dtype)}, expected ${Object.keys(arrays).join(', ')}`);
  if (!Array.isArray(shape) || !shape.every(natural)) throw new Error(`tensor ${name} has no legal shape`);
  const [begin, end] = Array.isArray(data_offsets) ? (data_offsets as unknown[]) : [];
  if (!natural(begin) || !natural(end) || end < begin) throw new Error(`tensor ${name} has no legal offsets`);
  return { dtype: dtype as DType, shape, begin, end };
}

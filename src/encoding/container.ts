import { crc32 as ownCrc32 } from './crc32.js';

/** A container's files by name, in their order. */
export type Files = ReadonlyMap<string, Uint8Array>;

export const containers = ['zip', 'tar'] as const;
export type Container = (typeof containers)[number];

/** What a server sends and takes for each. */
export const containerTypes: Readonly<Record<Container, string>> = { zip: 'application/zip', tar: 'application/x-tar' };

/** CRC-32 of bytes; a faster one than ours may be given. */
export type Crc32 = (bytes: Uint8Array) => number;

/**
 * A container that is the same bytes every time: files stored in the given order, no time, no owner, no padding beyond the format's. Names are of printable
 * ASCII and at most 100 long. @returns its parts, one after another; the files' own bytes are not copied. @throws Error beyond 4 GiB
 */
export function containerParts(container: Container, files: Files, crc32: Crc32 = ownCrc32): Uint8Array[] {
  for (const name of files.keys()) if (!/^[\x21-\x7e]{1,100}$/.test(name)) throw new Error(`${name}: expected a name of 1 to 100 printable ASCII characters.`);
  const parts = container === 'zip' ? zipParts(files, crc32) : tarParts(files);
  if (lengthOf(parts) >= 2 ** 32) throw new Error(`${lengthOf(parts)} bytes: expected less than 4 GiB.`);
  return parts;
}

/** The container's bytes in one piece. */
export function writeContainer(container: Container, files: Files, crc32?: Crc32): Uint8Array {
  return concatenated(containerParts(container, files, crc32));
}

export function concatenated(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(lengthOf(parts));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/**
 * Reads a container that `writeContainer` wrote: the files are views. It must be that to the byte, so that no damage goes unseen.
 * @throws Error that says what is wrong
 */
export function readContainer(bytes: Uint8Array, crc32?: Crc32): { readonly container: Container; readonly files: Files } {
  const container = containerOf(bytes);
  if (!container) throw new Error('it is neither a zip nor a tar');
  const files = container === 'zip' ? readZip(bytes) : readTar(bytes);
  let at = 0;
  for (const part of containerParts(container, files, crc32)) {
    if (!sameBytes(bytes.subarray(at, at + part.length), part)) throw new Error(`its bytes are not as they were written, from byte ${at} on: it is damaged, cut off, or was packed by another program`);
    at += part.length;
  }
  if (at !== bytes.length) throw new Error(`${bytes.length - at} bytes follow its end`);
  return { container, files };
}

/** One of a container's files. @throws Error where it is not there */
export function file(files: Files, name: string): Uint8Array {
  const bytes = files.get(name);
  if (!bytes) throw new Error(`it holds no ${name}`);
  return bytes;
}

function containerOf(bytes: Uint8Array): Container | undefined {
  if (bytes[0] === 0x50 && bytes[1] === 0x4b) return 'zip';
  return bytes.length >= 512 && String.fromCharCode(...bytes.subarray(257, 262)) === 'ustar' ? 'tar' : undefined;
}

const ascii = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0));

/** 1980-01-01, midnight: the first time that a zip can say. */
const DOS_DATE = 0x21;
/** Unix, format version 2.0. */
const MADE_BY = (3 << 8) | 20;
const REGULAR_FILE = 0o100644;

const LOCAL = { signature: 0x04034b50, bytes: 30 } as const;
const CENTRAL = { signature: 0x02014b50, bytes: 46 } as const;
const END = { signature: 0x06054b50, bytes: 22 } as const;

/** Entries stored, no data descriptors, no extra fields (APPNOTE 6.3.10, sections 4.3 and 4.4). */
function zipParts(files: Files, crc32: Crc32): Uint8Array[] {
  const parts: Uint8Array[] = [];
  const central: Uint8Array[] = [];
  let offset = 0;
  for (const [name, bytes] of files) {
    const common = [16, 20, 16, 0, 16, 0, 16, 0, 16, DOS_DATE, 32, crc32(bytes), 32, bytes.length, 32, bytes.length, 16, name.length, 16, 0] as const;
    parts.push(fields(32, LOCAL.signature, ...common), ascii(name), bytes);
    central.push(fields(32, CENTRAL.signature, 16, MADE_BY, ...common, 16, 0, 16, 0, 16, 0, 32, REGULAR_FILE * 2 ** 16, 32, offset), ascii(name));
    offset += LOCAL.bytes + name.length + bytes.length;
  }
  const size = lengthOf(central);
  const end = fields(32, END.signature, 16, 0, 16, 0, 16, files.size, 16, files.size, 32, size, 32, offset, 16, 0);
  return [...parts, ...central, end];
}

/** Unsigned numbers, little-endian: bits and value in turn. */
function fields(...pairs: readonly number[]): Uint8Array {
  let length = 0;
  for (let i = 0; i < pairs.length; i += 2) length += pairs[i]! / 8;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i] === 16) view.setUint16(at, pairs[i + 1]!, true);
    else view.setUint32(at, pairs[i + 1]!, true);
    at += pairs[i]! / 8;
  }
  return bytes;
}

function readZip(bytes: Uint8Array): Files {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const files = new Map<string, Uint8Array>();
  let at = 0;
  while (at + LOCAL.bytes <= bytes.length && view.getUint32(at, true) === LOCAL.signature) {
    const size = view.getUint32(at + 18, true);
    const nameAt = at + LOCAL.bytes;
    const begin = nameAt + view.getUint16(at + 26, true);
    add(files, String.fromCharCode(...bytes.subarray(nameAt, begin)), bytes, begin, size);
    at = begin + size;
  }
  return files;
}

const BLOCK = 512;

/** Headers as POSIX 1003.1-1988 has them (ustar), and two empty blocks. */
function tarParts(files: Files): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (const [name, bytes] of files) {
    const header = new Uint8Array(BLOCK);
    const put = (at: number, text: string): void => {
      header.set(ascii(text), at);
    };
    const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, '0')}\0`;
    put(0, name);
    put(100, octal(0o644, 7));
    put(108, octal(0, 7));
    put(116, octal(0, 7));
    put(124, octal(bytes.length, 11));
    put(136, octal(0, 11));
    put(148, ' '.repeat(8));
    put(156, '0');
    put(257, 'ustar\x0000');
    const sum = header.reduce((total, byte) => total + byte, 0);
    put(148, `${octal(sum, 6)} `);
    parts.push(header, bytes, new Uint8Array((BLOCK - (bytes.length % BLOCK)) % BLOCK));
  }
  return [...parts, new Uint8Array(2 * BLOCK)];
}

function readTar(bytes: Uint8Array): Files {
  const text = (begin: number, end: number): string => {
    const field = String.fromCharCode(...bytes.subarray(begin, end));
    return field.includes('\0') ? field.slice(0, field.indexOf('\0')) : field;
  };
  const files = new Map<string, Uint8Array>();
  let at = 0;
  while (at + BLOCK <= bytes.length && bytes[at] !== 0) {
    const size = parseInt(text(at + 124, at + 136), 8);
    if (!Number.isSafeInteger(size)) throw new Error(`a header at byte ${at} has no size`);
    add(files, text(at, at + 100), bytes, at + BLOCK, size);
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  return files;
}

function add(files: Map<string, Uint8Array>, name: string, bytes: Uint8Array, begin: number, size: number): void {
  if (begin + size > bytes.length) throw new Error(`it ends within ${JSON.stringify(name)}`);
  if (files.has(name)) throw new Error(`it holds ${JSON.stringify(name)} twice`);
  files.set(name, bytes.subarray(begin, begin + size));
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function lengthOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, { length }) => sum + length, 0);
}

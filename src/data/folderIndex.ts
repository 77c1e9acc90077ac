/** Which images a folder holds: their paths, sizes and classes, never their pixels. */
import { createHash } from 'node:crypto';
import { readdir, realpath, stat } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { BignasError, shown } from '../errors.js';
import type { PathTable } from './dataset.js';

/** The folders that a data set may have; `train` is needed. */
export type PartName = 'train' | 'val' | 'test';
export const partNames: readonly PartName[] = ['train', 'val', 'test'];

/** Images `from` … `to` − 1 of the index. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

export interface FolderIndex {
  readonly classes: readonly string[];
  /** Of all images, part by part, class by class, each class's in order. */
  readonly paths: PathTable;
  /** Of each part that the folder has: the images of each class. */
  readonly parts: ReadonlyMap<PartName, readonly Range[]>;
  /** Hex SHA-256 over every image's path and size. */
  readonly digest: string;
}

const MOST_CLASSES = 65_536;
/** What `decodeImage` takes, by name: a folder may hold lists, archives and annotations too. */
const IMAGE_NAME = /\.(?:jpe?g|png|webp)$/i;
/** Changes with whatever decides which image is in which split. */
const DIGEST_VERSION = 'bignas folder 1\n';

/** Told of each file that is left out, and why. */
export type LeaveOut = (path: string, reason: string) => void;

/**
 * Reads the names of `<folder>/{train,val,test}/<class>/**`. Classes are the folders of train that have images, in the order of their
 * names' code units; names are compared in Unicode's composed form (NFC), since archives made on macOS have the other. Hidden files
 * and folders are passed over, links are followed.
 * @throws DATA_INVALID where there is no train folder, no image, or a class that train does not have
 */
export async function indexFolder(folder: string, leaveOut: LeaveOut): Promise<FolderIndex> {
  const found = await partsOf(folder);
  const table = new TableWriter();
  const digest = createHash('sha256').update(DIGEST_VERSION);
  const parts = new Map<PartName, Range[]>();
  let classes: string[] = [];
  for (const part of partNames) {
    if (!found.has(part)) continue;
    const ranges = new Map<string, Range>();
    const classFolders = await classFoldersOf(folder, part, leaveOut);
    for (const name of [...classFolders.keys()].sort(byCodeUnit)) {
      const files = (await Promise.all(classFolders.get(name)!.map((path) => filesUnder(folder, path, leaveOut)))).flat();
      files.sort((a, b) => byCodeUnit(a.sorted, b.sorted) || byCodeUnit(a.path, b.path));
      const from = table.count;
      for (const { path, sorted, size } of files) {
        table.add(path);
        digest.update(`${sorted}\0${size}\n`);
      }
      if (files.length > 0) ranges.set(name, { from, to: table.count });
      else leaveOut(`${part}/${name}`, 'the class folder has no images');
    }
    if (part === 'train') classes = [...ranges.keys()];
    const unknown = [...ranges.keys()].filter((name) => !classes.includes(name));
    if (unknown.length > 0)
      throw new BignasError(
        'DATA_INVALID',
        `The classes of ${join(folder, part)} must be among those of train; train has no images of ${listed(unknown.map(shown))}. ` +
          `Add them to train/, or remove them from ${part}/.`,
        { unknown },
      );
    const none = { from: table.count, to: table.count };
    parts.set(part, classes.map((name) => ranges.get(name) ?? none));
  }
  if (classes.length === 0)
    throw new BignasError('DATA_INVALID', `Expected JPEG, PNG or WebP files in ${join(folder, 'train')}/<class>/, found none.`);
  if (classes.length > MOST_CLASSES) throw new BignasError('DATA_INVALID', `Expected at most ${MOST_CLASSES} classes in ${folder}, got ${classes.length}.`);
  return { classes, paths: table.finish(), parts, digest: digest.digest('hex') };
}

async function partsOf(folder: string): Promise<Set<string>> {
  const names = await readdir(folder).catch((error: unknown) => {
    throw new BignasError('DATA_INVALID', `The folder of images ${folder} cannot be read: ${(error as Error).message}. Name another, or give this user the right to read it.`);
  });
  if (names.includes('train')) return new Set(names);
  const holds = names.length === 0 ? 'nothing' : listed(names.sort(byCodeUnit).map(shown));
  throw new BignasError('DATA_INVALID', `Expected ${folder} to hold train/<class>/*.jpg (and val/ or test/ likewise), found ${holds}. Put the class folders into ${join(folder, 'train')}.`);
}

/** Class folders by their composed name; one class may have two spellings, and then two folders. */
async function classFoldersOf(folder: string, part: PartName, leaveOut: LeaveOut): Promise<Map<string, string[]>> {
  const classes = new Map<string, string[]>();
  for (const name of (await readdir(join(folder, part)).catch(notReadable(part))).sort(byCodeUnit)) {
    if (name.startsWith('.')) continue;
    const path = `${part}/${name}`;
    const entry = await stat(join(folder, path)).catch(() => undefined);
    if (!entry?.isDirectory()) leaveOut(path, entry ? 'lies in no class folder' : 'cannot be opened');
    else classes.set(name.normalize('NFC'), [...(classes.get(name.normalize('NFC')) ?? []), path]);
  }
  return classes;
}

interface File {
  /** As the disk has it, relative to the data set's folder. */
  readonly path: string;
  /** Composed: the same on every disk. */
  readonly sorted: string;
  readonly size: number;
}

/** Requests to the disk at once: as many as libuv's pool works on, and some that wait. */
const AT_ONCE = 16;

/** @param above real paths of the folders on the way here: a link to one of them, or to what holds one, would lead round for ever */
async function filesUnder(folder: string, path: string, leaveOut: LeaveOut, above: readonly string[] = []): Promise<File[]> {
  const here = await realpath(join(folder, path));
  if (above.some((folderAbove) => `${folderAbove}${sep}`.startsWith(here + sep))) {
    leaveOut(path, 'is a link to a folder that holds it');
    return [];
  }
  const names = (await readdir(here).catch(notReadable(path))).filter((name) => !name.startsWith('.')).sort(byCodeUnit);
  const files: File[] = [];
  for (let from = 0; from < names.length; from += AT_ONCE) {
    const some = names.slice(from, from + AT_ONCE).map((name) => `${path}/${name}`);
    const entries = await Promise.all(some.map((at) => stat(join(folder, at)).catch(() => undefined)));
    for (const [i, at] of some.entries()) {
      const entry = entries[i];
      if (entry?.isDirectory()) for (const file of await filesUnder(folder, at, leaveOut, [...above, here])) files.push(file);
      else if (!IMAGE_NAME.test(at)) leaveOut(at, 'is no JPEG, PNG or WebP by its name');
      else if (!entry) leaveOut(at, 'cannot be opened: a broken link, or a name that is not UTF-8');
      else if (!entry.isFile()) leaveOut(at, 'is no file');
      else files.push({ path: at, sorted: at.normalize('NFC'), size: entry.size });
    }
  }
  return files;
}

const notReadable = (path: string) => (error: unknown): never => {
  throw new BignasError('DATA_INVALID', `The folder ${path} of the images cannot be read: ${(error as Error).message}. Give this user the right to read it.`);
};

/** The order of JavaScript's sort, whatever the machine's language. */
function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The first few of a list, and how many more there are. */
export function listed(items: readonly string[], most = 10, between = ', '): string {
  const more = items.length - most;
  return items.slice(0, most).join(between) + (more > 0 ? `${between}and ${more} more` : '');
}

const decoder = new TextDecoder();

export function pathAt({ bytes, ends }: PathTable, i: number): string {
  // A decoder takes no shared memory.
  return decoder.decode(bytes.slice(i === 0 ? 0 : ends[i - 1]!, ends[i]!));
}

/** Collects paths, then lays them on shared memory. */
class TableWriter {
  readonly #chunks: Buffer[] = [];
  readonly #ends: number[] = [];
  #text: string[] = [];
  #bytes = 0;

  get count(): number {
    return this.#ends.length;
  }

  add(path: string): void {
    this.#text.push(path);
    this.#bytes += Buffer.byteLength(path);
    this.#ends.push(this.#bytes);
    if (this.#text.length === 4096) this.#flush();
  }

  #flush(): void {
    this.#chunks.push(Buffer.from(this.#text.join('')));
    this.#text = [];
  }

  finish(): PathTable {
    this.#flush();
    const bytes = new Uint8Array(new SharedArrayBuffer(this.#bytes));
    let at = 0;
    for (const chunk of this.#chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    const ends = new Uint32Array(new SharedArrayBuffer(this.#ends.length * 4));
    ends.set(this.#ends);
    return { bytes, ends };
  }
}

/**
 * Folders of photos in ImageNet's layout: `train/<class>/**`, `val/<class>/**`, `test/<class>/**`. Only `train` is needed. What the
 * folder does not have is held out of train:
 *
 * | folders | validation | test |
 * |---|---|---|
 * | train, val, test | val | test |
 * | train, val | held out of train | val |
 * | train, test | held out of train | test |
 * | train | held out of train | held out of train, other images |
 *
 * Where there is one labelled set beside train, as ImageNet's val, it is what accuracies are published on: it is the test, which neither
 * training nor the choice of children looks at (ARCHITECTURE.md).
 */
import { basename, resolve } from 'node:path';
import { Worker } from 'node:worker_threads';
import { BignasError, receivedError } from '../errors.js';
import { hash, key } from '../random.js';
import type { Dataset, FolderSource, SkippedImage, Split, SplitName } from './dataset.js';
import { listed, pathAt, type FolderIndex, type LeaveOut, type PartName } from './folderIndex.js';
import type { IndexMessage } from './folderIndexWorker.js';
import { each, folderSplit, readPhoto } from './folderSplit.js';
import { bicubic, type Preprocessing } from './preprocess.js';

export interface FolderOptions {
  /** Holds `train/<class>/…`, and `val/` and `test/` likewise where there are any. */
  readonly folder: string;
  /** Side in pixels of the fixed crop. Default 224 (Inception's, and the paper's). */
  readonly crop?: number;
  /** Pixels to which evaluation resizes a photo's shorter side before it takes the centre crop. Default 8/7 of `crop`: 256 for 224. */
  readonly shorterSide?: number;
  /** Images that may be unreadable before the data set is refused. Default: 1 % of them, at least 10. */
  readonly maxCorrupt?: number;
  /** Told in a line what is skipped, and why. */
  readonly log: (line: string) => void;
}

/** Per channel, of ImageNet's training images. */
const MEAN: [number, number, number] = [0.485, 0.456, 0.406];
const DEVIATION: [number, number, number] = [0.229, 0.224, 0.225];

/** A split that is held out of train: this part of each class, and no more images than that in all. */
const HELD_OUT = { part: 0.1, most: 10_000 };
const PURPOSE = key('held out');
/** Lines about one kind of file, before only their count is said. */
const MOST_LINES = 20;
/** Photos decoded at once to see whether they can be: the size of libuv's pool. */
const CHECKED_AT_ONCE = 4;

/**
 * A data set of photos, decoded when they are needed; what stays in memory is their paths. The images of validation and test are
 * decoded once now: those that cannot be read are left out, so that what is measured on is known before training begins. Training
 * images are met as they are, see `folderSplit`.
 * @throws DATA_INVALID where the folder is not of this layout, a split has no image, or more images than `maxCorrupt` cannot be read
 */
export async function loadFolder(options: FolderOptions): Promise<Dataset> {
  const { log, crop = 224, shorterSide = Math.round((crop * 8) / 7) } = options;
  const folder = resolve(options.folder);
  if (shorterSide < crop) throw new BignasError('OPTION_INVALID', `Expected the shorter side to be at least the crop's ${crop} pixels, got ${shorterSide}.`);
  const preprocessing: Preprocessing = {
    shorterSide, crop, resize: bicubic, rounding: 'uint8-after-crop', mean: MEAN, deviation: DEVIATION, colour: 'RGB',
  };
  const leftOut = new LeftOut(log);
  const index = await indexInThread(folder, (path, reason) => leftOut.add(path, reason));
  leftOut.finish();
  const skipped = new Skipped(options.maxCorrupt ?? Math.max(10, Math.ceil(index.paths.ends.length / 100)), log);
  const skip = (images: readonly SkippedImage[]): void => skipped.add(images);

  const members = membersOf(index);
  for (const name of ['validation', 'test'] as const) {
    log(`Reading the ${members[name].length} images of the ${name} split once, to see that they can be`);
    members[name] = await readable(folder, index, members[name], skip);
  }
  const split = (name: SplitName): Split => {
    if (members[name].length === 0) throw new BignasError('DATA_INVALID', `The ${name} split of ${folder} has no image that can be read. Give every class at least three images.`);
    return folderSplit(sourceOf(name, folder, preprocessing, index, members[name]), skip);
  };
  return {
    name: basename(folder),
    source: `the folder of images ${basename(folder)}`,
    classes: index.classes,
    preprocessing,
    splits: { train: split('train'), validation: split('validation'), test: split('test') },
    augmentation: 'imagenet-autoaugment',
    digest: index.digest,
  };
}

function indexInThread(folder: string, leaveOut: LeaveOut): Promise<FolderIndex> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('folderIndexWorker.js', import.meta.url), { workerData: folder, name: 'bignas-folder' });
    let index: FolderIndex | undefined;
    worker.on('message', (message: IndexMessage) => {
      if ('leftOut' in message) leaveOut(message.leftOut.path, message.leftOut.reason);
      else if ('index' in message) index = message.index;
      else reject(receivedError(message.error));
    });
    worker.on('error', reject);
    // When the thread is gone, and its memory with it.
    worker.on('exit', (code) => (index ? resolve(index) : reject(new Error(`The thread that lists the images ended with ${code}.`))));
  });
}

/** Which images, by their place in the index, belong to which split; ascending. */
export function membersOf(index: FolderIndex): Record<SplitName, number[]> {
  const part = (name: PartName): number[] | undefined => index.parts.get(name)?.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, i) => from + i));
  const given = { val: part('val'), test: part('test') };
  const test = given.test ?? given.val;
  const validation = given.test && given.val;
  const members: Record<SplitName, number[]> = { train: [], validation: validation ?? [], test: test ?? [] };
  const wanting = (['validation', 'test'] as const).filter((name) => (name === 'validation' ? !validation : !test));
  const trained = index.parts.get('train')!;
  const most = Math.ceil(HELD_OUT.most / trained.length);
  for (const { from, to } of trained) {
    // By a hash of its path, so that an image stays in its split when others are added.
    const order = Array.from({ length: to - from }, (_, i) => from + i)
      .map((at) => ({ at, rank: hash(PURPOSE, key(pathAt(index.paths, at).normalize('NFC'))) }))
      .sort((a, b) => a.rank - b.rank || a.at - b.at)
      .map(({ at }) => at);
    // Of a few images, one each; training has the first claim.
    const share = Math.min(Math.max(Math.floor(order.length * HELD_OUT.part), 1), most);
    for (const name of wanting) {
      const held = order.splice(0, Math.min(share, order.length - 1));
      for (const at of held) members[name].push(at);
    }
    for (const at of order) members.train.push(at); // spread as arguments, a class of 125,000 overflows the stack
  }
  for (const name of wanting) members[name].sort((a, b) => a - b);
  members.train.sort((a, b) => a - b);
  return members;
}

async function readable(folder: string, index: FolderIndex, members: readonly number[], skip: (images: readonly SkippedImage[]) => void): Promise<number[]> {
  const good = new Uint8Array(members.length);
  await each(members.length, CHECKED_AT_ONCE, async (n) => {
    const got = await readPhoto(folder, pathAt(index.paths, members[n]!));
    if ('reason' in got) skip([got]);
    else good[n] = 1;
  });
  return members.filter((_, n) => good[n] === 1);
}

function sourceOf(name: SplitName, folder: string, preprocessing: Preprocessing, index: FolderIndex, members: readonly number[]): FolderSource {
  const places = new Uint32Array(new SharedArrayBuffer(members.length * 4));
  places.set(members);
  const labels = new Uint16Array(new SharedArrayBuffer(members.length * 2));
  const labelOf = new Uint16Array(index.paths.ends.length);
  for (const ranges of index.parts.values()) for (const [label, { from, to }] of ranges.entries()) labelOf.fill(label, from, to);
  members.forEach((place, i) => (labels[i] = labelOf[place]!));
  return { kind: 'folder', name, folder, preprocessing, paths: index.paths, members: places, labels };
}

/** Says what is no image of the data set: a few of each kind by name, then how many more. */
class LeftOut {
  readonly #counts = new Map<string, number>();

  constructor(readonly log: (line: string) => void) {}

  add(path: string, reason: string): void {
    const count = (this.#counts.get(reason) ?? 0) + 1;
    this.#counts.set(reason, count);
    if (count <= MOST_LINES) this.log(`Skipped ${path}: ${reason}`);
  }

  finish(): void {
    for (const [reason, count] of this.#counts) if (count > MOST_LINES) this.log(`Skipped ${count - MOST_LINES} more: ${reason}`);
  }
}

/** The images that could not be read, each said once, up to a limit. */
class Skipped {
  readonly #images = new Map<string, string>();

  constructor(readonly most: number, readonly log: (line: string) => void) {}

  add(images: readonly SkippedImage[]): void {
    for (const { path, reason } of images) {
      if (this.#images.has(path)) continue;
      this.#images.set(path, reason);
      this.log(`Skipped ${path}: ${reason}`);
    }
    if (this.#images.size <= this.most) return;
    const list = [...this.#images].map(([path, reason]) => `${path}: ${reason}`);
    throw new BignasError(
      'DATA_INVALID',
      `More images cannot be read than the ${this.most} that are allowed. Mend or remove them:\n  ${listed(list, MOST_LINES, '\n  ')}`,
      { unreadable: [...this.#images.keys()] },
    );
  }
}

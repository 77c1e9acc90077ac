/** A split of photos that lie in a folder: read, decoded and cropped when they are asked for, a few at a time. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BignasError } from '../errors.js';
import { key, permutation } from '../random.js';
import { trainingCrop } from './augment.js';
import type { FolderSource, SkippedImage, Split } from './dataset.js';
import { pathAt } from './folderIndex.js';
import { decodeImage } from './images.js';
import { fixedCrop, type RgbImage } from './preprocess.js';

/** Photos under way: one is decoded in libuv's pool while another is resized on this thread. */
const UNDER_WAY = 2;
const PURPOSE = key('replacement');

/**
 * In `crops` an image that cannot be read is an error: nothing is measured on other images than it says. In `augmented` another image
 * of the same class takes its place, so that labels, and their balance, stay; which one depends on seed, epoch and index alone.
 * @param skip told of each image that cannot be read, when it is met
 */
export function folderSplit(source: FolderSource, skip: (images: readonly SkippedImage[]) => void): Split {
  const { name, folder, preprocessing, paths, members, labels } = source;
  const length = preprocessing.crop ** 2 * 3;
  const broken = new Map<number, SkippedImage>();

  const pathOf = (index: number): string => {
    const member = members[index];
    if (member === undefined) throw new BignasError('DATA_INVALID', `Image ${index} is outside the ${name} split of ${members.length}`);
    return pathAt(paths, member);
  };
  /** The image, or why it cannot be read; read again only where it can. */
  const read = async (index: number): Promise<RgbImage | SkippedImage> => {
    const known = broken.get(index);
    if (known) return known;
    const got = await readPhoto(folder, pathOf(index));
    if ('reason' in got) broken.set(index, got);
    return got;
  };
  let classes: Map<number, number[]> | undefined;
  const classmates = (index: number): readonly number[] => {
    if (!classes) {
      classes = new Map();
      for (const [i, label] of labels.entries()) {
        const mates = classes.get(label);
        if (mates) mates.push(i);
        else classes.set(label, [i]);
      }
    }
    return classes.get(labels[index]!)!;
  };
  const readOrReplace = async (index: number, seed: number, epoch: number): Promise<RgbImage> => {
    const first = await read(index);
    if (!('reason' in first)) return first;
    skip([first]);
    const mates = classmates(index);
    for (const place of permutation(mates.length, PURPOSE, seed, epoch, index)) {
      const other = await read(mates[place]!);
      if (!('reason' in other)) return other;
      skip([other]);
    }
    throw new BignasError('DATA_INVALID', `None of the ${mates.length} training images of a class can be read, such as ${first.path}: ${first.reason} Mend them, or remove the class.`);
  };
  const collect = async (indices: ArrayLike<number>, crop: (index: number) => Promise<Uint8Array>): Promise<Uint8Array> => {
    const out = new Uint8Array(indices.length * length);
    await each(indices.length, UNDER_WAY, async (n) => out.set(await crop(indices[n]!), n * length));
    return out;
  };

  return {
    name,
    count: members.length,
    labels,
    source,
    skip,
    crops: (indices) =>
      collect(indices, async (index) => {
        const image = await read(index);
        if ('reason' in image) throw new BignasError('DATA_INVALID', `The image ${image.path} of the ${name} split cannot be read: ${image.reason} Mend or remove it.`);
        return fixedCrop(image, preprocessing);
      }),
    augmented: (indices, augmentation) =>
      collect(indices, async (index) =>
        trainingCrop(await readOrReplace(index, augmentation.seed, augmentation.epoch), preprocessing, index, augmentation)),
  };
}

/** What a file system says of one file; anything else (too many open files, a failing disk) is no matter of the image. */
const OF_THE_FILE = new Set(['ENOENT', 'EACCES', 'EPERM', 'EISDIR', 'ELOOP', 'ENAMETOOLONG']);

/** Decodes a photo of the folder; an image that cannot be read is a value, not an error. */
export async function readPhoto(folder: string, path: string): Promise<RgbImage | SkippedImage> {
  try {
    return await decodeImage(await readFile(join(folder, path)));
  } catch (error) {
    if (error instanceof BignasError && (error.code === 'IMAGE_UNREADABLE' || error.code === 'IMAGE_TOO_LARGE')) return { path, reason: `${error.message}.` };
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== undefined && OF_THE_FILE.has(code)) return { path, reason: `${message}.` };
    throw new BignasError('DATA_INVALID', `The image ${join(folder, path)} could not be read: ${message}`, {}, { cause: error });
  }
}

/** Does work 0 … count − 1, at most `atOnce` of them under way. */
export async function each(count: number, atOnce: number, work: (n: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await work(next++);
  };
  try {
    await Promise.all(Array.from({ length: Math.min(atOnce, count) }, worker));
  } finally {
    next = count; // after an error nothing new is begun
  }
}

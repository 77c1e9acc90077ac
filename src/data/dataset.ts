/** What training, evaluation and calibration ask of a set of labelled images, wherever these lie (in memory, in folders). */
import { BignasError } from '../errors.js';
import { augmentBatch, type Augmentation, type AugmentationKind } from './augment.js';
import type { Preprocessing } from './preprocess.js';

export type SplitName = 'train' | 'validation' | 'test';

export interface Split {
  readonly name: SplitName;
  /** Number of images. */
  readonly count: number;
  /** The class of each image, an index into the data set's `classes`. */
  readonly labels: Uint16Array;
  /** The fixed crops of these images, as the reference preprocessing makes them: N × crop × crop × 3, uint8, the caller's own. */
  crops(indices: ArrayLike<number>): Promise<Uint8Array>;
  /**
   * Training's random crops of these images, same shape: a pure function of seed, epoch and index. It is the split that makes
   * them, since a folder of photos must draw its random crop before it decodes and resizes.
   */
  augmented(indices: ArrayLike<number>, augmentation: Augmentation): Promise<Uint8Array>;
  /** From which another thread makes the same split (`openSplit`). */
  readonly source: SplitSource;
  /**
   * Told by a thread that reads for this split which images it could not: the split says so, each once.
   * @throws DATA_INVALID when there are more of them than the data set allows
   */
  skip(images: readonly SkippedImage[]): void;
}

/** What a split is made of: survives a structured clone, with everything large on shared memory. */
export type SplitSource = MemorySource | FolderSource;

export interface MemorySource {
  readonly kind: 'memory';
  readonly name: SplitName;
  /** All × side × side × 3, uint8, on shared memory. */
  readonly crops: Uint8Array;
  /** The class of each crop. */
  readonly labels: Uint16Array;
  readonly side: number;
  /** The images of this split, as indices into the two. */
  readonly members: Uint32Array;
}

export interface FolderSource {
  readonly kind: 'folder';
  readonly name: SplitName;
  readonly folder: string;
  readonly preprocessing: Preprocessing;
  /** Paths of all images of the folder, relative to it. */
  readonly paths: PathTable;
  /** The images of this split, as places in `paths`, on shared memory. */
  readonly members: Uint32Array;
  /** The class of each of these images, on shared memory. */
  readonly labels: Uint16Array;
}

/** Many paths in little memory, which threads share: path i is the UTF-8 of bytes ends[i - 1] … ends[i]. */
export interface PathTable {
  readonly bytes: Uint8Array;
  readonly ends: Uint32Array;
}

/** An image that was left out, and why. */
export interface SkippedImage {
  /** Relative to the data set's folder. */
  readonly path: string;
  readonly reason: string;
}

export interface Dataset {
  readonly name: string;
  /** Where the images come from, for the checkpoint's manifest. */
  readonly source: string;
  readonly classes: readonly string[];
  readonly preprocessing: Preprocessing;
  readonly splits: Readonly<Record<SplitName, Split>>;
  /** What training applies unless told otherwise. */
  readonly augmentation: AugmentationKind;
  /** Hex SHA-256 over the indices of validation and training images: which images a checkpoint has never seen. */
  readonly digest: string;
}

/**
 * A split of crops held in memory.
 * @param crops all × side × side × 3, uint8, shared between splits and never written to
 * @param labels the class of each of them
 * @param members the images of this split, as indices into the two (all of them by default)
 */
export function memorySplit(
  name: SplitName, crops: Uint8Array, labels: ArrayLike<number>, side: number, members?: Uint32Array,
): Split {
  const length = side * side * 3;
  if (crops.length !== labels.length * length) {
    throw new BignasError('DATA_INVALID', `Expected ${labels.length} crops of ${side}×${side}×3 bytes, got ${crops.length} bytes`);
  }
  const images = members ?? Uint32Array.from({ length: labels.length }, (_, i) => i);
  const copied = (indices: ArrayLike<number>): Uint8Array => {
    const out = new Uint8Array(indices.length * length);
    for (let n = 0; n < indices.length; n++) {
      const image = images[indices[n]!];
      if (image === undefined) {
        throw new BignasError('DATA_INVALID', `Image ${indices[n]} is outside the ${name} split of ${images.length}`);
      }
      out.set(crops.subarray(image * length, (image + 1) * length), n * length);
    }
    return out;
  };
  return {
    name,
    count: images.length,
    labels: Uint16Array.from(images, (image) => labels[image]!),
    get source() {
      return { kind: 'memory' as const, name, crops: onSharedMemory(crops), labels: Uint16Array.from(labels), side, members: images };
    },
    skip: () => undefined,
    crops: (indices) => Promise.resolve().then(() => copied(indices)),
    augmented: (indices, augmentation) => Promise.resolve().then(() => augmentBatch(copied(indices), indices, augmentation)),
  };
}

/** Copies of arrays that do not lie on shared memory: splits of one array have one copy. */
const copies = new WeakMap<Uint8Array, Uint8Array>();

function onSharedMemory(array: Uint8Array): Uint8Array {
  if (array.buffer instanceof SharedArrayBuffer) return array;
  let copy = copies.get(array);
  if (!copy) {
    copy = new Uint8Array(new SharedArrayBuffer(array.length));
    copy.set(array);
    copies.set(array, copy);
  }
  return copy;
}

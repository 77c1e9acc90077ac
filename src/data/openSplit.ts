import type { SkippedImage, Split, SplitSource } from './dataset.js';
import { memorySplit } from './dataset.js';
import { folderSplit } from './folderSplit.js';

/**
 * A split from its source, in this or another thread.
 * @param skip told of each image that cannot be read
 */
export function openSplit(source: SplitSource, skip: (images: readonly SkippedImage[]) => void): Split {
  if (source.kind === 'folder') return folderSplit(source, skip);
  return memorySplit(source.name, source.crops, source.labels, source.side, source.members);
}

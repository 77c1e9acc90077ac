import { mkdir, open, readdir, rename, rm, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** A file's content, whole or in parts. */
export type Content = string | Uint8Array | readonly Uint8Array[];

/**
 * Writes a file that is whole or not there: a sibling, synced, then renamed into place.
 * @param synced false: where the machine fails a moment later, the file may be there and not whole. For what is checked before use
 */
export async function writeFileAtomic(path: string, content: Content, { synced = true }: { readonly synced?: boolean } = {}): Promise<void> {
  const partial = join(dirname(path), `.${basename(path)}.partial-${process.pid}`);
  try {
    await write(partial, content, synced);
    await rename(partial, path);
    if (synced) await syncFolder(dirname(path));
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/**
 * Writes a folder that is whole or not there. An existing folder of that name is moved aside only once the new one is on disk; a
 * killed writer leaves the old one, the new one, or for a moment both beside the name. One writer a folder at a time.
 */
export async function writeFolderAtomic(folder: string, files: ReadonlyMap<string, string | Uint8Array>): Promise<void> {
  const parent = dirname(folder);
  await mkdir(parent, { recursive: true });
  const partial = join(parent, `.${basename(folder)}.partial-${process.pid}`);
  const old = join(parent, `.${basename(folder)}.partial-old-${process.pid}`);
  try {
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial);
    for (const [name, content] of files) await write(join(partial, name), content, true);
    await syncFolder(partial);
    const replaces = await rename(folder, old).then(() => true, absent);
    try {
      await rename(partial, folder);
    } catch (error) {
      if (replaces) await rename(old, folder); // or nothing would bear the name
      throw error;
    }
    await syncFolder(parent);
    if (replaces) await rm(old, { recursive: true, force: true });
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

/** Removes what killed writers left in a folder; an old folder that one moved aside and put no new one in the place of gets its name back. Nobody may be writing there. */
export async function removeLeftovers(parent: string): Promise<void> {
  const names = await readdir(parent);
  for (const name of names) {
    const old = /^\.(.+)\.partial-old-\d+$/.exec(name)?.[1];
    if (old !== undefined && !names.includes(old)) {
      await rename(join(parent, name), join(parent, old));
      names.push(old);
    } else if (/^\..+\.partial-/.test(name)) await rm(join(parent, name), { recursive: true, force: true });
  }
}

function absent(error: NodeJS.ErrnoException): false {
  if (error.code === 'ENOENT') return false;
  throw error;
}

async function write(path: string, content: Content, synced: boolean): Promise<void> {
  const file = await open(path, 'w');
  try {
    if (Array.isArray(content)) await writeParts(file, content as readonly Uint8Array[]);
    else await file.writeFile(content as string | Uint8Array);
    if (synced) await file.sync();
  } finally {
    await file.close();
  }
}

/** In one go, which the thread that asks for it need not attend to. */
async function writeParts(file: FileHandle, parts: readonly Uint8Array[]): Promise<void> {
  let left = parts.filter(({ length }) => length > 0);
  while (left.length > 0) {
    // What is written is not always all.
    let { bytesWritten } = await file.writev(left);
    while (left[0] && bytesWritten >= left[0].length) {
      bytesWritten -= left[0].length;
      left = left.slice(1);
    }
    if (left[0]) left = [left[0].subarray(bytesWritten), ...left.slice(1)];
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

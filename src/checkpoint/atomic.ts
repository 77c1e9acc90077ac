import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** Writes a file that is whole or not there: a sibling, synced, then renamed into place. */
export async function writeFileAtomic(path: string, content: string | Uint8Array): Promise<void> {
  const partial = join(dirname(path), `.${basename(path)}.partial-${process.pid}`);
  try {
    await writeSynced(partial, content);
    await rename(partial, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/**
 * Writes a folder that is whole or not there. An existing folder of that name is replaced only once the new one is on disk.
 * Leftovers of killed writers of the same folder are removed.
 */
export async function writeFolderAtomic(folder: string, files: ReadonlyMap<string, string | Uint8Array>): Promise<void> {
  const parent = dirname(folder);
  await mkdir(parent, { recursive: true });
  const prefix = `.${basename(folder)}.partial-`;
  for (const name of await readdir(parent)) if (name.startsWith(prefix)) await rm(join(parent, name), { recursive: true, force: true });
  const partial = join(parent, `${prefix}${process.pid}`);
  try {
    await mkdir(partial);
    for (const [name, content] of files) await writeSynced(join(partial, name), content);
    await syncFolder(partial);
    await rm(folder, { recursive: true, force: true });
    await rename(partial, folder);
    await syncFolder(parent);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

async function writeSynced(path: string, content: string | Uint8Array): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
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

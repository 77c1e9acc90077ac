// Files that are made beside their place and renamed into it, so that whatever is in place is whole.
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** A name of our own beside `path`, on the same disk. */
export function temporaryBeside(path) {
  return `${path}.tmp-${process.pid}-${randomBytes(4).toString('hex')}`;
}

/** Removes what killed set-ups left beside `path`. Call it while holding the lock: what is there then is nobody's. */
export function removeLeftovers(path) {
  if (!existsSync(dirname(path))) return;
  const prefix = `${basename(path)}.tmp-`;
  for (const name of readdirSync(dirname(path))) {
    if (name.startsWith(prefix)) remove(join(dirname(path), name));
  }
}

/** Puts a finished folder in its place. What was there goes after it, not before: a kill in between leaves one or the other. */
export function replaceFolder(finished, folder) {
  const old = temporaryBeside(folder);
  if (existsSync(folder)) renameSync(folder, old);
  renameSync(finished, folder);
  remove(old);
}

export function writeAtomically(path, text) {
  mkdirSync(dirname(path), { recursive: true });
  const temporary = temporaryBeside(path);
  try {
    writeFileSync(temporary, text);
    renameSync(temporary, path);
  } finally {
    remove(temporary);
  }
}

export function remove(path) {
  rmSync(path, { recursive: true, force: true, maxRetries: 3 });
}

/** Size of a file in bytes, or `undefined` where there is none. */
export function sizeOf(path) {
  return statSync(path, { throwIfNoEntry: false })?.size;
}

export function freeBytesAt(folder) {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

/** All files under a folder, as paths with the folder in front. */
export function filesUnder(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesUnder(path) : [path];
  });
}

import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isAlive } from '../src/processes.js';

const PREFIX = 'bignas-bundles-';
/** A folder's name, with the process that made it. */
const named = new RegExp(`^${PREFIX}(\\d+)-`);

/** Makes a folder for this process's bundles, and removes those of servers that were killed before they could. */
export async function bundleFolder(): Promise<string> {
  for (const name of await readdir(tmpdir()).catch(() => [])) {
    const owner = named.exec(name)?.[1];
    // Of another user's it may not be ours to remove.
    if (owner !== undefined && !isAlive(Number(owner))) await rm(join(tmpdir(), name), { recursive: true, force: true }).catch(() => undefined);
  }
  return mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
}

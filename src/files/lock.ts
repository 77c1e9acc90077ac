import { randomUUID } from 'node:crypto';
import { link, readFile, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { BignasError } from '../errors.js';
import { isAlive } from '../processes.js';
import { removeLeftovers, writeFileAtomic } from './atomic.js';

/**
 * Runs `work` as the only process that works in the folder, after removing what killed ones left there.
 * @param does what the process does there, for the message: "trains"
 * @throws BignasError OPTION_INVALID where another one is at work
 */
export async function alone<T>(folder: string, does: string, work: () => Promise<T>): Promise<T> {
  const lock = join(folder, 'lock');
  await take(lock, does, folder);
  try {
    await removeLeftovers(folder);
    return await work();
  } finally {
    await rm(lock, { force: true });
  }
}

/** Writes this process's name into the lock, where nobody's is in there or that of a process that is gone. */
async function take(lock: string, does: string, folder: string): Promise<void> {
  const begun = (): BignasError => new BignasError('OPTION_INVALID', `Another process has just begun in ${folder}. Give another --output.`);
  const own = `${process.pid} ${hostname()}\n`;
  if (await create(lock, own)) return;
  const owner = await contentOf(lock);
  if (owner === undefined) throw begun(); // and ended
  const [pid, host] = owner.trim().split(' ');
  // It names nobody where the machine's power went while it was written. Our own number was another's before: containers give the same one after each restart.
  if (host !== undefined && (host !== hostname() || (Number(pid) !== process.pid && isAlive(Number(pid)))))
    throw new BignasError('OPTION_INVALID', `Process ${pid} on ${host} ${does} in ${folder}. Wait for it, or give another --output. If it is gone, remove ${lock}.`);
  // Of several that find it, one takes it over, and it is never absent meanwhile: or a third one would begin beside them.
  const takingOver = `${lock}.taken`;
  await take(takingOver, does, folder);
  try {
    if ((await contentOf(lock)) !== owner) throw begun();
    await writeFileAtomic(lock, own);
  } finally {
    await rm(takingOver, { force: true });
  }
}

/** Makes the lock, whole from its first moment on. @returns false where there is one */
async function create(lock: string, text: string): Promise<boolean> {
  const own = join(dirname(lock), `.${basename(lock)}.partial-${randomUUID()}`);
  try {
    await writeFile(own, text);
    return await link(own, lock)
      // There are file systems without links, and another process that begins removes leftovers.
      .catch((error: unknown) => (isExisting(error) ? Promise.reject(error as Error) : writeFile(lock, text, { flag: 'wx' })))
      .then(() => true);
  } catch (error) {
    if (isExisting(error)) return false;
    throw error;
  } finally {
    await rm(own, { force: true });
  }
}

function isExisting(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'EEXIST';
}

function contentOf(lock: string): Promise<string | undefined> {
  return readFile(lock, 'utf8').catch(() => undefined);
}

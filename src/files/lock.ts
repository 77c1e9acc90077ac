import { readFile, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { BignasError } from '../errors.js';
import { isAlive } from '../processes.js';
import { removeLeftovers } from './atomic.js';

/**
 * Runs `work` as the only process that works in the folder, after removing what killed ones left there.
 * @param does what the process does there, for the message: "trains"
 * @throws BignasError OPTION_INVALID where another one is at work
 */
export async function alone<T>(folder: string, does: string, work: () => Promise<T>): Promise<T> {
  const lock = join(folder, 'lock');
  const owner = await readFile(lock, 'utf8').catch(() => undefined);
  if (owner !== undefined) {
    const [pid, host] = owner.trim().split(' ');
    // Our own number there was another's before: containers give the same one after each restart.
    if (host !== hostname() || (Number(pid) !== process.pid && isAlive(Number(pid))))
      throw new BignasError('OPTION_INVALID', `Process ${pid} on ${host} ${does} in ${folder}. Wait for it, or give another --output. If it is gone, remove ${lock}.`);
    await rm(lock, { force: true });
  }
  // Exclusive: of two that start at once, one fails here.
  await writeFile(lock, `${process.pid} ${hostname()}\n`, { flag: 'wx' }).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    throw new BignasError('OPTION_INVALID', `Another process has just begun in ${folder}. Give another --output.`);
  });
  try {
    await removeLeftovers(folder);
    return await work();
  } finally {
    await rm(lock, { force: true });
  }
}

import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { readStatistics, type Checkpoint } from '../src/checkpoint/checkpoint.js';
import { statisticsTensors, type Int8Calibration } from '../src/checkpoint/tensors.js';
import { decodeSafetensors, encodeSafetensors } from '../src/checkpoint/safetensors.js';
import { writeFileAtomic } from '../src/files/atomic.js';
import type { Statistics } from '../src/graph/statistics.js';
import { isAlive } from '../src/processes.js';

/** A child whose statistics are kept. */
export interface KeptChild {
  readonly id: string;
  /** Canonical text. */
  readonly architecture: string;
}

/** What is computed of a child once: its statistics, and what bundles need besides, as soon as one was asked for. */
export interface KeptStatistics {
  readonly statistics: Statistics;
  /** Golden logits, [classes]. */
  readonly golden?: Float32Array | undefined;
  readonly int8?: Int8Calibration | undefined;
}

/** What a file is not to be called unless the whole of it is there. */
const SUFFIX = '.statistics';
/** Hex digits of the digest that a file begins with, and a line's end. */
const HEAD = 65;

/**
 * Calibrated statistics on disk, so that a server that starts again is warm. A file is named after all that its content depends on (checkpoint, child, engine and
 * the versions of both), begins with the digest of the rest, and is written whole or not at all; one that is not what it should be is removed and counts as
 * absent. Bounded in bytes: the files that were not used for the longest time go first. Several servers may share a folder.
 */
export class StatisticsFolder {
  #bytes: number | undefined;

  /**
   * @param folder made when something is written
   * @param engine whose statistics these are: name, version and the version of calibration
   */
  constructor(
    private readonly folder: string,
    private readonly maxBytes: number,
    private readonly engine: string,
  ) {}

  /** What is kept of the child; undefined where nothing is. @throws Error that says why a file was no use: it has been removed */
  async read(checkpoint: Checkpoint, child: KeptChild): Promise<KeptStatistics | undefined> {
    const path = this.#path(checkpoint, child);
    const bytes = await readFile(path).catch(absent);
    if (!bytes) return undefined;
    try {
      const content = bytes.subarray(HEAD);
      if (bytes.toString('latin1', 0, HEAD) !== head(content)) throw new Error('its digest does not fit its content');
      const read = readStatistics(checkpoint.manifest, [child], decodeSafetensors(content));
      const statistics = read.statistics.get(child.id);
      if (!statistics) throw new Error('it holds no statistics of the child');
      const now = new Date();
      await utimes(path, now, now).catch(() => undefined); // used lately; another server may have removed it
      return { statistics, golden: read.golden.get(child.id), int8: read.int8.get(child.id) };
    } catch (error) {
      await rm(path, { force: true });
      throw new Error(`${path}: ${(error as Error).message}; it was removed`, { cause: error });
    }
  }

  /** @throws Error where it cannot be written (no room, no permission): nothing is left of it then */
  async write(checkpoint: Checkpoint, child: KeptChild, { statistics, golden, int8 }: KeptStatistics): Promise<void> {
    const only = <T>(value: T | undefined): Map<string, T> => new Map(value === undefined ? [] : [[child.id, value]]);
    const content = encodeSafetensors(statisticsTensors(only(statistics), only(golden), only(int8)));
    await mkdir(this.folder, { recursive: true });
    if (this.#bytes === undefined || this.#bytes + HEAD + content.length > this.maxBytes) await this.#prune(HEAD + content.length);
    await writeFileAtomic(this.#path(checkpoint, child), Buffer.concat([Buffer.from(head(content), 'latin1'), content]));
    this.#bytes! += HEAD + content.length;
  }

  #path({ digest }: Checkpoint, { id }: KeptChild): string {
    return join(this.folder, `${digest.slice(0, 16)}-${id}-${this.engine}${SUFFIX}`);
  }

  /** Makes room for so many bytes, and some more so that this is not done for every file; removes what killed writers left. */
  async #prune(room: number): Promise<void> {
    const found: { path: string; bytes: number; used: number }[] = [];
    for (const name of await readdir(this.folder)) {
      const path = join(this.folder, name);
      const writer = /\.partial-(\d+)$/.exec(name)?.[1];
      if (writer !== undefined && !isAlive(Number(writer))) await rm(path, { force: true });
      if (!name.endsWith(SUFFIX)) continue;
      const { size, mtimeMs } = (await stat(path).catch(absent)) ?? { size: 0, mtimeMs: 0 };
      found.push({ path, bytes: size, used: mtimeMs });
    }
    found.sort((a, b) => b.used - a.used);
    let bytes = 0;
    const most = Math.max(0, 0.9 * this.maxBytes - room);
    for (const file of found) {
      if (bytes + file.bytes > most) await rm(file.path, { force: true });
      else bytes += file.bytes;
    }
    this.#bytes = bytes;
  }
}

function head(content: Uint8Array): string {
  return `${createHash('sha256').update(content).digest('hex')}\n`;
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code === 'ENOENT') return undefined;
  throw error;
}

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ChildDescription } from '../src/bundle/child.js';
import { HeldCache, type CacheObserver, type Held } from './heldCache.js';
import type { Served } from './served.js';
import type { BuildReport, BuildRole } from './workers/building.js';
import type { Thread } from './workers/thread.js';

export interface BundlesOptions {
  readonly build: Thread<BuildRole>;
  /** Where the build worker writes bundles. */
  readonly folder: string;
  /** Bytes of bundles that are kept on disk. */
  readonly maxBytes: number;
  readonly observer: CacheObserver;
  readonly onBuilt: (served: Served, id: string, report: BuildReport) => void;
}

/** A bundle on disk. No two builds have a file of one name, so that disposing of one never removes another's. */
export interface BundleFile extends Held {
  /** Of the checkpoint. */
  readonly serial: number;
  /** Name in the folder. */
  readonly file: string;
  readonly sha256: string;
}

/** Bundles as files: built once however many ask at once, bounded in bytes, never removed while one is being sent. */
export class Bundles {
  readonly #cache: HeldCache<BundleFile>;
  readonly #options: BundlesOptions;

  constructor(options: BundlesOptions) {
    this.#options = options;
    this.#cache = new HeldCache(options);
  }

  get folder(): string {
    return this.#options.folder;
  }

  /** Bytes of every bundle on disk, those included that are only still being sent. */
  get bytes(): number {
    return this.#cache.bytes;
  }

  /** Runs `work` while the child's bundle is there; once more, with a new one, where `work` throws that its file is not (ENOENT). */
  async use<T>(served: Served, description: ChildDescription, signal: AbortSignal, work: (bundle: BundleFile) => Promise<T>): Promise<T> {
    let used: BundleFile | undefined;
    const attempt = (): Promise<T> =>
      this.#cache.use(
        `${served.serial}/${description.id}`,
        (orphaned) => this.#build(served, description, orphaned),
        (bundle) => work((used = bundle)),
        signal,
      );
    try {
      return await attempt();
    } catch (error) {
      if (!used || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      this.#cache.forget((bundle) => bundle === used); // somebody cleaned the folder
      return attempt();
    }
  }

  /** Forgets the bundles of a checkpoint that is served no more. */
  retire({ serial }: Served): void {
    this.#cache.forget((bundle) => bundle.serial === serial);
  }

  async #build(served: Served, { id, architecture }: ChildDescription, orphaned: AbortSignal): Promise<BundleFile> {
    const { build, folder, onBuilt } = this.#options;
    const { serial } = served;
    const { file, sha256, bytes, report } = await build.call('bundle', { serial, architecture }, { signal: orphaned, givesWay: true });
    onBuilt(served, id, report);
    return { serial, file, sha256, bytes, dispose: () => rm(join(folder, file), { force: true }) };
  }
}

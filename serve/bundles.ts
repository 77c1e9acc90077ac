import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ChildDescription } from '../src/bundle/child.js';
import { HeldCache, type CacheObserver, type Held } from './heldCache.js';
import type { BuildRole, BuildSeconds } from './workers/build.js';
import type { Thread } from './workers/thread.js';

export interface BundlesOptions {
  readonly build: Thread<BuildRole>;
  /** Where the build worker writes bundles. */
  readonly folder: string;
  /** Bytes of bundles that are kept on disk. */
  readonly maxBytes: number;
  readonly observer: CacheObserver;
  readonly onBuilt: (seconds: BuildSeconds) => void;
}

/** A bundle on disk. No two builds have a file of one name, so that disposing of one never removes another's. */
export interface BundleFile extends Held {
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
  async use<T>(description: ChildDescription, work: (bundle: BundleFile) => Promise<T>): Promise<T> {
    let used: BundleFile | undefined;
    const attempt = (): Promise<T> =>
      this.#cache.use(
        description.id,
        () => this.#build(description),
        (bundle) => work((used = bundle)),
      );
    try {
      return await attempt();
    } catch (error) {
      if (!used || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      this.#cache.forget((bundle) => bundle === used); // somebody cleaned the folder
      return attempt();
    }
  }

  async #build({ architecture }: ChildDescription): Promise<BundleFile> {
    const { build, folder, onBuilt } = this.#options;
    const { file, sha256, bytes, seconds } = await build.call('bundle', { architecture });
    onBuilt(seconds);
    return { file, sha256, bytes, dispose: () => rm(join(folder, file), { force: true }) };
  }
}

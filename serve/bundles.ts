import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { ChildDescription } from '../src/bundle/child.js';
import { bundleQuery, type BundleOptions } from '../src/bundle/formats.js';
import { bundleVersion } from '../src/bundle/manifest.js';
import { containers } from '../src/encoding/container.js';
import { isAlive } from '../src/processes.js';
import { HeldCache, type CacheObserver, type Held } from './heldCache.js';
import type { Served } from './served.js';
import type { BuildReport, BuildRole } from './workers/building.js';
import type { Thread } from './workers/thread.js';

export interface BundlesOptions {
  readonly build: Thread<BuildRole>;
  /** Where the build worker writes bundles, and those of earlier servers may lie. */
  readonly folder: string;
  /** Bytes of bundles that are kept on disk. */
  readonly maxBytes: number;
  /** What computes, by name and version: all that a bundle depends on besides the checkpoint and what is asked for. */
  readonly maker: string;
  readonly observer: CacheObserver;
  readonly onBuilt: (served: Served, id: string, report: BuildReport) => void;
}

/** What is asked for. */
export interface AskedBundle {
  readonly child: ChildDescription;
  readonly options: BundleOptions;
  /** The child that a delta leads from; undefined: the whole bundle. */
  readonly have: ChildDescription | undefined;
  /** Whether that one nests in the child. */
  readonly nested: boolean;
}

/** A bundle on disk. */
export interface BundleFile extends Held {
  /** Name in the folder: `key-sha256.container`. */
  readonly file: string;
  readonly sha256: string;
}

const named = new RegExp(`^([0-9a-f]{32})-([0-9a-f]{64})\\.(?:${containers.join('|')})$`);

/**
 * Bundles as files: built once however many ask at once, kept over restarts, bounded in bytes, never removed while one is being sent. A file is named after all
 * that its content depends on and by its content's digest, by which one of an earlier server is checked before it is used. Servers may share a folder.
 */
export class Bundles {
  readonly #cache: HeldCache<BundleFile>;
  readonly #options: BundlesOptions;
  /** Of a key, its values that are there or being made, and the file of the newest: an evicted bundle and its successor have one name. */
  readonly #holders = new Map<string, { count: number; file: string | undefined }>();
  /** Files that are being removed, by key: one of the same name must not be made before they are gone. */
  readonly #removals = new Map<string, Promise<void>>();
  /** Files of earlier servers, by key, until they are asked for. */
  readonly #found = new Map<string, { readonly bundle: BundleFile; whole: Promise<boolean> | undefined }>();

  private constructor(options: BundlesOptions) {
    this.#options = options;
    this.#cache = new HeldCache(options);
  }

  /** Finds what earlier servers left in the folder. */
  static async open(options: BundlesOptions): Promise<Bundles> {
    const bundles = new Bundles(options);
    await bundles.#find();
    return bundles;
  }

  get folder(): string {
    return this.#options.folder;
  }

  /** Bytes of every bundle on disk, those included that are only still being sent. */
  get bytes(): number {
    return this.#cache.bytes;
  }

  /** Runs `work` while the bundle is there; once more, with a new one, where `work` throws that its file is not (ENOENT). */
  async use<T>(served: Served, asked: AskedBundle, signal: AbortSignal, work: (bundle: BundleFile) => Promise<T>): Promise<T> {
    const key = this.#keyOf(served, asked);
    let used: BundleFile | undefined;
    const attempt = (): Promise<T> =>
      this.#cache.use(
        key,
        (orphaned) => this.#make(served, asked, key, orphaned),
        (bundle) => work((used = bundle)),
        signal,
      );
    const again = (bundle: BundleFile): Promise<T> => {
      this.#cache.forget((other) => other === bundle);
      return attempt();
    };
    try {
      const found = this.#found.get(key);
      if (found) {
        const whole = await (found.whole ??= this.#isWhole(found.bundle));
        this.#found.delete(key);
        if (!whole) return await again(found.bundle);
      }
      return await attempt();
    } catch (error) {
      if (!used || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      return again(used); // somebody cleaned the folder
    }
  }

  #keyOf({ checkpoint }: Served, { child, options, have }: AskedBundle): string {
    const parts = [bundleVersion, this.#options.maker, checkpoint.digest, child.id, bundleQuery(options), have?.id ?? null];
    return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32);
  }

  async #make(served: Served, { child, options, have }: AskedBundle, key: string, orphaned: AbortSignal): Promise<BundleFile> {
    const { build, onBuilt } = this.#options;
    const asked = { serial: served.serial, architecture: child.architecture, options, have: have?.architecture, key };
    // From here on nothing removes a file of this name.
    this.#hold(key);
    try {
      await this.#removals.get(key);
      const { file, sha256, bytes, report } = await build.call('bundle', asked, { signal: orphaned, givesWay: true });
      onBuilt(served, child.id, report);
      return this.#held(key, file, sha256, bytes);
    } catch (error) {
      await this.#release(key, undefined);
      throw error;
    }
  }

  #held(key: string, file: string, sha256: string, bytes: number): BundleFile {
    this.#holders.get(key)!.file = file;
    return { file, sha256, bytes, dispose: () => this.#release(key, file) };
  }

  #hold(key: string): void {
    const holders = this.#holders.get(key);
    if (holders) holders.count++;
    else this.#holders.set(key, { count: 1, file: undefined });
  }

  /** Removes the file where nobody else has it. */
  async #release(key: string, file: string | undefined): Promise<void> {
    const holders = this.#holders.get(key)!;
    if (--holders.count === 0) this.#holders.delete(key);
    const last = file ?? holders.file;
    if (last === undefined || (holders.count > 0 && holders.file === last)) return;
    const removal = rm(join(this.folder, last), { force: true }).finally(() => {
      if (this.#removals.get(key) === removal) this.#removals.delete(key);
    });
    this.#removals.set(key, removal);
    await removal;
  }

  /** Takes the folder's files into the cache, the one used last as the last; what is over its bound is removed. */
  async #find(): Promise<void> {
    const files: { readonly name: string; readonly key: string; readonly sha256: string; readonly bytes: number; readonly used: number }[] = [];
    for (const name of await readdir(this.folder).catch(() => [])) {
      const writer = /\.partial-(\d+)$/.exec(name)?.[1];
      if (writer !== undefined && !isAlive(Number(writer))) await rm(join(this.folder, name), { force: true });
      const [, key, sha256] = named.exec(name) ?? [];
      const found = key === undefined ? undefined : await stat(join(this.folder, name)).catch(() => undefined);
      if (found) files.push({ name, key: key!, sha256: sha256!, bytes: found.size, used: found.mtimeMs });
    }
    for (const { name, key, sha256, bytes } of files.sort((a, b) => a.used - b.used)) {
      this.#hold(key);
      const bundle = this.#held(key, name, sha256, bytes);
      this.#found.set(key, { bundle, whole: undefined });
      this.#cache.put(key, bundle);
    }
  }

  async #isWhole({ file, sha256 }: BundleFile): Promise<boolean> {
    const hash = createHash('sha256');
    return pipeline(createReadStream(join(this.folder, file)), hash).then(
      () => hash.digest('hex') === sha256,
      () => false,
    );
  }
}

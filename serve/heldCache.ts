import { LRUCache } from 'lru-cache';

/** Something that takes memory (or disk) until it is disposed of. */
export interface Held {
  readonly bytes: number;
  dispose(): Promise<void>;
}

export interface CacheObserver {
  /** Somebody found the value there, or being made. */
  hit(): void;
  miss(): void;
  /** A value left for want of room. */
  eviction(): void;
  /** Bytes of every value not yet disposed of, those in use included. */
  bytes(bytes: number): void;
  /** Disposing failed; nobody waits for it. */
  error(error: unknown): void;
}

export interface CacheOptions {
  /** Bytes of all values that nobody needs at the moment. A value larger than this is disposed of as soon as nobody uses it. */
  readonly maxBytes: number;
  readonly observer: CacheObserver;
}

interface Entry<V> {
  readonly value: V;
  /** Requests that work with the value. */
  users: number;
  /** Whether the cache still knows it. */
  cached: boolean;
}

interface Making<V> {
  readonly entry: Promise<Entry<V>>;
  waiting: number;
  /** Those of the waiting who have not taken their request back. */
  wanted: number;
  /** Aborted when nobody wants it any more. */
  readonly orphaned: AbortController;
}

/**
 * A least-recently-used cache bounded in bytes, whose values are made once however many ask at once (single flight) and are never
 * disposed of while somebody uses them: an evicted value lives until its last user is done.
 */
export class HeldCache<V extends Held> {
  readonly #lru: LRUCache<string, Entry<V>>;
  readonly #making = new Map<string, Making<V>>();
  readonly #observer: CacheObserver;
  #bytes = 0;

  constructor({ maxBytes, observer }: CacheOptions) {
    this.#observer = observer;
    this.#lru = new LRUCache({
      maxSize: maxBytes,
      sizeCalculation: ({ value }) => Math.max(1, value.bytes),
      dispose: (entry, _key, reason) => {
        if (reason === 'evict') observer.eviction();
        entry.cached = false;
        this.#disposeUnused(entry);
      },
    });
  }

  /** Bytes of every value not yet disposed of. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether the value is there or being made; asking does not make it more recent. */
  stateOf(key: string): 'ready' | 'making' | undefined {
    return this.#lru.has(key) ? 'ready' : this.#making.has(key) ? 'making' : undefined;
  }

  /** The value, where it is there; asking does not make it more recent. It may be disposed of at any time: only to look at. */
  peek(key: string): V | undefined {
    return this.#lru.peek(key)?.value;
  }

  /** The values that are there, the one used last first; only to look at. */
  values(): V[] {
    return [...this.#lru.values()].map(({ value }) => value);
  }

  /**
   * Runs `work` with the key's value, made by `make` unless it is there. What `make` throws is thrown to all who wait, and not kept.
   * @param make its signal is aborted when all who waited have taken their requests back
   * @param signal takes this request back
   */
  async use<T>(key: string, make: (orphaned: AbortSignal) => Promise<V>, work: (value: V) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const entry = await this.#take(key, make, signal);
    try {
      return await work(entry.value);
    } finally {
      this.#release(entry);
    }
  }

  /** The value, where it is there, as the one used last; not disposed of before `release` is called (once). */
  hold(key: string): { readonly value: V; readonly release: () => void } | undefined {
    const entry = this.#lru.get(key);
    if (!entry) return undefined;
    entry.users++;
    return { value: entry.value, release: () => this.#release(entry) };
  }

  /** Takes a value that is there already, as the one used last. */
  put(key: string, value: V): void {
    const entry: Entry<V> = { value, users: 0, cached: true };
    this.#count(value.bytes);
    this.#lru.set(key, entry);
    if (this.#lru.peek(key) === entry) return;
    entry.cached = false; // larger than all of the cache
    this.#disposeUnused(entry);
  }

  /** Forgets the values that `lost` picks, such as those that died with a worker. */
  forget(lost: (value: V) => boolean): void {
    for (const [key, { value }] of [...this.#lru.entries()]) if (lost(value)) this.#lru.delete(key);
  }

  /** The entry, with this user counted. */
  async #take(key: string, make: (orphaned: AbortSignal) => Promise<V>, signal: AbortSignal | undefined): Promise<Entry<V>> {
    signal?.throwIfAborted();
    const known = this.#lru.get(key);
    if (known) {
      this.#observer.hit();
      known.users++;
      return known;
    }
    const underWay = this.#making.get(key);
    if (underWay?.orphaned.signal.aborted) {
      // It may be given up at any time, or end well all the same.
      await underWay.entry.catch(() => undefined);
      return this.#take(key, make, signal);
    }
    if (underWay) {
      this.#observer.hit();
      underWay.waiting++;
      want(underWay, signal);
      return underWay.entry;
    }
    this.#observer.miss();
    const orphaned = new AbortController();
    const making: Making<V> = { entry: this.#make(key, () => make(orphaned.signal)), waiting: 1, wanted: 0, orphaned };
    want(making, signal);
    this.#making.set(key, making);
    return making.entry;
  }

  async #make(key: string, make: () => Promise<V>): Promise<Entry<V>> {
    try {
      const value = await Promise.resolve().then(make);
      // All who wait are its users from the first moment on, so that it cannot be evicted under them before they run.
      const entry: Entry<V> = { value, users: this.#making.get(key)!.waiting, cached: true };
      this.#count(value.bytes);
      this.#lru.set(key, entry);
      // The cache does not take what is larger than all of it.
      if (this.#lru.peek(key) !== entry) entry.cached = false;
      return entry;
    } finally {
      this.#making.delete(key);
    }
  }

  #release(entry: Entry<V>): void {
    entry.users--;
    this.#disposeUnused(entry);
  }

  #disposeUnused(entry: Entry<V>): void {
    if (entry.cached || entry.users > 0) return;
    entry.users = Infinity; // disposed of once
    this.#count(-entry.value.bytes);
    entry.value.dispose().catch((error: unknown) => {
      this.#observer.error(error);
    });
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    this.#observer.bytes(this.#bytes);
  }
}

/** Counts one who wants what is being made, until the signal takes that back. */
function want(making: Making<Held>, signal: AbortSignal | undefined): void {
  making.wanted++;
  signal?.addEventListener(
    'abort',
    () => {
      if (--making.wanted === 0) making.orphaned.abort(signal.reason);
    },
    { once: true },
  );
}

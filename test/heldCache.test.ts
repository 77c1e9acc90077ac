import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import { HeldCache, type Held } from '../serve/heldCache.js';

class Thing implements Held {
  static alive = 0;
  disposed = 0;
  constructor(
    readonly name: string,
    readonly bytes: number,
  ) {
    Thing.alive++;
  }
  dispose(): Promise<void> {
    this.disposed++;
    Thing.alive--;
    return Promise.resolve();
  }
}

function cacheOf(maxBytes: number) {
  const seen = { hits: 0, misses: 0, evictions: 0, bytes: 0, errors: 0 };
  const cache = new HeldCache<Thing>({
    maxBytes,
    observer: {
      hit: () => seen.hits++,
      miss: () => seen.misses++,
      eviction: () => seen.evictions++,
      bytes: (bytes) => (seen.bytes = bytes),
      error: () => seen.errors++,
    },
  });
  return { cache, seen };
}

const make = (name: string, bytes: number) => () => Promise.resolve(new Thing(name, bytes));
const same = (thing: Thing) => Promise.resolve(thing);

test('a value is made once however many ask, and again only after it left', async () => {
  const { cache, seen } = cacheOf(100);
  let made = 0;
  const slow = async (): Promise<Thing> => {
    made++;
    await sleep(5);
    return new Thing('a', 10);
  };
  const all = await Promise.all(Array.from({ length: 10 }, () => cache.use('a', slow, same)));
  assert.ok(all.every((thing) => thing === all[0]));
  assert.deepEqual([made, seen.misses, seen.hits], [1, 1, 9]);
});

test('the least recently used leaves; bytes are those of what lives', async () => {
  const { cache, seen } = cacheOf(100);
  const a = await cache.use('a', make('a', 40), same);
  const b = await cache.use('b', make('b', 40), same);
  await cache.use('a', make('a', 40), same);
  await cache.use('c', make('c', 40), same);
  assert.deepEqual([a.disposed, b.disposed, seen.evictions, seen.bytes, cache.stateOf('b')], [0, 1, 1, 80, undefined]);
});

test('a value in use is not disposed of when it is evicted, but when the last is done with it', async () => {
  const { cache, seen } = cacheOf(100);
  const release: (() => void)[] = [];
  const held = (thing: Thing) => new Promise<Thing>((resolve) => release.push(() => {
    resolve(thing);
  }));
  const users = [cache.use('a', make('a', 80), held), cache.use('a', make('a', 80), held)];
  await sleep(1);
  await cache.use('b', make('b', 80), same);
  assert.equal(cache.stateOf('a'), undefined);
  assert.equal(seen.bytes, 160);
  release[0]!();
  const a = await users[0]!;
  assert.equal(a.disposed, 0);
  release[1]!();
  await users[1];
  assert.deepEqual([a.disposed, seen.bytes], [1, 80]);
});

test('a value larger than the bound serves those who asked, and is disposed of', async () => {
  const { cache, seen } = cacheOf(100);
  const a = await cache.use('a', make('a', 500), (thing) => {
    assert.equal(thing.disposed, 0);
    return Promise.resolve(thing);
  });
  assert.deepEqual([a.disposed, seen.bytes], [1, 0]);
});

test('what cannot be made fails all who wait, and is tried again by the next', async () => {
  const { cache, seen } = cacheOf(100);
  const failing = () => Promise.reject(new Error('no'));
  const all = await Promise.allSettled([cache.use('a', failing, same), cache.use('a', failing, same)]);
  assert.ok(all.every(({ status }) => status === 'rejected'));
  assert.equal((await cache.use('a', make('a', 1), same)).name, 'a');
  assert.equal(seen.misses, 2);
});

test('work that fails gives its value back; what is forgotten is disposed of', async () => {
  const { cache } = cacheOf(100);
  const a = await cache.use('a', make('a', 10), same);
  await assert.rejects(cache.use('a', make('a', 10), () => Promise.reject(new Error('no'))));
  cache.forget((thing) => thing === a);
  assert.equal(a.disposed, 1);
});

test('a thousand values at random: none disposed of twice or while used, none lost', async () => {
  const { cache, seen } = cacheOf(50);
  Thing.alive = 0;
  await Promise.all(
    Array.from({ length: 1000 }, (_, i) => {
      const name = String((i * 7919) % 37);
      return cache.use(name, async () => {
        await sleep(i % 3);
        return new Thing(name, 1 + (i % 20));
      }, async (thing) => {
        assert.equal(thing.name, name);
        assert.equal(thing.disposed, 0);
        await sleep(i % 5);
        assert.equal(thing.disposed, 0);
      });
    }),
  );
  assert.ok(cache.bytes <= 50 && cache.bytes === seen.bytes);
  cache.forget(() => true);
  assert.deepEqual([Thing.alive, cache.bytes, seen.errors], [0, 0, 0]);
});

test('who took the request back before it came waits for nothing, and nothing is made', async () => {
  const { cache, seen } = cacheOf(100);
  let made = 0;
  const counted = (): Promise<Thing> => {
    made++;
    return make('a', 10)();
  };
  await assert.rejects(cache.use('a', counted, same, AbortSignal.abort(new Error('hung up'))), /hung up/);
  assert.deepEqual([made, seen.misses], [0, 0]);
});

// The store in memory: bounded by bytes, least recently used out first, and walks that hold nobody up.
import fc from 'fast-check';
import t from 'tap';
import { Entry, type EntryParts, type Terms } from '../../../src/cache/entry.ts';
import { MemoryStore } from '../../../src/cache/memory-store.ts';
import type { Purge } from '../../../src/cache/purge.ts';

const TERMS: Terms = {
  lifetimeMs: 10_000,
  initialAgeMs: 0,
  alwaysValidate: false,
  neverStale: false,
  staleWhileRevalidateMs: 0,
  staleIfErrorMs: 0,
  etag: '',
  lastModified: '',
};
const ANY: Purge = { upstream: null, uri: null, prefix: null, key: null };

function entry(parts: Partial<EntryParts> = {}): Entry {
  return new Entry({
    key: 'k',
    upstream: 'u',
    uri: '/',
    status: 200,
    reason: 'OK',
    headers: [],
    body: Buffer.alloc(0),
    requestAt: 0,
    responseAt: 0,
    terms: TERMS,
    vary: [],
    varyValues: [],
    costMs: 0,
    pace: null,
    ...parts,
  });
}

/** One of key and URI `name`, of the same size as all others. */
const named = (name: string, parts: Partial<EntryParts> = {}) => entry({ key: name, uri: `/${name}`, ...parts });
const variant = (value: string, key = 'k') => entry({ key, vary: ['accept-language'], varyValues: [value] });
const SIZE = named('a').bytes;
const still = () => 0;

function variantsOf(store: MemoryStore, key: string): string[] {
  const values: string[] = [];
  for (let found = store.find(key); found; found = found.next) values.push(found.varyValues.join());
  return values;
}

/** The keys among `names` that the store has. */
const held = (store: MemoryStore, names: string) => [...names].filter((name) => store.find(name)).join('');

t.test('what was used least recently goes first, by bytes', async (t) => {
  const store = new MemoryStore(3 * SIZE, 16, still);
  const [a, b, c] = ['a', 'b', 'c'].map((name) => named(name));
  for (const one of [a!, b!, c!]) t.ok(store.put(one));
  t.equal(store.bytes, 3 * SIZE);
  t.equal(held(store, 'abc'), 'abc', 'full to the last byte');
  store.touch(a!);
  store.put(named('d'));
  t.equal(held(store, 'abcd'), 'acd', 'b was used least recently');
  store.touch(c!);
  store.put(named('e'));
  t.equal(held(store, 'acde'), 'cde');
  // One of twice the size takes the place of two.
  store.put(named('f', { body: Buffer.alloc(SIZE) }));
  t.equal(held(store, 'cdef'), 'ef', 'd and c were used before e');
  t.equal(store.bytes, 3 * SIZE);
  t.equal(store.entries, 2);
  t.equal(store.countersOf('u').evicted, 4);
});

t.test('an entry counts with all its strings, its body and its bookkeeping', async (t) => {
  const body = Buffer.alloc(1000);
  t.ok(entry().bytes >= 1000, 'bookkeeping');
  t.equal(entry({ body }).bytes - entry().bytes, 1000);
  for (const parts of [
    { key: 'k'.repeat(1001) },
    { uri: '/'.repeat(1001) },
    { headers: ['n'.repeat(500), 'v'.repeat(500)] },
    { vary: ['n'.repeat(1000)] },
    { varyValues: ['v'.repeat(1000)] },
    { pace: Array.from({ length: 125 }, () => 1) },
  ]) {
    t.ok(entry(parts).bytes - entry().bytes >= 1000, Object.keys(parts)[0]!);
  }
});

t.test('an entry larger than the store is not taken, and throws nothing out', async (t) => {
  const store = new MemoryStore(3 * SIZE, 16, still);
  store.put(named('a'));
  t.notOk(store.put(named('b', { body: Buffer.alloc(2 * SIZE + 1) })));
  t.equal(held(store, 'ab'), 'a');
  t.equal(store.countersOf('u').evicted, 0);
  t.ok(store.put(named('c', { body: Buffer.alloc(2 * SIZE) })), 'one as large as the store is');
  t.equal(held(store, 'abc'), 'c');
});

t.test('an entry larger than the store leaves the older one of its variant in place', async (t) => {
  const store = new MemoryStore(3 * SIZE, 16, still);
  const old = named('a');
  store.put(old);
  t.notOk(store.put(named('a', { body: Buffer.alloc(3 * SIZE) })));
  t.equal(store.find('a'), old);
});

t.test('put takes the place of the same variant only', async (t) => {
  const store = new MemoryStore(100 * SIZE, 16, still);
  for (const language of ['de', 'fr', 'en']) store.put(variant(language));
  t.same(variantsOf(store, 'k'), ['en', 'fr', 'de'], 'the newest first');
  const french = variant('fr');
  store.put(french);
  t.same(variantsOf(store, 'k'), ['fr', 'en', 'de']);
  t.equal(store.find('k'), french);
  store.put(entry({ vary: ['accept'], varyValues: ['fr'] }));
  t.same(variantsOf(store, 'k'), ['fr', 'fr', 'en', 'de'], 'another Vary is another variant, whatever the value');
  t.equal(store.entries, 4);
  t.equal(store.countersOf('u').evicted, 0, 'replaced is not evicted');
  t.equal(store.bytes, store.countersOf('u').bytes);
});

t.test('a full store makes room by what is replaced before it evicts another', async (t) => {
  const store = new MemoryStore(2 * SIZE, 16, still);
  store.put(named('a'));
  store.put(named('b'));
  store.put(named('b'));
  t.equal(held(store, 'ab'), 'ab');
  t.equal(store.countersOf('u').evicted, 0);
});

t.test('variants of a key are bounded: the oldest goes', async (t) => {
  const store = new MemoryStore(1e9, 3, still);
  for (let i = 0; i < 1000; i++) store.put(variant(String(i)));
  t.same(variantsOf(store, 'k'), ['999', '998', '997']);
  t.equal(store.entries, 3);
  t.equal(store.countersOf('u').evicted, 997);
  store.put(variant('997'));
  t.same(variantsOf(store, 'k'), ['997', '999', '998'], 'a renewed one throws nothing out');
});

t.test('invalidation takes all variants and keys of one URI, and of no other', async (t) => {
  const store = new MemoryStore(1e9, 16, still);
  for (const key of ['a', 'b']) for (const language of ['de', 'en']) store.put(variant(language, key));
  store.put(entry({ key: 'other', uri: '/2' }));
  store.put(entry({ key: 'elsewhere', upstream: 'v' }));
  t.equal(store.invalidate('u', '/'), 4);
  t.equal(store.find('a'), null);
  t.equal(store.find('b'), null);
  t.ok(store.find('other'));
  t.ok(store.find('elsewhere'));
  t.equal(store.countersOf('u').invalidated, 4);
  t.equal(store.countersOf('v').invalidated, 0);
  t.equal(store.invalidate('u', '/'), 0);
  t.equal(store.invalidate('nobody', '/'), 0);
  t.equal(store.entries, 2);
});

t.test('invalidation finds the others of a URI wherever one was taken out', async (t) => {
  for (const taken of ['a', 'b', 'c']) {
    const store = new MemoryStore(1e9, 16, still);
    for (const key of 'abc') store.put(entry({ key }));
    store.remove(store.find(taken)!);
    t.equal(store.invalidate('u', '/'), 2, taken);
    t.equal(store.entries, 0);
  }
});

t.test('removing is for what is held, once', async (t) => {
  const store = new MemoryStore(1e9, 16, still);
  const only = named('a');
  store.remove(only);
  store.touch(only);
  store.put(only);
  store.remove(only);
  store.remove(only);
  t.equal(store.entries, 0);
  t.equal(store.bytes, 0);
  t.same(
    [only.newer, only.older, only.before, only.after, only.next],
    [null, null, null, null, null],
    'no link holds anything',
  );
});

t.test('a purge takes what matches everything that was said', async (t) => {
  const fill = () => {
    const store = new MemoryStore(1e9, 16, still);
    for (const upstream of ['u', 'v']) {
      for (const uri of ['/a/1', '/a/2', '/b']) store.put(entry({ key: `${upstream}${uri}`, upstream, uri }));
    }
    return store;
  };
  const table: [order: Partial<Purge>, count: number][] = [
    [{}, 6],
    [{ upstream: 'u' }, 3],
    [{ upstream: 'x' }, 0],
    [{ prefix: '/a/' }, 4],
    [{ prefix: '/a/', upstream: 'v' }, 2],
    [{ key: 'u/b' }, 1],
    [{ key: 'u/b', prefix: '/a' }, 0],
    [{ key: 'u/b', upstream: 'v' }, 0],
    [{ upstream: 'u', uri: '/b' }, 1],
    [{ uri: '/b' }, 2],
  ];
  for (const [order, count] of table) {
    const store = fill();
    t.equal(await store.purge({ ...ANY, ...order }), count, JSON.stringify(order));
    t.equal(store.entries, 6 - count);
    t.equal(store.countersOf('u').invalidated + store.countersOf('v').invalidated, count);
  }
});

t.test('a sweep takes what is of no more use and counts it', async (t) => {
  const store = new MemoryStore(1e9, 16, still);
  for (let i = 0; i < 1000; i++) store.put(named(String(i), { upstream: i % 2 ? 'odd' : 'even' }));
  await store.sweep(({ key }) => Number(key) % 10 !== 0);
  t.equal(store.entries, 900);
  t.equal(store.countersOf('even').swept, 100);
  t.equal(store.countersOf('odd').swept, 0);
  t.equal(store.countersOf('even').entries, 400);
});

t.test('shrinking gives back the least recently used', async (t) => {
  const store = new MemoryStore(1e9, 16, still);
  for (const name of 'abcde') store.put(named(name));
  store.shrinkTo(2 * SIZE);
  t.equal(held(store, 'abcde'), 'de');
  store.shrinkTo(0);
  t.equal(store.entries, 0);
  t.equal(store.bytes, 0);
});

/** A store whose clock says that each slice is over after one look, so that a walk pauses every 64 entries. */
function slow(): { store: MemoryStore; pauses: () => number } {
  let looks = 0;
  const store = new MemoryStore(1e9, 16, () => looks++ * 1000);
  return { store, pauses: () => looks };
}

/** Lets a walk do one more slice. */
const nextSlice = () => new Promise((resolve) => setImmediate(resolve));

t.test('a walk goes on when the entry it stands on is removed, used or evicted meanwhile', async (t) => {
  const N = 1000;
  for (const what of ['removed', 'replaced', 'used', 'evicted'] as const) {
    const { store } = slow();
    const all = Array.from({ length: N }, (_, i) => named(String(i)));
    for (const one of all) store.put(one);
    const seen = new Set<Entry>();
    let over = false;
    // Newest first: after the first slice it stands on the 65th from the end.
    const walk = store.sweep((one) => {
      seen.add(one);
      return true;
    });
    void walk.then(() => {
      over = true;
    });
    while (!over) {
      const stands = all[N - 1 - seen.size];
      if (stands) {
        if (what === 'removed') store.remove(stands);
        else if (what === 'replaced') store.put(named(stands.key));
        else if (what === 'used') store.touch(stands);
        else store.shrinkTo(store.bytes - SIZE);
      }
      await nextSlice();
    }
    t.ok(seen.size > N - 70, `${seen.size} of ${N} seen when it was ${what}`);
  }
});

t.test('a purge finds also what is used while it walks', async (t) => {
  const { store } = slow();
  const all = Array.from({ length: 1000 }, (_, i) => named(String(i)));
  for (const one of all) store.put(one);
  const purged = store.purge({ ...ANY, upstream: 'u' });
  store.touch(all[0]!);
  await nextSlice();
  for (const one of all) store.touch(one);
  t.equal(await purged, 1000);
  t.equal(store.entries, 0);
});

t.test('two walks at a time do not disturb each other', async (t) => {
  const { store } = slow();
  for (let i = 0; i < 1000; i++) store.put(named(String(i), { upstream: i % 2 ? 'odd' : 'even' }));
  const [odd, even] = await Promise.all([
    store.purge({ ...ANY, upstream: 'odd' }),
    store.purge({ ...ANY, upstream: 'even' }),
    store.sweep(() => true),
  ]);
  t.same([odd, even, store.entries], [500, 500, 0]);
});

t.test('an entry put during a walk is left to the next one', async (t) => {
  const { store } = slow();
  for (let i = 0; i < 200; i++) store.put(named(String(i)));
  const purged = store.purge(ANY);
  store.put(named('new'));
  t.equal(await purged, 200);
  t.ok(store.find('new'));
});

t.test('a walk looks at the clock every 64 entries and pauses after 2 ms of it', async (t) => {
  let now = 0;
  let visitedAtPause = 0;
  let visited = 0;
  let longest = 0;
  const store = new MemoryStore(1e9, 16, () => now);
  for (let i = 0; i < 10_000; i++) store.put(named(String(i)));
  let over = false;
  const walk = store.sweep(() => {
    visited++;
    now += 0.005; // 5 µs each: 320 µs in 64 entries
    return true;
  });
  void walk.then(() => {
    over = true;
  });
  while (!over) {
    longest = Math.max(longest, (visited - visitedAtPause) * 0.005);
    visitedAtPause = visited;
    await nextSlice();
  }
  t.equal(visited, 10_000);
  t.ok(longest >= 2 && longest < 2.5, `${longest} ms in one slice`);
});

t.test('with 200 000 entries no walk holds the event loop up for 5 ms', async (t) => {
  const N = 200_000;
  const all = Array.from({ length: N }, (_, i) => named(String(i)));
  for (const [what, keeps] of [
    ['a sweep that keeps all', true],
    ['a sweep that takes all', false],
  ] as const) {
    // A slice takes 2 ms and what passes until the next look at the clock. The machine may take the CPU away at any time;
    // what the same 64 entries cost at least, of several rounds, is the walk's own.
    const batches: number[] = [];
    let longestSlice = 0;
    for (let round = 0; round < 4; round++) {
      let visited = 0;
      let visitedBefore = 0;
      let lookedAt = 0;
      const store = new MemoryStore(1e12, 16, () => {
        const now = performance.now();
        if (visited > visitedBefore) {
          const batch = visited >> 6;
          batches[batch] = Math.min(batches[batch] ?? Number.POSITIVE_INFINITY, now - lookedAt);
        }
        visitedBefore = visited;
        lookedAt = now;
        return now;
      });
      for (const one of all) store.put(one);
      let over = false;
      const walk = store.sweep(() => {
        visited++;
        return keeps;
      });
      void walk.then(() => {
        over = true;
      });
      for (let at = performance.now(); !over; at = performance.now()) {
        await nextSlice();
        if (round === 0) longestSlice = Math.max(longestSlice, performance.now() - at);
      }
      t.equal(visited, N);
      store.shrinkTo(0);
    }
    const longest = 2 + Math.max(...batches.filter(Number.isFinite));
    t.comment(
      `${what}: no slice longer than ${longest.toFixed(2)} ms; seen ${longestSlice.toFixed(2)} on a shared machine`,
    );
    t.ok(longest < 5, `${what}: ${longest} ms`);
  }
});

t.test('counters follow whatever happens', async () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd');
  const step = fc.oneof(
    fc.record({ do: fc.constant('put'), key: name, uri: name, language: name, size: fc.nat(2000), upstream: name }),
    fc.record({ do: fc.constantFrom('touch', 'remove'), key: name }),
    fc.record({ do: fc.constant('invalidate'), uri: name, upstream: name }),
    fc.record({ do: fc.constant('shrink'), key: fc.constant('') }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      const store = new MemoryStore(8 * SIZE, 2, still);
      const known = new Set<Entry>();
      for (const one of steps as Record<string, string>[]) {
        const found = store.find(one.key ?? '');
        if (one.do === 'put') {
          const put = entry({
            key: one.key!,
            uri: one.uri!,
            upstream: one.upstream!,
            vary: ['x'],
            varyValues: [one.language!],
            body: Buffer.alloc(Number(one.size)),
          });
          known.add(put);
          store.put(put);
        } else if (one.do === 'touch' && found) store.touch(found);
        else if (one.do === 'remove' && found) store.remove(found);
        else if (one.do === 'invalidate') {
          const before = store.entries;
          if (before - store.invalidate(one.upstream!, one.uri!) !== store.entries) return false;
        } else if (one.do === 'shrink') store.shrinkTo(4 * SIZE);
        const there = new Set<Entry>();
        for (const key of 'abcd') {
          let variants = 0;
          for (let e = store.find(key); e; e = e.next) {
            if (there.has(e) || ++variants > 2) return false;
            there.add(e);
          }
        }
        let bytes = 0;
        for (const e of there) bytes += e.bytes;
        const perUpstream = ['a', 'b', 'c', 'd'].map((upstream) => store.countersOf(upstream));
        const entries = perUpstream.reduce((sum, counters) => sum + counters.entries, 0);
        const counted = perUpstream.reduce((sum, counters) => sum + counters.bytes, 0);
        if (bytes > store.maxBytes) return false;
        if (there.size !== store.entries || bytes !== store.bytes) return false;
        if (entries !== store.entries || counted !== store.bytes) return false;
        if (one.do === 'invalidate' && [...there].some((e) => e.upstream === one.upstream && e.uri === one.uri)) {
          return false;
        }
        // What is not held has no links.
        for (const e of known) if (!there.has(e) && (e.newer || e.older || e.before || e.after)) return false;
      }
      return true;
    }),
    { numRuns: 300 },
  );
});

// The second level of the cache against a real redis-server: what is found again, what is thrown out, and what a broken server costs.
import t, { type Test } from 'tap';
import { Entry, type EntryParts } from '../../../src/cache/entry.ts';
import { decodeEntry, encodeEntry } from '../../../src/cache/entry-format.ts';
import type { PurgeMessage } from '../../../src/cache/redis-purge.ts';
import { RedisStore, type RedisStoreParts } from '../../../src/cache/redis-store.ts';
import type { RedisConfig } from '../../../src/config/schema.ts';
import { RedisHub } from '../../../src/redis/hub.ts';
import { redisMissing, TestRedis } from '../../support/redis.ts';
import { until, whileNothing, within } from '../../support/until.ts';

const HOUR_MS = 3_600_000;
const TIMEOUT_MS = 150;
/** What a machine with other things to do may add. */
const MARGIN_MS = 350;
const ALL: PurgeMessage = { upstream: null, uri: null, prefix: null, key: null };
const skip = redisMissing();

const TERMS = {
  lifetimeMs: HOUR_MS,
  initialAgeMs: 0,
  alwaysValidate: false,
  neverStale: false,
  staleWhileRevalidateMs: 0,
  staleIfErrorMs: 0,
  etag: '"1"',
  lastModified: '',
};

function entryOf(parts: Partial<EntryParts> = {}): Entry {
  return new Entry({
    key: 'k',
    upstream: 'ai',
    uri: '/v1/models',
    status: 200,
    reason: 'OK',
    headers: ['Content-Type', 'application/json'],
    body: Buffer.from('{"a":1}'),
    requestAt: 1000,
    responseAt: 2000,
    terms: TERMS,
    vary: [],
    varyValues: [],
    costMs: 7,
    pace: null,
    ...parts,
  });
}

/** The variant of the key `k` for a language. */
function inLanguage(language: string, responseAt = 2000): Entry {
  return entryOf({ vary: ['accept-language'], varyValues: [language], body: Buffer.from(language), responseAt });
}

/** A request's values, by lower-case field name. */
function asking(fields: Record<string, string> = {}) {
  return (names: readonly string[]) => names.map((name) => fields[name] ?? '');
}

type Parts = Partial<RedisStoreParts & { config: RedisConfig }>;

class Store {
  readonly hub: RedisHub;
  readonly store: RedisStore;
  readonly log: string[] = [];
  readonly purges: PurgeMessage[] = [];

  constructor(redis: TestRedis, { config, ...parts }: Parts = {}) {
    this.hub = new RedisHub(config ?? { url: redis.path, prefix: 'test:', timeoutMs: TIMEOUT_MS }, () =>
      performance.now(),
    );
    this.store = new RedisStore({
      hub: this.hub,
      maxVariants: 3,
      encode: encodeEntry,
      decode: decodeEntry,
      onPurge: (message) => this.purges.push(message),
      ...parts,
    });
    this.hub.use({ onDown: (reason) => this.log.push(`down: ${reason}`), onUp: () => this.log.push('up') });
  }

  start(): void {
    this.hub.start();
  }

  async stop(): Promise<void> {
    this.store.stop();
    await this.hub.stop();
  }

  async up(): Promise<void> {
    await until('the store is up', () => this.store.state === 'up', 15_000);
  }

  async get(key: string, fields: Record<string, string> = {}): Promise<Entry | null> {
    let answered = false;
    const got = new Promise<Entry | null>((resolve) => {
      this.store.get(key, asking(fields), (entry) => {
        if (answered) this.log.push('answered twice');
        answered = true;
        resolve(entry);
      });
    });
    return await within(`an answer for ${key}`, got);
  }

  async body(key: string, fields: Record<string, string> = {}): Promise<string | null> {
    return (await this.get(key, fields))?.body.toString() ?? null;
  }

  /** Stores, and waits until Redis has confirmed it. */
  async put(...entries: Entry[]): Promise<void> {
    for (const entry of entries) this.store.put(entry, HOUR_MS);
    await until('the entries are written', () => this.store.pendingBytes === 0);
  }
}

type Open = (parts?: Parts) => Promise<Store>;

/** A test with a server, and stores that are stopped when it is over. */
function withRedis(name: string, run: (t: Test, redis: TestRedis, open: Open) => Promise<void>): void {
  void t.test(name, { skip }, async (t) => {
    const redis = await TestRedis.start();
    const stores: Store[] = [];
    const open: Open = async (parts = {}) => {
      const opened = new Store(redis, parts);
      stores.push(opened);
      opened.start();
      await opened.up();
      return opened;
    };
    try {
      await run(t, redis, open);
    } finally {
      for (const store of stores) await store.stop();
      await redis.stop();
    }
  });
}

function sockets(): Record<string, number> {
  const counts: Record<string, number> = {
    PipeWrap: 0,
    PipeConnectWrap: 0,
    TCPSocketWrap: 0,
    Timeout: 0,
    Immediate: 0,
  };
  for (const kind of process.getActiveResourcesInfo()) if (kind in counts) counts[kind]!++;
  return counts;
}

async function calls(redis: TestRedis, command: string): Promise<number> {
  const stats = await redis.ask('INFO commandstats');
  return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
}

async function countKeys(redis: TestRedis): Promise<string> {
  return (await redis.ask('DBSIZE')).trim();
}

async function answers(redis: TestRedis, command: string, expected: string): Promise<void> {
  const giveUpAt = performance.now() + 5000;
  while (!(await redis.ask(command)).trim().endsWith(expected)) {
    if (performance.now() > giveUpAt) throw new Error(`${command} never answers ${expected}`);
  }
}

/** Until so many listen on the channel messages go nowhere. */
async function listening(redis: TestRedis, count: number): Promise<void> {
  await answers(redis, 'PUBSUB NUMSUB test:purge', `:${count}`);
}

withRedis('an entry is found again as it was, by another store too', async (t, redis, open) => {
  const [one, two] = [await open(), await open()];
  const entry = entryOf({ body: Buffer.from([0, 255, 13, 10]) });
  await one.put(entry);
  for (const store of [one, two]) t.strictSame({ ...(await store.get('k')) }, { ...entry });
  t.equal(await one.get('other'), null);
  t.match({ ...one.store.counters }, { gets: 2, hits: 1, puts: 1, dropped: 0, errors: 0, timeouts: 0, rejected: 0 });
  t.equal(await calls(redis, 'mget'), 3, 'one round trip each');
  t.equal(await calls(redis, 'get'), 0);
  t.same(one.log, ['up']);
  t.same(one.purges, [], 'nothing was missed at the start');
});

withRedis('a variant is found by what the request says', async (t, _redis, open) => {
  const store = await open();
  await store.put(inLanguage('de'), inLanguage('en'));
  t.equal(await store.body('k', { 'accept-language': 'de' }), 'de');
  t.equal(await store.body('k', { 'accept-language': 'en' }), 'en');
  t.equal(await store.body('k', { 'accept-language': 'fr' }), null);
  t.equal(store.store.counters.rejected, 0);
});

withRedis('of several variants that fit the newest is taken', async (t, _redis, open) => {
  const store = await open();
  const asked = { 'accept-language': 'de', accept: 'text/plain' };
  await store.put(entryOf({ body: Buffer.from('plain'), responseAt: 3000 }), inLanguage('de', 2000));
  t.equal(await store.body('k', asked), 'plain');
  await store.put(inLanguage('de', 4000));
  t.equal(await store.body('k', asked), 'de');
  t.equal(await store.body('k', { 'accept-language': 'en' }), 'plain');
  const byAccept = { vary: ['accept'], varyValues: ['text/plain'], body: Buffer.from('text'), responseAt: 5000 };
  await store.put(entryOf(byAccept));
  t.equal(await store.body('k', asked), 'text');
});

withRedis('a key has so many variants and no more; the one put longest ago goes', async (t, redis, open) => {
  const store = await open();
  const languages = ['a', 'b', 'c', 'd', 'e'];
  for (const language of languages) await store.put(inLanguage(language));
  // Again, which must not count twice.
  await store.put(inLanguage('d'));
  const found = await Promise.all(languages.map((language) => store.body('k', { 'accept-language': language })));
  t.same(found, [null, null, 'c', 'd', 'e']);
  t.equal(await countKeys(redis), ':5', 'three answers, the index, the set of the URI');
  t.equal((await redis.ask('GET test:i:{k}')).split('\n').filter((line) => line.includes('accept-language')).length, 3);
});

withRedis('an entry expires, and so does all that points to it', async (t, redis, open) => {
  const store = await open();
  store.store.put(inLanguage('de'), 60);
  store.store.put(entryOf({ key: 'k2' }), 60);
  await until('written', () => store.store.pendingBytes === 0);
  t.not(await countKeys(redis), ':0');
  await answers(redis, 'DBSIZE', ':0');
  t.equal(await store.get('k2'), null);
});

withRedis('the set of a URI outlives its longest member and loses those that have expired', async (t, redis, open) => {
  const store = await open();
  store.store.put(entryOf({ key: 'long' }), HOUR_MS);
  store.store.put(entryOf({ key: 'short' }), 30);
  await until('written', () => store.store.pendingBytes === 0);
  t.ok(Number((await redis.ask('PTTL test:u:ai:/v1/models')).slice(1)) > HOUR_MS / 2);
  t.equal((await redis.ask('ZCARD test:u:ai:/v1/models')).trim(), ':2');
  await answers(redis, 'EXISTS test:v:{short}:d', ':0');
  await store.put(entryOf({ key: 'third' }));
  t.equal((await redis.ask('ZCARD test:u:ai:/v1/models')).trim(), ':2');
});

withRedis('a time to live of nothing stores nothing, one without end has an end', async (t, redis, open) => {
  const store = await open();
  for (const ttl of [0, -1, Number.NaN]) store.store.put(entryOf(), ttl);
  t.equal(store.store.counters.puts, 0);
  store.store.put(entryOf(), Number.POSITIVE_INFINITY);
  await until('written', () => store.store.pendingBytes === 0);
  t.equal(store.store.counters.errors, 0);
  t.ok(Number((await redis.ask('PTTL test:v:{k}:d')).slice(1)) > 24 * HOUR_MS);
});

withRedis('values that are no entry of this key are misses, and counted', async (t, redis, open) => {
  const throwing = (bytes: Buffer) => (bytes.length < 8 ? bytes.readUInt32BE(100) : 0) as unknown as null;
  const [store, other] = [await open(), await open({ decode: throwing })];
  const bytes = encodeEntry(entryOf());
  const older = Buffer.from(bytes);
  older[3] = 0;
  const values = {
    garbage: 'garbage',
    empty: '""',
    truncated: hex(bytes.subarray(0, -1)),
    older: hex(older),
    alien: hex(bytes),
  };
  for (const [key, value] of Object.entries(values)) {
    t.equal((await redis.ask(`SET test:v:{${key}}:d ${value}`)).trim(), '+OK');
    t.equal(await store.get(key), null, key);
  }
  t.equal(store.store.counters.rejected, 5);
  t.equal(await other.get('garbage'), null, 'a decoder that throws');
  t.equal(other.store.counters.rejected, 1);
  await redis.ask('SET test:i:{k} "rubbish\\n\\nd 1 x accept-language\\n"');
  t.equal(await store.get('k'), null, 'an index of rubbish');
  await store.put(inLanguage('de'));
  t.equal(await store.body('k', { 'accept-language': 'de' }), 'de', 'is replaced');
  t.equal(store.store.counters.errors, 0);
});

withRedis('a purge of a URI takes all of its entries and nothing else', async (t, redis, open) => {
  const store = await open();
  const many = Array.from({ length: 1200 }, (_, i) => entryOf({ key: `many${i}`, uri: '/many' }));
  await store.put(entryOf(), inLanguage('de'), entryOf({ key: 'k2' }), ...many);
  await store.put(entryOf({ key: 'k3', uri: '/v1/models/x' }), entryOf({ key: 'k4', upstream: 'other' }));
  t.equal(await store.store.purgeUri('ai', '/v1/models'), 3);
  t.equal(await store.store.purgeUri('ai', '/v1/models'), 0);
  t.same(await Promise.all(['k', 'k2'].map((key) => store.get(key, { 'accept-language': 'de' }))), [null, null]);
  t.ok(await store.get('k3'));
  t.ok(await store.get('k4'));
  t.equal(await store.store.purgeUri('ai', '/many'), 1200);
  t.equal(await countKeys(redis), ':4', 'an answer and a set for each that is left');
});

withRedis('a purge by prefix, key, upstream, or of everything', async (t, redis, open) => {
  const store = await open();
  const keys = ['k', 'a', 'b', 'c', 'd'];
  const fill = () =>
    store.put(
      inLanguage('de'),
      entryOf(),
      entryOf({ key: 'a', uri: '/v1/a*[b]?x=1' }),
      entryOf({ key: 'b', uri: '/v1/ab?x=1' }),
      entryOf({ key: 'c', upstream: 'other', uri: '/x:/v1/a' }),
      entryOf({ key: 'd', upstream: 'ai2' }),
    );
  const left = async () => {
    const found = await Promise.all(keys.map(async (key) => ((await store.get(key)) ? key : '')));
    return found.join('');
  };
  const cases: [upstream: string | null, prefix: string | null, key: string | null, count: number, left: string][] = [
    [null, '/v1/a*[', null, 1, 'kbcd'],
    ['ai', '/v1/a', null, 2, 'kcd'],
    [null, '/v1/a', null, 2, 'kcd'],
    ['other', '/x', null, 1, 'kabd'],
    [null, null, 'k', 2, 'abcd'],
    ['ai', null, null, 4, 'cd'],
    ['a', null, null, 0, 'kabcd'],
    [null, null, null, 6, ''],
  ];
  await redis.ask('SET test:other 1');
  for (const [upstream, prefix, key, count, rest] of cases) {
    await fill();
    t.equal(await store.store.purge(upstream, prefix, key), count, `${upstream} ${prefix} ${key}`);
    t.equal(await left(), rest, `${upstream} ${prefix} ${key}`);
  }
  t.equal(await countKeys(redis), ':1', 'what is not of the cache stays');
});

withRedis('a purge is told to the others, not to oneself', async (t, redis, open) => {
  const [one, two] = [await open(), await open()];
  await listening(redis, 2);
  await one.store.purgeUri('ai', '/v1/models');
  await one.store.purge('ai', '/v1', null);
  const expected = [
    { upstream: 'ai', uri: '/v1/models', prefix: null, key: null },
    { upstream: 'ai', uri: null, prefix: '/v1', key: null },
  ];
  await until('both have come', () => two.purges.length === 2);
  t.same(two.purges, expected);
  await two.store.purge(null, null, 'k');
  await until('it has come', () => one.purges.length === 1);
  t.same(one.purges, [{ ...ALL, key: 'k' }]);
  t.equal(two.purges.length, 2);
  await redis.ask('PUBLISH test:purge rubbish');
  await redis.ask('PUBLISH test:purge 1');
  await redis.ask('PUBLISH test:purge "{\\"upstream\\":1}"');
  await until('what cannot be read', () => one.purges.length === 4);
  t.same(one.purges.slice(1), [ALL, ALL, ALL]);
});

withRedis('a store that could not listen for a while drops everything once it can', async (t, redis, open) => {
  const store = await open();
  await listening(redis, 1);
  await redis.ask('CLIENT KILL TYPE pubsub');
  await until('all is dropped', () => store.purges.length > 0);
  t.same(store.purges, [ALL]);
  t.equal(store.store.state, 'up', 'the other connection does not care');
  t.same(store.log, ['up']);
  await listening(redis, 1);
});

withRedis('a frozen server costs one timeout, and is back without being asked by a client', async (t, redis, open) => {
  const store = await open();
  await store.put(entryOf());
  const before = store.store.counters.gets;
  redis.freeze();
  const began = performance.now();
  const early = [store.get('k'), store.get('k')];
  await whileNothing(TIMEOUT_MS / 3);
  early.push(store.get('k'));
  t.same(await Promise.all(early), [null, null, null]);
  const took = performance.now() - began;
  t.ok(took >= TIMEOUT_MS - 5 && took < TIMEOUT_MS + MARGIN_MS, `took ${took} ms`);
  t.equal(store.store.state, 'down');
  t.equal(store.store.counters.timeouts, 1);
  let got: Entry | null | undefined;
  store.store.get('k', asking(), (entry) => {
    got = entry;
  });
  t.equal(got, null, 'at once');
  store.store.put(entryOf({ key: 'late' }), HOUR_MS);
  t.equal(store.store.counters.dropped, 1);
  // Long enough for a probe that gets no answer.
  await whileNothing(400);
  t.equal(store.store.state, 'down');
  redis.thaw();
  await store.up();
  t.equal(store.store.counters.gets, before + 4, 'nobody asked');
  t.same(store.log, ['up', `down: no answer within ${TIMEOUT_MS} ms`, 'up']);
  t.ok(await store.get('k'));
});

withRedis('the second step of a look-up has no time of its own', async (t, redis, open) => {
  const timeoutMs = 400;
  const store = await open({ config: { url: redis.path, prefix: 'test:', timeoutMs } });
  await store.put(inLanguage('de'));
  let frozenAt = 0;
  const got = new Promise((resolve) => {
    const varyOf = (names: readonly string[]) => {
      // The index has come, most of the time is over, and from now on nothing comes.
      if (frozenAt === 0 && names.length > 0) {
        redis.freeze();
        frozenAt = performance.now();
        while (performance.now() < frozenAt + timeoutMs * 0.9);
      }
      return names.map(() => 'de');
    };
    store.store.get('k', varyOf, resolve);
  });
  t.equal(await within('an answer', got), null);
  const took = performance.now() - frozenAt;
  redis.thaw();
  t.ok(took < timeoutMs * 1.7, `took ${took} ms`);
});

withRedis('a loop that stalled is no timeout', async (t, _redis, open) => {
  const store = await open();
  await store.put(entryOf());
  const got = new Promise<Entry | null>((resolve) => {
    // After an immediate the loop looks at timers first, and at sockets only then.
    setImmediate(() => {
      store.store.get('k', asking(), resolve);
      const stalledUntil = performance.now() + TIMEOUT_MS + 50;
      while (performance.now() < stalledUntil);
    });
  });
  t.ok(await got);
  t.equal(store.store.state, 'up');
});

withRedis('a killed server and its return', async (t, redis, open) => {
  const store = await open();
  await listening(redis, 1);
  await redis.kill();
  await until('noticed', () => store.store.state === 'down');
  t.equal(await store.get('k'), null);
  store.store.put(entryOf(), HOUR_MS);
  t.match({ ...store.store.counters }, { dropped: 1, puts: 0, timeouts: 0 });
  await whileNothing(400);
  t.equal(store.store.state, 'down');
  await redis.restart();
  await store.up();
  await store.put(entryOf());
  t.ok(await store.get('k'));
  await until('messages may have been missed', () => store.purges.length > 0);
  t.same(store.purges, [ALL]);
  t.equal(store.log.length, 3);
  t.match(store.log, ['up', /^down: /, 'up']);
});

withRedis('a server that has become a replica is left, and found again as a master', async (t, redis, open) => {
  const store = await open();
  await redis.ask('REPLICAOF 127.0.0.1 1');
  store.store.put(entryOf(), HOUR_MS);
  await until('left', () => store.store.state === 'down');
  await redis.ask('REPLICAOF NO ONE');
  await store.up();
  await store.put(entryOf());
  t.ok(await store.get('k'));
});

withRedis('a look-up under way when the server dies is answered once', async (t, redis, open) => {
  const store = await open();
  redis.freeze();
  let answers = 0;
  store.store.get('k', asking(), () => answers++);
  await redis.kill();
  await until('answered', () => answers > 0);
  await whileNothing(TIMEOUT_MS + 50);
  t.equal(answers, 1);
  t.equal(store.store.state, 'down');
});

t.test('a store starts without its server, and finds it later', { skip }, async (t) => {
  const redis = await TestRedis.start();
  await redis.kill();
  const store = new Store(redis);
  store.start();
  t.equal(store.store.state, 'connecting');
  t.equal(await store.get('k'), null);
  await until('it is known', () => store.store.state === 'down');
  await redis.restart();
  await store.up();
  t.match(store.log, [/^down: E/, 'up']);
  await until('messages may have been missed', () => store.purges.length > 0);
  await store.stop();
  await redis.stop();
});

withRedis('a purge while Redis is down is made good before it is used again', async (t, redis, open) => {
  const [one, two] = [await open(), await open()];
  await listening(redis, 2);
  await one.put(entryOf(), entryOf({ key: 'kept', uri: '/kept' }));
  redis.freeze();
  t.equal(await one.get('k'), null);
  t.equal(await one.store.purgeUri('ai', '/v1/models'), 0);
  redis.thaw();
  await one.up();
  t.equal(await one.get('k'), null);
  t.ok(await one.get('kept'));
  await until('the others are told', () => two.purges.length > 0);
  t.same(two.purges, [{ ...ALL, upstream: 'ai', uri: '/v1/models' }]);
  redis.freeze();
  t.equal(await one.get('k'), null);
  for (let i = 0; i < 1000; i++) void one.store.purgeUri('ai', `/${i}`);
  redis.thaw();
  await one.up();
  t.equal(await one.get('kept'), null, 'too many to remember: everything goes');
});

withRedis('writes under way are bounded', async (t, redis, open) => {
  const store = await open({ config: { url: redis.path, prefix: 'test:', timeoutMs: 5000 } });
  const megabyte = Buffer.alloc(1024 * 1024);
  redis.freeze();
  for (let i = 0; i < 20; i++) store.store.put(entryOf({ key: `k${i}`, body: megabyte }), HOUR_MS);
  t.match({ ...store.store.counters }, { puts: 7, dropped: 13 });
  t.ok(store.store.pendingBytes <= 8 * 1024 * 1024);
  redis.thaw();
  await until('written', () => store.store.pendingBytes === 0);
  t.equal((await store.get('k6'))?.body.length, megabyte.length);
});

t.test('an error reply is one command’s trouble; an answer that could not be listed goes', { skip }, async (t) => {
  const redis = await TestRedis.start();
  const store = new Store(redis);
  store.start();
  await store.up();
  await redis.ask('SET test:u:ai:/v1/models text');
  await store.put(entryOf());
  await until('counted', () => store.store.counters.errors === 1);
  await answers(redis, 'EXISTS test:v:{k}:d', ':0');
  t.equal(await store.store.purgeUri('ai', '/v1/models'), 0);
  t.equal(store.store.counters.errors, 2);
  t.equal(store.store.state, 'up');
  await store.stop();
  await redis.stop();
});

t.test('credentials are sent, and told to nobody', { skip }, async (t) => {
  const redis = await TestRedis.start('--requirepass', 'secret-right');
  const config = { prefix: 'test:', timeoutMs: TIMEOUT_MS };
  const right = new Store(redis, { config: { ...config, url: `unix:${redis.path}?password=secret-right` } });
  const wrong = new Store(redis, { config: { ...config, url: `unix://${redis.path}?password=secret-wrong` } });
  const broken = new Store(redis, { config: { ...config, url: 'redis://me:secret-broken@[' } });
  const closed = new Store(redis, { config: { ...config, url: 'redis://me:secret-closed@127.0.0.1:1' } });
  const stores = [right, wrong, broken, closed];
  for (const store of stores) store.start();
  await right.up();
  await until('all are known', () => stores.every(({ log }) => log.length > 0));
  t.same(wrong.log, ['down: answered WRONGPASS']);
  t.same(broken.log, ['down: ERR_INVALID_URL']);
  t.same(closed.log, ['down: ECONNREFUSED']);
  t.notMatch(JSON.stringify(stores.map(({ log }) => log)), /secret/);
  for (const store of stores) await store.stop();
  await redis.stop();
});

t.test('stop leaves nothing: up, frozen, without a server, while connecting', { skip }, async (t) => {
  const redis = await TestRedis.start();
  const before = sockets();
  const stops = async (what: string, store: Store) => {
    await within(`stopped ${what}`, store.stop(), 500);
    const isClean = () => Object.entries(sockets()).every(([kind, count]) => count <= before[kind]!);
    await until(`nothing is left ${what}`, isClean, 500);
    t.pass(what);
  };
  const begin = async () => {
    const opened = new Store(redis);
    opened.start();
    return opened;
  };

  const up = await begin();
  await up.up();
  let answers: (Entry | null)[] = [];
  up.store.get('k', asking(), (entry) => answers.push(entry));
  up.store.put(entryOf(), HOUR_MS);
  const stopped = stops('up', up);
  t.same(answers, [null], 'who waits is answered at once');
  await stopped;
  t.equal(await up.get('k'), null);
  t.equal(await up.store.purgeUri('ai', '/'), 0);
  t.equal(up.store.counters.errors, 0);

  const frozen = await begin();
  await frozen.up();
  redis.freeze();
  answers = [];
  frozen.store.get('k', asking(), (entry) => answers.push(entry));
  await stops('frozen', frozen);
  t.same(answers, [null]);
  await stops('while connecting to a frozen server', await begin());
  const shaking = await begin();
  await whileNothing(50);
  await stops('while shaking hands with a frozen server', shaking);
  await redis.kill();
  const alone = await begin();
  await until('down', () => alone.store.state === 'down');
  await stops('without a server', alone);
  await stops('never started', new Store(redis));
  await redis.stop();
});

/** A value for an inline command. */
function hex(bytes: Buffer): string {
  return `"${[...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}"`;
}

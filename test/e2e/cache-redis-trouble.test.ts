// Sidecars whose redis-server is frozen, killed, not there, or lies; and what it never gets to see.

import { crc32 } from 'node:zlib';
import type { Redis } from 'ioredis';
import { cacheStatus, lines } from '../support/cache-scene.ts';
import {
  eventually,
  FRESH,
  fleet,
  isHit,
  MARGIN_MS,
  redisOf,
  stats,
  stored,
  TIMEOUT_MS,
  up,
} from '../support/fleet.ts';
import type { CacheOverrides, TestProxy } from '../support/proxy.ts';
import { type RawAnswer, RawClient } from '../support/raw-client.ts';
import type { TestRedis } from '../support/redis.ts';
import { type Rig, requestText } from '../support/rig.ts';
import { ask, get, post, sent } from '../support/twins.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

// ---- a Redis that is slow, or not there

interface Lap {
  readonly at: number;
  readonly ms: number;
  readonly got: RawAnswer;
}

/** So many users, each asking again as soon as it is answered, half of them at each proxy, half of it never asked before. */
class Load {
  readonly laps: Lap[] = [];
  readonly problems: string[] = [];
  readonly #users: Promise<void>[] = [];
  #over = false;
  #next = 0;

  constructor(proxies: readonly TestProxy[], users: number) {
    for (let i = 0; i < users; i++) this.#users.push(this.#user(proxies[i % proxies.length]!, i));
  }

  async stop(): Promise<void> {
    this.#over = true;
    await Promise.all(this.#users);
  }

  /** The longest of those that began since then. */
  longest(since: number): number {
    return Math.max(...this.laps.filter(({ at }) => at >= since).map(({ ms }) => ms));
  }

  async #user(proxy: TestProxy, i: number): Promise<void> {
    const client = await RawClient.connect(proxy.port);
    try {
      while (!this.#over) {
        const n = this.#next++;
        const path = n % 2 ? `/ai/new/${n}` : `/ai/known/${n % 50}`;
        const at = performance.now();
        client.send(requestText(path, { headers: lines(`x-user: ${i}`) }));
        const got = await client.answer();
        this.laps.push({ at, ms: performance.now() - at, got });
        if (got.status !== 200 || got.body.toString() !== path.slice(3)) this.problems.push(`${path}: ${got.text}`);
      }
    } catch (error) {
      this.problems.push(String(error));
    } finally {
      client.destroy();
    }
  }
}

const UPSTREAM_MS = 20;
const slow: Script = async (request, connection) => {
  await whileNothing(UPSTREAM_MS);
  connection.send(answer(request.target, lines('cache-control: public, max-age=60')));
};

/** What one stores the other finds: soon, for what was being fetched when the connection came back may have missed a purge. */
async function share(rig: Rig, a: TestProxy, b: TestProxy): Promise<void> {
  let n = 0;
  await eventually('they share again', async () => {
    const text = get(`/ai/again/${n++}`);
    await ask(rig, a, text);
    return isHit(await ask(rig, b, text));
  });
}

const breakages: { name: string; breakIt: (redis: TestRedis) => unknown; mend: (redis: TestRedis) => unknown }[] = [
  { name: 'freezing', breakIt: (redis) => redis.freeze(), mend: (redis) => redis.thaw() },
  { name: 'killing', breakIt: (redis) => redis.kill(), mend: (redis) => redis.restart() },
];

for (const { name, breakIt, mend } of breakages) {
  fleet(`${name} Redis under load fails no request and costs one timeout at most; it heals`, async (t, scene, rig) => {
    const { redis, upstream, open } = scene;
    upstream.script = slow;
    const proxies = [await open({ timeoutMs: TIMEOUT_MS }), await open({ timeoutMs: TIMEOUT_MS })];
    const load = new Load(proxies, 10);
    await until('all is warm', () => load.laps.length > 100);
    const brokenAt = performance.now();
    await breakIt(redis);
    await until('both know', () => proxies.every((proxy) => redisOf(proxy).state === 'down'));
    for (const proxy of proxies) {
      const told = (await stats(proxy, 'GET', '/stats')) as unknown as { cache: { redis: { state: string } } };
      t.equal(told.cache.redis.state, 'down', '/stats says so');
    }
    const knownAt = performance.now();
    const asked = proxies.map((proxy) => redisOf(proxy).timeouts);
    await whileNothing(500);
    const during = load.laps.filter(({ at }) => at >= knownAt);
    t.ok(during.length > 20, `${during.length} requests while it is away`);
    t.same(
      proxies.map((proxy) => redisOf(proxy).timeouts),
      asked,
      'nobody waits for it again',
    );
    t.ok(load.longest(knownAt) < UPSTREAM_MS + MARGIN_MS, `at most ${load.longest(knownAt)} ms without it`);
    await mend(redis);
    for (const proxy of proxies) await up(proxy, 10_000);
    t.comment(`${name}: away for ${Math.round(performance.now() - knownAt)} ms, of which 500 broken`);
    const puts = proxies.map((proxy) => redisOf(proxy).puts);
    await until('both use it again', () => proxies.every((proxy, i) => redisOf(proxy).puts > puts[i]! + 5));
    await load.stop();
    t.same(load.problems, [], 'no request failed');
    const longest = load.longest(brokenAt);
    t.ok(longest < UPSTREAM_MS + TIMEOUT_MS + MARGIN_MS, `${load.laps.length} requests, at most ${longest} ms`);
    for (const proxy of proxies) {
      t.equal(redisOf(proxy).state, 'up');
      t.ok(redisOf(proxy).dropped > 0, 'what came while it was away was not stored there');
      const said = proxy.log.filter(({ msg }) => msg.startsWith('Redis is ')).map(({ msg }) => msg);
      t.match(said, [/there/, /away/, /there/]);
      t.ok(said.length % 2 === 1 && said.length <= 7, `${said.length} lines about it`);
    }
    await share(rig, proxies[0]!, proxies[1]!);
  });
}

fleet('a proxy that starts without Redis works, and finds it later', async (t, scene, rig) => {
  const { redis, upstream, openBlind } = scene;
  upstream.script = (_request, connection) => connection.send(answer('x', FRESH));
  await redis.kill();
  const [a, b] = [await openBlind(), await openBlind()];
  await until('it is missed', () => redisOf(a).state === 'down');
  const before = performance.now();
  t.equal((await ask(rig, a, get('/ai/x'))).status, 200);
  t.ok(isHit(await ask(rig, a, get('/ai/x'))), 'from memory');
  t.ok(performance.now() - before < MARGIN_MS);
  t.match(redisOf(a), { timeouts: 0, dropped: 1, puts: 0 });
  await redis.restart();
  for (const proxy of [a, b]) await up(proxy);
  await share(rig, a, b);
  t.equal(a.log.filter(({ msg }) => msg.startsWith('Redis is ')).length, 2);
});

fleet('a proxy that starts while Redis is frozen serves at once', async (t, { redis, upstream, openBlind }, rig) => {
  upstream.script = (_request, connection) => connection.send(answer('x', FRESH));
  redis.freeze();
  const proxy = await openBlind({ timeoutMs: TIMEOUT_MS });
  for (let i = 0; i < 5; i++) {
    const before = performance.now();
    t.equal((await ask(rig, proxy, get(`/ai/${i}`))).status, 200);
    t.ok(performance.now() - before < TIMEOUT_MS + MARGIN_MS);
  }
  redis.thaw();
  await up(proxy);
});

fleet('proxies stop while Redis owes them answers', async (t, { redis, upstream, open }, rig) => {
  upstream.script = (_request, connection) => connection.send(answer('x', FRESH));
  const proxies = [await open({ timeoutMs: 60_000 }), await open({ timeoutMs: 60_000 })];
  for (const [i, proxy] of proxies.entries()) {
    await ask(rig, proxy, get(`/ai/${i}`));
    await until('stored', () => redisOf(proxy).puts === 1);
  }
  redis.freeze();
  const clients: RawClient[] = [];
  for (const proxy of proxies) {
    for (const path of ['/ai/x', '/ai/x', '/ai/y']) clients.push(await sent(rig, proxy, get(path)));
    await ask(rig, proxy, post('/ai/z', 'a change, and a purge that nobody confirms'));
  }
  await until('they wait', () => proxies.every((proxy) => proxy.upstream().in_flight === 3));
  const before = performance.now();
  await Promise.all(proxies.map((proxy) => proxy.stop()));
  t.ok(performance.now() - before < 1000 + MARGIN_MS, `stopped in ${performance.now() - before} ms`);
  for (const client of clients) await client.ended();
  for (const proxy of proxies) {
    t.match(redisOf(proxy), { state: 'down', timeouts: 0 });
    t.same(proxy.busy(), {});
    t.equal(proxy.stats().cache.flights, 0);
    t.equal(proxy.stats().cache.flight_memory_bytes, 0);
  }
});

// ---- a Redis that lies

/** The same entry, sound in every respect, in another version of the format. */
function ofVersion(entry: Buffer, version: number): Buffer {
  const bytes = Buffer.from(entry);
  bytes[3] = version;
  bytes.writeUInt32BE(crc32(bytes.subarray(16), crc32(bytes.subarray(0, 12))), 12);
  return bytes;
}

fleet('values that are no entries are misses, counted, and replaced', async (t, { raw, upstream, open, shut }, rig) => {
  const fields = `${FRESH}vary: accept-language\r\n`;
  upstream.script = (request, connection) =>
    connection.send(answer('the truth', request.target === '/vary' ? fields : FRESH));
  const a = await open();
  for (const path of ['/ai/x', '/ai/other', '/ai/vary']) await ask(rig, a, get(path));
  await stored(raw, 3);
  const keyOf = async (path: string) => {
    const [member] = await raw.zrange(`aiproxy:u:ai:${path}`, 0, '-1');
    const [variant, key] = member!.split(' ');
    return `aiproxy:v:{${key}}:${variant}`;
  };
  const [x, other, vary] = [await keyOf('/x'), await keyOf('/other'), await keyOf('/vary')];
  const whole = (await raw.getBuffer(x))!;
  await ask(rig, a, get('/ai/vary', lines('accept-language: de')));
  await stored(raw, 4);
  const german = (await raw.keys(`${vary.slice(0, vary.lastIndexOf(':'))}:*`)).find((it) => it !== vary)!;
  const changed = (at: number, byte: number) => {
    const bytes = Buffer.from(whole);
    bytes[at] = byte;
    return bytes;
  };
  const lies: [name: string, key: string, value: Buffer][] = [
    ['truncated', x, whole.subarray(0, -1)],
    ['half of it', x, whole.subarray(0, whole.length >> 1)],
    ['its first bytes', x, whole.subarray(0, 5)],
    ['of an older version', x, ofVersion(whole, 0)],
    ['of a newer version', x, ofVersion(whole, 2)],
    ['one bit of the body turned', x, changed(whole.length - 1, whole.at(-1)! ^ 1)],
    ['one bit of the head turned', x, changed(40, whole[40]! ^ 1)],
    ['of another key', x, (await raw.getBuffer(other))!],
    ['foreign', x, Buffer.from('{"some":"JSON"}')],
    ['empty', x, Buffer.alloc(0)],
    ['a variant, foreign', vary, Buffer.from('x')],
    ['a variant, of another key', vary, whole],
    ['a variant, of another language', vary, (await raw.getBuffer(german))!],
  ];
  for (const [name, key, value] of lies) {
    await raw.set(key, value);
    const b = await open();
    const path = key === x ? '/ai/x' : '/ai/vary';
    const before = upstream.requests.length;
    const got = await ask(rig, b, get(path));
    t.equal(got.body.toString(), 'the truth');
    t.equal(cacheStatus(got).fwd, 'uri-miss', `${name}: a miss`);
    t.equal(upstream.requests.length, before + 1);
    t.match(redisOf(b), { gets: 1, hits: 0, rejected: 1, errors: 0, state: 'up' }, 'counted');
    await eventually('it is replaced', async () => {
      const now = await raw.getBuffer(key);
      return now !== null && now.length > 100 && !now.equals(value) && now.toString('latin1').endsWith('the truth');
    });
    await shut(b);
  }
});

fleet('keys of another type are in nobody’s way for long', async (t, { raw, upstream, open }, rig) => {
  upstream.script = (_request, connection) => connection.send(answer('x', `${FRESH}vary: accept\r\n`));
  const [a, b] = [await open(), await open()];
  await ask(rig, a, get('/ai/x'));
  await stored(raw, 1);
  const names = await raw.keys('aiproxy:*');
  t.equal(names.length, 3, 'an answer, an index, a set');
  const foreign = async (name: string) => {
    await raw.del(name);
    await raw.hset(name, 'foreign', 'value');
  };
  await foreign(names.find((name) => name.startsWith('aiproxy:v:'))!);
  const c = await open();
  t.equal(cacheStatus(await ask(rig, c, get('/ai/x'))).fwd, 'uri-miss');
  t.match(redisOf(c), { gets: 1, hits: 0, errors: 1, timeouts: 0, state: 'up' }, 'an error reply ends the look-up');
  await stored(raw, 1);
  for (const name of names) await foreign(name);
  for (let i = 0; i < 2; i++) {
    const got = await ask(rig, b, get('/ai/x'));
    t.equal(got.status, 200);
    t.equal(got.body.toString(), 'x');
    t.equal(isHit(got), i > 0);
  }
  t.equal(redisOf(b).state, 'up');
  t.ok('purged' in (await stats(a, 'DELETE', '/cache')));
  await eventually('all is gone', async () => (await raw.dbsize()) === 0);
  await ask(rig, a, get('/ai/x'));
  await stored(raw, 1);
});

// ---- sizes

fleet('what one memory cannot take comes from Redis each time', async (t, { raw, upstream, open }, rig) => {
  const body = 'x'.repeat(2 << 20);
  upstream.script = (_request, connection) => connection.send(answer(body, FRESH));
  const [large, small] = [await open(), await open({ cache: { maxBytes: 1 << 20, maxEntryBytes: 4 << 20 } })];
  await ask(rig, large, get('/ai/x'));
  await stored(raw, 1);
  for (let n = 1; n <= 3; n++) {
    const got = await ask(rig, small, get('/ai/x'));
    t.ok(isHit(got));
    t.equal(got.body.toString(), body);
    t.match(redisOf(small), { gets: n, hits: n });
    t.match(small.stats().cache, { entries: 0, bytes: 0 });
  }
  t.equal(upstream.requests.length, 1);
  await ask(rig, small, get('/ai/y'));
  t.equal(small.upstream().cache!.too_large, 1, 'and what it fetches itself it does not store');
  t.match(redisOf(small), { puts: 0, dropped: 0 });
});

fleet('an answer beyond max_entry is written nowhere', async (t, { raw, upstream, open }, rig) => {
  upstream.script = async (request, connection) => {
    await request.whole();
    const body = 'x'.repeat(20_000);
    if (request.target === '/chunked') connection.send(`${chunkedHead(FRESH)}${chunk(body)}${LAST_CHUNK}`);
    else connection.send(answer(body, FRESH));
  };
  const a = await open({ cache: { maxEntryBytes: 10_000 } });
  const b = await open({ ai: { cache: { rules: [{ ttlMs: 60_000, maxEntryBytes: 10_000 }] } } });
  for (const proxy of [a, b]) {
    for (const path of ['/ai/x', '/ai/chunked']) {
      for (let i = 0; i < 2; i++) {
        const got = await ask(rig, proxy, get(path));
        t.equal(got.body.length, 20_000);
        t.notOk(isHit(got));
      }
    }
    t.match(redisOf(proxy), { puts: 0, dropped: 0 });
    t.equal(proxy.upstream().cache!.too_large, 4);
    t.match(proxy.stats().cache, { entries: 0 });
  }
  t.equal(await raw.dbsize(), 0);
});

// ---- secrets

fleet('no credential is in any key or value of Redis, nor in a log', async (t, { raw, upstream, open, shut }, rig) => {
  const names = ['authorization', 'x-api-key', 'api-key', 'x-goog-api-key', 'cookie', 'x-tenant-token'];
  const secrets = names.map((name) => `s3cr3t-of-${name}`);
  const credentials = names.map((name, i) => `${name}: ${secrets[i]}`);
  upstream.script = async (request, connection) => {
    await request.whole();
    const vary = request.target.startsWith('/vary') ? `vary: ${names.join(', ')}, accept-language\r\n` : '';
    connection.send(answer('x', `cache-control: public, max-age=60\r\n${vary}`));
  };
  const rule = { ttlMs: 60_000, match: { paths: ['/rule/*', '/vary/rule'] }, key: { headers: ['x-tenant-token'] } };
  const caches: CacheOverrides[] = [
    { http: true, partitionHeaders: ['x-tenant-token'], rules: [rule] },
    { http: true, partition: 'shared', rules: [rule] },
  ];
  for (const cache of caches) {
    await raw.flushall();
    const more = { log: { level: 'trace' } as const, ai: { cache } };
    const [a, b] = [await open(more), await open(more)];
    const texts = ['/ai/http', '/ai/vary/http', '/ai/rule/get', '/ai/vary/rule'].map((path) =>
      get(path, lines(...credentials)),
    );
    texts.push(post('/ai/rule/post', '{"a":1}', lines(...credentials, 'content-type: application/json')));
    for (const text of texts)
      t.ok('stored' in cacheStatus(await ask(rig, a, text)), text.slice(0, text.indexOf('\r\n')));
    await stored(raw, texts.length);
    for (const text of texts) t.ok(isHit(await ask(rig, b, text)), 'and found');
    const other = get('/ai/vary/http', lines(...credentials).replace(secrets[0]!, 'another'));
    t.notOk(isHit(await ask(rig, b, other)), 'by those who say the same');
    await stored(raw, texts.length + 1);
    await ask(rig, a, post('/ai/vary/http', 'change', lines(...credentials)).replace('POST', 'PUT'));
    await stored(raw, texts.length - 1);
    const everything = [...(await dump(raw)), ...a.rawLog, ...b.rawLog].join('\n');
    t.ok(everything.includes('aiproxy:v:') && everything.includes('max-age=60'), 'what is looked through');
    for (const secret of [...secrets, Buffer.from(secrets[0]!).toString('base64')]) {
      t.notOk(everything.includes(secret), secret);
    }
    for (const proxy of [a, b]) await shut(proxy);
  }
});

/** All keys and all that is in them. */
async function dump(raw: Redis): Promise<string[]> {
  const texts: string[] = [];
  for (const key of await raw.keys('*')) {
    const type = await raw.type(key);
    texts.push(key, type);
    if (type === 'string') texts.push((await raw.getBuffer(key))!.toString('latin1'));
    else if (type === 'zset') texts.push(...(await raw.zrange(key, 0, '-1')));
    else texts.push(`a ${type}: not looked into`);
  }
  return texts;
}

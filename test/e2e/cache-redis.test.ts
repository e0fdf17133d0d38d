// Sidecars that share their answers over a real redis-server: what one has stored the others have, and what one throws out they lose.

import { cacheStatus, lines } from '../support/cache-scene.ts';
import { eventually, FRESH, fleet, isHit, RULE, redisOf, stats, stored, TIMEOUT_MS, up } from '../support/fleet.ts';
import type { CacheOverrides, TestProxy } from '../support/proxy.ts';
import type { RawAnswer, RawClient } from '../support/raw-client.ts';
import { ask, get, landed, post, sent, silent } from '../support/twins.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

/** Everything of an answer that a client works with. */
function substance(got: RawAnswer): unknown {
  return [got.status, got.get('content-type'), got.body.toString('latin1'), got.ending];
}

// ---- what is shared

const EVENTS = ['data: {"a":1}\n\n', 'data: {"b":2}\n\n', 'data: [DONE]\n\n'];
const sse =
  (fields: string): Script =>
  async (request, connection) => {
    await request.whole();
    connection.send(chunkedHead(`content-type: text/event-stream\r\n${fields}`));
    for (const event of EVENTS) connection.send(chunk(event));
    connection.send(LAST_CHUNK);
  };
const json =
  (fields: string): Script =>
  async (request, connection) => {
    await request.whole();
    connection.send(answer('{"b":[1,2]}', `content-type: application/json\r\n${fields}`));
  };
const CREDENTIAL = lines('authorization: Bearer one');
const JSON_FIELDS = lines('content-type: application/json');
const STREAMED = '{"model":"m","stream":true}';

const kinds: { name: string; cache: CacheOverrides; text: string; twin?: string; script: Script }[] = [
  { name: 'GET, http', cache: { http: true }, text: get('/ai/x?a=1'), script: json(FRESH) },
  { name: 'SSE by GET, http', cache: { http: true }, text: get('/ai/x'), script: sse(FRESH) },
  { name: 'GET with a credential, rule', cache: RULE, text: get('/ai/x', CREDENTIAL), script: json('') },
  {
    name: 'POST, rule, its JSON in another order',
    cache: RULE,
    text: post('/ai/x', '{"a":1,"b":2}', CREDENTIAL + JSON_FIELDS),
    twin: post('/ai/x', '{ "b":2, "a":1 }', CREDENTIAL + JSON_FIELDS),
    script: json(''),
  },
  { name: 'SSE by POST, rule', cache: RULE, text: post('/ai/x', STREAMED, CREDENTIAL + JSON_FIELDS), script: sse('') },
];

for (const { name, cache, text, twin = text, script } of kinds) {
  fleet(`what one has stored the others answer without a call: ${name}`, async (t, { raw, upstream, open }, rig) => {
    upstream.script = script;
    const [a, b] = [await open({ ai: { cache } }), await open({ ai: { cache } })];
    const first = await ask(rig, a, text);
    t.ok('stored' in cacheStatus(first));
    await stored(raw, 1);
    t.equal(b.stats().cache.entries, 0);
    for (const [n, again] of [twin, text, twin].entries()) {
      const got = await ask(rig, b, again);
      t.same(substance(got), substance(first));
      t.match(got.get('cache-status'), /^aiproxy; hit; ttl=[56]\d$/);
      t.match(got.get('age'), /^\d$/);
      t.match(redisOf(b), { gets: 1, hits: 1, puts: 0 }, `time ${n}: afterwards it is in memory too`);
    }
    t.equal(upstream.requests.length, 1);
    t.match(b.upstream().cache, { entries: 1, hits: 3, misses: 0, coalesced: 0, stores: 0, saved_requests: 3 });
    t.match(redisOf(a), { state: 'up', gets: 1, hits: 0, puts: 1, errors: 0, timeouts: 0, dropped: 0, rejected: 0 });
    t.equal(b.upstream().requests, 3);
    t.same(
      b.exchanges.map((line) => line.cache),
      ['hit', 'hit', 'hit'],
    );
  });
}

fleet('of several variants each request finds its own', async (t, { raw, upstream, open }, rig) => {
  upstream.script = (request, connection) => {
    const language = request.get('accept-language') ?? 'none';
    connection.send(answer(language, `${FRESH}vary: accept-language\r\n`));
  };
  const [a, b] = [await open(), await open()];
  const inLanguage = (proxy: TestProxy, language: string) =>
    ask(rig, proxy, get('/ai/x', lines(`accept-language: ${language}`)));
  for (const language of ['de', 'en']) await inLanguage(a, language);
  await stored(raw, 2);
  for (const language of ['en', 'de', 'DE']) {
    const got = await inLanguage(b, language);
    t.equal(got.body.toString(), language.toLowerCase());
    t.ok(isHit(got), `${language} from Redis`);
  }
  t.equal(upstream.requests.length, 2);
  t.match(redisOf(b), { gets: 2, hits: 2 });
  t.equal(b.stats().cache.entries, 2);
  const fr = await inLanguage(b, 'fr');
  t.equal(fr.body.toString(), 'fr', 'what nobody has stored is fetched');
  t.match(redisOf(b), { gets: 3, hits: 2, rejected: 0 });
  await stored(raw, 3);
  t.ok(isHit(await inLanguage(a, 'fr')), 'and goes back the same way');
  t.equal(upstream.requests.length, 3);
});

fleet('an answer of one credential is not given to another', async (t, { raw, upstream, open }, rig) => {
  upstream.script = async (request, connection) => {
    await request.whole();
    const names = ['authorization', 'x-api-key', 'cookie'];
    connection.send(answer(`for ${names.map((name) => request.get(name) ?? 'nobody')}`));
  };
  const [a, b] = [await open({ ai: { cache: RULE } }), await open({ ai: { cache: RULE } })];
  const who = ['authorization: one', 'authorization: two', 'x-api-key: one', 'cookie: one'];
  const asked = (proxy: TestProxy, fields: string[]) => ask(rig, proxy, post('/ai/x', '{}', lines(...fields)));
  const first = await asked(a, [who[0]!]);
  await stored(raw, 1);
  for (const field of [...who.slice(1), '']) {
    const got = await asked(b, field === '' ? [] : [field]);
    t.notOk(isHit(got), field);
    t.not(got.body.toString(), first.body.toString());
  }
  t.equal(upstream.requests.length, 5);
  const same = await asked(b, [who[0]!]);
  t.ok(isHit(same));
  t.equal(same.body.toString(), 'for one,nobody,nobody');
  t.equal(upstream.requests.length, 5);
});

fleet('entries outlive the proxies', async (t, { raw, upstream, open, shut }, rig) => {
  upstream.script = (_request, connection) => connection.send(answer('kept', FRESH));
  const a = await open();
  await ask(rig, a, get('/ai/x'));
  await stored(raw, 1);
  await shut(a);
  const b = await open();
  const got = await ask(rig, b, get('/ai/x'));
  t.ok(isHit(got));
  t.equal(got.body.toString(), 'kept');
  t.equal(upstream.requests.length, 1);
});

fleet('twins that meet while Redis is asked share the look-up and its answer', async (t, scene, rig) => {
  const { redis, raw, upstream, open } = scene;
  upstream.script = async (request, connection) => {
    await request.whole();
    connection.send(answer('the one', FRESH));
  };
  const [a, b] = [await open(), await open()];
  await ask(rig, a, get('/ai/x'));
  await stored(raw, 1);
  for (const [path, hits] of [
    ['/ai/x', 1],
    ['/ai/unknown', 0],
  ] as const) {
    const { gets } = redisOf(b);
    redis.freeze();
    const before = b.upstream().requests;
    const clients: RawClient[] = [];
    for (let i = 0; i < 8; i++) clients.push(await sent(rig, b, get(path)));
    await until('all of them wait', () => b.upstream().requests === before + 8);
    t.equal(b.stats().cache.flights, 1);
    redis.thaw();
    const all = await Promise.all(clients.map((client) => client.answer()));
    t.ok(all.every((got) => got.body.toString() === 'the one'));
    t.equal(all.filter(isHit).length, hits ? 8 : 0, `${path}: all are answered alike`);
    t.equal(redisOf(b).gets - gets, 1, 'Redis was asked once');
    t.equal(redisOf(b).hits, 1);
    t.equal(upstream.requests.length, hits ? 1 : 2, 'and the upstream at most once');
  }
  t.match(b.upstream().cache, { hits: 8, misses: 1, coalesced: 7, unshared: 0 });
  t.match(redisOf(b), { timeouts: 0, state: 'up' });
  await landed(b);
});

fleet('whoever leaves while Redis is asked is forgotten, the others are served', async (t, scene, rig) => {
  const { redis, raw, upstream, open } = scene;
  upstream.script = (_request, connection) => connection.send(answer('x', FRESH));
  const [a, b] = [await open(), await open()];
  await ask(rig, a, get('/ai/x'));
  await stored(raw, 1);
  redis.freeze();
  const clients: RawClient[] = [];
  for (let i = 0; i < 3; i++) clients.push(await sent(rig, b, get('/ai/x')));
  const alone = await sent(rig, b, get('/ai/alone'));
  await until('all of them wait', () => b.upstream().requests === 4);
  clients[0]!.destroy();
  alone.reset();
  await until('two have left', () => b.upstream().in_flight === 2);
  t.equal(b.stats().cache.flights, 1);
  redis.thaw();
  for (const client of clients.slice(1)) t.ok(isHit(await client.answer()));
  t.equal(upstream.requests.length, 1, 'nobody asks for what nobody wants');
  t.equal(b.upstream().failures.client_gone, 2);
  await landed(b);
});

// ---- stale answers and only-if-cached

/** A wall clock that a test sets forward. */
function clock(): { now: () => number; later: (seconds: number) => void } {
  let offset = 0;
  return {
    now: () => Date.now() + offset,
    later: (seconds) => {
      offset += seconds * 1000;
    },
  };
}

fleet('a stale answer from Redis is revalidated', async (t, { raw, upstream, open }, rig) => {
  const time = clock();
  upstream.script = (request, connection) => {
    const known = request.get('if-none-match') === '"1"';
    connection.send(
      known ? `HTTP/1.1 304 Not Modified\r\n${FRESH}etag: "1"\r\n\r\n` : answer('v1', `${FRESH}etag: "1"\r\n`),
    );
  };
  const a = await open({ clock: time.now });
  await ask(rig, a, get('/ai/x'));
  await stored(raw, 1);
  time.later(100);
  const b = await open({ clock: time.now });
  const got = await ask(rig, b, get('/ai/x'));
  t.equal(got.status, 200);
  t.equal(got.body.toString(), 'v1');
  t.match(cacheStatus(got), { fwd: 'stale', 'fwd-status': '304' });
  t.equal(upstream.requests.length, 2);
  t.equal(upstream.requests[1]!.get('if-none-match'), '"1"');
  t.match(redisOf(b), { gets: 1, hits: 1, puts: 1 });
  const cache = b.upstream().cache!;
  t.match(cache, { entries: 1, revalidated: 1 });
  const c = await open({ clock: time.now });
  await eventually('the renewed one is in Redis', async () => {
    const age = (await ask(rig, c, get('/ai/x', lines('cache-control: only-if-cached')))).status;
    return age === 200;
  });
  t.equal(upstream.requests.length, 2, 'a third one has it fresh');
});

fleet('what a neighbour has renewed meanwhile is not fetched once more', async (t, scene, rig) => {
  const { raw, upstream, open, shut } = scene;
  for (const [path, cache] of [
    ['/ai/http', { http: true }],
    ['/ai/rule', RULE],
  ] as const) {
    const time = clock();
    let n = 0;
    const before = upstream.requests.length;
    upstream.script = (_request, connection) => connection.send(answer(`${path} ${++n}`, `${FRESH}etag: "${n}"\r\n`));
    await raw.flushall();
    const [a, b] = [await open({ clock: time.now, ai: { cache } }), await open({ clock: time.now, ai: { cache } })];
    for (const proxy of [a, b]) {
      t.equal((await ask(rig, proxy, get(path))).body.toString(), `${path} 1`);
      await stored(raw, 1);
    }
    time.later(61);
    t.equal((await ask(rig, a, get(path))).body.toString(), `${path} 2`);
    await eventually('the new one is in Redis', async () => {
      const [key] = await raw.keys('aiproxy:v:*');
      return (await raw.get(key!))!.endsWith(`${path} 2`);
    });
    const got = await ask(rig, b, get(path));
    t.equal(got.body.toString(), `${path} 2`, 'though its own memory holds the old one');
    t.ok(isHit(got));
    t.equal(upstream.requests.length - before, 2);
    const fresh = await ask(rig, b, get(path, lines('cache-control: no-cache')));
    t.equal(fresh.body.toString(), `${path} 3`, 'who wants the word of the upstream gets it');
    for (const proxy of [a, b]) await shut(proxy);
  }
});

fleet('a stale answer from Redis that may be used is renewed behind', async (t, { raw, upstream, open }, rig) => {
  const time = clock();
  let n = 0;
  upstream.script = (_request, connection) =>
    connection.send(answer(`v${++n}`, lines('cache-control: max-age=60, stale-while-revalidate=600')));
  const a = await open({ clock: time.now });
  await ask(rig, a, get('/ai/x'));
  await stored(raw, 1);
  time.later(100);
  const b = await open({ clock: time.now });
  const got = await ask(rig, b, get('/ai/x'));
  t.equal(got.body.toString(), 'v1');
  t.match(got.get('cache-status'), /^aiproxy; hit; ttl=-\d+; detail=stale_while_revalidate$/);
  await until('it is renewed', () => b.upstream().cache!.stores === 1);
  t.equal(upstream.requests.length, 2, 'by the one request');
  t.equal((await ask(rig, b, get('/ai/x'))).body.toString(), 'v2');
});

fleet('only-if-cached is answered from Redis, else 504, and never asks the upstream', async (t, scene, rig) => {
  const { raw, upstream, open } = scene;
  const time = clock();
  upstream.script = (request, connection) => {
    const isPrivate = request.target.startsWith('/private');
    connection.send(answer('0123456789', isPrivate ? lines('cache-control: private') : `${FRESH}etag: "1"\r\n`));
  };
  const [a, b] = [await open({ clock: time.now }), await open({ clock: time.now })];
  await ask(rig, a, get('/ai/x'));
  await ask(rig, a, get('/ai/y'));
  await stored(raw, 2);
  const only = (path: string, ...fields: string[]) =>
    ask(rig, b, get(path, lines('cache-control: only-if-cached', ...fields)));
  const got = await only('/ai/x');
  t.equal(got.status, 200);
  t.ok(isHit(got));
  t.equal((await only('/ai/unknown')).code, 'not_cached');
  t.equal((await only('/ai/unknown')).status, 504);
  t.match(redisOf(b), { gets: 3, hits: 1 });
  const part = await only('/ai/y', 'range: bytes=2-3');
  t.ok(part.code === 'not_cached' || part.body.toString() === '23', `a range: ${part.status}`);
  await ask(rig, b, get('/ai/private'));
  t.equal((await only('/ai/private')).code, 'not_cached', 'what was not for sharing');
  const before = upstream.requests.length;
  time.later(100);
  t.equal((await only('/ai/x')).code, 'not_cached', 'stale in memory');
  const c = await open({ clock: time.now });
  const late = await ask(rig, c, get('/ai/x', lines('cache-control: only-if-cached')));
  t.equal(late.code, 'not_cached', 'stale in Redis');
  t.equal(upstream.requests.length, before);
  t.equal(upstream.requests.length, 3, 'x, y and the private one');
});

// ---- what is thrown out

fleet('an unsafe method at one empties the memory of the others, and Redis', async (t, scene, rig) => {
  const { raw, upstream, open } = scene;
  let version = 1;
  upstream.script = async (request, connection) => {
    await request.whole();
    if (request.method !== 'GET') version++;
    connection.send(answer(`v${version}`, FRESH));
  };
  const [a, b] = [await open(), await open()];
  for (const [i, method] of ['POST', 'PUT', 'DELETE', 'PATCH'].entries()) {
    for (const proxy of [a, b]) {
      for (const path of ['/ai/x', '/ai/other']) {
        t.equal((await ask(rig, proxy, get(path))).status, 200);
        await until('it is in memory', () => proxy.stats().cache.entries > 0);
      }
    }
    await stored(raw, 2);
    t.equal(b.stats().cache.entries, 2);
    const body = (await ask(rig, i % 2 ? b : a, post('/ai/x', 'change').replace('POST', method))).body.toString();
    t.equal(body, `v${version}`);
    await until('it has left both memories', () => [a, b].every((proxy) => proxy.stats().cache.entries === 1));
    await stored(raw, 1);
    for (const proxy of [b, a]) t.equal((await ask(rig, proxy, get('/ai/x'))).body.toString(), `v${version}`, method);
    t.ok(isHit(await ask(rig, a, get('/ai/other'))), 'another URI stays');
  }
  for (const proxy of [a, b]) t.match(redisOf(proxy), { errors: 0, rejected: 0, state: 'up' });
});

fleet('DELETE /cache at one is for all of them', async (t, { raw, upstream, open }, rig) => {
  upstream.script = (_request, connection) => connection.send(answer('x', FRESH));
  const [a, b] = [await open(), await open()];
  const queries: [query: string, left: number][] = [
    ['?upstream=ai&prefix=/v1/', 1],
    ['?upstream=ai', 0],
    ['?upstream=other', 3],
    ['', 0],
  ];
  for (const [query, left] of queries) {
    for (const path of ['/ai/v1/a', '/ai/v1/b?c=d', '/ai/v2/a']) {
      await ask(rig, a, get(path));
    }
    await stored(raw, 3);
    for (const path of ['/ai/v1/a', '/ai/v1/b?c=d', '/ai/v2/a']) t.ok(isHit(await ask(rig, b, get(path))));
    t.same(await stats(a, 'DELETE', `/cache${query}`), { purged: { memory: 3 - left, redis: 3 - left } });
    await until('the other has heard of it', () => b.stats().cache.entries === left);
    t.equal(a.stats().cache.entries, left);
    await stored(raw, left);
  }
});

fleet('what an answer of the upstream contradicts leaves Redis too', async (t, { raw, upstream, open }, rig) => {
  let version = 1;
  upstream.script = (request, connection) => {
    const head = `HTTP/1.1 200 OK\r\n${FRESH}etag: "${version}"\r\ncontent-length: 2\r\n\r\n`;
    connection.send(request.method === 'HEAD' ? head : `${head}v${version}`);
  };
  const [a, b] = [await open(), await open()];
  for (const proxy of [a, b]) {
    await ask(rig, proxy, get('/ai/x'));
    await stored(raw, 1);
  }
  t.equal(upstream.requests.length, 1);
  version = 2;
  await ask(rig, a, get('/ai/x').replace('GET', 'HEAD').replace('\r\n\r\n', '\r\ncache-control: no-cache\r\n\r\n'));
  await stored(raw, 0);
  await until('the other has heard of it', () => b.stats().cache.entries === 0);
  for (const proxy of [a, b]) t.equal((await ask(rig, proxy, get('/ai/x'))).body.toString(), 'v2');
});

fleet('what was thrown out while Redis was frozen is gone once it is back', async (t, scene, rig) => {
  const { redis, raw, upstream, open } = scene;
  let version = 1;
  upstream.script = async (request, connection) => {
    await request.whole();
    if (request.method === 'PUT') version++;
    connection.send(answer(`v${version}`, FRESH));
  };
  const [a, b] = [await open({ timeoutMs: TIMEOUT_MS }), await open()];
  for (const path of ['/ai/x', '/ai/y']) await ask(rig, a, get(path));
  await stored(raw, 2);
  for (const path of ['/ai/x', '/ai/y']) t.ok(isHit(await ask(rig, b, get(path))));
  redis.freeze();
  await ask(rig, a, post('/ai/x', 'change').replace('POST', 'PUT'));
  t.equal(redisOf(a).state, 'up', 'nobody knows yet');
  t.equal((await ask(rig, a, get('/ai/x'))).body.toString(), 'v2', 'its own memory at once');
  t.equal(redisOf(a).state, 'down');
  await ask(rig, a, post('/ai/y', 'change').replace('POST', 'PUT'));
  redis.thaw();
  await until('the other hears of both', () => b.stats().cache.entries === 0);
  for (const proxy of [a, b]) await up(proxy);
  for (const path of ['/ai/x', '/ai/y']) t.equal((await ask(rig, b, get(path))).body.toString(), 'v3');
});

fleet('what was asked for before an unsafe method is not kept after it', async (t, scene, rig) => {
  const { redis, raw, upstream, open } = scene;
  let version = 1;
  upstream.script = async (request, connection) => {
    await request.whole();
    if (request.method === 'PUT') version++;
    connection.send(answer(`v${version}`, FRESH));
  };
  const [a, b] = [await open(), await open()];
  const put = post('/ai/x', 'change').replace('POST', 'PUT');
  await ask(rig, a, get('/ai/x'));
  await stored(raw, 1);
  // Redis will answer with the old one, and only then hear of the change.
  redis.freeze();
  const early = await sent(rig, b, get('/ai/x'));
  await until('it asks Redis', () => redisOf(b).gets === 1);
  t.equal((await ask(rig, b, put)).body.toString(), 'v2');
  redis.thaw();
  t.equal((await early.answer()).body.toString(), 'v2');
  await until('the other hears of it', () => a.stats().cache.entries === 0);
  for (const proxy of [a, b]) t.equal((await ask(rig, proxy, get('/ai/x'))).body.toString(), 'v2');
});

fleet('a fetch that an unsafe method at a neighbour overtakes is not kept', async (t, scene, rig) => {
  const { raw, upstream, open } = scene;
  const fields = `${FRESH}vary: accept\r\n`;
  upstream.script = (_request, connection) => connection.send(answer('old', fields));
  const [a, b] = [await open(), await open()];
  await ask(rig, b, get('/ai/x', lines('accept: known')));
  await stored(raw, 1);
  upstream.script = silent;
  const early = await sent(rig, b, get('/ai/x', lines('accept: other')));
  const { connection } = await upstream.request(1);
  upstream.script = (_request, other) => other.send(answer('new', fields));
  await ask(rig, a, post('/ai/x', '').replace('POST', 'DELETE'));
  await until('it has heard of it', () => b.stats().cache.entries === 0);
  connection.send(answer('old', fields));
  t.equal((await early.answer()).body.toString(), 'old', 'it was asked before');
  for (const proxy of [b, a]) {
    t.equal((await ask(rig, proxy, get('/ai/x', lines('accept: other')))).body.toString(), 'new');
  }
});

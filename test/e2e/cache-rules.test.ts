// Answers stored by rules of the config: which requests are the same, how long, and what the client may say.

import type { Test } from 'tap';
import type { CacheOverrides, CacheRuleOverrides, TestProxy, UpstreamOverrides } from '../support/proxy.ts';
import type { RawAnswer } from '../support/raw-client.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { ask, get, landed, post, sent, silent } from '../support/twins.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type RawUpstream } from '../support/upstream.ts';

const TTL: CacheRuleOverrides = { ttlMs: 60_000 };

/** A proxy whose upstream counts its answers, and a clock that a test moves. */
class Shop {
  readonly #rig: Rig;
  readonly #t: Test;
  readonly #clock: { now: number };
  readonly upstream: RawUpstream;
  readonly proxy: TestProxy;
  /** Head fields of the next answers, and their status. */
  fields = '';
  status = '200 OK';

  private constructor(t: Test, rig: Rig, upstream: RawUpstream, proxy: TestProxy, clock: { now: number }) {
    this.#t = t;
    this.#rig = rig;
    this.upstream = upstream;
    this.proxy = proxy;
    this.#clock = clock;
    upstream.script = async (request, connection) => {
      await request.whole();
      connection.send(answer(`answer ${upstream.requests.length}`, this.fields, this.status));
    };
  }

  static async open(
    t: Test,
    rig: Rig,
    rules: readonly CacheRuleOverrides[],
    cache: Omit<CacheOverrides, 'rules'> = {},
    more: Partial<UpstreamOverrides> = {},
    listener = {},
  ): Promise<Shop> {
    const upstream = await rig.upstream();
    const clock = { now: Date.now() };
    const ai = { url: upstream.url, cache: { rules, ...cache }, ...more };
    const proxy = await rig.proxy({ upstreams: { ai }, listener }, () => clock.now);
    return new Shop(t, rig, upstream, proxy, clock);
  }

  later(ms: number): void {
    this.#clock.now += ms;
  }

  ask(text: string): Promise<RawAnswer> {
    return ask(this.#rig, this.proxy, text);
  }

  /** Did this request cost a call? */
  async asks(text: string): Promise<boolean> {
    const before = this.upstream.requests.length;
    await this.ask(text);
    return this.upstream.requests.length > before;
  }

  async hits(text: string, message: string): Promise<void> {
    this.#t.notOk(await this.asks(text), `a hit: ${message}`);
  }

  async misses(text: string, message: string): Promise<void> {
    this.#t.ok(await this.asks(text), `a miss: ${message}`);
  }
}

const json = (body: string, fields = '') => post('/ai/v1/x', body, `content-type: application/json\r\n${fields}`);

e2e('bodies that are the same as JSON are the same request', async (t, rig) => {
  const shop = await Shop.open(t, rig, [TTL]);
  await shop.misses(json('{"a":1,"b":[1,{"c":2,"d":"x"}]}'), 'the first');
  await shop.hits(json('{"a":1,"b":[1,{"c":2,"d":"x"}]}'), 'the very same');
  await shop.hits(json('{"b":[1,{"d":"x","c":2}],"a":1}'), 'another order of keys');
  await shop.hits(json(' { "a" : 1 ,\r\n\t"b":[ 1, {"c":2,"d":"x"} ] } '), 'white space');
  await shop.hits(json('{"a":1,"b":[1,{"c":2,"d":"\\u0078"}]}'), 'another spelling of a letter');
  await shop.misses(json('{"a":1,"b":[{"c":2,"d":"x"},1]}'), 'another order in a list');
  await shop.misses(json('{"a":"1","b":[1,{"c":2,"d":"x"}]}'), 'another type');
  await shop.misses(json('{"a":1,"b":[1,{"c":2,"d":"x"}],"e":null}'), 'one key more');
});

e2e('number literals count as they are written', async (t, rig) => {
  const shop = await Shop.open(t, rig, [TTL]);
  for (const literal of ['12345678901234567890', '12345678901234567891', '1', '1.0', '1e0', '-0', '0', '1e400']) {
    await shop.misses(json(`{"id":${literal}}`), literal);
    await shop.hits(json(`{ "id": ${literal} }`), literal);
  }
});

e2e('where a name comes twice, the exact bytes count', async (t, rig) => {
  const shop = await Shop.open(t, rig, [TTL]);
  await shop.misses(json('{"a":1,"a":2}'), 'the first');
  await shop.misses(json('{"a":2,"a":1}'), 'the other order');
  await shop.misses(json('{"a":2}'), 'what some parsers make of it');
  await shop.misses(json('{"a":1, "a":2}'), 'a blank more');
  await shop.hits(json('{"a":1,"a":2}'), 'the very same');
});

e2e('body: exact counts every byte', async (t, rig) => {
  const shop = await Shop.open(t, rig, [{ ...TTL, key: { body: 'exact' } }]);
  await shop.misses(json('{"a":1,"b":2}'), 'the first');
  await shop.hits(json('{"a":1,"b":2}'), 'the same');
  await shop.misses(json('{"b":2,"a":1}'), 'another order');
  await shop.misses(json('{"a":1, "b":2}'), 'a blank');
});

e2e('a body over body_buffer passes by the cache and arrives whole', async (t, rig) => {
  const shop = await Shop.open(t, rig, [TTL], {}, {}, { bodyBufferBytes: 10_000 });
  const large = JSON.stringify({ text: 'x'.repeat(20_000) });
  await shop.misses(json(large), 'the first');
  await shop.misses(json(large), 'the second too');
  const got = await shop.ask(json(large));
  t.match(got.get('cache-status'), 'fwd=bypass; detail=body_too_large');
  t.equal(String(shop.upstream.requests.at(-1)!.body), large);
  t.match(shop.proxy.upstream().cache, { bypassed: 3, stores: 0, misses: 0 });
  await shop.misses(json('{"a":1}'), 'a small one');
  await shop.hits(json('{"a":1}'), 'is stored');
});

e2e('the first rule that matches speaks: by method, path, operation and header', async (t, rig) => {
  const shop = await Shop.open(t, rig, [
    { ttlMs: 10_000, match: { methods: ['POST'], paths: ['/v1/embeddings'] } },
    { ttlMs: 20_000, match: { methods: ['GET'], paths: ['/static/*'] } },
    { ttlMs: 30_000, match: { operations: ['cheap'] } },
    { ttlMs: 40_000, match: { headers: [['x-cache', 'yes']] } },
    { ttlMs: 50_000, match: { paths: ['/v1/*'] } },
  ]);
  const ttl = async (text: string) => {
    await shop.ask(text);
    const got = await shop.ask(text);
    return Number(/; ttl=(\d+)/.exec(got.get('cache-status') ?? '')?.[1] ?? -1);
  };
  const operation = 'x-aiproxy-operation: cheap\r\n';
  t.equal(await ttl(post('/ai/v1/embeddings', '{}', operation)), 10, 'the first of several');
  t.equal(await ttl(get('/ai/v1/embeddings')), 50, 'another method');
  t.equal(await ttl(get('/ai/static/a/b?c')), 20);
  t.equal(await ttl(post('/ai/static/a', '{}')), -1, 'none');
  t.equal(await ttl(get('/ai/other', operation)), 30);
  t.equal(await ttl(get('/ai/other', 'X-CACHE: yes\r\n')), 40);
  t.equal(await ttl(get('/ai/other', 'x-cache: no\r\n')), -1);
  t.equal(await ttl(get('/ai/other', 'x-cache: yes\r\nx-cache: yes\r\n')), -1, 'twice means nothing');
  t.equal(await ttl(get('/ai/v1/x?q=1')), 50);
});

e2e('only the statuses of the rule are stored', async (t, rig) => {
  const shop = await Shop.open(t, rig, [{ ...TTL, statuses: [200, 404] }]);
  for (const [status, stored] of [
    ['200 OK', true],
    ['404 Not Found', true],
    ['201 Created', false],
    ['301 Moved', false],
    ['410 Gone', false],
    ['500 Oops', false],
  ] as const) {
    shop.status = status;
    const text = get(`/ai/${status.slice(0, 3)}`);
    await shop.misses(text, status);
    t.equal(await shop.asks(text), !stored, status);
  }
});

e2e('an answer is used for its ttl and not a moment longer, whatever it says itself', async (t, rig) => {
  const shop = await Shop.open(t, rig, [{ ttlMs: 5000 }]);
  for (const fields of [
    '',
    'cache-control: max-age=0\r\n',
    'cache-control: no-cache\r\n',
    'expires: 0\r\n',
    'age: 999\r\n',
  ]) {
    shop.fields = fields;
    const text = get(`/ai/x?${encodeURIComponent(fields)}`);
    await shop.misses(text, fields);
    shop.later(4999);
    await shop.hits(text, fields);
    shop.later(1);
    await shop.misses(text, fields);
  }
});

e2e('FatSecret: what an OAuth 1 signature changes each time does not count, who signs does', async (t, rig) => {
  const queryIgnore = ['oauth_nonce', 'oauth_timestamp', 'oauth_signature'];
  const shop = await Shop.open(t, rig, [{ ...TTL, key: { queryIgnore } }]);
  const signed = (n: number, more = 'oauth_consumer_key=me&search=egg') =>
    get(`/ai/rest?oauth_nonce=n${n}&${more}&oauth_timestamp=${n}&oauth_signature=s%3D${n}`);
  await shop.misses(signed(1), 'the first');
  await shop.hits(signed(2), 'signed again');
  await shop.misses(signed(3, 'oauth_consumer_key=you&search=egg'), 'another consumer');
  await shop.misses(signed(4, 'oauth_consumer_key=me&oauth_token=t&search=egg'), 'a user of it');
  await shop.misses(signed(5, 'oauth_consumer_key=me&search=ham'), 'another question');
  t.match(shop.upstream.requests.at(-1)!.target, 'oauth_nonce=n5', 'the upstream gets all of it');
});

e2e('a header that a rule names counts', async (t, rig) => {
  const shop = await Shop.open(t, rig, [{ ...TTL, key: { headers: ['x-tenant'] } }]);
  await shop.misses(get('/ai/x', 'x-tenant: a\r\n'), 'a');
  await shop.misses(get('/ai/x', 'x-tenant: b\r\n'), 'b');
  await shop.misses(get('/ai/x'), 'none');
  await shop.misses(get('/ai/x', 'x-tenant:\r\n'), 'an empty one is not none');
  await shop.hits(get('/ai/x', 'X-Tenant: a\r\nx-other: 1\r\n'), 'a again, and one that does not count');
});

e2e('each credential has answers of its own, unless all share them', async (t, rig) => {
  const credentials = ['authorization', 'x-api-key', 'api-key', 'x-goog-api-key', 'cookie', 'x-user'];
  const apart = await Shop.open(t, rig, [TTL], { partitionHeaders: ['x-user'] });
  await apart.misses(get('/ai/x'), 'nobody');
  for (const name of credentials) {
    await apart.misses(get('/ai/x', `${name}: one\r\n`), `${name}: one`);
    await apart.misses(get('/ai/x', `${name}: two\r\n`), `${name}: two`);
    await apart.hits(get('/ai/x', `${name}: one\r\n`), `${name}: one`);
  }
  const together = await Shop.open(t, rig, [TTL], { partition: 'shared', partitionHeaders: ['x-user'] });
  await together.misses(get('/ai/x'), 'the first');
  for (const name of credentials) await together.hits(get('/ai/x', `${name}: one\r\n`), name);
});

e2e('Accept and Accept-Encoding always count, other fields where Vary names them', async (t, rig) => {
  const shop = await Shop.open(t, rig, [TTL]);
  for (const name of ['accept', 'accept-encoding']) {
    await shop.misses(get(`/ai/${name}`, `${name}: a/b, c\r\n`), name);
    await shop.hits(get(`/ai/${name}`, `${name}: A/B,c\r\n`), 'in another spelling');
    await shop.misses(get(`/ai/${name}`, `${name}: c\r\n`), name);
    await shop.misses(get(`/ai/${name}`), 'none');
  }
  shop.fields = 'vary: X-Version\r\n';
  await shop.misses(get('/ai/v', 'x-version: 1\r\n'), '1');
  await shop.misses(get('/ai/v', 'x-version: 2\r\n'), '2');
  await shop.hits(get('/ai/v', 'x-version: 1\r\nx-other: 3\r\n'), '1');
  await shop.hits(get('/ai/v', 'x-version: 2\r\n'), '2');
});

e2e('a POST matched by a rule invalidates nothing, another unsafe method does', async (t, rig) => {
  const shop = await Shop.open(t, rig, [
    { ...TTL, match: { methods: ['GET', 'POST'], paths: ['/x', '/y'], operations: ['', 'o'] } },
  ]);
  await shop.misses(post('/ai/x', '{"a":1}'), 'the first');
  await shop.misses(post('/ai/x', '{"a":2}'), 'another body');
  await shop.misses(get('/ai/x'), 'a GET');
  await shop.misses(get('/ai/y'), 'another URI');
  await shop.hits(post('/ai/x', '{"a":1}'), 'all are still there');
  await shop.hits(get('/ai/x'), 'all are still there');
  shop.status = '500 Oops';
  await shop.ask(post('/ai/x', '{}', 'x-aiproxy-operation: other\r\n'));
  await shop.hits(get('/ai/x'), 'it failed, so nothing has changed');
  for (const [n, text] of [
    post('/ai/x', '{}', 'x-aiproxy-operation: other\r\n'),
    post('/ai/x', '{}').replace('POST', 'PUT'),
    get('/ai/x').replace('GET', 'DELETE'),
    post('/ai/z', '{}'),
  ].entries()) {
    shop.status = '204 No Content'.replace('204 No Content', '200 OK');
    shop.fields = n === 3 ? 'location: /x\r\n' : '';
    await shop.ask(text);
    shop.fields = '';
    await shop.misses(post('/ai/x', '{"a":1}'), text.slice(0, 12));
    await shop.misses(post('/ai/x', '{"a":2}'), text.slice(0, 12));
    await shop.misses(get('/ai/x'), text.slice(0, 12));
    await shop.hits(get('/ai/y'), 'another URI stays');
  }
});

e2e('the client may say no-store, no-cache, max-age, only-if-cached', async (t, rig) => {
  const shop = await Shop.open(t, rig, [TTL]);
  const x = (control = '', pragma = '') =>
    json('{"a":1}', (control && `cache-control: ${control}\r\n`) + (pragma && `pragma: ${pragma}\r\n`));
  const none = await shop.ask(x('only-if-cached'));
  t.equal(none.status, 504);
  t.equal(none.code, 'not_cached');
  t.equal(shop.upstream.requests.length, 0);
  await shop.misses(x('no-store'), 'no-store');
  t.equal(shop.proxy.upstream().cache!.entries, 0, 'and nothing is stored');
  await shop.misses(x(), 'the first');
  await shop.hits(x('only-if-cached'), 'only-if-cached');
  shop.later(5000);
  await shop.misses(x('no-store'), 'no-store is not answered from the store either');
  await shop.hits(x('max-age=5'), '5 s old');
  await shop.hits(x('min-fresh=55'), 'fresh for 55 s more');
  await shop.misses(x('no-cache'), 'no-cache');
  await shop.hits(x('max-age=0'), 'that has renewed it');
  shop.later(5000);
  await shop.misses(x('max-age=4'), 'too old');
  await shop.misses(x('min-fresh=61'), 'never so fresh');
  await shop.misses(x('', 'no-cache'), 'Pragma');
  await shop.misses(x('max-age=zero'), 'what cannot be read asks the upstream');
  shop.later(60_000);
  await shop.hits(x('max-stale=1'), 'max-stale');
  t.equal((await shop.ask(x('only-if-cached'))).status, 504, 'stale');
});

e2e('the answer may say no-store; private and Set-Cookie count where all share', async (t, rig) => {
  const table: [fields: string, partition: 'credential' | 'shared', stored: boolean][] = [
    ['cache-control: no-store\r\n', 'credential', false],
    ['cache-control: no-store\r\n', 'shared', false],
    ['cache-control: private\r\n', 'credential', true],
    ['cache-control: private\r\n', 'shared', false],
    ['set-cookie: a=1\r\n', 'credential', true],
    ['set-cookie: a=1\r\n', 'shared', false],
    ['cache-control: max-age=1, ,=\r\n', 'credential', false],
    ['vary: *\r\n', 'credential', false],
    ['content-range: bytes 0-7/8\r\n', 'credential', false],
  ];
  for (const [fields, partition, stored] of table) {
    const shop = await Shop.open(t, rig, [TTL], { partition });
    shop.fields = fields;
    const first = await shop.ask(get('/ai/x'));
    if (fields.startsWith('set-cookie')) t.equal(first.get('set-cookie'), 'a=1', 'it is for the one who asked');
    t.equal(await shop.asks(get('/ai/x')), !stored, `${fields.trim()}, ${partition}`);
    if (!stored) continue;
    const again = await shop.ask(get('/ai/x'));
    t.equal(again.get('set-cookie'), undefined, 'no cookie is replayed');
  }
});

const events = Array.from({ length: 5 }, (_, i) => `data: {"n":${i}}\n\n`);

e2e('a stream is stored as bytes and replayed byte for byte', async (t, rig) => {
  const shop = await Shop.open(t, rig, [TTL]);
  shop.upstream.script = async (request, connection) => {
    await request.whole();
    connection.send(chunkedHead('content-type: text/event-stream\r\n'));
    for (const event of events) connection.send(chunk(event));
    connection.send(LAST_CHUNK);
  };
  const text = json('{"stream":true,"messages":[]}');
  const first = await shop.ask(text);
  const second = await shop.ask(json('{"messages":[],"stream":true}'));
  t.equal(shop.upstream.requests.length, 1);
  t.equal(second.body.toString(), events.join(''));
  t.equal(second.get('content-type'), 'text/event-stream');
  t.equal(second.ending, 'clean');
  t.same([first.body.toString(), first.ending], [events.join(''), 'clean']);
  t.match(second.get('cache-status'), /^aiproxy; hit; ttl=/);
  t.match(second.get('age'), /^\d+$/);
  await shop.misses(json('{"stream":false,"messages":[]}'), 'not streamed is another request');
});

e2e('pace: recorded keeps the rhythm, pace: fast does not', async (t, rig) => {
  for (const pace of ['recorded', 'fast'] as const) {
    const shop = await Shop.open(t, rig, [{ ...TTL, pace }]);
    shop.upstream.script = async (request, connection) => {
      await request.whole();
      connection.send(chunkedHead('content-type: text/event-stream\r\n'));
      for (const event of events) {
        await whileNothing(200);
        connection.send(chunk(event));
      }
      connection.send(LAST_CHUNK);
    };
    await shop.ask(json('{}'));
    const client = await sent(rig, shop.proxy, json('{}'));
    await client.head();
    const from = performance.now();
    const times: number[] = [];
    let whole = '';
    for (let piece = await client.piece(); piece; piece = await client.piece()) {
      times.push(performance.now() - from);
      whole += String(piece);
    }
    t.equal(whole, events.join(''));
    const took = times.at(-1)!;
    if (pace === 'fast') t.ok(took < 250, `${took} ms`);
    else {
      t.equal(times.length, events.length, 'piece by piece');
      t.ok(took > 350 && took < 2000, `${took} ms`);
      t.ok(times[0]! > 50 && times[0]! < 400, `the first after ${times[0]} ms`);
      for (let i = 1; i < times.length; i++) t.ok(times[i]! - times[i - 1]! > 40, `${times}`);
    }
    t.equal(shop.upstream.requests.length, 1);
  }
});

e2e('a client that leaves within a paced replay, or does not read it, leaves nothing behind', async (t, rig) => {
  const shop = await Shop.open(t, rig, [{ ...TTL, pace: 'recorded' }]);
  shop.upstream.script = async (_request, connection) => {
    connection.send(chunkedHead()).send(chunk('one'));
    await whileNothing(400);
    connection.send(chunk('two') + LAST_CHUNK);
  };
  await shop.ask(get('/ai/x'));
  const client = await sent(rig, shop.proxy, get('/ai/x'));
  await client.head();
  client.reset();
  await shop.proxy.idle(300);
  t.equal(shop.proxy.upstream().failures.client_gone, 1);
});

e2e(
  'a large stored answer goes as the client takes it, and one that takes nothing is dropped as stalled',
  async (t, rig) => {
    const upstream = await rig.upstream();
    const body = Buffer.from(Array.from({ length: 24 << 20 }, (_, i) => (i * 7 + (i >> 11)) & 255));
    upstream.script = (_request, connection) =>
      connection.send(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n`).send(body);
    const rules = [{ ...TTL, maxEntryBytes: 32 << 20 }];
    const proxy = await rig.one(
      { url: upstream.url, cache: { rules }, timeouts: { writeStallMs: 300, firstEventMs: 200, idleMs: 200 } },
      { cache: { maxBytes: 100 << 20, maxEntryBytes: 32 << 20 } },
    );
    await ask(rig, proxy, get('/ai/x'));
    const slow = await sent(rig, proxy, get('/ai/x'));
    await slow.head();
    slow.pause();
    const line = await until('it is dropped', () => proxy.exchanges[1], 3000);
    t.match(line, { failure: 'client_stalled', cache: 'hit' });
    slow.resume();
    t.equal(await slow.ended(), 'reset');
    const patient = await sent(rig, proxy, get('/ai/x'));
    await patient.head();
    patient.pause();
    await whileNothing(150);
    patient.resume();
    const got = await patient.rest();
    t.ok(got.body.equals(body) && got.ending === 'clean', 'one that pauses for a moment gets all of it');
    t.equal(upstream.requests.length, 1);
  },
);

e2e(
  'stale_while_revalidate with a body: the old answer at once, the new one fetched with the same body',
  async (t, rig) => {
    const shop = await Shop.open(t, rig, [{ ttlMs: 1000, staleWhileRevalidateMs: 10_000 }]);
    const text = json('{"a":1}');
    t.equal((await shop.ask(text)).body.toString(), 'answer 1');
    shop.later(2000);
    shop.upstream.script = silent;
    for (let i = 0; i < 5; i++) {
      const stale = await shop.ask(text);
      t.equal(stale.body.toString(), 'answer 1');
      t.match(stale.get('cache-status'), 'hit; ttl=-1; detail=stale_while_revalidate');
    }
    const renewing = await shop.upstream.request(1);
    t.equal(String(await renewing.whole()), '{"a":1}');
    t.equal(renewing.get('content-type'), 'application/json');
    renewing.connection.send(answer('answer 2'));
    await until('the new one is stored', () => shop.proxy.upstream().cache!.stores === 2);
    const fresh = await shop.ask(text);
    t.equal(fresh.body.toString(), 'answer 2');
    t.equal(shop.upstream.requests.length, 2, 'one call renewed it');
    await landed(shop.proxy);
    shop.later(11_000);
    shop.upstream.script = (_request, connection) => connection.send(answer('answer 3'));
    t.equal((await shop.ask(text)).body.toString(), 'answer 3', 'too old to be used');
  },
);

e2e('several ranges of a stale answer go to the upstream with the body', async (t, rig) => {
  const shop = await Shop.open(t, rig, [{ ttlMs: 1000, staleWhileRevalidateMs: 10_000 }]);
  // Only of a GET is a range one (RFC 9110 section 14.2).
  const withBody = (fields = '') => json('{"a":1}', fields).replace('POST', 'GET');
  await shop.ask(withBody());
  shop.later(2000);
  const got = await shop.ask(withBody('range: bytes=0-1,3-4\r\n'));
  t.equal(got.status, 200);
  const passed = await until('it passed', () => shop.upstream.requests.find((request) => request.get('range')));
  t.equal(String(await passed.whole()), '{"a":1}');
  await shop.proxy.idle();
  t.equal(shop.proxy.stats().listener.body_memory_bytes, 0);
});

e2e('a POST that a rule stores has neither ranges nor conditions', async (t, rig) => {
  const shop = await Shop.open(t, rig, [{ ttlMs: 60_000 }]);
  const first = await shop.ask(json('{"a":1}'));
  for (const fields of [
    'range: bytes=0-1\r\n',
    'if-none-match: *\r\n',
    'if-modified-since: Tue, 24 Nov 2099 00:00:00 GMT\r\n',
  ]) {
    const got = await shop.ask(json('{"a":1}', fields));
    t.same([got.status, got.body.toString()], [200, first.body.toString()], fields);
  }
});

e2e('a fetch in the background whose answer nobody may have is not read to its end', async (t, rig) => {
  const shop = await Shop.open(t, rig, [{ ttlMs: 1000, staleWhileRevalidateMs: 10_000 }]);
  await shop.ask(get('/ai/x'));
  shop.later(2000);
  for (const head of ['content-length: 5000000000\r\n', 'transfer-encoding: chunked\r\n']) {
    const n = shop.upstream.requests.length;
    shop.upstream.script = silent;
    t.equal((await shop.ask(get('/ai/x'))).body.toString(), 'answer 1');
    const { connection } = await shop.upstream.request(n);
    connection.send(`HTTP/1.1 200 OK\r\ncache-control: no-store\r\n${head}\r\n`);
    for (let i = 0; i < 4; i++) connection.send(head.startsWith('t') ? chunk('x'.repeat(30_000)) : 'x'.repeat(30_000));
    await until('it is cut off', () => connection.left);
    await landed(shop.proxy);
  }
});

e2e('a body of exactly body_buffer is looked up, one byte more is not', async (t, rig) => {
  const upstream = await rig.upstream();
  const cache = { rules: [{ ttlMs: 60_000, match: { paths: ['/v1/x'], methods: ['POST'] } }] };
  const proxy = await rig.one({ url: upstream.url, cache }, { listener: { bodyBufferBytes: 1024 } });
  const fate = async (size: number) =>
    (await rig.ask(proxy, '/ai/v1/x', { method: 'POST', body: 'x'.repeat(size) })).get('cache-status');
  t.equal(await fate(1024), 'aiproxy; fwd=uri-miss; stored');
  t.match(await fate(1024), /^aiproxy; hit/);
  t.equal(await fate(1025), 'aiproxy; fwd=bypass; detail=body_too_large');
});

e2e('only-if-cached never reaches the upstream, also where nothing can be looked up', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, cache: { http: true } });
  const only = 'cache-control: only-if-cached\r\n';
  for (const ask of [
    { method: 'POST', body: '{}', headers: only },
    { headers: `if-match: "x"\r\n${only}` },
    { headers: 'cache-control: no-store, only-if-cached\r\n' },
  ]) {
    const got = await rig.ask(proxy, '/ai/x', ask);
    t.equal(got.status, 504);
    t.equal(got.code, 'not_cached');
    t.notMatch(got.get('cache-status'), /fwd/);
  }
  t.equal(upstream.requests.length, 0);
});

e2e('a bypass path of an upstream with a cache says so', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, cache: { http: true }, bypass: ['/health'] });
  t.equal((await rig.ask(proxy, '/ai/health')).get('cache-status'), 'aiproxy; fwd=bypass; detail=bypass_path');
  t.equal(proxy.exchanges[0]!.cache, 'bypass');
});

e2e('what is thrown out while it is being fetched is not stored after all, and nobody joins it', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead()).send(chunk('old')));
  const cache = { rules: [{ ttlMs: 60_000, match: { paths: ['/v1/x'], methods: ['GET'] } }] };
  const proxy = await rig.one({ url: upstream.url, cache });
  const client = await rig.sent(proxy, '/ai/v1/x');
  await client.head();
  t.equal(String(await client.piece()), 'old');
  const url = `http://127.0.0.1:${proxy.statsPort}/cache?prefix=/v1/`;
  const purged = await fetch(url, { method: 'DELETE', headers: { connection: 'close' } });
  t.equal(purged.status, 200);
  await purged.text();
  upstream.connections[0]!.send(LAST_CHUNK);
  t.equal((await client.rest()).ending, 'clean', 'who asked before has his answer');
  upstream.script = (_request, connection) => connection.send(answer('new'));
  t.equal((await rig.ask(proxy, '/ai/v1/x')).body.toString(), 'new');
  t.equal(proxy.stats().cache.entries, 1);
});

// Identical requests in flight: which answers and failures they share, and which are for the one who asked alone.

import { createServer } from 'node:net';
import type { TestProxy, UpstreamOverrides } from '../support/proxy.ts';
import type { RawClient } from '../support/raw-client.ts';
import { e2e } from '../support/rig.ts';
import {
  alike,
  answers,
  ask,
  COALESCE,
  FRESH,
  get,
  HTTP,
  landed,
  post,
  RULE,
  sent,
  silent,
  twins,
} from '../support/twins.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type RawUpstream, type Script } from '../support/upstream.ts';

// ---- failures are shared

interface Bad {
  readonly script?: Script;
  readonly config?: Partial<UpstreamOverrides>;
  readonly limiter?: { readonly maxQueue?: number; readonly queueTimeoutMs?: number };
  /** Status, or failure code. */
  readonly gets: number | string;
  readonly calls: number;
}

const bad: Record<string, Bad> = {
  '429': {
    script: (_request, c) => c.send(answer('slow down', 'retry-after: 7\r\n', '429 Too Many Requests')),
    gets: 429,
    calls: 1,
  },
  '500': { script: (_request, c) => c.send(answer('oops', '', '500 Internal Server Error')), gets: 500, calls: 1 },
  '503 with no-store': {
    script: (_request, c) => c.send(answer('oops', 'cache-control: no-store\r\n', '503 Busy')),
    gets: 503,
    calls: 1,
  },
  '404': { script: (_request, c) => c.send(answer('none', '', '404 Not Found')), gets: 404, calls: 1 },
  'a reset before the head': { script: (_request, c) => c.resetAndDestroy(), gets: 'upstream_reset', calls: 1 },
  'a headers timeout': { script: silent, config: { timeouts: { headersMs: 300 } }, gets: 'headers_timeout', calls: 1 },
  junk: { script: (_request, c) => c.send('junk\r\n\r\n'), gets: 'upstream_protocol_error', calls: 1 },
  'a queue timeout': { limiter: { queueTimeoutMs: 300 }, gets: 'queue_timeout', calls: 0 },
  'a full queue': { limiter: { maxQueue: 0 }, gets: 'queue_full', calls: 0 },
};

for (const [name, { script, config, limiter, gets, calls }] of Object.entries(bad)) {
  e2e(`a failure is shared and not stored, and the next request asks anew: ${name}`, async (t, rig) => {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one(
      { url: upstream.url, limiter: 'gate', ...RULE, ...config },
      { limiters: { gate: { maxConcurrent: 1, ...limiter } } },
    );
    const blocker = limiter ? await sent(rig, proxy, get('/ai/blocker')) : null;
    const before = blocker ? 1 : 0;
    if (blocker) await upstream.request(0);
    else
      upstream.script = async (request, connection) => {
        await until('all wait', () => proxy.upstream().requests === 20);
        await script!(request, connection);
      };
    const clients = await twins(rig, proxy, 20, post('/ai/x', '{}'));
    const all = await answers(clients);
    alike(t, all, 'the same for all');
    t.equal(typeof gets === 'number' ? all[0]!.status : all[0]!.code, gets);
    if (name === '429')
      t.ok(
        all.every((got) => got.get('retry-after') === '7'),
        'its Retry-After reaches everybody',
      );
    t.equal(upstream.requests.length - before, calls);
    blocker?.reset();
    await proxy.idle();
    await landed(proxy);
    t.equal(proxy.upstream().cache!.stores, 0);
    t.equal(proxy.upstream().cache!.entries, 0);
    upstream.script = (_request, connection) => connection.send(answer('well'));
    t.equal((await ask(rig, proxy, post('/ai/x', '{}'))).body.toString(), 'well', 'no mark, no memory of it');
    if (typeof gets === 'string') t.equal(proxy.upstream().failures[gets as 'queue_full'], 20, 'counted for each');
  });
}

e2e('where all share the answers, a bad day is shared by all as well', async (t, rig) => {
  for (const status of ['429 Slow Down', '500 Oops', '503 Busy']) {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, cache: { partition: 'shared', rules: [{ ttlMs: 60_000 }] } });
    const clients = await twins(rig, proxy, 5, (i) => get('/ai/x', `authorization: Bearer ${i}\r\n`));
    (await upstream.request(0)).connection.send(answer('bad', '', status));
    for (const got of await answers(clients)) t.equal(got.body.toString(), 'bad');
    t.equal(upstream.requests.length, 1, status);
  }
});

e2e('a refused connection is shared', async (t, rig) => {
  const server = createServer().listen(0, '127.0.0.1');
  await until('it listens', () => server.listening);
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  const proxy = await rig.one({ url: `http://127.0.0.1:${port}`, ...RULE });
  const clients: RawClient[] = [];
  for (let i = 0; i < 20; i++) clients.push(await rig.client(proxy));
  for (const client of clients) client.send(get('/ai/x'));
  for (const got of await answers(clients)) t.equal(got.code, 'connect_failed');
  await landed(proxy);
});

for (const [name, send] of Object.entries<(upstream: RawUpstream) => void>({
  'a stream that ends in a FIN': ({ connections }) => connections[0]!.end(),
  'a stream that ends in a reset': ({ connections }) => connections[0]!.resetAndDestroy(),
})) {
  for (const framing of ['chunked', 'declared'] as const) {
    e2e(`a cut answer is a reset for everybody and never stored: ${name}, ${framing}`, async (t, rig) => {
      const upstream = await rig.upstream(silent);
      const proxy = await rig.one({ url: upstream.url, ...RULE });
      const clients = await twins(rig, proxy, 10, get('/ai/x'));
      const { connection } = await upstream.request(0);
      if (framing === 'chunked') connection.send(chunkedHead(FRESH)).send(chunk('half'));
      else connection.send(`HTTP/1.1 200 OK\r\n${FRESH}content-length: 8\r\n\r\nhalf`);
      for (const client of clients) {
        await client.head();
        t.equal(String(await client.piece()), 'half');
      }
      send(upstream);
      for (const client of clients) t.same(await client.rest(), { body: Buffer.alloc(0), ending: 'reset' });
      t.equal(proxy.upstream().failures.upstream_cut, 10);
      await landed(proxy);
      t.match(proxy.upstream().cache, { stores: 0, entries: 0 });
      upstream.script = (_request, again) => again.send(answer('whole'));
      t.equal((await ask(rig, proxy, get('/ai/x'))).body.toString(), 'whole');
    });
  }
}

e2e('what is wrong with the leader’s request alone does not hurt the others', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await until('all wait', () => proxy.upstream().requests === 10);
    if (request.get('x-junk')) connection.send(answer('your fault', '', '400 Bad Request'));
    else connection.send(answer('fine', FRESH));
  });
  const proxy: TestProxy = await rig.one({ url: upstream.url, ...HTTP });
  const clients = await twins(rig, proxy, 10, (i) => get('/ai/x', i === 0 ? 'x-junk: 1\r\n' : ''));
  const [leader, ...others] = await answers(clients);
  t.equal(leader!.status, 400);
  for (const got of others) t.equal(got.body.toString(), 'fine');
  await landed(proxy);
});

// ---- what is not shared

const unshared: Record<
  string,
  { fields: string; config?: Partial<UpstreamOverrides>; request?: string; status?: string }
> = {
  'private (http)': { fields: 'cache-control: private, max-age=60\r\n', config: HTTP },
  'no-store (http)': { fields: 'cache-control: no-store\r\n', config: HTTP },
  'Set-Cookie (http)': { fields: `${FRESH}set-cookie: who=leader\r\n`, config: HTTP },
  'Vary: * (http)': { fields: `${FRESH}vary: *\r\n`, config: HTTP },
  'garbage directives (http)': { fields: 'cache-control: max-age=60, "\r\n', config: HTTP },
  'an answer to Authorization without public (http)': {
    fields: FRESH,
    config: HTTP,
    request: 'authorization: Bearer x\r\n',
  },
  'no-store (rule)': { fields: 'cache-control: no-store\r\n', config: RULE },
  'Vary: * (rule)': { fields: 'vary: *\r\n', config: RULE },
  'private (coalesce alone)': { fields: 'cache-control: private\r\n', config: COALESCE },
  'Set-Cookie (coalesce alone)': { fields: 'set-cookie: who=leader\r\n', config: COALESCE },
  'private (rule, shared by all)': {
    fields: 'cache-control: private\r\n',
    config: { cache: { partition: 'shared', rules: [{ ttlMs: 60_000 }] } },
  },
  'Set-Cookie (rule, shared by all)': {
    fields: 'set-cookie: who=leader\r\n',
    config: { cache: { partition: 'shared', rules: [{ ttlMs: 60_000 }] } },
  },
  '401 (rule, shared by all)': {
    fields: '',
    status: '401 Unauthorized',
    config: { cache: { partition: 'shared', rules: [{ ttlMs: 60_000 }] } },
  },
  '403 (http, shared by all)': {
    fields: '',
    status: '403 Forbidden',
    config: { cache: { partition: 'shared', http: true } },
  },
  'a private 500 (rule, shared by all)': {
    fields: 'cache-control: private\r\n',
    status: '500 Internal Server Error',
    config: { cache: { partition: 'shared', rules: [{ ttlMs: 60_000 }] } },
  },
};

for (const [name, { fields, config, request = '', status }] of Object.entries(unshared)) {
  e2e(
    `an answer that is not for sharing goes to the one who asked, the others go on in parallel: ${name}`,
    async (t, rig) => {
      const N = 12;
      const upstream = await rig.upstream(silent);
      const proxy = await rig.one({ url: upstream.url, ...config });
      const clients = await twins(rig, proxy, N, get('/ai/x', request));
      const leading = await upstream.request(0);
      t.equal(upstream.requests.length, 1);
      leading.connection.send(answer('for the leader', fields, status));
      const own = await clients[0]!.answer();
      t.equal(own.body.toString(), 'for the leader');
      if (fields.includes('set-cookie')) t.equal(own.get('set-cookie'), 'who=leader');
      // None of them is answered: if they waited for each other, only one would be here.
      await until('all others ask at once', () => upstream.requests.length === N);
      for (const [i, { connection }] of upstream.requests.slice(1).entries())
        connection.send(answer(`own ${i}`, fields, status));
      const bodies = (await answers(clients.slice(1))).map((got) => got.body.toString());
      t.equal(new Set(bodies).size, N - 1, 'each has one of its own');
      t.notOk(bodies.includes('for the leader'));
      await landed(proxy);
      t.match(proxy.upstream().cache, { unshared: N - 1, coalesced: 0, stores: 0, misses: N });
      if (status) return;
      // Hit-for-miss: the next ones do not wait for each other either.
      const next = await twins(rig, proxy, 3, get('/ai/x', request));
      await until('three more calls', () => upstream.requests.length === N + 3);
      for (const { connection } of upstream.requests.slice(N)) connection.send(answer('marked', fields));
      for (const got of await answers(next)) t.match(got.get('cache-status'), 'detail=hit_for_miss');
    },
  );
}

e2e('Set-Cookie of the leader never reaches a follower of a shared error', async (t, rig) => {
  for (const status of ['500 Oops', '429 Too Many Requests']) {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, ...RULE });
    const clients = await twins(rig, proxy, 5, get('/ai/x'));
    (await upstream.request(0)).connection.send(
      answer('bad', 'Set-Cookie: who=leader\r\nx-a: 1\r\nset-cookie: b=2\r\n', status),
    );
    const [own, ...others] = await answers(clients);
    t.same(own!.all('set-cookie'), ['who=leader', 'b=2']);
    for (const got of others) {
      t.same(got.all('set-cookie'), []);
      t.equal(got.get('x-a'), '1');
      t.equal(got.body.toString(), 'bad');
    }
    t.equal(upstream.requests.length, 1);
  }
});

// ---- answers that vary

for (const [name, config, fields] of [
  ['http', HTTP, FRESH],
  ['coalesce alone', COALESCE, ''],
  ['rule', RULE, ''],
] as const) {
  e2e(`twins of another variant get their own, and share that: ${name}`, async (t, rig) => {
    const languages = ['de', 'fr', 'en', 'de', 'fr', 'en', 'de', 'fr', 'en', 'de'];
    const upstream = await rig.upstream(async (request, connection) => {
      await until('all are there', () => proxy.upstream().requests === languages.length);
      const language = request.get('accept-language') ?? 'none';
      connection.send(
        answer(`text in ${language}`, `${fields}vary: accept-language\r\ncontent-language: ${language}\r\n`),
      );
    });
    const proxy: TestProxy = await rig.one({ url: upstream.url, ...config });
    const clients = await twins(rig, proxy, languages.length, (i) =>
      get('/ai/x', `accept-language: ${languages[i]}\r\n`),
    );
    for (const [i, got] of (await answers(clients)).entries()) {
      t.equal(got.body.toString(), `text in ${languages[i]}`);
      t.equal(got.get('content-language'), languages[i]);
    }
    t.equal(upstream.requests.length, 3, 'one call for each variant');
    await landed(proxy);
  });
}

e2e('many variants are fetched in parallel once it is known that the answer varies', async (t, rig) => {
  const N = 12;
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  const clients = await twins(rig, proxy, N, (i) => get('/ai/x', `accept-language: l${i}\r\n`));
  const reply = (i: number) => {
    const request = upstream.requests[i]!;
    const language = request.get('accept-language');
    request.connection.send(answer(`text in ${language}`, `${FRESH}vary: accept-language\r\n`));
  };
  await upstream.request(0);
  reply(0);
  await until('all other variants are asked for at once', () => upstream.requests.length === N);
  for (let i = 1; i < N; i++) reply(i);
  for (const [i, got] of (await answers(clients)).entries()) t.equal(got.body.toString(), `text in l${i}`);
  await landed(proxy);
});

// ---- a bad day of the upstream, with a stale answer at hand

const badDays: Record<string, { script: Script; status: number | null; config?: Partial<UpstreamOverrides> }> = {
  '429': { script: (_request, c) => c.send(answer('no', '', '429 Too Many Requests')), status: 429 },
  '500': { script: (_request, c) => c.send(answer('no', '', '500 Oops')), status: 500 },
  '503 in chunks': {
    script: (_request, c) => c.send(chunkedHead('', '503 Busy')).send(chunk('no') + LAST_CHUNK),
    status: 503,
  },
  'a reset': { script: (_request, c) => c.resetAndDestroy(), status: null },
  'a headers timeout': { script: silent, status: null, config: { timeouts: { headersMs: 200 } } },
  'a refused connection': { script: silent, status: null },
};

for (const [name, { script, status, config }] of Object.entries(badDays)) {
  e2e(`stale_if_error of a rule serves everybody the stale answer: ${name}`, async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) =>
      connection.send(answer('old', 'connection: close\r\n')),
    );
    const clock = { now: Date.now() };
    const rules = [{ ttlMs: 1000, staleIfErrorMs: 60_000 }];
    const proxy = await rig.proxy(
      { upstreams: { ai: { url: upstream.url, cache: { rules }, ...config } } },
      () => clock.now,
    );
    const text = post('/ai/x', '{"a":1}');
    await ask(rig, proxy, text);
    clock.now += 5000;
    if (name === 'a refused connection') await upstream.stopListening();
    else
      upstream.script = async (request, connection) => {
        await until('all wait', () => proxy.upstream().requests >= 11);
        await script(request, connection);
      };
    const clients: RawClient[] = [];
    for (let i = 0; i < 10; i++) clients.push(await rig.client(proxy));
    for (const client of clients) client.send(text);
    for (const got of await answers(clients)) {
      t.equal(got.body.toString(), 'old');
      t.equal(got.status, 200);
      if (status) t.match(got.get('cache-status'), `fwd-status=${status}`);
    }
    if (name !== 'a refused connection') t.equal(upstream.requests.length, 2, 'one call for all');
    t.equal(proxy.upstream().cache!.stale, 10);
    await proxy.idle();
    await landed(proxy);
    clock.now += 60_000;
    if (name === 'a refused connection') t.equal((await ask(rig, proxy, text)).code, 'connect_failed', 'not for ever');
    else if (status) t.equal((await ask(rig, proxy, text)).status, status, 'not for ever');
  });
}

// ---- changes while a fetch is under way

for (const when of ['before its head', 'within its body'] as const) {
  e2e(
    `an answer under way when its URI is changed is not stored, and nobody joins it any more: ${when}`,
    async (t, rig) => {
      const upstream = await rig.upstream(silent);
      const proxy = await rig.one({ url: upstream.url, ...HTTP });
      const [early] = await twins(rig, proxy, 1, get('/ai/x'));
      const { connection } = await upstream.request(0);
      if (when === 'within its body') {
        connection.send(chunkedHead(FRESH)).send(chunk('before the change'));
        await early!.head();
      }
      upstream.script = (request, c) => c.send(answer(request.method === 'PUT' ? 'changed' : 'new', FRESH));
      const put = get('/ai/x').replace('GET', 'PUT');
      t.equal((await ask(rig, proxy, put)).body.toString(), 'changed');
      t.equal(
        (await ask(rig, proxy, get('/ai/x'))).body.toString(),
        'new',
        'who asks after the change gets what is there now',
      );
      if (when === 'before its head') connection.send(answer('before the change', FRESH));
      else connection.send(LAST_CHUNK);
      const got = when === 'before its head' ? await early!.answer() : await early!.rest();
      t.equal(got.body.toString(), 'before the change');
      await landed(proxy);
      t.equal(
        (await ask(rig, proxy, get('/ai/x'))).body.toString(),
        'new',
        'and it does not take the place of the new one',
      );
    },
  );
}

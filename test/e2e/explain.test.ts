// What explain says is what happens: asked first, then done. And the purge, and the command line, on a running proxy.
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { request as ask } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import t, { type Test } from 'tap';
import { main } from '../../src/cli.ts';
import type { Explanation } from '../../src/server/cache-desk.ts';
import { SECRET, type TestProxy } from '../support/proxy.ts';
import { redisMissing, TestRedis } from '../support/redis.ts';
import { type Ask, e2e, type Rig } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, type RawUpstream } from '../support/upstream.ts';

const EMBEDDINGS = {
  rules: [{ ttlMs: 60_000, match: { paths: ['/v1/embeddings'], methods: ['POST'] }, key: { queryIgnore: ['nonce'] } }],
};

/** What the upstream says of its answers, by path. */
const SAYS: Readonly<Record<string, string>> = {
  '/fresh': 'cache-control: public, max-age=60\r\n',
  '/vary': 'cache-control: public, max-age=60\r\nvary: Accept\r\n',
  '/old': 'cache-control: public, max-age=0\r\netag: "1"\r\n',
  '/renew': 'cache-control: public, max-age=0, stale-while-revalidate=60\r\n',
  '/aged': 'cache-control: public, max-age=60\r\nage: 100\r\netag: "1"\r\n',
  '/unsure': 'cache-control: public, no-cache\r\netag: "1"\r\n',
  '/never': 'cache-control: no-store\r\n',
};

async function upstream(rig: Rig): Promise<RawUpstream> {
  return await rig.upstream(async (request, connection) => {
    await request.whole();
    const { target } = request;
    connection.send(answer(`for ${target}`, SAYS[target.split('?')[0]!] ?? ''));
  });
}

function call(proxy: TestProxy, method: string, path: string, body = ''): Promise<{ status: number; text: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>();
  const to = { host: '127.0.0.1', port: proxy.statsPort, method, path, agent: false };
  const asking = ask(to, (response) => {
    let text = '';
    response.setEncoding('utf8').on('data', (piece) => {
      text += piece;
    });
    response.on('end', () => resolve({ status: response.statusCode!, text }));
  });
  asking.on('error', reject).end(body);
  return promise;
}

/** The same request as `Rig.ask` sends. */
async function explained(proxy: TestProxy, url: string, { method = 'GET', headers = '', body }: Ask = {}) {
  const pairs = headers
    .split('\r\n')
    .filter((line) => line !== '')
    .map((line) => line.split(': '));
  const question = {
    method,
    url,
    headers: { host: 'proxy.test', authorization: `Bearer ${SECRET}`, ...Object.fromEntries(pairs) },
    ...(body === undefined ? {} : { body: String(body) }),
  };
  const { status, text } = await call(proxy, 'POST', '/cache/explain', JSON.stringify(question));
  if (status !== 200) throw new Error(text);
  if (text.includes(SECRET)) throw new Error(`a credential is told: ${text}`);
  return JSON.parse(text) as Explanation;
}

interface Row {
  readonly name: string;
  readonly path: string;
  readonly ask?: Ask;
  /** A request that comes first. */
  readonly after?: Ask;
  readonly told: { verdict: string; because: RegExp; policy: string | null };
  /** Cache-Status of what then happens, with any number of seconds as `#`. */
  readonly happens: string | undefined;
}

const ROWS: readonly Row[] = [
  {
    name: 'hit',
    path: '/http/fresh',
    after: {},
    told: { verdict: 'hit', because: /is fresh/, policy: 'http' },
    happens: 'aiproxy; hit; ttl=#',
  },
  {
    name: 'hit for a HEAD',
    path: '/http/fresh?head',
    after: {},
    ask: { method: 'HEAD' },
    told: { verdict: 'hit', because: /is fresh/, policy: 'http' },
    happens: 'aiproxy; hit; ttl=#',
  },
  {
    name: 'a range of a hit',
    path: '/http/fresh?range',
    after: {},
    ask: { headers: 'range: bytes=0-1\r\n' },
    told: { verdict: 'hit', because: /is fresh/, policy: 'http' },
    happens: 'aiproxy; hit; ttl=#',
  },
  {
    name: 'several ranges',
    path: '/http/fresh?ranges',
    after: {},
    ask: { headers: 'range: bytes=0-0,2-2\r\n' },
    told: { verdict: 'miss', because: /several ranges/, policy: 'http' },
    happens: 'aiproxy; fwd=partial; detail=several_ranges',
  },
  {
    name: 'stale, renewed behind the answer',
    path: '/http/renew',
    after: {},
    told: { verdict: 'stale', because: /stale-while-revalidate/, policy: 'http' },
    happens: 'aiproxy; hit; ttl=#; detail=stale_while_revalidate',
  },
  {
    name: 'stale, allowed by max-stale',
    path: '/http/aged',
    after: {},
    ask: { headers: 'cache-control: max-stale=500\r\n' },
    told: { verdict: 'stale', because: /max-stale/, policy: 'http' },
    happens: 'aiproxy; hit; ttl=#; detail=stale_allowed',
  },
  {
    name: 'stale, to be validated',
    path: '/http/aged?again',
    after: {},
    told: { verdict: 'miss', because: /is stale/, policy: 'http' },
    happens: 'aiproxy; fwd=stale; stored',
  },
  {
    name: 'no-cache',
    path: '/http/unsure',
    after: {},
    told: { verdict: 'miss', because: /says no-cache/, policy: 'http' },
    happens: 'aiproxy; fwd=stale; stored; detail=no_cache',
  },
  {
    name: 'uri-miss',
    path: '/http/fresh?never-asked-for',
    told: { verdict: 'miss', because: /^nothing is stored under this key$/, policy: 'http' },
    happens: 'aiproxy; fwd=uri-miss; stored',
  },
  {
    name: 'vary-miss',
    path: '/http/vary',
    after: { headers: 'accept: text/html\r\n' },
    ask: { headers: 'accept: text/plain\r\n' },
    told: { verdict: 'miss', because: /Vary/, policy: 'http' },
    happens: 'aiproxy; fwd=vary-miss; stored',
  },
  {
    name: 'no-store of the request',
    path: '/http/fresh?no-store',
    after: {},
    ask: { headers: 'cache-control: no-store\r\n' },
    told: { verdict: 'bypass', because: /no-store/, policy: 'http' },
    happens: 'aiproxy; fwd=bypass; detail=request_no_store',
  },
  {
    name: 'no-cache of the request',
    path: '/http/fresh?no-cache',
    after: {},
    ask: { headers: 'cache-control: no-cache\r\n' },
    told: { verdict: 'miss', because: /wants the word/, policy: 'http' },
    happens: 'aiproxy; fwd=request; stored; detail=request_no_cache',
  },
  {
    name: 'max-age of the request',
    path: '/http/aged?max-age',
    after: {},
    ask: { headers: 'cache-control: max-age=5\r\n' },
    told: { verdict: 'miss', because: /older than the max-age/, policy: 'http' },
    happens: 'aiproxy; fwd=request; stored; detail=request_max_age',
  },
  {
    name: 'min-fresh of the request',
    path: '/http/fresh?min-fresh',
    after: {},
    ask: { headers: 'cache-control: min-fresh=500\r\n' },
    told: { verdict: 'miss', because: /min-fresh/, policy: 'http' },
    happens: 'aiproxy; fwd=request; stored; detail=request_min_fresh',
  },
  {
    name: 'If-Match',
    path: '/http/fresh?if-match',
    ask: { headers: 'if-match: "1"\r\n' },
    told: { verdict: 'bypass', because: /If-Match/, policy: 'http' },
    happens: 'aiproxy; fwd=bypass; detail=request_precondition',
  },
  {
    name: 'a method that is not cached',
    path: '/http/fresh?post',
    ask: { method: 'POST', body: '{}' },
    told: { verdict: 'bypass', because: /method/, policy: 'http' },
    happens: 'aiproxy; fwd=method',
  },
  {
    name: 'a rule: hit, with the same JSON in another spelling',
    path: '/rules/v1/embeddings?nonce=1',
    after: { method: 'POST', body: '{"model":"m","input":[1]}' },
    ask: { method: 'POST', body: '{ "input": [1], "model": "m" }' },
    told: { verdict: 'hit', because: /is fresh/, policy: 'rule 0' },
    happens: 'aiproxy; hit; ttl=#',
  },
  {
    name: 'a rule: another body',
    path: '/rules/v1/embeddings',
    ask: { method: 'POST', body: '{"model":"other"}' },
    told: { verdict: 'miss', because: /^nothing is stored under this key$/, policy: 'rule 0' },
    happens: 'aiproxy; fwd=uri-miss; stored',
  },
  {
    name: 'no rule, another method',
    path: '/rules/v1/chat',
    ask: { method: 'POST', body: '{}' },
    told: { verdict: 'bypass', because: /method/, policy: null },
    happens: 'aiproxy; fwd=method',
  },
  {
    name: 'no cache, but twins may share',
    path: '/shared/fresh',
    told: { verdict: 'miss', because: /share the fetch of a twin/, policy: 'coalesce' },
    happens: 'aiproxy; fwd=uri-miss',
  },
  {
    name: 'no rule',
    path: '/rules/v1/models',
    told: { verdict: 'bypass', because: /^no rule of cache.rules matches/, policy: null },
    happens: 'aiproxy; fwd=bypass; detail=no_rule',
  },
  {
    name: 'a path in bypass',
    path: '/http/health',
    told: { verdict: 'bypass', because: /bypass of the upstream/, policy: null },
    happens: 'aiproxy; fwd=bypass; detail=bypass_path',
  },
  {
    name: 'no cache',
    path: '/plain/fresh',
    told: { verdict: 'bypass', because: /neither cache nor coalesce/, policy: null },
    happens: undefined,
  },
];

async function fourUpstreams(rig: Rig): Promise<TestProxy> {
  const { url } = await upstream(rig);
  return await rig.proxy({
    listener: { bodyBufferBytes: 1024 },
    upstreams: {
      http: { url, cache: { http: true }, bypass: ['/health'] },
      rules: { url, cache: EMBEDDINGS },
      shared: { url, coalesce: true },
      plain: { url },
    },
  });
}

e2e('what explain says is what the next request gets', async (t, rig) => {
  const proxy = await fourUpstreams(rig);
  for (const { name, path, ask = {}, after, told, happens } of ROWS) {
    if (after) await rig.ask(proxy, path, after);
    const explanation = await explained(proxy, path, ask);
    t.match(explanation, told, name);
    const got = await rig.ask(proxy, path, ask);
    t.equal(got.get('cache-status')?.replace(/ttl=-?\d+/, 'ttl=#'), happens, name);
    const ttl = Number(/ttl=(-?\d+)/.exec(got.get('cache-status') ?? '')?.[1] ?? Number.NaN);
    if (explanation.verdict === 'hit') t.ok(ttl >= 0, `${name}: ttl ${ttl}`);
    if (explanation.verdict === 'stale') t.ok(ttl < 0, `${name}: ttl ${ttl}`);
    t.equal(explanation.key === null, explanation.verdict === 'bypass', `${name}: a key where one is looked up`);
  }
});

e2e('only-if-cached: explain says that the answer is a 504', async (t, rig) => {
  const proxy = await fourUpstreams(rig);
  const only = { headers: 'cache-control: only-if-cached\r\n' };
  t.match(await explained(proxy, '/http/fresh', only), { verdict: 'miss', because: /only-if-cached.*504/ });
  t.equal((await rig.ask(proxy, '/http/fresh', only)).code, 'not_cached');
  await rig.ask(proxy, '/http/fresh');
  t.match(await explained(proxy, '/http/fresh', only), { verdict: 'hit' });
  t.match((await rig.ask(proxy, '/http/fresh', only)).get('cache-status'), /^aiproxy; hit/);
});

e2e('a body larger than body_buffer is told as such', async (t, rig) => {
  const proxy = await fourUpstreams(rig);
  for (const size of [1024, 1025]) {
    const ask = { method: 'POST', body: 'x'.repeat(size) };
    const { verdict, because } = await explained(proxy, '/rules/v1/embeddings', ask);
    const happens = (await rig.ask(proxy, '/rules/v1/embeddings', ask)).get('cache-status');
    if (size === 1024) {
      t.equal(verdict, 'miss');
      t.equal(happens, 'aiproxy; fwd=uri-miss; stored');
    } else {
      t.equal(happens, 'aiproxy; fwd=bypass; detail=body_too_large');
      t.match({ verdict, because }, { verdict: 'bypass', because: /larger than body_buffer/ });
    }
  }
});

e2e('a key that is not waited for is told as such', async (t, rig) => {
  const proxy = await fourUpstreams(rig);
  await rig.ask(proxy, '/http/never');
  const { because } = await explained(proxy, '/http/never');
  t.equal((await rig.ask(proxy, '/http/never')).get('cache-status'), 'aiproxy; fwd=uri-miss; detail=hit_for_miss');
  t.match(because, /not for sharing/);
});

e2e('asking changes nothing: no counter, no entry, no order of use', async (t, rig) => {
  const proxy = await fourUpstreams(rig);
  await rig.ask(proxy, '/http/fresh');
  const before = proxy.stats();
  for (const { path, ask } of ROWS) await explained(proxy, path, ask);
  await explained(proxy, '/http/fresh', { method: 'DELETE' });
  const after = proxy.stats();
  t.same(after.cache, before.cache);
  for (const name of Object.keys(before.upstreams)) t.same(after.upstreams[name], before.upstreams[name], name);
  t.match(
    (await rig.ask(proxy, '/http/fresh')).get('cache-status'),
    /hit/,
    'a DELETE that is only asked about voids nothing',
  );
});

e2e('the parts tell what the key is made of, and no secret', async (t, rig) => {
  const { url } = await upstream(rig);
  const proxy = await rig.one({
    url,
    cache: {
      rules: [{ ttlMs: 60_000, match: { methods: ['POST'] }, key: { queryIgnore: ['nonce'], headers: ['x-tenant'] } }],
      partitionHeaders: ['x-user'],
    },
  });
  const hushed = ['hush-key', 'hush-cookie', 'hush-user', 'hush-tenant', 'hush-query', 'hush-body', SECRET];
  const headers = [
    'x-api-key: hush-key',
    'cookie: session=hush-cookie',
    'x-user: hush-user',
    'x-tenant: hush-tenant',
    'content-type: application/json',
    'accept: Text/HTML , */*',
  ];
  const ask = { method: 'POST', headers: `${headers.join('\r\n')}\r\n`, body: '{"a":"hush-body"}' };
  const path = '/ai/v1/x?token=hush-query&nonce=1';
  await rig.ask(proxy, path, ask);
  const explanation = await explained(proxy, path, ask);
  t.equal(explanation.verdict, 'hit');
  const text = JSON.stringify(explanation);
  for (const secret of hushed) t.notOk(text.includes(secret), secret);
  t.same(
    explanation.parts.map(({ part }) => part),
    [
      ...['mode', 'upstream', 'rule', 'method', 'path', 'query', 'partition', 'credential authorization'],
      ...[
        'credential cookie',
        'credential x-api-key',
        'credential x-user',
        'header x-tenant',
        'accept',
        'content-type',
      ],
      'body',
    ],
  );
  const values = Object.fromEntries(explanation.parts.map(({ part, value }) => [part, value]));
  t.match(values, {
    path: '/v1/x',
    query: 'token',
    accept: 'text/html,*/*',
    'credential x-user': /^[0-9a-f]{8}$/,
    'header x-tenant': /^[0-9a-f]{8}$/,
    body: { form: 'canonical', bytes: 17, sha256: /^[0-9a-f]{16}$/ },
  });
  t.match(explanation, {
    upstream: 'ai',
    method: 'POST',
    path: '/v1/x',
    stored: [{ where: 'memory', selected: true }],
  });
  const other = await explained(proxy, path, { ...ask, headers: ask.headers.replace('hush-user', 'someone') });
  t.equal(other.verdict, 'miss');
  t.not(other.key, explanation.key);
  t.same(
    other.parts
      .filter(({ value }, i) => JSON.stringify(value) !== JSON.stringify(explanation.parts[i]!.value))
      .map(({ part }) => part),
    ['credential x-user'],
    'comparing two explanations shows what differs',
  );
});

e2e('each variant is told, with its age and until when it is fresh', async (t, rig) => {
  const proxy = await fourUpstreams(rig);
  for (const type of ['text/html', 'text/plain'])
    await rig.ask(proxy, '/http/vary', { headers: `accept: ${type}\r\n` });
  const { stored } = await explained(proxy, '/http/vary', { headers: 'accept: text/html\r\n' });
  t.match(stored, [
    { where: 'memory', selected: false, vary: ['accept'], status: 200, judgement: 'fresh' },
    { where: 'memory', selected: true, vary: ['accept'], status: 200, judgement: 'fresh' },
  ]);
  const leftMs = Date.parse(stored[1]!.fresh_until) - Date.now();
  t.ok(leftMs > 50_000 && leftMs <= 60_000, `${leftMs} ms`);
  await rig.ask(proxy, '/http/aged');
  t.match((await explained(proxy, '/http/aged')).stored, [{ age_s: 100, judgement: 'expired' }]);
});

e2e('a URL that leads nowhere, or headers that no proxy takes, are told as such', async (t, rig) => {
  const proxy = await fourUpstreams(rig);
  const cases: [object, RegExp][] = [
    [{ url: '/nobody/x' }, /no upstream has this name; known are http, rules, shared, plain/],
    [{ url: 'fresh' }, /use a path such as/],
    [{ url: '/http/../plain' }, /dot segment/],
    [{ url: '/http/a b' }, /percent-encoded/],
    [{ url: '/http/fresh', headers: { 'content-length': 'x' } }, /Content-Length is not a number/],
  ];
  for (const [question, message] of cases) {
    const { status, text } = await call(proxy, 'POST', '/cache/explain', JSON.stringify(question));
    t.equal(status, 400, JSON.stringify(question));
    t.match(JSON.parse(text).error.message, message);
  }
  t.match(await explained(proxy, `${proxy.url}/http/fresh?x`), { upstream: 'http', path: '/fresh' }, 'a whole URL');
  t.match(await explained(proxy, '/http?x'), { path: '/' }, 'no path is the path /');
});

// ---- DELETE /cache

/** Which of the five are stored. */
async function storedOf(proxy: TestProxy): Promise<string> {
  const paths = ['/a/fresh?1', '/a/fresh?2', '/a/vary', '/b/fresh?1', '/b/vary'];
  const all = await Promise.all(paths.map((path) => explained(proxy, path)));
  return all.map(({ stored }) => (stored.length > 0 ? 1 : 0)).join('');
}

e2e('a purge throws out what it names, and only that', async (t, rig) => {
  const { url } = await upstream(rig);
  const proxy = await rig.proxy({
    upstreams: { a: { url, cache: { http: true } }, b: { url, cache: { http: true } } },
  });
  const fill = async () => {
    for (const path of ['/a/fresh?1', '/a/fresh?2', '/a/vary', '/b/fresh?1', '/b/vary']) await rig.ask(proxy, path);
    await rig.ask(proxy, '/b/vary', { headers: 'accept: x\r\n' });
    t.equal(await storedOf(proxy), '11111', 'all are stored');
    t.equal(proxy.stats().cache.entries, 6);
  };
  await fill();
  const keyOfA2 = (await explained(proxy, '/a/fresh?2')).key!;
  const keyOfBVary = (await explained(proxy, '/b/vary')).key!;
  const cases: [query: string, memory: number, left: string][] = [
    ['?upstream=a', 3, '00011'],
    ['?prefix=/fresh', 3, '00101'],
    ['?prefix=/', 6, '00000'],
    ['?upstream=b&prefix=/fresh', 1, '11101'],
    [`?key=${keyOfA2}`, 1, '10111'],
    [`?key=${keyOfBVary}`, 2, '11110'],
    [`?upstream=b&key=${keyOfA2}`, 0, '11111'],
    [`?upstream=a&prefix=/vary&key=${keyOfA2}`, 0, '11111'],
    ['?upstream=nobody', 0, '11111'],
    ['?prefix=/FRESH', 0, '11111'],
    ['?key=', 0, '11111'],
    ['?upstream=', 0, '11111'],
    ['', 6, '00000'],
  ];
  for (const [query, memory, left] of cases) {
    await fill();
    const before = proxy.stats().cache.invalidated;
    const { status, text } = await call(proxy, 'DELETE', `/cache${query}`);
    t.equal(status, 200, query);
    t.same(JSON.parse(text), { purged: { memory, redis: null } }, query);
    t.equal(await storedOf(proxy), left, query);
    const { cache, upstreams } = proxy.stats();
    t.equal(cache.invalidated - before, memory, 'counted');
    t.equal(cache.entries, 6 - memory);
    t.equal(upstreams.a!.cache!.bytes + upstreams.b!.cache!.bytes, cache.bytes);
    if (memory === 6) t.equal(cache.bytes, 0);
  }
});

e2e('what was purged is fetched again', async (t, rig) => {
  const { url } = await upstream(rig);
  const proxy = await rig.one({ url, cache: { http: true } });
  await rig.ask(proxy, '/ai/fresh');
  t.match((await rig.ask(proxy, '/ai/fresh')).get('cache-status'), /hit/);
  await call(proxy, 'DELETE', '/cache?upstream=ai&prefix=/fresh');
  t.equal((await rig.ask(proxy, '/ai/fresh')).get('cache-status'), 'aiproxy; fwd=uri-miss; stored');
});

const noRedis = redisMissing();
if (noRedis) void t.test('what another sidecar stored is told', { skip: noRedis }, async () => {});
else
  e2e('what another sidecar stored is told, and a purge empties all of them', async (t, rig) => {
    const redis = await TestRedis.start();
    rig.closes({ close: () => redis.stop() });
    const { url } = await upstream(rig);
    const overrides = {
      upstreams: { ai: { url, cache: { http: true } } },
      redis: { url: `unix:${redis.path}`, prefix: 'aiproxy:', timeoutMs: 1000 },
      cache: { store: 'redis' },
    } as const;
    const [one, two] = [await rig.proxy(overrides), await rig.proxy(overrides)];
    for (const proxy of [one, two]) await until('redis is up', () => proxy.stats().cache.redis!.state === 'up');
    await rig.ask(one, '/ai/fresh');
    await until('it is written', () => one.stats().cache.redis!.puts === 1);
    let told = await explained(two, '/ai/fresh');
    for (let n = 0; n < 100 && told.verdict !== 'hit'; n++) told = await explained(two, '/ai/fresh');
    t.match(told, { because: /is fresh/, stored: [{ where: 'redis', selected: true, judgement: 'fresh' }] });
    t.equal(two.stats().cache.entries, 0, 'asking takes nothing over');
    t.match((await explained(one, '/ai/fresh')).stored, [{ where: 'memory' }]);
    const got = await rig.ask(two, '/ai/fresh');
    t.match(got.get('cache-status'), /^aiproxy; hit; ttl=\d+/, 'and so it happens');
    t.match((await explained(two, '/ai/fresh')).stored, [{ where: 'memory' }], 'now it has it too');
    t.same(JSON.parse((await call(two, 'DELETE', '/cache?upstream=ai&prefix=/fresh')).text), {
      purged: { memory: 1, redis: 1 },
    });
    await until('the other has emptied its memory', () => one.stats().cache.entries === 0);
    for (const proxy of [one, two]) t.match(await explained(proxy, '/ai/fresh'), { verdict: 'miss', stored: [] });
  });

// ---- aiproxy explain

interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function cli(args: readonly string[], stdin = ''): Promise<Said> {
  const [input, output, errors] = [new PassThrough(), new PassThrough(), new PassThrough()];
  input.end(stdin);
  const io = { stdin: input, stdout: output, stderr: errors, on: () => {}, off: () => {} };
  const code = await main(['explain', ...args], {}, io);
  return { code, stdout: String(output.read() ?? ''), stderr: String(errors.read() ?? '') };
}

const CREDENTIAL = `Authorization: Bearer ${SECRET}`;

function noSecret(t: Test, { stdout, stderr }: Said, name: string): void {
  t.notOk((stdout + stderr).includes(SECRET), `${name}: no credential is echoed`);
}

e2e('the command says the verdict first, then why in all detail', async (t, rig) => {
  const proxy = await fourUpstreams(rig);
  const stats = `http://127.0.0.1:${proxy.statsPort}`;
  const type = 'Content-Type: application/json';
  const args = ['--stats', stats, '-H', CREDENTIAL, '-H', type, '-d', '{"a":1}', '/rules/v1/embeddings?nonce=7'];
  const before = await cli(args);
  t.equal(before.code, 0, before.stderr);
  t.match(before.stdout, /^MISS: no stored answer would be used; nothing is stored under this key\.\n/);
  t.match(before.stdout, /\nNothing is stored under this key\.\n$/);
  await rig.ask(proxy, '/rules/v1/embeddings', { method: 'POST', headers: `${type}\r\n`, body: '{"a":1}' });
  const said = await cli(args);
  t.equal(said.code, 0);
  noSecret(t, said, 'hit');
  const key = /\nkey +(\S{43})\n/.exec(said.stdout)?.[1];
  t.equal(
    said.stdout
      .replace(/[0-9a-f]{16}…/, '<hash>…')
      .replace(/ [0-9a-f]{8}\n/, ' <hash>\n')
      .replace(key!, '<key>')
      .replace(/\d+ bytes {2}age \d+ s {2}fresh for \d+ s/, '# bytes  age # s  fresh for # s'),
    `HIT: it would be answered from the cache; a stored answer is fresh.

request   POST /v1/embeddings
upstream  rules
policy    rule 0
key       <key>

The key is made of
  mode                      rule
  upstream                  rules
  rule                      {"index":0,"body":"canonical","queryIgnore":["nonce"],"headers":[]}
  method                    POST
  path                      /v1/embeddings
  partition                 credential: api-key, authorization, cookie, x-api-key, x-goog-api-key
  credential authorization  <hash>
  content-type              application/json
  body                      as JSON, 7 bytes, SHA-256 <hash>…

Stored under this key
  memory  200  # bytes  age # s  fresh for # s  for every request  this request's: fresh
`,
  );
  t.equal(said.stderr, '');
  const json = await cli([...args, '--json']);
  t.equal(json.code, 0);
  t.match(JSON.parse(json.stdout), { verdict: 'hit', key, stored: [{ status: 200 }] });
  noSecret(t, json, '--json');
});

e2e(
  'the body comes from the line, a file or standard input; the method from -X or from there being one',
  async (t, rig) => {
    const proxy = await fourUpstreams(rig);
    const stats = `127.0.0.1:${proxy.statsPort}`;
    const body = '{"input":"Zürich"}';
    const file = join(t.testdir(), 'body.json');
    writeFileSync(file, body);
    const url = `${proxy.url}/rules/v1/embeddings`;
    const asked = async (args: readonly string[], stdin = '') => {
      const said = await cli(['--stats', stats, '--json', ...args], stdin);
      t.equal(said.code, 0, said.stderr);
      return JSON.parse(said.stdout) as Explanation;
    };
    const first = await asked(['-d', body, url]);
    t.match(first, { method: 'POST', policy: 'rule 0' });
    t.equal((await asked([url, '-d', `@${file}`])).key, first.key);
    t.equal((await asked([url, '--data', '@-'], body)).key, first.key);
    t.not((await asked([url, '-d', ''])).key, first.key);
    t.match(await asked([url]), { method: 'GET', verdict: 'bypass' });
    t.match(await asked([url, '-X', 'PUT', '-d', body]), { method: 'PUT', verdict: 'bypass' });
    t.match(await asked(['/http/fresh', '-H', 'Cache-Control:no-store']), { verdict: 'bypass', because: /no-store/ });
    const twice = await asked(['/rules/v1/embeddings', '-d', '', '-X', 'POST', '-H', 'Accept: a', '-H', 'Accept: b']);
    t.same(
      twice.parts.filter(({ part }) => part === 'accept').map(({ value }) => value),
      ['a', 'b'],
      'a header may be given again',
    );
    t.match(await cli(['/http/health', '--stats', stats]), {
      code: 0,
      stdout: /^BYPASS: the cache would have no part in it; its path is/,
    });
  },
);

e2e('wrong use is exit code 2 with one sentence, which repeats no credential', async (t, rig) => {
  const proxy = await fourUpstreams(rig);
  const stats = ['--stats', `http://127.0.0.1:${proxy.statsPort}`];
  const folder = t.testdir();
  const file = join(folder, 'body');
  writeFileSync(file, Buffer.from([0xff, 0xfe]));
  const large = join(folder, 'large');
  writeFileSync(large, 'x'.repeat(1 << 20));
  const cases: [readonly string[], RegExp][] = [
    [[], /missing required argument 'url'/],
    [['/http/x', '-H', `Bearer ${SECRET}`], /-H must be 'name: value'; number 1 is not/],
    [['/http/x', '-H', 'A: b', '-H', `Authorization Bearer: ${SECRET}`], /number 2 is not/],
    [['/http/x', '-H', `A: ${SECRET}\r\nB: c`], /number 1 is not/],
    [['/http/x', '-H', 'Authorization:', 'Bearer', SECRET], /3 URLs are given; is a header unquoted\?/],
    [['/http/x', '--bearer', SECRET], /unknown option '--bearer'/],
    [['/http/x', '-d', '@/does/not/exist'], /-d: \/does\/not\/exist cannot be read \(ENOENT\)/],
    [['/http/x', '-d', `@${file}`], /the body is not UTF-8/],
    [['/http/x', '-d', `@${large}`], /a body of at most 1048576 bytes is read/],
    [['/http/x', '-X', 'GET /'], /method must be/],
    [['/nobody/x', '-H', CREDENTIAL], /no upstream has this name; known are http, rules/],
    [['/http/../x'], /dot segment/],
    [['/http/x', '--stats', 'https://127.0.0.1:9090'], /--stats must be an address such as http:\/\/127\.0\.0\.1:9090/],
    [['/http/x', '--stats', `http://me:${SECRET}@127.0.0.1:1`], /--stats takes no user and password/],
    [['/http/x', '--stats', 'http://'], /--stats must be an address/],
  ];
  for (const [args, message] of cases) {
    const said = await cli(args.includes('--stats') ? args : [...stats, ...args]);
    const name = args.join(' ').slice(0, 60);
    t.equal(said.code, 2, name);
    t.match(said.stderr, message, name);
    t.equal(said.stdout, '', name);
    noSecret(t, said, name);
  }
});

e2e('a port that cannot be asked is exit code 1, with its address and what to do', async (t, rig) => {
  const silent = createServer((socket) => socket.on('error', () => {}).resume());
  const garbage = createServer((socket) =>
    socket
      .on('error', () => {})
      .resume()
      .end('SSH-2.0-x\r\n'),
  );
  const closing = createServer((socket) =>
    socket
      .on('error', () => {})
      .resume()
      .end(),
  );
  const sockets = (server: typeof silent) =>
    new Promise<number>((resolve) =>
      server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)),
    );
  const ports = await Promise.all([silent, garbage, closing].map(sockets));
  const gone = createServer();
  const free = await sockets(gone);
  gone.close();
  await once(gone, 'close');
  const other = await rig.http((_request, response) => void response.writeHead(404).end('<h1>no</h1>'));
  const cases: [number, RegExp][] = [
    [free, /nothing listens there/],
    [ports[1]!, /does not speak HTTP/],
    [ports[2]!, /(hang up|closed)/],
    [other.port, /is no stats port of an aiproxy/],
    [ports[0]!, /no answer in 10 s/],
  ];
  for (const [port, why] of cases) {
    const said = await cli(['--stats', `http://127.0.0.1:${port}`, '-H', CREDENTIAL, '/http/x']);
    t.equal(said.code, 1, String(why));
    t.match(said.stderr, why);
    t.match(said.stderr, `http://127.0.0.1:${port}`, 'which address');
    t.match(said.stderr, '--stats', 'what to do');
    t.equal(said.stderr.trimEnd().split('\n').length, 1, 'one line');
    t.equal(said.stdout, '');
    noSecret(t, said, String(why));
  }
  for (const server of [silent, garbage, closing]) server.close();
});

t.test('what a port answers does not steer the terminal', async (t) => {
  const esc = String.fromCharCode(27);
  const evil = {
    verdict: 'hit',
    because: `x${esc}[2J\r\nHIT`,
    upstream: `u${esc}]0;t`,
    method: 'GET',
    path: '/\u009b31m',
    policy: null,
    key: 'k',
    parts: [{ part: `p${esc}`, value: `v${esc}\n` }],
    stored: [],
  };
  const server = createServer((socket) => {
    const text = JSON.stringify(evil);
    socket.on('error', () => {}).end(`HTTP/1.1 200 OK\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const said = await cli(['--stats', `:${(server.address() as AddressInfo).port}`, '/x']);
  t.equal(said.code, 0, said.stderr);
  t.notMatch(said.stdout, new RegExp(`[${esc}\\r\u0080-\u009f]`));
  t.equal(said.stdout.split('\n').filter((line) => line.startsWith('HIT')).length, 1);
});

e2e('a miss tells of answers of the same URI under other keys', async (t, rig) => {
  const { url } = await upstream(rig);
  const proxy = await rig.one({ url, cache: { rules: [{ ttlMs: 60_000, match: { methods: ['GET'] } }] } });
  t.match(await explained(proxy, '/ai/x'), { verdict: 'miss', because: 'nothing is stored under this key' });
  for (const accept of ['*/*', 'a/b']) await rig.ask(proxy, '/ai/x', { headers: `accept: ${accept}\r\n` });
  await rig.ask(proxy, '/ai/x?another');
  const { verdict, because } = await explained(proxy, '/ai/x');
  t.equal(verdict, 'miss');
  t.match(because, /^nothing is stored under this key; under other keys of this URI: 2, so one of the parts below/);
});

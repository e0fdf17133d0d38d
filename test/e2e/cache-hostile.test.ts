// Bad input to the cache: a miss or a clear refusal, never a wrong answer, never unbounded memory.

import { connect } from 'node:net';
import type { TestProxy, UpstreamOverrides } from '../support/proxy.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { answers, ask, COALESCE, FRESH, get, HTTP, landed, post, RULE, sent, silent, twins } from '../support/twins.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type RawUpstream } from '../support/upstream.ts';

/** An upstream that numbers its answers and gives them these fields. */
async function numbered(rig: Rig, fields: (n: number) => string): Promise<RawUpstream> {
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    connection.send(answer(`answer ${upstream.requests.length}`, fields(upstream.requests.length)));
  });
  return upstream;
}

const garbage = [
  '=',
  '"',
  'max-age',
  'max-age=',
  'max-age=-1',
  'max-age=1.5',
  'max-age=0x10',
  'max-age=60 60',
  'max-age="60',
  'max-age=60, max-age=10',
  'max-age=\u00ff60',
  'public max-age=60',
  'max-age=60; public',
  'private="',
  'private=x y, max-age=60',
  'no-cache="set-cookie, max-age=60',
  ',,,=,;,',
  'max-age=60,\u0080\u0081',
  `${'x'.repeat(10_000)}="`,
  ','.repeat(10_000),
  'max-age=60, @=1',
];

e2e('garbage in Cache-Control is never taken for a permission', async (t, rig) => {
  let fields = '';
  const upstream = await numbered(rig, () => fields);
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  for (const [n, value] of garbage.entries()) {
    fields = `cache-control: ${value}\r\n`;
    const shown = JSON.stringify(value.slice(0, 40));
    const first = await ask(rig, proxy, get(`/ai/${n}`));
    t.equal(first.status, 200, shown);
    t.equal(first.get('cache-control'), value.trim(), `${shown} reaches the client as it is`);
    const before = upstream.requests.length;
    await ask(rig, proxy, get(`/ai/${n}`));
    t.equal(upstream.requests.length, before + 1, `${shown}: a miss`);
  }
  t.match(proxy.upstream().cache, { hits: 0, entries: 0 });
});

e2e('garbage in Age, Expires and Date never makes an answer fresh', async (t, rig) => {
  let fields = '';
  const upstream = await numbered(rig, () => fields);
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  for (const [n, lines] of [
    `${FRESH}age: x\r\n`,
    `${FRESH}age: -1\r\n`,
    `${FRESH}age: 1\r\nage: 2\r\n`,
    `${FRESH}age: 99999999999999999999\r\n`,
    'expires: soon\r\n',
    'expires: Thu, 32 Foo 2099 25:61:61 GMT\r\n',
    'expires: 99999999999\r\n',
    'expires: Fri, 01 Jan 2100 00:00:00 GMT\r\nexpires: Fri, 01 Jan 2101 00:00:00 GMT\r\n',
  ].entries()) {
    fields = lines;
    await ask(rig, proxy, get(`/ai/${n}`));
    const before = upstream.requests.length;
    await ask(rig, proxy, get(`/ai/${n}`));
    t.equal(upstream.requests.length, before + 1, JSON.stringify(lines));
  }
});

e2e('garbage in the request’s Cache-Control asks the upstream', async (t, rig) => {
  const upstream = await numbered(rig, () => FRESH);
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  await ask(rig, proxy, get('/ai/x'));
  for (const value of ['max-age=x', '"', '=', 'max-age="1', 'min-fresh=-5', 'max-stale=1e9', `${','.repeat(5000)}"`]) {
    const before = upstream.requests.length;
    t.equal((await ask(rig, proxy, get('/ai/x', `cache-control: ${value}\r\n`))).status, 200);
    t.equal(upstream.requests.length, before + 1, value.slice(0, 20));
  }
});

for (const [name, config] of [
  ['http', HTTP],
  ['rule', RULE],
  ['coalesce alone', COALESCE],
] as const) {
  e2e(`a Vary of 200 fields is neither stored nor shared: ${name}`, async (t, rig) => {
    const vary = Array.from({ length: 200 }, (_, i) => `x-field-${i}`).join(', ');
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, ...config });
    const clients = await twins(rig, proxy, 4, (i) => get('/ai/x', `x-field-199: ${i}\r\n`));
    const reply = (n: number) => upstream.requests[n]!.connection.send(answer(`for ${n}`, `${FRESH}vary: ${vary}\r\n`));
    await upstream.request(0);
    reply(0);
    await until('each asks for itself', () => upstream.requests.length === 4);
    for (const n of [1, 2, 3]) reply(n);
    const bodies = (await answers(clients)).map((got) => got.body.toString());
    t.equal(new Set(bodies).size, 4);
    t.equal(proxy.upstream().cache!.entries, 0);
    await landed(proxy);
  });
}

e2e('1000 variants of one key: each gets its own, few are kept', async (t, rig) => {
  const upstream = await rig.upstream((request, connection) =>
    connection.send(answer(`for ${request.get('x-v')}`, `${FRESH}vary: x-v\r\n`)),
  );
  const proxy = await rig.one({ url: upstream.url, ...HTTP }, { cache: { maxVariants: 8 } });
  const client = await rig.client(proxy);
  let wrong = 0;
  for (let i = 0; i < 1000; i++) {
    client.send(get('/ai/x', `x-v: ${i}\r\n`));
    const got = await client.answer();
    if (got.body.toString() !== `for ${i}`) wrong++;
  }
  t.equal(wrong, 0);
  t.match(proxy.upstream().cache, { entries: 8, evicted: 992, hits: 0 });
  for (const i of [999, 992]) {
    client.send(get('/ai/x', `x-v: ${i}\r\n`));
    const got = await client.answer();
    t.equal(got.body.toString(), `for ${i}`);
    t.match(got.get('cache-status'), /^aiproxy; hit/, `${i} is among the last`);
  }
});

for (const config of [HTTP, RULE, COALESCE]) {
  e2e(
    `5 GB with max-age: never held, and cut off when the client leaves: ${JSON.stringify(config)}`,
    async (t, rig) => {
      const upstream = await rig.upstream(silent);
      const bufferBytes = 512 << 10;
      const proxy = await rig.one({ url: upstream.url, ...config }, { flights: { bufferBytes } });
      const clients = await twins(rig, proxy, 3, get('/ai/x'));
      const { connection } = await upstream.request(0);
      connection.send(`HTTP/1.1 200 OK\r\n${FRESH}content-length: 5000000000\r\n\r\n`);
      const heads = await Promise.all(clients.map((client) => client.head()));
      for (const { text } of heads) t.notMatch(text, '; stored');
      let most = 0;
      let written = 0;
      const piece = Buffer.alloc(256 << 10);
      while (written < 6 << 20) {
        written += piece.length;
        connection.send(piece);
        await until('everybody has it', () => {
          most = Math.max(most, proxy.stats().cache.flight_memory_bytes);
          return clients.every((client) => client.received.reduce((sum, { length }) => sum + length, 0) >= written);
        });
      }
      t.ok(most < bufferBytes + (512 << 10), `${most} bytes were held`);
      t.equal(proxy.stats().cache.flight_memory_bytes, 0, 'nothing is, when all have everything');
      for (const client of clients) client.reset();
      await until('the upstream is cut off', () => connection.left, 500);
      await landed(proxy);
      t.match(proxy.upstream().cache, { entries: 0, bytes: 0, stores: 0 });
    },
  );
}

e2e('ten thousand keys in a burst stay within max_bytes', async (t, rig) => {
  const maxBytes = 1 << 20;
  const upstream = await rig.upstream((request, connection) =>
    connection.send(answer(`at ${request.target} ${'x'.repeat(500)}`, FRESH)),
  );
  const proxy = await rig.one({ url: upstream.url, ...HTTP }, { cache: { maxBytes } });
  const KEYS = 10_000;
  const CLIENTS = 20;
  const BATCH = 10;
  let most = 0;
  let wrong = 0;
  await Promise.all(
    Array.from({ length: CLIENTS }, async (_, c) => {
      const client = await rig.client(proxy);
      for (let i = c; i < KEYS; i += CLIENTS * BATCH) {
        const batch = Array.from({ length: BATCH }, (_, n) => i + n * CLIENTS);
        client.send(batch.map((key) => get(`/ai/${key}`)).join(''));
        for (const key of batch) {
          const got = await client.answer();
          if (!got.body.toString().startsWith(`at /${key} `)) wrong++;
        }
        client.received.length = 0;
        most = Math.max(most, proxy.stats().cache.bytes);
      }
    }),
  );
  t.equal(wrong, 0);
  const cache = proxy.upstream().cache!;
  t.ok(most <= maxBytes, `${most}`);
  t.ok(cache.bytes <= maxBytes && cache.bytes > maxBytes / 2);
  t.equal(cache.stores, KEYS);
  t.equal(cache.evicted, KEYS - cache.entries);
  const last = await ask(rig, proxy, get(`/ai/${KEYS - 1}`));
  t.match(last.get('cache-status'), /^aiproxy; hit/);
  await landed(proxy);
});

e2e(
  'an upstream that sends less than its Content-Length is cut, more is not believed: never stored',
  async (t, rig) => {
    const upstream = await rig.upstream((request, connection) => {
      const declared = request.target === '/less' ? 100 : 5;
      connection.send(`HTTP/1.1 200 OK\r\n${FRESH}content-length: ${declared}\r\n\r\n0123456789`);
      if (request.target === '/less') connection.end();
    });
    const proxy = await rig.one({ url: upstream.url, ...HTTP });
    for (let i = 0; i < 2; i++) {
      const less = await ask(rig, proxy, get('/ai/less'));
      t.equal(less.ending, 'reset');
      t.equal(upstream.requests.length, i + 1);
    }
    t.equal(proxy.upstream().cache!.entries, 0);
    const more = await ask(rig, proxy, get('/ai/more'));
    t.equal(more.body.toString(), '01234', 'the declared bytes are the answer');
    t.equal((await ask(rig, proxy, get('/ai/more'))).body.toString(), '01234');
  },
);

e2e('two lengths, or a length and chunks, are refused and never stored', async (t, rig) => {
  for (const framing of [
    'content-length: 2\r\ncontent-length: 3\r\n',
    'content-length: 2\r\ntransfer-encoding: chunked\r\n',
  ]) {
    const upstream = await rig.upstream((_request, connection) =>
      connection.send(`HTTP/1.1 200 OK\r\n${FRESH}${framing}\r\n2\r\nok\r\n0\r\n\r\n`),
    );
    const proxy = await rig.one({ url: upstream.url, ...HTTP });
    const clients = await twins(rig, proxy, 3, get('/ai/x'));
    for (const got of await answers(clients)) t.equal(got.code, 'upstream_protocol_error');
    t.equal(proxy.upstream().cache!.entries, 0);
  }
});

e2e('an answer that ends with the connection is passed on but never stored', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`HTTP/1.1 200 OK\r\n${FRESH}\r\nuntil the end`).end();
  });
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  for (let i = 1; i <= 2; i++) {
    const got = await ask(rig, proxy, get('/ai/x'));
    t.same([got.body.toString(), got.ending], ['until the end', 'clean']);
    t.equal(upstream.requests.length, i);
  }
  t.equal(proxy.upstream().cache!.entries, 0);
});

const etags: [name: string, etag: string, isOne: boolean][] = [
  ['a bare CR', '"a\rx-injected: 1"', false],
  ['a NUL', '"a\u0000b"', false],
  ['quotes within', '"a"b"', false],
  ['no quotes', 'a', false],
  ['a list', '"a", "b"', false],
  ['a second line by obs-fold', '"a"\r\n x-injected: 1', false],
  ['a blank', '"a b"', false],
  ['bytes beyond ASCII', '"\u00e4\u00ff"', true],
  ['a weak one', 'W/"a,b"', true],
];

e2e('an ETag never injects anything into a later request', async (t, rig) => {
  for (const [name, etag, isOne] of etags) {
    const upstream = await numbered(rig, () => `cache-control: max-age=1\r\netag: ${etag}\r\n`);
    const clock = { now: Date.now() };
    const proxy = await rig.proxy({ upstreams: { ai: { url: upstream.url, ...HTTP } } }, () => clock.now);
    await ask(rig, proxy, get('/ai/x'));
    clock.now += 5000;
    const second = await ask(rig, proxy, get('/ai/x'));
    t.ok(second.status === 200 || second.code === 'upstream_protocol_error', name);
    t.equal(upstream.requests.length, 2);
    const again = upstream.requests[1]!;
    t.equal(again.get('x-injected'), undefined, name);
    t.equal(again.get('if-none-match'), isOne ? etag : undefined, name);
  }
});

e2e('an ETag of 20 kB is stored with its answer, counted, and no trap for later requests', async (t, rig) => {
  const etag = `"${'e'.repeat(20_000)}"`;
  // As node:http and nginx do by default.
  const upstream = await rig.upstream((request, connection) => {
    if (request.text.length > 16_000) connection.send(answer('', '', '431 Request Header Fields Too Large'));
    else
      connection.send(answer(`answer ${upstream.requests.length}`, `cache-control: max-age=10\r\netag: ${etag}\r\n`));
  });
  const clock = { now: Date.now() };
  const proxy = await rig.proxy({ upstreams: { ai: { url: upstream.url, ...HTTP } } }, () => clock.now);
  const first = await ask(rig, proxy, get('/ai/x'));
  t.equal(first.get('etag'), etag);
  t.equal((await ask(rig, proxy, get('/ai/x'))).get('etag'), etag, 'a hit');
  t.ok(proxy.stats().cache.bytes > 20_000);
  t.equal((await ask(rig, proxy, get('/ai/x', `if-none-match: ${etag}\r\n`))).status, 304);
  clock.now += 20_000;
  const later = await ask(rig, proxy, get('/ai/x'));
  t.equal(later.status, 200, 'a stale answer that cannot be asked about is fetched anew');
  t.equal(later.body.toString(), `answer ${upstream.requests.length}`);
});

e2e('one byte per chunk: what is held counts with its bookkeeping, and the whole answer arrives', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...RULE }, { flights: { memoryBytes: 2 << 20 } });
  const clients = await twins(rig, proxy, 2, get('/ai/x'));
  const { connection } = await upstream.request(0);
  const whole = Array.from({ length: 50_000 }, (_, i) => String(i % 10)).join('');
  let most = 0;
  connection.send(chunkedHead() + [...whole].map(chunk).join('') + LAST_CHUNK);
  let over = false;
  const all = answers(clients).finally(() => {
    over = true;
  });
  await until('it is over', () => {
    most = Math.max(most, proxy.stats().cache.flight_memory_bytes);
    return over;
  });
  for (const got of await all) t.ok(got.body.toString() === whole && got.ending === 'clean');
  t.ok(most <= 5 << 20, `${most} bytes`);
  t.equal(proxy.upstream().cache!.stores, 0, '50 000 pieces are more than 2 MB');
  await landed(proxy);
});

e2e('a fetch of interim answers, 204 and an empty body is shared and stored', async (t, rig) => {
  for (const status of ['204 No Content', '200 OK']) {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, ...HTTP });
    const clients = await twins(rig, proxy, 3, get('/ai/x'));
    const { connection } = await upstream.request(0);
    connection.send('HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n');
    t.equal(
      (await clients[0]!.head()).status,
      103,
      'for the one whose request it is; the others may not be to have its answer',
    );
    connection.send(
      `HTTP/1.1 ${status}\r\n${FRESH}${status.startsWith('2') && status[2] === '0' ? 'content-length: 0\r\n' : ''}\r\n`,
    );
    for (const got of await answers(clients)) t.same([got.status, got.body.length], [Number(status.slice(0, 3)), 0]);
    const hit = await ask(rig, proxy, get('/ai/x'));
    t.match(hit.get('cache-status'), /^aiproxy; hit/);
    t.same([hit.status, hit.body.length, hit.ending], [Number(status.slice(0, 3)), 0, 'clean']);
    t.equal(upstream.requests.length, 1);
  }
});

e2e('strange bodies of requests are keys like others, or none', async (t, rig) => {
  const upstream = await numbered(rig, () => '');
  const proxy = await rig.one({ url: upstream.url, ...RULE });
  const deep = `${'['.repeat(5000)}${']'.repeat(5000)}`;
  const bodies = [
    '{',
    '{"a":',
    '\u00ff\u00fe',
    '[]]',
    '{"a":1}x',
    '\ufeff{}'.replace('\ufeff', '\u00ef\u00bb\u00bf'),
    deep,
    `"${'x'.repeat(100_000)}"`,
    '""',
    '0',
  ];
  for (const body of bodies) {
    const text = `POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
    const before = upstream.requests.length;
    t.equal((await ask(rig, proxy, text)).status, 200, JSON.stringify(body.slice(0, 20)));
    t.equal(upstream.requests.length, before + 1);
    await ask(rig, proxy, text);
    t.equal(upstream.requests.length, before + 1, 'the very same bytes hit');
  }
});

e2e('a proxy without Redis never looks for one', async (t, rig) => {
  const upstream = await numbered(rig, () => FRESH);
  let connections = 0;
  const redis = await rig.upstream(silent, { onConnection: () => connections++ });
  const before = { ...process.env };
  process.env.REDIS_URL = `redis://127.0.0.1:${redis.port}`;
  try {
    const proxy: TestProxy = await rig.one({ url: upstream.url, ...HTTP } satisfies UpstreamOverrides);
    await ask(rig, proxy, get('/ai/x'));
    await ask(rig, proxy, get('/ai/x'));
    await ask(rig, proxy, post('/ai/x', '{}'));
    t.equal(proxy.stats().cache.redis, null);
    t.equal(proxy.stats().cache.hits, 1);
    await proxy.stop();
    t.equal(connections, 0);
  } finally {
    process.env = before;
  }
});

e2e('requests and answers of random bytes around the cache take nothing down', async (t, rig) => {
  const upstream = await rig.upstream((request, connection) => {
    const n = Number(request.target.slice(1).split('?')[0]);
    const fields = [
      `cache-control: ${garbage[n % garbage.length]}`,
      FRESH.trim(),
      'vary: ,,x,',
      'etag: W/"',
      'expires: 0',
      'age: ,',
    ];
    const some = fields.filter((_, i) => (n >> i) & 1);
    connection.send(answer(`at ${request.target}`, some.map((field) => `${field}\r\n`).join('')));
  });
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  const asking = [
    'if-none-match: ,"',
    'if-modified-since: x',
    'range: bytes=5-1',
    'if-range: "',
    'cache-control: =',
    'pragma: "',
  ];
  let wrong = 0;
  const client = await rig.client(proxy);
  for (let i = 0; i < 600; i++) {
    const n = i % 64;
    const some = asking.filter((_, bit) => ((i * 7) >> bit) & 1);
    client.send(get(`/ai/${n}`, some.map((field) => `${field}\r\n`).join('')));
    const got = await client.answer();
    if (got.status === 200 && got.body.toString() !== `at /${n}`) wrong++;
    if (![200, 206, 304, 416].includes(got.status)) wrong++;
  }
  t.equal(wrong, 0);
  const other = connect(proxy.port, '127.0.0.1');
  rig.closes({ close: async () => void other.destroy() });
  const last = await sent(rig, proxy, get('/ai/0'));
  t.equal((await last.answer()).body.toString(), 'at /0');
  other.destroy();
});

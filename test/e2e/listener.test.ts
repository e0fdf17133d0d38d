// The listener on real sockets: where a connection ends, what of an answer survives its end, and how answers are framed anew.

import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

e2e(
  'nothing behind a last request reaches an upstream, also when its answer is a refusal at the end of its body',
  async (t, rig) => {
    const upstream = await rig.upstream();
    const proxy = await rig.proxy({
      limiters: { narrow: { maxConcurrent: 1, maxQueue: 0 } },
      upstreams: { ai: { url: upstream.url, limiter: 'narrow' }, bb: { url: upstream.url } },
    });
    upstream.script = () => {}; // holds the only permit
    await rig.sent(proxy, '/ai/long');
    await until('the permit is taken', () => upstream.requests.length === 1);
    const behind = 'GET /bb/behind HTTP/1.1\r\nhost: a\r\n\r\n';
    for (const [framing, body] of [
      ['content-length: 5', 'hello'],
      ['transfer-encoding: chunked', `5\r\nhello\r\n${LAST_CHUNK}`],
    ] as const) {
      const client = await rig.client(proxy);
      client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n${framing}\r\n\r\n${body}${behind}`);
      const got = await client.answer();
      t.equal(got.code, 'queue_full');
      t.equal(await client.ended(), 'fin');
      client.send(behind);
    }
    t.equal(await rig.ask(proxy, '/healthz').then(({ status }) => status), 200);
    t.same(
      upstream.requests.map(({ target }) => target),
      ['/long'],
    );
  },
);

e2e(
  'a client that writes all of a large body before it reads gets the early answer, and a FIN behind it',
  async (t, rig) => {
    const upstream = await rig.upstream();
    const proxy = await rig.one({ url: upstream.url });
    for (const headers of ['', 'connection: close\r\n']) {
      const client = await rig.client(proxy);
      client.pause();
      client.send(`POST /nobody/x HTTP/1.1\r\nhost: a\r\n${headers}content-length: ${12 << 20}\r\n\r\n`);
      await new Promise((resolve) => client.socket.write(Buffer.alloc(12 << 20), resolve));
      client.resume();
      const got = await client.answer();
      t.equal(got.code, 'unknown_upstream');
      t.equal(got.ending, 'clean');
      t.equal(await client.ended(), 'fin');
      client.halfClose();
    }
    t.equal(upstream.requests.length, 0);
  },
);

/** Of a 404 of ours, head and body, at least. */
const ANSWER_BYTES = 400;

e2e('a client that asks and asks and never reads is cut off before its answers fill the memory', async (t, rig) => {
  const proxy = await rig.one({ url: 'http://127.0.0.1:1' });
  const client = await rig.client(proxy);
  client.pause();
  const many = 'GET /nobody/x HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(1000);
  for (let i = 0; i < 400 && proxy.stats().listener.connections > 0; i++) {
    client.send(many);
    await new Promise(setImmediate);
  }
  await until('it is cut off', () => proxy.stats().listener.connections === 0);
  // Counted, because RSS also holds what this process sends as the client, and swings by 15 MB: of 400 000 answers (240 MB) hardly any are made.
  const { requests } = proxy.stats().listener;
  t.ok(requests > 0 && requests * ANSWER_BYTES < 16 << 20, `${requests} answers`);
});

e2e(
  'a body of one-byte chunks arrives whole, and costs neither its weight in Buffers nor a held-up loop',
  async (t, rig) => {
    const upstream = await rig.upstream();
    const proxy = await rig.one({ url: upstream.url });
    const text = Array.from({ length: 250_000 }, (_, i) => String.fromCharCode(97 + (i % 26))).join('');
    const client = await rig.client(proxy);
    const before = performance.now();
    client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n');
    client.send(`${text.replace(/./g, (c) => `1\r\n${c}\r\n`)}${LAST_CHUNK}`);
    t.equal((await client.answer()).status, 200);
    t.ok(performance.now() - before < 3000, 'shifting 250 000 Buffers out of an array took longer');
    t.equal(upstream.requests[0]!.body.toString(), text);
    t.equal(upstream.requests[0]!.get('content-length'), '250000');
  },
);

/** An answer of the upstream, and what is left of it for the client: fields and body; null = a 502. */
const FRAMES: Record<string, [sent: string, body: string | null, fields?: Record<string, string | undefined>]> = {
  'a declared length': [answer('hello'), 'hello', { 'content-length': '5', 'transfer-encoding': undefined }],
  chunks: [
    `${chunkedHead()}${chunk('hel')}${chunk('lo')}${LAST_CHUNK}`,
    'hello',
    { 'content-length': undefined, 'transfer-encoding': 'chunked' },
  ],
  'chunks with extensions and trailers': [
    `${chunkedHead()}5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n`,
    'hello',
    { 'x-sum': undefined },
  ],
  'a length that Connection names': [
    answer('hello', 'Connection: Content-Length, X-Hop\r\nX-Hop: 1\r\n'),
    'hello',
    { 'content-length': undefined, 'transfer-encoding': 'chunked', 'x-hop': undefined },
  ],
  'chunks, then a length': [
    'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
    null,
  ],
  'a list of equal lengths': ['HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello', null],
  'a length twice': ['HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello', null],
  'a signed length': ['HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello', null],
  'an empty length': ['HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n', null],
  'a space before the colon': ['HTTP/1.1 200 OK\r\ncontent-length : 5\r\n\r\nhello', null],
  'a reason in UTF-8': [answer('hello', '', '200 \xe6\x88\x90\xe5\x8a\x9f'), 'hello'],
  'a reason in latin1': [answer('hello', '', '200 d\xe9j\xe0'), 'hello'],
  'no reason': [answer('hello', '', '200'), 'hello'],
};

e2e('whatever frames an answer, the client gets one framing, ours or the same, or a 502', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  for (const [name, [sent, body, fields = {}]] of Object.entries(FRAMES)) {
    upstream.script = (_request, connection) => connection.send(sent);
    const client = await rig.sent(proxy, '/ai/x');
    const got = await client.answer();
    t.equal(got.status, body === null ? 502 : 200, `${name}: ${got.text}`);
    if (body !== null) {
      t.equal(got.reason, 'OK', name);
      t.equal(got.body.toString(), body, name);
    }
    t.equal(got.all('content-length').length + got.all('transfer-encoding').length, 1, `${name}: framed once`);
    for (const [field, value] of Object.entries(fields)) t.equal(got.get(field), value, `${name}: ${field}`);
    // The connection is in step: the next answer on it is the next answer.
    upstream.script = (_request, connection) => connection.send(answer('next'));
    client.send('GET /ai/y HTTP/1.1\r\nhost: a\r\n\r\n');
    t.equal((await client.answer()).body.toString(), 'next', name);
  }
});

e2e('an HTTP/1.0 client gets an answer of unknown length up to the FIN, and no coding', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  for (const end of ['chunked', 'closed']) {
    upstream.script = (_request, connection) => {
      if (end === 'chunked') connection.send(`${chunkedHead()}${chunk('hello')}${LAST_CHUNK}`);
      else connection.send('HTTP/1.1 200 OK\r\n\r\nhello').end();
    };
    const client = await rig.client(proxy);
    client.send('GET /ai/x HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET /ai/behind HTTP/1.0\r\n\r\n');
    const got = await client.answer();
    t.equal(got.body.toString(), 'hello');
    t.equal(got.get('connection'), 'close');
    t.equal(got.get('transfer-encoding'), undefined);
    t.equal(got.get('keep-alive'), undefined);
    t.equal(await client.ended(), 'fin');
  }
  t.notOk(upstream.requests.some(({ target }) => target === '/behind'));
});

e2e('an answer with a body that may have none leaves the connection in step', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  const heads: Record<string, string> = {
    '204 with a length': 'HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello',
    '204 with chunks': 'HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
    '304 with a length': 'HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello',
    '304 with chunks': 'HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
  };
  for (const [name, bytes] of Object.entries(heads)) {
    upstream.script = (_request, connection) => connection.send(bytes);
    const client = await rig.sent(proxy, '/ai/x');
    const got = await client.answer();
    t.equal(got.get('transfer-encoding'), undefined, name);
    if (got.status === 204) t.equal(got.get('content-length'), undefined, name);
    upstream.script = (_request, connection) => connection.send(answer('next'));
    client.send('GET /ai/y HTTP/1.1\r\nhost: a\r\n\r\n');
    const next = await client.answer();
    t.equal(next.body.toString(), 'next', `${name}: ${client.text}`);
  }
});

e2e('a FIN in the middle of a body reaches no upstream as a whole request', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  for (const bytes of [
    'POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhell',
    'POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n',
    'POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n',
    'GET /ai/x HTTP/1.1\r\nhost: a\r\n',
  ]) {
    const client = await rig.client(proxy);
    client.send(bytes);
    client.halfClose();
    await client.ended();
  }
  t.equal(upstream.requests.length, 0);
});

e2e('an Expect is answered once, before its body is read, and a refusal comes instead of it', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.client(proxy);
  client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n');
  t.equal((await client.head()).status, 100);
  client.send('hello');
  t.equal((await client.answer()).status, 200);
  client.send('POST /nobody/x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n');
  const refused = await client.head();
  t.equal(refused.status, 404, 'no 100 before it');
  // Whether the five bytes come nobody knows: what comes is no request, and the connection ends.
  client.send('GET /ai/behind HTTP/1.1\r\nhost: a\r\n\r\n');
  await client.rest();
  t.equal(await client.ended(), 'fin');
  t.same(
    upstream.requests.map(({ target }) => target),
    ['/x'],
  );
});

// The stats port over real sockets: routes, guards against other hosts and sites, hostile input, start and stop.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import t, { type Test } from 'tap';
import type { PurgeOrder } from '../../src/server/cache-desk.ts';
import { isCrossSite, isHostAllowed, isLoopback } from '../../src/server/stats-guard.ts';
import { StatsPort, type StatsSource } from '../../src/server/stats-port.ts';
import { parseExposition } from '../support/exposition-parser.ts';
import { FakeStats } from '../support/fake-stats.ts';

const at = (port: number, host = '127.0.0.1') => ({ host, port, path: '', text: `${host}:${port}` });

async function serve(
  t: Test,
  { allowed = ['stats.internal'], source = new FakeStats() as StatsSource, host = '127.0.0.1' } = {},
) {
  const errors: unknown[] = [];
  const statsPort = new StatsPort(source, allowed, (error) => errors.push(error));
  const { port } = await statsPort.start(at(0, host));
  t.teardown(() => statsPort.stop());
  return { port, url: `http://127.0.0.1:${port}`, errors, statsPort };
}

/** Sends text as it stands and reads until the server closes. */
async function raw(port: number, text: string, host = '127.0.0.1'): Promise<string> {
  const socket = connect(port, host);
  socket.on('error', () => {}); // a reset after the answer is the server's good right
  socket.write(text, 'latin1');
  return everything(socket);
}

async function everything(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  await once(socket, 'close');
  return text;
}

const get = (path: string, host: string) => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
const statusOf = (answer: string) => Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1]);
const errorOf = (answer: string) => JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4)).error;

t.test('every path answers with its own type, and nothing may be stored, framed or sniffed', async (t) => {
  const { url } = await serve(t);
  const types: Record<string, string> = {
    '/': 'text/html; charset=utf-8',
    '/dashboard.js': 'text/javascript; charset=utf-8',
    '/dashboard.css': 'text/css; charset=utf-8',
    '/dashboard.svg': 'image/svg+xml',
    '/stats': 'application/json; charset=utf-8',
    '/metrics': 'text/plain; version=0.0.4; charset=utf-8',
    '/healthz': 'text/plain; charset=utf-8',
    '/readyz': 'text/plain; charset=utf-8',
    '/config': 'application/json; charset=utf-8',
  };
  for (const [path, type] of Object.entries(types)) {
    const answer = await fetch(`${url}${path}?any=query&//`);
    t.equal(answer.status, 200, path);
    t.equal(answer.headers.get('content-type'), type, path);
    t.equal(answer.headers.get('cache-control'), 'no-store', path);
    t.equal(answer.headers.get('x-content-type-options'), 'nosniff', path);
    t.equal(answer.headers.get('x-frame-options'), 'DENY', path);
    t.match(answer.headers.get('content-security-policy'), /^default-src 'none';/, path);
    t.notMatch(answer.headers.get('content-security-policy'), /unsafe/, path);
    const body = await answer.text();
    t.equal(Number(answer.headers.get('content-length')), Buffer.byteLength(body), path);
  }
});

t.test('the numbers are those of the source, and the metrics hold for a scraper', async (t) => {
  const { url } = await serve(t);
  const stats = (await (await fetch(`${url}/stats`)).json()) as { limiters: { ai: { max_concurrent: number } } };
  t.equal(stats.limiters.ai.max_concurrent, 100);
  t.ok(parseExposition(await (await fetch(`${url}/metrics`)).text()).has('aiproxy_requests_total'));
  t.match(await (await fetch(`${url}/config`)).text(), '[redacted]');
});

t.test('HEAD works like GET, without the body', async (t) => {
  const { port } = await serve(t);
  const answer = await raw(port, `HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
  t.equal(statusOf(answer), 200);
  t.match(answer, /content-length: 3\r\n/i);
  t.ok(answer.endsWith('\r\n\r\n'));
});

t.test('a POST to /drain from this machine drains once asked, and only then readyz turns 503', async (t) => {
  const source = new FakeStats();
  const { url } = await serve(t, { source });
  t.equal((await fetch(`${url}/readyz`)).status, 200);
  const answer = await fetch(`${url}/drain`, { method: 'POST', body: 'ignored' });
  t.equal(answer.status, 202);
  t.strictSame(await answer.json(), { draining: true });
  t.equal(source.drains, 1);
  const readiness = await fetch(`${url}/readyz`);
  t.equal(readiness.status, 503);
  t.match(await readiness.json(), { error: { code: 'draining', type: 'aiproxy_error', param: null } });
  t.equal((await fetch(`${url}/healthz`)).status, 200, 'draining is alive');
});

t.test('before it takes requests readyz says starting, not draining', async (t) => {
  const source = new FakeStats();
  source.ready = () => false;
  const { url } = await serve(t, { source });
  const answer = await fetch(`${url}/readyz`);
  t.equal(answer.status, 503);
  t.match(await answer.json(), { error: { code: 'starting' } });
});

t.test('the wrong method is refused with Allow and changes nothing', async (t) => {
  const source = new FakeStats();
  const { url, port } = await serve(t, { source });
  for (const method of ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']) {
    const answer = await fetch(`${url}/drain`, { method });
    t.equal(answer.status, 405, method);
    t.equal(answer.headers.get('allow'), 'POST', method);
  }
  const answer = await fetch(`${url}/stats`, { method: 'POST' });
  t.equal(answer.status, 405);
  t.equal(answer.headers.get('allow'), 'GET, HEAD');
  t.match(await answer.json(), { error: { code: 'method_not_allowed', message: 'this path takes GET, HEAD' } });
  t.equal(statusOf(await raw(port, 'BREW /stats HTTP/1.1\r\nHost: localhost\r\n\r\n')), 400);
  t.equal(source.drains, 0);
});

t.test('an unknown path lists those there are', async (t) => {
  const { port } = await serve(t);
  for (const path of [
    '/nope',
    '//',
    '//stats',
    '/stats/',
    '/./stats',
    '/%73tats',
    'http://127.0.0.1/stats',
    '/__proto__',
  ]) {
    const answer = await raw(port, get(path, 'localhost'));
    t.equal(statusOf(answer), 404, path);
    t.match(errorOf(answer).message, /\/stats, \/metrics, .*POST \/drain/, path);
  }
});

t.test('the Host header must be an IP, localhost or an allowed name', async (t) => {
  const { port } = await serve(t, { allowed: ['Stats.Internal', 'pinned.example:9090'] });
  const good = [
    '127.0.0.1',
    '10.2.3.4:9090',
    '[::1]',
    '[fd00::1]:9090',
    'localhost',
    'LOCALHOST:1',
    'stats.internal',
    'STATS.internal:80',
  ];
  for (const host of [...good, 'pinned.example:9090']) {
    t.equal(statusOf(await raw(port, get('/healthz', host))), 200, host);
  }
  const bad = [
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.nip.io',
    'pinned.example',
    'pinned.example:1',
    '::1',
    '[::1',
    '[localhost]',
  ];
  for (const host of [
    ...bad,
    '',
    'a@localhost',
    'localhost/x',
    'localhost, evil.example',
    '127.1',
    '0x7f000001',
    'localhost:abc',
  ]) {
    const answer = await raw(port, get('/healthz', host));
    t.equal(statusOf(answer), 403, host);
    t.match(errorOf(answer), { code: 'host_not_allowed', message: /allowed_hosts/ }, host);
  }
  const twice = 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n';
  t.equal(statusOf(await raw(port, twice)), 403, 'two of them');
  t.equal(statusOf(await raw(port, 'GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n')), 403, 'none');
});

t.test('a page of another site cannot drain', async (t) => {
  const source = new FakeStats();
  const { url } = await serve(t, { source });
  const post = (headers: Record<string, string>) => fetch(`${url}/drain`, { method: 'POST', headers });
  for (const headers of [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: 'http://127.0.0.1:3000' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
  ] as Record<string, string>[]) {
    const answer = await post(headers);
    t.equal(answer.status, 403, JSON.stringify(headers));
    t.equal(answer.headers.get('x-aiproxy-error'), 'cross_site');
    await answer.body?.cancel();
  }
  t.equal(source.drains, 0);
  t.equal((await post({ origin: url, 'sec-fetch-site': 'same-origin' })).status, 202);
  t.equal(source.drains, 1);
});

t.test('only a loopback peer may change state', async (t) => {
  for (const peer of ['127.0.0.1', '127.8.9.10', '::1', '::ffff:127.0.0.1', '::FFFF:127.0.0.1'])
    t.ok(isLoopback(peer), peer);
  for (const peer of [
    undefined,
    '',
    '10.0.0.1',
    '::',
    '::ffff:10.0.0.1',
    'fe80::1',
    '0.0.0.0',
    '127.0.0.1.evil',
    '2001:db8::127.0.0.1',
  ]) {
    t.notOk(isLoopback(peer), String(peer));
  }
});

const outside = Object.values(networkInterfaces())
  .flat()
  .find((address) => address && !address.internal && address.family === 'IPv4')?.address;
const noOutside = outside ? false : 'this machine has no address besides loopback';

t.test('a peer that is not on loopback may read but not drain', { skip: noOutside }, async (t) => {
  const source = new FakeStats();
  const { port } = await serve(t, { source, host: '0.0.0.0' });
  const post = `POST /drain HTTP/1.1\r\nHost: ${outside}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`;
  const answer = await raw(port, post, outside);
  t.equal(statusOf(answer), 403);
  t.match(errorOf(answer), { code: 'loopback_only' });
  t.equal(source.drains, 0);
  t.equal(statusOf(await raw(port, get('/healthz', outside!), outside)), 200, 'reading is allowed');
});

t.test('the guards as functions', async (t) => {
  t.ok(isHostAllowed('a.b', new Set(['a.b'])));
  t.notOk(isHostAllowed(undefined, new Set()));
  t.notOk(isCrossSite(undefined, undefined, 'localhost'));
  t.notOk(
    isCrossSite('https://stats.internal', undefined, 'Stats.Internal:443'),
    'behind TLS the default port is no difference',
  );
  t.ok(isCrossSite('http://localhost:1', undefined, 'localhost:2'));
  t.ok(isCrossSite('garbage', 'same-origin', 'localhost'));
});

t.test('hostile heads are refused in the error shape and the port lives on', async (t) => {
  const { port, url } = await serve(t);
  const huge = await raw(port, `GET /stats HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`);
  t.equal(statusOf(huge), 431);
  t.equal(errorOf(huge).code, 'head_too_large');
  for (const text of [
    '\x16\x03\x01\x02\x00\x01\r\n\r\n',
    'GET / HTTP/9.9\r\n\r\n',
    'GET / HTTP/1.1\r\nA : b\r\n\r\n',
  ]) {
    const answer = await raw(port, text);
    t.equal(statusOf(answer), 400, JSON.stringify(text));
    t.equal(errorOf(answer).code, 'malformed_request');
  }
  t.equal(await raw(port, 'CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n'), '', 'no tunnel');
  t.equal((await fetch(`${url}/healthz`)).status, 200);
});

const post = (path: string, body: string, more = '') =>
  `POST ${path} HTTP/1.1\r\nHost: localhost\r\n${more}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
const CLOSE = 'Connection: close\r\n';
const QUESTION = JSON.stringify({ url: '/openai/v1/models' });

t.test('DELETE /cache hands on what is to go, and says how much went', async (t) => {
  const source = new FakeStats();
  const { url } = await serve(t, { source });
  const nothing = { upstream: null, prefix: null, key: null };
  const orders: [string, PurgeOrder][] = [
    ['', nothing],
    ['?', nothing],
    ['?upstream=openai', { ...nothing, upstream: 'openai' }],
    ['?prefix=/v1/a%20b%26c', { ...nothing, prefix: '/v1/a b&c' }],
    ['?key=a-_9', { ...nothing, key: 'a-_9' }],
    ['?upstream=a&prefix=/&key=', { upstream: 'a', prefix: '/', key: '' }],
  ];
  for (const [query, order] of orders) {
    const answer = await fetch(`${url}/cache${query}`, { method: 'DELETE', body: 'ignored' });
    t.equal(answer.status, 200, query);
    t.strictSame(await answer.json(), { purged: { memory: 12, redis: null } }, query);
    t.strictSame(source.purges.pop(), order, query);
  }
});

t.test('DELETE /cache with a mistake is a 400 and throws nothing out', async (t) => {
  const source = new FakeStats();
  const { url } = await serve(t, { source });
  const mistakes: [string, RegExp][] = [
    ['?upstreams=openai', /unknown parameter; there are upstream, prefix, key/],
    ['?upstream=openai&x', /unknown parameter/],
    ['?Upstream=openai', /unknown parameter/],
    ['?upstream=a&upstream=b', /upstream is given twice/],
    ['?prefix=v1', /starts with \//],
    ['?prefix=', /starts with \//],
    ['?prefix=%68ttp://a', /starts with \//],
    ['?prefix=/v1%3Fx', /has no query/],
  ];
  for (const [query, message] of mistakes) {
    const answer = await fetch(`${url}/cache${query}`, { method: 'DELETE' });
    t.equal(answer.status, 400, query);
    t.match(await answer.json(), { error: { code: 'bad_request', message } }, query);
  }
  t.strictSame(source.purges, []);
});

t.test('the cache is changed and asked by its own method only', async (t) => {
  const source = new FakeStats();
  const { url } = await serve(t, { source });
  for (const [path, method] of [
    ['/cache', 'DELETE'],
    ['/cache/explain', 'POST'],
  ] as const) {
    for (const wrong of ['GET', 'HEAD', 'PUT', 'PATCH', 'OPTIONS', method === 'POST' ? 'DELETE' : 'POST']) {
      const answer = await fetch(`${url}${path}`, { method: wrong });
      t.equal(answer.status, 405, `${wrong} ${path}`);
      t.equal(answer.headers.get('allow'), method);
      await answer.body?.cancel();
    }
  }
  t.strictSame([source.purges, source.explained], [[], []]);
});

t.test('a page of another site can neither purge nor ask', async (t) => {
  const source = new FakeStats();
  const { url } = await serve(t, { source });
  for (const headers of [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
  ] as Record<string, string>[]) {
    for (const [path, method, body] of [
      ['/cache', 'DELETE', null],
      ['/cache/explain', 'POST', QUESTION],
    ] as const) {
      const answer = await fetch(`${url}${path}`, { method, headers, body });
      t.equal(answer.status, 403, `${path} ${JSON.stringify(headers)}`);
      t.equal(answer.headers.get('x-aiproxy-error'), 'cross_site');
      await answer.body?.cancel();
    }
  }
  t.strictSame([source.purges, source.explained], [[], []]);
  const own = { origin: url, 'sec-fetch-site': 'same-origin' };
  t.equal((await fetch(`${url}/cache`, { method: 'DELETE', headers: own })).status, 200);
});

t.test('a peer that is not on loopback can neither purge nor ask', { skip: noOutside }, async (t) => {
  const source = new FakeStats();
  const { port } = await serve(t, { source, host: '0.0.0.0' });
  const head = `HTTP/1.1\r\nHost: ${outside}\r\n${CLOSE}`;
  for (const request of [
    `DELETE /cache ${head}\r\n`,
    `POST /cache/explain ${head}Content-Length: ${QUESTION.length}\r\n\r\n${QUESTION}`,
  ]) {
    const answer = await raw(port, request, outside);
    t.equal(statusOf(answer), 403);
    t.equal(errorOf(answer).code, 'loopback_only');
  }
  t.strictSame([source.purges, source.explained], [[], []]);
});

t.test('POST /cache/explain reads a request and hands it on as it is', async (t) => {
  const source = new FakeStats();
  const { url } = await serve(t, { source });
  const ask = (request: unknown) => fetch(`${url}/cache/explain`, { method: 'POST', body: JSON.stringify(request) });
  const answer = await ask({
    method: 'POST',
    url: '/openai/v1/embeddings?a=1',
    headers: { Accept: 'text/html', 'X-Two': ['1', '2'], __proto__x: '' },
    body: '{"input":"Zürich 東京"}',
  });
  t.equal(answer.status, 200);
  t.equal(answer.headers.get('content-type'), 'application/json; charset=utf-8');
  t.match(await answer.json(), { verdict: 'miss', policy: 'http' });
  t.strictSame(source.explained.pop(), {
    method: 'POST',
    url: '/openai/v1/embeddings?a=1',
    headers: ['Accept', 'text/html', 'X-Two', '1', 'X-Two', '2', '__proto__x', ''],
    body: Buffer.from('{"input":"Zürich 東京"}'),
  });
  t.equal((await ask({ url: '/openai/x' })).status, 200);
  t.strictSame(source.explained.pop(), { method: 'GET', url: '/openai/x', headers: [], body: null }, 'defaults');
});

t.test('a body that is no request to explain is a 400 with a sentence', async (t) => {
  const source = new FakeStats();
  const { url } = await serve(t, { source });
  const shape = /^(url is missing; )?the body must be JSON such as/;
  const bodies: [string | Buffer, RegExp][] = [
    ['', shape],
    ['{', shape],
    ['null', shape],
    ['1', shape],
    ['"/openai/x"', shape],
    ['[]', shape],
    ['{}', shape],
    ['['.repeat(500_000), shape],
    [Buffer.from([0xff, 0xfe, 0x00]), shape],
    ['{"url":null}', shape],
    ['{"url":["/openai/x"]}', shape],
    ['{"url":"/openai/x","method":""}', /^method must be/],
    ['{"url":"/openai/x","method":"GET /"}', /^method must be/],
    ['{"url":"/openai/x","method":7}', /^method must be/],
    ['{"url":"/openai/x","headers":null}', /^headers must be/],
    ['{"url":"/openai/x","headers":[["a","b"]]}', /^headers must be/],
    ['{"url":"/openai/x","headers":{"a":1}}', /^headers must be/],
    ['{"url":"/openai/x","headers":{"a":["b",null]}}', /^headers must be/],
    ['{"url":"/openai/x","headers":{"a":{}}}', /^headers must be/],
    ['{"url":"/openai/x","body":{}}', /^body must be/],
  ];
  for (const [body, message] of bodies) {
    const answer = await fetch(`${url}/cache/explain`, { method: 'POST', body });
    t.equal(answer.status, 400, JSON.stringify(String(body).slice(0, 60)));
    t.match(
      await answer.json(),
      { error: { code: 'bad_request', message } },
      JSON.stringify(String(body).slice(0, 60)),
    );
  }
  t.strictSame(source.explained, []);
  const unknown = await fetch(`${url}/cache/explain`, { method: 'POST', body: '{"url":"/nobody/x"}' });
  t.equal(unknown.status, 400, 'what the desk says is wrong');
  t.match(await unknown.json(), { error: { message: 'url: no upstream has this name; known are openai' } });
});

t.test('a body to explain may have 1 MiB and not a byte more', async (t) => {
  const source = new FakeStats();
  const { url, port } = await serve(t, { source });
  const frame = JSON.stringify({ url: '/openai/x', body: '' });
  const fill = (bytes: number) => frame.replace('"body":""', `"body":"${'x'.repeat(bytes - frame.length)}"`);
  const whole = await fetch(`${url}/cache/explain`, { method: 'POST', body: fill(1024 * 1024) });
  t.equal(whole.status, 200);
  t.equal(source.explained.pop()?.body?.length, 1024 * 1024 - frame.length);
  const larger = await raw(port, post('/cache/explain', fill(1024 * 1024 + 1), CLOSE));
  t.equal(statusOf(larger), 413);
  t.equal(errorOf(larger).code, 'body_too_large');

  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write('POST /cache/explain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n');
  const began = performance.now();
  const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
  const writing = setInterval(() => socket.write(chunk), 1);
  const endless = await everything(socket);
  clearInterval(writing);
  t.equal(statusOf(endless), 413, 'one that does not end');
  t.equal(endless.match(/HTTP\/1\.1 /g)?.length, 1, 'one answer');
  t.ok(performance.now() - began < 5_000, 'long before the request timeout');
  t.strictSame(source.explained, []);
  t.equal((await fetch(`${url}/healthz`)).status, 200);
});

t.test('a client that leaves in the middle of its body leaves nothing', async (t) => {
  const source = new FakeStats();
  const { url, port, errors, statsPort } = await serve(t, { source });
  const half = post('/cache/explain', QUESTION).slice(0, -10);
  for (const leave of ['reset', 'fin', 'close'] as const) {
    for (let n = 0; n < 20; n++) {
      const socket = connect(port, '127.0.0.1');
      socket.on('error', () => {});
      socket.write(half);
      await once(socket, 'connect');
      await new Promise((resolve) => setTimeout(resolve, n % 4));
      if (leave === 'reset') socket.resetAndDestroy();
      else if (leave === 'fin') socket.resume().end();
      else socket.destroy();
    }
  }
  t.equal((await fetch(`${url}/healthz`, { headers: { connection: 'close' } })).status, 200, 'the port lives');
  t.strictSame(source.explained, [], 'half a body explains nothing');
  t.strictSame(errors, []);
  const began = performance.now();
  await statsPort.stop();
  t.ok(performance.now() - began < 200, 'no connection had to be cut');
});

t.test('a body that does not come is given up after the request timeout', async (t) => {
  const { port } = await serve(t);
  const began = performance.now();
  const answer = await raw(port, post('/cache/explain', QUESTION).slice(0, -10));
  t.equal(statusOf(answer), 408);
  const took = performance.now() - began;
  t.ok(took > 9_000 && took < 14_000, `${took} ms`);
});

t.test('requests with bodies may be pipelined, and a slow one holds the next back', async (t) => {
  const source = new FakeStats();
  const { port } = await serve(t, { source });
  const explain = source.explain.bind(source);
  let waits = 60;
  source.explain = async (request) => {
    await new Promise((resolve) => setTimeout(resolve, (waits -= 20)));
    return explain(request);
  };
  const text =
    post('/cache/explain', QUESTION) +
    get('/healthz', 'localhost').replace(CLOSE, '') +
    post('/cache/explain', '{') +
    post('/cache/explain', '{"url":"/openai/b"}') +
    `DELETE /cache?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n${get('/readyz', 'localhost')}`;
  const socket = connect(port, '127.0.0.1');
  for (let i = 0; i < text.length; i += 100) {
    socket.write(text.slice(i, i + 100));
    await new Promise((resolve) => setImmediate(resolve));
  }
  const answer = await everything(socket);
  t.strictSame(
    [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map((match) => match[1]),
    ['200', '200', '400', '200', '400', '200'],
  );
  t.ok(answer.indexOf('"verdict"') < answer.indexOf('\r\n\r\nok\n'), 'in their order');
  t.strictSame(
    source.explained.map((request) => request.url),
    ['/openai/v1/models', '/openai/b'],
  );
});

t.test('a client with a body that waits for 100 Continue gets it', async (t) => {
  const { port } = await serve(t);
  const socket = connect(port, '127.0.0.1');
  const request = post('/cache/explain', QUESTION, `Expect: 100-continue\r\n${CLOSE}`);
  const head = request.slice(0, request.indexOf('\r\n\r\n') + 4);
  socket.write(head);
  const [first] = await once(socket, 'data');
  t.match(String(first), /^HTTP\/1\.1 100 /);
  socket.write(request.slice(head.length));
  t.match(await everything(socket), /^HTTP\/1\.1 200 /);
});

t.test('a desk that fails is a 500 without details', async (t) => {
  const source = new FakeStats();
  source.explain = async () => {
    throw new Error('secret detail');
  };
  source.purge = () => Promise.reject(new Error('secret detail'));
  const { url, errors } = await serve(t, { source });
  for (const answer of [
    await fetch(`${url}/cache/explain`, { method: 'POST', body: QUESTION }),
    await fetch(`${url}/cache`, { method: 'DELETE' }),
  ]) {
    t.equal(answer.status, 500);
    t.notMatch(await answer.text(), /secret/);
  }
  t.equal(errors.length, 2);
  t.equal((await fetch(`${url}/healthz`)).status, 200);
});

t.test('a head that never ends is cut off', async (t) => {
  const { port } = await serve(t);
  const began = performance.now();
  const answer = await raw(port, 'GET /stats HTTP/1.1\r\nHost: localhost\r\n');
  t.equal(statusOf(answer), 408);
  t.ok(performance.now() - began < 8_000);
});

t.test('a small body is thrown away, a large one ends the connection after the answer', async (t) => {
  const { port } = await serve(t);
  const small = `GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello${get('/readyz', 'localhost')}`;
  t.equal((await raw(port, small)).match(/HTTP\/1\.1 200/g)?.length, 2, 'the connection is kept');

  const began = performance.now();
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write('POST /drain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n');
  const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
  const writing = setInterval(() => socket.write(chunk), 1);
  const answer = await everything(socket);
  clearInterval(writing);
  t.equal(statusOf(answer), 202);
  t.ok(performance.now() - began < 5_000, 'long before the request timeout');
});

t.test('pipelined requests are answered in order', async (t) => {
  const { port } = await serve(t);
  const paths = ['/healthz', '/nope', '/readyz', '/drain'];
  const requests =
    paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`).join('') + get('/healthz', '[::1]');
  const answer = await raw(port, requests);
  t.strictSame(
    [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map((match) => match[1]),
    ['200', '404', '200', '405', '200'],
  );
});

t.test('a client that expects 100 Continue gets the answer at once', async (t) => {
  const { port } = await serve(t);
  const head = 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n';
  t.equal(statusOf(await raw(port, head)), 200);
});

t.test('a source that throws is a 500 without details, told to whoever logs', async (t) => {
  const source = new FakeStats();
  source.metrics = () => {
    throw new Error('secret detail');
  };
  const { url, errors } = await serve(t, { source });
  const answer = await fetch(`${url}/metrics`);
  t.equal(answer.status, 500);
  const text = await answer.text();
  t.equal(JSON.parse(text).error.code, 'internal_error');
  t.notMatch(text, /secret/);
  t.match(errors, [{ message: 'secret detail' }]);
  t.equal((await fetch(`${url}/healthz`)).status, 200);
});

t.test('an address that cannot be had is one clear line', async (t) => {
  const { port } = await serve(t);
  const refused = (host: string, to: number) => new StatsPort(new FakeStats(), []).start(at(to, host));
  await t.rejects(refused('127.0.0.1', port), {
    message: `cannot listen on 127.0.0.1:${port} (stats): the address is in use`,
  });
  await t.rejects(refused('192.0.2.1', 0), {
    message: 'cannot listen on 192.0.2.1:0 (stats): this machine does not have that address',
  });
});

t.test('stop ends idle connections too, and may come before start or twice', async (t) => {
  const statsPort = new StatsPort(new FakeStats(), []);
  await statsPort.stop();
  const { port } = await statsPort.start(at(0));
  const silent = connect(port, '127.0.0.1');
  silent.on('error', () => {});
  const idle = connect(port, '127.0.0.1');
  idle.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await Promise.all([once(silent, 'connect'), once(idle, 'data')]);
  const closed = Promise.all([once(silent.resume(), 'close'), once(idle.resume(), 'close')]);
  await statsPort.stop();
  await closed;
  t.ok(silent.destroyed && idle.destroyed);
  await statsPort.stop();
});

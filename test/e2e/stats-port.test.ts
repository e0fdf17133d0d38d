// The stats port over real sockets: routes, guards against other hosts and sites, hostile input, start and stop.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import t, { type Test } from 'tap';
import { isCrossSite, isHostAllowed, isLoopback } from '../../src/server/stats-guard.ts';
import { StatsPort, type StatsSource } from '../../src/server/stats-port.ts';
import { parseExposition } from '../support/exposition-parser.ts';
import { FakeStats } from '../support/fake-stats.ts';

const at = (port: number, host = '127.0.0.1') => ({ host, port, text: `${host}:${port}` });

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

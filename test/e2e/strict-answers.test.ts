// Answers that two parsers could read in two ways are a 502, at once; and what an answer without a body may do to its connection.

import type { Test } from 'tap';
import { makeAuthority, makeCertificate } from '../../src/demo/certificate.ts';
import type { TestProxy } from '../support/proxy.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, type RawUpstream } from '../support/upstream.ts';

const OK = 'HTTP/1.1 200 OK\r\n';
const FIVE = 'content-length: 5\r\n\r\nhello';
const CHUNKED = `transfer-encoding: chunked\r\n\r\n${chunk('hello')}0\r\n\r\n`;

const refused: Readonly<Record<string, string>> = {
  'a status line ended by LF': `HTTP/1.1 200 OK\n${FIVE}`,
  'a header line ended by LF': `${OK}x: y\n${FIVE}`,
  'a head ended by LF': `${OK}content-length: 5\r\n\nhello`,
  'a head with LF alone': 'HTTP/1.1 200 OK\ncontent-length: 5\n\nhello',
  'a folded line': `${OK}x: y\r\n z\r\n${FIVE}`,
  'a line folded with a tab': `${OK}x: y\r\n\tz\r\n${FIVE}`,
  'a folded Transfer-Encoding': `${OK}transfer-encoding:\r\n chunked\r\n\r\n${chunk('hello')}0\r\n\r\n`,
  'a space before the first name': `${OK} x: y\r\n${FIVE}`,
  'a space before the colon': `${OK}content-length : 5\r\n\r\nhello`,
  'two equal Content-Lengths': `${OK}content-length: 5\r\n${FIVE}`,
  'a list of Content-Lengths': `${OK}content-length: 5, 5\r\n\r\nhello`,
  'a signed Content-Length': `${OK}content-length: +5\r\n\r\nhello`,
  'a Content-Length with a fraction': `${OK}content-length: 5.0\r\n\r\nhello`,
  'an empty Content-Length': `${OK}content-length:\r\n\r\nhello`,
  'a blank behind the Content-Length': `${OK}content-length: 0 \r\n\r\n`,
  'a Content-Length beyond exact numbers': `${OK}content-length: 9007199254740992\r\n\r\nhello`,
  'a Content-Length of 64 bits': `${OK}content-length: 18446744073709551615\r\n\r\nhello`,
  'a Content-Length of more than 64 bits': `${OK}content-length: 18446744073709551621\r\n\r\nhello`,
  'Transfer-Encoding before Content-Length': `${OK}content-length: 5\r\n${CHUNKED}`,
  'Content-Length before Transfer-Encoding': `${OK}transfer-encoding: chunked\r\n${FIVE}`,
  'Transfer-Encoding: gzip': `${OK}transfer-encoding: gzip\r\n\r\nhello`,
  'Transfer-Encoding: gzip, chunked': `${OK}transfer-encoding: gzip, chunked\r\n\r\n${chunk('hello')}0\r\n\r\n`,
  'Transfer-Encoding: identity': `${OK}transfer-encoding: identity\r\n\r\nhello`,
  'an empty Transfer-Encoding': `${OK}transfer-encoding:\r\n\r\nhello`,
  'Transfer-Encoding twice': `${OK}transfer-encoding: chunked\r\n${CHUNKED}`,
  'Transfer-Encoding on HTTP/1.0': `HTTP/1.0 200 OK\r\n${CHUNKED}`,
  'Transfer-Encoding on HTTP/1.0 with keep-alive': `HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n${CHUNKED}`,
  'HTTP/0.9': `HTTP/0.9 200 OK\r\n${FIVE}`,
  'HTTP/2.0 in a status line': `HTTP/2.0 200 OK\r\n${FIVE}`,
  'a name with a NUL': `${OK}x\0: y\r\n${FIVE}`,
  'a name with a byte above 127': `${OK}x\xe9: y\r\n${FIVE}`,
  'a value with DEL': `${OK}x: a\x7f\r\n${FIVE}`,
  'a reason with a NUL': `HTTP/1.1 200 a\0b\r\n${FIVE}`,
  'an interim answer with a coding': `HTTP/1.1 103 Odd\r\ntransfer-encoding: gzip\r\n\r\n${answer()}`,
  'an interim answer of HTTP/2.0': `HTTP/2.0 103 Odd\r\nx: y\r\n\r\n${answer()}`,
  '101 without Upgrade': `HTTP/1.1 101 Odd\r\n\r\n${answer()}`,
};

/** Asks with what the upstream sends, then once more. */
async function sends(t: Test, rig: Rig, upstream: RawUpstream, proxy: TestProxy, name: string, bytes: string) {
  upstream.script = (_request, connection) => connection.send(bytes);
  const got = await rig.ask(proxy, '/ai/x');
  upstream.script = (_request, connection) => connection.send(answer('well'));
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'well', `after ${name}`);
  return got;
}

e2e('an answer that could be read in two ways is a 502 without a wait, and nothing of it gets on', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  for (const [name, bytes] of Object.entries(refused)) {
    const got = await sends(t, rig, upstream, proxy, name, bytes);
    t.equal(got.code, 'upstream_protocol_error', name);
    t.notOk(got.text.includes('hello') || got.body.includes('hello'), name);
  }
});

e2e('an answer with more header lines than max_headers, or a longer reason than max_head, is a 502', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, maxHeaders: 20, maxHeadBytes: 2048 });
  const lines = (n: number) => 'x: y\r\n'.repeat(n);
  const tooLarge: Readonly<Record<string, string>> = {
    'more lines': OK + lines(20) + FIVE,
    'more empty lines': OK + 'a:\r\n'.repeat(500) + FIVE,
    'more bytes': `${OK}x: ${'y'.repeat(2048)}\r\n${FIVE}`,
    'a longer reason': `HTTP/1.1 200 ${'y'.repeat(2049)}\r\n${FIVE}`,
    'more lines of an interim answer': `HTTP/1.1 103 Odd\r\n${lines(21)}\r\n${answer()}`,
  };
  for (const [name, bytes] of Object.entries(tooLarge)) {
    const got = await sends(t, rig, upstream, proxy, name, bytes);
    t.equal(got.status, 502, name);
    t.equal(got.code, 'upstream_head_too_large', name);
  }
  const most = await sends(t, rig, upstream, proxy, 'as many as allowed', OK + lines(19) + FIVE);
  t.equal(most.all('x').length, 19);
  const trailers = await sends(
    t,
    rig,
    upstream,
    proxy,
    'trailers',
    `${chunkedHead()}${chunk('a')}0\r\n${lines(20)}\r\n`,
  );
  t.match(trailers.ending, 'clean');
  const client = await rig.sent(proxy, '/ai/x');
  await client.answer();
  for (const [count, passing] of [
    [20, 20],
    [21, 0],
  ] as const) {
    upstream.script = (_request, connection) =>
      connection.send(`${chunkedHead()}${chunk('a')}0\r\n${lines(count)}\r\n`);
    const before = client.text.length;
    client.send('GET /ai/x HTTP/1.1\r\nhost: a\r\n\r\n');
    t.equal((await client.answer()).body.toString(), 'a', `${count} trailers`);
    t.equal(client.text.slice(before).split('x: y\r\n').length - 1, passing, `of ${count} trailers`);
  }
});

e2e('bytes behind an answer without a body cost its connection, and are never an answer', async (t, rig) => {
  const poison = answer('poison');
  const kept: Readonly<Record<string, [method: string, bytes: string]>> = {
    'a 204': ['GET', 'HTTP/1.1 204 No\r\n\r\n'],
    'a 204 with length 0': ['GET', 'HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n'],
    'a 304': ['GET', 'HTTP/1.1 304 Same\r\n\r\n'],
    'a HEAD': ['HEAD', `${OK}content-length: 5\r\n\r\n`],
  };
  const closed: Readonly<Record<string, [method: string, bytes: string]>> = {
    'a 204 with a length': ['GET', 'HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n'],
    // By undici, as it may be followed by a body.
    'a 304 with a length': ['GET', 'HTTP/1.1 304 Same\r\ncontent-length: 5\r\n\r\n'],
    'a 204 with a body': ['GET', `HTTP/1.1 204 No\r\n${FIVE}`],
    'a 304 with a body': ['GET', `HTTP/1.1 304 Same\r\n${FIVE}`],
    'a HEAD with a body': ['HEAD', OK + FIVE],
    'a chunked HEAD with a body': ['HEAD', OK + CHUNKED],
    'a 204 and another answer': ['GET', `HTTP/1.1 204 No\r\n\r\n${poison}`],
    'a HEAD and another answer': ['HEAD', `${OK}content-length: 5\r\n\r\n${poison}`],
  };
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  for (const [name, [method, bytes]] of Object.entries({ ...kept, ...closed })) {
    const before = proxy.pool().closed;
    upstream.script = (_request, connection) => connection.send(bytes);
    const got = await rig.ask(proxy, '/ai/x', { method });
    t.equal(got.body.length, 0, name);
    if (got.status === 204) t.equal(got.get('content-length'), undefined, name);
    upstream.script = (_request, connection) => connection.send(answer('well'));
    t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'well', `after ${name}`);
    t.equal(proxy.pool().closed - before, name in closed ? 1 : 0, `connections closed by ${name}`);
  }
});

e2e('a Content-Length of an interim answer does not pass', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`HTTP/1.1 103 Odd\r\ncontent-length: 5\r\nlink: <x>\r\n\r\n${answer()}`);
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.sent(proxy, '/ai/x');
  t.same((await client.head()).headers, [['link', '<x>']]);
  t.equal((await client.answer()).body.toString(), 'ok');
});

const authority = makeAuthority('test authority');
const tls = makeCertificate({ names: ['localhost', '127.0.0.1'], issuer: authority });

for (const secure of [false, true]) {
  e2e(`a blank line on an idle ${secure ? 'TLS ' : ''}connection destroys it, as any byte does`, async (t, rig) => {
    const upstream = await rig.upstream(undefined, secure ? { tls } : {});
    const proxy = await rig.one({ url: upstream.url, tls: { ca: secure ? authority.cert : null } });
    for (const [index, bytes] of ['\r\n', '\n', '\r\n\r\n', ' ', 'x'].entries()) {
      // Twice: what a new session brings along has come by then.
      for (let i = 0; i < 2; i++) t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
      t.equal(upstream.connections.length, index + 1, 'one connection for both');
      await until('it is idle', () => proxy.pool().idle === 1);
      upstream.connections[index]!.send(bytes);
      await until('it is destroyed', () => upstream.connections[index]!.left);
      t.equal(proxy.pool().closed_by.unexpected_bytes, index + 1, JSON.stringify(bytes));
    }
  });
}

e2e('tickets of TLS 1.3 that come late are no bytes on an idle connection', async (t, rig) => {
  const upstream = await rig.upstream(undefined, { tls: { ...tls, minVersion: 'TLSv1.3' } });
  const proxy = await rig.one({ url: upstream.url, pool: { warm: 1 }, tls: { ca: authority.cert } });
  await until('a connection is warm', () => proxy.pool().idle === 1);
  for (let i = 0; i < 3; i++) {
    t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
    await whileNothing(20);
  }
  t.equal(upstream.connections.length, 1);
  t.equal(proxy.pool().closed, 0);
});

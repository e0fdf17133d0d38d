// Behaviour 14 of DESIGN.md: targets come from the config alone, and what could be read in two ways is refused; on bare sockets.

import type { Rig } from '../support/rig.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';

async function strict(rig: Rig) {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: `${upstream.url}/base` });
  /** Sends the bytes; the connection's first answer. */
  const raw = async (bytes: string) => {
    const client = await rig.client(proxy);
    client.send(bytes);
    const got = await client.answer();
    return { got, client };
  };
  return { upstream, proxy, raw };
}

const badTargets: Record<string, string> = {
  'absolute-form': 'http://127.0.0.1:1/ai/x',
  'absolute-form of the upstream name': 'http://ai/x',
  'absolute-form with a password': 'https://user:s3cr3t-never-to-be-seen@evil.test/ai/x',
  'authority-form': 'evil.test:443',
  'two slashes': '//evil.test/x',
  'two slashes within': '/ai//x',
  'a dot-dot segment': '/ai/../x',
  'a dot-dot segment at the end': '/ai/..',
  'a single dot segment': '/ai/./x',
  'dot-dot before the name': '/../ai/x',
  'an encoded dot-dot': '/ai/%2e%2e/x',
  'a half encoded dot-dot': '/ai/.%2E/x',
  'a doubly encoded dot-dot': '/ai/%252e%252e/x',
  'a triply encoded dot-dot': '/ai/%25252e%25252e/x',
  'an encoded slash before dot-dot': '/ai/%2f../x',
  'dot-dot between encoded slashes': '/ai/a%2f%2e%2e%2fx',
  'dot-dot with a parameter': '/ai/..;x=1/y',
  'an encoded NUL': '/ai/x%00',
  'a doubly encoded NUL': '/ai/x%2500',
  'an encoded CR LF': '/ai/x%0d%0aset-cookie:a',
  'a backslash': '/ai/..\\x',
  'an encoded backslash': '/ai/%5c..%5cx',
  'a fragment': '/ai/x#y',
  'a fragment after the query': '/ai/x?a=1#y',
  'a bad escape': '/ai/%zz',
  'a half escape': '/ai/x%2',
  'a raw byte above 127': '/ai/caf\xe9',
  'no slash': 'ai/x',
  nothing: '*',
};

e2e('targets that are not a plain path are 400 and never reach the upstream', async (t, rig) => {
  const { upstream, proxy, raw } = await strict(rig);
  for (const [name, target] of Object.entries(badTargets)) {
    const { got } = await raw(`GET ${target} HTTP/1.1\r\nhost: a\r\n\r\n`);
    t.equal(got.status, 400, `${name}: ${target}`);
    t.match(got.code, /invalid_target|bad_request/, name);
  }
  for (const line of ['CONNECT evil.test:443', 'CONNECT /ai/x', 'OPTIONS *', 'GET *']) {
    const { got } = await raw(`${line} HTTP/1.1\r\nhost: a\r\n\r\n`);
    t.equal(got.status, 400, line);
  }
  t.equal(upstream.connections.length, 0);
  t.notOk(
    proxy.rawLog.some((text) => text.includes('s3cr3t')),
    'a password in a target is not logged',
  );
});

e2e('good targets pass byte for byte behind the base path', async (t, rig) => {
  const { upstream, raw } = await strict(rig);
  const targets: Record<string, string> = {
    '/ai/v1/chat/completions': '/base/v1/chat/completions',
    '/ai/v1/x?a=1&b=%20+c&d=/../&e=//': '/base/v1/x?a=1&b=%20+c&d=/../&e=//',
    '/ai/a%2Fb%20c': '/base/a%2Fb%20c',
    "/ai/~user/!$&'()*+,;=:@": "/base/~user/!$&'()*+,;=:@",
    '/ai/..x/y..': '/base/..x/y..',
    '/ai/...': '/base/...',
    '/ai/.well-known/x': '/base/.well-known/x',
    '/ai/x?y=?': '/base/x?y=?',
    '/ai/x/': '/base/x/',
    '/ai/': '/base/',
    '/ai?q=1': '/base/?q=1',
    '/ai': '/base/',
  };
  for (const [target, expected] of Object.entries(targets)) {
    const { got } = await raw(`GET ${target} HTTP/1.1\r\nhost: a\r\n\r\n`);
    t.equal(got.status, 200, target);
    t.equal(upstream.requests.at(-1)!.target, expected);
    t.equal(upstream.requests.at(-1)!.get('host'), upstream.url.slice('http://'.length), 'Host is the upstream');
  }
});

e2e('an unknown name is 404 and names the known ones', async (t, rig) => {
  const { upstream, proxy, raw } = await strict(rig);
  for (const target of ['/', '/nothing/x', '/AI/x', '/ai2/x', '/a', '/%61i/x', '/constructor', '/__proto__/x']) {
    const { got } = await raw(`GET ${target} HTTP/1.1\r\nhost: a\r\n\r\n`);
    t.equal(got.status, 404, target);
    t.equal(got.code, 'unknown_upstream');
    t.match(got.body.toString(), /known are ai/);
  }
  t.equal(upstream.connections.length, 0);
  t.equal(proxy.stats().listener.refused.unknown_upstream, 8);
});

e2e('a Host that is missing, double, empty or malformed is 400', async (t, rig) => {
  const { upstream, raw } = await strict(rig);
  const bad: Record<string, string> = {
    missing: '',
    empty: 'host:\r\n',
    'double and equal': 'host: a\r\nhost: a\r\n',
    'double and different': 'Host: a\r\nhost: b\r\n',
    'with userinfo': 'host: user@a\r\n',
    'with a path': 'host: a/b\r\n',
    'a list': 'host: a, b\r\n',
    'with a space': 'host: a b\r\n',
    'with a bad port': 'host: a:b\r\n',
    'with a long port': 'host: a:123456\r\n',
    'an open bracket': 'host: [::1\r\n',
    'only a port': 'host: :80\r\n',
  };
  for (const [name, host] of Object.entries(bad)) {
    const { got } = await raw(`GET /ai/x HTTP/1.1\r\n${host}\r\n`);
    t.equal(got.status, 400, name);
    t.equal(got.code, 'invalid_host', name);
  }
  t.equal(upstream.connections.length, 0);
  for (const host of ['a', 'A.example:8080', '127.0.0.1', '[::1]:80', 'my_host', 'xn--bcher-kva.example']) {
    t.equal((await raw(`GET /ai/x HTTP/1.1\r\nhost: ${host}\r\n\r\n`)).got.status, 200, host);
  }
});

e2e(
  'HTTP/1.0 works without Host, and its connection is closed after the answer unless it asks otherwise',
  async (t, rig) => {
    const { raw } = await strict(rig);
    const plain = await raw('GET /ai/x HTTP/1.0\r\n\r\n');
    t.equal(plain.got.status, 200);
    t.equal(plain.got.body.toString(), 'ok');
    t.equal(await plain.client.ended(), 'fin');
    const kept = await raw('GET /ai/x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n');
    t.match(kept.got.get('connection'), /keep-alive/i);
    kept.client.send('GET /ai/y HTTP/1.0\r\n\r\n');
    t.equal((await kept.client.answer()).status, 200);
    await kept.client.ended();
  },
);

const badHeads: Record<string, string> = {
  'Content-Length and Transfer-Encoding': 'content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
  'two Content-Lengths': 'content-length: 5\r\ncontent-length: 5\r\n\r\nhello',
  'two different Content-Lengths': 'content-length: 5\r\ncontent-length: 6\r\n\r\nhello!',
  'a list of Content-Lengths': 'content-length: 5, 5\r\n\r\nhello',
  'a negative Content-Length': 'content-length: -1\r\n\r\n',
  'a signed Content-Length': 'content-length: +5\r\n\r\nhello',
  'a hexadecimal Content-Length': 'content-length: 0x5\r\n\r\nhello',
  'an empty Content-Length': 'content-length:\r\n\r\n',
  'a huge Content-Length': 'content-length: 99999999999999999999\r\n\r\n',
  'Transfer-Encoding: gzip': 'transfer-encoding: gzip\r\n\r\n',
  'Transfer-Encoding: gzip, chunked': 'transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
  'Transfer-Encoding: chunked, chunked': 'transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n',
  'Transfer-Encoding twice': 'transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
  'Transfer-Encoding: identity': 'transfer-encoding: identity\r\n\r\n',
  'an empty Transfer-Encoding': 'transfer-encoding:\r\ncontent-length: 5\r\n\r\nhello',
  'Transfer-Encoding: xchunked': 'transfer-encoding: xchunked\r\n\r\n0\r\n\r\n',
  'a space before the colon': 'transfer-encoding : chunked\r\n\r\n0\r\n\r\n',
  'a folded line': 'x-a: 1\r\n  2\r\n\r\n',
  'a folded Transfer-Encoding': 'transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n',
  'a header without a name': ': x\r\n\r\n',
  'a header name with a space': 'x y: z\r\n\r\n',
  'a header line without a colon': 'nonsense\r\n\r\n',
  'a control byte in a value': 'x: a\x01b\r\n\r\n',
  'a NUL in a value': 'x: a\x00b\r\n\r\n',
  'a bare CR in a value': 'x: a\rtransfer-encoding: chunked\r\n\r\n',
  'a bare LF at the end of a line': 'x: a\ny: b\r\n\r\n',
  'bare LFs all over': 'x: a\n\n',
  'a space before the first name': ' x: a\r\n\r\n',
  'Expect of something else': 'expect: miracles\r\n\r\n',
};

e2e('HTTP/1.0 has no Transfer-Encoding, whatever Node’s own parser makes of it', async (t, rig) => {
  const { upstream, raw } = await strict(rig);
  for (const rest of ['0\r\n\r\n', '5\r\nhello\r\n0\r\n\r\nGET /ai/smuggled HTTP/1.0\r\n\r\n']) {
    const head = 'POST /ai/x HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n';
    const { got, client } = await raw(head + rest);
    t.match(got, { status: 400, code: 'bad_request' });
    await client.ended();
  }
  t.equal(upstream.connections.length, 0);
});

e2e('heads that two parsers could read in two ways are 400, and the connection ends', async (t, rig) => {
  const { upstream, raw } = await strict(rig);
  for (const [name, head] of Object.entries(badHeads)) {
    const { got, client } = await raw(`POST /ai/x HTTP/1.1\r\nhost: a\r\n${head}`);
    t.equal(got.status, 400, name);
    t.equal(got.code, 'bad_request', name);
    t.match(got.get('connection'), /close/, `${name}: nobody knows where the next request would begin`);
    await client.ended();
  }
  t.equal(upstream.connections.length, 0);
});

const badLines: Record<string, string> = {
  'no version': 'GET /ai/x',
  'HTTP/0.9': 'GET /ai/x HTTP/0.9',
  'HTTP/2.0': 'GET /ai/x HTTP/2.0',
  'HTTP/1.2': 'GET /ai/x HTTP/1.2',
  'a lower-case version': 'GET /ai/x http/1.1',
  'two spaces': 'GET  /ai/x HTTP/1.1',
  'a tab': 'GET\t/ai/x\tHTTP/1.1',
  'a target with a space': 'GET /ai/x y HTTP/1.1',
  'a space at the end': 'GET /ai/x HTTP/1.1 ',
  'a bad method': 'G(ET /ai/x HTTP/1.1',
  'no method': ' /ai/x HTTP/1.1',
  TLS: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  'the HTTP/2 preface': 'PRI * HTTP/2.0',
};

e2e('request lines that are not HTTP/1.x are 400', async (t, rig) => {
  const { upstream, raw } = await strict(rig);
  for (const [name, line] of Object.entries(badLines)) {
    const { got } = await raw(`${line}\r\nhost: a\r\n\r\n`);
    t.equal(got.status, 400, name);
  }
  t.equal(upstream.connections.length, 0);
});

const badChunks: Record<string, string> = {
  'a size that is no number': 'zz\r\nhello\r\n0\r\n\r\n',
  'a size with a sign': '+5\r\nhello\r\n0\r\n\r\n',
  'a size with 0x': '0x5\r\nhello\r\n0\r\n\r\n',
  'an empty size': '\r\nhello\r\n0\r\n\r\n',
  'a size with a space': '5 \r\nhello\r\n0\r\n\r\n',
  'a size ended by LF': '5\nhello\r\n0\r\n\r\n',
  'a huge size': 'fffffffffffffffff\r\nhello',
  'a chunk longer than its size': '2\r\nhello\r\n0\r\n\r\n',
  'a chunk ended by LF': '5\r\nhello\n0\r\n\r\n',
  'an extension with a LF': '5;a\nb\r\nhello\r\n0\r\n\r\n',
  'a bad trailer': '5\r\nhello\r\n0\r\nx: \x01\r\n\r\n',
};

e2e('bad chunks are 400, and nothing of them reaches the upstream', async (t, rig) => {
  const { upstream, raw } = await strict(rig);
  for (const [name, chunks] of Object.entries(badChunks)) {
    const { got, client } = await raw(`POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n${chunks}`);
    t.equal(got.status, 400, name);
    t.equal(got.code, 'bad_request', name);
    await client.ended();
  }
  t.equal(upstream.requests.length, 0);
});

e2e('a bad chunk within a streamed body cuts the upstream off before its end', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url }, { listener: { bodyBufferBytes: 1024 } });
  const client = await rig.client(proxy);
  client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1000\r\n${'a'.repeat(4096)}\r\n`);
  const request = await upstream.request(0);
  await until('the first chunk is there', () => request.bodyBytes === 4096);
  client.send('zz\r\n');
  t.equal((await client.answer()).code, 'bad_request');
  await until('the upstream is cut off', () => request.connection.left);
  t.notOk(request.complete, 'no last chunk was sent for a body that never ended');
});

e2e('a refused head does not let the bytes behind it become a request', async (t, rig) => {
  const { upstream, raw } = await strict(rig);
  const smuggled = 'GET /ai/smuggled HTTP/1.1\r\nhost: a\r\n\r\n';
  const attempts = [
    `POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${smuggled.length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
    `POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: ${smuggled.length}\r\n\r\n${smuggled}`,
    `POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n${smuggled}`,
    `GET /ai/x HTTP/1.1\r\nhost: a\r\nx: y\n\r\n${smuggled}`,
    `CONNECT /ai/x HTTP/1.1\r\nhost: a\r\n\r\n${smuggled}`,
  ];
  for (const bytes of attempts) {
    const { got, client } = await raw(bytes);
    t.equal(got.status, 400);
    await client.ended();
    t.equal(client.text.split('HTTP/1.1 ').length, 2, 'one answer only');
  }
  t.equal(upstream.requests.length, 0);
});

e2e('an empty line before a request is let go', async (t, rig) => {
  const { raw } = await strict(rig);
  t.equal((await raw('\r\nGET /ai/x HTTP/1.1\r\nhost: a\r\n\r\n')).got.status, 200);
});

e2e('a request that comes byte by byte is read all the same', async (t, rig) => {
  const { upstream, proxy } = await strict(rig);
  const client = await rig.client(proxy);
  const text =
    'POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nx: y\r\n\r\n';
  for (const byte of text.repeat(2)) {
    client.send(byte);
    await new Promise(setImmediate);
  }
  for (let i = 0; i < 2; i++) t.equal((await client.answer()).status, 200);
  t.same(
    upstream.requests.map(({ body }) => body.toString()),
    ['hello!', 'hello!'],
  );
});

e2e('an answer of 4xx to a good head leaves the connection usable', async (t, rig) => {
  const { proxy } = await strict(rig);
  const client = await rig.client(proxy);
  client.send('POST /unknown HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello');
  t.equal((await client.answer()).status, 404);
  client.send('GET /ai/../x HTTP/1.1\r\nhost: a\r\n\r\n');
  t.equal((await client.answer()).status, 400);
  client.send('GET /ai/x HTTP/1.1\r\nhost: a\r\n\r\n');
  t.equal((await client.answer()).status, 200);
});

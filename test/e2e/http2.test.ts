// HTTP/2 to the upstream: one request and its answer over a stream are what they are over a connection of its own.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { type Http2Script, reply, http2Scene as scene } from '../support/http2-upstream.ts';
import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';

e2e('a request goes over HTTP/2, its fields as they were, and so does its answer', async (t, rig) => {
  const { server, proxy } = await scene(rig, async (request) => {
    const body = await request.body();
    request.stream.respond([
      ...[':status', '201', 'x-one', '1', 'set-cookie', 'a=1', 'set-cookie', 'b=2', 'x-latin', 'caf\xe9'],
      ...['date', 'Tue, 15 Nov 1994 08:12:31 GMT', 'x-body', String(body)],
    ] as never);
    request.stream.end('answer');
  });
  const headers =
    'X-A: 1\r\nx-a: 2\r\nCookie: c=1\r\nCookie: d=2\r\nX-Latin: caf\xe9\r\nConnection: x-gone, te\r\nX-Gone: 1\r\nTE: trailers\r\nHTTP2-Settings: AAMAAABk\r\n';
  const got = await rig.ask(proxy, '/ai/path?q=1', { method: 'POST', body: 'hello', headers });
  t.equal(got.status, 201);
  t.equal(got.body.toString(), 'answer');
  t.equal(got.get('x-body'), 'hello');
  t.same(
    got.headers.filter(([name]) => /^(x-one|set-cookie|x-latin|date)$/.test(name)),
    [
      ['x-one', '1'],
      ['set-cookie', 'a=1'],
      ['set-cookie', 'b=2'],
      ['x-latin', 'caf\xe9'],
      ['date', 'Tue, 15 Nov 1994 08:12:31 GMT'],
    ],
  );
  const [request] = server.requests;
  t.match(request!.headers, { ':path': '/path?q=1', ':scheme': 'https', ':method': 'POST', 'content-length': '5' });
  t.equal(request!.headers[':authority'], server.url.slice(8));
  t.equal(request!.headers['x-a'], '1, 2');
  t.equal(request!.headers['x-latin'], 'caf\xe9');
  for (const name of ['host', 'connection', 'te', 'x-gone', 'http2-settings', 'transfer-encoding'])
    t.equal(request!.headers[name], undefined, `no ${name}`);
  t.match(proxy.pool(), { protocol: 'h2', opened: 1, streams: { open: 0, max: 5000 } });
});

e2e('an answer without a body, to HEAD, 204 and 304, and one with a body of no length', async (t, rig) => {
  const { proxy } = await scene(rig, ({ method, path, stream }) => {
    if (method === 'HEAD') stream.respond({ ':status': 200, 'content-length': 1234 }, { endStream: true });
    else if (path === '/x') stream.respond({ ':status': 200 }, { endStream: true });
    else stream.respond({ ':status': Number(path.slice(1)), etag: '"x"' }, { endStream: true });
  });
  const head = await rig.ask(proxy, '/ai/x', { method: 'HEAD' });
  t.match([head.status, head.get('content-length')], [200, '1234']);
  t.equal((await rig.ask(proxy, '/ai/204')).status, 204);
  t.match([(await rig.ask(proxy, '/ai/304')).status], [304]);
  const empty = await rig.ask(proxy, '/ai/x');
  t.match([empty.status, empty.body.length, empty.ending], [200, 0, 'clean']);
  t.match(proxy.pool(), { opened: 1, reused: 3 });
});

e2e('interim answers pass, 103 that is; 100 was not asked for, and does not', async (t, rig) => {
  const { proxy } = await scene(rig, ({ path, stream }) => {
    stream.additionalHeaders({ ':status': Number(path.slice(1)), link: '</a.css>' });
    reply(stream);
  });
  const client = await rig.sent(proxy, '/ai/103');
  const got = await client.answer();
  t.match(client.text, /^HTTP\/1.1 103 Early Hints\r\nlink: <\/a.css>\r\n/);
  t.equal(got.body.toString().endsWith('ok'), true);
  const other = await rig.sent(proxy, '/ai/100');
  await other.answer();
  t.match(other.text, /^HTTP\/1.1 200 OK\r\n/);
});

e2e('more than 16 interim answers are 502, and only their stream is ended', async (t, rig) => {
  const { server, proxy } = await scene(rig, async ({ path, stream }) => {
    if (path === '/flood') for (let i = 0; i < 17; i++) stream.additionalHeaders({ ':status': 103, 'x-i': String(i) });
    else if (path === '/other') {
      await until('the flood is over', () => server.requests[1]?.stream.destroyed);
      reply(stream);
    }
  });
  const other = rig.ask(proxy, '/ai/other');
  await until('it is there', () => server.requests.length === 1);
  t.equal((await rig.ask(proxy, '/ai/flood')).code, 'upstream_protocol_error');
  t.equal((await other).status, 200);
  t.equal(proxy.pool().opened, 1);
});

e2e('trailers pass', async (t, rig) => {
  const { proxy } = await scene(rig, ({ stream }) => {
    stream.respond({ ':status': 200 }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'x-sum': 'abc', 'set-cookie': 'a=b' }));
    stream.end('body');
  });
  const request = get({ port: proxy.port, host: '127.0.0.1', path: '/ai/x', agent: false });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  t.equal((await response.toArray()).join(''), 'body');
  t.same(response.rawTrailers, ['grpc-status', '0', 'x-sum', 'abc'], 'less what may not stand behind a body');
});

e2e('each piece of an event stream is forwarded in the turn it came in', async (t, rig) => {
  const { server, proxy } = await scene(rig, ({ stream }) => {
    stream.respond({ ':status': 200, 'content-type': 'text/event-stream' });
  });
  const client = await rig.sent(proxy, '/ai/x', { method: 'POST', body: '{}' });
  t.equal((await client.head()).status, 200, 'the head before there is a body byte');
  const { stream } = server.requests[0]!;
  for (let i = 0; i < 20; i++) {
    const text = `data: {"n":${i}}\n\n`;
    const sentAt = performance.now();
    stream.write(text);
    t.equal(String(await client.piece()), text);
    t.ok(performance.now() - sentAt < 400, 'without a wait for more');
  }
  stream.end();
  t.equal((await client.rest()).ending, 'clean');
});

const bytes = (length: number) => Buffer.from(Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 255));
const sha = (body: Buffer) => createHash('sha256').update(body).digest('hex');

e2e('long bodies pass byte for byte, both ways, in memory or as they come', async (t, rig) => {
  const { proxy } = await scene(
    rig,
    async (request) => {
      const body = await request.body();
      reply(request.stream, body as never, { 'x-length': request.headers['content-length'] ?? 'none' });
    },
    {},
    {},
    { listener: { bodyBufferBytes: 100_000 } },
  );
  for (const length of [0, 1, 90_000, 5_000_000]) {
    const body = bytes(length);
    const declared = await rig.ask(proxy, '/ai/x', { method: 'PUT', body });
    t.equal(sha(declared.body), sha(body), `${length} bytes`);
    t.equal(declared.get('x-length'), String(length));
  }
  const body = bytes(3_000_000);
  const client = await rig.client(proxy);
  client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n');
  for (let at = 0; at < body.length; at += 70_000) {
    const part = body.subarray(at, at + 70_000);
    client
      .send(`${part.length.toString(16)}\r\n`)
      .send(part)
      .send('\r\n');
  }
  const got = await client.send('0\r\n\r\n').answer();
  t.equal(sha(got.body), sha(body));
  t.equal(got.get('x-length'), 'none');
  t.equal(proxy.pool().opened, 1);
});

e2e('a slow reader stops its own stream only, and little waits for it', async (t, rig) => {
  let sent = 0;
  const total = 32 << 20;
  const { server, proxy } = await scene(
    rig,
    ({ path, stream }) => {
      if (path !== '/slow') {
        reply(stream, 'quick'.repeat(100_000));
        return;
      }
      stream.respond({ ':status': 200, 'content-length': total });
      const more = () => {
        while (sent < total) {
          sent += 65536;
          if (!stream.write(Buffer.alloc(65536))) return;
        }
        stream.end();
      };
      stream.on('drain', more);
      more();
    },
    { timeouts: { idleMs: 250 } },
  );
  const slow = await rig.sent(proxy, '/ai/slow');
  await slow.head();
  slow.pause();
  let last = -1;
  await until('nothing moves any more', () => server.requests[0]!.stream.writableNeedDrain && last === (last = sent));
  await whileNothing(600);
  t.ok(sent < 12 << 20, `${sent} bytes are on the way, most of them in kernel buffers`);
  t.equal(proxy.upstream().in_flight, 1, 'our pause is not the silence of the upstream: idle (250 ms) does not fire');
  for (let i = 0; i < 40; i++) t.equal((await rig.ask(proxy, '/ai/quick')).body.length, 500_000);
  t.equal(server.sessions.length, 1, '20 mb have passed it on the same connection');
  slow.resume();
  const { ending } = await slow.rest();
  t.equal(ending, 'clean');
  t.equal(sent, total);
});

e2e('a slow upstream pauses a fast upload', async (t, rig) => {
  const { server, proxy } = await scene(rig, () => {});
  const client = await rig.client(proxy);
  const total = 32 << 20;
  client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${total}\r\n\r\n`);
  let sent = 0;
  const more = () => {
    while (sent < total) {
      sent += 65536;
      if (!client.socket.write(Buffer.alloc(65536))) return;
    }
  };
  client.socket.on('drain', more);
  more();
  await until('it is there', () => server.requests.length === 1);
  let last = -1;
  await until('the client is paused', () => client.socket.writableNeedDrain && last === (last = sent));
  await whileNothing(200);
  t.ok(sent < 12 << 20, `${sent} bytes are on the way, most of them in kernel buffers`);
  t.ok(proxy.stats().listener.body_memory_bytes <= 256 << 10);
  const body = await server.requests[0]!.body();
  t.equal(body.length, total);
  reply(server.requests[0]!.stream);
  t.equal((await client.answer()).status, 200);
});

e2e('an answer that comes before all of the body is passed, and the rest of the body is not sent', async (t, rig) => {
  const { server, proxy } = await scene(rig, ({ path, stream }) => {
    if (path === '/reset') stream.on('finish', () => stream.close());
    reply(stream, 'enough');
  });
  for (const path of ['/plain', '/reset']) {
    const client = await rig.client(proxy);
    client.send(`POST /ai${path} HTTP/1.1\r\nhost: a\r\ncontent-length: ${8 << 20}\r\n\r\n`);
    client.send(Buffer.alloc(1 << 20));
    const got = await client.head();
    t.equal(got.status, 200, path);
    client.destroy();
  }
  await until('no stream is left', () => server.open === 0);
  t.equal((await rig.ask(proxy, '/ai/next')).status, 200);
  t.equal(proxy.pool().opened, 1);
});

e2e('a client that leaves cancels its stream, and the others go on', async (t, rig) => {
  const { server, proxy } = await scene(rig, ({ path, stream }) => {
    stream.respond({ ':status': 200 });
    stream.write(path);
  });
  const stay = await rig.sent(proxy, '/ai/stay');
  const leave = await rig.sent(proxy, '/ai/leave');
  await stay.head();
  await leave.head();
  leave.reset();
  const left = await until('its stream', () => server.requests.find(({ path }) => path === '/leave'));
  await until('it is cancelled', () => left.stream.destroyed, 500);
  t.equal(left.stream.rstCode, 8, 'CANCEL');
  await until('its place is free', () => proxy.pool().streams.open === 1);
  server.requests.find(({ path }) => path === '/stay')!.stream.end('!');
  const { body } = await stay.rest();
  t.equal(body.toString(), '/stay!');
  t.match(proxy.pool(), { opened: 1, closed: 0 });
  const lines = proxy.exchanges.map(({ path, failure }) => [path, failure]);
  t.strictSame(new Set(lines.map(String)), new Set([`/leave,client_gone`, `/stay,`]));
});

const HEADS: Record<string, Http2Script> = {
  'too many fields': ({ stream }) =>
    stream.respond({ ':status': 200, ...Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`x-${i}`, '1'])) }),
  'far too many fields': ({ stream }) =>
    stream.respond({ ':status': 200, ...Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`x-${i}`, '1'])) }),
  'too many bytes': ({ stream }) => stream.respond({ ':status': 200, 'x-long': 'x'.repeat(5000) }),
  'far too many bytes': ({ stream }) => stream.respond({ ':status': 200, 'x-long': 'x'.repeat(30_000) }),
};

for (const [name, script] of Object.entries(HEADS)) {
  e2e(`a head with ${name} is 502 upstream_head_too_large`, async (t, rig) => {
    const { server, proxy } = await scene(
      rig,
      (request) => (request.path === '/x' ? script(request) : reply(request.stream)),
      { maxHeadBytes: 4096, maxHeaders: 20 },
    );
    t.equal((await rig.ask(proxy, '/ai/x')).code, 'upstream_head_too_large');
    await until('its stream is ended', () => server.open === 0);
    t.equal((await rig.ask(proxy, '/ai/next')).status, 200);
    t.equal(proxy.pool().opened, 1);
  });
}

// Behaviours 4 and 7 of DESIGN.md: bytes pass as they come and as they are; and back pressure end to end.

import { gzipSync } from 'node:zlib';
import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

e2e('the head reaches the client before there is a body byte', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead()));
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.sent(proxy, '/ai/x', { method: 'POST', body: '{}' });
  t.equal((await client.head()).status, 200);
  upstream.connections[0]!.send(LAST_CHUNK);
  t.equal((await client.rest()).ending, 'clean');
});

e2e('each piece of a stream is forwarded on its own and at once', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead()));
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.sent(proxy, '/ai/x', { method: 'POST', body: '{}' });
  await client.head();
  const { socket } = upstream.connections[0]!;
  for (let i = 0; i < 20; i++) {
    const text = `data: {"n":${i}}\n\n`;
    const sentAt = performance.now();
    socket.write(chunk(text));
    t.equal(String(await client.piece()), text);
    t.ok(performance.now() - sentAt < 400, 'without a wait for more');
  }
  socket.write(LAST_CHUNK);
  t.equal((await client.rest()).ending, 'clean');
});

e2e('a stream that comes byte by byte arrives byte by byte and whole', async (t, rig) => {
  const events = 'data: {"a":1}\n\ndata: [DONE]\n\n';
  const upstream = await rig.upstream(async (_request, connection) => {
    await connection.trickle(`${chunkedHead('content-type: text/event-stream\r\n')}${chunk(events)}${LAST_CHUNK}`);
  });
  const proxy = await rig.one({ url: upstream.url });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.body.toString(), events);
  t.equal(got.ending, 'clean');
});

e2e('compressed bytes pass untouched', async (t, rig) => {
  const packed = gzipSync('{"hello":"world"}'.repeat(100));
  const upstream = await rig.upstream((_request, connection) => {
    connection
      .send(`HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: ${packed.length}\r\n\r\n`)
      .send(packed);
  });
  const proxy = await rig.one({ url: upstream.url });
  const got = await rig.ask(proxy, '/ai/x', { headers: 'accept-encoding: gzip, br\r\n' });
  t.ok(got.body.equals(packed));
  t.equal(got.get('content-encoding'), 'gzip');
  t.equal(got.get('content-length'), String(packed.length));
  t.equal(upstream.requests[0]!.get('accept-encoding'), 'gzip, br');
});

e2e('headers keep case, order and duplicates, both ways', async (t, rig) => {
  const up = [
    ['X-First', '1'],
    ['Set-Cookie', 'a=1; Path=/'],
    ['x-MiXed', 'value  with  spaces'],
    ['Set-Cookie', 'b=2; Path=/'],
    ['Retry-After', '7'],
    ['x-ratelimit-remaining-requests', '0'],
    ['X-Latin', 'caf\xe9'],
    ['Date', 'Tue, 15 Nov 1994 08:12:31 GMT'],
  ] as const;
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(answer('{}', up.map(([name, value]) => `${name}: ${value}\r\n`).join(''), '429 Too Many Requests'));
  });
  const proxy = await rig.one({ url: upstream.url });
  const down = 'X-B: 2\r\nx-A: 1\r\nX-b: 3\r\nCookie: one=1\r\nAuThOrIzAtIoN: Bearer x\r\nX-Empty:\r\n';
  const client = await rig.client(proxy);
  client.send(`GET /ai/x HTTP/1.1\r\nHost: a\r\n${down}\r\n`);
  const got = await client.answer();
  t.equal(got.status, 429);
  t.equal(got.reason, 'Too Many Requests');
  const names = new Set(up.map(([name]) => name.toLowerCase()));
  t.same(
    got.headers.filter(([name]) => names.has(name.toLowerCase())),
    up,
  );
  t.equal(got.get('x-should-retry'), undefined, 'nothing of ours on the answer of the upstream');
  const text = upstream.requests[0]!.headers.map(([name, value]) => `${name}:${value ? ' ' : ''}${value}\r\n`).join('');
  t.ok(text.includes(down), `the request's headers as they were:\n${text}`);
});

e2e('bytes of any value pass both ways', async (t, rig) => {
  const bytes = Buffer.from(Array.from({ length: 1024 }, (_, i) => i % 256));
  const upstream = await rig.upstream(async (request, connection) => {
    const body = await request.whole();
    connection.send(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n`).send(body);
  });
  const proxy = await rig.one({ url: upstream.url });
  const got = await rig.ask(proxy, '/ai/x', { method: 'PUT', body: bytes });
  t.ok(got.body.equals(bytes));
});

e2e('HEAD, 204 and 304 carry no body whatever they declare, and the connections stay good', async (t, rig) => {
  const upstream = await rig.upstream((request, connection) => {
    if (request.method === 'HEAD') connection.send('HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n');
    else if (request.target === '/204') connection.send('HTTP/1.1 204 No Content\r\n\r\n');
    else if (request.target === '/304') connection.send('HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n');
    else connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.client(proxy);
  for (const [method, path, status] of [
    ['HEAD', '/ai/x', 200],
    ['GET', '/ai/204', 204],
    ['GET', '/ai/304', 304],
    ['GET', '/ai/x', 200],
  ] as const) {
    client.send(`${method} ${path} HTTP/1.1\r\nhost: a\r\n\r\n`);
    const got = await client.answer(method === 'HEAD');
    t.equal(got.status, status);
    if (method === 'HEAD') t.equal(got.get('content-length'), '1234');
    if (status === 304) t.equal(got.get('etag'), '"x"');
    if (path === '/ai/x' && method === 'GET') t.equal(got.body.toString(), 'ok');
  }
  t.equal(upstream.connections.length, 1);
});

e2e('a slow reader pauses the upstream, and memory stays bounded', async (t, rig) => {
  const total = 64 << 20;
  let sent = 0;
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`HTTP/1.1 200 OK\r\ncontent-length: ${total}\r\n\r\n`);
    const more = () => {
      while (sent < total) {
        sent += 65536;
        if (!connection.socket.write(Buffer.alloc(65536))) return;
      }
    };
    connection.socket.on('drain', more);
    more();
  });
  const proxy = await rig.one({ url: upstream.url, timeouts: { idleMs: 250 } });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  client.pause();
  await until('the upstream is paused', () => upstream.connections[0]!.socket.writableNeedDrain);
  let last = -1;
  await until('nothing moves any more', () => last === (last = sent));
  await whileNothing(600);
  t.ok(sent < 24 << 20, `${sent} bytes are on the way, most of them in kernel buffers`);
  t.equal(proxy.upstream().in_flight, 1, 'our pause is not the silence of the upstream: idle (250 ms) does not fire');
  client.resume();
  const { body, ending } = await client.rest();
  t.equal(ending, 'clean');
  t.ok(body.length + 65536 * 64 > total);
});

e2e('a slow upstream pauses a fast upload, and memory stays bounded', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.socket.pause();
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.client(proxy);
  const total = 64 << 20;
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
  const { connection } = await upstream.request(0);
  let last = -1;
  await until('the client is paused', () => client.socket.writableNeedDrain && last === (last = sent));
  await whileNothing(200);
  t.ok(sent < 24 << 20, `${sent} bytes are on the way, most of them in kernel buffers`);
  t.ok(proxy.stats().listener.body_memory_bytes <= 256 << 10);
  connection.socket.resume();
  const request = upstream.requests[0]!;
  await until('all of it arrived', () => connection.bytes > total, 20_000);
  connection.send(answer());
  t.equal((await client.answer()).status, 200);
  t.equal(proxy.stats().upstreams.ai!.bytes_in, total);
  t.ok(request.connection.bytes > total);
});

e2e('a body larger than body_buffer arrives byte for byte, with its length or in chunks', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url }, { listener: { bodyBufferBytes: 10_000 } });
  const body = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => (i * 7 + (i >> 8)) & 255));
  const declared = await rig.client(proxy);
  declared.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${body.length}\r\n\r\n`).send(body);
  t.equal((await declared.answer()).status, 200);
  const chunked = await rig.client(proxy);
  chunked.send('POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n');
  for (let at = 0; at < body.length; at += 70_000) {
    const part = body.subarray(at, at + 70_000);
    chunked
      .send(`${part.length.toString(16)}\r\n`)
      .send(part)
      .send('\r\n');
  }
  chunked.send(LAST_CHUNK);
  t.equal((await chunked.answer()).status, 200);
  const [first, second] = upstream.requests;
  t.ok(first!.body.equals(body), 'with its length');
  t.equal(first!.get('content-length'), String(body.length));
  t.equal(first!.get('transfer-encoding'), undefined);
  t.ok(second!.body.equals(body), 'in chunks');
  t.equal(second!.get('content-length'), undefined);
});

e2e('an upstream that answers while it still reads gets all of a long body', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    // The head of the answer first; the body is read slowly after it, and its length is told.
    connection.socket.pause();
    connection.send(chunkedHead());
    await whileNothing(50);
    connection.socket.resume();
    await until('the whole body', () => request.complete, 5000);
    connection.send(chunk(`got ${request.body.length}`) + LAST_CHUNK);
  });
  const proxy = await rig.one({ url: upstream.url }, { listener: { bodyBufferBytes: 24 << 20 } });
  const body = Buffer.from(Array.from({ length: 32 << 20 }, (_, i) => (i >> 4) & 255));
  const client = await rig.client(proxy);
  client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${body.length}\r\n\r\n`).send(body);
  const got = await client.answer();
  t.equal(got.body.toString(), `got ${body.length}`);
  t.ok(upstream.requests[0]!.body.equals(body), 'byte for byte');
});

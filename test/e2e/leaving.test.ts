// Behaviours 1 and 2 of DESIGN.md: a client that leaves cancels the upstream and frees its place at once, in every phase;
// a permit is held until the upstream's last body byte and comes back on every path.

import { type AddressInfo, createServer } from 'node:net';
import { createSecureContext, TLSSocket } from 'node:tls';
import { makeCertificate } from '../../src/demo/certificate.ts';
import { e2e, requestText } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

/** Answers `/slow*` never and everything else at once. */
const stuckOnSlow: Script = (request, connection) => {
  if (!request.target.startsWith('/slow')) connection.send(answer());
};

const one = { limiters: { gate: { maxConcurrent: 1 } } };

for (const leave of ['halfClose', 'reset'] as const) {
  e2e(
    `a client that leaves (${leave}) while queued frees its place, and the upstream never hears of it`,
    async (t, rig) => {
      const upstream = await rig.upstream(stuckOnSlow);
      const proxy = await rig.one({ url: upstream.url, limiter: 'gate' }, one);
      const first = await rig.sent(proxy, '/ai/slow');
      await upstream.request(0);
      const second = await rig.sent(proxy, '/ai/second');
      await until('the second is queued', () => proxy.limiter('gate').queued === 1);
      const third = await rig.sent(proxy, '/ai/third');
      await until('the third is queued', () => proxy.limiter('gate').queued === 2);
      second[leave]();
      await until('its place is free', () => proxy.limiter('gate').queued === 1, 500);
      t.equal(proxy.upstream().failures.client_gone, 1);
      first.reset();
      t.equal((await third.answer()).status, 200);
      t.same(
        upstream.requests.map((request) => request.target),
        ['/slow', '/third'],
      );
    },
  );

  e2e(
    `a client that leaves (${leave}) before the head cancels the upstream and the next one runs at once`,
    async (t, rig) => {
      const upstream = await rig.upstream(stuckOnSlow);
      const proxy = await rig.one({ url: upstream.url, limiter: 'gate' }, one);
      const first = await rig.sent(proxy, '/ai/slow', { method: 'POST', body: 'x' });
      const { connection } = await upstream.request(0);
      const second = await rig.sent(proxy, '/ai/second');
      await until('the second is queued', () => proxy.limiter('gate').queued === 1);
      const left = performance.now();
      first[leave]();
      t.equal((await second.answer()).status, 200);
      await until('the upstream is cancelled', () => connection.left, 500);
      t.ok(performance.now() - left < 500, 'at once');
      const line = await until('its line', () => proxy.exchanges.find((exchange) => exchange.path === '/slow'));
      t.match(line, { status: 499, failure: 'client_gone', ttfb_ms: null });
    },
  );

  e2e(
    `a client that leaves (${leave}) within a stream cancels the upstream and the next one runs at once`,
    async (t, rig) => {
      const upstream = await rig.upstream((request, connection) => {
        if (request.target === '/slow') connection.send(chunkedHead() + chunk('data: 1\n\n'));
        else connection.send(answer());
      });
      const proxy = await rig.one({ url: upstream.url, limiter: 'gate' }, one);
      const first = await rig.sent(proxy, '/ai/slow');
      t.equal((await first.head()).status, 200);
      t.equal(String(await first.piece()), 'data: 1\n\n');
      const second = await rig.sent(proxy, '/ai/second');
      await until('the second is queued', () => proxy.limiter('gate').queued === 1);
      first[leave]();
      await until('the upstream is cancelled', () => upstream.connections[0]!.left, 500);
      t.equal((await second.answer()).status, 200);
      const line = await until('its line', () => proxy.exchanges.find((exchange) => exchange.path === '/slow'));
      t.match(line, { status: 200, failure: 'client_gone' });
    },
  );
}

e2e('a client that leaves within an answer of declared length cancels the upstream', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send('HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"half":');
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.sent(proxy, '/ai/x', { method: 'POST', body: '{}' });
  await client.head();
  t.equal(String(await client.piece()), '{"half":');
  client.halfClose();
  await until('the upstream is cancelled', () => upstream.connections[0]!.left, 500);
  await proxy.idle(500);
});

e2e(
  'a client that leaves while its body is read ahead frees everything, and the upstream is never contacted',
  async (t, rig) => {
    const upstream = await rig.upstream();
    const proxy = await rig.one({ url: upstream.url });
    const client = await rig.client(proxy);
    client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n0123456789');
    await until('the body is being read', () => proxy.stats().listener.body_memory_bytes === 10);
    client.reset();
    await proxy.idle(500);
    t.equal(proxy.upstream().failures.client_gone, 1);
    t.equal(upstream.connections.length, 0);
  },
);

e2e('a client that leaves while its long body is on the way cuts the upstream off', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url, limiter: 'gate' }, { ...one, listener: { bodyBufferBytes: 1024 } });
  const client = await rig.client(proxy);
  client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n').send(Buffer.alloc(5000));
  const request = await upstream.request(0);
  await until('bytes of the body', () => request.bodyBytes >= 5000);
  client.reset();
  await until('the upstream is cut off', () => request.connection.left, 500);
  await proxy.idle(500);
  t.notOk(request.complete, 'the upstream does not take the body for whole');
  t.equal(proxy.upstream().failures.client_gone, 1);
});

e2e('a client that leaves while its connection is being opened frees its place at once', async (t, rig) => {
  const silent = await rig.upstream(() => {});
  const proxy = await rig.one(
    { url: `https://127.0.0.1:${silent.port}`, limiter: 'gate', timeouts: { connectMs: 700 } },
    one,
  );
  const client = await rig.sent(proxy, '/ai/x');
  await until('it is connecting', () => proxy.pool().connecting === 1);
  client.halfClose();
  await until(
    'its place is free',
    () => proxy.limiter('gate').in_flight === 0 && proxy.upstream().in_flight === 0,
    300,
  );
  t.equal(proxy.upstream().failures.client_gone, 1);
  await until('the opening has ended', () => proxy.pool().connecting === 0, 2000);
  t.equal(proxy.upstream().failures.connect_timeout, undefined, 'nobody was left to fail');
});

for (const leave of ['halfClose', 'reset'] as const) {
  e2e(
    `a client that leaves (${leave}) while its answer is held back by its own slow reading cancels the upstream`,
    async (t, rig) => {
      const upstream = await rig.upstream((_request, connection) => {
        connection.send('HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n');
        const flood = () => {
          while (!connection.socket.destroyed && connection.socket.write(Buffer.alloc(65536)));
        };
        connection.socket.on('drain', flood);
        flood();
      });
      const proxy = await rig.one({ url: upstream.url });
      const client = await rig.sent(proxy, '/ai/x');
      await client.head();
      client.pause();
      await until('the upstream is paused', () => upstream.connections[0]!.socket.writableNeedDrain);
      client[leave]();
      await until('the upstream is cancelled', () => upstream.connections[0]!.left, 1000);
      await proxy.idle(1000);
      t.equal(proxy.upstream().failures.client_gone, 1);
    },
  );
}

e2e('the connection that was being opened for a client that left serves the next one', async (t, rig) => {
  const certificate = makeCertificate({ names: ['127.0.0.1'] });
  const context = createSecureContext(certificate);
  const requests: string[] = [];
  const server = createServer((socket) => {
    // The handshake begins once the client has had the time to leave.
    setTimeout(() => {
      const secure = new TLSSocket(socket, { isServer: true, secureContext: context });
      secure.on('error', () => {});
      secure.on('data', (bytes) => {
        requests.push(bytes.toString().split(' ')[1]!);
        secure.write(answer());
      });
    }, 200);
  });
  server.listen(0, '127.0.0.1');
  await until('listening', () => server.listening);
  rig.closes({ close: () => new Promise((resolve) => server.close(() => resolve())) });
  const { port } = server.address() as AddressInfo;
  const proxy = await rig.one({ url: `https://127.0.0.1:${port}`, tls: { ca: certificate.cert } });
  const client = await rig.sent(proxy, '/ai/left', { method: 'POST', body: 'pay' });
  await until('it is connecting', () => proxy.pool().connecting === 1);
  client.reset();
  await until('it is opened all the same, and idle', () => proxy.pool().idle === 1);
  t.equal((await rig.ask(proxy, '/ai/next')).status, 200);
  t.match(proxy.pool(), { opened: 1, closed: 0, reused: 1 });
  t.same(requests, ['/next'], 'what had left was never sent');
});

for (const [kind, head, last] of [
  ['chunked', chunkedHead(), LAST_CHUNK],
  ['of declared length', 'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n', 'lastbyte!'],
  ['ended by its close', 'HTTP/1.1 200 OK\r\n\r\n', ''],
] as const) {
  e2e(`a permit is held until the last byte of an answer ${kind}`, async (t, rig) => {
    const upstream = await rig.upstream((request, connection) => {
      if (request.target === '/slow') connection.send(head);
      else connection.send(answer());
    });
    const proxy = await rig.one({ url: upstream.url, limiter: 'gate' }, one);
    const first = await rig.sent(proxy, '/ai/slow');
    t.equal((await first.head()).status, 200);
    const second = await rig.sent(proxy, '/ai/second');
    await until('the second is queued', () => proxy.limiter('gate').queued === 1);
    await whileNothing(50);
    t.equal(upstream.requests.length, 1, 'the second waits while the answer of the first is under way');
    t.equal(proxy.limiter('gate').in_flight, 1);
    const { connection } = upstream.requests[0]!;
    if (last === '') connection.end();
    else connection.send(last);
    t.equal((await first.rest()).ending, 'clean');
    t.equal((await second.answer()).status, 200);
    t.equal(proxy.limiter('gate').peak_in_flight, 1);
  });
}

e2e('a permit comes back on every path', async (t, rig) => {
  const scripts: Record<string, Script> = {
    success: (_request, connection) => connection.send(answer()),
    empty: (_request, connection) => connection.send(answer('')),
    'no content': (_request, connection) => connection.send('HTTP/1.1 204 No Content\r\n\r\n'),
    'not modified': (_request, connection) => connection.send('HTTP/1.1 304 Not Modified\r\netag: "x"\r\n\r\n'),
    '500': (_request, connection) => connection.send(answer('oh', '', '500 Internal Server Error')),
    reset: (_request, connection) => connection.resetAndDestroy(),
    fin: (_request, connection) => connection.end(),
    junk: (_request, connection) => connection.send('SSH-2.0-OpenSSH_9.7\r\n\r\n'),
    'bad chunk': (_request, connection) => connection.send(`${chunkedHead()}zz\r\n`),
    cut: (_request, connection) => connection.send('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx').end(),
    'reset within': (_request, connection) => {
      connection.send(`${chunkedHead()}5\r\nab`);
      setImmediate(() => connection.resetAndDestroy());
    },
    'closes after': (_request, connection) => connection.send(answer('bye', 'connection: close\r\n')).end(),
    silence: () => {},
    stall: (_request, connection) => connection.send(`${chunkedHead()}5\r\nab`),
  };
  const upstream = await rig.upstream();
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'gate', timeouts: { headersMs: 100, idleMs: 100 }, pool: { connections: 1 } },
    one,
  );
  for (const [name, script] of Object.entries(scripts)) {
    for (const method of ['GET', 'POST']) {
      upstream.script = script;
      const client = await rig.client(proxy);
      client.send(requestText('/ai/x', method === 'POST' ? { method, body: 'hello' } : {}));
      await client.answer().catch(() => {});
      client.destroy();
      await proxy.idle(1000);
      upstream.script = (_request, connection) => connection.send(answer());
      t.equal(
        (await rig.ask(proxy, '/ai/next')).status,
        200,
        `after ${name} (${method}) the only permit and connection are free`,
      );
    }
  }
});

e2e('the permit of a stream comes back in the middle of a queue of leavers', async (t, rig) => {
  const upstream = await rig.upstream(stuckOnSlow);
  const proxy = await rig.one({ url: upstream.url, limiter: 'gate' }, one);
  const first = await rig.sent(proxy, '/ai/slow');
  await upstream.request(0);
  const waiting = [];
  for (let i = 0; i < 20; i++) {
    waiting.push(await rig.sent(proxy, `/ai/${i}`));
    await until('queued', () => proxy.limiter('gate').queued === i + 1);
  }
  for (let i = 0; i < 20; i += 2) waiting[i]!.reset();
  await until('the even ones have left', () => proxy.limiter('gate').queued === 10, 1000);
  first.reset();
  for (let i = 1; i < 20; i += 2) t.equal((await waiting[i]!.answer()).status, 200);
  t.same(
    upstream.requests.map((request) => request.target),
    ['/slow', ...Array.from({ length: 10 }, (_, i) => `/${2 * i + 1}`)],
    'the rest ran in the order of arrival',
  );
});

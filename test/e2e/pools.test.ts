// Pools: as many sockets as configured, used LIFO, kept warm, closed for a reason that is counted.

import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

e2e('500 requests at once go through 10 connections with exactly 10 sockets', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    await until('490 wait', () => proxy.stats().limiters['ai (pool)']!.peak_queued === 490, 9000);
    connection.send(answer(request.target));
  });
  const proxy = await rig.one({ url: upstream.url, pool: { connections: 10 } });
  const answers = await Promise.all(
    Array.from({ length: 500 }, (_, i) => rig.ask(proxy, `/ai/${i}`, { method: 'POST', body: 'x' })),
  );
  t.ok(answers.every((got, i) => got.status === 200 && got.body.toString() === `/${i}`));
  t.equal(upstream.connections.length, 10);
  t.equal(upstream.maxConcurrent, 10);
  t.ok(
    upstream.connections.every(({ requests }) => requests.every((request) => request.complete)),
    'no request was pipelined behind another',
  );
  await proxy.idle();
  const pool = proxy.pool();
  t.match(pool, { max: 10, idle: 10, active: 0, opened: 10, closed: 0, reused: 490, reuse_rate: 0.98 });
  t.ok(pool.saved_ms >= 0 && pool.connect_ms.count === 10);
  t.equal(proxy.stats().limiters['ai (pool)']!.peak_queued, 490);
});

e2e('connections are reused last in, first out', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    await until('three at once', () => upstream.requests.length >= 3);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url });
  await Promise.all([rig.ask(proxy, '/ai/a'), rig.ask(proxy, '/ai/b'), rig.ask(proxy, '/ai/c')]);
  await until('three are idle', () => proxy.pool().idle === 3);
  await rig.ask(proxy, '/ai/first');
  const { index } = upstream.requests[3]!.connection;
  for (let i = 0; i < 5; i++) {
    await until('idle again', () => proxy.pool().idle === 3);
    await rig.ask(proxy, '/ai/next');
    t.equal(upstream.requests.at(-1)!.connection.index, index, 'the one that came back last');
  }
});

for (const [method, head] of [
  ['HEAD', 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n'],
  ['DELETE', 'HTTP/1.1 204 No Content\r\n\r\n'],
  ['POST', answer()],
] as const) {
  e2e(`50 × ${method} use one socket`, async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => connection.send(head));
    const proxy = await rig.one({ url: upstream.url });
    const client = await rig.client(proxy);
    for (let i = 0; i < 50; i++) {
      client.send(`${method} /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n`);
      await client.answer(method === 'HEAD');
    }
    t.equal(upstream.connections.length, 1);
    t.equal(proxy.pool().reused, 49);
  });
}

e2e('idle connections are closed after idle_timeout', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, pool: { idleTimeoutMs: 400 } });
  await rig.ask(proxy, '/ai/x');
  await until('idle', () => proxy.pool().idle === 1);
  const since = performance.now();
  await until('closed', () => upstream.connections[0]!.left, 3000);
  const took = performance.now() - since;
  t.ok(took > 350 && took < 2000, `after ${took} ms`);
  await until('counted', () => proxy.pool().closed_by.idle_timeout === 1);
});

e2e("a server's Keep-Alive hint is honoured less a second", async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) =>
    connection.send(answer('ok', 'keep-alive: timeout=2\r\n')),
  );
  const proxy = await rig.one({ url: upstream.url, pool: { idleTimeoutMs: 30_000 } });
  await rig.ask(proxy, '/ai/x');
  await until('idle', () => proxy.pool().idle === 1);
  const since = performance.now();
  await until('closed before the server would', () => upstream.connections[0]!.left, 2500);
  t.ok(performance.now() - since < 2000);
});

e2e('connections older than max_lifetime are not used again', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, pool: { maxLifetimeMs: 100 } }, { maintenanceMs: 50 });
  await rig.ask(proxy, '/ai/x');
  await until('closed by the maintenance', () => proxy.pool().closed_by.lifetime === 1, 2000);
  await until('the upstream has seen it', () => upstream.connections[0]!.left);
  upstream.script = async (_request, connection) => {
    await whileNothing(150);
    connection.send(answer());
  };
  await rig.ask(proxy, '/ai/y');
  await until('closed right after the answer', () => proxy.pool().closed_by.lifetime === 2);
  t.equal(upstream.connections.length, 2);
});

e2e('lifetimes differ by up to 20 %', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, pool: { maxLifetimeMs: 1000, warm: 20 } }, { maintenanceMs: 10 });
  await until('20 are open', () => upstream.connections.length >= 20);
  const first = upstream.connections.slice(0, 20);
  await until('all have ended', () => first.every(({ left }) => left), 3000);
  const ages = first.map(({ openedAt, leftAt }) => leftAt - openedAt);
  t.ok(Math.min(...ages) > 750 && Math.max(...ages) < 1350, `${Math.min(...ages)}..${Math.max(...ages)}`);
  t.ok(Math.max(...ages) - Math.min(...ages) > 50, 'they do not end together');
  void proxy;
});

e2e('a connection carries max_requests requests', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, pool: { maxRequests: 3 } });
  for (let i = 0; i < 7; i++) {
    t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
    await proxy.idle();
  }
  t.same(
    upstream.connections.map(({ requests }) => requests.length),
    [3, 3, 1],
  );
  await until('counted', () => proxy.pool().closed_by.max_requests === 2);
});

e2e('what a burst left over is closed by the maintenance, down to keepalive', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    await until('eight at once', () => upstream.requests.length >= 8);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url, pool: { connections: 8, keepalive: 3 } }, { maintenanceMs: 150 });
  await Promise.all(Array.from({ length: 8 }, (_, i) => rig.ask(proxy, `/ai/${i}`)));
  await until('the surplus is gone', () => proxy.pool().idle === 3);
  t.same(proxy.pool().closed_by, { surplus: 5 });
  await whileNothing(200);
  t.equal(proxy.pool().idle, 3);
});

e2e(
  'warm connections are there before the first request, without a byte sent, and again after a close',
  async (t, rig) => {
    const upstream = await rig.upstream();
    const proxy = await rig.one({ url: upstream.url, pool: { warm: 3 } });
    await until('three are warm', () => proxy.pool().idle === 3);
    t.equal(upstream.connections.length, 3);
    t.ok(upstream.connections.every(({ bytes }) => bytes === 0));
    t.equal(proxy.pool().reuse_rate, null, 'before the first request there is no rate');
    await rig.ask(proxy, '/ai/x');
    t.equal(upstream.connections.length, 3);
    t.match(proxy.pool(), { reused: 1, reuse_rate: 1, opened: 3 });
    t.match(proxy.exchanges[0], { reused: true });
    upstream.connections[1]!.end();
    await until('another is warm', () => upstream.connections.length === 4 && proxy.pool().idle === 3);
    t.equal(upstream.connections[3]!.bytes, 0);
  },
);

e2e('warming goes on trying, slower and slower, while nobody listens', async (t, rig) => {
  const upstream = await rig.upstream();
  const { url } = upstream;
  await upstream.close();
  const proxy = await rig.one({ url, pool: { warm: 2 } });
  await until('it has failed', () => proxy.pool().connect_failed >= 2);
  const failed = proxy.pool().connect_failed;
  await whileNothing(300);
  t.ok(proxy.pool().connect_failed - failed <= 2, 'no storm of openings');
});

e2e('Connection: close of an upstream closes, and is counted as its wish', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) =>
    connection.send(answer('bye', 'connection: close\r\n')),
  );
  const proxy = await rig.one({ url: upstream.url });
  for (let i = 0; i < 3; i++) {
    t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'bye');
    await proxy.idle();
  }
  t.equal(upstream.connections.length, 3);
  await until('counted', () => proxy.pool().closed_by.upstream_asked === 3);
  t.equal(proxy.pool().reused, 0);
});

e2e('why connections were closed is counted: by the upstream, aborted, unexpected bytes, shutdown', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, pool: { connections: 4 } });
  await rig.ask(proxy, '/ai/x');
  await until('idle', () => proxy.pool().idle === 1);
  upstream.connections[0]!.end();
  await until('by the upstream', () => proxy.pool().closed_by.upstream === 1);
  upstream.script = (_request, connection) => connection.send(chunkedHead());
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  client.reset();
  await until('aborted', () => proxy.pool().closed_by.aborted === 1);
  upstream.script = (_request, connection) => connection.send(`${chunkedHead()}${LAST_CHUNK}`);
  await rig.ask(proxy, '/ai/x');
  await until('idle', () => proxy.pool().idle === 1);
  await proxy.stop();
  t.same(proxy.pool().closed_by, { upstream: 1, aborted: 1, shutdown: 1 });
});

e2e(
  'bypass paths pass while the limiter is busy and all connections are taken, and know no deadline',
  async (t, rig) => {
    const upstream = await rig.upstream(async (request, connection) => {
      if (request.target === '/slow') return;
      await whileNothing(request.target === '/health?slow' ? 300 : 0);
      connection.send(answer(request.target));
    });
    const proxy = await rig.one(
      {
        url: upstream.url,
        limiter: 'gate',
        pool: { connections: 1 },
        bypass: ['/health', '/static/*'],
        timeouts: { headersMs: 150, idleMs: 150, totalMs: 400, firstEventMs: 250 },
      },
      { limiters: { gate: { maxConcurrent: 1 } } },
    );
    const stuck = await rig.sent(proxy, '/ai/slow');
    await upstream.request(0);
    for (const path of ['/health', '/health?slow', '/static/a/b.css']) {
      const got = await rig.ask(proxy, `/ai${path}`);
      t.equal(got.status, 200, path);
      t.equal(got.body.toString(), path);
    }
    t.ok(upstream.maxConcurrent >= 1);
    t.match(proxy.limiter('gate'), { in_flight: 0, granted: 1 });
    t.equal((await stuck.answer()).code, 'headers_timeout');
    t.equal((await rig.ask(proxy, '/ai/healthy')).status, 200, 'another path is no bypass');
    t.equal(proxy.limiter('gate').granted, 2);
  },
);

e2e('bypass requests have two connections of their own, and wait when those are busy', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    await whileNothing(30);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url, pool: { connections: 2 }, bypass: ['/health'] });
  const asks = Array.from({ length: 20 }, () => rig.ask(proxy, '/ai/health'));
  for (const got of await Promise.all(asks)) t.equal(got.status, 200);
  t.ok(upstream.connections.length <= 4);
});

e2e('a regular request is not starved by bypass requests', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    await whileNothing(10);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url, pool: { connections: 1 }, bypass: ['/health'] });
  const flood = Array.from({ length: 60 }, () => rig.ask(proxy, '/ai/health'));
  const regular = await rig.ask(proxy, '/ai/x');
  t.equal(regular.status, 200);
  await Promise.all(flood);
});

e2e('who waits for a connection that retires as it comes free gets a new one', async (t, rig) => {
  const upstream = await rig.http((_request, response) => {
    setTimeout(() => response.end('ok'), 20);
  });
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai', pool: { connections: 5, maxLifetimeMs: 50 } },
    { limiters: { ai: { maxConcurrent: 1 } } },
  );
  const clients = await Promise.all(Array.from({ length: 8 }, () => rig.sent(proxy, '/ai/x')));
  for (const client of clients) t.equal((await client.answer()).status, 200);
});

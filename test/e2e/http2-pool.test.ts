// HTTP/2 to the upstream: how many connections there are, and how many streams on each of them.

import { type AddressInfo, createServer } from 'node:net';
import { createSecureContext, TLSSocket } from 'node:tls';
import {
  data,
  END_STREAM,
  FRAME,
  FrameUpstream,
  headers,
  MAX_STREAMS,
  reset,
  settings,
} from '../support/http2-frames.ts';
import { HTTP2_CA, HTTP2_TLS, http2Proxy, reply, http2Scene as scene } from '../support/http2-upstream.ts';
import type { TestProxy } from '../support/proxy.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

const REFUSED_STREAM = 7;
const times = (n: number) => Array.from({ length: n }, (_, i) => i);
const all = (rig: Rig, proxy: TestProxy, n: number, method = 'GET') =>
  Promise.all(times(n).map((i) => rig.ask(proxy, `/ai/${i}`, method === 'POST' ? { method, body: `${i}` } : {})));

e2e(
  '1 000 requests at once, 10 streams a connection: 50 connections, 500 in flight, none lost or refused',
  async (t, rig) => {
    t.setTimeout(60_000);
    const perSession = new Map<unknown, number>();
    let most = 0;
    const { server, proxy } = await scene(
      rig,
      async ({ path, stream, session }) => {
        const open = (perSession.get(session) ?? 0) + 1;
        perSession.set(session, open);
        most = Math.max(most, open);
        await until('500 are under way', () => server.mostOpen >= 500, 20_000);
        perSession.set(session, perSession.get(session)! - 1);
        reply(stream, path);
      },
      { pool: { connections: 50, keepalive: 50 } },
      { settings: { maxConcurrentStreams: 10 } },
    );
    const answers = await all(rig, proxy, 1000);
    t.ok(answers.every((got, i) => got.status === 200 && got.body.toString() === `/${i}`));
    t.equal(most, 10, 'never more than 10 on one connection');
    t.equal(server.sessions.length, 50);
    t.equal(server.requests.length, 1000, 'none was refused and sent again');
    t.equal(server.mostOpen, 500);
    await proxy.idle();
    t.match(proxy.pool(), { opened: 50, active: 0, idle: 50, protocol: 'h2', streams: { open: 0, max: 500 } });
    t.equal(proxy.limiter('ai (pool)').max_concurrent, null);
  },
);

e2e('250 requests at once, 100 streams a connection: 3 connections', async (t, rig) => {
  const { server, proxy } = await scene(rig, async ({ stream }) => {
    await until('all are under way', () => server.mostOpen >= 250, 9000);
    reply(stream);
  });
  const answers = await all(rig, proxy, 250, 'POST');
  t.ok(answers.every(({ status }) => status === 200));
  t.equal(server.sessions.length, 3);
  await proxy.idle();
  await all(rig, proxy, 20);
  t.equal(server.sessions.length, 3);
  t.equal(server.sessions.filter((session) => server.requests.slice(250).some((r) => r.session === session)).length, 1);
});

e2e('max_streams bounds a connection where the peer would take more, or says nothing', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    async ({ stream }) => {
      await until('all are under way', () => server.mostOpen >= 9, 5000);
      reply(stream);
    },
    { http2: { maxStreams: 3 } },
  );
  await all(rig, proxy, 9);
  t.equal(server.sessions.length, 3);
  t.equal(proxy.pool().streams.max, 150);
});

e2e('what fits no more waits in the one queue, in its order', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    async ({ stream }) => {
      await until(
        'the others wait',
        () => proxy.limiter('ai (pool)').peak_queued >= 16 || proxy.limiter('ai (pool)').queued === 0,
      );
      reply(stream);
    },
    { pool: { connections: 2 }, http2: { maxStreams: 2 } },
  );
  const answers = await all(rig, proxy, 20);
  t.ok(answers.every(({ status }) => status === 200));
  t.equal(server.mostOpen, 4);
  t.equal(server.sessions.length, 2);
  t.equal(proxy.limiter('ai (pool)').queued, 0);
});

e2e('a server that speaks HTTP/1 only is served over HTTP/1', async (t, rig) => {
  const upstream = await rig.upstream(
    async (request, connection) => {
      await until('all are there', () => upstream.maxConcurrent >= 8, 5000);
      connection.send(answer(request.target));
    },
    { tls: { ...HTTP2_TLS, ALPNProtocols: ['http/1.1'] } },
  );
  const proxy = await http2Proxy(rig, upstream.url, { pool: { connections: 8 } });
  const answers = await all(rig, proxy, 20);
  t.ok(answers.every((got, i) => got.status === 200 && got.body.toString() === `/${i}`));
  t.equal(upstream.connections.length, 8);
  t.equal((upstream.connections[0]!.socket as TLSSocket).alpnProtocol, 'http/1.1');
  t.match(proxy.pool(), { protocol: 'h1', streams: { open: 0, max: 0 }, opened: 8 });
});

e2e('when the first opening tells that it is HTTP/1, all who wait for it get theirs', async (t, rig) => {
  const context = createSecureContext(HTTP2_TLS);
  let accepted = 0;
  let openings = 0;
  const server = createServer((socket) => {
    accepted++;
    socket.on('error', () => {});
    const shake = () => {
      const secure = new TLSSocket(socket, { isServer: true, secureContext: context, ALPNProtocols: ['http/1.1'] });
      secure.on('error', () => {});
      secure.on('data', async () => {
        await until('all have theirs', () => accepted === 6);
        secure.write(answer());
      });
    };
    const allWait = () => proxy.upstream().in_flight === 6;
    if (accepted > 1) shake();
    else
      void until('all wait', allWait).then(() => {
        openings = proxy.pool().connecting;
        shake();
      });
  });
  server.listen(0, '127.0.0.1');
  await until('listening', () => server.listening);
  rig.closes({ close: () => new Promise((resolve) => server.close(() => resolve())) });
  const proxy = await http2Proxy(rig, `https://127.0.0.1:${(server.address() as AddressInfo).port}`);
  t.ok((await all(rig, proxy, 6)).every(({ status }) => status === 200));
  t.equal(openings, 1, 'one opening is to tell');
  t.equal(accepted, 6);
});

e2e('without http2 it is not even offered', async (t, rig) => {
  const upstream = await rig.http((_request, response) => response.end('one'), {
    ...HTTP2_TLS,
    ALPNProtocols: ['h2', 'http/1.1'],
  });
  const proxy = await rig.one({ url: upstream.url, tls: { ca: HTTP2_CA } });
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'one');
  t.equal(proxy.pool().protocol, 'h1');
});

e2e('the first connection waits for what the server says, the next ones know', async (t, rig) => {
  const server = await FrameUpstream.start({
    opened: (connection, index) => {
      if (index === 0) setTimeout(() => connection.send(settings([MAX_STREAMS, 1])), 150);
    },
  });
  rig.closes(server);
  const proxy = await http2Proxy(rig, server.url);
  const clients = [await rig.sent(proxy, '/ai/1'), await rig.sent(proxy, '/ai/2')];
  await until('it is connected', () => server.connections.length === 1);
  await whileNothing(80);
  t.same(server.connections[0]!.streams, [], 'no stream before the server has said how many it takes');
  await until('both are under way', () => server.connections.flatMap(({ streams }) => streams).length === 2);
  t.same(
    server.connections.map(({ streams }) => streams),
    [[1], [1]],
    'the second connection is used though its server has said nothing yet',
  );
  for (const client of clients) client.destroy();
});

e2e('those who have waited for a connection to open do not count as having saved that', async (t, rig) => {
  const server = await FrameUpstream.start({
    opened: (connection) => {
      void until('three wait', () => proxy.upstream().in_flight === 3).then(() =>
        connection.send(settings([MAX_STREAMS, 9])),
      );
    },
  });
  rig.closes(server);
  const proxy = await http2Proxy(rig, server.url);
  const clients = [await rig.sent(proxy, '/ai/1'), await rig.sent(proxy, '/ai/2'), await rig.sent(proxy, '/ai/3')];
  await until('all are under way', () => proxy.pool().streams.open === 3);
  t.equal(proxy.pool().reused, 0);
  clients.push(await rig.sent(proxy, '/ai/4'));
  await until('one more', () => proxy.pool().streams.open === 4);
  t.equal(proxy.pool().reused, 1);
  for (const client of clients) client.destroy();
});

e2e('a server that says nothing at all is 504 connect_timeout, or 502 when it closes', async (t, rig) => {
  const server = await FrameUpstream.start({
    opened: (connection, index) => {
      if (index > 0) connection.socket.end();
    },
  });
  rig.closes(server);
  const proxy = await http2Proxy(rig, server.url, { timeouts: { connectMs: 200 } });
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'connect_timeout');
  const got = await Promise.all([rig.ask(proxy, '/ai/y'), rig.ask(proxy, '/ai/z')]);
  t.same(
    got.map(({ code }) => code),
    ['connect_failed', 'connect_failed'],
  );
  t.ok(server.connections.length <= 5, `${server.connections.length} connections`);
  t.equal(server.connections.flatMap(({ streams }) => streams).length, 0);
});

e2e('what the server says later counts: fewer, more, none', async (t, rig) => {
  const server = await FrameUpstream.start({
    opened: (connection) => connection.send(settings([MAX_STREAMS, 3])),
  });
  rig.closes(server);
  const proxy = await http2Proxy(rig, server.url, { pool: { connections: 1 }, timeouts: { connectMs: 400 } });
  const count = () => server.connections[0]!.streams.length;
  const clients = [];
  for (const i of times(4)) clients.push(await rig.sent(proxy, `/ai/${i}`));
  await until('three are under way', () => server.connections[0] && count() === 3);
  await whileNothing(50);
  t.equal(count(), 3);
  server.connections[0]!.send(settings([MAX_STREAMS, 5]));
  await until('the fourth may go', () => count() === 4);
  server.connections[0]!.send(settings([MAX_STREAMS, 2]));
  await until('it is known', () => proxy.pool().streams.max === 2);
  clients[0]!.reset();
  clients[1]!.reset();
  await until('two are left', () => proxy.pool().streams.open === 2);
  clients.push(await rig.sent(proxy, '/ai/late'));
  await whileNothing(50);
  t.equal(count(), 4, 'nothing goes out while there are as many as it takes');
  server.connections[0]!.send(settings([MAX_STREAMS, 0]));
  await until('it is known', () => proxy.pool().streams.max === 1);
  clients[2]!.reset();
  clients[3]!.reset();
  const got = await clients[4]!.answer();
  t.equal(got.status, 504, 'it takes none, and the pool may have no other connection');
  t.match(got.code, /connect_timeout/);
  for (const client of clients) client.destroy();
});

e2e('a server that takes no streams yet is sent none, on whatever connection', async (t, rig) => {
  let takes = 0;
  let unwanted = 0;
  const server = await FrameUpstream.start({
    opened: (connection) => connection.send(settings([MAX_STREAMS, takes])),
    request: (id, connection) => {
      if (takes === 0 && ++unwanted) connection.send(reset(id, REFUSED_STREAM));
      else connection.send(headers(id, [':status', '200']), data(id, 'ok', END_STREAM));
    },
  });
  rig.closes(server);
  const proxy = await http2Proxy(rig, server.url, { pool: { connections: 3 } });
  const asked = all(rig, proxy, 9, 'POST');
  await until('all connections it may have', () => proxy.pool().idle === 3);
  takes = 1;
  for (const connection of server.connections) connection.send(settings([MAX_STREAMS, takes]));
  t.ok((await asked).every(({ status }) => status === 200));
  t.equal(server.connections.length, 3);
  t.equal(unwanted, 0);
});

e2e('idle connections are closed after idle_timeout, and a used one is not', async (t, rig) => {
  const { server, proxy } = await scene(rig, ({ stream }) => reply(stream), { pool: { idleTimeoutMs: 300 } });
  for (const _ of times(5)) {
    await rig.ask(proxy, '/ai/x');
    await whileNothing(100);
  }
  t.equal(server.sessions.length, 1);
  await until('closed', () => server.up.length === 0, 2000);
  await until('counted', () => proxy.pool().closed_by.idle_timeout === 1);
});

e2e('a connection past max_lifetime takes no more streams and ends with its last', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    ({ path, stream }) => {
      if (path !== '/slow') reply(stream);
    },
    { pool: { maxLifetimeMs: 100 } },
  );
  const slow = await rig.sent(proxy, '/ai/slow');
  await until('it is there', () => server.requests.length === 1);
  await whileNothing(150);
  t.equal((await rig.ask(proxy, '/ai/next')).status, 200);
  t.equal(server.sessions.length, 2);
  t.equal(server.sessions[0]!.destroyed, false, 'the first is still up');
  t.same(proxy.pool().closed_by, {});
  reply(server.requests[0]!.stream);
  t.equal((await slow.answer()).status, 200);
  await until('it is closed', () => proxy.pool().closed_by.lifetime === 1);
});

e2e('an idle connection past max_lifetime is closed by the maintenance', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    ({ stream }) => reply(stream),
    { pool: { maxLifetimeMs: 100 } },
    {},
    { maintenanceMs: 50 },
  );
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  await until('it is closed', () => proxy.pool().closed_by.lifetime === 1 && server.up.length === 0);
});

e2e('a connection carries max_requests requests', async (t, rig) => {
  const { server, proxy } = await scene(rig, ({ stream }) => reply(stream), { pool: { maxRequests: 3 } });
  for (const _ of times(7)) t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.equal(server.sessions.length, 3);
  await until('counted', () => proxy.pool().closed_by.max_requests === 2);
  t.ok((await all(rig, proxy, 20)).every(({ status }) => status === 200));
});

e2e('warm connections have said how many streams they take, and a burst leaves keepalive of them', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    async ({ stream }) => {
      await until('all are there', () => server.mostOpen >= 6, 5000);
      reply(stream);
    },
    { pool: { warm: 2, keepalive: 2 }, http2: { maxStreams: 1 } },
    {},
    { maintenanceMs: 50 },
  );
  await until('two are warm', () => proxy.pool().idle === 2);
  await all(rig, proxy, 6);
  t.equal(proxy.pool().opened, 6);
  await until('the rest is closed', () => proxy.pool().closed_by.surplus === 4 && proxy.pool().idle === 2, 3000);
  t.equal(proxy.pool().reused, 2);
});

e2e('a dead connection is found by a PING and not used for ever', async (t, rig) => {
  t.setTimeout(60_000);
  const server = await FrameUpstream.start({
    opened: (connection) => connection.send(settings([MAX_STREAMS, 10])),
  });
  rig.closes(server);
  const proxy = await http2Proxy(rig, server.url, { timeouts: { headersMs: 100 }, pool: { warm: 1 } });
  await until('it has said all it will say', () => server.connections[0]?.of(FRAME.SETTINGS).length === 2);
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'headers_timeout');
  await until('a PING', () => server.connections[0]!.of(FRAME.PING).length === 1);
  await until('its stream is cancelled', () => server.connections[0]!.of(FRAME.RST_STREAM).length === 1);
  t.equal((await rig.ask(proxy, '/ai/y', { method: 'POST', body: 'x' })).code, 'headers_timeout');
  await until('nobody answered it', () => server.connections[0]!.closed, 9000);
  t.equal(server.connections[0]!.of(FRAME.PING).length, 1);
  await until('counted', () => proxy.pool().closed_by.error === 1);
});

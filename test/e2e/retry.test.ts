// Behaviour 5 of DESIGN.md: what was never written is retried once, any method; what was written is sent again only when that is safe.

import { createServer } from 'node:net';
import type { Rig } from '../support/rig.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, type Script } from '../support/upstream.ts';

/** A proxy whose only connection was used once and is idle; then the script for what follows takes over. */
async function afterOneRequest(rig: Rig, then: Script, overrides: { replay?: string[] } = {}) {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, ...overrides });
  await rig.ask(proxy, '/ai/first');
  await until('the connection is idle', () => proxy.pool().idle === 1);
  upstream.script = then;
  return { upstream, proxy };
}

/** Resets the used connection when a request comes on it; answers on any other. */
const resetsUsed: Script = (_request, connection) => {
  if (connection.index === 0) connection.resetAndDestroy();
  else connection.send(answer('fresh'));
};

e2e('an idle connection that the upstream has closed is never used, for no method', async (t, rig) => {
  for (const end of ['end', 'resetAndDestroy'] as const) {
    const { upstream, proxy } = await afterOneRequest(rig, (_request, connection) => connection.send(answer('fresh')));
    upstream.connections[0]![end]();
    await until('the pool has seen it', () => proxy.pool().idle === 0);
    const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'pay' });
    t.equal(got.body.toString(), 'fresh');
    t.equal(upstream.requests.length, 2);
    t.equal(proxy.upstream().retries, 0);
  }
});

e2e(
  'a POST that meets the close of its idle connection before it is written goes out on a fresh one',
  async (t, rig) => {
    // Many rounds: FIN and POST cross in one turn of the loop, in either order.
    const upstream = await rig.upstream();
    const proxy = await rig.one({ url: upstream.url });
    let failed = 0;
    for (let round = 0; round < 30; round++) {
      await rig.ask(proxy, '/ai/first');
      await until('the connection is idle', () => proxy.pool().idle === 1);
      const used = upstream.connections.at(-1)!;
      const client = await rig.client(proxy);
      used.end();
      client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\npay');
      const got = await client.answer();
      if (got.status === 200) continue;
      // It was written before the FIN was seen: then it is not sent again.
      t.equal(got.code, 'upstream_reset');
      failed++;
    }
    t.ok(failed < 30, `${failed} of 30 were written before the FIN was seen`);
    t.ok(proxy.upstream().status['200']! >= 30);
  },
);

for (const method of ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']) {
  e2e(
    `a ${method} on a reused connection that is reset before any byte of an answer is sent again, once`,
    async (t, rig) => {
      const { upstream, proxy } = await afterOneRequest(rig, resetsUsed);
      const got = await rig.ask(proxy, '/ai/x', { method, ...(method === 'PUT' ? { body: 'x' } : {}) });
      t.equal(got.status, 200);
      t.equal(upstream.requests.length, 3);
      t.equal(proxy.upstream().retries, 1);
      await proxy.idle();
      t.match(proxy.exchanges[1], { attempts: 2, reused: false, status: 200, failure: null });
    },
  );
}

for (const method of ['POST', 'PATCH']) {
  e2e(`a ${method} on a reused connection that is reset after it was written is never sent twice`, async (t, rig) => {
    const { upstream, proxy } = await afterOneRequest(rig, resetsUsed);
    const got = await rig.ask(proxy, '/ai/x', { method, body: 'pay' });
    t.equal(got.status, 502);
    t.equal(got.code, 'upstream_reset');
    t.equal(got.get('x-should-retry'), 'false');
    t.equal(upstream.requests.length, 2);
    t.equal(proxy.upstream().retries, 0);
  });
}

e2e('a POST to a path that says replay is sent again with its whole body', async (t, rig) => {
  const { upstream, proxy } = await afterOneRequest(rig, resetsUsed, { replay: ['/v1/embeddings'] });
  const got = await rig.ask(proxy, '/ai/v1/embeddings?x=1', { method: 'POST', body: 'the whole body' });
  t.equal(got.body.toString(), 'fresh');
  t.equal(upstream.requests.length, 3);
  t.equal(upstream.requests[2]!.body.toString(), 'the whole body');
});

e2e('a reset after the first byte of an answer is not retried, whatever the method', async (t, rig) => {
  const { upstream, proxy } = await afterOneRequest(rig, (_request, connection) => {
    connection.send('HTTP/1.1 200');
    setTimeout(() => connection.resetAndDestroy(), 20);
  });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.status, 502);
  t.equal(upstream.requests.length, 2);
});

e2e('a GET on a fresh connection that is reset is not sent again', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.resetAndDestroy());
  const proxy = await rig.one({ url: upstream.url });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.code, 'upstream_reset');
  t.equal(upstream.requests.length, 1);
});

e2e('the second attempt takes no idle connection: they may all be dead', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await until('both', () => upstream.requests.length >= 2);
    connection.send(answer());
    void request;
  });
  const proxy = await rig.one({ url: upstream.url });
  await Promise.all([rig.ask(proxy, '/ai/a'), rig.ask(proxy, '/ai/b')]);
  await until('two are idle', () => proxy.pool().idle === 2);
  upstream.script = (_request, connection) => {
    if (connection.index < 2) connection.resetAndDestroy();
    else connection.send(answer('fresh'));
  };
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'fresh');
  t.equal(upstream.requests.length, 4);
});

e2e('a streamed body is never sent twice, not even on a replay path', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, replay: ['/*'] }, { listener: { bodyBufferBytes: 1024 } });
  await rig.ask(proxy, '/ai/first');
  await until('the connection is idle', () => proxy.pool().idle === 1);
  upstream.script = (_request, connection) => connection.resetAndDestroy();
  const client = await rig.client(proxy);
  client.send('PUT /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n').send(Buffer.alloc(50_000));
  const got = await client.answer();
  t.equal(got.code, 'upstream_reset');
  t.equal(upstream.requests.length, 2);
});

e2e(
  'a refused connection is tried once more, then 502 connect_failed; a retry by the client is safe',
  async (t, rig) => {
    const upstream = await rig.upstream();
    const { url } = upstream;
    await upstream.close();
    const proxy = await rig.one({ url });
    const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'pay' });
    t.equal(got.status, 502);
    t.equal(got.code, 'connect_failed');
    t.equal(got.get('x-should-retry'), undefined);
    t.match(got.get('proxy-status'), /connection_refused/);
    t.equal(proxy.pool().connect_failed, 2);
    t.equal(proxy.upstream().retries, 1);
    t.match(proxy.exchanges[0], { attempts: 2, connect_ms: null, ttfb_ms: null });
  },
);

e2e('a restart between two attempts is not seen by the client', async (t, rig) => {
  const upstream = await rig.upstream();
  const { url, port } = upstream;
  await upstream.close();
  const proxy = await rig.one({ url });
  const listening = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', () => socket.end(answer('back', 'connection: close\r\n')));
  });
  rig.closes({ close: () => new Promise((resolve) => listening.close(() => resolve())) });
  // The first refusal starts the upstream; the second attempt finds it only if there is one.
  const watch = setInterval(() => {
    if (proxy.pool().connect_failed > 0 && !listening.listening) listening.listen(port, '127.0.0.1');
  }, 1);
  const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'pay' });
  clearInterval(watch);
  if (!listening.listening) listening.listen(port, '127.0.0.1');
  t.ok(got.status === 200 || got.code === 'connect_failed');
  t.equal(proxy.upstream().retries, 1);
});

e2e('an upstream name that does not exist is 502 dns_failed', async (t, rig) => {
  const proxy = await rig.one({ url: 'http://no-such-host.invalid:80' });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.status, 502);
  t.equal(got.code, 'dns_failed');
});

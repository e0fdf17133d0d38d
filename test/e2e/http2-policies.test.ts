// What is done about an upstream's bad days, and the cache, over HTTP/2 as over HTTP/1.

import type { ServerHttp2Session } from 'node:http2';
import { HTTP2_CA, HTTP2_TLS, Http2Upstream, reply, http2Scene as scene } from '../support/http2-upstream.ts';
import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

const times = (n: number) => Array.from({ length: n }, (_, i) => i);

e2e('retries: a poor answer is discarded, and the next attempt goes over the same connection', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    ({ stream }) => {
      if (server.requests.length > 2) return reply(stream, 'well');
      stream.respond({ ':status': 503 });
      stream.end('busy');
    },
    { retries: { attempts: 3, backoffMs: 10 } },
  );
  const got = await rig.ask(proxy, '/ai/x');
  t.match([got.status, String(got.body)], [200, 'well']);
  t.equal(server.requests.length, 3);
  t.match(proxy.pool(), { opened: 1, closed: 0 });
});

e2e('retries: a long poor answer is cancelled, and costs the connection nothing', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    ({ stream }) => {
      if (server.requests.length > 1) return reply(stream, 'well');
      stream.respond({ ':status': 503, 'content-length': 1 << 20 });
      stream.write('x'.repeat(100_000));
    },
    { retries: { attempts: 2, backoffMs: 10 } },
  );
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  await until('cancelled', () => server.requests[0]!.stream.destroyed);
  t.equal(server.requests[0]!.stream.rstCode, 8);
  t.match(proxy.pool(), { opened: 1, closed: 0 });
});

e2e('a hedge goes over the same connection, and the slower of the two is cancelled', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    ({ stream }) => {
      if (server.requests.length > 1) reply(stream, 'hedge');
    },
    { hedge: { afterMs: 50 } },
  );
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'hedge');
  await until('the first is cancelled', () => server.requests[0]!.stream.destroyed);
  t.equal(server.sessions.length, 1);
  t.match(proxy.upstream().hedges, { sent: 1, won: 1 });
});

e2e('a breaker opens for streams that fail, and closes again', async (t, rig) => {
  let well = false;
  const { proxy } = await scene(
    rig,
    ({ stream }) => {
      if (well) reply(stream);
      else stream.close(2);
    },
    { breaker: { consecutiveFailures: 3, openMs: 100 } },
  );
  for (const _ of times(3)) t.equal((await rig.ask(proxy, '/ai/x')).code, 'upstream_reset');
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'breaker_open');
  well = true;
  await whileNothing(250);
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
});

e2e('failover from HTTP/2 to HTTP/1 and back', async (t, rig) => {
  const first = await Http2Upstream.start(({ stream }) => reply(stream, 'h2'));
  rig.closes(first);
  const second = await rig.upstream((_request, connection) => connection.send(answer('h1')), { tls: HTTP2_TLS });
  const proxy = await rig.one({
    targets: [{ url: first.url }, { url: second.url, priority: 1 }],
    tls: { ca: HTTP2_CA },
    http2: { maxStreams: 10 },
    breaker: { consecutiveFailures: 1, openMs: 200 },
    retries: { attempts: 2, backoffMs: 1 },
  });
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'h2');
  first.script = ({ stream }) => stream.close(2);
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'h1');
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'h1');
  t.match(proxy.pool(), { protocol: 'h2', streams: { max: 500 }, opened: 2 });
  first.script = ({ stream }) => reply(stream, 'h2');
  await whileNothing(400);
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'h2');
});

e2e('one without a length is stored, as its end is known', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    ({ stream }) => {
      stream.respond({ ':status': 200 });
      stream.end('once');
    },
    { cache: { rules: [{ ttlMs: 60_000 }] } },
  );
  for (const _ of times(2)) t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'once');
  t.equal(server.requests.length, 1);
});

e2e('deadlines fire and cancel their stream only', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    ({ path, stream }) => {
      if (path === '/silent') return;
      stream.respond({ ':status': 200 });
      stream.write('a');
    },
    { timeouts: { headersMs: 100, idleMs: 250 } },
  );
  t.equal((await rig.ask(proxy, '/ai/silent')).code, 'headers_timeout');
  const stalls = await rig.ask(proxy, '/ai/stalls').catch(() => null);
  if (stalls) t.not(stalls.ending, 'clean');
  await proxy.idle();
  t.equal(proxy.exchanges[1]!.failure, 'idle_timeout');
  t.ok(server.requests.every(({ stream }) => stream.destroyed));
  t.match(proxy.pool(), { opened: 1, closed: 0 });
});

e2e('bypass requests find a stream while all regular ones are taken', async (t, rig) => {
  const { server, proxy } = await scene(
    rig,
    ({ path, stream }) => {
      if (path === '/health') reply(stream, 'well');
    },
    { pool: { connections: 1 }, http2: { maxStreams: 2 }, bypass: ['/health'] },
  );
  const stuck = [await rig.sent(proxy, '/ai/1'), await rig.sent(proxy, '/ai/2'), await rig.sent(proxy, '/ai/3')];
  await until(
    'two are under way, and one waits',
    () => server.requests.length === 2 && proxy.limiter('ai (pool)').queued === 1,
  );
  t.equal((await rig.ask(proxy, '/ai/health')).body.toString(), 'well');
  t.equal(server.sessions.length, 2, 'on a connection beside the regular one');
  for (const client of stuck) client.reset();
});

e2e('clients that leave at random, and a server that goes away at random, leave nothing', async (t, rig) => {
  t.setTimeout(60_000);
  const { server, proxy } = await scene(
    rig,
    async ({ path, stream, session }) => {
      const n = Number(path.slice(1));
      if (n % 7 === 0) await whileNothing(20);
      if (n % 41 === 0) (session as ServerHttp2Session).goaway(0, stream.id!);
      if (n % 97 === 0) session.destroy();
      if (n % 11 === 0) return stream.close(n % 2 === 0 ? 7 : 2);
      if (stream.destroyed) return;
      stream.respond({ ':status': 200 });
      for (const _ of times(n % 5)) stream.write('x'.repeat(10_000));
      if (n % 13 === 0) return;
      stream.end();
    },
    { pool: { connections: 4 }, timeouts: { idleMs: 300, headersMs: 300 } },
    { settings: { maxConcurrentStreams: 10 } },
  );
  await Promise.all(
    times(8).map(async (worker) => {
      for (const i of times(60)) {
        const n = worker * 60 + i;
        const client = await rig.sent(
          proxy,
          `/ai/${n}`,
          n % 3 === 0 ? { method: 'POST', body: 'x'.repeat(n * 100) } : {},
        );
        if (n % 5 === 0) await whileNothing(n % 4);
        else await client.answer().catch(() => null);
        client.destroy();
      }
    }),
  );
  await proxy.idle();
  t.equal(proxy.pool().streams.open, 0);
  t.ok(server.sessions.length < 100, `${server.sessions.length} connections`);
});

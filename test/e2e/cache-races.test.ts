// What is thrown out stays out, and what one twin may not have is no reason for or against another.

import { connect } from 'node:net';
import { redisMissing, TestRedis } from '../support/redis.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { answers, ask, COALESCE, get, HTTP, landed, post, silent, twins } from '../support/twins.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

const TAGGED = 'cache-control: max-age=1000\r\netag: "a"\r\n';

e2e('a HEAD that is answered after a POST changed its target revives nothing', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    if (request.method === 'HEAD') return;
    await request.whole();
    connection.send(answer(request.method === 'GET' ? 'old' : 'done', TAGGED));
  });
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  await ask(rig, proxy, get('/ai/x'));
  const [head] = await twins(rig, proxy, 1, get('/ai/x', 'cache-control: no-cache\r\n').replace('GET', 'HEAD'));
  const asked = await upstream.request(1);
  await ask(rig, proxy, post('/ai/x', 'change'));
  t.equal(proxy.stats().cache.entries, 0);
  asked.connection.send(`HTTP/1.1 200 OK\r\n${TAGGED}\r\n`);
  await head!.answer(true);
  t.equal(proxy.stats().cache.entries, 0);
});

e2e('one twin that wants the word of the upstream does not take the stale answer from the others', async (t, rig) => {
  let time = Date.now();
  const upstream = await rig.upstream((_request, connection) =>
    connection.send(answer('good', 'cache-control: max-age=10, stale-if-error=1000\r\n')),
  );
  const proxy = await rig.proxy({ upstreams: { ai: { url: upstream.url, ...HTTP } } }, () => time);
  await ask(rig, proxy, get('/ai/x'));
  time += 20_000;
  upstream.script = silent;
  const clients = await twins(rig, proxy, 3, (i) => get('/ai/x', i === 1 ? 'cache-control: no-cache\r\n' : ''));
  (await upstream.request(1)).connection.send(answer('busy', '', '503 Busy'));
  const got = await answers(clients);
  t.same(
    got.map(({ status, body }) => [status, body.toString()]),
    [
      [200, 'good'],
      [503, 'busy'],
      [200, 'good'],
    ],
  );
  t.equal(upstream.requests.length, 2);
  await landed(proxy);
});

e2e('a detail that is no token is a string (RFC 9211)', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  const clients = await twins(rig, proxy, 2, get('/ai/x'));
  (await upstream.request(0)).connection.send(answer('mine', 'cache-control: private\r\n'));
  (await upstream.request(1)).connection.send(answer('his', 'cache-control: private\r\n'));
  const [, other] = await answers(clients);
  t.equal(other!.get('cache-status'), 'aiproxy; fwd=uri-miss; detail="response private"');
});

e2e('a client whose key is known as private keeps its own condition', async (t, rig) => {
  const upstream = await rig.upstream((request, connection) => {
    if (request.get('if-none-match')) connection.send('HTTP/1.1 304 Not Modified\r\netag: "a"\r\n\r\n');
    else connection.send(answer('mine', 'cache-control: private\r\netag: "a"\r\n'));
  });
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  const conditional = get('/ai/x', 'if-none-match: "a"\r\n');
  t.equal((await ask(rig, proxy, conditional)).status, 200, 'the first time nobody knows');
  t.equal((await ask(rig, proxy, conditional)).status, 304);
  const { now } = performance;
  t.teardown(() => {
    performance.now = now;
  });
  performance.now = () => now.call(performance) + 11_000;
  t.equal((await ask(rig, proxy, conditional)).status, 304, 'also when its twins would wait for each other again');
  t.equal((await ask(rig, proxy, get('/ai/x'))).get('cache-status'), 'aiproxy; fwd=uri-miss');
});

e2e('where all flights hold too much, one that is not read holds no more than it has', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const flights = { memoryBytes: 256 << 10, bufferBytes: 64 << 20 };
  const proxy = await rig.one({ url: upstream.url, ...COALESCE, timeouts: { writeStallMs: 60_000 } }, { flights });
  const [slow] = await twins(rig, proxy, 1, get('/ai/x'));
  slow!.pause();
  const { connection } = await upstream.request(0);
  connection.send(chunkedHead());
  const piece = chunk('x'.repeat(64 << 10));
  for (let i = 0; i < 400; i++) connection.send(piece);
  connection.send(LAST_CHUNK);
  await until('the upstream is paused', () => connection.socket.writableLength > 8 << 20);
  await whileNothing(300);
  const held = proxy.stats().cache.flight_memory_bytes;
  t.ok(held < 2 << 20, `${held} bytes are held`);
  slow!.resume();
  const { body, ending } = await slow!.head().then(() => slow!.rest());
  t.equal(body.length, 400 * (64 << 10));
  t.equal(ending, 'clean');
  await landed(proxy);
});

const redis = { skip: redisMissing() };

async function withRedis(rig: Rig, url: string) {
  const server = await TestRedis.start();
  rig.closes({ close: () => server.stop() });
  const config = { url: `unix:${server.path}`, prefix: 'p:', timeoutMs: 2000 };
  const proxy = await rig.one({ url, ...HTTP }, { redis: config, cache: { store: 'redis' } });
  await until('redis is there', () => proxy.stats().cache.redis!.state === 'up');
  return { server, proxy };
}

if (!redis.skip) {
  e2e('an answer that is thrown out does not come back from Redis, however soon it is asked for', async (t, rig) => {
    let n = 0;
    const upstream = await rig.upstream(async (request, connection) => {
      await request.whole();
      connection.send(answer(`v${request.method === 'GET' ? n : n++}`, 'cache-control: max-age=600\r\n'));
    });
    const { proxy } = await withRedis(rig, upstream.url);
    for (let round = 0; round < 10; round++) {
      t.equal((await ask(rig, proxy, get('/ai/x'))).body.toString(), `v${round}`);
      const client = await rig.client(proxy);
      client.send(post('/ai/x', 'change') + get('/ai/x'));
      t.equal((await client.answer()).status, 200);
      t.equal((await client.answer()).body.toString(), `v${round + 1}`, 'the new one, at once');
      client.destroy();
    }
  });

  e2e('a query is not readable in Redis', async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) =>
      connection.send(answer('x', 'cache-control: max-age=600\r\n')),
    );
    const { server, proxy } = await withRedis(rig, upstream.url);
    const monitor = connect(server.path);
    let seen = '';
    monitor.on('data', (bytes) => {
      seen += bytes;
    });
    monitor.write('MONITOR\r\n');
    await until('it watches', () => seen.includes('OK'));
    await ask(rig, proxy, get('/ai/path?key=AIza-secret'));
    await ask(rig, proxy, post('/ai/path?key=AIza-secret', 'change'));
    await until('it was stored and thrown out', () => /"publish"/i.test(seen));
    monitor.destroy();
    t.match(seen, '/path?');
    t.notMatch(seen, 'AIza-secret');
  });
}

// A second attempt beside a slow first one: when it sets out and when not, whose answer the client gets, and what becomes of the other.

import { Hold, hangs, inTurn, resets, targetOf } from '../support/bad-days.ts';
import type { ConfigOverrides, UpstreamOverrides } from '../support/proxy.ts';
import { type Ask, e2e, type Rig } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

const SOON = { afterMs: 40 };
/** Long enough for a second attempt to set out, were there one. */
const WAIT_MS = 150;

async function scene(
  rig: Rig,
  script: Script,
  ai: Omit<UpstreamOverrides, 'url'> = {},
  rest: Omit<ConfigOverrides, 'upstreams'> = {},
) {
  const upstream = await rig.upstream(script);
  const proxy = await rig.one({ url: upstream.url, hedge: SOON, ...ai }, rest);
  return { upstream, proxy };
}

/** Answers after a while. */
function after(ms: number, bytes: string): Script {
  return async (request, connection) => {
    await request.whole();
    setTimeout(() => connection.send(bytes), ms);
  };
}

e2e('a request without an answer after a fixed time is sent once more; the first is cancelled', async (t, rig) => {
  const { upstream, proxy } = await scene(
    rig,
    inTurn(hangs, answer('second')),
    { limiter: 'ai' },
    { limiters: { ai: {} } },
  );
  const client = await rig.sent(proxy, '/ai/x?q=1');
  const got = await client.answer();
  t.equal(got.body.toString(), 'second');
  t.equal(upstream.requests.length, 2);
  t.equal(upstream.requests[1]!.text, upstream.requests[0]!.text);
  await until('the first is closed', () => upstream.connections[0]!.left);
  client.send('GET /ai/next HTTP/1.1\r\nhost: a\r\n\r\n');
  t.equal((await client.answer()).status, 200, 'and the next request on that connection is answered');
  await proxy.idle();
  t.match(proxy.upstream(), { hedges: { sent: 1, won: 1 }, retries: 0, requests: 2 });
  t.match(proxy.limiter('ai'), { peak_in_flight: 2, granted: 3 });
  t.match(targetOf(proxy), { attempts: 3, successes: 2, failures: 0 }, 'one who lost says nothing of the server');
  const [line] = proxy.exchanges;
  t.match(line, { status: 200, failure: null });
  t.ok((line!.total_ms as number) >= 40, `${line!.total_ms} ms`);
});

e2e('an answer that comes in time is not hedged, nor is a stream that goes on for long', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, (request, connection) => {
    if (request.target === '/quick') connection.send(answer());
    else {
      connection.send(`${chunkedHead()}${chunk('first')}`);
      setTimeout(() => connection.send(`${chunk('last')}${LAST_CHUNK}`), WAIT_MS);
    }
  });
  await rig.ask(proxy, '/ai/quick');
  t.equal((await rig.ask(proxy, '/ai/stream')).body.toString(), 'firstlast');
  t.equal(upstream.requests.length, 2);
  t.match(proxy.upstream().hedges, { sent: 0, won: 0 });
});

e2e('without a fixed time it is the 95th percentile, once twenty answers are known', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, after(WAIT_MS, answer()), { hedge: {} });
  t.equal((await rig.ask(proxy, '/ai/slow')).status, 200);
  t.equal(upstream.requests.length, 1, 'nothing is known yet');
  upstream.script = inTurn(...Array(18).fill(answer()), after(80, answer()), hangs, answer('second'));
  for (let i = 0; i < 19; i++) await rig.ask(proxy, '/ai/x');
  t.match(proxy.upstream().hedges, { sent: 0 });
  const began = performance.now();
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'second');
  const took = performance.now() - began;
  t.ok(took >= 79, `the 19th of 20 took 80 ms, the second attempt set out after ${took}`);
  t.match(proxy.upstream().hedges, { sent: 1, won: 1 });
});

const NEVER: readonly (readonly [string, Omit<UpstreamOverrides, 'url'>, string, Ask])[] = [
  ['of a path that is not named', { hedge: { afterMs: 20, paths: ['/only/*'] } }, '/ai/other', {}],
  [
    'whose body is larger than replay_limit',
    { retries: { replayLimitBytes: 10 } },
    '/ai/x',
    { method: 'PUT', body: 'x'.repeat(11) },
  ],
  ['without a second connection', { pool: { connections: 1 } }, '/ai/x', {}],
  ['of an upstream without hedging', { hedge: undefined as never }, '/ai/x', {}],
];

for (const [name, ai, path, ask] of NEVER) {
  e2e(`a request ${name} is never hedged`, async (t, rig) => {
    const { upstream, proxy } = await scene(rig, after(WAIT_MS, answer('first')), ai);
    t.equal((await rig.ask(proxy, path, ask)).body.toString(), 'first');
    t.equal(upstream.requests.length, 1);
  });
}

e2e('a POST is hedged where its path is named: that is to say that it may be sent twice', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, after(WAIT_MS, answer('first')));
  await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'pay' });
  t.same(
    upstream.requests.map(({ body }) => String(body)),
    ['pay', 'pay'],
  );
});

e2e('a streamed body is never hedged', async (t, rig) => {
  const { upstream, proxy } = await scene(
    rig,
    after(WAIT_MS, answer('first')),
    {},
    { listener: { bodyBufferBytes: 100 } },
  );
  const client = await rig.client(proxy);
  client.send(`PUT /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 200\r\n\r\n${'x'.repeat(199)}`);
  await upstream.request(0);
  client.send('x');
  t.equal((await client.answer()).body.toString(), 'first');
  t.equal(upstream.requests.length, 1);
});

e2e('only with a permit to spare: not the last one, and not before somebody who waits', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, hangs, { limiter: 'ai' }, { limiters: { ai: { maxConcurrent: 2 } } });
  const hold = new Hold(upstream);
  const clients = [await rig.sent(proxy, '/ai/held'), await rig.sent(proxy, '/ai/held')];
  await hold.count(2);
  clients.push(await rig.sent(proxy, '/ai/held'));
  await whileNothing(WAIT_MS);
  t.equal(upstream.requests.length, 2);
  hold.release();
  await hold.count(3);
  hold.release();
  hold.release();
  for (const client of clients) t.equal((await client.answer()).status, 200);
  t.match(proxy.upstream().hedges, { sent: 0 });
});

e2e('both attempts have the same body', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(hangs, answer('second')), { replay: ['/v1/embeddings'] });
  const body = Uint8Array.from({ length: 50_000 }, (_, i) => (i * 7919) >> 3);
  const got = await rig.ask(proxy, '/ai/v1/embeddings', { method: 'POST', body });
  t.equal(got.body.toString(), 'second');
  for (const request of upstream.requests) t.ok(request.body.equals(body));
  t.equal(upstream.requests.length, 2);
});

e2e('the first attempt wins when it answers first, and the second is cancelled', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, hangs, { limiter: 'ai' }, { limiters: { ai: { maxConcurrent: 2 } } });
  const client = await rig.sent(proxy, '/ai/x');
  await upstream.request(1);
  upstream.requests[0]!.connection.send(`${chunkedHead()}${chunk('first')}`);
  t.equal((await client.head()).status, 200);
  await until('the second is closed', () => upstream.requests[1]!.connection.left);
  await until('its permit is back', () => proxy.limiter('ai').in_flight === 1);
  upstream.requests[0]!.connection.send(LAST_CHUNK);
  t.equal((await client.rest()).body.toString(), 'first');
  t.match(proxy.upstream().hedges, { sent: 1, won: 0 });
});

e2e('an upstream that answers neither has two attempts, and no more', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, hangs, { timeouts: { totalMs: 300 }, retries: { backoffMs: 1 } });
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'total_timeout');
  t.equal(upstream.requests.length, 2);
  await until('both are closed', () => upstream.connections.every(({ left }) => left));
  await proxy.idle();
  t.match(proxy.upstream(), { hedges: { sent: 1, won: 0 }, failures: { total_timeout: 1 } });
});

e2e('a client that leaves takes both along', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, hangs, { limiter: 'ai' }, { limiters: { ai: {} } });
  const client = await rig.sent(proxy, '/ai/x', { method: 'PUT', body: 'x'.repeat(5000) });
  await upstream.request(1);
  client.reset();
  await until('both are closed', () => upstream.connections.every(({ left }) => left));
  await proxy.idle();
  t.match(proxy.exchanges[0], { status: 499, failure: 'client_gone' });
  t.match(targetOf(proxy), { attempts: 2, failures: 0, in_flight: 0 });
});

e2e('it goes to another server, if there is one', async (t, rig) => {
  const slow = await rig.upstream(hangs);
  const other = await rig.upstream();
  const proxy = await rig.one({ targets: [{ url: slow.url }, { url: other.url, priority: 1 }], hedge: SOON });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.same([slow.requests.length, other.requests.length], [1, 1]);
  await proxy.idle();
  t.match(proxy.exchanges[0], { target: other.url });
});

e2e('a fetch that twins share is hedged for all of them', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(hangs, answer('for all')), {
    cache: { rules: [{ ttlMs: 10_000 }] },
  });
  const clients = await Promise.all(Array.from({ length: 5 }, () => rig.sent(proxy, '/ai/x')));
  for (const client of clients) t.equal((await client.answer()).body.toString(), 'for all');
  t.equal(upstream.requests.length, 2);
  t.match((await rig.ask(proxy, '/ai/x')).get('cache-status'), /hit/, 'and it is stored');
  t.match(proxy.upstream().hedges, { sent: 1, won: 1 });
});

e2e('a connection reset under the only attempts is told as such', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, hangs);
  const client = await rig.sent(proxy, '/ai/x');
  await upstream.request(1);
  resets(upstream.requests[1]!, upstream.requests[1]!.connection);
  await until('the second is gone', () => proxy.pool().active === 1);
  resets(upstream.requests[0]!, upstream.requests[0]!.connection);
  const got = await client.answer();
  t.equal(got.code, 'upstream_reset');
  t.equal(got.get('x-should-retry'), 'false');
});

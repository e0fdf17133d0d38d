// Between two attempts: what a request holds meanwhile, what becomes of the answer it did not want, and who may end the wait.

import { breakerOf, byPath, Hold, inTurn, targetOf } from '../support/bad-days.ts';
import type { ConfigOverrides, UpstreamOverrides } from '../support/proxy.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, type Script } from '../support/upstream.ts';

const SOON = { backoffMs: 1, maxBackoffMs: 2, budgetMin: 100 };
const ONE_PERMIT = { limiters: { ai: { maxConcurrent: 1 } } };

/** Asks for a wait, as the AI APIs do. */
function busyFor(ms: number): string {
  return answer('busy', `retry-after-ms: ${ms}\r\n`, '503 Busy');
}

async function scene(
  rig: Rig,
  script: Script,
  ai: Omit<UpstreamOverrides, 'url'> = {},
  rest: Omit<ConfigOverrides, 'upstreams'> = {},
) {
  const upstream = await rig.upstream(script);
  const proxy = await rig.one({ url: upstream.url, ...ai, retries: { ...SOON, ...ai.retries } }, rest);
  return { upstream, proxy };
}

e2e('who waits for his next attempt holds neither permit nor connection: another runs meanwhile', async (t, rig) => {
  const { upstream, proxy } = await scene(
    rig,
    inTurn(busyFor(250), answer('other'), answer('again')),
    { limiter: 'ai', pool: { connections: 1 } },
    ONE_PERMIT,
  );
  const client = await rig.sent(proxy, '/ai/first');
  await until('the permit is free', () => upstream.requests.length === 1 && proxy.limiter('ai').in_flight === 0);
  await until('the connection is free', () => proxy.pool().active === 0);
  t.match(proxy.stats().listener, { in_flight: 1 });
  t.equal((await rig.ask(proxy, '/ai/second')).body.toString(), 'other');
  t.equal((await client.answer()).body.toString(), 'again');
  t.same(
    upstream.requests.map(({ target }) => target),
    ['/first', '/second', '/first'],
  );
  await proxy.idle();
  t.ok((proxy.exchanges[1]!.retry_ms as number) >= 250, `${proxy.exchanges[1]!.retry_ms} ms`);
});

e2e('who comes back for another attempt stands before those who wait for their first', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, byPath, { limiter: 'ai' }, ONE_PERMIT);
  const hold = new Hold(upstream);
  const returning = await rig.sent(proxy, '/ai/returning/held');
  await hold.count(1);
  const clients = [await rig.sent(proxy, '/ai/b/held')];
  await until('b is queued', () => proxy.limiter('ai').queued === 1);
  hold.release(busyFor(100));
  await hold.count(2);
  for (const name of ['c', 'd']) {
    clients.push(await rig.sent(proxy, `/ai/${name}`));
    await until('it is queued', () => proxy.limiter('ai').queued === clients.length - 1);
  }
  await until('the wait is over', () => proxy.limiter('ai').queued === 3);
  hold.release();
  await hold.count(3);
  hold.release(answer('at last'));
  t.equal((await returning.answer()).body.toString(), 'at last');
  for (const client of clients) t.equal((await client.answer()).status, 200);
  t.same(
    upstream.requests.map(({ target }) => target),
    ['/returning/held', '/b/held', '/returning/held', '/c', '/d'],
  );
  t.equal(proxy.limiter('ai').peak_in_flight, 1);
});

e2e('a full queue refuses nobody who was in already', async (t, rig) => {
  const { upstream, proxy } = await scene(
    rig,
    byPath,
    { limiter: 'ai' },
    { limiters: { ai: { maxConcurrent: 1, maxQueue: 1 } } },
  );
  const hold = new Hold(upstream);
  const returning = await rig.sent(proxy, '/ai/held');
  await hold.count(1);
  const next = await rig.sent(proxy, '/ai/held');
  await until('queued', () => proxy.limiter('ai').queued === 1);
  hold.release(busyFor(100));
  await hold.count(2);
  const last = await rig.sent(proxy, '/ai/fine');
  await until('the queue is full', () => proxy.limiter('ai').queued === 1);
  await until('both wait', () => proxy.limiter('ai').queued === 2);
  t.equal((await rig.ask(proxy, '/ai/fine')).code, 'queue_full');
  hold.release();
  await hold.count(3);
  hold.release();
  for (const client of [returning, next, last]) t.equal((await client.answer()).status, 200);
});

e2e('a client that leaves while it waits for another attempt gets none', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(busyFor(120), answer()));
  const client = await rig.sent(proxy, '/ai/x', { method: 'PUT', body: 'x'.repeat(5000) });
  await upstream.request(0);
  await until('it waits', () => proxy.pool().active === 0 && proxy.stats().listener.in_flight === 1);
  client.reset();
  await proxy.idle();
  await whileNothing(200);
  t.equal(upstream.requests.length, 1);
  t.match(proxy.exchanges[0], { status: 499, failure: 'client_gone', attempts: 1 });
});

e2e('a client that leaves while an unwanted answer is read takes the attempt along', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, (_request, connection) => {
    connection.send(`${chunkedHead('', '503 Busy')}${chunk('never ends')}`);
  });
  const client = await rig.sent(proxy, '/ai/x');
  const { connection } = await upstream.request(0);
  await until('its head has come', () => proxy.upstream().retry_budget!.spent === 1);
  client.reset();
  await until('closed', () => connection.left);
  await proxy.idle();
  t.equal(upstream.requests.length, 1);
});

const UNWANTED: readonly (readonly [string, string])[] = [
  ['declares more than is worth reading', `HTTP/1.1 503 Busy\r\ncontent-length: 20000\r\n\r\nbusy`],
  ['turns out longer than is worth reading', `${chunkedHead('', '503 Busy')}${chunk('x'.repeat(20_000))}`],
];

for (const [name, bytes] of UNWANTED) {
  e2e(`an unwanted answer that ${name} is not read to its end: its connection is closed`, async (t, rig) => {
    const { upstream, proxy } = await scene(
      rig,
      inTurn((_request, connection) => void connection.send(bytes), answer('yes')),
    );
    t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'yes');
    await until('closed', () => upstream.connections[0]!.left);
    t.equal(upstream.requests[1]!.connection.index, 1);
    t.equal(proxy.pool().closed_by.aborted, 1);
  });
}

e2e('an unwanted answer that ends with its connection is fine', async (t, rig) => {
  const { proxy } = await scene(
    rig,
    inTurn((_request, connection) => {
      connection.send('HTTP/1.1 503 Busy\r\n\r\nbusy');
      connection.end();
    }, answer('yes')),
  );
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'yes');
  t.equal(targetOf(proxy).failures, 1);
});

e2e('an unwanted answer that is cut is followed by the next attempt all the same', async (t, rig) => {
  const { proxy } = await scene(
    rig,
    inTurn((_request, connection) => {
      connection.send(`${chunkedHead('', '503 Busy')}${chunk('half')}`);
      setTimeout(() => connection.resetAndDestroy(), 20);
    }, answer('yes')),
  );
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'yes');
  t.match(targetOf(proxy), { attempts: 2, failures: 1 });
});

e2e('an unwanted answer that stalls holds the next attempt up no longer than timeouts.idle', async (t, rig) => {
  const { upstream, proxy } = await scene(
    rig,
    inTurn((_request, connection) => {
      connection.send(`${chunkedHead('', '503 Busy')}${chunk('\n')}`);
    }, answer('yes')),
    { timeouts: { idleMs: 100, firstEventMs: 60 } },
  );
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'yes');
  await until('closed', () => upstream.connections[0]!.left);
  t.equal(upstream.requests.length, 2);
});

e2e('a breaker that opens meanwhile ends the wait with 503 breaker_open', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(busyFor(150)), {
    breaker: { consecutiveFailures: 2, failureRatio: 2, openMs: 10_000 },
    retries: { ...SOON, methods: ['GET'] },
  });
  const client = await rig.sent(proxy, '/ai/x');
  await until('it waits', () => breakerOf(proxy).consecutive_failures === 1 && proxy.pool().active === 0);
  t.equal((await rig.ask(proxy, '/ai/x', { method: 'POST' })).status, 503);
  t.equal(breakerOf(proxy).state, 'open');
  t.equal((await client.answer()).code, 'breaker_open');
  t.equal(upstream.requests.length, 2);
});

const LIMITS: readonly (readonly [string, UpstreamOverrides, string])[] = [
  ['timeouts.total', { timeouts: { totalMs: 300 } }, ''],
  ['the deadline of the caller', {}, 'x-aiproxy-deadline-ms: 300\r\n'],
];

for (const [name, ai, headers] of LIMITS) {
  e2e(`an attempt that would begin after ${name} is not waited for: the answer goes through`, async (t, rig) => {
    const { upstream, proxy } = await scene(rig, inTurn(busyFor(310)), ai);
    const started = performance.now();
    const got = await rig.ask(proxy, '/ai/x', { headers });
    t.ok(performance.now() - started < 250, 'at once');
    t.same([got.status, got.body.toString(), got.get('retry-after-ms')], [503, 'busy', '310']);
    t.equal(upstream.requests.length, 1);
  });

  e2e(`no attempt begins after ${name}, also when an unwanted answer has held it up`, async (t, rig) => {
    const stalls: Script = (_request, connection) => {
      connection.send(`${chunkedHead('', '503 Busy')}${chunk('half')}`);
    };
    const first = await rig.upstream(stalls);
    const second = await rig.upstream();
    const proxy = await rig.one({ ...ai, targets: [{ url: first.url }, { url: second.url }], retries: SOON });
    const got = await rig.ask(proxy, '/ai/x', { headers });
    t.equal(got.code, headers ? 'deadline_exceeded' : 'total_timeout');
    t.equal(first.requests.length + second.requests.length, 1);
  });
}

e2e('a request whose time is over in the queue, before its second attempt, fails with that', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, byPath, { limiter: 'ai', timeouts: { totalMs: 300 } }, ONE_PERMIT);
  const hold = new Hold(upstream);
  const client = await rig.sent(proxy, '/ai/held');
  await hold.count(1);
  const other = await rig.sent(proxy, '/ai/held');
  await until('queued', () => proxy.limiter('ai').queued === 1);
  hold.release(busyFor(0));
  t.equal((await client.answer()).code, 'total_timeout');
  t.equal(upstream.requests.length, 2);
  other.reset();
});

e2e('a fetch that twins share is retried for all of them', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(busyFor(60), answer('for all')), {
    cache: { rules: [{ ttlMs: 10_000 }] },
  });
  const clients = await Promise.all(Array.from({ length: 5 }, () => rig.sent(proxy, '/ai/x')));
  for (const client of clients) t.equal((await client.answer()).body.toString(), 'for all');
  t.equal(upstream.requests.length, 2);
  await proxy.idle();
  t.match(proxy.upstream(), { retries: 1, cache: { misses: 1, coalesced: 4 } });
  t.same(proxy.exchanges.map(({ attempts }) => attempts).sort(), [0, 0, 0, 0, 2]);
});

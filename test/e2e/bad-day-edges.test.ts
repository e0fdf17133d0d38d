// Where two mechanisms of a bad day meet.

import { hangs, inTurn } from '../support/bad-days.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, type Script } from '../support/upstream.ts';

const SOON = { backoffMs: 1, maxBackoffMs: 1 };
const busy = answer('busy', '', '503 Busy');

e2e('an unwanted answer that stalls holds the next attempt up for a second at most', async (t, rig) => {
  const stalls: Script = async (request, connection) => {
    await request.whole();
    connection.send(`${chunkedHead('', '429 Slow')}${chunk('half')}`);
  };
  const upstream = await rig.upstream(inTurn(stalls, answer('well')));
  const proxy = await rig.one({ url: upstream.url, retries: SOON, breaker: {} });
  const began = performance.now();
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'well');
  t.ok(performance.now() - began < 2500);
  t.match(proxy.upstream().targets[0], { failures: 0, successes: 1 }, 'a 429 says nothing against it, however slow');
});

e2e('bypass paths know no breaker, and none of it goes by them', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    connection.send(request.target === '/health' ? answer('well') : busy);
  });
  const proxy = await rig.one({
    url: upstream.url,
    bypass: ['/health'],
    breaker: { consecutiveFailures: 1, openMs: 60_000, maxOpenMs: 60_000 },
  });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 503);
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'breaker_open');
  t.equal((await rig.ask(proxy, '/ai/health')).body.toString(), 'well');
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'breaker_open', 'nor has it closed it');
});

e2e('a retry for which there is no token is not made: the upstream’s answer goes through', async (t, rig) => {
  const upstream = await rig.upstream(inTurn(busy, answer('well')));
  const proxy = await rig.one({
    url: upstream.url,
    retries: SOON,
    rateLimits: [{ requests: 1, perMs: 60_000, onLimit: 'reject' }],
  });
  const got = await rig.ask(proxy, '/ai/x');
  t.same([got.status, got.code, got.body.toString()], [503, undefined, 'busy']);
  t.equal(proxy.upstream().retry_budget!.spent, 0);
});

e2e('the log tells how long a client had waited for its second attempt when it left', async (t, rig) => {
  const upstream = await rig.upstream(inTurn(answer('busy', 'retry-after: 5\r\n', '503 Busy'), hangs));
  const proxy = await rig.one({ url: upstream.url, retries: {} });
  const client = await rig.sent(proxy, '/ai/x');
  await until('it waits', () => upstream.requests.length === 1 && proxy.pool().active === 0);
  const began = performance.now();
  await until('a moment has passed', () => performance.now() > began + 20);
  client.destroy();
  const line = await until('its line', () => proxy.exchanges[0]);
  t.match(line, { failure: 'client_gone', attempts: 1 });
  const waited = Number(line.retry_ms);
  t.ok(waited >= 20 && waited < 5000, `${waited} ms`);
});

e2e('a server that refuses with Retry-After is passed over at once: another one is asked', async (t, rig) => {
  const first = await rig.upstream(inTurn(answer('slow', 'retry-after: 30\r\n', '429 Slow')));
  const second = await rig.upstream(inTurn(answer('well')));
  const proxy = await rig.one({
    targets: [{ url: first.url }, { url: second.url, priority: 1 }],
    retries: SOON,
    feedback: {},
  });
  for (const _ of '123') t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'well');
  t.same([first.requests.length, second.requests.length], [1, 3], 'and the first is left alone for a while');
});

e2e('a server whose certificate is not trusted is passed over, a POST too', async (t, rig) => {
  const [good, plain] = [await rig.upstream(), await rig.upstream()];
  const proxy = await rig.one({
    targets: [{ url: plain.url.replace('http:', 'https:') }, { url: good.url, priority: 1 }],
  });
  const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'pay' });
  t.equal(got.status, 200);
  t.equal(good.requests.length, 1);
});

e2e('what waits in our own queue is not the upstream’s fault', async (t, rig) => {
  const upstream = await rig.http((_request, response) => {
    setTimeout(() => response.end('well'), 40);
  });
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai', timeouts: { totalMs: 300 }, breaker: { consecutiveFailures: 3 } },
    { limiters: { ai: { maxConcurrent: 2 } } },
  );
  const clients = await Promise.all(Array.from({ length: 60 }, () => rig.sent(proxy, '/ai/x')));
  const codes = await Promise.all(clients.map(async (client) => (await client.answer()).code ?? 'none'));
  t.ok(codes.includes('total_timeout'), 'some waited too long');
  t.notOk(codes.includes('breaker_open'), 'and nobody was refused for that');
});

e2e('a request of a bypass path is repeated with its body', async (t, rig) => {
  const upstream = await rig.upstream(inTurn(busy, answer('well')));
  const proxy = await rig.one({ url: upstream.url, bypass: ['/b'], breaker: {}, retries: SOON });
  const got = await rig.ask(proxy, '/ai/b', { method: 'PUT', body: 'hello' });
  t.equal(got.body.toString(), 'well');
  t.same(
    upstream.requests.map(({ body }) => String(body)),
    ['hello', 'hello'],
  );
});

e2e('a shared fetch is retried only while somebody waits: else the answer goes through', async (t, rig) => {
  const upstream = await rig.upstream(inTurn(answer('busy', 'retry-after: 5\r\n', '503 Busy')));
  const proxy = await rig.one({ url: upstream.url, cache: { http: true }, timeouts: { totalMs: 700 }, retries: SOON });
  const got = await rig.ask(proxy, '/ai/x');
  t.same([got.status, got.body.toString()], [503, 'busy']);
});

e2e('an answer that opens the breaker is not thrown away for a retry that would be refused', async (t, rig) => {
  const upstream = await rig.upstream(inTurn(busy));
  const proxy = await rig.one({
    url: upstream.url,
    breaker: { consecutiveFailures: 1, openMs: 30_000, maxOpenMs: 30_000 },
    retries: SOON,
  });
  const got = await rig.ask(proxy, '/ai/x');
  t.same([got.status, got.code, got.body.toString()], [503, undefined, 'busy']);
  t.equal(proxy.upstream().retry_budget!.spent, 0);
});

e2e('hits feed no retry budget', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    connection.send(request.target === '/hit' ? answer('hit', 'cache-control: public, max-age=60\r\n') : busy);
  });
  const proxy = await rig.one({ url: upstream.url, cache: { http: true }, retries: { ...SOON, attempts: 10 } });
  for (let n = 0; n < 100; n++) await rig.ask(proxy, '/ai/hit');
  for (let n = 0; n < 10; n++) await rig.ask(proxy, '/ai/x');
  t.ok(upstream.requests.length <= 11 * 1.2 + 3, `${upstream.requests.length} calls`);
});

e2e('who has tokens of his own does not wait for the fetch of a twin who has none', async (t, rig) => {
  const upstream = await rig.upstream(inTurn(answer('well')));
  const proxy = await rig.one({
    url: upstream.url,
    coalesce: true,
    rateLimits: [{ requests: 1, perMs: 60_000, key: { header: 'x-user-id' } }],
  });
  t.equal((await rig.ask(proxy, '/ai/first', { headers: 'x-user-id: a\r\n' })).status, 200);
  const a = await rig.sent(proxy, '/ai/x', { headers: 'x-user-id: a\r\n' });
  await until('a is held', () => proxy.upstream().rate_limits[0]!.held === 1);
  t.equal((await rig.ask(proxy, '/ai/x', { headers: 'x-user-id: b\r\n' })).status, 200);
  a.destroy();
});

e2e(
  'callers’ deadlines tell of a server that hangs, and not of one that callers are impatient with',
  async (t, rig) => {
    const upstream = await rig.upstream(async (request, connection) => {
      await request.whole();
      if (request.target !== '/hang') connection.send(answer('well'));
    });
    const proxy = await rig.one({ url: upstream.url, breaker: { consecutiveFailures: 1 } });
    t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
    const impatient = await rig.ask(proxy, '/ai/hang', { headers: 'x-aiproxy-deadline-ms: 300\r\n' });
    t.equal(impatient.code, 'deadline_exceeded');
    t.equal(proxy.upstream().targets[0]!.breaker!.state, 'closed');
    await rig.ask(proxy, '/ai/hang', { headers: 'x-aiproxy-deadline-ms: 1100\r\n' });
    t.equal(proxy.upstream().targets[0]!.breaker!.state, 'open');
  },
);

e2e('one user without tokens takes a quarter of the queue, and others still find a place', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    if (request.target !== '/hold') connection.send(answer('well'));
  });
  const proxy = await rig.one(
    {
      url: upstream.url,
      limiter: 'ai',
      rateLimits: [{ requests: 1, perMs: 60_000, key: { header: 'x-user-id' } }],
    },
    { limiters: { ai: { maxConcurrent: 1, maxQueue: 8 } } },
  );
  const of = (user: string) => ({ headers: `x-user-id: ${user}\r\n` });
  t.equal((await rig.ask(proxy, '/ai/x', of('a'))).status, 200);
  for (const _ of '12') await rig.sent(proxy, '/ai/x', of('a'));
  await until('both are held', () => proxy.upstream().rate_limits[0]!.held === 2);
  const third = await rig.ask(proxy, '/ai/x', of('a'));
  t.same([third.status, third.code], [503, 'queue_full']);
  t.ok(Number(third.get('retry-after')) > 60, 'until the third of them would have its turn');
  t.equal((await rig.ask(proxy, '/ai/x', of('b'))).status, 200);
});

e2e('a bypass path neither opens a breaker nor probes for it', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    connection.send(request.target === '/health' ? answer('well') : busy);
  });
  const proxy = await rig.one({
    url: upstream.url,
    bypass: ['/health', '/sick'],
    breaker: { consecutiveFailures: 2, openMs: 20, maxOpenMs: 20 },
  });
  const breaker = () => proxy.upstream().targets[0]!.breaker!;
  for (const _ of '123') t.equal((await rig.ask(proxy, '/ai/sick')).status, 503);
  t.match(breaker(), { state: 'closed', consecutive_failures: 0 });
  for (const _ of '12') await rig.ask(proxy, '/ai/x');
  await until('it may be probed', () => breaker().state === 'half_open');
  t.equal((await rig.ask(proxy, '/ai/health')).status, 200);
  t.match(breaker(), { state: 'half_open', opened: 1 });
});

e2e('what was written and is sent again takes another token', async (t, rig) => {
  const dies: Script = async (request, connection) => {
    await request.whole();
    connection.resetAndDestroy();
  };
  const upstream = await rig.upstream(inTurn(answer('first'), dies, answer('again')));
  const proxy = await rig.one({ url: upstream.url, rateLimits: [{ requests: 2, perMs: 60_000, burst: 2 }] });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  await until('its connection is idle', () => proxy.pool().idle === 1);
  const client = await rig.sent(proxy, '/ai/x');
  await until('the second attempt is held', () => proxy.upstream().rate_limits[0]!.held === 1);
  t.equal(upstream.requests.length, 2);
  client.destroy();
});

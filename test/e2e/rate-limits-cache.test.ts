// Rate limits and what does not go to the upstream: hits, twins and refusals cost nothing.

import type { RateLimitConfig } from '../../src/config/schema.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

/** So many may pass in a test. */
const only = (burst: number, onLimit: RateLimitConfig['onLimit'] = 'reject') => {
  return [{ requests: 1, perMs: 3_600_000, burst, onLimit }];
};

e2e('a hit of the cache costs no token, and is served to who has none', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, cache: { rules: [{ ttlMs: 60_000 }] }, rateLimits: only(2) });
  for (const _ of '12345') t.equal((await rig.ask(proxy, '/ai/a')).status, 200);
  t.equal((await rig.ask(proxy, '/ai/b')).status, 200, 'the second token was still there');
  t.equal((await rig.ask(proxy, '/ai/c')).status, 429);
  t.equal((await rig.ask(proxy, '/ai/a')).status, 200);
  t.equal(upstream.requests.length, 2);
});

e2e('twins that share a fetch cost one token', async (t, rig) => {
  let hold = true;
  const upstream = await rig.upstream(async (_request, connection) => {
    await until('released', () => !hold);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url, cache: { rules: [{ ttlMs: 60_000 }] }, rateLimits: only(2) });
  const asks = Array.from({ length: 5 }, () => rig.ask(proxy, '/ai/a'));
  await until('all are there', () => proxy.upstream().in_flight === 5);
  hold = false;
  for (const got of await Promise.all(asks)) t.equal(got.status, 200);
  t.equal((await rig.ask(proxy, '/ai/b')).status, 200);
  t.equal((await rig.ask(proxy, '/ai/c')).status, 429);
  t.equal(upstream.requests.length, 2);
});

e2e('who is refused in a shared fetch is told of the limit like anybody else', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, cache: { rules: [{ ttlMs: 60_000 }] }, rateLimits: only(1) });
  await rig.ask(proxy, '/ai/a');
  const got = await rig.ask(proxy, '/ai/b');
  t.same([got.status, got.code], [429, 'rate_limited']);
  t.match(got.get('ratelimit-policy'), /;q=1;w=3600$/);
  t.match(got.get('ratelimit'), /;r=0;t=3\d\d\d$/);
  t.ok(Number(got.get('retry-after')) > 3500, `Retry-After: ${got.get('retry-after')}`);
  t.equal(proxy.upstream().rate_limits[0]!.refused, 1);
});

e2e('a stale answer is served where the fetch that would renew it has no token', async (t, rig) => {
  const upstream = await rig.upstream();
  let now = Date.now();
  const proxy = await rig.proxy(
    {
      upstreams: {
        ai: {
          url: upstream.url,
          cache: { rules: [{ ttlMs: 1000, staleIfErrorMs: 60_000 }] },
          rateLimits: only(1),
        },
      },
    },
    () => now,
  );
  await rig.ask(proxy, '/ai/a');
  now += 5000;
  const got = await rig.ask(proxy, '/ai/a');
  t.equal(got.status, 200);
  t.match(got.get('cache-status'), /stale|rate_limited/);
  t.equal(upstream.requests.length, 1);
});

e2e('what is refused before costs no token: no room in the queue, the breaker, a bad request', async (t, rig) => {
  const upstream = await rig.upstream((request, connection) => {
    if (request.target === '/hold') return;
    connection.send(request.target === '/bad' ? answer('', '', '500 Internal Server Error') : answer());
  });
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai', breaker: { consecutiveFailures: 1, openMs: 60 }, rateLimits: only(3) },
    { limiters: { ai: { maxConcurrent: 1, maxQueue: 0 } } },
  );
  const holding = await rig.sent(proxy, '/ai/hold');
  await upstream.request(0);
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'queue_full');
  t.equal((await rig.ask(proxy, '/ai/%2e%2e/x')).code, 'invalid_target');
  holding.reset();
  await proxy.idle();
  t.equal((await rig.ask(proxy, '/ai/bad')).status, 500);
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'breaker_open');
  await until('the breaker lets one through', () => proxy.upstream().targets[0]!.breaker!.state !== 'open');
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200, 'the third token is still there');
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'rate_limited');
});

e2e('those who wait when the breaker opens are told so, and cost no token', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    if (request.target !== '/bad') return connection.send(answer());
    await until('all wait', () => proxy.limiter('ai').queued === 3);
    return connection.send(answer('', '', '500 Internal Server Error'));
  });
  const proxy = await rig.one(
    {
      url: upstream.url,
      limiter: 'ai',
      breaker: { consecutiveFailures: 1, openMs: 60 },
      rateLimits: only(3, 'wait'),
    },
    { limiters: { ai: { maxConcurrent: 1 } } },
  );
  const bad = rig.ask(proxy, '/ai/bad');
  await upstream.request(0);
  const asks = Array.from({ length: 3 }, () => rig.ask(proxy, '/ai/x'));
  t.equal((await bad).status, 500);
  for (const got of await Promise.all(asks)) t.equal(got.code, 'breaker_open');
  await until('the breaker lets one through', () => proxy.upstream().targets[0]!.breaker!.state !== 'open');
  for (const _ of '12') t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.same([proxy.limiter('ai').queued, proxy.upstream().rate_limits[0]!.held], [0, 0]);
  t.equal(upstream.requests.length, 3);
});

// Rate limits: who waits, who is refused and what he is told, and what costs a token.

import type { TestProxy } from '../support/proxy.ts';
import type { RawAnswer, RawClient } from '../support/raw-client.ts';
import { e2e, type Rig, requestText } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

/** Nobody passes a second time within a test. */
const HOURLY = { requests: 1, perMs: 3_600_000 };

const limitOf = (proxy: TestProxy, index = 0) => proxy.upstream().rate_limits[index]!;

/** One request after the other, on one connection. */
async function inTurn(client: RawClient, requests: readonly string[]): Promise<RawAnswer[]> {
  const answers: RawAnswer[] = [];
  for (const request of requests) answers.push(await client.send(request).answer());
  return answers;
}

async function arrivals(rig: Rig, rateLimits: object[], count: number): Promise<{ times: number[]; proxy: TestProxy }> {
  const times: number[] = [];
  const upstream = await rig.upstream((_request, connection) => {
    times.push(performance.now());
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url, rateLimits });
  const got = await Promise.all(Array.from({ length: count }, () => rig.ask(proxy, '/ai/x')));
  for (const { status } of got) if (status !== 200) throw new Error(`${status}`);
  return { times, proxy };
}

e2e('wait: requests beyond the limit wait in the queue, and pass at its rate', async (t, rig) => {
  const { times, proxy } = await arrivals(rig, [{ requests: 20, perMs: 1000 }], 21);
  const took = times.at(-1)! - times[0]!;
  t.ok(took >= 1000 - 31, `${took} ms for 20 intervals of 50 ms`);
  for (let i = 1; i < times.length; i++) {
    t.ok(times[i]! - times[0]! >= i * 50 - 31, `request ${i} came after ${times[i]! - times[0]!} ms`);
  }
  t.match(limitOf(proxy), { requests: 20, per_ms: 1000, burst: 1, key: 'global', on_limit: 'wait', keys: 1 });
  t.match(limitOf(proxy), { held: 0, held_total: 20, refused: 0 });
});

e2e('wait: a burst passes at once, the rest at the rate', async (t, rig) => {
  const { times } = await arrivals(rig, [{ requests: 10, perMs: 1000, burst: 8 }], 10);
  t.ok(times[7]! - times[0]! < 90, `the burst took ${times[7]! - times[0]!} ms`);
  t.ok(times[9]! - times[0]! >= 200 - 31, `the tenth came after ${times[9]! - times[0]!} ms`);
});

e2e('of two limits both are kept', async (t, rig) => {
  const { times } = await arrivals(
    rig,
    [
      { requests: 1000, perMs: 1000, burst: 4 },
      { requests: 20, perMs: 1000 },
    ],
    6,
  );
  t.ok(times[5]! - times[0]! >= 250 - 31);
});

e2e('reject: 429 rate_limited with the fields that say what the limit is and when to come again', async (t, rig) => {
  const upstream = await rig.upstream();
  const limit = { requests: 2, perMs: 60_000, burst: 2, onLimit: 'reject' } as const;
  const proxy = await rig.one({ url: upstream.url, rateLimits: [limit] });
  for (const _ of '12') t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  const got = await rig.ask(proxy, '/ai/x');
  t.same([got.status, got.code], [429, 'rate_limited']);
  t.same(got.all('retry-after'), ['30']);
  t.same(got.all('ratelimit-policy'), ['"default";q=2;w=60']);
  t.same(got.all('ratelimit'), ['"default";r=0;t=30']);
  t.equal(upstream.requests.length, 2);
  t.match(limitOf(proxy), { refused: 1, held: 0, held_total: 0 });
  await proxy.idle();
  t.match(proxy.exchanges[2], { status: 429, failure: 'rate_limited', attempts: 0 });
  t.match(proxy.upstream(), { failures: { rate_limited: 1 }, status: { '429': 1 } });
});

e2e('reject: who has no token is told at once, though all permits are taken', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai', rateLimits: [{ ...HOURLY, burst: 2, onLimit: 'reject' }] },
    { limiters: { ai: { maxConcurrent: 1 } } },
  );
  await rig.sent(proxy, '/ai/1');
  await upstream.request(0);
  const second = await rig.sent(proxy, '/ai/2');
  await until('it waits for the permit', () => proxy.limiter('ai').queued === 1);
  t.equal((await rig.ask(proxy, '/ai/3')).code, 'rate_limited', 'the last token is for the one who waits');
  second.reset();
  await until('it has left', () => proxy.limiter('ai').queued === 0);
  await rig.sent(proxy, '/ai/4');
  await until('the next one has its token', () => proxy.limiter('ai').queued === 1);
});

e2e('a limit for each credential: one without tokens neither holds up nor refuses another', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, rateLimits: [{ ...HOURLY, key: 'credential' }] });
  const key = (name: string) => ({ headers: `x-api-key: ${name}\r\n` });
  t.equal((await rig.ask(proxy, '/ai/x', key('a'))).status, 200);
  await rig.sent(proxy, '/ai/x', key('a'));
  await until('a is held', () => limitOf(proxy).held === 1);
  t.equal((await rig.ask(proxy, '/ai/x', key('b'))).status, 200);
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200, 'the Authorization alone is a third');
  t.equal(limitOf(proxy).keys, 3);
  t.equal(limitOf(proxy).key, 'credential');
});

e2e('a limit for each value of a header, in whatever case its name is; those without it share one', async (t, rig) => {
  const upstream = await rig.upstream();
  const limit = { ...HOURLY, key: { header: 'x-user-id' }, onLimit: 'reject' } as const;
  const proxy = await rig.one({ url: upstream.url, rateLimits: [limit] });
  const codes: (string | undefined)[] = [];
  for (const headers of ['x-user-id: a', 'X-User-ID: a', 'x-user-id: b', 'x-user: a', 'x-user-id: ']) {
    codes.push((await rig.ask(proxy, '/ai/x', { headers: `${headers}\r\n` })).code);
  }
  t.same(codes, [undefined, 'rate_limited', undefined, undefined, 'rate_limited']);
  t.same([limitOf(proxy).keys, limitOf(proxy).key], [3, 'header:x-user-id']);
  t.same(upstream.requests[0]!.get('x-user-id'), 'a', 'the header goes on to the upstream');
});

e2e('10 000 keys are told apart, the rest share one, and values of any length are kept short', async (t, rig) => {
  const upstream = await rig.http((_request, response) => response.end('ok'));
  const limit = { ...HOURLY, key: { header: 'x-user-id' }, onLimit: 'reject' } as const;
  const proxy = await rig.one({ url: upstream.url, rateLimits: [limit] });
  const client = await rig.client(proxy);
  const request = (id: string) => requestText('/ai/x', { headers: `x-user-id: ${id}\r\n` });
  const long = 'u'.repeat(9000);
  const first = await inTurn(client, [`${long}1`, `${long}2`, `${long}1`].map(request));
  t.same(
    first.map(({ status }) => status),
    [200, 200, 429],
    'long values that differ at their end are told apart',
  );
  // Eight connections, as each waits for its answer.
  const clients = await Promise.all(Array.from({ length: 8 }, () => rig.client(proxy)));
  const ids = Array.from({ length: 9998 }, (_, i) => `${i}`);
  const got = await Promise.all(clients.map((one, n) => inTurn(one, ids.filter((_, i) => i % 8 === n).map(request))));
  t.ok(got.flat().every(({ status }) => status === 200));
  t.match(limitOf(proxy), { keys: 10_000, overflowed: 0 });
  const beyond = await inTurn(client, ['x', 'y', 'z', '7'].map(request));
  t.same(
    beyond.map(({ status }) => status),
    [200, 429, 429, 429],
  );
  t.match(limitOf(proxy), { keys: 10_000, overflowed: 3 });
});

e2e('a queue_timeout while held is told as such, and frees the place', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai', rateLimits: [HOURLY] },
    { limiters: { ai: { queueTimeoutMs: 60 } } },
  );
  await rig.ask(proxy, '/ai/1');
  const got = await rig.ask(proxy, '/ai/2');
  t.same([got.status, got.code], [503, 'queue_timeout']);
  t.same([proxy.limiter('ai').queued, limitOf(proxy).held, proxy.limiter('ai').refused], [0, 0, 1]);
  t.equal(upstream.requests.length, 1);
});

e2e('those who are held count against max_queue', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai', rateLimits: [HOURLY] },
    { limiters: { ai: { maxQueue: 2 } } },
  );
  await rig.ask(proxy, '/ai/1');
  for (const i of [1, 2]) {
    await rig.sent(proxy, '/ai/x');
    await until('held', () => limitOf(proxy).held === i);
  }
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'queue_full');
});

e2e('a client that leaves while held frees its place, costs no token, and the next keeps its turn', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, limiter: 'ai', rateLimits: [{ requests: 1, perMs: 300 }] }, {
    limiters: { ai: { maxConcurrent: 5 } },
  }); // biome-ignore format: short
  const startedAt = performance.now();
  await rig.ask(proxy, '/ai/1');
  const leaving = await rig.sent(proxy, '/ai/2');
  await until('held', () => limitOf(proxy).held === 1);
  const third = rig.ask(proxy, '/ai/3');
  await until('held', () => limitOf(proxy).held === 2);
  leaving.reset();
  await until('its place is free', () => limitOf(proxy).held === 1);
  t.same([proxy.limiter('ai').queued, proxy.limiter('ai').in_flight], [1, 0], 'no permit is held meanwhile');
  t.equal((await third).status, 200);
  t.ok(performance.now() - startedAt < 590, 'the third has the token of the second');
  t.same(
    upstream.requests.map(({ target }) => target),
    ['/1', '/3'],
  );
});

e2e('a bypass path is not limited', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({
    url: upstream.url,
    bypass: ['/health'],
    rateLimits: [{ ...HOURLY, onLimit: 'reject' }],
  });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  for (const _ of '123') t.equal((await rig.ask(proxy, '/ai/health')).status, 200);
  t.equal((await rig.ask(proxy, '/ai/x')).status, 429);
});

e2e('each attempt costs a token', async (t, rig) => {
  const times: number[] = [];
  const upstream = await rig.upstream((_request, connection) => {
    times.push(performance.now());
    connection.send(times.length < 3 ? answer('no', '', '503 Service Unavailable') : answer());
  });
  const proxy = await rig.one({
    url: upstream.url,
    retries: { backoffMs: 1 },
    rateLimits: [{ requests: 10, perMs: 1000 }],
  });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.equal(times.length, 3);
  t.ok(times[2]! - times[0]! >= 200 - 31, `${times[2]! - times[0]!} ms`);
});

e2e('who waits for a token and needs a permit holds none, so that others run', async (t, rig) => {
  const upstream = await rig.upstream();
  const other = await rig.upstream();
  const proxy = await rig.proxy({
    upstreams: {
      ai: { url: upstream.url, limiter: 'all', rateLimits: [HOURLY] },
      other: { url: other.url, limiter: 'all' },
    },
    limiters: { all: { maxConcurrent: 1 } },
  });
  await rig.ask(proxy, '/ai/1');
  for (const _ of '123') await rig.sent(proxy, '/ai/x');
  await until('held', () => limitOf(proxy).held === 3);
  t.equal((await rig.ask(proxy, '/other/x')).status, 200);
  await whileNothing(50);
  t.equal(upstream.requests.length, 1);
});

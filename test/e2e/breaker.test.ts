// The circuit breaker: what opens it, who is refused then and how, and the one real request that finds out whether it may close.

import { breakerOf, byPath, Hold, hangs, inTurn, refusing, resets, targetOf } from '../support/bad-days.ts';
import type { ConfigOverrides, UpstreamOverrides } from '../support/proxy.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, type Script } from '../support/upstream.ts';

const NEVER = Number.POSITIVE_INFINITY;
/** One failure opens it, for long. */
const TOUCHY = { consecutiveFailures: 1, failureRatio: 2, openMs: 30_000 };

async function scene(
  rig: Rig,
  upstreamOverrides: Omit<UpstreamOverrides, 'url'>,
  rest: Omit<ConfigOverrides, 'upstreams'> = {},
  script: Script = byPath,
) {
  const upstream = await rig.upstream(script);
  const proxy = await rig.one({ url: upstream.url, ...upstreamOverrides }, rest);
  return { upstream, proxy };
}

e2e('it opens after so many failures in a row; a success starts the count anew', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, { breaker: { consecutiveFailures: 3, failureRatio: 2, openMs: 8000 } });
  for (const path of ['500', 'reset', 'fine', '500', '503']) await rig.ask(proxy, `/ai/${path}`);
  t.match(breakerOf(proxy), { state: 'closed', consecutive_failures: 2 });
  t.equal((await rig.ask(proxy, '/ai/500')).status, 500);
  t.match(breakerOf(proxy), { state: 'open', opened: 1 });
  const asked = upstream.requests.length;
  const refused = await rig.ask(proxy, '/ai/fine', { method: 'POST', body: 'x' });
  t.equal(refused.status, 503);
  t.equal(refused.code, 'breaker_open');
  t.equal(refused.get('x-should-retry'), undefined, 'it was never sent: a retry is safe');
  const retryAfter = Number(refused.get('retry-after'));
  t.ok(retryAfter >= 4 && retryAfter <= 8, `half to all of the open time: ${retryAfter} s`);
  t.equal(upstream.requests.length, asked);
  await proxy.idle();
  t.match(proxy.exchanges.at(-1), { status: 503, failure: 'breaker_open', attempts: 0, queue_ms: null });
  t.equal(proxy.upstream().failures.breaker_open, 1);
});

e2e('it opens by ratio from a minimum of requests on, and only at a failure', async (t, rig) => {
  const rules = { consecutiveFailures: NEVER, failureRatio: 0.5, minRequests: 6, openMs: 30_000 };
  const { upstream, proxy } = await scene(rig, { breaker: rules });
  for (let i = 0; i < 5; i++) t.equal((await rig.ask(proxy, '/ai/500')).status, 500);
  t.equal((await rig.ask(proxy, '/ai/fine')).status, 200, 'five failures of five are too few to tell');
  t.equal(breakerOf(proxy).state, 'closed', 'a success opens nothing, though five of six have failed');
  t.equal((await rig.ask(proxy, '/ai/500')).status, 500);
  t.equal((await rig.ask(proxy, '/ai/fine')).code, 'breaker_open');
  t.equal(upstream.requests.length, 7);
});

e2e('below the ratio it stays closed, however many fail', async (t, rig) => {
  const rules = { consecutiveFailures: NEVER, failureRatio: 0.5, minRequests: 4 };
  const { proxy } = await scene(rig, { breaker: rules });
  for (let i = 0; i < 10; i++) for (const path of ['fine', 'fine', '500']) await rig.ask(proxy, `/ai/${path}`);
  t.equal(breakerOf(proxy).state, 'closed');
});

/** Half of an answer, and then the rest of what happens. */
function afterHalf(then: (connection: Parameters<Script>[1]) => void): Script {
  return (_request, connection) => {
    connection.send(`${chunkedHead()}${chunk('half')}`);
    setTimeout(() => then(connection), 10);
  };
}

const COUNT: readonly (readonly [string, Script, UpstreamOverrides['timeouts']])[] = [
  ['a reset', resets, {}],
  ['a close before the answer', (_request, connection) => connection.end(), {}],
  ['junk', inTurn('junk\r\n\r\n'), {}],
  ['a hung upstream (headers_timeout)', hangs, { headersMs: 60 }],
  ['a hung upstream (total_timeout)', hangs, { totalMs: 60 }],
  ['an answer that is cut', afterHalf((connection) => connection.resetAndDestroy()), {}],
  ['an answer that stalls (idle_timeout)', afterHalf(() => {}), { idleMs: 60 }],
  ['a stream of nothing but filler', inTurn(`${chunkedHead()}${chunk('\n')}`), { firstEventMs: 60 }],
  ['a 500', inTurn(answer('', '', '500 No')), {}],
  ['a 503', inTurn(answer('', 'retry-after: 0\r\n', '503 No')), {}],
];

for (const [name, script, timeouts = {}] of COUNT) {
  e2e(`${name} counts against the upstream`, async (t, rig) => {
    const { upstream, proxy } = await scene(rig, { breaker: TOUCHY, timeouts }, {}, script);
    await rig.ask(proxy, '/ai/x').catch((error: Error) => t.match(error.message, /ended/));
    await until('open', () => breakerOf(proxy).state === 'open');
    t.equal((await rig.ask(proxy, '/ai/x')).code, 'breaker_open');
    t.equal(upstream.requests.length, 1);
  });
}

e2e('a refused connection is tried once more before it counts; an open breaker is not tried at all', async (t, rig) => {
  const url = await refusing(await rig.upstream());
  const proxy = await rig.one({ url, breaker: TOUCHY });
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'connect_failed');
  t.equal(proxy.pool().connect_failed, 2);
  t.match(targetOf(proxy), { attempts: 2, failures: 1, breaker: { state: 'open', opened: 1 } });
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'breaker_open');
  t.equal(proxy.pool().connect_failed, 2);
});

const COUNT_NOT: readonly (readonly [string, Script])[] = [
  ['429', inTurn(answer('', 'retry-after: 0\r\n', '429 Slow down'), answer())],
  ['404', inTurn(answer('', '', '404 Not here'), answer())],
];

for (const [name, script] of COUNT_NOT) {
  e2e(`${name} does not count against the upstream`, async (t, rig) => {
    const { proxy } = await scene(rig, { breaker: TOUCHY }, {}, script);
    t.equal((await rig.ask(proxy, '/ai/x')).status, Number(name));
    t.match(breakerOf(proxy), { state: 'closed', consecutive_failures: 0 });
    t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  });
}

e2e('a client that leaves does not count, whether it waits or reads', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, { breaker: TOUCHY }, {}, (request, connection) => {
    if (request.target === '/read') connection.send(`${chunkedHead()}${chunk('half')}`);
    else if (request.target !== '/wait') connection.send(answer());
  });
  const waiting = await rig.sent(proxy, '/ai/wait');
  await upstream.request(0);
  waiting.reset();
  const reading = await rig.sent(proxy, '/ai/read');
  await reading.head();
  reading.reset();
  await proxy.idle();
  t.match(breakerOf(proxy), { state: 'closed', consecutive_failures: 0 });
  t.equal((await rig.ask(proxy, '/ai/fine')).status, 200);
});

e2e('what aiproxy refuses, and a deadline of the caller, do not count', async (t, rig) => {
  const { upstream, proxy } = await scene(
    rig,
    { breaker: TOUCHY, limiter: 'ai' },
    { limiters: { ai: { maxConcurrent: 1, maxQueue: 1, queueTimeoutMs: 80 } } },
  );
  const first = await rig.sent(proxy, '/ai/hang', { headers: 'x-aiproxy-deadline-ms: 300\r\n' });
  await upstream.request(0);
  const queued = await rig.sent(proxy, '/ai/fine');
  await until('queued', () => proxy.limiter('ai').queued === 1);
  t.equal((await rig.ask(proxy, '/ai/fine')).code, 'queue_full');
  t.equal((await queued.answer()).code, 'queue_timeout');
  t.equal((await first.answer()).code, 'deadline_exceeded');
  t.match(breakerOf(proxy), { state: 'closed', consecutive_failures: 0 });
  t.equal((await rig.ask(proxy, '/ai/fine')).status, 200);
});

e2e('opening fails everybody in the queue at once, and none of them reaches the upstream', async (t, rig) => {
  const { upstream, proxy } = await scene(
    rig,
    { breaker: TOUCHY, limiter: 'ai' },
    { limiters: { ai: { maxConcurrent: 1 } } },
  );
  const hold = new Hold(upstream);
  const first = await rig.sent(proxy, '/ai/held');
  await hold.count(1);
  const queued = [];
  for (let i = 0; i < 40; i++)
    queued.push(await rig.sent(proxy, '/ai/fine', i % 2 ? { method: 'POST', body: 'x' } : {}));
  await until('all are queued', () => proxy.limiter('ai').queued === 40);
  hold.held[0]!.connection.resetAndDestroy();
  t.equal((await first.answer()).code, 'upstream_reset');
  for (const client of queued) {
    const got = await client.answer();
    t.equal(`${got.status} ${got.code}`, '503 breaker_open');
    t.ok(Number(got.get('retry-after')) >= 1);
  }
  t.equal(upstream.requests.length, 1);
  await proxy.idle();
  t.equal(proxy.upstream().failures.breaker_open, 40);
  const lines = proxy.exchanges.filter((line) => line.failure === 'breaker_open');
  t.ok(lines.every(({ attempts }) => attempts === 0));
});

e2e('half open, it lets one request through and refuses the others; its good answer closes it', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, { breaker: { ...TOUCHY, openMs: 60 } });
  const hold = new Hold(upstream);
  await rig.ask(proxy, '/ai/500');
  await until('half open', () => breakerOf(proxy).state === 'half_open');
  const clients = await Promise.all(Array.from({ length: 10 }, () => rig.sent(proxy, '/ai/held')));
  await hold.count(1);
  await until('the others are refused', () => proxy.upstream().failures.breaker_open === 9);
  t.equal(upstream.requests.length, 2);
  t.equal(breakerOf(proxy).state, 'half_open');
  hold.release();
  const codes = (await Promise.all(clients.map((client) => client.answer()))).map(({ status }) => status);
  t.same(codes.sort(), [200, ...Array(9).fill(503)]);
  t.match(breakerOf(proxy), { state: 'closed', opened: 1 });
  t.equal((await rig.ask(proxy, '/ai/fine')).status, 200);
});

e2e('the head of a good answer closes it: nobody waits for the end of a stream', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, { breaker: { ...TOUCHY, openMs: 40 } });
  await rig.ask(proxy, '/ai/500');
  await until('half open', () => breakerOf(proxy).state === 'half_open');
  upstream.script = inTurn((_request, connection) => {
    connection.send(`${chunkedHead()}${chunk('first')}`);
  }, answer());
  const stream = await rig.sent(proxy, '/ai/stream');
  t.equal((await stream.piece().catch(() => null)) ?? (await stream.head()).status, 200);
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  stream.reset();
});

e2e('a probe that fails doubles the open time, up to its maximum', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, { breaker: { ...TOUCHY, openMs: 50, maxOpenMs: 150 } });
  await rig.ask(proxy, '/ai/500');
  const times = [breakerOf(proxy).retry_after_ms];
  for (let round = 0; round < 3; round++) {
    await until('half open', () => breakerOf(proxy).state === 'half_open');
    t.equal(
      (await rig.ask(proxy, round % 2 ? '/ai/reset' : '/ai/503')).get('x-aiproxy-error'),
      round % 2 ? 'upstream_reset' : undefined,
    );
    t.match(breakerOf(proxy), { state: 'open', opened: round + 2 });
    times.push(breakerOf(proxy).retry_after_ms);
  }
  t.equal(
    upstream.requests.length,
    5,
    'the reset may have met a connection that had been given up: that one was repeated',
  );
  // Half to all of 50, 100, 150, 150; less what passed since.
  const most = [50, 100, 150, 150];
  t.ok(
    times.every((ms, i) => ms <= most[i]!),
    `${times}`,
  );
  t.ok(times[2]! > 50 && times[3]! > 50, `${times}: it has grown`);
});

e2e('a probe whose client leaves, or that says nothing, gives its place to the next', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, { breaker: { ...TOUCHY, openMs: 40 } });
  const hold = new Hold(upstream);
  await rig.ask(proxy, '/ai/500');
  await until('half open', () => breakerOf(proxy).state === 'half_open');
  const probe = await rig.sent(proxy, '/ai/held');
  await hold.count(1);
  t.equal((await rig.ask(proxy, '/ai/fine')).code, 'breaker_open');
  probe.reset();
  await proxy.idle();
  t.match(breakerOf(proxy), { state: 'half_open', opened: 1 });
  t.equal((await rig.ask(proxy, '/ai/429')).status, 429, 'a second probe, which says nothing either');
  t.match(breakerOf(proxy), { state: 'half_open', opened: 1 });
  t.equal((await rig.ask(proxy, '/ai/fine')).status, 200);
  t.equal(breakerOf(proxy).state, 'closed');
});

e2e('of many who queue while it is half open, one is the probe and the others are refused', async (t, rig) => {
  const sick = await rig.upstream();
  const well = await rig.upstream();
  const [atSick, atWell] = [new Hold(sick), new Hold(well)];
  const proxy = await rig.proxy({
    upstreams: {
      sick: { url: sick.url, limiter: 'ai', breaker: { ...TOUCHY, openMs: 40 } },
      well: { url: well.url, limiter: 'ai' },
    },
    limiters: { ai: { maxConcurrent: 2 } },
  });
  await rig.ask(proxy, '/sick/500');
  const busy = [await rig.sent(proxy, '/well/held'), await rig.sent(proxy, '/well/held')];
  await atWell.count(2);
  await until('half open', () => breakerOf(proxy, 0, 'sick').state === 'half_open');
  const clients = [];
  for (let i = 0; i < 6; i++) clients.push(await rig.sent(proxy, '/sick/held'));
  await until('all are queued', () => proxy.limiter('ai').queued === 6);
  for (const client of busy) {
    atWell.release();
    await client.answer();
  }
  await atSick.count(1);
  await until('five are refused', () => proxy.upstream('sick').failures.breaker_open === 5);
  atSick.release();
  t.equal((await clients[0]!.answer()).status, 200, 'the first in the queue was the probe');
  t.equal(sick.requests.length, 2);
});

e2e('when it is open a stale answer is given instead of 503, where a rule allows that', async (t, rig) => {
  const upstream = await rig.upstream(byPath);
  const clock = { now: Date.now() };
  const cache = { rules: [{ ttlMs: 1000, staleIfErrorMs: 60_000, match: { paths: ['/food'] } }] };
  const ai = { url: upstream.url, breaker: TOUCHY, cache };
  const proxy = await rig.proxy({ upstreams: { ai } }, () => clock.now);
  t.equal((await rig.ask(proxy, '/ai/food')).status, 200);
  await rig.ask(proxy, '/ai/500');
  t.equal(breakerOf(proxy).state, 'open');
  t.match((await rig.ask(proxy, '/ai/food')).get('cache-status'), /aiproxy; hit/);
  clock.now += 5000;
  const stale = await rig.ask(proxy, '/ai/food');
  t.equal(stale.status, 200);
  t.equal(stale.body.toString(), 'food');
  t.match(stale.get('cache-status'), /aiproxy; .*detail=breaker_open/);
  t.equal((await rig.ask(proxy, '/ai/other')).code, 'breaker_open');
  clock.now += 120_000;
  t.equal((await rig.ask(proxy, '/ai/food')).code, 'breaker_open', 'not when it is too old for that');
  t.equal(upstream.requests.length, 2);
});

e2e('an upstream without a breaker is asked however often it fails', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, {});
  for (let i = 0; i < 8; i++) t.equal((await rig.ask(proxy, '/ai/500')).status, 500);
  t.equal(upstream.requests.length, 8);
  t.equal(breakerOf(proxy), null);
});

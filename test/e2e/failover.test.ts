// Several servers behind one upstream: who gets a request, who gets it next when the first fails, and what each of them is sent.

import { breakerOf, byPath, Hold, hangs, inTurn, refusing, resets, targetOf } from '../support/bad-days.ts';
import type { TargetOverrides, UpstreamOverrides } from '../support/proxy.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type RawUpstream, type Script } from '../support/upstream.ts';

const SOON = { backoffMs: 1, maxBackoffMs: 2, budgetMin: 100 };
const BUSY = answer('busy', '', '503 Busy');
const TOUCHY = { consecutiveFailures: 1, failureRatio: 2, openMs: 30_000 };

/** One upstream with so many servers. */
async function scene(
  rig: Rig,
  servers: readonly (Omit<TargetOverrides, 'url'> & { script?: Script; base?: string; down?: boolean })[],
  ai: Omit<UpstreamOverrides, 'url' | 'targets'> = {},
) {
  const upstreams: RawUpstream[] = [];
  const targets: TargetOverrides[] = [];
  for (const { script = byPath, base = '', down = false, ...target } of servers) {
    const upstream = await rig.upstream(script);
    upstreams.push(upstream);
    targets.push({ ...target, url: (down ? await refusing(upstream) : upstream.url) + base });
  }
  const proxy = await rig.one({ ...ai, targets });
  const counts = () => upstreams.map(({ requests }) => requests.length);
  return { upstreams, proxy, counts };
}

e2e('servers of one priority take turns by weight, and one of a higher number gets nothing', async (t, rig) => {
  const { proxy, counts } = await scene(rig, [{ weight: 3 }, { weight: 1 }, { priority: 1, weight: 50 }]);
  for (let i = 0; i < 40; i++) await rig.ask(proxy, '/ai/x');
  t.same(counts(), [30, 10, 0]);
});

e2e('of many at once each server carries its weight, and who is slow gets no more', async (t, rig) => {
  const { upstreams, proxy, counts } = await scene(rig, [{ weight: 3 }, { weight: 1 }]);
  const holds = upstreams.map((upstream) => new Hold(upstream));
  const clients = [];
  for (let i = 0; i < 16; i++) clients.push(await rig.sent(proxy, '/ai/held'));
  await until('all are there', () => counts()[0]! + counts()[1]! === 16);
  t.same(counts(), [12, 4]);
  t.same([targetOf(proxy, 0).in_flight, targetOf(proxy, 1).in_flight], [12, 4]);
  // The first one gets free; the other stays as it is.
  for (let i = 0; i < 12; i++) holds[0]!.release();
  await until('free', () => targetOf(proxy, 0).in_flight === 0);
  for (let i = 0; i < 10; i++) await rig.ask(proxy, '/ai/quick');
  t.same(counts(), [22, 4]);
  for (let i = 0; i < 4; i++) holds[1]!.release();
  for (const client of clients) t.equal((await client.answer()).status, 200);
  await proxy.idle();
  t.same([targetOf(proxy, 0).in_flight, targetOf(proxy, 1).in_flight], [0, 0]);
});

e2e('a server that refuses connections is passed over at once, for POST with a body too', async (t, rig) => {
  const { upstreams, proxy } = await scene(rig, [{ down: true }, { priority: 1 }]);
  const body = 'x'.repeat(100_000);
  const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body });
  t.equal(got.status, 200);
  const [request] = upstreams[1]!.requests;
  t.equal(request!.body.toString(), body);
  t.equal(proxy.pool().connect_failed, 1);
  await proxy.idle();
  t.match(proxy.exchanges[0], { attempts: 2, target: upstreams[1]!.url, failure: null });
  t.match(targetOf(proxy, 0), { attempts: 1, failures: 1 });
});

e2e('a streamed body too, as nothing of it was taken', async (t, rig) => {
  const { upstreams, proxy } = await scene(rig, [{ down: true }, {}]);
  const body = 'x'.repeat(600_000);
  const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body });
  t.equal(got.status, 200);
  t.equal(upstreams[1]!.requests[0]!.bodyBytes, body.length);
});

e2e('when all refuse, each was tried, and the client may try again', async (t, rig) => {
  const { proxy } = await scene(rig, [{ down: true }, { down: true }, { down: true, priority: 1 }]);
  const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'b' });
  t.equal(got.code, 'connect_failed');
  t.equal(got.get('x-should-retry'), undefined);
  for (let i = 0; i < 3; i++) t.ok(targetOf(proxy, i).attempts >= 1, `server ${i}`);
  t.equal(proxy.pool().connect_failed, 4, 'each once, and one once more');
});

e2e('while a breaker is open the next priority is used, and the first one again when it closes', async (t, rig) => {
  const { proxy, counts } = await scene(rig, [{}, { priority: 1 }], { breaker: { ...TOUCHY, openMs: 150 } });
  t.equal((await rig.ask(proxy, '/ai/500')).status, 500);
  t.equal(breakerOf(proxy, 0).state, 'open');
  for (let i = 0; i < 3; i++) t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.same(counts(), [1, 3]);
  await until('half open', () => breakerOf(proxy, 0).state === 'half_open');
  for (let i = 0; i < 3; i++) t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.same(counts(), [4, 3], 'the probe went well');
  t.equal(breakerOf(proxy, 1).state, 'closed');
});

e2e('while the probe is on its way the others use the next priority; nobody is refused', async (t, rig) => {
  const { upstreams, proxy, counts } = await scene(rig, [{}, { priority: 1 }], { breaker: { ...TOUCHY, openMs: 60 } });
  const hold = new Hold(upstreams[0]!);
  await rig.ask(proxy, '/ai/500');
  await until('half open', () => breakerOf(proxy, 0).state === 'half_open');
  const probe = await rig.sent(proxy, '/ai/held');
  await hold.count(1);
  for (let i = 0; i < 3; i++) t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.same(counts(), [2, 3]);
  hold.release();
  t.equal((await probe.answer()).status, 200);
});

e2e('one open breaker fails nobody in the queue, the last one fails them all', async (t, rig) => {
  const { upstreams, proxy } = await scene(rig, [{}, { priority: 1 }], { breaker: TOUCHY, pool: { connections: 1 } });
  const holds = upstreams.map((upstream) => new Hold(upstream));
  const first = await rig.sent(proxy, '/ai/held');
  await holds[0]!.count(1);
  const second = await rig.sent(proxy, '/ai/held');
  const others = [await rig.sent(proxy, '/ai/x'), await rig.sent(proxy, '/ai/x')];
  await until('all wait', () => proxy.stats().listener.in_flight === 4);
  holds[0]!.held[0]!.connection.resetAndDestroy();
  t.equal((await first.answer()).code, 'upstream_reset');
  await holds[1]!.count(1);
  holds[1]!.release(answer('', '', '500 No'));
  t.equal((await second.answer()).status, 500);
  for (const client of others) t.equal((await client.answer()).code, 'breaker_open');
});

e2e('Retry-After of a refusal is that of the server which may be tried first', async (t, rig) => {
  const { proxy } = await scene(rig, [{ priority: 0 }, { priority: 1 }], { breaker: { ...TOUCHY, openMs: 10_000 } });
  for (let i = 0; i < 2; i++) await rig.ask(proxy, '/ai/500');
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.code, 'breaker_open');
  const least = Math.min(breakerOf(proxy, 0).retry_after_ms, breakerOf(proxy, 1).retry_after_ms);
  t.ok(Math.abs(Number(got.get('retry-after')) - least / 1000) <= 1.1, `${got.get('retry-after')} of ${least}`);
});

e2e('a server’s own headers stand in place of the client’s, never beside them, and are not logged', async (t, rig) => {
  const own = 'Bearer sk-of-the-target';
  const { upstreams, proxy } = await scene(
    rig,
    [
      {
        script: inTurn(BUSY),
        headers: [
          ['authorization', own],
          ['x-region', 'eu'],
        ],
      },
      { base: '/openai/deployments/x', headers: [['api-key', 'k-of-the-second']] },
    ],
    { retries: SOON },
  );
  const got = await rig.ask(proxy, '/ai/v1/x?a=b', {
    headers: 'AUTHORIZATION: Bearer client\r\nX-Region: us\r\nx-other: 1\r\n',
  });
  t.equal(got.status, 200);
  const [first] = upstreams[0]!.requests;
  t.same(first!.all('authorization'), [own]);
  t.same(first!.all('x-region'), ['eu']);
  t.same(first!.all('x-other'), ['1']);
  const [second] = upstreams[1]!.requests;
  t.equal(second!.target, '/openai/deployments/x/v1/x?a=b');
  t.same(second!.all('api-key'), ['k-of-the-second']);
  t.same(second!.all('x-region'), ['us'], 'the client’s own, not the first server’s');
  t.equal(second!.all('authorization').length, 2, 'as the client sent them');
  t.same(second!.all('host'), [`127.0.0.1:${upstreams[1]!.port}`]);
  await proxy.idle();
  const said = proxy.rawLog.join('\n') + JSON.stringify(proxy.stats());
  t.notMatch(said, /sk-of-the-target|k-of-the-second/);
  t.match(proxy.exchanges[0], { target: `${upstreams[1]!.url}/openai/deployments/x`, attempts: 2 });
});

for (const [name, script] of [
  ['a 503', inTurn(BUSY)],
  ['a reset', resets],
  ['junk', inTurn('junk\r\n\r\n')],
  ['a hung server', hangs],
] as const) {
  e2e(`${name}: what may be repeated goes on at another server at once, a POST does not`, async (t, rig) => {
    const { proxy, counts } = await scene(rig, [{ script }, { priority: 1 }], {
      retries: { ...SOON, backoffMs: 60_000, maxBackoffMs: 60_000 },
      timeouts: { headersMs: 80 },
      replay: ['/again'],
    });
    t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
    t.equal((await rig.ask(proxy, '/ai/again', { method: 'POST', body: 'b' })).status, 200);
    t.same(counts(), [2, 2]);
    t.ok((await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'b' })).status >= 500);
    t.same(counts(), [3, 2]);
  });
}

e2e('another server is not waited for, whatever Retry-After the first one asks', async (t, rig) => {
  const { proxy, counts } = await scene(
    rig,
    [{ script: inTurn(answer('', 'retry-after: 3600\r\n', '429 Slow')) }, { priority: 1 }],
    { retries: SOON },
  );
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.same(counts(), [1, 1]);
});

e2e('when all have been tried the first priority is next, after a back-off', async (t, rig) => {
  const { upstreams, proxy, counts } = await scene(
    rig,
    [{ script: inTurn(BUSY, answer('third')) }, { script: inTurn(BUSY), priority: 1 }],
    { retries: SOON },
  );
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'third');
  t.same(counts(), [2, 1]);
  await proxy.idle();
  t.match(proxy.exchanges[0], { attempts: 3, target: upstreams[0]!.url });
});

e2e('failing over costs the retry budget, as any attempt after an answer', async (t, rig) => {
  const { proxy, counts } = await scene(rig, [{ script: inTurn(BUSY) }, { priority: 1 }], {
    retries: { ...SOON, budgetMin: 1, budgetRatio: 0 },
  });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.equal((await rig.ask(proxy, '/ai/x')).status, 503);
  t.same(counts(), [2, 1]);
});

e2e('a stream from the second server comes as it is', async (t, rig) => {
  const sse: Script = async (request, connection) => {
    await request.whole();
    connection.send(`${chunkedHead('content-type: text/event-stream\r\n')}${chunk('data: 1\n\n')}`);
    connection.send(`${chunk('data: [DONE]\n\n')}${LAST_CHUNK}`);
  };
  const { proxy } = await scene(rig, [{ script: resets }, { script: sse, priority: 1 }], {
    retries: SOON,
    replay: ['/v1/chat/completions'],
  });
  const got = await rig.ask(proxy, '/ai/v1/chat/completions', { method: 'POST', body: '{"stream":true}' });
  t.same([got.status, got.body.toString(), got.ending], [200, 'data: 1\n\ndata: [DONE]\n\n', 'clean']);
  t.equal(proxy.upstream().maybe_billed_twice, 1);
});

e2e('nothing fails over once the client has a byte', async (t, rig) => {
  const cut: Script = (_request, connection) => {
    connection.send(`${chunkedHead()}${chunk('half')}`);
    setTimeout(() => connection.resetAndDestroy(), 10);
  };
  const { proxy, counts } = await scene(rig, [{ script: cut }, { priority: 1 }], { retries: SOON });
  const got = await rig.ask(proxy, '/ai/x');
  t.same([got.ending, got.body.toString()], ['reset', 'half']);
  t.same(counts(), [1, 0]);
});

e2e('the access line of a shared fetch tells its server too', async (t, rig) => {
  const { upstreams, proxy } = await scene(rig, [{ script: inTurn(BUSY) }, { priority: 1 }], {
    retries: SOON,
    cache: { rules: [{ ttlMs: 1000 }] },
  });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  await proxy.idle();
  t.match(proxy.exchanges[0], { attempts: 2, target: upstreams[1]!.url });
});

// Deadlines that the caller gives: in three fields, in the queue, at the upstream, and among those who share a fetch.

import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

const own = (ms: number | string) => ({ headers: `x-aiproxy-deadline-ms: ${ms}\r\n` });

const FIELDS = [
  ['x-aiproxy-deadline-ms: 80', false],
  ['X-AIProxy-Deadline-Ms: 80', false],
  ['x-envoy-expected-rq-timeout-ms: 80', true],
  ['grpc-timeout: 80m', true],
  ['grpc-timeout: 80000u', true],
] as const;

for (const [field, isForwarded] of FIELDS) {
  e2e(
    `${field} bounds a running request${isForwarded ? ', and is forwarded' : ', and is not forwarded'}`,
    async (t, rig) => {
      const upstream = await rig.upstream(() => {});
      const proxy = await rig.one({ url: upstream.url });
      const startedAt = performance.now();
      const got = await rig.ask(proxy, '/ai/x', { headers: `${field}\r\n` });
      const took = performance.now() - startedAt;
      t.same([got.status, got.code], [504, 'deadline_exceeded']);
      t.equal(got.get('x-should-retry'), 'false');
      t.ok(took >= 78 && took < 1000, `${took} ms`);
      const { connection, text } = upstream.requests[0]!;
      await until('the upstream is told', () => connection.left);
      t.equal(text.toLowerCase().includes(field.toLowerCase()), isForwarded);
      t.notMatch(text, /x-aiproxy/i);
      t.match(proxy.upstream().failures, { deadline_exceeded: 1 });
    },
  );
}

e2e('in the queue: 504, its place is free, the upstream never hears of it, the next has its turn', async (t, rig) => {
  let hold = true;
  const upstream = await rig.upstream(async (_request, connection) => {
    await until('released', () => !hold);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url, limiter: 'ai' }, { limiters: { ai: { maxConcurrent: 1 } } });
  const first = rig.ask(proxy, '/ai/1');
  await upstream.request(0);
  const late = rig.ask(proxy, '/ai/2', own(60));
  await until('it waits', () => proxy.limiter('ai').queued === 1);
  const third = rig.ask(proxy, '/ai/3', own(5000));
  await until('both wait', () => proxy.limiter('ai').queued === 2);
  const got = await late;
  t.same([got.status, got.code], [504, 'deadline_exceeded']);
  t.equal(proxy.limiter('ai').queued, 1);
  hold = false;
  t.same([(await first).status, (await third).status], [200, 200]);
  t.same(
    upstream.requests.map(({ target }) => target),
    ['/1', '/3'],
  );
  await proxy.idle();
  t.match(proxy.exchanges[0], { path: '/2', failure: 'deadline_exceeded', attempts: 0 });
});

e2e('held by a rate limit: 504 when the time is over, and no token is spent', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, rateLimits: [{ requests: 1, perMs: 300 }] });
  const held = (count: number) => until('held', () => proxy.upstream().rate_limits[0]!.held === count);
  const startedAt = performance.now();
  await rig.ask(proxy, '/ai/1');
  const second = rig.ask(proxy, '/ai/2');
  await held(1);
  const late = rig.ask(proxy, '/ai/3', own(450));
  await held(2);
  const last = rig.ask(proxy, '/ai/4');
  await held(3);
  t.equal((await late).code, 'deadline_exceeded');
  t.same([(await second).status, (await last).status], [200, 200]);
  t.ok(performance.now() - startedAt < 890, 'the last one has the token of the one who left');
  t.equal(upstream.requests.length, 3);
});

e2e('who would get no token in time is told at once, and the others wait on', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(answer('', 'retry-after: 2\r\n', '429 Too Many Requests'));
  });
  const hourly = { requests: 1, perMs: 3_600_000 };
  for (const config of [{ feedback: {} }, { rateLimits: [hourly] }]) {
    const proxy = await rig.one({ url: upstream.url, limiter: 'ai', ...config }, { limiters: { ai: {} } });
    await rig.ask(proxy, '/ai/1');
    const patient = await rig.sent(proxy, '/ai/2', own(5_000_000));
    await until('it waits', () => proxy.limiter('ai').queued === 1);
    const startedAt = performance.now();
    t.equal((await rig.ask(proxy, '/ai/3', own(1500))).code, 'deadline_exceeded');
    t.ok(performance.now() - startedAt < 700);
    t.equal(proxy.limiter('ai').queued, 1);
    patient.reset();
  }
});

e2e('a deadline that has passed already never reaches the upstream', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, cache: { rules: [{ ttlMs: 60_000 }] } });
  for (const headers of ['x-aiproxy-deadline-ms: 0', 'x-envoy-expected-rq-timeout-ms: 0', 'grpc-timeout: 0S']) {
    const got = await rig.ask(proxy, '/ai/x', { headers: `${headers}\r\n` });
    t.same([got.status, got.code], [504, 'deadline_exceeded'], headers);
  }
  t.equal(upstream.requests.length, 0);
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.equal((await rig.ask(proxy, '/ai/x', own(0))).status, 200, 'a hit takes no time');
});

e2e('who runs out of time at the very moment of his turn does not go out', async (t, rig) => {
  let hold = true;
  let stallMs = 0;
  const upstream = await rig.upstream(async (_request, connection) => {
    await until('released', () => !hold);
    connection.send(answer());
  });
  const config = {
    upstreams: { ai: { url: upstream.url, limiter: 'ai', feedback: {} } },
    limiters: { ai: { maxConcurrent: 1 } },
  };
  const proxy = await rig.proxy(config, () => {
    // Looked at when the head of an answer has come: the process stands still for as long, and no timer fires before the grant.
    const stallUntil = performance.now() + stallMs;
    while (performance.now() < stallUntil);
    stallMs = 0;
    return Date.now();
  });
  const first = rig.ask(proxy, '/ai/1');
  await upstream.request(0);
  const late = rig.ask(proxy, '/ai/2', own(200));
  await until('it waits', () => proxy.limiter('ai').queued === 1);
  stallMs = 300;
  hold = false;
  t.equal((await first).status, 200);
  t.equal((await late).code, 'deadline_exceeded');
  await proxy.idle();
  t.equal(upstream.requests.length, 1);
});

e2e('of several the shortest counts, and timeouts.total still counts', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url, timeouts: { totalMs: 200 } });
  const both = 'grpc-timeout: 10S\r\nx-aiproxy-deadline-ms: 50\r\nx-envoy-expected-rq-timeout-ms: 9000\r\n';
  t.equal((await rig.ask(proxy, '/ai/x', { headers: both })).code, 'deadline_exceeded');
  t.equal((await rig.ask(proxy, '/ai/x', own(5000))).code, 'total_timeout');
});

e2e('what cannot be read as a deadline is none', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    await whileNothing(40);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url });
  const values = ['', ' ', '-1', '1.5', '1e1', '0x10', '10ms', 'abc', '1,2', '99999999999999999999'];
  const fields = [
    ...values.map((value) => `x-aiproxy-deadline-ms: ${value}`),
    'x-envoy-expected-rq-timeout-ms: 5 ms',
    ...['5', '5s', '123456789m', 'm', '-5m', '5mm', '99999999H'].map((value) => `grpc-timeout: ${value}`),
  ];
  const got = await Promise.all(fields.map((field) => rig.ask(proxy, '/ai/x', { headers: `${field}\r\n` })));
  for (const [i, { status }] of got.entries()) t.equal(status, 200, fields[i]!);
  t.notOk(upstream.requests.some(({ text }) => /x-aiproxy/i.test(text)));
});

e2e('an answer that has begun is cut, not ended', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead() + chunk('one')));
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.sent(proxy, '/ai/x', own(120));
  await client.head();
  const { body, ending } = await client.rest();
  t.same([body.toString(), ending], ['one', 'reset']);
  await proxy.idle();
  t.match(proxy.exchanges[0], { failure: 'deadline_exceeded', status: 200 });
});

e2e('no retry begins that could not be over in time', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(answer('busy', 'retry-after: 1\r\n', '503 Service Unavailable'));
  });
  const proxy = await rig.one({ url: upstream.url, retries: {} });
  const startedAt = performance.now();
  const got = await rig.ask(proxy, '/ai/x', own(500));
  t.same([got.status, got.body.toString()], [503, 'busy'], 'the answer there is goes to the client, at once');
  t.ok(performance.now() - startedAt < 400);
  t.equal(upstream.requests.length, 1);
});

e2e('the deadline bounds all attempts together', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    if (upstream.requests.length === 1) connection.send(answer('', '', '503 Service Unavailable'));
  });
  const proxy = await rig.one({ url: upstream.url, retries: { backoffMs: 1 } });
  const startedAt = performance.now();
  t.equal((await rig.ask(proxy, '/ai/x', own(150))).code, 'deadline_exceeded');
  t.ok(performance.now() - startedAt < 1000);
  t.equal(upstream.requests.length, 2);
});

e2e(
  'in a shared fetch a follower’s deadline ends that follower alone, and the leader’s the leader alone',
  async (t, rig) => {
    for (const [first, second] of [
      [own(5000), own(60)],
      [own(60), {}],
    ] as const) {
      let hold = true;
      const upstream = await rig.upstream(async (_request, connection) => {
        connection.send(chunkedHead() + chunk('one'));
        await until('released', () => !hold);
        connection.send(chunk('two') + LAST_CHUNK);
      });
      const proxy = await rig.one({ url: upstream.url, cache: { rules: [{ ttlMs: 60_000 }] } });
      const leader = await rig.sent(proxy, '/ai/x', first);
      await leader.head();
      const follower = await rig.sent(proxy, '/ai/x', second);
      await follower.head();
      const [late, patient] = first.headers === own(60).headers ? [leader, follower] : [follower, leader];
      t.equal((await late.rest()).ending, 'reset');
      t.equal(upstream.connections[0]!.left, false, 'the fetch goes on');
      hold = false;
      const { body, ending } = await patient.rest();
      t.same([body.toString(), ending], ['onetwo', 'clean']);
      t.equal(upstream.requests.length, 1);
    }
  },
);

e2e(
  'followers of a fetch without a head yet are told by their own deadlines; the last one takes it along',
  async (t, rig) => {
    const upstream = await rig.upstream(() => {});
    const proxy = await rig.one({ url: upstream.url, cache: { rules: [{ ttlMs: 60_000 }] } });
    const asks = [90, 60, 120].map((ms) => rig.ask(proxy, '/ai/x', own(ms)));
    for (const got of await Promise.all(asks)) t.equal(got.code, 'deadline_exceeded');
    await until('the fetch is given up', () => upstream.connections[0]!.left);
    t.equal(upstream.requests.length, 1);
  },
);

e2e('a deadline also holds on a bypass path', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url, bypass: ['/health'] });
  t.equal((await rig.ask(proxy, '/ai/health', own(50))).code, 'deadline_exceeded');
});

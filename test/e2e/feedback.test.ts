// Feedback: what the upstream's answers say of its limits holds up those who would only be refused, and nobody else.

import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

const key = (name: string) => ({ headers: `x-api-key: ${name}\r\n` });

function refusal(status: string, headers: string): string {
  return answer('{"error":"slow down"}', `content-type: application/json\r\n${headers}`, status);
}

const BUSY = '429 Too Many Requests';

for (const status of [BUSY, '503 Service Unavailable']) {
  e2e(`Retry-After on ${status} pauses the upstream, and the answer itself is the client's`, async (t, rig) => {
    const times: number[] = [];
    const upstream = await rig.upstream((_request, connection) => {
      times.push(performance.now());
      connection.send(times.length === 1 ? refusal(status, 'Retry-After: 1\r\nx-mine: yes\r\n') : answer());
    });
    const proxy = await rig.one({ url: upstream.url, feedback: {} });
    const got = await rig.ask(proxy, '/ai/x');
    t.equal(`${got.status} ${got.reason}`, status);
    t.same([got.all('retry-after'), got.all('x-mine'), got.all('x-aiproxy-error')], [['1'], ['yes'], []]);
    t.equal(got.body.toString(), '{"error":"slow down"}');
    const { paused_ms, pauses, credentials } = proxy.upstream().feedback!;
    t.ok(paused_ms > 500 && paused_ms <= 1000, `${paused_ms}`);
    t.same([pauses, credentials], [1, 1]);
    const after = await Promise.all([1, 2, 3].map(() => rig.ask(proxy, '/ai/x')));
    for (const { status } of after) t.equal(status, 200);
    for (const time of times.slice(1)) t.ok(time - times[0]! >= 990, `${time - times[0]!} ms`);
    t.ok(times.at(-1)! - times[0]! < 2000, 'all go on when it is over');
    t.match(proxy.upstream().feedback, { held: 0, held_total: 3, paused_ms: 0 });
  });
}

e2e('another credential goes on while one is paused', async (t, rig) => {
  const upstream = await rig.upstream((request, connection) => {
    connection.send(request.get('x-api-key') === 'a' ? refusal(BUSY, 'retry-after: 30\r\n') : answer());
  });
  const proxy = await rig.one({ url: upstream.url, feedback: {} });
  await rig.ask(proxy, '/ai/x', key('a'));
  const held = await rig.sent(proxy, '/ai/x', key('a'));
  await until('a is held', () => proxy.upstream().feedback!.held === 1);
  for (const name of ['b', 'c', 'b']) t.equal((await rig.ask(proxy, '/ai/x', key(name))).status, 200);
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.equal(upstream.requests.filter((request) => request.get('x-api-key') === 'a').length, 1);
  held.reset();
  await until('it has left', () => proxy.upstream().feedback!.held === 0);
});

e2e('a pause is max_pause at most, and 0 is no pause', async (t, rig) => {
  for (const maxPauseMs of [150, 0]) {
    const times: number[] = [];
    const upstream = await rig.upstream((_request, connection) => {
      times.push(performance.now());
      connection.send(times.length === 1 ? refusal(BUSY, 'retry-after: 3600\r\n') : answer());
    });
    const proxy = await rig.one({ url: upstream.url, feedback: { maxPauseMs } });
    t.equal((await rig.ask(proxy, '/ai/x')).get('retry-after'), '3600');
    t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
    const gap = times[1]! - times[0]!;
    t.ok(gap >= maxPauseMs - 10 && gap < maxPauseMs + 500, `${gap} ms for a max_pause of ${maxPauseMs}`);
    t.equal(proxy.upstream().feedback!.pauses, maxPauseMs > 0 ? 1 : 0);
  }
});

e2e('Retry-After on other answers, an unreadable one and none at all pause nobody', async (t, rig) => {
  const answers = [
    answer('', 'retry-after: 30\r\n'),
    answer('', 'retry-after: 30\r\n', '500 Internal Server Error'),
    answer('', 'retry-after: soon\r\n', BUSY),
    answer('', 'retry-after: -5\r\n', BUSY),
    answer('', 'retry-after: 0\r\n', BUSY),
    answer('', 'retry-after: Fri, 31 Dec 1999 23:59:59 GMT\r\n', BUSY),
    answer('', '', BUSY),
  ];
  const upstream = await rig.upstream((_request, connection) =>
    connection.send(answers[upstream.requests.length - 1]!),
  );
  const proxy = await rig.one({ url: upstream.url, feedback: {} });
  for (const _ of answers) await rig.ask(proxy, '/ai/x');
  t.match(proxy.upstream().feedback, { pauses: 0, paused_ms: 0, held_total: 0 });
});

e2e('answers under way when a pause begins are not touched', async (t, rig) => {
  let release = false;
  const upstream = await rig.upstream(async (request, connection) => {
    if (request.target !== '/stream') return connection.send(refusal(BUSY, 'retry-after: 30\r\n'));
    connection.send(chunkedHead() + chunk('one'));
    await until('released', () => release);
    return connection.send(chunk('two') + LAST_CHUNK);
  });
  const proxy = await rig.one({ url: upstream.url, feedback: {} });
  const stream = await rig.sent(proxy, '/ai/stream');
  await stream.head();
  t.equal(String(await stream.piece()), 'one');
  t.equal((await rig.ask(proxy, '/ai/x')).status, 429);
  release = true;
  const { body, ending } = await stream.rest();
  t.same([body.toString(), ending], ['two', 'clean']);
});

e2e('who waits for a permit when the pause begins is held as well, and takes no permit meanwhile', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    const first = upstream.requests.length === 1;
    if (first) await until('two wait', () => proxy.limiter('all').queued === 2);
    connection.send(first ? refusal(BUSY, 'retry-after: 1\r\n') : answer());
  });
  const other = await rig.upstream();
  const proxy = await rig.proxy({
    upstreams: {
      ai: { url: upstream.url, limiter: 'all', feedback: {} },
      other: { url: other.url, limiter: 'all' },
    },
    limiters: { all: { maxConcurrent: 1 } },
  });
  const startedAt = performance.now();
  const first = rig.ask(proxy, '/ai/x');
  await upstream.request(0);
  const waiting = [rig.ask(proxy, '/ai/x'), rig.ask(proxy, '/ai/x')];
  t.equal((await first).status, 429);
  await until('the permit is back', () => proxy.limiter('all').in_flight === 0);
  t.same([proxy.limiter('all').in_flight, proxy.limiter('all').queued], [0, 2]);
  t.equal((await rig.ask(proxy, '/other/x')).status, 200, 'the permit is free');
  for (const got of await Promise.all(waiting)) t.equal(got.status, 200);
  t.ok(performance.now() - startedAt >= 990);
});

e2e('queue_timeout counts during a pause, and the answer is ours', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(refusal(BUSY, 'retry-after: 30\r\n')));
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai', feedback: {} },
    { limiters: { ai: { queueTimeoutMs: 50 } } },
  );
  await rig.ask(proxy, '/ai/x');
  const got = await rig.ask(proxy, '/ai/x');
  t.same([got.status, got.code], [503, 'queue_timeout']);
  t.equal(upstream.requests.length, 1);
});

e2e(
  'a server that asks to be left alone is, while there is another; only the last one holds requests up',
  async (t, rig) => {
    const status = BUSY;
    const upstreams = [1, 2].map(() => rig.upstream((_request, connection) => connection.send(refusal(status, 'retry-after: 30\r\n')))); // biome-ignore format: short
    const targets = (await Promise.all(upstreams)).map(({ url }) => ({ url }));
    const proxy = await rig.one({ targets, feedback: {} });
    for (const _ of '12') t.equal((await rig.ask(proxy, '/ai/x')).status, 429);
    t.same(
      (await Promise.all(upstreams)).map(({ requests }) => requests.length),
      [1, 1],
      'each was asked once',
    );
    t.match(proxy.upstream().feedback, { pauses: 2 });
    const held = await rig.sent(proxy, '/ai/x');
    await until('it is held', () => proxy.upstream().feedback!.held === 1);
    held.destroy();
  },
);

e2e('a retry waits for the end of the pause too', async (t, rig) => {
  const times: number[] = [];
  const upstream = await rig.upstream((_request, connection) => {
    times.push(performance.now());
    connection.send(times.length === 1 ? refusal(BUSY, 'retry-after-ms: 300\r\n') : answer());
  });
  const proxy = await rig.one({ url: upstream.url, feedback: {}, retries: { backoffMs: 1 } });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  t.ok(times[1]! - times[0]! >= 290);
});

e2e('a later, longer pause stands over a shorter one', async (t, rig) => {
  const waits = ['retry-after: 20\r\n', 'retry-after: 1\r\n'];
  const upstream = await rig.upstream(async (_request, connection) => {
    const index = upstream.requests.length - 1;
    await until('both are there', () => upstream.requests.length === 2);
    if (index === 1) await whileNothing(20);
    connection.send(refusal(BUSY, waits[index]!));
  });
  const proxy = await rig.one({ url: upstream.url, feedback: {} });
  await Promise.all([rig.ask(proxy, '/ai/1'), rig.ask(proxy, '/ai/2')]);
  t.match(proxy.upstream().feedback, { pauses: 1 });
  t.ok(proxy.upstream().feedback!.paused_ms > 15_000);
});

e2e('bypass paths are neither paused nor heard', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(refusal(BUSY, 'retry-after: 30\r\n')));
  const proxy = await rig.one({ url: upstream.url, feedback: {}, bypass: ['/health'] });
  for (const _ of '12') t.equal((await rig.ask(proxy, '/ai/health')).status, 429);
  t.equal(proxy.upstream().feedback!.pauses, 0);
  await rig.ask(proxy, '/ai/x');
  t.equal((await rig.ask(proxy, '/ai/health')).status, 429);
});

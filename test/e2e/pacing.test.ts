// Pacing: requests are slowed down by what the upstream says is left, before it has to refuse them.

import type { FeedbackConfig } from '../../src/config/schema.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

const key = (name: string) => ({ headers: `x-api-key: ${name}\r\n` });

/** An upstream with a bucket that refills, and that says what is left in OpenAI's words; beyond it there is a 429. */
async function bucket(rig: Rig, limit: number, perSecond: number, says = true, feedback: Partial<FeedbackConfig> = {}) {
  let level = limit;
  let at = performance.now();
  let refused = 0;
  const upstream = await rig.upstream((_request, connection) => {
    const now = performance.now();
    level = Math.min(limit, level + ((now - at) / 1000) * perSecond);
    at = now;
    const isRefused = level < 1;
    if (isRefused) refused++;
    else level--;
    const reset = `${Math.ceil(((limit - level) / perSecond) * 1000)}ms`;
    const said = `x-ratelimit-limit-requests: ${limit}\r\nx-ratelimit-remaining-requests: ${Math.floor(level)}\r\nx-ratelimit-reset-requests: ${reset}\r\n`;
    connection.send(answer('ok', says ? said : '', isRefused ? '429 Too Many Requests' : '200 OK'));
  });
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai', feedback },
    { limiters: { ai: { maxConcurrent: 5 } } },
  );
  return { upstream, proxy, refused: () => refused };
}

e2e('requests are slowed down to what the upstream grants, before it refuses', async (t, rig) => {
  const { proxy, refused } = await bucket(rig, 10, 20);
  const startedAt = performance.now();
  const got = await Promise.all(Array.from({ length: 40 }, () => rig.ask(proxy, '/ai/x')));
  const took = performance.now() - startedAt;
  t.ok(refused() <= 2, `${refused()} of 40 were refused`);
  t.ok(got.filter(({ status }) => status === 200).length >= 38);
  t.ok(took >= 1300 && took < 4000, `30 beyond the bucket, at 20 a second, took ${took} ms`);
  t.ok(proxy.upstream().feedback!.held_total > 0);
  t.equal(got[0]!.get('x-ratelimit-limit-requests'), '10', 'the fields reach the client');
});

e2e('without pace, or without such fields, nobody is slowed down', async (t, rig) => {
  for (const [says, feedback] of [
    [true, { pace: false }],
    [false, {}],
  ] as const) {
    const { proxy, refused } = await bucket(rig, 10, 5, says, feedback);
    const startedAt = performance.now();
    await Promise.all(Array.from({ length: 40 }, () => rig.ask(proxy, '/ai/x')));
    t.ok(refused() >= 20);
    t.ok(performance.now() - startedAt < 1000);
    t.equal(proxy.upstream().feedback!.held_total, 0);
  }
});

e2e('a window that is used up holds up its own credential until its end', async (t, rig) => {
  const times: number[] = [];
  const upstream = await rig.upstream((request, connection) => {
    const isFirst = request.get('x-api-key') === 'a' && times.push(performance.now()) === 1;
    const left = isFirst ? 0 : 50;
    connection.send(
      answer('ok', `x-ratelimit-limit: 100\r\nx-ratelimit-remaining: ${left}\r\nx-ratelimit-reset: 1\r\n`),
    );
  });
  const proxy = await rig.one({ url: upstream.url, feedback: {} });
  await rig.ask(proxy, '/ai/x', key('a'));
  const held = rig.ask(proxy, '/ai/x', key('a'));
  await until('a is held', () => proxy.upstream().feedback!.held === 1);
  t.equal((await rig.ask(proxy, '/ai/x', key('b'))).status, 200);
  t.equal((await held).status, 200);
  t.ok(times[1]! - times[0]! >= 950, `${times[1]! - times[0]!} ms`);
});

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

// Under load: retries hide the failures of a bad day, and do not make a worse one of it.

import { inTurn, resets } from '../support/bad-days.ts';
import type { TestProxy } from '../support/proxy.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, type RawUpstream, type Script } from '../support/upstream.ts';

const USERS = 10;
const EACH = 80;
const REQUESTS = USERS * EACH;

/** Numbers from 0 to 1 that are the same in each run (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Such a share of attempts fails, independently: half of them with a reset, half with 503. */
function failing(share: number): Script {
  const random = randomFrom(7);
  return (_request, connection) => {
    const luck = random();
    if (luck < share / 2) connection.resetAndDestroy();
    else connection.send(luck < share ? answer('', '', '503 Busy') : answer());
  };
}

/** Each user asks again as soon as he has his answer. @returns how many were not 200 */
async function load(rig: Rig, proxy: TestProxy): Promise<number> {
  let errors = 0;
  const user = async () => {
    const client = await rig.client(proxy);
    for (let i = 0; i < EACH; i++) {
      client.send('GET /ai/x HTTP/1.1\r\nhost: a\r\n\r\n');
      if ((await client.answer()).status !== 200) errors++;
    }
  };
  await Promise.all(Array.from({ length: USERS }, user));
  await proxy.idle();
  return errors;
}

async function scene(rig: Rig, share: number): Promise<{ upstream: RawUpstream; proxy: TestProxy }> {
  const upstream = await rig.upstream(failing(share));
  // Three attempts and the default budget: 0.2 of the requests, and 3.
  const proxy = await rig.one({ url: upstream.url, retries: { backoffMs: 2, maxBackoffMs: 8 } });
  return { upstream, proxy };
}

e2e('when one attempt of ten fails the client sees less than 1 % errors', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, 0.1);
  const errors = await load(rig, proxy);
  t.ok(errors < REQUESTS * 0.01, `${errors} errors`);
  t.ok(upstream.requests.length > REQUESTS * 1.05, 'there was something to retry');
  t.ok(upstream.requests.length <= REQUESTS * 1.2 + 3, `${upstream.requests.length} calls`);
  t.match(proxy.upstream(), { requests: REQUESTS, retries: upstream.requests.length - REQUESTS });
});

e2e('when six of ten fail the retries stay within the budget, and the rest fails fast', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, 0.6);
  const errors = await load(rig, proxy);
  t.ok(upstream.requests.length <= REQUESTS * 1.2 + 3, `${upstream.requests.length} calls`);
  t.ok(upstream.requests.length > REQUESTS * 1.15, 'the budget is used');
  t.ok(errors > REQUESTS * 0.4 && errors < REQUESTS * 0.6, `${errors} errors`);
  const budget = proxy.upstream().retry_budget!;
  t.equal(budget.spent, upstream.requests.length - REQUESTS);
  t.ok(budget.exhausted > 0);
  const slow = proxy.exchanges.filter(({ status, total_ms }) => status !== 200 && (total_ms as number) > 1000);
  t.equal(slow.length, 0);
});

e2e('without a budget left the answer goes through as it is', async (t, rig) => {
  const upstream = await rig.upstream(inTurn(answer('busy', 'retry-after: 0\r\n', '503 Busy')));
  const proxy = await rig.one({ url: upstream.url, retries: { budgetRatio: 0, budgetMin: 2, backoffMs: 1 } });
  const statuses = [];
  for (let i = 0; i < 3; i++) {
    const got = await rig.ask(proxy, '/ai/x');
    statuses.push(`${got.status} ${got.body} ${got.get('retry-after')}`);
  }
  t.same(statuses, Array(3).fill('503 busy 0'));
  t.equal(upstream.requests.length, 5, 'two were had');
  t.match(proxy.upstream().retry_budget, { balance: 0, spent: 2 });
});

e2e(
  'what died on a connection just used costs the budget, on one that was idle for long it does not',
  async (t, rig) => {
    const upstream = await rig.upstream();
    const retries = { budgetRatio: 0, budgetMin: 0 };
    const proxy = await rig.one({ url: upstream.url, retries });
    const dies = async (idleMs: number) => {
      upstream.script = inTurn(answer(), resets, answer('again'));
      await rig.ask(proxy, '/ai/x');
      await until('it is idle', () => proxy.pool().idle === 1);
      await whileNothing(idleMs);
      return await rig.ask(proxy, '/ai/x');
    };
    t.equal((await dies(0)).code, 'upstream_reset');
    t.match(proxy.upstream().retry_budget, { spent: 0 });
    t.equal((await dies(1050)).body.toString(), 'again', 'the server had given it up: that is no bad day');
    t.match(proxy.upstream().retry_budget, { spent: 0 });
  },
);

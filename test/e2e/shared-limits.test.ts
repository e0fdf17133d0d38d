// Rate limits and permits that sidecars share over one Redis, together with the cache: one connection, one timeout, whoever uses it.

import { lines } from '../support/cache-scene.ts';
import { eventually, FRESH, fleet, MARGIN_MS, stats, TIMEOUT_MS } from '../support/fleet.ts';
import type { TestProxy } from '../support/proxy.ts';
import { RawClient } from '../support/raw-client.ts';
import { type Rig, requestText } from '../support/rig.ts';
import { ask, get, sent } from '../support/twins.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, type Script } from '../support/upstream.ts';

/** Answers after a while, and knows how many it is answering. */
class Busy {
  now = 0;
  most = 0;
  readonly script: Script;

  constructor(ms: number) {
    this.script = async (request, connection) => {
      this.most = Math.max(this.most, ++this.now);
      await request.whole();
      await whileNothing(ms);
      this.now--;
      connection.send(answer(request.target));
    };
  }
}

/** So many clients of a proxy, each asking again as soon as it is answered. */
function crowd(proxy: TestProxy, clients: number) {
  const laps: number[] = [];
  const problems: string[] = [];
  let isOver = false;
  const run = async () => {
    const client = await RawClient.connect(proxy.port);
    while (!isOver) {
      const at = performance.now();
      const got = await client.send(requestText('/ai/x', { method: 'POST', body: 'x' })).answer();
      if (got.status !== 200) problems.push(got.text);
      laps.push(performance.now() - at);
    }
    client.destroy();
  };
  const running = Promise.all(Array.from({ length: clients }, run));
  return {
    laps,
    problems,
    stop: async () => {
      isOver = true;
      await running;
    },
  };
}

const RATE = { requests: 50, perMs: 1000, burst: 1, shared: true };
const LIMITERS = { one: { maxConcurrent: 4, shared: true } };
const permitsOf = (proxy: TestProxy) => proxy.limiter('one').shared;
const hubOf = (proxy: TestProxy) => proxy.stats().redis!;

fleet('permits are one number for all sidecars, and all of them get some', async (t, { upstream, open }) => {
  const busy = new Busy(15);
  upstream.script = busy.script;
  const proxies = [];
  for (let i = 0; i < 3; i++) proxies.push(await open({ limiters: LIMITERS, ai: { limiter: 'one' } }));
  const crowds = proxies.map((proxy, i) => crowd(proxy, [12, 3, 1][i]!));
  await whileNothing(1500);
  for (const it of crowds) await it.stop();
  t.equal(busy.most, 4);
  const counts = crowds.map(({ laps }) => laps.length);
  t.ok(Math.min(...counts) > 20, `${counts}`);
  t.ok(counts[0]! + counts[1]! + counts[2]! > 0.6 * 4 * (1500 / 20), `${counts}: and they are used`);
});

fleet('a client that leaves while it waits for a permit is in nobody’s way', async (t, { upstream, open }, rig) => {
  const busy = new Busy(0);
  const held: (() => void)[] = [];
  upstream.script = async (request, connection) => {
    await request.whole();
    held.push(() => connection.send(answer(request.target)));
  };
  const overrides = { limiters: { one: { maxConcurrent: 1, shared: true } }, ai: { limiter: 'one' } };
  const [a, b] = [await open(overrides), await open(overrides)];
  const first = await sent(rig, a, get('/ai/1'));
  await until('it runs', () => held.length === 1);
  const leaver = await sent(rig, b, get('/ai/2'));
  await until('it waits', () => permitsOf(b)?.waiting === 1);
  leaver.destroy();
  await until('it waits no more', () => permitsOf(b)?.waiting === 0, 1000);
  held[0]!();
  await first.answer();
  upstream.script = busy.script;
  const before = performance.now();
  await ask(rig, a, get('/ai/3'));
  t.ok(performance.now() - before < MARGIN_MS);
  t.match(permitsOf(a), { held: 1 }, 'and its lease is its own');
});

fleet('the rate is one for all sidecars', async (t, { upstream, open }) => {
  const times: number[] = [];
  upstream.script = async (request, connection) => {
    times.push(performance.now());
    await request.whole();
    connection.send(answer());
  };
  const proxies = [];
  for (let i = 0; i < 3; i++) proxies.push(await open({ ai: { rateLimits: [RATE] } }));
  const began = performance.now();
  const crowds = proxies.map((proxy) => crowd(proxy, 5));
  await whileNothing(2000);
  const expected = ((performance.now() - began) / RATE.perMs) * RATE.requests;
  const { length } = times;
  for (const it of crowds) await it.stop();
  t.ok(length <= expected + 1 && length > expected * 0.9, `${length} of ${expected}`);
  for (const proxy of proxies) t.match(hubOf(proxy), { state: 'up', errors: 0, tokens: { local: 0 } });
});

fleet('where nobody is to wait, who is over the rate of all is told when to come again', async (t, scene, rig) => {
  const { open } = scene;
  const rate = { ...RATE, requests: 2, perMs: 60_000, burst: 2, onLimit: 'reject' } as const;
  const [a, b] = [await open({ ai: { rateLimits: [rate] } }), await open({ ai: { rateLimits: [rate] } })];
  const statuses = [];
  for (const proxy of [a, b, a, b]) {
    const got = await ask(rig, proxy, get('/ai/x', lines('cache-control: no-store')));
    statuses.push(got.status);
    if (got.status === 429) t.match(got.get('retry-after'), /^(29|30)$/);
  }
  t.same(statuses, [200, 200, 429, 429]);
});

fleet('a frozen Redis costs cache, rate and permits one timeout together; no request fails', async (t, scene, rig) => {
  const { redis, upstream, open } = scene;
  const busy = new Busy(5);
  upstream.script = busy.script;
  const overrides = {
    timeoutMs: TIMEOUT_MS,
    limiters: { one: { maxConcurrent: 40, shared: true } },
    ai: { limiter: 'one', rateLimits: [{ ...RATE, requests: 1000, burst: 10 }] },
  };
  const proxies = [await open(overrides), await open(overrides)];
  await eventually('they know of each other', async () => proxies.every((proxy) => hubOf(proxy).peers === 2));
  const crowds = proxies.map((proxy) => crowd(proxy, 5));
  await until('it runs', () => crowds.every(({ laps }) => laps.length > 50));
  redis.freeze();
  // Each of them asks for everything: a cached answer, a token, a permit.
  const asking = proxies.map((proxy, i) => ask(rig, proxy, get(`/ai/cached/${i}`)));
  await until('both know', () => proxies.every((proxy) => hubOf(proxy).state === 'down'));
  await Promise.all(asking);
  await whileNothing(1000);
  const laps = crowds.flatMap((it) => it.laps);
  t.ok(Math.max(...laps) < TIMEOUT_MS + MARGIN_MS, `at most ${Math.max(...laps)} ms`);
  for (const proxy of proxies) {
    t.match(hubOf(proxy), { state: 'down', timeouts: 1, peers: 2 });
    t.match(permitsOf(proxy), { source: 'local' });
    t.match(await stats(proxy, 'GET', '/stats'), { redis: { state: 'down' } }, '/stats says so');
    t.ok(hubOf(proxy).tokens.local > 20);
  }
  redis.thaw();
  await until('they use it again', () => proxies.every((proxy) => permitsOf(proxy)?.source === 'redis'), 10_000);
  const tokens = proxies.map((proxy) => hubOf(proxy).tokens.redis);
  await until('for the rate too', () => proxies.every((proxy, i) => hubOf(proxy).tokens.redis > tokens[i]! + 20));
  for (const it of crowds) await it.stop();
  for (const proxy of proxies) t.equal(hubOf(proxy).timeouts, 1);
  for (const { problems } of crowds) t.same(problems, []);
});

fleet('sidecars stop while Redis owes them everything', async (t, { redis, upstream, open }, rig) => {
  upstream.script = (_request, connection) => connection.send(answer('x', FRESH));
  const overrides = { timeoutMs: 60_000, limiters: LIMITERS, ai: { limiter: 'one', rateLimits: [RATE] } };
  const proxies = [await open(overrides), await open(overrides)];
  for (const proxy of proxies) await ask(rig, proxy, get('/ai/x'));
  redis.freeze();
  const clients: RawClient[] = [];
  for (const proxy of proxies) clients.push(...(await waiting(rig, proxy)));
  const before = performance.now();
  await Promise.all(proxies.map((proxy) => proxy.stop()));
  t.ok(performance.now() - before < 1000 + MARGIN_MS, `stopped in ${performance.now() - before} ms`);
  for (const client of clients) await client.ended();
  redis.thaw();
});

async function waiting(rig: Rig, proxy: TestProxy): Promise<RawClient[]> {
  const before = proxy.upstream().in_flight;
  const clients = [
    await sent(rig, proxy, get('/ai/y')),
    await sent(rig, proxy, get('/ai/z', lines('range: bytes=0-'))),
  ];
  await until('they wait', () => proxy.upstream().in_flight === before + 2);
  return clients;
}

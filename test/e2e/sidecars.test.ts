// Several aiproxy processes on one Redis: one account's quota, one limit of permits, and no harm when a process or Redis goes.
//
// SIDECAR_SECONDS=60 measures the rate over whole minutes.

import t, { type Test } from 'tap';
import { redisMissing, TestRedis } from '../support/redis.ts';
import { CountingUpstream, Crowd, Sidecar } from '../support/sidecars.ts';
import { until, whileNothing } from '../support/until.ts';

t.setTimeout(240_000);
const missing = redisMissing();
const SECONDS = Number(process.env.SIDECAR_SECONDS ?? 8);
const TIMEOUT_MS = 100;
/** What two cores with other things to do may add. */
const MARGIN_MS = 400;

interface Scene {
  readonly redis: TestRedis;
  readonly upstream: CountingUpstream;
  readonly sidecars: Sidecar[];
}

function scene(name: string, serviceMs: () => number, rest: string, run: (t: Test, scene: Scene) => Promise<void>) {
  void t.test(name, { skip: missing }, async (t) => {
    const redis = await TestRedis.start();
    const upstream = await CountingUpstream.start(serviceMs);
    const yaml = rest.replace('URL', upstream.url);
    const shared = `redis: { url: "unix:${redis.path}", timeout: ${TIMEOUT_MS}ms }\n`;
    const sidecars: Sidecar[] = [];
    try {
      for (let i = 0; i < 3; i++) sidecars.push(await Sidecar.start(shared + yaml));
      for (const sidecar of sidecars)
        await untilAsync('it knows its peers', async () => (await sidecar.stats()).redis?.peers === 3);
      await run(t, { redis, upstream, sidecars });
    } finally {
      for (const sidecar of sidecars) await sidecar.end();
      await upstream.close();
      await redis.stop();
    }
  });
}

async function untilAsync(what: string, condition: () => Promise<boolean>, withinMs = 20_000): Promise<void> {
  const giveUpAt = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > giveUpAt) throw new Error(`still not so after ${withinMs} ms: ${what}`);
    await whileNothing(20);
  }
}

const QUOTA = 'upstreams: { ai: { url: "URL", rate_limits: [{ requests: 600/min, burst: 1, shared: redis }] } }';
const PERMITS = `limiters: { ai: { max_concurrent: 20, shared: redis } }
upstreams: { ai: { url: "URL", limiter: ai } }`;

scene(
  'three processes keep a quota of 600 a minute together, and use it',
  () => 20,
  QUOTA,
  async (t, { upstream, sidecars }) => {
    const crowds = sidecars.map((sidecar) => new Crowd(sidecar, 10));
    await whileNothing(SECONDS * 1000);
    await Promise.all(crowds.map((crowd) => crowd.stop()));
    const window = Math.min(SECONDS, 60);
    const most = upstream.mostWithin(window * 1000);
    t.comment(`at most ${most} in any ${window} s`);
    t.ok(most <= window * 10 * 1.02 + 3, `${most} in ${window} s`);
    t.ok(upstream.arrivals.length >= SECONDS * 10 * 0.9, `used: ${upstream.arrivals.length}`);
    for (const { outcomes } of crowds) {
      t.ok(
        outcomes.every(({ status }) => status === 200),
        'nobody is refused',
      );
      t.ok(outcomes.length > SECONDS, 'and each process has its part');
    }
  },
);

scene(
  'a shared limiter of 20 is never exceeded, also when a process is killed',
  () => 30,
  PERMITS,
  async (t, { upstream, sidecars }) => {
    const crowds = sidecars.map((sidecar) => new Crowd(sidecar, 20));
    await until('all permits are used', () => upstream.peak === 20, 5000);
    await whileNothing(1500);
    await sidecars[0]!.end('SIGKILL');
    const before = upstream.arrivals.length;
    await whileNothing(1500);
    t.ok(upstream.arrivals.length > before + 100, 'the others go on');
    // Its leases run out after ten seconds.
    await untilAsync('the others have its permits', async () => {
      const held = await Promise.all(
        sidecars.slice(1).map(async (one) => (await one.stats()).limiters.ai!.shared!.held),
      );
      return held[0]! + held[1]! === 20;
    });
    await Promise.all(crowds.map((crowd) => crowd.stop()));
    t.equal(upstream.peak, 20);
    for (const { outcomes } of crowds.slice(1)) t.ok(outcomes.every(({ status }) => status === 200));
  },
);

const BOTH = `limiters: { ai: { max_concurrent: 30, shared: redis } }
cache: { store: redis }
upstreams: { ai: { url: "URL", limiter: ai, cache: http, rate_limits: [{ requests: 20000/min, burst: 30, shared: redis }] } }`;

scene(
  'a Redis that is frozen for ten seconds fails no request and costs one timeout',
  () => 20,
  BOTH,
  async (t, { redis, sidecars }) => {
    const crowds = sidecars.map((sidecar) => new Crowd(sidecar, 5));
    await whileNothing(1500);
    const usual = Math.max(...crowds.flatMap(({ outcomes }) => outcomes.slice(20).map(({ ms }) => ms)));
    const counts = crowds.map(({ outcomes }) => outcomes.length);
    redis.freeze();
    await whileNothing(10_000);
    for (const sidecar of sidecars) t.equal((await sidecar.stats()).redis!.state, 'down');
    redis.thaw();
    for (const sidecar of sidecars) {
      await untilAsync('it is back', async () => (await sidecar.stats()).redis!.state === 'up');
    }
    await whileNothing(500);
    await Promise.all(crowds.map((crowd) => crowd.stop()));
    crowds.forEach(({ outcomes }, i) => {
      t.ok(
        outcomes.every(({ status }) => status === 200),
        'no request failed',
      );
      t.ok(outcomes.length - counts[i]! > 500, `it went on: ${outcomes.length - counts[i]!}`);
      const worst = Math.max(...outcomes.slice(counts[i]!).map(({ ms }) => ms));
      t.ok(worst <= usual + TIMEOUT_MS + MARGIN_MS, `worst ${Math.round(worst)} ms, before ${Math.round(usual)} ms`);
      const slow = outcomes.slice(counts[i]!).filter(({ ms }) => ms > usual + TIMEOUT_MS / 2).length;
      t.ok(slow <= 5 * 3, `${slow} were late: those under way at the one timeout`);
    });
    for (const sidecar of sidecars) t.ok((await sidecar.stats()).redis!.timeouts <= 2, 'asked once, not by everybody');
  },
);

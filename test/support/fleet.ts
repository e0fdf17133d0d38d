// Sidecars over one real redis-server and one upstream, and a look at Redis as it is.

import { Redis } from 'ioredis';
import t, { type Test } from 'tap';
import type { WholeCacheSnapshot } from '../../src/observe/snapshot.ts';
import { cacheStatus, lines } from './cache-scene.ts';
import type { CacheOverrides, ConfigOverrides, TestProxy, UpstreamOverrides } from './proxy.ts';
import { type RawAnswer, RawClient } from './raw-client.ts';
import { redisMissing, TestRedis } from './redis.ts';
import { e2e, type Rig } from './rig.ts';
import { until, whileNothing } from './until.ts';
import type { RawUpstream } from './upstream.ts';

/** For tests of a Redis that does not answer. In the others a busy machine is no reason to go without it. */
export const TIMEOUT_MS = 100;
const PATIENT_MS = 5000;
/** What two cores with other things to do may add to a request. */
export const MARGIN_MS = 400;
export const FRESH = lines('cache-control: max-age=60');
export const RULE: CacheOverrides = { rules: [{ ttlMs: 60_000 }] };
const missing = redisMissing();

export interface Fleet {
  readonly redis: TestRedis;
  /** Sees Redis as it is, without the proxy's layout. */
  readonly raw: Redis;
  readonly upstream: RawUpstream;
  /** One more sidecar, which has found Redis. */
  open(more?: More): Promise<TestProxy>;
  /** The same, whatever Redis does. */
  openBlind(more?: More): Promise<TestProxy>;
  /** Stops it, and waits until Redis knows. */
  shut(proxy: TestProxy): Promise<void>;
}

export interface More extends Omit<ConfigOverrides, 'upstreams'> {
  readonly ai?: Partial<UpstreamOverrides>;
  readonly timeoutMs?: number;
  readonly clock?: () => number;
}

/** A test of sidecars with one upstream and one Redis; none leaves a connection to it behind. */
export function fleet(name: string, run: (t: Test, fleet: Fleet, rig: Rig) => Promise<void>): void {
  if (missing) {
    void t.test(name, { skip: missing }, async () => {});
    return;
  }
  e2e(name, async (t, rig) => {
    const pipes = openPipes();
    const redis = await TestRedis.start();
    const raw = new Redis(redis.path, { lazyConnect: true, retryStrategy: () => 20 });
    raw.on('error', () => {});
    let running = 0;
    rig.closes({
      close: async () => {
        raw.disconnect();
        await redis.stop();
        await until('no connection to Redis is left', () => openPipes() <= pipes).catch((error) =>
          t.fail(error.message),
        );
      },
    });
    const upstream = await rig.upstream();
    const openBlind = async ({ ai, timeoutMs = PATIENT_MS, clock, cache, ...more }: More = {}) => {
      const store = { url: redis.path, prefix: 'aiproxy:', timeoutMs };
      const overrides = {
        ...more,
        upstreams: { ai: { url: upstream.url, cache: { http: true }, ...ai } },
        redis: store,
        cache: { store: 'redis', ...cache },
      } as const;
      const proxy = await rig.proxy(overrides, clock);
      running++;
      return proxy;
    };
    const open = async (more?: More) => {
      const proxy = await openBlind(more);
      await up(proxy);
      // Until it listens, purges of the others go past it.
      await eventually('it listens', async () => (await subscribers(raw)) === running);
      return proxy;
    };
    const shut = async (proxy: TestProxy) => {
      await proxy.stop();
      running--;
      await eventually('it listens no more', async () => (await subscribers(raw)) === running);
    };
    await run(t, { redis, raw, upstream, open, openBlind, shut }, rig);
  });
}

function openPipes(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === 'PipeWrap' || kind === 'PipeConnectWrap').length;
}

async function subscribers(raw: Redis): Promise<number> {
  const [, count] = (await raw.pubsub('NUMSUB', 'aiproxy:purge')) as [string, number];
  return count;
}

/** As until, of something that Redis must be asked about. */
export async function eventually(what: string, condition: () => Promise<boolean>, withinMs = 5000): Promise<void> {
  const giveUpAt = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > giveUpAt) throw new Error(`still not so after ${withinMs} ms: ${what}`);
    await whileNothing(2);
  }
}

export function redisOf(proxy: TestProxy): NonNullable<WholeCacheSnapshot['redis']> {
  return proxy.stats().cache.redis!;
}

export async function up(proxy: TestProxy, withinMs = 15_000): Promise<void> {
  await until('Redis is there', () => redisOf(proxy).state === 'up', withinMs);
}

/** So many answers lie in Redis, and all that lists them. */
export async function stored(raw: Redis, count: number): Promise<void> {
  await eventually(`${count} answers in Redis`, async () => {
    const [answers, listed] = [await raw.keys('aiproxy:v:*'), await raw.keys('aiproxy:u:*')];
    let members = 0;
    for (const place of listed) members += await raw.zcard(place);
    return answers.length === count && members === count;
  });
}

export function isHit(got: RawAnswer): boolean {
  return 'hit' in cacheStatus(got);
}

/** One request to the stats port. */
export async function stats(proxy: TestProxy, method: string, path: string): Promise<Record<string, never>> {
  const client = await RawClient.connect(proxy.statsPort);
  const got = await client.send(`${method} ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`).answer();
  client.destroy();
  return JSON.parse(got.body.toString());
}

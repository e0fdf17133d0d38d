// Several hubs, as of several sidecars, in one process on one real redis-server.

import t, { type Test } from 'tap';
import type { RedisConfig } from '../../src/config/schema.ts';
import { RedisHub } from '../../src/redis/hub.ts';
import type { PeerTimes } from '../../src/redis/peers.ts';
import { redisMissing, TestRedis } from './redis.ts';
import { until } from './until.ts';

/** Of questions. In tests of a Redis that does answer a busy machine is no reason to go without it. */
export const PATIENT_MS = 5000;
export const now = () => performance.now();
const skip = redisMissing();

export interface Hubs {
  readonly redis: TestRedis;
  /** One more sidecar that has found Redis. */
  open(config?: Partial<RedisConfig>, peerTimes?: PeerTimes): Promise<RedisHub>;
  /** The same, whatever Redis does. */
  openBlind(config?: Partial<RedisConfig>, peerTimes?: PeerTimes): RedisHub;
  /** To be ended before the hubs are. */
  ends(end: () => unknown): void;
}

/** A test with a server, and hubs that are stopped when it is over. */
export function withHubs(name: string, run: (t: Test, hubs: Hubs) => Promise<void>): void {
  void t.test(name, { skip }, async (t) => {
    const redis = await TestRedis.start();
    const ends: (() => unknown)[] = [];
    const openBlind = (config: Partial<RedisConfig> = {}, peerTimes?: PeerTimes) => {
      const hub = new RedisHub({ url: redis.path, prefix: 'test:', timeoutMs: PATIENT_MS, ...config }, now, peerTimes);
      ends.push(() => hub.stop());
      hub.start();
      return hub;
    };
    const open = async (config?: Partial<RedisConfig>, peerTimes?: PeerTimes) => {
      const hub = openBlind(config, peerTimes);
      await up(hub);
      return hub;
    };
    try {
      await run(t, { redis, open, openBlind, ends: (end) => ends.push(end) });
    } finally {
      for (const end of ends.reverse()) await end();
      await redis.stop();
    }
  });
}

export async function up(hub: RedisHub): Promise<void> {
  await until('the hub is up', () => hub.state === 'up', 15_000);
}

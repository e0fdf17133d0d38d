// Ready numbers of what instances share and what protects the process: Redis, limiters, overload.

import type { Form } from './form.ts';
import { bytes, ms, number, ready } from './ready.ts';
import { parseRedisUrl } from './redis-url.ts';
import type { LimiterConfig, OverloadConfig, RedisConfig } from './schema.ts';

export function resolveRedis(redis: NonNullable<Form['redis']>): RedisConfig {
  return { ...ready(parseRedisUrl(redis.url)), prefix: redis.prefix, timeoutMs: ms(redis.timeout) };
}

export function resolveOverload(overload: NonNullable<Form['overload']>): OverloadConfig {
  return {
    memoryBytes: overload.memory === 'cgroup' ? null : bytes(overload.memory),
    shrinkCacheAt: overload.shrink_cache_at,
    refuseAt: overload.refuse_at,
    closeAt: overload.close_at,
    maxLoopLagMs: ms(overload.max_loop_lag),
  };
}

export function resolveLimiter(name: string, limiter: Form['limiters'][string]): LimiterConfig {
  const limit = limiter.max_concurrent;
  const adaptive = typeof limit === 'object' ? limit.adaptive : null;
  return {
    name,
    maxConcurrent: typeof limit === 'object' ? limit.adaptive.max : number(limit),
    maxQueue: number(limiter.max_queue),
    queueTimeoutMs: ms(limiter.queue_timeout),
    adaptive,
    shared: limiter.shared !== undefined,
    lanes: Object.entries(limiter.lanes).map(([name, share]) => ({ name, share })),
  };
}

// Reads the cache's counters and says what /stats and /metrics tell of it.

import { CacheCounters } from '../cache/counters.ts';
import type { FlightTable } from '../cache/flight-table.ts';
import type { MemoryStore } from '../cache/memory-store.ts';
import type { RedisStore } from '../cache/redis-store.ts';
import type { ByteBudget } from '../flow/byte-budget.ts';
import type { CacheSnapshot, RedisSnapshot, WholeCacheSnapshot } from '../observe/snapshot.ts';
import type { Upstream } from '../upstream/upstream.ts';

export interface CacheSources {
  readonly memory: MemoryStore;
  // biome-ignore lint/suspicious/noExplicitAny: only its size is read
  readonly flights: FlightTable<any>;
  readonly flightMemory: ByteBudget;
  /** null = none is configured */
  readonly redis: (() => RedisSnapshot) | null;
}

export function cacheSnapshot(counters: CacheCounters, maxBytes: number): CacheSnapshot {
  const reused = counters.hits + counters.stale + counters.revalidated + counters.coalesced;
  const lookedUp = reused + counters.misses;
  return {
    entries: counters.entries,
    bytes: counters.bytes,
    max_bytes: maxBytes,
    hits: counters.hits,
    misses: counters.misses,
    stale: counters.stale,
    revalidated: counters.revalidated,
    coalesced: counters.coalesced,
    bypassed: counters.bypassed,
    stores: counters.stores,
    evicted: counters.evicted,
    swept: counters.swept,
    invalidated: counters.invalidated,
    too_large: counters.tooLarge,
    unshared: counters.unshared,
    hit_rate: lookedUp === 0 ? null : Math.round((reused / lookedUp) * 10_000) / 10_000,
    saved_ms: Math.round(counters.savedMs),
    saved_requests: counters.savedRequests,
  };
}

/** All upstreams together. */
export function wholeCacheSnapshot(sources: CacheSources, upstreams: readonly Upstream[]): WholeCacheSnapshot {
  const sum = new CacheCounters();
  for (const { cache } of upstreams) {
    if (!cache) continue;
    for (const key of Object.keys(sum) as (keyof CacheCounters)[]) sum[key] += cache.counters[key];
  }
  return {
    ...cacheSnapshot(sum, sources.memory.maxBytes),
    flights: sources.flights.size,
    flight_memory_bytes: sources.flightMemory.used,
    redis: sources.redis ? sources.redis() : null,
  };
}

export function redisSnapshot({ state, counters }: RedisStore): RedisSnapshot {
  const { gets, hits, puts, errors, timeouts, dropped, rejected } = counters;
  return { state, gets, hits, puts, errors, timeouts, dropped, rejected };
}

// Reads the running objects and says what /stats and /metrics tell.

import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { shownUrl } from '../config/base-url.ts';
import type { ByteBudget } from '../flow/byte-budget.ts';
import type { Limiter } from '../flow/limiter.ts';
import type {
  HubSnapshot,
  LimiterSnapshot,
  MetricTotals,
  OverloadSnapshot,
  PoolSnapshot,
  ProcessSnapshot,
  StatsSnapshot,
  UpstreamSnapshot,
  WebSocketSnapshot,
} from '../observe/snapshot.ts';
import type { LimiterStats, ListenerStats, WebSocketStats } from '../observe/stats.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { type CacheSources, cacheSnapshot, wholeCacheSnapshot } from './cache-gauges.ts';
import { lanesSnapshot, resilienceSnapshot } from './resilience-gauges.ts';

export interface Sources {
  readonly version: string;
  readonly upstreams: readonly Upstream[];
  readonly limiters: readonly { readonly limiter: Limiter; readonly stats: LimiterStats }[];
  readonly listener: ListenerStats;
  readonly bodyMemory: ByteBudget;
  readonly cache: CacheSources;
  readonly overload: () => OverloadSnapshot | null;
  readonly redis: () => HubSnapshot | null;
  readonly draining: () => boolean;
}

/** The window of event_loop_p99_ms moves in two halves. */
const LOOP_HALF_MS = 30_000;
const LOOP_RESOLUTION_MS = 10;

export class Gauges {
  readonly #sources: Sources;
  readonly #loops = [
    monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS }),
    monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS }),
  ];
  #turnedAt = performance.now();

  constructor(sources: Sources) {
    this.#sources = sources;
    for (const loop of this.#loops) loop.enable();
  }

  /** Every ten seconds: the windows move on. */
  rotate(): void {
    for (const upstream of this.#sources.upstreams) {
      upstream.stats.rotate();
      upstream.poolStats.rotate();
    }
    for (const { stats } of this.#sources.limiters) stats.rotate();
    if (performance.now() - this.#turnedAt < LOOP_HALF_MS) return;
    this.#turnedAt = performance.now();
    this.#loops.reverse();
    this.#loops[0]!.reset();
  }

  stop(): void {
    for (const loop of this.#loops) loop.disable();
  }

  snapshot(): StatsSnapshot {
    const { listener, bodyMemory, draining } = this.#sources;
    return {
      process: this.#process(),
      listener: {
        connections: listener.connections,
        connections_refused: listener.connectionsRefused,
        connections_dropped: listener.connectionsDropped,
        tls_failed: listener.tlsFailed,
        in_flight: listener.inFlight,
        requests: listener.requests,
        refused: listener.refused.snapshot(),
        body_memory_bytes: bodyMemory.used,
        draining: draining(),
      },
      limiters: Object.fromEntries(
        this.#sources.limiters.map(({ limiter, stats }) => [limiter.name, limiterSnapshot(limiter, stats)]),
      ),
      overload: this.#sources.overload(),
      redis: this.#sources.redis(),
      cache: wholeCacheSnapshot(this.#sources.cache, this.#sources.upstreams),
      upstreams: Object.fromEntries(
        this.#sources.upstreams.map((upstream) => [
          upstream.name,
          upstreamSnapshot(upstream, this.#sources.cache.memory.maxBytes),
        ]),
      ),
    };
  }

  totals(): MetricTotals {
    return {
      upstreams: Object.fromEntries(
        this.#sources.upstreams.map(({ name, stats, poolStats }) => [
          name,
          {
            latency: stats.latency.totals(),
            ttfb: stats.ttfb.totals(),
            overhead: stats.overhead.totals(),
            connect: poolStats.connect.totals(),
          },
        ]),
      ),
      limiters: Object.fromEntries(
        this.#sources.limiters.map(({ limiter, stats }) => [limiter.name, { wait: stats.wait.totals() }]),
      ),
    };
  }

  #process(): ProcessSnapshot {
    const { rss, heapUsed } = process.memoryUsage();
    // What the timer itself waits is not delay.
    const p99 = Math.max(...this.#loops.map((loop) => loop.percentile(99))) / 1e6 - LOOP_RESOLUTION_MS;
    return {
      version: this.#sources.version,
      node: process.version,
      pid: process.pid,
      rss_bytes: rss,
      heap_used_bytes: heapUsed,
      event_loop_p99_ms: Math.max(0, Math.round(p99 * 1000) / 1000),
      uptime_s: Math.round(process.uptime() * 10) / 10,
    };
  }
}

function finiteOrNull(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

function limiterSnapshot(limiter: Limiter, stats: LimiterStats): LimiterSnapshot {
  return {
    max_concurrent: finiteOrNull(limiter.maxConcurrent),
    max_queue: finiteOrNull(limiter.maxQueue),
    in_flight: limiter.inFlight,
    queued: limiter.queued,
    peak_in_flight: limiter.peakInFlight,
    peak_queued: limiter.peakQueued,
    granted: limiter.granted,
    waited: limiter.waited,
    refused: limiter.refused,
    wait_ms: stats.wait.window(),
    operations: Object.fromEntries([...stats.operations].map(([label, operation]) => [label, operation.snapshot()])),
    ...lanesSnapshot(limiter),
  };
}

function upstreamSnapshot(upstream: Upstream, maxBytes: number): UpstreamSnapshot {
  const { stats, config } = upstream;
  return {
    url: shownUrl(config),
    limiter: config.limiter,
    requests: stats.requests,
    in_flight: stats.inFlight,
    status: stats.status(),
    failures: stats.failures.snapshot(),
    retries: stats.retries,
    ...resilienceSnapshot(upstream, performance.now()),
    bytes_in: stats.bytesIn,
    bytes_out: stats.bytesOut,
    heartbeats: stats.heartbeats,
    latency_ms: stats.latency.window(),
    ttfb_ms: stats.ttfb.window(),
    overhead_ms: stats.overhead.window(),
    cache: upstream.cache ? cacheSnapshot(upstream.cache.counters, maxBytes) : null,
    pool: poolSnapshot(upstream),
    websocket: upstream.webSockets ? webSocketSnapshot(upstream.webSockets, config.websocket!.max) : null,
  };
}

function webSocketSnapshot(stats: WebSocketStats, max: number): WebSocketSnapshot {
  return {
    open: stats.open,
    max,
    opened: stats.opened,
    refused: stats.refused,
    closed_by_code: stats.closedByCode(),
    bytes_in: stats.bytesIn,
    bytes_out: stats.bytesOut,
    messages_in: stats.messagesIn,
    messages_out: stats.messagesOut,
  };
}

function poolSnapshot(upstream: Upstream): PoolSnapshot {
  const { poolStats: stats } = upstream;
  const pools = upstream.targets.all.map(({ pool }) => pool);
  return {
    max: upstream.config.pool.connections,
    active: sum(pools, (pool) => pool.active),
    idle: sum(pools, (pool) => pool.idle),
    connecting: sum(pools, (pool) => pool.connecting),
    protocol: protocolOf(pools),
    streams: { open: sum(pools, (pool) => pool.streams), max: protocolOf(pools) === 'h2' ? upstream.slots.max : 0 },
    opened: stats.opened,
    closed: stats.closed,
    closed_by: stats.closedBy.snapshot(),
    connect_failed: stats.connectFailed,
    reused: stats.reused,
    reuse_rate: stats.sent === 0 ? null : Math.round((stats.reused / stats.sent) * 10_000) / 10_000,
    connect_ms: stats.connect.window(),
    dns_ms: stats.dns.window(),
    tcp_ms: stats.tcp.window(),
    tls_ms: stats.tls.window(),
    saved_ms: Math.round(stats.reused * stats.connect.mean),
  };
}

/** h2 when any of its servers speaks it. */
function protocolOf(pools: readonly { readonly protocol: 'h1' | 'h2' | null }[]): 'h1' | 'h2' | null {
  const known = pools.map(({ protocol }) => protocol);
  return known.includes('h2') ? 'h2' : (known.find((protocol) => protocol !== null) ?? null);
}

function sum<T>(all: readonly T[], value: (one: T) => number): number {
  return all.reduce((total, one) => total + value(one), 0);
}

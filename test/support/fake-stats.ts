// A source for the stats port with plausible numbers that move two seconds with every look at them.
import { renderMetrics } from '../../src/observe/metrics.ts';
import type {
  CacheSnapshot,
  HistogramTotals,
  LabelSnapshot,
  LimiterSnapshot,
  MetricTotals,
  StatsSnapshot,
  UpstreamSnapshot,
  WebSocketSnapshot,
  WholeCacheSnapshot,
  WindowMs,
} from '../../src/observe/snapshot.ts';
import type { Explained, Explanation, PurgeOrder } from '../../src/server/cache-desk.ts';
import type { StatsSource } from '../../src/server/stats-port.ts';
import {
  failoverPart,
  hubPart,
  lanesPart,
  learntLimit,
  meteredPart,
  overloadPart,
  PLAIN_LIMITER,
  plainPart,
} from './fake-resilience.ts';

const STEP_S = 2;
/** What a client may write into x-aiproxy-operation. */
export const HOSTILE = '<img src=x onerror=alert(1)>';

/** Requests per second, and its integral: a slow swell with a storm in it. */
const rateAt = (s: number, mean: number) =>
  mean * (1 + 0.35 * Math.sin(s / 23) + 0.15 * Math.sin(s / 5)) * (s % 240 > 150 && s % 240 < 190 ? 2.4 : 1);

function window(p50: number, count: number, tail = 1): WindowMs {
  const round = (ms: number) => Math.round(ms * 1000) / 1000;
  return {
    p50,
    p95: round(p50 * (1.9 + tail)),
    p99: round(p50 * (2.6 + 2 * tail)),
    max: round(p50 * (4.4 + 3 * tail)),
    count,
  };
}

const EMPTY: WindowMs = { p50: 0, p95: 0, p99: 0, max: 0, count: 0 };
const CACHE_MAX_BYTES = 64 * 1024 * 1024;

export class FakeStats implements StatsSource {
  drains = 0;
  /** What DELETE /cache and POST /cache/explain asked for. */
  readonly purges: PurgeOrder[] = [];
  readonly explained: Explained[] = [];
  draining = false;
  #s = 0;
  readonly #busy: boolean;
  readonly #requests: Record<string, number> = { openai: 48_211, deepseek: 9_120, fatsecret: 1_204 };

  /** @param busy false = a process that has just started and seen nothing */
  constructor(busy = true) {
    this.#busy = busy;
  }

  stats(): StatsSnapshot {
    this.#s += STEP_S;
    return this.#busy ? this.#busySnapshot() : this.#idleSnapshot();
  }

  metrics(): string {
    return renderMetrics(this.stats(), fakeTotals());
  }

  config(): unknown {
    return {
      listen: ['127.0.0.1:8080'],
      upstreams: { openai: { url: 'https://api.openai.com', headers: '[redacted]' } },
    };
  }

  ready(): boolean {
    return !this.draining;
  }

  drain(): void {
    this.drains++;
    this.draining = true;
  }

  async purge(order: PurgeOrder): Promise<{ memory: number; redis: number | null }> {
    this.purges.push(order);
    return { memory: 12, redis: null };
  }

  async explain(request: Explained): Promise<Explanation | string> {
    this.explained.push(request);
    if (!request.url.startsWith('/openai')) return 'url: no upstream has this name; known are openai';
    return {
      upstream: 'openai',
      method: request.method,
      path: '/v1/models',
      verdict: 'miss',
      because: 'nothing is stored under this key',
      policy: 'http',
      key: 'k'.repeat(43),
      parts: [{ part: 'mode', value: 'http' }],
      stored: [],
    };
  }

  #busySnapshot(): StatsSnapshot {
    const s = this.#s;
    const upstreams = {
      openai: this.#upstream('openai', 'https://api.openai.com', 'ai', 38, 620, 50),
      deepseek: this.#upstream('deepseek', 'https://api.deepseek.com', 'ai', 9, 1840, 30),
      fatsecret: this.#upstream('fatsecret', 'https://platform.fatsecret.com/rest', null, 3, 88, 30),
      'spare-with-a-long-name': idleUpstream('https://eu.spare.example.com:8443/v1/models'),
    };
    return {
      process: this.#process(112_300_000 + 3e6 * Math.sin(s / 40), 48_100_000 + 9e6 * Math.sin(s / 7)),
      listener: {
        connections: 143,
        connections_refused: 2,
        connections_dropped: 31,
        tls_failed: 4,
        in_flight: upstreams.openai.in_flight + upstreams.deepseek.in_flight + upstreams.fatsecret.in_flight + 24,
        requests: 58_535 + Math.round(s * 50),
        refused: { unknown_upstream: 14, bad_target: 3 },
        body_memory_bytes: 1_480_000,
        draining: this.draining,
      },
      limiters: { ai: busyLimiter(s), batch: idleLimiter() },
      overload: overloadPart(s),
      redis: hubPart(s),
      cache: {
        ...addCaches(upstreams.openai.cache, upstreams.fatsecret.cache),
        flights: Math.round(4 + 3 * Math.sin(s / 9)),
        flight_memory_bytes: 1_310_000,
        redis: {
          state: 'up',
          gets: 31_080 + s * 14,
          hits: 6_204 + s * 3,
          puts: 24_410 + s * 11,
          errors: 2,
          timeouts: 17,
          dropped: 5,
          rejected: 0,
        },
      },
      upstreams,
    };
  }

  #idleSnapshot(): StatsSnapshot {
    return {
      process: this.#process(71_000_000, 21_000_000),
      listener: {
        connections: 0,
        connections_refused: 0,
        connections_dropped: 0,
        tls_failed: 0,
        in_flight: 0,
        requests: 0,
        refused: {},
        body_memory_bytes: 0,
        draining: this.draining,
      },
      limiters: { ai: idleLimiter() },
      overload: null,
      redis: null,
      cache: { ...cacheOf(0, 0), flights: 0, flight_memory_bytes: 0, redis: null },
      upstreams: {
        openai: { ...idleUpstream('https://api.openai.com'), cache: cacheOf(0, 0) },
        deepseek: idleUpstream('https://api.deepseek.com'),
      },
    };
  }

  #process(rss: number, heap: number) {
    return {
      version: '0.1.0',
      node: 'v26.10.0',
      pid: 4242,
      rss_bytes: Math.round(rss),
      heap_used_bytes: Math.round(heap),
      event_loop_p99_ms: 2.1 + 0.8 * Math.sin(this.#s / 9),
      uptime_s: (this.#busy ? 11_000 : 0) + this.#s,
    };
  }

  #upstream(
    name: string,
    url: string,
    limiter: string | null,
    mean: number,
    ms: number,
    max: number,
  ): UpstreamSnapshot {
    const rate = rateAt(this.#s, mean);
    const requests = (this.#requests[name] = (this.#requests[name] ?? 0) + Math.round(rate * STEP_S));
    const p50 = Math.round(ms * (0.8 + (0.25 * rate) / mean));
    const active = Math.min(max, Math.round((rate * p50) / 1000));
    const idle = Math.min(max - active, Math.round(max * 0.3));
    const [failed, limited] = [Math.round(requests * 0.0021), Math.round(requests * 0.011)];
    return {
      ...this.#resilience(name, url, requests, active),
      url,
      limiter,
      requests,
      in_flight: active,
      status: {
        200: requests - failed - limited - 210,
        400: 210,
        429: limited,
        502: Math.round(failed / 3),
        504: failed,
      },
      failures: { headers_timeout: failed, upstream_reset: Math.round(failed / 3), client_gone: 31 },
      retries: Math.round(failed / 2),
      bytes_in: requests * 2_400,
      bytes_out: requests * 5_100,
      heartbeats: 0,
      latency_ms: window(p50, Math.round(rate * 60), 0.9),
      ttfb_ms: window(Math.round(p50 * 0.7), Math.round(rate * 60), 0.7),
      overhead_ms: window(0.21, Math.round(rate * 60), 1.2),
      cache: name === 'deepseek' ? null : cacheOf(requests, ms),
      websocket: name === 'openai' ? webSockets(this.#s) : null,
      pool: {
        max,
        active,
        idle,
        connecting: active > max * 0.8 ? 2 : 0,
        protocol: 'h1',
        streams: { open: 0, max: 0 },
        opened: 214,
        closed: 214 - active - idle,
        closed_by: { idle_timeout: 120, lifetime: 31, upstream: 12, aborted: 4 },
        connect_failed: 2,
        reused: requests - 214,
        reuse_rate: (requests - 214) / requests,
        connect_ms: window(94, 14),
        dns_ms: window(4, 14),
        tcp_ms: window(41, 14),
        tls_ms: window(49, 14),
        saved_ms: (requests - 214) * 96,
      },
    };
  }

  #resilience(name: string, url: string, requests: number, active: number) {
    if (name === 'openai') return failoverPart(this.#s, url, requests, active);
    if (name === 'deepseek') return meteredPart(this.#s, url, requests);
    return plainPart(url, requests);
  }
}

/** What became of so many requests, of which the upstream would take `ms` each. */
function cacheOf(requests: number, ms: number): CacheSnapshot {
  const part = (share: number) => Math.round(requests * share);
  const [hits, stale, revalidated, coalesced] = [part(0.41), part(0.013), part(0.05), part(0.064)];
  const [misses, bypassed] = [part(0.24), part(0.21)];
  const [stores, swept, invalidated] = [part(0.22), part(0.14), part(0.002)];
  const entries = Math.min(stores - swept - invalidated, 3_200);
  const reused = hits + stale + revalidated + coalesced;
  const saved = hits + stale + coalesced;
  return {
    entries,
    bytes: entries * 13_400,
    max_bytes: CACHE_MAX_BYTES,
    hits,
    misses,
    stale,
    revalidated,
    coalesced,
    bypassed,
    stores,
    evicted: stores - swept - invalidated - entries,
    swept,
    invalidated,
    too_large: part(0.0004),
    unshared: part(0.001),
    hit_rate: requests === 0 ? null : Math.round((reused / (reused + misses)) * 10_000) / 10_000,
    saved_ms: saved * ms,
    saved_requests: saved,
  };
}

type CacheTotals = Omit<WholeCacheSnapshot, 'flights' | 'flight_memory_bytes' | 'redis'>;

function addCaches(...parts: (CacheSnapshot | null)[]): CacheTotals {
  const sum = cacheOf(0, 0);
  for (const part of parts) {
    if (!part) continue;
    for (const key of Object.keys(sum) as (keyof CacheSnapshot)[]) sum[key] = (sum[key] ?? 0) + (part[key] ?? 0);
  }
  const reused = sum.hits + sum.stale + sum.revalidated + sum.coalesced;
  return {
    ...sum,
    max_bytes: CACHE_MAX_BYTES,
    hit_rate: Math.round((reused / (reused + sum.misses)) * 10_000) / 10_000,
  };
}

function busyLimiter(s: number): LimiterSnapshot {
  const load = rateAt(s, 62);
  const most = learntLimit(s);
  const inFlight = Math.min(most, Math.round(load));
  const queued = Math.max(0, Math.round(load - most));
  const label = (share: number, waits: WindowMs): LabelSnapshot => ({
    in_flight: Math.round(inFlight * share),
    queued: Math.round(queued * share),
    granted: Math.round(share * (57_331 + s * 47)),
    waited: Math.round(share * 4_210),
    refused: 0,
    wait_ms: waits,
  });
  return {
    ...lanesPart(s, queued, 4_210),
    max_concurrent: most,
    max_queue: null,
    in_flight: inFlight,
    queued,
    peak_in_flight: 100,
    peak_queued: 148,
    granted: 57_331 + s * 47,
    waited: 4_210,
    refused: 3,
    wait_ms: window(31, 900, 3),
    operations: {
      chat: label(0.6, window(31, 540, 3)),
      'food-photo': label(0.25, window(48, 225, 3)),
      embeddings: label(0.1, EMPTY),
      [HOSTILE]: label(0.05, window(0.4, 12)),
    },
  };
}

function idleLimiter(): LimiterSnapshot {
  return {
    ...PLAIN_LIMITER,
    max_concurrent: 100,
    max_queue: 10_000,
    in_flight: 0,
    queued: 0,
    peak_in_flight: 0,
    peak_queued: 0,
    granted: 0,
    waited: 0,
    refused: 0,
    wait_ms: EMPTY,
    operations: {},
  };
}

function webSockets(s: number): WebSocketSnapshot {
  return {
    open: Math.round(40 + 12 * Math.sin(s / 17)),
    max: 200,
    opened: 1_930 + Math.floor(s / 4),
    refused: 3,
    closed_by_code: { 1000: 1_702, 1001: 88, 1011: 4, none: 61 },
    bytes_in: 84_000_000 + s * 40_000,
    bytes_out: 310_000_000 + s * 150_000,
    messages_in: 91_000 + s * 40,
    messages_out: 240_000 + s * 110,
  };
}

function idleUpstream(url: string): UpstreamSnapshot {
  return {
    ...plainPart(url),
    url,
    limiter: 'ai',
    requests: 0,
    in_flight: 0,
    status: {},
    failures: {},
    retries: 0,
    bytes_in: 0,
    bytes_out: 0,
    heartbeats: 0,
    latency_ms: EMPTY,
    ttfb_ms: EMPTY,
    overhead_ms: EMPTY,
    cache: null,
    websocket: null,
    pool: {
      max: 50,
      active: 0,
      idle: 2,
      connecting: 0,
      protocol: 'h2',
      streams: { open: 0, max: 5000 },
      opened: 2,
      closed: 0,
      closed_by: {},
      connect_failed: 0,
      reused: 0,
      reuse_rate: null,
      connect_ms: window(91, 2),
      dns_ms: window(4, 2),
      tcp_ms: window(40, 2),
      tls_ms: window(47, 2),
      saved_ms: 0,
    },
  };
}

/** Per bucket: 5 up to 5 ms, 20 up to 100 ms, 10 up to 1 s, 1 above. */
export function fakeTotals(): MetricTotals {
  const times: HistogramTotals = { bounds: [0.005, 0.1, 1], counts: [5, 20, 10, 1], sum: 9.25 };
  const one = { latency: times, ttfb: times, overhead: times, connect: times };
  return { upstreams: { openai: one, deepseek: one, fatsecret: one }, limiters: { ai: { wait: times } } };
}

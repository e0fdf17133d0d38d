// The shape of what /stats tells. Every `*_ms` object covers the last 60 s; every plain number counts since start unless it is a gauge.

export interface WindowMs {
  p50: number;
  p95: number;
  p99: number;
  max: number;
  count: number;
}

/** Cumulative, for Prometheus: `counts[i]` observations were <= `bounds[i]` seconds (not cumulative over i); the last count is +Inf. */
export interface HistogramTotals {
  bounds: readonly number[];
  counts: readonly number[];
  sum: number;
}

export interface LabelSnapshot {
  in_flight: number;
  queued: number;
  granted: number;
  waited: number;
  refused: number;
  wait_ms: WindowMs;
}

export interface LimiterSnapshot {
  /** null = unlimited */
  max_concurrent: number | null;
  max_queue: number | null;
  in_flight: number;
  queued: number;
  peak_in_flight: number;
  peak_queued: number;
  granted: number;
  waited: number;
  refused: number;
  wait_ms: WindowMs;
  /** By `x-aiproxy-operation`; at most 64 labels, then `other`. */
  operations: Record<string, LabelSnapshot>;
  /** Of its queue, by name; empty = there is only one. */
  lanes: Record<string, LaneSnapshot>;
  /** `max_concurrent` is what it has learnt; null = the limit is fixed. */
  adaptive: { mode: string; min: number; max: number } | null;
  /** Leases of permits that all sidecars share; null = the permits are this process's own. */
  shared: { held: number; waiting: number; source: 'redis' | 'local' } | null;
}

export interface LaneSnapshot {
  share: number;
  queued: number;
  /** Of those who waited. */
  granted: number;
}

/** One server of an upstream. */
export interface TargetSnapshot {
  url: string;
  priority: number;
  weight: number;
  in_flight: number;
  attempts: number;
  /** Those that count for the breaker; others say nothing of the server. */
  failures: number;
  successes: number;
  /** null = none is configured */
  breaker: {
    state: 'closed' | 'open' | 'half_open';
    /** Times it opened. */
    opened: number;
    consecutive_failures: number;
    /** Until it may be tried again; 0 = now. */
    retry_after_ms: number;
  } | null;
}

/** One entry of an upstream's rate_limits. */
export interface RateLimitSnapshot {
  requests: number;
  per_ms: number;
  burst: number;
  /** global, credential, or header:<name> */
  key: string;
  on_limit: 'wait' | 'reject';
  shared: boolean;
  /** Keys known now. */
  keys: number;
  /** Requests whose key found no place: they share one. */
  overflowed: number;
  /** Requests it holds up now, and has held up. */
  held: number;
  held_total: number;
  refused: number;
}

export interface FeedbackSnapshot {
  /** Known now. */
  credentials: number;
  held: number;
  held_total: number;
  pauses: number;
  /** The longest pause under way ends in so long; 0 = none. */
  paused_ms: number;
}

export interface OverloadSnapshot {
  /** 0 calm, 1 the cache is made smaller, 2 new requests are refused, 3 clients' connections are closed. */
  level: number;
  /** Of the memory there is, 0..1; null = not known. */
  memory_share: number | null;
  loop_lag_ms: number;
  /** Times each level was reached. */
  entered: { shrink: number; refuse: number; close: number };
}

/** The server that sidecars share. */
export interface HubSnapshot {
  state: 'up' | 'down' | 'connecting';
  /** Sidecars alive, as last known. */
  peers: number;
  asked: number;
  errors: number;
  timeouts: number;
  /** Rate tokens taken, booked in Redis and of the local share. */
  tokens: { redis: number; local: number };
}

export interface PoolSnapshot {
  max: number;
  active: number;
  idle: number;
  connecting: number;
  /** What the upstream speaks; null = not known before the first connection. */
  protocol: 'h1' | 'h2' | null;
  /** HTTP/2 streams now, and as many as all connections together may carry; 0 with HTTP/1. */
  streams: { open: number; max: number };
  opened: number;
  closed: number;
  /** Why connections were closed: idle_timeout, lifetime, max_requests, surplus, upstream, error, aborted, ... */
  closed_by: Record<string, number>;
  connect_failed: number;
  /** Requests sent on an already used or warmed connection. */
  reused: number;
  /** reused / requests sent, 0..1; null before the first request. */
  reuse_rate: number | null;
  connect_ms: WindowMs;
  dns_ms: WindowMs;
  tcp_ms: WindowMs;
  tls_ms: WindowMs;
  /** reused * mean opening time, since start */
  saved_ms: number;
}

/** What the cache did for one upstream, or for all together. */
export interface CacheSnapshot {
  entries: number;
  bytes: number;
  /** Of all upstreams together. */
  max_bytes: number;
  hits: number;
  misses: number;
  stale: number;
  revalidated: number;
  coalesced: number;
  bypassed: number;
  stores: number;
  evicted: number;
  swept: number;
  invalidated: number;
  too_large: number;
  unshared: number;
  /** (hits + stale + revalidated + coalesced) / all that were looked up, 0..1; null before the first. */
  hit_rate: number | null;
  /** What the upstream took for the answers that were used again, since start. */
  saved_ms: number;
  saved_requests: number;
}

/** The store that all sidecars share. */
export interface RedisSnapshot {
  state: 'up' | 'down' | 'connecting';
  gets: number;
  hits: number;
  puts: number;
  errors: number;
  timeouts: number;
  dropped: number;
  rejected: number;
}

export interface WholeCacheSnapshot extends CacheSnapshot {
  /** Fetches under way that requests can share, and the bytes they hold. */
  flights: number;
  flight_memory_bytes: number;
  /** null = not configured */
  redis: RedisSnapshot | null;
}

/** Bytes and messages of WebSockets, both ways as seen from the client. */
export interface WebSocketSnapshot {
  /** Now, those that are still being opened included. */
  open: number;
  max: number;
  opened: number;
  /** For want of a place. */
  refused: number;
  /** By the code of the first Close frame, from either side; `none` = it ended without. */
  closed_by_code: Record<string, number>;
  bytes_in: number;
  bytes_out: number;
  messages_in: number;
  messages_out: number;
}

export interface UpstreamSnapshot {
  url: string;
  limiter: string | null;
  requests: number;
  in_flight: number;
  /** By class and code of what clients were answered: { "200": 12, "503": 1 } */
  status: Record<string, number>;
  /** By failure code. */
  failures: Record<string, number>;
  /** Attempts after the first. */
  retries: number;
  /** Requests sent again that the upstream may have done, and billed, the first time. */
  maybe_billed_twice: number;
  /** null = no retries by policy */
  retry_budget: { balance: number; spent: number; exhausted: number } | null;
  /** Second attempts beside slow first ones, and those that won; null = none are made. */
  hedges: { sent: number; won: number } | null;
  targets: TargetSnapshot[];
  rate_limits: RateLimitSnapshot[];
  feedback: FeedbackSnapshot | null;
  bytes_in: number;
  bytes_out: number;
  /** Comments sent to clients of event streams while the upstream was silent. */
  heartbeats: number;
  latency_ms: WindowMs;
  ttfb_ms: WindowMs;
  overhead_ms: WindowMs;
  /** null = nothing of it is stored or shared */
  cache: CacheSnapshot | null;
  pool: PoolSnapshot;
  /** null = they are off */
  websocket: WebSocketSnapshot | null;
}

export interface ProcessSnapshot {
  version: string;
  node: string;
  pid: number;
  rss_bytes: number;
  heap_used_bytes: number;
  event_loop_p99_ms: number;
  uptime_s: number;
}

export interface ListenerSnapshot {
  connections: number;
  /** Closed as soon as they came: max_connections others had requests under way. */
  connections_refused: number;
  /** Closed to make room for another: idle for longest. */
  connections_dropped: number;
  /** TLS handshakes with clients that came to nothing. */
  tls_failed: number;
  in_flight: number;
  requests: number;
  /** Requests answered without an upstream: unknown route, bad target, malformed head; by failure code. */
  refused: Record<string, number>;
  body_memory_bytes: number;
  draining: boolean;
}

export interface StatsSnapshot {
  process: ProcessSnapshot;
  listener: ListenerSnapshot;
  limiters: Record<string, LimiterSnapshot>;
  /** null = not watched */
  overload: OverloadSnapshot | null;
  /** null = not configured */
  redis: HubSnapshot | null;
  cache: WholeCacheSnapshot;
  upstreams: Record<string, UpstreamSnapshot>;
}

/** What only /metrics needs: cumulative histograms by upstream. */
export interface MetricTotals {
  upstreams: Record<
    string,
    { latency: HistogramTotals; ttfb: HistogramTotals; overhead: HistogramTotals; connect: HistogramTotals }
  >;
  limiters: Record<string, { wait: HistogramTotals }>;
}

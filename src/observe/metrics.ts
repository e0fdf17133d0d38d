// What /metrics tells: the numbers of /stats, and cumulative histograms, under Prometheus names.
// Cardinality is bounded: names come from the config, failure codes and reasons from our tables, operations stop at 64 labels.
import { Exposition, type HistogramSample, type Labels, type Sample } from './exposition.ts';
import { type Labelled, type Row, writeResilience, writeRows } from './resilience-metrics.ts';
import type {
  CacheSnapshot,
  HistogramTotals,
  LabelSnapshot,
  LimiterSnapshot,
  ListenerSnapshot,
  MetricTotals,
  PoolSnapshot,
  ProcessSnapshot,
  RedisSnapshot,
  StatsSnapshot,
  UpstreamSnapshot,
  WebSocketSnapshot,
  WholeCacheSnapshot,
} from './snapshot.ts';

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

type UpstreamTotals = MetricTotals['upstreams'][string];

const PROCESS: readonly Row<ProcessSnapshot>[] = [
  ['gauge', 'aiproxy_uptime_seconds', 'Time since the process started.', (it) => it.uptime_s],
  ['gauge', 'process_resident_memory_bytes', 'Resident memory size.', (it) => it.rss_bytes],
  ['gauge', 'aiproxy_heap_used_bytes', 'JavaScript heap in use.', (it) => it.heap_used_bytes],
  ['gauge', 'aiproxy_event_loop_p99_seconds', 'Delay of the event loop (p99).', (it) => it.event_loop_p99_ms / 1000],
];

const LISTENER: readonly Row<ListenerSnapshot>[] = [
  ['gauge', 'aiproxy_listener_connections', 'Client connections open now.', (it) => it.connections],
  [
    'counter',
    'aiproxy_listener_connections_refused_total',
    'Client connections closed at once, as max_connections were busy.',
    (it) => it.connections_refused,
  ],
  [
    'counter',
    'aiproxy_listener_connections_dropped_total',
    'Idle client connections closed to make room for others.',
    (it) => it.connections_dropped,
  ],
  ['counter', 'aiproxy_listener_tls_failed_total', 'TLS handshakes with clients that failed.', (it) => it.tls_failed],
  ['gauge', 'aiproxy_listener_in_flight', 'Requests between acceptance and last byte now.', (it) => it.in_flight],
  ['counter', 'aiproxy_listener_requests_total', 'Requests accepted.', (it) => it.requests],
  ['gauge', 'aiproxy_body_memory_bytes', 'Request bodies held in memory now.', (it) => it.body_memory_bytes],
  ['gauge', 'aiproxy_draining', '1 while draining, else 0.', (it) => (it.draining ? 1 : 0)],
];

// Unlimited is +Inf, so that in_flight / max_concurrent stays a meaningful query (0).
const LIMITER: readonly Row<LimiterSnapshot>[] = [
  ['gauge', 'aiproxy_limiter_max_concurrent', 'Its permits; +Inf = unlimited.', (it) => it.max_concurrent ?? Infinity],
  ['gauge', 'aiproxy_limiter_max_queue', 'Places in its queue; +Inf = unlimited.', (it) => it.max_queue ?? Infinity],
  ['gauge', 'aiproxy_limiter_in_flight', 'Permits held now.', (it) => it.in_flight],
  ['gauge', 'aiproxy_limiter_queued', 'Requests waiting for a permit now.', (it) => it.queued],
  ['counter', 'aiproxy_limiter_granted_total', 'Permits granted.', (it) => it.granted],
  ['counter', 'aiproxy_limiter_waited_total', 'Requests that had to wait for a permit.', (it) => it.waited],
  ['counter', 'aiproxy_limiter_refused_total', 'Requests refused: queue full or wait too long.', (it) => it.refused],
];

const OPERATION: readonly Row<LabelSnapshot>[] = [
  ['gauge', 'aiproxy_operation_in_flight', 'Permits held now, by operation.', (it) => it.in_flight],
  ['gauge', 'aiproxy_operation_queued', 'Requests waiting now, by operation.', (it) => it.queued],
  ['counter', 'aiproxy_operation_granted_total', 'Permits granted, by operation.', (it) => it.granted],
  ['counter', 'aiproxy_operation_waited_total', 'Requests that had to wait, by operation.', (it) => it.waited],
  ['counter', 'aiproxy_operation_refused_total', 'Requests refused, by operation.', (it) => it.refused],
];

const UPSTREAM: readonly Row<UpstreamSnapshot>[] = [
  ['gauge', 'aiproxy_upstream_in_flight', 'Requests of this upstream in flight now.', (it) => it.in_flight],
  ['counter', 'aiproxy_retries_total', 'Attempts after the first.', (it) => it.retries],
  [
    'counter',
    'aiproxy_maybe_billed_twice_total',
    'Requests sent again that may have been done before.',
    (it) => it.maybe_billed_twice,
  ],
  ['counter', 'aiproxy_received_bytes_total', 'Body bytes received from clients.', (it) => it.bytes_in],
  ['counter', 'aiproxy_sent_bytes_total', 'Body bytes sent to clients.', (it) => it.bytes_out],
  ['counter', 'aiproxy_heartbeats_total', 'Comments sent in silent event streams.', (it) => it.heartbeats],
];

const CACHE: readonly Row<CacheSnapshot>[] = [
  ['gauge', 'aiproxy_cache_entries', 'Stored answers now.', (it) => it.entries],
  ['gauge', 'aiproxy_cache_bytes', 'Memory of the stored answers now.', (it) => it.bytes],
  ['counter', 'aiproxy_cache_stores_total', 'Answers stored.', (it) => it.stores],
  ['counter', 'aiproxy_cache_evicted_total', 'Stored answers thrown out to make room.', (it) => it.evicted],
  ['counter', 'aiproxy_cache_swept_total', 'Stored answers cleaned up as of no more use.', (it) => it.swept],
  [
    'counter',
    'aiproxy_cache_invalidated_total',
    'Stored answers made void by a method or a purge.',
    (it) => it.invalidated,
  ],
  ['counter', 'aiproxy_cache_too_large_total', 'Answers not stored because of their size.', (it) => it.too_large],
  [
    'counter',
    'aiproxy_cache_unshared_total',
    'Requests that could not share the fetch of a twin.',
    (it) => it.unshared,
  ],
  ['counter', 'aiproxy_cache_saved_requests_total', 'Upstream calls saved.', (it) => it.saved_requests],
  ['counter', 'aiproxy_cache_saved_seconds_total', 'Upstream time saved.', (it) => it.saved_ms / 1000],
];

const REDIS: readonly Row<RedisSnapshot>[] = [
  ['gauge', 'aiproxy_cache_redis_up', '1 while the shared store answers, else 0.', (it) => (it.state === 'up' ? 1 : 0)],
  ['counter', 'aiproxy_cache_redis_gets_total', 'Look-ups in the shared store.', (it) => it.gets],
  ['counter', 'aiproxy_cache_redis_hits_total', 'Look-ups that found something.', (it) => it.hits],
  ['counter', 'aiproxy_cache_redis_puts_total', 'Answers written to the shared store.', (it) => it.puts],
  ['counter', 'aiproxy_cache_redis_errors_total', 'Commands that failed.', (it) => it.errors],
  ['counter', 'aiproxy_cache_redis_timeouts_total', 'Look-ups that took too long.', (it) => it.timeouts],
  ['counter', 'aiproxy_cache_redis_dropped_total', 'Writes not made: away, or too many waiting.', (it) => it.dropped],
  ['counter', 'aiproxy_cache_redis_rejected_total', 'Values found that were no entries of ours.', (it) => it.rejected],
];

const WHOLE_CACHE: readonly Row<WholeCacheSnapshot>[] = [
  ['gauge', 'aiproxy_cache_max_bytes', 'Memory the stored answers may take.', (it) => it.max_bytes],
  ['gauge', 'aiproxy_flights', 'Fetches under way that requests can share.', (it) => it.flights],
  ['gauge', 'aiproxy_flight_memory_bytes', 'Bytes of answers held by them now.', (it) => it.flight_memory_bytes],
];

const POOL: readonly Row<PoolSnapshot>[] = [
  ['gauge', 'aiproxy_pool_connections_max', 'Connections the pool may hold.', (it) => it.max],
  ['gauge', 'aiproxy_pool_streams', 'HTTP/2 streams to the upstream now.', (it) => it.streams.open],
  [
    'gauge',
    'aiproxy_pool_streams_max',
    'HTTP/2 streams all connections may carry; 0 = HTTP/1.',
    (it) => it.streams.max,
  ],
  ['counter', 'aiproxy_pool_opened_total', 'Connections opened.', (it) => it.opened],
  ['counter', 'aiproxy_pool_reused_total', 'Requests sent on a used or warmed connection.', (it) => it.reused],
  ['counter', 'aiproxy_pool_connect_failures_total', 'Connections that failed to open.', (it) => it.connect_failed],
  // A gauge: reused x mean opening time falls when that mean falls.
  ['gauge', 'aiproxy_pool_saved_seconds', 'Opening time saved by reuse, estimated.', (it) => it.saved_ms / 1000],
];

const WEBSOCKET: readonly Row<WebSocketSnapshot>[] = [
  ['gauge', 'aiproxy_websockets_open', 'WebSockets now, those being opened included.', (it) => it.open],
  ['gauge', 'aiproxy_websockets_max', 'So many may be.', (it) => it.max],
  ['counter', 'aiproxy_websockets_opened_total', 'WebSockets opened.', (it) => it.opened],
  ['counter', 'aiproxy_websockets_refused_total', 'WebSockets refused for want of a place.', (it) => it.refused],
  ['counter', 'aiproxy_websocket_received_bytes_total', 'Bytes received from their clients.', (it) => it.bytes_in],
  ['counter', 'aiproxy_websocket_sent_bytes_total', 'Bytes sent to their clients.', (it) => it.bytes_out],
  ['counter', 'aiproxy_websocket_received_messages_total', 'Messages of their clients.', (it) => it.messages_in],
  ['counter', 'aiproxy_websocket_sent_messages_total', 'Messages sent to their clients.', (it) => it.messages_out],
];

/** One family per row, with one more label whose values are the keys of what `read` gives. */
type Split<Part> = readonly [
  kind: 'gauge' | 'counter',
  name: string,
  help: string,
  label: string,
  read: (part: Part) => Record<string, number>,
];

const UPSTREAM_SPLITS: readonly Split<UpstreamSnapshot>[] = [
  ['counter', 'aiproxy_requests_total', 'Requests answered, by status code.', 'code', (it) => it.status],
  ['counter', 'aiproxy_failures_total', 'Requests that failed, by failure code.', 'failure', (it) => it.failures],
];

const POOL_SPLITS: readonly Split<PoolSnapshot>[] = [
  [
    'gauge',
    'aiproxy_pool_connections',
    'Connections to the upstream now, by state.',
    'state',
    ({ active, idle, connecting }) => ({ active, idle, connecting }),
  ],
  ['counter', 'aiproxy_pool_closed_total', 'Connections closed, by reason.', 'reason', (it) => it.closed_by],
];

const WEBSOCKET_SPLITS: readonly Split<WebSocketSnapshot>[] = [
  [
    'counter',
    'aiproxy_websockets_closed_total',
    'WebSockets that ended, by the code of the first Close frame.',
    'code',
    (it) => it.closed_by_code,
  ],
];

const CACHE_SPLITS: readonly Split<CacheSnapshot>[] = [
  [
    'counter',
    'aiproxy_cache_requests_total',
    'Requests by what the cache did for them.',
    'outcome',
    ({ hits, misses, stale, revalidated, coalesced, bypassed }) => ({
      hit: hits,
      miss: misses,
      stale,
      revalidated,
      coalesced,
      bypass: bypassed,
    }),
  ],
];

const UPSTREAM_TIMES: readonly (readonly [
  name: string,
  help: string,
  read: (it: UpstreamTotals) => HistogramTotals,
])[] = [
  ['aiproxy_request_duration_seconds', 'From acceptance to the last byte of the answer.', (it) => it.latency],
  ['aiproxy_ttfb_seconds', 'Time to the first byte of the answer.', (it) => it.ttfb],
  ['aiproxy_overhead_seconds', 'What aiproxy adds: total less queue wait less upstream time.', (it) => it.overhead],
  ['aiproxy_pool_connect_seconds', 'Time to open a connection: DNS, TCP and TLS.', (it) => it.connect],
];

export function renderMetrics(snapshot: StatsSnapshot, totals: MetricTotals): string {
  const page = new Exposition();
  writeProcess(page, snapshot);
  writeLimiters(page, snapshot, totals);
  writeUpstreams(page, snapshot, totals);
  writeWebSockets(page, snapshot);
  writeResilience(page, snapshot);
  writeCache(page, snapshot);
  return page.toString();
}

function writeProcess(page: Exposition, { process, listener }: StatsSnapshot): void {
  const build = { version: process.version, node: process.node };
  const refused = spread({}, 'failure', listener.refused);
  page.family('gauge', 'aiproxy_build_info', 'Always 1; its labels tell the versions.', [[build, 1]]);
  writeRows(page, PROCESS, [[{}, process]]);
  writeRows(page, LISTENER, [[{}, listener]]);
  page.family('counter', 'aiproxy_listener_refused_total', 'Requests answered without an upstream.', refused);
}

function writeLimiters(page: Exposition, snapshot: StatsSnapshot, totals: MetricTotals): void {
  const limiters = Object.entries(snapshot.limiters);
  const parts = limiters.map(([limiter, part]): Labelled<LimiterSnapshot> => [{ limiter }, part]);
  const operations = limiters.flatMap(([limiter, part]) =>
    Object.entries(part.operations).map(([operation, of]): Labelled<LabelSnapshot> => [{ limiter, operation }, of]),
  );
  const waits = Object.entries(totals.limiters).map(([limiter, of]): HistogramSample => [{ limiter }, of.wait]);
  writeRows(page, LIMITER, parts);
  page.histogram('aiproxy_queue_wait_seconds', 'Time spent in the queue of a limiter.', waits);
  writeRows(page, OPERATION, operations);
}

function writeUpstreams(page: Exposition, snapshot: StatsSnapshot, totals: MetricTotals): void {
  const upstreams = Object.entries(snapshot.upstreams);
  const parts = upstreams.map(([upstream, part]): Labelled<UpstreamSnapshot> => [{ upstream }, part]);
  const pools = upstreams.map(([upstream, part]): Labelled<PoolSnapshot> => [{ upstream }, part.pool]);
  const times = Object.entries(totals.upstreams);
  writeSplits(page, UPSTREAM_SPLITS, parts);
  writeRows(page, UPSTREAM, parts);
  writeSplits(page, POOL_SPLITS, pools);
  writeRows(page, POOL, pools);
  for (const [name, help, read] of UPSTREAM_TIMES) {
    const samples = times.map(([upstream, of]): HistogramSample => [{ upstream }, read(of)]);
    page.histogram(name, help, samples);
  }
}

function writeWebSockets(page: Exposition, { upstreams }: StatsSnapshot): void {
  const parts = Object.entries(upstreams).flatMap(([upstream, { websocket }]): Labelled<WebSocketSnapshot>[] =>
    websocket ? [[{ upstream }, websocket]] : [],
  );
  writeRows(page, WEBSOCKET, parts);
  writeSplits(page, WEBSOCKET_SPLITS, parts);
}

function writeCache(page: Exposition, { cache, upstreams }: StatsSnapshot): void {
  const parts = Object.entries(upstreams).flatMap(([upstream, { cache: part }]): Labelled<CacheSnapshot>[] =>
    part ? [[{ upstream }, part]] : [],
  );
  writeRows(page, WHOLE_CACHE, [[{}, cache]]);
  writeSplits(page, CACHE_SPLITS, parts);
  writeRows(page, CACHE, parts);
  if (cache.redis) writeRows(page, REDIS, [[{}, cache.redis]]);
}

function writeSplits<Part>(page: Exposition, rows: readonly Split<Part>[], parts: readonly Labelled<Part>[]): void {
  for (const [kind, name, help, label, read] of rows) {
    const samples = parts.flatMap(([labels, part]) => spread(labels, label, read(part)));
    page.family(kind, name, help, samples);
  }
}

function spread(labels: Labels, label: string, numbers: Record<string, number>): Sample[] {
  return Object.entries(numbers).map(([key, value]): Sample => [{ ...labels, [label]: key }, value]);
}

// /metrics as a scraper reads it.
import t from 'tap';
import { escapeLabel, numberText } from '../../../src/observe/exposition.ts';
import { renderMetrics } from '../../../src/observe/metrics.ts';
import { parseExposition } from '../../support/exposition-parser.ts';
import { FakeStats, fakeTotals, HOSTILE } from '../../support/fake-stats.ts';

function read(text: string) {
  const families = parseExposition(text);
  return {
    families,
    value(name: string, labels: Record<string, string> = {}): number | undefined {
      const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''));
      const wanted = JSON.stringify(Object.entries(labels).sort());
      return family?.series.get(name + wanted)?.value;
    },
  };
}

t.test('a strict parser accepts everything that is written', async (t) => {
  const snapshot = new FakeStats().stats();
  const { families, value } = read(renderMetrics(snapshot, fakeTotals()));
  const openai = snapshot.upstreams.openai!;

  t.equal(value('aiproxy_build_info', { version: '0.1.0', node: 'v26.10.0' }), 1);
  t.equal(value('aiproxy_requests_total', { upstream: 'openai', code: '200' }), openai.status[200]);
  t.equal(
    value('aiproxy_failures_total', { upstream: 'openai', failure: 'headers_timeout' }),
    openai.failures.headers_timeout,
  );
  t.equal(value('aiproxy_upstream_in_flight', { upstream: 'openai' }), openai.in_flight);
  t.equal(value('aiproxy_pool_connections', { upstream: 'openai', state: 'active' }), openai.pool.active);
  t.equal(value('aiproxy_pool_connections_max', { upstream: 'openai' }), 50);
  t.equal(value('aiproxy_pool_closed_total', { upstream: 'openai', reason: 'idle_timeout' }), 120);
  t.equal(value('aiproxy_limiter_max_concurrent', { limiter: 'ai' }), 100);
  t.equal(value('aiproxy_limiter_granted_total', { limiter: 'ai' }), snapshot.limiters.ai!.granted);
  t.equal(value('aiproxy_listener_refused_total', { failure: 'bad_target' }), 3);
  t.equal(value('aiproxy_event_loop_p99_seconds'), snapshot.process.event_loop_p99_ms / 1000);
  t.equal(value('process_resident_memory_bytes'), snapshot.process.rss_bytes);
  t.equal(value('aiproxy_draining'), 0);
  for (const name of families.keys()) t.match(name, /^(aiproxy|process)_[a-z0-9_]+$/, `${name} follows the convention`);
});

t.test('every family the alert rules may name is there', async (t) => {
  const { families } = read(new FakeStats().metrics());
  const types = Object.fromEntries([...families].map(([name, family]) => [name, family.type]));
  t.matchOnly(types, {
    aiproxy_build_info: 'gauge',
    aiproxy_uptime_seconds: 'gauge',
    process_resident_memory_bytes: 'gauge',
    aiproxy_heap_used_bytes: 'gauge',
    aiproxy_event_loop_p99_seconds: 'gauge',
    aiproxy_listener_connections: 'gauge',
    aiproxy_listener_connections_refused_total: 'counter',
    aiproxy_listener_connections_dropped_total: 'counter',
    aiproxy_listener_tls_failed_total: 'counter',
    aiproxy_listener_in_flight: 'gauge',
    aiproxy_listener_requests_total: 'counter',
    aiproxy_listener_refused_total: 'counter',
    aiproxy_body_memory_bytes: 'gauge',
    aiproxy_draining: 'gauge',
    aiproxy_limiter_max_concurrent: 'gauge',
    aiproxy_limiter_max_queue: 'gauge',
    aiproxy_limiter_in_flight: 'gauge',
    aiproxy_limiter_queued: 'gauge',
    aiproxy_limiter_granted_total: 'counter',
    aiproxy_limiter_waited_total: 'counter',
    aiproxy_limiter_refused_total: 'counter',
    aiproxy_queue_wait_seconds: 'histogram',
    aiproxy_operation_in_flight: 'gauge',
    aiproxy_operation_queued: 'gauge',
    aiproxy_operation_granted_total: 'counter',
    aiproxy_operation_waited_total: 'counter',
    aiproxy_operation_refused_total: 'counter',
    aiproxy_requests_total: 'counter',
    aiproxy_failures_total: 'counter',
    aiproxy_upstream_in_flight: 'gauge',
    aiproxy_heartbeats_total: 'counter',
    aiproxy_retries_total: 'counter',
    aiproxy_maybe_billed_twice_total: 'counter',
    aiproxy_received_bytes_total: 'counter',
    aiproxy_sent_bytes_total: 'counter',
    aiproxy_request_duration_seconds: 'histogram',
    aiproxy_ttfb_seconds: 'histogram',
    aiproxy_overhead_seconds: 'histogram',
    aiproxy_pool_connections: 'gauge',
    aiproxy_pool_connections_max: 'gauge',
    aiproxy_pool_streams: 'gauge',
    aiproxy_pool_streams_max: 'gauge',
    aiproxy_pool_opened_total: 'counter',
    aiproxy_pool_closed_total: 'counter',
    aiproxy_pool_reused_total: 'counter',
    aiproxy_pool_connect_failures_total: 'counter',
    aiproxy_pool_saved_seconds: 'gauge',
    aiproxy_pool_connect_seconds: 'histogram',
    aiproxy_websockets_open: 'gauge',
    aiproxy_websockets_max: 'gauge',
    aiproxy_websockets_opened_total: 'counter',
    aiproxy_websockets_refused_total: 'counter',
    aiproxy_websockets_closed_total: 'counter',
    aiproxy_websocket_received_bytes_total: 'counter',
    aiproxy_websocket_sent_bytes_total: 'counter',
    aiproxy_websocket_received_messages_total: 'counter',
    aiproxy_websocket_sent_messages_total: 'counter',
    aiproxy_target_in_flight: 'gauge',
    aiproxy_target_attempts_total: 'counter',
    aiproxy_target_failures_total: 'counter',
    aiproxy_breaker_state: 'gauge',
    aiproxy_breaker_opened_total: 'counter',
    aiproxy_retry_budget_balance: 'gauge',
    aiproxy_retry_budget_exhausted_total: 'counter',
    aiproxy_hedges_total: 'counter',
    aiproxy_hedges_won_total: 'counter',
    aiproxy_rate_limit_keys: 'gauge',
    aiproxy_rate_limit_held: 'gauge',
    aiproxy_rate_limit_held_total: 'counter',
    aiproxy_rate_limit_refused_total: 'counter',
    aiproxy_feedback_held: 'gauge',
    aiproxy_feedback_held_total: 'counter',
    aiproxy_feedback_pauses_total: 'counter',
    aiproxy_lane_queued: 'gauge',
    aiproxy_lane_granted_total: 'counter',
    aiproxy_shared_permits_held: 'gauge',
    aiproxy_shared_permits_waiting: 'gauge',
    aiproxy_shared_permits_local: 'gauge',
    aiproxy_overload_level: 'gauge',
    aiproxy_memory_share: 'gauge',
    aiproxy_redis_up: 'gauge',
    aiproxy_redis_peers: 'gauge',
    aiproxy_redis_questions_total: 'counter',
    aiproxy_redis_errors_total: 'counter',
    aiproxy_redis_timeouts_total: 'counter',
    aiproxy_redis_tokens_total: 'counter',
    aiproxy_local_tokens_total: 'counter',
    aiproxy_cache_max_bytes: 'gauge',
    aiproxy_flights: 'gauge',
    aiproxy_flight_memory_bytes: 'gauge',
    aiproxy_cache_requests_total: 'counter',
    aiproxy_cache_entries: 'gauge',
    aiproxy_cache_bytes: 'gauge',
    aiproxy_cache_stores_total: 'counter',
    aiproxy_cache_evicted_total: 'counter',
    aiproxy_cache_swept_total: 'counter',
    aiproxy_cache_invalidated_total: 'counter',
    aiproxy_cache_too_large_total: 'counter',
    aiproxy_cache_unshared_total: 'counter',
    aiproxy_cache_saved_requests_total: 'counter',
    aiproxy_cache_saved_seconds_total: 'counter',
    aiproxy_cache_redis_up: 'gauge',
    aiproxy_cache_redis_gets_total: 'counter',
    aiproxy_cache_redis_hits_total: 'counter',
    aiproxy_cache_redis_puts_total: 'counter',
    aiproxy_cache_redis_errors_total: 'counter',
    aiproxy_cache_redis_timeouts_total: 'counter',
    aiproxy_cache_redis_dropped_total: 'counter',
    aiproxy_cache_redis_rejected_total: 'counter',
  });
});

t.test('WebSockets are told of upstreams that take them, and their ends by code', async (t) => {
  const snapshot = new FakeStats().stats();
  const { value, families } = read(renderMetrics(snapshot, fakeTotals()));
  const { websocket } = snapshot.upstreams.openai!;
  t.equal(value('aiproxy_websockets_open', { upstream: 'openai' }), websocket!.open);
  t.equal(value('aiproxy_websockets_max', { upstream: 'openai' }), websocket!.max);
  t.equal(value('aiproxy_websockets_opened_total', { upstream: 'openai' }), websocket!.opened);
  t.equal(value('aiproxy_websockets_refused_total', { upstream: 'openai' }), websocket!.refused);
  t.equal(value('aiproxy_websocket_received_bytes_total', { upstream: 'openai' }), websocket!.bytes_in);
  t.equal(value('aiproxy_websocket_sent_bytes_total', { upstream: 'openai' }), websocket!.bytes_out);
  t.equal(value('aiproxy_websocket_received_messages_total', { upstream: 'openai' }), websocket!.messages_in);
  t.equal(value('aiproxy_websocket_sent_messages_total', { upstream: 'openai' }), websocket!.messages_out);
  for (const [code, n] of Object.entries(websocket!.closed_by_code)) {
    t.equal(value('aiproxy_websockets_closed_total', { upstream: 'openai', code }), n, code);
  }
  t.equal(snapshot.upstreams.deepseek!.websocket, null);
  t.equal(families.get('aiproxy_websockets_open')!.series.size, 1, 'the others have none');
});

t.test('the cache is told by upstream and outcome, and an upstream without one has no line', async (t) => {
  const snapshot = new FakeStats().stats();
  const { value, families } = read(renderMetrics(snapshot, fakeTotals()));
  const cache = snapshot.upstreams.openai!.cache!;
  const outcomes = {
    hit: cache.hits,
    miss: cache.misses,
    stale: cache.stale,
    revalidated: cache.revalidated,
    coalesced: cache.coalesced,
    bypass: cache.bypassed,
  };
  for (const [outcome, n] of Object.entries(outcomes)) {
    t.equal(value('aiproxy_cache_requests_total', { upstream: 'openai', outcome }), n, outcome);
  }
  t.equal(value('aiproxy_cache_entries', { upstream: 'openai' }), cache.entries);
  t.equal(value('aiproxy_cache_bytes', { upstream: 'openai' }), cache.bytes);
  t.equal(value('aiproxy_cache_saved_requests_total', { upstream: 'openai' }), cache.saved_requests);
  t.equal(value('aiproxy_cache_saved_seconds_total', { upstream: 'openai' }), cache.saved_ms / 1000);
  t.equal(value('aiproxy_cache_max_bytes'), cache.max_bytes, 'of all together: no label');
  t.equal(value('aiproxy_flights'), snapshot.cache.flights);
  t.equal(value('aiproxy_cache_redis_up'), 1);
  t.equal(value('aiproxy_cache_redis_timeouts_total'), 17);
  t.equal(value('aiproxy_cache_entries', { upstream: 'deepseek' }), undefined);
  for (const [name, { series }] of families) {
    if (name.startsWith('aiproxy_cache_'))
      t.notOk(
        [...series.keys()].some((key) => key.includes('deepseek')),
        name,
      );
  }
});

t.test('a shared store that is away is 0, one that is not configured has no line', async (t) => {
  const snapshot = new FakeStats().stats();
  for (const state of ['down', 'connecting'] as const) {
    snapshot.cache.redis!.state = state;
    t.equal(read(renderMetrics(snapshot, fakeTotals())).value('aiproxy_cache_redis_up'), 0, state);
  }
  snapshot.cache.redis = null;
  t.notMatch(renderMetrics(snapshot, fakeTotals()), /cache_redis/);
});

t.test('buckets become cumulative, in seconds, and +Inf is the count', async (t) => {
  const { value } = read(new FakeStats().metrics());
  const bucket = (le: string) => value('aiproxy_queue_wait_seconds_bucket', { limiter: 'ai', le });
  t.strictSame(['0.005', '0.1', '1', '+Inf'].map(bucket), [5, 25, 35, 36]);
  t.equal(value('aiproxy_queue_wait_seconds_count', { limiter: 'ai' }), 36);
  t.equal(value('aiproxy_queue_wait_seconds_sum', { limiter: 'ai' }), 9.25);
});

t.test('an unlimited limiter shows +Inf, not 0', async (t) => {
  const snapshot = new FakeStats(false).stats();
  snapshot.limiters.ai!.max_concurrent = null;
  t.equal(
    read(renderMetrics(snapshot, fakeTotals())).value('aiproxy_limiter_max_concurrent', { limiter: 'ai' }),
    Infinity,
  );
});

t.test('a label of a client comes back as it was, whatever it holds', async (t) => {
  const snapshot = new FakeStats().stats();
  const nasty = [HOSTILE, 'a"b', 'a\\', 'a\\"', '"} 1', 'line\nbreak', '\\n', '__proto__', '', 'Zürich 東京'];
  const { operations } = snapshot.limiters.ai!;
  const label = operations.chat!;
  snapshot.limiters.ai!.operations = Object.fromEntries(nasty.map((name, i) => [name, { ...label, granted: i + 1 }]));
  const { value } = read(renderMetrics(snapshot, fakeTotals()));
  nasty.forEach((operation, i) => {
    t.equal(value('aiproxy_operation_granted_total', { limiter: 'ai', operation }), i + 1, JSON.stringify(operation));
  });
});

t.test('a process that has seen nothing writes no empty family and no invented zero by code', async (t) => {
  const { families, value } = read(renderMetrics(new FakeStats(false).stats(), { upstreams: {}, limiters: {} }));
  t.notOk(families.has('aiproxy_requests_total'));
  t.notOk(families.has('aiproxy_request_duration_seconds'));
  t.notOk(families.has('aiproxy_cache_redis_up'));
  t.equal(value('aiproxy_retries_total', { upstream: 'openai' }), 0);
});

t.test('numbers are written as Go reads them', async (t) => {
  t.strictSame([0, 0.1, 1e21, 5e-7, Infinity, -Infinity, NaN].map(numberText), [
    '0',
    '0.1',
    '1e+21',
    '5e-7',
    '+Inf',
    '-Inf',
    'NaN',
  ]);
  t.equal(escapeLabel('a\\b"c\nd'), 'a\\\\b\\"c\\nd');
});

// Turns the validated form of the config into ready numbers, so that nothing is parsed after start.

import { parseAddress } from './address.ts';
import type { Form } from './form.ts';
import { MAX_STREAMS, MAX_WEBSOCKETS } from './form-stream.ts';
import { bytes, ms, number, ready } from './ready.ts';
import { resolveLimiter, resolveOverload, resolveRedis } from './resolve-limits.ts';
import { resolveListens } from './resolve-listen.ts';
import { resolveResilience, resolveTargets } from './resolve-resilience.ts';
import type { CacheConfig, CacheRuleConfig, CacheStoreConfig, Config, TlsConfig, UpstreamConfig } from './schema.ts';

type UpstreamForm = Form['upstreams'][string];
type CacheForm = NonNullable<UpstreamForm['cache']>;

/** `readFile` gives the PEM text that a tls key stands for: the content of that path, or the value itself. */
export function resolve(form: Form, readFile: (value: string) => string): Config {
  return {
    listen: resolveListens(form, readFile),
    stats: ready(parseAddress(form.stats)),
    allowedHosts: form.allowed_hosts.map((host) => host.toLowerCase()),
    log: form.log,
    drain: { acceptForMs: ms(form.drain.accept_for), timeoutMs: ms(form.drain.timeout) },
    maintenance: { intervalMs: ms(form.maintenance.interval) },
    listener: {
      maxConnections: form.listener.max_connections,
      keepAliveTimeoutMs: ms(form.listener.keepalive_timeout),
      headTimeoutMs: ms(form.listener.head_timeout),
      maxHeadBytes: bytes(form.listener.max_head),
      maxHeaders: form.listener.max_headers,
      maxPipelined: form.listener.max_pipelined,
      bodyBufferBytes: bytes(form.body_buffer),
      bodyMemoryBytes: bytes(form.body_memory),
      bodyMinRate: bytes(form.body_min_rate),
    },
    redis: form.redis ? resolveRedis(form.redis) : null,
    overload: form.overload ? resolveOverload(form.overload) : null,
    cache: resolveStore(form.cache),
    flights: {
      bufferBytes: bytes(form.flight_buffer),
      memoryBytes: bytes(form.flight_memory),
      maxWaiters: form.flight_waiters,
      waitMs: ms(form.flight_wait),
    },
    limiters: Object.entries(form.limiters).map(([name, limiter]) => resolveLimiter(name, limiter)),
    upstreams: Object.entries(form.upstreams).map(([name, upstream]) => resolveUpstream(name, upstream, readFile)),
  };
}

function resolveStore(cache: Form['cache']): CacheStoreConfig {
  return {
    store: cache.store,
    maxBytes: bytes(cache.max_bytes),
    maxEntryBytes: bytes(cache.max_entry),
    maxVariants: cache.max_variants,
    sweepIntervalMs: ms(cache.sweep_interval),
  };
}

function resolveUpstream(name: string, upstream: UpstreamForm, readFile: (value: string) => string): UpstreamConfig {
  const { pool, timeouts } = upstream;
  const targets = resolveTargets(upstream);
  const { socketPath, protocol, hostname, port, origin, basePath } = targets[0]!;
  return {
    name,
    socketPath,
    protocol,
    hostname,
    port,
    origin,
    basePath,
    limiter: upstream.limiter ?? null,
    pool: {
      connections: pool.connections,
      keepalive: pool.keepalive,
      idleTimeoutMs: ms(pool.idle_timeout),
      maxLifetimeMs: ms(pool.max_lifetime),
      maxRequests: number(pool.max_requests),
      warm: pool.warm,
    },
    timeouts: {
      connectMs: ms(timeouts.connect),
      headersMs: ms(timeouts.headers),
      firstEventMs: ms(timeouts.first_event),
      idleMs: ms(timeouts.idle),
      writeStallMs: ms(timeouts.write_stall),
      totalMs: ms(timeouts.total),
    },
    bypass: upstream.bypass,
    replay: upstream.replay,
    cache: upstream.cache ? resolveCache(upstream.cache) : null,
    coalesce: upstream.coalesce,
    targets,
    ...resolveResilience(upstream),
    ...resolveStream(upstream),
    maxHeadBytes: bytes(upstream.max_head),
    maxHeaders: upstream.max_headers,
    tls: resolveTls(upstream.tls, readFile),
  };
}

type Streams = Pick<UpstreamConfig, 'stream' | 'websocket' | 'http2'>;

/** `true` is all defaults of the mapping in its place. */
function resolveStream({ stream, websocket, http2 }: UpstreamForm): Streams {
  return {
    stream: {
      heartbeatMs: ms(stream.heartbeat),
      minRate: bytes(stream.min_rate),
      minRateWindowMs: ms(stream.min_rate_window),
      errorEvent: stream.error_event,
    },
    websocket: websocket === false ? null : { max: websocket === true ? MAX_WEBSOCKETS : websocket.max },
    http2: http2 === false ? null : { maxStreams: http2 === true ? MAX_STREAMS : http2.max_streams },
  };
}

function resolveCache(cache: CacheForm): CacheConfig {
  return {
    http: cache.http,
    rules: cache.rules.map(resolveRule),
    partition: cache.partition,
    partitionHeaders: lowerCase(cache.partition_headers),
    storeSetCookie: cache.store_set_cookie,
    heuristicFraction: cache.heuristic_fraction,
    heuristicMaxMs: ms(cache.heuristic_max),
  };
}

function resolveRule({ match, key, ...rule }: CacheForm['rules'][number]): CacheRuleConfig {
  const methods = [match.method].flat();
  return {
    match: {
      methods: methods.length === 0 ? ['GET', 'POST'] : methods,
      paths: [match.path].flat(),
      operations: [match.operation].flat(),
      headers: Object.entries(match.header).map(([name, value]) => [name.toLowerCase(), value]),
    },
    ttlMs: ms(rule.ttl),
    staleIfErrorMs: ms(rule.stale_if_error),
    staleWhileRevalidateMs: ms(rule.stale_while_revalidate),
    key: { body: key.body, queryIgnore: key.query_ignore, headers: lowerCase(key.headers) },
    statuses: rule.statuses,
    maxEntryBytes: bytes(rule.max_entry),
    pace: rule.pace,
  };
}

/** Each name once. */
function lowerCase(names: readonly string[]): string[] {
  return [...new Set(names.map((name) => name.toLowerCase()))];
}

function resolveTls(tls: UpstreamForm['tls'], readFile: (value: string) => string): TlsConfig {
  const pem = (value: string | undefined) => (value === undefined ? null : readFile(value));
  return { ca: pem(tls.ca), servername: tls.servername ?? null, cert: pem(tls.cert), key: pem(tls.key) };
}

// Config → running object graph. The only place where long-lived things are made.

import { performance } from 'node:perf_hooks';
import { AnswerCache } from './cache/answer-cache.ts';
import { decodeEntry, encodeEntry } from './cache/entry-format.ts';
import { FlightTable } from './cache/flight-table.ts';
import { worthKeeping } from './cache/judge.ts';
import { MemoryStore } from './cache/memory-store.ts';
import type { PurgeMessage } from './cache/redis-purge.ts';
import { RedisStore } from './cache/redis-store.ts';
import type { Config, OverloadConfig, UpstreamConfig } from './config/schema.ts';
import { adaptiveLimit } from './flow/adaptive-limit.ts';
import type { BreakerState } from './flow/breaker.ts';
import { ByteBudget } from './flow/byte-budget.ts';
import { Limiter } from './flow/limiter.ts';
import { Overload } from './flow/overload.ts';
import { QueueAlarm, type QueueLevel } from './flow/queue-alarm.ts';
import { SharedPermits } from './flow/shared-permits.ts';
import { SharedRate } from './flow/shared-rate.ts';
import { TimerWheel } from './flow/timer-wheel.ts';
import { Turnover } from './flow/turnover.ts';
import { AccessLogger, type Log } from './observe/log.ts';
import { renderMetrics } from './observe/metrics.ts';
import { LoopLag, MemoryGauge } from './observe/pressure.ts';
import { SLICE_MS } from './observe/rolling-histogram.ts';
import { LimiterStats, ListenerStats } from './observe/stats.ts';
import { Entrance } from './proxy/entrance.ts';
import type { Flight } from './proxy/flight.ts';
import { launchHedge, planRoutes } from './proxy/pipeline.ts';
import { Routes } from './proxy/routes.ts';
import type { Shared } from './proxy/shared.ts';
import { RedisHub } from './redis/hub.ts';
import { RedisPermits } from './redis/permits.ts';
import { RedisRates } from './redis/rate.ts';
import { CacheDesk } from './server/cache-desk.ts';
import { redisSnapshot } from './server/cache-gauges.ts';
import { Drain } from './server/drain.ts';
import { Gauges } from './server/gauges.ts';
import { Listener, type ListeningAt } from './server/listener.ts';
import { hubSnapshot, overloadSnapshot } from './server/resilience-gauges.ts';
import { type StatsAddress, StatsPort } from './server/stats-port.ts';
import type { MakeSharedPace } from './upstream/metering.ts';
import { Upstream } from './upstream/upstream.ts';
import type { UpstreamTarget } from './upstream/upstream-target.ts';

const WHEEL_TICK_MS = 15;
const PULSE_MS = 1000;
const PRESSURE_MS = 250;
/** What the cache keeps at each look while memory is short. */
const SHRINK_TO = 0.8;
/** A limiter of an upstream that names none: its connections are the limit, the queue is bounded. */
const OWN_MAX_QUEUE = 10_000;

export interface Assembly {
  /** Opens listeners and stats port, then the warm connections. Throws one clear line when an address cannot be had. */
  start(): Promise<{ listen: ListeningAt[]; stats: StatsAddress }>;
  readonly drain: Drain;
  /** Ends everything at once; after a drain nothing is cut by it. */
  stop(): Promise<void>;
  readonly gauges: Gauges;
}

/**
 * @param dump the effective config for GET /config, already redacted
 * @param onDrain what POST /drain starts
 * @param wallClock ms since the epoch
 * @throws when TLS material of an upstream is unusable
 */
export function assemble(
  config: Config,
  dump: unknown,
  version: string,
  log: Log,
  onDrain: () => void,
  wallClock: () => number = Date.now,
): Assembly {
  const now = () => performance.now();
  const wheel = makeWheel(now);
  const limiters = makeLimiters(config, log);
  const memory = new MemoryStore(config.cache.maxBytes, config.cache.maxVariants, now);
  const flights = new FlightTable<Flight>();
  const redis = makeRedis(config, memory, flights, log, now);
  const store = redis?.store ?? null;
  const permits = redis?.permits ? sharePermits(config, limiters, redis.permits, now) : [];
  const flightMemory = new ByteBudget(config.flights.memoryBytes);
  const rates = redis?.rates;
  const makeShared: MakeSharedPace | null = rates
    ? (key, { requests, perMs, burst, onLimit }) => new SharedRate(rates, key, perMs / requests, burst, onLimit, now)
    : null;
  const upstreams = config.upstreams.map((upstreamConfig) => {
    const { limiter, stats } = limiters.get(upstreamConfig.limiter ?? ownLimiterName(upstreamConfig.name))!;
    try {
      const cache = makeCache(upstreamConfig, memory, config.cache.maxEntryBytes, store);
      const upstream = new Upstream(upstreamConfig, limiter, stats, cache, makeShared, wheel, now);
      upstream.onBreaker = (of, target, state) => sayBreaker(log, of, target, state);
      return upstream;
    } catch (error) {
      throw new Error(`upstream ${upstreamConfig.name}: its tls material is not usable: ${(error as Error).message}`);
    }
  });
  const overload = config.overload ? new Overload(config.overload) : null;
  const listenerStats = new ListenerStats();
  const bodyMemory = new ByteBudget(config.listener.bodyMemoryBytes);
  const shared: Shared = {
    now,
    wallClock,
    wheel,
    bodyMemory,
    turnover: new Turnover(),
    bodyBufferBytes: config.listener.bodyBufferBytes,
    bodyMinRate: config.listener.bodyMinRate,
    flights,
    flightMemory,
    flightBufferBytes: config.flights.bufferBytes,
    flightWaiters: config.flights.maxWaiters,
    flightWaitMs: config.flights.waitMs,
    launchHedge,
    overload,
    access: new AccessLogger(log, config.log.access),
    onBug: (error) => log.error({ err: error }, 'a bug in aiproxy; one exchange failed, please report it'),
    onSettled: () => {
      listenerStats.inFlight--;
    },
  };
  const routes = new Routes(upstreams, planRoutes);
  const listeners = config.listen.map((listen) => {
    const entrance = new Entrance(shared, routes, listenerStats, listen);
    return new Listener(listen, config.listener, entrance, listenerStats, wheel, now);
  });
  const drain = new Drain(config.drain, listeners, listenerStats);
  const gauges = new Gauges({
    version,
    upstreams,
    limiters: [...limiters.values()],
    listener: listenerStats,
    bodyMemory,
    cache: { memory, flights, flightMemory, redis: store ? () => redisSnapshot(store) : null },
    overload: () => (overload ? overloadSnapshot(overload) : null),
    redis: () => (redis ? hubSnapshot(redis.hub, redis.rates) : null),
    draining: () => drain.draining,
  });
  const desk = new CacheDesk(memory, store, routes, {
    wallClock,
    bodyBufferBytes: config.listener.bodyBufferBytes,
    isMarked: (key) => flights.isMarked(key, now()),
    outdate: (what) => flights.purge(what),
  });
  let serving = false;
  const statsPort = new StatsPort(
    {
      stats: () => gauges.snapshot(),
      metrics: () => renderMetrics(gauges.snapshot(), gauges.totals()),
      config: () => dump,
      ready: () => serving && !drain.draining,
      drain: onDrain,
      purge: (what) => desk.purge(what),
      explain: (request) => desk.explain(request),
    },
    config.allowedHosts,
    (error) => log.error({ err: error }, 'a bug in aiproxy: the stats port could not answer, please report it'),
  );
  const timers: NodeJS.Timeout[] = [];
  const every = (ms: number, run: () => void) => timers.push(setInterval(run, ms).unref());

  const start = async () => {
    const stats = await statsPort.start(config.stats);
    const listen: ListeningAt[] = [];
    for (const listener of listeners) listen.push(await listener.start());
    serving = true;
    for (const { targets } of upstreams) for (const { pool } of targets.all) pool.warm();
    redis?.hub.start();
    for (const permit of permits) permit.start();
    every(SLICE_MS, () => gauges.rotate());
    every(PULSE_MS, () => {
      for (const { limiter, pulse } of limiters.values()) {
        limiter.pulse();
        pulse();
      }
      for (const { retryBudget } of upstreams) retryBudget?.pulse(now());
    });
    if (overload) every(PRESSURE_MS, watchPressure(config.overload!, overload, memory, listeners, log, now));
    every(config.maintenance.intervalMs, () => {
      for (const { targets } of upstreams) for (const { pool } of targets.all) pool.maintain();
    });
    every(config.cache.sweepIntervalMs, () => void memory.sweep((entry) => worthKeeping(entry, wallClock())));
    return { listen, stats };
  };
  const stop = async () => {
    serving = false;
    for (const timer of timers) clearInterval(timer);
    drain.hurry();
    await drain.start();
    flights.stopAll();
    store?.stop();
    await Promise.all(permits.map((permit) => permit.stop()));
    await redis?.hub.stop();
    for (const { targets } of upstreams) for (const { pool } of targets.all) pool.stop();
    gauges.stop();
    await statsPort.stop();
  };

  return {
    drain,
    gauges,
    stop,
    start: async () => {
      try {
        return await start();
      } catch (error) {
        await stop(); // what did start must not keep the process alive
        throw error;
      }
    },
  };
}

/** A wheel that turns only while a deadline is armed. */
function makeWheel(now: () => number): TimerWheel {
  let interval: NodeJS.Timeout | undefined;
  const wheel = new TimerWheel(
    now(),
    {
      start: () => {
        // In the check phase, after the sockets were read: what came while the loop was held up still counts as in time.
        interval = setInterval(() => setImmediate(() => wheel.advance(now())), WHEEL_TICK_MS);
      },
      stop: () => clearInterval(interval),
    },
    WHEEL_TICK_MS,
  );
  return wheel;
}

/** What is kept of one upstream's answers; null when nothing is, and twins share nothing. */
function makeCache(
  { name, cache, coalesce }: UpstreamConfig,
  memory: MemoryStore,
  maxEntryBytes: number,
  redis: RedisStore | null,
): AnswerCache | null {
  return cache || coalesce ? new AnswerCache(name, cache, coalesce, memory, maxEntryBytes, redis) : null;
}

/** What is shared with other sidecars over one connection; each part is null when it is not. */
interface SharedOverRedis {
  readonly hub: RedisHub;
  readonly store: RedisStore | null;
  readonly rates: RedisRates | null;
  readonly permits: RedisPermits | null;
}

/** null = nothing is shared */
function makeRedis(
  { redis, cache, upstreams, limiters }: Config,
  memory: MemoryStore,
  flights: FlightTable<Flight>,
  log: Log,
  now: () => number,
): SharedOverRedis | null {
  const sharesAnswers = cache.store === 'redis';
  const sharesRates = upstreams.some(({ rateLimits }) => rateLimits.some(({ shared }) => shared));
  const sharesPermits = limiters.some(({ shared }) => shared);
  if (!redis || !(sharesAnswers || sharesRates || sharesPermits)) return null;
  const hub = new RedisHub(redis, now);
  hub.use({
    onDown: (reason) => log.warn({ reason }, 'Redis is away; what is shared over it carries on locally'),
    onUp: () => log.info('Redis is there'),
  });
  const onPurge = (message: PurgeMessage) => {
    flights.purge(message);
    void memory.purge(message);
  };
  const store = { hub, maxVariants: cache.maxVariants, encode: encodeEntry, decode: decodeEntry, onPurge };
  return {
    hub,
    store: sharesAnswers ? new RedisStore(store) : null,
    rates: sharesRates ? new RedisRates(hub) : null,
    permits: sharesPermits ? new RedisPermits(hub) : null,
  };
}

interface NamedLimiter {
  readonly limiter: Limiter;
  readonly stats: LimiterStats;
  readonly pulse: () => void;
}

/** Limiters whose permits all sidecars share lease them from Redis. */
function sharePermits(
  { limiters }: Config,
  made: ReadonlyMap<string, NamedLimiter>,
  ledger: RedisPermits,
  now: () => number,
): SharedPermits[] {
  return limiters
    .filter(({ shared }) => shared)
    .map(({ name, maxConcurrent }) => {
      const { limiter } = made.get(name)!;
      const permits = new SharedPermits(ledger, name, maxConcurrent, now);
      permits.onChange = () => limiter.pump();
      limiter.shared = permits;
      return permits;
    });
}

function ownLimiterName(upstream: string): string {
  return `${upstream} (pool)`;
}

function makeLimiters(config: Config, log: Log): Map<string, NamedLimiter> {
  const limiters = new Map<string, NamedLimiter>();
  const add = (limiter: Limiter) => {
    const alarm = new QueueAlarm();
    limiter.onQueueGrown = () => sayQueue(log, limiter, alarm.grown(limiter.queued));
    limiters.set(limiter.name, {
      limiter,
      stats: new LimiterStats(),
      pulse: () => sayQueue(log, limiter, alarm.pulse(limiter.queued)),
    });
  };
  for (const { name, maxConcurrent, maxQueue, queueTimeoutMs, lanes, adaptive } of config.limiters) {
    const limiter = new Limiter(name, maxConcurrent, maxQueue, queueTimeoutMs, lanes);
    limiter.adaptive = adaptive ? adaptiveLimit(adaptive) : null;
    limiter.adaptiveRules = adaptive;
    add(limiter);
  }
  for (const { name, limiter, pool, http2 } of config.upstreams) {
    // What its connections carry over HTTP/2 its server says; the slots know.
    const most = http2 ? Number.POSITIVE_INFINITY : pool.connections;
    if (limiter === null) add(new Limiter(ownLimiterName(name), most, OWN_MAX_QUEUE, Number.POSITIVE_INFINITY));
  }
  return limiters;
}

/** What is done about it when the process has too much to do, or too little memory. */
function watchPressure(
  { memoryBytes }: OverloadConfig,
  overload: Overload,
  memory: MemoryStore,
  listeners: readonly Listener[],
  log: Log,
  now: () => number,
): () => void {
  const gauge = new MemoryGauge(memoryBytes);
  const lag = new LoopLag(PRESSURE_MS);
  const words = ['calm again', 'makes its cache smaller', 'refuses new requests', "closes its clients' connections"];
  return () => {
    const before = overload.level;
    gauge.read();
    const level = overload.measured(gauge.used, gauge.limit, lag.tick(now()));
    if (overload.shrinking) memory.shrinkTo(memory.bytes * SHRINK_TO);
    for (const listener of listeners) listener.press(overload.closing);
    if (level === before) return;
    const facts = { level, memory_share: overload.memoryShare, loop_lag_ms: Math.round(overload.loopLagMs) };
    if (level > before) log.warn(facts, `overload: aiproxy ${words[level]}`);
    else log.info(facts, level === 0 ? 'overload: aiproxy is calm again' : `overload: aiproxy still ${words[level]}`);
  };
}

function sayBreaker(log: Log, upstream: Upstream, target: UpstreamTarget, state: BreakerState): void {
  const facts = { upstream: upstream.name, target: target.url, state };
  if (state === 'open') log.warn(facts, 'the breaker has opened: the upstream fails too often');
  else if (state === 'half_open') log.info(facts, 'one request probes whether the upstream is well again');
  else log.info(facts, 'the breaker has closed: the upstream is well again');
}

function sayQueue(log: Log, limiter: Limiter, level: QueueLevel | null): void {
  if (level === null) return;
  const facts = { limiter: limiter.name, queued: limiter.queued, in_flight: limiter.inFlight };
  if (level === 'alert') log.error(facts, 'ALERT: the queue is very long');
  else if (level === 'warning') log.warn(facts, 'the queue is growing');
  else log.info(facts, 'the queue is well again');
}

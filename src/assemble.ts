// Config → running object graph. The only place where long-lived things are made.

import type { AddressInfo } from 'node:net';
import { performance } from 'node:perf_hooks';
import { AnswerCache } from './cache/answer-cache.ts';
import { decodeEntry, encodeEntry } from './cache/entry-format.ts';
import { FlightTable } from './cache/flight-table.ts';
import { worthKeeping } from './cache/judge.ts';
import { MemoryStore } from './cache/memory-store.ts';
import { RedisStore } from './cache/redis-store.ts';
import type { CacheStoreConfig, Config, UpstreamConfig } from './config/schema.ts';
import { ByteBudget } from './flow/byte-budget.ts';
import { Limiter } from './flow/limiter.ts';
import { QueueAlarm, type QueueLevel } from './flow/queue-alarm.ts';
import { TimerWheel } from './flow/timer-wheel.ts';
import { AccessLogger, type Log } from './observe/log.ts';
import { renderMetrics } from './observe/metrics.ts';
import { SLICE_MS } from './observe/rolling-histogram.ts';
import { LimiterStats, ListenerStats } from './observe/stats.ts';
import type { Shared } from './proxy/exchange.ts';
import type { Flight } from './proxy/flight.ts';
import { Entrance } from './proxy/pipeline.ts';
import { Routes } from './proxy/routes.ts';
import { CacheDesk } from './server/cache-desk.ts';
import { redisSnapshot } from './server/cache-gauges.ts';
import { Drain } from './server/drain.ts';
import { Gauges } from './server/gauges.ts';
import { Listener } from './server/listener.ts';
import { StatsPort } from './server/stats-port.ts';
import { Upstream } from './upstream/upstream.ts';

const WHEEL_TICK_MS = 15;
const PULSE_MS = 1000;
/** A limiter of an upstream that names none: its connections are the limit, the queue is bounded. */
const OWN_MAX_QUEUE = 10_000;

export interface Assembly {
  /** Opens listeners and stats port, then the warm connections. Throws one clear line when an address cannot be had. */
  start(): Promise<{ listen: AddressInfo[]; stats: { host: string; port: number } }>;
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
  const redis = makeRedis(config.cache, memory, flights, log, now);
  const flightMemory = new ByteBudget(config.flights.memoryBytes);
  const upstreams = config.upstreams.map((upstreamConfig) => {
    const { limiter, stats } = limiters.get(upstreamConfig.limiter ?? ownLimiterName(upstreamConfig.name))!;
    try {
      const cache = makeCache(upstreamConfig, memory, config.cache.maxEntryBytes, redis);
      return new Upstream(upstreamConfig, limiter, stats, cache, wheel, now);
    } catch (error) {
      throw new Error(`upstream ${upstreamConfig.name}: its tls material is not usable: ${(error as Error).message}`);
    }
  });
  const listenerStats = new ListenerStats();
  const bodyMemory = new ByteBudget(config.listener.bodyMemoryBytes);
  const shared: Shared = {
    now,
    wallClock,
    wheel,
    bodyMemory,
    bodyBufferBytes: config.listener.bodyBufferBytes,
    bodyMinRate: config.listener.bodyMinRate,
    flights,
    flightMemory,
    flightBufferBytes: config.flights.bufferBytes,
    flightWaiters: config.flights.maxWaiters,
    flightWaitMs: config.flights.waitMs,
    access: new AccessLogger(log, config.log.access),
    onBug: (error) => log.error({ err: error }, 'a bug in aiproxy; one exchange failed, please report it'),
    onSettled: () => {
      listenerStats.inFlight--;
    },
  };
  const routes = new Routes(upstreams);
  const entrance = new Entrance(shared, routes, listenerStats);
  const listeners = config.listen.map(
    (address) => new Listener(address, config.listener, entrance, listenerStats, wheel, now),
  );
  const drain = new Drain(config.drain, listeners, listenerStats);
  const gauges = new Gauges({
    version,
    upstreams,
    limiters: [...limiters.values()],
    listener: listenerStats,
    bodyMemory,
    cache: { memory, flights, flightMemory, redis: redis ? () => redisSnapshot(redis) : null },
    draining: () => drain.draining,
  });
  const desk = new CacheDesk(memory, redis, routes, {
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
    const listen: AddressInfo[] = [];
    for (const listener of listeners) listen.push(await listener.start());
    serving = true;
    for (const upstream of upstreams) upstream.pool.warm();
    void redis?.start();
    every(SLICE_MS, () => gauges.rotate());
    every(PULSE_MS, () => {
      for (const { limiter, pulse } of limiters.values()) {
        limiter.pulse();
        pulse();
      }
    });
    every(config.maintenance.intervalMs, () => {
      for (const upstream of upstreams) upstream.pool.maintain();
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
    await redis?.stop();
    for (const upstream of upstreams) upstream.pool.stop();
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

function makeRedis(
  config: CacheStoreConfig,
  memory: MemoryStore,
  flights: FlightTable<Flight>,
  log: Log,
  now: () => number,
): RedisStore | null {
  if (!config.redis) return null;
  return new RedisStore({
    config: config.redis,
    maxVariants: config.maxVariants,
    encode: encodeEntry,
    decode: decodeEntry,
    onPurge: (message) => {
      flights.purge(message);
      void memory.purge(message);
    },
    onDown: (reason) => log.warn({ reason }, 'the shared cache is away; memory serves alone'),
    onUp: () => log.info('the shared cache is there'),
    now,
  });
}

interface NamedLimiter {
  readonly limiter: Limiter;
  readonly stats: LimiterStats;
  readonly pulse: () => void;
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
  for (const { name, maxConcurrent, maxQueue, queueTimeoutMs } of config.limiters) {
    add(new Limiter(name, maxConcurrent, maxQueue, queueTimeoutMs));
  }
  for (const { name, limiter, pool } of config.upstreams) {
    if (limiter === null)
      add(new Limiter(ownLimiterName(name), pool.connections, OWN_MAX_QUEUE, Number.POSITIVE_INFINITY));
  }
  return limiters;
}

function sayQueue(log: Log, limiter: Limiter, level: QueueLevel | null): void {
  if (level === null) return;
  const facts = { limiter: limiter.name, queued: limiter.queued, in_flight: limiter.inFlight };
  if (level === 'alert') log.error(facts, 'ALERT: the queue is very long');
  else if (level === 'warning') log.warn(facts, 'the queue is growing');
  else log.info(facts, 'the queue is well again');
}

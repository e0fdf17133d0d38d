// Config → running object graph. The only place where long-lived things are made.

import type { AddressInfo } from 'node:net';
import { performance } from 'node:perf_hooks';
import type { Config } from './config/schema.ts';
import { ByteBudget } from './flow/byte-budget.ts';
import { Limiter } from './flow/limiter.ts';
import { QueueAlarm, type QueueLevel } from './flow/queue-alarm.ts';
import { TimerWheel } from './flow/timer-wheel.ts';
import { AccessLogger, type Log } from './observe/log.ts';
import { renderMetrics } from './observe/metrics.ts';
import { SLICE_MS } from './observe/rolling-histogram.ts';
import { LimiterStats, ListenerStats } from './observe/stats.ts';
import type { Shared } from './proxy/exchange.ts';
import { Entrance } from './proxy/pipeline.ts';
import { Routes } from './proxy/routes.ts';
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
 * @throws when TLS material of an upstream is unusable
 */
export function assemble(config: Config, dump: unknown, version: string, log: Log, onDrain: () => void): Assembly {
  const now = () => performance.now();
  const wheel = makeWheel(now);
  const limiters = makeLimiters(config, log);
  const upstreams = config.upstreams.map((upstreamConfig) => {
    const { limiter, stats } = limiters.get(upstreamConfig.limiter ?? ownLimiterName(upstreamConfig.name))!;
    try {
      return new Upstream(upstreamConfig, limiter, stats, wheel, now);
    } catch (error) {
      throw new Error(`upstream ${upstreamConfig.name}: its tls material is not usable: ${(error as Error).message}`);
    }
  });
  const listenerStats = new ListenerStats();
  const bodyMemory = new ByteBudget(config.listener.bodyMemoryBytes);
  const shared: Shared = {
    now,
    wheel,
    bodyMemory,
    bodyBufferBytes: config.listener.bodyBufferBytes,
    bodyMinRate: config.listener.bodyMinRate,
    access: new AccessLogger(log, config.log.access),
    onBug: (error) => log.error({ err: error }, 'a bug in aiproxy; one exchange failed, please report it'),
    onSettled: () => {
      listenerStats.inFlight--;
    },
  };
  const entrance = new Entrance(shared, new Routes(upstreams), listenerStats);
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
    draining: () => drain.draining,
  });
  let serving = false;
  const statsPort = new StatsPort(
    {
      stats: () => gauges.snapshot(),
      metrics: () => renderMetrics(gauges.snapshot(), gauges.totals()),
      config: () => dump,
      ready: () => serving && !drain.draining,
      drain: onDrain,
    },
    config.allowedHosts,
  );
  const timers: NodeJS.Timeout[] = [];
  const every = (ms: number, run: () => void) => timers.push(setInterval(run, ms).unref());

  const start = async () => {
    const stats = await statsPort.start(config.stats);
    const listen: AddressInfo[] = [];
    for (const listener of listeners) listen.push(await listener.start());
    serving = true;
    for (const upstream of upstreams) upstream.pool.warm();
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
    return { listen, stats };
  };
  const stop = async () => {
    serving = false;
    for (const timer of timers) clearInterval(timer);
    drain.hurry();
    await drain.start();
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

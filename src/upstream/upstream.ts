// One named API: its configuration as ready values, its pool, its queues and what happened to it.

import type { AnswerCache } from '../cache/answer-cache.ts';
import type { TimeoutsConfig, UpstreamConfig } from '../config/schema.ts';
import { Limiter } from '../flow/limiter.ts';
import { Line } from '../flow/line.ts';
import { Slots } from '../flow/slots.ts';
import type { TimerWheel } from '../flow/timer-wheel.ts';
import { PathPatterns } from '../http/target.ts';
import { type LimiterStats, PoolStats, UpstreamStats } from '../observe/stats.ts';
import { Dialer } from './dial.ts';
import { Pool } from './pool.ts';

/** Connections kept for bypass requests beside the regular ones. */
export const BYPASS_CONNECTIONS = 2;
/** Bypass requests that may wait for one of them. */
const BYPASS_QUEUE = 1000;
const NO_TIMEOUTS: Omit<TimeoutsConfig, 'connectMs' | 'writeStallMs'> = {
  headersMs: Number.POSITIVE_INFINITY,
  firstEventMs: Number.POSITIVE_INFINITY,
  idleMs: Number.POSITIVE_INFINITY,
  // A client that takes nothing is gone on this lane too.
  totalMs: Number.POSITIVE_INFINITY,
};

/** The way a request takes to an upstream: the regular one, or the bypass without limiter and deadlines. */
export interface Lane {
  readonly line: Line;
  readonly limiterStats: LimiterStats | null;
  readonly timeouts: TimeoutsConfig;
}

export class Upstream {
  readonly name: string;
  readonly config: UpstreamConfig;
  readonly stats = new UpstreamStats();
  readonly pool: Pool;
  readonly regular: Lane;
  readonly bypass: Lane;
  /** For fetches that several requests share: each of these has its own total, and its own client to wait for. */
  readonly shared: Lane;
  /** null = none of its answers are stored or shared. */
  readonly cache: AnswerCache | null;
  readonly bypassPaths: PathPatterns;
  readonly replayPaths: PathPatterns;

  /** Throws when TLS material of the config is not usable. */
  constructor(
    config: UpstreamConfig,
    limiter: Limiter,
    limiterStats: LimiterStats,
    cache: AnswerCache | null,
    wheel: TimerWheel,
    now: () => number,
  ) {
    this.name = config.name;
    this.config = config;
    const slots = new Slots(config.pool.connections, BYPASS_CONNECTIONS);
    const max = config.pool.connections + BYPASS_CONNECTIONS;
    this.pool = new Pool(config, new Dialer(config, wheel, now), new PoolStats(), wheel, now, max);
    this.cache = cache;
    this.regular = { line: new Line(limiter, slots.regular), limiterStats, timeouts: config.timeouts };
    const never = Number.POSITIVE_INFINITY;
    this.shared = { ...this.regular, timeouts: { ...config.timeouts, totalMs: never, writeStallMs: never } };
    const open = new Limiter(`${config.name} bypass`, Number.POSITIVE_INFINITY, BYPASS_QUEUE, Number.POSITIVE_INFINITY);
    this.bypass = {
      line: new Line(open, slots.bypass),
      limiterStats: null,
      timeouts: {
        ...NO_TIMEOUTS,
        connectMs: config.timeouts.connectMs,
        writeStallMs: config.timeouts.writeStallMs,
      },
    };
    this.bypassPaths = new PathPatterns(config.bypass);
    this.replayPaths = new PathPatterns(config.replay);
  }
}

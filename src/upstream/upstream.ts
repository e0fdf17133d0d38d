// One named API: its configuration as ready values, its pool, its queues and what happened to it.

import type { AnswerCache } from '../cache/answer-cache.ts';
import type { StreamConfig, TimeoutsConfig, UpstreamConfig } from '../config/schema.ts';
import type { BreakerState } from '../flow/breaker.ts';
import { Limiter } from '../flow/limiter.ts';
import { Line } from '../flow/line.ts';
import { RetryBudget } from '../flow/retry-budget.ts';
import { Slots } from '../flow/slots.ts';
import type { TimerWheel } from '../flow/timer-wheel.ts';
import { PathPatterns } from '../http/target.ts';
import { type LimiterStats, PoolStats, UpstreamStats, WebSocketStats } from '../observe/stats.ts';
import { type MakeSharedPace, Metering } from './metering.ts';
import { UpstreamTarget, UpstreamTargets } from './upstream-target.ts';

/** Connections kept for bypass requests beside the regular ones. */
export const BYPASS_CONNECTIONS = 2;
/** Bypass requests that may wait for one of them. */
const BYPASS_QUEUE = 1000;
const NO_TIMEOUTS: Omit<TimeoutsConfig, 'connectMs' | 'writeStallMs'> = {
  headersMs: Number.POSITIVE_INFINITY,
  firstEventMs: Number.POSITIVE_INFINITY,
  idleMs: Number.POSITIVE_INFINITY,
  // A client that takes nothing is gone on this way too.
  totalMs: Number.POSITIVE_INFINITY,
};

/** The way a request takes to an upstream: the regular one, or the bypass without limiter and deadlines. */
export interface Way {
  readonly line: Line;
  readonly limiterStats: LimiterStats | null;
  readonly timeouts: TimeoutsConfig;
  /** null = answers pass as they come, and nothing else is done about them. */
  readonly stream: StreamConfig | null;
}

/** When a second attempt sets out beside a slow first one. */
export interface Hedging {
  readonly paths: PathPatterns;
  /** ms; Infinity = not known yet */
  delayMs(): number;
}

export class Upstream {
  readonly name: string;
  readonly config: UpstreamConfig;
  readonly stats = new UpstreamStats();
  /** Of all targets' pools together. */
  readonly poolStats = new PoolStats();
  /** null = a client that asks for one is refused. */
  readonly webSockets: WebSocketStats | null;
  readonly targets: UpstreamTargets;
  /** Exchanges that its connections may carry at once. */
  readonly slots: Slots;
  readonly regular: Way;
  readonly bypass: Way;
  /** For fetches that several requests share: each of these has its own total, and its own client to wait for. */
  readonly shared: Way;
  /** null = none of its answers are stored or shared. */
  readonly cache: AnswerCache | null;
  /** null = its requests wait for permit and slot only. */
  readonly metering: Metering | null;
  /** null = no retries by policy. */
  readonly retryBudget: RetryBudget | null;
  readonly hedging: Hedging | null;
  readonly bypassPaths: PathPatterns;
  readonly replayPaths: PathPatterns;
  /** Called after the state of a target's breaker changed. */
  onBreaker: ((upstream: Upstream, target: UpstreamTarget, state: BreakerState) => void) | null = null;

  /** Throws when TLS material of the config is not usable. */
  constructor(
    config: UpstreamConfig,
    limiter: Limiter,
    limiterStats: LimiterStats,
    cache: AnswerCache | null,
    makeShared: MakeSharedPace | null,
    wheel: TimerWheel,
    now: () => number,
  ) {
    this.name = config.name;
    this.config = config;
    this.webSockets = config.websocket ? new WebSocketStats() : null;
    const slots = new Slots(config.pool.connections, BYPASS_CONNECTIONS);
    this.slots = slots;
    const max = config.pool.connections + BYPASS_CONNECTIONS;
    const targets = config.targets.map(
      (target, i) => new UpstreamTarget(config, target, i, max, this.poolStats, wheel, now),
    );
    this.targets = new UpstreamTargets(targets);
    for (const target of targets) {
      if (target.breaker) target.breaker.onChange = (state) => this.#breakerChanged(target, state, now());
      target.pool.onLimit = () => this.#countSlots();
    }
    this.cache = cache;
    this.metering =
      config.rateLimits.length > 0 || config.feedback ? new Metering(config, makeShared, wheel, now) : null;
    const { retries, hedge } = config;
    this.retryBudget = retries
      ? new RetryBudget(retries.budgetRatio, retries.budgetMin, () => this.stats.sent, now())
      : null;
    this.hedging = hedge
      ? { paths: new PathPatterns(hedge.paths), delayMs: () => hedge.afterMs ?? this.stats.usualHeadMs }
      : null;
    this.regular = {
      line: new Line(limiter, slots.regular),
      limiterStats,
      timeouts: config.timeouts,
      stream: asksForAnything(config.stream) ? config.stream : null,
    };
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
      stream: null,
    };
    this.bypassPaths = new PathPatterns(config.bypass);
    this.replayPaths = new PathPatterns(config.replay);
  }

  /** By the server that carries most on a connection: where others carry less, requests wait for a stream there, in the pool. */
  #countSlots(): void {
    const most = Math.max(...this.targets.all.map(({ pool }) => pool.perConnection));
    this.slots.max = this.config.pool.connections * most;
  }

  #breakerChanged(target: UpstreamTarget, state: BreakerState, now: number): void {
    this.onBreaker?.(this, target, state);
    // Whoever waits would only be refused when his turn comes.
    if (state === 'open' && !this.targets.hasOpen(now)) this.regular.line.denyAll();
  }
}

function asksForAnything({ heartbeatMs, minRate, errorEvent }: StreamConfig): boolean {
  return heartbeatMs !== Number.POSITIVE_INFINITY || minRate > 0 || errorEvent;
}

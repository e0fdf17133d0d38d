// Reads what keeps an upstream's bad day away from the backend, and says what /stats and /metrics tell of it.

import type { Limiter } from '../flow/limiter.ts';
import type { Overload } from '../flow/overload.ts';
import type {
  FeedbackSnapshot,
  HubSnapshot,
  LimiterSnapshot,
  OverloadSnapshot,
  RateLimitSnapshot,
  TargetSnapshot,
  UpstreamSnapshot,
} from '../observe/snapshot.ts';
import type { FeedbackMeter, RateMeter } from '../upstream/metering.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { UpstreamTarget } from '../upstream/upstream-target.ts';

type UpstreamPart = Pick<
  UpstreamSnapshot,
  'maybe_billed_twice' | 'retry_budget' | 'hedges' | 'targets' | 'rate_limits' | 'feedback'
>;

export function resilienceSnapshot(upstream: Upstream, now: number): UpstreamPart {
  const { stats, retryBudget, hedging, metering, targets } = upstream;
  return {
    maybe_billed_twice: stats.maybeTwice,
    retry_budget: retryBudget
      ? {
          balance: Math.round(retryBudget.balance(now) * 10) / 10,
          spent: retryBudget.spent,
          exhausted: retryBudget.exhausted,
        }
      : null,
    hedges: hedging ? { sent: stats.hedges, won: stats.hedgesWon } : null,
    targets: targets.all.map((target) => targetSnapshot(target, now)),
    rate_limits: metering ? metering.limits.map(rateLimitSnapshot) : [],
    feedback: metering?.feedback ? feedbackSnapshot(metering.feedback) : null,
  };
}

function targetSnapshot(target: UpstreamTarget, now: number): TargetSnapshot {
  const { breaker } = target;
  return {
    url: target.url,
    priority: target.priority,
    weight: target.weight,
    in_flight: target.inFlight,
    attempts: target.attempts,
    failures: target.failures,
    successes: target.successes,
    breaker: breaker
      ? {
          state: breaker.stateAt(now),
          opened: breaker.opened,
          consecutive_failures: breaker.consecutiveFailures,
          retry_after_ms: Math.round(breaker.retryAfterMs(now)),
        }
      : null,
  };
}

function rateLimitSnapshot({ config, counts, keys, overflowed }: RateMeter): RateLimitSnapshot {
  return {
    requests: config.requests,
    per_ms: config.perMs,
    burst: config.burst,
    key: typeof config.key === 'string' ? config.key : `header:${config.key.header}`,
    on_limit: config.onLimit,
    shared: config.shared,
    keys,
    overflowed,
    held: counts.held,
    held_total: counts.heldEver,
    refused: counts.refused,
  };
}

function feedbackSnapshot({ counts, credentials, pauses, pausedForMs }: FeedbackMeter): FeedbackSnapshot {
  return {
    credentials,
    held: counts.held,
    held_total: counts.heldEver,
    pauses,
    paused_ms: Math.round(pausedForMs),
  };
}

/** The connection to Redis, as far as it is told of. */
interface Hub {
  readonly state: HubSnapshot['state'];
  readonly peers: number;
  readonly counters: { readonly asked: number; readonly errors: number; readonly timeouts: number };
}

/** @param rates null = no rate limit is shared */
export function hubSnapshot(hub: Hub, rates: { readonly taken: HubSnapshot['tokens'] } | null): HubSnapshot {
  const { asked, errors, timeouts } = hub.counters;
  return {
    state: hub.state,
    peers: hub.peers,
    asked,
    errors,
    timeouts,
    tokens: { redis: rates?.taken.redis ?? 0, local: rates?.taken.local ?? 0 },
  };
}

export function overloadSnapshot({ level, memoryShare, loopLagMs, entered }: Overload): OverloadSnapshot {
  return {
    level,
    memory_share: memoryShare === null ? null : Math.round(memoryShare * 1000) / 1000,
    loop_lag_ms: Math.round(loopLagMs),
    entered: { ...entered },
  };
}

type LimiterPart = Pick<LimiterSnapshot, 'lanes' | 'adaptive' | 'shared'>;

export function lanesSnapshot(limiter: Limiter): LimiterPart {
  const lanes = limiter.lanes.length > 1 ? limiter.lanes : [];
  return {
    lanes: Object.fromEntries(lanes.map(({ name, share, queued, granted }) => [name, { share, queued, granted }])),
    adaptive: limiter.adaptiveRules,
    shared: limiter.shared ? limiter.shared.snapshot : null,
  };
}

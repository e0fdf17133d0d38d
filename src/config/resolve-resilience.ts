// Ready numbers of how an upstream's failures and limits are dealt with.

import { parseBaseUrl } from './base-url.ts';
import type { Form } from './form.ts';
import { parseLimitKey, parseRate } from './rate.ts';
import { bytes, ms, number, ready } from './ready.ts';
import type {
  BreakerConfig,
  FeedbackConfig,
  HedgeConfig,
  RateLimitConfig,
  RetriesConfig,
  TargetConfig,
  UpstreamConfig,
} from './schema.ts';

type UpstreamForm = Form['upstreams'][string];
type Written<K extends keyof UpstreamForm> = NonNullable<UpstreamForm[K]>;
type Resilience = Pick<UpstreamConfig, 'breaker' | 'retries' | 'hedge' | 'rateLimits' | 'feedback' | 'lane'>;

/** The one `url` is a target like others. */
export function resolveTargets({ url = '', targets }: UpstreamForm): TargetConfig[] {
  const written = targets ?? [{ url, priority: 0, weight: 1, headers: {} }];
  return written.map((target) => ({
    ...ready(parseBaseUrl(target.url)),
    priority: target.priority,
    weight: target.weight,
    headers: Object.entries(target.headers).map(([name, value]) => [name.toLowerCase(), value] as const),
  }));
}

export function resolveResilience(upstream: UpstreamForm): Resilience {
  const { breaker, retries, hedge, feedback } = upstream;
  return {
    breaker: breaker ? resolveBreaker(breaker) : null,
    retries: retries ? resolveRetries(retries) : null,
    hedge: hedge ? resolveHedge(hedge) : null,
    rateLimits: upstream.rate_limits.map(resolveRateLimit),
    feedback: feedback ? resolveFeedback(feedback) : null,
    lane: upstream.lane ?? null,
  };
}

function resolveBreaker(breaker: Written<'breaker'>): BreakerConfig {
  return {
    consecutiveFailures: number(breaker.consecutive_failures),
    failureRatio: breaker.failure_ratio === 'none' ? Number.POSITIVE_INFINITY : breaker.failure_ratio,
    windowMs: ms(breaker.window),
    minRequests: breaker.min_requests,
    openMs: ms(breaker.open),
    maxOpenMs: ms(breaker.max_open),
  };
}

function resolveRetries(retries: Written<'retries'>): RetriesConfig {
  return {
    attempts: retries.attempts,
    statuses: retries.statuses,
    methods: retries.methods,
    replayLimitBytes: bytes(retries.replay_limit),
    backoffMs: ms(retries.backoff),
    maxBackoffMs: ms(retries.max_backoff),
    maxRetryAfterMs: ms(retries.max_retry_after),
    withinMs: ms(retries.within),
    budgetRatio: retries.budget_ratio,
    budgetMin: retries.budget_min,
  };
}

function resolveHedge({ paths, after }: Written<'hedge'>): HedgeConfig {
  return { paths, afterMs: after === 'p95' ? null : ms(after) };
}

function resolveRateLimit(limit: UpstreamForm['rate_limits'][number]): RateLimitConfig {
  return {
    ...ready(parseRate(limit.requests)),
    burst: limit.burst,
    ...ready(parseLimitKey(limit.key)),
    onLimit: limit.on_limit,
    shared: limit.shared !== undefined,
  };
}

function resolveFeedback(feedback: Written<'feedback'>): FeedbackConfig {
  return { maxPauseMs: ms(feedback.max_pause), pace: feedback.pace };
}

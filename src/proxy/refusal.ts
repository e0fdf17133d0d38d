// What our own refusals say of when to come again.

import type { FailureCode } from '../errors.ts';
import type { Turnstile } from '../flow/turnstile.ts';
import { rateLimitAnswerFields } from '../http/rate-fields.ts';
import type { Exchange } from './exchange.ts';

/** For Retry-After; 0 = waiting does not help. */
export function retryAfterS({ way, upstream, shared, refusedBy }: Exchange, code: FailureCode): number {
  switch (code) {
    case 'queue_full':
      return refusedBy ? seconds(refusedBy.waitMs) : way.line.limiter.retryAfterS();
    case 'queue_timeout':
    case 'body_memory_full':
      return way.line.limiter.retryAfterS();
    case 'rate_limited':
      return refusedBy ? seconds(refusedBy.waitMs) : 1;
    case 'breaker_open':
      return seconds(upstream.targets.retryAfterMs(shared.now()));
    default:
      return 0;
  }
}

/** The fields that tell who is refused of the limit. */
export function limitFields({ quota, waitMs }: Turnstile): string[] {
  return quota ? rateLimitAnswerFields(quota.requests, Math.ceil(quota.perMs / 1000), 0, seconds(waitMs), 0) : [];
}

/** Whole, for Retry-After, and never 0. */
export function seconds(ms: number): number {
  return Math.max(1, Math.ceil(ms / 1000));
}

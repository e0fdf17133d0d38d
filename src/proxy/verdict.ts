// What an attempt says about the server it went to: for its breaker, and for a limit that adapts.

import { FAILURES, type FailureCode } from '../errors.ts';
import type { Outcome } from '../flow/breaker.ts';

/**
 * Connect errors, resets, cut answers, deadlines and 5xx count against the server. What the client did, what aiproxy refused,
 * and 429 (it is well, and says so) do not.
 *
 * @param code null = the answer came to its end
 * @param status of the answer; 0 = none came
 */
export function outcomeOf(code: FailureCode | null, status: number): Outcome {
  if (code !== null) return FAILURES[code].side === 'upstream' ? 'failure' : 'neutral';
  if (status >= 500) return 'failure';
  return status === 429 || status === 0 ? 'neutral' : 'success';
}

/** It had too much to do (Netflix concurrency-limits: a drop), as far as one can tell from outside. */
export function isDrop(code: FailureCode | null, status: number): boolean {
  switch (code) {
    case null:
      return status === 429 || status === 503;
    case 'connect_timeout':
    case 'headers_timeout':
    case 'first_event_timeout':
    case 'idle_timeout':
    case 'stream_too_slow':
    case 'total_timeout':
      return true;
    default:
      return false;
  }
}

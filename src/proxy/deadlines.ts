// Which deadline of an exchange comes next, and which one has passed. Every one has its own failure code.

import type { FailureCode } from '../errors.ts';
import { RATE_WINDOW_MS } from './body.ts';
import type { Exchange } from './exchange.ts';
import { delayAfterFailure, isOfAttempt } from './retry.ts';

/** What an exchange is waiting for. The connect deadline is the dial's own (upstream/dial.ts). */
export const Phase = {
  /** the client's body, read ahead */
  Body: 0,
  /** permit and slot */
  Queue: 1,
  /** a connection */
  Connect: 2,
  /** a streamed body on its way to the upstream */
  Send: 3,
  /** the head of the answer; begins when the request is fully sent */
  Headers: 4,
  /** the body of the answer */
  Answer: 5,
  /** a fetch shared with others, whose deadlines are those of its own exchange; or a stored answer, sent in pieces */
  Flight: 6,
  /** the time of the next attempt */
  Backoff: 7,
} as const;
export type Phase = (typeof Phase)[keyof typeof Phase];

/** An answer that is not the client's is read to its end for the connection's sake, but not for longer. */
const DISCARD_MS = 1000;
const NEVER = Number.POSITIVE_INFINITY;

/** The time of the deadline that may pass first, ms; Infinity = none. */
export function nextDeadline(exchange: Exchange): number {
  let first = Math.min(exchange.endsAt, phaseDeadline(exchange), firstEventDeadline(exchange));
  if (exchange.stream) first = Math.min(first, exchange.stream.nextAt(exchange.upstreamPaused));
  return exchange.hedgeAt < 0 ? first : Math.min(first, exchange.hedgeAt);
}

/** The failure of a deadline that has passed by `now`, or null. */
export function dueFailure(exchange: Exchange, now: number): FailureCode | null {
  if (now >= exchange.endsAt) return now >= exchange.callerEndsAt ? 'deadline_exceeded' : 'total_timeout';
  if (now >= firstEventDeadline(exchange)) return 'first_event_timeout';
  if (exchange.stream?.isTooSlow(now, exchange.upstreamPaused)) return 'stream_too_slow';
  if (now < phaseDeadline(exchange)) return null;
  switch (exchange.phase) {
    case Phase.Body:
      return clientTooSlow(exchange, now);
    case Phase.Queue:
      return 'queue_timeout';
    case Phase.Send:
      return exchange.body?.wanted ? clientTooSlow(exchange, now) : 'idle_timeout';
    case Phase.Headers:
      return 'headers_timeout';
    case Phase.Answer:
      return exchange.upstreamPaused ? clientStalled(exchange, now) : 'idle_timeout';
    case Phase.Flight:
      return clientStalled(exchange, now);
    default:
      return null;
  }
}

/** A deadline has passed: another attempt follows, the one beside it goes on, or this is the end. */
export function overdue(exchange: Exchange, code: FailureCode): void {
  const { attempt } = exchange;
  if (attempt && !exchange.begun) {
    const spent = { startedAt: attempt.startedAt, written: true };
    const isDecided = exchange.retryDelayMs >= 0 && isOfAttempt(code);
    const delay = isDecided ? exchange.retryDelayMs : delayAfterFailure(exchange, spent, code);
    if (delay >= 0) {
      attempt.cancel(isDecided ? null : code);
      exchange.retryIn(delay);
      return;
    }
    if (exchange.hedge && isOfAttempt(code)) {
      attempt.cancel(code);
      exchange.attemptFailed(code, '');
      return;
    }
  }
  if (code === 'queue_timeout') exchange.way.line.limiter.refused++;
  exchange.fail(code, '');
}

function phaseDeadline(exchange: Exchange): number {
  const { timeouts, line } = exchange.way;
  switch (exchange.phase) {
    case Phase.Body:
      return rateDeadline(exchange);
    case Phase.Queue:
      return exchange.phaseAt + line.limiter.queueTimeoutMs;
    case Phase.Send:
      // Either the client owes us bytes, or the upstream does not take them.
      if (exchange.body?.wanted) return rateDeadline(exchange);
      // Nobody says when the client's turn comes again: looked at once a window, or without `idle` a client that stalls then would stay.
      return Math.min(exchange.lastByteAt + timeouts.idleMs, exchange.shared.now() + RATE_WINDOW_MS);
    case Phase.Headers:
      return exchange.sentAt + timeouts.headersMs;
    case Phase.Answer:
      // Nobody waits for the rest of an answer that a retry has made good for nothing.
      if (exchange.retryDelayMs >= 0)
        return Math.min(exchange.lastByteAt + timeouts.idleMs, exchange.headAt + DISCARD_MS);
      // While we pause the upstream its silence is ours, and the client's.
      return exchange.upstreamPaused ? stallDeadline(exchange) : exchange.lastByteAt + timeouts.idleMs;
    case Phase.Flight:
      if (exchange.upstreamPaused) return stallDeadline(exchange);
      return exchange.begun || exchange.waitsForOther ? NEVER : exchange.phaseAt + exchange.shared.flightWaitMs;
    case Phase.Backoff:
      return exchange.retryAt;
    default:
      return NEVER;
  }
}

function firstEventDeadline(exchange: Exchange): number {
  if (exchange.sentAt < 0 || exchange.sawEvent || exchange.phase === Phase.Flight) return NEVER;
  return exchange.sentAt + exchange.way.timeouts.firstEventMs;
}

function stallDeadline(exchange: Exchange): number {
  return exchange.pausedAt + exchange.way.timeouts.writeStallMs;
}

/** Not a byte taken since the last look: the client is gone for all we can tell. Else it gets the same time again. */
function clientStalled(exchange: Exchange, now: number): FailureCode | null {
  const { unsent } = exchange.client;
  if (unsent === exchange.unsentBefore) return 'client_stalled';
  exchange.unsentBefore = unsent;
  exchange.pausedAt = now;
  return null;
}

/** It follows a fetch whose head has not come in `flight_wait`. */
export function hasWaitedEnough(exchange: Exchange, now: number): boolean {
  if (exchange.phase !== Phase.Flight || exchange.begun || exchange.waitsForOther) return false;
  return now >= exchange.phaseAt + exchange.shared.flightWaitMs;
}

function rateDeadline(exchange: Exchange): number {
  return exchange.shared.bodyMinRate > 0 ? exchange.phaseAt + RATE_WINDOW_MS : NEVER;
}

/** Below the minimum rate: the client's fault. Else the next window begins. */
function clientTooSlow(exchange: Exchange, now: number): FailureCode | null {
  if (!exchange.body?.keptRate(exchange.shared.bodyMinRate)) return 'request_timeout';
  exchange.phaseAt = now;
  return null;
}

// Whether, and after how long, a failed attempt is followed by another. What was never written to the upstream is repeated once at
// once, whatever the policy: that is decided here too.

import type { RetriesConfig } from '../config/schema.ts';
import type { FailureCode } from '../errors.ts';
import { fullJitter } from '../flow/backoff.ts';
import { retryAfterMs } from '../http/rate-fields.ts';
import type { Exchange } from './exchange.ts';

/** What an attempt did before it failed. */
export interface Spent {
  readonly startedAt: number;
  /** The request, or some of it, was given to the socket. */
  readonly written: boolean;
}

/** This is what the client gets. */
export const NO_RETRY = -1;
/** A connection that dies after so long a pause had been given up by the server, which is well; keep-alive timeouts are longer, all of them. */
const PAUSE_MS = 1000;

/** The request can be sent again as it is, and may be, whatever became of the first. */
export function isReplayable(exchange: Exchange): boolean {
  const { upstream, client, target } = exchange;
  const { retries } = upstream.config;
  if (!hasBodyStill(exchange)) return false;
  const repeats = retries ? retries.methods.includes(client.method) : isIdempotent(client.method);
  return repeats || upstream.replayPaths.matches(target);
}

/** A request that was not looked at has not failed (RFC 9113 section 8.7): in a rolling restart several connections in a row may say goodbye. */
const MAX_UNSEEN = 3;

/** All of the body is in memory, and it is no longer than what may be sent again. */
export function hasBodyStill({ body, upstream }: Exchange): boolean {
  const { retries } = upstream.config;
  return !body || body.isReplayable(retries ? retries.replayLimitBytes : Number.POSITIVE_INFINITY);
}

/**
 * Another attempt at once, with the permit and the slot it has: nothing was written, or a connection that was open already died before
 * any byte of an answer (no proof that the upstream did nothing, hence only for what may be repeated).
 * @param idleMs how long the connection had been idle
 * @param unseen the upstream said that it never looked at it
 */
export function mayGoAgain(
  exchange: Exchange,
  written: boolean,
  idleMs: number,
  isProbe: boolean,
  unseen: boolean,
): boolean {
  const { upstream, target, client, tried } = exchange;
  if (exchange.begun || exchange.hedge || exchange.isHedge) return false;
  if (written && !(hasBodyStill(exchange) && (isIdempotent(client.method) || upstream.replayPaths.matches(target))))
    return false;
  const now = exchange.shared.now();
  // Each other server once, and the same one.
  const mayRepeat = exchange.repeats < (unseen ? MAX_UNSEEN : 1);
  const isOpen = upstream.targets.hasOpen(now, tried) || (mayRepeat && (isProbe || upstream.targets.hasOpen(now)));
  if (!isOpen) return false;
  // A server that resets what it has just used is having a bad day: two calls for each request would not help it.
  return !written || idleMs >= PAUSE_MS || upstream.retryBudget === null || upstream.retryBudget.trySpend(now);
}

/** @returns ms until the attempt that follows an answer of this status, or NO_RETRY: the client gets it */
export function delayAfterAnswer(exchange: Exchange, spent: Spent, status: number, headers: readonly string[]): number {
  const { retries } = exchange.upstream.config;
  if (!retries?.statuses.includes(status) || !isReplayable(exchange)) return NO_RETRY;
  const wished = retryAfterMs(headers, exchange.shared.wallClock());
  const delay = nextDelay(exchange, retries, spent, wished);
  // What was refused was not done. Of any other error one cannot know.
  if (delay !== NO_RETRY && status !== 429 && status !== 503) exchange.sentTwice();
  return delay;
}

/** @returns ms until the attempt that follows this failure, or NO_RETRY */
export function delayAfterFailure(exchange: Exchange, spent: Spent, code: FailureCode): number {
  const { retries } = exchange.upstream.config;
  if (!retries || !isOfAttempt(code)) return NO_RETRY;
  if (spent.written ? !isReplayable(exchange) : exchange.streamsBody) return NO_RETRY;
  const delay = nextDelay(exchange, retries, spent, NO_RETRY);
  if (delay !== NO_RETRY && spent.written) exchange.sentTwice();
  return delay;
}

/** @param wished what the upstream asks for, ms; < 0 = nothing */
function nextDelay(exchange: Exchange, retries: RetriesConfig, { startedAt }: Spent, wished: number): number {
  const { upstream, shared, tried } = exchange;
  const now = shared.now();
  if (exchange.begun || exchange.hedge || exchange.isHedge || exchange.attempts >= retries.attempts) return NO_RETRY;
  if (now - startedAt > retries.withinMs) return NO_RETRY;
  // Another server need not be waited for.
  const fails = upstream.targets.all.length > 1 && upstream.targets.hasOpen(now, tried);
  if (!fails && wished > retries.maxRetryAfterMs) return NO_RETRY;
  const delay = fails ? 0 : Math.max(wished, fullJitter(exchange.attempts, retries.backoffMs, retries.maxBackoffMs));
  if (now + delay >= lastEnd(exchange)) return NO_RETRY;
  // It would be refused: what the upstream said is the better answer.
  if (!upstream.targets.hasOpen(now + delay)) return NO_RETRY;
  if (exchange.turnstiles.some(({ rejects, waitMs }) => rejects && waitMs > delay)) return NO_RETRY;
  return upstream.retryBudget!.trySpend(now) ? delay : NO_RETRY;
}

/** When nobody waits for the answer any more. */
function lastEnd({ client, endsAt }: Exchange): number {
  return client.waitedForUntil ?? endsAt;
}

/** A failure that another attempt may not have. A bad certificate is as bad a moment later, and a deadline of the whole is past. */
export function isOfAttempt(code: FailureCode): boolean {
  switch (code) {
    case 'connect_failed':
    case 'connect_timeout':
    case 'dns_failed':
    case 'upstream_reset':
    case 'upstream_cut':
    case 'upstream_protocol_error':
    case 'headers_timeout':
    case 'first_event_timeout':
    case 'idle_timeout':
      return true;
    default:
      return false;
  }
}

/** RFC 9110 section 9.2.2 */
function isIdempotent(method: string): boolean {
  switch (method) {
    case 'GET':
    case 'HEAD':
    case 'PUT':
    case 'DELETE':
    case 'OPTIONS':
    case 'TRACE':
      return true;
    default:
      return false;
  }
}

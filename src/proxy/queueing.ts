// How an exchange comes by permit, slot and tokens, and gives them back.

import { Waiter } from '../flow/waiters.ts';
import { Phase } from './deadlines.ts';
import type { Exchange } from './exchange.ts';

/** One key of a rate limit, or one credential that is paused, holds at most this part of the queue. */
const PART_OF_QUEUE = 4;

/** The caller waits no longer: he is told so, before anything is spent on him. */
export function isTooLate(exchange: Exchange): boolean {
  if (exchange.callerEndsAt === Number.POSITIVE_INFINITY) return false;
  const now = exchange.shared.now();
  if (now < exchange.callerEndsAt) return false;
  exchange.expired(now);
  return true;
}

/**
 * Joins the line: at its end, or before all others when it comes for a further attempt. May have run, or failed, when this returns.
 * @returns false when the queue is full
 */
export function joinQueue(exchange: Exchange): boolean {
  const { way, shared, operation } = exchange;
  const { line } = way;
  const now = shared.now();
  const isFirst = exchange.attempts === 0;
  if (isFirst) exchange.queuedAt = now;
  exchange.enter(Phase.Queue, now);
  exchange.rearm();
  if (comesTooLate(exchange)) {
    exchange.fail('deadline_exceeded', 'no token would come before it');
    return true;
  }
  if (isFirst && fillsItsPart(exchange)) return false;
  const waiter = new Waiter(
    exchange,
    line.limiter.laneOf(exchange.head.priority, exchange.upstream.config.lane),
    exchange.turnstiles,
  );
  exchange.waiter = waiter;
  exchange.lane = line.limiter.lanes[waiter.lane]!.name;
  if (operation) operation.queued++;
  if (!isFirst) line.rejoin(waiter);
  else if (!line.enqueue(waiter)) {
    exchange.waiter = null;
    if (operation) operation.queued--;
    return false;
  }
  return true;
}

/** Even the next token would come after the caller's deadline. */
function comesTooLate({ turnstiles, callerEndsAt }: Exchange): boolean {
  if (callerEndsAt === Number.POSITIVE_INFINITY) return false;
  for (let i = 0; i < turnstiles.length; i++) {
    const { opensAt } = turnstiles[i]!;
    if (opensAt >= callerEndsAt && opensAt !== Number.POSITIVE_INFINITY) return true;
  }
  return false;
}

/** Those who wait for the token of one user, or of one credential, may not take the places of all others. */
function fillsItsPart(exchange: Exchange): boolean {
  const { maxQueue } = exchange.way.line.limiter;
  for (const turnstile of exchange.turnstiles) {
    if (!turnstile.isOneOfMany || turnstile.held < Math.max(1, maxQueue / PART_OF_QUEUE)) continue;
    exchange.refusedBy = turnstile;
    return true;
  }
  return false;
}

/** Gives the place in the line up. */
export function leaveQueue(exchange: Exchange): void {
  const { waiter } = exchange;
  if (!waiter) return;
  exchange.waiter = null;
  if (exchange.operation) exchange.operation.queued--;
  exchange.way.line.leave(waiter);
}

/** Permit and slot are its own; they are given back at once where the caller's deadline has passed and its timer is late. */
export function tookPermit(exchange: Exchange, waited: boolean): void {
  const { way, operation, shared, turnstiles } = exchange;
  const now = shared.now();
  exchange.holdsPermit = true;
  exchange.slot = way.line.slots;
  if (turnstiles.length > 0) exchange.takenBefore = exchange.upstream.metering!.takenBy(turnstiles);
  if (operation) {
    operation.granted++;
    operation.inFlight++;
    if (waited) operation.waited++;
  }
  const waitMs = waited ? now - exchange.phaseAt : 0;
  way.limiterStats?.wait.record(waitMs);
  operation?.wait.record(waitMs);
  if (exchange.attempts === 0) exchange.grantedAt = now;
  if (waited) isTooLate(exchange);
}

/** Slot, then permit: whoever waited for either may run before this returns. */
export function giveBack(exchange: Exchange): void {
  const { slot } = exchange;
  exchange.slot = null;
  slot?.give();
  if (!exchange.holdsPermit) return;
  exchange.holdsPermit = false;
  if (exchange.operation) exchange.operation.inFlight--;
  exchange.way.line.limiter.release();
}

// What an exchange does whose answer comes from a fetch it shares with others, or from a store.

import { Phase } from './deadlines.ts';
import type { Exchange, RunningAttempt } from './exchange.ts';

/** From now on the answer comes from there. */
export function follow(exchange: Exchange, seat: RunningAttempt): void {
  exchange.attempt = seat;
  exchange.enter(Phase.Flight, exchange.shared.now());
  exchange.rearm();
}

/** Leaves the shared fetch, and asks the upstream on its own. @param why a word for Cache-Status */
export function goAlone(exchange: Exchange, why: string): void {
  const use = exchange.cacheUse!;
  const { counters } = exchange.upstream.cache!;
  exchange.attempt?.cancel(null);
  exchange.attempt = null;
  use.alone = true;
  use.outcome = 'miss';
  use.collapsed = false;
  use.wasForwarded = true;
  use.forwardStatus = 0;
  use.detail = why;
  counters.unshared++;
  counters.misses++;
  exchange.advance();
}

/** What the fetch spent so far counts as the exchange's own, as far as it was there to wait for it. */
export function takeTimes(exchange: Exchange, flight: Exchange, isLeader: boolean): void {
  const since = (at: number) => (at < 0 ? -1 : Math.max(at, exchange.acceptedAt));
  exchange.queuedAt = since(flight.queuedAt);
  exchange.grantedAt = since(flight.grantedAt);
  exchange.dispatchedAt = since(flight.dispatchedAt);
  exchange.sentAt = since(flight.sentAt);
  exchange.headAt = since(flight.headAt);
  exchange.mayHaveRun = flight.mayHaveRun;
  if (!isLeader) return;
  exchange.via = flight.via;
  exchange.lane = flight.lane;
  exchange.isHedged = flight.isHedged;
  exchange.retryMs = flight.retryMs;
  exchange.connectMs = flight.connectMs;
  exchange.attempts = flight.attempts;
  exchange.reused = flight.reused;
}

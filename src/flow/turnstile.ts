// Where requests wait for the same token (a rate limit, the end of a pause): of each lane one at a time goes on to the line.
// So a caller without tokens of his own holds up nobody else, and a token is taken only by who has permit and slot as well.

import { type Expiring, Timer, type TimerWheel } from './timer-wheel.ts';
import { type Waiter, WaiterHeap } from './waiters.ts';

/** When one may pass. */
export interface Pace {
  /**
   * The earliest time at which one more may pass if `ahead` others pass before, ms; at or before `now`: at once.
   * Infinity = not known yet; the turnstile's `wake` is called when it is.
   */
  readyAt(now: number, ahead?: number): number;
  /** One passes. Only when ready. */
  take(now: number): void;
  /** So many wait: what must be asked for may be asked for now. */
  want?(waiting: number): void;
}

/** What is counted over all turnstiles of one kind. */
export interface TurnstileCounts {
  /** Held up now, for want of a token. */
  held: number;
  /** Came when there was no token. */
  heldEver: number;
  refused: number;
}

/** What a rate limit grants; for the answer to who is refused. */
export interface Quota {
  readonly requests: number;
  readonly perMs: number;
}

/** A timer fires this late at most when all is well; so much of the delay is not lost for the rate. */
const LATENESS_MS = 30;
/** Those who go on when it opens do so within this time; who takes a token later did not wait for that. */
const TURN_MS = 5;

/**
 *   lane 0   held, by sequence  ─► claimant: waits in the line for permit and slot     the token is there; who is granted first takes
 *   lane 1   held, by sequence  ─► claimant                                            it, the others come back to their places
 *
 * All who wait here wait in the same line.
 */
export class Turnstile implements Expiring {
  readonly pace: Pace;
  /** Refuses where it would have to hold up. */
  readonly rejects: boolean;
  readonly #wheel: TimerWheel;
  readonly now: () => number;
  readonly #timer = new Timer(this);
  /** By lane. */
  readonly #held: WaiterHeap[] = [];
  /** By lane: the one who waits in the line and goes before all who are held here. */
  readonly #claimants: (Waiter | null)[] = [];
  #claims = 0;
  #advancing = false;
  /** There was no token when it was looked for last, for those held here. */
  #isClosed = false;
  /** There should have been one from then on, and was found at #openedAt. */
  #dueAt = Number.POSITIVE_INFINITY;
  #openedAt = Number.NEGATIVE_INFINITY;
  readonly #counts: TurnstileCounts;
  /** null = it is no rate limit. */
  readonly quota: Quota | null;
  /** There are others like it beside it, each for some of the requests. */
  isOneOfMany = false;
  /** Those of the lanes who are in the line not counted. */
  held = 0;

  constructor(
    pace: Pace,
    rejects: boolean,
    wheel: TimerWheel,
    now: () => number,
    counts: TurnstileCounts,
    quota: Quota | null,
  ) {
    this.pace = pace;
    this.#counts = counts;
    this.quota = quota;
    this.rejects = rejects;
    this.#wheel = wheel;
    this.now = now;
  }

  /** All who wait for this token. */
  get waiting(): number {
    return this.held + this.#claims;
  }

  /** A token is there. */
  get isOpen(): boolean {
    const now = this.now();
    return this.pace.readyAt(now) <= now;
  }

  /** The earliest time at which anybody may pass, ms; Infinity = not known. */
  get opensAt(): number {
    return this.pace.readyAt(this.now());
  }

  /** A token is there, and nobody waits for it. */
  get isFree(): boolean {
    return this.waiting === 0 && this.isOpen;
  }

  /** ms until one who comes now would pass, if known; 0 = at once or not known. */
  get waitMs(): number {
    const now = this.now();
    const at = this.pace.readyAt(now, this.waiting);
    return Number.isFinite(at) ? Math.max(0, at - now) : 0;
  }

  /** One takes a token. @param at see takeTokens; not given = now */
  pass(at = this.now()): void {
    this.pace.take(at);
  }

  /** The waiter may go on to the line: a token is there and nobody of its lane goes before it. */
  claim(waiter: Waiter): boolean {
    const { lane, sequence } = waiter;
    const claimant = this.#claimants[lane];
    if (claimant === waiter) return true;
    // One that comes back for another attempt goes before a claimant too, who stays in the line behind it.
    if (claimant && claimant.sequence < sequence) return false;
    const first = this.#held[lane]?.first;
    if ((first && first.sequence < sequence) || !this.isOpen) return false;
    if (!claimant) this.#claims++;
    this.#claimants[lane] = waiter;
    return true;
  }

  /** It is in the line no more, or held elsewhere: the next goes on. */
  unclaim(waiter: Waiter): void {
    if (this.release(waiter)) this.#advance();
  }

  /** The same, but nobody goes on before `wake` or `hold` is called. @returns false when it had no claim */
  release(waiter: Waiter): boolean {
    if (this.#claimants[waiter.lane] !== waiter) return false;
    this.#claimants[waiter.lane] = null;
    this.#claims--;
    return true;
  }

  /** Called by the line. @param isNew it did not come back from there */
  hold(waiter: Waiter, isNew: boolean): void {
    this.#lane(waiter.lane).insert(waiter);
    this.held++;
    if (this.#isClosed) this.#counts.held++;
    this.#advance();
    if (isNew && this.#isClosed && waiter.heldBy === this) this.#counts.heldEver++;
  }

  #lane(lane: number): WaiterHeap {
    while (this.#held.length <= lane) this.#held.push(new WaiterHeap());
    return this.#held[lane]!;
  }

  /** It left from here. */
  forget(waiter: Waiter): void {
    if (waiter.place < 0) return;
    this.#held[waiter.lane]!.remove(waiter);
    this.held--;
    if (this.#isClosed) this.#counts.held--;
    if (this.held === 0) this.#wheel.cancel(this.#timer);
  }

  /** The pace may have changed. */
  wake(): void {
    this.#advance();
  }

  expired(): void {
    this.#advance();
  }

  /** Lets those go on who can. */
  #advance(): void {
    // One who goes on may be held elsewhere, or run and be over, before this is done: that is another round here, not a deeper stack.
    if (this.#advancing || this.held === 0) return;
    const { limiter } = this.#next()!.line!;
    // The limiter chooses when all of them are there.
    const pumps = limiter.stopGrants();
    this.#advancing = true;
    try {
      for (let next = this.#next(false); next && this.#goOn(next); next = this.#next(false));
    } finally {
      this.#advancing = false;
      if (pumps) limiter.resumeGrants();
    }
  }

  /** The first of a lane. @param any also of one that has somebody in the line who goes before */
  #next(any = true): Waiter | null {
    for (let lane = 0; lane < this.#held.length; lane++) {
      const { first } = this.#held[lane]!;
      if (!first) continue;
      const claimant = this.#claimants[lane];
      if (any || !claimant || first.sequence < claimant.sequence) return first;
    }
    return null;
  }

  /** If a token is there it goes on; else, unless it is refused, there will be another look. @returns false when nothing was done */
  #goOn(waiter: Waiter): boolean {
    if (this.#look()) {
      this.forget(waiter);
      waiter.line!.unheld(waiter);
      return true;
    }
    if (this.rejects && Number.isFinite(this.#dueAt)) {
      this.#refuse(waiter);
      return true;
    }
    this.#wheel.arm(this.#timer, this.#dueAt);
    return false;
  }

  /** Is there a token? */
  #look(): boolean {
    const now = this.now();
    let at = this.pace.readyAt(now);
    if (at > now && this.pace.want) {
      this.pace.want(this.waiting);
      at = this.pace.readyAt(now);
    }
    const isClosed = at > now;
    if (isClosed) this.#dueAt = at;
    if (isClosed === this.#isClosed) return !isClosed;
    this.#isClosed = isClosed;
    this.#counts.held += isClosed ? this.held : -this.held;
    if (!isClosed) this.#openedAt = now;
    return !isClosed;
  }

  /** When the token should have been there for one who goes on now because it came; Infinity = nobody was held up for it. */
  dueAt(now: number): number {
    return now - this.#openedAt <= TURN_MS ? this.#dueAt : Number.POSITIVE_INFINITY;
  }

  /** One who has not joined a queue finds that he would have to wait here. */
  countRefusal(): void {
    this.#counts.refused++;
  }

  #refuse(waiter: Waiter): void {
    this.countRefusal();
    waiter.line!.leave(waiter);
    waiter.grantee.denied(this);
  }
}

/**
 * Who waited for tokens takes them as of when all were due, or each wait would cost the rate what the timer was late.
 * Nobody goes on at the turnstiles before their `wake` is called.
 */
export function takeTokens(waiter: Waiter): void {
  const { turnstiles } = waiter;
  if (turnstiles.length === 0) return;
  const now = turnstiles[0]!.now();
  let at = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < turnstiles.length; i++) {
    const due = turnstiles[i]!.dueAt(now);
    if (due > at && due < now) at = due;
  }
  at = at > Number.NEGATIVE_INFINITY ? Math.max(at, now - LATENESS_MS) : now;
  if (at < now) {
    for (let i = 0; i < turnstiles.length; i++) at = Math.min(now, Math.max(at, turnstiles[i]!.pace.readyAt(at)));
  }
  for (let i = 0; i < turnstiles.length; i++) {
    turnstiles[i]!.pass(at);
    turnstiles[i]!.release(waiter);
  }
}

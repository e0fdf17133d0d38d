// A rate limit kept by all sidecars together: tokens are booked a little ahead where all of them ask, or come from the local share while that is away.

import { Gcra } from './gcra.ts';
import type { Pace } from './turnstile.ts';

/** Booked ahead: one, and what the rate grants within so long, which covers a round trip. */
const AHEAD_MS = 20;
/** Booked tokens that nobody took can be used for so long, or two intervals: what is longer. It bounds how many can come bunched. */
const KEEP_MS = 1000;
/** However late an answer was, its tokens are good for so long. */
const LEAST_KEEP_MS = 100;
/** After an answer that was an error nobody is asked for so long. */
const REST_MS = 1000;

export type RateMode = 'wait' | 'reject';

export interface Booking {
  /** ms from now until each of the tokens may be used, ascending. */
  readonly waitsMs: readonly number[];
  /** When there are fewer than asked for: ms until there will be one more. */
  readonly retryMs: number;
}

/** Where all sidecars ask; src/redis/rate.ts is one. */
export interface RateSource {
  /** May be asked. */
  readonly up: boolean;
  /** Sidecars alive, as last known; at least 1. */
  readonly peers: number;
  /** Those who want to be called, once, when it is up again. */
  readonly whenUp: Set<() => void>;
  /** Tokens taken, over all rates: booked ones, and those of the local share. */
  readonly taken: { redis: number; local: number };
  /** Books so many tokens: each for the next free time (`wait`), or those only that may be used now (`reject`). */
  book(key: string, intervalMs: number, burst: number, count: number, mode: RateMode): Promise<Booking>;
}

interface Token {
  readonly at: number;
  readonly until: number;
}

/**
 *   want ─► book ─► booked tokens ─► take        one question at a time
 *             └─ fails, or nobody to ask ─► local share, until a booking succeeds again
 */
export class SharedRate implements Pace {
  /** readyAt may have changed. Never called from within a call here. */
  onChange: (() => void) | null = null;
  readonly #source: RateSource;
  readonly #key: string;
  readonly #intervalMs: number;
  readonly #burst: number;
  readonly #mode: RateMode;
  readonly #now: () => number;
  readonly #booked: Token[] = [];
  #asking = false;
  /** Serves while nobody can be asked, and until the first answer after that. */
  #local: Gcra | null = null;
  #restUntil = 0;
  /** In `reject` mode: there is no token before. */
  #refusedUntil = 0;
  #lastTakenAt = Number.NEGATIVE_INFINITY;
  readonly #upAgain = () => this.onChange?.();

  /**
   * @param key safe to show; limits that differ in anything have different keys
   * @param now the clock of readyAt and take
   */
  constructor(source: RateSource, key: string, intervalMs: number, burst: number, mode: RateMode, now: () => number) {
    this.#source = source;
    this.#key = key;
    this.#intervalMs = intervalMs;
    this.#burst = burst;
    this.#mode = mode;
    this.#now = now;
  }

  get source(): 'redis' | 'local' {
    return this.#local ? 'local' : 'redis';
  }

  /** Infinity = not known; after want() onChange is called when it is. For those behind others it is an estimate: more sidecars may book. */
  readyAt(now: number, ahead = 0): number {
    this.#dropExpired(now);
    const booked = this.#booked;
    if (ahead < booked.length) return booked[ahead]!.at;
    const more = ahead - booked.length;
    if (this.#refusedUntil > now) return this.#refusedUntil + more * this.#intervalMs;
    if (this.#local && this.#isLocalAt(now)) return this.#local.readyAt(now, more);
    if (booked.length > 0) return Math.max(now, booked[booked.length - 1]!.at) + (more + 1) * this.#intervalMs;
    return Number.POSITIVE_INFINITY;
  }

  take(now: number): void {
    this.#dropExpired(now);
    this.#lastTakenAt = now;
    if (this.#booked.length > 0) {
      this.#booked.shift();
      this.#source.taken.redis++;
    } else {
      this.#local?.take(now);
      this.#source.taken.local++;
    }
  }

  /** So many wait: what they need next is asked for, a small batch at most. To be called whenever the first of them is not ready. */
  want(waiting: number): void {
    const now = this.#now();
    if (!this.#source.up) {
      this.#goLocal();
      return;
    }
    if (this.#asking || now < this.#restUntil || now < this.#refusedUntil) return;
    this.#dropExpired(now);
    const batch = 1 + Math.ceil(AHEAD_MS / this.#intervalMs);
    const count = Math.min(waiting, batch) - this.#booked.length;
    if (count > 0) this.#ask(count, now);
  }

  /** A new one would do as well. Only asked of one that nobody waits for. */
  isIdle(now: number): boolean {
    this.#dropExpired(now);
    const fullAt = this.#lastTakenAt + this.#burst * this.#intervalMs * this.#source.peers;
    if (this.#asking || this.#booked.length > 0 || now < this.#refusedUntil || now < fullAt) return false;
    this.#source.whenUp.delete(this.#upAgain);
    return true;
  }

  #isLocalAt(now: number): boolean {
    // The answer is awaited before somebody is refused, but nobody who would wait anyhow waits for it.
    return !this.#source.up || now < this.#restUntil || (this.#asking && this.#mode === 'wait');
  }

  #ask(count: number, askedAt: number): void {
    this.#asking = true;
    this.#source.book(this.#key, this.#intervalMs, this.#burst, count, this.#mode).then(
      (booking) => this.#answered(booking, count, askedAt),
      () => this.#failed(),
    );
  }

  #answered({ waitsMs, retryMs }: Booking, count: number, askedAt: number): void {
    this.#asking = false;
    this.#local = null;
    const now = this.#now();
    const keepMs = Math.max(KEEP_MS, 2 * this.#intervalMs);
    for (const waitMs of waitsMs) {
      const last = this.#booked.at(-1);
      // The wait counts from somewhere between question and answer: the token is used as if from the end, and given up as if from the beginning.
      const at = Math.max(now + waitMs, last?.at ?? 0);
      this.#booked.push({ at, until: Math.max(askedAt + waitMs + keepMs, at + LEAST_KEEP_MS) });
    }
    if (waitsMs.length < count) this.#refusedUntil = now + retryMs;
    this.onChange?.();
  }

  #failed(): void {
    this.#asking = false;
    if (this.#source.up) this.#restUntil = this.#now() + REST_MS;
    this.#goLocal();
    this.onChange?.();
  }

  #goLocal(): void {
    const { peers, whenUp, up } = this.#source;
    if (!up) whenUp.add(this.#upAgain);
    const intervalMs = this.#intervalMs * peers;
    if (this.#local?.intervalMs === intervalMs) return;
    const local = new Gcra(intervalMs, Math.max(1, Math.floor(this.#burst / peers)));
    // As of the last one that passed its burst is used up, or all sidecars would begin with one.
    for (let i = 0; i < local.burst && Number.isFinite(this.#lastTakenAt); i++) local.take(this.#lastTakenAt);
    this.#local = local;
  }

  #dropExpired(now: number): void {
    while (this.#booked.length > 0 && this.#booked[0]!.until < now) this.#booked.shift();
  }
}

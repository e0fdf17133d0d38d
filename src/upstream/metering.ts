// What a request to one upstream must wait for besides permit and slot: its rate limits, and what the upstream's answers said.

import { createHash } from 'node:crypto';
import type { FeedbackConfig, RateLimitConfig, UpstreamConfig } from '../config/schema.ts';
import { valuesOf } from '../fields.ts';
import { Gcra } from '../flow/gcra.ts';
import { KeyedTable } from '../flow/keyed-table.ts';
import { Pacer } from '../flow/pacer.ts';
import type { TimerWheel } from '../flow/timer-wheel.ts';
import { type Pace, Turnstile } from '../flow/turnstile.ts';
import { credentialOf } from '../http/credential.ts';
import { readRateFields, retryAfterMs } from '../http/rate-fields.ts';

/** Keys of one limit that are told apart; callers choose them. */
const MAX_KEYS = 10_000;
/** A longer key is kept as its hash. */
const MAX_KEY_LENGTH = 64;

/** A pace that all sidecars keep together. */
export interface SharedPace extends Pace {
  onChange: (() => void) | null;
  isIdle(now: number): boolean;
}

/** @param key of the limit and of whom it is for; safe to show */
export type MakeSharedPace = (key: string, limit: RateLimitConfig) => SharedPace;

/** One of the limits, or what one credential's answers said. */
interface Meter {
  of(pairs: readonly string[], now: number): Turnstile;
}

export class Metering {
  readonly #meters: readonly RateMeter[];
  readonly #feedback: FeedbackMeter | null;
  readonly #now: () => number;

  /** @param makeShared null = no limit of the config is shared */
  constructor(config: UpstreamConfig, makeShared: MakeSharedPace | null, wheel: TimerWheel, now: () => number) {
    this.#meters = config.rateLimits.map((limit, index) => {
      return new RateMeter(limit, `${config.name}:${index}`, makeShared, wheel, now);
    });
    this.#feedback = config.feedback ? new FeedbackMeter(config.feedback, wheel, now) : null;
    this.#now = now;
  }

  /** What a request must pass. @param pairs its fields, flat */
  turnstilesOf(pairs: readonly string[]): Turnstile[] {
    const now = this.#now();
    const turnstiles = this.#meters.map((meter) => meter.of(pairs, now));
    if (this.#feedback) turnstiles.push(this.#feedback.of(pairs, now));
    return turnstiles;
  }

  /** A request with these fields passes the same turnstiles. */
  isSame(turnstiles: readonly Turnstile[], pairs: readonly string[]): boolean {
    return this.turnstilesOf(pairs).every((turnstile, i) => turnstile === turnstiles[i]);
  }

  /** How many its upstream's answers had let through when this one went; to be given to `heard`. */
  takenBy(turnstiles: readonly Turnstile[]): number {
    return this.#feedback ? pacerOf(turnstiles).taken : 0;
  }

  /**
   * An answer has come.
   * @param turnstiles those its request passed
   * @param takenBefore see takenBy
   * @param isLast false = others of the upstream's servers can be asked meanwhile: nobody is held up
   * @returns ms for which the server wants to be left alone, 0 = it does not
   */
  heard(
    turnstiles: readonly Turnstile[],
    takenBefore: number,
    status: number,
    headers: readonly string[],
    isLast: boolean,
    wallNow: number,
  ): number {
    return this.#feedback?.heard(turnstiles.at(-1)!, takenBefore, status, headers, isLast, wallNow) ?? 0;
  }

  get limits(): readonly RateMeter[] {
    return this.#meters;
  }

  get feedback(): FeedbackMeter | null {
    return this.#feedback;
  }
}

function pacerOf(turnstiles: readonly Turnstile[]): Pacer {
  return turnstiles.at(-1)!.pace as Pacer;
}

/** Counts over all turnstiles of one meter: those of keys no longer kept are not lost. */
export class MeterCounts {
  held = 0;
  heldEver = 0;
  refused = 0;
}

/** One entry of rate_limits. */
export class RateMeter implements Meter {
  readonly config: RateLimitConfig;
  readonly counts = new MeterCounts();
  readonly #table: KeyedTable<Turnstile>;
  readonly #keyOf: (pairs: readonly string[]) => string;

  constructor(
    config: RateLimitConfig,
    name: string,
    makeShared: MakeSharedPace | null,
    wheel: TimerWheel,
    now: () => number,
  ) {
    this.config = config;
    this.#keyOf = keyReader(config.key);
    const { requests, perMs, burst } = config;
    const turnstile = (pace: Pace) => {
      const made = new Turnstile(pace, config.onLimit === 'reject', wheel, now, this.counts, { requests, perMs });
      made.isOneOfMany = config.key !== 'global';
      return made;
    };
    const local = () => turnstile(new Gcra(perMs / requests, burst));
    const shared = (key: string) => {
      // A limit that is changed begins anew.
      const pace = makeShared!(`${name}:${requests}:${perMs}:${burst}:${hashOf(key)}`, config);
      const made = turnstile(pace);
      pace.onChange = () => made.wake();
      return made;
    };
    const isIdle = config.shared
      ? ({ pace }: Turnstile, at: number) => (pace as SharedPace).isIdle(at)
      : ({ pace }: Turnstile, at: number) => (pace as Gcra).isFull(at);
    this.#table = new KeyedTable(
      MAX_KEYS,
      config.shared ? shared : local,
      (one, at) => one.waiting === 0 && isIdle(one, at),
    );
  }

  get keys(): number {
    return this.#table.size;
  }

  /** Requests whose key found no place in the table: they share one. */
  get overflowed(): number {
    return this.#table.overflowed;
  }

  of(pairs: readonly string[], now: number): Turnstile {
    return this.#table.get(this.#keyOf(pairs), now);
  }
}

/** `feedback`: one pacer for each credential. */
export class FeedbackMeter implements Meter {
  readonly counts = new MeterCounts();
  /** Pauses begun. */
  pauses = 0;
  readonly #config: FeedbackConfig;
  readonly #table: KeyedTable<Turnstile>;
  readonly #now: () => number;
  #pausedUntil = 0;

  constructor(config: FeedbackConfig, wheel: TimerWheel, now: () => number) {
    this.#config = config;
    this.#now = now;
    this.#table = new KeyedTable<Turnstile>(
      MAX_KEYS,
      () => {
        const made = new Turnstile(new Pacer(), false, wheel, now, this.counts, null);
        made.isOneOfMany = true;
        return made;
      },
      (one, at) => one.waiting === 0 && (one.pace as Pacer).isIdle(at),
    );
  }

  get credentials(): number {
    return this.#table.size;
  }

  /** The end of the longest pause under way, ms from now; 0 = none. */
  get pausedForMs(): number {
    return Math.max(0, this.#pausedUntil - this.#now());
  }

  of(pairs: readonly string[], now: number): Turnstile {
    return this.#table.get(short(credentialOf(pairs)), now);
  }

  heard(
    turnstile: Turnstile,
    takenBefore: number,
    status: number,
    headers: readonly string[],
    isLast: boolean,
    wallNow: number,
  ): number {
    const pacer = turnstile.pace as Pacer;
    const now = this.#now();
    const { maxPauseMs, pace } = this.#config;
    const isAsked = status === 429 || status === 503;
    const pauseMs = isAsked ? Math.max(0, Math.min(retryAfterMs(headers, wallNow), maxPauseMs)) : 0;
    if (!isLast) {
      if (pauseMs > 0) this.pauses++;
      return pauseMs;
    }
    if (pauseMs > 0) {
      if (pacer.pausedUntil <= now) this.pauses++;
      pacer.pauseUntil(now + pauseMs);
      this.#pausedUntil = Math.max(this.#pausedUntil, now + pauseMs);
    }
    if (!pace) return pauseMs;
    const reports = readRateFields(headers, wallNow);
    for (let i = 0; i < reports.length; i++) pacer.observe(reports[i]!, takenBefore, now, status === 429);
    if (reports.length > 0) turnstile.wake();
    return pauseMs;
  }
}

function keyReader(key: RateLimitConfig['key']): (pairs: readonly string[]) => string {
  if (key === 'global') return () => '';
  if (key === 'credential') return (pairs) => short(credentialOf(pairs));
  return (pairs) => short(valuesOf(pairs, key.header).join(','));
}

function short(key: string): string {
  return key.length > MAX_KEY_LENGTH ? hashOf(key) : key;
}

function hashOf(key: string): string {
  return createHash('sha256').update(key, 'latin1').digest('base64url');
}

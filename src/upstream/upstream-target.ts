// One of the servers behind an upstream: its pool, its breaker, and what is put on every request to it.

import { shownUrl } from '../config/base-url.ts';
import type { TargetConfig, UpstreamConfig } from '../config/schema.ts';
import { sameName } from '../fields.ts';
import { Breaker } from '../flow/breaker.ts';
import type { TimerWheel } from '../flow/timer-wheel.ts';
import type { PoolStats } from '../observe/stats.ts';
import { Dialer } from './dial.ts';
import { Pool } from './pool.ts';

export class UpstreamTarget {
  /** The upstream's, with this server's address. */
  readonly config: UpstreamConfig;
  readonly pool: Pool;
  /** For connections that no pool has; null = WebSockets are off. */
  readonly webSocketDialer: Dialer | null;
  /** null = every attempt goes through. */
  readonly breaker: Breaker | null;
  readonly priority: number;
  readonly weight: number;
  /** For an exchange's note of those it has tried. */
  readonly bit: number;
  /** Attempts under way. */
  inFlight = 0;
  /** It has asked to be left alone until then, ms. */
  pausedUntil = 0;
  /** Its place in the order of those that carry the same, see UpstreamTargets. */
  pass = 0;
  /** Attempts ever, and those that failed. */
  attempts = 0;
  failures = 0;
  successes = 0;
  readonly #headers: readonly (readonly [name: string, value: string])[];

  /** Throws when TLS material of the config is not usable. */
  constructor(
    config: UpstreamConfig,
    { priority, weight, headers, ...url }: TargetConfig,
    index: number,
    maxConnections: number,
    poolStats: PoolStats,
    wheel: TimerWheel,
    now: () => number,
  ) {
    this.config = { ...config, ...url };
    this.pool = new Pool(this.config, new Dialer(this.config, wheel, now), poolStats, wheel, now, maxConnections);
    // A WebSocket begins in HTTP/1.1.
    this.webSocketDialer = config.websocket ? new Dialer({ ...this.config, http2: null }, wheel, now) : null;
    this.breaker = config.breaker ? new Breaker(config.breaker, now()) : null;
    this.priority = priority;
    this.weight = weight;
    this.bit = 1 << index;
    this.#headers = headers;
  }

  get url(): string {
    return shownUrl(this.config);
  }

  allows(now: number): boolean {
    return now >= this.pausedUntil && (this.breaker === null || this.breaker.allows(now));
  }

  /** The client's fields with this server's own in their place. @returns `pairs` itself when there are none */
  withHeaders(pairs: string[]): string[] {
    if (this.#headers.length === 0) return pairs;
    const own = this.#headers;
    const all: string[] = [];
    for (let i = 0; i < pairs.length; i += 2) {
      const name = pairs[i]!;
      if (own.some(([mine]) => mine.length === name.length && sameName(name, mine))) continue;
      all.push(name, pairs[i + 1]!);
    }
    for (const [name, value] of own) all.push(name, value);
    return all;
  }
}

/** Which server an attempt goes to. */
export class UpstreamTargets {
  /** By priority, then as written. */
  readonly all: readonly UpstreamTarget[];
  /** Of the least loaded, the one whose turn it is: stride scheduling, as the limiter's lanes. */
  #virtualTime = 0;

  constructor(targets: readonly UpstreamTarget[]) {
    this.all = [...targets].sort((a, b) => a.priority - b.priority);
  }

  /** Is there one that takes an attempt now, of those not in `tried`? */
  hasOpen(now: number, tried = 0): boolean {
    for (const target of this.all) if ((target.bit & tried) === 0 && target.allows(now)) return true;
    return false;
  }

  /**
   * The least loaded of the lowest priority of which one takes an attempt; those already tried come after all others.
   * @param tried the `bit`s of targets not to be used if it can be helped
   * @returns null when none takes one
   */
  pick(now: number, tried: number): UpstreamTarget | null {
    const best = this.#leastLoaded(now, tried) ?? (tried === 0 ? null : this.#leastLoaded(now, 0));
    if (best && this.all.length > 1) {
      // One that was away has no claim to all it missed.
      this.#virtualTime = Math.max(best.pass, this.#virtualTime);
      best.pass = this.#virtualTime + 1 / best.weight;
    }
    return best;
  }

  #leastLoaded(now: number, tried: number): UpstreamTarget | null {
    let best: UpstreamTarget | null = null;
    for (const target of this.all) {
      if (best && target.priority > best.priority) break;
      if ((target.bit & tried) !== 0 || !target.allows(now)) continue;
      if (!best || isLess(target, best)) best = target;
    }
    return best;
  }

  /** ms until the first of them may be tried again. */
  retryAfterMs(now: number): number {
    let least = Number.POSITIVE_INFINITY;
    for (const { breaker, pausedUntil } of this.all) {
      least = Math.min(least, Math.max(pausedUntil - now, breaker ? breaker.retryAfterMs(now) : 0));
    }
    return least;
  }
}

function isLess(one: UpstreamTarget, other: UpstreamTarget): boolean {
  const difference = one.inFlight / one.weight - other.inFlight / other.weight;
  return difference === 0 ? one.pass < other.pass : difference < 0;
}

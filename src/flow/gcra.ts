// A rate limit without a queue or a refill timer: the generic cell rate algorithm, as virtual scheduling (ITU-T I.371, annex A).

/**
 * One passes each `intervalMs`, and up to `burst` at once after a pause: in any time w at most `burst` + w / `intervalMs`.
 * The state is one time, the theoretical arrival time (TAT) at which it would be full again, as in redis-cell (Leach, "Rate limiting,
 * cells, and GCRA").
 *
 *     now ≥ TAT                    full: `burst` may pass
 *     TAT − (burst−1)·interval     one may pass from here on, and moves TAT on by one interval
 */
export class Gcra {
  readonly intervalMs: number;
  readonly burst: number;
  /**
   * TAT as a product: passed · intervalMs after the moment it was last full. A sum kept over weeks of load would drift, an ulp of a
   * week in ms being a ten-millionth of one, with each that passes.
   */
  #fullSince = Number.NEGATIVE_INFINITY;
  #passed = 0;

  /** @param burst 1 or more */
  constructor(intervalMs: number, burst: number) {
    this.intervalMs = intervalMs;
    this.burst = burst;
  }

  /**
   * The earliest time (ms) at which one more may pass if `ahead` others pass first, each as soon as it may; at or before `now`: at once.
   */
  readyAt(now: number, ahead = 0): number {
    const early = this.burst - 1 - ahead;
    if (this.#tat < now) return now - early * this.intervalMs;
    return this.#fullSince + (this.#passed - early) * this.intervalMs;
  }

  /** One passes. Only when readyAt(now) is `now` or earlier. */
  take(now: number): void {
    // At the very moment it is full again the product goes on, or those who are always in time would add it up after all.
    if (this.#tat < now) {
      this.#fullSince = now;
      this.#passed = 1;
    } else this.#passed++;
  }

  /** Indistinguishable from a new one. */
  isFull(now: number): boolean {
    return this.#tat <= now;
  }

  /** When it is full if nobody passes from now on (ms). */
  fullAt(now: number): number {
    return Math.max(now, this.#tat);
  }

  /** How many may pass at once now: 0..burst. */
  remaining(now: number): number {
    const tokens = Math.round(this.burst - (this.fullAt(now) - now) / this.intervalMs);
    // readyAt() decides, to the last bit: 0 is said exactly while nobody may pass.
    return Math.max(0, this.readyAt(now, tokens - 1) <= now ? tokens : tokens - 1);
  }

  get #tat(): number {
    return this.#fullSince + this.#passed * this.intervalMs;
  }
}

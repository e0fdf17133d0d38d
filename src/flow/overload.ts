// How hard-pressed the process is, in steps: up at once, down only when it is clearly better for a while.

import type { OverloadConfig } from '../config/schema.ts';

/** The thresholds that count here. */
export type OverloadRules = Pick<OverloadConfig, 'shrinkCacheAt' | 'refuseAt' | 'closeAt' | 'maxLoopLagMs'>;

/** 0 calm, 1 the cache is made smaller, 2 new work is refused, 3 clients' keep-alive connections are closed. */
export type OverloadLevel = 0 | 1 | 2 | 3;

/** A level is left when memory is so far below its threshold, as a share of the limit, … */
const MEMORY_MARGIN = 0.03;
/** … and the lag below this part of what is allowed, … */
const LAG_MARGIN = 0.5;
/** … for so many measurements in a row: a measure that swings about its threshold does not chatter. */
const CALM_MEASUREMENTS = 4;

export class Overload {
  readonly #rules: OverloadRules;
  level: OverloadLevel = 0;
  /** Times each level was reached from below. */
  readonly entered = { shrink: 0, refuse: 0, close: 0 };
  /** Last measures. 0..; null = the limit is not known. */
  memoryShare: number | null = null;
  loopLagMs = 0;
  readonly #memory = new Step();
  readonly #lag = new Step();

  constructor(rules: OverloadRules) {
    this.#rules = rules;
  }

  /** For lack of memory alone: to make the cache smaller helps no event loop that is late. */
  get shrinking(): boolean {
    return this.#memory.level >= 1;
  }

  get refusing(): boolean {
    return this.level >= 2;
  }

  get closing(): boolean {
    return this.level >= 3;
  }

  /**
   * @param memoryUsed bytes
   * @param memoryLimit bytes; Infinity = unknown
   * @param loopLagMs how late the event loop is
   */
  measured(memoryUsed: number, memoryLimit: number, loopLagMs: number): OverloadLevel {
    const share = memoryLimit > 0 && memoryLimit < Number.POSITIVE_INFINITY ? memoryUsed / memoryLimit : null;
    this.memoryShare = share;
    this.loopLagMs = loopLagMs;
    const { maxLoopLagMs } = this.#rules;
    this.#memory.move(this.#memoryLevel(share ?? 0), this.#memoryLevel((share ?? 0) + MEMORY_MARGIN));
    this.#lag.move(loopLagMs > maxLoopLagMs ? 2 : 0, loopLagMs > maxLoopLagMs * LAG_MARGIN ? 2 : 0);
    this.#to(Math.max(this.#memory.level, this.#lag.level) as OverloadLevel);
    return this.level;
  }

  #memoryLevel(share: number): OverloadLevel {
    if (share >= this.#rules.closeAt) return 3;
    if (share >= this.#rules.refuseAt) return 2;
    return share >= this.#rules.shrinkCacheAt ? 1 : 0;
  }

  #to(level: OverloadLevel): void {
    if (this.#memory.entered(1)) this.entered.shrink++;
    if (this.level < 2 && level >= 2) this.entered.refuse++;
    if (this.level < 3 && level >= 3) this.entered.close++;
    this.level = level;
  }
}

/** The level by one measure. */
class Step {
  level: OverloadLevel = 0;
  #before: OverloadLevel = 0;
  #calm = 0;
  /** The highest that was still called for while it grew calm. */
  #calmTo: OverloadLevel = 0;

  /**
   * @param up what the measure calls for
   * @param down what it would call for with the margin to its thresholds; at least `up`
   */
  move(up: OverloadLevel, down: OverloadLevel): void {
    this.#before = this.level;
    if (down >= this.level) {
      if (up > this.level) this.level = up;
      this.#calm = 0;
      this.#calmTo = 0;
      return;
    }
    if (down > this.#calmTo) this.#calmTo = down;
    if (++this.#calm < CALM_MEASUREMENTS) return;
    this.level = this.#calmTo;
    this.#calm = 0;
    this.#calmTo = 0;
  }

  /** With the last measurement. */
  entered(level: OverloadLevel): boolean {
    return this.#before < level && this.level >= level;
  }
}

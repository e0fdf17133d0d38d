// Time that passes when a test says so, and a timer wheel that hangs on it.

import { TimerWheel } from '../../src/flow/timer-wheel.ts';

interface Interval {
  nextAt: number;
  readonly everyMs: number;
  readonly run: () => void;
}

/** A clock in ms with intervals; nothing moves by itself. */
export class FakeClock {
  time: number;
  readonly now = (): number => this.time;
  readonly #intervals = new Set<Interval>();

  constructor(time = 0) {
    this.time = time;
  }

  /** @returns what stops it */
  every(everyMs: number, run: () => void): () => void {
    const interval = { nextAt: this.time + everyMs, everyMs, run };
    this.#intervals.add(interval);
    return () => this.#intervals.delete(interval);
  }

  /** Lets time pass; each interval runs at each of its times, earliest first. */
  pass(ms: number): void {
    const end = this.time + ms;
    for (;;) {
      let next: Interval | null = null;
      for (const interval of this.#intervals) if (!next || interval.nextAt < next.nextAt) next = interval;
      if (!next || next.nextAt > end) break;
      this.time = Math.max(this.time, next.nextAt);
      next.nextAt += next.everyMs;
      next.run();
    }
    this.time = end;
  }

  /** The process hangs for so long; then each interval runs once, however many of its times were missed. */
  stall(ms: number): void {
    this.time += ms;
    for (const interval of [...this.#intervals]) {
      if (interval.nextAt > this.time || !this.#intervals.has(interval)) continue;
      interval.nextAt = this.time + interval.everyMs;
      interval.run();
    }
  }
}

/** A wheel whose ticker is the clock; counts how often the ticker was started and stopped. */
export function fakeWheel(
  clock: FakeClock,
  tickMs = 15,
  slots = 1024,
): { wheel: TimerWheel; ticker: { starts: number; stops: number } } {
  const ticker = { starts: 0, stops: 0 };
  let stop = () => {};
  const wheel: TimerWheel = new TimerWheel(
    clock.time,
    {
      start: () => {
        ticker.starts++;
        stop = clock.every(tickMs, () => wheel.advance(clock.time));
      },
      stop: () => {
        ticker.stops++;
        stop();
      },
    },
    tickMs,
    slots,
  );
  return { wheel, ticker };
}

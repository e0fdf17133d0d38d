// A named limiter: so many permits, shared by the lines (one FIFO per upstream) that stand before it.

import type { Line } from './line.ts';

export class Limiter {
  readonly name: string;
  /** Infinity = unlimited */
  readonly maxConcurrent: number;
  readonly maxQueue: number;
  /** Infinity = waits as long as it takes */
  readonly queueTimeoutMs: number;
  readonly lines: Line[] = [];
  inFlight = 0;
  queued = 0;
  peakInFlight = 0;
  peakQueued = 0;
  granted = 0;
  /** Grants that had to wait. */
  waited = 0;
  /** Turned away: queue full, or the wait ran out. */
  refused = 0;
  /** Called when the queue grew; for the alarm. */
  onQueueGrown: ((limiter: Limiter) => void) | null = null;
  /** Grants per second, smoothed; see pulse(). */
  #rate = 0;
  #grantedAtPulse = 0;
  #pumping = false;
  #pumpAgain = false;
  #sequence = 0;

  constructor(name: string, maxConcurrent: number, maxQueue: number, queueTimeoutMs: number) {
    this.name = name;
    this.maxConcurrent = maxConcurrent;
    this.maxQueue = maxQueue;
    this.queueTimeoutMs = queueTimeoutMs;
  }

  get hasPermit(): boolean {
    return this.inFlight < this.maxConcurrent;
  }

  /** Only after `hasPermit`. */
  take(): void {
    this.granted++;
    if (++this.inFlight > this.peakInFlight) this.peakInFlight = this.inFlight;
  }

  /** Gives one permit back; whoever has waited longest and can run now, runs. */
  release(): void {
    this.inFlight--;
    if (this.queued > 0) this.pump();
  }

  /** Order of arrival over all lines of this limiter. */
  nextSequence(): number {
    return ++this.#sequence;
  }

  /** Counts one more waiter. */
  joined(): void {
    if (++this.queued > this.peakQueued) this.peakQueued = this.queued;
    this.onQueueGrown?.(this);
  }

  left(): void {
    this.queued--;
  }

  /**
   * Grants to the oldest heads that can run, until none can.
   * A grant runs the exchange at once, which may release again (a failure): that only marks another round here, so a long
   * queue of exchanges that all fail at once cannot grow the stack.
   */
  pump(): void {
    if (this.#pumping) {
      this.#pumpAgain = true;
      return;
    }
    this.#pumping = true;
    try {
      do {
        this.#pumpAgain = false;
        while (this.hasPermit && this.queued > 0) {
          const line = this.#oldestRunnable();
          if (!line) break;
          line.grantHead();
        }
      } while (this.#pumpAgain);
    } finally {
      this.#pumping = false;
    }
  }

  #oldestRunnable(): Line | null {
    let oldest: Line | null = null;
    for (let i = 0; i < this.lines.length; i++) {
      const line = this.lines[i]!;
      if (line.head && line.slots.hasSlot && (!oldest || line.head.sequence < oldest.head!.sequence)) oldest = line;
    }
    return oldest;
  }

  /** Once a second: the service rate that Retry-After is computed from. */
  pulse(): void {
    this.#rate = 0.7 * this.#rate + 0.3 * (this.granted - this.#grantedAtPulse);
    this.#grantedAtPulse = this.granted;
  }

  /** Seconds until a request that came now would have its turn, as far as one can tell: 1..60. */
  retryAfterS(): number {
    if (this.#rate < 0.01) return 5;
    return Math.min(60, Math.max(1, Math.ceil((this.queued + 1) / this.#rate)));
  }
}

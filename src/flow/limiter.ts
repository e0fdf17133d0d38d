// A named limiter: so many permits, shared by the lines (one FIFO per upstream) that stand before it.

import type { AdaptiveConfig } from '../config/schema.ts';
import type { AdaptiveLimit } from './adaptive-limit.ts';
import type { Line } from './line.ts';

/** A part of the queue: gets grants in proportion to its share while several have somebody who could run. */
export interface Lane {
  readonly name: string;
  readonly share: number;
  queued: number;
  /** Of its queue, so without those who need not wait. */
  granted: number;
}

/** Permits that several processes share. */
export interface PermitSource {
  /** So many may be in use in this process now. */
  readonly allowed: number;
  /** @param ready waiting for nothing but a permit and a slot */
  changed(inFlight: number, ready: number): void;
  readonly snapshot: { readonly held: number; readonly waiting: number; readonly source: 'redis' | 'local' };
}

const ONE_LANE = [{ name: '', share: 1 }];

export class Limiter {
  readonly name: string;
  /** Infinity = unlimited */
  #maxConcurrent: number;
  readonly maxQueue: number;
  /** Infinity = waits as long as it takes */
  readonly queueTimeoutMs: number;
  /** At least one. */
  readonly lanes: readonly Lane[];
  readonly lines: Line[] = [];
  /** null = the permits are this process's own. */
  shared: PermitSource | null = null;
  /** null = the limit is fixed. */
  adaptive: AdaptiveLimit | null = null;
  adaptiveRules: AdaptiveConfig | null = null;
  inFlight = 0;
  queued = 0;
  /** Those of them who wait for nothing but permit and slot; in all, and by lane. */
  ready = 0;
  readonly #readyIn: number[];
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
  #returnSequence = Number.MIN_SAFE_INTEGER;
  /**
   * Stride scheduling (Waldspurger & Weihl 1995): the lane that is least ahead of its share is served. A lane nobody waited in
   * starts at the time of the others, so that idle time gives no claim.
   */
  readonly #passes: number[];
  #virtualTime = 0;

  constructor(
    name: string,
    maxConcurrent: number,
    maxQueue: number,
    queueTimeoutMs: number,
    lanes: readonly { readonly name: string; readonly share: number }[] = ONE_LANE,
  ) {
    this.name = name;
    this.#maxConcurrent = maxConcurrent;
    this.maxQueue = maxQueue;
    this.queueTimeoutMs = queueTimeoutMs;
    this.lanes = (lanes.length > 0 ? lanes : ONE_LANE).map(({ name, share }) => ({
      name,
      share,
      queued: 0,
      granted: 0,
    }));
    this.#passes = this.lanes.map(() => 0);
    this.#readyIn = this.lanes.map(() => 0);
  }

  get maxConcurrent(): number {
    return this.#maxConcurrent;
  }

  set maxConcurrent(limit: number) {
    const grew = limit > this.#maxConcurrent;
    this.#maxConcurrent = limit;
    if (grew) this.pump();
  }

  /** What an adaptive limit learns from. @param latencyMs to the head of the answer */
  succeeded(latencyMs: number, sentAt: number, now: number): void {
    if (!this.adaptive) return;
    this.adaptive.succeeded(this.inFlight, latencyMs, sentAt, now);
    this.maxConcurrent = this.adaptive.limit;
  }

  dropped(sentAt: number, now: number): void {
    if (!this.adaptive) return;
    this.adaptive.dropped(sentAt, now);
    this.maxConcurrent = this.adaptive.limit;
  }

  get hasPermit(): boolean {
    return this.inFlight < this.#maxConcurrent && (this.shared === null || this.inFlight < this.shared.allowed);
  }

  /** Number of the lane of this name, else of the other, else the first. */
  laneOf(name: string, otherwise: string | null): number {
    let lane = 0;
    for (let i = 0; i < this.lanes.length; i++) {
      if (this.lanes[i]!.name === name) return i;
      if (this.lanes[i]!.name === otherwise) lane = i;
    }
    return lane;
  }

  /** Only after `hasPermit`. */
  take(): void {
    this.granted++;
    if (++this.inFlight > this.peakInFlight) this.peakInFlight = this.inFlight;
    this.shared?.changed(this.inFlight, this.ready);
  }

  /** Gives one permit back; whoever has waited longest and can run now, runs. */
  release(): void {
    this.inFlight--;
    this.shared?.changed(this.inFlight, this.ready);
    if (this.ready > 0) this.pump();
  }

  /** Order of arrival over all lines of this limiter. */
  nextSequence(): number {
    return ++this.#sequence;
  }

  /** Order of those who come back for another attempt: before all who have had none. */
  nextReturnSequence(): number {
    return ++this.#returnSequence;
  }

  /** Counts one more waiter. */
  joined(lane: number): void {
    this.lanes[lane]!.queued++;
    if (++this.queued > this.peakQueued) this.peakQueued = this.queued;
    this.onQueueGrown?.(this);
  }

  left(lane: number): void {
    this.lanes[lane]!.queued--;
    this.queued--;
  }

  /** One more waits for nothing but permit and slot. */
  becameReady(lane: number): void {
    this.ready++;
    if (this.#readyIn[lane]!++ === 0) this.#passes[lane] = Math.max(this.#passes[lane]!, this.#virtualTime);
    this.shared?.changed(this.inFlight, this.ready);
  }

  unready(lane: number): void {
    this.ready--;
    this.#readyIn[lane]!--;
    this.shared?.changed(this.inFlight, this.ready);
  }

  /** One who waited in this lane runs. */
  grantedTo(lane: number): void {
    const { [lane]: it } = this.lanes;
    it!.granted++;
    this.waited++;
    this.#virtualTime = this.#passes[lane]!;
    this.#passes[lane]! += 1 / it!.share;
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
        while (this.ready > 0 && this.hasPermit && this.#grantNext());
      } while (this.#pumpAgain);
    } finally {
      this.#pumping = false;
    }
  }

  /** Nobody runs before `resumeGrants`. @returns false when that is so already, and for somebody else to end */
  stopGrants(): boolean {
    if (this.#pumping) return false;
    this.#pumping = true;
    return true;
  }

  resumeGrants(): void {
    this.#pumping = false;
    if (this.ready > 0) this.pump();
  }

  /** @returns false when nobody can run */
  #grantNext(): boolean {
    let best = -1;
    let line: Line | null = null;
    for (let lane = 0; lane < this.lanes.length; lane++) {
      if (best >= 0 && this.#passes[lane]! >= this.#passes[best]!) continue;
      const oldest = this.#oldestRunnable(lane);
      if (!oldest) continue;
      best = lane;
      line = oldest;
    }
    line?.grantHead(best);
    return line !== null;
  }

  #oldestRunnable(lane: number): Line | null {
    let oldest: Line | null = null;
    let first = Number.POSITIVE_INFINITY;
    for (let i = 0; i < this.lines.length; i++) {
      const line = this.lines[i]!;
      const { head } = line.queues[lane]!;
      if (!head || head.sequence >= first || !line.slots.hasSlot) continue;
      first = head.sequence;
      oldest = line;
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

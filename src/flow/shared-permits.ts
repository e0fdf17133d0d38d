// Permits of one limiter that this sidecar has leased of those all sidecars share, or its local share of them while nobody can be asked.

import { type LedgerAnswer, PERMIT_TIMES, type PermitLedger, type PermitTimes } from './permit-ledger.ts';

/** @returns what ends it */
export type Every = (ms: number, run: () => void) => () => void;

const everyMs: Every = (ms, run) => {
  const timer = setInterval(run, ms).unref();
  return () => clearInterval(timer);
};

/** After an answer that was an error the local share is used for so long. */
const REST_MS = 1000;

export interface PermitsSnapshot {
  readonly held: number;
  /** Leases it could use and has not got. */
  readonly waiting: number;
  readonly source: 'redis' | 'local';
}

/**
 *   local ──ledger is up──► leased        what runs then is stated as held, even if it is too much
 *     ▲                        │
 *     └── ledger is down, or answers with an error
 *
 * One question at a time. What is given back is taken off `held` before it is told, what is granted is put on it after: so the ledger never
 * knows of less than there is.
 */
export class SharedPermits {
  /** `allowed` has grown. Never called from within changed(). */
  onChange: (() => void) | null = null;
  readonly name: string;
  readonly max: number;
  readonly #ledger: PermitLedger;
  readonly #now: () => number;
  readonly #times: PermitTimes;
  readonly #every: Every;
  #leave: (() => void) | null = null;
  #endTicks: (() => void) | null = null;
  #inFlight = 0;
  #queued = 0;
  #isLeased = false;
  #held = 0;
  /** Leases nobody has renewed by then may be with others. */
  #heldUntil = 0;
  #asking = false;
  #askAgain = false;
  /** Counts changes between leased and local: answers to what was asked before one are not heard. */
  #turn = 0;
  /** The ledger has this sidecar as one who waits. */
  #isWaiting = false;
  #othersWait = false;
  #claimants = 1;
  #statedAt = 0;
  #restUntil = 0;
  #hasBeenAway = false;
  /** Until then others may still use their local share, untold: nobody leases more than his. */
  #cautiousUntil = 0;
  /** The fewest leases that were unused at any time since the last tick, and in the time between the two before. */
  #spare = 0;
  #spareBefore = 0;

  /** @param now a monotonic clock, ms */
  constructor(
    ledger: PermitLedger,
    name: string,
    max: number,
    now: () => number,
    times: PermitTimes = PERMIT_TIMES,
    every: Every = everyMs,
  ) {
    this.#ledger = ledger;
    this.name = name;
    this.max = max;
    this.#now = now;
    this.#times = times;
    this.#every = every;
  }

  /** So many of this sidecar may run at once; 0 while all permits are elsewhere. */
  get allowed(): number {
    if (!this.#isLeased) return this.#localShare;
    return this.#now() < this.#heldUntil ? this.#held : Math.min(this.#held, this.#inFlight);
  }

  get snapshot(): PermitsSnapshot {
    if (!this.#isLeased) return { held: 0, waiting: 0, source: 'local' };
    return { held: this.#held, waiting: this.#lacking(this.max), source: 'redis' };
  }

  start(): void {
    this.#leave = this.#ledger.join(this.name, {
      up: () => this.#goLeased(),
      down: () => this.#goLocal(),
      wanted: (claimants) => this.#wanted(claimants),
      free: () => {
        if (this.#want > 0 || this.#isWaiting) this.#ask();
      },
      lost: () => this.#ask(),
    });
    this.#endTicks = this.#every(this.#times.pollMs, () => this.#tick());
    if (this.#ledger.up) this.#goLeased();
  }

  /** Gives all leases back. Resolves soon, whatever the ledger does. */
  async stop(): Promise<void> {
    this.#endTicks?.();
    this.#leave?.();
    this.#leave = null;
    this.#turn++;
    const wasLeased = this.#isLeased;
    this.#isLeased = false;
    if (wasLeased) await this.#ledger.leave(this.name, this.max, this.#times.ttlMs);
  }

  /**
   * To be called whenever either changes, and between a release and the pump after it: a lease that others wait for is given back here,
   * and must not be granted before.
   * @param queued waiting for a permit
   */
  changed(inFlight: number, queued: number): void {
    const released = this.#inFlight - inFlight;
    this.#inFlight = inFlight;
    this.#queued = queued;
    if (!this.#isLeased) return;
    // It was let in by the local share, a moment ago.
    if (this.#held < inFlight) this.#held = inFlight;
    if (released > 0 && this.#othersWait) this.#giveBack();
    this.#spare = Math.min(this.#spare, this.#held - inFlight);
    if (this.#hasChangedWish) this.#askSoon();
  }

  get #localShare(): number {
    return Math.max(1, Math.floor(this.max / this.#ledger.peers));
  }

  get #want(): number {
    return this.#lacking(this.#now() < this.#cautiousUntil ? this.#localShare : this.max);
  }

  #lacking(most: number): number {
    return Math.max(0, Math.min(most, this.#inFlight + this.#queued) - this.#held);
  }

  /** The ledger takes it for one who waits, or does not, and it is the other way round. */
  get #hasChangedWish(): boolean {
    return this.#isWaiting !== this.#want > 0;
  }

  #wanted(claimants: number): void {
    if (!this.#isLeased) return;
    this.#othersWait = true;
    this.#claimants = claimants;
    this.#giveBack();
  }

  /** Unused leases that others wait for: all when nobody waits here, else what is above the fair share. */
  #giveBack(): void {
    const keep = this.#queued > 0 ? Math.floor(this.max / this.#claimants) : 0;
    const surplus = this.#held - Math.max(this.#inFlight, keep);
    if (surplus <= 0) return;
    this.#held -= surplus;
    this.#ask();
  }

  /** Every pollMs. */
  #tick(): void {
    const now = this.#now();
    const unused = this.#held - this.#inFlight;
    const spare = Math.min(this.#spare, this.#spareBefore, unused);
    this.#spareBefore = this.#spare;
    this.#spare = unused;
    if (!this.#isLeased) {
      if (this.#ledger.up && now >= this.#restUntil) this.#goLeased();
    } else if (spare > 0 && (this.#queued === 0 || this.#othersWait)) {
      // Those who wait here cannot use them either, for another reason.
      this.#held -= spare;
      this.#ask();
    } else if (this.#want > 0 || this.#isWaiting) this.#ask(true);
    else if (this.#held > 0 && now - this.#statedAt >= this.#times.renewMs) this.#ask();
  }

  /** Not at once: who leaves the queue may be about to run, which is told next. */
  #askSoon(): void {
    if (this.#asking) return; // looked at again with the answer
    const turn = this.#turn;
    queueMicrotask(() => {
      if (turn === this.#turn && !this.#asking && this.#hasChangedWish) this.#ask();
    });
  }

  #ask(tell = false): void {
    if (!this.#isLeased) return;
    if (this.#asking) {
      this.#askAgain = true;
      return;
    }
    this.#asking = true;
    this.#askAgain = false;
    const { ttlMs, pollMs } = this.#times;
    const now = this.#now();
    // What has run out may be with others; what runs is held all the same.
    const isKnown = now < this.#heldUntil;
    if (!isKnown) this.#held = this.#inFlight;
    this.#statedAt = now;
    const want = this.#want;
    const turn = this.#turn;
    const statement = { max: this.max, held: this.#held, want, tell, isKnown, ttlMs, patienceMs: 3 * pollMs };
    this.#ledger.state(this.name, statement).then(
      (answer) => {
        if (turn === this.#turn) this.#answered(answer, want, now + ttlMs);
      },
      () => {
        if (turn === this.#turn) this.#failed();
      },
    );
  }

  #answered({ granted, othersWait, claimants }: LedgerAnswer, wanted: number, heldUntil: number): void {
    const before = this.allowed;
    this.#asking = false;
    this.#held += granted;
    this.#heldUntil = heldUntil;
    this.#isWaiting = granted < wanted;
    this.#othersWait = othersWait;
    this.#claimants = claimants;
    const turn = this.#turn;
    if (this.allowed > before) this.onChange?.();
    if (turn !== this.#turn) return;
    // What was granted has been used by now, if it can be.
    if (this.#othersWait) this.#giveBack();
    if (!this.#asking && (this.#askAgain || this.#hasChangedWish)) this.#ask();
  }

  #failed(): void {
    if (this.#ledger.up) this.#restUntil = this.#now() + REST_MS;
    this.#goLocal();
  }

  #goLeased(): void {
    if (this.#isLeased) return;
    this.#switch(true);
    this.#held = this.#inFlight;
    if (this.#hasBeenAway) this.#cautiousUntil = this.#now() + this.#times.ttlMs;
    if (this.#held > 0 || this.#queued > 0) this.#ask();
  }

  #goLocal(): void {
    if (!this.#isLeased) return;
    const before = this.allowed;
    this.#switch(false);
    this.#hasBeenAway = true;
    if (this.allowed > before) this.onChange?.();
  }

  #switch(isLeased: boolean): void {
    this.#turn++;
    this.#isLeased = isLeased;
    this.#held = 0;
    this.#heldUntil = 0;
    this.#asking = false;
    this.#askAgain = false;
    this.#isWaiting = false;
    this.#othersWait = false;
    this.#claimants = 1;
    this.#spare = 0;
    this.#spareBefore = 0;
  }
}

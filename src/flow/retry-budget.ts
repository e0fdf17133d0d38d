// A retry budget: retries stay a fixed share of the requests however much fails, so that they cannot keep an upstream down.

const WINDOW_MS = 10_000;
/** The window ends within a slice, and what is in doubt is left out: a hundredth of the budget. */
const SLICE_MS = 100;
/** Counts at the start of this slice and of the hundred before it. */
const SLICES = WINDOW_MS / SLICE_MS + 1;

/**
 * A balance of retries. It starts at `min`, gains `ratio` with each request, loses 1 with each retry, and is never more than what the
 * last 10 s leave: `ratio` of their requests, plus `min`, less their retries. It is lifted to `min` again when nobody has asked for a
 * retry for 10 s. So
 *
 * - at each retry, the retries of the last 10 s are at most ratio · their requests + min (as Finagle's and tower's budgets);
 * - in a bad time (retries asked for without a pause of 10 s) all retries are at most ratio · requests + min, where `min` is had once and
 *   the requests are its own and those of the 10 s before it. At a load that does not fall, those before it are paid back within
 *   10 s: what is earned while the window is overdrawn is lost.
 */
export class RetryBudget {
  readonly ratio: number;
  readonly min: number;
  /** Retries granted. */
  spent = 0;
  /** Retries refused. */
  exhausted = 0;
  readonly #requests: () => number;
  readonly #start: number;
  readonly #requestsAt = new Float64Array(SLICES);
  readonly #spentAt = new Float64Array(SLICES);
  #slice = 0;
  #seen: number;
  #balance: number;
  #askedAt: number;

  /**
   * @param ratio retries per request, 0.2 = a fifth
   * @param requests running count of all requests ever, retries not among them; read here, so that a request costs nothing
   */
  constructor(ratio: number, min: number, requests: () => number, now: number) {
    this.ratio = ratio;
    this.min = min;
    this.#requests = requests;
    this.#start = now;
    this.#seen = requests();
    this.#requestsAt.fill(this.#seen);
    this.#balance = min;
    this.#askedAt = now;
  }

  trySpend(now: number): boolean {
    this.#settle(now);
    this.#askedAt = now;
    // Five times 0.2 is a retry, whatever the last bits of the sum say; what is missing stays owed.
    if (this.#balance < 1 - 1e-9) {
      this.exhausted++;
      return false;
    }
    this.#balance--;
    this.spent++;
    return true;
  }

  /** Retries that would be granted now; with a fraction. */
  balance(now: number): number {
    this.#settle(now);
    return this.#balance;
  }

  /** Once a second. Requests between two calls count as if they had come just after the first: no longer, but not longer either. */
  pulse(now: number): void {
    this.#settle(now);
  }

  #settle(now: number): void {
    const requests = this.#requests();
    this.#roll(now, requests);
    this.#balance += this.ratio * (requests - this.#seen);
    this.#seen = requests;
    if (now - this.#askedAt >= WINDOW_MS) this.#balance = Math.max(this.#balance, this.min);
    // Requests of the last 9.9..10 s, retries of the last 10..10.1 s, so that the rule holds for the exact 10 s.
    const recent = requests - this.#requestsAt[(this.#slice + 2) % SLICES]!;
    const retried = this.spent - this.#spentAt[(this.#slice + 1) % SLICES]!;
    // Not below 0: where load falls, the requests leave the window before the retries they paid for, and that is no debt.
    this.#balance = Math.min(this.#balance, Math.max(0, this.ratio * recent + this.min - retried));
  }

  /** Writes down the counts for the slices begun since the last call: ten with each pulse, at most all of them. */
  #roll(now: number, requests: number): void {
    const slice = Math.floor((now - this.#start) / SLICE_MS);
    for (let begun = Math.max(this.#slice + 1, slice - SLICES + 1); begun <= slice; begun++) {
      this.#requestsAt[begun % SLICES] = requests;
      this.#spentAt[begun % SLICES] = this.spent;
    }
    if (slice > this.#slice) this.#slice = slice;
  }
}

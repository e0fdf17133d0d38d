// One hashed timer wheel for every deadline: arming, re-arming and cancelling are a few pointer writes, with no setTimeout per request.
// Varghese & Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 6: timers further off than one turn stay in their slot.

/** What a timer wakes. */
export interface Expiring {
  /** @param now ms on the wheel's clock, at or after the time armed */
  expired(now: number): void;
}

/** Starts and stops the calls of `advance`. */
export interface Ticker {
  start(): void;
  stop(): void;
}

/** A place in the wheel. `at` is the time it is armed for, Infinity when it is not. */
export class Timer {
  prev: Timer = this;
  next: Timer = this;
  at = Number.POSITIVE_INFINITY;
  readonly owner: Expiring;

  constructor(owner: Expiring) {
    this.owner = owner;
  }

  get armed(): boolean {
    return this.at !== Number.POSITIVE_INFINITY;
  }
}

const NOBODY: Expiring = { expired() {} };

export class TimerWheel {
  readonly #slots: Timer[] = [];
  readonly #mask: number;
  readonly #tickMs: number;
  readonly #ticker: Ticker;
  #tick: number;
  #running = false;
  /** Timers armed now. */
  size = 0;

  /**
   * @param now the clock at the moment of construction, ms
   * @param tickMs a timer fires at most one tick, and the ticker's own delay, late; never early
   * @param slots a power of two
   */
  constructor(now: number, ticker: Ticker, tickMs = 15, slots = 1024) {
    this.#ticker = ticker;
    this.#tickMs = tickMs;
    this.#mask = slots - 1;
    this.#tick = Math.floor(now / tickMs);
    for (let i = 0; i < slots; i++) this.#slots.push(new Timer(NOBODY));
  }

  /** Arms or re-arms. `at` may be in the past (fires at the next tick) or Infinity (same as cancel). */
  arm(timer: Timer, at: number): void {
    if (timer.armed) unlink(timer);
    else this.size++;
    if (at === Number.POSITIVE_INFINITY) {
      this.size--;
      timer.at = at;
      return;
    }
    timer.at = at;
    if (!this.#running) {
      this.#running = true;
      this.#ticker.start();
    }
    const tick = Math.max(Math.ceil(at / this.#tickMs), this.#tick + 1);
    append(this.#slots[tick & this.#mask]!, timer);
  }

  cancel(timer: Timer): void {
    if (!timer.armed) return;
    unlink(timer);
    timer.at = Number.POSITIVE_INFINITY;
    this.size--;
  }

  /** Fires what is due. Called by the ticker. */
  advance(now: number): void {
    const target = Math.floor(now / this.#tickMs);
    // After a long stall one whole turn visits every slot; more would visit them twice.
    if (target - this.#tick > this.#mask) this.#tick = target - this.#mask - 1;
    const due = new Timer(NOBODY);
    while (this.#tick < target) {
      this.#tick++;
      const slot = this.#slots[this.#tick & this.#mask]!;
      for (let timer = slot.next; timer !== slot; ) {
        const next = timer.next;
        if (timer.at <= now) {
          unlink(timer);
          append(due, timer);
        }
        timer = next;
      }
    }
    // Fired from a list of its own: a callback may cancel or re-arm any other timer, also one that is due now.
    while (due.next !== due) {
      const timer = due.next;
      this.cancel(timer);
      timer.owner.expired(now);
    }
    if (this.size === 0 && this.#running) {
      this.#running = false;
      this.#ticker.stop();
    }
  }
}

function append(list: Timer, timer: Timer): void {
  timer.prev = list.prev;
  timer.next = list;
  list.prev.next = timer;
  list.prev = timer;
}

function unlink(timer: Timer): void {
  timer.prev.next = timer.next;
  timer.next.prev = timer.prev;
  timer.prev = timer;
  timer.next = timer;
}

// Those who wait: places in an order by arrival, of which each waiter has one at a time.

import type { Line } from './line.ts';
import type { Turnstile } from './turnstile.ts';

/** Who waits. */
export interface Grantee {
  /** Permit, slot and tokens are yours; called synchronously from whoever gave them back. */
  granted(): void;
  /** You wait no more and get nothing. @param by the turnstile that refuses; null = nobody of this line is let in */
  denied(by: Turnstile | null): void;
}

export const NO_TURNSTILES: readonly Turnstile[] = [];

/** A place in a line. Made only for those who must wait. */
export class Waiter {
  prev: Waiter | null = null;
  next: Waiter | null = null;
  /** The list of its line that it is in when it is ready for permit and slot. */
  list: WaiterList | null = null;
  /** Where it is in the heap of a turnstile; -1 = nowhere. */
  place = -1;
  line: Line | null = null;
  sequence = 0;
  readonly grantee: Grantee;
  /** Number of its lane. */
  readonly lane: number;
  /** What it must pass besides. */
  readonly turnstiles: readonly Turnstile[];
  /** The turnstile that holds it up; null = ready for permit and slot. */
  heldBy: Turnstile | null = null;

  constructor(grantee: Grantee, lane = 0, turnstiles: readonly Turnstile[] = NO_TURNSTILES) {
    this.grantee = grantee;
    this.lane = lane;
    this.turnstiles = turnstiles;
  }
}

/**
 *   head ⇄ waiter ⇄ waiter ⇄ tail        by sequence; leaves at the head when its turn comes, from anywhere when its client goes
 */
export class WaiterList {
  head: Waiter | null = null;
  #tail: Waiter | null = null;

  /**
   * To its place by sequence. Who comes new goes to the end and who comes back belongs near the head: both are found at once.
   */
  insert(waiter: Waiter): void {
    let after = this.#tail;
    if (after && after.sequence > waiter.sequence) {
      after = null;
      for (let at = this.head; at && at.sequence < waiter.sequence; at = at.next) after = at;
    }
    const before = after ? after.next : this.head;
    waiter.list = this;
    waiter.prev = after;
    waiter.next = before;
    if (after) after.next = waiter;
    else this.head = waiter;
    if (before) before.prev = waiter;
    else this.#tail = waiter;
  }

  remove(waiter: Waiter): void {
    if (waiter.prev) waiter.prev.next = waiter.next;
    else this.head = waiter.next;
    if (waiter.next) waiter.next.prev = waiter.prev;
    else this.#tail = waiter.prev;
    waiter.prev = null;
    waiter.next = null;
    waiter.list = null;
  }
}

/**
 * By sequence, for those who come and go in any order: a binary heap that knows where each one is.
 * With a list, thousands that go from one turnstile to another's middle would each pass by all who are there.
 */
export class WaiterHeap {
  readonly #waiters: Waiter[] = [];

  get first(): Waiter | null {
    return this.#waiters.length > 0 ? this.#waiters[0]! : null;
  }

  insert(waiter: Waiter): void {
    this.#waiters.push(waiter);
    this.#rise(waiter, this.#waiters.length - 1);
  }

  remove(waiter: Waiter): void {
    const at = waiter.place;
    const last = this.#waiters.pop()!;
    waiter.place = -1;
    if (last === waiter) return;
    this.#rise(last, at);
    this.#sink(last, last.place);
  }

  #rise(waiter: Waiter, at: number): void {
    while (at > 0) {
      const up = (at - 1) >> 1;
      const parent = this.#waiters[up]!;
      if (parent.sequence <= waiter.sequence) break;
      this.#put(parent, at);
      at = up;
    }
    this.#put(waiter, at);
  }

  #sink(waiter: Waiter, at: number): void {
    const waiters = this.#waiters;
    for (;;) {
      let down = 2 * at + 1;
      if (down >= waiters.length) break;
      if (down + 1 < waiters.length && waiters[down + 1]!.sequence < waiters[down]!.sequence) down++;
      if (waiters[down]!.sequence >= waiter.sequence) break;
      this.#put(waiters[down]!, at);
      at = down;
    }
    this.#put(waiter, at);
  }

  #put(waiter: Waiter, at: number): void {
    this.#waiters[at] = waiter;
    waiter.place = at;
  }
}

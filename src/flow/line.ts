// One upstream's queue at its limiter: strictly FIFO, and a waiter gets permit and connection slot together or waits for both.

import type { Limiter } from './limiter.ts';
import type { SlotGate } from './slots.ts';

/** Who waits. */
export interface Grantee {
  /** Permit and slot are yours; called synchronously from whoever gave them back. */
  granted(): void;
}

/** A place in a line. Made only for those who must wait. */
export class Waiter {
  prev: Waiter | null = null;
  next: Waiter | null = null;
  line: Line | null = null;
  sequence = 0;
  readonly grantee: Grantee;

  constructor(grantee: Grantee) {
    this.grantee = grantee;
  }
}

/**
 *   head ⇄ waiter ⇄ waiter ⇄ tail        leaves at the head when granted, from anywhere when its client goes
 */
export class Line {
  readonly limiter: Limiter;
  readonly slots: SlotGate;
  head: Waiter | null = null;
  #tail: Waiter | null = null;

  constructor(limiter: Limiter, slots: SlotGate) {
    this.limiter = limiter;
    this.slots = slots;
    limiter.lines.push(this);
    slots.line = this;
  }

  /** Takes permit and slot if both are free and nobody of this line waits. */
  tryEnter(): boolean {
    if (this.head || !this.limiter.hasPermit || !this.slots.hasSlot) return false;
    this.limiter.take();
    this.slots.take();
    return true;
  }

  /** @returns false when the limiter's queue is full */
  enqueue(waiter: Waiter): boolean {
    const limiter = this.limiter;
    if (limiter.queued >= limiter.maxQueue) return false;
    waiter.line = this;
    waiter.sequence = limiter.nextSequence();
    waiter.prev = this.#tail;
    if (this.#tail) this.#tail.next = waiter;
    else this.head = waiter;
    this.#tail = waiter;
    limiter.joined();
    return true;
  }

  /** Takes a waiter out of the middle, O(1). Harmless when it waits no more. */
  leave(waiter: Waiter): void {
    if (waiter.line !== this) return;
    const wasHead = waiter === this.head;
    this.#unlink(waiter);
    if (!wasHead) return;
    // The one behind may be able to run where the head could not wait any longer (both free, pump not yet run).
    if (this.head) this.limiter.pump();
    else this.slots.lineEmptied();
  }

  /** The head gets permit and slot and runs. Only when both are free. */
  grantHead(): void {
    const waiter = this.head!;
    this.#unlink(waiter);
    this.limiter.take();
    this.limiter.waited++;
    this.slots.take();
    waiter.grantee.granted();
    if (!this.head) this.slots.lineEmptied();
  }

  #unlink(waiter: Waiter): void {
    if (waiter.prev) waiter.prev.next = waiter.next;
    else this.head = waiter.next;
    if (waiter.next) waiter.next.prev = waiter.prev;
    else this.#tail = waiter.prev;
    waiter.prev = null;
    waiter.next = null;
    waiter.line = null;
    this.limiter.left();
  }
}

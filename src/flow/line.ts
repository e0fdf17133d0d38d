// One upstream's queue at its limiter: FIFO within a lane, and a waiter gets permit, slot and tokens together or waits for all of them.
//
//   enqueue ─► held by a turnstile (its token is not there yet) ─► ready (in its lane) ─► granted
//                     ▲                                              │
//                     └──────────── another took the token ──────────┘

import type { Limiter } from './limiter.ts';
import type { SlotGate } from './slots.ts';
import { type Turnstile, takeTokens } from './turnstile.ts';
import { NO_TURNSTILES, type Waiter, WaiterList } from './waiters.ts';

export class Line {
  readonly limiter: Limiter;
  readonly slots: SlotGate;
  /** Those who need nothing but permit and slot, by lane. */
  readonly queues: readonly WaiterList[];
  /** How many these are. */
  ready = 0;
  /** Those whom a turnstile holds up. */
  readonly #held = new Set<Waiter>();

  constructor(limiter: Limiter, slots: SlotGate) {
    this.limiter = limiter;
    this.slots = slots;
    this.queues = limiter.lanes.map(() => new WaiterList());
    limiter.lines.push(this);
    slots.line = this;
  }

  /** Takes all that is needed, if it is free and nobody waits who was there before. */
  tryEnter(turnstiles: readonly Turnstile[] = NO_TURNSTILES): boolean {
    if (this.ready > 0 || !this.limiter.hasPermit || !this.slots.hasSlot) return false;
    for (let i = 0; i < turnstiles.length; i++) if (!turnstiles[i]!.isFree) return false;
    for (let i = 0; i < turnstiles.length; i++) turnstiles[i]!.pass();
    this.limiter.take();
    this.slots.take();
    return true;
  }

  /**
   * Joins the end of the queue; may be granted, or denied, before this returns.
   * @returns false when the limiter's queue is full
   */
  enqueue(waiter: Waiter): boolean {
    if (this.limiter.queued >= this.limiter.maxQueue) return false;
    waiter.sequence = this.limiter.nextSequence();
    this.#join(waiter);
    return true;
  }

  /** Comes back for another attempt: before all who wait for their first, and never refused. */
  rejoin(waiter: Waiter): void {
    waiter.sequence = this.limiter.nextReturnSequence();
    this.#join(waiter);
  }

  #join(waiter: Waiter): void {
    waiter.line = this;
    this.limiter.joined(waiter.lane);
    this.place(waiter);
    this.limiter.pump();
  }

  /** To the turnstile that holds it up, or to the ready ones of its lane. */
  place(waiter: Waiter): void {
    for (let i = 0; i < waiter.turnstiles.length; i++) {
      if (waiter.turnstiles[i]!.claim(waiter)) continue;
      this.#hold(waiter, waiter.turnstiles[i]!, true);
      return;
    }
    this.queues[waiter.lane]!.insert(waiter);
    this.ready++;
    this.limiter.becameReady(waiter.lane);
  }

  #hold(waiter: Waiter, turnstile: Turnstile, isNew: boolean): void {
    waiter.heldBy = turnstile;
    this.#held.add(waiter);
    turnstile.release(waiter);
    // First: who goes on there instead may run at once, and what he does may even throw this one out.
    this.#unclaim(waiter);
    if (waiter.heldBy === turnstile) turnstile.hold(waiter, isNew);
    else turnstile.wake();
  }

  /** Called by the turnstile that held it: it goes on. */
  unheld(waiter: Waiter): void {
    this.#release(waiter);
    this.place(waiter);
  }

  #release(waiter: Waiter): void {
    this.#held.delete(waiter);
    waiter.heldBy = null;
  }

  /** Others may go before it at the turnstiles it has no use for now. */
  #unclaim(waiter: Waiter): void {
    for (let i = 0; i < waiter.turnstiles.length; i++) waiter.turnstiles[i]!.unclaim(waiter);
  }

  /** Takes a waiter out of the middle. Harmless when it waits no more. */
  leave(waiter: Waiter): void {
    if (waiter.line !== this) return;
    waiter.line = null;
    this.limiter.left(waiter.lane);
    if (waiter.heldBy) {
      const turnstile = waiter.heldBy;
      this.#release(waiter);
      turnstile.forget(waiter);
      return;
    }
    this.#unready(waiter);
    this.#unclaim(waiter);
    // The one behind may be able to run where this one could not wait any longer (both free, pump not yet run).
    if (this.ready > 0) this.limiter.pump();
    else this.slots.lineEmptied();
  }

  #unready(waiter: Waiter): void {
    waiter.list!.remove(waiter);
    this.ready--;
    this.limiter.unready(waiter.lane);
  }

  /** The first of a lane gets all it needs and runs, unless a token it claimed is gone by now. Only with permit and slot free. */
  grantHead(lane: number): void {
    const waiter = this.queues[lane]!.head!;
    const blocking = closedOf(waiter.turnstiles);
    this.#unready(waiter);
    if (blocking) this.#hold(waiter, blocking, false);
    else this.#grant(waiter);
    if (this.ready === 0) this.slots.lineEmptied();
  }

  #grant(waiter: Waiter): void {
    const { limiter } = this;
    waiter.line = null;
    limiter.left(waiter.lane);
    limiter.take();
    limiter.grantedTo(waiter.lane);
    this.slots.take();
    const { turnstiles } = waiter;
    takeTokens(waiter);
    try {
      waiter.grantee.granted();
    } finally {
      for (let i = 0; i < turnstiles.length; i++) turnstiles[i]!.wake();
    }
  }

  /** Nobody who waits here is let in: all are told at once, in their order. */
  denyAll(): void {
    const waiting = [...this.#held];
    for (const queue of this.queues) for (let at = queue.head; at; at = at.next) waiting.push(at);
    waiting.sort((a, b) => a.sequence - b.sequence);
    // Or the place of one would be the next one's turn, and cost a token.
    const pumps = this.limiter.stopGrants();
    try {
      for (const waiter of waiting) {
        // One who left meanwhile, because of what another did, is not told.
        if (waiter.line !== this) continue;
        this.leave(waiter);
        waiter.grantee.denied(null);
      }
    } finally {
      if (pumps) this.limiter.resumeGrants();
    }
  }
}

function closedOf(turnstiles: readonly Turnstile[]): Turnstile | null {
  for (let i = 0; i < turnstiles.length; i++) if (!turnstiles[i]!.isOpen) return turnstiles[i]!;
  return null;
}

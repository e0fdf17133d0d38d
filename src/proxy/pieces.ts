// The body of a shared fetch as far as it is held: from its beginning while it may be stored or joined, else from where the slowest follower is.

import type { ByteBudget } from '../flow/byte-budget.ts';

/** What a piece costs beside its bytes: 115 in the heap, measured; an upstream may send bytes one by one. */
const PIECE_BYTES = 128;

export class Pieces {
  readonly #budget: ByteBudget;
  readonly #bufferBytes: number;
  /** What may be stored at most. */
  readonly maxRecorded: number;
  /** Held pieces; the first has the number `#base`. */
  #held: Buffer[] = [];
  #base = 0;
  /** Bytes and pieces that came, held or not. */
  bytes = 0;
  count = 0;
  /** What the slowest follower has still to get, in memory. */
  behind = 0;
  /** It is to be stored: everything is held. */
  record = false;
  /** Others may still join, as long as the beginning is held. */
  joinable = false;
  /** It was to be stored, and is too large. */
  overflowed = false;

  constructor(budget: ByteBudget, bufferBytes: number, maxRecorded: number) {
    this.#budget = budget;
    this.#bufferBytes = bufferBytes;
    this.maxRecorded = maxRecorded;
  }

  /** Held from the very beginning, so that one can still join. */
  get complete(): boolean {
    return this.#base === 0;
  }

  /** The slowest follower is not too far behind. */
  get hasRoom(): boolean {
    // Where all flights together hold too much, nothing more is fetched for those who are behind.
    return this.behind === 0 || (this.behind < this.#bufferBytes && this.#budget.used <= this.#budget.max);
  }

  add(chunk: Buffer): void {
    this.#held.push(chunk);
    this.bytes += chunk.length;
    this.count++;
    const cost = chunk.length + PIECE_BYTES;
    const fits = this.#budget.take(cost);
    // Those who are behind need it all the same; back pressure keeps that within the buffer.
    if (!fits) this.#budget.takeAnyway(cost);
    if (!fits || this.bytes > this.#bufferBytes) this.joinable = false;
    if (this.record && (!fits || this.bytes > this.maxRecorded)) {
      this.record = false;
      this.overflowed = true;
    }
  }

  at(number: number): Buffer {
    return this.#held[number - this.#base]!;
  }

  /** What one has still to get who has got `bytes` and comes to piece `next`: in memory. */
  lag(next: number, bytes: number): number {
    return this.bytes - bytes + (this.count - next) * PIECE_BYTES;
  }

  /** Lets go of what is before piece `number`, unless it may be stored, or joined. */
  trim(number: number): void {
    if (!this.record && !this.joinable) this.#drop(number);
  }

  /** Nothing more comes and nobody joins: only what followers still need. */
  trimTo(followers: Iterable<{ readonly next: number }>): void {
    let least = this.count;
    for (const { next } of followers) if (next < least) least = next;
    this.#drop(least);
  }

  #drop(before: number): void {
    if (before <= this.#base) return;
    const dropped = this.#held.splice(0, before - this.#base);
    this.#base = before;
    let cost = dropped.length * PIECE_BYTES;
    for (const chunk of dropped) cost += chunk.length;
    this.#budget.give(cost);
  }

  /** A copy in memory of its own: a piece may be a small part of a large read. */
  whole(): Buffer {
    const whole = Buffer.allocUnsafeSlow(this.bytes);
    let at = 0;
    for (const chunk of this.#held) {
      whole.set(chunk, at);
      at += chunk.length;
    }
    return whole;
  }

  release(): void {
    this.#drop(this.count);
  }
}

// Sends a stored body in pieces: no faster than the client takes it, and where asked for no faster than it once came.

import { type Expiring, Timer } from '../flow/timer-wheel.ts';
import type { Exchange, RunningAttempt } from './exchange.ts';
import { follow } from './following.ts';

/** Bodies beyond this are sent in pieces of this size, so that a slow reader is seen to make progress. */
export const REPLAY_ABOVE = 64 * 1024;

export class Replay implements RunningAttempt, Expiring {
  readonly startedAt = 0;
  readonly #exchange: Exchange;
  readonly #body: Buffer;
  /** Pairs of end offset and ms after the head, or null: at once. */
  readonly #pace: readonly number[] | null;
  readonly #startedAt: number;
  readonly #timer = new Timer(this);
  #sent = 0;
  /** Index into `pace` of the piece that comes next, and where those before it end. */
  #next = 0;
  #dueEnd = 0;
  #paused = false;
  #over = false;

  constructor(exchange: Exchange, body: Buffer, pace: readonly number[] | null) {
    this.#exchange = exchange;
    this.#body = body;
    this.#pace = pace;
    this.#startedAt = exchange.shared.now();
  }

  start(): void {
    follow(this.#exchange, this);
    this.#go();
  }

  /** How far one may send by now. */
  #due(): number {
    const pace = this.#pace;
    if (!pace) return this.#body.length;
    const elapsed = this.#exchange.shared.now() - this.#startedAt;
    for (; this.#next < pace.length && pace[this.#next + 1]! <= elapsed; this.#next += 2)
      this.#dueEnd = pace[this.#next]!;
    return this.#next >= pace.length ? this.#body.length : this.#dueEnd;
  }

  #go(): void {
    const due = this.#due();
    while (!this.#paused && !this.#over && this.#sent < due) {
      const end = Math.min(due, this.#sent + REPLAY_ABOVE);
      const piece = this.#body.subarray(this.#sent, end);
      this.#sent = end;
      if (end === this.#body.length) {
        this.#end(piece);
        return;
      }
      this.#exchange.write(piece);
    }
    if (this.#paused || this.#over) return;
    if (this.#body.length === 0) this.#end(null);
    else this.#exchange.shared.wheel.arm(this.#timer, this.#startedAt + this.#pace![this.#next + 1]!);
  }

  #end(last: Buffer | null): void {
    this.#over = true;
    this.#exchange.finish(last);
  }

  cancel(): void {
    this.#over = true;
    this.#exchange.shared.wheel.cancel(this.#timer);
  }

  pause(): void {
    this.#paused = true;
    this.#exchange.shared.wheel.cancel(this.#timer);
  }

  resume(): void {
    this.#paused = false;
    this.#go();
  }

  expired(): void {
    this.#go();
  }
}

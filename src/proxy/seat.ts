// One follower's place in a shared fetch: how far it has come.

import type { Exchange, RunningAttempt } from './exchange.ts';
import type { Flight } from './flight.ts';

export class Seat implements RunningAttempt {
  readonly #flight: Flight;
  readonly exchange: Exchange;
  readonly startedAt = 0;
  /** The piece it gets next, and the bytes it has got. */
  next = 0;
  sent = 0;
  #blocked = false;
  #left = false;

  constructor(flight: Flight, exchange: Exchange) {
    this.#flight = flight;
    this.exchange = exchange;
  }

  /** The newest piece, just added; those who are behind get it in their turn. */
  push(chunk: Buffer): void {
    if (this.#blocked || this.next !== this.#flight.pieces.count - 1) return;
    this.#advance(chunk);
    this.exchange.write(chunk);
  }

  /** The flight is over; `last` is the newest piece, just added, or null. */
  end(last: Buffer | null): void {
    const { pieces } = this.#flight;
    if (this.#blocked) return;
    if (last && this.next === pieces.count - 1) {
      this.#advance(last);
      this.rise();
      this.exchange.finish(last);
    } else this.resume();
  }

  #advance(chunk: Buffer): void {
    this.next++;
    this.sent += chunk.length;
  }

  /** Gives the place up without a word to the exchange. */
  rise(): void {
    if (this.#left) return;
    this.#left = true;
    this.exchange.attempt = null;
    this.#flight.leave(this);
  }

  // ---- the exchange's word

  cancel(): void {
    this.rise();
  }

  pause(): void {
    this.#blocked = true;
  }

  /** Catches up, as far as the client takes it. */
  resume(): void {
    this.#blocked = false;
    const { pieces } = this.#flight;
    while (!this.#blocked && !this.#left && this.next < pieces.count) {
      const chunk = pieces.at(this.next);
      this.#advance(chunk);
      this.exchange.write(chunk);
    }
    if (this.#left) return;
    if (this.#flight.over && this.next === pieces.count) {
      this.rise();
      this.exchange.finish(null);
    } else this.#flight.moved();
  }
}

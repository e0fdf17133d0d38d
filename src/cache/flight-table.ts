// Fetches under way by key, and marks on keys whose answers turned out not to be for sharing.

import { isMeant, type Purge } from './purge.ts';

/** More marks than this, and the oldest goes: its key only waits in line once more. */
const MAX_MARKS = 10_000;

/** How long a mark is remembered when it is over. */
const REMEMBERED_MS = 3600 * 1000;

/** What the table needs of a flight. Flights of one key (its variants) are linked by `next`. */
export interface Flying {
  readonly key: string;
  readonly upstream: string;
  /** Path and query below the upstream. */
  readonly uri: string;
  next: this | null;
  /** What it fetches has just been changed: good for those who asked before, for nobody after. */
  outdated(): void;
  /** Ends it, whoever follows. */
  stop(): void;
}

export class FlightTable<F extends Flying> {
  readonly #byKey = new Map<string, F>();
  readonly #all = new Set<F>();
  /** Key → until when, ms. */
  readonly #marks = new Map<string, number>();

  get size(): number {
    return this.#all.size;
  }

  /** The first of the flights that may be joined under a key. */
  find(key: string): F | null {
    return this.#byKey.get(key) ?? null;
  }

  /** @param open others may find and join it */
  add(flight: F, open: boolean): void {
    this.#all.add(flight);
    if (!open) return;
    flight.next = this.find(flight.key);
    this.#byKey.set(flight.key, flight);
  }

  /** Nobody finds it any more; it flies on. */
  close(flight: F): void {
    const first = this.#byKey.get(flight.key);
    if (!first) return;
    if (first === flight) {
      if (flight.next) this.#byKey.set(flight.key, flight.next);
      else this.#byKey.delete(flight.key);
    } else {
      let before: F = first;
      while (before.next && before.next !== flight) before = before.next;
      if (before.next === flight) before.next = flight.next;
    }
    flight.next = null;
  }

  remove(flight: F): void {
    this.close(flight);
    this.#all.delete(flight);
  }

  /** What these fetch has been changed, or is not wanted any more. */
  purge(what: Purge): void {
    for (const flight of this.#all) {
      if (!isMeant(what, flight)) continue;
      this.close(flight);
      flight.outdated();
    }
  }

  /** Hit-for-miss (Varnish): until then requests of this key do not wait for each other. */
  mark(key: string, until: number): void {
    this.#marks.delete(key);
    this.#marks.set(key, until);
    if (this.#marks.size > MAX_MARKS) this.#marks.delete(this.#marks.keys().next().value!);
  }

  isMarked(key: string, now: number): boolean {
    if (this.#marks.size === 0) return false;
    const until = this.#marks.get(key);
    if (until === undefined) return false;
    return now < until;
  }

  /** It was marked in the last hour: a client's own condition is then worth more than an answer that all could share. */
  wasMarked(key: string, now: number): boolean {
    if (this.#marks.size === 0) return false;
    const until = this.#marks.get(key);
    return until !== undefined && now < until + REMEMBERED_MS;
  }

  stopAll(): void {
    for (const flight of [...this.#all]) flight.stop();
  }
}

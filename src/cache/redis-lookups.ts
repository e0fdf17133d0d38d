// Look-ups that Redis owes an answer to: each ends exactly once, with an entry or, at the latest when its time is over, without.

import type { Redis } from 'ioredis';
import { Entry } from './entry.ts';
import { isMeant, type Purge } from './purge.ts';
import { DEFAULT_VARIANT, hashedValues, newestMatch, type RedisLayout } from './redis-layout.ts';

/** The request's normalised values of these fields. */
export type VaryOf = (entryVary: readonly string[]) => readonly string[];

export class RedisCounters {
  gets = 0;
  hits = 0;
  /** Stored entries. */
  puts = 0;
  /** Entries not stored: Redis is down, or too much is being written. */
  dropped = 0;
  /** Look-ups that were too late; Redis is down from then on, and those beside them are given up uncounted. */
  timeouts = 0;
  /** Refused or broken off by Redis. */
  errors = 0;
  /** Values that are no entry, or another than the one looked for. */
  rejected = 0;
}

export interface LookupEvents {
  readonly onLate: () => void;
  readonly onError: (error: unknown) => void;
}

interface Lookup {
  readonly key: string;
  readonly varyOf: VaryOf;
  readonly done: (entry: Entry | null) => void;
  readonly timer: NodeJS.Timeout;
  /** What was thrown out since it began, or was being thrown out then: the answer may be from before. */
  readonly purges: Purge[];
}

export class RedisLookups {
  readonly #layout: RedisLayout;
  readonly #timeoutMs: number;
  readonly #decode: (bytes: Buffer) => Entry | null;
  readonly #counters: RedisCounters;
  readonly #events: LookupEvents;
  readonly #running = new Set<Lookup>();
  readonly #purging = new Set<Purge>();

  constructor(
    layout: RedisLayout,
    timeoutMs: number,
    decode: (bytes: Buffer) => Entry | null,
    counters: RedisCounters,
    events: LookupEvents,
  ) {
    this.#layout = layout;
    this.#timeoutMs = timeoutMs;
    this.#decode = decode;
    this.#counters = counters;
    this.#events = events;
  }

  /** One round trip, unless a variant by Vary is the one; one deadline over both. */
  begin(redis: Redis, key: string, varyOf: VaryOf, done: (entry: Entry | null) => void): void {
    const timer = setTimeout(() => this.#late(lookup), this.#timeoutMs);
    timer.unref();
    const lookup: Lookup = { key, varyOf, done, timer, purges: [...this.#purging] };
    this.#running.add(lookup);
    redis.mgetBuffer(this.#layout.answer(key, DEFAULT_VARIANT), this.#layout.index(key)).then(
      ([answer, index]) => this.#choose(redis, lookup, answer ?? null, index ?? null),
      (error) => this.#failed(lookup, error),
    );
  }

  /** From now until `purged`, and for those who ask already, what it means is not there. */
  purging(what: Purge): void {
    this.#purging.add(what);
    for (const { purges } of this.#running) purges.push(what);
  }

  purged(what: Purge): void {
    this.#purging.delete(what);
  }

  /** Ends all of them without an entry. */
  giveUp(): void {
    for (const lookup of [...this.#running]) this.#finish(lookup, null);
  }

  #choose(redis: Redis, lookup: Lookup, answer: Buffer | null, index: Buffer | null): void {
    if (!this.#running.has(lookup)) return;
    const plain = answer && this.#decoded(lookup, answer);
    const match = index && newestMatch(index.toString(), lookup.varyOf);
    if (!match || (plain && plain.responseAt >= match.responseAt)) {
      this.#finish(lookup, plain);
      return;
    }
    redis.getBuffer(this.#layout.answer(lookup.key, match.variant)).then(
      (bytes) => {
        if (this.#running.has(lookup)) this.#finish(lookup, (bytes && this.#decoded(lookup, bytes)) ?? plain);
      },
      (error) => this.#failed(lookup, error),
    );
  }

  #decoded({ key, varyOf }: Lookup, bytes: Buffer): Entry | null {
    const entry = this.#tryDecode(bytes);
    if (entry?.key === key) {
      if (entry.vary.length === 0) return entry;
      const varyValues = varyOf(entry.vary);
      const hashed = hashedValues(varyValues);
      if (entry.varyValues.every((value, i) => value === hashed[i])) return new Entry({ ...entry, varyValues });
    }
    this.#counters.rejected++;
    return null;
  }

  /** The bytes are from outside: what a decoder does not expect of them is not worth a crash. */
  #tryDecode(bytes: Buffer): Entry | null {
    try {
      return this.#decode(bytes);
    } catch {
      return null;
    }
  }

  #finish(lookup: Lookup, entry: Entry | null): void {
    if (!this.#running.delete(lookup)) return;
    clearTimeout(lookup.timer);
    const found = entry && !lookup.purges.some((what) => isMeant(what, entry)) ? entry : null;
    if (found) this.#counters.hits++;
    lookup.done(found);
  }

  #late(lookup: Lookup): void {
    // If it was us who stalled, the answer is read in this turn of the loop.
    setImmediate(() => {
      if (!this.#running.has(lookup)) return;
      this.#counters.timeouts++;
      this.#events.onLate();
      this.#finish(lookup, null);
    });
  }

  #failed(lookup: Lookup, error: unknown): void {
    if (!this.#running.has(lookup)) return;
    this.#events.onError(error);
    this.#finish(lookup, null);
  }
}

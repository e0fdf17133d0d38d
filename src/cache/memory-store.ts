// Stored answers in memory: bounded by bytes, least recently used out first, and found by key or by URI without a copy.
// Our own instead of lru-cache: variants, the index by URI and the walk in slices need the links anyway, and then the order of use is one more.

import { CacheCounters } from './counters.ts';
import type { Entry } from './entry.ts';
import { isMeant, type Purge } from './purge.ts';
import { ShardedMap } from './sharded-map.ts';

/** How long a walk over all entries may hold the event loop up at a time, and how many entries it visits between two looks at the clock. */
const SLICE_MS = 2;
const SLICE_ENTRIES = 64;

/** A walk from the newest to the oldest entry that survives the removal of any. */
interface Walk {
  at: Entry | null;
}

/**
 *   #keys   key → variant → variant …       chained by `next`, newest first
 *   #places upstream → uri → entry ⇄ entry   chained by `before` and `after`
 *   #newest ⇄ … ⇄ #oldest                    order of use, by `newer` and `older`
 */
export class MemoryStore {
  readonly maxBytes: number;
  readonly #maxVariants: number;
  readonly #now: () => number;
  readonly #keys = new ShardedMap<Entry>();
  readonly #places = new Map<string, ShardedMap<Entry>>();
  readonly #counters = new Map<string, CacheCounters>();
  readonly #walks = new Set<Walk>();
  #newest: Entry | null = null;
  #oldest: Entry | null = null;
  bytes = 0;
  entries = 0;

  /** @param now a monotonic clock, ms, for the slices */
  constructor(maxBytes: number, maxVariants: number, now: () => number) {
    this.maxBytes = maxBytes;
    this.#maxVariants = maxVariants;
    this.#now = now;
  }

  /** The counters of one upstream, made when first asked for. */
  countersOf(upstream: string): CacheCounters {
    let counters = this.#counters.get(upstream);
    if (!counters) {
      counters = new CacheCounters();
      this.#counters.set(upstream, counters);
    }
    return counters;
  }

  /** The variants of a key, linked by `next`, the newest first; null = none. */
  find(key: string): Entry | null {
    return this.#keys.get(key) ?? null;
  }

  /** Entries of one URI, under whatever keys. */
  countAt(upstream: string, uri: string): number {
    let count = 0;
    for (let entry = this.#places.get(upstream)?.get(uri) ?? null; entry; entry = entry.after) count++;
    return count;
  }

  /** It was used. Nothing changes places during a walk, or the walk would miss what is used at that moment. */
  touch(entry: Entry): void {
    if (entry === this.#newest || this.#walks.size > 0 || !this.holds(entry)) return;
    this.#unlinkUse(entry);
    this.#linkUse(entry);
  }

  /** Takes an entry in place of the same variant, if there is one. @returns false when it is larger than the whole store */
  put(entry: Entry): boolean {
    if (entry.bytes > this.maxBytes) return false;
    for (let old = this.find(entry.key); old; old = old.next) {
      if (!isSameVariant(old, entry)) continue;
      this.remove(old);
      break;
    }
    while (this.bytes + entry.bytes > this.maxBytes) this.#evict(this.#oldest!);
    entry.next = this.find(entry.key);
    this.#keys.set(entry.key, entry);
    this.#linkUse(entry);
    this.#linkPlace(entry);
    const counters = this.countersOf(entry.upstream);
    counters.entries++;
    counters.bytes += entry.bytes;
    this.entries++;
    this.bytes += entry.bytes;
    this.#dropSurplusVariant(entry);
    return true;
  }

  remove(entry: Entry): void {
    if (!this.holds(entry)) return;
    this.#unlinkKey(entry);
    this.#unlinkUse(entry);
    this.#unlinkPlace(entry);
    const counters = this.countersOf(entry.upstream);
    counters.entries--;
    counters.bytes -= entry.bytes;
    this.entries--;
    this.bytes -= entry.bytes;
  }

  /** Throws out every entry of one URI, at once. @returns how many */
  invalidate(upstream: string, uri: string): number {
    const counters = this.countersOf(upstream);
    let count = 0;
    for (let entry = this.#places.get(upstream)?.get(uri) ?? null; entry; count++) {
      const next: Entry | null = entry.after;
      this.remove(entry);
      entry = next;
    }
    counters.invalidated += count;
    return count;
  }

  /** Throws out what matches, in slices. @returns how many */
  async purge(what: Purge): Promise<number> {
    const { upstream, uri, prefix, key } = what;
    if (upstream !== null && uri !== null && prefix === null && key === null) return this.invalidate(upstream, uri);
    let count = 0;
    await this.#walk((entry) => {
      if (!isMeant(what, entry)) return;
      this.remove(entry);
      this.countersOf(entry.upstream).invalidated++;
      count++;
    });
    return count;
  }

  /** Throws out what is of no more use, in slices. */
  async sweep(isUseful: (entry: Entry) => boolean): Promise<void> {
    await this.#walk((entry) => {
      if (isUseful(entry)) return;
      this.remove(entry);
      this.countersOf(entry.upstream).swept++;
    });
  }

  /** Gives bytes back until no more than `bytes` are held: the memory is needed elsewhere. */
  shrinkTo(bytes: number): void {
    while (this.bytes > bytes) this.#evict(this.#oldest!);
  }

  async #walk(visit: (entry: Entry) => void): Promise<void> {
    const walk: Walk = { at: this.#newest };
    this.#walks.add(walk);
    try {
      for (let sliceEnd = this.#now() + SLICE_MS; walk.at; ) {
        for (let n = 0; n < SLICE_ENTRIES && walk.at; n++) {
          const entry: Entry = walk.at;
          walk.at = entry.older;
          visit(entry);
        }
        if (walk.at && this.#now() >= sliceEnd) {
          await new Promise((resolve) => setImmediate(resolve));
          sliceEnd = this.#now() + SLICE_MS;
        }
      }
    } finally {
      this.#walks.delete(walk);
    }
  }

  #evict(entry: Entry): void {
    this.remove(entry);
    this.countersOf(entry.upstream).evicted++;
  }

  #dropSurplusVariant(first: Entry): void {
    let count = 1;
    for (let entry = first; entry.next; entry = entry.next) {
      if (++count <= this.#maxVariants) continue;
      this.#evict(entry.next);
      return;
    }
  }

  holds(entry: Entry): boolean {
    return entry.newer !== null || entry.older !== null || this.#newest === entry;
  }

  #unlinkKey(entry: Entry): void {
    const first = this.#keys.get(entry.key)!;
    if (first === entry) {
      if (entry.next) this.#keys.set(entry.key, entry.next);
      else this.#keys.delete(entry.key);
    } else {
      let before = first;
      while (before.next !== entry) before = before.next!;
      before.next = entry.next;
    }
    entry.next = null;
  }

  #linkUse(entry: Entry): void {
    entry.older = this.#newest;
    if (this.#newest) this.#newest.newer = entry;
    else this.#oldest = entry;
    this.#newest = entry;
  }

  #unlinkUse(entry: Entry): void {
    if (this.#walks.size > 0) for (const walk of this.#walks) if (walk.at === entry) walk.at = entry.older;
    if (entry.newer) entry.newer.older = entry.older;
    else this.#newest = entry.older;
    if (entry.older) entry.older.newer = entry.newer;
    else this.#oldest = entry.newer;
    entry.newer = null;
    entry.older = null;
  }

  #linkPlace(entry: Entry): void {
    let places = this.#places.get(entry.upstream);
    if (!places) {
      places = new ShardedMap();
      this.#places.set(entry.upstream, places);
    }
    const first = places.get(entry.uri) ?? null;
    entry.after = first;
    if (first) first.before = entry;
    places.set(entry.uri, entry);
  }

  #unlinkPlace(entry: Entry): void {
    const places = this.#places.get(entry.upstream)!;
    if (entry.before) entry.before.after = entry.after;
    else if (entry.after) places.set(entry.uri, entry.after);
    else places.delete(entry.uri);
    if (entry.after) entry.after.before = entry.before;
    entry.before = null;
    entry.after = null;
  }
}

function isSameVariant(a: Entry, b: Entry): boolean {
  return isSameList(a.vary, b.vary) && isSameList(a.varyValues, b.varyValues);
}

function isSameList(a: readonly string[], b: readonly string[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

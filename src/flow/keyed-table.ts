// One value per key, made when it is first asked for, in a bounded table: idle ones make room, and those for whom there is none share one.

/** Idle entries are looked for among so many of the least recently used, for each key that finds the table full. */
const LOOKS = 8;

class Entry<T> {
  prev: Entry<T> | null = null;
  next: Entry<T> | null = null;
  readonly key: string;
  readonly value: T;

  constructor(key: string, value: T) {
    this.key = key;
    this.value = value;
  }
}

/**
 *   oldest ⇄ entry ⇄ entry ⇄ newest       a list beside the Map: re-ordering the Map itself would make it rehash under load
 *
 * Who keeps a value beyond the call sees to it that `isIdle` says no meanwhile, or finds himself with one that the table has dropped.
 */
export class KeyedTable<T> {
  readonly max: number;
  /** Answers given with the shared value. */
  overflowed = 0;
  readonly #make: (key: string) => T;
  readonly #isIdle: (value: T, now: number) => boolean;
  readonly #entries = new Map<string, Entry<T>>();
  #oldest: Entry<T> | null = null;
  #newest: Entry<T> | null = null;
  #overflow: T | null = null;

  /**
   * @param make called with '' for the shared value
   * @param isIdle true when a new one would do as well, so that dropping it loses nothing
   */
  constructor(max: number, make: (key: string) => T, isIdle: (value: T, now: number) => boolean) {
    this.max = max;
    this.#make = make;
    this.#isIdle = isIdle;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** O(1), and no allocation for a key that is there. */
  get(key: string, now: number): T {
    const known = this.#entries.get(key);
    if (known) {
      this.#touch(known);
      return known.value;
    }
    if (this.size >= this.max) this.#dropIdle(now);
    if (this.size >= this.max) {
      this.overflowed++;
      this.#overflow ??= this.#make('');
      return this.#overflow;
    }
    const entry = new Entry(key, this.#make(key));
    this.#entries.set(key, entry);
    this.#append(entry);
    return entry.value;
  }

  #dropIdle(now: number): void {
    for (let looks = Math.min(LOOKS, this.size); looks > 0; looks--) {
      const entry = this.#oldest!;
      if (this.#isIdle(entry.value, now)) {
        this.#unlink(entry);
        this.#entries.delete(entry.key);
        // Out of the way of the next look: a few that stay busy for long must not hide the idle ones behind them.
      } else this.#touch(entry);
    }
  }

  #touch(entry: Entry<T>): void {
    if (entry === this.#newest) return;
    this.#unlink(entry);
    this.#append(entry);
  }

  #append(entry: Entry<T>): void {
    entry.prev = this.#newest;
    if (this.#newest) this.#newest.next = entry;
    else this.#oldest = entry;
    this.#newest = entry;
  }

  #unlink(entry: Entry<T>): void {
    if (entry.prev) entry.prev.next = entry.next;
    else this.#oldest = entry.next;
    if (entry.next) entry.next.prev = entry.prev;
    else this.#newest = entry.prev;
    entry.prev = null;
    entry.next = null;
  }
}

// The connections that have no request, or none that is not answered, in the order in which that began: who makes room when there is none.
//
//   oldest ⇄ … ⇄ newest      each connection carries its own two pointers: nothing is searched, nothing is made

/** A place in the list. */
export interface Waiting {
  older: Waiting | null;
  newer: Waiting | null;
  /** It is in the list. */
  waits: boolean;
  /** Bytes of an answer that the client has not taken yet. */
  readonly unsent: number;
  /** Ends the connection at once. */
  drop(): void;
}

/** So many that still take their last answer are passed over; behind them it may be a crowd that never will. */
const SECOND_CHANCES = 16;

export class IdleList {
  #oldest: Waiting | null = null;
  #newest: Waiting | null = null;

  get oldest(): Waiting | null {
    return this.#oldest;
  }

  /** As the newest, wherever it was before. */
  add(one: Waiting): void {
    if (one.waits) this.remove(one);
    one.waits = true;
    one.older = this.#newest;
    if (this.#newest) this.#newest.newer = one;
    else this.#oldest = one;
    this.#newest = one;
  }

  /** Who is to make room. One that still takes an answer goes to the end instead, a few times. */
  choose(): Waiting | null {
    for (let chance = 0; chance < SECOND_CHANCES && this.#oldest && this.#oldest.unsent > 0; chance++) {
      this.add(this.#oldest);
    }
    return this.#oldest;
  }

  /** One that is not in the list may be taken out too. */
  remove(one: Waiting): void {
    if (!one.waits) return;
    one.waits = false;
    if (one.older) one.older.newer = one.newer;
    else this.#oldest = one.newer;
    if (one.newer) one.newer.older = one.older;
    else this.#newest = one.older;
    one.older = null;
    one.newer = null;
  }
}

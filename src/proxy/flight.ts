// One fetch shared by identical requests: the client of an exchange of its own, to which the clients' exchanges are followers.
//
//   coalesce → Flight ─ its exchange ─ acquire → dispatch → Attempt
//                │  begin, write…, finish
//                ├→ Seat → exchange of the request that began it     each at its own pace, from what the flight holds
//                ├→ Seat → exchange of a twin
//                └→ the store, when the answer is whole
//
// It flies while anyone follows. It holds the answer from its beginning while that may be stored or joined, else from where the
// slowest follower is; when that one is `flight_buffer` behind, the upstream is paused.

import type { AnswerCache } from '../cache/answer-cache.ts';
import type { Times } from '../cache/appraise.ts';
import { describesSame, notModifiedHeaders } from '../cache/conditional.ts';
import type { Entry } from '../cache/entry.ts';
import type { Flying } from '../cache/flight-table.ts';
import { mayServeOnError } from '../cache/judge.ts';
import { placeOf } from '../cache/purge.ts';
import { sameVariant, varyValues } from '../cache/vary.ts';
import { FAILURES, type FailureCode } from '../errors.ts';
import type { RequestHead } from '../http/request-head.ts';
import type { CacheUse } from './cache-use.ts';
import type { Client, ClientListener } from './client.ts';
import type { Exchange } from './exchange.ts';
import { follow, goAlone, takeTimes } from './following.ts';
import { Pieces } from './pieces.ts';
import { mayBeShared } from './reuse.ts';
import { Seat } from './seat.ts';
import { serve } from './serve.ts';
import { declaredLength, isBadDay, SharedAnswer } from './shared-answer.ts';

/** How long twins of an answer that was not for sharing do not wait for each other. */
const MARK_MS = 10_000;
/** An answer nobody wants is read to its end up to here. */
const SHORT_BYTES = 64 * 1024;

export class Flight implements Client, Flying {
  readonly key: string;
  readonly upstream: string;
  readonly uri: string;
  next: this | null = null;
  // What the exchange asks of its client.
  readonly method: string;
  readonly url: string;
  readonly head: RequestHead;
  readonly http10 = false;
  readonly unsent = 0;
  listener: ClientListener | null = null;

  /** The store that all sidecars share is asked first; and it alone, for only-if-cached. */
  readonly asksRemote: boolean;
  readonly asksOnlyStores: boolean;
  readonly #cache: AnswerCache;
  readonly #exchange: Exchange;
  /** The request that began it. */
  readonly #use: CacheUse;
  readonly #leaderPairs: readonly string[];
  #leader: Seat | null = null;
  /** A stored answer that the upstream is asked about. */
  readonly #validating: Entry | null;
  /** Goes on without followers: it renews a stored answer, or fetches one that is to be stored. */
  #goesOn: boolean;
  #outdated = false;
  readonly #seats = new Set<Seat>();
  readonly pieces: Pieces;
  #answer: SharedAnswer | null = null;
  #headAt = 0;
  readonly #pace: number[] | null;
  #over = false;

  /**
   * @param use of the request that begins it
   * @param makeExchange the exchange whose client this flight is
   */
  constructor(
    cache: AnswerCache,
    use: CacheUse,
    leader: Exchange,
    head: RequestHead,
    background: boolean,
    makeExchange: (flight: Flight) => Exchange,
  ) {
    this.key = use.key;
    this.upstream = cache.upstream;
    this.uri = placeOf(use.uri);
    this.asksRemote = !background && mayBeShared(cache, use);
    this.asksOnlyStores = use.fields.onlyIfCached;
    // A HEAD that meets a stale answer has the whole of it renewed.
    this.method = leader.client.method === 'HEAD' ? 'GET' : leader.client.method;
    this.url = leader.client.url;
    this.head = head;
    this.#cache = cache;
    this.#use = use;
    this.#leaderPairs = leader.head.forward;
    this.#validating = use.entry;
    this.#goesOn = background;
    const { flightMemory, flightBufferBytes } = leader.shared;
    this.pieces = new Pieces(flightMemory, flightBufferBytes, cache.maxEntryBytes(use.rule));
    this.#pace = use.rule?.config.pace === 'recorded' ? [] : null;
    this.#exchange = makeExchange(this);
  }

  get exchange(): Exchange {
    return this.#exchange;
  }

  get cache(): AnswerCache {
    return this.#cache;
  }

  /** For the shared store, which knows only hashes of them. */
  varyValues(names: readonly string[]): readonly string[] {
    return varyValues(names, this.#leaderPairs);
  }

  get over(): boolean {
    return this.#over;
  }

  get followers(): number {
    return this.#seats.size;
  }

  // ---- followers

  /** @see Client; Infinity = nobody waits, it renews what is stored */
  get waitedForUntil(): number {
    let latest = this.#seats.size === 0 ? Number.POSITIVE_INFINITY : 0;
    for (const { exchange } of this.#seats) latest = Math.max(latest, exchange.endsAt);
    return latest;
  }

  /** May a request follow from here on? */
  canJoin(exchange: Exchange): boolean {
    const { head, cacheUse } = exchange;
    if (this.#over || this.#seats.size >= this.#exchange.shared.flightWaiters) return false;
    // Who has tokens of his own need not wait for somebody else's.
    const { waiter } = this.#exchange;
    if (waiter?.heldBy && !exchange.upstream.metering!.isSame(waiter.turnstiles, head.forward)) return false;
    const answer = this.#answer;
    // Until the head is here the answer is newer than any request that waits for it, also one that wants the upstream's word.
    if (!answer) return this.#isVariant(head.forward, this.#use.vary);
    const now = this.#exchange.shared.wallClock();
    return (
      this.pieces.complete && this.#isVariant(head.forward, answer.vary) && answer.isFreshFor(cacheUse!.fields, now)
    );
  }

  outdated(): void {
    this.#outdated = true;
    this.pieces.record = false;
    this.pieces.joinable = false;
  }

  join(exchange: Exchange, isLeader: boolean): void {
    const seat = new Seat(this, exchange);
    if (isLeader) this.#leader = seat;
    this.#seats.add(seat);
    follow(exchange, seat);
    if (this.#answer) {
      this.#beginFor(seat, this.#answer);
      seat.resume();
    }
  }

  /** Its client left, or it goes on its own. The last one takes the flight along. */
  leave(seat: Seat): void {
    if (!this.#seats.delete(seat)) return;
    if (this.#leader === seat) {
      this.#leader = null;
      // Somebody must stay, however long it takes: to leave would only be to ask once more.
      const [oldest] = this.#seats;
      if (oldest) oldest.exchange.waitsForOther = true;
    }
    if (this.#over) {
      if (this.#seats.size === 0) this.pieces.release();
      return;
    }
    this.moved();
    if (this.#seats.size === 0 && !this.#goesOn) this.#exchange.fail('client_gone', '');
  }

  /** A follower has come closer, or left: what nobody needs any more goes, and the upstream may go on. */
  moved(): void {
    let behind = 0;
    let least = this.pieces.count;
    for (const seat of this.#seats) {
      if (seat.next < least) least = seat.next;
      const lag = this.pieces.lag(seat.next, seat.sent);
      if (lag > behind) behind = lag;
    }
    this.pieces.behind = behind;
    this.pieces.trim(least);
    if (!this.#over && this.pieces.hasRoom) this.listener?.drained();
  }

  #isVariant(pairs: readonly string[], vary: readonly string[]): boolean {
    if (vary.length === 0) return true;
    const wanted = varyValues(vary, pairs);
    return varyValues(vary, this.#leaderPairs).every((value, i) => value === wanted[i]);
  }

  // ---- the exchange's client

  readBody(): void {}
  pauseBody(): void {}
  resumeBody(): void {}

  interim(status: number, reason: string, headers: readonly string[]): void {
    // Whether the others may have this answer is only known from its head.
    this.#leader?.exchange.interim(status, reason, headers);
  }

  begin(status: number, reason: string, headers: string[]): void {
    const exchange = this.#exchange;
    if (exchange.failure) return; // an answer of ours: finish() tells the followers what happened
    const { shared } = exchange;
    this.#headAt = shared.now();
    const responseAt = shared.wallClock();
    const times = { requestAt: responseAt - Math.max(0, this.#headAt - exchange.dispatchedAt), responseAt };
    if (status === 304 && this.#validating) this.#renewed(this.#validating, headers, times);
    else if (isBadDay(status, this.#use.rule !== null) && this.#staleInstead(status, '')) {
      // A short error is read to its end, for the connection's sake.
      if (declaredLength(headers) > SHORT_BYTES) exchange.dismiss();
    } else this.#landed(new SharedAnswer(this.#cache, this.#use, this.method, status, reason, headers, times));
  }

  /** The upstream says that what is stored still holds (RFC 9111 section 4.3.4). */
  #renewed(stored: Entry, headers: readonly string[], times: Times): void {
    if (!describesSame(stored, headers, '304')) {
      this.#cache.drop(stored);
      this.#apart('other_validator');
      return;
    }
    if (this.#outdated) {
      this.#apart('outdated');
      return;
    }
    const { rule, fields } = this.#use;
    const entry = this.#cache.renew(stored, headers, rule, fields, this.#leaderPairs, times);
    if (!entry) {
      this.#apart('not_storable');
      return;
    }
    this.#land();
    this.#serve(entry, [...this.#seats], 'revalidated', 304, '');
  }

  /** @param status of the upstream's answer, 0 = it gave none; `detail` says what happened instead */
  #serve(entry: Entry, seats: readonly Seat[], outcome: 'stale' | 'revalidated', status: number, detail: string): void {
    for (const seat of seats) {
      const { exchange } = seat;
      const use = exchange.cacheUse!;
      if (!sameVariant(entry, exchange.head.forward)) {
        seat.rise();
        use.vary = entry.vary;
        exchange.rewind(1);
        continue;
      }
      use.outcome = outcome;
      use.wasForwarded = true;
      use.forwardStatus = status;
      use.detail = detail;
      use.collapsed = seat !== this.#leader;
      takeTimes(exchange, this.#exchange, seat === this.#leader);
      seat.rise();
      if (!serve(exchange, use, entry)) goAlone(exchange, use.detail);
    }
  }

  /** Those who may have the stale entry get it. @returns false when others are left */
  #staleInstead(status: number, detail: string): boolean {
    const entry = this.#validating;
    if (!entry) return false;
    const now = this.#exchange.shared.wallClock();
    const able = [...this.#seats].filter(
      ({ exchange: { head, cacheUse } }) =>
        sameVariant(entry, head.forward) && mayServeOnError(entry, cacheUse!.fields, now),
    );
    const isEverybody = able.length === this.#seats.size;
    if (isEverybody) this.#land();
    this.#serve(entry, able, 'stale', status, detail);
    return isEverybody;
  }

  /** The head of an answer is here: who may have it, and is it stored? */
  #landed(answer: SharedAnswer): void {
    const { flights, now } = this.#exchange.shared;
    this.#answer = answer;
    // Without a length or chunks a crash of the upstream looks like the end of its answer.
    const isStored =
      answer.appraisal.storable && this.#exchange.answerIsDelimited && !this.#outdated && this.#fits(answer);
    const forAll = answer.isForAll(this.#cache);
    // Who comes later than its head may only have what would be a hit if it were stored already.
    const open = forAll && !this.#outdated && answer.isFresh;
    this.pieces.record = isStored;
    this.pieces.joinable = open;
    if (!open) flights.close(this);
    if (!forAll && answer.status < 400) flights.mark(this.key, now() + MARK_MS);
    for (const seat of [...this.#seats]) {
      if (seat === this.#leader) this.#beginFor(seat, answer, isStored);
      else if (!forAll) goAlone(seat.exchange, answer.why);
      else if (!this.#isVariant(seat.exchange.head.forward, answer.vary)) {
        seat.rise();
        seat.exchange.cacheUse!.vary = answer.vary;
        seat.exchange.rewind(1);
      } else this.#beginFor(seat, answer);
    }
    if (Number.isFinite(answer.declaredLength)) this.#endIfUseless(answer.declaredLength);
  }

  /** Nobody wants the rest, and it is not short. */
  #endIfUseless(bytes: number): void {
    if (this.#over || this.#seats.size > 0 || this.pieces.record || bytes <= SHORT_BYTES) return;
    this.#land();
    this.pieces.release();
    this.#exchange.dismiss();
  }

  #fits({ declaredLength }: SharedAnswer): boolean {
    const fits = declaredLength === Number.POSITIVE_INFINITY || declaredLength <= this.pieces.maxRecorded;
    if (!fits && this.#cache.stores) this.#cache.counters.tooLarge++;
    return fits && this.#cache.stores;
  }

  #beginFor(seat: Seat, answer: SharedAnswer, stored = false): void {
    const { exchange } = seat;
    const use = exchange.cacheUse!;
    const isLeader = seat === this.#leader;
    use.stored = stored;
    use.collapsed = !isLeader;
    use.outcome = isLeader ? 'miss' : 'coalesced';
    const { counters } = this.#cache;
    if (isLeader) counters.misses++;
    else {
      counters.coalesced++;
      counters.savedRequests++;
    }
    takeTimes(exchange, this.#exchange, isLeader);
    if (this.method === 'GET' && answer.isKnownTo(use.fields)) {
      if (this.pieces.record) this.#goesOn = true;
      seat.rise();
      exchange.answer(304, '', notModifiedHeaders(answer.shared));
      exchange.finish(null);
    } else exchange.answer(answer.status, answer.reason, (isLeader ? answer.headers : answer.shared).slice());
  }

  write(chunk: Buffer): boolean {
    if (!this.#answer) return true; // of an answer nobody wants: a stale one was served
    this.#add(chunk);
    for (const seat of this.#seats) seat.push(chunk);
    this.moved();
    this.#endIfUseless(this.pieces.bytes);
    return this.pieces.hasRoom;
  }

  #add(chunk: Buffer): void {
    this.pieces.add(chunk);
    if (this.pieces.record) this.#pace?.push(this.pieces.bytes, this.#exchange.shared.now() - this.#headAt);
  }

  finish(last: Buffer | null): void {
    const { failure, failureDetail } = this.#exchange;
    if (failure) {
      this.#failed(failure, failureDetail);
      return;
    }
    if (this.#over) return; // everybody was served from what is stored
    if (last && this.#answer) this.#add(last);
    this.#store();
    this.#land();
    this.pieces.record = false;
    this.pieces.joinable = false;
    for (const seat of [...this.#seats]) seat.end(last);
    if (this.#seats.size === 0) this.pieces.release();
    else this.pieces.trimTo(this.#seats);
  }

  /** The answer was cut, or the last follower has left. */
  abort(): void {
    this.#failed(this.#exchange.failure ?? 'internal_error', this.#exchange.failureDetail);
  }

  #failed(code: FailureCode, detail: string): void {
    if (this.#over) return;
    // What is wrong with one client's request is nobody else's business.
    const isTheirs = FAILURES[code].side !== 'client';
    if (!this.#answer && isTheirs && this.#staleInstead(0, code)) return;
    this.#land();
    for (const seat of [...this.#seats]) {
      if (seat !== this.#leader && !isTheirs && !seat.exchange.begun) {
        goAlone(seat.exchange, 'failed');
        continue;
      }
      if (!seat.exchange.begun) this.#cache.counters.misses++;
      takeTimes(seat.exchange, this.#exchange, seat === this.#leader);
      seat.exchange.refusedBy = this.#exchange.refusedBy;
      seat.exchange.fail(code, detail);
    }
    this.pieces.release();
  }

  /** All that was fetched becomes an entry. */
  #store(): void {
    const answer = this.#answer;
    if (!answer || !this.pieces.record) {
      if (answer?.appraisal.storable && this.pieces.overflowed && this.#cache.stores) this.#cache.counters.tooLarge++;
      return;
    }
    const { shared, dispatchedAt } = this.#exchange;
    const costMs = Math.max(0, shared.now() - dispatchedAt);
    this.#cache.store(answer.entry(this, this.#leaderPairs, this.pieces.whole(), costMs, this.#pace));
  }

  /** An answer of the other store that this request does not know yet, and that nothing has changed since it was asked for. */
  isNews(entry: Entry): boolean {
    return !this.#outdated && (this.#validating === null || entry.responseAt > this.#validating.responseAt);
  }

  /** The other store had it: everybody looks again, and nobody asks there twice. */
  recalled(entry: Entry): void {
    this.#land();
    this.#cache.adopt(entry, this.#exchange.shared.wallClock());
    const body = this.#exchange.takeBody();
    for (const seat of [...this.#seats]) {
      const { exchange } = seat;
      const use = exchange.cacheUse!;
      if (seat === this.#leader) {
        exchange.body = body;
        use.recalled = true;
      }
      seat.rise();
      use.offered = entry;
      exchange.rewind(2);
    }
    this.#exchange.dismiss();
  }

  /** No answer that could be shared: the one whose request it was too asks on its own, plainly. */
  #apart(why: string): void {
    this.#land();
    if (this.#leader) this.#leader.exchange.body = this.#exchange.takeBody();
    for (const seat of [...this.#seats]) goAlone(seat.exchange, why);
  }

  #land(): void {
    this.#over = true;
    this.#exchange.shared.flights.remove(this);
  }

  stop(): void {
    if (!this.#over) this.#exchange.fail('draining', '');
  }
}

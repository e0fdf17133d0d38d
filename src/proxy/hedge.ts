// A second attempt beside a slow first one (Dean & Barroso, "The Tail at Scale", 2013): the first good answer wins, the other is cancelled.
//
//   exchange ── attempt (slow) ──► upstream
//       ▲
//       └─── Hedge ◄── exchange of its own ── attempt ──► upstream        has the permit that was to spare

import type { FailureCode } from '../errors.ts';
import type { RequestHead } from '../http/request-head.ts';
import type { Client, ClientListener } from './client.ts';
import { Phase } from './deadlines.ts';
import type { Exchange, RunningAttempt } from './exchange.ts';
import { giveBack } from './queueing.ts';
import { hasBodyStill } from './retry.ts';

/** ms until an exchange that has sent its first attempt gets a second one; Infinity = never. */
export function hedgeDelayMs(exchange: Exchange): number {
  const hedging = exchange.upstream.hedging!;
  // To name a path there is to say that its requests may be sent twice.
  if (!hedging.paths.matches(exchange.target) || !hasBodyStill(exchange)) return Number.POSITIVE_INFINITY;
  return hedging.delayMs();
}

/** No answer to settle for while another is on its way. */
export function isPoor(status: number): boolean {
  return status === 429 || status >= 500;
}

/** Whom the second attempt answers: on its good answer it takes the first one's place. */
export class Hedge implements Client, RunningAttempt {
  readonly method: string;
  readonly url: string;
  readonly head: RequestHead;
  readonly http10 = false;
  listener: ClientListener | null = null;
  readonly startedAt = 0;
  readonly exchange: Exchange;
  readonly #first: Exchange;
  #won = false;
  #over = false;

  constructor(first: Exchange, makeExchange: (hedge: Hedge) => Exchange) {
    this.method = first.client.method;
    this.url = first.client.url;
    this.head = first.head;
    this.#first = first;
    this.exchange = makeExchange(this);
    this.exchange.isHedge = true;
    this.exchange.turnstiles = first.turnstiles;
    this.exchange.tried = first.tried;
    this.exchange.lentBody = first.body;
    first.hedge = this;
    first.upstream.stats.hedges++;
    first.isHedged = true;
  }

  get unsent(): number {
    return this.#first.client.unsent;
  }

  /** The first attempt is over without a good answer: now this one's is the client's, whatever it is. It needs one permit only. */
  takeOver(): void {
    const first = this.#first;
    first.attempt = this;
    first.waitsForOther = true;
    first.enter(Phase.Flight, first.shared.now());
    first.rearm();
    giveBack(first);
  }

  /** The first attempt has an answer, but a poor one, which is still on its way. */
  get #firstIsPoor(): boolean {
    return this.#first.attempt !== this && this.#first.headAt >= 0;
  }

  // ---- its own exchange's word

  readBody(): void {}
  pauseBody(): void {}
  resumeBody(): void {}
  interim(): void {}

  begin(status: number, reason: string, headers: string[]): void {
    const { exchange } = this;
    const first = this.#first;
    if (exchange.failure || this.#over) return;
    if (first.attempt !== this) {
      if (isPoor(status) && !this.#firstIsPoor) {
        this.#lose();
        return;
      }
      const { stats } = first.upstream;
      // It took that long at least. Or the percentile would only ever know of quick ones, and sink.
      if (first.headAt < 0) stats.headCame(first.shared.now() - (first.attempt?.startedAt ?? first.dispatchedAt));
      first.attempt?.cancel(null);
      this.takeOver();
      stats.hedgesWon++;
    }
    this.#won = true;
    first.hedge = null;
    first.sentAt = exchange.sentAt;
    first.headAt = exchange.headAt;
    first.reused = exchange.reused;
    first.connectMs = exchange.connectMs;
    first.via = exchange.via;
    first.answer(status, reason, headers);
  }

  write(chunk: Buffer): boolean {
    this.#first.write(chunk);
    return !this.#first.upstreamPaused;
  }

  finish(last: Buffer | null, trailers?: readonly string[]): void {
    const { failure, failureDetail, endedAt } = this.exchange;
    if (failure) this.#failed(failure, failureDetail);
    else if (this.#won && !this.#over) {
      this.#over = true;
      this.#first.endedAt = endedAt;
      this.#first.finish(last, trailers);
    }
  }

  abort(): void {
    this.#failed(this.exchange.failure ?? 'internal_error', this.exchange.failureDetail);
  }

  #failed(code: FailureCode, detail: string): void {
    if (this.#over) return;
    this.#over = true;
    const first = this.#first;
    first.hedge = null;
    if (first.sentAt >= 0 || this.exchange.sentAt >= 0) first.mayHaveRun = true;
    if (this.#firstIsPoor) first.attempt?.cancel(null);
    else if (first.attempt !== this) return;
    first.fail(code, detail);
  }

  #lose(): void {
    this.#over = true;
    this.#first.hedge = null;
    this.exchange.dismiss();
  }

  // ---- the first exchange's word

  cancel(code: FailureCode | null = null): void {
    if (this.#over) return;
    // A deadline that has passed is the server's fault, as of any attempt.
    this.exchange.attempt?.cancel(code);
    this.#lose();
  }

  pause(): void {}

  resume(): void {
    this.listener?.drained();
  }
}

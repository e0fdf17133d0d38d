// One try at the upstream: the only file that knows undici's callbacks.

import { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { FailureCode } from '../errors.ts';
import type { Outcome } from '../flow/breaker.ts';
import { FillerWatch } from '../http/filler.ts';
import { MAX_INTERIM, readResponseHead } from '../http/response-head.ts';
import { upstreamPath } from '../http/target.ts';
import { readTrailers } from '../http/trailers.ts';
import { type Carrier, NEVER_PROCESSED, PROTOCOL_ERROR } from '../upstream/carrier.ts';
import type { DialFailure } from '../upstream/dial.ts';
import type { Seeker } from '../upstream/pool.ts';
import type { UpstreamTarget } from '../upstream/upstream-target.ts';
import { Phase } from './deadlines.ts';
import type { Exchange, RunningAttempt } from './exchange.ts';
import { isPoor } from './hedge.ts';
import { delayAfterAnswer, delayAfterFailure, mayGoAgain, NO_RETRY, type Spent } from './retry.ts';
import { isDrop, outcomeOf } from './verdict.ts';

/** Without an answer for less than this an upstream is not hung, whatever it usually takes. */
const HUNG_MS = 1000;
/** No ticket of a breaker. */
const UNJUDGED = -1;
/** Its answer was discarded for a hedge that has failed meanwhile. */
const NEITHER = 'neither attempt had a good answer';
/** A refused answer is read to its end for the connection's sake, if it is as short as errors are. */
const SHORT_BYTES = 16 * 1024;

export class Attempt implements Seeker, RunningAttempt, Spent, Dispatcher.DispatchHandler {
  /** After a failure there it does not trust the server's idle connections. */
  readonly fresh: boolean;
  readonly #exchange: Exchange;
  readonly #target: UpstreamTarget;
  readonly startedAt: number;
  /** Of the target's breaker. */
  readonly #ticket: number;
  #connection: Carrier | null = null;
  #controller: Dispatcher.DispatchController | null = null;
  #cancelled = false;
  #streams = false;
  /** The request (or some of it) was given to the socket. */
  written = false;
  #reused = false;
  /** The upstream said that it never looked at the request. */
  #unseen = false;
  /** Any byte of an answer came. */
  #answering = false;
  #interim = 0;
  /** -1 = unknown: chunked, or ended by the close of the connection */
  #declared = -1;
  #received = 0;
  #endsAtClose = false;
  #over = false;
  /** Its answer is not the client's: another attempt follows, or is on its way. */
  #discarded = false;
  #status = 0;
  #reported = false;
  #judged = false;
  readonly #filler: FillerWatch | null;

  constructor(exchange: Exchange, target: UpstreamTarget, now: number) {
    this.#exchange = exchange;
    this.#target = target;
    this.fresh = exchange.untrusted === target;
    this.startedAt = now;
    const isJudged = target.breaker !== null && exchange.way !== exchange.upstream.bypass;
    this.#ticket = isJudged ? target.breaker.begin(this.startedAt) : UNJUDGED;
    this.#filler = Number.isFinite(exchange.way.timeouts.firstEventMs) ? new FillerWatch() : null;
  }

  start(): void {
    const exchange = this.#exchange;
    exchange.attempt = this;
    exchange.via = this.#target;
    exchange.tried |= this.#target.bit;
    this.#target.inFlight++;
    this.#target.attempts++;
    exchange.enter(Phase.Connect, this.startedAt);
    if (exchange.dispatchedAt < 0) exchange.dispatchedAt = this.startedAt;
    else if (exchange.retryMs < 0) exchange.retryMs += this.startedAt;
    exchange.rearm();
    this.#target.pool.take(this);
  }

  /** How long its connection had been idle. Asked only after a failure, as it is of no use before. */
  get #idleMs(): number {
    return this.#connection ? this.startedAt - this.#connection.idleSince : 0;
  }

  get bypasses(): boolean {
    return this.#exchange.way === this.#exchange.upstream.bypass;
  }

  get #isProbe(): boolean {
    return this.#target.breaker?.isProbe(this.#ticket) ?? false;
  }

  // ---- the pool's word

  connected(connection: Carrier): void {
    const exchange = this.#exchange;
    const { pool, config } = this.#target;
    this.#connection = connection;
    this.#reused = connection.isReused;
    exchange.reused = this.#reused;
    pool.stats.sent++;
    if (this.#reused) pool.stats.reused++;
    else exchange.connectMs = exchange.shared.now() - this.startedAt;
    // From here on the slot comes back when the connection is free or closed.
    connection.slot = exchange.slot;
    exchange.slot = null;
    const { method } = exchange.client;
    const body = exchange.body ?? exchange.lentBody;
    const payload = body ? body.payload() : null;
    let headers = this.#target.withHeaders(exchange.head.forward);
    if (payload instanceof Readable) {
      this.#streams = true;
      exchange.streamsBody = true;
      if (exchange.body!.length >= 0) headers = [...headers, 'content-length', String(exchange.body!.length)];
    }
    connection.send(
      {
        path: upstreamPath(config.basePath, exchange.target),
        method: method as Dispatcher.HttpMethod,
        headers,
        body: payload,
        // undici would close after every HEAD and DELETE; only a GET or HEAD with a body may confuse the server about what follows.
        reset: payload !== null && (method === 'GET' || method === 'HEAD'),
      },
      this,
    );
  }

  connectFailed(code: DialFailure, detail: string): void {
    const { upstream, shared, tried } = this.#exchange;
    // A refusal may be a restart; a deadline or a bad certificate will not be better at once, but another server may be.
    const isBrief = code === 'connect_failed' || code === 'dns_failed';
    this.#failed(code, detail, isBrief || upstream.targets.hasOpen(shared.now(), tried));
  }

  // ---- the exchange's word

  cancel(code: FailureCode | null): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancelled = true;
    this.#report(code);
    if (!this.#connection) this.#target.pool.forget(this);
    else this.#controller?.abort(new Error('cancelled'));
  }

  pause(): void {
    this.#controller?.pause();
  }

  resume(): void {
    this.#controller?.resume();
  }

  // ---- undici's word

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#cancelled) {
      controller.abort(new Error('cancelled'));
      return;
    }
    this.written = true;
    if (this.#streams) {
      const exchange = this.#exchange;
      exchange.lastByteAt = exchange.shared.now();
      exchange.enter(Phase.Send, exchange.lastByteAt);
      exchange.rearm();
    }
  }

  onBodySent(): void {
    if (this.#streams) this.#exchange.lastByteAt = this.#exchange.shared.now();
  }

  onRequestSent(): void {
    const exchange = this.#exchange;
    if (this.#over || exchange.headAt >= 0) return;
    exchange.sentAt = exchange.shared.now();
    exchange.enter(Phase.Headers, exchange.sentAt);
    exchange.rearm();
  }

  onResponseStarted(): void {
    this.#answering = true;
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, _headers: unknown, reason?: string): void {
    if (this.#over) return;
    const exchange = this.#exchange;
    if (status < 200) {
      this.#onInterim(controller, status, reason ?? '');
      return;
    }
    const now = exchange.shared.now();
    const raw = controller.rawHeaders as unknown as Buffer[];
    if (this.#isTooLarge(raw, reason)) return;
    const head = readResponseHead(raw, status, this.#connection!.answerVersion);
    if (head.problem) {
      this.#abort('upstream_protocol_error', head.problem);
      return;
    }
    const hasBody = exchange.client.method !== 'HEAD' && status !== 204 && status !== 304;
    this.#declared = hasBody ? head.contentLength : -1;
    this.#endsAtClose = hasBody && head.contentLength < 0 && !head.chunked && !this.#connection!.marksEnds;
    exchange.headAt = now;
    if (exchange.upstream.hedging) exchange.upstream.stats.headCame(now - this.startedAt);
    if (exchange.sentAt < 0) exchange.sentAt = now; // it answered before it had the whole request
    exchange.lastByteAt = now;
    exchange.sawEvent = this.#filler === null;
    exchange.enter(Phase.Answer, now);
    exchange.rearm();
    exchange.answerIsDelimited = !this.#endsAtClose;
    this.#status = status;
    // Nothing that follows makes it better. And a probe's answer is awaited by all who are refused meanwhile: its head will do.
    if (status >= 500 || this.#isProbe) this.#judge(null);
    if (exchange.turnstiles.length > 0) this.#tellLimits(status, head.headers, now);
    if (exchange.hedge && isPoor(status)) this.#discard(NO_RETRY);
    else {
      const delay = exchange.upstream.retryBudget ? delayAfterAnswer(exchange, this, status, head.headers) : NO_RETRY;
      if (delay === NO_RETRY) exchange.answer(status, reason ?? '', head.headers);
      else this.#discard(delay);
    }
  }

  #tellLimits(status: number, headers: readonly string[], now: number): void {
    const { upstream, turnstiles, takenBefore, shared } = this.#exchange;
    // While others can be asked, what this server says of itself holds for it alone.
    const isLast = !upstream.targets.hasOpen(now, this.#target.bit);
    const pauseMs = upstream.metering!.heard(turnstiles, takenBefore, status, headers, isLast, shared.wallClock());
    if (!isLast && pauseMs > 0) this.#target.pausedUntil = Math.max(this.#target.pausedUntil, now + pauseMs);
  }

  /** This answer is not for the client. */
  #discard(delayMs: number): void {
    this.#discarded = true;
    const exchange = this.#exchange;
    exchange.retryDelayMs = delayMs;
    exchange.hedgeAt = -1;
    exchange.sawEvent = true;
    if (this.#declared > SHORT_BYTES) this.#discardedAll(true);
    else this.#exchange.rearm();
    // Without a body nothing more comes but the end, in this turn.
  }

  /** @param cut it has not been read to its end, so the connection is of no more use */
  #discardedAll(cut: boolean): void {
    const exchange = this.#exchange;
    const delay = exchange.retryDelayMs;
    if (cut) this.cancel(null);
    else {
      this.#over = true;
      this.#connection!.answered();
      this.#report(null);
    }
    if (delay >= 0) exchange.retryIn(delay);
    else exchange.attemptFailed('upstream_reset', NEITHER);
  }

  #onInterim(controller: Dispatcher.DispatchController, status: number, reason: string): void {
    if (++this.#interim > MAX_INTERIM) {
      this.#abort('upstream_protocol_error', `more than ${MAX_INTERIM} interim answers`);
      return;
    }
    // 100 and 101 were not asked for and below is no status at all: undici refuses them next, over HTTP/2 nghttp2 has all but 100.
    if (status < 102) return;
    const raw = controller.rawHeaders as unknown as Buffer[];
    if (this.#isTooLarge(raw, reason)) return;
    const head = readResponseHead(raw, status, this.#connection!.answerVersion);
    if (head.problem) this.#abort('upstream_protocol_error', head.problem);
    else this.#exchange.interim(status, reason, head.headers);
  }

  /** undici counts the bytes of names and values alone: many fields are cheap there, and a reason is not counted at all. */
  #isTooLarge(raw: readonly Buffer[], reason = ''): boolean {
    const { maxHeaders, maxHeadBytes } = this.#target.config;
    if (raw.length <= 2 * maxHeaders && reason.length <= maxHeadBytes) return false;
    const what = raw.length > 2 * maxHeaders ? `more than ${maxHeaders} fields` : 'its reason phrase alone is';
    this.#abort('upstream_head_too_large', what);
    return true;
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#over) return;
    const exchange = this.#exchange;
    exchange.shared.turnover.passed(chunk.length);
    exchange.lastByteAt = exchange.shared.now();
    if (!exchange.sawEvent && this.#filler!.sees(chunk)) exchange.sawEvent = true;
    this.#received += chunk.length;
    if (this.#discarded) {
      if (this.#received > SHORT_BYTES) this.#discardedAll(true);
      return;
    }
    if (this.#received === this.#declared) this.#finish(chunk);
    else exchange.write(chunk);
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    if (this.#over) return;
    if (this.#discarded) {
      this.#discardedAll(false);
      return;
    }
    // undici ends an answer of unknown length cleanly on a reset; it may have been cut anywhere.
    if (this.#endsAtClose && this.#connection!.socketError)
      this.#failed('upstream_cut', this.#connection!.socketError.code ?? '', false);
    else {
      const trailers = controller.rawTrailers as unknown as Buffer[] | null;
      this.#finish(null, readTrailers(trailers, this.#target.config.maxHeaders));
    }
  }

  onResponseError(_controller: unknown, error: Error & { code?: string }): void {
    if (this.#over) return;
    const begun = this.#exchange.headAt >= 0;
    const code = failureOf(error, begun);
    const detail = error.code ?? error.message;
    if (code === 'bad_request') {
      // undici would not even take it, so it will never say that the connection is free.
      this.#connection!.close('error');
      this.#failed(code, detail, false);
      return;
    }
    // The upstream says that it did nothing. What it took of a streamed body is gone all the same.
    if (error.code === NEVER_PROCESSED && !this.#streams) {
      this.#unseen = true;
      this.written = false;
    }
    // A reused socket may have been closed by the peer before it could read: no byte of an answer is the sign, not a proof.
    this.#failed(code, detail, !this.written || (this.#reused && !this.#answering && code === 'upstream_reset'));
  }

  // ---- the ends

  #finish(last: Buffer | null, trailers?: readonly string[]): void {
    this.#over = true;
    this.#exchange.endedAt = this.#exchange.shared.now();
    this.#connection!.answered();
    this.#report(null);
    this.#exchange.finish(last, trailers);
  }

  #abort(code: FailureCode, detail: string): void {
    this.cancel(code);
    this.#after(code, detail);
  }

  /** It is over. Once. @param counts false = it says nothing of the server */
  #report(code: FailureCode | null, counts = true): void {
    if (this.#reported) return;
    this.#reported = true;
    this.#target.inFlight--;
    this.#exchange.untrusted = code === null ? null : this.#target;
    this.#judge(code, counts);
  }

  /** What became of it, for those who judge servers and limits. Once. */
  #judge(code: FailureCode | null, counts = true): void {
    if (this.#judged) return;
    this.#judged = true;
    const target = this.#target;
    const outcome = counts ? this.#outcomeOf(code) : 'neutral';
    if (outcome === 'failure') target.failures++;
    else if (outcome === 'success') target.successes++;
    const { limiter } = this.#exchange.way.line;
    if (target.breaker === null && limiter.adaptive === null) return;
    const { shared, headAt, sentAt } = this.#exchange;
    const now = shared.now();
    target.breaker?.end(this.#ticket, outcome, now);
    if (isDrop(code, this.#status) && (code === null || outcome === 'failure')) limiter.dropped(this.startedAt, now);
    else if (outcome === 'success') limiter.succeeded(headAt - sentAt, this.startedAt, now);
  }

  #outcomeOf(code: FailureCode | null): Outcome {
    if (code === null) return outcomeOf(null, this.#status);
    const exchange = this.#exchange;
    const spentMs = exchange.shared.now() - this.startedAt;
    // While we pause the upstream, wait for the client's body, or have let most of it pass in the queue, the time is not its own.
    const isOurs =
      code === 'total_timeout' &&
      (exchange.upstreamPaused || exchange.phase === Phase.Send || 2 * spentMs < this.#target.config.timeouts.totalMs);
    if (isOurs) return 'neutral';
    return code === 'deadline_exceeded' && this.#hangs(spentMs) ? 'failure' : outcomeOf(code, this.#status);
  }

  /** A caller may be impatient; but it had no head after three times what others wait for theirs. */
  #hangs(spentMs: number): boolean {
    if (this.#status > 0) return false;
    const { mean, total } = this.#exchange.upstream.stats.ttfb;
    return spentMs > (total > 0 ? Math.max(HUNG_MS, 3 * mean) : 10 * HUNG_MS);
  }

  /** @param again it was not the upstream's word that ended it: it may go out once more at once */
  #failed(code: FailureCode, detail: string, again: boolean): void {
    this.#over = true;
    const exchange = this.#exchange;
    const over = exchange.settled || exchange.failure !== null;
    if (again && !over && mayGoAgain(exchange, this.written, this.#idleMs, this.#isProbe, this.#unseen)) {
      exchange.slot ??= this.#connection ? this.#connection.takeSlotBack() : null;
      if (exchange.slot) {
        // The same server gets its second chance before it is judged: a restart, or a connection it had given up, is no failure yet.
        const elsewhere = exchange.upstream.targets.hasOpen(exchange.shared.now(), exchange.tried);
        this.#report(code, elsewhere);
        if (!elsewhere) exchange.repeats++;
        if (this.written) exchange.sentTwice();
        // What was written may have cost the upstream's quota, and the next will.
        if (this.written && exchange.turnstiles.length > 0) exchange.retryIn(0);
        else exchange.again();
        return;
      }
    }
    this.#report(code);
    if (!over) this.#after(code, detail);
  }

  /** What follows a failure: another attempt, the one beside it, or the end. */
  #after(code: FailureCode, detail: string): void {
    const exchange = this.#exchange;
    if (this.#discarded && exchange.retryDelayMs === NO_RETRY) {
      exchange.attemptFailed('upstream_reset', NEITHER);
      return;
    }
    const delay = this.#discarded ? exchange.retryDelayMs : delayAfterFailure(exchange, this, code);
    if (delay === NO_RETRY) exchange.attemptFailed(code, detail);
    else exchange.retryIn(delay);
  }
}

/** @param begun the head of the answer had come */
function failureOf(error: Error & { code?: string }, begun: boolean): FailureCode {
  const code = error.code ?? '';
  if (code === 'UND_ERR_HEADERS_OVERFLOW') return 'upstream_head_too_large';
  if (code === 'UND_ERR_INVALID_ARG' || code === 'UND_ERR_NOT_SUPPORTED') return 'bad_request';
  if (isJunk(error, begun)) return 'upstream_protocol_error';
  return begun ? 'upstream_cut' : 'upstream_reset';
}

/** Bytes that are not HTTP, as opposed to a connection that ended within an answer. */
function isJunk(error: Error & { code?: string }, begun: boolean): boolean {
  if (error.code === PROTOCOL_ERROR) return !begun;
  switch (error.name) {
    // By its name: undici 8.12.4 looks its parser's code up in the wrong table and leaves `code` undefined.
    case 'HTTPParserError':
      return !error.message.includes('Invalid EOF state');
    // A status below 100.
    case 'AssertionError':
      return true;
    // What undici says of any mistake in a head that declares a length.
    case 'ResponseContentLengthMismatchError':
      return !begun;
  }
  return error.message === 'bad response' || error.message === 'bad upgrade';
}

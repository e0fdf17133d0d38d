// One request and its answer: where it stands, what it holds, and the one way in which everything is given back.

import { answerFor, FAILURES, type FailureCode } from '../errors.ts';
import type { SlotGate } from '../flow/slots.ts';
import { type Expiring, Timer } from '../flow/timer-wheel.ts';
import type { Turnstile } from '../flow/turnstile.ts';
import { type Grantee, NO_TURNSTILES, type Waiter } from '../flow/waiters.ts';
import type { RequestHead } from '../http/request-head.ts';
import type { Target } from '../http/target.ts';
import type { OperationStats } from '../observe/stats.ts';
import type { Upstream, Way } from '../upstream/upstream.ts';
import type { UpstreamTarget } from '../upstream/upstream-target.ts';
import type { Body } from './body.ts';
import type { CacheUse } from './cache-use.ts';
import type { Client, ClientListener } from './client.ts';
import { dueFailure, hasWaitedEnough, nextDeadline, overdue, Phase } from './deadlines.ts';
import { goAlone } from './following.ts';
import type { Hedge } from './hedge.ts';
import { giveBack, tookPermit } from './queueing.ts';
import { limitFields, retryAfterS } from './refusal.ts';
import { report, serverTiming } from './report.ts';
import { NO_RETRY } from './retry.ts';
import { type Holder, NEXT, type Route, WAIT } from './route.ts';
import type { Shared } from './shared.ts';
import { type StreamWatch, watchStream } from './stream-watch.ts';

/** A try at the upstream, as the exchange sees it. */
export interface RunningAttempt {
  /** When it set out, ms; for one that has a request of its own. */
  readonly startedAt: number;
  /** @param code why; null = nothing is wrong */
  cancel(code: FailureCode | null): void;
  pause(): void;
  resume(): void;
}

/** Watches the upstream's answer begin; changes nothing. */
export interface AnswerTap {
  answered(exchange: Exchange, status: number, headers: readonly string[]): void;
}

export class Exchange implements ClientListener, Grantee, Expiring {
  readonly shared: Shared;
  readonly route: Route;
  readonly upstream: Upstream;
  readonly way: Way;
  readonly client: Client;
  readonly target: Target;
  readonly head: RequestHead;
  readonly operation: OperationStats | null;
  readonly acceptedAt: number;
  /** It fetches for others: they are counted and logged, this one is not. */
  readonly forFlight: boolean;

  // The cursor over the route's stages, and where it waits.
  #cursor = 0;
  #holder: Holder | null = null;

  /** What it has to do with the cache; null = the route has none, or not looked at yet. */
  cacheUse: CacheUse | null = null;
  tap: AnswerTap | null = null;
  /** Nobody's patience but its own ends: it began the shared fetch it follows, or its answer comes from its hedge. */
  waitsForOther = false;

  // What stages took. settle() gives it back.
  body: Body | null = null;
  attempt: RunningAttempt | null = null;
  holdsPermit = false;
  slot: SlotGate | null = null;
  waiter: Waiter | null = null;
  /** The second attempt beside the first, until one of them has won. */
  hedge: Hedge | null = null;
  readonly #timer = new Timer(this);

  /** Of the exchange whose hedge this is. */
  lentBody: Body | null = null;

  // What it must wait for besides permit and slot, and what came of that.
  turnstiles: readonly Turnstile[] = NO_TURNSTILES;
  refusedBy: Turnstile | null = null;
  /** For Metering.heard. */
  takenBefore = 0;
  /** Name of its lane in the queue; '' = it did not wait, or there is only one. */
  lane = '';

  // Its attempts.
  /** The server of the last one. */
  via: UpstreamTarget | null = null;
  /** The last attempt failed at this server: the next one there does not trust its idle connections. */
  untrusted: UpstreamTarget | null = null;
  /** It is the second attempt of another exchange, and has no further ones. */
  isHedge = false;
  /** The `bit`s of the servers tried. */
  tried = 0;
  /** What nothing was written of was sent to the same server once more. */
  repeats = 0;
  /** The body went to the upstream as it came: it cannot be sent again. */
  streamsBody = false;
  /** An attempt that was given up may have been carried out. */
  mayHaveRun = false;
  /** ms until the retry that was decided on while the answer is still read to its end; -1 = none was. */
  retryDelayMs = NO_RETRY;
  retryAt = -1;
  /** ms from a failed attempt to the next one, in all. */
  retryMs = 0;
  /** When a second one sets out beside it; -1 = not. */
  hedgeAt = -1;
  /** A second attempt set out beside the first. */
  isHedged = false;

  // What happened when, in ms on the shared clock; -1 = not reached.
  phase: Phase = Phase.Body;
  phaseAt: number;
  bodyWaitMs = 0;
  queuedAt = -1;
  grantedAt = -1;
  /** The first attempt set out. */
  dispatchedAt = -1;
  connectMs = -1;
  sentAt = -1;
  headAt = -1;
  lastByteAt = -1;
  endedAt = -1;
  sawEvent = false;
  /** We have paused the upstream because the client reads slower. */
  upstreamPaused = false;
  pausedAt = -1;
  /** What the client had not taken yet when that was last looked at. */
  unsentBefore = -1;
  /** null = nobody asked for it, or the answer has not begun. */
  stream: StreamWatch | null = null;

  // The outcome.
  status = 0;
  failure: FailureCode | null = null;
  failureDetail = '';
  /** The answer's end is known by its length or its chunks, not by the end of the connection. */
  answerIsDelimited = true;
  attempts = 0;
  reused: boolean | null = null;
  bytesIn = 0;
  bytesOut = 0;
  #begun = false;
  settled = false;

  constructor(shared: Shared, route: Route, client: Client, target: Target, forFlight = false) {
    const { upstream, way } = route;
    this.shared = shared;
    this.route = route;
    this.upstream = upstream;
    this.way = way;
    this.client = client;
    this.target = target;
    this.head = client.head;
    this.operation = way.limiterStats ? way.limiterStats.operation(client.head.operation) : null;
    this.acceptedAt = shared.now();
    this.phaseAt = this.acceptedAt;
    this.forFlight = forFlight;
    client.listener = this;
    if (forFlight) return;
    upstream.stats.requests++;
    upstream.stats.inFlight++;
  }

  /**
   * The caller's own deadline, ms; Infinity = none. Those who share a fetch have theirs each.
   * Computed, as a field for a fraction costs an allocation of its own, and nearly nobody has one.
   */
  get callerEndsAt(): number {
    const { deadlineMs } = this.head;
    return deadlineMs < 0 || this.forFlight ? Number.POSITIVE_INFINITY : this.acceptedAt + deadlineMs;
  }

  /** The first of that and `timeouts.total`. */
  get endsAt(): number {
    return Math.min(this.acceptedAt + this.way.timeouts.totalMs, this.callerEndsAt);
  }

  /** Runs the stages from the cursor on until one says DONE or WAIT. */
  advance(): void {
    try {
      const { stages } = this.route;
      while (!this.settled && this.#cursor < stages.length) {
        if (stages[this.#cursor++]!(this) !== NEXT) return;
      }
    } catch (error) {
      this.crashed(error);
    }
  }

  /** @returns WAIT, for the stage to return */
  park(holder: Holder): typeof WAIT {
    this.#holder = holder;
    this.rearm();
    return WAIT;
  }

  unpark(): void {
    this.#holder = null;
    this.advance();
  }

  /** So many stages run once more. */
  rewind(stages: number): void {
    this.#cursor -= stages;
    this.advance();
  }

  /** The last stage runs once more: another attempt, at once. */
  again(): void {
    this.#cursor = this.route.stages.length - 1;
    this.#forgetAttempt();
    this.advance();
  }

  /** The next attempt sends what the upstream may have done, and billed, already. */
  sentTwice(): void {
    this.mayHaveRun = true;
    this.upstream.stats.maybeTwice++;
  }

  #forgetAttempt(): void {
    this.sentAt = -1;
    this.headAt = -1;
    this.endedAt = -1;
    this.connectMs = -1;
    this.sawEvent = false;
    this.reused = null;
  }

  /** Another attempt after a while; meanwhile others use permit and slot. */
  retryIn(delayMs: number): void {
    const now = this.shared.now();
    this.attempt = null;
    this.hedgeAt = -1;
    this.retryDelayMs = NO_RETRY;
    this.#forgetAttempt();
    this.#cursor = this.route.retryFrom;
    this.retryAt = now + delayMs;
    this.retryMs -= now;
    this.enter(Phase.Backoff, now);
    this.park(THE_CLOCK);
    giveBack(this);
    if (delayMs === 0 && !this.settled) this.unpark();
  }

  // ---- the queue

  granted(): void {
    this.waiter = null;
    if (this.operation) this.operation.queued--;
    tookPermit(this, true);
    this.unpark();
  }

  denied(by: Turnstile | null): void {
    this.waiter = null;
    if (this.operation) this.operation.queued--;
    this.refusedBy = by;
    this.fail(by ? 'rate_limited' : 'breaker_open', '');
  }

  /** The body goes to the exchange that fetches for this one, or back. */
  takeBody(): Body | null {
    const { body } = this;
    if (body) this.bytesIn = body.received;
    this.body = null;
    return body;
  }

  // ---- the request body

  bodyData(chunk: Buffer): void {
    const body = this.body;
    if (!body || this.settled) return;
    this.shared.turnover.passed(chunk.length);
    if (!body.add(chunk)) this.fail('body_memory_full', '');
    else if (this.phase === Phase.Body && body.fills(this.shared.bodyBufferBytes)) {
      // Full before its end: stop here, the rest streams once there is a permit.
      body.pause();
      this.#bodyAhead();
    }
  }

  bodyEnd(): void {
    const body = this.body;
    if (!body || this.settled) return;
    body.end();
    if (this.phase === Phase.Body) this.#bodyAhead();
  }

  #bodyAhead(): void {
    if (!this.#holder) return;
    this.bodyWaitMs = this.shared.now() - this.phaseAt;
    this.unpark();
  }

  // ---- the answer

  get begun(): boolean {
    return this.#begun;
  }

  /** An interim answer of the upstream. @returns false when it may not be passed on; the exchange has failed then */
  interim(status: number, reason: string, headers: readonly string[]): boolean {
    try {
      this.client.interim(status, reason, headers);
      return true;
    } catch (error) {
      this.fail('upstream_protocol_error', error instanceof Error ? error.message : '');
      return false;
    }
  }

  /** The upstream's answer begins: its fields, and ours. @param headers may be added to */
  answer(status: number, reason: string, headers: string[]): void {
    this.hedgeAt = -1;
    if (this.hedge) {
      const { hedge } = this;
      this.hedge = null;
      hedge.cancel();
    }
    this.tap?.answered(this, status, headers);
    if (!this.forFlight) headers.push('server-timing', serverTiming(this));
    if (this.cacheUse) headers.push('cache-status', this.cacheUse.cacheStatus(Number.NaN));
    this.begin(status, reason, headers);
  }

  /** @returns false when the head could not be sent; the exchange has failed then */
  begin(status: number, reason: string, headers: string[], stored = false): boolean {
    try {
      this.client.begin(status, reason, headers, stored);
    } catch (error) {
      this.fail('upstream_protocol_error', error instanceof Error ? error.message : '');
      return false;
    }
    this.status = status;
    this.#begun = true;
    this.body?.answered();
    const { stream } = this.way;
    if (stream) {
      this.stream = watchStream(this, stream, status, headers);
      if (this.stream) this.rearm();
    }
    return true;
  }

  /** Bytes of the answer, in the turn they came in. */
  write(chunk: Buffer): void {
    const bytes = this.stream ? this.stream.passes(chunk, this.shared.now()) : chunk;
    this.bytesOut += bytes.length;
    if (this.client.write(bytes)) return;
    this.upstreamPaused = true;
    this.pausedAt = this.shared.now();
    this.unsentBefore = this.client.unsent;
    this.attempt?.pause();
    this.rearm();
  }

  drained(): void {
    if (!this.upstreamPaused || this.settled) return;
    this.upstreamPaused = false;
    this.lastByteAt = this.shared.now();
    this.stream?.resumed(this.lastByteAt);
    // The pause may have outlasted the idle deadline, and had none of its own.
    this.rearm();
    this.attempt?.resume();
  }

  /** @param trailers fields after the body, flat */
  finish(last: Buffer | null, trailers?: readonly string[]): void {
    const bytes = last && this.stream ? this.stream.passes(last, this.shared.now()) : last;
    if (bytes) this.bytesOut += bytes.length;
    this.client.finish(bytes, trailers);
    this.settle();
  }

  /** Ends the exchange with a failure: an answer of ours while none has begun, else a reset connection. */
  fail(code: FailureCode, detail: string): void {
    if (this.settled || this.failure) return;
    this.failure = code;
    this.failureDetail = detail;
    const holder = this.#holder;
    this.#holder = null;
    holder?.forget(this);
    this.attempt?.cancel(code);
    this.hedge?.cancel();
    if (this.#begun || code === 'client_gone') {
      if (!this.#begun) this.status = FAILURES[code].status;
      const lastWord = this.stream ? this.stream.lastWord(code, detail) : null;
      if (lastWord) this.bytesOut += lastWord.length;
      this.client.abort(lastWord);
    } else this.#answerFailure(code, detail);
    this.settle();
  }

  /** An attempt has ended without an answer to settle for, and is not followed by another: the one beside it, or the end. */
  attemptFailed(code: FailureCode, detail: string): void {
    this.attempt = null;
    if (this.hedge) this.hedge.takeOver();
    else this.fail(code, detail);
  }

  #answerFailure(code: FailureCode, detail: string): void {
    const answer = answerFor(code, detail, retryAfterS(this, code), this.mayHaveRun);
    if (this.refusedBy) answer.headers.push(...limitFields(this.refusedBy));
    // A shared fetch has none: those who follow it are told themselves.
    if (this.cacheUse && code === 'not_cached') this.cacheUse.refused = true;
    if (this.cacheUse) answer.headers.push('cache-status', this.cacheUse.cacheStatus(Number.NaN));
    this.status = answer.status;
    this.#begun = true;
    this.client.begin(answer.status, '', answer.headers);
    this.bytesOut += answer.body.length;
    this.client.finish(answer.body);
  }

  /** Ends without an answer of its own: those it fetched for have theirs. */
  dismiss(): void {
    if (this.settled) return;
    const holder = this.#holder;
    this.#holder = null;
    holder?.forget(this);
    this.attempt?.cancel(null);
    this.hedge?.cancel();
    this.settle();
  }

  malformed(detail: string): void {
    this.fail('bad_request', detail);
  }

  stopped(): void {
    this.fail('draining', '');
  }

  gone(): void {
    this.fail('client_gone', '');
  }

  crashed(error: unknown): void {
    this.shared.onBug(error);
    this.fail('internal_error', '');
  }

  // ---- deadlines

  enter(phase: Phase, now: number): void {
    this.phase = phase;
    this.phaseAt = now;
  }

  /** Arms the timer for the next deadline if that comes before the one armed; a later one is looked at when the timer fires. */
  rearm(): void {
    const at = nextDeadline(this);
    if (at < this.#timer.at) this.shared.wheel.arm(this.#timer, at);
  }

  expired(now: number): void {
    if (hasWaitedEnough(this, now)) {
      goAlone(this, 'flight_wait');
      return;
    }
    const code = dueFailure(this, now);
    if (code) overdue(this, code);
    else if (this.phase === Phase.Backoff && now >= this.retryAt) this.unpark();
    else {
      if (this.hedgeAt >= 0 && now >= this.hedgeAt) {
        this.hedgeAt = -1;
        this.shared.launchHedge(this);
      }
      if (this.stream) this.#beat(this.stream, now);
      this.rearm();
    }
  }

  #beat(stream: StreamWatch, now: number): void {
    const heartbeat = stream.heartbeat(this.client, now);
    if (!heartbeat) return;
    this.upstream.stats.heartbeats++;
    this.bytesOut += heartbeat.length;
    this.client.write(heartbeat);
  }

  // ---- the end

  /** Gives everything back, in this order: timer, body, stats, log, slot, permit. Runs once. */
  settle(): void {
    if (this.settled) return;
    this.settled = true;
    this.client.listener = null;
    this.attempt = null;
    this.shared.wheel.cancel(this.#timer);
    if (this.body) {
      this.bytesIn = this.body.received;
      this.body.release();
    }
    try {
      if (!this.forFlight) report(this);
    } catch (error) {
      this.shared.onBug(error);
    } finally {
      if (!this.forFlight) {
        this.upstream.stats.inFlight--;
        this.shared.onSettled(this);
      }
      giveBack(this);
    }
  }
}

const THE_CLOCK: Holder = { forget() {} };

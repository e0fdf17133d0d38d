// One request and its answer: where it stands, what it holds, and the one way in which everything is given back.

import type { FlightTable } from '../cache/flight-table.ts';
import { answerFor, FAILURES, type FailureCode } from '../errors.ts';
import type { ByteBudget } from '../flow/byte-budget.ts';
import { type Grantee, Waiter } from '../flow/line.ts';
import type { SlotGate } from '../flow/slots.ts';
import { type Expiring, Timer, type TimerWheel } from '../flow/timer-wheel.ts';
import type { RequestHead } from '../http/request-head.ts';
import type { Target } from '../http/target.ts';
import type { AccessLogger } from '../observe/log.ts';
import type { OperationStats } from '../observe/stats.ts';
import type { Lane, Upstream } from '../upstream/upstream.ts';
import type { Body } from './body.ts';
import type { CacheUse } from './cache-use.ts';
import type { Client, ClientListener } from './client.ts';
import { dueFailure, hasWaitedEnough, nextDeadline, Phase } from './deadlines.ts';
import type { Flight } from './flight.ts';
import { goAlone } from './following.ts';
import { report, serverTiming } from './report.ts';

/** What a stage says: go on, over (an answer was given), or wait (somebody will unpark the exchange). */
export const NEXT = 0;
export const DONE = 1;
export const WAIT = 2;
export type StageResult = typeof NEXT | typeof DONE | typeof WAIT;
export type Stage = (exchange: Exchange) => StageResult;

/** Where an exchange waits. Told to forget it when it stops waiting for another reason than its turn. */
export interface Holder {
  forget(exchange: Exchange): void;
}

/** A try at the upstream, as the exchange sees it. */
export interface RunningAttempt {
  cancel(): void;
  pause(): void;
  resume(): void;
}

/** Watches the upstream's answer begin; changes nothing. */
export interface AnswerTap {
  answered(exchange: Exchange, status: number, headers: readonly string[]): void;
}

/** What all exchanges share. */
export interface Shared {
  readonly now: () => number;
  /** ms since the epoch */
  readonly wallClock: () => number;
  readonly wheel: TimerWheel;
  readonly bodyMemory: ByteBudget;
  readonly bodyBufferBytes: number;
  /** Bytes per second */
  readonly bodyMinRate: number;
  readonly flights: FlightTable<Flight>;
  readonly flightMemory: ByteBudget;
  readonly flightBufferBytes: number;
  readonly flightWaiters: number;
  readonly flightWaitMs: number;
  readonly access: AccessLogger;
  /** A bug was caught; the exchange has failed with internal_error. */
  readonly onBug: (error: unknown) => void;
  /** An exchange has given everything back. */
  readonly onSettled: (exchange: Exchange) => void;
}

export class Exchange implements ClientListener, Grantee, Expiring {
  readonly shared: Shared;
  readonly upstream: Upstream;
  readonly lane: Lane;
  readonly client: Client;
  readonly target: Target;
  readonly head: RequestHead;
  readonly operation: OperationStats | null;
  readonly acceptedAt: number;
  /** It fetches for others: they are counted and logged, this one is not. */
  readonly forFlight: boolean;

  // The cursor over the stages, and where it waits.
  readonly #stages: readonly Stage[];
  #cursor = 0;
  #holder: Holder | null = null;

  /** What it has to do with the cache; null = the route has none, or not looked at yet. */
  cacheUse: CacheUse | null = null;
  tap: AnswerTap | null = null;
  /** Began the shared fetch it follows. */
  leadsFlight = false;

  // What stages took. settle() gives it back.
  body: Body | null = null;
  attempt: RunningAttempt | null = null;
  holdsPermit = false;
  slot: SlotGate | null = null;
  #waiter: Waiter | null = null;
  readonly #timer = new Timer(this);

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

  constructor(
    shared: Shared,
    stages: readonly Stage[],
    upstream: Upstream,
    lane: Lane,
    client: Client,
    target: Target,
    forFlight = false,
  ) {
    this.shared = shared;
    this.#stages = stages;
    this.upstream = upstream;
    this.lane = lane;
    this.client = client;
    this.target = target;
    this.head = client.head;
    this.operation = lane.limiterStats ? lane.limiterStats.operation(client.head.operation) : null;
    this.acceptedAt = shared.now();
    this.phaseAt = this.acceptedAt;
    this.forFlight = forFlight;
    client.listener = this;
    if (forFlight) return;
    upstream.stats.requests++;
    upstream.stats.inFlight++;
  }

  /** Runs the stages from the cursor on until one says DONE or WAIT. */
  advance(): void {
    try {
      while (!this.settled && this.#cursor < this.#stages.length) {
        if (this.#stages[this.#cursor++]!(this) !== NEXT) return;
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
    this.#cursor = this.#stages.length - 1;
    this.advance();
  }

  // ---- the queue

  /** Joins its line. @returns false when the queue is full */
  joinLine(): boolean {
    this.queuedAt = this.shared.now();
    this.enter(Phase.Queue, this.queuedAt);
    this.#waiter = new Waiter(this);
    if (!this.lane.line.enqueue(this.#waiter)) return false;
    if (this.operation) this.operation.queued++;
    return true;
  }

  leaveLine(): void {
    if (!this.#waiter) return;
    const waiter = this.#waiter;
    this.#waiter = null;
    if (this.operation && waiter.line) this.operation.queued--;
    this.lane.line.leave(waiter);
  }

  granted(): void {
    this.#waiter = null;
    if (this.operation) this.operation.queued--;
    this.tookPermit(true);
    this.unpark();
  }

  tookPermit(waited: boolean): void {
    this.holdsPermit = true;
    this.slot = this.lane.line.slots;
    this.grantedAt = this.shared.now();
    const operation = this.operation;
    if (operation) {
      operation.granted++;
      operation.inFlight++;
      if (waited) operation.waited++;
    }
    const waitMs = waited ? this.grantedAt - this.queuedAt : 0;
    this.lane.limiterStats?.wait.record(waitMs);
    operation?.wait.record(waitMs);
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
    return true;
  }

  /** Bytes of the answer, in the turn they came in. */
  write(chunk: Buffer): void {
    this.bytesOut += chunk.length;
    if (this.client.write(chunk)) return;
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
    // The pause may have outlasted the idle deadline, and had none of its own.
    this.rearm();
    this.attempt?.resume();
  }

  finish(last: Buffer | null): void {
    if (last) this.bytesOut += last.length;
    this.client.finish(last);
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
    this.attempt?.cancel();
    if (this.#begun || code === 'client_gone') {
      if (!this.#begun) this.status = FAILURES[code].status;
      this.client.abort();
    } else this.#answerFailure(code, detail);
    this.settle();
  }

  #answerFailure(code: FailureCode, detail: string): void {
    const limited = code === 'queue_full' || code === 'queue_timeout' || code === 'body_memory_full';
    const answer = answerFor(code, detail, limited ? this.lane.line.limiter.retryAfterS() : 0);
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
    this.attempt?.cancel();
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
    if (!code) this.rearm();
    else {
      if (code === 'queue_timeout') this.lane.line.limiter.refused++;
      this.fail(code, '');
    }
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
      if (this.holdsPermit && this.operation) this.operation.inFlight--;
      if (!this.forFlight) this.upstream.stats.inFlight--;
      const slot = this.slot;
      this.slot = null;
      slot?.give();
      if (!this.forFlight) this.shared.onSettled(this);
      if (this.holdsPermit) {
        this.holdsPermit = false;
        this.lane.line.limiter.release();
      }
    }
  }
}

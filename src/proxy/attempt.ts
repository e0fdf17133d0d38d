// One try at the upstream: the only file that knows undici's callbacks.

import { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { FailureCode } from '../errors.ts';
import { FillerWatch } from '../http/filler.ts';
import { readResponseHead } from '../http/response-head.ts';
import { upstreamPath } from '../http/target.ts';
import type { Connection } from '../upstream/connection.ts';
import type { DialFailure } from '../upstream/dial.ts';
import type { Seeker } from '../upstream/pool.ts';
import { Phase } from './deadlines.ts';
import type { Exchange, RunningAttempt } from './exchange.ts';

/** More interim (1xx) answers than this are a flood. */
const MAX_INTERIM = 16;

export class Attempt implements Seeker, RunningAttempt, Dispatcher.DispatchHandler {
  /** A second attempt does not trust idle connections. */
  readonly fresh: boolean;
  readonly #exchange: Exchange;
  readonly #startedAt: number;
  #connection: Connection | null = null;
  #controller: Dispatcher.DispatchController | null = null;
  #cancelled = false;
  #streams = false;
  /** The request (or some of it) was given to the socket. */
  #written = false;
  #reused = false;
  /** Any byte of an answer came. */
  #answering = false;
  #interim = 0;
  /** -1 = unknown: chunked, or ended by the close of the connection */
  #declared = -1;
  #received = 0;
  #endsAtClose = false;
  #over = false;
  readonly #filler: FillerWatch | null;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
    this.fresh = exchange.attempts > 1;
    this.#startedAt = exchange.shared.now();
    this.#filler = Number.isFinite(exchange.lane.timeouts.firstEventMs) ? new FillerWatch() : null;
  }

  start(): void {
    const exchange = this.#exchange;
    exchange.attempt = this;
    exchange.enter(Phase.Connect, this.#startedAt);
    if (exchange.dispatchedAt < 0) exchange.dispatchedAt = this.#startedAt;
    exchange.rearm();
    exchange.upstream.pool.take(this);
  }

  // ---- the pool's word

  connected(connection: Connection): void {
    const exchange = this.#exchange;
    const { pool } = exchange.upstream;
    this.#connection = connection;
    this.#reused = connection.isReused;
    exchange.reused = this.#reused;
    pool.stats.sent++;
    if (this.#reused) pool.stats.reused++;
    else exchange.connectMs = exchange.shared.now() - this.#startedAt;
    // From here on the slot comes back when the connection is free or closed.
    connection.slot = exchange.slot;
    exchange.slot = null;
    const { method } = exchange.client;
    const payload = exchange.body ? exchange.body.payload() : null;
    let headers = exchange.head.forward;
    if (payload instanceof Readable) {
      this.#streams = true;
      if (exchange.body!.length >= 0) headers = [...headers, 'content-length', String(exchange.body!.length)];
    }
    connection.send(
      {
        path: upstreamPath(exchange.upstream.config.basePath, exchange.target),
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
    // A refusal may be a restart; a deadline or a bad certificate will not be better at once.
    const again = code === 'connect_failed' || code === 'dns_failed';
    this.#failed(code, detail, again);
  }

  // ---- the exchange's word

  cancel(): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancelled = true;
    if (!this.#connection) this.#exchange.upstream.pool.forget(this);
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
    this.#written = true;
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
    const head = readResponseHead(controller.rawHeaders as unknown as Buffer[], status);
    if (head.problem) {
      this.#abort('upstream_protocol_error', head.problem);
      return;
    }
    const hasBody = exchange.client.method !== 'HEAD' && status !== 204 && status !== 304;
    this.#declared = hasBody ? head.contentLength : -1;
    this.#endsAtClose = hasBody && head.contentLength < 0 && !head.chunked;
    exchange.headAt = now;
    if (exchange.sentAt < 0) exchange.sentAt = now; // it answered before it had the whole request
    exchange.lastByteAt = now;
    exchange.sawEvent = this.#filler === null;
    exchange.enter(Phase.Answer, now);
    exchange.rearm();
    exchange.answerIsDelimited = !this.#endsAtClose;
    exchange.answer(status, reason ?? '', head.headers);
  }

  #onInterim(controller: Dispatcher.DispatchController, status: number, reason: string): void {
    if (++this.#interim > MAX_INTERIM) {
      this.#abort('upstream_protocol_error', `more than ${MAX_INTERIM} interim answers`);
      return;
    }
    // 100 and 101 were not asked for and below is no status at all: undici refuses them next.
    if (status < 102) return;
    const head = readResponseHead(controller.rawHeaders as unknown as Buffer[], status);
    this.#exchange.interim(status, reason, head.headers);
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#over) return;
    const exchange = this.#exchange;
    exchange.lastByteAt = exchange.shared.now();
    if (!exchange.sawEvent && this.#filler!.sees(chunk)) exchange.sawEvent = true;
    this.#received += chunk.length;
    if (this.#received === this.#declared) this.#finish(chunk);
    else exchange.write(chunk);
  }

  onResponseEnd(): void {
    if (this.#over) return;
    // undici ends an answer of unknown length cleanly on a reset; it may have been cut anywhere.
    if (this.#endsAtClose && this.#connection!.socketError)
      this.#failed('upstream_cut', this.#connection!.socketError.code ?? '', false);
    else this.#finish(null);
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
    // A reused socket may have been closed by the peer before it could read: no byte of an answer is the sign, not a proof.
    const again =
      !this.#written || (this.#reused && !this.#answering && code === 'upstream_reset' && this.#mayRepeat());
    this.#failed(code, detail, again);
  }

  // ---- the ends

  #finish(last: Buffer | null): void {
    this.#over = true;
    this.#exchange.endedAt = this.#exchange.shared.now();
    this.#connection!.answered();
    this.#exchange.finish(last);
  }

  #abort(code: FailureCode, detail: string): void {
    this.#exchange.fail(code, detail);
  }

  #mayRepeat(): boolean {
    const exchange = this.#exchange;
    if (this.#streams) return false;
    return isIdempotent(exchange.client.method) || exchange.upstream.replayPaths.matches(exchange.target);
  }

  /** @param again nothing stands against one more attempt on a fresh connection */
  #failed(code: FailureCode, detail: string, again: boolean): void {
    this.#over = true;
    const exchange = this.#exchange;
    if (exchange.settled || exchange.failure) return;
    if (again && !this.fresh && !exchange.begun) {
      exchange.slot ??= this.#connection ? this.#connection.takeSlotBack() : null;
      if (exchange.slot) {
        exchange.again();
        return;
      }
    }
    exchange.attempt = null;
    exchange.fail(code, detail);
  }
}

/** RFC 9110 section 9.2.2 */
function isIdempotent(method: string): boolean {
  switch (method) {
    case 'GET':
    case 'HEAD':
    case 'PUT':
    case 'DELETE':
    case 'OPTIONS':
    case 'TRACE':
      return true;
    default:
      return false;
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

/** Bytes that are not HTTP/1.1, as opposed to a connection that ended within an answer. */
function isJunk(error: Error & { code?: string }, begun: boolean): boolean {
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

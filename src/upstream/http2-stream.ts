// One request on an HTTP/2 connection: tells its attempt of the answer as undici tells of one that comes over HTTP/1.

import { type ClientHttp2Stream, constants } from 'node:http2';
import { Duplex, Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { SlotGate } from '../flow/slots.ts';
import { type Carrier, NEVER_PROCESSED, PROTOCOL_ERROR } from './carrier.ts';
import type { Http2Connection } from './http2-connection.ts';
import { failure, streamFailure } from './http2-failures.ts';
import { headBytes, rawFields, requestFields } from './http2-fields.ts';

type Handler = Required<Dispatcher.DispatchHandler>;

/** The stream's own place: one set of listeners serves all streams. */
const PLACE = Symbol('place');
type Placed = ClientHttp2Stream & { [PLACE]: Http2Place };

export class Http2Place implements Carrier, Dispatcher.DispatchController {
  readonly isReused: boolean;
  readonly idleSince: number;
  readonly socketError = null;
  readonly answerVersion = 11;
  readonly marksEnds = true;
  slot: SlotGate | null = null;
  /** Gone from its connection's count. */
  closed = false;
  aborted = false;
  paused = false;
  reason: Error | null = null;
  rawHeaders: Buffer[] = [];
  rawTrailers: Buffer[] | null = null;
  /** END_STREAM came: the answer is whole. Node ends a stream that was reset with NO_ERROR just the same. */
  whole = false;
  readonly #connection: Http2Connection;
  #stream: ClientHttp2Stream | null = null;
  #handler: Handler | null = null;
  #payload: Readable | null = null;
  #error: (Error & { code?: string }) | null = null;
  /** The head of the answer, not an interim one, came. */
  #begun = false;
  /** Nothing more is told. */
  #told = false;
  /** What the socket had brought when the request went out. */
  #heardBefore = 0;

  constructor(connection: Http2Connection, isReused: boolean, idleSince: number) {
    this.#connection = connection;
    this.isReused = isReused;
    this.idleSince = idleSince;
  }

  // ---- the attempt's word

  send(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    const { body } = options;
    this.#handler = handler as Handler;
    this.#handler.onRequestStart(this, null);
    if (this.aborted) {
      this.#leave();
      return;
    }
    try {
      this.#open(options);
    } catch (error) {
      this.#told = true;
      // Node does not even take it.
      const refusal = Object.assign(error as Error, { code: 'UND_ERR_INVALID_ARG' });
      this.#handler.onResponseError(this, refusal);
      this.#leave();
      return;
    }
    if (body instanceof Readable) this.#pump(body);
    else {
      if (body) this.#stream!.end(body);
      // As with HTTP/1: what the windows hold back of a short body is the upstream's to take, and `headers` watches it.
      this.#handler.onRequestSent();
    }
  }

  #open({ method, path, headers, body }: Dispatcher.DispatchOptions): void {
    const { session, authority, heard } = this.#connection;
    const fields = requestFields(
      method,
      authority,
      path,
      headers as readonly string[],
      body as Buffer | Readable | null,
    );
    const stream = session.request(fields as never, { endStream: !body }) as Placed;
    this.#heardBefore = heard;
    stream[PLACE] = this;
    stream.push = pushOf;
    stream.on('error', onError);
    stream.once('close', onClose);
    stream.on('headers', onInterim);
    stream.on('response', onResponse);
    stream.on('trailers', onTrailers);
    this.#stream = stream;
  }

  #pump(payload: Readable): void {
    const stream = this.#stream!;
    const handler = this.#handler!;
    this.#payload = payload;
    payload.on('data', (chunk: Buffer) => {
      if (this.#told || stream.writableEnded) return;
      if (!stream.write(chunk)) payload.pause();
      handler.onBodySent(chunk);
    });
    stream.on('drain', () => {
      // The peer has taken what it was sent: that is progress too.
      if (!this.#told) handler.onBodySent(NO_BYTES);
      payload.resume();
    });
    payload.on('end', () => {
      stream.end();
    });
    payload.on('error', (error) => {
      if (!this.#told) this.#failNow(stream, error);
    });
    stream.on('finish', () => {
      if (!this.#told && !stream.closed) handler.onRequestSent();
    });
  }

  /** Cancels this stream; all others of the connection go on. */
  abort(reason: Error): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    this.#told = true;
    const stream = this.#stream;
    if (!stream || this.closed) return;
    if (!this.#begun && this.#connection.heard === this.#heardBefore) this.#connection.probe();
    this.#reset(stream);
  }

  /** Must not wait for the socket: RST_STREAM is queued at once, and the stream let go of in a later turn whatever the peer takes. */
  #reset(stream: ClientHttp2Stream): void {
    stream.close(constants.NGHTTP2_CANCEL);
    this.#payload?.destroy();
    setImmediate(destroyStream, stream);
  }

  pause(): void {
    this.paused = true;
    this.#stream?.pause();
  }

  resume(): void {
    this.paused = false;
    this.#stream?.resume();
  }

  close(): void {
    if (this.#stream) this.abort(new Error('closed'));
    else this.#leave();
  }

  /** By its declared length the answer is whole; the end of the stream is due any moment. */
  answered(): void {
    this.#told = true;
    if (this.paused) this.resume();
    if (!this.whole && !this.closed) this.#connection.lingers(this);
  }

  takeSlotBack(): SlotGate | null {
    const { slot } = this;
    this.slot = null;
    return slot;
  }

  // ---- the stream's word

  interim(status: number, raw: readonly string[]): void {
    if (this.#told) return;
    const handler = this.#handler!;
    handler.onResponseStarted();
    this.rawHeaders = rawFields(raw);
    handler.onResponseStart(this, status, {}, '');
  }

  response(status: number, raw: readonly string[], stream: ClientHttp2Stream): void {
    if (this.#told) return;
    const handler = this.#handler!;
    handler.onResponseStarted();
    // An interim answer that ends the stream is none to wait behind.
    if (!(status >= 200)) {
      this.#failNow(stream, failure('the status of its answer is not one', PROTOCOL_ERROR));
      return;
    }
    if (headBytes(raw) > this.#connection.maxHeadBytes) {
      this.#failNow(stream, failure('its head is too large', 'UND_ERR_HEADERS_OVERFLOW'));
      return;
    }
    this.#begun = true;
    this.rawHeaders = rawFields(raw);
    handler.onResponseStart(this, status, {}, '');
    if (this.aborted) return;
    stream.on('data', onData);
    stream.once('end', onEnd);
    if (!this.paused) stream.resume();
  }

  chunk(chunk: Buffer): void {
    if (!this.#told) this.#handler!.onResponseData(this, chunk);
  }

  trailers(raw: readonly string[]): void {
    if (headBytes(raw) <= this.#connection.maxHeadBytes) this.rawTrailers = rawFields(raw);
  }

  /** END_STREAM came. @param unread some of what came before it waits for a slow reader */
  isWhole(unread: boolean): void {
    this.whole = true;
    if (unread) this.#connection.waitsForReader(this);
  }

  /** The connection is about to go, and node would throw away what waits: a window's worth at most, which the reader's socket can have. */
  tellRest(): void {
    const stream = this.#stream!;
    while (!this.#told && stream.read() !== null);
    if (this.#told || stream.readableLength > 0) return;
    this.#told = true;
    this.#handler!.onResponseEnd(this, {});
  }

  ended(stream: ClientHttp2Stream): void {
    // The answer came before all of the request was wanted: the rest is not sent.
    if (this.whole && !stream.closed) this.#reset(stream);
    if (this.#told || !this.whole) return;
    this.#told = true;
    this.#handler!.onResponseEnd(this, {});
  }

  failed(error: Error & { code?: string }): void {
    this.#error = error;
    // The session says it to its streams first.
    this.#connection.heardOf(error);
  }

  #failNow(stream: ClientHttp2Stream, error: Error): void {
    this.#told = true;
    this.#reset(stream);
    this.#handler!.onResponseError(this, error);
  }

  /** The stream is gone, on both sides as far as this one can know. */
  over(stream: ClientHttp2Stream): void {
    this.#payload?.destroy();
    // Before the failure is told: another attempt may take its place.
    this.#connection.streamClosed();
    this.closed = true;
    if (!this.#told) {
      this.#told = true;
      const error = streamFailure(this.#connection, stream, this.#begun, this.#error);
      // It was answered, though only with a reset: not a connection that had died unnoticed.
      if (this.#connection.isUp && error.code !== NEVER_PROCESSED) this.#handler!.onResponseStarted();
      this.#handler!.onResponseError(this, error);
    }
    this.#connection.placeOver(this);
  }

  /** Nothing was sent. */
  #leave(): void {
    if (this.closed) return;
    this.closed = true;
    this.#connection.streamClosed();
    this.#connection.placeOver(this);
  }
}

const NO_BYTES = Buffer.alloc(0);

function pushOf(this: Placed, chunk: unknown, encoding?: BufferEncoding): boolean {
  // END_STREAM ends a stream that is not closed yet; a reset closes it first.
  if (chunk === null && !this.closed) this[PLACE].isWhole(this.readableLength > 0);
  return Duplex.prototype.push.call(this, chunk, encoding);
}

function onInterim(this: Placed, headers: { ':status'?: number }, _flags: number, raw: string[]): void {
  if (headers[':status'] !== undefined) this[PLACE].interim(headers[':status'], raw);
}

function onResponse(this: Placed, headers: { ':status'?: number }, _flags: number, raw: string[]): void {
  this[PLACE].response(headers[':status'] ?? 0, raw, this);
}

function onTrailers(this: Placed, _headers: unknown, _flags: number, raw: string[]): void {
  this[PLACE].trailers(raw);
}

function onData(this: Placed, chunk: Buffer): void {
  this[PLACE].chunk(chunk);
}

function onEnd(this: Placed): void {
  this[PLACE].ended(this);
}

function onError(this: Placed, error: Error & { code?: string }): void {
  this[PLACE].failed(error);
}

function onClose(this: Placed): void {
  this[PLACE].over(this);
}

function destroyStream(stream: ClientHttp2Stream): void {
  stream.destroy();
}

// One client's connection: reads requests, strictly and one at a time, and is the pipeline's Client for the one that runs.
//
//   Head → (head whole) → Body? → Answering → Head …      bytes that come while a request runs wait in `#later`
//
// node:http does the same work for about twice the CPU (README, "Speed"), and runs the handler of every pipelined request at once.

import type { Socket } from 'node:net';
import type { ListenerConfig } from '../config/schema.ts';
import { answerFor, type FailureCode } from '../errors.ts';
import { type Expiring, Timer, type TimerWheel } from '../flow/timer-wheel.ts';
import { ChunkedDecoder } from '../http/chunked.ts';
import { type RequestHead, readRequestHead } from '../http/request-head.ts';
import { hasBareLineFeed, parseHeadLines } from '../http/request-line.ts';
import type { ClientListener, UpgradableClient } from '../proxy/client.ts';
import { AnswerWriter, type Framing } from './answer-writer.ts';
import type { IdleList, Waiting } from './idle-list.ts';
import { PipelinedBytes } from './pipelined.ts';

/**
 * After an early answer so much of the request body is still read and thrown away, within so long, for the sake of the requests
 * behind it. Past that, and after a last answer, a FIN; what comes within another while is read, lest a reset overtakes the answer.
 */
const DISCARD_BYTES = 1024 * 1024;
const DISCARD_MS = 5000;
/** A client that takes not a byte of an answer that is over for so long is gone. */
const STALL_MS = 75_000;
/** A tunnel may be silent for as long as it likes: whether its client is still there the kernel asks. */
const KEEP_ALIVE_MS = 60_000;
/** Bytes of pipelined requests that may wait. */
const MAX_PENDING_BYTES = 256 * 1024;
const NEVER = Number.POSITIVE_INFINITY;
const SLASH = 0x2f;
const END_OF_HEAD = '\r\n\r\n';
const ALIVE = Buffer.from('{"status":"ok"}\n');
const NO_HEAD: RequestHead = readRequestHead([], false);

const State = {
  /** between requests, or within a head */
  Head: 0,
  /** the request's body comes; its answer may be under way or over already */
  Body: 1,
  /** the request is whole */
  Answering: 2,
  /** nothing more is read */
  Closing: 3,
  /** behind a 101: bytes are no longer ours to read */
  Tunnel: 4,
} as const;
type State = (typeof State)[keyof typeof State];

/** What the connections of a listener share. */
export interface ListenerSide {
  readonly config: ListenerConfig;
  readonly wheel: TimerWheel;
  readonly now: () => number;
  readonly closing: boolean;
  /** For good: what would not end by itself is told to. */
  readonly stopping: boolean;
  /** `/healthz` is a question to aiproxy, not to an upstream. */
  readonly answersHealthz: boolean;
  /** Those without a request: whoever may be dropped to make room. */
  readonly idle: IdleList;
  accept(client: UpgradableClient): void;
  /** A request was refused before it could be one. */
  refused(code: FailureCode): void;
  closed(connection: ClientConnection): void;
}

export class ClientConnection implements UpgradableClient, Expiring, Framing, Waiting {
  method = '';
  url = '';
  head: RequestHead = NO_HEAD;
  http10 = false;
  listener: ClientListener | null = null;
  older: Waiting | null = null;
  newer: Waiting | null = null;
  waits = false;
  /** Plain or secure. */
  readonly socket: Socket;
  /** The connection below: the same one, but for TLS. */
  readonly #raw: Socket;
  readonly #side: ListenerSide;
  readonly #writer: AnswerWriter;
  readonly #keepAliveField: string;
  readonly #timer = new Timer(this);
  #deadline = NEVER;
  /** The first bytes of a head are here, its end is not. */
  #withinHead = false;
  #state: State = State.Head;
  /** A head that is not whole. */
  #pending: Buffer | null = null;
  /** What came behind the request that runs. */
  #later: PipelinedBytes | null = null;
  /** Body bytes still to come; with chunked the decoder knows. */
  #bodyLeft = 0;
  #decoder: ChunkedDecoder | null = null;
  /** The exchange takes the body; until then, and after it, bytes are dropped. */
  #bodyWanted = false;
  #discarded = 0;
  #answered = false;
  #keepAlive = true;
  #waitsForDrain = false;
  /** The next request waits until the client has taken the answers before it. */
  #waitsForReader = false;
  /** Bytes of answers that had not left when a deadline passed; -1 = none has passed. */
  #unsent = -1;

  constructor(side: ListenerSide, socket: Socket, raw: Socket) {
    this.#side = side;
    this.socket = socket;
    this.#raw = raw;
    this.#writer = new AnswerWriter(socket);
    this.#keepAliveField = `timeout=${Math.max(1, Math.floor(side.config.keepAliveTimeoutMs / 1000))}`;
    this.#waitUntil(side.now() + side.config.keepAliveTimeoutMs);
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#consume(chunk));
    socket.on('drain', () => this.#drained());
    socket.on('end', () => this.#gone());
    // 'close' follows and says the same; after an error of TLS only if we see to it.
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#closed());
  }

  /** No request is under way. */
  get isIdle(): boolean {
    return this.#state === State.Head && this.#pending === null && this.#later === null;
  }

  get unsent(): number {
    return this.socket.writableLength;
  }

  get headOnly(): boolean {
    return this.method === 'HEAD';
  }

  get keepAlive(): string {
    return this.#keepAlive && !this.#side.closing ? this.#keepAliveField : '';
  }

  // ---- reading

  #consume(incoming: Buffer): void {
    let bytes = incoming;
    if (this.#pending) {
      bytes = Buffer.concat([this.#pending, incoming]);
      this.#pending = null;
    }
    if (this.#later && this.#state === State.Head) {
      bytes = Buffer.concat([this.#later.take(), incoming]);
      this.#later = null;
    }
    let from = 0;
    while (from < bytes.length) {
      if (this.#state === State.Closing) return;
      if (this.#state === State.Tunnel) {
        this.listener?.bodyData(from === 0 ? bytes : bytes.subarray(from));
        return;
      }
      if (this.#state === State.Answering) {
        this.#keepForLater(bytes.subarray(from));
        return;
      }
      const next = this.#state === State.Head ? this.#readHead(bytes, from) : this.#readBody(bytes, from);
      if (next < 0) return;
      from = next;
    }
  }

  /** @returns where the head ended, or -1 when it is not whole or was refused */
  #readHead(bytes: Buffer, start: number): number {
    let from = start;
    // RFC 9112 section 2.2: an empty line before the request line is ignored.
    while (bytes[from] === 0x0d && bytes[from + 1] === 0x0a) from += 2;
    if (from === bytes.length) return from;
    const end = bytes.indexOf(END_OF_HEAD, from);
    const { maxHeadBytes, maxHeaders, headTimeoutMs } = this.#side.config;
    if ((end < 0 ? bytes.length : end) - from > maxHeadBytes) {
      return this.#refuse('headers_too_large', `more than ${maxHeadBytes} bytes`);
    }
    if (end < 0) {
      const partial = bytes.subarray(from);
      if (hasBareLineFeed(partial)) return this.#refuse('bad_request', 'a line of its head ends without CRLF');
      if (!this.#withinHead) {
        this.#withinHead = true;
        this.#waitUntil(this.#side.now() + headTimeoutMs);
        // A client that begins a request has just been heard of; one that never ends it makes room in its turn.
        this.#side.idle.add(this);
      }
      this.#pending = Buffer.from(partial);
      return -1;
    }
    const lines = parseHeadLines(bytes.toString('latin1', from, end + 2));
    if (typeof lines === 'string') return this.#refuse('bad_request', lines);
    if (lines.raw.length > 2 * maxHeaders) return this.#refuse('headers_too_large', `more than ${maxHeaders} fields`);
    this.#start(lines.method, lines.url, lines.http10, readRequestHead(lines.raw, lines.http10));
    return end + END_OF_HEAD.length;
  }

  #start(method: string, url: string, http10: boolean, head: RequestHead): void {
    this.method = method;
    this.url = url;
    this.http10 = http10;
    this.head = head;
    this.#withinHead = false;
    this.#deadline = NEVER;
    this.#answered = false;
    this.#bodyWanted = false;
    this.#discarded = 0;
    this.#unsent = -1;
    this.#side.idle.remove(this);
    // A request whose framing is in doubt is the last one: nobody knows where the next begins. So is one that is not meant for us.
    // Nor can anybody tell whether what follows an offer to switch protocols was meant to be HTTP.
    const isOurs = url.charCodeAt(0) === SLASH && method !== 'CONNECT' && !head.problem && !head.websocket;
    this.#keepAlive = isOurs && !head.wantsClose && (!http10 || head.wantsKeepAlive);
    this.#decoder = head.chunked ? new ChunkedDecoder() : null;
    this.#bodyLeft = head.chunked ? NEVER : Math.max(0, head.contentLength);
    if (head.problem) this.#bodyLeft = 0;
    this.#state = this.#bodyLeft > 0 ? State.Body : State.Answering;
    if (url === '/healthz' && this.#side.answersHealthz && (method === 'GET' || method === 'HEAD') && !head.problem) {
      this.begin(200, '', ['content-type', 'application/json', 'content-length', String(ALIVE.length)]);
      this.finish(ALIVE);
    } else {
      this.#side.accept(this);
      if (head.websocket && this.#side.stopping) this.stop();
    }
  }

  /** @returns where the body's bytes ended, or -1 when the connection has had enough */
  #readBody(bytes: Buffer, from: number): number {
    if (this.#decoder) {
      const decoder = this.#decoder;
      const end = decoder.feed(bytes, from, (chunk) => this.#bodyChunk(chunk));
      if (this.#state !== State.Body) return -1; // the bytes themselves have ended the connection
      if (decoder.problem) return this.#malformed(decoder.problem);
      if (decoder.done) this.#bodyEnd();
      return end;
    }
    const end = Math.min(bytes.length, from + this.#bodyLeft);
    this.#bodyLeft -= end - from;
    this.#bodyChunk(from === 0 && end === bytes.length ? bytes : bytes.subarray(from, end));
    if (this.#bodyLeft === 0) this.#bodyEnd();
    return end;
  }

  #bodyChunk(chunk: Buffer): void {
    if (this.#bodyWanted && this.listener) {
      this.listener.bodyData(chunk);
      return;
    }
    this.#discarded += chunk.length;
    if (this.#discarded > DISCARD_BYTES && this.#answered && this.#state === State.Body) this.#close();
  }

  #bodyEnd(): void {
    if (this.#state !== State.Body) return;
    this.#state = State.Answering;
    this.#decoder = null;
    this.#deadline = NEVER;
    // Looked at first: an answer that this very call brings about goes its own way at `finish`, which may be to close.
    if (this.#answered) this.#nextRequest();
    else if (this.#bodyWanted) this.listener?.bodyEnd();
  }

  /** Pipelined requests wait as bytes, within bounds. */
  #keepForLater(bytes: Buffer): void {
    if (this.head.websocket && !this.#answered)
      this.listener?.malformed('bytes came before the protocols were switched');
    if (!this.#keepAlive) return; // behind the last request there is none (RFC 9112 section 9.6)
    const { maxPipelined, maxHeadBytes } = this.#side.config;
    this.#later ??= new PipelinedBytes(MAX_PENDING_BYTES, maxPipelined, maxHeadBytes);
    if (!this.#later.add(bytes)) this.#cut();
  }

  #malformed(problem: string): number {
    this.#keepAlive = false;
    const { listener } = this;
    // State first: the answer that follows must not wait for the rest of this body.
    this.#state = State.Answering;
    this.#decoder = null;
    if (listener) listener.malformed(problem);
    else this.#close();
    return -1;
  }

  /** Answers what cannot be a request, and ends the connection. */
  #refuse(code: FailureCode, detail: string): -1 {
    this.#side.refused(code);
    this.#side.idle.remove(this);
    this.#keepAlive = false;
    this.method = '';
    this.http10 = false;
    this.#answered = false;
    this.#unsent = -1;
    this.#state = State.Answering;
    const answer = answerFor(code, detail, 0);
    this.begin(answer.status, '', answer.headers);
    this.finish(answer.body);
    return -1;
  }

  // ---- the pipeline's Client

  readBody(): void {
    this.#bodyWanted = true;
    if (this.head.expectsContinue && !this.http10 && this.#state === State.Body)
      this.socket.write('HTTP/1.1 100 Continue\r\n\r\n');
  }

  pauseBody(): void {
    this.socket.pause();
  }

  resumeBody(): void {
    this.socket.resume();
  }

  interim(status: number, reason: string, headers: readonly string[]): void {
    if (!this.http10 && !this.#answered) this.#writer.interim(status, reason, headers);
  }

  begin(status: number, reason: string, headers: string[], stored = false): void {
    // Without its 100 Continue the client may or may not send the body: nobody can tell where the next request begins.
    if (this.head.expectsContinue && !this.#bodyWanted) this.#keepAlive = false;
    this.#writer.begin(status, reason, headers, this, stored);
    process.nextTick(flushHead, this);
  }

  switchProtocols(headers: readonly string[]): void {
    const { socket } = this;
    this.#writer.switchProtocols(headers);
    this.#state = State.Tunnel;
    // A FIN of one side says nothing of the other's.
    socket.allowHalfOpen = true;
    this.#raw.setKeepAlive(true, KEEP_ALIVE_MS);
  }

  flushHead(): void {
    this.#writer.flushHead();
  }

  write(chunk: Buffer): boolean {
    if (this.#writer.write(chunk)) return true;
    this.#waitsForDrain = true;
    return false;
  }

  finish(last: Buffer | null, trailers?: readonly string[]): void {
    this.#writer.finish(last, trailers);
    if (this.#state === State.Tunnel) {
      if (this.listener) this.socket.end();
      else this.#close();
      return;
    }
    this.#answered = true;
    this.#side.idle.add(this);
    if (this.#writer.endsAtClose || this.#side.closing) this.#keepAlive = false;
    if (!this.#keepAlive) this.#close();
    else if (this.#state === State.Answering) this.#nextRequest();
    else this.#discardBody();
  }

  abort(last: Buffer | null = null): void {
    if (last) {
      this.#writer.write(last);
      // As after an answer: who never takes it must not keep a place from others.
      this.#side.idle.add(this);
      this.#close();
      return;
    }
    this.#state = State.Closing;
    // A plain close looks like the end of the answer to an HTTP/1.0 client, and so does the end of TLS. A unix socket knows no reset.
    // While its FIN is on the way a reset is refused (libuv: EINVAL), and the socket would stay open; nothing is left to cut then.
    // With TLS it is the secure socket that was ended: the one below never hears of it.
    const ends = this.socket.writableEnded && this.socket.writableLength === 0;
    if (this.#raw.remoteAddress === undefined || ends) this.#raw.destroy();
    else this.#raw.resetAndDestroy();
    this.socket.destroy();
  }

  /** The process ends: the exchange is cut, or told so while its answer has not begun. */
  cutOff(): void {
    if (this.listener) this.listener.stopped();
    // An answer that is over may still be on its way.
    else if (this.#state !== State.Closing || this.socket.writableLength === 0) this.abort();
  }

  // ---- between requests

  #nextRequest(): void {
    const { now, config, closing } = this.#side;
    if (closing) {
      this.#close();
      return;
    }
    this.#waitUntil(now() + config.keepAliveTimeoutMs);
    const { socket } = this;
    if (socket.writableLength >= socket.writableHighWaterMark) {
      // A client that sends on without reading would make us hold any number of answers.
      this.#waitsForReader = true;
      return;
    }
    this.#state = State.Head;
    // In a turn of its own: the exchange that just ended has still to give back what it holds.
    if (this.#later) process.nextTick(consumeLater, this);
  }

  consumeLater(): void {
    if (!this.#later || this.#state !== State.Head) return;
    const bytes = this.#later.take();
    this.#later = null;
    this.#consume(bytes);
  }

  /** The rest of a body whose answer is over must be out of the way; a client that sends on and on loses the connection. */
  #discardBody(): void {
    this.#bodyWanted = false;
    this.#waitUntil(this.#side.now() + DISCARD_MS);
    this.socket.resume();
  }

  /** After the answer, a FIN; what the client still sends is read, lest the kernel answers it with a reset that overtakes the answer. */
  #close(): void {
    this.#state = State.Closing;
    this.#later = null;
    this.#waitUntil(this.#side.now() + DISCARD_MS);
    this.socket.resume();
    this.socket.end();
  }

  /** At once; not a byte more is taken for a request. */
  #cut(): void {
    this.#state = State.Closing;
    this.#later = null;
    this.socket.destroy();
  }

  /** A listener that stops: an idle connection goes at once, another after its answer. */
  stop(): void {
    if (this.#side.stopping) this.listener?.stopping?.();
    if (!this.isIdle) return;
    if (this.socket.writableLength > 0) this.#close();
    else this.#leave();
  }

  /** Room is needed for another connection. */
  drop(): void {
    const { socket } = this;
    this.#side.closed(this);
    // What has not left would make an answer look complete that is not.
    if (socket.writableLength > 0) this.abort();
    else this.#leave();
  }

  /** Nothing is under way: a FIN, with TLS what announces it, and no more is read. */
  #leave(): void {
    this.#state = State.Closing;
    this.#side.idle.remove(this);
    this.#waitUntil(this.#side.now() + DISCARD_MS);
    const { socket } = this;
    socket.end(() => socket.destroy());
  }

  #drained(): void {
    if (this.#waitsForReader) {
      this.#waitsForReader = false;
      if (this.#state === State.Answering) this.#nextRequest();
      return;
    }
    if (!this.#waitsForDrain) return;
    this.#waitsForDrain = false;
    this.listener?.drained();
  }

  #gone(): void {
    if (this.listener && this.#state === State.Tunnel) this.listener.bodyEnd();
    else if (this.listener) this.listener.gone();
    else if (this.#state !== State.Closing) this.socket.end();
  }

  #closed(): void {
    this.#state = State.Closing;
    this.#pending = null;
    this.#later = null;
    this.#side.wheel.cancel(this.#timer);
    const { listener } = this;
    this.listener = null;
    listener?.gone();
    this.#side.closed(this);
  }

  // ---- deadlines of the connection itself; those of an exchange are its own

  #waitUntil(at: number): void {
    this.#deadline = at;
    // A timer armed earlier looks at the deadline when it fires: nothing to do per request.
    if (at < this.#timer.at) this.#side.wheel.arm(this.#timer, at);
  }

  expired(now: number): void {
    if (this.#deadline === NEVER) return;
    if (now < this.#deadline) this.#side.wheel.arm(this.#timer, this.#deadline);
    else if (this.#state === State.Head && this.#withinHead) this.#refuse('request_timeout', 'its head');
    else if (this.#isRead()) this.#waitUntil(now + STALL_MS);
    // A FIN would make what is lost look complete to an HTTP/1.0 client.
    else if (this.socket.writableLength > 0) this.abort();
    else if (this.#state === State.Body) this.#close();
    else if (this.#state === State.Head) this.#leave();
    else this.#cut();
  }

  /** The answer is not all sent, but the client has taken some of it since the last time this was asked. */
  #isRead(): boolean {
    const before = this.#unsent;
    this.#unsent = this.socket.writableLength;
    return this.#unsent > 0 && this.#unsent !== before;
  }
}

function flushHead(connection: ClientConnection): void {
  connection.flushHead();
}

function consumeLater(connection: ClientConnection): void {
  connection.consumeLater();
}

// Writes one answer's head and framing onto a client's socket. A head and the body bytes that come with it leave in one write.

import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import { sameName } from '../fields.ts';

/** Up to here copying a chunk next to its head or size line is cheaper than a write of several parts. */
const COPY_BELOW = 16 * 1024;
const CRLF = '\r\n';
const NO_TRAILERS: readonly string[] = [];

/** What the connection knows of the request that is answered. */
export interface Framing {
  readonly http10: boolean;
  /** HEAD: a head only. */
  readonly headOnly: boolean;
  /** `keep-alive: timeout=N` for the client, or '' when the connection ends after this answer. */
  readonly keepAlive: string;
}

export class AnswerWriter {
  readonly #socket: Socket;
  /** Head not sent yet. */
  #head = '';
  #chunked = false;
  #bodyAllowed = true;
  #copyBelow = COPY_BELOW;
  /** The body ends with the connection: HTTP/1.0, length unknown. */
  endsAtClose = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** A head without framing, at once (RFC 9110 section 15.2). @throws as begin */
  interim(status: number, reason: string, headers: readonly string[]): void {
    let head = `HTTP/1.1 ${status} ${phraseFor(status, reason)}${CRLF}`;
    for (let i = 0; i < headers.length; i += 2) head += `${clean(headers[i]!)}: ${clean(headers[i + 1]!)}${CRLF}`;
    this.#socket.write(head + CRLF, 'latin1');
  }

  /** The head of a 101, at once; what is written behind it passes as it is. @throws as begin */
  switchProtocols(headers: readonly string[]): void {
    this.interim(101, '', headers);
    this.#head = '';
    this.#chunked = false;
    this.#bodyAllowed = true;
  }

  /**
   * @param stored the body's bytes are others' too: always sent by reference
   * @throws when a name or value would break the head apart
   */
  begin(status: number, reason: string, headers: readonly string[], framing: Framing, stored = false): void {
    this.#copyBelow = stored ? 0 : COPY_BELOW;
    let head = `HTTP/1.1 ${status} ${phraseFor(status, reason)}${CRLF}`;
    let hasLength = false;
    let hasDate = false;
    for (let i = 0; i < headers.length; i += 2) {
      const name = headers[i]!;
      if (name.length === 14 && sameName(name, 'content-length')) hasLength = true;
      else if (name.length === 4 && sameName(name, 'date')) hasDate = true;
      head += `${clean(name)}: ${clean(headers[i + 1]!)}${CRLF}`;
    }
    if (!hasDate) head += `date: ${new Date().toUTCString()}${CRLF}`;
    this.#bodyAllowed = !framing.headOnly && status !== 204 && status !== 304;
    this.#chunked = this.#bodyAllowed && !hasLength && !framing.http10;
    this.endsAtClose = this.#bodyAllowed && !hasLength && framing.http10;
    if (this.#chunked) head += `transfer-encoding: chunked${CRLF}`;
    if (framing.keepAlive === '' || this.endsAtClose) head += `connection: close${CRLF}${CRLF}`;
    else head += `connection: keep-alive${CRLF}keep-alive: ${framing.keepAlive}${CRLF}${CRLF}`;
    this.#head = head;
  }

  /** Sends the head if no body byte has taken it along. */
  flushHead(): void {
    if (this.#head === '') return;
    const head = this.#head;
    this.#head = '';
    this.#socket.write(head, 'latin1');
  }

  /** @returns false when the socket's buffer is full */
  write(chunk: Buffer): boolean {
    if (!this.#bodyAllowed || chunk.length === 0) return true;
    return this.#send(chunk, this.#chunked ? `${chunk.length.toString(16)}${CRLF}` : '', this.#chunked ? CRLF : '');
  }

  /** @param trailers flat pairs without control characters; only a chunked body has a place for them (RFC 9112 section 7.1.2) */
  finish(last: Buffer | null, trailers: readonly string[] = NO_TRAILERS): void {
    const body = this.#bodyAllowed && last && last.length > 0 ? last : null;
    if (!this.#chunked) {
      if (body) this.#send(body, '', '');
      else this.flushHead();
      return;
    }
    let end = `0${CRLF}`;
    for (let i = 0; i < trailers.length; i += 2) end += `${trailers[i]}: ${trailers[i + 1]}${CRLF}`;
    end += CRLF;
    if (body) {
      this.#send(body, `${body.length.toString(16)}${CRLF}`, CRLF + end);
      return;
    }
    const head = this.#head;
    this.#head = '';
    this.#socket.write(head + end, 'latin1');
  }

  #send(chunk: Buffer, before: string, after: string): boolean {
    const start = this.#head + before;
    this.#head = '';
    const socket = this.#socket;
    if (start === '' && after === '') return socket.write(chunk);
    if (chunk.length <= this.#copyBelow) {
      const whole = Buffer.allocUnsafe(start.length + chunk.length + after.length);
      whole.write(start, 0, 'latin1');
      whole.set(chunk, start.length);
      if (after !== '') whole.write(after, start.length + chunk.length, 'latin1');
      return socket.write(whole);
    }
    socket.cork();
    if (start !== '') socket.write(start, 'latin1');
    let room = socket.write(chunk);
    if (after !== '') room = socket.write(after, 'latin1');
    socket.uncork();
    return room;
  }
}

/** Beyond ASCII (undici has decoded it as UTF-8, rightly or not) the standard phrase: it is for people, and not worth the answer. */
function phraseFor(status: number, reason: string): string {
  for (let i = 0; i < reason.length; i++) if (reason.charCodeAt(i) > 0x7e) return STATUS_CODES[status] ?? '';
  return clean(reason) || (STATUS_CODES[status] ?? '');
}

/** Passes what has no control characters; an upstream's head must not be able to split ours. */
function clean(text: string): string {
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if ((c < 0x20 && c !== 0x09) || c === 0x7f || c > 0xff)
      throw new Error('a field of its head has a control character');
  }
  return text;
}

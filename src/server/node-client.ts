// A client over node:http: one request and its response, as the pipeline's Client.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Client, ClientListener } from '../proxy/client.ts';

/** After an early answer so much of the request body is still read and thrown away, within so long; then the connection goes. */
const DISCARD_BYTES = 1024 * 1024;
const DISCARD_MS = 5000;

const CLIENT = Symbol('client');
type Bound = { [CLIENT]?: NodeClient };

/** Told when the response is over and the connection may turn to the next request. */
export interface ClientTurn {
  over(client: NodeClient): void;
  /** The connection ends after this answer. */
  readonly closing: boolean;
}

export class NodeClient implements Client {
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
  readonly http10: boolean;
  listener: ClientListener | null = null;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #turn: ClientTurn;
  #bodyLeft = -1;
  #wroteBody = false;
  #waitsForDrain = false;

  constructor(request: IncomingMessage, response: ServerResponse, turn: ClientTurn) {
    this.method = request.method ?? '';
    this.url = request.url ?? '';
    this.rawHeaders = request.rawHeaders;
    this.http10 = request.httpVersionMinor === 0;
    this.#request = request;
    this.#response = response;
    this.#turn = turn;
    (response as Bound)[CLIENT] = this;
    response.on('close', onClose);
  }

  /** All of the request has been parsed. */
  get requestComplete(): boolean {
    return this.#request.complete;
  }

  readBody(): void {
    const request = this.#request;
    (request as Bound)[CLIENT] = this;
    const length = request.headers['content-length'];
    this.#bodyLeft = length === undefined ? -1 : Number(length);
    request.on('data', onBodyData);
    if (this.#bodyLeft < 0) request.on('end', onBodyEnd);
  }

  pauseBody(): void {
    this.#request.pause();
  }

  resumeBody(): void {
    this.#request.resume();
  }

  bodyChunk(chunk: Buffer): void {
    if (!this.listener) return;
    this.listener.bodyData(chunk);
    // With a declared length the last byte is the end: no need to wait for the stream to say so two ticks later.
    if (this.#bodyLeft >= 0 && (this.#bodyLeft -= chunk.length) === 0) this.listener?.bodyEnd();
  }

  begin(status: number, reason: string, headers: string[]): void {
    const response = this.#response;
    if (this.#turn.closing) response.shouldKeepAlive = false;
    if (reason === '') response.writeHead(status, headers);
    else response.writeHead(status, reason, headers);
    // writeHead alone stays unsent until the first body byte, which may be minutes away.
    process.nextTick(flushHead, this);
  }

  flushHead(): void {
    if (!this.#wroteBody && !this.#response.destroyed) this.#response.flushHeaders();
  }

  write(chunk: Buffer): boolean {
    this.#wroteBody = true;
    if (this.#response.write(chunk)) return true;
    if (!this.#waitsForDrain) {
      this.#waitsForDrain = true;
      this.#response.once('drain', onDrain);
    }
    return false;
  }

  drained(): void {
    this.#waitsForDrain = false;
    this.listener?.drained();
  }

  finish(last: Buffer | null): void {
    this.#wroteBody = true;
    if (last === null) this.#response.end();
    else this.#response.end(last);
    if (!this.#request.complete && this.#hasBody()) this.#discardBody();
  }

  abort(): void {
    this.#wroteBody = true;
    // A plain close looks like the end of the answer to an HTTP/1.0 client.
    this.#request.socket.resetAndDestroy();
  }

  over(): void {
    const { listener } = this;
    this.listener = null;
    listener?.gone();
    this.#turn.over(this);
  }

  #hasBody(): boolean {
    const { headers } = this.#request;
    return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
  }

  /** The rest of the body must be out of the way before the next request; a client that sends on and on loses the connection. */
  #discardBody(): void {
    const request = this.#request;
    const { socket } = request;
    let left = DISCARD_BYTES;
    const timer = setTimeout(() => socket.destroy(), DISCARD_MS);
    request.off('data', onBodyData);
    request.on('data', (chunk: Buffer) => {
      left -= chunk.length;
      if (left < 0) socket.destroy();
    });
    request.once('close', () => clearTimeout(timer));
    request.resume();
  }
}

function onBodyData(this: IncomingMessage, chunk: Buffer): void {
  (this as Bound)[CLIENT]!.bodyChunk(chunk);
}

function onBodyEnd(this: IncomingMessage): void {
  (this as Bound)[CLIENT]!.listener?.bodyEnd();
}

function onClose(this: ServerResponse): void {
  (this as Bound)[CLIENT]!.over();
}

function onDrain(this: ServerResponse): void {
  (this as Bound)[CLIENT]!.drained();
}

function flushHead(client: NodeClient): void {
  client.flushHead();
}

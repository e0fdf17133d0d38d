// One handshake with a server of an upstream, through http-proxy-3: the only file that knows that library.
//
// It writes the request, follows the parser to the switch and joins the two ends. It gets a connection that is dialled already, and a
// facade in place of the client's, as left to itself it parses and so rewrites the path, has no deadlines, answers for us, ends
// a cut answer like a whole one, and keeps a handshake whose client has left. Our listeners come before its own.

import { Agent, type ClientRequest, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { createProxyServer } from 'http-proxy-3';
import { authorityOf } from '../config/base-url.ts';
import type { FailureCode } from '../errors.ts';
import { sameName } from '../fields.ts';
import { MAX_INTERIM, readResponseHead } from '../http/response-head.ts';
import type { Dial, DialFailure, DialListener } from '../upstream/dial.ts';
import type { UpstreamTarget } from '../upstream/upstream-target.ts';
import type { Facade } from './tunnel-facade.ts';

const SWITCHING = 101;
/** The connection is there; the library only wants to know a protocol. */
const NOWHERE = { protocol: 'http:', host: 'upstream', port: 80 };
/** As much of a request as it looks at. All else is put in by us. */
const REQUEST = { method: 'GET', url: '/', httpVersion: '1.1', httpVersionMajor: 1, headers: { upgrade: 'websocket' } };
const NO_BYTES = Buffer.alloc(0);

/** An answer that is no switch of protocols. The body is `complete` when it came to its end by its own framing. */
export interface PlainAnswer {
  readonly status: number;
  readonly reason: string;
  readonly headers: string[];
  readonly body: Readable & { readonly complete: boolean };
}

export interface HandshakeListener {
  /** The connection is there and the request on its way. */
  requestSent(): void;
  interim(status: number, reason: string, headers: readonly string[]): void;
  /** @param headers of the 101, Connection and Upgrade included */
  switched(headers: string[], socket: Socket): void;
  answered(answer: PlainAnswer): void;
  /** @param wasSent the server may have seen the request */
  handshakeFailed(code: FailureCode, detail: string, wasSent: boolean): void;
}

export class Handshake implements DialListener {
  readonly #listener: HandshakeListener;
  readonly #target: UpstreamTarget;
  readonly #path: string;
  readonly #fields: string[];
  readonly #facade: Facade;
  #dial: Dial | null = null;
  #socket: Socket | null = null;
  #request: ClientRequest | null = null;
  #answer: IncomingMessage | null = null;
  #interim = 0;
  /** The listener has heard the outcome, or does not want to. */
  #over = false;

  /** @param fields flat pairs of the client's, without hop-by-hop ones and Host */
  constructor(listener: HandshakeListener, target: UpstreamTarget, path: string, fields: string[], facade: Facade) {
    this.#listener = listener;
    this.#target = target;
    this.#path = path;
    this.#fields = fields;
    this.#facade = facade;
  }

  start(): void {
    this.#dial = this.#target.webSocketDialer!.open(this);
  }

  /** Takes everything with it, also a plain answer that has begun. */
  cancel(): void {
    this.#over = true;
    this.#dial?.cancel();
    this.#request?.destroy();
    this.#socket?.destroy();
    this.#facade.destroy();
  }

  // ---- the dial's word

  dialed(_dial: Dial, socket: Socket): void {
    this.#socket = socket;
    // A FIN of one side says nothing of the other's.
    socket.allowHalfOpen = true;
    // Whoever has it next hears of an error, too; but for a turn nobody has.
    socket.on('error', (error) => {
      socket.destroy();
      // To node:http a reset, too, is the end of an answer without a length.
      if (!this.#answer?.complete) this.#answer?.destroy(error);
    });
    this.#listener.requestSent();
    const library = createProxyServer();
    library.on('error', ignore);
    library.on('proxyReqWs', (request) => this.#prepare(request));
    try {
      library.ws(
        REQUEST as unknown as IncomingMessage,
        this.#facade,
        NO_BYTES,
        { target: NOWHERE, agent: new Dialled(socket) },
        ignore,
      );
    } catch (error) {
      // A field that node:http would not write.
      this.#failed('bad_request', (error as Error).message);
    }
  }

  dialFailed(_dial: Dial, code: DialFailure, detail: string): void {
    this.#dial = null;
    if (this.#over) return;
    this.cancel();
    this.#listener.handshakeFailed(code, detail, false);
  }

  // ---- the request

  #prepare(request: ClientRequest): void {
    this.#request = request;
    const { origin, maxHeadBytes } = this.#target.config;
    request.on('error', (error: NodeJS.ErrnoException) => this.#failed(failureOf(error), error.code ?? error.message));
    request.on('information', ({ statusCode, statusMessage, rawHeaders }) => {
      this.#informed(statusCode, statusMessage, rawHeaders);
    });
    request.on('response', (answer) => this.#answered(answer));
    request.on('upgrade', (answer, socket) => this.#switched(answer, socket as Socket));
    request.path = this.#path;
    // Too many are refused below; node:http would only leave the rest out.
    request.maxHeadersCount = 0;
    (request as { maxHeaderSize?: number }).maxHeaderSize = maxHeadBytes;
    request.removeHeader('upgrade');
    request.setHeader('Host', authorityOf(origin));
    const fields = this.#target.withHeaders(this.#fields);
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i]!;
      if (name.length === 4 && sameName(name, 'host')) request.setHeader(name, fields[i + 1]!);
      else request.appendHeader(name, fields[i + 1]!);
    }
    request.setHeader('Connection', 'Upgrade');
    request.setHeader('Upgrade', 'websocket');
  }

  // ---- the answer

  #informed(status: number, reason: string, raw: readonly string[]): void {
    if (this.#over) return;
    if (status <= SWITCHING) this.#failed('upstream_protocol_error', `${status} was not asked for`);
    else if (++this.#interim > MAX_INTERIM) {
      this.#failed('upstream_protocol_error', `more than ${MAX_INTERIM} interim answers`);
    } else if (this.#isWell(raw))
      this.#listener.interim(status, reason, readResponseHead(bytesOf(raw), status).headers);
  }

  #switched(answer: IncomingMessage, socket: Socket): void {
    if (this.#over) return;
    if (!this.#isWell(answer.rawHeaders)) return;
    const head = readResponseHead(bytesOf(answer.rawHeaders), SWITCHING, versionOf(answer));
    const to = answer.headers.upgrade ?? '';
    if (answer.httpVersion !== '1.1') head.problem = 'HTTP/1.0 has no 101';
    else if (head.chunked) head.problem = 'a 101 has no body';
    else if (to.length !== 9 || !sameName(to, 'websocket'))
      head.problem = 'it switches to something else than a WebSocket';
    if (head.problem) {
      this.#failed('upstream_protocol_error', head.problem);
      return;
    }
    this.#over = true;
    this.#listener.switched(['Connection', 'Upgrade', 'Upgrade', 'websocket', ...head.headers], socket);
  }

  #answered(answer: IncomingMessage): void {
    if (this.#over) {
      answer.on('error', ignore);
      return;
    }
    if (!this.#isWell(answer.rawHeaders)) return;
    const status = answer.statusCode!;
    const head = readResponseHead(bytesOf(answer.rawHeaders), status, versionOf(answer));
    // node:http takes a 101 that names no protocol for an answer like others.
    if (status < 200) head.problem = `a ${status} that switches to nothing`;
    if (head.problem) {
      this.#failed('upstream_protocol_error', head.problem);
      return;
    }
    this.#over = true;
    this.#answer = answer;
    // What the library would write of it goes nowhere.
    this.#facade.destroy();
    this.#listener.answered({ status, reason: answer.statusMessage ?? '', headers: head.headers, body: answer });
  }

  #isWell(raw: readonly string[]): boolean {
    const { maxHeaders } = this.#target.config;
    if (raw.length <= 2 * maxHeaders) return true;
    this.#failed('upstream_head_too_large', `more than ${maxHeaders} fields`);
    return false;
  }

  #failed(code: FailureCode, detail: string): void {
    if (this.#over) return;
    this.cancel();
    this.#listener.handshakeFailed(code, detail, true);
  }
}

/** Has one connection. */
class Dialled extends Agent {
  readonly #socket: Socket;

  constructor(socket: Socket) {
    super();
    this.#socket = socket;
  }

  override createConnection(): Socket {
    return this.#socket;
  }
}

function ignore(): void {}

function bytesOf(raw: readonly string[]): Buffer[] {
  return raw.map((text) => Buffer.from(text, 'latin1'));
}

function versionOf({ httpVersionMajor, httpVersionMinor }: IncomingMessage): number {
  return httpVersionMajor * 10 + httpVersionMinor;
}

function failureOf({ code = '' }: NodeJS.ErrnoException): FailureCode {
  if (code === 'HPE_HEADER_OVERFLOW') return 'upstream_head_too_large';
  return code.startsWith('HPE_') && code !== 'HPE_INVALID_EOF_STATE' ? 'upstream_protocol_error' : 'upstream_reset';
}

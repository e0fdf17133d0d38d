// Upstreams for tests: one on bare sockets that does exactly what a script says, and a plain node:http(s) one.

import { once } from 'node:events';
import { createServer as createHttpServer, type Server as HttpServer, type RequestListener } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { until } from './until.ts';

/** A request as it came. The body grows until `complete`. */
export class UpstreamRequest {
  readonly method: string;
  readonly target: string;
  readonly headers: readonly (readonly [string, string])[];
  /** The head, byte for byte. */
  readonly text: string;
  /** Bytes of the body so far. */
  bodyBytes = 0;
  #parts: Buffer[] = [];
  complete = false;
  readonly connection: UpstreamConnection;

  constructor(text: string, connection: UpstreamConnection) {
    this.text = text;
    this.connection = connection;
    const [line = '', ...fields] = text.slice(0, -4).split('\r\n');
    const [method = '', target = ''] = line.split(' ');
    this.method = method;
    this.target = target;
    this.headers = fields.map((field): [string, string] => {
      const colon = field.indexOf(':');
      return [field.slice(0, colon), field.slice(colon + 1).trim()];
    });
  }

  all(name: string): string[] {
    return this.headers.filter(([key]) => key.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
  }

  get(name: string): string | undefined {
    return this.all(name)[0];
  }

  add(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.bodyBytes += bytes.length;
    this.#parts.push(bytes);
  }

  /** The body so far. */
  get body(): Buffer {
    if (this.#parts.length !== 1) this.#parts = [Buffer.concat(this.#parts)];
    return this.#parts[0]!;
  }

  async whole(): Promise<Buffer> {
    await until('the whole request at the upstream', () => this.complete);
    return this.body;
  }
}

/** One connection of a scripted upstream. */
export class UpstreamConnection {
  readonly socket: Socket;
  readonly index: number;
  readonly requests: UpstreamRequest[] = [];
  /** How many bytes came, and the bytes themselves (the first 4 MB). */
  bytes = 0;
  readonly received: Buffer[] = [];
  /** The proxy sent a FIN. */
  ended = false;
  /** The proxy sent a RST (or it was ours). */
  reset = false;
  closed = false;
  readonly openedAt = performance.now();
  /** When the first of these happened. */
  leftAt = 0;

  constructor(socket: Socket, index: number) {
    this.socket = socket;
    this.index = index;
  }

  get text(): string {
    return Buffer.concat(this.received).toString('latin1');
  }

  send(bytes: string | Uint8Array): this {
    if (!this.socket.destroyed) this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
    return this;
  }

  /** One byte at a time, each in a packet of its own as far as one can tell. */
  async trickle(bytes: string, gapMs = 0): Promise<void> {
    for (const byte of Buffer.from(bytes, 'latin1')) {
      if (this.socket.destroyed) return;
      this.socket.write(Buffer.of(byte));
      if (gapMs > 0) await sleep(gapMs);
      else await new Promise(setImmediate);
    }
  }

  /** FIN. */
  end(): void {
    this.socket.end();
  }

  /** RST. */
  resetAndDestroy(): void {
    this.socket.resetAndDestroy();
  }

  /** Gone, however: FIN, RST or closed. */
  get left(): boolean {
    return this.ended || this.reset || this.closed;
  }
}

/** Called with each request as soon as its head is there. */
export type Script = (request: UpstreamRequest, connection: UpstreamConnection) => unknown;

export interface RawUpstreamOptions {
  readonly tls?: TlsOptions;
  /** Called with each connection (after TLS). */
  readonly onConnection?: (connection: UpstreamConnection) => void;
  /** Keeps half-closed connections open; default true, so that a script decides. */
  readonly allowHalfOpen?: boolean;
}

const KEEP_BYTES = 4 << 20;

export class RawUpstream {
  readonly connections: UpstreamConnection[] = [];
  /** All requests in order of arrival. */
  readonly requests: UpstreamRequest[] = [];
  readonly #server: Server;
  #script: Script;
  #port = 0;
  readonly #protocol: string;
  /** Requests whose script is under way; see `busy`. */
  concurrent = 0;
  maxConcurrent = 0;

  private constructor(script: Script, options: RawUpstreamOptions) {
    this.#script = script;
    this.#protocol = options.tls ? 'https' : 'http';
    const take = (socket: Socket) => this.#take(socket, options);
    const allowHalfOpen = options.allowHalfOpen ?? true;
    this.#server = options.tls
      ? createTlsServer(options.tls, take)
      : createServer({ allowHalfOpen, noDelay: true }, take);
    if (options.tls) this.#server.on('tlsClientError', () => {});
  }

  static async start(script: Script, options: RawUpstreamOptions = {}): Promise<RawUpstream> {
    const upstream = new RawUpstream(script, options);
    upstream.#server.listen(0, '127.0.0.1');
    await once(upstream.#server, 'listening');
    upstream.#port = (upstream.#server.address() as AddressInfo).port;
    return upstream;
  }

  get port(): number {
    return this.#port;
  }

  get url(): string {
    return `${this.#protocol}://127.0.0.1:${this.#port}`;
  }

  set script(script: Script) {
    this.#script = script;
  }

  /** Waits for the n-th request (0 = first). */
  async request(index = 0): Promise<UpstreamRequest> {
    return await until(`request ${index} at the upstream`, () => this.requests[index]);
  }

  async connection(index = 0): Promise<UpstreamConnection> {
    return await until(`connection ${index} at the upstream`, () => this.connections[index]);
  }

  get open(): number {
    return this.connections.filter((connection) => !connection.closed).length;
  }

  /** No new connections; those there are stay. */
  stopListening(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      if (this.open === 0) return;
      resolve();
    });
  }

  async close(): Promise<void> {
    for (const { socket } of this.connections) socket.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }

  #take(socket: Socket, options: RawUpstreamOptions): void {
    const connection = new UpstreamConnection(socket, this.connections.length);
    this.connections.push(connection);
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE') connection.reset = true;
    });
    socket.on('end', () => {
      connection.ended = true;
      connection.leftAt ||= performance.now();
    });
    socket.on('close', () => {
      connection.closed = true;
      connection.leftAt ||= performance.now();
    });
    const parser = new RequestParser(connection, (request) => this.#run(request, connection));
    socket.on('data', (chunk: Buffer) => {
      if (connection.bytes < KEEP_BYTES) connection.received.push(chunk);
      connection.bytes += chunk.length;
      parser.feed(chunk);
    });
    options.onConnection?.(connection);
  }

  #run(request: UpstreamRequest, connection: UpstreamConnection): void {
    this.requests.push(request);
    connection.requests.push(request);
    this.concurrent++;
    this.maxConcurrent = Math.max(this.maxConcurrent, this.concurrent);
    const done = () => {
      this.concurrent--;
    };
    Promise.resolve()
      .then(() => this.#script(request, connection))
      .then(done, (error: unknown) => {
        done();
        connection.socket.destroy();
        if (!connection.left) console.error('the script of an upstream failed:', error);
      });
  }
}

/** Enough of HTTP/1.1 to tell requests apart. */
class RequestParser {
  readonly #connection: UpstreamConnection;
  readonly #onHead: (request: UpstreamRequest) => void;
  #buffer: Buffer = Buffer.alloc(0);
  #current: UpstreamRequest | null = null;
  /** Bytes of the body still to come; -1 = chunked. */
  #left = 0;
  #chunkLeft = 0;
  #afterChunk = false;

  constructor(connection: UpstreamConnection, onHead: (request: UpstreamRequest) => void) {
    this.#connection = connection;
    this.#onHead = onHead;
  }

  feed(chunk: Buffer): void {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    while (this.#step());
  }

  #step(): boolean {
    const current = this.#current;
    if (!current) return this.#head();
    if (this.#left >= 0) {
      const bytes = this.#cut(Math.min(this.#left, this.#buffer.length));
      this.#left -= bytes.length;
      current.add(bytes);
      if (this.#left > 0) return false;
      return this.#over();
    }
    return this.#chunk(current);
  }

  /** Bytes of a chunk count as they come. */
  #chunk(current: UpstreamRequest): boolean {
    if (this.#chunkLeft > 0) {
      const bytes = this.#cut(Math.min(this.#chunkLeft, this.#buffer.length));
      this.#chunkLeft -= bytes.length;
      current.add(bytes);
      if (this.#chunkLeft === 0) this.#afterChunk = true;
      return this.#buffer.length > 0;
    }
    if (this.#afterChunk) {
      if (this.#buffer.length < 2) return false;
      this.#cut(2);
      this.#afterChunk = false;
    }
    const end = this.#buffer.indexOf('\r\n');
    if (end < 0) return false;
    const size = Number.parseInt(this.#buffer.subarray(0, end).toString(), 16);
    if (size === 0 && this.#buffer.length < end + 4) return false;
    this.#cut(size === 0 ? end + 4 : end + 2);
    this.#chunkLeft = size;
    return size > 0 ? this.#buffer.length > 0 : this.#over();
  }

  #head(): boolean {
    const end = this.#buffer.indexOf('\r\n\r\n');
    if (end < 0) return false;
    const request = new UpstreamRequest(this.#cut(end + 4).toString('latin1'), this.#connection);
    this.#left = request.get('transfer-encoding') ? -1 : Number(request.get('content-length') ?? 0);
    this.#current = request;
    if (this.#left === 0) this.#over();
    this.#onHead(request);
    return true;
  }

  #over(): boolean {
    this.#current!.complete = true;
    this.#current = null;
    return this.#buffer.length > 0;
  }

  #cut(bytes: number): Buffer {
    const taken = this.#buffer.subarray(0, bytes);
    this.#buffer = this.#buffer.subarray(bytes);
    return taken;
  }
}

/** A whole answer as text. */
export function answer(body = 'ok', headers = '', status = '200 OK'): string {
  return `HTTP/1.1 ${status}\r\n${headers}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

/** The head of a chunked answer. */
export function chunkedHead(headers = '', status = '200 OK'): string {
  return `HTTP/1.1 ${status}\r\n${headers}transfer-encoding: chunked\r\n\r\n`;
}

export function chunk(text: string): string {
  return `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;
}

export const LAST_CHUNK = '0\r\n\r\n';

/** A node:http(s) upstream. */
export class HttpUpstream {
  readonly #server: HttpServer;
  readonly #protocol: string;
  /** Sockets accepted (TLS: handshakes done). */
  sockets = 0;

  private constructor(handler: RequestListener, tls?: TlsOptions) {
    this.#protocol = tls ? 'https' : 'http';
    this.#server = tls ? createHttpsServer(tls, handler) : createHttpServer(handler);
    this.#server.keepAliveTimeout = 60_000;
    this.#server.on(tls ? 'secureConnection' : 'connection', () => this.sockets++);
  }

  static async start(handler: RequestListener, tls?: TlsOptions): Promise<HttpUpstream> {
    const upstream = new HttpUpstream(handler, tls);
    upstream.#server.listen(0, '127.0.0.1');
    await once(upstream.#server, 'listening');
    return upstream;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.#protocol}://127.0.0.1:${this.port}`;
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}

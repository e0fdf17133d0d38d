// The stats port: a small HTTP server that shows the numbers and takes the few commands, from the right hosts and peers only.
import { chmod } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Address } from '../config/schema.ts';
import { METRICS_TYPE } from '../observe/metrics.ts';
import type { StatsSnapshot } from '../observe/snapshot.ts';
import type { Explained, Explanation, PurgeOrder } from './cache-desk.ts';
import { DASHBOARD_HTML, DASHBOARD_ICON, DASHBOARD_JS } from './dashboard.ts';
import { DASHBOARD_CSS } from './dashboard-style.ts';
import { freeSocketPath, SOCKET_MODE } from './socket-path.ts';
import { type Answer, EVERY_ANSWER, JSON_TYPE, malformed, ok, refusal, TEXT_TYPE } from './stats-answers.ts';
import { explain, purge } from './stats-cache.ts';
import { isCrossSite, isHostAllowed, isLoopback, isWellFormedHost } from './stats-guard.ts';

export interface StatsSource {
  stats(): StatsSnapshot;
  metrics(): string;
  /** Already redacted. */
  config(): unknown;
  ready(): boolean;
  drain(): void;
  purge(order: PurgeOrder): Promise<{ memory: number; redis: number | null }>;
  explain(request: Explained): Promise<Explanation | string>;
}

/** What a route may need of its request. */
interface Asked {
  readonly query: URLSearchParams;
  /** The body, for routes that read one. */
  readonly body: Buffer;
}

interface Route {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** It reads the body; other routes throw it away. */
  readonly readsBody?: boolean;
  readonly answer: (asked: Asked) => Answer | Promise<Answer>;
}

const HEAD_TIMEOUT_MS = 5_000;
const REQUEST_TIMEOUT_MS = 10_000;
/** A reader that takes nothing for so long is gone. */
const SILENCE_MS = 30_000;
const MAX_CONNECTIONS = 100;
const MAX_HEAD_BYTES = 8_192;
const MAX_HEADERS = 64;
const MAX_BODY_BYTES = 65_536;
/** Of a request to be explained: as large as a body that can be looked up usually is. */
const MAX_READ_BYTES = 1024 * 1024;
/** What is running at stop, and a connection told to go, gets this long. */
const GOODBYE_MS = 250;

/** Where it listens. */
export interface StatsAddress {
  /** What a person would connect to: `127.0.0.1:9090`, `[::1]:9090`, `unix:/run/stats.sock`. */
  readonly text: string;
  /** '' and 0 for a unix socket. */
  readonly host: string;
  readonly port: number;
}

export class StatsPort {
  readonly #source: StatsSource;
  readonly #allowedHosts: ReadonlySet<string>;
  readonly #onError: (error: unknown) => void;
  readonly #routes: ReadonlyMap<string, Route>;
  readonly #server: Server;
  /** It listens on a unix socket. */
  #unix = false;
  /** The newest answer of each connection; the next one waits for it. */
  readonly #latest = new WeakMap<Duplex, ServerResponse>();

  /**
   * @param allowedHosts names accepted in the Host header besides IP literals and localhost
   * @param onError told what the source threw; the client gets a plain 500
   */
  constructor(source: StatsSource, allowedHosts: readonly string[], onError: (error: unknown) => void = () => {}) {
    this.#source = source;
    this.#allowedHosts = new Set(allowedHosts.map((name) => name.toLowerCase()));
    this.#onError = onError;
    this.#routes = this.#table();
    this.#server = this.#open();
  }

  /** @throws Error with one clear line when the address cannot be had */
  async start(address: Address): Promise<StatsAddress> {
    this.#unix = address.path !== '';
    try {
      if (this.#unix) await freeSocketPath(address.path);
      await this.#listen(address);
      if (this.#unix) await chmod(address.path, SOCKET_MODE);
    } catch (error) {
      throw new Error(listenFailure(address, error as NodeJS.ErrnoException), { cause: error });
    }
    if (this.#unix) return { text: address.text, host: '', port: 0 };
    const { address: host, port } = this.#server.address() as AddressInfo;
    return { text: hostAndPort(host, port), host, port };
  }

  #listen({ host, port, path }: Address): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#server.once('error', reject);
    this.#server.listen(this.#unix ? { path } : { host, port }, () => {
      this.#server.off('error', reject);
      this.#server.on('error', this.#onError);
      resolve();
    });
    return promise;
  }

  /** node:net removes the file of a unix socket itself. */
  stop(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const cut = setTimeout(() => this.#server.closeAllConnections(), GOODBYE_MS);
    this.#server.close(() => {
      clearTimeout(cut);
      resolve();
    });
    return promise;
  }

  #table(): Map<string, Route> {
    const get = (answer: () => Answer): Route => ({ method: 'GET', answer });
    return new Map([
      ['/', get(() => ok('text/html; charset=utf-8', DASHBOARD_HTML))],
      ['/dashboard.js', get(() => ok('text/javascript; charset=utf-8', DASHBOARD_JS))],
      ['/dashboard.css', get(() => ok('text/css; charset=utf-8', DASHBOARD_CSS))],
      ['/dashboard.svg', get(() => ok('image/svg+xml', DASHBOARD_ICON))],
      ['/stats', get(() => ok(JSON_TYPE, `${JSON.stringify(this.#source.stats())}\n`))],
      ['/metrics', get(() => ok(METRICS_TYPE, this.#source.metrics()))],
      ['/healthz', get(() => ok(TEXT_TYPE, 'ok\n'))],
      ['/readyz', get(() => this.#readiness())],
      ['/config', get(() => ok(JSON_TYPE, `${JSON.stringify(this.#source.config(), null, 2)}\n`))],
      ['/drain', { method: 'POST', answer: () => this.#drain() }],
      ['/cache', { method: 'DELETE', answer: ({ query }) => purge(this.#source, query) }],
      ['/cache/explain', { method: 'POST', readsBody: true, answer: ({ body }) => explain(this.#source, body) }],
    ]);
  }

  #readiness(): Answer {
    if (this.#source.ready()) return ok(TEXT_TYPE, 'ready\n');
    const { draining } = this.#source.stats().listener;
    if (!draining) return refusal(503, 'starting', 'starting: aiproxy does not take requests yet');
    return refusal(503, 'draining', 'draining: aiproxy finishes what is in flight and takes nothing new');
  }

  #drain(): Answer {
    this.#source.drain();
    return { status: 202, type: JSON_TYPE, body: '{"draining":true}\n' };
  }

  #open(): Server {
    const server = createServer({
      headersTimeout: HEAD_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: 1_000,
      maxHeaderSize: MAX_HEAD_BYTES,
      requireHostHeader: false, // a missing one is refused below, with a sentence
    });
    server.maxConnections = MAX_CONNECTIONS;
    server.maxHeadersCount = MAX_HEADERS;
    server.timeout = SILENCE_MS;
    const take = (request: IncomingMessage, response: ServerResponse) => this.#take(request, response, false);
    server.on('request', take);
    server.on('checkContinue', (request, response) => this.#take(request, response, true));
    server.on('checkExpectation', take);
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => this.#refuseMalformed(error, socket));
    return server;
  }

  /** node:http starts every pipelined request at once; here each waits for a later turn of the loop than the one before. */
  #take(request: IncomingMessage, response: ServerResponse, waitsForContinue: boolean): void {
    const before = this.#latest.get(request.socket);
    this.#latest.set(request.socket, response);
    const refused = this.#refuse(request);
    const reads = !refused && this.#routes.get(pathOf(request))!.readsBody === true;
    if (reads && waitsForContinue) response.writeContinue(); // the others get their answer: nothing wants that body
    const body = reads ? readBody(request) : NO_BODY;
    if (!reads) discardBody(request);
    const begin = () => {
      // Nobody awaits it: what it throws would end the process.
      this.#send(request, response, refused, body).catch((error) => {
        this.#onError(error);
        response.destroy();
      });
    };
    if (!before || before.writableFinished) begin();
    else before.once('close', () => setImmediate(begin));
  }

  async #send(
    request: IncomingMessage,
    response: ServerResponse,
    refused: Answer | null,
    body: Promise<Buffer | null>,
  ): Promise<void> {
    const answer = refused ?? (await this.#answer(request, await body));
    const bytes = Buffer.from(answer.body);
    response.writeHead(answer.status, {
      'Content-Type': answer.type,
      'Content-Length': bytes.length,
      ...EVERY_ANSWER,
      ...answer.headers,
    });
    response.end(bytes); // node:http leaves the body out of an answer to HEAD
  }

  async #answer(request: IncomingMessage, body: Buffer | null): Promise<Answer> {
    if (!body) return refusal(413, 'body_too_large', `a body of at most ${MAX_READ_BYTES} bytes is read`);
    try {
      const { searchParams } = new URL(request.url ?? '/', 'http://localhost');
      return await this.#routes.get(pathOf(request))!.answer({ query: searchParams, body });
    } catch (error) {
      this.#onError(error);
      return refusal(500, 'internal_error', 'aiproxy could not produce this answer; its log says why');
    }
  }

  #refuse(request: IncomingMessage): Answer | null {
    const host = oneHost(request);
    if (!(this.#unix ? isWellFormedHost(host) : isHostAllowed(host, this.#allowedHosts))) {
      return refusal(
        403,
        'host_not_allowed',
        'the Host header must be an IP address, localhost or a name in allowed_hosts (protection against DNS rebinding)',
      );
    }
    const route = this.#routes.get(pathOf(request));
    if (!route) return refusal(404, 'unknown_path', `no such path; there are ${this.#paths()}`);
    const method = request.method === 'HEAD' ? 'GET' : request.method;
    if (method !== route.method) {
      const allow = route.method === 'GET' ? 'GET, HEAD' : route.method;
      return refusal(405, 'method_not_allowed', `this path takes ${allow}`, { Allow: allow });
    }
    return route.method === 'GET' ? null : refuseChange(request, host!, this.#unix);
  }

  #paths(): string {
    return [...this.#routes].map(([path, { method }]) => (method === 'GET' ? path : `${method} ${path}`)).join(', ');
  }

  #refuseMalformed(error: NodeJS.ErrnoException, socket: Duplex): void {
    const running = this.#latest.get(socket);
    const cutting = running?.headersSent && !running.writableFinished;
    if (!socket.writable || cutting || error.code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    const answer = malformed(error.code, MAX_HEAD_BYTES);
    const head = [
      `HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status]}`,
      `Content-Type: ${answer.type}`,
      `Content-Length: ${Buffer.byteLength(answer.body)}`,
      'Connection: close',
      ...Object.entries({ ...EVERY_ANSWER, ...answer.headers }).map(([name, value]) => `${name}: ${value}`),
    ];
    socket.end(`${head.join('\r\n')}\r\n\r\n${answer.body}`);
    destroySoon(socket);
  }
}

/** @param unix the peer came by a unix socket: it is on this machine, and the permissions of the file let it in */
function refuseChange(request: IncomingMessage, host: string, unix: boolean): Answer | null {
  if (!unix && !isLoopback(request.socket.remoteAddress)) {
    return refusal(403, 'loopback_only', 'what changes state is taken from a loopback address only');
  }
  const { origin, 'sec-fetch-site': site } = request.headers;
  if (isCrossSite(origin, Array.isArray(site) ? site.join() : site, host)) {
    return refusal(403, 'cross_site', 'what changes state is not taken from a page of another site');
  }
  return null;
}

function pathOf(request: IncomingMessage): string {
  const url = request.url ?? '';
  const query = url.indexOf('?');
  return query < 0 ? url : url.slice(0, query);
}

/** node:http keeps the first of several Host headers; more than one is no name at all. */
function oneHost(request: IncomingMessage): string | undefined {
  const hosts = request.headersDistinct.host;
  return hosts?.length === 1 ? hosts[0] : undefined;
}

const NO_BODY = Promise.resolve(Buffer.alloc(0));

/** @returns null when it is too large; what its client does not send ends the connection by the server's own deadline */
async function readBody(request: IncomingMessage): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  return await new Promise((resolve) => {
    const read = (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= MAX_READ_BYTES) {
        chunks.push(chunk);
        return;
      }
      chunks.length = 0;
      request.off('data', read);
      discardBody(request);
      resolve(null);
    };
    request.on('error', () => resolve(null));
    request.on('close', () => resolve(null));
    request.on('data', read);
    request.on('end', () => resolve(Buffer.concat(chunks))); // of one too large: too late to count
  });
}

/** Most routes read no body: a small one is thrown away so that the connection can be kept, a larger one ends it. */
function discardBody(request: IncomingMessage): void {
  let left = MAX_BODY_BYTES;
  request.on('error', () => {}); // the client left in the middle of it
  request.on('data', (chunk: Buffer) => {
    left -= chunk.length;
    if (left >= 0) return;
    // Not destroyed at once: a reset would take the answer away from a client that still writes.
    request.pause();
    request.socket.end();
    destroySoon(request.socket);
  });
}

function destroySoon(socket: Duplex): void {
  setTimeout(() => socket.destroy(), GOODBYE_MS).unref();
}

function listenFailure(address: Address, error: NodeJS.ErrnoException): string {
  const where = address.path === '' ? hostAndPort(address.host, address.port) : address.text;
  return `cannot listen on ${where} (stats): ${LISTEN_FAILURES[error.code ?? ''] ?? error.message}`;
}

function hostAndPort(host: string, port: number): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

const LISTEN_FAILURES: Readonly<Record<string, string>> = {
  EADDRINUSE: 'the address is in use',
  EACCES: 'permission denied',
  EADDRNOTAVAIL: 'this machine does not have that address',
  ENOTFOUND: 'the host name is unknown',
};

// Accepts clients: limits on heads and connections, one exchange at a time on each connection, and clear refusals of what is not HTTP.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Address, ListenerConfig } from '../config/schema.ts';
import { answerFor, type FailureCode } from '../errors.ts';
import type { ListenerStats } from '../observe/stats.ts';
import type { Client } from '../proxy/client.ts';
import { type ClientTurn, NodeClient } from './node-client.ts';

/** Where requests go. */
export interface Acceptor {
  accept(client: Client): void;
}

const CONNECTION = Symbol('connection');
type WithConnection = Socket & { [CONNECTION]?: ClientConnection };
const ALIVE = '{"status":"ok"}\n';

export class Listener {
  readonly #config: ListenerConfig;
  readonly #stats: ListenerStats;
  readonly #acceptor: Acceptor;
  readonly #server: Server;
  readonly #address: Address;
  readonly #connections = new Set<ClientConnection>();
  /** Answers say `Connection: close` from now on. */
  stopping = false;

  constructor(address: Address, config: ListenerConfig, acceptor: Acceptor, stats: ListenerStats) {
    this.#address = address;
    this.#config = config;
    this.#stats = stats;
    this.#acceptor = acceptor;
    this.#server = createServer(
      {
        maxHeaderSize: config.maxHeadBytes,
        headersTimeout: config.headTimeoutMs,
        // A body's deadline is its minimum rate (proxy/body.ts).
        requestTimeout: 0,
        keepAliveTimeout: config.keepAliveTimeoutMs,
        connectionsCheckingInterval: Math.min(5000, Math.max(100, config.headTimeoutMs / 2)),
        // Host is judged by us, with our own answer.
        requireHostHeader: false,
        insecureHTTPParser: false,
        noDelay: true,
        // Offers of other protocols (h2c) are ignored and the request is served as it stands. Known from Node 24 on; Node 22 does so by itself.
        ...{ shouldUpgradeCallback: () => false },
      },
      (request, response) => this.#request(request, response),
    );
    this.#server.maxConnections = config.maxConnections;
    // Node drops the fields beyond this without a word; we count them ourselves and refuse (Entrance.accept).
    this.#server.maxHeadersCount = 0;
    this.#server.on('connection', (socket: WithConnection) => {
      const connection = new ClientConnection(this, socket);
      socket[CONNECTION] = connection;
      this.#connections.add(connection);
      this.#stats.connections++;
      socket.once('close', () => {
        this.#connections.delete(connection);
        this.#stats.connections--;
      });
    });
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket: WithConnection) =>
      this.#clientError(error, socket),
    );
    this.#server.on('connect', (_request: IncomingMessage, socket: Socket) => {
      this.refuseRaw(socket, 'invalid_target', 'CONNECT is not supported');
    });
  }

  /** @throws one clear line when the address cannot be had */
  async start(): Promise<AddressInfo> {
    const { host, port, text } = this.#address;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) => reject(new Error(listenProblem(error, text))));
      this.#server.listen({ host, port, backlog: 1024 }, resolve);
    });
    return this.#server.address() as AddressInfo;
  }

  get maxPipelined(): number {
    return this.#config.maxPipelined;
  }

  dispatch(client: NodeClient): void {
    this.#acceptor.accept(client);
  }

  /** No new connections; idle ones close now, the others after the answer they wait for. */
  stopAccepting(): Promise<void> {
    this.stopping = true;
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      for (const connection of [...this.#connections]) if (connection.isIdle) connection.socket.destroy();
    });
  }

  /** Cuts what is left. */
  closeAll(): void {
    for (const connection of [...this.#connections]) connection.socket.resetAndDestroy();
  }

  #request(request: IncomingMessage, response: ServerResponse): void {
    if (request.url === '/healthz' && (request.method === 'GET' || request.method === 'HEAD')) {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': ALIVE.length });
      response.end(ALIVE);
      return;
    }
    (request.socket as WithConnection)[CONNECTION]!.take(request, response);
  }

  #clientError(error: NodeJS.ErrnoException, socket: WithConnection): void {
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy();
      return;
    }
    const connection = socket[CONNECTION];
    if (connection?.protocolError(detailOf(error))) return;
    if (error.code === 'HPE_HEADER_OVERFLOW')
      this.refuseRaw(socket, 'headers_too_large', `more than ${this.#config.maxHeadBytes} bytes`);
    else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') this.refuseRaw(socket, 'request_timeout', '');
    else this.refuseRaw(socket, 'bad_request', detailOf(error));
  }

  /** Answers on a connection whose parser has given up, and closes it. */
  refuseRaw(socket: Socket, code: FailureCode, detail: string): void {
    this.#stats.requests++;
    this.#stats.refused.add(code);
    const answer = answerFor(code, detail, 0);
    let head = `HTTP/1.1 ${answer.status} ${code}\r\nconnection: close\r\n`;
    for (let i = 0; i < answer.headers.length; i += 2) head += `${answer.headers[i]}: ${answer.headers[i + 1]}\r\n`;
    socket.on('error', () => {}); // it may be gone before the answer is out; nobody is left to tell
    socket.end(`${head}\r\n${answer.body.toString()}`, () => socket.destroy());
  }
}

/** One client's connection: requests run one after the other, whatever the client pipelines. */
class ClientConnection implements ClientTurn {
  readonly socket: Socket;
  readonly #listener: Listener;
  #current: NodeClient | null = null;
  readonly #waiting: [IncomingMessage, ServerResponse][] = [];
  #broken = false;

  constructor(listener: Listener, socket: Socket) {
    this.#listener = listener;
    this.socket = socket;
  }

  get isIdle(): boolean {
    return this.#current === null;
  }

  get closing(): boolean {
    return this.#broken || (this.#listener.stopping && this.#waiting.length === 0);
  }

  take(request: IncomingMessage, response: ServerResponse): void {
    if (this.#current === null) this.#start(request, response);
    else if (this.#waiting.length < this.#listener.maxPipelined) this.#waiting.push([request, response]);
    else this.socket.destroy();
  }

  over(): void {
    this.#current = null;
    if (this.#broken) this.socket.destroy();
    if (this.socket.destroyed) {
      this.#waiting.length = 0;
      return;
    }
    const next = this.#waiting.shift();
    if (next) this.#start(next[0], next[1]);
    else if (this.#listener.stopping) this.socket.end();
  }

  /** What came cannot be parsed. @returns true when it concerns a running exchange, which answers or ends the connection itself */
  protocolError(detail: string): boolean {
    const current = this.#current;
    if (!current) return false;
    this.#broken = true;
    this.#waiting.length = 0;
    // Either the body of the running request, or something behind it: that must not disturb the running one.
    if (!current.requestComplete) current.listener?.malformed(detail);
    return true;
  }

  #start(request: IncomingMessage, response: ServerResponse): void {
    this.#current = new NodeClient(request, response, this);
    this.#listener.dispatch(this.#current);
  }
}

function detailOf(error: NodeJS.ErrnoException & { reason?: string }): string {
  return error.reason ?? error.code ?? '';
}

/** One clear line for an address that cannot be listened on. */
export function listenProblem(error: NodeJS.ErrnoException, text: string): string {
  const reasons: Record<string, string> = {
    EADDRINUSE: 'the address is in use by another process',
    EACCES: 'no permission for this port',
    EADDRNOTAVAIL: 'this machine has no such address',
    ENOTFOUND: 'no such host name',
  };
  return `cannot listen on ${text}: ${reasons[error.code ?? ''] ?? error.message}`;
}

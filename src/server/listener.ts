// Accepts clients on one address, plain or with TLS, and makes room for them.

import { chmod } from 'node:fs/promises';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Address, ListenConfig, ListenerConfig } from '../config/schema.ts';
import type { FailureCode } from '../errors.ts';
import type { TimerWheel } from '../flow/timer-wheel.ts';
import type { ListenerStats } from '../observe/stats.ts';
import type { UpgradableClient } from '../proxy/client.ts';
import { ClientConnection, type ListenerSide } from './client-connection.ts';
import { IdleList } from './idle-list.ts';
import { freeSocketPath, SOCKET_MODE } from './socket-path.ts';
import { type Handshake, type HandshakeEnd, TlsDoor } from './tls-door.ts';

const BACKLOG = 1024;

/** Where requests go. */
export interface Acceptor {
  accept(client: UpgradableClient): void;
}

/** Where a listener is to be reached. */
export interface ListeningAt {
  /** `127.0.0.1:8080`, `[::1]:8080` or `unix:/run/aiproxy.sock` */
  readonly text: string;
  /** 0 for a unix socket. */
  readonly port: number;
}

export class Listener implements ListenerSide, HandshakeEnd {
  readonly config: ListenerConfig;
  readonly wheel: TimerWheel;
  readonly now: () => number;
  readonly answersHealthz: boolean;
  readonly idle = new IdleList();
  readonly #address: Address;
  readonly #acceptor: Acceptor;
  readonly #stats: ListenerStats;
  readonly #server: Server;
  readonly #door: TlsDoor | null;
  readonly #connections = new Set<ClientConnection | Handshake>();
  #stopping = false;
  #pressed = false;

  /** @throws one clear line when its TLS material is not usable */
  constructor(
    { address, tls, upstream }: ListenConfig,
    config: ListenerConfig,
    acceptor: Acceptor,
    stats: ListenerStats,
    wheel: TimerWheel,
    now: () => number,
  ) {
    this.#address = address;
    this.config = config;
    this.#acceptor = acceptor;
    this.#stats = stats;
    this.wheel = wheel;
    this.now = now;
    // Where every path is an upstream's, this one is too.
    this.answersHealthz = upstream === null;
    try {
      this.#door = tls ? new TlsDoor(tls, this, wheel) : null;
    } catch (error) {
      throw new Error(`listener ${address.text}: its tls material is not usable: ${(error as Error).message}`);
    }
    this.#server = createServer({ noDelay: true }, (socket) => this.#take(socket));
  }

  /** @throws one clear line when the address cannot be had */
  async start(): Promise<ListeningAt> {
    const { host, port, path, text } = this.#address;
    if (path !== '') {
      await freeSocketPath(path).catch((error: Error) => {
        throw new Error(`cannot listen on ${text}: ${error.message}`);
      });
    }
    await new Promise<void>((resolve, reject) => {
      // POST /drain within the start closes what is not open yet: it must not open after that.
      const stopped = () => reject(new Error(`cannot listen on ${text}: aiproxy is stopping`));
      this.#server.once('close', stopped);
      this.#server.once('error', (error: NodeJS.ErrnoException) => reject(new Error(listenProblem(error, text))));
      if (this.#stopping) stopped();
      else this.#server.listen(path === '' ? { host, port, backlog: BACKLOG } : { path, backlog: BACKLOG }, resolve);
    });
    // One client that could not be accepted (no memory, no file descriptor) is not worth the process.
    this.#server.on('error', () => {});
    if (path !== '') {
      await chmod(path, SOCKET_MODE).catch((error: NodeJS.ErrnoException) => {
        throw new Error(listenProblem(error, text));
      });
      return { text: `unix:${path}`, port: 0 };
    }
    const bound = this.#server.address() as AddressInfo;
    const shownHost = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
    return { text: `${shownHost}:${bound.port}`, port: bound.port };
  }

  /** Answers say `connection: close`. */
  get closing(): boolean {
    return this.#stopping || this.#pressed;
  }

  get stopping(): boolean {
    return this.#stopping;
  }

  /** The process is short of memory, or not any more. Idle connections close now, the others after their answer. */
  press(isPressed: boolean): void {
    if (isPressed && !this.#pressed) for (const connection of [...this.#connections]) connection.stop();
    this.#pressed = isPressed;
  }

  accept(client: UpgradableClient): void {
    this.#acceptor.accept(client);
  }

  refused(code: FailureCode): void {
    this.#stats.requests++;
    this.#stats.refused.add(code);
  }

  closed(connection: ClientConnection | Handshake): void {
    this.idle.remove(connection);
    if (this.#connections.delete(connection)) this.#stats.connections--;
  }

  secured(handshake: Handshake, socket: TLSSocket): void {
    this.closed(handshake);
    this.#add(new ClientConnection(this, socket, handshake.raw));
  }

  unsecured(handshake: Handshake, tried: boolean): void {
    if (tried) this.#stats.tlsFailed++;
    this.closed(handshake);
  }

  /** No new connections; idle ones close now, the others after the answer they wait for. Resolves when all are gone. */
  stopAccepting(): Promise<void> {
    this.#stopping = true;
    return new Promise((resolve) => {
      // Removes the file of a unix socket, too.
      this.#server.close(() => resolve());
      for (const connection of [...this.#connections]) connection.stop();
    });
  }

  /** Cuts what is left. */
  cutAll(): void {
    for (const connection of [...this.#connections]) connection.cutOff();
  }

  /** Resets what is still open. */
  resetAll(): void {
    for (const connection of [...this.#connections]) connection.abort();
  }

  #take(socket: Socket): void {
    if (this.#connections.size >= this.config.maxConnections && !this.#makeRoom()) {
      this.#stats.connectionsRefused++;
      socket.destroy();
      return;
    }
    if (this.#door) this.#add(this.#door.take(socket, this.now() + this.config.headTimeoutMs));
    else this.#add(new ClientConnection(this, socket, socket));
  }

  #add(connection: ClientConnection | Handshake): void {
    this.#connections.add(connection);
    this.#stats.connections++;
    this.idle.add(connection);
  }

  /** Whoever has been idle for longest makes room; who waits for an answer never does, and who still takes one last. */
  #makeRoom(): boolean {
    const longest = this.idle.choose();
    if (!longest) return false;
    this.#stats.connectionsDropped++;
    longest.drop();
    return true;
  }
}

/** One clear line for an address that cannot be listened on. */
function listenProblem(error: NodeJS.ErrnoException, text: string): string {
  const reasons: Record<string, string> = {
    EADDRINUSE: 'the address is in use',
    EACCES: text.startsWith('unix:') ? 'permission denied' : 'no permission for this port',
    EADDRNOTAVAIL: 'this machine has no such address',
    ENOTFOUND: 'no such host name',
  };
  return `cannot listen on ${text}: ${reasons[error.code ?? ''] ?? error.message}`;
}

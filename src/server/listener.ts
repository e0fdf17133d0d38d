// Accepts clients on one address.

import { type AddressInfo, createServer, type Server } from 'node:net';
import type { Address, ListenerConfig } from '../config/schema.ts';
import type { FailureCode } from '../errors.ts';
import type { TimerWheel } from '../flow/timer-wheel.ts';
import type { ListenerStats } from '../observe/stats.ts';
import type { Client } from '../proxy/client.ts';
import { ClientConnection, type ListenerSide } from './client-connection.ts';

/** Where requests go. */
export interface Acceptor {
  accept(client: Client): void;
}

export class Listener implements ListenerSide {
  readonly config: ListenerConfig;
  readonly wheel: TimerWheel;
  readonly now: () => number;
  readonly #address: Address;
  readonly #acceptor: Acceptor;
  readonly #stats: ListenerStats;
  readonly #server: Server;
  readonly #connections = new Set<ClientConnection>();
  #stopping = false;
  #pressed = false;

  constructor(
    address: Address,
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
    this.#server = createServer({ noDelay: true }, (socket) => {
      this.#connections.add(new ClientConnection(this, socket));
      this.#stats.connections++;
    });
    this.#server.maxConnections = config.maxConnections;
  }

  /** @throws one clear line when the address cannot be had */
  async start(): Promise<AddressInfo> {
    const { host, port, text } = this.#address;
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error: NodeJS.ErrnoException) => reject(new Error(listenProblem(error, text))));
      this.#server.listen({ host, port, backlog: 1024 }, resolve);
    });
    // One client that could not be accepted (no memory, no file descriptor) is not worth the process.
    this.#server.on('error', () => {});
    return this.#server.address() as AddressInfo;
  }

  /** Answers say `connection: close`. */
  get closing(): boolean {
    return this.#stopping || this.#pressed;
  }

  /** The process is short of memory, or not any more. Idle connections close now, the others after their answer. */
  press(isPressed: boolean): void {
    if (isPressed && !this.#pressed) for (const connection of [...this.#connections]) connection.stop();
    this.#pressed = isPressed;
  }

  accept(client: Client): void {
    this.#acceptor.accept(client);
  }

  refused(code: FailureCode): void {
    this.#stats.requests++;
    this.#stats.refused.add(code);
  }

  closed(connection: ClientConnection): void {
    if (this.#connections.delete(connection)) this.#stats.connections--;
  }

  /** No new connections; idle ones close now, the others after the answer they wait for. Resolves when all are gone. */
  stopAccepting(): Promise<void> {
    this.#stopping = true;
    return new Promise((resolve) => {
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
}

/** One clear line for an address that cannot be listened on. */
function listenProblem(error: NodeJS.ErrnoException, text: string): string {
  const reasons: Record<string, string> = {
    EADDRINUSE: 'the address is in use',
    EACCES: 'no permission for this port',
    EADDRNOTAVAIL: 'this machine has no such address',
    ENOTFOUND: 'no such host name',
  };
  return `cannot listen on ${text}: ${reasons[error.code ?? ''] ?? error.message}`;
}

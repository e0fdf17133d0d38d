// One connection: a socket we opened, driven by one undici Client.
// A socket may only be used again in a later turn of the loop, so a connection is free on the Client's `drain`, not at the end of the answer.

import type { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import type { Client, Dispatcher } from 'undici';
// The Client alone: the package's index also loads fetch, WebSocket and more, 8 MB and 100 ms that are never used here.
// @ts-expect-error the package has types for its index only
import UndiciClient from 'undici/lib/dispatcher/client.js';
import type { UpstreamConfig } from '../config/schema.ts';
import type { SlotGate } from '../flow/slots.ts';
import { answerVersion } from './answer-version.ts';
import type { Carrier, CloseReason } from './carrier.ts';

export interface ConnectionOwner {
  /** The answer is complete; the socket may be used again a turn later, when `connectionFree` says so. */
  connectionEnding(connection: Connection): void;
  /** The last exchange is over and the socket may be used again. */
  connectionFree(connection: Connection): void;
  connectionClosed(connection: Connection, reason: CloseReason): void;
}

/** A server's `Keep-Alive: timeout=N` is honoured less this margin, so that we close before it does. */
const KEEPALIVE_MARGIN_MS = 1000;

export class Connection implements Carrier {
  readonly openedAt: number;
  /** Not used again after this time. */
  readonly retireAt: number;
  readonly #owner: ConnectionOwner;
  readonly #config: UpstreamConfig;
  readonly #socket: Socket;
  #client: Client | null = null;
  /** Requests sent. */
  requests = 0;
  /** Was ready before the request that uses it came. */
  warmed = false;
  closed = false;
  /** Between the last byte of an answer and its release. */
  ending = false;
  /** Since when it is idle, ms. */
  idleSince = 0;
  slot: SlotGate | null = null;
  /** A request was sent and its answer has not ended: bytes may come. */
  #expects = false;
  #watched = false;
  readonly marksEnds = false;
  /** undici ends an answer without a declared length cleanly on a reset. */
  socketError: NodeJS.ErrnoException | null = null;

  constructor(owner: ConnectionOwner, config: UpstreamConfig, socket: Socket, openedAt: number, retireAt: number) {
    this.#owner = owner;
    this.#config = config;
    this.#socket = socket;
    this.openedAt = openedAt;
    this.retireAt = retireAt;
    socket.on('error', (error) => {
      this.socketError = error;
    });
    // Until undici has it, the socket is read so that a close or an unsolicited byte is seen.
    socket.on('data', this.#onEarlyData);
    socket.once('end', this.#onEarlyEnd);
    socket.once('close', this.#onEarlyClose);
  }

  get isReused(): boolean {
    return this.requests > 0 || this.warmed;
  }

  get answerVersion(): number {
    return answerVersion(this.#socket);
  }

  /** Runs one request. Only on a free connection. */
  send(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    const client = this.#client ?? this.#handOver();
    this.requests++;
    this.#expects = true;
    client.dispatch(options, handler);
  }

  /** Closes at once; whatever runs on it fails. The owner hears of it before this returns. */
  close(reason: CloseReason): void {
    this.#socket.destroy();
    this.#gone(reason);
  }

  /** Its exchange has the last byte. Said before that gives its permit back, so that who gets it waits for this connection. */
  answered(): void {
    if (this.closed) return;
    this.#expects = false;
    this.ending = true;
    this.#owner.connectionEnding(this);
  }

  /** The exchange keeps its slot for another attempt. */
  takeSlotBack(): SlotGate | null {
    const slot = this.slot;
    this.slot = null;
    return slot;
  }

  #handOver(): Client {
    const socket = this.#socket;
    socket.off('data', this.#onEarlyData);
    socket.off('end', this.#onEarlyEnd);
    socket.off('close', this.#onEarlyClose);
    socket.pause();
    let handedOver = false;
    const { pool, maxHeadBytes, origin } = this.#config;
    const idleMs = Math.min(pool.idleTimeoutMs, 2 ** 31 - 1);
    const client: Client = new (UndiciClient as typeof Client)(origin, {
      // Asynchronously: a synchronous callback hangs the first request. Never a second socket: what is gone is gone.
      connect: (_options: unknown, callback: (error: Error | null, socket?: Socket) => void) => {
        if (handedOver || socket.destroyed) queueMicrotask(() => callback(new Error('the connection is gone')));
        else queueMicrotask(() => callback(null, socket));
        handedOver = true;
      },
      pipelining: 1,
      allowH2: false,
      // Our deadlines are our own: undici's are coarse and cannot tell the phases apart.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: idleMs,
      keepAliveMaxTimeout: idleMs,
      keepAliveTimeoutThreshold: KEEPALIVE_MARGIN_MS,
      maxHeaderSize: maxHeadBytes,
      maxRequestsPerClient: Number.isFinite(pool.maxRequests) ? pool.maxRequests : undefined,
    } as Client.Options);
    client.on('drain', this.#onDrain);
    client.on('disconnect', this.#onDisconnect);
    client.on('connectionError', this.#onConnectionError);
    // A handler that threw while it was told of an error; never worth the process. (The types do not know the event.)
    (client as EventEmitter).on('error', () => {});
    this.#client = client;
    return client;
  }

  readonly #onDrain = (): void => {
    this.#expects = false;
    if (!this.#watched) {
      this.#watched = true;
      this.#socket.prependListener('readable', this.#onReadable);
    }
    if (!this.closed) this.#owner.connectionFree(this);
  };

  readonly #onDisconnect = (_origin: unknown, _targets: unknown, error: Error): void => {
    this.#gone(this.#reasonOf(error));
  };

  readonly #onConnectionError = (): void => {
    this.#gone('upstream');
  };

  /** Comes before undici's own listener, which would swallow blank lines and wait on. TLS session tickets are not seen here. */
  readonly #onReadable = (): void => {
    if (!this.#expects && this.#socket.readableLength > 0) this.close('unexpected_bytes');
  };

  readonly #onEarlyData = (): void => this.close('unexpected_bytes');
  readonly #onEarlyEnd = (): void => this.close('upstream');
  readonly #onEarlyClose = (): void => this.#gone(this.socketError ? 'error' : 'upstream');

  #reasonOf(error: Error & { code?: string }): CloseReason {
    if (error.message === 'socket idle timeout') return 'idle_timeout';
    if (error.message === 'aborted') return 'aborted';
    if (error.message === 'bad response') return 'unexpected_bytes';
    // undici's word for: the request or the answer asked for a close.
    if (error.code === 'UND_ERR_INFO')
      return this.requests >= this.#config.pool.maxRequests ? 'max_requests' : 'upstream_asked';
    return error.code === 'UND_ERR_SOCKET' ? 'upstream' : 'error';
  }

  #gone(reason: CloseReason): void {
    if (this.closed) return;
    this.closed = true;
    // First, so that an exchange whose request was never written hears of it while its slot is still on this connection.
    this.#client?.destroy().catch(() => {});
    this.#owner.connectionClosed(this, reason);
  }
}

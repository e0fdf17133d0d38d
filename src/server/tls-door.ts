// The TLS of one listener: handshakes with clients, each within its deadline.

import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import type { ListenTlsConfig } from '../config/schema.ts';
import { type Expiring, Timer, type TimerWheel } from '../flow/timer-wheel.ts';
import type { Waiting } from './idle-list.ts';

/** Our own deadline ends a handshake; Node's must never come before it. */
const LATER_THAN_OURS_MS = 2 ** 31 - 1;

/** Who is told how a handshake ended. */
export interface HandshakeEnd {
  secured(handshake: Handshake, socket: TLSSocket): void;
  /** The connection is closed, or will be at once. `tried`: it was a handshake that failed, not somebody who came and went. */
  unsecured(handshake: Handshake, tried: boolean): void;
}

/** A connection that is not secure yet. To the listener it is one more that waits for a request. */
export class Handshake implements Waiting, Expiring {
  older: Waiting | null = null;
  newer: Waiting | null = null;
  waits = false;
  readonly unsent = 0;
  /** The TCP connection, or the one of a unix socket, below. */
  readonly raw: Socket;
  readonly timer = new Timer(this);
  #late = false;
  readonly #unsecured: HandshakeEnd['unsecured'];
  readonly #closed = () => this.#unsecured(this, this.#late || this.raw.bytesRead > 0);

  constructor(raw: Socket, unsecured: HandshakeEnd['unsecured']) {
    this.raw = raw;
    this.#unsecured = unsecured;
    raw.on('close', this.#closed);
  }

  /** From here on the connection is somebody else's. */
  handOver(): void {
    this.raw.off('close', this.#closed);
  }

  drop(): void {
    this.handOver();
    this.raw.destroy();
    this.#unsecured(this, false);
  }

  // It is as idle as a connection can be: no request of it can be lost.

  stop(): void {
    this.drop();
  }

  cutOff(): void {
    this.drop();
  }

  abort(): void {
    this.drop();
  }

  expired(): void {
    this.#late = true;
    this.raw.destroy();
  }
}

/**
 * A tls.Server that listens nowhere and is given its connections. Node's own server decides whether a client's certificate is good,
 * also when it resumes a session; and the connection below is ours from the start, which is the only one that can be reset:
 * TLSSocket.resetAndDestroy throws ERR_INVALID_HANDLE_TYPE.
 */
export class TlsDoor {
  readonly #server: Server;
  readonly #end: HandshakeEnd;
  readonly #wheel: TimerWheel;
  readonly #handshakes = new Map<Socket, Handshake>();

  /** @throws when certificate, key or authority are not usable, or do not fit each other */
  constructor({ cert, key, clientCa }: ListenTlsConfig, end: HandshakeEnd, wheel: TimerWheel) {
    this.#end = end;
    this.#wheel = wheel;
    const clients = clientCa === null ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true };
    this.#server = createServer({
      cert,
      key,
      ...clients,
      minVersion: 'TLSv1.2',
      // TLS 1.2: a handshake within a connection costs us more than the client, and nobody needs one.
      secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
      ALPNProtocols: ['http/1.1'],
      handshakeTimeout: LATER_THAN_OURS_MS,
    });
    this.#server.on('secureConnection', (socket) => this.#secured(socket));
  }

  /** @param until when the handshake must be over */
  take(raw: Socket, until: number): Handshake {
    const handshake = new Handshake(raw, (one, tried) => {
      this.#forget(one);
      this.#end.unsecured(one, tried);
    });
    this.#handshakes.set(raw, handshake);
    this.#wheel.arm(handshake.timer, until);
    this.#server.emit('connection', raw);
    return handshake;
  }

  /** Within this call the connection below must not be destroyed along with the secure one: Node 26.10 dies of it (SIGSEGV). */
  #secured(socket: TLSSocket): void {
    // Node names the connection below nowhere else.
    const { _parent: raw } = socket as TLSSocket & { readonly _parent?: Socket };
    const handshake = raw && this.#handshakes.get(raw);
    if (!handshake) {
      socket.destroy();
      return;
    }
    this.#forget(handshake);
    handshake.handOver();
    this.#end.secured(handshake, socket);
  }

  #forget(handshake: Handshake): void {
    this.#handshakes.delete(handshake.raw);
    this.#wheel.cancel(handshake.timer);
  }
}

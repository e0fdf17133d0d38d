// Opens one connection: DNS, TCP and TLS, each timed, within one connect deadline.

import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls';
import type { UpstreamConfig } from '../config/schema.ts';
import type { FailureCode } from '../errors.ts';
import { type Expiring, Timer, type TimerWheel } from '../flow/timer-wheel.ts';

export type DialFailure = Extract<FailureCode, 'dns_failed' | 'connect_failed' | 'connect_timeout' | 'tls_failed'>;

export interface DialListener {
  dialed(dial: Dial, socket: Socket): void;
  /** @param detail what the system said, such as `ECONNREFUSED 127.0.0.1:9` */
  dialFailed(dial: Dial, code: DialFailure, detail: string): void;
}

/** Where and how to connect: ready values, made once per upstream. */
export class Dialer {
  readonly config: UpstreamConfig;
  readonly wheel: TimerWheel;
  readonly now: () => number;
  /** One context for all connections: making one parses certificates. Throws on a bad certificate or key. */
  readonly #context: SecureContext | null;
  /** The last TLS session, for resumption: one round trip less on TLS 1.2, no certificate check on either. */
  #session: Buffer | null = null;

  constructor(config: UpstreamConfig, wheel: TimerWheel, now: () => number) {
    this.config = config;
    this.wheel = wheel;
    this.now = now;
    const { ca, cert, key } = config.tls;
    this.#context =
      config.protocol === 'https:'
        ? createSecureContext({ ...(ca ? { ca } : {}), ...(cert && key ? { cert, key } : {}) })
        : null;
  }

  /** A name stands for the address. */
  get looksUp(): boolean {
    const { hostname, socketPath } = this.config;
    return socketPath === '' && !isIP(bare(hostname));
  }

  open(listener: DialListener): Dial {
    return new Dial(this, listener);
  }

  /** The raw socket, already connecting. */
  connect(): Socket | TLSSocket {
    const { hostname, port, socketPath, tls, http2 } = this.config;
    if (socketPath !== '') return connectTcp({ path: socketPath });
    const host = bare(hostname);
    if (!this.#context)
      return connectTcp({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 });
    const servername = tls.servername ?? host;
    const socket = connectTls({
      host,
      port,
      // SNI carries names only (RFC 6066 section 3); an address is checked against the certificate all the same.
      ...(isIP(servername) ? {} : { servername }),
      ALPNProtocols: http2 ? ['h2', 'http/1.1'] : ['http/1.1'],
      secureContext: this.#context,
      ...(this.#session ? { session: this.#session } : {}),
    });
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 60_000);
    socket.on('session', (session: Buffer) => {
      this.#session = session;
    });
    return socket;
  }

  /** A failed handshake may be the resumed session's fault: the next one starts anew. */
  forgetSession(): void {
    this.#session = null;
  }
}

/** Without the brackets of an IPv6 address. */
function bare(hostname: string): string {
  return hostname.startsWith('[') ? hostname.slice(1, -1) : hostname;
}

export class Dial implements Expiring {
  readonly startedAt: number;
  dnsMs = 0;
  tcpMs = 0;
  tlsMs = 0;
  readonly #dialer: Dialer;
  readonly #listener: DialListener;
  readonly #socket: Socket;
  readonly #timer = new Timer(this);
  #phaseAt: number;
  #phase: 'dns' | 'tcp' | 'tls';
  #done = false;

  constructor(dialer: Dialer, listener: DialListener) {
    this.#dialer = dialer;
    this.#listener = listener;
    this.startedAt = dialer.now();
    this.#phaseAt = this.startedAt;
    this.#phase = dialer.looksUp ? 'dns' : 'tcp';
    dialer.wheel.arm(this.#timer, this.startedAt + dialer.config.timeouts.connectMs);
    this.#socket = dialer.connect();
    this.#socket.once('lookup', (error: Error | null) => {
      if (!error) this.#step('tcp');
    });
    this.#socket.once('connect', this.#onConnect);
    this.#socket.on('error', this.#onError);
    this.#socket.once('close', this.#onClose);
  }

  get openingMs(): number {
    return this.dnsMs + this.tcpMs + this.tlsMs;
  }

  expired(): void {
    this.#fail('connect_timeout', `${this.#phase} took longer than ${this.#dialer.config.timeouts.connectMs} ms`);
  }

  /** Nobody wants it any more. */
  cancel(): void {
    if (this.#done) return;
    this.#finish();
    this.#socket.destroy();
  }

  #step(to: 'tcp' | 'tls'): void {
    const now = this.#dialer.now();
    if (this.#phase === 'dns') this.dnsMs = now - this.#phaseAt;
    else this.tcpMs = now - this.#phaseAt;
    this.#phaseAt = now;
    this.#phase = to;
  }

  readonly #onConnect = (): void => {
    if (this.#dialer.config.protocol === 'https:') {
      this.#step('tls');
      this.#socket.once('secureConnect', this.#onReady);
      return;
    }
    this.tcpMs = this.#dialer.now() - this.#phaseAt;
    this.#onReady();
  };

  readonly #onReady = (): void => {
    if (this.#done) return;
    if (this.#phase === 'tls') this.tlsMs = this.#dialer.now() - this.#phaseAt;
    this.#finish();
    this.#socket.off('error', this.#onError);
    this.#socket.off('close', this.#onClose);
    this.#listener.dialed(this, this.#socket);
  };

  readonly #onError = (error: NodeJS.ErrnoException): void => {
    const detail = error.code ? `${error.code} (${this.#phase})` : error.message;
    if (this.#phase === 'tls') {
      this.#dialer.forgetSession();
      // Cut off, as by a restart, is not the same as a certificate or a protocol that does not fit.
      this.#fail(error.code === 'ECONNRESET' || error.code === 'EPIPE' ? 'connect_failed' : 'tls_failed', detail);
    } else if (error.code === 'ETIMEDOUT') this.#fail('connect_timeout', detail);
    else if (error.syscall === 'getaddrinfo') this.#fail('dns_failed', detail);
    else this.#fail('connect_failed', detail);
  };

  readonly #onClose = (): void => {
    this.#fail('connect_failed', `closed within ${this.#phase}`);
  };

  #fail(code: DialFailure, detail: string): void {
    if (this.#done) return;
    this.#finish();
    this.#socket.destroy();
    this.#listener.dialFailed(this, code, detail);
  }

  #finish(): void {
    this.#done = true;
    this.#dialer.wheel.cancel(this.#timer);
  }
}

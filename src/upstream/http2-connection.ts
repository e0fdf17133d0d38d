// One HTTP/2 connection: a socket we opened, driven by one session of node:http2.
//
//   settling ──SETTINGS──► ready ──GOAWAY, lifetime, max_requests──► leaving ──last stream──► closed
//
// Not undici's HTTP/2: that keeps a queue of its own and sends requests again by itself.

import { type ClientHttp2Session, connect, type Settings } from 'node:http2';
import type { Socket } from 'node:net';
import { authorityOf } from '../config/base-url.ts';
import type { UpstreamConfig } from '../config/schema.ts';
import { type Expiring, Timer, type TimerWheel } from '../flow/timer-wheel.ts';
import type { CloseReason } from './carrier.ts';
import type { DialFailure } from './dial.ts';
import type { StreamLoss } from './http2-failures.ts';
import { headListBytes } from './http2-fields.ts';
import { Http2Place } from './http2-stream.ts';

export interface Http2Owner {
  /** Streams may be opened from now on. */
  http2Ready(connection: Http2Connection): void;
  /** The peer changed how many streams it takes. */
  http2Changed(connection: Http2Connection): void;
  /** It takes no more streams; those there are go on. */
  http2Leaving(connection: Http2Connection): void;
  /** A stream has ended; another may take its place. */
  http2PlaceOver(connection: Http2Connection, place: Http2Place): void;
  /** @param failed why it was never ready; null = it was */
  http2Closed(connection: Http2Connection, reason: CloseReason, failed: OpeningFailure | null): void;
}

export type OpeningFailure = readonly [code: DialFailure, detail: string];

/**
 * What one stream may bring before its reader has taken anything. 256 kb let one download have 5 MB/s at 50 ms round trip; a reader that
 * takes nothing costs that, and what waits towards him (200 of them: 85 MB of buffers in all). Node's default is 64 kb.
 */
const STREAM_WINDOW = 256 << 10;
/** Node gives the connection's window back as bytes come, whoever reads them: it bounds what is under way, not memory. */
const CONNECTION_WINDOW = 16 << 20;
/** A PING not answered for so long: the connection is dead. */
const PROBE_MS = 5000;
/** The stream of an answer that is whole by its length has so long to end. */
const LINGER_MS = 1000;
/** Frames and refused streams that break the rules; node's own bounds are 1 000 and 100. */
const MAX_INVALID_FRAMES = 100;

export class Http2Connection implements StreamLoss, Expiring {
  readonly openedAt: number;
  /** No new streams after this time. */
  readonly retireAt: number;
  readonly authority: string;
  readonly maxHeadBytes: number;
  readonly session: ClientHttp2Session;
  readonly #owner: Http2Owner;
  readonly #config: UpstreamConfig;
  readonly #wheel: TimerWheel;
  readonly #now: () => number;
  readonly #socket: Socket;
  readonly #settling = new Timer(this);
  /** Streams at once: the peer's word, or ours if it is less. */
  limit: number;
  /** Open now. */
  streams = 0;
  /** Sent in all. */
  requests = 0;
  /** Was ready before the request that uses it came. */
  warmed = false;
  ready = false;
  closed = false;
  /** Why it takes no more streams; null = it does. */
  leaving: CloseReason | null = null;
  idleSince: number;
  #lastStreamId = Number.POSITIVE_INFINITY;
  socketError: NodeJS.ErrnoException | null = null;
  /** Of the GOAWAY it was left with; 0 = without an error, or none came. */
  goawayCode = 0;
  /** What came was not HTTP/2. */
  isBroken = false;
  #idleTimer: NodeJS.Timeout | null = null;
  #probe: NodeJS.Timeout | null = null;
  /** Those whose answer is whole but whose stream has not ended. */
  readonly #lingering = new Set<Http2Place>();
  #lingerTimer: NodeJS.Timeout | null = null;
  /** Those whose answer is whole but not all read. */
  readonly #unread = new Set<Http2Place>();

  /** @param limit what connections to this server took before; 0 = not known, so that its SETTINGS are waited for */
  constructor(
    owner: Http2Owner,
    config: UpstreamConfig,
    wheel: TimerWheel,
    now: () => number,
    socket: Socket,
    retireAt: number,
    limit: number,
  ) {
    this.#owner = owner;
    this.#config = config;
    this.#wheel = wheel;
    this.#now = now;
    this.#socket = socket;
    this.openedAt = now();
    this.idleSince = this.openedAt;
    this.retireAt = retireAt;
    this.limit = limit;
    this.authority = authorityOf(config.origin);
    this.maxHeadBytes = config.maxHeadBytes;
    socket.on('error', (error) => {
      this.socketError = error;
    });
    // Before node's own, so that streams that end with it know why.
    socket.once('close', this.#onGone);
    this.session = connect(config.origin, this.#options(socket, limit) as never);
    this.session.on('error', this.heardOf);
    this.session.once('close', this.#onGone);
    this.session.once('connect', this.#onConnect);
    this.session.on('remoteSettings', this.#onSettings);
    this.session.on('goaway', this.#onGoaway);
    wheel.arm(this.#settling, this.openedAt + config.timeouts.connectMs);
  }

  #options(socket: Socket, limit: number) {
    const { maxHeadBytes, maxHeaders } = this.#config;
    return {
      createConnection: () => socket,
      settings: {
        enablePush: false,
        initialWindowSize: STREAM_WINDOW,
        maxHeaderListSize: headListBytes(maxHeadBytes, maxHeaders),
      },
      // One more pair for `:status`, and twice as many so that the attempt can say by how much it is too many.
      maxHeaderListPairs: 2 * maxHeaders + 1,
      maxSessionInvalidFrames: MAX_INVALID_FRAMES,
      // What clients send twice passes twice, as over HTTP/1.
      strictSingleValueFields: false,
      ...(limit > 0 ? { peerMaxConcurrentStreams: limit } : {}),
    };
  }

  get hasRoom(): boolean {
    return this.ready && this.leaving === null && this.streams < this.limit && !this.session.closed && this.isUp;
  }

  /** Bytes it has brought. */
  get heard(): number {
    return this.#socket.bytesRead;
  }

  get isUp(): boolean {
    return !this.closed && !this.session.destroyed;
  }

  /** Room for one stream. Only while there is some. @param waited who gets it has waited for this connection to open */
  take(waited: boolean): Http2Place {
    const isReused = !waited && (this.requests > 0 || this.warmed);
    const place = new Http2Place(this, isReused, this.streams === 0 ? this.idleSince : this.#now());
    this.streams++;
    if (++this.requests >= this.#config.pool.maxRequests) this.leave('max_requests');
    return place;
  }

  /** Takes no more streams, and closes with the last one. */
  leave(reason: CloseReason): void {
    if (this.leaving !== null) return;
    this.leaving = reason;
    this.#owner.http2Leaving(this);
    this.#closeIfLeft();
  }

  /** Closes at once; what runs on it fails. The owner hears of it before this returns. */
  close(reason: CloseReason): void {
    if (this.closed) return;
    const failed = this.ready || reason === 'shutdown' ? null : this.#failure();
    this.closed = true;
    this.ready = false;
    this.#wheel.cancel(this.#settling);
    if (this.#idleTimer) clearTimeout(this.#idleTimer);
    if (this.#probe) clearTimeout(this.#probe);
    if (this.#lingerTimer) clearTimeout(this.#lingerTimer);
    this.#tellRests();
    this.session.destroy();
    // Node would wait until the peer has taken what is on its way to it.
    this.#socket.destroy();
    this.#owner.http2Closed(this, reason, failed);
  }

  #failure(): OpeningFailure {
    const { connectMs } = this.#config.timeouts;
    const isLate = this.#now() - this.openedAt >= connectMs;
    if (isLate) return ['connect_timeout', `no SETTINGS frame within ${connectMs} ms`];
    return ['connect_failed', this.socketError?.code ?? 'closed before its SETTINGS frame'];
  }

  /** By GOAWAY the peer has said that it never looked at this stream, nor will. */
  neverProcessed(id: number | undefined): boolean {
    return id === undefined || id > this.#lastStreamId;
  }

  // ---- its streams' word

  streamClosed(): void {
    if (--this.streams === 0) this.idleSince = this.#now();
  }

  placeOver(place: Http2Place): void {
    this.#lingering.delete(place);
    this.#unread.delete(place);
    this.#owner.http2PlaceOver(this, place);
    this.#closeIfLeft();
    if (this.streams === 0) this.#watchIdle();
  }

  #closeIfLeft(): void {
    if (this.leaving !== null && this.streams === 0) this.close(this.leaving);
  }

  /** Its answer is whole but its stream has not ended. */
  lingers(place: Http2Place): void {
    this.#lingering.add(place);
    this.#lingerTimer ??= setTimeout(this.#cutLingering, LINGER_MS, [place]).unref();
  }

  /** @param since those that were lingering a round ago */
  readonly #cutLingering = (since: readonly Http2Place[]): void => {
    this.#lingerTimer = null;
    for (const place of since) if (this.#lingering.has(place)) place.close();
    if (this.#lingering.size === 0 || this.closed) return;
    this.#lingerTimer = setTimeout(this.#cutLingering, LINGER_MS, [...this.#lingering]).unref();
  };

  waitsForReader(place: Http2Place): void {
    this.#unread.add(place);
  }

  #tellRests(): void {
    for (const place of this.#unread) place.tellRest();
  }

  /** Nothing has been heard since a request went out, and that has been given up: is anybody there? */
  probe(): void {
    if (this.#probe || !this.isUp) return;
    this.#probe = setTimeout(this.#onDead, PROBE_MS).unref();
    this.session.ping(this.#onAlive);
  }

  readonly #onAlive = (): void => {
    if (this.#probe) clearTimeout(this.#probe);
    this.#probe = null;
  };

  readonly #onDead = (): void => this.close('error');

  /** One timer for all its idle times: it is looked at when it fires. */
  #watchIdle(): void {
    if (this.#idleTimer || this.closed) return;
    const { idleTimeoutMs } = this.#config.pool;
    const left = this.idleSince + idleTimeoutMs - this.#now();
    this.#idleTimer = setTimeout(this.#onIdle, Math.min(Math.max(1, Math.ceil(left)), 2 ** 31 - 1)).unref();
  }

  readonly #onIdle = (): void => {
    this.#idleTimer = null;
    if (this.streams > 0) return;
    if (this.#now() - this.idleSince >= this.#config.pool.idleTimeoutMs) this.close('idle_timeout');
    else this.#watchIdle();
  };

  // ---- the session's word

  readonly #onConnect = (): void => {
    if (this.closed) return;
    this.session.setLocalWindowSize(CONNECTION_WINDOW);
    if (this.limit > 0) this.#becomeReady();
  };

  readonly #onSettings = ({ maxConcurrentStreams }: Settings): void => {
    if (this.closed) return;
    this.limit = Math.min(maxConcurrentStreams ?? Number.POSITIVE_INFINITY, this.#config.http2!.maxStreams);
    if (this.ready) this.#owner.http2Changed(this);
    else this.#becomeReady();
  };

  #becomeReady(): void {
    this.#wheel.cancel(this.#settling);
    this.ready = true;
    this.#watchIdle();
    this.#owner.http2Ready(this);
  }

  /** No SETTINGS came. */
  expired(): void {
    this.close('error');
  }

  readonly #onGoaway = (code: number, lastStreamId: number): void => {
    this.#lastStreamId = Math.min(this.#lastStreamId, lastStreamId);
    this.goawayCode = code;
    // With an error node ends all streams right after this.
    if (code !== 0) this.#tellRests();
    this.leave('upstream_asked');
  };

  /** The session's own error; node tells the streams of it first. */
  readonly heardOf = (error: Error & { code?: string }): void => {
    if (error.code === 'ERR_HTTP2_ERROR') this.isBroken = true;
  };

  readonly #onGone = (): void => {
    this.close(this.leaving ?? (this.socketError || this.isBroken ? 'error' : 'upstream'));
  };
}

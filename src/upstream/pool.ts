// One server's connections: the idle ones LIFO, those who wait for one FIFO, and the openings under way.
// How many exchanges may be on connections at once is not decided here: who asks holds a slot already (flow/slots.ts).

import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { UpstreamConfig } from '../config/schema.ts';
import { type Expiring, Timer, type TimerWheel } from '../flow/timer-wheel.ts';
import type { PoolStats } from '../observe/stats.ts';
import type { Carrier, CloseReason } from './carrier.ts';
import { Connection, type ConnectionOwner } from './connection.ts';
import type { Dial, Dialer, DialFailure, DialListener } from './dial.ts';
import type { Http2Connection, OpeningFailure } from './http2-connection.ts';
import { Http2Connections, type Http2Pool } from './http2-connections.ts';
import type { Http2Place } from './http2-stream.ts';

/** Who wants a connection. */
export interface Seeker {
  /** Only a connection that was opened after it asked will do. */
  readonly fresh: boolean;
  /** Since when it wants one, ms. */
  readonly startedAt: number;
  /** It may use the connections beside the regular ones. */
  readonly bypasses: boolean;
  /** The connection, or a place on it, is yours; may come before `take` returns. */
  connected(carrier: Carrier): void;
  connectFailed(code: DialFailure, detail: string): void;
}

/** A warm connection that cannot be opened is tried again after this, doubled up to the second figure. */
const WARM_RETRY_MS = 500;
const WARM_RETRY_MAX_MS = 30_000;
/** Lifetimes differ by so much, lest all connections of a burst end together. */
const LIFETIME_JITTER = 0.2;

export class Pool implements ConnectionOwner, Http2Pool, DialListener, Expiring {
  readonly #config: UpstreamConfig;
  readonly #dialer: Dialer;
  readonly #wheel: TimerWheel;
  readonly #now: () => number;
  readonly stats: PoolStats;
  readonly #max: number;
  /** Longest idle first; taken from the end. */
  readonly #idle: Connection[] = [];
  readonly #busy = new Set<Connection>();
  readonly #dials = new Set<Dial>();
  readonly #seekers: Seeker[] = [];
  /** null = HTTP/2 is not asked for, and no request pays for it. */
  readonly #http2: Http2Connections | null;
  /** For those who wait for a stream, with no opening under way. */
  readonly #patience = new Timer({ expired: (now) => this.#loseInPatience(now) });
  /** Called when `perConnection` is another. */
  onLimit: (() => void) | null = null;
  readonly #warmTimer = new Timer(this);
  /** Connections that will be free in a turn. */
  #ending = 0;
  #warmFailures = 0;
  #stopped = false;

  /** @param max connections at most, the bypass ones included */
  constructor(
    config: UpstreamConfig,
    dialer: Dialer,
    stats: PoolStats,
    wheel: TimerWheel,
    now: () => number,
    max: number,
  ) {
    this.#config = config;
    this.#dialer = dialer;
    this.#wheel = wheel;
    this.#now = now;
    this.#max = max;
    this.stats = stats;
    this.#http2 = config.http2 ? new Http2Connections(config, wheel, now, this) : null;
  }

  /** Connections in use; with HTTP/2 those with streams. */
  get active(): number {
    return this.#busy.size + (this.#http2?.active ?? 0);
  }

  get idle(): number {
    return this.#idle.length + (this.#http2?.idle ?? 0);
  }

  /** What the server speaks; null = not known yet. */
  get protocol(): 'h1' | 'h2' | null {
    return this.#http2 ? this.#http2.protocol : 'h1';
  }

  /** HTTP/2 streams open now. */
  get streams(): number {
    return this.#http2?.streams ?? 0;
  }

  /** Exchanges that one connection carries at once, as far as is known. */
  get perConnection(): number {
    return this.#http2?.perConnection ?? 1;
  }

  get connecting(): number {
    return this.#dials.size;
  }

  /** Gives the freshest idle connection at once, or the next that comes free or is opened. */
  take(seeker: Seeker): void {
    if (!seeker.fresh) {
      const connection = this.#idle.pop();
      if (connection) {
        this.#use(connection, seeker);
        return;
      }
    }
    if (this.#http2) {
      this.#takeStream(this.#http2, seeker);
      return;
    }
    this.#seekers.push(seeker);
    if (seeker.fresh) this.#open();
    else this.#openMissing();
  }

  /** One who wants a fresh connection shares it with all who come until it is there; with none to be had, any will do. */
  #takeStream(http2: Http2Connections, seeker: Seeker): void {
    const place = !seeker.fresh || !this.#mayOpen(seeker.bypasses) ? http2.take() : null;
    if (place) {
      seeker.connected(place);
      return;
    }
    this.#seekers.push(seeker);
    this.#openMissing();
  }

  /** The seeker left. Its opening goes on: the connection will be idle and warm. */
  forget(seeker: Seeker): void {
    const index = this.#seekers.indexOf(seeker);
    if (index >= 0) this.#seekers.splice(index, 1);
    if (this.#seekers.length === 0) this.#wheel.cancel(this.#patience);
  }

  #use(connection: Connection, seeker: Seeker): void {
    this.#busy.add(connection);
    seeker.connected(connection);
  }

  /** As many openings as seekers that no connection about to be free will serve. */
  #openMissing(): void {
    const http2 = this.#http2;
    if (!http2) {
      if (this.#dials.size + this.#ending < this.#seekers.length) this.#open();
      return;
    }
    while (http2.coming(this.#dials.size) + this.#ending < this.#seekers.length) {
      if (!this.#mayOpen(this.#seekers.some(({ bypasses }) => bypasses))) break;
      this.#open();
    }
    if (this.#seekers.length === 0) this.#wheel.cancel(this.#patience);
    else if (!this.#patience.armed) this.#wheel.arm(this.#patience, this.#patienceEnds);
  }

  /**
   * Slots bound the connections of HTTP/1; how many streams fit on one can be less than was thought. Those the peer has asked to
   * leave count apart, as their streams may last; but not without bound.
   */
  #mayOpen(bypasses: boolean): boolean {
    const http2 = this.#http2!;
    const open = this.#idle.length + this.#busy.size + http2.live + this.#dials.size;
    if (open + http2.leaving >= 2 * this.#max) return false;
    const most = bypasses || http2.protocol === 'h1' ? this.#max : this.#config.pool.connections;
    return open < most || this.#idle.length > 0 || http2.closeIdle('surplus');
  }

  get #patienceEnds(): number {
    return this.#seekers[0]!.startedAt + this.#config.timeouts.connectMs;
  }

  /** Waiting for a stream is part of `connect`. While a connection is being opened, that has a deadline of its own. */
  #loseInPatience(now: number): void {
    const { connectMs } = this.#config.timeouts;
    const isOpening = () => this.#http2!.coming(this.#dials.size) > 0;
    while (this.#seekers.length > 0 && !isOpening() && now >= this.#patienceEnds)
      this.#seekers.shift()!.connectFailed('connect_timeout', `no stream came free within ${connectMs} ms`);
    if (this.#seekers.length > 0) this.#wheel.arm(this.#patience, Math.max(this.#patienceEnds, now + connectMs / 10));
  }

  #open(): void {
    // A fresh connection beside idle ones: one of those makes room.
    if (this.#idle.length > 0 && this.#idle.length + this.#busy.size + this.#dials.size >= this.#max) {
      this.#idle[0]!.close('surplus');
    }
    this.#dials.add(this.#dialer.open(this));
  }

  dialed(dial: Dial, socket: Socket): void {
    this.#dials.delete(dial);
    this.stats.opened++;
    this.stats.connect.record(dial.openingMs);
    this.stats.dns.record(dial.dnsMs);
    this.stats.tcp.record(dial.tcpMs);
    if (this.#config.protocol === 'https:') this.stats.tls.record(dial.tlsMs);
    const now = this.#now();
    const jitter = 1 + LIFETIME_JITTER * (2 * Math.random() - 1);
    const retireAt = now + this.#config.pool.maxLifetimeMs * jitter;
    if (this.#http2) {
      if ((socket as TLSSocket).alpnProtocol === 'h2') {
        this.#http2.add(socket, retireAt);
        if (this.#stopped) this.#http2.stop();
        return;
      }
      this.#http2.isHttp1();
    }
    const connection = new Connection(this, this.#config, socket, now, retireAt);
    if (this.#stopped) {
      connection.close('shutdown');
      return;
    }
    const seeker = this.#seekers.shift();
    if (seeker) this.#use(connection, seeker);
    else {
      connection.warmed = true;
      this.#makeIdle(connection);
    }
    // One opening was to tell the protocol; now that it is HTTP/1, each needs his own.
    if (this.#http2) this.#openMissing();
  }

  dialFailed(dial: Dial, code: DialFailure, detail: string): void {
    this.#dials.delete(dial);
    this.stats.connectFailed++;
    this.#openingFailed(code, detail);
  }

  /** Whoever has no opening of his own left hears of it: the one who waited longest. */
  #openingFailed(code: DialFailure, detail: string): void {
    this.#warmFailures++;
    if (this.#http2) this.#failWaiting(this.#http2, code, detail);
    else if (this.#seekers.length > this.#dials.size) this.#seekers.shift()!.connectFailed(code, detail);
    this.#warmLater();
  }

  /** As many as it would have served. Only those who wait now: they may come again before this returns. */
  #failWaiting(http2: Http2Connections, code: DialFailure, detail: string): void {
    const lost = this.#seekers.length - http2.coming(this.#dials.size) - this.#ending;
    const failed = lost > 0 ? this.#seekers.splice(0, Math.min(lost, this.#seekers.length)) : [];
    for (const seeker of failed) seeker.connectFailed(code, detail);
    if (this.#seekers.length === 0) this.#wheel.cancel(this.#patience);
  }

  // ---- HTTP/2

  streamsReady(connection: Http2Connection): void {
    this.#warmFailures = 0;
    if (this.#stopped) {
      connection.leave('shutdown');
      return;
    }
    if (this.#seekers.length === 0) connection.warmed = true;
    while (this.#seekers.length > 0 && connection.hasRoom) this.#seekers.shift()!.connected(connection.take(true));
    this.#openMissing();
  }

  roomChanged(): void {
    while (this.#seekers.length > 0) {
      const index = this.#seekers.findIndex((seeker) => !seeker.fresh || !this.#mayOpen(seeker.bypasses));
      const place = index < 0 ? null : this.#http2!.take();
      if (!place) break;
      this.#seekers.splice(index, 1)[0]!.connected(place);
    }
    if (!this.#stopped) this.#openMissing();
  }

  placeOver(place: Http2Place): void {
    if (this.#seekers.length > 0) this.roomChanged();
    // Last: it may start the next exchange, on this very connection.
    place.takeSlotBack()?.give();
  }

  http2Closed(connection: Http2Connection, reason: CloseReason, failed: OpeningFailure | null): void {
    this.stats.closed++;
    this.stats.closedBy.add(reason);
    if (failed) {
      this.stats.connectFailed++;
      this.#openingFailed(...failed);
      return;
    }
    if (connection.requests === 0 && (reason === 'upstream' || reason === 'error')) this.#warmFailures++;
    if (this.#seekers.length > 0 && !this.#stopped) this.#openMissing();
    this.#warmLater();
  }

  limitChanged(): void {
    this.onLimit?.();
  }

  connectionEnding(): void {
    this.#ending++;
  }

  connectionFree(connection: Connection): void {
    this.#warmFailures = 0;
    // Closed while it counts as ending: who waits for it gets an opening instead.
    if (this.#stopped) connection.close('shutdown');
    else if (this.#now() >= connection.retireAt) connection.close('lifetime');
    else {
      if (connection.ending) this.#ending--;
      connection.ending = false;
      const slot = connection.takeSlotBack();
      const index = this.#seekers.length > 0 ? this.#seekers.findIndex((seeker) => !seeker.fresh) : -1;
      if (index >= 0) {
        const [seeker] = this.#seekers.splice(index, 1);
        connection.idleSince = this.#now();
        seeker!.connected(connection);
      } else {
        this.#busy.delete(connection);
        this.#makeIdle(connection);
      }
      // Last: it may start the next exchange, on this very connection.
      slot?.give();
    }
  }

  connectionClosed(connection: Connection, reason: CloseReason): void {
    this.stats.closed++;
    this.stats.closedBy.add(reason);
    // A server that accepts and closes is no better than one that refuses.
    if (connection.requests === 0 && (reason === 'upstream' || reason === 'error')) this.#warmFailures++;
    if (connection.ending) {
      connection.ending = false;
      this.#ending--;
      this.#openMissing();
    }
    if (!this.#busy.delete(connection)) {
      const index = this.#idle.indexOf(connection);
      if (index >= 0) this.#idle.splice(index, 1);
    }
    this.#warmLater();
    connection.takeSlotBack()?.give();
  }

  #makeIdle(connection: Connection): void {
    connection.idleSince = this.#now();
    this.#idle.push(connection);
  }

  /** Opens what is missing of the warm connections. Called at start and after every close. */
  warm(): void {
    if (this.#stopped) return;
    const open = this.#idle.length + this.#busy.size + this.#dials.size + (this.#http2?.live ?? 0);
    for (let i = open; i < this.#config.pool.warm; i++) this.#open();
  }

  #warmLater(): void {
    if (this.#stopped || this.#config.pool.warm === 0 || this.#warmTimer.armed) return;
    const failures = Math.min(this.#warmFailures, 10);
    const delay = failures === 0 ? 0 : Math.min(WARM_RETRY_MAX_MS, WARM_RETRY_MS * 2 ** (failures - 1));
    this.#wheel.arm(this.#warmTimer, this.#now() + delay);
  }

  expired(): void {
    this.warm();
  }

  /** The maintenance tick: closes what a burst left over, what is too old, and warm connections that were never used for too long. */
  maintain(): void {
    const now = this.#now();
    const { keepalive, idleTimeoutMs } = this.#config.pool;
    for (const connection of [...this.#idle]) {
      if (now >= connection.retireAt) connection.close('lifetime');
      // undici's own idle timer starts with the first request.
      else if (connection.requests === 0 && now - connection.idleSince >= idleTimeoutMs)
        connection.close('idle_timeout');
    }
    while (this.#idle.length > keepalive) this.#idle[0]!.close('surplus');
    this.#http2?.maintain();
  }

  /** No more openings; idle connections close now, busy ones when they come free. */
  stop(): void {
    this.#stopped = true;
    this.#wheel.cancel(this.#warmTimer);
    for (const dial of this.#dials) if (this.#seekers.length === 0) dial.cancel();
    for (const connection of [...this.#idle]) connection.close('shutdown');
    this.#http2?.stop();
  }
}

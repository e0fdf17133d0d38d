// One upstream's connections: the idle ones LIFO, those who wait for one FIFO, and the openings under way.
// How many exchanges may be on connections at once is not decided here: who asks holds a slot already (flow/slots.ts).

import type { Socket } from 'node:net';
import type { UpstreamConfig } from '../config/schema.ts';
import { type Expiring, Timer, type TimerWheel } from '../flow/timer-wheel.ts';
import type { PoolStats } from '../observe/stats.ts';
import { type CloseReason, Connection, type ConnectionOwner } from './connection.ts';
import type { Dial, Dialer, DialFailure, DialListener } from './dial.ts';

/** Who wants a connection. */
export interface Seeker {
  /** Only a connection that was opened after it asked will do. */
  readonly fresh: boolean;
  /** The connection is yours; may come before `take` returns. */
  connected(connection: Connection): void;
  connectFailed(code: DialFailure, detail: string): void;
}

/** A warm connection that cannot be opened is tried again after this, doubled up to the second figure. */
const WARM_RETRY_MS = 500;
const WARM_RETRY_MAX_MS = 30_000;
/** Lifetimes differ by so much, lest all connections of a burst end together. */
const LIFETIME_JITTER = 0.2;

export class Pool implements ConnectionOwner, DialListener, Expiring {
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
  }

  get active(): number {
    return this.#busy.size;
  }

  get idle(): number {
    return this.#idle.length;
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
    this.#seekers.push(seeker);
    if (seeker.fresh) this.#open();
    else this.#openMissing();
  }

  /** The seeker left. Its opening goes on: the connection will be idle and warm. */
  forget(seeker: Seeker): void {
    const index = this.#seekers.indexOf(seeker);
    if (index >= 0) this.#seekers.splice(index, 1);
  }

  #use(connection: Connection, seeker: Seeker): void {
    this.#busy.add(connection);
    seeker.connected(connection);
  }

  /** As many openings as seekers that no connection about to be free will serve. */
  #openMissing(): void {
    if (this.#dials.size + this.#ending < this.#seekers.length) this.#open();
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
    const connection = new Connection(this, this.#config, socket, now, now + this.#config.pool.maxLifetimeMs * jitter);
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
  }

  dialFailed(dial: Dial, code: DialFailure, detail: string): void {
    this.#dials.delete(dial);
    this.stats.connectFailed++;
    this.#warmFailures++;
    // Whoever has no opening of his own left hears of it: the one who waited longest.
    if (this.#seekers.length > this.#dials.size) this.#seekers.shift()!.connectFailed(code, detail);
    this.#warmLater();
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
    const open = this.#idle.length + this.#busy.size + this.#dials.size;
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
  }

  /** No more openings; idle connections close now, busy ones when they come free. */
  stop(): void {
    this.#stopped = true;
    this.#wheel.cancel(this.#warmTimer);
    for (const dial of this.#dials) if (this.#seekers.length === 0) dial.cancel();
    for (const connection of [...this.#idle]) connection.close('shutdown');
  }
}

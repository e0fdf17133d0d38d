// One server's HTTP/2 connections: which of them the next stream goes to, and how many streams one of them takes.

import type { Socket } from 'node:net';
import type { UpstreamConfig } from '../config/schema.ts';
import type { TimerWheel } from '../flow/timer-wheel.ts';
import type { CloseReason } from './carrier.ts';
import { Http2Connection, type Http2Owner, type OpeningFailure } from './http2-connection.ts';
import type { Http2Place } from './http2-stream.ts';

/** The pool, as these connections see it. */
export interface Http2Pool {
  /** It is new, and may be used. */
  streamsReady(connection: Http2Connection): void;
  /** There may be room where there was none, or less than there was. */
  roomChanged(): void;
  placeOver(place: Http2Place): void;
  http2Closed(connection: Http2Connection, reason: CloseReason, failed: OpeningFailure | null): void;
  /** How many exchanges one connection carries has become known, or is another. */
  limitChanged(): void;
}

export class Http2Connections implements Http2Owner {
  readonly #config: UpstreamConfig;
  readonly #wheel: TimerWheel;
  readonly #now: () => number;
  readonly #pool: Http2Pool;
  /** Those that take streams, or will once they are ready. */
  readonly #live: Http2Connection[] = [];
  /** Those with streams to their end. */
  readonly #leaving = new Set<Http2Connection>();
  /** What the server speaks, by its last connection; null = not known yet. */
  protocol: 'h1' | 'h2' | null = null;
  /** Streams that one connection takes, by the last one that said so; 0 = none has, or it takes none for now: the next ones are to ask. */
  #limit = 0;

  constructor(config: UpstreamConfig, wheel: TimerWheel, now: () => number, pool: Http2Pool) {
    this.#config = config;
    this.#wheel = wheel;
    this.#now = now;
    this.#pool = pool;
  }

  /** Connections that count against the pool's most. */
  get live(): number {
    return this.#live.length;
  }

  get leaving(): number {
    return this.#leaving.size;
  }

  get active(): number {
    return this.#count((connection) => (connection.streams > 0 ? 1 : 0));
  }

  get idle(): number {
    return this.#live.length + this.#leaving.size - this.active;
  }

  get streams(): number {
    return this.#count(({ streams }) => streams);
  }

  #count(of: (connection: Http2Connection) => number): number {
    let sum = 0;
    for (const connection of this.#live) sum += of(connection);
    for (const connection of this.#leaving) sum += of(connection);
    return sum;
  }

  /** Exchanges that one connection carries, as far as is known. */
  get perConnection(): number {
    return this.protocol === 'h2' ? Math.max(1, this.#limit) : 1;
  }

  /** Exchanges that the openings under way will have room for. While the protocol is not known, one opening is to tell. */
  coming(dials: number): number {
    if (this.protocol === 'h1') return dials;
    let settling = dials;
    for (const connection of this.#live) if (!connection.ready) settling++;
    if (settling === 0) return 0;
    return this.#limit === 0 ? Number.POSITIVE_INFINITY : settling * this.#limit;
  }

  add(socket: Socket, retireAt: number): void {
    this.protocol = 'h2';
    // Those after the first need not wait a round trip for what the server will say; if it has less room now, it refuses streams.
    this.#live.push(new Http2Connection(this, this.#config, this.#wheel, this.#now, socket, retireAt, this.#limit));
  }

  /** A connection came that speaks HTTP/1. */
  isHttp1(): void {
    if (this.protocol === 'h1') return;
    this.protocol = 'h1';
    this.#limit = 0;
    this.#pool.limitChanged();
  }

  /** Room for a stream, on the fullest connection that has some: the others become idle and can be closed. */
  take(): Http2Place | null {
    const now = this.#now();
    let fullest: Http2Connection | null = null;
    let old: Http2Connection | null = null;
    for (let i = 0; i < this.#live.length; i++) {
      const connection = this.#live[i]!;
      if (!connection.hasRoom) continue;
      if (now >= connection.retireAt) old = connection;
      else if (!fullest || connection.streams > fullest.streams) fullest = connection;
    }
    const place = fullest ? fullest.take(false) : null;
    old?.leave('lifetime');
    return place;
  }

  /** Makes room for another connection. @returns whether there was an idle one to close */
  closeIdle(reason: CloseReason): boolean {
    let idlest: Http2Connection | null = null;
    for (const connection of this.#live) {
      if (!connection.ready || connection.streams > 0 || connection.limit === 0) continue;
      if (!idlest || connection.idleSince < idlest.idleSince) idlest = connection;
    }
    idlest?.close(reason);
    return idlest !== null;
  }

  maintain(): void {
    const now = this.#now();
    for (const connection of [...this.#live])
      if (connection.ready && now >= connection.retireAt) connection.leave('lifetime');
    while (this.idle > this.#config.pool.keepalive && this.closeIdle('surplus'));
  }

  stop(): void {
    for (const connection of [...this.#live]) connection.leave('shutdown');
  }

  // ---- the connections' word

  http2Ready(connection: Http2Connection): void {
    this.#learn(connection);
    this.#pool.streamsReady(connection);
  }

  http2Changed(connection: Http2Connection): void {
    this.#learn(connection);
    this.#pool.roomChanged();
  }

  #learn({ limit }: Http2Connection): void {
    if (limit === this.#limit && this.protocol === 'h2') return;
    this.protocol = 'h2';
    this.#limit = limit;
    this.#pool.limitChanged();
  }

  http2Leaving(connection: Http2Connection): void {
    this.#drop(connection);
    this.#leaving.add(connection);
    if (connection.streams > 0) this.#pool.roomChanged();
  }

  http2PlaceOver(_connection: Http2Connection, place: Http2Place): void {
    this.#pool.placeOver(place);
  }

  http2Closed(connection: Http2Connection, reason: CloseReason, failed: OpeningFailure | null): void {
    this.#drop(connection);
    this.#leaving.delete(connection);
    this.#pool.http2Closed(connection, reason, failed);
  }

  #drop(connection: Http2Connection): void {
    const index = this.#live.indexOf(connection);
    if (index >= 0) this.#live.splice(index, 1);
  }
}

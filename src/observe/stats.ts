// What really happened, counted: per upstream, per limiter and operation, per listener.

import type { FailureCode } from '../errors.ts';
import { RollingHistogram } from './rolling-histogram.ts';
import type { LabelSnapshot } from './snapshot.ts';

/** Counts by a string key out of a fixed vocabulary (failure codes, close reasons). */
export class Tally {
  readonly #counts = new Map<string, number>();

  add(key: string): void {
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  get(key: string): number {
    return this.#counts.get(key) ?? 0;
  }

  snapshot(): Record<string, number> {
    return Object.fromEntries(this.#counts);
  }
}

/** A percentile of fewer says nothing. */
const FIRST_HEADS = 20;

/** One upstream's exchanges. */
export class UpstreamStats {
  requests = 0;
  inFlight = 0;
  /** Exchanges that came to a first attempt, and attempts after it. */
  sent = 0;
  retries = 0;
  /** Requests sent again that the upstream may have done (and billed) the first time. */
  maybeTwice = 0;
  /** Second attempts beside slow first ones, and those of them whose answer was used. */
  hedges = 0;
  hedgesWon = 0;
  bytesIn = 0;
  bytesOut = 0;
  /** Comments sent to clients while the upstream was silent. */
  heartbeats = 0;
  readonly failures = new Tally();
  readonly latency = new RollingHistogram();
  readonly ttfb = new RollingHistogram();
  readonly overhead = new RollingHistogram();
  readonly #head = new RollingHistogram();
  #usualHeadMs = Number.POSITIVE_INFINITY;
  /** By status 0..999; an array, because this is on the hot path. */
  readonly #status = new Uint32Array(1000);

  countStatus(status: number): void {
    this.#status[status]!++;
  }

  failed(code: FailureCode): void {
    this.failures.add(code);
  }

  status(): Record<string, number> {
    const counts: Record<string, number> = {};
    this.#status.forEach((count, status) => {
      if (count > 0) counts[status] = count;
    });
    return counts;
  }

  /** The head of an answer came so long after its attempt began. */
  headCame(ms: number): void {
    this.#head.record(ms);
    if (this.#head.total === FIRST_HEADS) this.#learnHead();
  }

  /** The 95th percentile of that; Infinity while too little is known. As of the last step of the window: this is asked for each request. */
  get usualHeadMs(): number {
    return this.#usualHeadMs;
  }

  #learnHead(): void {
    const { p95, count } = this.#head.window();
    this.#usualHeadMs = count < FIRST_HEADS ? Number.POSITIVE_INFINITY : p95;
  }

  rotate(): void {
    this.latency.rotate();
    this.ttfb.rotate();
    this.overhead.rotate();
    if (this.#head.total === 0) return;
    this.#learnHead();
    this.#head.rotate();
  }
}

/** The codes of Close frames come from outside: beyond so many different ones they count as `other`. */
const MAX_CLOSE_CODES = 32;

/** One upstream's WebSockets. */
export class WebSocketStats {
  /** Places taken, by handshakes too. */
  open = 0;
  opened = 0;
  /** Beyond `websocket.max`. */
  refused = 0;
  bytesIn = 0;
  bytesOut = 0;
  messagesIn = 0;
  messagesOut = 0;
  readonly #closedBy = new Map<string, number>();

  /** @param code of the first Close frame, or that there was none */
  closed(code: string): void {
    const key = this.#closedBy.has(code) || this.#closedBy.size < MAX_CLOSE_CODES ? code : 'other';
    this.#closedBy.set(key, (this.#closedBy.get(key) ?? 0) + 1);
  }

  closedByCode(): Record<string, number> {
    return Object.fromEntries(this.#closedBy);
  }
}

/** One pool's openings. */
export class PoolStats {
  opened = 0;
  closed = 0;
  connectFailed = 0;
  /** Requests sent, and those of them sent on an already used or warmed connection. */
  sent = 0;
  reused = 0;
  readonly closedBy = new Tally();
  readonly connect = new RollingHistogram();
  readonly dns = new RollingHistogram();
  readonly tcp = new RollingHistogram();
  readonly tls = new RollingHistogram();

  rotate(): void {
    this.connect.rotate();
    this.dns.rotate();
    this.tcp.rotate();
    this.tls.rotate();
  }
}

/** One operation label at one limiter. */
export class OperationStats {
  inFlight = 0;
  queued = 0;
  granted = 0;
  waited = 0;
  refused = 0;
  readonly wait = new RollingHistogram();

  snapshot(): LabelSnapshot {
    return {
      in_flight: this.inFlight,
      queued: this.queued,
      granted: this.granted,
      waited: this.waited,
      refused: this.refused,
      wait_ms: this.wait.window(),
    };
  }
}

/** More labels than this, and the rest count as `other`: labels come from clients. */
const MAX_OPERATIONS = 64;
const MAX_OPERATION_LENGTH = 64;

/** One limiter's waits, in total and by operation. */
export class LimiterStats {
  readonly wait = new RollingHistogram();
  readonly operations = new Map<string, OperationStats>();

  /** @param label '' = the request named none */
  operation(label: string): OperationStats | null {
    if (label === '') return null;
    const known = this.operations.get(label);
    if (known) return known;
    const name = this.operations.size < MAX_OPERATIONS && label.length <= MAX_OPERATION_LENGTH ? label : 'other';
    let stats = this.operations.get(name);
    if (!stats) {
      stats = new OperationStats();
      this.operations.set(name, stats);
    }
    return stats;
  }

  rotate(): void {
    this.wait.rotate();
    for (const operation of this.operations.values()) operation.wait.rotate();
  }
}

/** What the listener saw besides the exchanges. */
export class ListenerStats {
  connections = 0;
  /** Closed at once, as max_connections were busy; and those that made room, idle for longest. */
  connectionsRefused = 0;
  connectionsDropped = 0;
  /** Handshakes that came to no secure connection. */
  tlsFailed = 0;
  requests = 0;
  inFlight = 0;
  /** Answered without an upstream, by failure code. */
  readonly refused = new Tally();
}

// Watches one answer on its way to the client, where the upstream's `stream` section asks for it: keeps a silent event stream alive,
// ends a body that comes too slowly, and has the last word in an event stream that is cut.

import type { StreamConfig } from '../config/schema.ts';
import { answerFor, type FailureCode } from '../errors.ts';
import { sameName } from '../fields.ts';
import { EventBoundary, withoutByteOrderMark } from '../http/event-boundary.ts';
import type { Client } from './client.ts';
import { Phase } from './deadlines.ts';
import type { Exchange } from './exchange.ts';

/** A comment, which every parser reads over (WHATWG HTML section 9.2.6), and a blank line for those who split events by it. */
const HEARTBEAT = Buffer.from(': heartbeat\n\n');
const EVENT_STREAM = 'text/event-stream';
const NEVER = Number.POSITIVE_INFINITY;

/**
 * What the `stream` section means for the answer that has just begun, or null: nothing.
 * @param headers of the answer, flat
 */
export function watchStream(
  exchange: Exchange,
  config: StreamConfig,
  status: number,
  headers: readonly string[],
): StreamWatch | null {
  // Of a fetch shared with others the pace is judged where it comes in, and stored answers have no upstream.
  const minRate = exchange.phase === Phase.Answer ? config.minRate : 0;
  // The end of the connection is all that ends an answer to HTTP/1.0: after a last word it would look complete.
  const tells = config.errorEvent && !exchange.client.http10;
  const speaks = config.heartbeatMs !== NEVER || tells;
  const boundary = speaks && mayAddTo(exchange, status, headers) ? new EventBoundary() : null;
  return minRate > 0 || boundary ? new StreamWatch(config, minRate, tells, boundary, exchange.shared.now()) : null;
}

export class StreamWatch {
  readonly #config: StreamConfig;
  /** Bytes per second; 0 = any. */
  readonly #minRate: number;
  readonly #tells: boolean;
  /** null = nothing may be put into this answer. */
  readonly #boundary: EventBoundary | null;
  #windowAt: number;
  /** Bytes since then. */
  #bytes = 0;
  /** The client got something, or could not take anything more. */
  #busyAt: number;
  /** Bytes of the upstream have passed. */
  #begun = false;
  /** A heartbeat came before them. */
  #spokeFirst = false;

  constructor(config: StreamConfig, minRate: number, tells: boolean, boundary: EventBoundary | null, now: number) {
    this.#config = config;
    this.#minRate = minRate;
    this.#tells = tells;
    this.#boundary = boundary;
    this.#windowAt = now;
    this.#busyAt = now;
  }

  /** When it wants to be asked next, ms. @param paused the upstream is, for the client's sake */
  nextAt(paused: boolean): number {
    const judgedAt = this.#minRate > 0 && !paused ? this.#windowAt + this.#config.minRateWindowMs : NEVER;
    const beatsAt = this.#boundary ? this.#busyAt + this.#config.heartbeatMs : NEVER;
    return Math.min(judgedAt, beatsAt);
  }

  /** Bytes of the upstream pass. @returns what of them goes to the client */
  passes(chunk: Buffer, now: number): Buffer {
    this.#bytes += chunk.length;
    if (!this.#boundary) return chunk;
    this.#busyAt = now;
    this.#boundary.pass(chunk);
    if (this.#begun) return chunk;
    this.#begun = true;
    // Behind a heartbeat it would be taken for the beginning of a name.
    return this.#spokeFirst ? withoutByteOrderMark(chunk) : chunk;
  }

  /** The client takes bytes again: what came, or did not, while it took none says nothing of the upstream. */
  resumed(now: number): void {
    this.#windowAt = now;
    this.#bytes = 0;
  }

  /** Whether less has come than must in a window that is over by `now`. A window that was kept is followed by the next. */
  isTooSlow(now: number, paused: boolean): boolean {
    const { minRateWindowMs } = this.#config;
    if (this.#minRate === 0 || paused || now < this.#windowAt + minRateWindowMs) return false;
    if (this.#bytes < (this.#minRate * minRateWindowMs) / 1000) return true;
    this.resumed(now);
    return false;
  }

  /** @returns what to send to a client that has heard nothing for `heartbeat`, or null */
  heartbeat(client: Client, now: number): Buffer | null {
    const boundary = this.#boundary;
    if (!boundary || now < this.#busyAt + this.#config.heartbeatMs) return null;
    // Within an event, or with bytes on their way, it is asked again after as long.
    this.#busyAt = now;
    if (!boundary.isBetween || client.unsent > 0) return null;
    if (!this.#begun) this.#spokeFirst = true;
    return HEARTBEAT;
  }

  /** @returns an event that says why the stream ends here, or null: half an event must not be made a whole one */
  lastWord(code: FailureCode, detail: string): Buffer | null {
    if (!this.#tells || !this.#boundary?.isBetween) return null;
    // Nobody reads it.
    if (code === 'client_gone' || code === 'client_stalled') return null;
    return Buffer.from(`event: error\ndata: ${answerFor(code, detail, 0).body}\n`);
  }
}

/** An event stream, of no declared length, whose bytes are its text. */
function mayAddTo({ client, forFlight }: Exchange, status: number, headers: readonly string[]): boolean {
  // What is fetched for others may be stored.
  if (forFlight || client.method === 'HEAD' || status === 204 || status === 206 || status === 304) return false;
  let isEventStream = false;
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!;
    if (name.length === 12 && sameName(name, 'content-type')) isEventStream = isEventStreamType(headers[i + 1]!);
    else if (name.length === 14 && sameName(name, 'content-length')) return false;
    else if (name.length === 16 && sameName(name, 'content-encoding') && !isIdentity(headers[i + 1]!)) return false;
    // Its bytes are vouched for (RFC 9530 section 2).
    else if (name.length === 14 && sameName(name, 'content-digest')) return false;
  }
  return isEventStream;
}

/** Its parameters (charset) say nothing else. */
function isEventStreamType(value: string): boolean {
  const end = value.indexOf(';');
  const type = (end < 0 ? value : value.slice(0, end)).trim();
  return type.length === EVENT_STREAM.length && sameName(type, EVENT_STREAM);
}

function isIdentity(value: string): boolean {
  const coding = value.trim();
  return coding === '' || (coding.length === 8 && sameName(coding, 'identity'));
}

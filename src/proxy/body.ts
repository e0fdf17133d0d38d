// A request body on its way through: read ahead into memory up to a bound, and streamed from there with back pressure.

import { Readable } from 'node:stream';
import type { ByteBudget } from '../flow/byte-budget.ts';
import type { Client } from './client.ts';

/** What there is to send: nothing, all of it in memory, or a stream that begins with what was read ahead. */
export type Payload = Buffer | Readable | null;

/** A window over which the client's minimum rate is measured. */
export const RATE_WINDOW_MS = 10_000;

export class Body {
  readonly #client: Client;
  readonly #budget: ByteBudget;
  #chunks: Buffer[] = [];
  #held = 0;
  #whole: Buffer | null = null;
  #feed: Readable | null = null;
  #paused = false;
  /** All of it has arrived. */
  complete = false;
  /** Bytes that have arrived, and the count at the start of the rate window. */
  received = 0;
  #receivedAtWindow = 0;
  /** Declared length; -1 = chunked. */
  readonly length: number;

  constructor(client: Client, length: number, budget: ByteBudget) {
    this.#client = client;
    this.length = length;
    this.#budget = budget;
  }

  /** All of it is still in memory, and no more than so many bytes. */
  isReplayable(limit: number): boolean {
    return this.complete && !this.#feed && this.#held <= limit;
  }

  /** Bytes read ahead. */
  get held(): number {
    return this.#held;
  }

  /** Waiting for the client, not the client for us. */
  get wanted(): boolean {
    return !this.complete && !this.#paused;
  }

  /** So many bytes are here, or more, and it is not known to end with them. */
  fills(bytes: number): boolean {
    return !this.complete && (this.#held > bytes || (this.#held === bytes && this.#held !== this.length));
  }

  /** @returns false when body_memory is full */
  add(chunk: Buffer): boolean {
    this.received += chunk.length;
    if (this.#feed && this.#chunks.length === 0) {
      if (!this.#feed.push(chunk)) this.pause();
      return true;
    }
    if (!this.#budget.take(chunk.length)) return false;
    this.#held += chunk.length;
    this.#chunks.push(chunk);
    return true;
  }

  end(): void {
    this.#resume(); // it may end in the very bytes that made us pause
    this.complete = true;
    if (this.#feed && this.#chunks.length === 0) this.#feed.push(null);
  }

  pause(): void {
    if (this.#paused || this.complete) return;
    this.#paused = true;
    this.#client.pauseBody();
  }

  #resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#client.resumeBody();
  }

  /** All of it, when complete: for the cache's key, and for an attempt. */
  bytes(): Buffer {
    this.#whole ??= this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
    return this.#whole;
  }

  /** For one attempt. Asked again only when nothing of a stream was taken, or all is in memory. */
  payload(): Payload {
    if (this.complete && !this.#feed) {
      const whole = this.bytes();
      return whole.length > 0 ? whole : null;
    }
    this.#feed = new Readable({ highWaterMark: 64 * 1024, read: () => this.#pull() });
    return this.#feed;
  }

  /** The upstream takes bytes: first those read ahead, then what the client sends. */
  #pull(): void {
    const feed = this.#feed!;
    while (this.#chunks.length > 0) {
      const chunk = this.#chunks.shift()!;
      this.#held -= chunk.length;
      this.#budget.give(chunk.length);
      if (!feed.push(chunk) && this.#chunks.length > 0) return;
    }
    if (this.complete) feed.push(null);
    else this.#resume();
  }

  /** Whether the client kept the minimum rate since the last call; starts a new window. */
  keptRate(bytesPerSecond: number): boolean {
    const bytes = this.received - this.#receivedAtWindow;
    this.#receivedAtWindow = this.received;
    return bytes >= (bytesPerSecond * RATE_WINDOW_MS) / 1000;
  }

  /** The answer has begun: what was kept for another attempt can go, what is still on its way to the upstream cannot. */
  answered(): void {
    if (!this.#feed) this.release();
  }

  /** Lets go of all that is in memory. */
  release(): void {
    this.#budget.give(this.#held);
    this.#held = 0;
    this.#chunks = [];
    this.#whole = null;
  }
}

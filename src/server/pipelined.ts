// The bytes of pipelined requests that wait behind a running one, within bounds.

import { readRequestHead } from '../http/request-head.ts';
import { parseHeadLines } from '../http/request-line.ts';

const CR = 0x0d;
const LF = 0x0a;
const END_OF_HEAD = '\r\n\r\n';
const FIRST_CAPACITY = 1024;

/**
 * Begins at the start of a request. Neither the copying nor the counting starts over with each packet: a client that drips a long
 * pipeline byte by byte costs no more than one that sends it at once.
 */
export class PipelinedBytes {
  readonly #maxBytes: number;
  readonly #maxRequests: number;
  readonly #maxHeadBytes: number;
  #bytes: Buffer = Buffer.allocUnsafeSlow(FIRST_CAPACITY);
  #length = 0;
  /** Requests begun, as far as their ends can be told: one that is chunked or not well formed ends the count. */
  #requests = 0;
  /** Where the newest request begins; beyond the bytes when the body before it is not whole. */
  #newest = 0;
  #newestCounted = false;
  /** Before this there is no end of the newest head. */
  #searched = 0;
  #countOver = false;

  constructor(maxBytes: number, maxRequests: number, maxHeadBytes: number) {
    this.#maxBytes = maxBytes;
    this.#maxRequests = maxRequests;
    this.#maxHeadBytes = maxHeadBytes;
  }

  /** @returns false when a bound is passed */
  add(chunk: Buffer): boolean {
    const length = this.#length + chunk.length;
    if (length > this.#maxBytes) return false;
    if (length > this.#bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.min(this.#maxBytes, Math.max(length, 2 * this.#bytes.length)));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(chunk, this.#length);
    this.#length = length;
    this.#count();
    return this.#requests <= this.#maxRequests;
  }

  /** All of them. The object is not used again. */
  take(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  #count(): void {
    const bytes = this.take();
    while (!this.#countOver && this.#requests <= this.#maxRequests) {
      while (bytes[this.#newest] === CR && bytes[this.#newest + 1] === LF) this.#newest += 2;
      const last = bytes.length - 1;
      if (this.#newest > last || (this.#newest === last && bytes[last] === CR)) return;
      if (!this.#newestCounted) this.#requests++;
      this.#newestCounted = true;
      const end = bytes.indexOf(END_OF_HEAD, Math.max(this.#newest, this.#searched));
      if (end < 0) {
        this.#searched = Math.max(0, bytes.length - END_OF_HEAD.length + 1);
        this.#countOver = bytes.length - this.#newest > this.#maxHeadBytes;
        return;
      }
      this.#passNewest(bytes, end);
    }
  }

  #passNewest(bytes: Buffer, end: number): void {
    const lines = parseHeadLines(bytes.toString('latin1', this.#newest, end + 2));
    const head = typeof lines === 'string' ? null : readRequestHead(lines.raw, lines.http10);
    if (!head || head.chunked || head.problem) {
      this.#countOver = true;
      return;
    }
    this.#newest = end + END_OF_HEAD.length + Math.max(0, head.contentLength);
    this.#newestCounted = false;
  }
}

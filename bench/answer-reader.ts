// Reads the answers on one client connection as they come, and knows when each is whole and whether it was cut.

const BLANK_LINE = '\r\n\r\n';

export interface AnswerListener {
  /** Not told of interim answers. @param head the status line and all fields, as text */
  head(status: number, head: string): void;
  body(chunk: Buffer): void;
  /** Its own framing says that it is whole. */
  whole(): void;
}

/** What is left of the answer that comes: bytes; in chunks; all until the connection ends. */
const CHUNKED = -1;
const UNTIL_CLOSE = -2;

export class AnswerReader {
  readonly #listener: AnswerListener;
  /** A head, or the line of a chunk, that is not whole. */
  #pending: Buffer | null = null;
  #withinBody = false;
  #left = 0;
  #chunkLeft = 0;
  /** Between the last chunk and the empty line that ends the trailers. */
  #withinTrailers = false;

  constructor(listener: AnswerListener) {
    this.#listener = listener;
  }

  /** Throws on bytes that are no answer. */
  feed(chunk: Buffer): void {
    let bytes = this.#pending ? Buffer.concat([this.#pending, chunk]) : chunk;
    this.#pending = null;
    while (bytes.length > 0) {
      const taken = this.#withinBody ? this.#readBody(bytes) : this.#readHead(bytes);
      if (taken === 0) {
        this.#pending = Buffer.from(bytes);
        return;
      }
      bytes = bytes.subarray(taken);
    }
  }

  /** The connection has ended, properly. @returns whether that is a right end of the answer */
  fin(): boolean {
    if (!this.#withinBody || this.#left !== UNTIL_CLOSE) return false;
    this.#end();
    return true;
  }

  #readHead(bytes: Buffer): number {
    const end = bytes.indexOf(BLANK_LINE);
    if (end < 0) return 0;
    const head = bytes.toString('latin1', 0, end + 2);
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1] ?? 0);
    if (status < 100) throw new Error(`not the head of an answer: ${JSON.stringify(head.slice(0, 200))}`);
    if (status >= 200) {
      this.#withinBody = true;
      this.#left = framingOf(head, status);
      this.#listener.head(status, head);
      if (this.#left === 0) this.#end();
    }
    return end + BLANK_LINE.length;
  }

  #readBody(bytes: Buffer): number {
    if (this.#left === CHUNKED) return this.#readChunk(bytes);
    const part = this.#left === UNTIL_CLOSE ? bytes : bytes.subarray(0, this.#left);
    if (this.#left > 0) this.#left -= part.length;
    this.#listener.body(part);
    if (this.#left === 0) this.#end();
    return part.length;
  }

  #readChunk(bytes: Buffer): number {
    if (this.#chunkLeft > 0) {
      const part = bytes.subarray(0, this.#chunkLeft);
      this.#chunkLeft -= part.length;
      this.#listener.body(part);
      return part.length;
    }
    const end = bytes.indexOf('\r\n');
    if (end < 0) return 0;
    if (this.#withinTrailers) {
      if (end === 0) this.#end();
      return end + 2;
    }
    // The empty line is the one behind a chunk.
    if (end === 0) return 2;
    const size = bytes.toString('latin1', 0, end);
    if (!/^[0-9a-f]+$/i.test(size)) throw new Error(`not the size of a chunk: ${JSON.stringify(size.slice(0, 200))}`);
    this.#chunkLeft = Number.parseInt(size, 16);
    this.#withinTrailers = this.#chunkLeft === 0;
    return end + 2;
  }

  #end(): void {
    this.#withinBody = false;
    this.#withinTrailers = false;
    this.#left = 0;
    this.#listener.whole();
  }
}

function framingOf(head: string, status: number): number {
  if (status === 204 || status === 304) return 0;
  if (/\r\ntransfer-encoding: *chunked\r\n/i.test(head)) return CHUNKED;
  const length = /\r\ncontent-length: *(\d+)\r\n/i.exec(head)?.[1];
  return length === undefined ? UNTIL_CLOSE : Number(length);
}

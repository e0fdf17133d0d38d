// The upstream of the body bench: takes uploads and counts them, every fifth connection slowly; sends downloads as fast as they are taken.
import { createServer, type Socket } from 'node:net';
import { ChunkedDecoder } from '../src/http/chunked.ts';
import { PatternCheck, patternAt } from './pattern.ts';

const SLOW_EVERY = 5;
/** A slow connection reads for a moment, then not for this long: some 3 MB/s. */
const PAUSE_MS = 20;
const PIECE = 64 * 1024;

let connections = 0;

class Connection {
  readonly #socket: Socket;
  readonly #slow = ++connections % SLOW_EVERY === 0;
  #head = '';
  #decoder: ChunkedDecoder | null = null;
  #left = 0;
  #body = new PatternCheck();

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', () => socket.destroy());
  }

  #read(chunk: Buffer): void {
    if (this.#slow) {
      this.#socket.pause();
      setTimeout(() => this.#socket.resume(), PAUSE_MS);
    }
    let from = 0;
    if (this.#left === 0) {
      const text = chunk.toString('latin1');
      const end = text.indexOf('\r\n\r\n');
      this.#head += end < 0 ? text : text.slice(0, end + 4);
      if (end < 0) return;
      from = end + 4;
      this.#start();
    }
    if (this.#left > 0) this.#readBody(chunk, from);
  }

  #start(): void {
    const head = this.#head;
    this.#head = '';
    const download = /^GET \/download\/(\d+) /.exec(head);
    if (download) {
      this.#send(Number(download[1]));
      return;
    }
    this.#body = new PatternCheck();
    this.#decoder = /\r\ntransfer-encoding: *chunked/i.test(head) ? new ChunkedDecoder() : null;
    this.#left = this.#decoder ? Number.POSITIVE_INFINITY : Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1]);
  }

  #readBody(chunk: Buffer, from: number): void {
    if (this.#decoder) {
      this.#decoder.feed(chunk, from, (part) => this.#body.add(part));
      if (!this.#decoder.done) return;
    } else {
      const part = chunk.subarray(from);
      this.#body.add(part);
      this.#left -= part.length;
      if (this.#left > 0) return;
    }
    this.#left = 0;
    const text = JSON.stringify({ bytes: this.#body.bytes, right: this.#body.right });
    this.#socket.write(
      `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n${text}`,
    );
  }

  #send(bytes: number): void {
    const socket = this.#socket;
    socket.write(`HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: ${bytes}\r\n\r\n`);
    let sent = 0;
    const more = () => {
      while (sent < bytes && !socket.destroyed) {
        const piece = patternAt(sent, Math.min(PIECE, bytes - sent));
        sent += piece.length;
        if (!socket.write(piece)) return;
      }
      socket.off('drain', more);
    };
    socket.on('drain', more);
    more();
  }
}

const server = createServer((socket) => new Connection(socket));
server.listen(0, '127.0.0.1', 1024, () => {
  const address = server.address();
  if (address && typeof address === 'object') process.send?.({ port: address.port });
});
process.on('disconnect', () => process.exit(0));

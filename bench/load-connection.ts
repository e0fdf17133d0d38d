// One client connection of the load generator: sends the same request, checks each answer byte by byte, knows how long it took.
import { connect, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import { ANSWER } from './work.ts';

const BLANK_LINE = Buffer.from('\r\n\r\n');
const READ_BUFFER = 16_384;

/** Called with the latency in µs of each right answer and the time in ms; says whether to send another request. */
export type Answered = (micros: number, now: number) => boolean;

export class LoadConnection {
  readonly opened: Promise<void>;
  private readonly socket: Socket;
  private readonly request: Buffer;
  private answered: Answered | null = null;
  private fail: ((error: Error) => void) | null = null;
  private sentAt = 0;
  /** Start of an answer that came in pieces. */
  private pieces: Buffer | null = null;
  /** The head of the last answer: an equal one needs no parsing. */
  private knownHead: Buffer = Buffer.alloc(0);

  constructor(port: number, request: Buffer) {
    this.request = request;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.opened = promise;
    this.socket = connect({
      port,
      host: '127.0.0.1',
      noDelay: true,
      // `onread` skips the readable stream: one buffer per connection, no allocation per answer.
      onread: {
        buffer: Buffer.allocUnsafe(READ_BUFFER),
        callback: (length, buffer) => {
          this.read((buffer as Buffer).subarray(0, length));
          return true;
        },
      },
    });
    this.socket.on('connect', () => resolve());
    this.socket.on('error', (error) => {
      reject(error);
      this.fail?.(error);
    });
    this.socket.on('end', () => this.fail?.(new Error('the proxy closed a connection')));
  }

  /** Sends the first request of a run. */
  run(answered: Answered, fail: (error: Error) => void): void {
    this.answered = answered;
    this.fail = fail;
    this.send();
  }

  close(): void {
    this.fail = null;
    this.answered = null;
    this.socket.destroy();
  }

  private send(): void {
    this.sentAt = performance.now();
    this.socket.write(this.request);
  }

  private read(chunk: Buffer): void {
    const bytes = this.pieces === null ? chunk : Buffer.concat([this.pieces, chunk]);
    const headLength = this.headLength(bytes);
    if (headLength === 0 || bytes.length < headLength + ANSWER.length) {
      // `chunk` lies in the shared read buffer: keep a copy.
      this.pieces = Buffer.from(bytes);
      return;
    }
    this.pieces = null;
    if (bytes.length > headLength + ANSWER.length || bytes.compare(ANSWER, 0, ANSWER.length, headLength) !== 0) {
      this.fail?.(new Error(`a wrong answer: ${JSON.stringify(bytes.toString('latin1', 0, 300))}`));
      return;
    }
    const now = performance.now();
    const micros = Math.max(1, Math.round((now - this.sentAt) * 1000));
    if (this.answered?.(micros, now)) this.send();
  }

  /** Length of the answer's head when it is whole and says what it should, else 0. */
  private headLength(bytes: Buffer): number {
    const known = this.knownHead.length;
    if (known > 0 && bytes.length >= known && bytes.compare(this.knownHead, 0, known, 0, known) === 0) return known;
    const end = bytes.indexOf(BLANK_LINE);
    if (end < 0) return 0;
    const head = bytes.toString('latin1', 0, end + BLANK_LINE.length);
    const declared = /\r\ncontent-length: *(\d+)\r\n/i.exec(head)?.[1];
    if (!head.startsWith('HTTP/1.1 200 ') || Number(declared) !== ANSWER.length) {
      this.fail?.(new Error(`a wrong head: ${JSON.stringify(head)}`));
      return 0;
    }
    this.knownHead = Buffer.from(bytes.subarray(0, head.length));
    return head.length;
  }
}

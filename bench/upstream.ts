// The upstream of the benchmark: a raw TCP server that answers every whole request with the same bytes, as cheaply as Node can.
// With `cacheable` its answers may be stored, and it gives too few of them for a proxy that would not serve its own.
import { createServer, type Socket } from 'node:net';
import { answerBytes } from './work.ts';

const BLANK_LINE = Buffer.from('\r\n\r\n');
const cacheable = process.argv.includes('cacheable');
const ONE_ANSWER = answerBytes(cacheable);
/** A proxy needs one, or a few. The warm-up alone is 30 000 requests, and no fetch serves more than the 50 that wait for it. */
let answersLeft = cacheable ? 100 : Number.POSITIVE_INFINITY;

/** Reads the requests of one connection. A proxy sends the same head again and again, so a head seen before is compared, not parsed. */
class Connection {
  private rest: Buffer | null = null;
  private knownHead: Buffer = Buffer.alloc(0);
  private knownLength = 0;
  private readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.read(chunk));
    socket.on('error', () => socket.destroy());
  }

  private read(chunk: Buffer): void {
    const bytes = this.rest === null ? chunk : Buffer.concat([this.rest, chunk]);
    let from = 0;
    while (from < bytes.length) {
      const length = this.requestLength(bytes, from);
      if (length === 0 || from + length > bytes.length) break;
      from += length;
      if (--answersLeft < 0) this.socket.destroy();
      else this.socket.write(ONE_ANSWER);
    }
    this.rest = from === bytes.length ? null : bytes.subarray(from);
  }

  /** Length of the request that starts at `from`, head and body; 0 while its head is not whole. */
  private requestLength(bytes: Buffer, from: number): number {
    const known = this.knownHead.length;
    if (known > 0 && from + known <= bytes.length) {
      if (bytes.compare(this.knownHead, 0, known, from, from + known) === 0) return this.knownLength;
    }
    const end = bytes.indexOf(BLANK_LINE, from);
    if (end < 0) return 0;
    this.knownHead = Buffer.from(bytes.subarray(from, end + BLANK_LINE.length));
    const head = this.knownHead.toString('latin1');
    const declared = /\r\ncontent-length: *(\d+)/i.exec(head);
    if (!declared && !head.startsWith('GET ')) this.socket.destroy(new Error('a request without Content-Length'));
    this.knownLength = this.knownHead.length + Number(declared?.[1] ?? 0);
    return this.knownLength;
  }
}

const server = createServer((socket) => new Connection(socket));
server.listen(0, '127.0.0.1', 1024, () => {
  const address = server.address();
  if (address && typeof address === 'object') process.send?.({ port: address.port });
});
process.on('disconnect', () => process.exit(0));

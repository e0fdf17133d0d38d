// The two ends of the cache soak: an upstream whose answers differ in size, and clients that ask it for one new key after the other.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';

const LEAST_BYTES = 200;
const MOST_BYTES = 20_000;
const CONNECTIONS = 50;
const TICK_MS = 5;
/** Every so many requests repeat an earlier one, of the last RECENT. */
const REPEAT_EVERY = 5;
const RECENT = 1000;
const BLANK_LINE = Buffer.from('\r\n\r\n');
const FILLER = Buffer.alloc(MOST_BYTES, 'x');

/** The answer to each key, found again from its number: as many of 200 to 2000 bytes as of 2000 to 20 000. */
function bodyOf(n: number): Buffer {
  const share = ((n * 2654435761) % 4294967296) / 4294967296;
  const size = Math.round(LEAST_BYTES * (MOST_BYTES / LEAST_BYTES) ** share);
  const text = Buffer.from(`{"n":${n},"filler":"`);
  return Buffer.concat([text, FILLER.subarray(0, size - text.length - 2), Buffer.from('"}')]);
}

/** Even numbers are asked for by POST, for a rule; odd ones by GET, and expire after a second. */
function requestOf(n: number, prefix: string): string {
  const head = 'Host: soak\r\nAccept: application/json\r\nAuthorization: Bearer sk-soak\r\n';
  if (n % 2 === 1) return `GET ${prefix}/items/${n} HTTP/1.1\r\n${head}\r\n`;
  const body = JSON.stringify({ model: 'text-embedding-3-small', n });
  const fields = `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`;
  return `POST ${prefix}/items HTTP/1.1\r\n${head}${fields}\r\n${body}`;
}

/** Listens on a port of its own choice. */
export function startSoakUpstream(): Promise<Server> {
  const server = createServer({ keepAliveTimeout: 0 }, (request, answer) => {
    if (request.method === 'GET') reply(answer, Number(request.url!.slice(request.url!.lastIndexOf('/') + 1)));
    else replyToBody(request, answer);
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

function replyToBody(request: IncomingMessage, answer: ServerResponse): void {
  let text = '';
  request.setEncoding('latin1');
  request.on('data', (chunk: string) => {
    text += chunk;
  });
  request.on('end', () => reply(answer, (JSON.parse(text) as { n: number }).n));
}

function reply(answer: ServerResponse, n: number): void {
  const body = bodyOf(n);
  answer.writeHead(200, {
    'content-type': 'application/json',
    'content-length': body.length,
    'cache-control': 'public, max-age=1',
    'x-request-id': `req_${String(n).padStart(32, '0')}`,
    'x-ratelimit-remaining-requests': '9999',
  });
  answer.end(body);
}

/** A fixed rate through a fixed number of connections. Where the proxy cannot keep up, it waits: no more is ever under way. */
export class SoakLoad {
  /** Keys asked for so far, and answers that were whole and right. */
  keys = 0;
  answers = 0;
  /** The slowest answer, ms: at least as long as the longest stall of the proxy's event loop; the machine's own stalls count too. */
  slowestMs = 0;
  readonly #port: number;
  readonly #prefix: string;
  readonly #idle: SoakConnection[] = [];
  #sent = 0;

  constructor(port: number, prefix: string) {
    this.#port = port;
    this.#prefix = prefix;
  }

  /** Resolves when all is answered, or at the deadline. Rejects on the first wrong answer. */
  run(keys: number, seconds: number, deadlineSeconds: number): Promise<void> {
    const all: SoakConnection[] = [];
    const startedAt = performance.now();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    for (let n = 0; n < CONNECTIONS; n++) all.push(new SoakConnection(this.#port, reject));
    this.#idle.push(...all);
    const tick = setInterval(() => {
      const elapsed = (performance.now() - startedAt) / 1000;
      const due = Math.min(keys, Math.ceil((keys * elapsed) / seconds));
      while (this.keys < due && this.#idle.length > 0) this.#next(this.#idle.pop()!);
      if ((this.keys >= keys && this.answers === this.#sent) || elapsed >= deadlineSeconds) resolve();
    }, TICK_MS);
    return promise.finally(() => {
      clearInterval(tick);
      this.#idle.length = 0;
      for (const connection of all) connection.close();
    });
  }

  #next(connection: SoakConnection): void {
    const repeats = ++this.#sent % REPEAT_EVERY === 0;
    const n = repeats ? Math.max(0, this.keys - Math.ceil(Math.random() * RECENT)) : this.keys++;
    const sentAt = performance.now();
    connection.ask(requestOf(n, this.#prefix), bodyOf(n), () => {
      this.answers++;
      this.slowestMs = Math.max(this.slowestMs, performance.now() - sentAt);
      this.#idle.push(connection);
    });
  }
}

class SoakConnection {
  readonly #socket: Socket;
  readonly #fail: (error: Error) => void;
  #received: Buffer[] = [];
  #expected: Buffer = Buffer.alloc(0);
  #done: () => void = () => {};

  constructor(port: number, fail: (error: Error) => void) {
    this.#fail = fail;
    this.#socket = connect({ port, host: '127.0.0.1', noDelay: true });
    this.#socket.on('data', (chunk: Buffer) => this.#read(chunk));
    this.#socket.on('error', fail);
    this.#socket.on('end', () => fail(new Error('the proxy closed a connection')));
  }

  ask(request: string, expected: Buffer, done: () => void): void {
    this.#expected = expected;
    this.#done = done;
    this.#socket.write(request, 'latin1');
  }

  close(): void {
    this.#socket.removeAllListeners('end');
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    this.#received.push(chunk);
    const bytes = this.#received.length === 1 ? chunk : Buffer.concat(this.#received);
    const end = bytes.indexOf(BLANK_LINE);
    if (end < 0 || bytes.length < end + BLANK_LINE.length + this.#expected.length) return;
    this.#received = [];
    const isOk = bytes.toString('latin1', 0, 13) === 'HTTP/1.1 200 ';
    if (isOk && bytes.subarray(end + BLANK_LINE.length).equals(this.#expected)) this.#done();
    else this.#fail(new Error(`a wrong answer: ${JSON.stringify(bytes.toString('latin1', 0, 600))}`));
  }
}

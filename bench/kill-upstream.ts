// The upstream of the kill soak: answers every kind of request the soak sends, and can be cut, stalled and restarted at any moment.
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { Chance } from './chance.ts';
import { EchoServer } from './kill-websockets.ts';
import { PatternCheck, patternAt } from './pattern.ts';
import { reset, sleep } from './processes.ts';

const PIECE = 64 * 1024;
const EVENT_MS = 20;
/** A server that comes back finds its port taken by a connection of this machine now and then. */
const LISTEN_TRIES = 40;

export class KillUpstream {
  readonly port: number;
  readonly sockets = new Set<Socket>();
  /** What came of a request that was whole but wrong. */
  readonly #wrong: (what: string) => void;
  readonly #chance: Chance;
  readonly #echo: EchoServer;
  readonly #stalled = new WeakSet<Socket>();
  #server: Server;
  up = true;

  private constructor(port: number, seed: number, wrong: (what: string) => void) {
    this.port = port;
    this.#chance = new Chance(seed);
    this.#echo = new EchoServer(this.#chance);
    this.#wrong = wrong;
    this.#server = this.#make();
  }

  static async start(port: number, seed: number, wrong: (what: string) => void): Promise<KillUpstream> {
    const upstream = new KillUpstream(port, seed, wrong);
    await upstream.#listen();
    return upstream;
  }

  #make(): Server {
    const server = createServer({ keepAliveTimeout: 0, requestTimeout: 0 }, (request, answer) => {
      answer.on('error', () => {});
      request.on('error', () => {});
      void this.#serve(request, answer);
    });
    server.on('upgrade', (request, socket, head) => void this.#echo.take(request, socket, head));
    server.on('connection', (socket) => {
      this.sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.sockets.delete(socket));
    });
    return server;
  }

  async #listen(): Promise<void> {
    for (let n = 0; ; n++) {
      try {
        this.#server.listen(this.port, '127.0.0.1');
        await once(this.#server, 'listening');
        return;
      } catch (error) {
        if (n === LISTEN_TRIES) throw error;
        this.#server = this.#make();
        await sleep(50);
      }
    }
  }

  close(): void {
    this.#server.close();
    for (const socket of this.sockets) socket.destroy();
  }

  /** Nobody listens for a while; the connections go with the old process, one way or the other. */
  async restart(downMs: number): Promise<void> {
    if (!this.up) return;
    this.up = false;
    this.#server.close();
    for (const socket of this.sockets) {
      if (this.#chance.happens(0.5)) reset(socket);
      else socket.end(() => socket.destroy());
    }
    await sleep(downMs);
    this.#server = this.#make();
    await this.#listen();
    this.up = true;
  }

  /** Nothing is read or written any more, until a reset. */
  stall(socket: Socket, ms: number): void {
    this.#stalled.add(socket);
    socket.pause();
    setTimeout(() => reset(socket), ms).unref();
  }

  async #serve(request: IncomingMessage, answer: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url!, 'http://soak');
    // The one kind that does not read its request: an answer before the body is there.
    if (pathname === '/upload' && this.#chance.happens(0.1)) return this.#json(answer, 413, { early: true });
    const body = new PatternCheck();
    const parts: Buffer[] = [];
    request.on('data', (chunk: Buffer) => {
      if (pathname === '/upload') body.add(chunk);
      else parts.push(chunk);
      // A slow reader, now and then.
      if (this.#chance.happens(0.02)) {
        request.pause();
        setTimeout(() => request.resume(), this.#chance.between(1, 60));
      }
    });
    if (!(await isRead(request))) return;
    switch (pathname) {
      case '/upload':
        return this.#uploaded(request, answer, body, Number(searchParams.get('bytes')));
      case '/download':
        return this.#download(request, answer, Number(searchParams.get('bytes')), searchParams.has('chunked'));
      case '/sse':
        return this.#stream(answer, Number(searchParams.get('events')));
      default:
        return this.#think(answer, searchParams.get('n') ?? Buffer.concat(parts).toString());
    }
  }

  #isGone(answer: ServerResponse): boolean {
    return answer.destroyed || !answer.socket || this.#stalled.has(answer.socket);
  }

  #json(answer: ServerResponse, status: number, content: object, fields: Record<string, string> = {}): void {
    if (this.#isGone(answer)) return;
    const text = JSON.stringify(content);
    answer.writeHead(status, { 'content-type': 'application/json', 'content-length': text.length, ...fields });
    answer.end(text);
  }

  /** A short answer that says what it answers, after a while, and not always a good one. */
  async #think(answer: ServerResponse, question: string): Promise<void> {
    await sleep(this.#chance.happens(0.05) ? this.#chance.between(50, 400) : this.#chance.between(0, 15));
    if (this.#chance.happens(0.02)) return this.#json(answer, this.#chance.pick([500, 502, 503]), { question });
    if (this.#chance.happens(0.01)) return this.#json(answer, 429, { question }, { 'retry-after': '1' });
    const filler = 'x'.repeat(this.#chance.between(0, 4000));
    this.#json(answer, 200, { question, filler }, { 'cache-control': 'public, max-age=1' });
  }

  #uploaded(request: IncomingMessage, answer: ServerResponse, { bytes, right }: PatternCheck, sent: number): void {
    if (!right || bytes !== sent)
      this.#wrong(`${request.url} came as ${bytes} bytes, ${right ? 'right' : 'wrong'} ones`);
    this.#json(answer, 200, { bytes });
  }

  async #download(request: IncomingMessage, answer: ServerResponse, bytes: number, chunked: boolean): Promise<void> {
    if (this.#isGone(answer)) return;
    // An HTTP/1.0-like end (by close) cannot be told from a cut, so there is none here.
    answer.writeHead(200, chunked || request.method === 'HEAD' ? {} : { 'content-length': bytes });
    for (let at = 0; at < bytes; ) {
      const piece = patternAt(at, Math.min(PIECE, bytes - at));
      at += piece.length;
      if (answer.write(piece)) continue;
      await drained(answer);
      if (this.#isGone(answer)) return;
    }
    answer.end();
  }

  async #stream(answer: ServerResponse, events: number): Promise<void> {
    if (this.#isGone(answer)) return;
    answer.writeHead(200, { 'content-type': 'text/event-stream' });
    for (let n = 0; n < events; n++) {
      answer.write(`data: {"n":${n},"of":${events},"text":"${'t'.repeat(this.#chance.between(10, 120))}"}\n\n`);
      // Silent for long enough to get a heartbeat, or to be too slow, now and then.
      await sleep(this.#chance.happens(0.005) ? this.#chance.between(500, 4000) : EVENT_MS);
      if (this.#isGone(answer)) return;
    }
    answer.end('data: [DONE]\n\n');
  }
}

/** @returns whether it came to its end, not just to that of its connection */
function isRead(request: IncomingMessage): Promise<boolean> {
  return new Promise((resolve) => {
    request.once('end', () => resolve(true));
    request.once('close', () => resolve(false));
  });
}

function drained(answer: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const go = () => {
      answer.off('drain', go);
      answer.off('close', go);
      resolve();
    };
    answer.once('drain', go);
    answer.once('close', go);
  });
}

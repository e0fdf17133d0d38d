// What every mock upstream has: an HTTP server (TLS unless told otherwise) that counts, reads bodies whole and thinks before it answers.
import { once } from 'node:events';
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const BODY_LIMIT_BYTES = 64 << 20;
const JITTER = 0.15;

/** What an upstream saw since the last reset. */
export interface Counters {
  /** TLS handshakes done (TCP connections without TLS). */
  connections: number;
  requests: number;
  /** Answers whose client left before their last byte. */
  abandoned: number;
  max_concurrent: number;
}

/** One request, its body read. */
export interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly body: Buffer;
}

export interface MockOptions {
  /** Answers a call; a promise that rejects becomes a 500. */
  readonly answer: (call: Call) => Promise<void> | void;
  /** PEM texts; null = cleartext. */
  readonly tls: { readonly cert: string; readonly key: string } | null;
}

export class MockServer {
  readonly #server: Server;
  readonly #answer: MockOptions['answer'];
  #counters = zero();
  #concurrent = 0;

  constructor(options: MockOptions) {
    this.#answer = options.answer;
    // Longer than any pool keeps an idle connection, like the real ones.
    const settings = { keepAliveTimeout: 75_000, noDelay: true };
    this.#server = options.tls ? createHttpsServer({ ...settings, ...options.tls }) : createHttpServer(settings);
    this.#server.on(options.tls ? 'secureConnection' : 'connection', () => this.#counters.connections++);
    this.#server.on('request', (request: IncomingMessage, response: ServerResponse) => this.#begin(request, response));
  }

  /** Listens on a free loopback port and gives it. */
  async listen(): Promise<number> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  get counters(): Counters {
    return { ...this.#counters };
  }

  resetCounters(): void {
    this.#counters = { ...zero(), max_concurrent: this.#concurrent };
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #begin(request: IncomingMessage, response: ServerResponse): void {
    this.#counters.requests++;
    this.#concurrent++;
    this.#counters.max_concurrent = Math.max(this.#counters.max_concurrent, this.#concurrent);
    response.once('close', () => {
      this.#concurrent--;
      if (!response.writableFinished) this.#counters.abandoned++;
    });
    this.#run(request, response).catch((error: Error) => {
      if (request.errored || response.destroyed) return; // the client left
      if (response.headersSent) response.destroy();
      else sendJson(response, 500, { error: { message: error.message, type: 'server_error' } });
    });
  }

  async #run(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await readBody(request);
    if (body === null) {
      response.setHeader('connection', 'close');
      return sendJson(response, 413, { error: { message: 'Body too large', type: 'invalid_request_error' } });
    }
    const url = new URL(request.url ?? '/', 'https://mock.invalid');
    await this.#answer({ request, response, url, body });
  }
}

function zero(): Counters {
  return { connections: 0, requests: 0, abandoned: 0, max_concurrent: 0 };
}

/** The whole body, or null when it is over the limit. */
async function readBody(request: IncomingMessage): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_LIMIT_BYTES) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Waits for about `ms`: real upstreams never take the same time twice. */
export async function think(ms: number): Promise<void> {
  await sleep(ms * (1 + JITTER * (2 * Math.random() - 1)));
}

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const text = JSON.stringify(value);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

/** The body as a JSON object, or null. */
export function jsonBody(call: Call): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(call.body.toString('utf8'));
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : null;
  } catch {
    return null;
  }
}

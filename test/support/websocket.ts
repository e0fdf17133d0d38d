// WebSockets for e2e tests: an upstream on the ws package, clients of the same, and frames made by hand.

import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TlsOptions } from 'node:tls';
import { type ClientOptions, type ServerOptions, WebSocket, WebSocketServer } from 'ws';
import type { UpstreamOverrides } from './proxy.ts';
import type { Rig } from './rig.ts';
import { within } from './until.ts';
import type { RawUpstreamOptions } from './upstream.ts';

export interface SocketUpstreamOptions {
  readonly tls?: TlsOptions;
  readonly ws?: ServerOptions;
  /** Path of a unix socket. */
  readonly path?: string;
}

/** By default it sends every message back as it came. */
export type Converse = (socket: WebSocket, request: IncomingMessage) => void;

const echo: Converse = (socket) => {
  socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }));
};

export class SocketUpstream {
  readonly requests: IncomingMessage[] = [];
  readonly sockets: WebSocket[] = [];
  readonly #server: ReturnType<typeof createServer>;
  readonly #ws: WebSocketServer;

  private constructor(converse: Converse, { tls, ws }: SocketUpstreamOptions) {
    this.#server = tls ? createTlsServer(tls) : createServer();
    this.#ws = new WebSocketServer({ server: this.#server, maxPayload: 64 << 20, ...ws });
    this.#ws.on('connection', (socket, request) => {
      this.requests.push(request);
      this.sockets.push(socket);
      socket.on('error', () => {});
      converse(socket, request);
    });
  }

  static async start(converse: Converse, options: SocketUpstreamOptions): Promise<SocketUpstream> {
    const upstream = new SocketUpstream(converse, options);
    upstream.#server.listen(options.path ?? { port: 0, host: '127.0.0.1' });
    await once(upstream.#server, 'listening');
    return upstream;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async close(): Promise<void> {
    for (const socket of this.#ws.clients) socket.terminate();
    this.#ws.close();
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}

/** An upstream that is closed after the proxy. */
export async function socketUpstream(rig: Rig, converse = echo, options: SocketUpstreamOptions = {}) {
  const upstream = await SocketUpstream.start(converse, options);
  rig.closes(upstream);
  return upstream;
}

/** How a connection ended for one side. */
export interface Goodbye {
  readonly code: number;
  readonly reason: string;
}

export function goodbyeOf(socket: WebSocket): Promise<Goodbye> {
  return within(
    'the end of a WebSocket',
    once(socket, 'close').then(([code, reason]) => ({ code, reason: String(reason) })),
    10_000,
  );
}

/** An open client. */
export async function socketClient(url: string, options: ClientOptions = {}, protocols: string[] = []) {
  const socket = new WebSocket(url.replace(/^http/, 'ws'), protocols, { maxPayload: 64 << 20, ...options });
  await within('a WebSocket to open', once(socket, 'open'), 10_000);
  return socket;
}

/** The next message. */
export async function message(socket: WebSocket): Promise<{ bytes: Buffer; isBinary: boolean }> {
  const [bytes, isBinary] = await within('a message', once(socket, 'message'), 15_000);
  return { bytes: bytes as Buffer, isBinary: isBinary as boolean };
}

export const OPENING =
  'connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n';

/** What the upstream says to that; on bare sockets nobody checks the rest. */
export const SWITCHED =
  'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n';

/** A frame of a server, or with a mask of noughts one of a client. */
export function frame(payload: string | Uint8Array, { opcode = 1, fin = true, masked = false } = {}): Buffer {
  const bytes = Buffer.from(payload as string, 'utf8');
  const head = bytes.length > 0xffff ? Buffer.alloc(10) : bytes.length > 125 ? Buffer.alloc(4) : Buffer.alloc(2);
  head[0] = (fin ? 0x80 : 0) | opcode;
  head[1] = (masked ? 0x80 : 0) | (head.length === 10 ? 127 : head.length === 4 ? 126 : bytes.length);
  if (head.length === 4) head.writeUInt16BE(bytes.length, 2);
  if (head.length === 10) head.writeBigUInt64BE(BigInt(bytes.length), 2);
  return Buffer.concat([head, masked ? Buffer.alloc(4) : Buffer.alloc(0), bytes]);
}

/** A Close frame. */
export function close(code: number, reason = '', masked = false): Buffer {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
  payload.writeUInt16BE(code);
  payload.write(reason, 2);
  return frame(payload, { opcode: 8, masked });
}

/** An open tunnel with bare sockets on both sides. */
export async function openTunnel(
  rig: Rig,
  overrides: Partial<UpstreamOverrides> = {},
  options: RawUpstreamOptions = {},
) {
  const upstream = await rig.upstream((_request, connection) => connection.send(SWITCHED), options);
  const proxy = await rig.one({ url: upstream.url, websocket: { max: 10 }, ...overrides });
  const client = await rig.sent(proxy, '/ai/x', { headers: OPENING });
  await client.head();
  const before = client.text.length;
  const { connection, text } = await upstream.request();
  return {
    proxy,
    client,
    connection,
    /** What came since the switch. */
    heard: () => client.text.slice(before),
    told: () => connection.text.slice(text.length),
  };
}

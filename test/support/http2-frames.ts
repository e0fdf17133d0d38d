// An upstream that writes HTTP/2 frame by frame, for what no library would say.

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { HTTP2_TLS } from './http2-upstream.ts';

/** Frame types of RFC 9113 section 6. */
export const FRAME = {
  DATA: 0,
  HEADERS: 1,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW: 8,
  CONTINUATION: 9,
} as const;
export const END_STREAM = 1;
export const END_HEADERS = 4;
export const ACK = 1;
const PREFACE_BYTES = 24;

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
}

export function frame(type: number, flags: number, id: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
}

/** HPACK literals without indexing and without Huffman coding (RFC 7541 section 6.2.2); names and values below 127 bytes. */
export function block(...pairs: readonly string[]): Buffer {
  const parts: Buffer[] = [];
  for (let i = 0; i < pairs.length; i += 2) {
    const [name, value] = [Buffer.from(pairs[i]!, 'latin1'), Buffer.from(pairs[i + 1]!, 'latin1')];
    parts.push(Buffer.from([0, name.length]), name, Buffer.from([value.length]), value);
  }
  return Buffer.concat(parts);
}

export function headers(id: number, pairs: readonly string[], flags = END_HEADERS): Buffer {
  return frame(FRAME.HEADERS, flags, id, block(...pairs));
}

export function data(id: number, text: string, flags = 0): Buffer {
  return frame(FRAME.DATA, flags, id, Buffer.from(text));
}

export function reset(id: number, code: number): Buffer {
  return frame(FRAME.RST_STREAM, 0, id, word(code));
}

export function goaway(lastId: number, code = 0): Buffer {
  return frame(FRAME.GOAWAY, 0, 0, Buffer.concat([word(lastId), word(code)]));
}

/** @param pairs identifier and value, see RFC 9113 section 6.5.2 */
export function settings(...pairs: readonly (readonly [id: number, value: number])[]): Buffer {
  const parts = pairs.map(([id, value]) => Buffer.concat([Buffer.from([id >> 8, id & 255]), word(value)]));
  return frame(FRAME.SETTINGS, 0, 0, Buffer.concat(parts));
}
export const MAX_STREAMS = 3;

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** One connection as its server sees it. */
export class FrameConnection {
  readonly socket: TLSSocket;
  readonly frames: Frame[] = [];
  closed = false;
  #bytes = Buffer.alloc(0);
  #begun = false;
  #introduced = false;
  #owesAck = false;
  onFrame: ((frame: Frame) => void) | null = null;

  constructor(socket: TLSSocket) {
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('close', () => {
      this.closed = true;
    });
    socket.on('data', (chunk: Buffer) => this.#feed(chunk));
  }

  send(...frames: readonly Buffer[]): this {
    if (this.socket.writable) this.socket.write(Buffer.concat(frames));
    if (frames.some((bytes) => bytes[3] === FRAME.SETTINGS)) this.#introduced = true;
    this.#acknowledge();
    return this;
  }

  /** What every server does, once it has sent its own. */
  #acknowledge(): void {
    if (!this.#owesAck || !this.#introduced) return;
    this.#owesAck = false;
    this.socket.write(frame(FRAME.SETTINGS, ACK, 0));
  }

  /** Ids of the streams whose HEADERS came. */
  get streams(): number[] {
    return this.of(FRAME.HEADERS).map(({ id }) => id);
  }

  of(type: number): Frame[] {
    return this.frames.filter((frame) => frame.type === type);
  }

  #feed(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    if (!this.#begun && this.#bytes.length >= PREFACE_BYTES) {
      this.#begun = true;
      this.#bytes = this.#bytes.subarray(PREFACE_BYTES);
    }
    while (this.#begun && this.#bytes.length >= 9) {
      const length = this.#bytes.readUIntBE(0, 3);
      if (this.#bytes.length < 9 + length) return;
      const got: Frame = {
        type: this.#bytes[3]!,
        flags: this.#bytes[4]!,
        id: this.#bytes.readUInt32BE(5),
        payload: this.#bytes.subarray(9, 9 + length),
      };
      this.#bytes = this.#bytes.subarray(9 + length);
      this.frames.push(got);
      if (got.type === FRAME.SETTINGS && got.flags === 0) {
        this.#owesAck = true;
        this.#acknowledge();
      }
      this.onFrame?.(got);
    }
  }
}

/** What happens on a connection, and for each request on it. */
export interface FrameScript {
  /** It does not close its end when the other end is closed. */
  readonly halfOpen?: boolean;
  readonly opened?: (connection: FrameConnection, index: number) => void;
  readonly request?: (id: number, connection: FrameConnection, index: number) => void;
}

export class FrameUpstream {
  readonly #server: Server;
  readonly connections: FrameConnection[] = [];

  private constructor({ opened, request, halfOpen = false }: FrameScript) {
    this.#server = createServer({ ...HTTP2_TLS, ALPNProtocols: ['h2'], allowHalfOpen: halfOpen }, (socket) => {
      const index = this.connections.length;
      const connection = new FrameConnection(socket);
      this.connections.push(connection);
      connection.onFrame = ({ type, id }) => {
        if (type === FRAME.HEADERS) request?.(id, connection, index);
      };
      if (opened) opened(connection, index);
      else connection.send(settings([MAX_STREAMS, 100]));
    });
    this.#server.on('tlsClientError', () => {});
  }

  static async start(script: FrameScript): Promise<FrameUpstream> {
    const upstream = new FrameUpstream(script);
    upstream.#server.listen(0, '127.0.0.1');
    await once(upstream.#server, 'listening');
    return upstream;
  }

  get url(): string {
    return `https://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    for (const { socket } of this.connections) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

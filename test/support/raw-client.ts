// A client on a bare socket: sends exactly the bytes it is told, and reads answers knowing how each one ended.

import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { within } from './until.ts';

/** How an answer ended: by its own framing, by a FIN, or by a RST. */
export type Ending = 'clean' | 'fin' | 'reset';

export interface RawHead {
  readonly status: number;
  readonly reason: string;
  /** Pairs as they came. */
  readonly headers: readonly (readonly [string, string])[];
  readonly text: string;
}

export class RawAnswer implements RawHead {
  readonly status: number;
  readonly reason: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly text: string;
  readonly body: Buffer;
  /** `clean` also for an answer that a FIN ends by right (no length, not chunked). */
  readonly ending: Ending;

  constructor(head: RawHead, body: Buffer, ending: Ending) {
    this.status = head.status;
    this.reason = head.reason;
    this.headers = head.headers;
    this.text = head.text;
    this.body = body;
    this.ending = ending;
  }

  /** First value, or undefined. */
  get(name: string): string | undefined {
    return this.all(name)[0];
  }

  all(name: string): string[] {
    return valuesOf(this, name);
  }

  /** The failure code of an answer made by aiproxy, from header and body alike. */
  get code(): string | undefined {
    const code = this.get('x-aiproxy-error');
    if (code === undefined) return undefined;
    const { error } = JSON.parse(this.body.toString()) as { error: { code: string; type: string; message: string } };
    if (error.code !== code || error.type !== 'aiproxy_error')
      throw new Error(`body says ${error.code}, header ${code}`);
    return code;
  }
}

export function valuesOf(head: RawHead, name: string): string[] {
  return head.headers.filter(([key]) => key.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
}

export class RawClient {
  readonly socket: Socket;
  /** The connection below: the same one, but for TLS. */
  readonly #raw: Socket;
  /** Everything received, exactly. */
  readonly received: Buffer[] = [];
  state: 'open' | 'fin' | 'reset' = 'open';
  closed = false;
  #buffer: Buffer = Buffer.alloc(0);
  #wake = (): void => {};
  #framing: { kind: 'none' } | { kind: 'length'; left: number } | { kind: 'chunked' } | { kind: 'close' } = {
    kind: 'none',
  };

  private constructor(socket: Socket, raw: Socket) {
    this.socket = socket;
    this.#raw = raw;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.received.push(chunk);
      this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
      this.#wake();
    });
    socket.on('end', () => {
      if (this.state === 'open') this.state = 'fin';
      this.#wake();
    });
    socket.on('error', () => {
      this.state = 'reset';
      this.#wake();
    });
    socket.on('close', () => {
      this.closed = true;
      if (this.state === 'open') this.state = 'fin';
      this.#wake();
    });
  }

  static async connect(port: number, host = '127.0.0.1'): Promise<RawClient> {
    return await RawClient.reach({ text: `${host}:${port}`, port });
  }

  /** Connects to `host:port` or `unix:/path`, and with TLS options speaks TLS there. */
  static async reach({ text, port }: { text: string; port: number }, tls?: ConnectionOptions): Promise<RawClient> {
    const host = text.slice(0, text.lastIndexOf(':')).replace(/^\[|\]$/g, '');
    const place = text.startsWith('unix:') ? { path: text.slice('unix:'.length) } : { port, host };
    const raw = connect({ ...place, allowHalfOpen: true });
    const socket = tls ? connectTls({ socket: raw, servername: 'localhost', ...tls }) : raw;
    await new Promise<void>((resolve, reject) => {
      socket.once(tls ? 'secureConnect' : 'connect', resolve);
      socket.once('error', reject);
    });
    return new RawClient(socket, raw);
  }

  send(bytes: string | Uint8Array): this {
    this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
    return this;
  }

  get text(): string {
    return Buffer.concat(this.received).toString('latin1');
  }

  /** FIN, reading goes on. */
  halfClose(): void {
    this.socket.end();
  }

  reset(): void {
    if (this.#raw.remoteAddress === undefined) this.#raw.destroy();
    else this.#raw.resetAndDestroy();
  }

  destroy(): void {
    this.socket.destroy();
  }

  /** Stops and starts taking bytes from the socket. */
  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  /** The head of the next answer (interim ones too). @param toHead the request was a HEAD */
  async head(toHead = false): Promise<RawHead> {
    let end = -1;
    while ((end = this.#buffer.indexOf('\r\n\r\n')) < 0) await this.#more('the head of an answer');
    const text = this.#take(end + 4).toString('latin1');
    const [line = '', ...fields] = text.slice(0, -4).split('\r\n');
    const match = /^HTTP\/1\.[01] (\d{3})(?: (.*))?$/.exec(line);
    if (!match) throw new Error(`not a status line: ${line}`);
    const headers = fields.map((field): [string, string] => {
      const colon = field.indexOf(':');
      return [field.slice(0, colon), field.slice(colon + 1).trim()];
    });
    const head: RawHead = { status: Number(match[1]), reason: match[2] ?? '', headers, text };
    const length = valuesOf(head, 'content-length')[0];
    if (toHead || head.status < 200 || head.status === 204 || head.status === 304) this.#framing = { kind: 'none' };
    else if (valuesOf(head, 'transfer-encoding').length > 0) this.#framing = { kind: 'chunked' };
    else if (length !== undefined) this.#framing = { kind: 'length', left: Number(length) };
    else this.#framing = { kind: 'close' };
    return head;
  }

  /** Without its line break. */
  async #line(what: string): Promise<string> {
    let end = -1;
    while ((end = this.#buffer.indexOf('\r\n')) < 0) await this.#more(what);
    return this.#take(end + 2)
      .toString('latin1')
      .slice(0, -2);
  }

  /** The next piece of the body: a chunk as framed, or what has come; null = it ended by its own framing. */
  async piece(): Promise<Buffer | null> {
    const framing = this.#framing;
    switch (framing.kind) {
      case 'none':
        return null;
      case 'chunked': {
        const size = Number.parseInt(await this.#line('the size of a chunk'), 16);
        if (size > 0) {
          while (this.#buffer.length < size + 2) await this.#more(`a chunk of ${size}`);
          const chunk = this.#take(size);
          this.#take(2);
          return chunk;
        }
        // Trailers, up to an empty line.
        while ((await this.#line('the end of the trailers')) !== '');
        this.#framing = { kind: 'none' };
        return null;
      }
      case 'length': {
        if (framing.left === 0) return null;
        while (this.#buffer.length === 0) await this.#more(`${framing.left} more bytes`);
        const bytes = this.#take(Math.min(framing.left, this.#buffer.length));
        framing.left -= bytes.length;
        return bytes;
      }
      case 'close': {
        while (this.#buffer.length === 0) {
          if (this.state === 'fin') return null;
          await this.#more('the end of the connection', true);
        }
        return this.#take(this.#buffer.length);
      }
    }
  }

  /** What is left of the body, and how it ended. */
  async rest(): Promise<{ body: Buffer; ending: Ending }> {
    const pieces: Buffer[] = [];
    try {
      for (;;) {
        const piece = await this.piece();
        if (piece === null) return { body: Buffer.concat(pieces), ending: 'clean' };
        pieces.push(piece);
      }
    } catch (error) {
      if (!(error instanceof CutShort)) throw error;
      return { body: Buffer.concat([...pieces, this.#buffer]), ending: error.ending };
    }
  }

  /** The next whole answer, interim ones skipped. */
  async answer(toHead = false): Promise<RawAnswer> {
    let head = await this.head(toHead);
    while (head.status < 200) head = await this.head(toHead);
    const { body, ending } = await this.rest();
    return new RawAnswer(head, body, ending);
  }

  /** Waits until the other side has ended the connection. */
  async ended(): Promise<'fin' | 'reset'> {
    while (this.state === 'open') await this.#wait('the end of the connection');
    return this.state;
  }

  #take(bytes: number): Buffer {
    const taken = this.#buffer.subarray(0, bytes);
    this.#buffer = this.#buffer.subarray(bytes);
    return taken;
  }

  async #more(what: string, finIsFine = false): Promise<void> {
    const had = this.#buffer.length;
    while (this.#buffer.length === had) {
      if (this.state === 'reset' || (this.state === 'fin' && !finIsFine)) throw new CutShort(what, this.state);
      if (this.state === 'fin') return;
      await this.#wait(what);
    }
  }

  async #wait(what: string): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    await within(what, woken, 10_000);
  }
}

/** The connection ended before what was waited for had come. */
export class CutShort extends Error {
  readonly ending: 'fin' | 'reset';

  constructor(what: string, ending: 'fin' | 'reset') {
    super(`the connection ended (${ending}) while waiting for ${what}`);
    this.ending = ending;
  }
}

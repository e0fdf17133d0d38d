// The upstream of the request fuzz: a strict reader of its own, which answers with the number of the request.

import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';

export interface Received {
  readonly method: string;
  readonly target: string;
  readonly headers: readonly string[];
  body: string;
  complete: boolean;
  /** It was answered before its body had come. */
  readonly early: boolean;
}

const FIELD = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\t\x20-\x7e\x80-\xff]*)$/;

export class Recorder {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  received: Received[] = [];
  /** What is not exactly one request after the other. */
  wrong: string[] = [];
  /** Grows with everything that happens. */
  activity = 0;

  constructor() {
    this.#server = createServer((socket) => this.#read(socket));
  }

  async start(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #read(socket: Socket): void {
    this.#sockets.add(socket);
    let text = '';
    let current: Received | null = null;
    /** Bytes of the body to come; -1 = chunked. */
    let left = 0;
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.on('close', () => {
      this.activity++;
      this.#sockets.delete(socket);
    });
    const over = () => {
      current!.complete = true;
      if (!current!.early) answer(current!);
      current = null;
    };
    const answer = (done: Received) => {
      const number = this.received.indexOf(done);
      const body = done.method === 'HEAD' ? '' : 'yes';
      socket.write(`HTTP/1.1 200 OK\r\nx-number: ${number}\r\ncontent-length: 3\r\n\r\n${body}`);
    };
    const step = (): boolean => {
      if (current === null) {
        const end = text.indexOf('\r\n\r\n');
        if (end < 0) return false;
        current = this.#head(text.slice(0, end));
        text = text.slice(end + 4);
        this.received.push(current);
        if (current.early) answer(current);
        left = bodyLength(current.headers, this.wrong);
        if (left === 0) over();
        return true;
      }
      if (left > 0) {
        const bytes = text.slice(0, left);
        text = text.slice(left);
        current.body += bytes;
        left -= bytes.length;
        if (left === 0) over();
        return bytes !== '';
      }
      const line = /^([0-9a-f]+)\r\n/.exec(text);
      if (!line) return false;
      const size = Number.parseInt(line[1]!, 16);
      if (text.length < line[0].length + size + 2) return false;
      current.body += text.slice(line[0].length, line[0].length + size);
      if (text.slice(line[0].length + size, line[0].length + size + 2) !== '\r\n')
        this.wrong.push('a chunk without its end');
      text = text.slice(line[0].length + size + 2);
      if (size === 0) over();
      return true;
    };
    socket.on('data', (chunk: Buffer) => {
      this.activity++;
      text += chunk.toString('latin1');
      while (text !== '' && step());
      if (text !== '' && current === null) this.wrong.push(`behind a request: ${JSON.stringify(text)}`);
    });
  }

  #head(text: string): Received {
    const [line = '', ...fields] = text.split('\r\n');
    const match = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (\/[\x21-\x7e]*) HTTP\/1\.1$/.exec(line);
    if (!match) this.wrong.push(`a request line ${JSON.stringify(line)}`);
    const headers: string[] = [];
    for (const field of fields) {
      const parts = FIELD.exec(field);
      if (parts) headers.push(parts[1]!, parts[2]!);
      else this.wrong.push(`a header line ${JSON.stringify(field)}`);
    }
    const target = match?.[2] ?? '';
    const early = target.endsWith('/early');
    return { method: match?.[1] ?? '', target, headers, body: '', complete: false, early };
  }
}

export function valuesOf(headers: readonly string[], name: string): string[] {
  return headers.filter((_, i) => i % 2 === 1 && headers[i - 1]!.toLowerCase() === name);
}

function bodyLength(headers: readonly string[], wrong: string[]): number {
  const lengths = valuesOf(headers, 'content-length');
  const codings = valuesOf(headers, 'transfer-encoding');
  if (lengths.length + codings.length > 1) wrong.push(`framed more than once: ${[...lengths, ...codings]}`);
  if (codings.length > 0 && codings[0] !== 'chunked') wrong.push(`coded ${codings[0]}`);
  if (lengths.length > 0 && !/^\d+$/.test(lengths[0]!)) wrong.push(`length ${lengths[0]}`);
  return codings.length > 0 ? -1 : Number(lengths[0] ?? 0);
}

// One client connection of the kill soak: asks, checks what comes back, and may be killed at any moment.
import { connect, type Socket } from 'node:net';
import { AnswerReader } from './answer-reader.ts';
import type { Chance } from './chance.ts';
import { reset } from './processes.ts';

/** No byte for so long: whoever should have ended it has forgotten it. The soak's own deadlines add up to less. */
export const HUNG_MS = 30_000;

export type KillHow = 'fin' | 'reset' | 'half-close' | 'destroy';
export const KILL_HOWS: readonly KillHow[] = ['fin', 'reset', 'half-close', 'destroy'];

export interface Killable {
  kill(how: KillHow): void;
}

/** What all clients of a soak share. */
export interface Scene {
  readonly port: number;
  readonly chance: Chance;
  /** Whoever may be killed. */
  readonly crew: Set<Killable>;
  /** Their sockets, the killed ones too until they are closed. */
  readonly sockets: Set<Socket>;
  readonly wrong: (what: string) => void;
  /** No more requests. */
  over: boolean;
}

/** How often what came of the requests. */
export type Tally = Map<string, number>;

export interface Outcome {
  /** `left`: we were killed. `cut`: the connection ended within the answer, or before it. */
  readonly end: 'whole' | 'cut' | 'left' | 'hung';
  readonly status: number;
  /** The failure code of an answer of aiproxy's own, else ''. */
  readonly code: string;
  readonly text: string;
}

/** Takes the body's bytes in place of `Outcome.text`. */
export type Sink = (chunk: Buffer, client: KillClient) => void;

export class KillClient implements Killable {
  readonly socket: Socket;
  readonly #reader: AnswerReader;
  readonly #scene: Scene;
  #status = 0;
  #head = '';
  #parts: Buffer[] = [];
  #sink: Sink | null = null;
  #settle: ((end: Outcome['end']) => void) | null = null;
  #lastByteAt = 0;
  #left = false;
  closed = false;

  constructor(scene: Scene) {
    this.#scene = scene;
    scene.crew.add(this);
    this.#reader = new AnswerReader({
      head: (status, head) => {
        this.#status = status;
        this.#head = head;
      },
      body: (chunk) => {
        if (this.#sink && this.#status === 200) this.#sink(chunk, this);
        else this.#parts.push(Buffer.from(chunk));
      },
      whole: () => this.#ended('whole'),
    });
    this.socket = connect({ port: scene.port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    this.socket.on('data', (chunk: Buffer) => {
      this.#lastByteAt = performance.now();
      this.#read(chunk);
    });
    scene.sockets.add(this.socket);
    this.socket.on('end', () => {
      if (!this.#reader.fin()) this.#ended('cut');
      this.socket.destroy();
    });
    this.socket.on('error', () => this.socket.destroy());
    this.socket.on('close', () => {
      this.closed = true;
      scene.crew.delete(this);
      scene.sockets.delete(this.socket);
      this.#ended('cut');
    });
  }

  #read(chunk: Buffer): void {
    try {
      this.#reader.feed(chunk);
    } catch (error) {
      this.#scene.wrong((error as Error).message);
      this.socket.destroy();
    }
  }

  /** Sends a request that is whole, or (for `upload`) its head, and waits for the answer. */
  ask(request: string, sink: Sink | null = null): Promise<Outcome> {
    this.#status = 0;
    this.#head = '';
    this.#parts = [];
    this.#sink = sink;
    this.#lastByteAt = performance.now();
    if (this.closed) return Promise.resolve(this.#outcome('cut'));
    const { promise, resolve } = Promise.withResolvers<Outcome>();
    const watch = setInterval(() => {
      if (performance.now() - this.#lastByteAt > HUNG_MS) this.#ended('hung');
    }, 1000);
    this.#settle = (end) => {
      this.#settle = null;
      clearInterval(watch);
      resolve(this.#outcome(end));
      if (end !== 'whole') this.socket.destroy();
    };
    this.socket.write(request, 'latin1');
    return promise;
  }

  /** Whether an answer is still awaited. */
  get asking(): boolean {
    return this.#settle !== null;
  }

  /** What we do not read, or write, on purpose is no sign that we were forgotten. */
  touch(): void {
    this.#lastByteAt = performance.now();
  }

  kill(how: KillHow): void {
    this.#left = true;
    this.#scene.crew.delete(this);
    if (how === 'half-close') this.socket.end();
    else if (how === 'reset') reset(this.socket);
    else if (how === 'destroy') this.socket.destroy();
    else this.socket.end(() => this.socket.destroy());
  }

  #ended(end: Outcome['end']): void {
    this.#settle?.(this.#left && end === 'cut' ? 'left' : end);
  }

  #outcome(end: Outcome['end']): Outcome {
    const code = /\r\nx-aiproxy-error: *(\w+)/i.exec(this.#head)?.[1] ?? '';
    return { end, status: this.#status, code, text: Buffer.concat(this.#parts).toString('latin1') };
  }
}

// One random answer: from a raw upstream through the real proxy to a client that reads strictly, and compared with what Node reads in
// the same bytes. Then another request, which must get its own answer.

import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { TestProxy } from '../proxy.ts';
import { cutByUs, LIMITS, refusedByUs } from './answer-exceptions.ts';
import { type AnswerCase, NUMBER } from './answer-grammar.ts';
import { nodeReadsAnswer, type ReadAnswer } from './answer-oracle.ts';
import { type Ended, type GotAnswer, readAnswer, valuesOf } from './answer-reader.ts';
import { piecesOf } from './mutations.ts';

interface Plan {
  readonly pieces: readonly string[];
  readonly end: AnswerCase['end'];
}

/** Sends what it was told for a target, on whatever connection that is asked for. */
class Upstream {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly plans = new Map<string, Plan>();
  /** Grows with everything that happens. */
  activity = 0;
  sending = 0;

  constructor() {
    this.#server = createServer({ noDelay: true }, (socket) => this.#serve(socket));
  }

  async start(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    let text = '';
    socket.on('error', () => {});
    socket.on('close', () => {
      this.activity++;
      this.#sockets.delete(socket);
    });
    socket.on('data', (chunk: Buffer) => {
      this.activity++;
      text += chunk.toString('latin1');
      const head = /^\w+ (\S+) HTTP\/1\.1\r\n(?:.*\r\n)*?\r\n(?:hello)?$/.exec(text);
      if (!head) return;
      text = '';
      void this.#send(socket, this.plans.get(head[1]!)!);
    });
  }

  async #send(socket: Socket, { pieces, end }: Plan): Promise<void> {
    this.sending++;
    for (const piece of pieces) {
      if (socket.destroyed) break;
      socket.write(Buffer.from(piece, 'latin1'));
      this.activity++;
      await nextTurn();
    }
    if (end === 'fin') socket.end();
    else if (end === 'reset') {
      // A reset throws away what was not read yet.
      for (let turn = 0; turn < 2; turn++) await nextTurn();
      // With our FIN on its way a reset is refused (EINVAL), and the socket would stay open for ever.
      if (socket.writableEnded) socket.destroy();
      else socket.resetAndDestroy();
    }
    this.sending--;
    this.activity++;
  }
}

export class AnswerFuzz {
  readonly #upstream = new Upstream();
  #proxy!: TestProxy;
  #number = 0;
  /** How many answers passed whole, were cut, were refused with a 502, and were not over yet. */
  readonly outcomes = { passed: 0, cut: 0, refused: 0, open: 0 };
  /** How often each named difference was met. */
  readonly exceptions = new Map<string, number>();

  static async start(): Promise<AnswerFuzz> {
    const fuzz = new AnswerFuzz();
    const port = await fuzz.#upstream.start();
    fuzz.#proxy = await TestProxy.start({
      upstreams: { ai: { url: `http://127.0.0.1:${port}`, ...LIMITS } },
      log: { access: 'off', level: 'error' },
    });
    return fuzz;
  }

  async close(): Promise<void> {
    await this.#proxy.stop();
    this.#upstream.close();
  }

  get counts(): Record<string, number> {
    return { ...this.outcomes, ...Object.fromEntries(this.exceptions) };
  }

  /** Log lines that say so. */
  get bugs(): number {
    return this.#proxy.log.filter(({ msg }) => msg.includes('bug')).length;
  }

  /** @throws what is wrong */
  async check(one: AnswerCase): Promise<void> {
    const number = String(++this.#number).padStart(NUMBER.length, '0');
    const text = one.text.replaceAll(NUMBER, number);
    try {
      await this.#check(text, number, one);
    } catch (error) {
      const { cuts, end, method, http10 } = one;
      const how = JSON.stringify({ cuts, end, method, http10 });
      throw new Error(`${(error as Error).message}\nbytes: ${JSON.stringify(text)}\n${how}`);
    }
  }

  async #check(text: string, number: string, one: AnswerCase): Promise<void> {
    const pieces = piecesOf(text, one.cuts);
    const read = await nodeReadsAnswer(pieces, one);
    const { answered, ended } = await this.#ask(number, { pieces, end: one.end }, one);
    const got = readAnswer(answered, one.method === 'HEAD', one.http10, ended);
    const why = this.#compare(got, ended, read, text, one);
    if (why !== '') this.exceptions.set(why, (this.exceptions.get(why) ?? 0) + 1);
    await this.#askAgain();
  }

  /** @returns the name of the difference that is allowed, or '' */
  #compare(got: GotAnswer, ended: Ended, read: ReadAnswer, text: string, one: AnswerCase): string {
    if (got.rest !== '') throw new Error(`behind the answer: ${JSON.stringify(got.rest)}`);
    const hints = one.http10 ? [] : read.interims.filter(({ status }) => status > 101).map(interimOf);
    const isWhole = got.status > 0 && valuesOf(got.headers, 'x-aiproxy-error').length === 0;
    equal(got.interims, hints.slice(0, isWhole ? hints.length : got.interims.length), 'other interim answers');
    if (got.status === 0) {
      if (ended !== 'open') throw new Error(`${ended} without an answer`);
      if (read.status > 0 || read.error !== '' || read.upgrade)
        throw new Error('nothing comes, and Node has read something');
      this.outcomes.open++;
      return '';
    }
    if (!isWhole) return this.#refused(got, read, text, one);
    if (read.status === 0) throw new Error(`passed what Node rejects (${read.error})`);
    equal(got.status, read.status, 'another status');
    equal(endToEnd(got.headers, read.headers), expected(read), 'other headers');
    if (got.complete) {
      this.outcomes.passed++;
      if (!read.complete) throw new Error(`complete, and for Node it is not (${read.error})`);
      equal(got.body, one.method === 'HEAD' ? '' : read.body, 'another body');
      if (!one.http10 && one.method !== 'HEAD') equal(got.trailers, trailersOf(got, read), 'other trailers');
      return '';
    }
    if (!read.body.startsWith(got.body))
      throw new Error(`${JSON.stringify(got.body)} does not begin the body Node reads`);
    if (ended === 'open') {
      this.outcomes.open++;
      if (read.complete || read.error !== '') throw new Error(`goes on, and for Node it is over (${read.error})`);
      equal(got.body, read.body, 'not all that came');
      return '';
    }
    this.outcomes.cut++;
    // To an old client a plain end looks complete.
    if (ended !== 'reset') throw new Error('cut without a reset');
    const why = read.complete || (read.error === '' && one.end === 'open') ? cutByUs(read, text, one) : '';
    if (why === null) throw new Error('cut, and Node reads it to its end');
    return why;
  }

  #refused(got: GotAnswer, read: ReadAnswer, text: string, one: AnswerCase): string {
    this.outcomes.refused++;
    const code = valuesOf(got.headers, 'x-aiproxy-error')[0]!;
    if (got.status !== 502 || !/^upstream_(?:protocol_error|head_too_large|reset)$/.test(code))
      throw new Error(`${got.status} ${code} ${got.body}`);
    const why = read.status > 0 || read.error === '' ? refusedByUs(read, text, one) : '';
    if (why === null) throw new Error(`refused with ${got.body}, and Node reads it`);
    return why;
  }

  /** On the same connection, if that was kept: the one that was used last is the next to be used. */
  async #askAgain(): Promise<void> {
    const number = String(++this.#number).padStart(NUMBER.length, '0');
    const text = `HTTP/1.1 200 OK\r\nX-Number: ${number}\r\nContent-Length: 8\r\n\r\n${number}`;
    const { answered, ended } = await this.#ask(number, { pieces: [text], end: 'open' }, PLAIN);
    const got = readAnswer(answered, false, false, ended);
    const is = { status: got.status, number: valuesOf(got.headers, 'x-number'), body: got.body, rest: got.rest };
    equal(is, { status: 200, number: [number], body: number, rest: '' }, 'the next request got another answer');
  }

  /** Sends one request and waits until nothing moves any more. */
  async #ask(number: string, plan: Plan, one: AnswerCase): Promise<{ answered: string; ended: Ended }> {
    const upstream = this.#upstream;
    const target = `/${number}`;
    upstream.plans.set(target, plan);
    let answered = '';
    let ended: Ended = 'open';
    let moves = 0;
    const socket = connect({ port: this.#proxy.port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    socket.on('error', () => {
      ended = 'reset';
      moves++;
    });
    socket.on('data', (chunk: Buffer) => {
      answered += chunk.toString('latin1');
      moves++;
    });
    socket.on('end', () => {
      ended = 'fin';
      moves++;
    });
    await new Promise((resolve) => socket.once('connect', resolve));
    const body = one.method === 'POST' ? 'content-length: 5\r\n\r\nhello' : '\r\n';
    const old = one.http10 ? 'HTTP/1.0' : 'HTTP/1.1';
    socket.write(`${one.method} /ai${target} ${old}\r\nhost: a\r\n${body}`);
    // Everything happens in this process: a few turns of its loop without a move, and there are none to come.
    let last = -1;
    for (let still = 0, turns = 0; still < 8 && turns < 5000; still++, turns++) {
      const now = moves + upstream.activity;
      if (now !== last || (still === 7 && this.#busy())) still = 0;
      last = now;
      await nextTurn();
    }
    socket.destroy();
    upstream.plans.delete(target);
    // What is cut off now must not meet the next request.
    for (let turns = 0; Object.keys(this.#proxy.busy()).length > 0; turns++) {
      if (turns > 5000) throw new Error(`not over: ${JSON.stringify(this.#proxy.busy())}`);
      await nextTurn();
    }
    return { answered, ended };
  }

  #busy(): boolean {
    return this.#upstream.sending > 0 || this.#proxy.pool().connecting > 0;
  }
}

const PLAIN: AnswerCase = { text: '', cuts: [], end: 'open', method: 'GET', http10: false };

// ---- what of an answer Node has read should arrive, said in another way than the source does

const HOP = /^(?:connection|keep-alive|transfer-encoding|trailer|upgrade|proxy-connection|proxy-authenticate)$/i;
const ADDED = /^(?:connection|keep-alive|transfer-encoding|server-timing)$/i;
const NOT_BEHIND =
  /^(?:age|authorization|cache-control|connection|content-(?:encoding|length|range|type)|cookie|expires|host|keep-alive|location|proxy-.*|retry-after|set-cookie|te|trailer|transfer-encoding|upgrade|vary|www-authenticate)$/i;

function without(headers: readonly string[], isGone: (name: string) => boolean): string[] {
  return headers.filter((_, i) => !isGone(headers[i - (i % 2)]!.toLowerCase()));
}

function named(headers: readonly string[]): string[] {
  const tokens = valuesOf(headers, 'connection').join().toLowerCase().split(',');
  return tokens.map((token) => token.trim());
}

function expected({ status, headers }: ReadAnswer): string[] {
  const gone = named(headers);
  const isGone = (name: string) =>
    HOP.test(name) || gone.includes(name) || (status === 204 && name === 'content-length');
  return without(headers, isGone).map((text) => text.trim());
}

function endToEnd(headers: readonly string[], ofUpstream: readonly string[]): string[] {
  const hasDate = valuesOf(ofUpstream, 'date').length > 0 && !named(ofUpstream).includes('date');
  return without(headers, (name) => ADDED.test(name) || (name === 'date' && !hasDate));
}

function interimOf({ status, headers }: ReadAnswer['interims'][number]): { status: number; headers: string[] } {
  const gone = named(headers);
  const isGone = (name: string) => HOP.test(name) || gone.includes(name) || name === 'content-length';
  return { status, headers: without(headers, isGone).map((text) => text.trim()) };
}

/** Only a chunked body has a place for them. */
function trailersOf(got: GotAnswer, read: ReadAnswer): string[] {
  if (valuesOf(got.headers, 'transfer-encoding').length === 0 || read.trailers.length > 2 * LIMITS.maxHeaders)
    return [];
  return without(read.trailers, (name) => NOT_BEHIND.test(name)).map((text) => text.trim());
}

function equal(got: unknown, wanted: unknown, what: string): void {
  const [is, should] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (is !== should) throw new Error(`${what}: ${is} instead of ${should}`);
}

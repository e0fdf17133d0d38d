// One random case of requests: through the real listener to a recording upstream, and compared with what Node reads in the same bytes.

import { connect } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { TestProxy } from '../proxy.ts';
import { piecesOf } from './mutations.ts';
import { type Received, Recorder, valuesOf } from './recorder.ts';
import type { RequestCase } from './request-grammar.ts';
import { oracle, type Read, type Verdict } from './request-oracle.ts';

export class RequestField {
  readonly recorder = new Recorder();
  proxy!: TestProxy;
  forwarded = 0;
  refused = 0;

  /** @param bodyBufferBytes small: bodies stream while they are still read */
  static async start(bodyBufferBytes: number): Promise<RequestField> {
    const field = new RequestField();
    const port = await field.recorder.start();
    const url = (name: string) => ({ url: `http://127.0.0.1:${port}${BASES[name]}` });
    field.proxy = await TestProxy.start({
      upstreams: { ai: url('ai'), bb: url('bb') },
      log: { access: 'off', level: 'error' },
      listener: { bodyBufferBytes },
    });
    return field;
  }

  async close(): Promise<void> {
    await this.proxy.stop();
    this.recorder.close();
  }

  /** @throws what is wrong */
  async run(text: string, cuts: readonly number[]): Promise<void> {
    const { recorder } = this;
    recorder.received = [];
    recorder.wrong = [];
    const answered = await this.#exchange(text, cuts);
    if (recorder.wrong.length > 0) throw new Error(recorder.wrong.join('; '));
    const verdict = await oracle(text);
    this.#compare(verdict, answered);
  }

  #compare(verdict: Verdict, answered: string): void {
    const { received } = this.recorder;
    const answers = readAnswers(answered, (place, number) => (received[number] ?? verdict.requests[place])?.method);
    const seen: number[] = [];
    for (const [place, { number }] of answers.entries()) {
      if (number === null) {
        this.refused++;
        continue;
      }
      this.forwarded++;
      seen.push(number);
      const got = received[number]!;
      const read = verdict.requests[place];
      if (!read) throw new Error(`forwarded what Node rejects (${verdict.error}): ${JSON.stringify(got)}`);
      equal(endToEnd(got), expected(read), 'another request than Node reads');
      if (got.early) {
        if (!read.body.startsWith(got.body))
          throw new Error(`${JSON.stringify(got.body)} does not begin the body Node reads`);
        continue;
      }
      equal(got.body, read.body, 'another body than Node reads');
      if (!read.complete || !got.complete) throw new Error('answered a request that is not whole');
    }
    equal(
      seen,
      [...seen].sort((a, b) => a - b),
      'answers out of order',
    );
    equal(
      received.flatMap(({ complete }, number) => (complete || seen.includes(number) ? [number] : [])),
      seen,
      'requests at the upstream, and those that were answered',
    );
    // What was begun and not ended: the next one Node has read, as far as it goes.
    const begun = received.filter(({ complete }, number) => !complete && !seen.includes(number));
    if (begun.length > 1 || (begun.length === 1 && received.at(-1) !== begun[0]))
      throw new Error('more than one request was left within its body');
    for (const got of begun) {
      const read = verdict.requests.find(
        (one) => same(endToEnd(got), expected(one)) && (one.body.startsWith(got.body) || got.body.startsWith(one.body)),
      );
      if (!read) throw new Error(`began a request that Node has not read: ${JSON.stringify(got)}`);
    }
  }

  /** Sends the bytes in packets and waits until nothing moves any more. @returns what came back */
  async #exchange(text: string, cuts: readonly number[]): Promise<string> {
    let answered = '';
    let moves = 0;
    let closed = false;
    const socket = connect({ port: this.proxy.port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      answered += chunk.toString('latin1');
      moves++;
    });
    socket.on('end', () => moves++);
    socket.on('close', () => {
      closed = true;
      moves++;
    });
    await new Promise((resolve) => socket.once('connect', resolve));
    for (const piece of piecesOf(text, cuts)) {
      if (!socket.destroyed) socket.write(Buffer.from(piece, 'latin1'));
      await nextTurn();
    }
    // Everything happens in this process: a few turns of its loop without a move, and there are none to come.
    let last = -1;
    for (let still = 0, turns = 0; still < 8 && turns < 5000; still++, turns++) {
      const now = moves + this.recorder.activity;
      if (now !== last || (still === 7 && this.#busy())) still = closed ? 4 : 0;
      last = now;
      await nextTurn();
    }
    socket.destroy();
    // What is cut off now must not be counted to the next case.
    if (this.recorder.received.some(({ complete }) => !complete)) await this.proxy.idle();
    else await nextTurn();
    return answered;
  }

  /** A connection to the upstream is being opened. */
  #busy(): boolean {
    const { upstreams } = this.proxy.stats();
    return Object.values(upstreams).some(({ pool }) => pool.connecting > 0);
  }
}

/** Both ways a body can go: read whole first, or streamed while it is read. */
export class RequestFuzz {
  readonly #whole: RequestField;
  readonly #streamed: RequestField;

  private constructor(whole: RequestField, streamed: RequestField) {
    this.#whole = whole;
    this.#streamed = streamed;
  }

  static async start(): Promise<RequestFuzz> {
    return new RequestFuzz(await RequestField.start(256 << 10), await RequestField.start(3));
  }

  async check({ text, cuts, streamed }: RequestCase): Promise<void> {
    await (streamed ? this.#streamed : this.#whole).run(text, cuts).catch((error: Error) => {
      throw new Error(`${error.message}\nbytes: ${JSON.stringify(text)}\ncuts: ${cuts}, streamed: ${streamed}`);
    });
  }

  get counts(): { readonly forwarded: number; readonly refused: number } {
    return {
      forwarded: this.#whole.forwarded + this.#streamed.forwarded,
      refused: this.#whole.refused + this.#streamed.refused,
    };
  }

  /** Log lines that say so. */
  get bugs(): number {
    return [this.#whole, this.#streamed].flatMap(({ proxy }) => proxy.log.filter(({ msg }) => msg.includes('bug')))
      .length;
  }

  async close(): Promise<void> {
    await this.#whole.close();
    await this.#streamed.close();
  }
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function equal(got: unknown, wanted: unknown, what: string): void {
  if (!same(got, wanted)) throw new Error(`${what}: ${JSON.stringify(got)} instead of ${JSON.stringify(wanted)}`);
}

// ---- what of a request Node has read should arrive, said in another way than the source does

const BASES: Readonly<Record<string, string>> = { ai: '/base-a', bb: '/base-b' };
const FRAMING = ['host', 'connection', 'content-length', 'transfer-encoding'];
const DROPPED =
  /^(?:host|connection|content-length|transfer-encoding|keep-alive|te|trailer|upgrade|expect|proxy-connection|proxy-authenticate|proxy-authorization|x-aiproxy-.*)$/i;

function expected({ method, url, headers }: Read): { method: string; target: string; headers: string[] } {
  const [, name = '', rest = ''] = /^\/([^/?]*)(.*)$/s.exec(url) ?? [];
  const target = (BASES[name] ?? `(no upstream ${name})`) + (rest.startsWith('/') ? rest : `/${rest}`);
  const named = valuesOf(headers, 'connection')
    .join()
    .toLowerCase()
    .split(',')
    .map((token) => token.trim());
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    if (!DROPPED.test(headers[i]!) && !named.includes(headers[i]!.toLowerCase()))
      kept.push(headers[i]!, headers[i + 1]!);
  }
  return { method, target, headers: kept };
}

function endToEnd({ method, target, headers }: Received): { method: string; target: string; headers: string[] } {
  const kept = headers.filter((_, i) => !FRAMING.includes(headers[i - (i % 2)]!.toLowerCase()));
  return { method, target, headers: kept };
}

// ---- answers as the client gets them

interface Answer {
  readonly status: number;
  /** Of the request it answers at the upstream; null = our own answer. */
  readonly number: number | null;
}

/** Takes what came apart into answers; each must be whole. `methodOf`: of the request it answers, undefined = unknown. */
function readAnswers(bytes: string, methodOf: (place: number, number: number) => string | undefined): Answer[] {
  const answers: Answer[] = [];
  let text = bytes;
  while (text !== '') {
    const end = text.indexOf('\r\n\r\n');
    const match = /^HTTP\/1\.1 (\d{3}) [^\r\n]*\r\n/.exec(text);
    if (end < 0 || !match) throw new Error(`not an answer: ${JSON.stringify(text)}`);
    const status = Number(match[1]);
    const head = text.slice(0, end + 2);
    text = text.slice(end + 4);
    if (status < 200) continue;
    const number = /\r\nx-number: (\d+)\r\n/.exec(head)?.[1];
    let length = Number(/\r\ncontent-length: (\d+)\r\n/.exec(head)?.[1] ?? Number.NaN);
    const method = methodOf(answers.length, Number(number));
    // What only one of us could read as a HEAD was refused, and is the last.
    const doubtful = method === undefined || head.includes('\r\nconnection: close\r\n');
    if (method !== 'HEAD' || (doubtful && text !== '')) {
      if (doubtful && text === '') length = 0;
      if (!(text.length >= length))
        throw new Error(`an answer is cut or has no length: ${JSON.stringify(head + text)}`);
      text = text.slice(length);
    }
    answers.push({ status, number: number === undefined ? null : Number(number) });
  }
  return answers;
}

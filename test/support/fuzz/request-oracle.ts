// What Node's own strict parser reads in the bytes of a client's connection: node:http without a socket.

import { createServer, type IncomingMessage, METHODS } from 'node:http';
import { Duplex } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';

export interface Read {
  method: string;
  readonly url: string;
  /** Flat raw pairs. */
  readonly headers: readonly string[];
  body: string;
  complete: boolean;
}

export interface Verdict {
  readonly requests: Read[];
  /** Code of the error Node gave up with, and how far it had come; '' = none. */
  readonly error: string;
  readonly at: number;
}

export class Wire extends Duplex {
  override _read(): void {}
  override _write(_chunk: unknown, _encoding: unknown, done: () => void): void {
    done();
  }
}

/** What Node reads in the bytes of a connection. */
export async function oracle(text: string): Promise<Verdict> {
  let bytes = text;
  let verdict = await nodeReads(bytes);
  const names = new Map<number, string>();
  for (;;) {
    for (const [place, name] of names) if (verdict.requests[place]) verdict.requests[place].method = name;
    const better = UNKNOWN_METHOD.test(verdict.error) ? await withKnownMethod(bytes, verdict) : null;
    if (!better) return verdict;
    names.set(verdict.requests.length, better.method);
    ({ bytes, verdict } = better);
  }
}

/** Node knows some methods only, and some of them from other protocols; we take any token. */
const UNKNOWN_METHOD = /^HPE_INVALID_(?:METHOD|VERSION|CONSTANT)$/;
const OF_OTHERS = ['PRI', 'SOURCE', 'DESCRIBE', 'ANNOUNCE', 'SETUP', 'PLAY', 'PAUSE', 'TEARDOWN', 'RECORD', 'FLUSH'];
const KNOWN_BY_NODE = new Set(METHODS);

/** Reads on with POST instead of a method that Node has stumbled over; null if it did not stumble over that. */
async function withKnownMethod(
  bytes: string,
  { requests, at }: Verdict,
): Promise<{ method: string; bytes: string; verdict: Verdict } | null> {
  // Empty lines before a request are not counted, and Node may have read some of it.
  const starts = [...range(at, at + 8), ...range(at - 24, at - 1).reverse()];
  for (const method of OF_OTHERS) starts.push(bytes.lastIndexOf(`${method} `, at));
  for (const start of starts) {
    if (start < 0 || (start > at && /[^\r\n]/.test(bytes.slice(at, start)))) continue;
    const method = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?= )/.exec(bytes.slice(start))?.[0];
    if (!method || (KNOWN_BY_NODE.has(method) && !OF_OTHERS.includes(method))) continue;
    const changed = `${bytes.slice(0, start)}POST${bytes.slice(start + method.length)}`;
    const verdict = await nodeReads(changed);
    // It may have been a word in the body before.
    const same = gist(verdict.requests.slice(0, requests.length)) === gist(requests);
    if (same && (verdict.requests.length > requests.length || !UNKNOWN_METHOD.test(verdict.error)))
      return { method, bytes: changed, verdict };
  }
  return null;
}

/** All but the methods, of which some were exchanged. */
function gist(requests: readonly Read[]): string {
  return JSON.stringify(requests.map((read) => ({ ...read, method: '' })));
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

/**
 * Node takes `Proxy-Connection: close` for an end of the connection, which no RFC says and we do not, and loses what comes in one packet
 * behind an offer to upgrade that it ignores: it reads other names there, spelt with characters that the text has nowhere else, so
 * that also a part of them can be read back.
 */
function veil(text: string): { hide: (text: string) => string; show: (text: string) => string } {
  const free = [..."!#$%&'*+^_`|~"].filter((c) => !text.includes(c));
  if (free.length < 4) throw new Error('no characters are left to hide Proxy-Connection and Upgrade with');
  const names = 'pPuU';
  return {
    hide: (text) => text.replace(/p(?=roxy-connection)|u(?=pgrade)/gi, (c) => free[names.indexOf(c)]!),
    show: (text) => [...names].reduce((shown, c, i) => shown.replaceAll(free[i]!, c), text),
  };
}

async function nodeReads(text: string): Promise<Verdict> {
  const { hide, show } = veil(text);
  const requests: Read[] = [];
  let error = '';
  let at = 0;
  const server = createServer({
    insecureHTTPParser: false,
    requireHostHeader: false,
    maxHeaderSize: 1 << 16,
  });
  server.maxHeadersCount = 0;
  const take = (request: IncomingMessage) => {
    const read: Read = {
      method: request.method!,
      url: show(request.url!),
      headers: request.rawHeaders.map(show),
      body: '',
      complete: false,
    };
    requests.push(read);
    request.on('error', () => {});
    // In the parser's own turn: events come later, and not at all once a later request has ended the connection.
    request.push = (chunk: Buffer | null) => {
      if (chunk === null) read.complete = true;
      else read.body = show(read.body + chunk.toString('latin1'));
      return true;
    };
  };
  for (const event of ['request', 'checkContinue', 'checkExpectation']) server.on(event, take);
  server.on('clientError', (failure: Error & { code: string; bytesParsed?: number }) => {
    error ||= failure.code;
    at = failure.bytesParsed ?? 0;
  });
  const wire = new Wire();
  wire.on('error', () => {});
  server.emit('connection', wire);
  wire.push(Buffer.from(hide(text), 'latin1'));
  for (let turn = 0; turn < 3; turn++) await nextTurn();
  // Node rejects CONNECT without a word when nobody listens for it.
  if (error === '' && wire.destroyed) error = 'destroyed';
  wire.destroy();
  server.closeAllConnections();
  return { requests, error, at };
}

// What Node's own strict parser reads in the bytes of an upstream: a node:http client without a socket.

import { type IncomingMessage, request } from 'node:http';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { AnswerCase } from './answer-grammar.ts';
import { Wire } from './request-oracle.ts';

interface Head {
  readonly status: number;
  readonly reason: string;
  /** 11 = HTTP/1.1 */
  readonly version: number;
  /** Flat raw pairs. */
  readonly headers: readonly string[];
}

export interface ReadAnswer {
  readonly interims: Head[];
  /** 0 = no head was read. */
  status: number;
  reason: string;
  /** 11 = HTTP/1.1 */
  version: number;
  headers: readonly string[];
  body: string;
  trailers: readonly string[];
  complete: boolean;
  /** Code of the error Node gave up with before it was complete, '' = none. */
  error: string;
  upgrade: boolean;
}

export async function nodeReadsAnswer(pieces: readonly string[], { method, end }: AnswerCase): Promise<ReadAnswer> {
  const read: ReadAnswer = {
    interims: [],
    status: 0,
    reason: '',
    version: 11,
    headers: [],
    body: '',
    trailers: [],
    complete: false,
    error: '',
    upgrade: false,
  };
  const wire = new Wire();
  wire.on('error', () => {});
  const asked = request({ createConnection: () => wire, method, maxHeaderSize: 1 << 16, insecureHTTPParser: false });
  asked.on('information', ({ statusCode, statusMessage, rawHeaders, httpVersionMajor, httpVersionMinor }) => {
    const version = 10 * httpVersionMajor + httpVersionMinor;
    read.interims.push({ status: statusCode, reason: statusMessage, version, headers: rawHeaders });
  });
  asked.on('upgrade', () => {
    read.upgrade = true;
  });
  asked.on('error', (error: Error & { code?: string }) => {
    if (!read.complete) read.error ||= error.code ?? error.message;
  });
  asked.on('response', (response) => take(response, read));
  asked.end();
  await nextTurn();
  for (const piece of pieces) {
    wire.push(Buffer.from(piece, 'latin1'));
    await nextTurn();
  }
  if (end === 'fin') wire.push(null);
  else if (end === 'reset') wire.destroy(Object.assign(new Error('reset'), { code: 'ECONNRESET' }));
  for (let turn = 0; turn < 3; turn++) await nextTurn();
  // Before the end that is ours.
  const verdict = { ...read };
  asked.destroy();
  wire.destroy();
  return verdict;
}

function take(response: IncomingMessage, read: ReadAnswer): void {
  read.status = response.statusCode!;
  read.reason = response.statusMessage!;
  read.version = 10 * response.httpVersionMajor + response.httpVersionMinor;
  read.headers = response.rawHeaders;
  response.on('error', (error: Error & { code?: string }) => {
    if (!read.complete) read.error ||= error.code ?? error.message;
  });
  // In the parser's own turn.
  response.push = (chunk: Buffer | null) => {
    if (chunk !== null) read.body += chunk.toString('latin1');
    // Without a declared length Node takes a reset for the end; it may have been cut anywhere.
    else if (response.complete && read.error === '') {
      read.complete = true;
      read.trailers = response.rawTrailers;
    }
    return true;
  };
}

// What the seed's backend did: every call on a new connection, closed after the answer. Users call in a closed loop, each one a few times.
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BaseUrls, LegacyCall } from './legacy-calls.ts';

const CALL_TIMEOUT_MS = 30_000;
/** Users arrive over this time: a hundred at the same instant would measure only their first handshakes. */
const ARRIVAL_MS = 250;

export interface LoadOptions {
  readonly users: number;
  readonly callsPerUser: number;
  /** The round of calls that each user walks through, from a place of its own. */
  readonly calls: readonly LegacyCall[];
  readonly baseUrls: BaseUrls;
  /** PEM that https servers are checked against. */
  readonly ca: string;
  readonly signal: AbortSignal;
  /** After each call. */
  readonly onProgress: (done: number) => void;
}

export interface LoadResult {
  readonly calls: number;
  readonly errors: number;
  /** What went wrong, by message. */
  readonly reasons: ReadonlyMap<string, number>;
  /** Of the calls without an error, ascending, in ms: from opening the connection to the last byte. */
  readonly latenciesMs: readonly number[];
  readonly elapsedMs: number;
}

/** Rejects only when the signal fires. */
export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const latenciesMs: number[] = [];
  const reasons = new Map<string, number>();
  let done = 0;
  const oneUser = async (user: number): Promise<void> => {
    await sleep((user / options.users) * ARRIVAL_MS, undefined, { signal: options.signal });
    for (let i = 0; i < options.callsPerUser; i++) {
      const call = options.calls[(user + i) % options.calls.length]!;
      const startedAt = performance.now();
      const reason = await runCall(call, options);
      options.signal.throwIfAborted();
      if (reason === null) latenciesMs.push(performance.now() - startedAt);
      else reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
      options.onProgress(++done);
    }
  };
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: options.users }, (_, user) => oneUser(user)));
  const elapsedMs = performance.now() - startedAt;
  latenciesMs.sort((a, b) => a - b);
  return { calls: done, errors: done - latenciesMs.length, reasons, latenciesMs, elapsedMs };
}

/** One call on a connection of its own; null, or what was wrong with it. */
function runCall(call: LegacyCall, options: Pick<LoadOptions, 'baseUrls' | 'ca' | 'signal'>): Promise<string | null> {
  return new Promise((resolve) => {
    const url = options.baseUrls[call.upstream] + call.path;
    const headers: Record<string, string> = { ...call.headers };
    if (call.body !== null) headers['content-length'] = String(Buffer.byteLength(call.body));
    // `agent: false` makes an agent for this one request: a new connection, `Connection: close`, no TLS session to resume.
    const settings: RequestOptions = { method: call.method, headers, agent: false, signal: options.signal };
    const request = url.startsWith('https:')
      ? httpsRequest(url, { ...settings, ca: options.ca })
      : httpRequest(url, settings);
    request.setTimeout(CALL_TIMEOUT_MS, () => request.destroy(new Error(`silent for ${CALL_TIMEOUT_MS / 1000} s`)));
    request.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    request.once('response', (response) => {
      readText(response).then(
        (text) => resolve(verdict(call, response, text)),
        (error: NodeJS.ErrnoException) => resolve(`cut answer (${error.code ?? error.message})`),
      );
    });
    request.end(call.body);
  });
}

function verdict(call: LegacyCall, response: IncomingMessage, text: string): string | null {
  if (response.statusCode !== 200) {
    const code = response.headers['x-aiproxy-error'];
    return `status ${response.statusCode}${code === undefined ? '' : ` (${code})`}`;
  }
  return call.isComplete(text) ? null : `incomplete answer from ${call.upstream}`;
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** Nearest rank: the smallest value that at least this share of all values does not exceed. NaN without values. */
export function quantile(ascending: readonly number[], share: number): number {
  return ascending[Math.max(0, Math.ceil(share * ascending.length) - 1)] ?? Number.NaN;
}

// Where we are stricter than Node on purpose: each difference has a name, and its reason.

import type { AnswerCase } from './answer-grammar.ts';
import type { ReadAnswer } from './answer-oracle.ts';
import { valuesOf } from './answer-reader.ts';

/** Small, so that random answers go beyond them. */
export const LIMITS = { maxHeadBytes: 4096, maxHeaders: 32 } as const;

type Rule = (read: ReadAnswer, text: string, one: AnswerCase) => boolean;

const REFUSED: Readonly<Record<string, Rule>> = {
  // RFC 9110 section 15.2: a client that sent no Expect or Upgrade need not know them; Node tells them as events, or as an answer.
  '100 or 101 that nobody asked for': ({ interims, status, upgrade }) =>
    upgrade || status === 101 || interims.some((interim) => interim.status < 102),
  'more than 16 interim answers': ({ interims }) => interims.length > 16,
  // Node takes RTSP's and ICE's, HTTP/0.9 and HTTP/2.0 in a status line; we take what we speak.
  'a version that is not HTTP/1.x': (read) => headsOf(read).some(({ version }) => version !== 11 && version !== 10),
  // RFC 9112 section 6.1: its framing is faulty.
  'a Transfer-Encoding on HTTP/1.0': (read) =>
    headsOf(read).some(({ version, headers }) => version === 10 && valuesOf(headers, 'transfer-encoding').length > 0),
  // Node reads to the end of the connection then; the client would get coded bytes that nothing names.
  'a Transfer-Encoding that is not chunked alone': (read) =>
    headsOf(read).some(({ headers }) => {
      const codings = valuesOf(headers, 'transfer-encoding');
      return codings.length > 0 && (codings.length > 1 || codings[0]!.toLowerCase() !== 'chunked');
    }),
  // Exact numbers only; and undici reads a blank behind one as a digit.
  'a Content-Length that is no number': ({ headers }, text) =>
    valuesOf(headers, 'content-length').some((value) => Number(value) > Number.MAX_SAFE_INTEGER) ||
    /content-length:[ \t]*\d+[ \t]+\r\n/i.test(text),
  // max_headers and max_head: the test's are small.
  'a head beyond our limits': ({ status, headers, reason, interims }, text) =>
    (status === 0 && text.length >= LIMITS.maxHeadBytes) ||
    [{ headers }, ...interims].some(
      (head) => head.headers.length > 2 * LIMITS.maxHeaders || sizeOf(head.headers) >= LIMITS.maxHeadBytes - 64,
    ) ||
    reason.length > LIMITS.maxHeadBytes,
  // It would go on to the client as it stands.
  'a reason with a control character': (read) =>
    headsOf(read).some((head) => /[\0-\x08\x0a-\x1f\x7f]/.test(head.reason)),
  // Node reads 0 as its own word for none.
  'a status below 100': (_, text) => /(?:HTTP|RTSP|ICE)\/\d\.\d 0\d\d[ \r]/.test(text),
};

const CUT: Readonly<Record<string, Rule>> = {
  // Counted with the head's limit by undici.
  'trailers beyond our limits': ({ trailers }) => sizeOf(trailers) >= LIMITS.maxHeadBytes - 64,
};

/** The answer's, if there is one, and those of interim answers. */
function headsOf(read: ReadAnswer): ReadAnswer['interims'] {
  return read.status > 0 ? [read, ...read.interims] : read.interims;
}

function sizeOf(headers: readonly string[]): number {
  return headers.reduce((sum, text) => sum + text.length, 0);
}

function nameOf(rules: Readonly<Record<string, Rule>>, ...about: Parameters<Rule>): string | null {
  return Object.keys(rules).find((name) => rules[name]!(...about)) ?? null;
}

/** Why we answer 502 to what Node reads; null = there is no reason. */
export function refusedByUs(...about: Parameters<Rule>): string | null {
  return nameOf(REFUSED, ...about);
}

/** Why we cut an answer that Node reads to its end; null = there is no reason. */
export function cutByUs(...about: Parameters<Rule>): string | null {
  return nameOf(CUT, ...about);
}

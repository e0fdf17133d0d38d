// Random answers of an upstream: mostly well formed, each with something odd now and then.

import fc from 'fast-check';
import { CUTS, MUTATIONS, often } from './mutations.ts';
import { CHUNKS, FRAMING_HEADER } from './request-grammar.ts';

/** Stands for the number of the request while an answer is made; as long as that is. */
export const NUMBER = '########';

/** What no client may ever get but as part of a body. */
export const POISON = 'HTTP/1.1 200 OK\r\nX-Number: poisoned\r\nContent-Length: 6\r\n\r\npoison';

const VERSION = often(
  'HTTP/1.1',
  'HTTP/1.0',
  'HTTP/1.0',
  'HTTP/1.0',
  'HTTP/0.9',
  'HTTP/2.0',
  'HTTP/1.2',
  'http/1.1',
  'RTSP/1.0',
  'ICE/1.0',
  'HTTP/1.1 ',
  '',
);
const STATUS = fc.oneof(
  { weight: 12, arbitrary: fc.constant('200') },
  { weight: 8, arbitrary: fc.constantFrom('201', '206', '301', '404', '429', '500', '503') },
  { weight: 6, arbitrary: fc.constantFrom('204', '304', '205') },
  {
    weight: 2,
    arbitrary: fc.constantFrom('100', '101', '102', '103', '199', '000', '099', '20', '2000', '999', '2 0', ''),
  },
);
const REASON = often(
  ' OK',
  '',
  ' ',
  ' caf\xe9',
  ' \xc3\xa9\xff',
  ' a\tb',
  ' a\0b',
  ' a\x01b',
  ' a\x7fb',
  ' a\rb',
  ` ${'long '.repeat(1500)}`,
);
const HEADER = fc.constantFrom(
  'X-A: one',
  'x-a: two',
  'X-Empty:',
  'X-Blank: \t ',
  'X-Tabs:\t a\tb \t',
  'X-Latin: \xe9\xff',
  'Set-Cookie: a=b; c=d',
  'set-cookie: e=f',
  '__proto__: x',
  'Retry-After: 1',
  'X-RateLimit-Remaining-Requests: 0',
  'Content-Type: text/event-stream',
  'Content-Encoding: gzip',
  'Date: Tue, 24 Nov 2026 10:00:00 GMT',
  'Vary: *',
  'Trailer: X-Sum',
  'Keep-Alive: timeout=5',
  'Keep-Alive: timeout=0',
  'Proxy-Connection: keep-alive',
  'Proxy-Authenticate: Basic x',
  'Upgrade: h2c',
  'Connection: close',
  'Connection: keep-alive',
  'Connection: keep-alive, X-A',
  'Connection: X-A , close',
  'Connection: Upgrade',
  'Connection: content-length, transfer-encoding, date',
  'Connection: ,,',
  `X-Long: ${'l'.repeat(3000)}`,
);
const RAW_CONTENT = fc.constantFrom('hello', '', POISON, `0\r\n\r\n${POISON}`, '\0\xff\r\n', 'y'.repeat(6000));

const BODY = fc.oneof(
  // Ends with the connection, if it has one.
  { weight: 2, arbitrary: RAW_CONTENT.map((body) => ({ headers: [] as string[], body })) },
  {
    weight: 5,
    arbitrary: fc
      .tuple(RAW_CONTENT, often(0, 1, -1, 5))
      .map(([body, off]) => ({ headers: [`Content-Length: ${body.length + off}`], body })),
  },
  { weight: 5, arbitrary: CHUNKS },
  {
    weight: 1,
    arbitrary: fc.tuple(CHUNKS, often(0, 1, -1)).map(([{ headers, body }, off]) => ({
      headers: [...headers, `Content-Length: ${body.length + off}`],
      body,
    })),
  },
  { weight: 1, arbitrary: fc.constant({ headers: ['Content-Length: 5'], body: '' }) },
);

const INTERIM = fc
  .tuple(
    often('103', '102', '100', '101', '199'),
    fc.array(fc.constantFrom('Link: <x>', 'Content-Length: 5', 'Transfer-Encoding: chunked', 'Connection: X-A'), {
      maxLength: 2,
    }),
  )
  .map(([status, headers]) => `HTTP/1.1 ${[`${status} Odd`, ...headers].join('\r\n')}\r\n\r\n`);
const INTERIMS = fc.oneof(
  { weight: 12, arbitrary: fc.constant('') },
  { weight: 3, arbitrary: fc.array(INTERIM, { minLength: 1, maxLength: 3 }).map((all) => all.join('')) },
  {
    weight: 1,
    arbitrary: fc.integer({ min: 14, max: 19 }).map((n) => 'HTTP/1.1 103 Hints\r\nLink: <x>\r\n\r\n'.repeat(n)),
  },
);

const ANSWER = fc
  .record({
    before: often('', '\r\n', '\n', ' ', '\0', POISON.slice(0, 30)),
    interims: INTERIMS,
    version: VERSION,
    status: STATUS,
    reason: REASON,
    headers: fc.array(HEADER, { maxLength: 4 }),
    many: often(0, 0, 0, 28, 31, 400),
    framing: fc.oneof({ weight: 10, arbitrary: fc.constant('') }, { weight: 1, arbitrary: FRAMING_HEADER }),
    framingFirst: fc.boolean(),
    body: BODY,
    behind: often('', POISON, '\r\n', '\r\n\r\n', 'x', '0\r\n\r\n', '\0', 'HTTP/1.1 103 Odd\r\n\r\n'),
  })
  .map(({ before, interims, version, status, reason, headers, many, framing, framingFirst, body, behind }) => {
    const framings = framingFirst ? [framing, ...body.headers] : [...body.headers, framing];
    const lines = [`${version} ${status}${reason}`, `X-Number: ${NUMBER}`, ...headers, ...framings].filter(Boolean);
    return `${before}${interims}${lines.join('\r\n')}\r\n${'X-M: m\r\n'.repeat(many)}\r\n${body.body}${behind}`;
  });

export interface AnswerCase {
  /** With `NUMBER` where the number of the request belongs. */
  readonly text: string;
  readonly cuts: readonly number[];
  /** What the upstream does when it has sent that. */
  readonly end: 'open' | 'fin' | 'reset';
  readonly method: 'GET' | 'HEAD' | 'POST';
  /** The client speaks HTTP/1.0. */
  readonly http10: boolean;
}

export const ANSWER_CASE: fc.Arbitrary<AnswerCase> = fc
  .record({
    answer: ANSWER,
    mutations: MUTATIONS,
    cuts: CUTS,
    end: fc.constantFrom<AnswerCase['end']>('open', 'open', 'fin', 'reset'),
    method: fc.oneof(
      { weight: 6, arbitrary: fc.constant<AnswerCase['method']>('GET') },
      { weight: 2, arbitrary: fc.constant<AnswerCase['method']>('POST') },
      { weight: 2, arbitrary: fc.constant<AnswerCase['method']>('HEAD') },
    ),
    http10: often(false, true),
  })
  .map(({ answer, mutations, ...rest }) => ({
    text: mutations.reduce((text, mutate) => mutate(text), answer),
    ...rest,
  }));

// Random requests: mostly well formed, each with something odd now and then, several on one connection.

import fc from 'fast-check';
import { CUTS, MUTATIONS, often } from './mutations.ts';

export const SMUGGLED = 'GET /ai/smuggled HTTP/1.1\r\nHost: proxy\r\n\r\n';
const METHOD = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom('GET', 'POST', 'PUT', 'HEAD', 'DELETE', 'OPTIONS', 'PATCH') },
  { weight: 1, arbitrary: fc.constantFrom('get', 'FOO', 'CONNECT', 'TRACE', 'PRI', 'QUERY', 'SOURCE', '') },
);
const TARGET = fc.oneof(
  { weight: 24, arbitrary: fc.constantFrom('/ai/x', '/ai/v1/y?q=1', '/bb/z', '/bb', '/ai/?', '/ai?a', '/ai/early') },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      '/',
      '*',
      '/no/x',
      '//ai/x',
      '/healthz',
      'http://evil/ai/x',
      'evil:443',
      '/ai/../bb',
      '/ai/%2e%2e/x',
      '/ai/%00',
      '/ai/a b',
      '/ai/\\x',
      '/ai/#x',
      '/ai/\xe9',
      '/ai//x',
      '',
    ),
  },
);
const VERSION = often('HTTP/1.1', 'HTTP/1.0', 'HTTP/1.0', 'http/1.1', 'HTTP/1.2', 'HTTP/2.0', 'HTTP/0.9', '');
const HEADER = fc.constantFrom(
  'X-A: one',
  'x-a: two',
  'X-Empty:',
  'X-Tabs:\t a\tb \t',
  'X-Latin: \xe9\xff',
  'Cookie: a=b; c=d',
  '__proto__: x',
  'Accept: a, b',
  'TE: trailers',
  'Trailer: X-Sum',
  'Keep-Alive: timeout=5',
  'Proxy-Connection: keep-alive',
  'Proxy-Authorization: Basic x',
  'X-Aiproxy-Operation: chat',
  'X-Aiproxy-Deadline-Ms: 60000',
  'X-Aiproxy-Priority: batch',
  'X-Aiproxy-Token: none',
  'x-aiproxy-: x',
  'Upgrade: websocket',
  'Upgrade: h2c',
  'Connection: Upgrade',
  'Connection: upgrade, HTTP2-Settings',
  'HTTP2-Settings: AAA',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  'Connection: close',
  'Connection: keep-alive',
  'Connection: keep-alive, X-A',
  'Connection: X-A , close',
  'Connection: content-length, host, transfer-encoding',
  'Connection: ,,',
  'Expect: 100-continue',
  'Expect: 200-ok',
  'Content-Type: text/plain',
);
export const FRAMING_HEADER = fc.constantFrom(
  'Content-Length: 0',
  'Content-Length: 5',
  'Content-Length: 05',
  'Content-Length: +5',
  'Content-Length: -1',
  'Content-Length: 5, 5',
  'Content-Length: 0x5',
  'Content-Length: 5.0',
  'Content-Length: 1_0',
  'Content-Length: 5 5',
  'Content-Length:',
  'Content-Length : 5',
  'Content-Length\x00: 5',
  'Content_Length: 5',
  'Content-Length: 99999999999999999999',
  'Content-Length: 18446744073709551621',
  'Transfer-Encoding: chunked',
  'Transfer-Encoding: Chunked',
  'Transfer-Encoding: identity',
  'Transfer-Encoding: gzip, chunked',
  'Transfer-Encoding: chunked, chunked',
  'Transfer-Encoding: chunked, identity',
  'Transfer-Encoding: xchunked',
  'Transfer-Encoding: "chunked"',
  'Transfer-Encoding: chunked;q=1',
  'Transfer-Encoding:\tchunked',
  'Transfer-Encoding: \x0bchunked',
  'Transfer-Encoding : chunked',
  'Transfer-Encoding:',
  'Transfer_Encoding: chunked',
  'Transfer-Encoding: ,chunked',
  ' Transfer-Encoding: chunked',
  'X: y\r\n Transfer-Encoding: chunked',
  'Host: evil',
  'Host: proxy@evil',
  'Host:',
);
export const CONTENT = fc.constantFrom(
  'hello',
  '',
  '0\r\n\r\n',
  SMUGGLED,
  `0\r\n\r\n${SMUGGLED}`,
  '\0\xff\r\n',
  'x'.repeat(300),
  'y'.repeat(6000),
);
const EXTENSION = often('', ';a', ';a=b', ';a="b;c"', ';a="\r\n"', ' ;a', ';\n', ';a\r', `;${'z'.repeat(300)}`);
const TRAILER = often(
  '',
  'X-Sum: 1\r\n',
  'Content-Length: 3\r\n',
  'Transfer-Encoding: chunked\r\n',
  'GET /ai/t HTTP/1.1\r\n',
  ' x\r\n',
  'x\r\n',
);
const SIZE = often<(length: number) => string>(
  (length) => length.toString(16),
  (length) => `0${length.toString(16)}`,
  (length) => length.toString(16).toUpperCase(),
  (length) => `0x${length.toString(16)}`,
  (length) => `+${length.toString(16)}`,
  (length) => `${length.toString(16)} `,
  (length) => `1000000000000000${length.toString(16)}`,
  (length) => (length + 1).toString(16),
);

interface Chunk {
  readonly content: string;
  readonly size: (length: number) => string;
  readonly extension: string;
}

export const CHUNKS = fc
  .record({
    chunks: fc.array(
      fc.record<Chunk>({ content: CONTENT.filter((text) => text !== ''), size: SIZE, extension: EXTENSION }),
      { maxLength: 3 },
    ),
    last: often('0', '00', '0;a', '', '0 '),
    trailer: TRAILER,
    end: often('\r\n', '\n', '', '\r'),
  })
  .map(({ chunks, last, trailer, end }) => {
    const coded = chunks.map(({ content, size, extension }) => `${size(content.length)}${extension}\r\n${content}\r\n`);
    return { headers: ['Transfer-Encoding: chunked'], body: `${coded.join('')}${last}\r\n${trailer}${end}` };
  });

const BODY = fc.oneof(
  { weight: 4, arbitrary: fc.constant({ headers: [] as string[], body: '' }) },
  {
    weight: 4,
    arbitrary: fc
      .tuple(CONTENT, often(0, 1, -1, 5))
      .map(([body, off]) => ({ headers: [`Content-Length: ${body.length + off}`], body })),
  },
  { weight: 4, arbitrary: CHUNKS },
  {
    weight: 1,
    arbitrary: fc.tuple(CHUNKS, often(0, 1, -1)).map(([{ headers, body }, off]) => ({
      headers: [...headers, `Content-Length: ${body.length + off}`],
      body,
    })),
  },
);

export const REQUEST = fc
  .record({
    method: METHOD,
    target: TARGET,
    version: VERSION,
    host: often('Host: proxy', 'host:proxy:8080', ''),
    headers: fc.array(HEADER, { maxLength: 4 }),
    framing: fc.oneof({ weight: 10, arbitrary: fc.constant('') }, { weight: 1, arbitrary: FRAMING_HEADER }),
    framingFirst: fc.boolean(),
    body: BODY,
    gap: often('', '\r\n', '\r\n\r\n', '\n', ' ', '\0'),
  })
  .map(({ method, target, version, host, headers, framing, framingFirst, body, gap }) => {
    const framings = framingFirst ? [framing, ...body.headers] : [...body.headers, framing];
    const lines = [`${method} ${target} ${version}`.trimEnd(), host, ...headers, ...framings].filter(
      (line) => line !== '',
    );
    return `${gap}${lines.join('\r\n')}\r\n\r\n${body.body}`;
  });

export interface RequestCase {
  readonly text: string;
  readonly cuts: readonly number[];
  /** Bodies stream while they are still read. */
  readonly streamed: boolean;
}

export const REQUEST_CASE: fc.Arbitrary<RequestCase> = fc
  .record({
    requests: fc.array(REQUEST, { minLength: 1, maxLength: 4 }),
    mutations: MUTATIONS,
    cuts: CUTS,
    streamed: fc.boolean(),
  })
  .map(({ requests, mutations, ...rest }) => ({
    text: mutations.reduce((text, mutate) => mutate(text), requests.join('')),
    ...rest,
  }));

// The decoder of chunked bodies: the same result wherever the input is split, each refusal, and how far it reads.

import fc from 'fast-check';
import t from 'tap';
import { ChunkedDecoder } from '../../../src/http/chunked.ts';

interface Result {
  readonly body: string;
  readonly problem: string;
  readonly done: boolean;
  /** What follows the body. */
  readonly rest: string;
  /** Pieces handed out. */
  readonly pieces: number;
}

/** Feeds `text` cut at the given places, as packets that share no memory. */
function decode(text: string, cuts: readonly number[] = []): Result {
  const decoder = new ChunkedDecoder();
  const out: Buffer[] = [];
  let rest = '';
  let from = 0;
  for (const cut of [...cuts, text.length]) {
    const bytes = Buffer.from(text.slice(from, cut), 'latin1');
    from = cut;
    if (decoder.problem) break;
    const end = decoder.done ? 0 : decoder.feed(bytes, 0, (chunk) => out.push(chunk));
    if (decoder.done) rest += bytes.toString('latin1', end);
  }
  const body = Buffer.concat(out).toString('latin1');
  return { body, problem: decoder.problem, done: decoder.done, rest, pieces: out.length };
}

const GOOD: Record<string, [string, string]> = {
  'no chunk': ['0\r\n\r\n', ''],
  'one chunk': ['5\r\nhello\r\n0\r\n\r\n', 'hello'],
  'several chunks': ['1\r\nh\r\n2\r\nel\r\n2\r\nlo\r\n0\r\n\r\n', 'hello'],
  'sizes in both cases of hexadecimal': [
    `a\r\n${'x'.repeat(10)}\r\nB\r\n${'y'.repeat(11)}\r\n0\r\n\r\n`,
    'xxxxxxxxxxyyyyyyyyyyy',
  ],
  'leading zeros within 13 digits': ['0000000000005\r\nhello\r\n0000000000000\r\n\r\n', 'hello'],
  extensions: ['5;a\r\nhello\r\n0;b="c;d\\"\xe9";e=f\r\n\r\n', 'hello'],
  trailers: ['5\r\nhello\r\n0\r\nX-Sum: 1\r\nempty:\r\n\r\n', 'hello'],
  'trailers with names like framing': ['5\r\nhello\r\n0\r\nX-Content-Length: 9\r\nHost: evil\r\n\r\n', 'hello'],
  'data that look like the end': ['9\r\n0\r\n\r\n\r\n\r\n\r\n0\r\n\r\n', '0\r\n\r\n\r\n\r\n'],
};

for (const [name, [text, body]] of Object.entries(GOOD)) {
  t.test(`${name}: the same at every split, and what follows is left alone`, async (t) => {
    const follows = 'GET /next HTTP/1.1\r\n\r\n';
    const whole = decode(text + follows);
    t.match(whole, { body, problem: '', done: true, rest: follows });
    for (let a = 0; a <= text.length; a++) {
      t.match(decode(text + follows, [a]), { body, problem: '', done: true, rest: follows }, `split at ${a}`);
      t.equal(decode(text.slice(0, a)).done, a === text.length, `done after ${a} bytes`);
    }
    const everywhere = Array.from({ length: text.length }, (_, i) => i);
    t.match(decode(text + follows, everywhere), { body, problem: '', done: true, rest: follows }, 'byte by byte');
  });
}

const BAD: Record<string, [string, RegExp]> = {
  'an empty size': ['\r\n', /not a hexadecimal/],
  'a size with 0x': ['0x5\r\nhello\r\n', /not a hexadecimal/],
  'a size with a plus': ['+5\r\nhello\r\n', /not a hexadecimal/],
  'a size with a minus': ['-5\r\nhello\r\n', /not a hexadecimal/],
  'a size with an underscore': ['1_0\r\n', /not a hexadecimal/],
  'a size with a point': ['5.0\r\n', /not a hexadecimal/],
  'a size with a letter beyond f': ['g\r\n', /not a hexadecimal/],
  // 0x10 | 0x20 is '0': no control character may pass for a digit or a letter.
  'a size that is a control character': ['\x11\r\n', /not a hexadecimal/],
  'a size in a letter 0x20 below': ['A\x02\r\n', /not a hexadecimal/],
  'a space before the size': [' 5\r\nhello\r\n', /not a hexadecimal/],
  'a space behind the size': ['5 \r\nhello\r\n', /not a hexadecimal/],
  'a space before the extension': ['5 ;a\r\nhello\r\n', /not a hexadecimal/],
  'a tab behind the size': ['5\t\r\nhello\r\n', /not a hexadecimal/],
  'a NUL behind the size': ['5\0\r\nhello\r\n', /not a hexadecimal/],
  'fourteen digits': ['00000000000005\r\nhello\r\n', /too large/],
  'more than 64 bits': ['10000000000000005\r\nhello\r\n', /too large/],
  'a size ended by LF': ['5\nhello\r\n', /not a hexadecimal/],
  'a size ended by CR': ['5\rhello\r\n', /followed by CRLF/],
  'a size ended by CR CR LF': ['5\r\r\nhello\r\n', /followed by CRLF/],
  'an extension with LF': ['5;a\nhello\r\n', /not one/],
  'an extension with a bare CR': ['5;a\rb\r\nhello\r\n', /followed by CRLF/],
  'an extension with a quoted CRLF': ['5;a="\r\n0\r\n\r\nGET / HTTP/1.1\r\n', /control character/],
  'an extension with a quoted LF': ['5;a="\n"\r\nhello\r\n', /control character/],
  'an extension with an escaped CR': ['5;a="\\\r\n"\r\nhello\r\n', /control character/],
  'an extension with a quoted NUL': ['5;a="\0"\r\nhello\r\n', /control character/],
  'an extension with a NUL': ['5;\0\r\nhello\r\n', /not one/],
  'an extension with a space': ['5;a b\r\nhello\r\n', /not one/],
  'an extension without a name': ['5;\r\nhello\r\n', /not one/],
  'an extension with a value alone': ['5;=a\r\nhello\r\n', /not one/],
  'an extension without its value': ['5;a=\r\nhello\r\n', /not one/],
  'an extension with two values': ['5;a=b=c\r\nhello\r\n', /not one/],
  'an extension with something behind a quote': ['5;a="b"c\r\nhello\r\n', /not one/],
  'an extension with a quote within a token': ['5;a=b"c"\r\nhello\r\n', /not one/],
  'an extension of 257 bytes': [`5;${'a'.repeat(257)}\r\nhello\r\n`, /too long/],
  'a chunk longer than its size': ['5\r\nhello!\r\n', /longer than its size/],
  'a chunk shorter than its size': ['7\r\nhello\r\n0\r\n\r\n', /longer than its size/],
  'a chunk ended by LF': ['5\r\nhello\n0\r\n\r\n', /longer than its size/],
  'a chunk ended by CR': ['5\r\nhello\r0\r\n\r\n', /followed by CRLF/],
  'no end of body, and the next request': ['0\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n', /not a field/],
  'a trailer without a colon': ['0\r\nabc\r\n\r\n', /not a field/],
  'a trailer without a name': ['0\r\n: 1\r\n\r\n', /not a field/],
  'a space before the colon of a trailer': ['0\r\nx : 1\r\n\r\n', /not a field/],
  'a folded trailer': ['0\r\nx: 1\r\n y\r\n\r\n', /not a field/],
  'a length in a trailer': ['0\r\nContent-Length: 9\r\n\r\n', /how long/],
  'an encoding in a trailer': ['0\r\nx: 1\r\ntransfer-ENCODING: chunked\r\n\r\n', /how long/],
  'a trailer ended by LF': ['0\r\nx: 1\n\r\n', /control character/],
  'a trailer with a bare CR': ['0\r\nx: 1\ry\r\n\r\n', /bare CR/],
  'an end of body with LF': ['0\r\n\n', /not a field/],
  'an end of body with a bare CR': ['0\r\n\rX', /bare CR/],
  'trailers over 8 kb': [`0\r\n${'x: 1234567890\r\n'.repeat(700)}\r\n`, /too long/],
};

for (const [name, [text, why]] of Object.entries(BAD)) {
  t.test(`refused at every split: ${name}`, async (t) => {
    const whole = decode(text);
    t.match(whole.problem, why);
    t.equal(whole.done, false);
    for (let a = 0; a < Math.min(text.length, 400); a++) {
      const { problem, body, done } = decode(text, [a]);
      t.same({ problem, body, done }, { problem: whole.problem, body: whole.body, done: false }, `split at ${a}`);
    }
  });
}

t.test('an extension of 256 bytes and trailers just within 8 kb pass, and the bound is per chunk', async (t) => {
  const size = `1;${'a'.repeat(256)}\r\nx\r\n`;
  t.match(decode(`${size}${size}0\r\n${'x: 1234567\r\n'.repeat(700)}\r\n`), { body: 'xx', done: true, problem: '' });
});

t.test('the largest size does not overflow', async (t) => {
  t.match(decode('fffffffffffff\r\nabc'), { body: 'abc', done: false, problem: '' });
});

t.test('a body of one-byte chunks is handed out in one piece per packet', async (t) => {
  const { body, pieces, done } = decode(`${'1\r\nx\r\n'.repeat(10_000)}0\r\n\r\n`);
  t.equal(body, 'x'.repeat(10_000));
  t.equal(done, true);
  t.equal(pieces, 1);
});

t.test('large chunks are handed out where they lie, without a copy', async (t) => {
  const big = 'y'.repeat(0x2000);
  const bytes = Buffer.from(`2\r\nab\r\n2000\r\n${big}\r\n1\r\nc\r\n0\r\n\r\n`, 'latin1');
  const out: Buffer[] = [];
  new ChunkedDecoder().feed(bytes, 0, (chunk) => out.push(chunk));
  t.equal(Buffer.concat(out).toString('latin1'), `ab${big}c`);
  t.same(
    out.map((chunk) => chunk.byteOffset - bytes.byteOffset),
    [3, 13],
    'pieces lie where they came',
  );
});

t.test('any chunks, any extensions, any split: the body comes out', async (t) => {
  const chunk = fc.record({
    text: fc.oneof(
      fc.string({ unit: 'binary-ascii', minLength: 1, maxLength: 40 }),
      fc.nat(9000).map((n) => 'z'.repeat(n + 1)),
    ),
    extension: fc.constantFrom('', ';a', ';a="b"'),
  });
  const holds = () =>
    fc.assert(
      fc.property(fc.array(chunk, { maxLength: 8 }), fc.array(fc.nat(20_000), { maxLength: 6 }), (chunks, places) => {
        const body = chunks.map(({ text }) => text).join('');
        const coded = chunks.map(({ text, extension }) => `${text.length.toString(16)}${extension}\r\n${text}\r\n`);
        const text = `${coded.join('')}0\r\n\r\nrest`;
        const cuts = places.map((place) => place % (text.length + 1)).sort((a, b) => a - b);
        const got = decode(text, cuts);
        return got.body === body && got.done && got.problem === '' && got.rest === 'rest';
      }),
      { numRuns: 500 },
    );
  t.doesNotThrow(holds);
});

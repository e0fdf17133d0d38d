// Pipelined requests that wait as bytes: kept in order, counted as far as they can be told apart, bounded.

import t from 'tap';
import { PipelinedBytes } from '../../../src/server/pipelined.ts';

const GET = 'GET /ai/x HTTP/1.1\r\nhost: a\r\n\r\n';
const post = (length: number) =>
  `POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${length}\r\n\r\n${'b'.repeat(length)}`;

/** How many of `text`'s bytes are taken, fed in packets of `size`. */
function taken(text: string, { size = text.length, maxBytes = 1 << 20, max = 3, maxHead = 1000 } = {}): boolean {
  const waiting = new PipelinedBytes(maxBytes, max, maxHead);
  for (let i = 0; i < text.length; i += size) {
    if (!waiting.add(Buffer.from(text.slice(i, i + size), 'latin1'))) return false;
    if (waiting.take().toString('latin1') !== text.slice(0, i + size))
      throw new Error('the bytes are not those that came');
  }
  return true;
}

const CASES: Record<string, [string, boolean]> = {
  'as many as may wait': [GET.repeat(3), true],
  'one more': [GET.repeat(4), false],
  'the first bytes of one more': [`${GET.repeat(3)}G`, false],
  'empty lines between them do not count': [`${GET}\r\n\r\n${GET}\r\n${GET}\r\n`, true],
  'nor hide one more': [`${GET}\r\n\r\n${GET}\r\n${GET}\r\n${GET}`, false],
  'bodies do not count': [`${post(500)}${post(0)}${post(4000)}`, true],
  'a body that looks like requests does not count': [
    `POST / HTTP/1.1\r\ncontent-length: ${GET.length * 5}\r\n\r\n${GET.repeat(5)}`,
    true,
  ],
  'one more behind bodies': [`${post(500)}${post(0)}${post(40)}${GET}`, false],
  'a body that is not whole': [`${GET}${GET}${post(500).slice(0, -10)}`, true],
  'behind a chunked one nobody counts': [`POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n${GET.repeat(9)}`, true],
  'behind what is no request neither': [`\0\r\n\r\n${GET.repeat(9)}`, true],
  'nor behind doubtful framing': [
    `POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n${GET.repeat(9)}`,
    true,
  ],
  'a head without an end': [`GET / HTTP/1.1\r\n${'x: y\r\n'.repeat(1000)}`, true],
};

for (const [name, [text, ok]] of Object.entries(CASES)) {
  t.test(`${name}: the same in packets of any size`, async (t) => {
    t.equal(taken(text), ok, 'at once');
    for (const size of [1, 2, 3, 7, 64]) t.equal(taken(text, { size }), ok, `in packets of ${size}`);
  });
}

t.test('bytes are bounded, to the byte', async (t) => {
  t.equal(taken(post(900), { maxBytes: post(900).length }), true);
  t.equal(taken(post(900), { maxBytes: post(900).length - 1 }), false);
  t.equal(taken(post(900), { maxBytes: post(900).length - 1, size: 1 }), false);
});

t.test('a long pipeline in drips costs no more than a few times one at once', async (t) => {
  // Starting over with each byte, this was 100 000 times 100 kb: some 10 s.
  const text = post(100_000);
  const waiting = new PipelinedBytes(1 << 18, 16, 32 << 10);
  const before = performance.now();
  for (let i = 0; i < text.length; i++) waiting.add(Buffer.from(text[i]!));
  t.ok(performance.now() - before < 1500);
  t.equal(waiting.take().length, text.length);
});

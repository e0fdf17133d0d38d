// Where a comment or an event of ours may stand in an event stream: against a parser that reads it byte by byte, as the standard says.
import fc from 'fast-check';
import t from 'tap';
import { EventBoundary, withoutByteOrderMark } from '../../../src/http/event-boundary.ts';

function isBetween(...chunks: (string | Uint8Array)[]): boolean {
  const boundary = new EventBoundary();
  for (const chunk of chunks) boundary.pass(typeof chunk === 'string' ? Buffer.from(chunk, 'latin1') : chunk);
  return boundary.isBetween;
}

/** The events of a stream, each as its fields, by WHATWG HTML section 9.2.6; and whether it stands within one at its end. */
function read(bytes: Uint8Array): { events: string[]; within: boolean } {
  const text = Buffer.from(bytes)
    .toString('latin1')
    .replace(/^\xef\xbb\xbf/, '');
  const lines = text.split(/\r\n|\n|\r/);
  const rest = lines.pop()!;
  const events: string[] = [];
  let open: string[] = [];
  let hasLines = false;
  for (const line of lines) {
    if (line === '') {
      if (open.length > 0) events.push(open.join('|'));
      open = [];
      hasLines = false;
      continue;
    }
    hasLines = true;
    if (!line.startsWith(':')) open.push(line);
  }
  return { events, within: hasLines || rest !== '' };
}

t.test('between two events is at the start and after a blank line, and nowhere else', async (t) => {
  const table: [text: string, between: boolean][] = [
    ['', true],
    ['\n', true],
    ['\r', true],
    ['\r\n', true],
    ['data: x', false],
    ['data: x\n', false],
    ['data: x\r', false],
    ['data: x\r\n', false],
    ['data: x\n\n', true],
    ['data: x\r\r', true],
    ['data: x\r\n\r', true],
    ['data: x\r\n\r\n', true],
    ['data: x\n\r', true],
    ['data: x\n\r\n', true],
    ['data: x\r\r\n', true],
    ['data: x\n\n\n\n\n\n', true],
    ['data: x\n\nd', false],
    ['data: x\n\n: keep-alive', false],
    ['data: x\n\n: keep-alive\n', false],
    ['data: x\n\n: keep-alive\n\n', true],
    ['event: a\ndata: x\n\n', true],
    ['data: x\n ', false],
    ['data: x\n \n', false],
    ['\xef\xbb\xbf', true],
    ['\xef\xbb', false],
    ['\xef', false],
    ['\xef\n', false],
    ['\xef\n\n', true],
    ['\xef\xbb\xbf\n', true],
    ['\xef\xbb\xbfdata: x\n', false],
    ['\xef\xbb\xbfdata: x\n\n', true],
    ['\xef\xbb\xbf\xef\xbb\xbf', false],
    ['\n\xef\xbb\xbf', false],
    ['data: x\n\n\xef\xbb\xbf', false],
  ];
  for (const [text, between] of table) {
    t.equal(isBetween(text), between, JSON.stringify(text));
    t.equal(isBetween(...text), between, `${JSON.stringify(text)}, byte by byte`);
    t.equal(isBetween('', text, ''), between, `${JSON.stringify(text)}, with empty pieces`);
    for (let cut = 1; cut < text.length; cut++)
      t.equal(isBetween(text.slice(0, cut), text.slice(cut)), between, `${JSON.stringify(text)}, cut at ${cut}`);
  }
});

const pieces = fc.constantFrom(
  '\n',
  '\r',
  '\r\n',
  '\n\n',
  'data: x',
  ': c',
  'd',
  '\xef',
  '\xef\xbb\xbf',
  'data: y\n\n',
);
const stream = fc.array(pieces, { maxLength: 12, size: 'max' }).map((all) => Buffer.from(all.join(''), 'latin1'));

t.test('where the bytes are split makes no difference, and the standard agrees', async () => {
  fc.assert(
    fc.property(stream, fc.array(fc.nat({ max: 40 }), { maxLength: 6 }), (bytes, cuts) => {
      const at = [0, ...cuts.map((cut) => Math.min(cut, bytes.length)).sort((a, b) => a - b), bytes.length];
      const chunks = at.slice(1).map((end, i) => bytes.subarray(at[i]!, end));
      if (isBetween(...chunks) === read(bytes).within)
        throw new Error(`${JSON.stringify(bytes.toString('latin1'))} at ${at}`);
    }),
    { numRuns: 5000 },
  );
});

t.test('a comment put in between two events changes none of them', async () => {
  const comment = Buffer.from(': heartbeat\n\n');
  fc.assert(
    fc.property(stream, stream, (before, after) => {
      if (!isBetween(before)) return;
      // A byte order mark is one only at the very beginning.
      const rest = before.length === 0 ? withoutByteOrderMark(after) : after;
      const plain = read(Buffer.concat([before, after])).events;
      const beaten = read(Buffer.concat([before, comment, rest])).events;
      if (plain.join('\0') !== beaten.join('\0')) throw new Error(`${JSON.stringify([plain, beaten])}`);
    }),
    { numRuns: 5000 },
  );
});

t.test('the byte order mark is taken off where it is whole, and nothing else is', async (t) => {
  for (const [from, to] of [
    ['\xef\xbb\xbfdata', 'data'],
    ['\xef\xbb\xbf', ''],
    ['\xef\xbbdata', '\xef\xbbdata'],
    ['data\xef\xbb\xbf', 'data\xef\xbb\xbf'],
    ['', ''],
  ] as const)
    t.equal(withoutByteOrderMark(Buffer.from(from, 'latin1')).toString('latin1'), to);
});

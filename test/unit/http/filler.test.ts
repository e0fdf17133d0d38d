// Filler and the first real byte.
import fc from 'fast-check';
import t from 'tap';
import { FillerWatch } from '../../../src/http/filler.ts';

/** At which byte the first event begins; -1 = it is all filler. */
function eventAt(chunks: readonly Uint8Array[]): number {
  const watch = new FillerWatch();
  let before = 0;
  for (const chunk of chunks) {
    if (watch.sees(chunk)) return before;
    before += chunk.length;
  }
  return -1;
}

const singleBytes = (text: string) => [...Buffer.from(text)].map((byte) => Uint8Array.of(byte));

t.test('blank lines and comments are filler, everything else is an event', async (t) => {
  const table: [text: string, at: number][] = [
    ['', -1],
    ['\n', -1],
    ['\r\n\r\n', -1],
    ['   \n\t\n', -1],
    [': keep-alive\n\n', -1],
    [':\n:\n', -1],
    [': a : b data: x', -1],
    [': keep-alive\r: keep-alive\r', -1],
    ['{', 0],
    ['data: x', 0],
    ['\n\n{"id":1}', 2],
    [': keep-alive\n\ndata: {}', 14],
    [': keep-alive\rdata: {}', 13],
    [': keep-alive\r\ndata: {}', 14],
    [':\n:d\n:\nd', 7],
    ['\0', 0],
    ['\x80', 0],
  ];
  for (const [text, at] of table) {
    t.equal(eventAt(singleBytes(text)), at, JSON.stringify(text));
    t.equal(eventAt([Buffer.from(text)]) >= 0, at >= 0, `${JSON.stringify(text)} in one piece`);
  }
});

t.test('where the bytes are split makes no difference', async (t) => {
  const text = '\r\n: keep-alive\n\n:x:\r\n \n: last\n\ndata: {"a":1}\n\n';
  const bytes = Buffer.from(text);
  const event = text.indexOf('data');
  for (let first = 0; first <= bytes.length; first++) {
    for (let second = first; second <= bytes.length; second += 3) {
      const chunks = [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)];
      const expected = event < first ? 0 : event < second ? first : second;
      if (eventAt(chunks) !== expected) t.fail(`split at ${first} and ${second}: ${eventAt(chunks)}`);
    }
  }
});

t.test('any text, split anywhere, gives the same as by the byte', async () => {
  const piece = fc.constantFrom('\n', '\r', ':', ' ', '\t', 'a', ': ka\n', 'data');
  const text = fc.array(piece, { maxLength: 20, size: 'max' }).map((pieces) => pieces.join(''));
  fc.assert(
    fc.property(text, fc.array(fc.nat({ max: 30 }), { maxLength: 6 }), (text, cuts) => {
      const bytes = Buffer.from(text);
      const at = eventAt(singleBytes(text));
      const sorted = [0, ...cuts.map((cut) => Math.min(cut, bytes.length)).sort((a, b) => a - b), bytes.length];
      const chunks = sorted.slice(1).map((end, i) => bytes.subarray(sorted[i]!, end));
      const seen = eventAt(chunks);
      const holds =
        at < 0 ? seen < 0 : seen <= at && sorted.includes(seen) && !sorted.some((cut) => cut > seen && cut <= at);
      if (!holds) throw new Error(`${JSON.stringify(text)} at ${sorted}: ${seen}, the event is at ${at}`);
    }),
    { numRuns: 2000 },
  );
});

// Golden bytes of answers: each framing, each kind of client, and heads that would break apart.

import type { Socket } from 'node:net';
import t from 'tap';
import { AnswerWriter, type Framing } from '../../../src/server/answer-writer.ts';

/** A socket that remembers. */
class Sink {
  text = '';
  writes = 0;
  corked = 0;
  room = true;

  write(bytes: string | Buffer, encoding?: string): boolean {
    if (typeof bytes === 'string') t.equal(encoding, 'latin1', 'text leaves as latin1');
    this.text += typeof bytes === 'string' ? bytes : bytes.toString('latin1');
    this.writes++;
    return this.room;
  }

  cork(): void {
    this.corked++;
  }

  uncork(): void {
    this.corked--;
  }
}

const KEPT: Framing = { http10: false, headOnly: false, keepAlive: 'timeout=75' };
const LAST: Framing = { http10: false, headOnly: false, keepAlive: '' };
const DATE = ['date', 'Tue, 24 Nov 2026 01:40:26 GMT'];

interface Case {
  readonly status?: number;
  readonly reason?: string;
  readonly headers?: readonly string[];
  readonly framing?: Framing;
  readonly body?: readonly string[];
  readonly last?: string | null;
}

function answer({
  status = 200,
  reason = '',
  headers = [],
  framing = KEPT,
  body = [],
  last = null,
}: Case): Sink & { closes: boolean } {
  const sink = new Sink();
  const writer = new AnswerWriter(sink as unknown as Socket);
  writer.begin(status, reason, [...DATE, ...headers], framing);
  for (const piece of body) writer.write(Buffer.from(piece, 'latin1'));
  writer.finish(last === null ? null : Buffer.from(last, 'latin1'));
  return Object.assign(sink, { closes: writer.endsAtClose });
}

const KEEP = 'connection: keep-alive\r\nkeep-alive: timeout=75\r\n\r\n';
const CLOSE = 'connection: close\r\n\r\n';
const head = (status: string, fields = '') => `HTTP/1.1 ${status}\r\ndate: ${DATE[1]}\r\n${fields}`;
const TWO = ['content-length', '2'];

const GOLDEN: Record<string, [Case, string, boolean?]> = {
  'a declared length passes as it is': [
    { headers: TWO, last: 'ok' },
    `${head('200 OK', 'content-length: 2\r\n')}${KEEP}ok`,
  ],
  'a declared length in several pieces': [
    { headers: ['Content-Length', '4'], body: ['a', 'bc'], last: 'd' },
    `${head('200 OK', 'Content-Length: 4\r\n')}${KEEP}abcd`,
  ],
  'no length: chunked': [
    { body: ['one', 'twenty characters!!!'], last: null },
    `${head('200 OK')}transfer-encoding: chunked\r\n${KEEP}3\r\none\r\n14\r\ntwenty characters!!!\r\n0\r\n\r\n`,
  ],
  'the last chunk and the end leave together': [
    { last: 'abc' },
    `${head('200 OK')}transfer-encoding: chunked\r\n${KEEP}3\r\nabc\r\n0\r\n\r\n`,
  ],
  'an empty piece is no last chunk': [
    { body: ['', 'a', ''], last: '' },
    `${head('200 OK')}transfer-encoding: chunked\r\n${KEEP}1\r\na\r\n0\r\n\r\n`,
  ],
  'chunked and empty': [{}, `${head('200 OK')}transfer-encoding: chunked\r\n${KEEP}0\r\n\r\n`],
  'the last answer of a connection says so': [
    { headers: TWO, framing: LAST, last: 'ok' },
    `${head('200 OK', 'content-length: 2\r\n')}${CLOSE}ok`,
  ],
  'HTTP/1.0 with a length may be kept': [
    { headers: TWO, framing: { ...KEPT, http10: true }, last: 'ok' },
    `${head('200 OK', 'content-length: 2\r\n')}${KEEP}ok`,
  ],
  'HTTP/1.0 without a length ends at the close, and never is chunked': [
    { framing: { ...KEPT, http10: true }, body: ['a'], last: 'b' },
    `${head('200 OK')}${CLOSE}ab`,
    true,
  ],
  'HEAD: the length of the body that does not come': [
    { headers: TWO, framing: { ...KEPT, headOnly: true }, body: ['ok'], last: 'ok' },
    `${head('200 OK', 'content-length: 2\r\n')}${KEEP}`,
  ],
  'HEAD without a length': [{ framing: { ...KEPT, headOnly: true } }, `${head('200 OK')}${KEEP}`],
  'HEAD of an HTTP/1.0 client does not need the close': [
    { framing: { http10: true, headOnly: true, keepAlive: 'timeout=75' } },
    `${head('200 OK')}${KEEP}`,
  ],
  '204 has no body and no framing': [{ status: 204, body: ['x'], last: 'y' }, `${head('204 No Content')}${KEEP}`],
  '304 has no body, whatever length it declares': [
    { status: 304, headers: ['content-length', '5'], body: ['hello'] },
    `${head('304 Not Modified', 'content-length: 5\r\n')}${KEEP}`,
  ],
  "the upstream's reason": [
    { status: 200, reason: 'Very well', headers: TWO, last: 'ok' },
    `${head('200 Very well', 'content-length: 2\r\n')}${KEEP}ok`,
  ],
  'a status without a standard reason': [
    { status: 799, headers: TWO, last: 'ok' },
    `${head('799 ', 'content-length: 2\r\n')}${KEEP}ok`,
  ],
  'a reason beyond ASCII gives way to the standard one': [
    { status: 404, reason: '成功', headers: TWO, last: 'ok' },
    `${head('404 Not Found', 'content-length: 2\r\n')}${KEEP}ok`,
  ],
  'a broken UTF-8 reason too': [
    { status: 404, reason: '\ufffdx\r\nevil: 1', headers: TWO, last: 'ok' },
    `${head('404 Not Found', 'content-length: 2\r\n')}${KEEP}ok`,
  ],
  'order, case and repeats of fields, and bytes beyond ASCII': [
    { headers: ['Set-Cookie', 'a', 'X-É'.slice(0, 2), '\xe9\t\xff', 'set-cookie', 'b', ...TWO], last: '\xff\x00' },
    `${head('200 OK', 'Set-Cookie: a\r\nX-: \xe9\t\xff\r\nset-cookie: b\r\ncontent-length: 2\r\n')}${KEEP}\xff\x00`,
  ],
};

for (const [name, [given, bytes, closes = false]] of Object.entries(GOLDEN)) {
  t.test(name, async (t) => {
    const sink = answer(given);
    t.equal(sink.text, bytes);
    t.equal(sink.closes, closes);
    t.equal(sink.corked, 0);
  });
}

t.test('a head and the whole of a small body are one write', async (t) => {
  t.equal(answer({ headers: TWO, last: 'ok' }).writes, 1);
  t.equal(answer({ last: 'ok' }).writes, 1);
  t.equal(answer({}).writes, 1);
});

t.test('a large piece is not copied, and comes out the same', async (t) => {
  const large = 'x'.repeat(40_000);
  const plain = answer({ headers: ['content-length', '40001'], body: [large], last: 'y' });
  t.ok(plain.text.endsWith(`${KEEP}${large}y`));
  const chunked = answer({ body: ['a', large], last: large });
  t.ok(chunked.text.endsWith(`1\r\na\r\n9c40\r\n${large}\r\n9c40\r\n${large}\r\n0\r\n\r\n`));
});

t.test('a stored body is sent by reference, however small', async (t) => {
  const chunks: unknown[] = [];
  const sink = { cork() {}, uncork() {}, write: (chunk: unknown) => chunks.push(chunk) > 0 };
  const writer = new AnswerWriter(sink as unknown as Socket);
  const body = Buffer.from('ok');
  writer.begin(200, '', [...DATE, ...TWO], KEPT, true);
  writer.finish(body);
  t.equal(chunks[1], body, 'the very buffer');
  writer.begin(200, '', [...DATE, ...TWO], KEPT);
  writer.finish(body);
  t.not(chunks[2], body, 'another answer pays for one write with a copy');
});

t.test('the head leaves alone when it is told to, once', async (t) => {
  const sink = new Sink();
  const writer = new AnswerWriter(sink as unknown as Socket);
  writer.begin(200, '', [...DATE, ...TWO], KEPT);
  t.equal(sink.text, '');
  writer.flushHead();
  writer.flushHead();
  t.equal(sink.text, `${head('200 OK', 'content-length: 2\r\n')}${KEEP}`);
  writer.finish(Buffer.from('ok'));
  t.equal(sink.text, `${head('200 OK', 'content-length: 2\r\n')}${KEEP}ok`);
});

t.test('an answer without a Date gets one, in the form of RFC 9110', async (t) => {
  const sink = new Sink();
  const writer = new AnswerWriter(sink as unknown as Socket);
  writer.begin(204, '', [], KEPT);
  writer.finish(null);
  const date = /\r\ndate: ([A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT)\r\n/.exec(sink.text);
  t.ok(date && Math.abs(Date.parse(date[1]!) - Date.now()) < 5000);
  t.equal(answer({ headers: TWO, last: 'ok' }).text.split(/date:/i).length, 2, 'but never a second');
});

t.test('what a full socket says is passed on; what has no body has always room', async (t) => {
  const sink = new Sink();
  sink.room = false;
  const writer = new AnswerWriter(sink as unknown as Socket);
  writer.begin(200, '', [...DATE, 'content-length', '90000'], KEPT);
  t.equal(writer.write(Buffer.from('a')), false);
  t.equal(writer.write(Buffer.alloc(40_000)), false);
  t.equal(writer.write(Buffer.alloc(0)), true);
  writer.begin(204, '', DATE, KEPT);
  t.equal(writer.write(Buffer.from('a')), true);
});

t.test('no control character of an upstream gets into our head', async (t) => {
  for (let c = 0; c < 0x20; c++) {
    if (c === 0x09) continue;
    const bad = `a${String.fromCharCode(c)}b`;
    t.throws(() => answer({ headers: ['x', bad] }), /control character/, `character ${c} in a value`);
    t.throws(() => answer({ headers: [bad, 'x'] }), /control character/, `character ${c} in a name`);
    t.throws(() => answer({ reason: bad }), /control character/, `character ${c} in a reason`);
  }
  for (const c of ['\x7f', '\u0100', '\u010a', '\u560d', '\ufffd'])
    t.throws(() => answer({ headers: ['x', c] }), /control character/, 'nor what latin1 would cut to one');
});

t.test('a head that was refused leaves nothing behind for the answer that takes its place', async (t) => {
  const sink = new Sink();
  const writer = new AnswerWriter(sink as unknown as Socket);
  t.throws(() => writer.begin(200, '', [...DATE, 'x', 'a\nb'], KEPT));
  writer.begin(502, '', [...DATE, ...TWO], LAST);
  writer.finish(Buffer.from('no'));
  t.equal(sink.text, `${head('502 Bad Gateway', 'content-length: 2\r\n')}${CLOSE}no`);
});

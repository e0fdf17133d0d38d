// The frames of one direction, followed by counting: wherever the bytes are split, it is the same frames.

import fc from 'fast-check';
import t from 'tap';
import { closeFrame, FrameWatch, maskedCloseFrame, NO_CODE } from '../../../src/http/websocket-frames.ts';

interface Frame {
  readonly opcode: number;
  readonly fin: boolean;
  readonly payload: Uint8Array;
  /** Use a longer length field than needed: not allowed for a sender, but it is read. */
  readonly form: 0 | 16 | 64;
}

/** An independent writer of frames. */
function bytesOf({ opcode, fin, payload, form }: Frame, masked: boolean): Buffer {
  const length = payload.length;
  const field = form === 64 || length > 0xffff ? 127 : form === 16 || length > 125 ? 126 : length;
  const head = Buffer.alloc(field === 127 ? 10 : field === 126 ? 4 : 2);
  head[0] = (fin ? 0x80 : 0) | opcode;
  head[1] = (masked ? 0x80 : 0) | field;
  if (field === 126) head.writeUInt16BE(length, 2);
  if (field === 127) head.writeBigUInt64BE(BigInt(length), 2);
  const mask = masked ? Buffer.from([0xa1, 0x02, 0xff, 0x7f]) : Buffer.alloc(0);
  return Buffer.concat([head, mask, Buffer.from(payload.map((byte, i) => (masked ? byte ^ mask[i % 4]! : byte)))]);
}

const dataFrame = fc.record({
  opcode: fc.constantFrom(0, 1, 2),
  fin: fc.boolean(),
  payload: fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.integer({ min: 120, max: 70_000 }).map((length) => new Uint8Array(length).fill(0x81)),
  ),
  form: fc.constantFrom<0 | 16 | 64>(0, 0, 16, 64),
});
const controlFrame = fc.record({
  opcode: fc.constantFrom(9, 10),
  fin: fc.constant(true),
  payload: fc.uint8Array({ maxLength: 125 }),
  form: fc.constant<0>(0),
});
const frames = fc.array(fc.oneof(dataFrame, controlFrame), { maxLength: 8 });
const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 });

/** The bytes in pieces, cut at these fractions. */
function pieces(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [0, ...at.map((part) => Math.round(part * bytes.length)).sort((a, b) => a - b), bytes.length];
  return places.slice(1).map((end, i) => bytes.subarray(places[i], end));
}

t.test('however the bytes are split, boundaries, messages and the code are the same', async () => {
  fc.assert(
    fc.property(frames, cuts, fc.boolean(), fc.integer({ min: 1000, max: 4999 }), (all, at, masked, code) => {
      const parts = all.map((frame) => bytesOf(frame, masked));
      const boundaries = new Set([0]);
      let end = 0;
      for (const part of parts) boundaries.add((end += part.length));
      const watch = new FrameWatch(masked);
      let passed = 0;
      for (const piece of pieces(Buffer.concat(parts), at)) {
        if (watch.pass(piece) !== piece.length) return false;
        passed += piece.length;
        if (watch.atBoundary !== boundaries.has(passed)) return false;
      }
      const messages = all.filter(({ opcode, fin }) => opcode <= 2 && fin).length;
      if (watch.lost || watch.messages !== messages || watch.closeCode !== 0) return false;
      const goodbye = masked ? maskedCloseFrame(code, 'why') : closeFrame(code, 'why');
      for (const piece of pieces(goodbye, at)) {
        if (watch.closeCode !== 0 && piece.length > 0) return false;
        watch.pass(piece);
      }
      return watch.closeCode === code && !watch.atBoundary && !watch.lost;
    }),
    { numRuns: 400 },
  );
});

t.test('stopped after one frame, the rest passes as if nothing had been', async () => {
  fc.assert(
    fc.property(frames, cuts, fc.boolean(), (all, at, masked) => {
      const parts = all.map((frame) => bytesOf(frame, masked));
      const ends: number[] = [];
      const watch = new FrameWatch(masked);
      let passed = 0;
      for (const piece of pieces(Buffer.concat(parts), at)) {
        for (let rest = piece; rest.length > 0; ) {
          const step = watch.pass(rest, true);
          passed += step;
          rest = rest.subarray(step);
          if (watch.atBoundary) ends.push(passed);
          else if (rest.length > 0) return false;
        }
      }
      let end = 0;
      const wanted = parts.map((part) => (end += part.length));
      return JSON.stringify(ends) === JSON.stringify(wanted);
    }),
    { numRuns: 300 },
  );
});

t.test('any bytes at all pass, and never throw', async () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 20 }), fc.boolean(), (all, fromClient) => {
      const watch = new FrameWatch(fromClient);
      return all.every((bytes) => watch.pass(bytes) === bytes.length) && !(watch.lost && watch.atBoundary);
    }),
    { numRuns: 2000 },
  );
});

t.test('what is no frame is no longer looked at', async (t) => {
  const cases: readonly [what: string, bytes: number[], fromClient: boolean][] = [
    ['a reserved opcode of data', [0x83, 0x00], false],
    ['a reserved opcode of control', [0x8b, 0x00], false],
    ['a client that does not mask', [0x81, 0x00], true],
    ['a server that does', [0x81, 0x80], false],
    ['a control frame in parts', [0x09, 0x00], false],
    ['a control frame that is long', [0x89, 126], false],
    ['a Close frame with half a code', [0x88, 0x01], false],
    ['a length that no number holds', [0x82, 127, 0x00, 0x20, 0, 0, 0, 0, 0, 0], false],
    ['a length with its first bit set', [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 1], false],
  ];
  for (const [what, bytes, fromClient] of cases) {
    const watch = new FrameWatch(fromClient);
    t.equal(watch.pass(Buffer.from(bytes)), bytes.length);
    t.match(watch, { lost: true, atBoundary: false, closeCode: 0, messages: 0 }, what);
    watch.pass(closeFrame(1000, ''));
    t.equal(watch.closeCode, 0, 'nor is what follows');
  }
});

t.test('a Close frame without a code, and what follows it', async (t) => {
  const watch = new FrameWatch(false);
  watch.pass(Buffer.from([0x88, 0x00, 0x81, 0x01, 0x41]));
  t.match(watch, { closeCode: NO_CODE, messages: 0, lost: false, atBoundary: false });
});

t.test('a Close frame counts when it is whole', async (t) => {
  const watch = new FrameWatch(true);
  const frame = maskedCloseFrame(4001, 'a reason');
  watch.pass(frame.subarray(0, frame.length - 1));
  t.equal(watch.closeCode, 0);
  watch.pass(frame.subarray(frame.length - 1));
  t.equal(watch.closeCode, 4001);
});

t.test('extensions use the reserved bits: their frames are counted like others', async (t) => {
  const watch = new FrameWatch(false);
  watch.pass(Buffer.from([0xc1, 0x02, 0x01, 0x02]));
  t.match(watch, { messages: 1, atBoundary: true });
});

t.test('the Close frames that we make are as RFC 6455 has them', async (t) => {
  t.same(closeFrame(1001, 'bye'), Buffer.from([0x88, 0x05, 0x03, 0xe9, 0x62, 0x79, 0x65]));
  const masked = maskedCloseFrame(1001, 'bye');
  t.same([...masked.subarray(0, 2)], [0x88, 0x85]);
  const mask = masked.subarray(2, 6);
  t.same(
    masked.subarray(6).map((byte, i) => byte ^ mask[i % 4]!),
    Buffer.from([0x03, 0xe9, 0x62, 0x79, 0x65]),
  );
});

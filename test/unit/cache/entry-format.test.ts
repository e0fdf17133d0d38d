// Entries as bytes: they come back as they were, or not at all.
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import t from 'tap';
import { Entry, type EntryParts } from '../../../src/cache/entry.ts';
import { decodeEntry, encodeEntry } from '../../../src/cache/entry-format.ts';

const PARTS: EntryParts = {
  key: 'k'.repeat(43),
  upstream: 'openai',
  uri: '/v1/models?a=1',
  status: 200,
  reason: 'OK',
  headers: ['Content-Type', 'application/json', 'ETag', '"1"'],
  body: Buffer.from('{"data":[]}'),
  requestAt: 1_700_000_000_000,
  responseAt: 1_700_000_000_250,
  terms: {
    lifetimeMs: 60_000,
    initialAgeMs: 0,
    alwaysValidate: false,
    neverStale: true,
    staleWhileRevalidateMs: 0,
    staleIfErrorMs: 1000,
    etag: '"1"',
    lastModified: '',
  },
  vary: ['accept'],
  varyValues: ['application/json'],
  costMs: 250.5,
  pace: [5, 0, 11, 20],
};

const amount = fc.oneof(
  fc.nat(),
  fc.double({ min: 0, max: 1e15, noNaN: true }).map((n) => n + 0),
);
const duration = fc.oneof(amount, fc.constant(Number.POSITIVE_INFINITY));
const headerText = fc.string({ unit: fc.constantFrom(...'aZ0 ,;="\\\t\u00e9\u00ff'), maxLength: 8 });
const anyText = fc.string({ unit: 'binary', maxLength: 8 });
const varied = fc.array(fc.tuple(anyText, anyText), { maxLength: 3 });
const entries: fc.Arbitrary<Entry> = fc
  .record({
    key: anyText,
    upstream: anyText,
    uri: anyText,
    status: fc.integer({ min: 200, max: 599 }),
    reason: headerText,
    headers: fc.array(fc.tuple(headerText, headerText), { maxLength: 4 }).map((pairs) => pairs.flat()),
    body: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    requestAt: amount,
    responseAt: amount,
    terms: fc.record({
      lifetimeMs: duration,
      initialAgeMs: duration,
      alwaysValidate: fc.boolean(),
      neverStale: fc.boolean(),
      staleWhileRevalidateMs: duration,
      staleIfErrorMs: duration,
      etag: headerText,
      lastModified: headerText,
    }),
    varied,
    costMs: amount,
    steps: fc.option(fc.array(fc.tuple(fc.nat({ max: 300 }), amount), { maxLength: 4 })),
  })
  .map(({ varied, steps, ...parts }) => {
    const sorted = steps?.toSorted(([one], [other]) => one - other);
    const pace = sorted?.flatMap(([at, ms]) => [Math.min(at, parts.body.length), ms]) ?? null;
    const vary = varied.map(([name]) => name);
    return new Entry({ ...parts, pace, vary, varyValues: varied.map(([, value]) => value) });
  });

/** The same layout, written by somebody else: whatever head and body, with a right checksum. */
function sealed(head: unknown, body = PARTS.body, raw?: Buffer, bodyLength = body.length): Buffer {
  const headBytes = raw ?? Buffer.from(JSON.stringify(head));
  const bytes = Buffer.concat([Buffer.from([0x61, 0x70, 0x63, 1]), Buffer.alloc(12), headBytes, body]);
  bytes.writeUInt32BE(headBytes.length, 4);
  bytes.writeUInt32BE(bodyLength, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(16), crc32(bytes.subarray(0, 12))), 12);
  return bytes;
}

function headOf(bytes: Buffer): Record<string, unknown> {
  return JSON.parse(bytes.toString('utf8', 16, 16 + bytes.readUInt32BE(4)));
}

const HEAD = headOf(encodeEntry(new Entry(PARTS)));

t.test('an entry comes back as it was', async (t) => {
  t.strictSame(decodeEntry(encodeEntry(new Entry(PARTS))), new Entry(PARTS));
  fc.assert(
    fc.property(entries, (entry) => {
      const back = decodeEntry(encodeEntry(entry));
      if (back === null) throw new Error('null');
      if (!back.body.equals(entry.body)) throw new Error('another body');
      for (const name of Object.keys(entry) as (keyof Entry)[]) {
        if (name === 'body') continue;
        if (show(back[name]) !== show(entry[name]))
          throw new Error(`${name}: ${show(back[name])} ${show(entry[name])}`);
      }
    }),
    { numRuns: 500 },
  );
});

function show(value: unknown): string {
  return JSON.stringify(value, (_, of) => (of === Number.POSITIVE_INFINITY ? 'Infinity' : of));
}

t.test('Infinity survives, and no other odd number does', async (t) => {
  const withTerms = (terms: Partial<EntryParts['terms']>) =>
    decodeEntry(encodeEntry(new Entry({ ...PARTS, terms: { ...PARTS.terms, ...terms } })));
  const names = ['lifetimeMs', 'initialAgeMs', 'staleWhileRevalidateMs', 'staleIfErrorMs'] as const;
  for (const name of names) {
    t.equal(withTerms({ [name]: Number.POSITIVE_INFINITY })?.terms[name], Number.POSITIVE_INFINITY);
    for (const value of [Number.NaN, Number.NEGATIVE_INFINITY, -2, -0.5]) t.equal(withTerms({ [name]: value }), null);
  }
  for (const name of ['requestAt', 'responseAt', 'costMs', 'status'] as const) {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, -1]) {
      t.equal(decodeEntry(encodeEntry(new Entry({ ...PARTS, [name]: value }))), null, `${name} ${value}`);
    }
  }
});

t.test('every truncation, and every byte more, is null', async () => {
  fc.assert(
    fc.property(entries, (entry) => {
      const bytes = encodeEntry(entry);
      for (let length = 0; length < bytes.length; length++) {
        if (decodeEntry(bytes.subarray(0, length))) throw new Error(`${length} of ${bytes.length}`);
      }
      if (decodeEntry(Buffer.concat([bytes, Buffer.from([0])]))) throw new Error('one more');
    }),
    { numRuns: 50 },
  );
});

t.test('every changed byte is null', async () => {
  fc.assert(
    fc.property(entries, fc.integer({ min: 1, max: 255 }), (entry, flip) => {
      const bytes = encodeEntry(entry);
      for (let at = 0; at < bytes.length; at++) {
        bytes[at]! ^= flip;
        if (decodeEntry(bytes)) throw new Error(`byte ${at} of ${bytes.length}`);
        bytes[at]! ^= flip;
      }
      if (!decodeEntry(bytes)) throw new Error('not restored');
    }),
    { numRuns: 50 },
  );
});

t.test('a boundary between head and body that was moved is null', async (t) => {
  const bytes = encodeEntry(new Entry({ ...PARTS, body: Buffer.from('    ') }));
  // Blanks behind the head are still JSON: only the checksum of the lengths tells.
  bytes.writeUInt32BE(bytes.readUInt32BE(4) + 1, 4);
  bytes.writeUInt32BE(bytes.readUInt32BE(8) - 1, 8);
  t.equal(decodeEntry(bytes), null);
});

t.test('any bytes at all are null and no error', async () => {
  const anyBytes = fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(anyBytes, fc.boolean(), (bytes, begin) => {
      const seen = begin ? Buffer.concat([Buffer.from([0x61, 0x70, 0x63, 1]), bytes]) : bytes;
      if (decodeEntry(seen)) throw new Error(seen.toString('hex'));
      if (decodeEntry(sealed(null, PARTS.body, bytes))) throw new Error(seen.toString('hex'));
    }),
    { numRuns: 500 },
  );
});

t.test('a head that is sealed right but says nonsense is null', async (t) => {
  t.strictSame(decodeEntry(sealed(HEAD)), new Entry(PARTS), 'the seal of this test is right');
  const terms = HEAD.terms as Record<string, unknown>;
  for (const name of Object.keys(HEAD)) {
    const { [name]: _, ...rest } = HEAD;
    t.equal(decodeEntry(sealed(rest)), null, `without ${name}`);
    t.equal(decodeEntry(sealed({ ...HEAD, [name]: { a: 1 } })), null, `${name} as an object`);
    t.equal(decodeEntry(sealed({ ...HEAD, [name]: true })), null, `${name} as a boolean`);
  }
  for (const name of Object.keys(terms)) {
    const { [name]: _, ...rest } = terms;
    t.equal(decodeEntry(sealed({ ...HEAD, terms: rest })), null, `without terms.${name}`);
    t.equal(decodeEntry(sealed({ ...HEAD, terms: { ...terms, [name]: null } })), null, `terms.${name} null`);
  }
  const table: [what: string, of: Record<string, unknown>][] = [
    ['a status as text', { status: '200' }],
    ['a broken status', { status: 200.5 }],
    ['a status of 100', { status: 199 }],
    ['a status of 600', { status: 600 }],
    ['an odd number of header texts', { headers: ['a'] }],
    ['a header that is no text', { headers: ['a', 1] }],
    ['headers as an object', { headers: { 0: 'a', 1: 'b', length: 2 } }],
    ['a line end in a header', { headers: ['a', 'b\r\nc: d'] }],
    ['a line feed in a header name', { headers: ['a\nb', 'c'] }],
    ['a NUL in a header', { headers: ['a', '\0'] }],
    ['a DEL in a header', { headers: ['a', '\x7f'] }],
    ['a header beyond latin1', { headers: ['a', '\u0100'] }],
    ['a line end in the reason', { reason: 'OK\r\n' }],
    ['a line end in a validator', { terms: { ...terms, etag: '"a"\r\n' } }],
    ['a line end in a date', { terms: { ...terms, lastModified: '\n' } }],
    ['Vary and its values of two lengths', { vary: ['a', 'b'], varyValues: ['c'] }],
    ['an odd pace', { pace: [1, 2, 3] }],
    ['a pace past the body', { pace: [12, 0] }],
    ['a pace that goes back', { pace: [5, 0, 4, 1] }],
    ['a negative pace', { pace: [5, -1] }],
    ['a pace of texts', { pace: ['5', '1'] }],
    ['a pace as text', { pace: '5' }],
  ];
  for (const [what, of] of table) t.equal(decodeEntry(sealed({ ...HEAD, ...of })), null, what);
  const huge = JSON.stringify(HEAD).replace('1700000000000', '1e999');
  t.equal(decodeEntry(sealed(null, PARTS.body, Buffer.from(huge))), null, 'a number that is parsed as Infinity');
  for (const length of [0, PARTS.body.length - 1, PARTS.body.length + 1, 2 ** 32 - 1]) {
    t.equal(decodeEntry(sealed(HEAD, PARTS.body, undefined, length)), null, `a body length of ${length}`);
  }
  for (const head of [null, [], [HEAD], 'head', 1]) t.equal(decodeEntry(sealed(head)), null, JSON.stringify(head));
});

t.test('another version of the format is null', async (t) => {
  const bytes = encodeEntry(new Entry(PARTS));
  t.equal(bytes.toString('latin1', 0, 4), 'apc\x01');
  bytes[3] = 2;
  bytes.writeUInt32BE(crc32(bytes.subarray(16), crc32(bytes.subarray(0, 12))), 12);
  t.equal(decodeEntry(bytes), null);
});

t.test('a body keeps no more memory alive than its own and a head', async (t) => {
  const held = (entry: Entry | null) => entry!.body.buffer.byteLength;
  const small = encodeEntry(new Entry(PARTS));
  t.equal(held(decodeEntry(small)), PARTS.body.length, 'a small body is copied');

  const body = Buffer.alloc(100_000, 'x');
  const large = encodeEntry(new Entry({ ...PARTS, body }));
  t.equal(decodeEntry(large)!.body.buffer, large.buffer, 'a large one is not');

  const piece = Buffer.alloc(300_000);
  large.copy(piece, 1000);
  const entry = decodeEntry(piece.subarray(1000, 1000 + large.length));
  t.equal(held(entry), 100_000, 'but it is where it came with much else');
  t.ok(entry!.body.equals(body));
});

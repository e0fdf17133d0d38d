// Ranges of a stored answer: RFC 9110 sections 13.1.5 and 14.
import fc from 'fast-check';
import t from 'tap';
import type { Terms } from '../../../src/cache/entry.ts';
import { partialHeaders, rangeOf, unsatisfiableHeaders } from '../../../src/cache/ranges.ts';
import { NO_FIELDS } from '../../../src/cache/request-fields.ts';

const MODIFIED = 'Sun, 06 Nov 1994 08:49:37 GMT';
const LATER = 'Sun, 06 Nov 1994 08:49:38 GMT';
const TERMS: Terms = {
  lifetimeMs: 0,
  initialAgeMs: 0,
  alwaysValidate: false,
  neverStale: false,
  staleWhileRevalidateMs: 0,
  staleIfErrorMs: 0,
  etag: '"a"',
  lastModified: MODIFIED,
};
const stored = (bytes: number, more: { status?: number; etag?: string; date?: string } = {}) => ({
  status: more.status ?? 200,
  headers: more.date === '' ? [] : ['Date', more.date ?? LATER],
  body: Buffer.alloc(bytes),
  terms: { ...TERMS, etag: more.etag ?? '"a"' },
});
const asked = (range: string, ifRange = '') => ({ ...NO_FIELDS, range, ifRange });

t.test('a single range is cut to the body (RFC 9110 section 14.1.2)', async (t) => {
  const table: [range: string, verdict: unknown][] = [
    ['bytes=0-0', { from: 0, to: 0 }],
    ['bytes=0-', { from: 0, to: 9 }],
    ['bytes=3-5', { from: 3, to: 5 }],
    ['BYTES=3-5', { from: 3, to: 5 }],
    ['bytes=9-9', { from: 9, to: 9 }],
    ['bytes=9-99', { from: 9, to: 9 }],
    ['bytes=1-99999999999999999999999', { from: 1, to: 9 }],
    ['bytes=-1', { from: 9, to: 9 }],
    ['bytes=-10', { from: 0, to: 9 }],
    ['bytes=-11', { from: 0, to: 9 }],
    ['bytes=-99999999999999999999999', { from: 0, to: 9 }],
    ['bytes=, 3-5\t,', { from: 3, to: 5 }],
    ['bytes=10-', 'unsatisfiable'],
    ['bytes=10-20', 'unsatisfiable'],
    ['bytes=99999999999999999999999-99999999999999999999999', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
  ];
  for (const [range, verdict] of table) t.same(rangeOf(stored(10), asked(range)), verdict, range);
  t.equal(rangeOf(stored(10), NO_FIELDS), 'whole');
});

t.test('a Range that is malformed or of an unknown unit is ignored (RFC 9110 section 14.2)', async (t) => {
  const bad = [
    'bytes',
    'bytes=',
    'bytes=,',
    'bytes=-',
    'bytes=a-b',
    'bytes=1',
    'bytes=5-3',
    'bytes=1-2-3',
    'bytes=--1',
  ];
  bad.push('bytes=+1-2', 'bytes=1 -2', 'bytes=0x0-1', 'bytes 0-1', 'items=0-1', 'byte=0-1', 'xbytes=0-1', ' bytes=0-1');
  bad.push('bytes=0-1, x', 'bytes=5-3, 0-1', 'bytes=0-1, bytes=2-3', 'bytes=1.0-2');
  for (const range of bad) t.equal(rangeOf(stored(10), asked(range)), 'whole', range);
});

t.test('several ranges are left to the upstream (RFC 9110 section 14.2)', async (t) => {
  for (const range of ['bytes=0-1,2-3', 'bytes=0-1, -1', 'bytes=0-0,0-0', 'bytes=20-, 30-']) {
    t.equal(rangeOf(stored(10), asked(range)), 'pass', range);
  }
});

t.test('of an empty body no range can be said (RFC 9110 section 14.4)', async (t) => {
  t.equal(rangeOf(stored(0), asked('bytes=0-')), 'unsatisfiable');
  t.equal(rangeOf(stored(0), asked('bytes=-5')), 'whole');
});

t.test('only a stored 200 has ranges (RFC 9110 section 14.2)', async (t) => {
  for (const status of [203, 204, 301, 404, 500]) {
    t.equal(rangeOf(stored(10, { status }), asked('bytes=0-1')), 'whole', String(status));
  }
});

t.test('If-Range holds with the same strong validator only (RFC 9110 section 13.1.5)', async (t) => {
  const cut = { from: 0, to: 1 };
  const table: [ifRange: string, more: Parameters<typeof stored>[1], verdict: unknown][] = [
    ['"a"', {}, cut],
    ['"b"', {}, 'whole'],
    ['"a", "b"', {}, 'whole'],
    ['"A"', {}, 'whole'],
    ['W/"a"', { etag: 'W/"a"' }, 'whole'],
    ['W/"a"', {}, 'whole'],
    ['"a"', { etag: 'W/"a"' }, 'whole'],
    ['"a"', { etag: '' }, 'whole'],
    [MODIFIED, {}, cut],
    ['Sunday, 06-Nov-94 08:49:37 GMT', {}, cut],
    [LATER, {}, 'whole'],
    ['Sun, 06 Nov 1994 08:49:36 GMT', {}, 'whole'],
    [MODIFIED, { date: MODIFIED }, 'whole'],
    [MODIFIED, { date: '' }, 'whole'],
    ['x', {}, 'whole'],
    ['a', {}, 'whole'],
    ['*', {}, 'whole'],
  ];
  for (const [ifRange, more, verdict] of table) {
    t.same(rangeOf(stored(10, more), asked('bytes=0-1', ifRange)), verdict, `${ifRange} ${JSON.stringify(more)}`);
  }
  const undated = { ...stored(10), terms: { ...TERMS, lastModified: '' } };
  t.equal(rangeOf(undated, asked('bytes=0-1', 'x')), 'whole', 'two dates that are none are not the same date');
});

t.test('the heads of 206 and 416 say what is sent (RFC 9110 sections 14.4, 15.5.17)', async (t) => {
  const head = ['ETag', '"a"', 'content-LENGTH', '10', 'Content-Range', 'x', 'Content-Type', 't'];
  t.same(partialHeaders(head, 2, 5, 10), [
    ...['ETag', '"a"', 'Content-Type', 't'],
    ...['Content-Range', 'bytes 2-5/10', 'Content-Length', '4'],
  ]);
  t.same(unsatisfiableHeaders(10), ['Content-Range', 'bytes */10', 'Content-Length', '0']);
});

t.test('a range never leaves the body and is never empty (property)', async (t) => {
  const number = fc.oneof(fc.nat(30).map(String), fc.constantFrom('', '0', '9'.repeat(30)));
  const property = fc.property(fc.nat(20), number, number, (bytes, first, last) => {
    const verdict = rangeOf(stored(bytes), asked(`bytes=${first}-${last}`));
    if (typeof verdict === 'string') return verdict !== 'pass';
    if (!(verdict.from >= 0 && verdict.from <= verdict.to && verdict.to < bytes)) return false;
    return first === '' ? verdict.to === bytes - 1 : verdict.from === Number(first);
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 2000 }));
});

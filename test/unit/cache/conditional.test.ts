// Validators: RFC 9110 section 13, RFC 9111 sections 3.2 and 4.3.
import t from 'tap';
import {
  describesSame,
  mergedHead,
  notModified,
  notModifiedHeaders,
  revalidationPairs,
  validatorsOf,
  withoutConditionals,
} from '../../../src/cache/conditional.ts';
import type { Terms } from '../../../src/cache/entry.ts';
import { NO_FIELDS } from '../../../src/cache/request-fields.ts';

const BEFORE = 'Sun, 06 Nov 1994 08:49:36 GMT';
const MODIFIED = 'Sun, 06 Nov 1994 08:49:37 GMT';
const AFTER = 'Sun, 06 Nov 1994 08:49:38 GMT';
const RESPONSE_AT = Date.parse(MODIFIED);

function stored(etag: string, lastModified = '', headers: string[] = [], status = 200) {
  const terms: Terms = {
    lifetimeMs: 0,
    initialAgeMs: 0,
    alwaysValidate: false,
    neverStale: false,
    staleWhileRevalidateMs: 0,
    staleIfErrorMs: 0,
    etag,
    lastModified,
  };
  return { status, headers, terms, responseAt: RESPONSE_AT, body: Buffer.from('12345') };
}

t.test('If-None-Match compares weakly, in a list (RFC 9110 section 13.1.2)', async (t) => {
  const table: [etag: string, ifNoneMatch: string, found: boolean][] = [
    ['"a"', '"a"', true],
    ['"a"', 'W/"a"', true],
    ['W/"a"', '"a"', true],
    ['W/"a"', 'W/"a"', true],
    ['"a"', '"b"', false],
    ['"a"', '"A"', false],
    ['"a"', 'w/"a"', false],
    ['"a"', 'a', false],
    ['"a"', '"x", W/"y" ,"a"', true],
    ['"a"', ',,"x",\t"a",', true],
    ['"a,b"', '"x", "a,b"', true],
    ['"a"', '"x,"a","y"', false],
    ['"a"', 'junk, "a"', false],
    ['"a"', '"x" "a"', false],
    ['"a"', '*', true],
    ['', '*', true],
    ['', '"a"', false],
    ['"a"', '*, "b"', false],
    ['""', '""', true],
    ['"é"', '"é"', true],
  ];
  for (const [etag, ifNoneMatch, found] of table) {
    t.equal(notModified(stored(etag), { ...NO_FIELDS, ifNoneMatch }), found, `${etag} ${ifNoneMatch}`);
  }
});

t.test('If-None-Match decides alone where both are given (RFC 9110 section 13.2.2)', async (t) => {
  const entry = stored('"a"', MODIFIED);
  t.equal(notModified(entry, { ...NO_FIELDS, ifNoneMatch: '"b"', ifModifiedSince: AFTER }), false);
  t.equal(notModified(entry, { ...NO_FIELDS, ifNoneMatch: '"a"', ifModifiedSince: BEFORE }), true);
  t.equal(notModified(entry, NO_FIELDS), false);
});

t.test('If-Modified-Since is met by a date not before the last change (RFC 9110 section 13.1.3)', async (t) => {
  const entry = stored('', MODIFIED);
  const table: [since: string, found: boolean][] = [
    [BEFORE, false],
    [MODIFIED, true],
    [AFTER, true],
    ['Sunday, 06-Nov-94 08:49:37 GMT', true],
    ['2030-01-01', false],
    ['0', false],
    [`${AFTER}, ${AFTER}`, false],
  ];
  for (const [ifModifiedSince, found] of table) {
    t.equal(notModified(entry, { ...NO_FIELDS, ifModifiedSince }), found, ifModifiedSince);
  }
});

t.test('without Last-Modified, Date or the time of receipt stands in for it (RFC 9111 section 4.3.2)', async (t) => {
  const since = (ifModifiedSince: string) => ({ ...NO_FIELDS, ifModifiedSince });
  t.equal(notModified(stored('', '', ['Date', AFTER]), since(MODIFIED)), false);
  t.equal(notModified(stored('', '', ['Date', AFTER]), since(AFTER)), true);
  t.equal(notModified(stored(''), since(BEFORE)), false);
  t.equal(notModified(stored(''), since(MODIFIED)), true);
  t.equal(notModified(stored('', '', ['Date', 'x']), since(MODIFIED)), true);
});

t.test(
  'conditions count only where the answer is a success, dates only with a 200 (RFC 9110 section 13.2.1)',
  async (t) => {
    for (const status of [301, 404, 500]) {
      t.equal(notModified(stored('"a"', '', [], status), { ...NO_FIELDS, ifNoneMatch: '"a"' }), false);
      t.equal(notModified(stored('"a"', '', [], status), { ...NO_FIELDS, ifNoneMatch: '*' }), false);
    }
    t.equal(notModified(stored('"a"', '', [], 203), { ...NO_FIELDS, ifNoneMatch: '"a"' }), true);
    for (const status of [203, 404]) {
      t.equal(notModified(stored('', MODIFIED, [], status), { ...NO_FIELDS, ifModifiedSince: AFTER }), false);
    }
  },
);

t.test('a revalidation sends the validators as they came (RFC 9111 section 4.3.1)', async (t) => {
  t.same(revalidationPairs(stored('W/"a"', MODIFIED)), ['If-None-Match', 'W/"a"', 'If-Modified-Since', MODIFIED]);
  t.same(revalidationPairs(stored('"a"')), ['If-None-Match', '"a"']);
  t.same(revalidationPairs(stored('', MODIFIED)), ['If-Modified-Since', MODIFIED]);
  t.same(revalidationPairs(stored('')), []);
});

t.test('validators that cannot be compared are none (RFC 9110 sections 8.8.2, 8.8.3)', async (t) => {
  const table: [pairs: string[], etag: string, lastModified: string][] = [
    [['ETAG', '"a"', 'last-modified', MODIFIED], '"a"', MODIFIED],
    [['ETag', 'W/"a"'], 'W/"a"', ''],
    [['ETag', '""'], '""', ''],
    [['ETag', '"a"', 'ETag', '"a"'], '"a"', ''],
    [['ETag', '"a"', 'ETag', '"b"'], '', ''],
    [['ETag', 'a'], '', ''],
    [['ETag', 'w/"a"'], '', ''],
    [['ETag', '"a b"'], '', ''],
    [['ETag', '"a""b"'], '', ''],
    [['Last-Modified', 'yesterday'], '', ''],
    [['Last-Modified', MODIFIED, 'Last-Modified', AFTER], '', ''],
    [[], '', ''],
  ];
  for (const [pairs, etag, lastModified] of table) t.same(validatorsOf(pairs), { etag, lastModified }, pairs.join(' '));
});

t.test('a request for the cache has no conditions of its own (RFC 9111 section 4.3.1)', async (t) => {
  const names = ['If-None-Match', 'if-modified-since', 'IF-RANGE', 'Range', 'If-Match', 'If-Unmodified-Since'];
  const left = ['Accept', 'a', 'accept', 'b', 'X-Range', 'c', 'If', 'd', 'Content-Range', 'e'];
  t.same(withoutConditionals([...left, ...names.flatMap((name) => [name, 'x'])]), left);
  t.same(withoutConditionals([...names.flatMap((name) => [name, 'x']), ...left]), left);
});

t.test('the fields of a 304 replace the stored ones in their place (RFC 9111 section 3.2)', async (t) => {
  const before = ['Date', '1', 'X-A', 'old', 'ETag', '"a"', 'x-a', 'old2', 'Content-Length', '5', 'Set-Cookie', 's'];
  const table: [fresh: string[], merged: string[]][] = [
    [[], before],
    [
      ['X-New', 'n', 'DATE', '2', 'x-new', 'm'],
      ['DATE', '2', ...before.slice(2), 'X-New', 'n', 'x-new', 'm'],
    ],
    [
      ['x-A', '1', 'X-a', '2', 'X-A', '3'],
      ['Date', '1', 'x-A', '1', 'X-a', '2', 'X-A', '3', 'ETag', '"a"', 'Content-Length', '5', 'Set-Cookie', 's'],
    ],
    [['Content-Length', '0', 'Content-Encoding', 'gzip', 'Content-Range', 'x', 'Transfer-Encoding', 'chunked'], before],
    [['Server-Timing', 'x'], before],
    [
      ['age', '5'],
      [...before, 'age', '5'],
    ],
  ];
  for (const [fresh, merged] of table) t.same(mergedHead(before, fresh), merged, fresh.join(' '));
});

t.test('a 304 speaks of the stored answer if its validator is ours (RFC 9111 section 4.3.4)', async (t) => {
  const table: [etag: string, lastModified: string, fresh: string[], same: boolean][] = [
    ['"a"', '', ['ETag', '"a"'], true],
    ['"a"', '', ['ETag', '"b"'], false],
    ['W/"a"', '', ['ETag', '"a"'], false],
    ['"a"', '', ['ETag', 'W/"a"'], true],
    ['W/"a"', '', ['ETag', 'W/"a"'], true],
    ['W/"a"', '', ['ETag', 'W/"b"'], false],
    ['', MODIFIED, ['ETag', '"a"', 'Last-Modified', MODIFIED], false],
    ['', MODIFIED, ['ETag', 'W/"a"', 'Last-Modified', MODIFIED], false],
    ['"a"', MODIFIED, ['ETag', '"a"', 'Last-Modified', AFTER], true],
    ['"a"', MODIFIED, ['Last-Modified', MODIFIED], true],
    ['"a"', MODIFIED, ['Last-Modified', AFTER], false],
    ['"a"', '', ['Last-Modified', MODIFIED], false],
    ['"a"', '', [], true],
    ['"a"', '', ['ETag', 'broken'], true],
    ['"a"', '', ['ETag', '"a"', 'Content-Length', '99'], true],
  ];
  for (const [etag, lastModified, fresh, same] of table) {
    t.equal(describesSame(stored(etag, lastModified), fresh, '304'), same, `${etag} ${lastModified}: ${fresh}`);
  }
});

t.test('an answer to HEAD must agree in validator and length (RFC 9111 section 4.3.5)', async (t) => {
  const table: [fresh: string[], same: boolean][] = [
    [['ETag', '"a"'], true],
    [['ETag', '"a"', 'Content-Length', '5'], true],
    [['ETag', '"a"', 'Content-Length', '6'], false],
    [['ETag', '"a"', 'Content-Length', '5', 'content-length', '6'], false],
    [['ETag', '"b"', 'Content-Length', '5'], false],
    [['Last-Modified', MODIFIED], true],
    [['Content-Length', '5'], false],
    [[], false],
  ];
  for (const [fresh, same] of table) {
    t.equal(describesSame(stored('"a"', MODIFIED), fresh, 'HEAD'), same, fresh.join(' '));
  }
});

t.test('our own 304 carries what is not about the body (RFC 9110 section 15.4.5)', async (t) => {
  const carried = ['Cache-Control', 'Content-Location', 'Date', 'ETag', 'Expires', 'Vary', 'Last-Modified', 'X-Id'];
  const dropped = ['Content-Type', 'content-length', 'Content-Encoding', 'Content-Language', 'CONTENT-RANGE'];
  const pairs = (names: string[]) => names.flatMap((name) => [name, 'v']);
  t.same(notModifiedHeaders(pairs([...dropped, ...carried])), pairs(carried));
});

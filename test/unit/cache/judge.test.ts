// May a stored answer be used now: RFC 9111 sections 4.2 and 5.2.1, RFC 5861.
import t from 'tap';
import { Entry, type Terms } from '../../../src/cache/entry.ts';
import { freshUntil, type Judgement, judge, KEEP_MS, mayServeOnError, worthKeeping } from '../../../src/cache/judge.ts';
import { NO_FIELDS, type RequestFields } from '../../../src/cache/request-fields.ts';

const NOW = Date.UTC(2026, 8, 14, 12, 0, 0);
const TERMS: Terms = {
  lifetimeMs: 10_000,
  initialAgeMs: 0,
  alwaysValidate: false,
  neverStale: false,
  staleWhileRevalidateMs: 0,
  staleIfErrorMs: 0,
  etag: '',
  lastModified: '',
};

function entry(terms: Partial<Terms> = {}): Entry {
  return new Entry({
    key: 'k',
    upstream: 'u',
    uri: '/',
    status: 200,
    reason: 'OK',
    headers: [],
    body: Buffer.alloc(0),
    requestAt: NOW,
    responseAt: NOW,
    terms: { ...TERMS, ...terms },
    vary: [],
    varyValues: [],
    costMs: 0,
    pace: null,
  });
}

const fields = (request: Partial<RequestFields>) => ({ ...NO_FIELDS, ...request });

t.test('an entry is judged by its terms and the wishes of the request (RFC 9111 sections 4.2, 5.2)', async (t) => {
  const swr = { staleWhileRevalidateMs: 5000 };
  const table: [age: number, terms: Partial<Terms>, request: Partial<RequestFields>, judgement: Judgement][] = [
    // section 4.2: fresh is younger than the lifetime
    [0, {}, {}, 'fresh'],
    [9999, {}, {}, 'fresh'],
    [10_000, {}, {}, 'expired'],
    [-5000, {}, {}, 'fresh'],
    [0, { lifetimeMs: 0 }, {}, 'expired'],
    [4999, { initialAgeMs: 5000 }, {}, 'fresh'],
    [5000, { initialAgeMs: 5000 }, {}, 'expired'],
    // section 5.2.1.4, 5.2.2.4
    [0, {}, { noCache: true }, 'request_no_cache'],
    [0, { alwaysValidate: true }, { noCache: true }, 'request_no_cache'],
    [0, { alwaysValidate: true }, {}, 'no_cache'],
    [20_000, { alwaysValidate: true, ...swr }, { maxStaleMs: Infinity }, 'no_cache'],
    // section 5.2.1.1
    [5000, {}, { maxAgeMs: 5000 }, 'fresh'],
    [5001, {}, { maxAgeMs: 5000 }, 'request_max_age'],
    [1, {}, { maxAgeMs: 0 }, 'request_max_age'],
    [0, {}, { maxAgeMs: 0 }, 'fresh'],
    [10_500, {}, { maxAgeMs: 20_000 }, 'expired'],
    [10_500, {}, { maxAgeMs: 10_000, maxStaleMs: 500 }, 'stale_allowed'],
    [10_500, {}, { maxAgeMs: 10_000, maxStaleMs: 499 }, 'request_max_age'],
    [10_500, {}, { maxAgeMs: 5000, maxStaleMs: 500 }, 'request_max_age'],
    [10_500, {}, { maxAgeMs: 5000, maxStaleMs: Infinity }, 'stale_allowed'],
    // section 5.2.1.3
    [5000, {}, { minFreshMs: 5000 }, 'fresh'],
    [5001, {}, { minFreshMs: 5000 }, 'request_min_fresh'],
    [10_500, {}, { minFreshMs: 5000, maxStaleMs: Infinity }, 'request_min_fresh'],
    [9999, {}, { minFreshMs: 0 }, 'fresh'],
    [10_001, swr, { minFreshMs: 0 }, 'request_min_fresh'],
    // section 5.2.1.2
    [10_500, {}, { maxStaleMs: 500 }, 'stale_allowed'],
    [10_501, {}, { maxStaleMs: 500 }, 'expired'],
    [1e12, {}, { maxStaleMs: Infinity }, 'stale_allowed'],
    [10_000, {}, { maxStaleMs: 0 }, 'stale_allowed'],
    // section 5.2.2.2
    [9999, { neverStale: true }, {}, 'fresh'],
    [10_500, { neverStale: true }, { maxStaleMs: Infinity }, 'expired'],
    [10_500, { neverStale: true, ...swr }, {}, 'expired'],
    // RFC 5861 section 3
    [10_000, swr, {}, 'stale_while_revalidate'],
    [14_999, swr, {}, 'stale_while_revalidate'],
    [15_000, swr, {}, 'expired'],
    [10_500, swr, { maxAgeMs: 60_000 }, 'expired'],
    [10_500, swr, { maxStaleMs: 100 }, 'stale_while_revalidate'],
    [10_500, { staleIfErrorMs: 5000 }, {}, 'expired'],
  ];
  for (const [age, terms, request, judgement] of table) {
    const name = `${age} ${JSON.stringify(terms)} ${JSON.stringify(request)}`;
    t.equal(judge(entry(terms), fields(request), NOW + age), judgement, name);
  }
});

t.test('an entry may stand in for an error within its window or the request’s (RFC 5861 section 4)', async (t) => {
  const sie = { staleIfErrorMs: 5000 };
  const table: [age: number, terms: Partial<Terms>, request: Partial<RequestFields>, may: boolean][] = [
    [0, {}, {}, true],
    [9999, {}, { maxAgeMs: 0 }, true],
    [10_000, {}, {}, false],
    [10_000, sie, {}, true],
    [14_999, sie, {}, true],
    [15_000, sie, {}, false],
    [15_000, sie, { staleIfErrorMs: 6000 }, true],
    [14_999, sie, { staleIfErrorMs: 0 }, true],
    [10_500, {}, { staleIfErrorMs: 600 }, true],
    [10_600, {}, { staleIfErrorMs: 600 }, false],
    [10_500, { neverStale: true, ...sie }, { staleIfErrorMs: 6000 }, false],
    [9999, { neverStale: true }, {}, true],
    [0, { alwaysValidate: true, ...sie }, { staleIfErrorMs: 6000 }, false],
    [10_500, { staleWhileRevalidateMs: 5000 }, {}, false],
  ];
  for (const [age, terms, request, may] of table) {
    const name = `${age} ${JSON.stringify(terms)} ${JSON.stringify(request)}`;
    t.equal(mayServeOnError(entry(terms), fields(request), NOW + age), may, name);
  }
});

t.test('an entry is kept while it is fresh, may be used stale, or can be validated for a day', async (t) => {
  const etag = { etag: '"a"' };
  const lastModified = { lastModified: 'Sun, 06 Nov 1994 08:49:37 GMT' };
  const table: [age: number, terms: Partial<Terms>, keep: boolean][] = [
    [9999, {}, true],
    [10_000, {}, false],
    [14_999, { staleWhileRevalidateMs: 5000 }, true],
    [15_000, { staleWhileRevalidateMs: 5000 }, false],
    [14_999, { staleIfErrorMs: 5000, staleWhileRevalidateMs: 1000 }, true],
    [15_000, { staleIfErrorMs: 5000, staleWhileRevalidateMs: 1000 }, false],
    [10_500, { staleIfErrorMs: 5000, neverStale: true }, false],
    [10_000 + KEEP_MS - 1, etag, true],
    [10_000 + KEEP_MS, etag, false],
    [10_000 + KEEP_MS - 1, lastModified, true],
    [10_000 + KEEP_MS - 1, { ...etag, neverStale: true }, true],
    [10_000 + KEEP_MS, { ...etag, staleIfErrorMs: 2 * KEEP_MS }, true],
    [10_000 + KEEP_MS - 1, { ...etag, alwaysValidate: true }, true],
    [10_000 + KEEP_MS, { ...etag, alwaysValidate: true, staleIfErrorMs: 2 * KEEP_MS }, false],
    [0, { alwaysValidate: true }, false],
  ];
  for (const [age, terms, keep] of table) {
    t.equal(worthKeeping(entry(terms), NOW + age), keep, `${age} ${JSON.stringify(terms)}`);
  }
  t.equal(KEEP_MS, 86_400_000);
});

t.test('freshness ends at lifetime less the age it came with (RFC 9111 section 4.2)', async (t) => {
  const aged = entry({ initialAgeMs: 3000 });
  t.equal(freshUntil(aged), NOW + 7000);
  t.equal(judge(aged, NO_FIELDS, freshUntil(aged) - 1), 'fresh');
  t.equal(judge(aged, NO_FIELDS, freshUntil(aged)), 'expired');
});

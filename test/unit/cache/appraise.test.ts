// May it be stored, and on what terms: RFC 9111 sections 3, 4.2 and 5.2.2.
import t from 'tap';
import { type Appraisal, appraiseHttp, appraiseRule, type HttpPolicy } from '../../../src/cache/appraise.ts';
import type { Terms } from '../../../src/cache/entry.ts';
import { NO_FIELDS, type RequestFields } from '../../../src/cache/request-fields.ts';
import type { CacheRuleConfig } from '../../../src/config/schema.ts';

const NOW = Date.UTC(2026, 8, 14, 12, 0, 0);
const TIMES = { requestAt: NOW, responseAt: NOW };
const HOUR = 3600_000;
const POLICY: HttpPolicy = { storeSetCookie: false, heuristicFraction: 0, heuristicMaxMs: HOUR };
const HEURISTIC: HttpPolicy = { ...POLICY, heuristicFraction: 0.1 };
const date = (offsetMs: number) => new Date(NOW + offsetMs).toUTCString();
const ETAG = ['ETag', '"a"'];

interface More {
  method?: string;
  request?: Partial<RequestFields>;
  status?: number;
  times?: typeof TIMES;
  policy?: HttpPolicy;
}

function http(headers: string[], more: More = {}): Appraisal {
  const request = { ...NO_FIELDS, ...more.request };
  const { method = 'GET', status = 200, times = TIMES, policy = POLICY } = more;
  return appraiseHttp(method, request, status, headers, times, policy);
}

const control = (value: string, ...headers: string[]) => ['Cache-Control', value, ...headers];

/** The terms of an answer that must be storable. */
function terms(headers: string[], more: More = {}): Terms {
  const appraisal = http(headers, more);
  if (!appraisal.storable) throw new Error(`${headers.join(' ')}: ${appraisal.why}`);
  return appraisal.terms;
}

function headersOf(appraisal: Appraisal): string[] {
  return appraisal.storable ? appraisal.headers : [appraisal.why];
}

/** why, and whether it is private; '' = storable */
function why(appraisal: Appraisal): [string, boolean] {
  return [appraisal.storable ? '' : appraisal.why, appraisal.isPrivate];
}

t.test('an answer with explicit freshness is stored with its terms (RFC 9111 section 3)', async (t) => {
  t.same(http(control('max-age=60', ...ETAG, 'Last-Modified', date(-HOUR))), {
    storable: true,
    terms: {
      lifetimeMs: 60_000,
      initialAgeMs: 0,
      alwaysValidate: false,
      neverStale: false,
      staleWhileRevalidateMs: 0,
      staleIfErrorMs: 0,
      etag: '"a"',
      lastModified: date(-HOUR),
    },
    vary: [],
    headers: control('max-age=60', ...ETAG, 'Last-Modified', date(-HOUR)),
    isPrivate: false,
  });
});

t.test('only answers to GET are stored (RFC 9111 section 3)', async (t) => {
  for (const method of ['HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'get', 'QUERY']) {
    t.same(why(http(control('max-age=60'), { method })), ['method not cacheable', false], method);
    t.same(why(http(control('private'), { method })), ['response private', true], method);
  }
});

t.test('no-store of either side keeps it out (RFC 9111 sections 5.2.1.5, 5.2.2.5)', async (t) => {
  t.same(why(http(control('max-age=60'), { request: { noStore: true } })), ['request no-store', true]);
  t.same(why(http(control('max-age=60, No-Store'))), ['response no-store', true]);
  t.same(why(http(control('no-store="x", max-age=60'))), ['response no-store', true]);
});

t.test('must-understand sets no-store aside where the status is understood (RFC 9111 section 5.2.2.3)', async (t) => {
  for (const status of [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501]) {
    t.same(why(http(control('max-age=60, must-understand, no-store'), { status })), ['', false], String(status));
  }
  for (const status of [201, 302, 303, 307, 400, 403, 500, 599]) {
    const reason = ['must-understand with an unknown status', true];
    t.same(why(http(control('max-age=60, must-understand, no-store'), { status })), reason, String(status));
    t.same(why(http(control('max-age=60, must-understand'), { status })), reason, String(status));
  }
  const asked = http(control('max-age=60, must-understand, no-store'), { request: { noStore: true } });
  t.same(why(asked), ['request no-store', true]);
});

t.test('private keeps it out; with field names, only those (RFC 9111 section 5.2.2.7)', async (t) => {
  for (const value of ['private', 'private=""', 'private=', 'PRIVATE', 'private="X-A", private', 'private=" , "']) {
    t.same(why(http(control(`max-age=60, ${value}`))), ['response private', true], value);
  }
  const head = control('max-age=60, private="X-A, x-b"', 'x-a', '1', 'X-C', '2', 'X-B', '3', 'X-A', '4');
  t.same(headersOf(http(head)), control('max-age=60, private="X-A, x-b"', 'X-C', '2'));
  t.same(why(http(control('max-age=60, private="Content-Encoding"'))), ['response private', true], 'not without it');
});

t.test('no-cache stores it for validation; with field names, stores the rest (RFC 9111 section 5.2.2.4)', async (t) => {
  t.match(terms(control('no-cache, max-age=60', ...ETAG)), { alwaysValidate: true, lifetimeMs: 60_000 });
  t.match(terms(control('no-cache=""', ...ETAG)), { alwaysValidate: true });
  t.match(terms(control('max-age=60, no-cache="content-type"', ...ETAG)), { alwaysValidate: true });
  t.same(why(http(control('no-cache, max-age=60'))), ['no freshness and no validator', false]);
  t.same(why(http(control('no-cache, max-age=60, stale-if-error=60'))), ['no freshness and no validator', false]);
  const qualified = http(control('max-age=60, no-cache="X-A"', 'X-a', '1', 'X-B', '2'));
  t.same(headersOf(qualified), control('max-age=60, no-cache="X-A"', 'X-B', '2'));
  t.match(qualified, { terms: { alwaysValidate: false } });
  // A validator that may not be stored cannot be used.
  t.match(terms(control('max-age=60, private="etag"', ...ETAG)), { etag: '' });
});

t.test('Cache-Control that cannot be read keeps it out (RFC 9111 section 4.2.1, fail closed)', async (t) => {
  for (const value of [
    'max-age=60;',
    'max-age=60, "',
    'max-age=60, =1',
    'max-age=60, private="a b"',
    'public max-age=60',
  ]) {
    t.same(why(http(control(value, ...ETAG))), ['malformed Cache-Control', true], value);
  }
});

t.test('an answer to a request with Authorization needs permission (RFC 9111 section 3.5)', async (t) => {
  const request = { authorized: true };
  const reason = ['Authorization without permission to share', true];
  for (const value of ['max-age=60', 'max-age=60, proxy-revalidate', 'max-age=60, immutable', '']) {
    t.same(why(http(control(value, ...ETAG), { request })), reason, value);
  }
  for (const value of ['max-age=60, public', 'max-age=60, must-revalidate', 's-maxage=60']) {
    t.same(why(http(control(value), { request })), ['', false], value);
  }
  t.same(why(http(control('public, private'), { request })), ['response private', true]);
});

t.test('freshness is s-maxage, else max-age, else Expires (RFC 9111 section 4.2.1)', async (t) => {
  const table: [headers: string[], lifetimeMs: number][] = [
    [control('max-age=60, s-maxage=30'), 30_000],
    [control('max-age=60, s-maxage=0', ...ETAG), 0],
    [control('max-age=60', 'Expires', date(HOUR)), 60_000],
    [control('max-age=0', 'Expires', date(HOUR), ...ETAG), 0],
    [control('max-age=60', 'Expires', '0'), 60_000],
    [['Expires', date(HOUR)], HOUR],
    [['Expires', date(HOUR), 'Expires', date(HOUR)], HOUR],
    [['Expires', date(HOUR), 'Date', date(-1000)], HOUR + 1000],
    [['Expires', date(HOUR), 'Date', date(5000)], HOUR - 5000],
    [['Expires', date(HOUR), 'Date', 'garbage'], HOUR],
    [['Expires', date(-HOUR), ...ETAG], 0],
    [['Expires', date(0), ...ETAG], 0],
    [control('max-age=99999999999'), 2 ** 31 * 1000],
    [control('max-age=60', 'Pragma', 'no-cache'), 60_000],
    [[...ETAG], 0],
  ];
  for (const [headers, lifetimeMs] of table) t.equal(terms(headers).lifetimeMs, lifetimeMs, headers.join(' '));
  t.equal(terms(control('max-age=60', 'Pragma', 'no-cache')).alwaysValidate, false, 'Pragma (section 5.4)');
});

t.test('freshness that cannot be read is none (RFC 9111 sections 4.2.1, 5.3)', async (t) => {
  const unreadable = [
    'max-age=abc',
    'max-age',
    'max-age=-5',
    'max-age=1.5',
    'max-age=1, max-age=2',
    'max-age=60, s-maxage=x',
  ];
  for (const value of [...unreadable, 's-maxage=60, max-age=x', 's-maxage']) {
    const head = control(`${value}, stale-while-revalidate=9, stale-if-error=9`, 'Expires', date(HOUR), ...ETAG);
    t.match(terms(head), { lifetimeMs: 0, staleWhileRevalidateMs: 0, staleIfErrorMs: 0 }, value);
    t.match(terms([...head, 'Last-Modified', date(-HOUR)], { policy: HEURISTIC }), { lifetimeMs: 0 }, value);
  }
  for (const value of ['0', '-1', '', 'tomorrow', date(HOUR).toLowerCase(), date(HOUR).replace('GMT', 'UTC')]) {
    t.equal(terms(['Expires', value, ...ETAG]).lifetimeMs, 0, value);
    t.equal(
      terms(['Expires', value, ...ETAG, 'Last-Modified', date(-HOUR)], { policy: HEURISTIC }).lifetimeMs,
      0,
      value,
    );
  }
  t.equal(terms(['Expires', date(HOUR), 'Expires', date(2 * HOUR), ...ETAG]).lifetimeMs, 0);
});

t.test('the age at arrival is counted from Date, Age and the way here (RFC 9111 section 4.2.3)', async (t) => {
  const slow = { requestAt: NOW - 3000, responseAt: NOW };
  const table: [headers: string[], times: typeof TIMES, initialAgeMs: number][] = [
    [[], TIMES, 0],
    [['Age', '10'], TIMES, 10_000],
    [['Age', '10', 'age', '10'], TIMES, 10_000],
    [['Date', date(-7000)], TIMES, 7000],
    [['Date', date(7000)], TIMES, 0],
    [['Date', 'x'], TIMES, 0],
    [['Date', date(-7000), 'Age', '10'], TIMES, 10_000],
    [['Date', date(-70_000), 'Age', '10'], slow, 70_000],
    [['Date', date(-4000), 'Age', '2'], slow, 5000],
    [[], slow, 3000],
    [[], { requestAt: NOW + 3000, responseAt: NOW }, 0],
    [['Age', '10'], { requestAt: NOW + 3000, responseAt: NOW }, 10_000],
    [['Age', '99999999999'], TIMES, 2 ** 31 * 1000],
  ];
  for (const [headers, times, initialAgeMs] of table) {
    t.equal(terms(control('max-age=60', ...ETAG, ...headers), { times }).initialAgeMs, initialAgeMs, headers.join(' '));
  }
});

t.test('an Age that cannot be read means stale (RFC 9111 section 5.1)', async (t) => {
  for (const age of ['abc', '-1', '1.5', '', '0, 7200', '7200;x', '"0"', '1 2']) {
    const head = control('max-age=60, stale-while-revalidate=9', ...ETAG, 'Age', age);
    t.match(terms(head), { lifetimeMs: 0, staleWhileRevalidateMs: 0, initialAgeMs: 0 }, age);
  }
  t.equal(terms(control('max-age=60', ...ETAG, 'Age', '0', 'Age', '1')).lifetimeMs, 0);
});

t.test('any final status may be stored with explicit freshness, some without (RFC 9110 section 15.1)', async (t) => {
  const byDefault = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
  for (const status of [...byDefault, 201, 302, 303, 307, 400, 403, 429, 451, 500, 503]) {
    const open = byDefault.includes(status);
    const reason = open ? ['', false] : ['status not cacheable', false];
    t.same(why(http(control('max-age=60'), { status })), ['', false], String(status));
    t.same(why(http(['Expires', date(HOUR)], { status })), ['', false], String(status));
    t.same(why(http(control('public', ...ETAG), { status })), ['', false], String(status));
    t.same(why(http(ETAG, { status })), reason, String(status));
    t.same(why(http(['Last-Modified', date(-HOUR)], { status, policy: HEURISTIC })), reason, String(status));
  }
});

t.test('what is not final, not whole or not an answer is not stored (RFC 9111 sections 3, 3.3)', async (t) => {
  for (const status of [100, 103, 199]) {
    t.same(why(http(control('max-age=60'), { status })), ['status not final', false], String(status));
  }
  for (const status of [206, 304]) {
    const reason = [`status ${status} is no whole answer`, false];
    t.same(why(http(control('max-age=60'), { status })), reason);
    t.same(why(http(control('max-age=60, private'), { status })), ['response private', true]);
  }
  t.same(why(http(control('max-age=60', 'Content-Range', 'bytes 0-1/9'))), ['Content-Range without 206', false]);
});

t.test('an answer that nobody can be given is not stored (RFC 9111 section 3)', async (t) => {
  const reason = ['no freshness and no validator', false];
  const useless = [
    [],
    control('public'),
    control('max-age=0'),
    control('max-age=60', 'Age', '60'),
    control('max-age=60', 'Age', 'x'),
    control('max-age=60', 'Date', date(-HOUR)),
    control('max-age=0, stale-while-revalidate=5', 'Age', '5'),
    control('max-age=0, must-revalidate, stale-if-error=5'),
    ['Expires', '0'],
    ['ETag', 'unquoted'],
    ['Last-Modified', 'yesterday'],
  ];
  for (const headers of useless) t.same(why(http(headers)), reason, headers.join(' '));
  const useful = [
    control('max-age=1'),
    control('max-age=60', 'Age', '59'),
    control('max-age=0, stale-while-revalidate=5'),
    control('max-age=0, stale-if-error=6', 'Age', '5'),
    control('max-age=0', ...ETAG),
    ['Last-Modified', date(-HOUR)],
  ];
  for (const headers of useful) t.same(why(http(headers)), ['', false], headers.join(' '));
});

t.test('heuristic freshness is a bounded share of the time since Last-Modified (RFC 9111 section 4.2.2)', async (t) => {
  const modified = (offsetMs: number, ...headers: string[]) => ['Last-Modified', date(offsetMs), ...headers];
  t.equal(terms(modified(-HOUR), { policy: HEURISTIC }).lifetimeMs, HOUR / 10);
  t.equal(terms(modified(-100 * HOUR), { policy: HEURISTIC }).lifetimeMs, HOUR, 'at most heuristicMaxMs');
  t.equal(terms(modified(-HOUR, 'Date', date(HOUR)), { policy: HEURISTIC }).lifetimeMs, HOUR / 5, 'up to Date');
  t.equal(terms(modified(HOUR), { policy: HEURISTIC }).lifetimeMs, 0, 'changed in the future');
  t.equal(terms(modified(-HOUR)).lifetimeMs, 0, 'not without being asked for');
  t.equal(terms(ETAG, { policy: HEURISTIC }).lifetimeMs, 0, 'an ETag has no date');
  t.equal(terms(control('max-age=0', ...modified(-HOUR)), { policy: HEURISTIC }).lifetimeMs, 0, 'explicit wins');
  t.equal(terms(control('public', ...modified(-HOUR)), { status: 403, policy: HEURISTIC }).lifetimeMs, HOUR / 10);
});

t.test('must-revalidate, proxy-revalidate and s-maxage forbid stale answers (RFC 9111 section 4.2.4)', async (t) => {
  const windows = 'stale-while-revalidate=5, stale-if-error=6';
  for (const value of [
    'max-age=60, must-revalidate',
    'max-age=60, proxy-revalidate',
    's-maxage=60',
    'max-age=60, s-maxage=60',
  ]) {
    t.match(
      terms(control(`${value}, ${windows}`)),
      { neverStale: true, staleWhileRevalidateMs: 0, staleIfErrorMs: 0, lifetimeMs: 60_000 },
      value,
    );
  }
  const unbound = { neverStale: false, staleWhileRevalidateMs: 5000, staleIfErrorMs: 6000 };
  t.match(terms(control(`max-age=60, ${windows}`)), unbound);
});

t.test('stale windows that cannot be read are none (RFC 5861)', async (t) => {
  for (const value of ['x', '-1', '', '1.5', '1, stale-while-revalidate=2']) {
    t.match(terms(control(`max-age=60, stale-while-revalidate=${value}`)), { staleWhileRevalidateMs: 0 }, value);
  }
  t.match(terms(control('max-age=60, stale-if-error')), { staleIfErrorMs: 0 });
});

t.test('Vary comes in lower case; "*", too many names or none keep it out (RFC 9111 section 4.1)', async (t) => {
  t.match(http(control('max-age=60', 'Vary', 'Origin, accept', 'vary', 'Accept')), { vary: ['accept', 'origin'] });
  t.same(why(http(control('max-age=60', 'Vary', 'Accept', 'Vary', '*'))), ['Vary: *', true]);
  t.same(why(http(control('max-age=60', 'Vary', 'a b'))), ['malformed Vary', true]);
  const many = Array.from({ length: 33 }, (_, i) => `x-${i}`).join();
  t.same(why(http(control('max-age=60', 'Vary', many))), ['malformed Vary', true]);
});

t.test(
  'an answer with Set-Cookie is for one client, unless the config says otherwise (RFC 9111 section 7.3)',
  async (t) => {
    for (const value of [
      'max-age=60',
      'max-age=60, public',
      'max-age=60, private="set-cookie"',
      'max-age=60, no-cache="set-cookie"',
    ]) {
      t.same(why(http(control(value, 'set-COOKIE', 'a=1'))), ['Set-Cookie', true], value);
    }
    const policy = { ...POLICY, storeSetCookie: true };
    const stored = http(control('max-age=60', 'Set-Cookie', 'a=1'), { policy });
    t.same(headersOf(stored), control('max-age=60', 'Set-Cookie', 'a=1'));
    t.same(why(http(control('max-age=60, private', 'Set-Cookie', 'a=1'), { policy })), ['response private', true]);
    const qualified = http(control('max-age=60, private="set-cookie"', 'Set-Cookie', 'a=1'), { policy });
    t.same(headersOf(qualified), control('max-age=60, private="set-cookie"'));
  },
);

t.test(
  'the stored head keeps case, order and duplicates, and drops what is for one hop (RFC 9111 section 3.1)',
  async (t) => {
    const kept = ['X-B', '1', 'x-a', '2', 'X-b', '3', 'Date', date(0), 'Cache-Control', 'max-age=60', 'Link', 'l'];
    const names = [
      'Age',
      'AGE',
      'Server-Timing',
      'proxy-authenticate',
      'Proxy-Authentication-Info',
      'Proxy-Authorization',
    ];
    const dropped = names.flatMap((name) => [name, '0']);
    t.same(headersOf(http([...dropped, ...kept])), kept);
    t.same(headersOf(http([...kept, ...dropped])), kept);
  },
);

const RULE: CacheRuleConfig = {
  match: { methods: [], paths: [], operations: [], headers: [] },
  ttlMs: 5000,
  staleIfErrorMs: 6000,
  staleWhileRevalidateMs: 7000,
  key: { body: 'canonical', queryIgnore: [], headers: [] },
  statuses: [200, 404],
  maxEntryBytes: 1000,
  pace: 'fast',
};

function byRule(headers: string[], partitioned: boolean, more: More = {}): Appraisal {
  return appraiseRule(RULE, { ...NO_FIELDS, ...more.request }, more.status ?? 200, headers, TIMES, partitioned);
}

t.test('a rule sets the terms, whatever the answer says of freshness', async (t) => {
  const heads = [
    [],
    control('max-age=0, must-revalidate'),
    control('no-cache', 'Age', 'x', 'Expires', '0'),
    control('s-maxage=x'),
  ];
  for (const headers of heads) {
    t.match(
      byRule([...headers, ...ETAG], true, { request: { authorized: true } }),
      {
        storable: true,
        isPrivate: false,
        terms: {
          lifetimeMs: 5000,
          initialAgeMs: 0,
          alwaysValidate: false,
          neverStale: false,
          staleIfErrorMs: 6000,
          staleWhileRevalidateMs: 7000,
          etag: '"a"',
          lastModified: '',
        },
      },
      headers.join(' '),
    );
  }
  t.match(byRule(['Vary', 'B, a'], true), { vary: ['a', 'b'] });
  t.same(headersOf(byRule(['A', '1', 'Age', '5', 'Server-Timing', 'x', 'a', '2'], true)), ['A', '1', 'a', '2']);
});

t.test('a rule obeys what says whom an answer is for', async (t) => {
  for (const partitioned of [true, false]) {
    const table: [headers: string[], more: More, reason: string, isPrivate: boolean][] = [
      [control('no-store'), {}, 'response no-store', true],
      [[], { request: { noStore: true } }, 'request no-store', true],
      [control('public;'), {}, 'malformed Cache-Control', true],
      [['Vary', '*'], {}, 'Vary: *', true],
      [['Vary', '('], {}, 'malformed Vary', true],
      [[], { status: 500 }, 'status not in the rule', false],
      [[], { status: 206 }, 'status 206 is no whole answer', false],
      [[], { status: 304 }, 'status 304 is no whole answer', false],
      [['Content-Range', 'bytes 0-1/2'], {}, 'Content-Range without 206', false],
      [[], { status: 404 }, '', false],
    ];
    for (const [headers, more, reason, isPrivate] of table) {
      t.same(why(byRule(headers, partitioned, more)), [reason, isPrivate], `${reason}, ${partitioned}`);
    }
  }
});

t.test('a rule whose statuses name 206 or 304 still stores no part', async (t) => {
  for (const status of [206, 304]) {
    const rule = { ...RULE, statuses: [status] };
    t.equal(appraiseRule(rule, NO_FIELDS, status, [], TIMES, true).storable, false);
  }
});

t.test(
  'private and Set-Cookie keep an answer out of a shared rule; in a partition only the cookie stays out',
  async (t) => {
    t.same(why(byRule(control('private'), false)), ['response private', true]);
    t.same(why(byRule(control('private'), true)), ['', false]);
    t.same(why(byRule(['Set-Cookie', 'a'], false)), ['Set-Cookie', true]);
    t.same(headersOf(byRule(['A', '1', 'SET-cookie', 'a', 'Set-Cookie', 'b', 'B', '2'], true)), ['A', '1', 'B', '2']);
    const qualified = control('private="X-A", no-cache="X-B"', 'X-A', '1', 'X-B', '2', 'X-C', '3');
    t.same(headersOf(byRule(qualified, false)).slice(2), ['X-C', '3']);
    t.same(headersOf(byRule(qualified, true)).slice(2), ['X-A', '1', 'X-C', '3']);
  },
);

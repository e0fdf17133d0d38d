// Retry-After and the fields that tell what is left of a limit, as vendors and the IETF's drafts write them.
import fc from 'fast-check';
import t from 'tap';
import { type RateReport, rateLimitAnswerFields, readRateFields, retryAfterMs } from '../../../src/http/rate-fields.ts';

const NOW = Date.UTC(2026, 4, 4, 12, 0, 0);
const DAY = 86_400_000;

const after = (value: string, name = 'Retry-After') => retryAfterMs([name, value], NOW);
const read = (...pairs: string[]) => readRateFields(pairs, NOW);
const pairsOf = (fields: Record<string, string>) => Object.entries(fields).flat();
const report = (said: Partial<RateReport>): RateReport => {
  return { name: '', kind: 'requests', limit: -1, remaining: 0, resetMs: 0, refills: false, ...said };
};

t.test('Retry-After in seconds, whole or not', async (t) => {
  t.equal(after('120'), 120_000);
  t.equal(after('0'), 0);
  t.equal(after('1.5'), 1500);
  t.equal(after('0.25'), 250);
  t.equal(after(' 7\t'), 7000);
  t.equal(retryAfterMs(['date', 'x', 'RETRY-AFTER', '3'], NOW), 3000);
});

t.test('Retry-After as a date, in each of the three forms', async (t) => {
  t.equal(after('Mon, 04 May 2026 12:00:30 GMT'), 30_000);
  t.equal(after('Monday, 04-May-26 12:01:00 GMT'), 60_000);
  t.equal(after('Mon May  4 12:00:05 2026'), 5000);
  t.equal(after('Thu May 14 12:00:00 2026'), 10 * DAY);
});

t.test('a date in the past means now', async (t) => {
  t.equal(after('Sun, 06 Nov 1994 08:49:37 GMT'), 0);
  t.equal(after('Sunday, 06-Nov-94 08:49:37 GMT'), 0, 'two digits are the latest year not more than 50 years ahead');
  t.equal(after('Sunday, 06-Nov-77 08:49:37 GMT'), 0);
  t.equal(after('Sunday, 06-Nov-27 08:49:37 GMT'), 32 * DAY, 'and this one is ahead');
  t.equal(after('Sun Nov  6 08:49:37 1994'), 0);
  const in2090 = Date.UTC(2090, 0, 1);
  t.equal(retryAfterMs(['retry-after', 'Sunday, 01-Jan-05 00:00:00 GMT'], in2090), 32 * DAY, 'the next century');
});

t.test('an absurd time is clipped to a month', async (t) => {
  for (const value of [
    '99999999',
    '9'.repeat(400),
    'Mon, 04 May 2099 12:00:30 GMT',
    `${'9'.repeat(30)}.${'9'.repeat(400)}`,
  ])
    t.equal(after(value), 32 * DAY, value.slice(0, 40));
  t.equal(after('9'.repeat(400), 'retry-after-ms'), 32 * DAY);
});

t.test('retry-after-ms goes before Retry-After when it is valid', async (t) => {
  t.equal(after('1234', 'Retry-After-Ms'), 1234);
  t.equal(retryAfterMs(['retry-after', '9', 'retry-after-ms', '250.5'], NOW), 250.5);
  t.equal(retryAfterMs(['retry-after-ms', 'soon', 'retry-after', '9'], NOW), 9000);
  t.equal(retryAfterMs(['retry-after-ms', '-5', 'retry-after', '9'], NOW), 9000);
});

t.test('of several Retry-After the first that is understood counts', async (t) => {
  t.equal(retryAfterMs(['retry-after', 'later', 'retry-after', '2', 'retry-after', '3'], NOW), 2000);
});

t.test('what is no time to wait is none', async (t) => {
  const wrong = [
    '',
    ' ',
    '-1',
    '+1',
    '1e3',
    '0x10',
    '1,2',
    '1 2',
    '.5',
    '5.',
    '1.2.3',
    'NaN',
    'Infinity',
    '3s',
    '2026-05-04T12:00:30Z',
    'Mon, 31 Feb 2026 12:00:30 GMT',
    'Mon, 04 May 2026 25:00:30 GMT',
    'Mon, 04 May 2026 12:00:30 CET',
    'Mon, 4 May 2026 12:00:30 GMT',
    '04 May 2026 12:00:30 GMT',
    'Monday, 04-May-+6 12:01:00 GMT',
    'Monday, 04-May-2026 12:01:00 GMT',
    'Mon May 32 12:00:05 2026',
    'Mon May 4 2026',
    'May 2026',
    'tomorrow',
  ];
  for (const value of wrong) t.equal(after(value), -1, JSON.stringify(value));
  t.equal(retryAfterMs([], NOW), -1);
  t.equal(retryAfterMs(['retry-later', '1', 'x-retry-afters', '2'], NOW), -1, 'names as long');
});

t.test('OpenAI: buckets with durations as Go prints them', async (t) => {
  const reports = read(
    'X-RateLimit-Limit-Requests',
    '5000',
    'x-ratelimit-limit-tokens',
    '160000',
    'x-ratelimit-remaining-requests',
    '4999',
    'X-Ratelimit-Remaining-Tokens',
    '159976',
    'x-ratelimit-reset-requests',
    '12ms',
    'x-ratelimit-reset-tokens',
    '6m0s',
  );
  t.same(reports, [
    report({ name: 'requests', limit: 5000, remaining: 4999, resetMs: 12, refills: true }),
    report({ name: 'tokens', kind: 'tokens', limit: 160_000, remaining: 159_976, resetMs: 360_000, refills: true }),
  ]);
});

t.test('durations', async (t) => {
  const resetOf = (value: string) => {
    return read('x-ratelimit-remaining-requests', '1', 'x-ratelimit-reset-requests', value)[0]?.resetMs;
  };
  const table: readonly [value: string, ms: number | undefined][] = [
    ['1s', 1000],
    ['0s', 0],
    ['120ms', 120],
    ['15.5s', 15_500],
    ['6m0s', 360_000],
    ['1h2m3.5s', 3_723_500],
    ['2m59.56s', 179_560],
    ['1d1h', DAY + 3_600_000],
    ['7h12m0s', 25_920_000],
    ['500µs', 0.5],
    ['500us', 0.5],
    ['1000000ns', 1],
    ['9999999h', 32 * DAY],
    ['s', undefined],
    ['1', 1000],
    ['1x', undefined],
    ['-1s', undefined],
    ['1s2', undefined],
    ['5s1.s', undefined],
    ['1..5s', undefined],
    ['1 s', undefined],
    ['.5s', undefined],
    ['', undefined],
    [' ', undefined],
    ['soon', undefined],
  ];
  for (const [value, ms] of table) {
    const found = resetOf(value);
    if (ms === undefined) t.equal(found, undefined, JSON.stringify(value));
    else t.ok(found !== undefined && Math.abs(found - ms) < 1e-6, `${value} is ${found} ms`);
  }
});

t.test('Azure OpenAI: the same names with plain seconds are a window', async (t) => {
  t.same(
    read(
      ...pairsOf({
        'x-ratelimit-limit-requests': '50',
        'x-ratelimit-remaining-requests': '49',
        'x-ratelimit-reset-requests': '10',
        'x-ratelimit-limit-tokens': '-1',
        'x-ratelimit-remaining-tokens': '-1',
        'x-ratelimit-reset-tokens': '0',
      }),
    ),
    [report({ name: 'requests', limit: 50, remaining: 49, resetMs: 10_000 })],
    'and where it does not count it says -1, which is ignored',
  );
  t.same(
    read('x-ratelimit-remaining-requests', '19', 'x-ratelimit-remaining-tokens', '19913'),
    [],
    'no reset, no forecast',
  );
});

t.test('Anthropic: buckets that are full at a date', async (t) => {
  const fields: Record<string, string> = {};
  for (const name of ['requests', 'tokens', 'input-tokens', 'output-tokens']) {
    fields[`anthropic-ratelimit-${name}-limit`] = name === 'requests' ? '50' : '8000';
    fields[`Anthropic-Ratelimit-${name}-Remaining`] = name === 'requests' ? '49' : '7000';
    fields[`anthropic-ratelimit-${name}-reset`] = '2026-05-04T12:00:30Z';
  }
  const tokens = { kind: 'tokens', limit: 8000, remaining: 7000, resetMs: 30_000, refills: true } as const;
  t.same(read(...pairsOf(fields)), [
    report({ name: 'requests', limit: 50, remaining: 49, resetMs: 30_000, refills: true }),
    report({ ...tokens, name: 'tokens' }),
    report({ ...tokens, name: 'input-tokens' }),
    report({ ...tokens, name: 'output-tokens' }),
  ]);
});

t.test('RFC 3339, with fractions and zones; in the past it is now', async (t) => {
  const resetOf = (value: string) => {
    const fields = ['anthropic-ratelimit-requests-remaining', '1', 'anthropic-ratelimit-requests-reset', value];
    return read(...fields)[0]?.resetMs;
  };
  t.equal(resetOf('2026-05-04T12:00:01.250Z'), 1250);
  t.equal(resetOf('2026-05-04T14:00:01+02:00'), 1000);
  t.equal(resetOf('2026-05-04T07:00:01.5-05:00'), 1500);
  t.equal(resetOf('2026-05-04T11:59:59Z'), 0);
  t.equal(resetOf('2096-05-04T11:59:59Z'), 32 * DAY);
  const wrong = [
    '2026-05-04',
    '2026-05-04T12:00:01',
    '2026-05-04T12:00:01.5',
    'Mon, 04 May 2026 12:00:00 Z',
    '2026-13-04T12:00:01Z',
    '2026-05-04T25:00:01Z',
    '+026-05-04T12:00:01Z',
    'Mon, 04 May 2026 12:00Z',
    'yesterday at noon, Z',
  ];
  for (const value of wrong) t.equal(resetOf(value), undefined, value);
});

t.test('X-RateLimit-*: a window, its reset in seconds from now or since 1970, or in ms since 1970', async (t) => {
  const resetOf = (reset: string) =>
    read('x-ratelimit-limit', '60', 'X-RateLimit-Remaining', '5', 'X-RateLimit-Reset', reset);
  t.same(resetOf('30'), [report({ limit: 60, remaining: 5, resetMs: 30_000 })]);
  t.same(resetOf('30.5'), [report({ limit: 60, remaining: 5, resetMs: 30_500 })]);
  t.same(resetOf(String(NOW / 1000 + 42)), [report({ limit: 60, remaining: 5, resetMs: 42_000 })]);
  t.same(resetOf(String(NOW + 1500)), [report({ limit: 60, remaining: 5, resetMs: 1500 })]);
  t.same(resetOf(String(NOW / 1000 - 42)), [report({ limit: 60, remaining: 5, resetMs: 0 })]);
  t.same(resetOf('999999999'), [report({ limit: 60, remaining: 5, resetMs: 32 * DAY })], 'seconds, up to 31 years');
  t.same(resetOf('30s'), []);
  const huge = read(
    'x-ratelimit-limit',
    '9'.repeat(400),
    'x-ratelimit-remaining',
    '9'.repeat(400),
    'x-ratelimit-reset',
    '1',
  );
  t.same(huge, [report({ limit: Number.MAX_SAFE_INTEGER, remaining: Number.MAX_SAFE_INTEGER, resetMs: 1000 })]);
  t.same(resetOf('9'.repeat(400)), [report({ limit: 60, remaining: 5, resetMs: 32 * DAY })]);
});

t.test('the IETF’s draft 3 to 6: three fields, the limit perhaps with its policies', async (t) => {
  const fields = { 'RateLimit-Limit': '100, 100;w=60', 'RateLimit-Remaining': '50', 'RateLimit-Reset': '30' };
  t.same(read(...pairsOf(fields)), [report({ limit: 100, remaining: 50, resetMs: 30_000 })]);
  t.same(read(...pairsOf({ ...fields, 'RateLimit-Limit': '100;w=60' })), [
    report({ limit: 100, remaining: 50, resetMs: 30_000 }),
  ]);
});

t.test('draft 7: one field with three keys', async (t) => {
  t.same(read('RateLimit', 'limit=100, remaining=50, reset=30', 'RateLimit-Policy', '100;w=60'), [
    report({ limit: 100, remaining: 50, resetMs: 30_000 }),
  ]);
  t.same(read('ratelimit', 'limit=5, remaining=5'), []);
  t.same(read('ratelimit', 'reset=3,remaining=5'), [report({ remaining: 5, resetMs: 3000 })]);
});

t.test('draft 8 and later: a list of policies and what is left of each', async (t) => {
  t.same(read('RateLimit-Policy', '"default";q=100;w=60', 'RateLimit', '"default";r=50;t=30'), [
    report({ name: 'default', limit: 100, remaining: 50, resetMs: 30_000 }),
  ]);
  t.same(
    read(
      'RateLimit',
      '"permin";r=0;t=2 , "perhr" ; r=900 ; t=1800;pk=:cHsdsRa894==:',
      'RateLimit-Policy',
      '"permin";q=50;w=60,"perhr";w=3600;q=1000',
      'RateLimit',
      '"other";r=7;t=1',
    ),
    [
      report({ name: 'permin', limit: 50, remaining: 0, resetMs: 2000 }),
      report({ name: 'perhr', limit: 1000, remaining: 900, resetMs: 1_800_000 }),
      report({ name: 'other', remaining: 7, resetMs: 1000 }),
    ],
  );
  t.same(read('RateLimit', 'default;r=50;t=30'), [report({ name: 'default', remaining: 50, resetMs: 30_000 })]);
  const odd = '"a,b;c=\\"d";r=1;t=2';
  t.same(
    read('RateLimit', odd),
    [report({ name: 'a,b;c=\\"d', remaining: 1, resetMs: 2000 })],
    'delimiters within quotes',
  );
});

t.test('units other than requests and tokens are not reckoned with', async (t) => {
  const policies = '"b";q=65535;qu="content-bytes";w=10, "c";q=5;qu="concurrent-requests", "t";q=9;qu="tokens"';
  t.same(read('RateLimit', '"b";r=1;t=2, "c";r=0;t=2, "t";r=3;t=4', 'RateLimit-Policy', policies), [
    report({ name: 't', kind: 'tokens', limit: 9, remaining: 3, resetMs: 4000 }),
  ]);
});

t.test('an item without a reset or a rest is ignored, and so are all but the first eight', async (t) => {
  t.same(read('RateLimit', '"a";r=50, "b";t=30, "c", ;;, =, "d";r=x;t=1, "e";r=1;t=-1, "f";r=?1;t=1'), []);
  const many = Array.from({ length: 20 }, (_, i) => `"${i}";r=1;t=1`).join(',');
  t.equal(read('RateLimit', many).length, 8);
});

t.test('of a field that comes twice the first counts', async (t) => {
  const fields = ['x-ratelimit-remaining', '1', 'x-ratelimit-remaining', '2', 'x-ratelimit-reset', '3'];
  t.same(read(...fields), [report({ remaining: 1, resetMs: 3000 })]);
});

t.test('an answer without such fields costs no array', async (t) => {
  const headers = [
    'content-type',
    'text/plain',
    'x-request-id-1234567890',
    'y',
    'x'.repeat(26),
    '1',
    'a'.repeat(500),
    '2',
  ];
  t.equal(read(...headers), read());
  t.same(read(), []);
  t.equal(read('x-ratelimit-remaining', 'many', 'x-ratelimit-reset', '1'), read(), 'nor one whose fields tell nothing');
});

t.test('a name as long as one of the fields is not one', async (t) => {
  for (const name of ['x-ratelimit-remaininG', 'X-RATELIMIT-REMAINING'])
    t.equal(read(name, '1', 'x-ratelimit-reset', '1').length, 1, name);
  t.equal(read('x-ratelimit-remainimg', '1', 'x-ratelimit-reset', '1').length, 0);
});

t.test('our own refusals speak the IETF’s draft, and understand themselves', async (t) => {
  t.same(rateLimitAnswerFields(500, 60, 0, 3, 3), [
    'ratelimit-policy',
    '"default";q=500;w=60',
    'ratelimit',
    '"default";r=0;t=3',
  ]);
  t.same(read(...rateLimitAnswerFields(500, 60, 0, 3, 3)), [
    report({ name: 'default', limit: 500, remaining: 0, resetMs: 3000 }),
  ]);
  const rounded = rateLimitAnswerFields(10, 0.2, 2.9, 0.4);
  t.same(
    rounded,
    ['ratelimit-policy', '"default";q=10;w=1', 'ratelimit', '"default";r=2;t=1'],
    'whole seconds, at least one',
  );
  t.match(rateLimitAnswerFields(10, 60, -1, 9, 4)[3], /r=0;t=4$/, 'the reset is not later than Retry-After');
  t.match(rateLimitAnswerFields(10, 60, 0, 2, 4)[3], /t=2$/);
  t.match(rateLimitAnswerFields(1e300, 1e300, 1e300, 1e300)[1], /q=9{15};w=9{15}$/, 'fifteen digits at most');
});

t.test('whatever is in these fields, nothing is thrown and no number is odd', async () => {
  const names = [
    'retry-after',
    'retry-after-ms',
    'RateLimit',
    'RateLimit-Policy',
    ...['limit', 'remaining', 'reset'].flatMap((part) => [
      `x-ratelimit-${part}`,
      `ratelimit-${part}`,
      `x-ratelimit-${part}-requests`,
      `x-ratelimit-${part}-tokens`,
      `anthropic-ratelimit-input-tokens-${part}`,
    ]),
  ];
  const piece = fc.constantFrom(
    '"',
    ';',
    ',',
    '=',
    'r=',
    't=',
    'q=',
    '\\',
    '1',
    '9'.repeat(400),
    '.',
    '-',
    's',
    'ms',
    ' ',
    'T',
    'Z',
  );
  const value = fc.oneof(
    fc.string(),
    fc.array(piece, { maxLength: 20 }).map((pieces) => pieces.join('')),
    fc.double().map(String),
    fc.integer().map(String),
    fc.date({ noInvalidDate: true }).map((date) => date.toUTCString()),
    fc.date({ noInvalidDate: true }).map((date) => date.toJSON()),
  );
  const isOdd = (value: number) => !(Number.isFinite(value) && value >= 0);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom(...names), value), { maxLength: 12 }), (pairs) => {
      const headers = pairs.flat();
      const wait = retryAfterMs(headers, NOW);
      if (wait !== -1 && (isOdd(wait) || wait > 32 * DAY)) throw new Error(`${wait}`);
      for (const { limit, remaining, resetMs } of readRateFields(headers, NOW)) {
        const odd = isOdd(remaining) || isOdd(resetMs) || resetMs > 32 * DAY || (limit !== -1 && isOdd(limit));
        if (odd) throw new Error(`${limit} ${remaining} ${resetMs}`);
      }
    }),
    { numRuns: 5000 },
  );
});

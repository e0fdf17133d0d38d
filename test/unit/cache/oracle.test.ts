// Our verdicts beside those of the library http-cache-semantics, for every combination of common directives.
// Where they differ, a rule below says so and why; a difference without a rule, or a rule without a difference, fails.
import CachePolicy from 'http-cache-semantics';
import t from 'tap';
import { type Appraisal, appraiseHttp } from '../../../src/cache/appraise.ts';
import { Entry } from '../../../src/cache/entry.ts';
import { judge } from '../../../src/cache/judge.ts';
import { readRequestFields } from '../../../src/cache/request-fields.ts';

const NOW = Date.UTC(2026, 8, 14, 12, 0, 0);
const date = (seconds: number) => new Date(NOW + seconds * 1000).toUTCString();
const HEURISTIC = { storeSetCookie: false, heuristicFraction: 0.1, heuristicMaxMs: Number.POSITIVE_INFINITY };

/** One exchange; an empty value = the field is not there. Names in lower case, for the library. */
interface Case {
  status: number;
  request: Record<string, string>;
  response: Record<string, string>;
}

/** `later` seconds after the answer came. */
class Clocked extends CachePolicy {
  later = 0;
  // The types do not know it, but the library asks itself for the time ("you can monkey-patch it").
  now(): number {
    return NOW + (this.later ?? 0) * 1000;
  }
}

const present = (fields: Record<string, string>) =>
  Object.fromEntries(Object.entries(fields).filter(([, v]) => v !== ''));
const pairs = (fields: Record<string, string>) => Object.entries(present(fields)).flat();

function theirs({ status, request, response }: Case): Clocked {
  const asked = { method: 'GET', url: '/', headers: { host: 'a', ...present(request) } };
  return new Clocked(asked, { status, headers: present(response) }, { shared: true, cacheHeuristic: 0.1 });
}

function ours({ status, request, response }: Case): Appraisal {
  const times = { requestAt: NOW, responseAt: NOW };
  return appraiseHttp('GET', readRequestFields(pairs(request)), status, pairs(response), times, HEURISTIC);
}

/** Seconds; what must always be validated has none, as in the library. */
function lifetime(appraisal: Appraisal): number {
  return appraisal.storable && !appraisal.terms.alwaysValidate ? appraisal.terms.lifetimeMs / 1000 : 0;
}

const CONTROLS = [
  '',
  'public',
  'max-age=60',
  'max-age="60"',
  'max-age=0',
  'max-age=60, max-age=60',
  's-maxage=30',
  'max-age=60, s-maxage=30',
  's-maxage=0, max-age=60',
  'public, max-age=60',
  'private',
  'max-age=60, private',
  'no-store',
  'no-store, max-age=60',
  'no-cache',
  'no-cache, max-age=60',
  'max-age=60, must-revalidate',
  'max-age=60, proxy-revalidate',
  'max-age=60, stale-while-revalidate=30, x-unknown=1',
];
const EXPIRES = ['', date(100), date(-100), '0'];
const STATUSES = [200, 404, 301, 302, 201, 500];
const AUTHORIZATIONS = ['', 'Bearer x'];
const REQUESTS = ['', 'max-age=0', 'no-store'];
const VALIDATORS: [etag: string, lastModified: string][] = [
  ['"a"', ''],
  ['', ''],
  ['"a"', date(-1000)],
];

function* cases(): Generator<Case> {
  let n = 0;
  for (const control of CONTROLS) {
    for (const expires of EXPIRES) {
      for (const status of STATUSES) {
        for (const authorization of AUTHORIZATIONS) {
          const [etag, lastModified] = VALIDATORS[n % 3]!;
          const request = { authorization, 'cache-control': REQUESTS[Math.floor(n / 3) % 3]! };
          const age = n % 5 === 0 ? '7' : '';
          const response = {
            date: date(0),
            'cache-control': control,
            expires,
            etag,
            'last-modified': lastModified,
            age,
          };
          yield { status, request, response };
          n++;
        }
      }
    }
  }
}

const says = (fields: Record<string, string>, text: string) => (fields['cache-control'] ?? '').includes(text);

/** Where the two differ on purpose: which one stores it, or how long it is fresh. */
const DIFFERENCES: { why: string; applies: (c: Case) => boolean; differs: 'storable' | 'lifetime' }[] = [
  {
    why: 'explicit freshness makes any final status storable (RFC 9111 section 3); the library knows a list, without 201 and 500',
    applies: ({ status, response }) =>
      (status === 201 || status === 500) &&
      (/public|max-?age/.test(response['cache-control']!) || response.expires !== ''),
    differs: 'storable',
  },
  {
    why: 'without freshness and validator an answer is of no use to anyone; the library keeps it all the same',
    applies: ({ status, response }) => {
      if (response.etag !== '' || response['last-modified'] !== '') return false;
      if (says(response, 'no-cache')) return true;
      const control = response['cache-control']!;
      const none =
        /s-maxage=0|^max-age=0/.test(control) || (!control.includes('age=') && response.expires !== date(100));
      return none && status !== 201 && status !== 500;
    },
    differs: 'storable',
  },
  {
    why: 'proxy-revalidate forbids stale answers, not fresh ones (RFC 9111 section 5.2.2.8)',
    applies: ({ response }) => says(response, 'proxy-revalidate'),
    differs: 'lifetime',
  },
];

t.test('storable and lifetime agree with http-cache-semantics, but for the listed differences', async (t) => {
  const surprises: string[] = [];
  const seen = new Set<string>();
  let compared = 0;
  for (const one of cases()) {
    const mine = ours(one);
    const their = theirs(one);
    const differs =
      mine.storable !== their.storable()
        ? 'storable'
        : lifetime(mine) !== (mine.storable ? their.maxAge() : 0)
          ? 'lifetime'
          : '';
    const rule = DIFFERENCES.find((difference) => difference.differs === differs && difference.applies(one));
    if (rule) seen.add(rule.why);
    else if (differs !== '') surprises.push(`${differs}: ${JSON.stringify({ one, mine, their: their.maxAge() })}`);
    compared++;
  }
  t.same(surprises, []);
  t.equal(compared, 19 * 4 * 6 * 2);
  for (const { why } of DIFFERENCES) t.ok(seen.has(why), why);
});

t.test('the ages agree where Age is given or Date is past', async (t) => {
  for (const age of ['', '0', '7', '59', '3600']) {
    const one = {
      status: 200,
      request: {},
      response: { date: date(0), 'cache-control': 'max-age=60', etag: '"a"', age },
    };
    const mine = ours(one);
    t.equal(mine.storable && mine.terms.initialAgeMs / 1000, theirs(one).age(), age);
  }
  // The library asks Age alone; section 4.2.3 also counts from Date (apparent_age).
  const old = { status: 200, request: {}, response: { date: date(-50), 'cache-control': 'max-age=60' } };
  t.equal(theirs(old).age(), 0);
  t.match(ours(old), { terms: { initialAgeMs: 50_000 } });
});

function entryOf(appraisal: Appraisal): Entry {
  if (!appraisal.storable) throw new Error(appraisal.why);
  return new Entry({
    key: 'k',
    upstream: 'u',
    uri: '/',
    status: 200,
    reason: 'OK',
    headers: appraisal.headers,
    body: Buffer.alloc(0),
    requestAt: NOW,
    responseAt: NOW,
    terms: appraisal.terms,
    vary: [],
    varyValues: [],
    costMs: 0,
    pace: null,
  });
}

const ASKED = [
  '',
  'no-cache',
  'max-age=0',
  'max-age=40',
  'max-age=500',
  'min-fresh=20',
  'min-fresh=45',
  'max-stale',
  'max-stale=20',
];
ASKED.push('max-stale=200', 'max-age=40, min-fresh=5', 'min-fresh=5, max-stale', 'no-cache, max-stale', 'x=1');
const GIVEN = ['max-age=60', 's-maxage=60', 'max-age=60, must-revalidate', 'no-cache, max-age=60'];
GIVEN.push('max-age=60, stale-while-revalidate=100', 'max-age=60, stale-if-error=100', 'max-age=0', 'public');
/** Off every limit above: at the limit itself the library counts differently. */
const LATER = [1, 30, 50, 70, 130, 500];

const JUDGED: { why: string; applies: (given: string, asked: string, later: number) => boolean; served: boolean }[] = [
  {
    why: 'must-revalidate forbids stale answers, not fresh ones (RFC 9111 section 5.2.2.2)',
    applies: (given, _, later) => given.includes('must-revalidate') && later < 60,
    served: true,
  },
  {
    why: 's-maxage has the meaning of proxy-revalidate: no max-stale helps (RFC 9111 section 5.2.2.10)',
    applies: (given, asked, later) => given.includes('s-maxage') && asked.includes('max-stale') && later > 60,
    served: false,
  },
  {
    why: 'no-cache of the answer forbids any use without validation; the library lets max-stale pass (RFC 9111 section 5.2.2.4)',
    applies: (given, asked) => given.includes('no-cache') && asked.includes('max-stale'),
    served: false,
  },
  {
    why: 'who asks for a certain age gets no answer that is being refreshed behind its back',
    applies: (given, asked, later) => given.includes('while-revalidate') && asked.includes('max-age=500') && later > 60,
    served: false,
  },
];

t.test('what is served without asking agrees with http-cache-semantics, but for the listed differences', async (t) => {
  const surprises: string[] = [];
  const seen = new Set<string>();
  for (const given of GIVEN) {
    const one = { status: 200, request: {}, response: { date: date(0), 'cache-control': given, etag: '"a"' } };
    const entry = entryOf(ours(one));
    for (const asked of ASKED) {
      for (const later of LATER) {
        const headers = present({ 'cache-control': asked });
        const judgement = judge(entry, readRequestFields(pairs(headers)), NOW + later * 1000);
        const served = judgement === 'fresh' || judgement.startsWith('stale');
        const policy = theirs(one);
        policy.later = later;
        const answer = policy.evaluateRequest({ method: 'GET', url: '/', headers: { host: 'a', ...headers } });
        if (served === (answer.response !== undefined)) continue;
        const rule = JUDGED.find(
          (difference) => difference.served === served && difference.applies(given, asked, later),
        );
        if (rule) seen.add(rule.why);
        else surprises.push(`${given} | ${asked} | ${later}: ${judgement}`);
      }
    }
  }
  t.same(surprises, []);
  for (const { why } of JUDGED) t.ok(seen.has(why), why);
});

/** Single heads on which we are stricter, or more exact; each asserted on both sides. */
t.test('where the library is laxer or wrong, both verdicts are known', async (t) => {
  const verdicts = (response: Record<string, string>, status = 200): [mine: unknown[], their: unknown[]] => {
    const one = { status, request: {}, response: { date: date(0), etag: '"a"', ...response } };
    const mine = ours(one);
    const their = theirs(one);
    return [
      [mine.storable, lifetime(mine)],
      [their.storable(), their.storable() ? their.maxAge() : 0],
    ];
  };
  const table: [why: string, response: Record<string, string>, mine: unknown[], their: unknown[], status?: number][] = [
    ['a number with a tail is no number', { 'cache-control': 'max-age=60abc' }, [true, 0], [true, 60]],
    ['nor is a fraction', { 'cache-control': 'max-age=60.5' }, [true, 0], [true, 60]],
    [
      'an unreadable max-age beats no Expires',
      { 'cache-control': 'max-age=x', expires: date(50) },
      [true, 0],
      [true, 0],
    ],
    ['max-age without a value', { 'cache-control': 'max-age' }, [true, 0], [true, 0]],
    [
      'differing duplicates: theirs takes the last',
      { 'cache-control': 'max-age=1, max-age=60' },
      [true, 0],
      [true, 60],
    ],
    ['a semicolon is no comma', { 'cache-control': 'max-age=60; private' }, [false, 0], [true, 60]],
    ['names are case-insensitive (section 5.2)', { 'cache-control': 'No-Store, max-age=60' }, [false, 0], [true, 60]],
    ['private with a list (section 5.2.2.7)', { 'cache-control': 'max-age=60, private="x-a"' }, [true, 60], [false, 0]],
    [
      'no-cache with a list (section 5.2.2.4)',
      { 'cache-control': 'max-age=60, no-cache="x-a"' },
      [true, 60],
      [true, 0],
    ],
    ['private="" is private, for both', { 'cache-control': 'max-age=60, private=""' }, [false, 0], [true, 60]],
    ['commas in a quoted string', { 'cache-control': 'max-age=60, x="a, no-store, b"' }, [true, 60], [false, 0]],
    ['an argument out of a quoted string', { 'cache-control': 'x="a, max-age=60, b"' }, [true, 0], [true, 60]],
    [
      'must-understand (section 5.2.2.3)',
      { 'cache-control': 'max-age=60, must-understand, no-store' },
      [true, 60],
      [false, 0],
    ],
    ['must-understand of 302', { 'cache-control': 'max-age=60, must-understand' }, [false, 0], [true, 60], 302],
    ['a malformed Age is not 0', { 'cache-control': 'max-age=60', age: 'abc' }, [true, 0], [true, 60]],
    ['a negative Age is not younger', { 'cache-control': 'max-age=60', age: '-60' }, [true, 0], [true, 60]],
    [
      'Set-Cookie of a public answer',
      { 'cache-control': 'public, max-age=60', 'set-cookie': 'a' },
      [false, 0],
      [true, 60],
    ],
    ['Vary: * among names', { 'cache-control': 'max-age=60', vary: 'accept, *' }, [false, 0], [true, 60]],
    ['Vary: * alone', { 'cache-control': 'max-age=60', vary: '*' }, [false, 0], [true, 0]],
    ['Pragma is no response directive (section 5.4)', { pragma: 'no-cache', expires: date(50) }, [true, 50], [true, 0]],
    ['Expires in ISO form', { expires: new Date(NOW + 50_000).toISOString() }, [true, 0], [true, 50]],
    [
      'immutable is no freshness (RFC 8246); theirs takes ms for s',
      { 'cache-control': 'immutable' },
      [true, 0],
      [true, 86_400_000],
    ],
    ['max-age has a largest value', { 'cache-control': 'max-age=99999999999' }, [true, 2 ** 31], [true, 99999999999]],
  ];
  for (const [why, response, mine, their, status] of table) t.same(verdicts(response, status), [mine, their], why);
});

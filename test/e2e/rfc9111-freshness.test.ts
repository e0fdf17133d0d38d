// RFC 9111, sections 4.1 and 4.2, and RFC 5861 section 3: which stored answer fits, how long it is fresh, and when it is used stale.

import { cacheStatus, date, fateOf, lines, type Row, Scene, walk } from '../support/cache-scene.ts';
import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, type Script } from '../support/upstream.ts';

const ETAG = 'ETag: "a"';
const FRESH = 'Cache-Control: max-age=60';
const SWR = 'Cache-Control: max-age=10, stale-while-revalidate=20';

e2e('§4.1 Vary', async (t, rig) => {
  const scene = await Scene.open(rig);
  /** An upstream that says what it was asked for. */
  const echo = (path: string, vary: string, name: string) => {
    scene.replies(path, (request, connection) => {
      connection.send(answer(`${request.all(name).join('|')}`, lines(FRESH, `Vary: ${vary}`)));
    });
  };
  await t.test('§4.1 variants live side by side', async (t) => {
    echo('/side', 'X-Lang', 'x-lang');
    for (const lang of ['de', 'en', 'fr'])
      t.equal((await fateOf(scene, '/side', { fields: [`X-Lang: ${lang}`] })).fate, 'fetched');
    for (const lang of ['de', 'en', 'fr']) {
      const { fate, got } = await fateOf(scene, '/side', { fields: [`x-LANG:  ${lang} `] });
      t.equal(fate, 'hit');
      t.equal(got.body.toString(), lang);
    }
  });
  await t.test('§4.1 another value is a miss of its own kind', async (t) => {
    t.equal(cacheStatus(await scene.get('/side', 'X-Lang: it')).fwd, 'vary-miss');
  });
  await t.test('§4.1 absent and empty are two things', async (t) => {
    echo('/empty', 'X-Lang', 'x-lang');
    await scene.get('/empty');
    t.equal((await fateOf(scene, '/empty', { fields: ['X-Lang:'] })).fate, 'fetched');
    t.equal((await fateOf(scene, '/empty', {})).fate, 'hit');
    t.equal((await fateOf(scene, '/empty', { fields: ['X-Lang:'] })).fate, 'hit');
  });
  await t.test('§4.1 all of several names must agree', async (t) => {
    echo('/several', 'x-a, X-B,x-a', 'x-a');
    await scene.get('/several', 'X-A: 1', 'X-B: 2');
    t.equal((await fateOf(scene, '/several', { fields: ['X-A: 1', 'X-B: 3'] })).fate, 'fetched');
    t.equal((await fateOf(scene, '/several', { fields: ['X-A: 3', 'X-B: 2'] })).fate, 'fetched');
    t.equal((await fateOf(scene, '/several', { fields: ['X-B: 2', 'X-A: 1'] })).fate, 'hit');
  });
  const same: [rule: string, name: string, one: string[], other: string[], fate: 'hit' | 'fetched'][] = [
    ['blanks around commas', 'X-L', ['X-L: a,b'], ['X-L: a ,  b'], 'hit'],
    ['lines that are one list', 'X-L', ['X-L: a', 'X-L: b'], ['X-L: a, b'], 'hit'],
    ['another order', 'X-L', ['X-L: a, b'], ['X-L: b, a'], 'fetched'],
    ['another tab', 'X-L', ['X-L: a,b'], ['X-L: a,\tb'], 'hit'],
    ['another first element', 'X-L', ['X-L: a, b'], ['X-L: c, b'], 'fetched'],
    ['another last element', 'X-L', ['X-L: a, b'], ['X-L: a, c'], 'fetched'],
    ['blanks after a quoted element', 'X-L', ['X-L: "a",b'], ['X-L: "a" , b'], 'hit'],
    ['a backslash outside of quotes', 'X-L', ['X-L: a\\,b'], ['X-L: a\\, b'], 'hit'],
    ['a field whose name only begins so', 'X-L', ['X-L: a'], ['X-L: a', 'X-L2: b'], 'hit'],
    ['capitals in a field that nobody knows', 'X-L', ['X-L: a'], ['X-L: A'], 'fetched'],
    ['capitals in Accept', 'Accept', ['Accept: text/HTML'], ['Accept: text/html'], 'hit'],
    ['capitals in Accept-Encoding', 'Accept-Encoding', ['Accept-Encoding: GZip'], ['Accept-Encoding: gzip'], 'hit'],
    ['capitals in Accept-Language', 'Accept-Language', ['Accept-Language: De'], ['Accept-Language: de'], 'hit'],
    ['a comma within quotes', 'X-L', ['X-L: "a,b"'], ['X-L: "a, b"'], 'fetched'],
    ['a quote within quotes', 'X-L', ['X-L: "a\\",b"'], ['X-L: "a\\", b"'], 'fetched'],
  ];
  for (const [i, [rule, name, one, other, fate]] of same.entries()) {
    await t.test(`§4.1 values are compared normalised: ${rule}`, async (t) => {
      echo(`/same${i}`, name, name);
      await scene.get(`/same${i}`, ...one);
      t.equal((await fateOf(scene, `/same${i}`, { fields: other })).fate, fate);
    });
  }
  await t.test('§4 of several that fit, the newest is used', async (t) => {
    scene.replies('/newest', answer('old', lines(FRESH, 'Vary: x-a')), answer('new', lines(FRESH, 'Vary: x-b')));
    await scene.get('/newest', 'X-A: 1', 'X-B: 1');
    await scene.get('/newest', 'X-A: 2', 'X-B: 1');
    t.equal((await scene.get('/newest', 'X-A: 1', 'X-B: 1')).body.toString(), 'new');
    t.equal(scene.asked('/newest').length, 2);
  });
  await t.test('§4.1 a new answer takes the place of its own variant only', async (t) => {
    scene.replies('/own', ...['a1', 'b1', 'a2'].map((body) => answer(body, lines(FRESH, 'Vary: x-a'))));
    for (const ask of [['X-A: a'], ['X-A: b'], ['X-A: a', 'Cache-Control: no-cache']]) await scene.get('/own', ...ask);
    t.equal((await scene.get('/own', 'X-A: a')).body.toString(), 'a2');
    t.equal((await scene.get('/own', 'X-A: b')).body.toString(), 'b1');
  });
});

/** Fresh before `end`, to be validated from then on. */
function lifetime(rule: string, end: number, ...says: string[]): Row[] {
  const all = [...says, ETAG];
  return [
    ...(end > 0 ? [{ rule: `${rule}: fresh for ${end} s`, says: all, after: end - 1, fate: 'hit' as const }] : []),
    { rule: `${rule}: stale after ${end} s`, says: all, after: end, fate: 'validated' },
  ];
}

const LIFETIMES: Row[] = [
  ...lifetime('§4.2.1 max-age', 60, FRESH),
  ...lifetime('§4.2.1 s-maxage before max-age', 10, 'Cache-Control: max-age=60, s-maxage=10'),
  ...lifetime('§4.2.1 s-maxage before a shorter max-age', 60, 'Cache-Control: s-maxage=60, max-age=10'),
  ...lifetime(
    '§4.2.1 max-age before Expires',
    10,
    'Cache-Control: max-age=10',
    `Expires: ${date(60)}`,
    `Date: ${date(0)}`,
  ),
  ...lifetime('§4.2.1 Expires less Date', 60, `Expires: ${date(60)}`, `Date: ${date(0)}`),
  ...lifetime('§4.2.1 Expires without Date counts from the receipt', 60, `Expires: ${date(60)}`),
  ...lifetime('§4.2.1 the same twice', 60, 'Cache-Control: max-age=60', 'Cache-Control: max-age=60'),
  ...lifetime('§4.2.1 two that differ', 0, 'Cache-Control: max-age=60', 'Cache-Control: max-age=61'),
  ...lifetime('§4.2.1 two Expires that differ', 0, `Expires: ${date(60)}`, `Expires: ${date(61)}`),
  ...lifetime('§4.2.1 max-age quoted', 60, 'Cache-Control: max-age="60"'),
  ...lifetime('§4.2.1 max-age negative', 0, 'Cache-Control: max-age=-60'),
  ...lifetime('§4.2.1 max-age with a fraction', 0, 'Cache-Control: max-age=60.5'),
  ...lifetime('§4.2.1 max-age with a unit', 0, 'Cache-Control: max-age=60s'),
  ...lifetime('§4.2.1 max-age without a number', 0, 'Cache-Control: max-age'),
  ...lifetime('§4.2.1 max-age with an empty number', 0, 'Cache-Control: max-age='),
  ...lifetime('§4.2.1 max-age malformed beside a good Expires', 0, 'Cache-Control: max-age=x', `Expires: ${date(60)}`),
  ...lifetime('§4.2.1 s-maxage malformed beside a good max-age', 0, 'Cache-Control: s-maxage=x, max-age=60'),
  ...lifetime('§1.2.2 a huge number is 2^31', 2 ** 31, `Cache-Control: max-age=${'9'.repeat(40)}`),
  ...lifetime('§5.3 Expires of 0', 0, 'Expires: 0'),
  ...lifetime('§5.3 Expires that is no date', 0, 'Expires: tomorrow'),
  ...lifetime('§5.3 Expires at an hour that is none', 0, 'Expires: Mon, 14 Sep 2026 24:01:00 GMT'),
  ...lifetime('§5.3 Expires on a day that is none', 0, 'Expires: Thu, 31 Sep 2026 12:01:00 GMT'),
  ...lifetime('§5.3 Expires in the past', 0, `Expires: ${date(-60)}`),
  ...lifetime('RFC 9110 §5.6.7 Expires in the form of RFC 850', 60, 'Expires: Monday, 14-Sep-26 12:01:00 GMT'),
  ...lifetime('RFC 9110 §5.6.7 Expires in the form of asctime', 60, 'Expires: Mon Sep 14 12:01:00 2026'),
  ...lifetime('§5.2 names of directives in capitals', 60, 'Cache-Control: Max-Age=60'),
  ...lifetime('§4.2.2 no heuristic by default', 0, `Last-Modified: ${date(-1000)}`, `Date: ${date(0)}`),
  // Section 4.2.3
  ...lifetime('§4.2.3 Age counts', 40, FRESH, 'Age: 20'),
  ...lifetime('§4.2.3 an old Date counts', 40, FRESH, `Date: ${date(-20)}`),
  ...lifetime('§4.2.3 the older of Age and Date: Age', 40, FRESH, 'Age: 20', `Date: ${date(-10)}`),
  ...lifetime('§4.2.3 the older of Age and Date: Date', 40, FRESH, 'Age: 10', `Date: ${date(-20)}`),
  ...lifetime('§4.2.3 a Date ahead of us is no age', 60, FRESH, `Date: ${date(1000)}`),
  ...lifetime('§4.2.3 a Date that cannot be read is no age', 60, FRESH, 'Date: yesterday'),
  ...lifetime('§5.1 the same Age twice', 40, FRESH, 'Age: 20', 'Age: 20'),
  ...lifetime('§5.1 two Ages that differ', 0, FRESH, 'Age: 0', 'Age: 1'),
  ...lifetime('§5.1 Age malformed', 0, FRESH, 'Age: x'),
  ...lifetime('§5.1 Age negative', 0, FRESH, 'Age: -1'),
  ...lifetime('§5.1 Age empty', 0, FRESH, 'Age:'),
];

e2e('§4.2 freshness and age', async (t, rig) => {
  await walk(t, await Scene.open(rig), LIFETIMES);
});

const MODIFIED = `Last-Modified: ${date(-1000)}`;
const DATED = `Date: ${date(0)}`;

e2e('§4.2.2 heuristic freshness, where the config has it', async (t, rig) => {
  await walk(t, await Scene.open(rig, { heuristicFraction: 0.1, heuristicMaxMs: 200_000 }), [
    ...lifetime('§4.2.2 a tenth of the time since Last-Modified', 100, MODIFIED, DATED),
    ...lifetime('§4.2.2 that time is counted from Date', 90, `Last-Modified: ${date(-1010)}`, `Date: ${date(-10)}`),
    ...lifetime('§4.2.2 no more than the cap', 200, `Last-Modified: ${date(-10_000)}`, DATED),
    ...lifetime('§4.2.2 none without Last-Modified', 0, DATED),
    ...lifetime('§4.2.2 none where Last-Modified is no date', 0, 'Last-Modified: long ago', DATED),
    ...lifetime('§4.2.2 none where Last-Modified is ahead', 0, `Last-Modified: ${date(50)}`, DATED),
    ...lifetime('§4.2.2 none beside max-age', 10, MODIFIED, DATED, 'Cache-Control: max-age=10'),
    ...lifetime('§4.2.2 none beside Expires', 0, MODIFIED, DATED, 'Expires: 0'),
    {
      rule: '§4.2.2 for public answers of any status',
      says: [MODIFIED, 'Cache-Control: public'],
      status: '201 New',
      after: 99,
      fate: 'hit',
    },
    { rule: '§4.2.2 for no other answer of such a status', says: [MODIFIED], status: '201 New', fate: 'fetched' },
  ]);
});

e2e('§4.2.3 and §5.1 Age on every hit', async (t, rig) => {
  const scene = await Scene.open(rig);
  const ageAfter = async (path: string, seconds: number) => {
    scene.later(seconds);
    return (await scene.get(path)).all('age').join();
  };
  for (const [i, [rule, start, ...says]] of (
    [
      ['from 0', 0],
      ['from the Age it came with', 7, 'Age: 7'],
      ['from an old Date', 9, `Date: ${date(-9)}`],
    ] as const
  ).entries()) {
    await t.test(`§4.2.3 the age grows ${rule}`, async (t) => {
      scene.backToStart();
      const path = `/grows${i}`;
      scene.replies(path, answer('x', lines(FRESH, ...says)));
      await scene.get(path);
      t.equal(await ageAfter(path, 0), `${start}`);
      t.equal(await ageAfter(path, 3), `${start + 3}`);
      t.equal(await ageAfter(path, 30), `${start + 33}`);
    });
  }
  await t.test('§4.2.3 the time an answer took counts as age', async (t) => {
    scene.backToStart();
    scene.replies('/slow', async (_request, connection) => {
      await whileNothing(30);
      connection.send(answer('x', lines(FRESH, DATED, 'Age: 7')));
    });
    await scene.get('/slow');
    t.equal(await ageAfter('/slow', 0.98), '8', '30 ms and 980 ms more');
  });
  await t.test('§4.2.3 a clock that was set back counts as no time', async (t) => {
    scene.backToStart();
    scene.replies('/back', answer('x', lines(FRESH, 'Age: 7')));
    await scene.get('/back');
    t.equal(await ageAfter('/back', -100), '7');
  });
  await t.test('§5.1 what is passed on keeps the Age it came with', async (t) => {
    scene.replies('/passed', answer('x', lines('Age: 7')));
    t.same((await scene.get('/passed')).all('age'), ['7']);
  });
});

const STALE = 'stale-while-revalidate=1000, stale-if-error=1000';
const NEVER_STALE: Row[] = ['max-age=10, must-revalidate', 'max-age=10, proxy-revalidate', 's-maxage=10'].flatMap(
  (value) => [
    {
      rule: `§4.2.4 ${value} is used while fresh`,
      says: [`Cache-Control: ${value}, ${STALE}`, ETAG],
      after: 9,
      fate: 'hit',
    },
    {
      rule: `§4.2.4 ${value} is never used stale`,
      says: [`Cache-Control: ${value}, ${STALE}`, ETAG],
      after: 11,
      fate: 'validated',
    },
    {
      rule: `§4.2.4 ${value} is never used stale, whatever the client would take`,
      says: [`Cache-Control: ${value}, ${STALE}`, ETAG],
      after: 11,
      again: ['Cache-Control: max-stale'],
      fate: 'validated',
    },
  ],
);

e2e('§4.2.4 stale answers', async (t, rig) => {
  await walk(t, await Scene.open(rig), [
    ...NEVER_STALE,
    {
      rule: '§5.2.2.4 no-cache is never used unasked',
      says: ['Cache-Control: max-age=60, no-cache', ETAG],
      fate: 'validated',
    },
    {
      rule: '§5.2.2.4 no-cache is never used unasked, whatever the client would take',
      says: [`Cache-Control: max-age=60, no-cache, ${STALE}`, ETAG],
      again: ['Cache-Control: max-stale'],
      fate: 'validated',
    },
    {
      rule: '§5.2.2.4 no-cache="" means the whole answer',
      says: ['Cache-Control: max-age=60, no-cache=""', ETAG],
      fate: 'validated',
    },
    {
      rule: '§4.2.4 by default a stale answer is not used',
      says: ['Cache-Control: max-age=10', ETAG],
      after: 10,
      fate: 'validated',
    },
    {
      rule: '§4.2.4 of an answer whose age nobody can tell no staleness is allowed',
      says: [`Cache-Control: max-age=10, ${STALE}`, 'Age: x', ETAG],
      fate: 'validated',
    },
    {
      rule: '§5.1 an Age that nobody can tell is none where any staleness will do',
      says: ['Cache-Control: max-age=10', 'Age: x', ETAG],
      again: ['Cache-Control: max-stale'],
      after: 1,
      fate: 'stale',
    },
    {
      rule: '§4.3 a stale answer without a validator is fetched anew',
      says: ['Cache-Control: max-age=10'],
      after: 10,
      fate: 'fetched',
      stored: true,
    },
  ]);
});

e2e('RFC 5861 §3 stale-while-revalidate', async (t, rig) => {
  const scene = await Scene.open(rig);
  const stale = async (path: string, after: number, ...replies: (string | Script)[]) => {
    scene.backToStart();
    scene.replies(path, answer('old', lines(SWR, ETAG)), ...replies);
    await scene.get(path);
    scene.later(after);
  };
  const settled = (path: string, n: number) =>
    until('the background fetch', () => scene.asked(path).length === n && scene.proxy.pool().active === 0);
  await t.test('stale at once, one fetch in the background, then fresh', async (t) => {
    let release = () => {};
    await stale('/once', 29, async (_request, connection) => {
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      connection.send(answer('new', lines(SWR, 'ETag: "b"')));
    });
    for (let i = 0; i < 3; i++) {
      const { fate, got } = await fateOf(scene, '/once', {});
      t.equal(fate, 'stale');
      t.equal(got.body.toString(), 'old');
      t.equal(cacheStatus(got).ttl, '-20');
    }
    const { connection } = await scene.upstream.request(1);
    t.equal(scene.asked('/once').length, 2, 'exactly one');
    t.equal(scene.asked('/once')[1]!.get('if-none-match'), '"a"');
    release();
    await settled('/once', 2);
    const { fate, got } = await fateOf(scene, '/once', {});
    t.equal(fate, 'hit');
    t.equal(got.body.toString(), 'new');
    t.ok(connection);
  });
  await t.test('304 in the background makes it fresh', async (t) => {
    await stale('/304', 15, `HTTP/1.1 304 Not Modified\r\n${lines(SWR, ETAG)}\r\n`);
    t.equal((await fateOf(scene, '/304', {})).fate, 'stale');
    await settled('/304', 2);
    t.equal((await fateOf(scene, '/304', {})).fate, 'hit');
  });
  await t.test('not at the end of its window', async (t) => {
    await stale('/over', 30, answer('new', lines(SWR)));
    t.equal((await fateOf(scene, '/over', {})).fate, 'validated');
  });
  await t.test('an error in the background leaves it as it is', async (t) => {
    await stale('/error', 15, answer('no', '', '503 Busy'));
    t.equal((await fateOf(scene, '/error', {})).fate, 'stale');
    await settled('/error', 2);
    t.equal((await fateOf(scene, '/error', {})).fate, 'stale');
    await settled('/error', 3);
  });
  await t.test('HEAD is answered stale too, and what it begins renews the whole answer', async (t) => {
    await stale('/head', 15, answer('new', lines(SWR)));
    t.equal((await fateOf(scene, '/head', { method: 'HEAD' })).fate, 'stale');
    await settled('/head', 2);
    t.equal(scene.asked('/head')[1]!.method, 'GET', 'asks with GET');
    const { fate, got } = await fateOf(scene, '/head', {});
    t.equal(fate, 'hit', 'fresh');
    t.equal(got.body.toString(), 'new', 'the new one');
  });
  await t.test('a range begins a fetch of the whole', async (t) => {
    await stale('/range', 15, answer('new', lines(SWR)));
    const got = await scene.get('/range', 'Range: bytes=0-0');
    t.equal(got.status, 206);
    await settled('/range', 2);
    t.equal(scene.asked('/range')[1]!.get('range'), undefined);
    t.equal((await fateOf(scene, '/range', {})).got.body.toString(), 'new');
  });
});

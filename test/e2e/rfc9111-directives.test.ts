// RFC 9111 section 5 (what requests say), ranges (RFC 9110 section 14), Cache-Status (RFC 9211), interim answers, partitions.

import { cacheStatus, date, fateOf, lines, type Row, Scene, walk } from '../support/cache-scene.ts';
import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

const ETAG = 'ETag: "a"';
const FRESH = 'Cache-Control: max-age=60';
const SWR = 'Cache-Control: max-age=10, stale-while-revalidate=20';

/** Of an answer that is fresh for 60 s, so many seconds old. */
const request = (name: string, value: string, after: number, fate: Row['fate'], says = [FRESH, ETAG]): Row => ({
  rule: `${name}: ${value} at ${after} s`,
  says,
  again: [`Cache-Control: ${value}`],
  after,
  fate,
  stored: true,
});

const REQUESTS: Row[] = [
  request('§5.2.1.1 max-age', 'max-age=20', 19, 'hit'),
  request('§5.2.1.1 max-age', 'max-age=20', 21, 'validated'),
  request('§5.2.1.1 max-age is no longer lifetime', 'max-age=1000', 60, 'validated'),
  request('§5.2.1.1 max-age of 0', 'max-age=0', 1, 'validated'),
  request('§5.2.1.1 max-age quoted', 'max-age="20"', 21, 'validated'),
  request('§5.2.1.1 max-stale relaxes max-age by as much', 'max-age=20, max-stale=5', 24, 'hit'),
  request('§5.2.1.1 max-stale relaxes max-age by as much', 'max-age=20, max-stale=5', 26, 'validated'),
  request('§5.2.1.1 max-stale beside max-age', 'max-age=100, max-stale=20', 79, 'stale'),
  request('§5.2.1.2 max-stale with a value', 'max-stale=20', 79, 'stale'),
  request('§5.2.1.2 max-stale with a value', 'max-stale=20', 81, 'validated'),
  request('§5.2.1.2 max-stale without a value', 'max-stale', 1_000_000, 'stale'),
  request('§5.2.1.2 max-stale does not reach must-revalidate', 'max-stale', 60, 'validated', [
    `${FRESH}, must-revalidate`,
    ETAG,
  ]),
  request('§5.2.1.3 min-fresh', 'min-fresh=20', 39, 'hit'),
  request('§5.2.1.3 min-fresh', 'min-fresh=20', 41, 'validated'),
  request('§5.2.1.3 min-fresh goes before max-stale', 'min-fresh=20, max-stale', 41, 'validated'),
  request('§5.2.1.4 no-cache', 'no-cache', 0, 'validated'),
  request('§5.2.1.4 no-cache in capitals', 'No-Cache', 0, 'validated'),
  request('§5.2.1.4 no-cache, though more would do', 'no-cache, max-stale', 0, 'validated'),
  request('§5.2.1.5 no-store', 'no-store', 0, 'fetched'),
  request('§5.2.1.6 no-transform changes nothing', 'no-transform', 0, 'hit'),
  request('§5.2.3 unknown directives are ignored', 'x-new="a, no-cache", x', 0, 'hit'),
  request('§5.2.1 no broken directive is taken for a permission', '=', 0, 'validated'),
  request('§5.2.1 no broken max-age', 'max-age=x', 0, 'validated'),
  request('§5.2.1 no broken max-stale', 'max-stale=x', 70, 'validated'),
  request('§5.2.1 no broken min-fresh', 'min-fresh', 0, 'validated'),
  request('§5.2.1 no max-age twice that differs', 'max-age=50, max-age=60', 0, 'validated'),
  request('§5.2.1.1 who says how old it may be gets nothing stale', 'max-age=100', 15, 'validated', [SWR, ETAG]),
  { rule: '§5.4 Pragma: no-cache', says: [FRESH, ETAG], again: ['Pragma: x, no-cache'], fate: 'validated' },
  { rule: '§5.4 another Pragma', says: [FRESH, ETAG], again: ['Pragma: x'], fate: 'hit' },
  {
    rule: '§5.4 Cache-Control goes before Pragma',
    says: [FRESH, ETAG],
    again: ['Pragma: no-cache', 'Cache-Control: max-age=60'],
    fate: 'hit',
  },
  { rule: '§5.4 Pragma of an answer says nothing', says: ['Pragma: no-cache', FRESH], fate: 'hit' },
  { rule: '§5.2.2.6 no-transform of an answer changes nothing', says: [`${FRESH}, no-transform`], fate: 'hit' },
];

e2e('§5.2.1 what a request says', async (t, rig) => {
  const scene = await Scene.open(rig);
  await walk(t, scene, REQUESTS);
  scene.backToStart();
  const only = ['Cache-Control: only-if-cached'];
  await t.test('§5.2.1.7 only-if-cached: 504 when nothing is stored, and the upstream is not asked', async (t) => {
    const got = await scene.get('/nothing', ...only);
    t.equal(got.status, 504);
    t.equal(got.code, 'not_cached');
    t.equal(cacheStatus(got).fwd, undefined, 'it was not forwarded');
    t.equal(scene.asked('/nothing').length, 0);
  });
  for (const [method, more] of [
    ['GET', ', no-store'],
    ['OPTIONS', ''],
    ['POST', ''],
  ] as const) {
    await t.test(`§5.2.1.7 only-if-cached: 504 for what is never stored: ${method}${more}`, async (t) => {
      const got = await scene.ask('/nothing', { method, fields: [`${only[0]}${more}`] });
      t.equal(got.code, 'not_cached');
      t.equal(scene.asked('/nothing').length, 0);
    });
  }
  await t.test('§5.2.1.7 only-if-cached: what is stored and fresh', async (t) => {
    scene.replies('/stored', answer('x', lines(FRESH, ETAG)));
    await scene.get('/stored');
    t.equal((await fateOf(scene, '/stored', { fields: only })).fate, 'hit');
    t.equal((await fateOf(scene, '/stored', { fields: only, method: 'HEAD' })).fate, 'hit');
  });
  await t.test('§5.2.1.7 only-if-cached: 504 when what is stored is stale', async (t) => {
    scene.later(60);
    for (const method of ['GET', 'HEAD'])
      t.equal((await scene.ask('/stored', { method, fields: only })).status, 504, method);
    t.equal((await scene.get('/stored', 'Cache-Control: only-if-cached, max-stale')).status, 200);
    t.equal(scene.asked('/stored').length, 1);
  });
});

e2e('RFC 9110 §14 ranges of a stored answer', async (t, rig) => {
  const scene = await Scene.open(rig);
  const modified = (seconds: number) => `Last-Modified: ${date(seconds)}`;
  // As long as the two names that a part has anew.
  const ODD = ['X-Thirteen-AB: 1', 'X-Fourteen-ABC: 1'];
  const stored: [path: string, reply: string][] = [
    [
      '/strong',
      answer('0123456789', lines(FRESH, ETAG, modified(-1000), `Date: ${date(0)}`, 'Content-Type: a/b', ...ODD)),
    ],
    ['/weak', answer('0123456789', lines(FRESH, 'ETag: W/"a"', modified(0), `Date: ${date(0)}`))],
    ['/empty', answer('', lines(FRESH))],
    ['/404', answer('0123456789', lines(FRESH), '404 Not Found')],
  ];
  for (const [path, reply] of stored) {
    scene.replies(path, reply);
    await scene.get(path);
  }
  const part = (from: number, to: number) => '0123456789'.slice(from, to + 1);
  const table: [rule: string, path: string, fields: string[], status: number, span?: [number, number]][] = [
    ['the first bytes', '/strong', ['Range: bytes=0-3'], 206, [0, 3]],
    ['one byte', '/strong', ['Range: bytes=9-9'], 206, [9, 9]],
    ['an open end', '/strong', ['Range: bytes=4-'], 206, [4, 9]],
    ['an end beyond the end', '/strong', ['Range: bytes=4-1000'], 206, [4, 9]],
    ['the last bytes', '/strong', ['Range: bytes=-3'], 206, [7, 9]],
    ['more last bytes than there are', '/strong', ['Range: bytes=-30'], 206, [0, 9]],
    ['the unit in capitals, empty elements', '/strong', ['Range: BYTES= ,2-3 ,'], 206, [2, 3]],
    ['a start beyond the end', '/strong', ['Range: bytes=10-'], 416],
    ['the last 0 bytes', '/strong', ['Range: bytes=-0'], 416],
    ['any byte of nothing', '/empty', ['Range: bytes=0-'], 416],
    ['the last bytes of nothing', '/empty', ['Range: bytes=-3'], 200],
    ['an end before the start is ignored', '/strong', ['Range: bytes=3-2'], 200],
    ['another unit is ignored', '/strong', ['Range: lines=0-3'], 200],
    ['what is no number is ignored', '/strong', ['Range: bytes=a-3'], 200],
    ['what is no number at its end is ignored', '/strong', ['Range: bytes=3-x'], 200],
    ['what ends as no number is ignored', '/strong', ['Range: bytes=2-5x', 'X: 1'], 200],
    ['what ends as no number is ignored, below the digits', '/strong', ['Range: bytes=2-5!'], 200],
    ['no numbers at all are ignored', '/strong', ['Range: bytes=-'], 200],
    ['no dash is ignored', '/strong', ['Range: bytes=3'], 200],
    ['on what is no 200 it is ignored', '/404', ['Range: bytes=0-3'], 404],
    ['If-Range of the strong tag', '/strong', ['Range: bytes=0-3', 'If-Range: "a"'], 206, [0, 3]],
    ['If-Range of another tag', '/strong', ['Range: bytes=0-3', 'If-Range: "b"'], 200],
    ['If-Range of a weak tag', '/strong', ['Range: bytes=0-3', 'If-Range: W/"a"'], 200],
    ['If-Range where ours is weak', '/weak', ['Range: bytes=0-3', 'If-Range: W/"a"'], 200],
    ['If-Range of the date', '/strong', ['Range: bytes=0-3', `If-Range: ${date(-1000)}`], 206, [0, 3]],
    ['If-Range of a later date', '/strong', ['Range: bytes=0-3', `If-Range: ${date(-999)}`], 200],
    ['If-Range of a date as old as the answer', '/weak', ['Range: bytes=0-3', `If-Range: ${date(0)}`], 200],
    ['If-Range of what is no date', '/empty', ['Range: bytes=0-', 'If-Range: now'], 200],
    ['If-Range that fails lets no 416 through', '/strong', ['Range: bytes=99-', 'If-Range: "b"'], 200],
    ['If-None-Match goes first', '/strong', ['Range: bytes=0-3', 'If-None-Match: "a"'], 304],
    [
      'If-None-Match that does not match lets it through',
      '/strong',
      ['Range: bytes=0-3', 'If-None-Match: "b"'],
      206,
      [0, 3],
    ],
  ];
  for (const [rule, path, fields, status, span] of table) {
    await t.test(`§14 ${rule}`, async (t) => {
      const { fate, got } = await fateOf(scene, path, { fields });
      t.equal(fate, 'hit');
      t.equal(got.status, status);
      if (status === 416) {
        t.equal(got.get('content-range'), `bytes */${path === '/empty' ? 0 : 10}`);
        t.equal(got.body.length, 0);
      } else if (span) {
        t.equal(got.body.toString(), part(...span));
        t.same(got.all('content-range'), [`bytes ${span[0]}-${span[1]}/10`]);
        t.same(got.all('content-length'), [`${span[1] - span[0] + 1}`]);
        t.equal(got.get('etag'), '"a"');
        t.equal(got.get('content-type'), 'a/b');
        for (const field of ODD) t.equal(got.get(field.slice(0, -3)), '1', field);
      } else t.equal(got.get('content-range'), undefined);
    });
  }
  await t.test('§14.2 HEAD has no ranges', async (t) => {
    const { fate, got } = await fateOf(scene, '/strong', { method: 'HEAD', fields: ['Range: bytes=0-3'] });
    t.equal(fate, 'hit');
    t.equal(got.status, 200);
    t.equal(got.get('content-length'), '10');
  });
  const partial = (path: string) =>
    scene.replies(
      path,
      answer('0', lines(FRESH, 'Content-Range: bytes 0-0/2'), '206 Part'),
      answer('whole', lines(FRESH)),
    );
  await t.test('§14 a long answer, whole and in parts', async (t) => {
    const long = Array.from({ length: 50_000 }, (_, i) => `${i} `).join('');
    scene.replies('/long', answer(long, lines(FRESH)));
    await scene.get('/long');
    t.equal((await fateOf(scene, '/long', {})).got.body.toString(), long);
    const { fate, got } = await fateOf(scene, '/long', { fields: ['Range: bytes=1000-200999'] });
    t.equal(fate, 'hit');
    t.equal(got.body.toString(), long.slice(1000, 201_000));
  });
  await t.test('§14 several ranges are the upstream’s', async (t) => {
    partial('/strong');
    const got = await scene.get('/strong', 'Range: bytes=0-1,3-4');
    t.equal(got.status, 206);
    t.match(cacheStatus(got), { fwd: 'partial', detail: 'several_ranges' });
    t.equal(scene.asked('/strong').at(-1)!.get('range'), 'bytes=0-1,3-4');
    t.equal((await fateOf(scene, '/strong', {})).fate, 'hit');
  });
  await t.test('§14 a range of what is not stored passes, and stores nothing', async (t) => {
    partial('/miss');
    const got = await scene.get('/miss', 'Range: bytes=0-0', 'If-Range: "z"');
    t.equal(got.status, 206);
    t.notOk('stored' in cacheStatus(got));
    t.equal(scene.asked('/miss')[0]!.get('range'), 'bytes=0-0');
    t.equal(scene.asked('/miss')[0]!.get('if-range'), '"z"');
    const next = await fateOf(scene, '/miss', {});
    t.equal(next.fate, 'fetched');
    t.equal(next.got.body.toString(), 'whole');
    t.equal((await scene.get('/miss', 'Range: bytes=1-2')).body.toString(), 'ho');
  });
});

e2e('RFC 9211 Cache-Status', async (t, rig) => {
  const scene = await Scene.open(rig);
  const line = async (path: string, asking: Parameters<Scene['ask']>[1] = {}) =>
    (await scene.ask(path, asking)).all('cache-status').join(' | ');
  scene.replies('/x', answer('x', lines(FRESH, ETAG)));
  const table: [rule: string, path: string, asking: Parameters<Scene['ask']>[1], says: string][] = [
    ['§2.2 uri-miss, stored', '/x', {}, 'aiproxy; fwd=uri-miss; stored'],
    ['§2.1 hit, §2.4 ttl', '/x', {}, 'aiproxy; hit; ttl=59'],
    ['§2.2 method', '/y', { method: 'POST', body: 'x' }, 'aiproxy; fwd=method'],
    ['§2.2 method of OPTIONS', '/y', { method: 'OPTIONS' }, 'aiproxy; fwd=method'],
    ['§2.2 bypass', '/x', { fields: ['Cache-Control: no-store'] }, 'aiproxy; fwd=bypass; detail=request_no_store'],
    ['§2.2 uri-miss, not stored', '/y', {}, 'aiproxy; fwd=uri-miss'],
  ];
  for (const [rule, path, asking, says] of table) {
    await t.test(rule, async (t) => {
      t.equal(await line(path, asking), says);
    });
  }
  await t.test('§2.2 request', async (t) => {
    for (const [value, detail] of [
      ['no-cache', 'request_no_cache'],
      ['max-age=0', 'request_max_age'],
      ['min-fresh=61', 'request_min_fresh'],
    ] as const) {
      scene.later(1);
      const got = await scene.get('/x', `Cache-Control: ${value}`);
      t.match(cacheStatus(got), { fwd: 'request', stored: '', detail }, value);
    }
  });
  await t.test('§2.2 stale, because the answer says no-cache', async (t) => {
    scene.replies('/no-cache', answer('x', lines('Cache-Control: no-cache', ETAG)));
    await scene.get('/no-cache');
    t.match(cacheStatus(await scene.get('/no-cache')), { fwd: 'stale', stored: '', detail: 'no_cache' });
  });
  await t.test('§2.2 stale, §2.3 fwd-status', async (t) => {
    scene.replies('/x', `HTTP/1.1 304 Not Modified\r\n${lines(FRESH)}\r\n`);
    scene.later(60);
    t.match(cacheStatus(await scene.get('/x')), { fwd: 'stale', 'fwd-status': '304', ttl: '59' });
  });
  await t.test('§2.4 a negative ttl', async (t) => {
    scene.later(70);
    t.equal(await line('/x', { fields: ['Cache-Control: max-stale'] }), 'aiproxy; hit; ttl=-11; detail=stale_allowed');
  });
  await t.test('§2.6 collapsed', async (t) => {
    scene.replies('/twins', async (_request, connection) => {
      await until('both are here', () => scene.proxy.upstream().in_flight === 2);
      connection.send(answer('x', lines(FRESH)));
    });
    const all = await Promise.all([line('/twins'), line('/twins')]);
    t.same(all.sort(), ['aiproxy; fwd=uri-miss; collapsed', 'aiproxy; fwd=uri-miss; stored']);
  });
  await t.test('§2 it comes after an upstream’s own', async (t) => {
    scene.replies('/chain', answer('x', lines(FRESH, 'Cache-Status: origin; hit')));
    t.equal(await line('/chain'), 'origin; hit | aiproxy; fwd=uri-miss; stored');
    t.equal(await line('/chain'), 'origin; hit | aiproxy; hit; ttl=59');
  });
  await t.test('§2 our own errors have it too', async (t) => {
    scene.replies('/reset', (_request, connection) => connection.resetAndDestroy());
    const got = await scene.get('/reset');
    t.equal(got.status, 502);
    t.equal(cacheStatus(got).fwd, 'uri-miss');
  });
});

e2e('RFC 9110 §15.2 interim answers pass, and only the final one is stored', async (t, rig) => {
  const scene = await Scene.open(rig);
  const early = 'HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n';
  scene.replies('/x', early + answer('x', lines(FRESH)));
  const client = await scene.sent('/x');
  const interim = await client.head();
  t.equal(interim.status, 103);
  t.same(interim.headers, [['Link', '</a>; rel=preload']]);
  t.equal((await client.answer()).status, 200);
  client.destroy();
  const hit = await scene.sent('/x');
  t.equal((await hit.head()).status, 200);
  hit.destroy();
  scene.replies('/old', early + answer('x', lines(FRESH)));
  const old = await rig.client(scene.proxy);
  old.send('GET /ai/old HTTP/1.0\r\n\r\n');
  t.equal((await old.head()).status, 200);
});

e2e('partitions', async (t, rig) => {
  const one = await Scene.open(rig);
  const all = await Scene.open(rig, { partition: 'shared' });
  const PUBLIC = 'Cache-Control: public, max-age=60';
  for (const name of ['Authorization', 'x-api-key', 'Api-Key', 'X-Goog-Api-Key', 'Cookie']) {
    await t.test(`two credentials never share: ${name}`, async (t) => {
      const path = `/${name}`;
      one.replies(path, (request, connection) => connection.send(answer(request.get(name) ?? 'none', lines(PUBLIC))));
      for (const fields of [[`${name}: a`], [`${name}: b`], [`${name}: A`], [], [`${name}: a`, `${name}: b`]]) {
        t.equal((await fateOf(one, path, { fields })).fate, 'fetched', fields.join());
        t.equal((await fateOf(one, path, { fields })).fate, 'hit', fields.join());
      }
      t.equal((await one.get(path, `${name}: a`)).body.toString(), 'a');
      t.equal((await one.get(path, `${name}: b`)).body.toString(), 'b');
    });
    await t.test(`partition shared: ${name} does not count`, async (t) => {
      const path = `/${name}`;
      all.replies(path, answer('x', lines(PUBLIC)));
      await all.get(path, `${name}: a`);
      t.equal((await fateOf(all, path, { fields: [`${name}: b`] })).fate, 'hit');
    });
  }
  await t.test('partition shared: unless the answer does not allow it (§3.5)', async (t) => {
    all.replies('/private', answer('x', lines(FRESH)));
    await all.get('/private', 'Authorization: a');
    t.equal((await fateOf(all, '/private', { fields: ['Authorization: b'] })).fate, 'fetched');
  });
  /** Two that ask at the same time; the upstream numbers its answers. */
  const twins = async (path: string, says: readonly string[], asks: readonly (readonly string[])[]) => {
    const before = one.proxy.upstream().requests;
    let n = 0;
    one.replies(path, async (_request, connection) => {
      await until('both are here', () => one.proxy.upstream().requests === before + 2);
      await whileNothing(5);
      connection.send(answer(`${++n}`, lines(...says)));
    });
    return (await Promise.all(asks.map((fields) => one.get(path, ...fields)))).map(({ body }) => body.toString());
  };
  const PRIVATE = [
    'Cache-Control: private',
    'Cache-Control: no-store',
    'Vary: *',
    'Set-Cookie: a=1',
    'Cache-Control: "',
  ];
  for (const [i, says] of PRIVATE.entries()) {
    await t.test(`who waits for an answer with ${says} gets one of his own`, async (t) => {
      t.same((await twins(`/twins${i}`, [FRESH, says], [[], []])).sort(), ['1', '2']);
    });
  }
  await t.test('§4.1 who waits for another variant gets his own', async (t) => {
    t.same((await twins('/variants', [FRESH, 'Vary: x-a'], [['X-A: 1'], ['X-A: 2']])).sort(), ['1', '2']);
    t.same(await twins('/same', [FRESH, 'Vary: x-a'], [['X-A: 1'], ['X-A: 1']]), ['1', '1']);
  });
  await t.test('who joins an answer that comes sees nothing that it keeps for one', async (t) => {
    for (const [path, says] of [
      ['/named', ['Cache-Control: public, max-age=60, private="x-user"', 'X-User: a']],
      ['/named-2', ['Cache-Control: public, max-age=60, no-cache="x-user"', 'X-User: a']],
    ] as const) {
      const before = all.proxy.upstream().requests;
      all.replies(path, async (_request, connection) => {
        await until('both are here', () => all.proxy.upstream().requests === before + 2);
        await whileNothing(5);
        connection.send(answer('x', lines(...says)));
      });
      const both = await Promise.all(['a', 'b'].map((user) => all.get(path, `Authorization: ${user}`)));
      const joined = both.find((got) => 'collapsed' in cacheStatus(got));
      t.ok(joined, 'one of them joined');
      t.equal(joined?.get('x-user'), undefined, path);
    }
  });
});

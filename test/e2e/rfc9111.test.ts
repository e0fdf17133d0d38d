// RFC 9111, sections 2 and 3: what is stored, and under which key.

import { cacheStatus, date, fateOf, lines, type Row, Scene, walk } from '../support/cache-scene.ts';
import { e2e } from '../support/rig.ts';
import { answer, chunk, chunkedHead } from '../support/upstream.ts';

const ETAG = 'ETag: "a"';
const FRESH = 'Cache-Control: max-age=60';
type Tap = Parameters<Parameters<typeof e2e>[1]>[0];

e2e('§2 the key: method and URI', async (t, rig) => {
  const scene = await Scene.open(rig);
  const store = async (path: string) => {
    scene.replies(path, answer(path, lines(FRESH)));
    t.equal('stored' in cacheStatus(await scene.get(path)), true);
  };
  await t.test('§2 the query is part of it', async (t) => {
    await store('/q?a=1');
    for (const path of ['/q', '/q?', '/q?a=2', '/q?a=1&', '/q?A=1', '/Q?a=1']) {
      const { fate, got } = await fateOf(scene, path, {});
      t.equal(fate, 'fetched', path);
      t.equal(cacheStatus(got).fwd, 'uri-miss', path);
    }
    t.equal((await fateOf(scene, '/q?a=1', {})).fate, 'hit');
  });
  for (const method of ['OPTIONS', 'TRACE', 'POST', 'QUERY']) {
    await t.test(`§2 an answer to GET is none to ${method}`, async (t) => {
      await store(`/${method}`);
      const { fate, got } = await fateOf(scene, `/${method}`, { method });
      t.equal(fate, 'fetched');
      t.equal(cacheStatus(got).fwd, 'method');
    });
  }
  await t.test('§2 a GET with a body is not looked up', async (t) => {
    await store('/body');
    t.equal((await fateOf(scene, '/body', { body: 'x' })).fate, 'fetched');
  });
  await t.test('§4 HEAD is answered from an answer to GET, without its body', async (t) => {
    await store('/head');
    const { fate, got } = await fateOf(scene, '/head', { method: 'HEAD' });
    t.equal(fate, 'hit');
    t.equal(got.status, 200);
    t.equal(got.get('content-length'), '5');
    t.equal(got.body.length, 0);
  });
  await t.test('§3 an answer to HEAD is not stored', async (t) => {
    scene.replies('/only-head', answer('x', lines(FRESH)));
    t.notOk('stored' in cacheStatus(await scene.ask('/only-head', { method: 'HEAD' })));
    t.equal(scene.proxy.exchanges.at(-1)!.cache, 'miss');
    t.equal((await fateOf(scene, '/only-head', {})).fate, 'fetched');
  });
});

const STATUSES: Row[] = [
  ...[
    ...['200 OK', '203 Non-Authoritative', '300 Multiple Choices', '301 Moved', '308 Permanent', '404 Not Found'],
    ...['405 Not Allowed', '410 Gone', '414 Too Long', '501 Not Implemented'],
  ].map(
    (status): Row => ({
      rule: `§3 ${status} needs no freshness to be stored`,
      says: [ETAG],
      status,
      fate: 'validated',
    }),
  ),
  ...['201 Created', '302 Found', '307 Temporary', '400 Bad', '403 No', '500 Oops', '299 Odd'].flatMap(
    (status): Row[] => [
      { rule: `§3 ${status} is not stored without freshness`, says: [ETAG], status, fate: 'fetched' },
      { rule: `§3 ${status} is stored with freshness`, says: [FRESH], status, fate: 'hit' },
      { rule: `§3 ${status} is stored with public`, says: ['Cache-Control: public', ETAG], status, fate: 'validated' },
    ],
  ),
  ...[203, 300, 301, 308, 404, 405, 410, 414, 451, 501].map(
    (status): Row => ({
      rule: `§5.2.2.3 must-understand: ${status} is understood`,
      says: ['Cache-Control: max-age=60, must-understand, no-store'],
      status: `${status} X`,
      fate: 'hit',
    }),
  ),
  {
    rule: '§3 206 is no whole answer',
    says: [FRESH, 'Content-Range: bytes 0-3/9'],
    status: '206 Part',
    fate: 'fetched',
  },
  { rule: '§3 206 without Content-Range neither', says: [FRESH], status: '206 Part', fate: 'fetched' },
  { rule: '§3 a 200 with Content-Range neither', says: [FRESH, 'Content-Range: bytes 0-3/9'], fate: 'fetched' },
];

e2e('§3 storing: by status', async (t, rig) => {
  const scene = await Scene.open(rig);
  await walk(t, scene, STATUSES);
  await t.test('§3 204 is stored, without a body', async (t) => {
    scene.replies('/204', `HTTP/1.1 204 No Content\r\n${lines(`${FRESH}, must-understand, no-store`)}\r\n`);
    await scene.get('/204');
    t.equal((await fateOf(scene, '/204', {})).got.status, 204);
    t.equal(scene.asked('/204').length, 1);
    scene.replies('/204-etag', `HTTP/1.1 204 No Content\r\n${lines(ETAG)}\r\n`);
    await scene.get('/204-etag');
    t.equal((await fateOf(scene, '/204-etag', {})).fate, 'validated', 'without freshness too');
  });
  await t.test('§3 a 304 that nobody asked for is not stored', async (t) => {
    scene.replies('/304', `HTTP/1.1 304 Not Modified\r\n${lines(FRESH, ETAG)}\r\n`, answer('whole', lines(FRESH)));
    t.equal((await scene.get('/304')).status, 304);
    t.equal((await scene.get('/304')).body.toString(), 'whole');
  });
});

/** With a lifetime and a validator, so that nothing but the rule stands against storing. */
const control = (value: string) => [`Cache-Control: max-age=60, ${value}`, ETAG];
const REFUSALS: Row[] = [
  { rule: '§3 explicit freshness alone makes it storable', says: [FRESH], fate: 'hit' },
  { rule: '§3 a tag alone', says: [ETAG], fate: 'validated' },
  { rule: '§3 a date alone', says: [`Last-Modified: ${date(-9)}`], fate: 'validated' },
  { rule: '§3 no freshness and no validator', says: ['X-A: 1'], fate: 'fetched' },
  { rule: '§3 a lifetime of 0 and no validator', says: ['Cache-Control: max-age=0'], fate: 'fetched' },
  { rule: '§3 a lifetime that is over already, and no validator', says: [FRESH, 'Age: 60'], fate: 'fetched' },
  { rule: '§3 an answer to POST', says: control('public'), method: 'POST', fate: 'fetched' },
  { rule: '§3 an answer to PUT', says: control('public'), method: 'PUT', fate: 'fetched' },
  {
    rule: '§5.2.1.5 no-store of the request',
    says: control('public'),
    asks: ['Cache-Control: no-store'],
    again: [],
    fate: 'fetched',
  },
  { rule: '§5.2.2.5 no-store', says: control('no-store'), fate: 'fetched' },
  {
    rule: '§5.2.2.5 no-store on a line of its own, in capitals',
    says: [FRESH, 'CACHE-CONTROL: NO-STORE'],
    fate: 'fetched',
  },
  { rule: '§5.2.2.7 private', says: control('private'), fate: 'fetched' },
  { rule: '§5.2.2.7 private, though public', says: control('public, private'), fate: 'fetched' },
  { rule: '§5.2.2.7 private="" is private', says: control('private=""'), fate: 'fetched' },
  { rule: '§5.2.2.7 private= is private', says: control('private='), fate: 'fetched' },
  { rule: '§5.2.2.7 private beside private="x" is private', says: control('private="x", private'), fate: 'fetched' },
  { rule: '§5.2.2.7 private="content-type" is private', says: control('private="content-type"'), fate: 'fetched' },
  { rule: '§5.2.2.7 private of what is no field name', says: control('private="a b"'), fate: 'fetched' },
  { rule: '§5.2.2.4 no-cache of what is no field name', says: control('no-cache="a b"'), fate: 'fetched' },
  { rule: '§5.2.2.4 no-cache needs a validator', says: ['Cache-Control: max-age=60, no-cache'], fate: 'fetched' },
  { rule: '§5.2.2.3 must-understand with a known status', says: control('must-understand'), fate: 'hit' },
  { rule: '§5.2.2.3 must-understand lifts no-store', says: control('must-understand, no-store'), fate: 'hit' },
  {
    rule: '§5.2.2.3 must-understand with an unknown status',
    says: control('must-understand'),
    status: '299 Odd',
    fate: 'fetched',
  },
  {
    rule: '§5.2.2.3 must-understand does not lift private',
    says: control('must-understand, no-store, private'),
    fate: 'fetched',
  },
  { rule: '§7.3 Set-Cookie', says: [FRESH, 'Set-Cookie: a=1'], fate: 'fetched' },
  {
    rule: '§7.3 Set-Cookie, though private names it',
    says: [...control('private="set-cookie"'), 'Set-Cookie: a=1'],
    fate: 'fetched',
  },
  { rule: '§4.1 Vary: *', says: [FRESH, 'Vary: *'], fate: 'fetched' },
  { rule: '§4.1 Vary: * among others', says: [FRESH, 'Vary: accept', 'Vary: x, *'], fate: 'fetched' },
  { rule: '§4.1 Vary of what is no name', says: [FRESH, 'Vary: a b'], fate: 'fetched' },
  {
    rule: '§4.1 Vary with 200 names',
    says: [FRESH, `Vary: ${Array.from({ length: 200 }, (_, i) => `x${i}`).join(',')}`],
    fate: 'fetched',
  },
  ...['=1', '"x"', 'a b', 'x="open', 'x="a"b', '@', 'x="a\\'].map(
    (broken): Row => ({
      rule: `§4.2.1 a Cache-Control that cannot be read: ${broken}`,
      says: control(broken),
      fate: 'fetched',
    }),
  ),
  { rule: '§5.2 empty elements are skipped', says: ['Cache-Control: , ,max-age=60 ,,', 'Cache-Control:'], fate: 'hit' },
  { rule: '§5.2 any token is a directive', says: control("x!#$%&'*+-.^_`|~9=~"), fate: 'hit' },
  {
    rule: '§5.2.3 unknown directives are ignored',
    says: control('x-new, x-val=1, x-q="a, no-store, \\"b"'),
    fate: 'hit',
  },
];

e2e('§3 storing: what is refused', async (t, rig) => {
  await walk(t, await Scene.open(rig), REFUSALS);
});

const AUTHORIZED: Row[] = [
  [FRESH, 'fetched', 'without permission'],
  ['Cache-Control: max-age=60, public', 'hit', 'with public'],
  ['Cache-Control: max-age=60, must-revalidate', 'hit', 'with must-revalidate'],
  ['Cache-Control: s-maxage=60', 'hit', 'with s-maxage'],
  ['Cache-Control: max-age=60, proxy-revalidate', 'fetched', 'with proxy-revalidate, which is no permission'],
].map(([says, fate, rule]) => ({
  rule: `§3.5 an answer to Authorization, ${rule}`,
  says: [says!, ETAG],
  asks: ['Authorization: Bearer x'],
  fate: fate as Row['fate'],
}));

for (const partition of ['credential', 'shared'] as const) {
  e2e(`§3.5 Authorization, partition ${partition}`, async (t, rig) => {
    await walk(t, await Scene.open(rig, { partition }), AUTHORIZED);
  });
}

e2e('§7.3 Set-Cookie with store_set_cookie', async (t, rig) => {
  const scene = await Scene.open(rig, { storeSetCookie: true });
  scene.replies('/x', answer('x', lines(FRESH, 'Set-Cookie: a=1')));
  await scene.get('/x');
  const { fate, got } = await fateOf(scene, '/x', {});
  t.equal(fate, 'hit');
  t.equal(got.get('set-cookie'), 'a=1');
});

e2e('§3.1 which fields are stored', async (t, rig) => {
  const scene = await Scene.open(rig);
  const stored = async (t: Tap, path: string, ...says: string[]) => {
    scene.replies(path, answer('x', lines(...says)));
    await scene.get(path);
    const { fate, got } = await fateOf(scene, path, {});
    t.equal(fate, 'hit');
    return got;
  };
  await t.test('§3.1 all of them: case, order, duplicates and reason as they came', async (t) => {
    const says = ['X-One: 1', FRESH, 'x-tWo:  a  b ', 'X-One: 2', 'ETAG: "x"', 'Date: Sun, 06 Nov 1994 08:49:37 GMT'];
    scene.replies('/all', answer('x', lines(...says, 'Age: 0'), '200 Fine By Me'));
    const first = await scene.get('/all', 'Cache-Control: max-stale');
    const hit = await scene.get('/all', 'Cache-Control: max-stale');
    t.ok('hit' in cacheStatus(hit));
    const told = (got: typeof hit) =>
      got.headers.filter(([name]) => !/^(age|cache-status|server-timing)$/.test(name.toLowerCase()));
    t.same(told(hit), told(first));
    t.equal(hit.reason, 'Fine By Me');
  });
  await t.test('§3.1 not what is for one hop: Connection, what it names, and its like', async (t) => {
    const hop = [
      'Connection: X-Hop, close',
      'X-Hop: 1',
      'Keep-Alive: timeout=77',
      'Proxy-Connection: x',
      'Upgrade: h2c',
    ];
    const got = await stored(t, '/hop', FRESH, 'X-Kept: 1', ...hop, 'Trailer: X-T');
    for (const name of ['x-hop', 'proxy-connection', 'upgrade', 'trailer']) t.equal(got.get(name), undefined, name);
    t.not(got.get('keep-alive'), 'timeout=77');
    t.equal(got.get('x-kept'), '1');
  });
  await t.test('§3.1 not what speaks of a proxy’s login', async (t) => {
    const names = ['Proxy-Authenticate', 'Proxy-Authentication-Info', 'Proxy-Authorization'];
    const got = await stored(t, '/login', FRESH, ...names.map((name) => `${name}: Basic`));
    for (const name of names) t.equal(got.get(name), undefined, name);
  });
  await t.test('§4.2.3 not Age, which is computed anew', async (t) => {
    t.same((await stored(t, '/age', FRESH, 'Age: 7')).all('age'), ['7']);
  });
  await t.test('not Server-Timing, which speaks of another exchange', async (t) => {
    t.equal((await stored(t, '/timing', FRESH, 'Server-Timing: db;dur=1')).get('server-timing'), undefined);
  });
  await t.test('§5.2.2.7 not what a qualified private names', async (t) => {
    const got = await stored(
      t,
      '/private',
      'Cache-Control: max-age=60, private=" ,X-User , x-b"',
      'x-user: a',
      'X-B: b',
      'X-C: c',
    );
    t.equal(got.get('x-user'), undefined);
    t.equal(got.get('x-b'), undefined);
    t.equal(got.get('x-c'), 'c');
  });
  await t.test('§5.2.2.7 a token will do for a quoted name', async (t) => {
    t.equal(
      (await stored(t, '/token', 'Cache-Control: max-age=60, private=x-user', 'X-User: a')).get('x-user'),
      undefined,
    );
  });
  await t.test('§5.2.2.4 not what a qualified no-cache names', async (t) => {
    const got = await stored(t, '/no-cache', 'Cache-Control: max-age=60, no-cache="x-user"', 'X-User: a', 'X-C: c');
    t.equal(got.get('x-user'), undefined);
    t.equal(got.get('x-c'), 'c');
  });
  await t.test('RFC 9110 §6.6.1 an answer without Date gets the time of its receipt', async (t) => {
    t.equal((await stored(t, '/date', FRESH)).get('date'), date(0));
  });
});

const CUTS: [rule: string, head: string, end: 'fin' | 'reset', ending: 'clean' | 'fin' | 'reset'][] = [
  ['less than its Content-Length', `HTTP/1.1 200 OK\r\n${lines(FRESH)}content-length: 10\r\n\r\nshort`, 'fin', 'reset'],
  [
    'less than its Content-Length, and a reset',
    `HTTP/1.1 200 OK\r\n${lines(FRESH)}content-length: 10\r\n\r\nshort`,
    'reset',
    'reset',
  ],
  ['chunks without the last one', chunkedHead(lines(FRESH)) + chunk('short'), 'fin', 'reset'],
  ['chunks without the last one, and a reset', chunkedHead(lines(FRESH)) + chunk('short'), 'reset', 'reset'],
  ['an end that only the connection tells of', `HTTP/1.1 200 OK\r\n${lines(FRESH)}\r\nshort`, 'fin', 'clean'],
];

e2e('§3.3 incomplete answers are not stored', async (t, rig) => {
  const scene = await Scene.open(rig);
  for (const [i, [rule, bytes, end, ending]] of CUTS.entries()) {
    await t.test(`§3.3 ${rule}`, async (t) => {
      const path = `/cut${i}`;
      scene.replies(
        path,
        (_request, connection) => {
          connection.send(bytes);
          if (end === 'fin') connection.end();
          else setImmediate(() => connection.resetAndDestroy());
        },
        answer('whole', lines(FRESH)),
      );
      const first = await scene.get(path);
      t.equal(first.ending, ending);
      const { fate, got } = await fateOf(scene, path, {});
      t.equal(fate, 'fetched');
      t.equal(got.body.toString(), 'whole');
    });
  }
  await t.test('§3.3 a cut answer does not take the place of a whole one', async (t) => {
    const cut = `HTTP/1.1 200 OK\r\n${lines(FRESH, 'ETag: "b"')}content-length: 10\r\n\r\nshort`;
    scene.replies('/keep', answer('whole', lines(FRESH, ETAG)), (_request, connection) => connection.send(cut).end());
    await scene.get('/keep');
    await scene.get('/keep', 'Cache-Control: no-cache');
    t.equal((await scene.get('/keep')).body.toString(), 'whole');
  });
  await t.test('§3.3 chunks with the last one are stored, and sent with or without a length', async (t) => {
    scene.replies('/chunks', `${chunkedHead(lines(FRESH)) + chunk('ab') + chunk('cd')}0\r\n\r\n`);
    await scene.get('/chunks');
    const { fate, got } = await fateOf(scene, '/chunks', {});
    t.equal(fate, 'hit');
    t.equal(got.body.toString(), 'abcd');
  });
});

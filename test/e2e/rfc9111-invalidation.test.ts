// RFC 9111, sections 4.3.5 and 4.4, and RFC 5861 section 4: what answers that are not stored do to what is, and failures.

import { cacheStatus, date, fateOf, lines, Scene } from '../support/cache-scene.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, type Script } from '../support/upstream.ts';

const ETAG = 'ETag: "a"';
const MODIFIED = `Last-Modified: ${date(-1000)}`;
const SHORT = 'Cache-Control: max-age=10';
const SIE = 'Cache-Control: max-age=10, stale-if-error=20';
const SWR = 'Cache-Control: max-age=10, stale-while-revalidate=20';

e2e('§4.3.5 what an answer to HEAD says of what is stored', async (t, rig) => {
  const scene = await Scene.open(rig);
  const table: [rule: string, says: string[], status: string, fate: 'hit' | 'validated' | 'fetched'][] = [
    ['the same tag and length renew it', [ETAG, 'content-length: 3'], '200 OK', 'hit'],
    ['the same tag renews it', [ETAG], '200 OK', 'hit'],
    ['the same date renews it', [MODIFIED], '200 OK', 'hit'],
    ['another tag makes it useless', ['ETag: "b"', 'content-length: 3'], '200 OK', 'fetched'],
    ['another date makes it useless', [`Last-Modified: ${date(-1)}`], '200 OK', 'fetched'],
    ['another length makes it useless', [ETAG, 'content-length: 4'], '200 OK', 'fetched'],
    ['no validator says nothing', [], '200 OK', 'validated'],
    ['the same length alone says nothing', ['content-length: 3'], '200 OK', 'validated'],
    ['another length alone makes it useless', ['content-length: 4'], '200 OK', 'fetched'],
    ['no-store makes it useless', [ETAG, 'Cache-Control: no-store'], '200 OK', 'fetched'],
    ['an error says nothing', ['content-length: 9'], '503 Busy', 'validated'],
  ];
  for (const [i, [rule, says, status, fate]] of table.entries()) {
    await t.test(`§4.3.5 ${rule}`, async (t) => {
      scene.backToStart();
      const path = `/head${i}`;
      const stored = answer('old', lines(SHORT, ETAG, MODIFIED, 'X-One: 1', `Date: ${date(0)}`));
      scene.replies(
        path,
        stored,
        `HTTP/1.1 ${status}\r\n${lines(...says, 'X-One: 2', `Date: ${date(10)}`)}\r\n`,
        stored,
      );
      await scene.get(path);
      scene.later(10);
      await scene.ask(path, { method: 'HEAD' });
      t.equal(scene.asked(path)[1]!.method, 'HEAD');
      const next = await fateOf(scene, path, {});
      t.equal(next.fate, fate);
      if (fate !== 'hit') return;
      t.equal(next.got.body.toString(), 'old');
      t.equal(next.got.get('x-one'), '2');
      t.equal(next.got.get('content-length'), '3');
      t.equal(next.got.get('age'), '0');
    });
  }
});

e2e('§4.4 invalidation', async (t, rig) => {
  const scene = await Scene.open(rig, {}, {}, '/base');
  const origin = scene.upstream.url;
  let n = 0;
  /** What becomes of `/N/there` once an answer to `method` came for `/N/here`. */
  const after = async (method: string, reply: (here: string) => string, there = 'here') => {
    const path = `/${n++}`;
    scene.replies(`${path}/${there}`, answer('x', lines(SHORT)));
    await scene.get(`${path}/${there}`);
    if (there === 'here') scene.replies(`${path}/here`, reply(path), answer('y', lines(SHORT)));
    else scene.replies(`${path}/here`, reply(path));
    const got = await scene.ask(`${path}/here`, { method, body: 'x' });
    const next = await scene.get(`${path}/${there}`);
    return { status: got.status, isGone: !('hit' in cacheStatus(next)) };
  };
  for (const method of ['PUT', 'POST', 'DELETE', 'PATCH', 'M-SEARCH']) {
    await t.test(`§4.4 ${method} invalidates its URI`, async (t) => {
      t.equal((await after(method, () => answer())).isGone, true);
    });
  }
  for (const method of ['OPTIONS', 'TRACE', 'HEAD']) {
    await t.test(`RFC 9110 §9.2.1 ${method} is safe`, async (t) => {
      scene.replies(`/safe${method}`, answer('x', lines(SHORT)));
      await scene.get(`/safe${method}`);
      await scene.ask(`/safe${method}`, { method });
      t.equal((await fateOf(scene, `/safe${method}`, {})).fate, 'hit');
    });
  }
  for (const [status, isGone] of [
    ['200 OK', true],
    ['204 None', true],
    ['302 Found', true],
    ['400 Bad', false],
    ['409 No', false],
    ['500 Oops', false],
  ] as const) {
    await t.test(`§4.4 a POST answered with ${status} ${isGone ? 'invalidates' : 'does not'}`, async (t) => {
      t.equal((await after('POST', () => `HTTP/1.1 ${status}\r\ncontent-length: 0\r\n\r\n`)).isGone, isGone);
    });
  }
  for (const field of ['Location', 'Content-Location']) {
    const places: [rule: string, value: (path: string) => string, isGone: boolean][] = [
      ['absolute, of the same origin', (path) => `${origin}/base${path}/there?q=1`, true],
      ['a path', (path) => `/base${path}/there?q=1`, true],
      ['relative', () => 'there?q=1', true],
      ['with a fragment', () => 'there?q=1#part', true],
      ['another query', () => 'there?q=2', false],
      ['another port', (path) => `http://127.0.0.1:1/base${path}/there?q=1`, false],
      ['another host', (path) => `http://other.test/base${path}/there?q=1`, false],
      ['another scheme', (path) => `${origin.replace('http', 'https')}/base${path}/there?q=1`, false],
      ['what is not below the upstream', (path) => `/else${path}/there?q=1`, false],
      ['no URL', () => 'http://[', false],
    ];
    for (const [rule, value, isGone] of places) {
      await t.test(`§4.4 ${field}: ${rule} ${isGone ? 'is invalidated' : 'is not'}`, async (t) => {
        const reply = (path: string) => answer('', `${field}: ${value(path)}\r\n`, '201 Created');
        t.same(await after('POST', reply, 'there?q=1'), { status: 201, isGone });
      });
    }
    await t.test(`§4.4 ${field} of an error is not invalidated`, async (t) => {
      const reply = () => answer('', `${field}: there\r\n`, '404 Not Found');
      t.equal((await after('POST', reply, 'there')).isGone, false);
    });
  }
  await t.test('§4.4 another query of the same path is not invalidated', async (t) => {
    t.equal((await after('POST', () => answer(), 'here?q=1')).isGone, false);
  });
  await t.test('§4.4 all variants and all credentials', async (t) => {
    scene.replies('/all', answer('x', lines('Cache-Control: max-age=10, public', 'Vary: x-a')));
    const asks = [['X-A: 1'], ['X-A: 2'], ['X-A: 1', 'Authorization: Bearer a'], ['Cookie: a=1']];
    for (const fields of asks) await scene.get('/all', ...fields);
    for (const fields of asks) t.equal((await fateOf(scene, '/all', { fields })).fate, 'hit');
    await scene.ask('/all', { method: 'DELETE' });
    for (const fields of asks) t.equal((await fateOf(scene, '/all', { fields })).fate, 'fetched');
  });
  await t.test('§4.4 what was asked for before is not used after', async (t) => {
    scene.replies('/race', async (request, connection) => {
      await until('the POST is answered', () => request.method === 'POST' || scene.proxy.exchanges.length > before);
      connection.send(answer(scene.asked('/race').length === 3 ? 'new' : 'old', lines(SHORT)));
    });
    const before = scene.proxy.exchanges.length;
    const first = scene.get('/race');
    await until('it is asked', () => scene.asked('/race').length === 1);
    await scene.ask('/race', { method: 'POST', body: 'x' });
    t.equal((await first).body.toString(), 'old');
    t.equal((await fateOf(scene, '/race', {})).got.body.toString(), 'new');
  });
  await t.test('§4.4 what was under way is not used after', async (t) => {
    const [head, body] = answer('old', lines(SHORT)).split('\r\n\r\n') as [string, string];
    scene.replies(
      '/under-way',
      (_request, connection) => connection.send(`${head}\r\n\r\n`),
      answer('posted'),
      answer('new', lines(SHORT)),
    );
    const first = await scene.sent('/under-way');
    await first.head();
    await scene.ask('/under-way', { method: 'POST', body: 'x' });
    scene.asked('/under-way')[0]!.connection.send(body);
    t.equal((await first.rest()).body.toString(), 'old');
    first.destroy();
    t.equal((await fateOf(scene, '/under-way', {})).got.body.toString(), 'new');
  });
  await t.test('§4.4 what was asked about is not renewed after', async (t) => {
    scene.backToStart();
    scene.replies('/about', answer('old', lines(SHORT, ETAG)), () => {}, answer('posted'), answer('new', lines(SHORT)));
    await scene.get('/about');
    scene.later(10);
    const first = scene.get('/about');
    await until('it is asked', () => scene.asked('/about').length === 2);
    await scene.ask('/about', { method: 'POST', body: 'x' });
    scene.asked('/about')[1]!.connection.send(`HTTP/1.1 304 Not Modified\r\n${lines(SHORT, ETAG)}\r\n`);
    await first;
    t.equal((await fateOf(scene, '/about', {})).got.body.toString(), 'new');
  });
  await t.test('§4.4 an upstream that gave no answer has changed nothing that we know of', async (t) => {
    scene.replies('/cut', answer('x', lines(SHORT)), (_request, connection) => connection.resetAndDestroy());
    await scene.get('/cut');
    t.equal((await scene.ask('/cut', { method: 'POST', body: 'x' })).status, 502);
    t.equal((await fateOf(scene, '/cut', {})).fate, 'hit');
  });
});

e2e('RFC 5861 §4 stale-if-error', async (t, rig) => {
  const scene = await Scene.open(rig, {}, { timeouts: { headersMs: 60 } });
  const after = async (path: string, seconds: number, says: string, reply: string | Script, ...fields: string[]) => {
    scene.backToStart();
    scene.replies(path, answer('old', lines(says, ETAG)), reply);
    await scene.get(path);
    scene.later(seconds);
    return await scene.get(path, ...fields);
  };
  const error = (status: string) => answer('no', 'X-Error: 1\r\n', status);
  for (const status of [500, 502, 503, 504]) {
    await t.test(`§4 the stale one in place of ${status}`, async (t) => {
      const got = await after(`/${status}`, 29, SIE, error(`${status} Oops`));
      t.equal(got.status, 200);
      t.equal(got.body.toString(), 'old');
      t.equal(got.get('age'), '29');
      t.equal(scene.proxy.exchanges.at(-1)!.cache, 'stale');
      t.match(cacheStatus(got), { fwd: 'stale', 'fwd-status': `${status}`, ttl: '-20' });
    });
  }
  for (const status of [404, 429, 501, 403]) {
    await t.test(`§4 ${status} is no such error`, async (t) => {
      t.equal((await after(`/${status}`, 15, SIE, error(`${status} No`))).status, status);
    });
  }
  const failures: [rule: string, code: string, script: Script][] = [
    ['a reset', 'upstream_reset', (_request, connection) => connection.resetAndDestroy()],
    ['a close without an answer', 'upstream_reset', (_request, connection) => connection.end()],
    ['no answer in time', 'headers_timeout', () => {}],
    ['what is not HTTP', 'upstream_protocol_error', (_request, connection) => connection.send('nonsense\r\n\r\n')],
  ];
  for (const [rule, , script] of failures) {
    await t.test(`§4 the stale one in place of ${rule}`, async (t) => {
      const got = await after(`/${rule.replaceAll(' ', '-')}`, 15, SIE, script);
      t.equal(got.status, 200);
      t.equal(got.body.toString(), 'old');
      t.equal(cacheStatus(got).ttl, '-6');
    });
  }
  const limits: [rule: string, seconds: number, says: string, ask: string[], status: number][] = [
    ['not at the end of its window', 30, SIE, [], 503],
    ['not unless somebody allows it', 15, 'Cache-Control: max-age=10', [], 503],
    ['the request may allow it', 15, 'Cache-Control: max-age=10', ['Cache-Control: stale-if-error=6'], 200],
    ['not beyond what the request allows', 17, 'Cache-Control: max-age=10', ['Cache-Control: stale-if-error=6'], 503],
    ['a window that cannot be read is none', 15, 'Cache-Control: max-age=10, stale-if-error=x', [], 503],
    ['not against must-revalidate', 15, `${SIE}, must-revalidate`, [], 503],
    ['not against proxy-revalidate', 15, `${SIE}, proxy-revalidate`, [], 503],
    ['not against s-maxage', 15, `${SIE}, s-maxage=10`, [], 503],
    ['not against no-cache', 0, `${SIE}, no-cache`, [], 503],
    [
      'not against no-cache, though the request allows it',
      0,
      `${SIE}, no-cache`,
      ['Cache-Control: stale-if-error=99'],
      503,
    ],
    [
      'not against must-revalidate, though the request allows it',
      15,
      `${SIE}, must-revalidate`,
      ['Cache-Control: stale-if-error=99'],
      503,
    ],
    ['stale-while-revalidate does not allow it', 35, SWR, [], 503],
    ['not against no-cache of the request', 5, SIE, ['Cache-Control: no-cache'], 503],
    [
      'must-revalidate is about stale ones',
      5,
      'Cache-Control: max-age=10, must-revalidate',
      ['Cache-Control: max-age=1'],
      200,
    ],
    [
      'a fresh one that was not fresh enough is better than an error',
      5,
      'Cache-Control: max-age=10',
      ['Cache-Control: max-age=1'],
      200,
    ],
  ];
  for (const [i, [rule, seconds, says, ask, status]] of limits.entries()) {
    await t.test(`§4 ${rule}`, async (t) => {
      t.equal((await after(`/limit${i}`, seconds, says, error('503 Busy'), ...ask)).status, status);
    });
  }
  await t.test('§4 the stale one is judged by the client’s own condition', async (t) => {
    t.equal((await after('/condition', 15, SIE, error('503 Busy'), 'If-None-Match: "a"')).status, 304);
  });
  await t.test('§4 the stale one in place of a refused connection', async (t) => {
    scene.backToStart();
    scene.replies('/refused', answer('old', lines(SIE, ETAG, 'Connection: close')));
    await scene.get('/refused');
    scene.later(15);
    await scene.upstream.close();
    const got = await scene.get('/refused');
    t.equal(got.status, 200);
    t.equal(got.body.toString(), 'old');
    t.equal((await scene.get('/never-stored')).code, 'connect_failed');
  });
});

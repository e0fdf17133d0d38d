// RFC 9111, sections 3.2 and 4.3: validation, and what it makes of the stored answer.

import { cacheStatus, date, fateOf, lines, Scene } from '../support/cache-scene.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

const ETAG = 'ETag: "a"';
const MODIFIED = `Last-Modified: ${date(-1000)}`;
const SHORT = 'Cache-Control: max-age=10';

function notModified(...fields: readonly string[]): string {
  return `HTTP/1.1 304 Not Modified\r\n${lines(...fields)}\r\n`;
}

e2e('§4.3.1 what the upstream is asked', async (t, rig) => {
  const scene = await Scene.open(rig);
  const table: [rule: string, says: string[], asks: string[], noneMatch: string[], since: string[]][] = [
    ['If-None-Match of a strong tag', [ETAG], [], ['"a"'], []],
    ['If-None-Match of a weak tag', ['ETag: W/"a"'], [], ['W/"a"'], []],
    ['If-Modified-Since', [MODIFIED], [], [], [date(-1000)]],
    ['both where both are known', [ETAG, MODIFIED], [], ['"a"'], [date(-1000)]],
    ['no tag that is malformed', ['ETag: a', MODIFIED], [], [], [date(-1000)]],
    ['no date that is none', [ETAG, 'Last-Modified: long ago'], [], ['"a"'], []],
    ['no tag of several that differ', [ETAG, 'ETag: "b"', MODIFIED], [], [], [date(-1000)]],
    ['the stored tag in place of the client’s', [ETAG], ['If-None-Match: "c", "d"'], ['"a"'], []],
    ['the stored date in place of the client’s', [MODIFIED], [`If-Modified-Since: ${date(-2000)}`], [], [date(-1000)]],
    ['nothing of the client’s that the stored one lacks', [ETAG], [`If-Modified-Since: ${date(-5)}`], ['"a"'], []],
  ];
  for (const [i, [rule, says, asks, noneMatch, since]] of table.entries()) {
    await t.test(`§4.3.1 ${rule}`, async (t) => {
      const path = `/asks${i}`;
      scene.replies(path, answer('x', lines(SHORT, ...says)));
      await scene.get(path);
      scene.later(10);
      const got = await scene.get(path, ...asks);
      t.equal(got.status, 200);
      const [, request] = scene.asked(path);
      t.same(request!.all('if-none-match'), noneMatch);
      t.same(request!.all('if-modified-since'), since);
    });
  }
  await t.test(
    '§4.3.1 the client’s own condition is kept back where nothing is stored, and answered here',
    async (t) => {
      scene.replies('/first', answer('x', lines(SHORT, ETAG)));
      const got = await scene.get('/first', 'If-None-Match: "a"', `If-Modified-Since: ${date(0)}`, 'If-Range: "a"');
      t.equal(got.status, 304);
      t.equal(got.body.length, 0);
      const [request] = scene.asked('/first');
      for (const name of ['if-none-match', 'if-modified-since', 'if-range'])
        t.equal(request!.get(name), undefined, name);
      t.equal((await fateOf(scene, '/first', {})).fate, 'hit', 'the whole answer was stored');
    },
  );
  for (const field of ['If-Match: "a"', `If-Unmodified-Since: ${date(0)}`]) {
    await t.test(`§4.3.2 only the upstream can judge ${field}`, async (t) => {
      const path = `/pre${field.length}`;
      scene.replies(path, answer('x', lines(SHORT, ETAG, MODIFIED)));
      await scene.get(path);
      const got = await scene.get(path, field);
      t.equal(cacheStatus(got).fwd, 'bypass');
      t.ok(scene.asked(path)[1]!.text.includes(field));
    });
  }
});

e2e('§4.3.2 the client’s condition, answered from the store', async (t, rig) => {
  const scene = await Scene.open(rig);
  scene.replies(
    '/both',
    answer(
      'x',
      lines(SHORT, ETAG, MODIFIED, `Date: ${date(0)}`, 'X-Kept: 1', 'Content-Type: a/b', 'Content-Location: /l'),
    ),
  );
  scene.replies('/weak', answer('x', lines(SHORT, 'ETag: W/"a"')));
  scene.replies('/dated', answer('x', lines(SHORT, `Date: ${date(-5)}`)));
  scene.replies('/plain', answer('x', lines(SHORT)));
  scene.replies('/404', answer('x', lines(SHORT, ETAG, MODIFIED), '404 Not Found'));
  scene.replies('/203', answer('x', lines(SHORT, ETAG, MODIFIED), '203 Other'));
  for (const path of ['/both', '/weak', '/dated', '/plain', '/404', '/203']) await scene.get(path);
  const since = (seconds: number) => `If-Modified-Since: ${date(seconds)}`;
  const table: [rule: string, path: string, fields: string[], status: number][] = [
    ['If-None-Match of the tag', '/both', ['If-None-Match: "a"'], 304],
    ['If-None-Match of another', '/both', ['If-None-Match: "b"'], 200],
    ['a list that has it', '/both', ['If-None-Match: "b" ,W/"c",, "a"'], 304],
    ['several lines, one of which has it', '/both', ['If-None-Match: "b"', 'If-None-Match: "a"'], 304],
    ['a list that has it not', '/both', ['If-None-Match: "b", "c"'], 200],
    ['a tag with a comma', '/both', ['If-None-Match: "b,"a"'], 200],
    ['weak comparison: theirs is weak', '/both', ['If-None-Match: W/"a"'], 304],
    ['weak comparison: ours is weak', '/weak', ['If-None-Match: "a"'], 304],
    ['weak comparison: both are', '/weak', ['If-None-Match: W/"a"'], 304],
    ['*', '/both', ['If-None-Match: *'], 304],
    ['* where there is no tag', '/plain', ['If-None-Match: *'], 304],
    ['no tag of ours', '/plain', ['If-None-Match: "a"'], 200],
    ['an unquoted tag is none', '/both', ['If-None-Match: a'], 200],
    ['tags differ in case', '/both', ['If-None-Match: "A"'], 200],
    ['If-Modified-Since: the same time', '/both', [since(-1000)], 304],
    ['If-Modified-Since: later', '/both', [since(-1)], 304],
    ['If-Modified-Since: earlier', '/both', [since(-1001)], 200],
    ['If-Modified-Since: no date', '/both', ['If-Modified-Since: now'], 200],
    ['without Last-Modified its Date counts', '/dated', [since(-5)], 304],
    ['without Last-Modified its Date counts, and is later', '/dated', [since(-6)], 200],
    ['without either, the time of receipt', '/plain', [since(0)], 304],
    ['without either, the time of receipt is later', '/plain', [since(-1)], 200],
    ['If-None-Match goes before If-Modified-Since', '/both', ['If-None-Match: "b"', since(0)], 200],
    ['If-None-Match goes before an earlier If-Modified-Since', '/both', ['If-None-Match: "a"', since(-2000)], 304],
    ['RFC 9110 §13.2.1 no condition on a 404', '/404', ['If-None-Match: "a"'], 404],
    ['RFC 9110 §13.1.3 If-Modified-Since is for a 200', '/203', [since(0)], 203],
    ['If-None-Match is for every success', '/203', ['If-None-Match: "a"'], 304],
  ];
  for (const [rule, path, fields, status] of table) {
    for (const method of ['GET', 'HEAD']) {
      await t.test(`§4.3.2 ${rule} (${method})`, async (t) => {
        const { fate, got } = await fateOf(scene, path, { method, fields });
        t.equal(fate, 'hit');
        t.equal(got.status, status);
        t.equal(got.body.toString(), status === 304 || method === 'HEAD' ? '' : 'x');
      });
    }
  }
  await t.test('RFC 9110 §15.4.5 a 304 of ours has all but what describes the body', async (t) => {
    const got = await scene.get('/both', 'If-None-Match: "a"');
    t.equal(got.get('etag'), '"a"');
    t.equal(got.get('cache-control'), 'max-age=10');
    t.equal(got.get('date'), date(0));
    t.equal(got.get('x-kept'), '1');
    t.equal(got.get('content-location'), '/l');
    t.equal(got.get('content-type'), undefined);
    t.equal(got.get('content-length'), undefined);
    t.equal(got.get('age'), '0');
  });
});

e2e('§4.3.3 and §4.3.4 what the upstream says to it', async (t, rig) => {
  const scene = await Scene.open(rig);
  /** Stored, stale, and asked about: the answer to that, and the one after. */
  const asked = async (path: string, stored: string, ...replies: string[]) => {
    scene.backToStart();
    scene.replies(path, stored, ...replies);
    await scene.get(path);
    scene.later(10);
    const second = await scene.get(path);
    return { second, third: await fateOf(scene, path, {}) };
  };
  const stored = answer('old', lines(SHORT, ETAG, 'X-One: 1', 'X-Two: 2', 'X-two: 2b', 'Content-Type: a/b'));

  await t.test('§4.3.4 304 renews it: the stored body, fresh again', async (t) => {
    const { second, third } = await asked('/renewed', stored, notModified(SHORT, ETAG));
    t.equal(second.status, 200);
    t.equal(second.body.toString(), 'old');
    t.match(cacheStatus(second), { fwd: 'stale', 'fwd-status': '304' });
    t.equal(scene.proxy.exchanges.at(-2)!.cache, 'revalidated');
    t.equal(third.fate, 'hit');
    t.equal(third.got.get('age'), '0');
    scene.later(10);
    t.equal((await fateOf(scene, '/renewed', {})).fate, 'validated');
  });
  await t.test('§3.2 304 updates the stored head: replaced in place, new ones added, others kept', async (t) => {
    const news = [SHORT, 'X-TWO: new', 'X-New: 3', `Date: ${date(10)}`];
    const { third } = await asked('/updated', stored, notModified(...news));
    const told = third.got.headers.filter(
      ([name]) => !/^(age|cache-status|connection|keep-alive)$/.test(name.toLowerCase()),
    );
    t.same(told, [
      ['Cache-Control', 'max-age=10'],
      ['ETag', '"a"'],
      ['X-One', '1'],
      ['X-TWO', 'new'],
      ['Content-Type', 'a/b'],
      ['content-length', '3'],
      ['Date', date(10)],
      ['X-New', '3'],
    ]);
  });
  await t.test('§3.2 but not what describes the body', async (t) => {
    const odd = [
      'Content-Length: 99',
      'Content-Encoding: br',
      'Content-Range: bytes 0-1/9',
      'Age: 5',
      'Server-Timing: x',
    ];
    const { second, third } = await asked('/body', stored, notModified(SHORT, ETAG, ...odd));
    for (const got of [second, third.got]) {
      t.equal(got.body.toString(), 'old');
      t.equal(got.get('content-length'), '3');
      t.equal(got.get('content-encoding'), undefined);
      t.equal(got.get('content-range'), undefined);
      t.equal(got.get('age'), '5', 'the age that the 304 came with');
      t.equal(got.all('server-timing').includes('x'), false);
    }
  });
  await t.test('§4.3.4 304 with a new lifetime counts from now', async (t) => {
    const { third } = await asked('/longer', stored, notModified('Cache-Control: max-age=1000', ETAG));
    t.equal(cacheStatus(third.got).ttl, '999');
  });
  await t.test('§4.3.4 304 without any validator is about what we asked', async (t) => {
    t.equal((await asked('/bare', stored, notModified(SHORT))).third.fate, 'hit');
  });
  const same: [rule: string, stored: string[], says: string[], isSame: boolean][] = [
    ['a strong tag that is ours', [ETAG], [ETAG], true],
    ['another strong tag', [ETAG], ['ETag: "b"'], false],
    ['a weak tag of our strong one', [ETAG], ['ETag: W/"a"'], true],
    ['another weak tag', [ETAG], ['ETag: W/"b"'], false],
    ['a strong tag where ours is weak', ['ETag: W/"a"'], [ETAG], false],
    ['a tag where we have none', [MODIFIED], [ETAG], false],
    ['our date', [MODIFIED], [MODIFIED], true],
    ['another date', [MODIFIED], [`Last-Modified: ${date(-999)}`], false],
    ['our tag, whatever the date', [ETAG, MODIFIED], [ETAG, `Last-Modified: ${date(-999)}`], true],
  ];
  for (const [i, [rule, has, says, isSame]] of same.entries()) {
    await t.test(`§4.3.4 304 with ${rule} ${isSame ? 'renews' : 'is not used'}`, async (t) => {
      const path = `/same${i}`;
      const { second, third } = await asked(
        path,
        answer('old', lines(SHORT, ...has)),
        notModified(SHORT, ...says),
        answer('new'),
      );
      t.equal(second.status, 200);
      t.equal(second.body.toString(), isSame ? 'old' : 'new');
      if (!isSame) {
        t.equal(third.fate, 'fetched', 'what it does not speak of is gone');
        const [, , plain] = scene.asked(path);
        t.equal(plain!.get('if-none-match'), undefined);
        t.equal(plain!.get('if-modified-since'), undefined);
      }
    });
  }
  for (const says of ['no-store', 'private', 'max-age="']) {
    await t.test(`§4.3.4 304 with ${says} throws out what is stored`, async (t) => {
      const { second, third } = await asked(
        `/${says}`,
        stored,
        notModified(`Cache-Control: ${says}`, ETAG),
        answer('new'),
      );
      t.equal(second.body.toString(), 'new');
      t.equal(third.fate, 'fetched');
    });
  }
  await t.test('§4.3.3 200 takes the place of what is stored', async (t) => {
    const { second, third } = await asked('/200', stored, answer('new', lines(SHORT, 'ETag: "b"')));
    t.equal(second.body.toString(), 'new');
    t.equal(third.fate, 'hit');
    t.equal(third.got.body.toString(), 'new');
    t.equal(third.got.get('x-one'), undefined);
  });
  await t.test('§4.3.3 404 is an answer like any other', async (t) => {
    const { second, third } = await asked('/404', stored, answer('gone', lines(SHORT), '404 Not Found'));
    t.equal(second.status, 404);
    t.equal(third.fate, 'hit');
    t.equal(third.got.status, 404);
  });
  await t.test('§4.3.3 5xx passes, and what is stored stays', async (t) => {
    const { second, third } = await asked('/503', stored, answer('no', '', '503 Busy'), notModified(SHORT));
    t.equal(second.status, 503);
    t.equal(third.fate, 'validated');
    t.equal(third.got.body.toString(), 'old');
  });
  await t.test('§4.3.4 of several variants the 304 renews the one that was asked about', async (t) => {
    scene.backToStart();
    const says = (tag: string) => lines(SHORT, `ETag: "${tag}"`, 'Vary: x-a');
    scene.replies('/vary', answer('one', says('1')), answer('two', says('2')), notModified(SHORT, 'ETag: "1"'));
    await scene.get('/vary', 'X-A: 1');
    await scene.get('/vary', 'X-A: 2');
    scene.later(10);
    t.equal((await scene.get('/vary', 'X-A: 1')).body.toString(), 'one');
    t.equal(scene.asked('/vary')[2]!.get('if-none-match'), '"1"');
    t.equal((await fateOf(scene, '/vary', { fields: ['X-A: 1'] })).fate, 'hit');
  });
  await t.test('§4.3.4 304 with another Vary: from then on that one counts', async (t) => {
    scene.backToStart();
    const news = answer('new', lines(SHORT, 'Vary: x-b'));
    scene.replies(
      '/revary',
      answer('old', lines(SHORT, ETAG, 'Vary: x-a')),
      notModified(SHORT, ETAG, 'Vary: x-b'),
      news,
    );
    await scene.get('/revary', 'X-A: 1', 'X-B: b');
    scene.later(10);
    t.equal((await scene.get('/revary', 'X-A: 1', 'X-B: b')).body.toString(), 'old');
    t.equal((await fateOf(scene, '/revary', { fields: ['X-A: 2', 'X-B: b'] })).fate, 'hit');
    t.equal((await fateOf(scene, '/revary', { fields: ['X-A: 1', 'X-B: 1'] })).fate, 'fetched');
  });
  for (const [name, reply] of [
    ['304 renews', notModified(SHORT, 'ETag: "1"')],
    ['an error lets be used', answer('no', '', '503 Busy')],
  ] as const) {
    await t.test(`§4.1 who waits while ${name} a stored variant is not given it for another`, async (t) => {
      scene.backToStart();
      const says = lines('Cache-Control: max-age=10, stale-if-error=60', 'ETag: "1"', 'Vary: x-a');
      const path = `/twin-${reply.slice(9, 12)}`;
      const before = scene.proxy.upstream().requests;
      scene.replies(path, answer('one', says), async (request, connection) => {
        await until('both are here', () => scene.proxy.upstream().requests === before + 3);
        connection.send(request.get('x-a') === '1' ? reply : answer('two', says));
      });
      await scene.get(path, 'X-A: 1');
      scene.later(10);
      const both = await Promise.all(['1', '2'].map((value) => scene.get(path, `X-A: ${value}`)));
      t.same(
        both.map(({ body }) => body.toString()),
        ['one', 'two'],
      );
    });
  }
  await t.test('§4.3.2 a client’s condition is judged by what the 304 renewed', async (t) => {
    scene.backToStart();
    scene.replies('/known', stored, notModified(SHORT));
    await scene.get('/known');
    scene.later(10);
    t.equal((await scene.get('/known', 'If-None-Match: "a"')).status, 304);
    scene.later(10);
    t.equal((await scene.get('/known', 'If-None-Match: "b"')).status, 200);
  });
});

// A bug of ours costs one exchange an honest answer, never the process, a permit or the requests beside it.

import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

/** A clock that throws stands for the bug: the cache asks it within a stage, wherever that is. */
class Clock {
  broken = false;
  readonly read = (): number => {
    if (this.broken) throw new Error('a bug: sk-in-its-message');
    return Date.now();
  };
}

const CACHED = { http: true, partition: 'shared' } as const;

e2e('a stage that throws is 500 internal_error, told in the log, and nothing else is harmed', async (t, rig) => {
  const clock = new Clock();
  const upstream = await rig.upstream(async (request, connection) => {
    if (request.target !== '/stream') {
      connection.send(answer('kept', 'cache-control: public, max-age=60\r\n'));
      return;
    }
    connection.send(chunkedHead() + chunk('first'));
    await until('the bug is over', () => !clock.broken && upstream.requests.length === 4);
    connection.send(chunk('second') + LAST_CHUNK);
  });
  const proxy = await rig.proxy(
    {
      upstreams: {
        ai: { url: upstream.url, cache: CACHED, limiter: 'gate' },
        plain: { url: upstream.url, limiter: 'gate' },
      },
      limiters: { gate: { maxConcurrent: 2 } },
    },
    clock.read,
  );
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  const beside = await rig.sent(proxy, '/plain/stream');
  await beside.head();
  t.equal((await beside.piece())?.toString(), 'first');
  const client = await rig.sent(proxy, '/plain/y');
  t.equal((await client.answer()).status, 200);

  clock.broken = true;
  client.send('GET /ai/x HTTP/1.1\r\nhost: a\r\n\r\n');
  const got = await client.answer();
  t.match(got, { status: 500, code: 'internal_error' });
  t.equal(JSON.parse(got.body.toString()).error.message, 'aiproxy failed; this is a bug, please report it');
  t.equal(got.get('x-should-retry'), 'false');
  clock.broken = false;

  t.match(
    proxy.log.filter(({ level }) => level >= 50),
    [{ msg: 'a bug in aiproxy; one exchange failed, please report it', err: { message: 'a bug: sk-in-its-message' } }],
  );
  t.match(proxy.exchanges.at(-1), { status: 500, failure: 'internal_error', upstream: 'ai' });
  t.same(proxy.upstream().failures, { internal_error: 1 });
  t.equal(proxy.limiter('gate').in_flight, 1, 'only the stream holds a permit');
  client.send('GET /ai/x HTTP/1.1\r\nhost: a\r\n\r\n');
  t.match(await client.answer(), { status: 200 }, 'the connection goes on');
  t.equal((await rig.ask(proxy, '/plain/z')).status, 200);
  t.equal((await beside.piece())?.toString(), 'second');
  t.equal(await beside.piece(), null);
  // This one was wanted; the rig accepts none.
  proxy.rawLog.splice(
    proxy.rawLog.findIndex((line) => line.includes('a bug in aiproxy')),
    1,
  );
});

// Whose answer it is when one of two attempts, or both, go wrong; and that the answer of a second one comes as any other.

import { createHash } from 'node:crypto';
import { hangs, inTurn } from '../support/bad-days.ts';
import type { UpstreamOverrides } from '../support/proxy.ts';
import type { RawClient } from '../support/raw-client.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type UpstreamConnection } from '../support/upstream.ts';

/** A request both of whose attempts are under way, in the order they set out. */
async function both(rig: Rig, ai: Omit<UpstreamOverrides, 'url'> = {}) {
  const upstream = await rig.upstream(hangs);
  const proxy = await rig.one(
    { url: upstream.url, hedge: { afterMs: 30 }, limiter: 'ai', ...ai },
    { limiters: { ai: { maxConcurrent: 2 } } },
  );
  const client: RawClient = await rig.sent(proxy, '/ai/x');
  const first = (await upstream.request(0)).connection;
  const second = (await upstream.request(1)).connection;
  return { upstream, proxy, client, first, second };
}

type Says = (connection: UpstreamConnection) => unknown;
const says =
  (status: string, body = status): Says =>
  (connection) =>
    connection.send(answer(body, 'retry-after: 7\r\n', status));
const resets: Says = (connection) => connection.resetAndDestroy();
const isCut: Says = (connection) => {
  connection.send('HTTP/1.1 20');
  connection.end();
};
/** The head and half of a poor answer. */
const stallsPoorly: Says = (connection) => connection.send(`${chunkedHead('', '503 Busy')}${chunk('half')}`);

const SECOND_ANSWERS: readonly (readonly [string, Says, Says, string])[] = [
  ['is reset', resets, says('200 OK', 'yes'), '200 yes'],
  ['is cut within its head', isCut, says('200 OK', 'yes'), '200 yes'],
  ['has a 503', says('503 Busy'), says('200 OK', 'yes'), '200 yes'],
  ['has a 429', says('429 Slow'), says('404 Not here', 'no'), '404 no'],
  ['has a 503 that stalls', stallsPoorly, says('200 OK', 'yes'), '200 yes'],
  ['has a 503 that stalls, and the second one 500', stallsPoorly, says('500 No', 'worse'), '500 worse'],
  ['has a 503, and so has the second', says('503 Busy', 'a'), says('503 Busy', 'b'), '503 b'],
  ['is reset, and the second has a 429', resets, says('429 Slow', 'b'), '429 b'],
];

for (const [name, firstSays, secondSays, expected] of SECOND_ANSWERS) {
  for (const retries of [undefined, { backoffMs: 1 }]) {
    e2e(
      `the first attempt ${name}: the second one's answer is used${retries ? ', also with retries' : ''}`,
      async (t, rig) => {
        const { upstream, proxy, client, first, second } = await both(rig, retries ? { retries } : {});
        firstSays(first);
        await until(
          'it is over',
          () => first.left || proxy.upstream().targets[0]!.in_flight === 1 || firstSays === stallsPoorly,
        );
        if (firstSays === stallsPoorly) await whileNothing(20);
        t.equal(client.received.length, 0);
        secondSays(second);
        const got = await client.answer();
        t.equal(`${got.status} ${got.body}`, expected);
        t.equal(got.get('retry-after'), '7', 'the upstream’s own');
        await proxy.idle();
        t.equal(upstream.requests.length, 2, 'no third attempt');
        t.equal(proxy.limiter('ai').peak_in_flight, 2);
      },
    );
  }
}

const FIRST_ANSWERS: readonly (readonly [string, Says, Says, string])[] = [
  ['is reset', resets, says('200 OK', 'yes'), '200 yes'],
  ['has a 503', says('503 Busy'), says('200 OK', 'yes'), '200 yes'],
  [
    'has a 429 that stalls',
    (connection) => connection.send(chunkedHead('', '429 Slow')),
    says('200 OK', 'yes'),
    '200 yes',
  ],
  ['has a 503, and the first a 500', says('503 Busy', 'b'), says('500 No', 'a'), '500 a'],
];

for (const [name, secondSays, firstSays, expected] of FIRST_ANSWERS) {
  for (const retries of [undefined, { backoffMs: 1 }]) {
    e2e(`the second attempt ${name}: that changes nothing${retries ? ', also with retries' : ''}`, async (t, rig) => {
      const { upstream, proxy, client, first, second } = await both(rig, retries ? { retries } : {});
      secondSays(second);
      await until('its permit is back', () => proxy.limiter('ai').in_flight === 1);
      await whileNothing(20);
      t.equal(upstream.requests.length, 2, 'it has no further attempt');
      t.equal(client.received.length, 0);
      firstSays(first);
      const got = await client.answer();
      t.equal(`${got.status} ${got.body}`, expected);
      t.match(proxy.upstream().hedges, { sent: 1, won: 0 });
    });
  }
}

e2e('a first attempt that fails when the second one has failed is retried by policy', async (t, rig) => {
  const { upstream, proxy, client, first, second } = await both(rig, { retries: { backoffMs: 1 } });
  resets(second);
  await until('its permit is back', () => proxy.limiter('ai').in_flight === 1);
  upstream.script = (_request, connection) => connection.send(answer('third'));
  resets(first);
  t.equal((await client.answer()).body.toString(), 'third');
});

e2e('both hang: the deadline of the answer ends one after the other', async (t, rig) => {
  const { upstream, proxy, client } = await both(rig, { timeouts: { headersMs: 120 } });
  t.equal((await client.answer()).code, 'headers_timeout');
  await until('both are closed', () => upstream.connections.every(({ left }) => left));
  await proxy.idle();
  t.ok((proxy.exchanges[0]!.total_ms as number) >= 145, 'the second had as long as the first');
  t.match(proxy.upstream().targets[0], { attempts: 2, failures: 2 });
});

e2e(
  'the first has a poor answer that stalls and the second fails: the client hears of that at once',
  async (t, rig) => {
    const { proxy, client, first, second } = await both(rig);
    stallsPoorly(first);
    await whileNothing(20);
    resets(second);
    const got = await client.answer();
    t.equal(got.code, 'upstream_reset');
    await until('the first is closed', () => first.left);
    t.match(proxy.upstream().targets[0], { attempts: 2, failures: 2 });
  },
);

e2e('a second attempt left alone that hangs until the time is over counts against the server', async (t, rig) => {
  const { proxy, client, first } = await both(rig, { timeouts: { totalMs: 250 } });
  resets(first);
  t.equal((await client.answer()).code, 'total_timeout');
  await proxy.idle();
  t.match(proxy.upstream().targets[0], { attempts: 2, failures: 2 });
});

e2e('a failure that is safe to repeat is not, when the other attempt may have been carried out', async (t, rig) => {
  const hanging = await rig.upstream(hangs);
  // Takes connections, and never says a word of TLS.
  const silent = await rig.upstream(hangs);
  const targets = [{ url: hanging.url }, { url: silent.url.replace('http', 'https'), priority: 1 }];
  const proxy = await rig.one({ targets, hedge: { afterMs: 30 }, timeouts: { connectMs: 150 } });
  const client = await rig.sent(proxy, '/ai/x');
  await silent.connection(0);
  resets((await hanging.request(0)).connection);
  const got = await client.answer();
  t.same([got.code, got.get('x-should-retry')], ['connect_timeout', 'false']);
});

e2e('while an unwanted answer is read to its end no second attempt sets out: another is on its way', async (t, rig) => {
  const upstream = await rig.upstream(inTurn((_request, connection) => stallsPoorly(connection), answer('again')));
  const proxy = await rig.one({
    url: upstream.url,
    hedge: { afterMs: 20 },
    retries: { backoffMs: 1 },
    timeouts: { idleMs: 120 },
  });
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'again');
  t.equal(upstream.requests.length, 2);
  t.match(proxy.upstream().hedges, { sent: 0 });
});

e2e('a second attempt that has won holds one permit, not two', async (t, rig) => {
  const { upstream, proxy, client, second } = await both(rig);
  second.send(`${chunkedHead()}${chunk('stream')}`);
  t.equal((await client.head()).status, 200);
  await until('one is back', () => proxy.limiter('ai').in_flight === 1);
  upstream.script = (_request, connection) => connection.send(answer('meanwhile'));
  t.equal((await rig.ask(proxy, '/ai/y')).body.toString(), 'meanwhile');
  second.send(LAST_CHUNK);
  t.equal((await client.rest()).body.toString(), 'stream');
});

e2e('so does one that is left alone by the first', async (t, rig) => {
  const { proxy, client, first, second } = await both(rig);
  resets(first);
  await until('one is back', () => proxy.limiter('ai').in_flight === 1);
  says('200 OK', 'yes')(second);
  t.equal((await client.answer()).body.toString(), 'yes');
});

e2e('a stream of a second attempt comes piece by piece, and its cut is no clean end', async (t, rig) => {
  const { client, second, proxy } = await both(rig);
  second.send(`${chunkedHead('content-type: text/event-stream\r\n')}${chunk('data: 1\n\n')}`);
  await client.head();
  for (let i = 2; i < 6; i++) {
    t.equal((await client.piece())!.toString(), `data: ${i - 1}\n\n`);
    second.send(chunk(`data: ${i}\n\n`));
  }
  await client.piece();
  second.resetAndDestroy();
  t.equal((await client.rest()).ending, 'reset');
  await proxy.idle();
  t.match(proxy.exchanges[0], { status: 200, failure: 'upstream_cut' });
});

e2e('a second attempt that has won and then stalls is an idle_timeout, and counts', async (t, rig) => {
  const { client, second, proxy } = await both(rig, { timeouts: { idleMs: 100 } });
  second.send(`${chunkedHead()}${chunk('half')}`);
  await client.head();
  t.equal((await client.rest()).ending, 'reset');
  await proxy.idle();
  t.match(proxy.exchanges[0], { failure: 'idle_timeout' });
  t.match(proxy.upstream().targets[0], { failures: 1 });
});

e2e('a client that leaves a stream of the second attempt ends it', async (t, rig) => {
  const { client, second, proxy } = await both(rig);
  second.send(`${chunkedHead()}${chunk('half')}`);
  await client.head();
  client.reset();
  await until('closed', () => second.left);
  await proxy.idle();
  t.match(proxy.exchanges[0], { failure: 'client_gone' });
});

e2e('a slow reader holds the second attempt’s upstream up, and gets every byte', async (t, rig) => {
  const { client, second, proxy } = await both(rig);
  const bytes = Buffer.alloc(24 << 20, 'abcdefghijklm');
  client.pause();
  second.send(`HTTP/1.1 200 OK\r\ncontent-length: ${bytes.length}\r\n\r\n`);
  let at = 0;
  const pump = () => {
    while (at < bytes.length) {
      const more = second.socket.write(bytes.subarray(at, (at += 64 << 10)));
      if (!more) return void second.socket.once('drain', pump);
    }
  };
  pump();
  let before = -1;
  await until('the upstream is held up', () => {
    const stands = at === before && at > 0;
    before = at;
    return stands;
  });
  await whileNothing(100);
  t.ok(at < bytes.length - (4 << 20), `${at} bytes were taken while nobody reads`);
  client.resume();
  await client.head();
  const { body, ending } = await client.rest();
  t.equal(ending, 'clean');
  t.equal(createHash('sha256').update(body).digest('hex'), createHash('sha256').update(bytes).digest('hex'));
  await proxy.idle();
  t.equal(proxy.exchanges[0]!.bytes_out, bytes.length);
});

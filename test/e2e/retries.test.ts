// Retries by policy: what is sent again, when, with what it holds meanwhile, and what the client gets of it.

import { byPath, hangs, inTurn, refusing, resets } from '../support/bad-days.ts';
import type { ConfigOverrides, UpstreamOverrides } from '../support/proxy.ts';
import { type Ask, e2e, type Rig } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

/** Without a wait worth mentioning, and as many as a test needs. */
const SOON = { backoffMs: 1, maxBackoffMs: 2, budgetMin: 100 };
const BUSY = answer('busy', '', '503 Busy');

async function scene(
  rig: Rig,
  script: Script,
  ai: Omit<UpstreamOverrides, 'url'> = {},
  rest: Omit<ConfigOverrides, 'upstreams'> = {},
) {
  const upstream = await rig.upstream(script);
  const proxy = await rig.one({ url: upstream.url, ...ai, retries: { ...SOON, ...ai.retries } }, rest);
  return { upstream, proxy };
}

for (const status of [429, 502, 503, 504]) {
  e2e(`a ${status} is answered by the next attempt, and the connection is used again`, async (t, rig) => {
    const { upstream, proxy } = await scene(rig, inTurn(answer('no', '', `${status} No`), answer('yes')));
    const got = await rig.ask(proxy, '/ai/x?q=1');
    t.equal(got.status, 200);
    t.equal(got.body.toString(), 'yes');
    t.equal(upstream.requests.length, 2);
    t.equal(upstream.requests[1]!.text, upstream.requests[0]!.text, 'the very same head');
    t.equal(upstream.connections.length, 1, 'a short error is read to its end');
    await proxy.idle();
    const [line] = proxy.exchanges;
    t.match(line, { attempts: 2, status: 200, failure: null, target: null });
    t.ok((line!.retry_ms as number) >= 0 && (line!.retry_ms as number) < 1000, `${line!.retry_ms}`);
    t.match(proxy.upstream(), { retries: 1, maybe_billed_twice: status === 429 || status === 503 ? 0 : 1 });
    t.match(proxy.upstream().retry_budget, { spent: 1, exhausted: 0 });
  });
}

for (const status of [200, 304, 400, 404, 408, 500]) {
  e2e(`a ${status} is not on the list, and is the client's at once`, async (t, rig) => {
    const { upstream, proxy } = await scene(rig, async (request, connection) => {
      await request.whole();
      connection.send(`HTTP/1.1 ${status} Told\r\n${status === 304 ? '' : 'content-length: 0\r\n'}\r\n`);
    });
    t.equal((await rig.ask(proxy, '/ai/x')).status, status);
    t.equal(upstream.requests.length, 1);
    t.equal(proxy.upstream().retries, 0);
  });
}

e2e('the statuses are those of the config', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(answer('', '', '500 No'), BUSY, answer()), {
    retries: { statuses: [500] },
  });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.status, 503);
  t.equal(got.body.toString(), 'busy');
  t.equal(upstream.requests.length, 2);
});

const METHODS: readonly (readonly [string, Ask, 1 | 2])[] = [
  ['GET', {}, 2],
  ['HEAD', {}, 2],
  ['OPTIONS', {}, 2],
  ['DELETE', {}, 2],
  ['PUT', { body: 'x' }, 2],
  ['POST', { body: 'x' }, 1],
  ['POST', {}, 1],
  ['PATCH', { body: 'x' }, 1],
];

for (const [method, ask, attempts] of METHODS) {
  for (const [name, script] of [
    ['answered 503', inTurn(BUSY)],
    ['reset', resets],
  ] as const) {
    const what = `${method} ${ask.body ? 'with a body' : 'without a body'}`;
    e2e(`a ${what} that is ${name} is sent ${attempts === 2 ? 'again' : 'once only'}`, async (t, rig) => {
      const toHead: Script = async (request, connection) => {
        if (method !== 'HEAD' || name === 'reset') return await script(request, connection);
        connection.send('HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\n');
      };
      const { upstream, proxy } = await scene(rig, toHead, { retries: { attempts: 2 } });
      const got = await rig.ask(proxy, '/ai/x', { method, ...ask });
      t.equal(got.status, name === 'reset' ? 502 : 503);
      t.equal(upstream.requests.length, attempts);
    });
  }
}

e2e('methods of the config are sent again wherever they go', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(BUSY, answer('yes')), { retries: { methods: ['POST'] } });
  t.equal((await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'b' })).body.toString(), 'yes');
  upstream.script = inTurn(BUSY);
  t.equal((await rig.ask(proxy, '/ai/x')).status, 503, 'and GET is not one of them');
  t.equal(upstream.requests.length, 3);
});

e2e('a POST to a replay path is sent again, byte for byte', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(BUSY, resets, answer('yes')), { replay: ['/v1/*'] });
  const body = Uint8Array.from({ length: 40_000 }, (_, i) => (i * 7919) >> 3);
  const got = await rig.ask(proxy, '/ai/v1/embeddings', { method: 'POST', body, headers: 'x-a: 1\r\nX-A: 2\r\n' });
  t.equal(got.body.toString(), 'yes');
  t.equal(upstream.requests.length, 3);
  for (const request of upstream.requests) {
    t.ok(request.body.equals(body), 'the whole body');
    t.equal(request.text, upstream.requests[0]!.text);
  }
  t.equal(proxy.upstream().maybe_billed_twice, 1, 'the reset one may have been done');
});

e2e('a chunked body that was read ahead is sent again; its length is known by then', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(BUSY, answer('yes')));
  const client = await rig.client(proxy);
  client.send(`PUT /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n${chunk('one ')}`);
  client.send(`${chunk('two')}${LAST_CHUNK}`);
  t.equal((await client.answer()).body.toString(), 'yes');
  t.same(
    upstream.requests.map((request) => request.body.toString()),
    ['one two', 'one two'],
  );
});

e2e('a body larger than replay_limit is never sent again, one of that size is', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(BUSY, answer('yes')), { retries: { replayLimitBytes: 1000 } });
  t.equal((await rig.ask(proxy, '/ai/x', { method: 'PUT', body: 'x'.repeat(1000) })).body.toString(), 'yes');
  for (const script of [inTurn(BUSY), resets]) {
    upstream.script = script;
    t.not((await rig.ask(proxy, '/ai/x', { method: 'PUT', body: 'x'.repeat(1001) })).status, 200);
  }
  t.equal(upstream.requests.length, 4);
});

e2e('a streamed body is never sent again, however small its rest is', async (t, rig) => {
  const { upstream, proxy } = await scene(
    rig,
    inTurn(BUSY),
    { replay: ['/*'] },
    { listener: { bodyBufferBytes: 100 } },
  );
  const client = await rig.client(proxy);
  client.send(`PUT /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 200\r\n\r\n${'x'.repeat(199)}`);
  await upstream.request(0);
  client.send('x');
  t.equal((await client.answer()).status, 503);
  t.equal(upstream.requests.length, 1);
});

e2e('attempts bound them all, and the client gets the last answer as it is', async (t, rig) => {
  let n = 0;
  const { upstream, proxy } = await scene(rig, (_request, connection) => {
    connection.send(answer(`busy ${++n}`, `x-n: ${n}\r\nretry-after: 0\r\n`, '503 Busy'));
  });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.status, 503);
  t.equal(got.reason, 'Busy');
  t.equal(got.body.toString(), 'busy 3');
  t.same([got.get('x-n'), got.get('retry-after'), got.code], ['3', '0', undefined]);
  t.equal(upstream.requests.length, 3);
  t.match(proxy.upstream(), { retries: 2, status: { 503: 1 } });
});

e2e('Retry-After is waited for', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(answer('', 'retry-after: 1\r\n', '429 Slow'), answer('yes')));
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.body.toString(), 'yes');
  const [first, second] = upstream.requests;
  t.ok(second && first);
  await proxy.idle();
  const [line] = proxy.exchanges;
  t.ok((line!.retry_ms as number) >= 1000, `${line!.retry_ms} ms`);
  t.ok((line!.total_ms as number) < 3000);
});

e2e('a Retry-After above max_retry_after is the client’s, with its answer unchanged', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(answer('slow down', 'retry-after: 2\r\n', '429 Slow')), {
    retries: { maxRetryAfterMs: 1999 },
  });
  const got = await rig.ask(proxy, '/ai/x');
  t.same([got.status, got.reason, got.get('retry-after')], [429, 'Slow', '2']);
  t.equal(got.body.toString(), 'slow down');
  t.equal(upstream.requests.length, 1);
  t.match(proxy.upstream().retry_budget, { spent: 0 });
});

e2e('nothing is sent again after the first byte of the answer went to the client', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, (_request, connection) => {
    connection.send(`${chunkedHead()}${chunk('half')}`);
    setTimeout(() => connection.resetAndDestroy(), 20);
  });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.ending, 'reset', 'a cut answer does not look complete');
  t.equal(got.body.toString(), 'half');
  t.equal(upstream.requests.length, 1);
});

e2e('an answer that is cut within its head is sent again', async (t, rig) => {
  const { upstream, proxy } = await scene(
    rig,
    inTurn((_request, connection) => {
      connection.send('HTTP/1.1 200 OK\r\ncontent-le');
      setTimeout(() => connection.resetAndDestroy(), 10);
    }, answer('yes')),
  );
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'yes');
  t.equal(upstream.requests.length, 2);
});

e2e('a hung GET is sent again after headers_timeout, a hung POST is not', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, inTurn(hangs, answer('yes')), { timeouts: { headersMs: 80 } });
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'yes');
  const hung = upstream.requests[0]!.connection;
  await until('the hung one is closed', () => hung.left);
  upstream.script = hangs;
  t.equal((await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'b' })).code, 'headers_timeout');
  t.equal(upstream.requests.length, 3);
  await proxy.idle();
  t.match(proxy.exchanges, [
    { attempts: 2, status: 200 },
    { attempts: 1, status: 504 },
  ]);
});

e2e('a failure later than `within` is not retried, an early one is', async (t, rig) => {
  const late: Script = (_request, connection) => void setTimeout(() => connection.send(BUSY), 150);
  const { upstream, proxy } = await scene(rig, late, { retries: { withinMs: 100 }, timeouts: { headersMs: 300 } });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 503);
  upstream.script = hangs;
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'headers_timeout');
  t.equal(upstream.requests.length, 2);
  upstream.script = inTurn(BUSY, answer('yes'));
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'yes');
});

e2e('a connection that is refused is tried again at once, then by policy, with POST and body too', async (t, rig) => {
  const url = await refusing(await rig.upstream());
  const proxy = await rig.one({ url, retries: { ...SOON, attempts: 4 } });
  t.equal((await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'b' })).code, 'connect_failed');
  t.equal(proxy.pool().connect_failed, 4);
  t.match(proxy.upstream().retry_budget, { spent: 2 });
  t.equal(proxy.upstream().maybe_billed_twice, 0);
});

e2e('a stream that begins after a 503 comes byte for byte, as it comes', async (t, rig) => {
  const { upstream, proxy } = await scene(rig, byPath, { replay: ['/v1/chat/completions'] });
  upstream.script = inTurn(
    BUSY,
    async (request, connection) => {
      await request.whole();
      connection.send(`${chunkedHead('content-type: text/event-stream\r\n')}${chunk('data: 1\n\n')}`);
      await until('told to go on', () => upstream.requests.length === 3);
      connection.send(`${chunk('data: [DONE]\n\n')}${LAST_CHUNK}`);
    },
    answer(),
  );
  const client = await rig.sent(proxy, '/ai/v1/chat/completions', { method: 'POST', body: '{"stream":true}' });
  t.equal((await client.head()).status, 200);
  t.equal((await client.piece())!.toString(), 'data: 1\n\n');
  await rig.ask(proxy, '/ai/go');
  const { body, ending } = await client.rest();
  t.equal(body.toString(), 'data: [DONE]\n\n');
  t.equal(ending, 'clean');
  client.send('GET /ai/next HTTP/1.1\r\nhost: a\r\n\r\n');
  t.equal((await client.answer()).status, 200, 'and the next request on that connection is answered');
});

e2e('without a section `retries` no answer is retried', async (t, rig) => {
  const upstream = await rig.upstream(inTurn(BUSY, answer()));
  const proxy = await rig.one({ url: upstream.url });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 503);
  t.equal(upstream.requests.length, 1);
  t.equal(proxy.upstream().retry_budget, null);
});

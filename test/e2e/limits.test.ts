// Behaviour 11 of DESIGN.md: everything is bounded, and what is over a bound gets its own clear answer.

import { e2e, requestText } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, type Script } from '../support/upstream.ts';

const stuckOnSlow: Script = (request, connection) => {
  if (!request.target.startsWith('/slow')) connection.send(answer());
};

e2e('a full queue refuses at once: 503 queue_full with Retry-After', async (t, rig) => {
  const upstream = await rig.upstream(stuckOnSlow);
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'gate' },
    { limiters: { gate: { maxConcurrent: 1, maxQueue: 2 } } },
  );
  const first = await rig.sent(proxy, '/ai/slow');
  await upstream.request(0);
  const waiting = [await rig.sent(proxy, '/ai/1'), await rig.sent(proxy, '/ai/2')];
  await until('the queue is full', () => proxy.limiter('gate').queued === 2);
  const refused = await rig.ask(proxy, '/ai/3', {
    method: 'POST',
    body: '{}',
    headers: 'x-aiproxy-operation: chat\r\n',
  });
  t.equal(refused.status, 503);
  t.equal(refused.code, 'queue_full');
  t.match(refused.get('retry-after'), /^[1-9]\d*$/);
  t.equal(refused.get('x-should-retry'), undefined, 'a retry is safe');
  t.equal(proxy.limiter('gate').refused, 1);
  t.equal(proxy.limiter('gate').operations.chat!.refused, 1);
  t.equal(proxy.limiter('gate').peak_queued, 2);
  t.equal(upstream.requests.length, 1, 'it cost the upstream nothing');
  first.reset();
  for (const client of waiting) t.equal((await client.answer()).status, 200);
});

e2e('max_queue 0 refuses whoever would have to wait', async (t, rig) => {
  const upstream = await rig.upstream(stuckOnSlow);
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'gate' },
    { limiters: { gate: { maxConcurrent: 1, maxQueue: 0 } } },
  );
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  await proxy.idle();
  const first = await rig.sent(proxy, '/ai/slow');
  await upstream.request(1);
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'queue_full');
  first.reset();
});

e2e('waiting too long is 503 queue_timeout with Retry-After, and the place in the queue is free', async (t, rig) => {
  const upstream = await rig.upstream(stuckOnSlow);
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'gate' },
    { limiters: { gate: { maxConcurrent: 1, queueTimeoutMs: 150 } } },
  );
  const first = await rig.sent(proxy, '/ai/slow');
  await upstream.request(0);
  const started = performance.now();
  const got = await rig.ask(proxy, '/ai/1');
  const took = performance.now() - started;
  t.ok(took > 140 && took < 600, `after ${took} ms`);
  t.equal(got.status, 503);
  t.equal(got.code, 'queue_timeout');
  t.match(got.get('retry-after'), /^[1-9]\d*$/);
  t.equal(proxy.limiter('gate').queued, 0);
  t.equal(proxy.limiter('gate').refused, 1);
  t.equal(proxy.upstream().in_flight, 1, 'who holds the permit is not touched');
  t.match(proxy.exchanges[0], { failure: 'queue_timeout', connect_ms: null, ttfb_ms: null, attempts: 0 });
  first.reset();
});

e2e('an upstream without a limiter queues behind its own connections', async (t, rig) => {
  const upstream = await rig.upstream(stuckOnSlow);
  const proxy = await rig.one({ url: upstream.url, pool: { connections: 1 } });
  const first = await rig.sent(proxy, '/ai/slow');
  await upstream.request(0);
  const second = await rig.sent(proxy, '/ai/x');
  await until('it waits', () => proxy.stats().limiters['ai (pool)']!.queued === 1);
  await whileNothing(30);
  t.equal(upstream.connections.length, 1);
  first.reset();
  t.equal((await second.answer()).status, 200);
});

e2e('bodies that wait stay within body_memory; one too many is 503 body_memory_full', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    if (request.target === '/slow') return;
    await request.whole();
    connection.send(answer());
  });
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'gate' },
    { limiters: { gate: { maxConcurrent: 1 } }, listener: { bodyMemoryBytes: 100_000, bodyBufferBytes: 50_000 } },
  );
  const first = await rig.sent(proxy, '/ai/slow');
  await upstream.request(0);
  const body = 'x'.repeat(40_000);
  const waiting = [await rig.sent(proxy, '/ai/1', { method: 'POST', body })];
  waiting.push(await rig.sent(proxy, '/ai/2', { method: 'POST', body }));
  await until('two wait', () => proxy.limiter('gate').queued === 2);
  t.equal(proxy.stats().listener.body_memory_bytes, 80_000);
  const got = await rig.ask(proxy, '/ai/3', { method: 'POST', body });
  t.equal(got.status, 503);
  t.equal(got.code, 'body_memory_full');
  t.match(got.get('retry-after'), /^[1-9]\d*$/);
  t.equal(proxy.stats().listener.body_memory_bytes, 80_000, 'what it held is free');
  first.reset();
  for (const client of waiting) t.equal((await client.answer()).status, 200);
  await proxy.idle();
});

e2e('a head with too many fields, or too many bytes, is 431', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { listener: { maxHeaders: 20, maxHeadBytes: 4096 } });
  const many = Array.from({ length: 20 }, (_, i) => `x-${i}: 1\r\n`).join('');
  for (const headers of [many, `x-long: ${'a'.repeat(5000)}\r\n`, `x-long: ${'a'.repeat(100_000)}\r\n`]) {
    const got = await rig.ask(proxy, '/ai/x', { headers });
    t.equal(got.status, 431);
    t.equal(got.code, 'headers_too_large');
  }
  t.equal(upstream.connections.length, 0);
  t.equal(proxy.stats().listener.refused.headers_too_large, 3);
  const fits = many.slice(0, many.indexOf('x-17'));
  t.equal((await rig.ask(proxy, '/ai/x', { headers: fits })).status, 200);
});

e2e('a request line without an end is refused before it fills the memory', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { listener: { maxHeadBytes: 4096 } });
  const client = await rig.client(proxy);
  client.send(`GET /ai/${'a'.repeat(10_000)}`);
  t.equal((await client.answer()).code, 'headers_too_large');
  await client.ended();
});

e2e("an answer's head over max_head is 502 upstream_head_too_large", async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) =>
    connection.send(answer('ok', `x: ${'a'.repeat(9000)}\r\n`)),
  );
  const proxy = await rig.one({ url: upstream.url, maxHeadBytes: 8192 });
  const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: '{}' });
  t.equal(got.status, 502);
  t.equal(got.code, 'upstream_head_too_large');
  upstream.script = (_request, connection) => connection.send(answer('ok', `x: ${'a'.repeat(4000)}\r\n`));
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
});

e2e('an endless head of an answer is given up', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send('HTTP/1.1 200 OK\r\n');
    const more = () => {
      while (!connection.socket.destroyed && connection.socket.write(`x: ${'a'.repeat(1000)}\r\n`));
    };
    connection.socket.on('drain', more);
    more();
  });
  const proxy = await rig.one({ url: upstream.url });
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'upstream_head_too_large');
});

e2e('pipelined requests run strictly one after the other and are answered in order', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    await whileNothing(request.target === '/0' ? 60 : 5);
    connection.send(answer(`${request.method} ${request.target} ${request.body}`));
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.client(proxy);
  let text = '';
  for (let i = 0; i < 10; i++) {
    text += i % 2 === 0 ? requestText(`/ai/${i}`) : requestText(`/ai/${i}`, { method: 'POST', body: `body ${i}` });
  }
  client.send(text);
  for (let i = 0; i < 10; i++) {
    const got = await client.answer();
    t.equal(got.body.toString(), i % 2 === 0 ? `GET /${i} ` : `POST /${i} body ${i}`);
  }
  t.equal(upstream.maxConcurrent, 1, 'never two at once');
  t.equal(client.state, 'open');
});

e2e('pipelined requests that come while one runs, in pieces, are all answered', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    await whileNothing(20);
    connection.send(answer(`${request.target}${request.body}`));
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.client(proxy);
  const text = requestText('/ai/0') + requestText('/ai/1', { method: 'POST', body: '!' }) + requestText('/ai/2');
  for (let at = 0; at < text.length; at += 37) {
    client.send(text.slice(at, at + 37));
    await new Promise(setImmediate);
  }
  for (const body of ['/0', '/1!', '/2']) t.equal((await client.answer()).body.toString(), body);
});

e2e('too many pipelined requests close the connection, and the running one is cancelled', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url }, { listener: { maxPipelined: 4 } });
  const client = await rig.client(proxy);
  client.send(Array.from({ length: 7 }, (_, i) => requestText(`/ai/${i}`)).join(''));
  await client.ended();
  await proxy.idle();
  t.ok(upstream.requests.length <= 1);
});

e2e('as many pipelined requests as allowed are served', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { listener: { maxPipelined: 4 } });
  const client = await rig.client(proxy);
  client.send(Array.from({ length: 5 }, (_, i) => requestText(`/ai/${i}`)).join(''));
  for (let i = 0; i < 5; i++) t.equal((await client.answer()).status, 200);
});

e2e('a head that does not come to its end is 408, however steadily it drips', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { listener: { headTimeoutMs: 300 } });
  const client = await rig.client(proxy);
  const started = performance.now();
  const drip = setInterval(() => client.send('a'), 20);
  client.send('GET /ai/x HTTP/1.1\r\nx-drip: ');
  const got = await client.answer();
  clearInterval(drip);
  t.equal(got.status, 408);
  t.equal(got.code, 'request_timeout');
  const took = performance.now() - started;
  t.ok(took < 1000, `after ${took} ms`);
  await client.ended();
});

e2e('a connection without a request under way is closed after keepalive_timeout', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { listener: { headTimeoutMs: 100, keepAliveTimeoutMs: 300 } });
  const started = performance.now();
  const silent = await rig.client(proxy);
  const used = await rig.sent(proxy, '/ai/x');
  t.equal((await used.answer()).status, 200);
  await Promise.all([silent.ended(), used.ended()]);
  const took = performance.now() - started;
  t.ok(took > 280 && took < 1000, `after ${took} ms`);
});

// The limiter: shared by upstreams, FIFO over all of them, labels, and what is said of a long queue.

import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

e2e('two upstreams share one limiter, first come first served over both', async (t, rig) => {
  const order: string[] = [];
  let holding = true;
  const script = (name: string) => async (request: { target: string }, connection: { send(text: string): unknown }) => {
    order.push(name + request.target);
    await until('released', () => !holding || request.target !== '/hold');
    connection.send(answer());
  };
  const first = await rig.upstream(script('a'));
  const second = await rig.upstream(script('b'));
  const proxy = await rig.proxy({
    upstreams: { a: { url: first.url, limiter: 'ai' }, b: { url: second.url, limiter: 'ai' } },
    limiters: { ai: { maxConcurrent: 1 } },
  });
  const clients = [await rig.sent(proxy, '/a/hold')];
  await first.request(0);
  const expected = ['a/hold'];
  for (const [i, name] of [...'bbabaaabbb'].entries()) {
    clients.push(await rig.sent(proxy, `/${name}/${i}`));
    expected.push(`${name}/${i}`);
    await until('it is queued', () => proxy.limiter('ai').queued === i + 1);
  }
  t.match(proxy.limiter('ai'), { in_flight: 1, queued: 10, max_concurrent: 1 });
  holding = false;
  for (const client of clients) t.equal((await client.answer()).status, 200);
  t.same(order, expected);
  t.match(proxy.limiter('ai'), { granted: 11, waited: 10, refused: 0, peak_in_flight: 1, peak_queued: 10 });
  t.equal(proxy.limiter('ai').wait_ms.count, 11);
});

e2e('an upstream whose connections are all taken does not hold up the others of its limiter', async (t, rig) => {
  const stuck = await rig.upstream(() => {});
  const free = await rig.upstream();
  const proxy = await rig.proxy({
    upstreams: {
      stuck: { url: stuck.url, limiter: 'ai', pool: { connections: 1 } },
      free: { url: free.url, limiter: 'ai' },
    },
    limiters: { ai: { maxConcurrent: 2 } },
  });
  const first = await rig.sent(proxy, '/stuck/1');
  await stuck.request(0);
  const second = await rig.sent(proxy, '/stuck/2');
  await until('it waits for a connection', () => proxy.limiter('ai').queued === 1);
  t.equal(proxy.limiter('ai').in_flight, 1, 'and holds no permit meanwhile');
  t.equal((await rig.ask(proxy, '/free/x')).status, 200);
  first.reset();
  second.reset();
});

e2e('never more than max_concurrent are at the upstream, whatever comes and goes', async (t, rig) => {
  let concurrent = 0;
  let most = 0;
  const upstream = await rig.http((request, response) => {
    most = Math.max(most, ++concurrent);
    response.on('close', () => concurrent--);
    request.resume();
    response.write('x');
    setTimeout(() => response.end('y'), Math.random() * 5);
  });
  const proxy = await rig.one({ url: upstream.url, limiter: 'ai' }, { limiters: { ai: { maxConcurrent: 5 } } });
  const asks = Array.from({ length: 200 }, async (_, i) => {
    const client = await rig.sent(proxy, '/ai/x', { method: 'POST', body: 'x' });
    if (i % 4 !== 0) return void (await client.answer());
    await whileNothing(Math.random() * 30);
    client.reset();
  });
  await Promise.all(asks);
  await proxy.idle();
  t.equal(proxy.limiter('ai').peak_in_flight, 5);
  // The upstream may see the end of a cancelled exchange a moment after we have.
  t.ok(most > 1 && most <= 10, `${most} at once`);
  t.equal(proxy.upstream().requests, 200);
});

e2e('never more than max_concurrent are at the upstream when nobody leaves', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    await until('all permits are in use', () => upstream.requests.length >= 7);
    await whileNothing(Math.random() * 4);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url, limiter: 'ai' }, { limiters: { ai: { maxConcurrent: 7 } } });
  for (const got of await Promise.all(Array.from({ length: 150 }, () => rig.ask(proxy, '/ai/x'))))
    t.equal(got.status, 200);
  t.equal(upstream.maxConcurrent, 7);
  t.equal(upstream.connections.length, 7);
});

e2e('operations are counted by label, and the label is not forwarded', async (t, rig) => {
  let hold = true;
  const upstream = await rig.upstream(async (_request, connection) => {
    await until('released', () => !hold);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url, limiter: 'ai' }, { limiters: { ai: { maxConcurrent: 1 } } });
  const chat = await rig.sent(proxy, '/ai/x', { headers: 'X-AIProxy-Operation: chat\r\n' });
  await upstream.request(0);
  const embed = await rig.sent(proxy, '/ai/x', { headers: 'x-aiproxy-operation: embed\r\n' });
  await until('queued', () => proxy.limiter('ai').queued === 1);
  const { operations } = proxy.limiter('ai');
  t.match(operations, {
    chat: { in_flight: 1, queued: 0, granted: 1 },
    embed: { in_flight: 0, queued: 1, granted: 0 },
  });
  hold = false;
  await chat.answer();
  await embed.answer();
  await proxy.idle();
  t.match(proxy.limiter('ai').operations, { chat: { granted: 1, waited: 0 }, embed: { granted: 1, waited: 1 } });
  t.same(
    proxy.exchanges.map((line) => line.operation),
    ['chat', 'embed'],
  );
  t.ok(upstream.requests.every(({ text }) => !/x-aiproxy/i.test(text)));
});

e2e('at most 64 labels are told apart; the rest, and over-long ones, are other', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, limiter: 'ai' }, { limiters: { ai: {} } });
  const client = await rig.client(proxy);
  const labels = [...Array.from({ length: 80 }, (_, i) => `op-${i}`), 'x'.repeat(500), '__proto__', 'constructor'];
  for (const label of labels) {
    client.send(`GET /ai/x HTTP/1.1\r\nhost: a\r\nx-aiproxy-operation: ${label}\r\n\r\n`);
    t.equal((await client.answer()).status, 200);
  }
  await proxy.idle();
  const { operations } = proxy.limiter('ai');
  t.ok(Object.keys(operations).length <= 65);
  t.equal(operations.other!.granted, 80 - 64 + 3);
});

e2e('a growing queue is told once, a very long one once, and its end once', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url, limiter: 'ai' }, { limiters: { ai: { maxConcurrent: 1 } } });
  const said = () =>
    proxy.log.filter((line) => line.msg.includes('queue')).map(({ level, msg, queued }) => ({ level, msg, queued }));
  await rig.sent(proxy, '/ai/x');
  await upstream.request(0);
  const waiting = [];
  for (let i = 1; i <= 30; i++) {
    waiting.push(await rig.sent(proxy, '/ai/x'));
    await until('queued', () => proxy.limiter('ai').queued === i);
  }
  t.match(said(), [
    { level: 40, msg: /growing/, queued: 11 },
    { level: 50, msg: /ALERT/, queued: 21 },
  ]);
  for (const client of waiting) client.reset();
  await until('the queue is empty', () => proxy.limiter('ai').queued === 0);
  await until('it is told', () => said().length === 3, 10_000);
  t.match(said()[2], { level: 30, msg: /well again/ });
});

e2e('the timings of an exchange are in its line and in Server-Timing', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    await whileNothing(60);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url, limiter: 'ai' }, { limiters: { ai: { maxConcurrent: 1 } } });
  const first = rig.ask(proxy, '/ai/1', { method: 'POST', body: 'hello' });
  await upstream.request(0);
  const second = rig.ask(proxy, '/ai/2');
  const [one, two] = await Promise.all([first, second]);
  t.match(one.get('server-timing'), /^queue;dur=0, connect;dur=[\d.]+, ttfb;dur=[\d.]+$/);
  t.match(two.get('server-timing'), /^queue;dur=(?!0,)[\d.]+, ttfb;dur=[\d.]+$/);
  await proxy.idle();
  const [a, b] = proxy.exchanges;
  t.match(a, {
    upstream: 'ai',
    method: 'POST',
    path: '/1',
    status: 200,
    failure: null,
    bytes_in: 5,
    bytes_out: 2,
    reused: false,
    attempts: 1,
    queue_ms: 0,
  });
  t.ok(Number(a!.ttfb_ms) >= 50 && Number(a!.total_ms) >= Number(a!.ttfb_ms));
  t.ok(Number(b!.queue_ms) >= 30, `queued for ${b!.queue_ms} ms`);
  t.match(b, { reused: true, connect_ms: null });
  const { latency_ms, ttfb_ms, overhead_ms } = proxy.upstream();
  t.equal(latency_ms.count, 2);
  t.ok(ttfb_ms.max >= 50);
  t.ok(
    overhead_ms.max < 40,
    `the overhead (${overhead_ms.max}) is neither the wait in the queue nor the upstream's time`,
  );
});

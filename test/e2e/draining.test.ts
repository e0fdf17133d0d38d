// Drain, in this process: not ready, new connections for a while, what runs may finish, the rest is cut; and /healthz on the proxy port.
// What signals do to the real process is in drain.test.ts.

import { RawClient } from '../support/raw-client.ts';
import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

/** Nobody accepts any more, or whoever does closes at once. */
async function refused(port: number): Promise<boolean> {
  const client = await RawClient.connect(port).catch(() => null);
  if (client === null) return true;
  const state = await Promise.race([client.ended(), whileNothing(300).then(() => 'open')]);
  client.destroy();
  return state !== 'open';
}

/** An upstream that answers when told to. */
function gated(): { script: Script; open: () => void } {
  let isOpen = false;
  return {
    open: () => {
      isOpen = true;
    },
    script: async (_request, connection) => {
      await until('the gate is open', () => isOpen);
      connection.send(answer());
    },
  };
}

e2e('a stream in flight finishes, idle connections go, new ones are refused', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead() + chunk('1')));
  const proxy = await rig.one({ url: upstream.url });
  const idle = await rig.client(proxy);
  idle.send('GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n');
  t.equal((await idle.answer()).status, 200);
  const streaming = await rig.sent(proxy, '/ai/x');
  await streaming.head();
  t.equal((await fetch(`http://127.0.0.1:${proxy.statsPort}/readyz`)).status, 200);
  const drained = proxy.assembly.drain.start();
  t.equal((await fetch(`http://127.0.0.1:${proxy.statsPort}/readyz`)).status, 503);
  t.equal(proxy.stats().listener.draining, true);
  await idle.ended();
  t.ok(await refused(proxy.port));
  upstream.connections[0]!.send(chunk('2') + LAST_CHUNK);
  const { body, ending } = await streaming.rest();
  t.equal(body.toString(), '12');
  t.equal(ending, 'clean');
  await streaming.ended();
  streaming.destroy();
  t.equal(await drained, 0, 'nothing was cut');
});

e2e('new connections are served for accept_for, then no more', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { drain: { acceptForMs: 300 } });
  const drained = proxy.assembly.drain.start();
  t.equal((await fetch(`http://127.0.0.1:${proxy.statsPort}/readyz`)).status, 503);
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
  await drained;
  t.ok(await refused(proxy.port));
});

e2e('an answer that begins during the drain says connection: close, and the connection ends', async (t, rig) => {
  const gate = gated();
  const upstream = await rig.upstream(gate.script);
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.sent(proxy, '/ai/x');
  await upstream.request(0);
  const drained = proxy.assembly.drain.start();
  gate.open();
  const got = await client.answer();
  t.equal(got.status, 200);
  t.match(got.get('connection'), /close/);
  t.equal(await client.ended(), 'fin');
  client.destroy();
  t.equal(await drained, 0);
});

e2e('a request that is queued when the drain begins is served', async (t, rig) => {
  const gate = gated();
  const upstream = await rig.upstream(gate.script);
  const proxy = await rig.one({ url: upstream.url, limiter: 'ai' }, { limiters: { ai: { maxConcurrent: 1 } } });
  const first = await rig.sent(proxy, '/ai/1');
  await upstream.request(0);
  const second = await rig.sent(proxy, '/ai/2');
  await until('queued', () => proxy.limiter('ai').queued === 1);
  const drained = proxy.assembly.drain.start();
  gate.open();
  for (const client of [first, second]) {
    t.equal((await client.answer()).status, 200);
    await client.ended();
    client.destroy();
  }
  t.equal(await drained, 0);
});

e2e('what has not finished by the timeout is cut, and counted', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead() + chunk('1')));
  const proxy = await rig.one({ url: upstream.url }, { drain: { timeoutMs: 200 } });
  const streams = [await rig.sent(proxy, '/ai/1'), await rig.sent(proxy, '/ai/2')];
  for (const client of streams) await client.head();
  const started = performance.now();
  t.equal(await proxy.assembly.drain.start(), 2, 'two were cut');
  const took = performance.now() - started;
  t.ok(took > 180 && took < 1500, `after ${took} ms`);
  for (const client of streams) t.equal((await client.rest()).ending, 'reset', 'and never look complete');
  await until('the upstream is cancelled', () => upstream.connections.every(({ left }) => left));
});

e2e('hurry ends the drain at once', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url }, { drain: { acceptForMs: 60_000, timeoutMs: 60_000 } });
  const client = await rig.sent(proxy, '/ai/1');
  await upstream.request(0);
  const drained = proxy.assembly.drain.start();
  proxy.assembly.drain.hurry();
  t.equal(await drained, 1);
  const got = await client.answer();
  t.equal(got.status, 503);
  t.equal(got.code, 'draining');
  t.equal(got.get('x-should-retry'), 'false', 'the upstream had it already');
});

e2e('/healthz on the proxy port answers before anything else, whatever the upstreams do', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai' },
    { limiters: { ai: { maxConcurrent: 1, maxQueue: 0 } } },
  );
  const stuck = await rig.sent(proxy, '/ai/1');
  await upstream.request(0);
  for (const method of ['GET', 'HEAD']) {
    const got = await rig.ask(proxy, '/healthz', { method });
    t.equal(got.status, 200);
    t.equal(got.body.toString(), method === 'GET' ? '{"status":"ok"}\n' : '');
  }
  t.equal((await rig.ask(proxy, '/healthz/x')).status, 404);
  t.equal((await rig.ask(proxy, '/healthz', { method: 'POST', body: 'x' })).status, 404);
  const client = await rig.client(proxy);
  client.send('GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(3));
  for (let i = 0; i < 3; i++) t.equal((await client.answer()).status, 200);
  stuck.reset();
});

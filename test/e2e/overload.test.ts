// What aiproxy does when it is itself short of memory or time: a smaller cache, then refusals, then no idle connections.

import { valuesOf } from '../support/raw-client.ts';
import { e2e, requestText } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

const rss = process.memoryUsage.rss();
/** Shares of what the test process has: `pressed` says which levels it is above. */
const rules = (shrinkCacheAt: number, refuseAt: number, closeAt: number) => ({
  memoryBytes: rss,
  shrinkCacheAt,
  refuseAt,
  closeAt,
});

e2e('the cache is made smaller, and requests are served all the same', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    connection.send(answer('x'.repeat(20_000), 'cache-control: public, max-age=60\r\n'));
  });
  const proxy = await rig.one({ url: upstream.url, cache: { http: true } }, { overload: rules(0.01, 50, 60) });
  for (let n = 0; n < 5; n++) await rig.ask(proxy, `/ai/${n}`);
  t.equal(proxy.stats().cache.stores, 5);
  await until('it is seen', () => proxy.stats().overload!.level === 1, 5000);
  await until('nothing is left in it', () => proxy.stats().cache.entries === 0, 8000);
  t.equal(proxy.stats().cache.evicted, 5);
  t.match(proxy.stats().overload, { level: 1, entered: { shrink: 1, refuse: 0, close: 0 } });
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
});

e2e('new requests are refused with 503 overloaded, those of bypass paths are not', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, bypass: ['/health'] }, { overload: rules(0.01, 0.02, 60) });
  await until('it refuses', () => proxy.stats().overload!.level === 2, 5000);
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.status, 503);
  t.equal(got.code, 'overloaded');
  t.same(valuesOf(got, 'retry-after'), ['2']);
  t.equal(upstream.requests.length, 0);
  t.equal((await rig.ask(proxy, '/ai/health')).status, 200);
  t.equal(proxy.stats().listener.refused.overloaded, 1);
});

e2e('idle client connections are closed, and answers close theirs; what is under way ends well', async (t, rig) => {
  let isHeld = true;
  const upstream = await rig.upstream(async (request, connection) => {
    await request.whole();
    if (request.target === '/held') await until('it is let go', () => !isHeld);
    connection.send(answer());
  });
  const proxy = await rig.one({ url: upstream.url }, { overload: rules(0.01, 0.02, 0.03) });
  const idle = await rig.client(proxy);
  const busy = await rig.sent(proxy, '/ai/held');
  await upstream.request(0);
  t.equal(await idle.ended(), 'fin');
  isHeld = false;
  const got = await busy.answer();
  t.equal(got.status, 200);
  t.equal(await busy.ended(), 'fin');
  const late = await rig.client(proxy);
  late.send(requestText('/ai/x'));
  t.equal((await late.answer()).code, 'overloaded');
  t.equal(await late.ended(), 'fin');
});

// Identical requests in flight share one fetch: who follows, who leaves, who is slow, and within which limits.

import type { Test } from 'tap';
import type { TestProxy, UpstreamOverrides } from '../support/proxy.ts';
import type { RawAnswer, RawClient } from '../support/raw-client.ts';
import { e2e, type Rig } from '../support/rig.ts';
import {
  alike,
  allGet,
  answers,
  ask,
  COALESCE,
  FRESH,
  get,
  HTTP,
  landed,
  post,
  RULE,
  sent,
  silent,
  twins,
} from '../support/twins.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type RawUpstream } from '../support/upstream.ts';

interface Mode {
  readonly name: string;
  readonly config: Partial<UpstreamOverrides>;
  readonly text: string;
  readonly stores: boolean;
}

const modes: Mode[] = [
  { name: 'GET, coalesce alone', config: COALESCE, text: get('/ai/x'), stores: false },
  {
    name: 'GET with a credential, coalesce alone',
    config: COALESCE,
    text: get('/ai/x', 'authorization: Bearer one\r\n'),
    stores: false,
  },
  { name: 'GET, http', config: HTTP, text: get('/ai/x'), stores: true },
  { name: 'GET, rule', config: RULE, text: get('/ai/x'), stores: true },
  { name: 'POST, rule', config: RULE, text: post('/ai/x', '{"a":1}'), stores: true },
];

function collapsed(all: readonly RawAnswer[]): number {
  return all.filter((got) => got.get('cache-status')?.includes('; collapsed')).length;
}

for (const { name, config, text, stores } of modes) {
  for (const shape of ['JSON', 'SSE'] as const) {
    e2e(`100 identical requests are one upstream call and 100 identical answers: ${name}, ${shape}`, async (t, rig) => {
      const upstream = await rig.upstream(silent);
      const proxy = await rig.one({ url: upstream.url, ...config });
      const clients = await twins(rig, proxy, 100, text);
      const { connection } = await upstream.request(0);
      // In coalesce-only mode nothing is said of freshness: it need not be storable to be shared.
      const fields = stores ? FRESH : '';
      if (shape === 'JSON') {
        connection.send(answer('{"b":2}', `content-type: application/json\r\n${fields}`));
      } else {
        connection.send(chunkedHead(`content-type: text/event-stream\r\n${fields}`));
        for (const client of clients) t.equal((await client.head()).status, 200);
        for (let i = 0; i < 5; i++) {
          connection.send(chunk(`data: ${i}\n\n`));
          await allGet(t, clients, `data: ${i}\n\n`, `event ${i} reaches everybody before the next is sent`);
        }
        connection.send(LAST_CHUNK);
      }
      if (shape === 'JSON') {
        const all = await answers(clients);
        alike(t, all, 'identical');
        t.equal(all[0]!.status, 200);
        t.equal(all[0]!.body.toString(), '{"b":2}');
        t.equal(collapsed(all), 99);
        t.notMatch(all[0]!.get('cache-status'), 'collapsed', 'the first asked itself');
      } else for (const client of clients) t.equal((await client.rest()).ending, 'clean');
      t.equal(upstream.requests.length, 1);
      await proxy.idle();
      await landed(proxy);
      const cache = proxy.upstream().cache!;
      t.match(cache, { misses: 1, coalesced: 99, hits: 0, unshared: 0, saved_requests: 99, stores: stores ? 1 : 0 });
      const outcomes = Map.groupBy(proxy.exchanges, (line) => line.cache);
      t.equal(outcomes.get('miss')!.length, 1);
      t.equal(outcomes.get('coalesced')!.length, 99);
      upstream.script = (_request, again) => again.send(answer('new'));
      const next = await ask(rig, proxy, text);
      t.equal(upstream.requests.length, stores ? 1 : 2, stores ? 'and the next one hits' : 'and nothing was stored');
      t.equal(next.body.toString() === 'new', !stores);
    });
  }
}

e2e('who joins in the middle of a stream catches up byte for byte and then gets each piece', async (t, rig) => {
  for (const { name, config, text } of modes.filter((mode) => mode.stores)) {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, ...config });
    const [leader] = await twins(rig, proxy, 1, text);
    const { connection } = await upstream.request(0);
    connection.send(chunkedHead(FRESH));
    await leader!.head();
    let whole = '';
    const followers: RawClient[] = [leader!];
    for (let i = 0; i < 6; i++) {
      const piece = `data: ${'x'.repeat(i * 1000)}${i}\n\n`;
      connection.send(chunk(piece));
      await allGet(t, followers, piece, `${name}: piece ${i} reaches all ${followers.length}`);
      whole += piece;
      const late = await sent(rig, proxy, text);
      const head = await late.head();
      t.match(head.text.toLowerCase(), 'collapsed');
      let got = '';
      while (got.length < whole.length) got += String(await late.piece());
      t.equal(got, whole, 'what has come so far');
      followers.push(late);
    }
    connection.send(LAST_CHUNK);
    for (const client of followers) t.equal((await client.rest()).ending, 'clean');
    t.equal(upstream.requests.length, 1);
    t.equal((await ask(rig, proxy, text)).body.toString(), whole, 'and that is what is stored');
    await landed(proxy);
  }
});

e2e('an answer that says nothing of freshness is for those who waited, not for who comes later', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...COALESCE });
  const early = await twins(rig, proxy, 3, get('/ai/x'));
  const { connection } = await upstream.request(0);
  connection.send(chunkedHead()).send(chunk('one'));
  for (const client of early) await client.head();
  const late = await sent(rig, proxy, get('/ai/x'));
  const second = await upstream.request(1);
  second.connection.send(answer('two'));
  t.equal((await late.answer()).body.toString(), 'two');
  connection.send(LAST_CHUNK);
  for (const client of early) t.equal((await client.rest()).body.toString(), 'one');
});

e2e('who comes later joins only what a stored answer would be good for', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const clock = { now: Date.now() };
  const proxy = await rig.proxy({ upstreams: { ai: { url: upstream.url, ...HTTP } } }, () => clock.now);
  const [leader] = await twins(rig, proxy, 1, get('/ai/x'));
  const { connection } = await upstream.request(0);
  connection.send(chunkedHead('cache-control: max-age=60\r\nage: 20\r\n')).send(chunk('one'));
  await leader!.head();
  const joins = async (fields: string) => {
    const before = upstream.requests.length;
    const client = await sent(rig, proxy, get('/ai/x', fields));
    const head = client.head();
    await until('it joined or asked', () => client.received.length > 0 || upstream.requests.length > before);
    const joined = upstream.requests.length === before;
    if (!joined) upstream.requests.at(-1)!.connection.send(answer('own', '', '500 Oops'));
    await head;
    client.destroy();
    return joined;
  };
  t.ok(await joins(''));
  t.ok(await joins('cache-control: max-age=30\r\n'));
  t.notOk(await joins('cache-control: max-age=10\r\n'), 'it is 20 s old');
  clock.now += 1000;
  t.ok(await joins('cache-control: min-fresh=30\r\n'));
  t.notOk(await joins('cache-control: min-fresh=50\r\n'), 'it is fresh for 39 s more');
  t.notOk(await joins('cache-control: no-cache\r\n'));
  clock.now += 60_000;
  t.notOk(await joins(''), 'it went stale while it came');
  leader!.destroy();
});

// ---- leaving

e2e('the leader leaves, before the head or within the body, and the others get everything', async (t, rig) => {
  for (const { name, config, text, stores } of modes) {
    for (const when of ['before the head', 'within the body'] as const) {
      const upstream = await rig.upstream(silent);
      const proxy = await rig.one({ url: upstream.url, ...config });
      const [leader, ...others] = await twins(rig, proxy, 4, text);
      const { connection } = await upstream.request(0);
      if (when === 'before the head') leader!.reset();
      connection.send(chunkedHead(FRESH)).send(chunk('one'));
      for (const client of others) await client.head();
      await allGet(t, others, 'one', 'the first piece');
      if (when === 'within the body') leader!.halfClose();
      await until('it is known to have left', () => proxy.upstream().failures.client_gone === 1);
      connection.send(chunk('two')).send(LAST_CHUNK);
      for (const client of others) t.same(await client.rest(), { body: Buffer.from('two'), ending: 'clean' });
      t.equal(upstream.requests.length, 1, `${name}, ${when}`);
      await landed(proxy);
      t.equal(proxy.upstream().cache!.stores, stores ? 1 : 0, 'and it is stored all the same');
    }
  }
});

e2e('a follower that leaves within the body disturbs nobody', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...RULE });
  const clients = await twins(rig, proxy, 10, get('/ai/x'));
  const { connection } = await upstream.request(0);
  connection.send(chunkedHead());
  for (const client of clients) await client.head();
  const staying = [...clients];
  for (let i = 0; i < 9; i++) {
    connection.send(chunk(`<${i}>`));
    await allGet(t, staying, `<${i}>`, `${staying.length} get piece ${i}`);
    const [leaver] = staying.splice(staying.length >> 1, 1);
    if (i % 2) leaver!.reset();
    else leaver!.halfClose();
    await until('it has left', () => proxy.upstream().failures.client_gone === i + 1);
  }
  t.notOk(connection.left, 'one is left, and for that one it goes on');
  connection.send(LAST_CHUNK);
  t.equal((await staying[0]!.rest()).ending, 'clean');
  await landed(proxy);
});

const GATE = { limiters: { gate: { maxConcurrent: 1 } } };

/** All have left: everything is given back at once. */
async function givenBack(t: Test, proxy: TestProxy, message: string): Promise<void> {
  const left = performance.now();
  await until(
    'permit, slot, flight and memory are back',
    () => {
      const { flights, flight_memory_bytes } = proxy.stats().cache;
      const { in_flight, queued } = proxy.limiter('gate');
      return flights + flight_memory_bytes + in_flight + queued === 0 && proxy.pool().active === 0;
    },
    1000,
  );
  t.ok(performance.now() - left < 1000, message);
}

for (const text of [get('/ai/x'), post('/ai/x', '{"a":1}')]) {
  const method = text.slice(0, 4).trim();

  e2e(`when the last one leaves, the upstream call is aborted at once: ${method}, before the head`, async (t, rig) => {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, limiter: 'gate', ...RULE }, GATE);
    const clients = await twins(rig, proxy, 3, text);
    const { connection } = await upstream.request(0);
    clients[0]!.reset();
    clients[2]!.halfClose();
    await until('two have left', () => proxy.upstream().failures.client_gone === 2);
    t.equal(proxy.limiter('gate').in_flight, 1);
    t.notOk(connection.left);
    clients[1]!.reset();
    await until('the upstream is cancelled', () => connection.left, 500);
    await givenBack(t, proxy, 'before the head');
    t.equal(upstream.requests.length, 1);
  });

  e2e(`when the last one leaves, the upstream call is aborted at once: ${method}, within the body`, async (t, rig) => {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, limiter: 'gate', ...RULE }, GATE);
    const clients = await twins(rig, proxy, 3, text);
    const { connection } = await upstream.request(0);
    connection.send(chunkedHead()).send(chunk('x'.repeat(50_000)));
    for (const client of clients) await client.head();
    t.ok(proxy.stats().cache.flight_memory_bytes >= 50_000);
    for (const client of clients) client.reset();
    await until('the upstream is cancelled', () => connection.left, 500);
    await givenBack(t, proxy, 'within the body');
    t.equal(proxy.upstream().cache!.stores, 0, 'a part is not stored');
  });

  e2e(`when the last one leaves while the fetch is queued, its place is free: ${method}`, async (t, rig) => {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, limiter: 'gate', ...RULE }, GATE);
    const blocker = await sent(rig, proxy, get('/ai/blocker'));
    await upstream.request(0);
    const clients = await twins(rig, proxy, 3, text);
    await until('the fetch is queued', () => proxy.limiter('gate').queued === 1);
    for (const client of clients) client.reset();
    await until('its place is free', () => proxy.limiter('gate').queued === 0, 500);
    blocker.reset();
    await givenBack(t, proxy, 'queued');
    t.equal(upstream.requests.length, 1);
  });
}

e2e('when the last one leaves while the connection is being opened, all is given back', async (t, rig) => {
  const silentTls = await rig.upstream(silent);
  const proxy = await rig.one(
    { url: `https://127.0.0.1:${silentTls.port}`, limiter: 'gate', timeouts: { connectMs: 700 }, ...RULE },
    GATE,
  );
  const clients = await twins(rig, proxy, 3, get('/ai/x'));
  await until('it is connecting', () => proxy.pool().connecting === 1);
  for (const client of clients) client.reset();
  await givenBack(t, proxy, 'connecting');
  await until('the opening has ended', () => proxy.pool().connecting === 0, 2000);
});

e2e('pipelined twins on one connection are answered one after the other', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  const client = await sent(rig, proxy, get('/ai/x').repeat(5));
  const other = await sent(rig, proxy, get('/ai/x'));
  await until('two are under way', () => proxy.upstream().in_flight === 2);
  (await upstream.request(0)).connection.send(answer('one', FRESH));
  for (let i = 0; i < 5; i++) t.equal((await client.answer()).body.toString(), 'one');
  t.equal((await other.answer()).body.toString(), 'one');
  t.equal(upstream.requests.length, 1, 'the later ones hit');
});

e2e('HEAD and range requests never join', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...HTTP });
  const [leader] = await twins(rig, proxy, 1, get('/ai/x'));
  const first = await upstream.request(0);
  const head = await sent(rig, proxy, 'HEAD /ai/x HTTP/1.1\r\nhost: a\r\n\r\n');
  (await upstream.request(1)).connection.send('HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n');
  t.equal((await head.answer(true)).get('content-length'), '3');
  const range = await sent(rig, proxy, get('/ai/x', 'range: bytes=0-1\r\n'));
  const third = await upstream.request(2);
  t.equal(third.get('range'), 'bytes=0-1');
  third.connection.send(answer('on', 'content-range: bytes 0-1/3\r\n', '206 Partial Content'));
  t.equal((await range.answer()).status, 206);
  first.connection.send(answer('one', FRESH));
  t.equal((await leader!.answer()).body.toString(), 'one');
});

// ---- a slow follower

e2e('a slow follower holds the others up no longer than write_stall, then it is dropped', async (t, rig) => {
  const total = 48 << 20;
  let written = 0;
  const upstream = await rig.upstream(silent);
  const bufferBytes = 256 << 10;
  const writeStallMs = 400;
  const proxy = await rig.one(
    { url: upstream.url, timeouts: { writeStallMs, idleMs: 300 }, ...COALESCE },
    { flights: { bufferBytes } },
  );
  const [slow, ...fast] = await twins(rig, proxy, 3, get('/ai/x'));
  const taken = fast.map((client) => {
    const count = { bytes: 0 };
    // Read as fast as can be, and not kept.
    client.socket.removeAllListeners('data');
    client.socket.on('data', (bytes: Buffer) => {
      count.bytes += bytes.length;
    });
    return count;
  });
  const { connection } = await upstream.request(0);
  connection.send(`HTTP/1.1 200 OK\r\ncontent-length: ${total}\r\n\r\n`);
  await slow!.head();
  slow!.pause();
  const more = () => {
    while (written < total) {
      written += 65536;
      if (!connection.socket.write(Buffer.alloc(65536))) return;
    }
  };
  connection.socket.on('drain', more);
  more();
  let stalledAt = 0;
  let heldMost = 0;
  let longest = 0;
  let last = 0;
  const line = await until(
    'the slow one is dropped',
    () => {
      const now = performance.now();
      const sum = taken.reduce((all, { bytes }) => all + bytes, 0);
      if (sum > last || stalledAt === 0) stalledAt = now;
      last = sum;
      longest = Math.max(longest, now - stalledAt);
      heldMost = Math.max(heldMost, proxy.stats().cache.flight_memory_bytes);
      return proxy.exchanges[0];
    },
    5000,
  );
  t.match(line, { failure: 'client_stalled', status: 200 });
  t.ok(written < total, 'until then the writes of the upstream stalled');
  t.ok(longest > writeStallMs / 2, `the fast ones did wait: ${longest} ms`);
  // A stall is found out at the second look, or at the first after bytes that still went into the kernel.
  t.ok(longest < writeStallMs + 350, `the fast ones waited ${longest} ms`);
  t.ok(heldMost < bufferBytes + (128 << 10), `${heldMost} bytes were held`);
  await until('the fast ones have everything', () => taken.every(({ bytes }) => bytes > total), 10_000);
  slow!.resume();
  t.equal(await slow!.ended(), 'reset', 'what was cut must not look complete');
  await proxy.idle();
  await landed(proxy);
  t.same(proxy.upstream().failures, { client_stalled: 1 }, 'our pause is not the silence of the upstream');
});

e2e('a follower slow for a moment only gets every byte', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...COALESCE }, { flights: { bufferBytes: 64 << 10 } });
  const clients = await twins(rig, proxy, 3, get('/ai/x'));
  const { connection } = await upstream.request(0);
  const body = Buffer.from(Array.from({ length: 12 << 20 }, (_, i) => (i * 7 + (i >> 9)) & 255));
  connection.send(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n`);
  await Promise.all(clients.map((client) => client.head()));
  clients[1]!.pause();
  connection.send(body);
  await until('the fetch is paused', () => proxy.stats().cache.flight_memory_bytes >= 64 << 10);
  clients[1]!.resume();
  const all = await Promise.all(clients.map((client) => client.rest()));
  for (const { body: got, ending } of all) {
    t.equal(ending, 'clean');
    t.ok(got.equals(body), 'byte for byte');
  }
  await landed(proxy);
});

e2e('a stream longer than first_event and flight_wait is nobody’s timeout once it has begun', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one(
    { url: upstream.url, timeouts: { firstEventMs: 300 }, ...RULE },
    { flights: { waitMs: 150 } },
  );
  const clients = await twins(rig, proxy, 3, get('/ai/x'));
  const { connection } = await upstream.request(0);
  connection.send(chunkedHead('content-type: text/event-stream\r\n'));
  for (let i = 0; i < 12; i++) {
    connection.send(chunk(`data: ${i}\n\n`));
    await whileNothing(50);
  }
  connection.send(LAST_CHUNK);
  for (const got of await answers(clients)) t.equal(got.ending, 'clean');
  t.same(proxy.upstream().failures, {});
});

// ---- limits

e2e('flight_waiters: who comes beyond begins a fetch of its own', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...RULE }, { flights: { maxWaiters: 4 } });
  const clients = await twins(rig, proxy, 10, get('/ai/x'));
  await upstream.request(2);
  t.equal(upstream.requests.length, 3, '4 and 4 and 2');
  for (const { connection } of upstream.requests) connection.send(answer('one'));
  for (const got of await answers(clients)) t.equal(got.body.toString(), 'one');
  await landed(proxy);
});

e2e('flight_wait: a follower that has waited so long asks on its own, the leader waits on', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...RULE }, { flights: { waitMs: 200 } });
  const from = performance.now();
  const clients = await twins(rig, proxy, 3, post('/ai/x', '{"a":1}'));
  await until('both followers ask', () => upstream.requests.length === 3, 1500);
  t.ok(performance.now() - from >= 190);
  for (const request of upstream.requests) t.equal(String(await request.whole()), '{"a":1}', 'with their body');
  for (const [i, { connection }] of upstream.requests.entries()) connection.send(answer(`answer ${i}`));
  const [own, ...others] = await answers(clients);
  t.equal(own!.body.toString(), 'answer 0');
  for (const got of others) t.match(got.get('cache-status'), 'detail=flight_wait');
  t.equal(proxy.upstream().cache!.unshared, 2);
  await landed(proxy);
});

e2e('flight_wait: when the leader has left, the one who stays does not ask again', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...RULE }, { flights: { waitMs: 200 } });
  const [leader, follower] = await twins(rig, proxy, 2, get('/ai/x'));
  await upstream.request(0);
  leader!.destroy();
  await whileNothing(400);
  t.equal(upstream.requests.length, 1);
  upstream.requests[0]!.connection.send(answer('the one'));
  t.equal((await follower!.answer()).body.toString(), 'the one');
  await landed(proxy);
});

e2e('a leader that has waited longer than flight_wait and meets its total asks no second time', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, timeouts: { totalMs: 300 }, ...RULE }, { flights: { waitMs: 100 } });
  const got = await ask(rig, proxy, get('/ai/x'));
  t.equal(got.code, 'total_timeout');
  t.equal(upstream.requests.length, 1);
  await landed(proxy);
});

e2e('each follower has a total of its own, the fetch has none', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, timeouts: { totalMs: 500 }, ...RULE });
  const [first] = await twins(rig, proxy, 1, get('/ai/x'));
  await whileNothing(300);
  const [second] = await twins(rig, proxy, 1, get('/ai/x'));
  t.equal((await first!.answer()).code, 'total_timeout');
  (await upstream.request(0)).connection.send(answer('in time for the second'));
  t.equal((await second!.answer()).body.toString(), 'in time for the second');
  t.equal(upstream.requests.length, 1);
});

e2e('flight_memory: answers beyond it pass whole, unstored', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...RULE }, { flights: { memoryBytes: 100_000 } });
  const clients = await twins(rig, proxy, 3, get('/ai/x'));
  const { connection } = await upstream.request(0);
  connection.send(chunkedHead());
  let whole = '';
  for (let i = 0; i < 20; i++) {
    const piece = String.fromCharCode(97 + i).repeat(10_000);
    whole += piece;
    connection.send(chunk(piece));
  }
  connection.send(LAST_CHUNK);
  for (const got of await answers(clients)) t.ok(got.body.toString() === whole && got.ending === 'clean');
  await landed(proxy);
  t.match(proxy.upstream().cache, { stores: 0, entries: 0, too_large: 1 });
});

for (const framing of ['declared', 'actual'] as const) {
  e2e(`max_entry by ${framing} length: the answer passes to everybody and is not stored`, async (t, rig) => {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, cache: { rules: [{ ttlMs: 60_000, maxEntryBytes: 10_000 }] } });
    for (const [length, stored] of [
      [10_000, true],
      [10_001, false],
    ] as const) {
      const text = get(`/ai/${length}`);
      const before = upstream.requests.length;
      const clients = await twins(rig, proxy, 2, text);
      const { connection } = await upstream.request(before);
      const body = 'x'.repeat(length);
      if (framing === 'declared') connection.send(answer(body));
      else
        connection
          .send(chunkedHead())
          .send(chunk(body.slice(0, 6000)))
          .send(chunk(body.slice(6000)) + LAST_CHUNK);
      const all = await answers(clients);
      t.ok(all.every((got) => got.body.toString() === body && got.ending === 'clean'));
      if (framing === 'declared') t.equal(all[0]!.get('cache-status')!.includes('; stored'), stored);
      await landed(proxy);
      t.equal(proxy.upstream().cache!.entries, 1, `${length} bytes`);
    }
    t.equal(proxy.upstream().cache!.too_large, 1);
  });
}

// ---- conditional twins

e2e(
  'a client whose copy is still good gets 304, and the answer is stored for the next all the same',
  async (t, rig) => {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, ...HTTP });
    const [client] = await twins(rig, proxy, 1, get('/ai/x', 'if-none-match: "a"\r\n'));
    const { connection, ...request } = await upstream.request(0);
    void request;
    t.equal(upstream.requests[0]!.get('if-none-match'), undefined, 'asked for whole');
    connection.send(chunkedHead(`${FRESH}etag: "a"\r\n`)).send(chunk('half, '));
    const got = await client!.answer();
    t.equal(got.status, 304);
    connection.send(chunk('whole')).send(LAST_CHUNK);
    await until('it is stored', () => proxy.upstream().cache!.stores === 1);
    t.notOk(connection.left, 'and its connection stays good');
    t.equal((await ask(rig, proxy, get('/ai/x'))).body.toString(), 'half, whole');
    t.equal(upstream.requests.length, 1);
  },
);

// ---- the end

async function swr(rig: Rig): Promise<{ upstream: RawUpstream; proxy: TestProxy; clock: { now: number } }> {
  const upstream = await rig.upstream((_request, connection) => connection.send(answer('old')));
  const clock = { now: Date.now() };
  const rules = [{ ttlMs: 1000, staleWhileRevalidateMs: 60_000 }];
  const proxy = await rig.proxy({ upstreams: { ai: { url: upstream.url, cache: { rules } } } }, () => clock.now);
  await ask(rig, proxy, post('/ai/x', '{"a":1}'));
  clock.now += 2000;
  return { upstream, proxy, clock };
}

e2e('a fetch in the background is cut at the stop, and nothing is left', async (t, rig) => {
  const { upstream, proxy } = await swr(rig);
  upstream.script = silent;
  t.equal((await ask(rig, proxy, post('/ai/x', '{"a":1}'))).body.toString(), 'old');
  const { connection } = await upstream.request(1);
  t.equal(proxy.stats().cache.flights, 1);
  await proxy.stop();
  await until('the upstream is cut off', () => connection.left);
  await landed(proxy);
});

e2e('a drain waits for followers, and cuts them when its time is over', async (t, rig) => {
  for (const inTime of [true, false]) {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, ...RULE }, { drain: { timeoutMs: inTime ? 5000 : 200 } });
    const clients = await twins(rig, proxy, 5, get('/ai/x'));
    const { connection } = await upstream.request(0);
    const drained = proxy.assembly.drain.start();
    await until('it drains', () => proxy.stats().listener.draining);
    if (inTime) {
      connection.send(answer('in time'));
      for (const got of await answers(clients)) t.equal(got.body.toString(), 'in time');
      for (const client of clients) client.destroy();
      t.equal(await drained, 0);
    } else {
      for (const got of await answers(clients)) t.equal(got.code, 'draining');
      t.equal(await drained, 5);
      await until('the upstream is cut off', () => connection.left);
    }
    await landed(proxy);
  }
});

e2e(
  'idle counts again when a pause has outlasted it: an upstream that falls silent afterwards is found out',
  async (t, rig) => {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one(
      { url: upstream.url, timeouts: { idleMs: 300, writeStallMs: Number.POSITIVE_INFINITY }, ...COALESCE },
      { flights: { bufferBytes: 64 << 10 } },
    );
    const [client] = await twins(rig, proxy, 1, get('/ai/x'));
    client!.pause();
    const { connection } = await upstream.request(0);
    connection.send(chunkedHead());
    for (let i = 0; i < 300; i++) connection.send(chunk('x'.repeat(64 << 10)));
    await until('the upstream is paused', () => connection.socket.writableLength > 1 << 20);
    await whileNothing(700);
    client!.resume();
    const { body, ending } = await client!.head().then(() => client!.rest());
    t.equal(body.length, 300 * (64 << 10), 'what was sent has come');
    t.equal(ending, 'reset');
    t.same(proxy.upstream().failures, { idle_timeout: 1 });
    await landed(proxy);
  },
);

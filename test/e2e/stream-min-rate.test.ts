// `stream.min_rate`: a body that comes more slowly than it must, over a whole window, is cut; a slow client is not the upstream's fault.

import { e2e, type Rig } from '../support/rig.ts';
import { get, landed, RULE, silent, twins } from '../support/twins.ts';
import { until, whileNothing } from '../support/until.ts';
import { chunk, chunkedHead, LAST_CHUNK, type Script, type UpstreamConnection } from '../support/upstream.ts';

/** 1000 bytes per second, looked at every 200 ms: 200 bytes each time. */
const GUARD = { stream: { minRate: 1000, minRateWindowMs: 200 } };
const EVENTS = 'content-type: text/event-stream\r\n';

/** Pieces of so many bytes, 20 a second; of a declared length when there is a head without chunks. */
async function drip(connection: UpstreamConnection, bytes: number, pieces: number, framed = true): Promise<void> {
  const piece = 'x'.repeat(bytes);
  for (let i = 0; i < pieces && !connection.left; i++) {
    connection.send(framed ? chunk(piece) : piece);
    await whileNothing(50);
  }
}

const dripping =
  (head: string, bytes: number, pieces: number, framed = true): Script =>
  async (_request, connection) => {
    connection.send(head);
    await drip(connection, bytes, pieces, framed);
    if (framed) connection.send(LAST_CHUNK);
  };

/** What became of one request. */
async function outcome(rig: Rig, script: Script, config: object = GUARD, path = '/ai/x') {
  const upstream = await rig.upstream(script);
  const proxy = await rig.one({ url: upstream.url, bypass: ['/slow'], ...config });
  const client = await rig.sent(proxy, path);
  await client.head();
  const beganAt = performance.now();
  const { body, ending } = await client.rest();
  const tookMs = performance.now() - beganAt;
  await proxy.idle();
  return { proxy, upstream, ending, tookMs, body: body.toString(), failure: proxy.exchanges[0]!.failure };
}

for (const [kind, head, framed] of [
  ['an event stream', chunkedHead(EVENTS), true],
  ['a chunked answer of any kind', chunkedHead(), true],
  ['a declared length', 'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n', false],
] as const) {
  e2e(`${kind} that comes too slowly is cut after one window, and the upstream is told`, async (t, rig) => {
    const got = await outcome(rig, dripping(head, 10, 30, framed), { ...GUARD, breaker: {} });
    t.same([got.ending, got.failure], ['reset', 'stream_too_slow']);
    t.ok(got.tookMs > 150 && got.tookMs < 600, `after ${Math.round(got.tookMs)} ms`);
    t.match(got.body, /^x+$/, 'with what has come');
    await until('the upstream is told', () => got.upstream.connections[0]!.left);
    t.same(got.proxy.upstream().failures, { stream_too_slow: 1 });
    t.equal(got.proxy.upstream().targets[0]!.failures, 1, 'it counts against the server');
  });
}

e2e('one that is fast enough passes, window after window', async (t, rig) => {
  const got = await outcome(rig, dripping(chunkedHead(EVENTS), 500, 16));
  t.same([got.ending, got.body.length, got.failure], ['clean', 8000, null]);
  t.ok(got.tookMs > 600);
});

e2e('each window counts on its own: what came before does not help', async (t, rig) => {
  const got = await outcome(rig, async (_request, connection) => {
    connection.send(chunkedHead(EVENTS) + chunk('x'.repeat(50_000)));
    await drip(connection, 10, 40);
  });
  t.same([got.ending, got.failure], ['reset', 'stream_too_slow']);
  t.ok(got.tookMs > 350 && got.tookMs < 900, `cut after the second window, ${Math.round(got.tookMs)} ms`);
});

e2e('filler counts, as every byte does', async (t, rig) => {
  const filler = ': keep-alive\n\n'.repeat(20);
  const got = await outcome(rig, async (_request, connection) => {
    connection.send(chunkedHead(EVENTS));
    for (let i = 0; i < 12; i++) {
      connection.send(chunk(filler));
      await whileNothing(50);
    }
    connection.send(LAST_CHUNK);
  });
  t.same([got.ending, got.failure], ['clean', null]);
});

e2e('heartbeats do not count', async (t, rig) => {
  const stream = { ...GUARD.stream, heartbeatMs: 15, minRate: 100 };
  const got = await outcome(rig, (_request, connection) => connection.send(chunkedHead(EVENTS)), { stream });
  t.equal(got.failure, 'stream_too_slow');
  t.ok(got.body.length > 40);
});

e2e('it is said in an event where errors are', async (t, rig) => {
  const stream = { ...GUARD.stream, errorEvent: true };
  const got = await outcome(rig, (_request, connection) => connection.send(chunkedHead(EVENTS)), { stream });
  t.match(got.body, /^event: error\ndata: \{"error":\{"message":"[^"]+stream\.min_rate".*"code":"stream_too_slow"/);
  t.equal(got.ending, 'fin');
});

e2e('the time before the head does not count, and a bypass path is not looked at', async (t, rig) => {
  const late = await outcome(rig, async (_request, connection) => {
    await whileNothing(500);
    connection.send(chunkedHead(EVENTS) + chunk('x') + LAST_CHUNK);
  });
  t.equal(late.failure, null);
  const bypass = await outcome(rig, dripping(chunkedHead(), 1, 12), GUARD, '/ai/slow');
  t.same([bypass.ending, bypass.failure], ['clean', null]);
});

e2e('a client that does not read is not a slow upstream', async (t, rig) => {
  const total = 32 << 20;
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`HTTP/1.1 200 OK\r\ncontent-length: ${total}\r\n\r\n`);
    for (let sent = 0; sent < total; sent += 1 << 20) connection.send(Buffer.alloc(1 << 20));
  });
  // More than there is: only a window that is over would find it missing.
  const stream = { minRate: 100 << 20, minRateWindowMs: 1000 };
  const proxy = await rig.one({ url: upstream.url, stream });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  client.pause();
  const { socket } = upstream.connections[0]!;
  let last = -1;
  await until('the upstream is paused', () => socket.writableLength > 0 && last === (last = socket.writableLength));
  await whileNothing(1500);
  t.equal(proxy.upstream().in_flight, 1, 'for longer than a window');
  client.resume();
  t.equal((await client.rest()).ending, 'clean');
  t.same(proxy.upstream().failures, {});
});

e2e('a shared fetch is judged once, for all who follow it', async (t, rig) => {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...RULE, ...GUARD });
  const clients = await twins(rig, proxy, 3, get('/ai/x'));
  const { connection } = await upstream.request(0);
  connection.send(chunkedHead(EVENTS) + chunk('x'));
  for (const client of clients) t.equal((await client.answer()).ending, 'reset');
  await landed(proxy);
  for (const { failure } of proxy.exchanges) t.equal(failure, 'stream_too_slow');
  t.equal(upstream.requests.length, 1);
});

e2e('who comes later to a fetch that is fast enough is not judged by windows of his own', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    connection.send(chunkedHead(EVENTS));
    const headAt = performance.now();
    // Windows end at 600, 1200, 1800 and 2400; there are 1000 ms without a byte, twice.
    for (const at of [100, 1100, 1300, 2300]) {
      await whileNothing(headAt + at - performance.now());
      connection.send(chunk('x'.repeat(1000)));
    }
    connection.send(LAST_CHUNK);
  });
  const proxy = await rig.one({ url: upstream.url, ...RULE, stream: { minRate: 1000, minRateWindowMs: 600 } });
  const [first] = await twins(rig, proxy, 1, get('/ai/x'));
  await first!.head();
  await whileNothing(300);
  const [second] = await twins(rig, proxy, 1, get('/ai/x'));
  for (const client of [first!, second!]) {
    if (client === second) await client.head();
    const { body, ending } = await client.rest();
    t.same([ending, body.length], ['clean', 4000]);
  }
  t.equal(upstream.requests.length, 1);
});

e2e(
  'the answer of a second attempt beside a slow first one is judged, kept alive and cut like any other',
  async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => {
      if (upstream.requests.length === 2) connection.send(chunkedHead(EVENTS));
    });
    const stream = { ...GUARD.stream, heartbeatMs: 60, errorEvent: true };
    const proxy = await rig.one({ url: upstream.url, hedge: { afterMs: 20 }, stream });
    const client = await rig.sent(proxy, '/ai/x');
    await client.head();
    const { body, ending } = await client.rest();
    t.equal(ending, 'fin');
    t.match(body.toString(), /^(: heartbeat\n\n){1,3}event: error\ndata: .*"code":"stream_too_slow".*\n\n$/);
    await proxy.idle();
    t.match(proxy.exchanges[0], { hedged: true, failure: 'stream_too_slow', bytes_out: body.length });
  },
);

// `stream.heartbeat`: a silent event stream is kept alive by comments, between events only, and nobody takes them for anything else.

import OpenAI from 'openai';
import { EventSource } from 'undici';
import { valuesOf } from '../support/raw-client.ts';
import { e2e } from '../support/rig.ts';
import { ask, COALESCE, get, landed, RULE, silent, twins } from '../support/twins.ts';
import { until, whileNothing } from '../support/until.ts';
import { chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

const BEAT = ': heartbeat\n\n';
const EVENTS = 'content-type: text/event-stream\r\n';
const SOON = { heartbeatMs: 60 };

const count = (text: string) => text.split(BEAT).length - 1;

e2e(
  'it comes after the head and between events, each time the client has heard nothing for so long',
  async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead(EVENTS)));
    const proxy = await rig.one({ url: upstream.url, stream: { heartbeatMs: 100 } });
    const client = await rig.sent(proxy, '/ai/x', { method: 'POST', body: '{}' });
    await client.head();
    let lastAt = performance.now();
    const beats = async (what: string) => {
      t.equal(String(await client.piece()), BEAT, what);
      const tookMs = performance.now() - lastAt;
      lastAt += tookMs;
      t.ok(tookMs > 85 && tookMs < 500, `${what}: after ${Math.round(tookMs)} ms`);
    };
    await beats('before the first event');
    await beats('and again');
    const { socket } = upstream.connections[0]!;
    await whileNothing(60);
    socket.write(chunk('data: 1\n\n'));
    t.equal(String(await client.piece()), 'data: 1\n\n');
    lastAt = performance.now();
    await beats('after an event');
    socket.write(chunk('data: 2\n\n') + LAST_CHUNK);
    const { body, ending } = await client.rest();
    t.same([body.toString(), ending], ['data: 2\n\n', 'clean']);
    await proxy.idle();
    t.match(proxy.exchanges[0], { bytes_out: 18 + 3 * BEAT.length, failure: null }, 'they are bytes the client got');
    t.equal(proxy.upstream().heartbeats, 3);
  },
);

e2e('within an event there is none, and after its end there is', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead(EVENTS)));
  const proxy = await rig.one({ url: upstream.url, stream: SOON });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  const { socket } = await upstream.connection(0);
  for (const part of ['data: half', ' and half', '\n']) {
    socket.write(chunk(part));
    let piece = String(await client.piece());
    while (piece === BEAT) piece = String(await client.piece()); // before it
    t.equal(piece, part);
    const had = client.text;
    await whileNothing(200);
    t.equal(client.text, had, `nothing after ${JSON.stringify(part)}`);
  }
  socket.write(chunk('\n'));
  t.equal(String(await client.piece()), '\n');
  t.equal(String(await client.piece()), BEAT);
});

const ANSWERS: [head: string, beats: boolean][] = [
  [chunkedHead(EVENTS), true],
  [chunkedHead('Content-Type: Text/Event-Stream; charset=utf-8\r\n'), true],
  [chunkedHead('content-type:  text/event-stream ;x\r\nContent-Encoding: Identity\r\n'), true],
  [`HTTP/1.1 200 OK\r\n${EVENTS}\r\n`, true],
  [chunkedHead(EVENTS, '429 Too Many Requests'), true],
  [chunkedHead(), false],
  [chunkedHead('content-type: application/json\r\n'), false],
  [chunkedHead('content-type: text/event-streams\r\n'), false],
  [chunkedHead('content-type: text/event\r\n'), false],
  [chunkedHead('content-type: application/x-ndjson; like=text/event-stream\r\n'), false],
  [chunkedHead(`${EVENTS}Content-Encoding: gzip\r\n`), false],
  [chunkedHead(`${EVENTS}content-encoding: br\r\n`), false],
  [chunkedHead(`${EVENTS}Content-Digest: sha-256=:AAAA:\r\n`), false],
  [`HTTP/1.1 200 OK\r\n${EVENTS}Content-Length: 100\r\n\r\n`, false],
  [chunkedHead(EVENTS, '206 Partial Content'), false],
];

e2e('only an event stream has any, whose bytes are its text and whose length is not declared', async (t, rig) => {
  const upstream = await rig.upstream(({ target }, connection) =>
    connection.send(ANSWERS[Number(target.slice(1))]![0]),
  );
  const proxy = await rig.one({ url: upstream.url, stream: SOON });
  const clients = await Promise.all(ANSWERS.map((_, i) => rig.sent(proxy, `/ai/${i}`)));
  for (const client of clients) await client.head();
  await until('those that get some have some', () =>
    clients.every((client, i) => !ANSWERS[i]![1] || count(client.text) > 2),
  );
  for (const [i, [head, beats]] of ANSWERS.entries()) t.equal(count(clients[i]!.text) > 0, beats, head);
});

e2e('HEAD, 204 and 304 have none, and the connection stays good', async (t, rig) => {
  const upstream = await rig.upstream(({ target }, connection) => {
    const status = target === '/204' ? '204 No Content' : target === '/304' ? '304 Not Modified' : '200 OK';
    connection.send(`HTTP/1.1 ${status}\r\n${EVENTS}\r\n`);
  });
  const proxy = await rig.one({ url: upstream.url, stream: { heartbeatMs: 20 } });
  const client = await rig.client(proxy);
  for (const line of ['HEAD /ai/x', 'GET /ai/204', 'GET /ai/304']) {
    client.send(`${line} HTTP/1.1\r\nhost: a\r\n\r\n`);
    await client.answer(line.startsWith('HEAD'));
    const had = client.text;
    await whileNothing(80);
    t.equal(client.text, had, line);
  }
});

e2e('a bypass path has none, and without `heartbeat` there is none', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead(EVENTS)));
  const beating = await rig.one({ url: upstream.url, stream: { heartbeatMs: 20 }, bypass: ['/events'] });
  const quiet = await rig.one({ url: upstream.url, stream: { errorEvent: true } });
  const clients = [await rig.sent(beating, '/ai/events'), await rig.sent(quiet, '/ai/x')];
  for (const client of clients) await client.head();
  await whileNothing(150);
  for (const client of clients) t.equal(count(client.text), 0);
});

for (const [name, timeouts, failure] of [
  ['idle', { idleMs: 250 }, 'idle_timeout'],
  ['first_event', { firstEventMs: 250 }, 'first_event_timeout'],
] as const) {
  e2e(`it does not put the ${name} deadline off`, async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead(EVENTS)));
    const proxy = await rig.one({ url: upstream.url, stream: { heartbeatMs: 50 }, timeouts });
    const startedAt = performance.now();
    const client = await rig.sent(proxy, '/ai/x');
    await client.head();
    const { body, ending } = await client.rest();
    const tookMs = performance.now() - startedAt;
    t.equal(ending, 'reset');
    t.ok(tookMs > 240 && tookMs < 1000, `cut after ${Math.round(tookMs)} ms`);
    t.ok(count(body.toString()) >= 2, 'there were some up to then');
    await proxy.idle();
    t.same(proxy.upstream().failures, { [failure]: 1 });
    await until('the upstream is told', () => upstream.connections[0]!.left);
  });
}

e2e('a client that has bytes to read gets none on top', async (t, rig) => {
  const event = `data: ${'x'.repeat(65_000)}\n\n`;
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(chunkedHead(EVENTS));
    while (connection.socket.write(chunk(event)));
    for (let i = 0; i < 300; i++) connection.send(chunk(event));
  });
  const proxy = await rig.one({ url: upstream.url, stream: SOON });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  client.pause();
  const { socket } = upstream.connections[0]!;
  let last = -1;
  await until('the upstream is paused', () => socket.writableLength > 0 && last === (last = socket.writableLength));
  await whileNothing(600);
  t.ok(socket.writableLength > 0);
  socket.write(LAST_CHUNK);
  client.resume();
  const { body, ending } = await client.rest();
  t.equal(ending, 'clean');
  t.equal(body.toString().replaceAll(BEAT, '').replaceAll(event, ''), '', 'every event is whole');
  t.ok(count(body.toString()) <= 1, `${count(body.toString())} while it did not read for ten times as long`);
});

e2e('those who share a fetch get them each, and what is stored has none', async (t, rig) => {
  for (const config of [RULE, COALESCE]) {
    const upstream = await rig.upstream(silent);
    const proxy = await rig.one({ url: upstream.url, ...config, stream: SOON });
    const clients = await twins(rig, proxy, 3, get('/ai/x'));
    const { connection } = await upstream.request(0);
    connection.send(chunkedHead(EVENTS));
    for (const client of clients) await client.head();
    for (const client of clients) t.equal(String(await client.piece()), BEAT);
    connection.send(chunk('data: 1\n\n'));
    await until('the event and another heartbeat', () =>
      clients.every(({ text }) => text.lastIndexOf(BEAT) > text.indexOf('data: 1')),
    );
    connection.send(chunk('data: 2\n\n') + LAST_CHUNK);
    for (const client of clients) {
      const { body, ending } = await client.rest();
      t.same([body.toString().replaceAll(BEAT, ''), ending], ['data: 1\n\ndata: 2\n\n', 'clean']);
    }
    t.equal(upstream.requests.length, 1);
    await landed(proxy);
    if (config !== RULE) continue;
    const got = await ask(rig, proxy, get('/ai/x'));
    t.match(got.get('cache-status'), /hit/);
    t.equal(got.body.toString(), 'data: 1\n\ndata: 2\n\n');
  }
});

e2e('a stored stream that is sent again as it came has them in its pauses', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    connection.send(chunkedHead(EVENTS) + chunk('data: 1\n\n'));
    await whileNothing(350);
    connection.send(chunk('data: 2\n\n') + LAST_CHUNK);
  });
  const rules = [{ ttlMs: 60_000, pace: 'recorded' as const }];
  const proxy = await rig.one({ url: upstream.url, cache: { rules }, stream: SOON });
  await rig.ask(proxy, '/ai/x');
  const got = await rig.ask(proxy, '/ai/x');
  t.match(got.get('cache-status'), /hit/);
  t.match(got.body.toString(), /^data: 1\n\n(: heartbeat\n\n){2,6}data: 2\n\n$/);
});

e2e('an HTTP/1.0 client has them as they are', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead(EVENTS)));
  const proxy = await rig.one({ url: upstream.url, stream: SOON });
  const client = await rig.client(proxy);
  client.send('GET /ai/x HTTP/1.0\r\n\r\n');
  t.same(valuesOf(await client.head(), 'transfer-encoding'), []);
  t.equal(String(await client.piece()), BEAT);
  t.equal(String(await client.piece()), BEAT);
  (await upstream.connection(0)).send(LAST_CHUNK);
  t.equal((await client.rest()).ending, 'clean');
});

e2e('a byte order mark passes at the start, and is left out behind a heartbeat', async (t, rig) => {
  const text = '\xef\xbb\xbfdata: 1\n\n';
  const upstream = await rig.upstream(async ({ target }, connection) => {
    connection.send(chunkedHead(EVENTS));
    if (target === '/late') await whileNothing(150);
    connection.send(`c\r\n${text}\r\n${LAST_CHUNK}`);
  });
  const proxy = await rig.one({ url: upstream.url, stream: SOON });
  const late = await rig.ask(proxy, '/ai/late');
  t.match(late.body.toString('latin1'), /^(: heartbeat\n\n)+data: 1\n\n$/);
  t.equal((await rig.ask(proxy, '/ai/early')).body.toString('latin1'), text);
});

e2e('a client that leaves takes them along', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead(EVENTS)));
  const proxy = await rig.one({ url: upstream.url, stream: { heartbeatMs: 20 } });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  t.equal(String(await client.piece()), BEAT);
  client.reset();
  await until('the upstream is told', () => upstream.connections[0]!.left);
  await proxy.idle();
  t.match(proxy.exchanges[0], { failure: 'client_gone' });
});

e2e('the openai SDK reads over them', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    connection.send(chunkedHead(EVENTS));
    for (const content of ['Hel', 'lo']) {
      await whileNothing(150);
      connection.send(chunk(`data: {"choices":[{"index":0,"delta":{"content":"${content}"}}]}\n\n`));
    }
    await whileNothing(150);
    connection.send(chunk('data: [DONE]\n\n') + LAST_CHUNK);
  });
  const listener = { keepAliveTimeoutMs: 1000 };
  const proxy = await rig.one({ url: upstream.url, stream: { heartbeatMs: 40 } }, { listener });
  const openai = new OpenAI({ apiKey: 'sk-test', baseURL: `${proxy.url}/ai/v1` });
  const messages = [{ role: 'user' as const, content: 'Hello?' }];
  const parts: string[] = [];
  for await (const part of await openai.chat.completions.create({ model: 'gpt', messages, stream: true }))
    parts.push(part.choices[0]!.delta.content!);
  t.same(parts, ['Hel', 'lo']);
  await proxy.idle();
  t.ok((proxy.exchanges[0]!.bytes_out as number) > 5 * BEAT.length, 'there were some');
});

e2e('an EventSource, as browsers have it, reads over them', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    connection.send(chunkedHead(EVENTS));
    for (const line of ['data: 1\r\n\r\n', 'event: named\rdata: 2\rid: 7\r\r', 'data: 3\n\n']) {
      await whileNothing(120);
      connection.send(chunk(line));
    }
  });
  const listener = { keepAliveTimeoutMs: 1000 };
  const proxy = await rig.one({ url: upstream.url, stream: { heartbeatMs: 30 } }, { listener });
  const source = new EventSource(`${proxy.url}/ai/x`);
  const got: string[] = [];
  const note = ({ type, data, lastEventId }: MessageEvent) => got.push(`${type} ${data} ${lastEventId}`);
  source.addEventListener('message', note as never);
  source.addEventListener('named', note as never);
  await until('all events', () => got.length === 3);
  source.close();
  t.same(got, ['message 1 ', 'named 2 7', 'message 3 7']);
  await proxy.idle();
  t.ok((proxy.exchanges[0]!.bytes_out as number) > 50 + 3 * BEAT.length, 'there were some');
});

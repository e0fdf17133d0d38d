// `stream.error_event`: an event stream that is cut between two events says why before its connection ends; it never looks complete.

import OpenAI from 'openai';
import type { TimeoutsConfig } from '../../src/config/schema.ts';
import type { RawClient } from '../support/raw-client.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { COALESCE, get, RULE, silent, twins } from '../support/twins.ts';
import { until, whileNothing } from '../support/until.ts';
import { chunk, chunkedHead, LAST_CHUNK, type RawUpstream, type UpstreamConnection } from '../support/upstream.ts';

const EVENTS = 'content-type: text/event-stream\r\n';
const ON = { stream: { errorEvent: true } };
const EVENT = 'data: 1\n\n';

/** The last event of what a client got. */
function lastWord(body: string): { code: string; message: string; type: string; param: unknown } {
  const match = /(?:^|\n\n)event: error\ndata: (.+)\n\n$/.exec(body);
  if (!match) throw new Error(`no error event: ${JSON.stringify(body.slice(-300))}`);
  return JSON.parse(match[1]!).error;
}

/** How its connection ended, without the end of the answer. */
async function cutShort(client: RawClient) {
  const { body, ending } = await client.rest();
  return { body: body.toString(), ending, hasEnd: /\r\n0\r\n/.test(client.text) };
}

const CUTS: Record<string, (connection: UpstreamConnection) => void> = {
  FIN: (connection) => connection.end(),
  RST: (connection) => connection.resetAndDestroy(),
  'bytes that are no chunk': (connection) => connection.send('nonsense\r\n'),
};

for (const [how, cut] of Object.entries(CUTS)) {
  e2e(
    `an upstream's cut (${how}) is told in an event of its own, and the connection ends without a last chunk`,
    async (t, rig) => {
      const upstream = await rig.upstream((_request, connection) =>
        connection.send(chunkedHead(EVENTS) + chunk(EVENT)),
      );
      const proxy = await rig.one({ url: upstream.url, ...ON });
      const client = await rig.sent(proxy, '/ai/x', { method: 'POST', body: '{}' });
      t.equal((await client.head()).status, 200);
      t.equal(String(await client.piece()), EVENT);
      cut(upstream.connections[0]!);
      const { body, ending, hasEnd } = await cutShort(client);
      t.same([ending, hasEnd], ['fin', false]);
      const error = lastWord(body);
      t.match(error, { type: 'aiproxy_error', param: null, message: /^The upstream / });
      t.equal(error.code, how === 'bytes that are no chunk' ? 'upstream_protocol_error' : 'upstream_cut');
      await proxy.idle();
      const [line] = proxy.exchanges;
      t.match(line, { status: 200, failure: error.code, bytes_out: EVENT.length + body.length });
    },
  );
}

const DEADLINES: [code: string, timeouts: Partial<TimeoutsConfig>, headers: string][] = [
  ['idle_timeout', { idleMs: 100 }, ''],
  ['first_event_timeout', { firstEventMs: 100 }, ''],
  ['total_timeout', { totalMs: 100 }, ''],
  ['deadline_exceeded', {}, 'x-aiproxy-deadline-ms: 100\r\n'],
];

for (const [code, timeouts, headers] of DEADLINES) {
  e2e(`so is ${code}, also when nothing but filler has come`, async (t, rig) => {
    const upstream = await rig.upstream(({ target }, connection) => {
      connection.send(chunkedHead(EVENTS));
      if (target === '/filler') connection.send(chunk(': keep-alive\n\n'));
    });
    const proxy = await rig.one({ url: upstream.url, ...ON, timeouts });
    for (const path of ['nothing', 'filler']) {
      const client = await rig.sent(proxy, `/ai/${path}`, { headers });
      await client.head();
      const { body, ending, hasEnd } = await cutShort(client);
      t.same([ending, hasEnd, lastWord(body).code], ['fin', false, code]);
    }
    await until('the upstream is told', () => upstream.connections.every(({ left }) => left));
  });
}

e2e('so is the end of the process', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead(EVENTS) + chunk(EVENT)));
  const proxy = await rig.one({ url: upstream.url, ...ON }, { drain: { timeoutMs: 50 } });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  await client.piece();
  const drained = proxy.assembly.drain.start();
  const { body, ending } = await cutShort(client);
  t.same([ending, lastWord(body).code], ['fin', 'draining']);
  client.destroy();
  t.equal(await drained, 1);
});

const NOT_TOLD: [what: string, head: string, start: string, on: boolean][] = [
  ['within an event, which must not be made whole', chunkedHead(EVENTS), 'data: half', true],
  ['within an event of several lines', chunkedHead(EVENTS), 'data: 1\n\ndata: half\n', true],
  ['in an answer that is no event stream', chunkedHead('content-type: application/x-ndjson\r\n'), '{}\n\n', true],
  ['in one that is compressed', chunkedHead(`${EVENTS}content-encoding: gzip\r\n`), '\x1f\x8b\n\n', true],
  ['where `error_event` is not set', chunkedHead(EVENTS), EVENT, false],
];

for (const [what, head, start, errorEvent] of NOT_TOLD) {
  e2e(`${what} a cut is a reset, and nothing is added`, async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => connection.send(head + chunk(start)));
    const proxy = await rig.one({ url: upstream.url, stream: { errorEvent, heartbeatMs: 60_000 } });
    const client = await rig.sent(proxy, '/ai/x');
    await client.head();
    await client.piece();
    upstream.connections[0]!.end();
    const { body, ending } = await cutShort(client);
    t.same([body, ending], ['', 'reset']);
  });
}

e2e('an answer of declared length is cut as it is', async (t, rig) => {
  const head = `HTTP/1.1 200 OK\r\n${EVENTS}content-length: 1000\r\n\r\n`;
  const upstream = await rig.upstream((_request, connection) => connection.send(head + EVENT));
  const proxy = await rig.one({ url: upstream.url, ...ON });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  t.equal(String(await client.piece()), EVENT);
  upstream.connections[0]!.end();
  t.equal((await client.rest()).ending, 'reset');
  t.notMatch(client.text, 'event: error');
});

e2e('an HTTP/1.0 client sees the reset alone: behind an event a FIN would look like the end', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead(EVENTS) + chunk(EVENT)));
  const proxy = await rig.one({ url: upstream.url, ...ON });
  const client = await rig.client(proxy);
  client.send('GET /ai/x HTTP/1.0\r\n\r\n');
  await client.head();
  t.equal(String(await client.piece()), EVENT);
  upstream.connections[0]!.end();
  const { body, ending } = await client.rest();
  t.same([body.toString(), ending], ['', 'reset']);
});

e2e('a stream that ends well has none', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(chunkedHead(EVENTS) + chunk(EVENT) + LAST_CHUNK);
  });
  const proxy = await rig.one({ url: upstream.url, ...ON });
  const got = await rig.ask(proxy, '/ai/x');
  t.same([got.body.toString(), got.ending], [EVENT, 'clean']);
});

/** Sends blank lines, after each of which one is between two events, until the client's side is full. */
async function blankLines(rig: Rig, timeouts: Partial<TimeoutsConfig>) {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(chunkedHead(EVENTS));
    for (let i = 0; i < 400; i++) connection.send(chunk('\n'.repeat(65_536)));
  });
  const proxy = await rig.one({ url: upstream.url, ...ON, timeouts });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  client.pause();
  return { proxy, client };
}

e2e('what waits for a slow reader leaves before it', async (t, rig) => {
  const { proxy, client } = await blankLines(rig, { totalMs: 500 });
  await until('it is cut', () => proxy.upstream().failures.total_timeout === 1);
  client.resume();
  const { body, ending, hasEnd } = await cutShort(client);
  t.same([ending, hasEnd, lastWord(body).code], ['fin', false, 'total_timeout']);
  const before = body.lastIndexOf('event: error');
  t.equal(body.slice(0, before).trim(), '');
  t.equal(proxy.exchanges[0]!.bytes_out, body.length, 'all of it came');
});

e2e('a client that takes nothing is not told, and not waited for', async (t, rig) => {
  const { proxy, client } = await blankLines(rig, { writeStallMs: 200 });
  await until('it is given up', () => proxy.upstream().failures.client_stalled === 1);
  await until('its connection too', () => proxy.stats().listener.connections === 0, 1000);
  client.resume();
  t.equal((await client.rest()).ending, 'reset');
});

async function sharedCut(rig: Rig, config: typeof RULE): Promise<{ clients: RawClient[]; upstream: RawUpstream }> {
  const upstream = await rig.upstream(silent);
  const proxy = await rig.one({ url: upstream.url, ...config, ...ON });
  const clients = await twins(rig, proxy, 3, get('/ai/x'));
  const { connection } = await upstream.request(0);
  connection.send(chunkedHead(EVENTS) + chunk(EVENT));
  for (const client of clients) {
    await client.head();
    await client.piece();
  }
  connection.end();
  return { clients, upstream };
}

e2e('each of those who share a fetch is told', async (t, rig) => {
  for (const config of [RULE, COALESCE]) {
    const { clients, upstream } = await sharedCut(rig, config);
    for (const client of clients) {
      const { body, ending, hasEnd } = await cutShort(client);
      t.same([ending, hasEnd, lastWord(body).code], ['fin', false, 'upstream_cut']);
    }
    t.equal(upstream.requests.length, 1);
  }
});

/** The parts of a streamed completion, and the error it ended with. */
async function stream(url: string): Promise<{ parts: string[]; error: unknown }> {
  const openai = new OpenAI({ apiKey: 'sk-test', baseURL: `${url}/ai/v1`, maxRetries: 3 });
  const messages = [{ role: 'user' as const, content: 'Hello?' }];
  const parts: string[] = [];
  try {
    for await (const part of await openai.chat.completions.create({ model: 'gpt', messages, stream: true }))
      parts.push(part.choices[0]!.delta.content!);
  } catch (error) {
    return { parts, error };
  }
  return { parts, error: null };
}

e2e(
  'the openai SDK makes an APIError of it, and without it a failed connection: never a complete answer',
  async (t, rig) => {
    const upstream = await rig.upstream(async (_request, connection) => {
      connection.send(chunkedHead(EVENTS));
      connection.send(chunk('data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'));
      await whileNothing(50);
      connection.end();
    });
    const listener = { keepAliveTimeoutMs: 1000 };
    const telling = await rig.one({ url: upstream.url, ...ON }, { listener });
    const told = await stream(telling.url);
    t.same(told.parts, ['Hi']);
    t.ok(told.error instanceof OpenAI.APIError);
    t.match(told.error, {
      code: 'upstream_cut',
      type: 'aiproxy_error',
      message: /closed the connection within its answer/,
    });
    const silent = await rig.one({ url: upstream.url }, { listener });
    const cut = await stream(silent.url);
    t.same(cut.parts, ['Hi']);
    t.ok(cut.error instanceof Error);
    t.notOk(cut.error instanceof OpenAI.APIError);
    t.equal(upstream.requests.length, 2, 'neither is sent again by the SDK');
  },
);

e2e('fetch gets the event, and then an error instead of the end', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    connection.send(chunkedHead(EVENTS) + chunk(EVENT));
    await whileNothing(30);
    connection.end();
  });
  const proxy = await rig.one({ url: upstream.url, ...ON }, { listener: { keepAliveTimeoutMs: 1000 } });
  const { body } = await fetch(`${proxy.url}/ai/x`);
  let text = '';
  await t.rejects(async () => {
    for await (const piece of body!) text += Buffer.from(piece).toString();
  }, TypeError);
  t.equal(lastWord(text).code, 'upstream_cut');
});

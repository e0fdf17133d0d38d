// WebSockets of the official OpenAI SDK, to servers of every kind: with TLS and a private CA, on a unix socket, several of them.

import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { makeCertificate } from '../../src/demo/certificate.ts';
import { SECRET } from '../support/proxy.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { until, within } from '../support/until.ts';
import { answer } from '../support/upstream.ts';
import {
  type Converse,
  goodbyeOf,
  message,
  OPENING,
  SWITCHED,
  socketClient,
  socketUpstream,
} from '../support/websocket.ts';

const websocket = { max: 10 };
const certificate = makeCertificate({ names: ['localhost', '127.0.0.1'] });
const tls = { cert: certificate.cert, key: certificate.key };

/** As far as OpenAI's Realtime API goes for a talk of one answer. */
const realtime: Converse = (socket, request) => {
  const say = (event: object) => socket.send(JSON.stringify({ event_id: 'event_1', ...event }));
  const model = new URL(request.url!, 'http://x').searchParams.get('model');
  say({ type: 'session.created', session: { type: 'realtime', model } });
  socket.on('message', (text) => {
    const event = JSON.parse(String(text)) as { type: string; item?: { content: { text: string }[] } };
    if (event.type !== 'conversation.item.create') return;
    for (const delta of event.item!.content[0]!.text.split(' ')) {
      say({
        type: 'response.output_text.delta',
        response_id: 'r',
        item_id: 'i',
        output_index: 0,
        content_index: 0,
        delta,
      });
    }
    say({ type: 'response.done', response: { id: 'r', status: 'completed' } });
  });
};

const address = { host: '127.0.0.1', port: 0, path: '', text: '127.0.0.1:0' };
const secure = { listen: [{ address, tls: { ...tls, clientCa: null }, authorize: [], upstream: null }] };

/** One talk of the SDK through the proxy, which it only ever does over TLS. @returns the deltas of the answer */
async function talk(port: number): Promise<{ deltas: string[]; model: unknown }> {
  const openai = new OpenAI({ apiKey: SECRET, baseURL: `https://localhost:${port}/ai/v1` });
  const client = new OpenAIRealtimeWS({ model: 'gpt-realtime', options: { ca: certificate.cert } }, openai);
  const deltas: string[] = [];
  let model: unknown;
  const done = new Promise<void>((resolve, reject) => {
    client.on('error', reject);
    client.on('session.created', (event) => {
      model = (event.session as { model?: string }).model;
      const content = [{ type: 'input_text' as const, text: 'to be said again' }];
      client.send({ type: 'conversation.item.create', item: { type: 'message', role: 'user', content } });
    });
    client.on('response.output_text.delta', (event) => deltas.push(event.delta));
    client.on('response.done', () => resolve());
  });
  await within('the talk', done);
  const ended = goodbyeOf(client.socket);
  client.close({ code: 1000, reason: 'OK' });
  await ended;
  return { deltas, model };
}

e2e('the realtime client of the official SDK talks through the proxy, with its key', async (t, rig) => {
  const upstream = await socketUpstream(rig, realtime);
  const proxy = await rig.one({ url: upstream.url, websocket }, secure);
  t.same(await talk(proxy.listen[1]!.port), { deltas: ['to', 'be', 'said', 'again'], model: 'gpt-realtime' });
  const { url, headers } = upstream.requests[0]!;
  t.equal(url, '/v1/realtime?model=gpt-realtime');
  t.equal(headers.authorization, `Bearer ${SECRET}`);
  t.equal(headers.host, `127.0.0.1:${upstream.port}`);
  await proxy.idle();
  t.match(proxy.exchanges, [{ path: '/v1/realtime', status: 101, failure: null, close_code: 1000 }]);
});

e2e('over TLS with a private CA, on both sides', async (t, rig) => {
  // It would rather speak HTTP/2, which has no Upgrade: that must not be offered here.
  const upstream = await socketUpstream(rig, realtime, { tls: { ...tls, ALPNProtocols: ['h2', 'http/1.1'] } });
  const proxy = await rig.one(
    { url: `https://localhost:${upstream.port}`, websocket, tls: { ca: certificate.cert }, http2: { maxStreams: 10 } },
    secure,
  );
  t.same((await talk(proxy.listen[1]!.port)).deltas, ['to', 'be', 'said', 'again']);
  t.equal((upstream.requests[0]!.socket as TLSSocket).alpnProtocol, 'http/1.1');
  const closer = await socketClient(`https://localhost:${proxy.listen[1]!.port}/ai/`, { ca: certificate.cert });
  closer.close(4000, 'done');
  t.same(await goodbyeOf(closer), { code: 4000, reason: 'done' });
  const cut = await socketClient(`https://localhost:${proxy.listen[1]!.port}/ai/`, { ca: certificate.cert });
  const ended = goodbyeOf(upstream.sockets[2]!);
  cut.terminate();
  t.equal((await ended).code, 1006);
  await proxy.idle();
  t.same(
    proxy.exchanges.map(({ failure, close_code }) => [failure, close_code]),
    [
      [null, 1000],
      [null, 4000],
      ['client_gone', null],
    ],
  );
});

e2e('a certificate that nobody vouches for is tls_failed', async (t, rig) => {
  const upstream = await socketUpstream(rig, realtime, { tls });
  const proxy = await rig.one({ url: `https://localhost:${upstream.port}`, websocket });
  const got = await rig.ask(proxy, '/ai/x', { headers: OPENING });
  t.match(got, { status: 502, code: 'tls_failed' });
  t.equal(got.get('x-should-retry'), undefined, 'nothing was sent');
  t.equal(upstream.requests.length, 0);
});

e2e('an upstream on a unix socket', async (t, rig) => {
  const folder = mkdtempSync(join(tmpdir(), 'aiproxy-ws-'));
  const path = join(folder, 's');
  rig.closes({ close: async () => rmSync(folder, { recursive: true }) });
  const upstream = await socketUpstream(rig, undefined, { path });
  const proxy = await rig.one({ url: `unix:${path}`, websocket });
  const client = await socketClient(`${proxy.url}/ai/v1/x`);
  client.send('over a unix socket');
  t.equal((await message(client)).bytes.toString(), 'over a unix socket');
  t.match(upstream.requests[0], { url: '/v1/x', headers: { host: 'localhost' } });
  client.close();
  await goodbyeOf(client);
});

/** A port where nobody listens. */
async function deadPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

e2e(
  'without a connection there is a clear answer; with another server that takes one, there is that',
  async (t, rig) => {
    const dead = `http://127.0.0.1:${await deadPort()}`;
    const upstream = await rig.upstream((_request, connection) => connection.send(SWITCHED), { allowHalfOpen: false });
    const proxy = await rig.proxy({
      upstreams: {
        ai: { url: dead, websocket, breaker: { consecutiveFailures: 2 } },
        nowhere: { url: 'http://no-such-name.invalid', websocket },
        two: { targets: [{ url: dead }, { url: upstream.url, priority: 1 }], websocket },
      },
    });
    const failed = await rig.ask(proxy, '/ai/x', { headers: OPENING });
    t.match(failed, { status: 502, code: 'connect_failed' });
    t.equal(failed.get('x-should-retry'), undefined);
    t.match(await rig.ask(proxy, '/nowhere/x', { headers: OPENING }), { status: 502, code: 'dns_failed' });
    const second = await rig.sent(proxy, '/two/x', { headers: OPENING });
    t.equal((await second.head()).status, 101);
    t.match(proxy.upstream('two').targets, [
      { attempts: 1, failures: 1, in_flight: 0 },
      { attempts: 1, successes: 1, in_flight: 1 },
    ]);
    t.equal(proxy.upstream('two').retries, 1);
    await rig.ask(proxy, '/ai/x', { headers: OPENING });
    const open = await rig.ask(proxy, '/ai/x', { headers: OPENING });
    t.match(open, { status: 503, code: 'breaker_open' });
    t.ok(Number(open.get('retry-after')) >= 1);
    second.destroy();
    await proxy.idle();
    t.match(proxy.exchanges.at(-1), { upstream: 'two', target: upstream.url, attempts: 2, status: 101 });
  },
);

e2e('a connection that does not come is connect_timeout', async (t, rig) => {
  // TLS to a server that never says a word of it.
  const silent = await rig.upstream(() => {});
  const proxy = await rig.one({
    url: silent.url.replace('http:', 'https:'),
    websocket,
    timeouts: { connectMs: 100 },
  });
  t.match(await rig.ask(proxy, '/ai/x', { headers: OPENING }), { status: 504, code: 'connect_timeout' });
  const leaver = await rig.sent(proxy, '/ai/x', { headers: OPENING });
  await silent.connection(1);
  leaver.reset();
  await until('the dial is given up', () => silent.connections[1]!.left, 500);
});

e2e('long tunnels count as load: what comes next goes to the server that carries fewer', async (t, rig) => {
  const script: Parameters<Rig['upstream']>[0] = (request, connection) =>
    connection.send(request.get('upgrade') ? SWITCHED : answer());
  const [a, b] = [
    await rig.upstream(script, { allowHalfOpen: false }),
    await rig.upstream(script, { allowHalfOpen: false }),
  ];
  const proxy = await rig.one({ targets: [{ url: a.url }, { url: b.url }], websocket });
  const clients = [];
  for (let i = 0; i < 4; i++) {
    const client = await rig.sent(proxy, '/ai/x', { headers: OPENING });
    t.equal((await client.head()).status, 101);
    clients.push(client);
  }
  t.match(proxy.upstream().targets, [{ in_flight: 2 }, { in_flight: 2 }]);
});

// WebSockets through the proxy, with the ws package on both sides: what one says, the other hears, whatever it is.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { WebSocket } from 'ws';
import { e2e } from '../support/rig.ts';
import { until, within } from '../support/until.ts';
import { goodbyeOf, message, OPENING, socketClient, socketUpstream } from '../support/websocket.ts';

const websocket = { max: 1000 };

e2e('text and binary messages pass both ways as they are', async (t, rig) => {
  const upstream = await socketUpstream(rig);
  const proxy = await rig.one({ url: upstream.url, websocket });
  const client = await socketClient(`${proxy.url}/ai/v1/talk?x=%20y`);
  for (const text of ['hello', '', 'æøå \u{1f600}', 'x'.repeat(125), 'x'.repeat(126), 'x'.repeat(70_000)]) {
    client.send(text);
    const heard = await message(client);
    t.ok(!heard.isBinary && heard.bytes.toString() === text, `${text.length} characters`);
  }
  client.send(Buffer.from([0, 255, 10, 13]));
  t.same(await message(client), { bytes: Buffer.from([0, 255, 10, 13]), isBinary: true });
  t.equal(upstream.requests[0]!.url, '/v1/talk?x=%20y');
  t.match(proxy.upstream(), { in_flight: 1, websocket: { open: 1, opened: 1, messages_in: 7, messages_out: 7 } });
  client.close(1000, 'done');
  t.same(await goodbyeOf(client), { code: 1000, reason: 'done' });
  await proxy.idle();
  t.match(proxy.exchanges, [
    {
      upstream: 'ai',
      method: 'GET',
      path: '/v1/talk',
      status: 101,
      failure: null,
      close_code: 1000,
      attempts: 1,
      reused: false,
      queue_ms: null,
    },
  ]);
  const { websocket: counts, bytes_in, bytes_out, status } = proxy.upstream();
  t.match(counts, { open: 0, closed_by_code: { 1000: 1 }, bytes_in, bytes_out });
  t.ok(bytes_in > 70_000 && bytes_out > 70_000);
  t.same(status, { 101: 1 });
});

e2e('one of 1 MB and one of 16 MB pass both ways', async (t, rig) => {
  const upstream = await socketUpstream(rig);
  const proxy = await rig.one({ url: upstream.url, websocket });
  const client = await socketClient(`${proxy.url}/ai/big`, { perMessageDeflate: false });
  for (const size of [1 << 20, 16 << 20]) {
    const sent = randomBytes(size);
    client.send(sent);
    const { bytes } = await message(client);
    t.ok(bytes.equals(sent), `${size} bytes`);
  }
  client.close();
  await goodbyeOf(client);
});

e2e('pings and pongs pass both ways', async (t, rig) => {
  const upstream = await socketUpstream(rig);
  const proxy = await rig.one({ url: upstream.url, websocket });
  const client = await socketClient(`${proxy.url}/ai/`);
  const server = upstream.sockets[0]!;
  const pinged = once(server, 'ping');
  client.ping('are you there');
  t.equal(String((await within('a pong', once(client, 'pong')))[0]), 'are you there');
  t.equal(String((await pinged)[0]), 'are you there');
  server.ping('and you');
  t.equal(String((await within('a pong', once(server, 'pong')))[0]), 'and you');
  t.match(proxy.upstream().websocket, { messages_in: 0, messages_out: 0 });
  client.close();
  await goodbyeOf(client);
});

const ends: readonly [who: 'client' | 'upstream', code: number, reason: string][] = [
  ['client', 1000, ''],
  ['client', 1008, 'policy'],
  ['client', 4000, 'our own æ'],
  ['upstream', 1000, 'bye'],
  ['upstream', 1008, ''],
  ['upstream', 4000, 'x'.repeat(123)],
];
e2e('whoever closes, the other hears the code and the reason', async (t, rig) => {
  const upstream = await socketUpstream(rig);
  const proxy = await rig.one({ url: upstream.url, websocket });
  for (const [i, [who, code, reason]] of ends.entries()) {
    const client = await socketClient(`${proxy.url}/ai/`);
    const server = await until('the upstream has it, too', () => upstream.sockets[i]);
    const [heard, said] = [
      goodbyeOf(who === 'client' ? server : client),
      goodbyeOf(who === 'client' ? client : server),
    ];
    (who === 'client' ? client : server).close(code, reason);
    t.same(await heard, { code, reason });
    t.equal((await said).code, code);
  }
  await proxy.idle();
  t.same(
    proxy.exchanges.map(({ close_code, failure, status }) => [close_code, failure, status]),
    ends.map(([, code]) => [code, null, 101]),
  );
  t.same(proxy.upstream().websocket!.closed_by_code, { 1000: 2, 1008: 2, 4000: 2 });
});

e2e('compression is between the two ends', async (t, rig) => {
  const upstream = await socketUpstream(rig, undefined, { ws: { perMessageDeflate: { threshold: 0 } } });
  const proxy = await rig.one({ url: upstream.url, websocket });
  const client = await socketClient(`${proxy.url}/ai/`, { perMessageDeflate: { threshold: 0 } });
  t.match(client.extensions, /permessage-deflate/);
  const text = 'again and again '.repeat(10_000);
  client.send(text);
  t.equal((await message(client)).bytes.toString(), text);
  client.close();
  await goodbyeOf(client);
  await proxy.idle();
  t.ok(proxy.upstream().bytes_in < text.length / 10, 'it was compressed');
});

e2e('a subprotocol is agreed on by the two ends', async (t, rig) => {
  const upstream = await socketUpstream(rig, undefined, {
    ws: { handleProtocols: (offered) => (offered.has('realtime') ? 'realtime' : false) },
  });
  const proxy = await rig.one({ url: upstream.url, websocket });
  const client = await socketClient(`${proxy.url}/ai/`, {}, ['other', 'realtime']);
  t.equal(client.protocol, 'realtime');
  client.close();
  await goodbyeOf(client);
});

e2e('a message in fragments arrives in fragments, and other frames between them', async (t, rig) => {
  const upstream = await socketUpstream(rig);
  const proxy = await rig.one({ url: upstream.url, websocket });
  const client = await socketClient(`${proxy.url}/ai/`);
  const pinged = once(upstream.sockets[0]!, 'ping');
  client.send('one ', { fin: false });
  client.ping('between');
  client.send('two ', { fin: false });
  client.send('three', { fin: true });
  t.equal((await message(client)).bytes.toString(), 'one two three');
  await pinged;
  t.equal(proxy.upstream().websocket!.messages_in, 1);
  client.close();
  await goodbyeOf(client);
});

e2e('two hundred at once, each with its own talk', async (t, rig) => {
  t.setTimeout(60_000);
  const upstream = await socketUpstream(rig);
  const proxy = await rig.one(
    { url: upstream.url, websocket, limiter: 'gate' },
    { limiters: { gate: { maxConcurrent: 1 } } },
  );
  const clients = await Promise.all(Array.from({ length: 200 }, () => socketClient(`${proxy.url}/ai/`)));
  t.match(proxy.upstream(), { websocket: { open: 200 }, in_flight: 200, pool: { active: 0, opened: 0 } });
  t.match(proxy.upstream().targets, [{ in_flight: 200 }]);
  t.equal(proxy.limiter('gate').granted, 0, 'none of them asks the limiter');
  const talk = async (client: WebSocket, i: number) => {
    for (let round = 0; round < 5; round++) {
      client.send(`${i} ${round}`);
      if ((await message(client)).bytes.toString() !== `${i} ${round}`) throw new Error('not mine');
    }
    client.close();
    return (await goodbyeOf(client)).code;
  };
  t.same(new Set(await Promise.all(clients.map(talk))), new Set([1005]));
  await proxy.idle();
  t.match(proxy.upstream().websocket, { open: 0, opened: 200, messages_in: 1000, messages_out: 1000 });
  t.match(proxy.exchanges[0], { close_code: 1005, failure: null });
});

e2e('a process short of memory refuses new ones, and leaves those there are alone', async (t, rig) => {
  const upstream = await socketUpstream(rig);
  const proxy = await rig.one({ url: upstream.url, websocket }, { overload: { memoryBytes: 1 } });
  const client = await socketClient(`${proxy.url}/ai/`);
  await until('overload', () => proxy.stats().overload!.level === 3);
  client.send('still here');
  t.equal((await message(client)).bytes.toString(), 'still here');
  t.equal((await rig.ask(proxy, '/ai/', { headers: OPENING })).code, 'overloaded');
  client.close();
  await goodbyeOf(client);
});

// max_connections of a listener: who makes room for whom, and that nobody keeps good clients out by holding connections.

import { connect, type Socket } from 'node:net';
import { anyPort, clientTls, doorOf, enter, KINDS, listenOn, serverTls } from '../support/doors.ts';
import type { TestProxy } from '../support/proxy.ts';
import type { RawClient } from '../support/raw-client.ts';
import { e2e, type Rig, requestText } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

const open = (proxy: TestProxy) => proxy.stats().listener.connections;

async function served(client: RawClient, path = '/ai/x'): Promise<number> {
  client.send(requestText(path));
  return (await client.answer()).status;
}

for (const kind of KINDS) {
  e2e(`${kind}: when all connections are taken, the one idle for longest makes room`, async (t, rig) => {
    const upstream = await rig.upstream();
    const proxy = await rig.one(
      { url: upstream.url },
      { listen: [doorOf(kind, rig)], listener: { maxConnections: 3 } },
    );
    const clients: RawClient[] = [];
    for (let i = 0; i < 3; i++) {
      clients.push(await enter(rig, proxy, kind));
      await until('it is counted', () => open(proxy) === i + 1);
    }
    const [first, second, third] = clients as [RawClient, RawClient, RawClient];
    // In the order in which they were last busy: the third (never), the second, the first.
    t.equal(await served(second), 200);
    t.equal(await served(first), 200);
    await until('given back', () => proxy.upstream().in_flight === 0);
    const fourth = await enter(rig, proxy, kind);
    t.equal(await third.ended(), 'fin');
    const fifth = await enter(rig, proxy, kind);
    t.equal(await second.ended(), 'fin');
    for (const client of [first, fourth, fifth]) t.equal(await served(client), 200);
    await until('three are left', () => open(proxy) === 3);
    t.match(proxy.stats().listener, { connections_dropped: 2, connections_refused: 0 });
  });

  e2e(`${kind}: when all are busy the newcomer is turned away, and no running request is lost`, async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead() + chunk('one')));
    const proxy = await rig.one(
      { url: upstream.url },
      { listen: [doorOf(kind, rig)], listener: { maxConnections: 2 } },
    );
    const busy = [await enter(rig, proxy, kind), await enter(rig, proxy, kind)];
    for (const client of busy) {
      client.send(requestText('/ai/x'));
      await client.head();
      t.equal(String(await client.piece()), 'one');
    }
    const turnedAway = await enter(rig, proxy, kind).catch(() => null);
    await turnedAway?.ended();
    t.equal(turnedAway?.text ?? '', '');
    t.match(proxy.stats().listener, { connections: 2, connections_refused: 1, connections_dropped: 0 });
    upstream.requests[0]!.connection.send(LAST_CHUNK);
    await Promise.race(busy.map((client) => client.rest()));
    await until('one is idle again', () => proxy.upstream().in_flight === 1);
    const next = await enter(rig, proxy, kind);
    next.send(requestText('/ai/y'));
    t.equal((await next.head()).status, 200);
    t.equal(proxy.stats().listener.connections_dropped, 1);
    for (const { connection } of upstream.requests) connection.send(LAST_CHUNK);
  });
}

/** Opens more and more connections that say `start` and nothing else, until told to stop. */
function flood(rig: Rig, port: number, start: string): { opened: number; close(): Promise<void> } {
  const sockets = new Set<Socket>();
  let stopped = false;
  const it = {
    opened: 0,
    close: async () => {
      stopped = true;
      for (const socket of sockets) socket.destroy();
      await until('the flood is over', () => sockets.size === 0);
    },
  };
  const more = () => {
    if (stopped) return;
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => {
      it.opened++;
      socket.write(start);
      setImmediate(more);
    });
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => {
      sockets.delete(socket);
      if (sockets.size < 5) more();
    });
    socket.resume();
  };
  for (let i = 0; i < 5; i++) more();
  rig.closes(it);
  return it;
}

const CAP = 50;

for (const [name, start, secure] of [
  ['connections that never say a word', '', false],
  ['heads that never end', 'GET /ai/x HTTP/1.1\r\nx-slow: ', false],
  ['requests that are none', 'JUNK\r\n\r\n', false],
  ['bodies that nobody wants', 'POST /nobody/x HTTP/1.1\r\nhost: a\r\ncontent-length: 90000\r\n\r\n', false],
  ['handshakes that never begin', '', true],
  ['handshakes that never end', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', true],
] as const) {
  e2e(`a flood of ${name} keeps no good client out, and takes no more than its share`, async (t, rig) => {
    const upstream = await rig.upstream(async (request, connection) => {
      await whileNothing(5);
      connection.send(chunkedHead() + chunk(request.target) + LAST_CHUNK);
    });
    const tls = secure ? serverTls : null;
    const proxy = await rig.one(
      { url: upstream.url },
      { listen: [listenOn(anyPort, { tls })], listener: { maxConnections: CAP } },
    );
    const at = proxy.listen[1]!;
    const attack = flood(rig, at.port, start);
    await until('the flood has filled the listener', () => attack.opened > 2 * CAP);
    for (let i = 0; i < 5; i++) {
      // Each on a connection of its own, which sends at once: between two requests it might well be the oldest.
      const client = await rig.clientAt(at, secure ? clientTls : undefined);
      t.equal(await served(client, `/ai/${i}`), 200);
      client.destroy();
      t.ok(open(proxy) <= CAP, `${open(proxy)} connections`);
    }
    t.ok(attack.opened > 2 * CAP);
    t.ok(proxy.stats().listener.connections_dropped > CAP);
    await attack.close();
  });
}

e2e('each listener counts for itself', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { listen: [listenOn(anyPort)], listener: { maxConnections: 1 } });
  const one = await rig.clientAt(proxy.listen[0]!);
  const other = await rig.clientAt(proxy.listen[1]!);
  for (const client of [one, other, one]) t.equal(await served(client), 200);
  t.match(proxy.stats().listener, { connections: 2, connections_dropped: 0, connections_refused: 0 });
});

// What a client connection must do, over each kind of listener: TCP, TLS, a unix socket, TLS on a unix socket.

import { doorOf, enter, KINDS } from '../support/doors.ts';
import { e2e, requestText } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

const MB = 1 << 20;

for (const kind of KINDS) {
  e2e(`${kind}: one connection serves requests one after the other, pipelined ones in order`, async (t, rig) => {
    const upstream = await rig.upstream(async (request, connection) => {
      connection.send(answer(`${request.target} ${await request.whole()}`));
    });
    const proxy = await rig.one({ url: upstream.url }, { listen: [doorOf(kind, rig)] });
    const client = await enter(rig, proxy, kind);
    for (const target of ['/1', '/2']) {
      client.send(requestText(`/ai${target}`, { method: 'POST', body: 'hello' }));
      const got = await client.answer();
      t.equal(got.body.toString(), `${target} hello`);
      t.match(got.get('keep-alive'), /timeout/);
    }
    client.send(requestText('/ai/3') + requestText('/ai/4', { method: 'POST', body: 'x' }) + requestText('/ai/5'));
    for (const body of ['/3 ', '/4 x', '/5 ']) t.equal((await client.answer()).body.toString(), body);
    t.equal(proxy.stats().listener.connections, 1);
  });

  e2e(`${kind}: each piece of a stream arrives on its own, and Connection: close ends with a FIN`, async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead()));
    const proxy = await rig.one({ url: upstream.url }, { listen: [doorOf(kind, rig)] });
    const client = await enter(rig, proxy, kind);
    client.send(requestText('/ai/x', { headers: 'connection: close\r\n' }));
    t.equal((await client.head()).status, 200);
    for (const text of ['data: 1\n\n', 'data: 2\n\n']) {
      upstream.connections[0]!.send(chunk(text));
      t.equal(String(await client.piece()), text);
    }
    upstream.connections[0]!.send(LAST_CHUNK);
    t.equal((await client.rest()).ending, 'clean');
    t.equal(await client.ended(), 'fin');
  });

  for (const leave of ['halfClose', 'reset', 'destroy'] as const) {
    e2e(`${kind}: a client that leaves (${leave}) within a stream cancels the upstream`, async (t, rig) => {
      const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead() + chunk('one')));
      const proxy = await rig.one({ url: upstream.url }, { listen: [doorOf(kind, rig)] });
      const client = await enter(rig, proxy, kind);
      client.send(requestText('/ai/x'));
      await client.head();
      t.equal(String(await client.piece()), 'one');
      client[leave]();
      await until('the upstream is cancelled', () => upstream.connections[0]!.left, 1000);
      await proxy.idle();
      t.match(proxy.exchanges[0], { status: 200, failure: 'client_gone' });
    });
  }

  for (const [framing, start] of [
    ['chunks', chunkedHead() + chunk('half')],
    ['a length', 'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf'],
  ] as const) {
    e2e(`${kind}: an answer with ${framing} that the upstream cuts is a cut one for the client`, async (t, rig) => {
      const upstream = await rig.upstream((_request, connection) => connection.send(start));
      const proxy = await rig.one({ url: upstream.url }, { listen: [doorOf(kind, rig)] });
      const client = await enter(rig, proxy, kind);
      client.send(requestText('/ai/x'));
      await client.head();
      t.equal(String(await client.piece()), 'half');
      upstream.connections[0]!.resetAndDestroy();
      const { ending } = await client.rest();
      // A unix socket knows no reset.
      t.equal(ending, kind.includes('unix') ? 'fin' : 'reset', 'TLS: no close_notify, which would make it look whole');
      t.notMatch(client.text, /0\r\n\r\n$/);
      await until('its end', () => proxy.stats().listener.connections === 0);
    });
  }

  e2e(`${kind}: a client that reads slowly holds up the upstream, and gets every byte`, async (t, rig) => {
    const bytes = Buffer.alloc(32 * MB, 'abcdefgh');
    const upstream = await rig.upstream((_request, connection) => {
      connection.send(`HTTP/1.1 200 OK\r\ncontent-length: ${bytes.length}\r\n\r\n`).send(bytes);
    });
    const proxy = await rig.one({ url: upstream.url }, { listen: [doorOf(kind, rig)] });
    const client = await enter(rig, proxy, kind);
    client.send(requestText('/ai/x'));
    await client.head();
    client.pause();
    const { socket } = upstream.connections[0]!;
    await until('the upstream is held up', () => socket.writableLength > 0);
    let left = -1;
    await until('nothing moves', () => left === (left = socket.writableLength));
    await whileNothing(100);
    t.equal(socket.writableLength, left);
    t.ok(left > 8 * MB, `${left} bytes are still with the upstream`);
    client.resume();
    const got = await client.rest();
    t.equal(got.ending, 'clean');
    t.ok(got.body.equals(bytes));
  });

  e2e(
    `${kind}: a client that reads nothing is given up after write_stall, and its upstream with it`,
    async (t, rig) => {
      const upstream = await rig.upstream((_request, connection) => {
        connection.send(`HTTP/1.1 200 OK\r\ncontent-length: ${64 * MB}\r\n\r\n`).send(Buffer.alloc(64 * MB));
      });
      const proxy = await rig.one(
        { url: upstream.url, timeouts: { writeStallMs: 300 } },
        { listen: [doorOf(kind, rig)] },
      );
      const client = await enter(rig, proxy, kind);
      client.pause();
      client.send(requestText('/ai/x'));
      await until('its line', () => proxy.exchanges.length === 1);
      t.match(proxy.exchanges[0], { failure: 'client_stalled', status: 200 });
      await until('all are gone', () => upstream.connections[0]!.left && proxy.stats().listener.connections === 0);
    },
  );

  e2e(`${kind}: a large upload arrives whole, as fast as the upstream takes it`, async (t, rig) => {
    const upstream = await rig.upstream(async (request, connection) => {
      connection.socket.pause();
      await whileNothing(100);
      const before = connection.bytes;
      connection.socket.resume();
      connection.send(answer(`${before < 16 * MB} ${(await request.whole()).equals(bytes)}`));
    });
    const bytes = Buffer.alloc(16 * MB, 'abcdefgh');
    const proxy = await rig.one({ url: upstream.url }, { listen: [doorOf(kind, rig)] });
    const client = await enter(rig, proxy, kind);
    client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${bytes.length}\r\n\r\n`).send(bytes);
    t.equal((await client.answer()).body.toString(), 'true true');
  });

  e2e(`${kind}: an early answer arrives whole while the client is still sending`, async (t, rig) => {
    const proxy = await rig.one({ url: 'http://127.0.0.1:1' }, { listen: [doorOf(kind, rig)] });
    const client = await enter(rig, proxy, kind);
    client.send(`POST /nobody/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: ${8 * MB}\r\n\r\n`);
    client.pause();
    await new Promise((resolve) => client.socket.write(Buffer.alloc(8 * MB), resolve));
    client.resume();
    const got = await client.answer();
    t.equal(got.code, 'unknown_upstream');
    t.equal(got.ending, 'clean');
    t.equal(await client.ended(), 'fin');
    client.halfClose();
  });

  e2e(`${kind}: at a drain an idle client is let go at once, a running answer ends first`, async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead() + chunk('one')));
    const proxy = await rig.one({ url: upstream.url }, { listen: [doorOf(kind, rig)] });
    const running = await enter(rig, proxy, kind);
    running.send(requestText('/ai/x'));
    await running.head();
    const idle = await enter(rig, proxy, kind);
    await until('both are there', () => proxy.stats().listener.connections === 2);
    const drained = proxy.assembly.drain.start();
    t.equal(await idle.ended(), 'fin');
    t.equal(String(await running.piece()), 'one');
    await t.rejects(enter(rig, proxy, kind), /ECONNREFUSED|ENOENT|ECONNRESET/);
    upstream.connections[0]!.send(chunk('two') + LAST_CHUNK);
    const rest = await running.rest();
    t.same([rest.body.toString(), rest.ending], ['two', 'clean']);
    t.equal(await running.ended(), 'fin');
    running.halfClose();
    t.equal(await drained, 0, 'nothing was cut');
  });
}

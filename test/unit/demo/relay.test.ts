// The relay on real loopback sockets: what it delays, and that it neither loses nor keeps anything.
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Relay } from '../../../src/demo/relay.ts';

async function target(t: Test, onSocket: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    onSocket(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return server;
}

async function relayTo(t: Test, server: Server, rttMs: number): Promise<{ relay: Relay; client: Socket }> {
  const relay = new Relay({ targetPort: (server.address() as AddressInfo).port, rttMs });
  const port = await relay.listen();
  t.teardown(() => relay.close());
  const client = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  client.on('error', () => {});
  t.teardown(() => client.destroy());
  await once(client, 'connect');
  return { relay, client };
}

/** Resolves with whether the socket closed by an error; `once` of node:events would reject instead. */
function closing(socket: Socket): Promise<boolean> {
  return new Promise((resolve) => socket.once('close', resolve));
}

/** All sockets closed, without waiting for a fixed time. */
async function allClosed(relay: Relay): Promise<boolean> {
  for (let i = 0; i < 200 && relay.open > 0; i++) await sleep(10);
  return relay.open === 0;
}

t.test('the first answer takes two round trips and later ones take one', async (t) => {
  const server = await target(t, (socket) => socket.pipe(socket));
  const { client } = await relayTo(t, server, 60);
  const times: number[] = [];
  for (const text of ['first', 'second', 'third']) {
    const startedAt = performance.now();
    client.write(text);
    const [echo] = (await once(client, 'data')) as [Buffer];
    times.push(performance.now() - startedAt);
    t.equal(String(echo), text);
  }
  t.ok(times[0]! >= 118, `connecting included: ${times[0]} ms`);
  t.ok(times[1]! >= 59 && times[1]! < 115, `one round trip: ${times[1]} ms`);
  t.ok(times[2]! >= 59 && times[2]! < 115, `one round trip: ${times[2]} ms`);
});

t.test('large bodies pass both ways whole and in order, to a slow reader too', async (t) => {
  const server = await target(t, (socket) => socket.pipe(socket));
  const { relay, client } = await relayTo(t, server, 4);
  const sent = Buffer.alloc(8 << 20);
  for (let i = 0; i < sent.length; i += 4) sent.writeUInt32LE(i, i);
  client.end(sent);
  const received: Buffer[] = [];
  for await (const chunk of client as AsyncIterable<Buffer>) {
    received.push(chunk);
    if (received.length % 16 === 0) await sleep(1);
  }
  t.ok(Buffer.concat(received).equals(sent));
  t.ok(await allClosed(relay));
});

t.test('a reader that stops makes the relay stop reading', async (t) => {
  let written = 0;
  const server = await target(t, (socket) => {
    const chunk = Buffer.alloc(64 << 10);
    const more = (): void => {
      while (written < 256 << 20 && socket.write(chunk)) written += chunk.length;
    };
    socket.on('drain', more);
    more();
  });
  const { relay, client } = await relayTo(t, server, 2);
  client.pause();
  let before = -1;
  for (let i = 0; i < 100 && written !== before; i++) {
    before = written;
    await sleep(50);
  }
  t.ok(written < 64 << 20, `${written} bytes were taken, most of them by the kernel`);
  await relay.close();
});

t.test('a half close travels, and the answer after it still arrives', async (t) => {
  const server = await target(t, (socket) => {
    let text = '';
    socket.on('data', (bytes) => (text += bytes));
    socket.on('end', () => socket.end(`got ${text}`));
  });
  const { relay, client } = await relayTo(t, server, 10);
  client.end('all of it');
  const [answer] = (await once(client, 'data')) as [Buffer];
  t.equal(String(answer), 'got all of it');
  t.ok(await allClosed(relay));
});

t.test('a cut on one side is a cut on the other', async (t) => {
  const accepted = Promise.withResolvers<Socket>();
  const server = await target(t, (socket) => accepted.resolve(socket.resume()));
  const { relay, client } = await relayTo(t, server, 10);
  client.write('x');
  const socket = await accepted.promise;
  await once(socket, 'data');
  const closed = closing(socket);
  client.resetAndDestroy();
  t.equal(await closed, true, 'the target sees an error, not an end');
  t.ok(await allClosed(relay));

  const second = await relayTo(t, await target(t, (one) => setTimeout(() => one.resetAndDestroy(), 5)), 10);
  second.client.resume();
  t.equal(await closing(second.client), true, 'and so does the client');
  t.ok(await allClosed(second.relay));
});

t.test('a target that refuses cuts the client', async (t) => {
  const server = await target(t, () => {});
  const relay = new Relay({ targetPort: (server.address() as AddressInfo).port, rttMs: 2 });
  const port = await relay.listen();
  t.teardown(() => relay.close());
  server.close();
  await once(server, 'close');
  const client = connect({ port, host: '127.0.0.1' }).resume();
  client.on('error', () => {});
  t.equal(await closing(client), true);
  t.ok(await allClosed(relay));
});

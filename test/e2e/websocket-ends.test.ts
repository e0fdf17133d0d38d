// How an open WebSocket ends, when it does not end by the book: cuts stay cuts, who takes nothing is given up, and nobody is left over.

import { randomBytes } from 'node:crypto';
import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { close, frame, openTunnel } from '../support/websocket.ts';

e2e('an upstream that dies within a message is a cut for the client', async (t, rig) => {
  const { proxy, client, connection, heard } = await openTunnel(rig);
  connection.send(frame('x'.repeat(100)).subarray(0, 50));
  await until('half of it', () => heard().length === 50);
  connection.resetAndDestroy();
  t.equal(await client.ended(), 'reset');
  await proxy.idle();
  t.match(proxy.exchanges, [{ status: 101, failure: 'upstream_cut', close_code: null, bytes_out: 50 }]);
  t.match(proxy.upstream(), { failures: { upstream_cut: 1 }, websocket: { closed_by_code: { none: 1 } } });
});

e2e('an upstream that ends without a Close frame is a FIN for the client, and a cut in the log', async (t, rig) => {
  const { proxy, client, connection, heard, told } = await openTunnel(rig);
  connection.send(frame('last'));
  connection.end();
  t.equal(await client.ended(), 'fin');
  t.equal(heard(), frame('last').toString('latin1'), 'all of it before');
  client.send(frame('and the client goes on', { masked: true }));
  await until('the other way is open yet', () => told().includes('the client goes on'));
  client.halfClose();
  await until('its FIN', () => connection.ended);
  await proxy.idle();
  t.match(proxy.exchanges, [{ status: 101, failure: 'upstream_cut', close_code: null }]);
});

e2e('a client that vanishes is a cut for the upstream', async (t, rig) => {
  const { proxy, client, connection } = await openTunnel(rig);
  client.send(frame('one', { masked: true }));
  client.reset();
  await until('it is cut', () => connection.reset, 500);
  await proxy.idle();
  t.match(proxy.exchanges, [{ status: 101, failure: 'client_gone', close_code: null }]);
});

e2e('a client that ends without a Close frame is a FIN for the upstream', async (t, rig) => {
  const { proxy, client, connection, heard } = await openTunnel(rig);
  client.halfClose();
  await until('its FIN', () => connection.ended, 500);
  connection.send(frame('still there'));
  await until('the other way is open yet', () => heard().includes('still there'));
  connection.end();
  t.equal(await client.ended(), 'fin');
  await proxy.idle();
  t.match(proxy.exchanges, [{ status: 101, failure: 'client_gone', close_code: null }]);
});

e2e('an end that was announced is no failure, however it comes', async (t, rig) => {
  for (const how of ['end', 'resetAndDestroy'] as const) {
    const { proxy, client, connection, heard } = await openTunnel(rig, {}, { allowHalfOpen: false });
    connection.send(close(1011, 'broken'));
    await until('the Close', () => heard() === close(1011, 'broken').toString('latin1'));
    connection[how]();
    t.equal(await client.ended(), 'fin', 'the client has it all');
    client.destroy();
    await proxy.idle();
    t.match(proxy.exchanges, [{ failure: null, close_code: 1011 }]);
  }
  const { proxy, client, connection, told } = await openTunnel(rig, {}, { allowHalfOpen: false });
  client.send(close(4321, '', true));
  client.reset();
  await until('the end', () => connection.left);
  t.equal(told(), close(4321, '', true).toString('latin1'));
  await proxy.idle();
  t.match(proxy.exchanges, [{ failure: null, close_code: 4321 }]);
});

e2e('who has closed by the book and does not end the connection is ended', async (t, rig) => {
  t.setTimeout(40_000);
  const { proxy, client, connection } = await openTunnel(rig);
  client.send(close(1000, '', true));
  connection.send(close(1000));
  await until('both have their FIN', () => connection.ended && client.state === 'fin', 9000);
  client.reset();
  await proxy.idle(9000);
  t.match(proxy.exchanges, [{ failure: null, close_code: 1000 }]);
});

e2e('a client that talks on when its upstream is gone keeps nothing open', async (t, rig) => {
  t.setTimeout(40_000);
  const { proxy, client, connection } = await openTunnel(rig);
  connection.send(close(1000));
  connection.end();
  t.equal(await client.ended(), 'fin');
  connection.resetAndDestroy();
  const talk = setInterval(() => client.send(frame('and', { masked: true })), 500);
  await proxy.idle(9000).finally(() => clearInterval(talk));
  t.match(proxy.exchanges, [{ failure: null, close_code: 1000 }]);
});

e2e('bytes that are no frames pass all the same', async (t, rig) => {
  const { proxy, client, connection, heard, told } = await openTunnel(rig);
  const junk = randomBytes(100_000).fill(0x83, 0, 2);
  connection.send(junk);
  client.send(junk);
  await until('all of it, both ways', () => heard().length === junk.length && told().length === junk.length);
  t.ok(heard() === junk.toString('latin1') && told() === junk.toString('latin1'));
  connection.end();
  client.halfClose();
  await proxy.idle();
  t.match(proxy.exchanges, [{ failure: null, close_code: null, bytes_in: junk.length, bytes_out: junk.length }]);
});

const MB = frame(Buffer.alloc(1 << 20), { opcode: 2 });
const MASKED_MB = frame(Buffer.alloc(1 << 20), { opcode: 2, masked: true });

e2e('a client that takes nothing pauses the upstream, and is given up', async (t, rig) => {
  const { proxy, client, connection } = await openTunnel(rig, { timeouts: { writeStallMs: 300 } });
  client.pause();
  const pump = () => {
    while (!connection.socket.destroyed && connection.socket.write(MB));
  };
  connection.socket.on('drain', pump);
  pump();
  await until('it is cut', () => connection.reset);
  await proxy.idle();
  t.match(proxy.exchanges, [{ failure: 'client_stalled', status: 101 }]);
  t.ok((proxy.exchanges[0]!.bytes_out as number) < 32 << 20, 'it was not all read');
});

e2e('an upstream that takes nothing pauses the client, and is given up', async (t, rig) => {
  const { proxy, client, connection } = await openTunnel(rig, { timeouts: { writeStallMs: 300 } });
  connection.socket.pause();
  const pump = () => {
    while (!client.socket.destroyed && client.socket.write(MASKED_MB));
  };
  client.socket.on('drain', pump);
  pump();
  t.equal(await client.ended(), 'reset');
  connection.socket.destroy();
  await proxy.idle();
  t.match(proxy.exchanges, [{ failure: 'idle_timeout', status: 101 }]);
  t.ok((proxy.exchanges[0]!.bytes_in as number) < 32 << 20, 'it was not all read');
});

e2e('one that is slow, but takes something, keeps its tunnel; and one that is silent, too', async (t, rig) => {
  const { proxy, client, connection, heard } = await openTunnel(
    rig,
    { timeouts: { writeStallMs: 200 } },
    { allowHalfOpen: false },
  );
  client.pause();
  for (let i = 0; i < 16; i++) connection.send(MB);
  const total = 16 * MB.length;
  const timer = setInterval(() => {
    client.resume();
    setImmediate(() => client.pause());
  }, 50);
  await until('more than the deadline', () => heard().length > 0 && performance.now() - connection.openedAt > 800);
  clearInterval(timer);
  client.resume();
  await until('all of it', () => client.received.reduce((sum, { length }) => sum + length, 0) > total);
  client.send(frame('and back', { masked: true }));
  await until('the tunnel is open', () => connection.text.includes('and back'));
  t.equal(proxy.exchanges.length, 0);
});

e2e('a slow reader gets all of what came before the end', async (t, rig) => {
  t.setTimeout(40_000);
  const { proxy, client, connection } = await openTunnel(rig);
  client.pause();
  for (let i = 0; i < 12; i++) connection.send(MB);
  connection.send(close(1000));
  connection.end();
  client.halfClose();
  // Longer than an end without a byte may take.
  await whileNothing(6500);
  client.resume();
  const total = 12 * MB.length + close(1000).length;
  await until('all of it', () => client.state !== 'open', 15_000);
  const got = client.received.reduce((sum, { length }) => sum + length, 0);
  t.equal(client.state, 'fin');
  t.ok(got >= total, `${got} of ${total}`);
  await proxy.idle();
  t.match(proxy.exchanges, [{ failure: null, close_code: 1000 }]);
});

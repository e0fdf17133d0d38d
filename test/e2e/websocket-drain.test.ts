// What becomes of open WebSockets when the process ends: a Close frame 1001 between two frames, and time to answer it.

import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import {
  close,
  frame,
  goodbyeOf,
  OPENING,
  openTunnel,
  SWITCHED,
  socketClient,
  socketUpstream,
} from '../support/websocket.ts';

const websocket = { max: 10 };

e2e('a drain says 1001 to idle clients, and both sides see a close by the book', async (t, rig) => {
  const upstream = await socketUpstream(rig);
  const proxy = await rig.one({ url: upstream.url, websocket });
  const clients = await Promise.all([1, 2, 3].map(() => socketClient(`${proxy.url}/ai/`)));
  const started = performance.now();
  const ends = Promise.all([...clients, ...upstream.sockets].map(goodbyeOf));
  const cut = await proxy.assembly.drain.start();
  t.equal(cut, 0);
  t.ok(performance.now() - started < 2000, 'at once');
  const told = await ends;
  t.same(
    told.slice(0, 3),
    Array.from({ length: 3 }, () => ({ code: 1001, reason: 'aiproxy is shutting down' })),
  );
  t.same(
    told.slice(3).map(({ code }) => code),
    [1001, 1001, 1001],
    'the answer of the client',
  );
  t.match(
    proxy.exchanges,
    Array.from({ length: 3 }, () => ({ failure: null, close_code: 1001, status: 101 })),
  );
});

e2e('a drain waits for the end of a frame, and nothing of the upstream follows its Close', async (t, rig) => {
  const { proxy, client, connection, heard, told } = await openTunnel(rig, {}, { allowHalfOpen: false });
  const [first, second] = [frame('x'.repeat(1000), { fin: false }), frame('never seen', { opcode: 0 })];
  connection.send(first.subarray(0, 500));
  await until('half of it', () => heard().length === 500);
  const drained = proxy.assembly.drain.start();
  client.send(frame('the other way goes on', { masked: true }));
  await until('it does', () => told().includes('goes on'));
  t.equal(heard().length, 500, 'nothing within a frame');
  connection.send(Buffer.concat([first.subarray(500), second]));
  const goodbye = close(1001, 'aiproxy is shutting down').toString('latin1');
  await until('the rest and a Close', () => heard().length === first.length + goodbye.length);
  t.equal(heard(), first.toString('latin1') + goodbye);
  const reply = close(1001, '', true);
  client.send(reply);
  await until('the reply', () => told().endsWith(reply.toString('latin1')));
  connection.send(close(1001));
  connection.end();
  t.equal(await client.ended(), 'fin');
  client.halfClose();
  t.equal(await drained, 0);
  t.equal(heard(), first.toString('latin1') + goodbye, 'and nothing more');
  t.match(proxy.exchanges, [{ failure: null, close_code: 1001 }]);
});

e2e('a client that does not answer the 1001 is cut, and the upstream is told', async (t, rig) => {
  t.setTimeout(40_000);
  const { proxy, client, told } = await openTunnel(rig);
  const started = performance.now();
  const drained = proxy.assembly.drain.start();
  t.equal(await client.ended(), 'reset');
  const took = performance.now() - started;
  t.ok(took > 4900 && took < 6500, `after ${took} ms`);
  await drained;
  await until('a last word', () => told().length > 0);
  const frames = Buffer.from(told(), 'latin1');
  t.match([...frames.subarray(0, 2)], [0x88, 0x80 | (frames.length - 6)], 'a masked Close');
  const mask = frames.subarray(2, 6);
  const payload = Buffer.from(frames.subarray(6).map((byte, i) => byte ^ mask[i % 4]!));
  t.equal(payload.subarray(0, 2).readUInt16BE(), 1001);
  t.equal(payload.subarray(2).toString(), 'aiproxy is shutting down');
  t.match(proxy.exchanges, [{ failure: 'draining', close_code: 1001 }]);
});

e2e('a client that hangs up on the 1001, and an upstream that does: the other is told', async (t, rig) => {
  for (const who of ['reset', 'halfClose', 'upstream'] as const) {
    const { proxy, client, connection, told, heard } = await openTunnel(rig, {}, { allowHalfOpen: false });
    const goodbye = close(1001, 'aiproxy is shutting down').toString('latin1');
    const drained = proxy.assembly.drain.start();
    await until('the 1001', () => heard() === goodbye);
    if (who !== 'upstream') {
      client[who]();
      await until('the upstream is told', () => told().charCodeAt(0) === 0x88);
    } else {
      connection.resetAndDestroy();
      t.equal(await client.ended(), 'fin');
      client.destroy();
    }
    await drained;
    await proxy.idle();
    t.match(proxy.exchanges, [{ failure: 'draining', close_code: 1001 }]);
  }
});

e2e('a frame that never ends is cut at drain.timeout', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(SWITCHED));
  const proxy = await rig.one({ url: upstream.url, websocket }, { drain: { timeoutMs: 200 } });
  const client = await rig.sent(proxy, '/ai/x', { headers: OPENING });
  await client.head();
  upstream.connections[0]!.send(frame('x'.repeat(1000)).subarray(0, 500));
  await until('half of it', () => proxy.upstream().websocket!.bytes_out === 500);
  t.equal(await proxy.assembly.drain.start(), 1);
  t.equal(await client.ended(), 'reset');
  t.notMatch(client.text, /shutting down/);
  await until('the upstream is told', () => upstream.connections[0]!.left);
  t.match(proxy.exchanges, [{ failure: 'draining', close_code: null }]);
});

e2e('a handshake under way is refused at drain', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url, websocket });
  const client = await rig.sent(proxy, '/ai/x', { headers: OPENING });
  await upstream.request();
  const drained = proxy.assembly.drain.start();
  t.match(await client.answer(), { status: 503, code: 'draining' });
  client.destroy();
  t.equal(await drained, 0);
  await until('the upstream is cancelled', () => upstream.connections[0]!.left);
});

e2e('a client in the midst of closing is not told twice', async (t, rig) => {
  const { proxy, client, connection, heard } = await openTunnel(rig, {}, { allowHalfOpen: false });
  connection.send(close(4000, 'mine'));
  await until('the Close', () => heard().length > 0);
  const drained = proxy.assembly.drain.start();
  client.send(close(4000, '', true));
  await until('the answer', () => connection.text.endsWith(close(4000, '', true).toString('latin1')));
  connection.end();
  t.equal(await client.ended(), 'fin');
  client.destroy();
  await drained;
  t.equal(heard(), close(4000, 'mine').toString('latin1'));
  t.match(proxy.exchanges, [{ failure: null, close_code: 4000 }]);
});

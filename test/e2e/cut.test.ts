// Behaviour 3 of DESIGN.md: an answer that the upstream cut is never ended as a clean one, and bytes already sent are never sent again.

import type { Rig } from '../support/rig.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { chunk, chunkedHead, type Script, type UpstreamConnection } from '../support/upstream.ts';

const LENGTH_HEAD = 'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n';
const CLOSE_HEAD = 'HTTP/1.1 200 OK\r\n\r\n';

const ends: Record<string, (connection: UpstreamConnection) => void> = {
  FIN: (connection) => connection.end(),
  RST: (connection) => connection.resetAndDestroy(),
};

/** Sends `start`, and `end`s once the test says so. */
async function cutting(rig: Rig, start: string) {
  const script: Script = (_request, connection) => connection.send(start);
  const upstream = await rig.upstream(script);
  return { upstream, proxy: await rig.one({ url: upstream.url }) };
}

for (const [kind, start, read] of [
  ['a chunked answer between two chunks', chunkedHead() + chunk('half an answer'), 'half an answer'],
  ['a chunked answer within a chunk', `${chunkedHead()}ff\r\nhalf a chunk`, 'half a chunk'],
  ['a chunked answer within a chunk size', `${chunkedHead()}${chunk('whole')}f`, 'whole'],
  ['an answer short of its declared length', `${LENGTH_HEAD}half an answer`, 'half an answer'],
] as const) {
  for (const [how, end] of Object.entries(ends)) {
    e2e(`${how} within ${kind} resets the client's connection`, async (t, rig) => {
      const { upstream, proxy } = await cutting(rig, start);
      const client = await rig.sent(proxy, '/ai/x', { method: 'POST', body: '{}' });
      t.equal((await client.head()).status, 200);
      t.equal(String(await client.piece()), read);
      end(upstream.connections[0]!);
      t.equal((await client.rest()).ending, 'reset');
      t.notMatch(client.text, /\r\n0\r\n\r\n$/, 'no last chunk');
      t.equal(upstream.requests.length, 1, 'not sent again');
      await proxy.idle();
      t.equal(proxy.upstream().failures.upstream_cut, 1);
      t.match(proxy.exchanges[0], { status: 200, failure: 'upstream_cut', attempts: 1 });
    });
  }
}

e2e("an RST within an answer that ends with its connection resets the client's", async (t, rig) => {
  const { upstream, proxy } = await cutting(rig, `${CLOSE_HEAD}half an answer`);
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  t.equal(String(await client.piece()), 'half an answer');
  upstream.connections[0]!.resetAndDestroy();
  t.equal((await client.rest()).ending, 'reset');
  await proxy.idle();
  t.equal(proxy.upstream().failures.upstream_cut, 1);
});

e2e('a FIN ends an answer without a declared length cleanly', async (t, rig) => {
  const { upstream, proxy } = await cutting(rig, `${CLOSE_HEAD}a whole answer`);
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  t.equal(String(await client.piece()), 'a whole answer');
  upstream.connections[0]!.end();
  t.equal((await client.rest()).ending, 'clean');
  await proxy.idle();
  t.same(proxy.upstream().failures, {});
  t.same(proxy.pool().closed_by, { upstream_asked: 1 }, 'an answer without a length asks for a close');
});

for (const [kind, start] of [
  ['chunked', chunkedHead() + chunk('half')],
  ['of declared length', `${LENGTH_HEAD}half`],
  ['ended by its connection', `${CLOSE_HEAD}half`],
] as const) {
  e2e(`an HTTP/1.0 client sees a reset when an answer ${kind} is cut`, async (t, rig) => {
    const { upstream, proxy } = await cutting(rig, start);
    const client = await rig.client(proxy);
    client.send('GET /ai/x HTTP/1.0\r\n\r\n');
    const head = await client.head();
    t.notMatch(head.text, /transfer-encoding/i, 'it knows no chunks');
    t.equal(String(await client.piece()), 'half');
    upstream.connections[0]!.resetAndDestroy();
    t.equal((await client.rest()).ending, 'reset');
  });
}

e2e('an HTTP/1.0 client gets a chunked answer without chunks, ended by a FIN', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`${chunkedHead()}${chunk('all of ')}${chunk('it')}0\r\n\r\n`);
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.client(proxy);
  client.send('GET /ai/x HTTP/1.0\r\n\r\n');
  const got = await client.answer();
  t.equal(got.body.toString(), 'all of it');
  t.equal(got.ending, 'clean');
  t.equal(client.state, 'fin');
  t.equal(upstream.requests[0]!.text.includes('HTTP/1.1'), true, 'the upstream is asked with HTTP/1.1');
});

e2e('what came with the cut reaches the client before the reset', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`${chunkedHead()}${chunk('event 1')}`);
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  t.equal(String(await client.piece()), 'event 1');
  upstream.connections[0]!.send(chunk('event 2')).end();
  const { body, ending } = await client.rest();
  t.equal(ending, 'reset');
  // A RST may overtake what the client had not read; what it did read is a prefix.
  t.ok('event 2'.startsWith(body.toString()));
});

e2e(
  'nothing of an answer, but the connection closed: 502 upstream_reset with retry advice for SDKs',
  async (t, rig) => {
    for (const end of Object.values(ends)) {
      const upstream = await rig.upstream((_request, connection) => end(connection));
      const proxy = await rig.one({ url: upstream.url });
      const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: '{}' });
      t.equal(got.status, 502);
      t.equal(got.code, 'upstream_reset');
      t.equal(got.get('x-should-retry'), 'false', 'the upstream may have run it');
      t.match(got.get('proxy-status'), /aiproxy; error=connection_terminated/);
      t.equal(upstream.requests.length, 1, 'an accepted POST is never sent twice');
    }
  },
);

e2e('half a head and then nothing is a 502, not a cut answer', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send('HTTP/1.1 200 OK\r\ncontent-').end());
  const proxy = await rig.one({ url: upstream.url });
  const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: '{}' });
  t.equal(got.status, 502);
  t.match(got.code, /upstream_reset|upstream_protocol_error/);
  await until('counted', () => proxy.upstream().status['502'] === 1);
});

// Large bodies both ways: whole and unchanged, no faster than the slower end takes them, and no permit for one that is still small.

import { createHash } from 'node:crypto';
import { Socket } from 'node:net';
import { Turnover } from '../../src/flow/turnover.ts';
import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, LAST_CHUNK } from '../support/upstream.ts';

const MB = 1 << 20;
const PIECE = 64 * 1024;

/** Bytes that are nowhere the same. */
function bodyOf(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i += 4) bytes.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i);
  return bytes;
}

function hashOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Sends piece by piece, as fast as the socket takes it. */
async function pour(socket: Socket, body: Buffer, chunked: boolean): Promise<void> {
  for (let at = 0; at < body.length && !socket.destroyed; at += PIECE) {
    const piece = body.subarray(at, at + PIECE);
    if (chunked) socket.write(`${piece.length.toString(16)}\r\n`);
    socket.write(piece);
    if (chunked) socket.write('\r\n');
    if (socket.writableNeedDrain)
      await until('it takes more', () => !socket.writableNeedDrain || socket.destroyed, 20_000);
  }
  if (chunked) socket.write(LAST_CHUNK);
}

/** The proxy's own two ends of one exchange: it runs in this process. */
function endsOf(proxyPort: number, upstreamPort: number): { client: Socket; upstream: Socket } {
  const handles = (process as unknown as { _getActiveHandles(): unknown[] })._getActiveHandles();
  const sockets = handles.filter((handle) => handle instanceof Socket);
  return {
    client: sockets.find(({ localPort }) => localPort === proxyPort)!,
    upstream: sockets.find(({ remotePort }) => remotePort === upstreamPort)!,
  };
}

/** Bytes that came in here and have not been given to the kernel there: whatever the buffers of the kernel take does not count. */
function held(from: Socket, to: Socket): number {
  return from.bytesRead - (to.bytesWritten - to.writableLength);
}

for (const chunked of [false, true]) {
  const framing = (length: number) => (chunked ? 'transfer-encoding: chunked' : `content-length: ${length}`);
  const kind = chunked ? 'in chunks' : 'with its length';

  e2e(
    `a download of 64 MB ${kind} to a slow reader arrives unchanged, and aiproxy holds little of it`,
    async (t, rig) => {
      const body = bodyOf(64 * MB);
      const upstream = await rig.upstream(async (_request, connection) => {
        connection.send(`HTTP/1.1 200 OK\r\n${framing(body.length)}\r\n\r\n`);
        await pour(connection.socket, body, chunked);
      });
      const proxy = await rig.one({ url: upstream.url });
      const client = await rig.sent(proxy, '/ai/x');
      await client.head();
      const ends = endsOf(proxy.port, upstream.port);
      const hash = createHash('sha256');
      let most = 0;
      let taken = 0;
      for (let piece = await client.piece(); piece; piece = await client.piece()) {
        hash.update(piece);
        most = Math.max(most, held(ends.upstream, ends.client));
        const before = Math.floor(taken / (8 * MB));
        taken += piece.length;
        if (before === Math.floor(taken / (8 * MB))) continue;
        client.pause();
        await whileNothing(60);
        client.resume();
      }
      t.equal(hash.digest('hex'), hashOf(body));
      t.ok(most < MB, `${most} bytes at most`);
    },
  );

  e2e(
    `an upload of 32 MB ${kind} to a slow upstream arrives unchanged, and aiproxy holds little of it`,
    async (t, rig) => {
      const body = bodyOf(32 * MB);
      const upstream = await rig.upstream(async (request, connection) => {
        connection.socket.pause();
        await until('it is read again', () => !connection.socket.isPaused());
        await until('the whole body', () => request.complete, 20_000);
        connection.send(answer(hashOf(request.body)));
      });
      const proxy = await rig.one({ url: upstream.url });
      const client = await rig.client(proxy);
      client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\n${framing(body.length)}\r\n\r\n`);
      const poured = pour(client.socket, body, chunked);
      const request = await upstream.request(0);
      const { socket } = request.connection;
      await until('the upstream has stopped', () => socket.isPaused());
      const ends = endsOf(proxy.port, upstream.port);
      let most = 0;
      let memory = 0;
      const look = () => {
        most = Math.max(most, held(ends.client, ends.upstream));
        memory = Math.max(memory, proxy.stats().listener.body_memory_bytes);
      };
      const looking = setInterval(look, 1);
      await whileNothing(300);
      look();
      socket.resume();
      t.equal((await client.answer()).body.toString(), hashOf(body));
      clearInterval(looking);
      await poured;
      t.ok(most < MB, `${most} bytes at most`);
      t.ok(memory <= 256 << 10, 'body_memory counts no more than body_buffer of it');
      t.equal(proxy.upstream().bytes_in, body.length);
    },
  );
}

e2e('of 20 uploads of 2 MB none has a permit before its body_buffer is full, and then 4 at a time', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    connection.send(answer(hashOf(await request.whole())));
  });
  const buffer = 256 << 10;
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'gate' },
    { limiters: { gate: { maxConcurrent: 4 } }, listener: { bodyBufferBytes: buffer } },
  );
  const body = bodyOf(2 * MB);
  const clients = [];
  for (let n = 0; n < 20; n++) clients.push(await rig.client(proxy));
  for (const client of clients) {
    client
      .send(`POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${body.length}\r\n\r\n`)
      .send(body.subarray(0, buffer - 1));
  }
  await until('what they sent is read', () => proxy.stats().listener.body_memory_bytes === 20 * (buffer - 1));
  await whileNothing(50);
  t.match(proxy.limiter('gate'), { in_flight: 0, queued: 0 });
  t.equal(upstream.connections.length, 0);
  for (const client of clients) client.send(body.subarray(buffer - 1, buffer));
  await until('all want a permit', () => proxy.limiter('gate').queued === 16);
  t.equal(proxy.limiter('gate').in_flight, 4);
  for (const client of clients) client.send(body.subarray(buffer));
  for (const client of clients) t.equal((await client.answer()).body.toString(), hashOf(body));
  t.equal(proxy.limiter('gate').peak_in_flight, 4);
  t.ok(upstream.requests.every((request) => request.bodyBytes === body.length));
});

e2e(
  'every byte that is read is counted once for the collector, and one that is stored already is not',
  async (t, rig) => {
    let counted = 0;
    const { passed } = Turnover.prototype;
    Turnover.prototype.passed = function (bytes) {
      counted += bytes;
      passed.call(this, bytes);
    };
    t.teardown(() => {
      Turnover.prototype.passed = passed;
    });
    const upstream = await rig.upstream(async (request, connection) => {
      await request.whole();
      connection.send(answer('x'.repeat(300_000), 'cache-control: public, max-age=60\r\n'));
    });
    const proxy = await rig.one({ url: upstream.url, cache: { http: true } });
    await rig.ask(proxy, '/ai/a', { method: 'POST', body: 'y'.repeat(500) });
    t.equal(counted, 300_500);
    await rig.ask(proxy, '/ai/b');
    t.equal(counted, 600_500);
    t.match((await rig.ask(proxy, '/ai/b')).get('cache-status'), /^aiproxy; hit/);
    t.equal(counted, 600_500);
  },
);

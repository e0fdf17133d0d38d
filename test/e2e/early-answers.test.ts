// Behaviour 16 of DESIGN.md: an answer that comes before the request is whole, and what of that request comes after it. The rest
// looks like requests here; none of it may ever be one, on either side, and what is pipelined behind it is itself.

import fc from 'fast-check';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, LAST_CHUNK, type Script, type UpstreamConnection } from '../support/upstream.ts';

const SMUGGLED = 'POST /ai/smuggled HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n';
const NEXT = 'GET /ai/next HTTP/1.1\r\nhost: a\r\n\r\n';
const START = 2048;
const TAIL = SMUGGLED.repeat(20);

/** A request in two parts, and how it goes on. */
const framings: Record<string, [start: string, rest: string]> = {
  'a length': [
    `POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${START + TAIL.length}\r\n\r\n${'a'.repeat(START)}`,
    TAIL,
  ],
  chunks: [
    `POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n${chunk('a'.repeat(START))}`,
    chunk(TAIL) + chunk(SMUGGLED) + LAST_CHUNK,
  ],
  'chunks with trailers': [
    `POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n${chunk('a'.repeat(START))}`,
    `${chunk(TAIL)}0\r\nx-trailer: 1\r\n\r\n`,
  ],
  'half a chunk': [
    `POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n${(START + TAIL.length).toString(16)}\r\n${'a'.repeat(START)}`,
    `${TAIL}\r\n${LAST_CHUNK}`,
  ],
};

const refusal = (headers = '') => answer('no', headers, '413 Content Too Large');
const early: Record<string, (connection: UpstreamConnection) => unknown> = {
  'and keeps its connection': (connection) => connection.send(refusal()),
  'and says it will close': (connection) => connection.send(refusal('connection: close\r\n')).end(),
  'and closes without a word': (connection) => connection.send(refusal()).end(),
};

/** `/x` is answered as soon as its head is there, all else when it is whole. */
const scriptOf =
  (end: (connection: UpstreamConnection) => unknown): Script =>
  async (request, connection) => {
    if (request.target === '/x') end(connection);
    else connection.send(answer(`${request.target} ${await request.whole()}`));
  };

for (const [framing, [start, rest]] of Object.entries(framings)) {
  for (const [how, end] of Object.entries(early)) {
    e2e(`a request with ${framing}, whose upstream answers early ${how}`, async (t, rig) => {
      const upstream = await rig.upstream(scriptOf(end));
      const proxy = await rig.one({ url: upstream.url }, { listener: { bodyBufferBytes: 1024 } });
      const client = await rig.client(proxy);
      client.send(start);
      const got = await client.answer();
      t.same([got.status, got.body.toString()], [413, 'no']);
      client.send(rest + NEXT);
      t.equal((await client.answer()).body.toString(), '/next ', 'short as the rest is, the connection is kept');
      const targets = upstream.requests.map(({ target }) => target);
      t.same(
        targets.filter((target) => target !== '/next'),
        ['/x'],
      );
      t.ok(
        upstream.connections.every(({ requests }) => requests.length === 1),
        'a connection whose request was not whole carries no other',
      );
      await proxy.idle();
    });
  }
}

e2e('an early refusal of aiproxy itself, wherever the bytes are cut', async (t, rig) => {
  const upstream = await rig.upstream(scriptOf(() => {}));
  const proxy = await rig.one({ url: upstream.url });
  const cuts = fc.array(fc.nat(4000), { minLength: 1, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...Object.values(framings)), cuts, async ([start, rest], places) => {
      const bytes = start.replace('/ai/x', '/nobody/x') + rest + NEXT;
      const client = await rig.client(proxy);
      let from = 0;
      for (const place of [...places].sort((a, b) => a - b)) {
        client.send(bytes.slice(from, place));
        from = Math.max(from, place);
        await new Promise(setImmediate);
      }
      client.send(bytes.slice(from));
      const refused = await client.answer();
      const next = await client.answer();
      client.destroy();
      return refused.code === 'unknown_upstream' && next.body.toString() === '/next ';
    }),
    { numRuns: 60 },
  );
  t.ok(upstream.requests.length > 0);
  t.ok(upstream.requests.every(({ target }) => target === '/next'));
});

e2e('what breaks the framing behind an early answer ends the connection, unanswered', async (t, rig) => {
  const upstream = await rig.upstream(scriptOf((connection) => connection.send(refusal())));
  const proxy = await rig.one({ url: upstream.url }, { listener: { bodyBufferBytes: 1024 } });
  for (const broken of [`zz\r\n${TAIL}`, `3\r\n${TAIL}`, `-1\r\n\r\n${TAIL}`, `\n${TAIL}`, TAIL]) {
    const client = await rig.client(proxy);
    client.send(framings.chunks![0]);
    t.equal((await client.answer()).status, 413);
    client.send(broken + NEXT);
    await client.ended();
    t.equal(client.text.split('HTTP/1.1 ').length, 2, 'one answer');
    client.destroy();
  }
  t.ok(upstream.requests.every(({ target }) => target === '/x'));
});

e2e('requests that wait behind one with an early answer follow in order, however many', async (t, rig) => {
  const upstream = await rig.upstream(async (request, connection) => {
    if (request.method === 'POST') connection.send(refusal());
    else connection.send(answer(request.target));
  });
  const proxy = await rig.one({ url: upstream.url }, { listener: { bodyBufferBytes: 1024 } });
  const client = await rig.client(proxy);
  const [start, rest] = framings['a length']!;
  // The body is held back until its answer is there, the requests behind come with the rest of it.
  for (let round = 0; round < 3; round++) {
    client.send(start);
    t.equal((await client.answer()).status, 413);
    client.send(rest + Array.from({ length: 5 }, (_, i) => NEXT.replace('next', `next${i}`)).join(''));
    for (let i = 0; i < 5; i++) t.equal((await client.answer()).body.toString(), `/next${i}`);
  }
  await until('nothing is under way', () => proxy.upstream().in_flight === 0);
  t.notOk(upstream.requests.some(({ target }) => target === '/smuggled'));
});

// HTTP/2 to the upstream on its bad days: what was never looked at goes again, what was begun is cut and never looks whole.

import {
  block,
  data,
  END_HEADERS,
  END_STREAM,
  FRAME,
  type FrameConnection,
  type FrameScript,
  FrameUpstream,
  frame,
  goaway,
  headers,
  MAX_STREAMS,
  reset,
  settings,
} from '../support/http2-frames.ts';
import { http2Proxy, reply, http2Scene as scene } from '../support/http2-upstream.ts';
import type { UpstreamOverrides } from '../support/proxy.ts';
import { e2e, type Rig } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';

const OK = [':status', '200'];
const CODE = { NO_ERROR: 0, PROTOCOL: 1, INTERNAL: 2, REFUSED: 7, CANCEL: 8, CALM: 11 } as const;
const times = (n: number) => Array.from({ length: n }, (_, i) => i);
const whole = (id: number, text = 'ok') => [headers(id, OK), data(id, text, END_STREAM)];

async function frames(rig: Rig, script: FrameScript, upstream: Partial<UpstreamOverrides> = {}) {
  const server = await FrameUpstream.start(script);
  rig.closes(server);
  return { server, proxy: await http2Proxy(rig, server.url, upstream) };
}

e2e('GOAWAY within a burst loses nothing: 200 GET and POST, half of them never looked at', async (t, rig) => {
  let gone = false;
  const { server, proxy } = await frames(
    rig,
    {
      opened: (connection) => connection.send(settings([MAX_STREAMS, 200])),
      request: (id, connection, index) => {
        if (index > 0) connection.send(...whole(id, `second ${id}`));
        else if (connection.streams.length === 200) {
          // The first 100 are answered after all others were told to go.
          const last = connection.streams[99]!;
          connection.send(goaway(last));
          gone = true;
          setTimeout(() => {
            for (const taken of connection.streams) if (taken <= last) connection.send(...whole(taken, 'first'));
          }, 100);
        }
      },
    },
    { http2: { maxStreams: 200 } },
  );
  const answers = await Promise.all(
    times(200).map((i) => rig.ask(proxy, `/ai/${i}`, i % 2 === 0 ? { method: 'POST', body: 'x' } : {})),
  );
  t.ok(gone);
  t.ok(answers.every(({ status, ending }) => status === 200 && ending === 'clean'));
  t.equal(answers.filter(({ body }) => String(body) === 'first').length, 100, 'what it had taken it answered');
  t.equal(server.connections.length, 2, 'those left out share one new connection');
  await until('the first is closed', () => server.connections[0]!.closed);
  t.match(proxy.pool(), { opened: 2, closed: 1, closed_by: { upstream_asked: 1 } });
  t.equal(proxy.upstream().maybe_billed_twice, 0);
});

e2e('GOAWAY twice, first for the future, then for good', async (t, rig) => {
  const { server, proxy } = await frames(rig, {
    request: (id, connection, index) => {
      if (index > 0) connection.send(...whole(id, 'second'));
      else if (id === 1) connection.send(goaway(2 ** 31 - 1));
    },
  });
  const first = rig.sent(proxy, '/ai/a', { method: 'POST', body: 'x' });
  await until('it is there', () => server.connections[0]?.streams.length === 1);
  await whileNothing(50);
  t.equal((await rig.ask(proxy, '/ai/b')).body.toString(), 'second', 'no new stream on a connection that leaves');
  t.same(server.connections[0]!.streams, [1]);
  server.connections[0]!.send(goaway(0));
  t.equal((await (await first).answer()).body.toString(), 'second', 'it was not looked at after all');
  await until('closed', () => server.connections[0]!.closed);
});

e2e('GOAWAY with an error: what was looked at fails, what was not goes again', async (t, rig) => {
  const { server, proxy } = await frames(rig, {
    request: (id, connection, index) => {
      if (index > 0) connection.send(...whole(id, 'second'));
      else if (connection.streams.length === 2) connection.send(goaway(1, CODE.CALM));
    },
  });
  const asked = [await rig.sent(proxy, '/ai/a', { method: 'POST', body: 'x' })];
  await until('it is there', () => server.connections[0]?.streams.length === 1);
  asked.push(await rig.sent(proxy, '/ai/b', { method: 'POST', body: 'x' }));
  const [a, b] = await Promise.all(asked.map((client) => client.answer()));
  t.match([a!.status, a!.code], [502, 'upstream_reset']);
  t.match(String(a!.body), /GOAWAY ENHANCE_YOUR_CALM/);
  t.match([b!.status, String(b!.body)], [200, 'second']);
});

e2e('a GOAWAY on an idle connection closes it', async (t, rig) => {
  const { server, proxy } = await frames(rig, { request: (id, connection) => connection.send(...whole(id)) });
  await rig.ask(proxy, '/ai/a');
  server.connections[0]!.send(goaway(1));
  await until('closed', () => server.connections[0]!.closed);
  await until('counted', () => proxy.pool().closed_by.upstream_asked === 1);
  t.equal((await rig.ask(proxy, '/ai/b')).status, 200);
});

e2e('REFUSED_STREAM goes again, any method, a few times', async (t, rig) => {
  let refuses = 1;
  const { server, proxy } = await frames(rig, {
    request: (id, connection) => connection.send(...(refuses-- > 0 ? [reset(id, CODE.REFUSED)] : whole(id))),
  });
  const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'pay' });
  t.equal(got.status, 200);
  t.match(proxy.upstream(), { retries: 1, maybe_billed_twice: 0 });
  refuses = 1000;
  const refused = await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'pay' });
  t.equal(refused.code, 'upstream_reset');
  t.equal(server.connections.flatMap(({ streams }) => streams).length, 6, 'not for ever');
});

e2e('a rolling restart: three connections in a row say goodbye to a POST, the fourth answers it', async (t, rig) => {
  const { server, proxy } = await frames(rig, {
    request: (id, connection, index) => connection.send(...(index < 3 ? [goaway(0)] : whole(id, 'fourth'))),
  });
  const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: 'pay' });
  t.match([got.status, String(got.body)], [200, 'fourth']);
  t.equal(server.connections.length, 4);
  t.match(proxy.upstream(), { retries: 3, maybe_billed_twice: 0 });
});

e2e('a streamed body whose first bytes are gone does not go again', async (t, rig) => {
  const { server, proxy } = await frames(rig, {
    request: (id, connection) => setTimeout(() => connection.send(reset(id, CODE.REFUSED)), 50),
  });
  const client = await rig.client(proxy);
  client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${8 << 20}\r\n\r\n`).send(Buffer.alloc(1 << 20));
  t.equal((await client.head()).status, 502);
  client.destroy();
  t.equal(server.connections.flatMap(({ streams }) => streams).length, 1);
});

for (const [name, code, failure] of [
  ['CANCEL', CODE.CANCEL, 'upstream_reset'],
  ['INTERNAL_ERROR', CODE.INTERNAL, 'upstream_reset'],
  ['NO_ERROR', CODE.NO_ERROR, 'upstream_reset'],
  ['PROTOCOL_ERROR', CODE.PROTOCOL, 'upstream_protocol_error'],
] as const) {
  e2e(`RST_STREAM ${name} before the head is ${failure}, after it a cut; other streams go on`, async (t, rig) => {
    const { server, proxy } = await frames(rig, {
      request: (id, connection) => {
        if (id === 1) connection.send(headers(id, OK));
        else if (id === 3) connection.send(reset(id, code));
        else {
          connection.send(headers(id, OK), data(id, 'half'));
          setTimeout(() => connection.send(reset(id, code)), 30);
        }
      },
    });
    const stays = await rig.sent(proxy, '/ai/1');
    await stays.head();
    const before = await rig.ask(proxy, '/ai/3');
    t.match([before.status, before.code], [502, failure]);
    t.equal(proxy.upstream().retries, 0, 'the server has spoken: it goes again by policy only');
    const after = await rig.ask(proxy, '/ai/5').catch((error: Error) => error);
    if (after instanceof Error) t.pass('the client’s connection was reset');
    else t.not(after.ending, 'clean');
    server.connections[0]!.send(data(1, 'whole', END_STREAM));
    t.equal((await stays.rest()).body.toString(), 'whole');
    t.equal(proxy.pool().opened, 1);
    t.match(proxy.upstream().failures, { [failure]: 1, upstream_cut: 1 });
  });
}

const BAD: Record<string, (id: number) => Buffer[]> = {
  'a status of three letters': (id) => [headers(id, [':status', 'abc'], END_HEADERS | END_STREAM)],
  'no status': (id) => [headers(id, ['x-a', '1'], END_HEADERS | END_STREAM)],
  'status 101': (id) => [headers(id, [':status', '101']), ...whole(id)],
  'an interim answer that is the last': (id) => [headers(id, [':status', '103'], END_HEADERS | END_STREAM)],
  'a field name in upper case': (id) => [headers(id, [...OK, 'X-Upper', '1']), data(id, 'x', END_STREAM)],
  'a Connection field': (id) => [headers(id, [...OK, 'connection', 'close']), data(id, 'x', END_STREAM)],
  'a Transfer-Encoding': (id) => [headers(id, [...OK, 'transfer-encoding', 'chunked']), data(id, 'x', END_STREAM)],
  'two lengths': (id) => [
    headers(id, [...OK, 'content-length', '1', 'content-length', '1']),
    data(id, 'x', END_STREAM),
  ],
  'a body before its head': (id) => [data(id, 'x', END_STREAM)],
};

for (const [name, answer] of Object.entries(BAD)) {
  e2e(`an answer with ${name} is 502 upstream_protocol_error`, async (t, rig) => {
    const { proxy } = await frames(rig, {
      request: (id, connection, index) => connection.send(...(index === 0 && id === 1 ? answer(id) : whole(id))),
    });
    const got = await rig.ask(proxy, '/ai/x');
    t.match([got.status, got.code], [502, 'upstream_protocol_error']);
    t.equal((await rig.ask(proxy, '/ai/next')).status, 200);
  });
}

e2e('a field with bytes that none may have is dropped', async (t, rig) => {
  const { proxy } = await frames(rig, {
    request: (id, connection) => {
      const bad = ['x-line', 'a\r\nevil: 1', 'x-nul', 'a\0b', 'x blank', '1', 'x-colon:', '1', 'x-good', '1'];
      connection.send(headers(id, [...OK, ...bad]), data(id, 'x', END_STREAM));
    },
  });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.status, 200);
  t.same(
    got.headers.map(([name]) => name).filter((name) => /^(x|evil)/.test(name)),
    ['x-good'],
    'nghttp2 leaves it out (RFC 9113 section 8.2.1 would have the answer refused), and node does not say so',
  );
});

for (const [name, rest] of Object.entries({
  'is shorter than its length': (id: number) => [data(id, '12345', END_STREAM)],
  'is longer than its length': (id: number) => [data(id, '1234567890123', END_STREAM)],
  'has its connection closed within': () => [],
})) {
  e2e(`a body that ${name} is cut`, async (t, rig) => {
    const { proxy } = await frames(rig, {
      request: (id, connection) => {
        connection.send(headers(id, [...OK, 'content-length', '10']), ...rest(id));
        if (rest(id).length === 0) setTimeout(() => connection.socket.destroy(), 30);
      },
    });
    const got = await rig.ask(proxy, '/ai/x').catch((error: Error) => error);
    // Of one that is too long a client has got its ten bytes, if any, by the time.
    if (!(got instanceof Error)) t.ok(got.ending !== 'clean' || got.body.length === 10 || got.status === 502);
    await proxy.idle();
    t.equal(proxy.exchanges.length, 1);
    t.match(String(proxy.exchanges[0]!.failure), /upstream_(cut|protocol_error)|null/);
    if (!name.includes('longer')) t.equal(proxy.exchanges[0]!.failure, 'upstream_cut');
  });
}

e2e('a connection that dies takes its streams with it: GET goes again, POST does not', async (t, rig) => {
  const { server, proxy } = await frames(rig, {
    request: (id, connection, index) => {
      if (id === 1 || index > 0) connection.send(...whole(id, `${index}`));
    },
  });
  await rig.ask(proxy, '/ai/first');
  const get = await rig.sent(proxy, '/ai/get');
  const post = await rig.sent(proxy, '/ai/post', { method: 'POST', body: 'x' });
  await until('both are under way', () => server.connections[0]!.streams.length === 3);
  server.connections[0]!.socket.destroy();
  t.equal((await get.answer()).body.toString(), '1');
  const lost = await post.answer();
  t.equal(lost.code, 'upstream_reset');
  t.match(String(lost.body), /the connection closed|ECONNRESET/);
  t.equal(server.connections.length, 2);
});

for (const [how, close] of Object.entries({
  'a close': ({ socket }: FrameConnection) => socket.destroy(),
  'a GOAWAY with an error': (connection: FrameConnection) => connection.send(goaway(1, CODE.INTERNAL)),
})) {
  e2e(`an answer that came whole before ${how} is whole for a slow reader too`, async (t, rig) => {
    let [sent, window] = [0, 65_535];
    const { server, proxy } = await frames(rig, {
      request: (id, connection) => {
        let streamWindow = 256 << 10;
        const go = () => {
          for (; window >= 1000 && streamWindow >= 1000; sent += 1000, window -= 1000, streamWindow -= 1000)
            connection.send(data(id, 'x'.repeat(1000)));
        };
        connection.onFrame = ({ type, id: of, payload }) => {
          if (type !== FRAME.WINDOW) return;
          if (of === 0) window += payload.readUInt32BE(0);
          else streamWindow += payload.readUInt32BE(0);
          go();
        };
        for (const { id: of, payload } of connection.of(FRAME.WINDOW)) if (of === 0) window += payload.readUInt32BE(0);
        connection.send(headers(id, OK));
        go();
      },
    });
    const client = await rig.sent(proxy, '/ai/x');
    await client.head();
    client.pause();
    for (let before = -1; before !== sent; await whileNothing(200)) before = sent;
    const [connection] = server.connections;
    connection!.send(data(1, '', END_STREAM));
    await whileNothing(20);
    close(connection!);
    await until('the connection is gone', () => proxy.pool().closed === 1);
    client.resume();
    const { body, ending } = await client.rest();
    t.equal(ending, 'clean');
    t.equal(body.length, sent);
  });
}

e2e('what is no HTTP/2 at all ends the connection, though the server keeps its end', async (t, rig) => {
  const { proxy } = await frames(rig, {
    halfOpen: true,
    request: (id, connection, index) => {
      if (index > 0) connection.send(...whole(id));
      else connection.socket.write(frame(FRAME.DATA, 0, 0, Buffer.from('on no stream')));
    },
  });
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'upstream_protocol_error');
  t.equal((await rig.ask(proxy, '/ai/y')).status, 200);
  t.equal(proxy.pool().closed_by.error, 1);
});

e2e('a pushed answer is not wanted', async (t, rig) => {
  const { server, proxy } = await frames(rig, {
    request: (id, connection, index) => {
      if (index > 0) connection.send(...whole(id));
      else {
        const promise = block(':method', 'GET', ':scheme', 'https', ':authority', 'a', ':path', '/pushed');
        connection.send(frame(FRAME.PUSH, END_HEADERS, id, Buffer.concat([Buffer.from([0, 0, 0, 2]), promise])));
      }
    },
  });
  t.match((await rig.ask(proxy, '/ai/x')).code, /upstream_(protocol_error|reset)/);
  t.equal(server.connections[0]!.of(FRAME.SETTINGS)[0]!.payload.subarray(0, 6).toString('hex'), '000200000000');
  t.equal((await rig.ask(proxy, '/ai/y')).status, 200);
});

e2e('a server that resets every stream is a failing one, and nothing is left', async (t, rig) => {
  const { proxy } = await frames(
    rig,
    { request: (id, connection) => connection.send(reset(id, CODE.REFUSED)) },
    { pool: { connections: 2 }, http2: { maxStreams: 5 } },
  );
  const answers = await Promise.all(times(60).map((i) => rig.ask(proxy, `/ai/${i}`)));
  t.ok(answers.every(({ code }) => code === 'upstream_reset'));
  t.ok(proxy.pool().opened <= 60, `${proxy.pool().opened} connections`);
});

e2e(
  'an answer that is whole by its length, of a stream that never ends, is whole; its place comes back',
  async (t, rig) => {
    const { server, proxy } = await frames(rig, {
      request: (id, connection) => connection.send(headers(id, [...OK, 'content-length', '2']), data(id, 'ok')),
    });
    t.equal((await rig.ask(proxy, '/ai/x')).ending, 'clean');
    await until('its stream is ended by us', () => server.connections[0]!.of(FRAME.RST_STREAM).length === 1, 4000);
    await until('its place is free', () => proxy.pool().streams.open === 0);
  },
);

e2e('what is left of a body when the answer is whole is not sent, and its place comes back', async (t, rig) => {
  const { server, proxy } = await frames(rig, { request: (id, connection) => connection.send(...whole(id)) });
  const client = await rig.client(proxy);
  client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${8 << 20}\r\n\r\n`).send(Buffer.alloc(1 << 20));
  t.equal((await client.head()).status, 200);
  await until('its stream is ended by us', () => server.connections[0]!.of(FRAME.RST_STREAM).length === 1);
  await until('its place is free', () => proxy.pool().streams.open === 0);
  t.equal((await rig.ask(proxy, '/ai/next')).status, 200);
  t.equal(proxy.pool().opened, 1);
});

e2e('floods of frames end the connection, not the process', async (t, rig) => {
  const floods: Record<string, () => Buffer> = {
    PING: () => frame(FRAME.PING, 0, 0, Buffer.alloc(8)),
    SETTINGS: () => settings([MAX_STREAMS, 100]),
    empty: () => frame(FRAME.DATA, 0, 1),
    CONTINUATION: () => frame(FRAME.CONTINUATION, 0, 1, block('x-a', '1')),
  };
  let flood = '';
  const { proxy } = await frames(
    rig,
    {
      request: (id, connection) => {
        if (flood === '') {
          connection.send(...whole(id));
          return;
        }
        connection.send(frame(FRAME.HEADERS, 0, id, block(...OK)));
        for (let i = 0; i < 20; i++) connection.send(Buffer.concat(times(1000).map(floods[flood]!)));
      },
    },
    { timeouts: { headersMs: 500 } },
  );
  for (flood of Object.keys(floods)) t.ok((await rig.ask(proxy, '/ai/x')).status >= 500, flood);
  flood = '';
  t.equal((await rig.ask(proxy, '/ai/y')).status, 200);
});

e2e('a drain waits for streams, and closes the connections', async (t, rig) => {
  const { server, proxy } = await scene(rig, async ({ path, stream }) => {
    if (path === '/slow') await until('it drains', () => proxy.stats().listener.draining);
    reply(stream, path);
  });
  await rig.ask(proxy, '/ai/x');
  const slow = await rig.sent(proxy, '/ai/slow');
  await until('it is there', () => server.requests.length === 2);
  const drained = proxy.assembly.drain.start();
  t.equal((await slow.answer()).body.toString(), '/slow');
  await drained;
  await proxy.stop();
  t.same(proxy.pool().closed_by, { shutdown: 1 });
});

// Behaviours 15 and 16 of DESIGN.md: hop-by-hop headers, framing that the method never decides, and bodies that outlive their answer.

import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, LAST_CHUNK } from '../support/upstream.ts';

e2e('hop-by-hop headers, and those that Connection names, go no further than aiproxy', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(
      answer(
        'ok',
        'Connection: X-Up-Hop, keep-alive\r\nX-Up-Hop: 1\r\nKeep-Alive: timeout=60\r\nProxy-Connection: x\r\n' +
          'Proxy-Authenticate: Basic\r\nTrailer: x\r\nUpgrade: h2c\r\nX-Stays: 1\r\n',
      ),
    );
  });
  const proxy = await rig.one({ url: upstream.url });
  const got = await rig.ask(proxy, '/ai/x', {
    headers:
      'Connection: close, X-Hop ,x-other\r\nConnection: X-Third\r\nX-Hop: 1\r\nx-Other: 2\r\nX-THIRD: 3\r\n' +
      'Keep-Alive: 300\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic c2VjcmV0\r\nTE: trailers\r\n' +
      'Trailer: x\r\nUpgrade: websocket\r\nX-Aiproxy-Operation: chat\r\nx-aiproxy-anything: 1\r\nX-Stays: 1\r\n',
  });
  const { headers } = upstream.requests[0]!;
  const names = headers.map(([name]) => name.toLowerCase());
  for (const gone of [
    'x-hop',
    'x-other',
    'x-third',
    'keep-alive',
    'proxy-connection',
    'proxy-authorization',
    'te',
    'trailer',
    'upgrade',
    'x-aiproxy-operation',
    'x-aiproxy-anything',
  ]) {
    t.notOk(names.includes(gone), `${gone} did not reach the upstream`);
  }
  t.ok(names.includes('x-stays'));
  t.equal(names.filter((name) => name === 'connection').length, 1, 'the Connection there is is our own');
  t.equal(upstream.requests[0]!.get('connection'), 'keep-alive');
  for (const gone of ['x-up-hop', 'proxy-connection', 'proxy-authenticate', 'trailer', 'upgrade']) {
    t.equal(got.get(gone), undefined, `${gone} did not reach the client`);
  }
  t.not(got.get('keep-alive'), 'timeout=60');
  t.equal(got.get('x-stays'), '1');
});

e2e("a client cannot remove aiproxy's own framing or Host by naming it in Connection", async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  const got = await rig.ask(proxy, '/ai/x', {
    method: 'POST',
    body: 'hello',
    headers: 'Connection: host, content-length, transfer-encoding, connection\r\n',
  });
  t.equal(got.status, 200);
  t.equal(upstream.requests[0]!.all('host').length, 1);
  t.equal(upstream.requests[0]!.get('content-length'), '5');
  t.equal(upstream.requests[0]!.body.toString(), 'hello');
});

for (const method of ['DELETE', 'GET', 'OPTIONS', 'PATCH', 'HEAD', 'QUERY']) {
  e2e(`a chunked ${method} keeps its body, and the body never becomes a request (CVE-2026-29057)`, async (t, rig) => {
    const smuggled = 'GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n';
    const upstream = await rig.upstream(async (request, connection) => {
      await request.whole();
      connection.send(method === 'HEAD' ? 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n' : answer());
    });
    const proxy = await rig.one({ url: upstream.url, pool: { connections: 1 } });
    for (const bodyBufferBytes of ['whole', 'declared'] as const) {
      const client = await rig.client(proxy);
      if (bodyBufferBytes === 'whole') {
        client.send(`${method} /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n`);
        client.send(`${smuggled.length.toString(16)}\r\n${smuggled}\r\n${LAST_CHUNK}`);
      } else {
        client.send(`${method} /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${smuggled.length}\r\n\r\n${smuggled}`);
      }
      const got = await client.answer(method === 'HEAD');
      t.equal(got.status, 200);
      const request = upstream.requests.at(-1)!;
      t.equal(request.method, method);
      t.equal(request.body.toString(), smuggled, `${bodyBufferBytes}: it arrived as a body`);
    }
    t.equal(upstream.requests.length, 2);
    t.notOk(upstream.requests.some(({ target }) => target === '/smuggled'));
  });

  e2e(`a streamed ${method} keeps its body and framing`, async (t, rig) => {
    const upstream = await rig.upstream(async (request, connection) => {
      await request.whole();
      connection.send(method === 'HEAD' ? 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n' : answer());
    });
    const proxy = await rig.one({ url: upstream.url }, { listener: { bodyBufferBytes: 1024 } });
    const body = 'GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(200);
    const chunked = await rig.client(proxy);
    chunked.send(`${method} /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n`);
    chunked.send(`${body.length.toString(16)}\r\n${body}\r\n`);
    await upstream.request(0);
    chunked.send(LAST_CHUNK);
    t.equal((await chunked.answer(method === 'HEAD')).status, 200);
    const declared = await rig.client(proxy);
    declared.send(`${method} /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    t.equal((await declared.answer(method === 'HEAD')).status, 200);
    t.equal(upstream.requests.length, 2);
    for (const request of upstream.requests) t.equal(request.body.toString(), body);
    t.equal(upstream.requests[1]!.get('content-length'), String(body.length));
  });
}

e2e('a request without a body carries none, and a POST says so', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  for (const method of ['GET', 'HEAD', 'DELETE', 'OPTIONS']) {
    await rig.ask(proxy, '/ai/x', { method });
    const request = upstream.requests.at(-1)!;
    t.equal(request.get('transfer-encoding'), undefined, method);
    t.ok((request.get('content-length') ?? '0') === '0', method);
  }
  for (const headers of ['content-length: 0\r\n', 'transfer-encoding: chunked\r\n']) {
    const client = await rig.client(proxy);
    client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\n${headers}\r\n${headers.startsWith('t') ? LAST_CHUNK : ''}`);
    t.equal((await client.answer()).status, 200);
    const request = upstream.requests.at(-1)!;
    t.equal(request.get('content-length') ?? request.get('transfer-encoding'), '0');
  }
});

e2e('a POST without any length has no body, and what follows it is the next request', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    const client = await rig.client(proxy);
    client.send(`${method} /ai/first HTTP/1.1\r\nhost: a\r\n\r\n${method} /ai/next HTTP/1.1\r\nhost: a\r\n\r\n`);
    for (let i = 0; i < 2; i++) t.equal((await client.answer()).status, 200);
    const both = upstream.requests.slice(-2);
    t.same(
      both.map((request) => `${request.method} ${request.target} ${request.bodyBytes}`),
      [`${method} /first 0`, `${method} /next 0`],
    );
    for (const request of both) {
      t.equal(request.get('transfer-encoding'), undefined, method);
      t.equal(request.get('content-length') ?? '0', '0', method);
    }
  }
});

e2e('fields that several Connection lines of an answer name are dropped, however they are spelt', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(
      answer(
        'ok',
        'connection: X-One ,\tx-two\r\nCONNECTION: ,x-THREE,\r\nx-one: 1\r\nX-TWO: 2\r\nx-two: 2\r\nX-Three: 3\r\nx-four: 4\r\n',
      ),
    );
  });
  const proxy = await rig.one({ url: upstream.url });
  const got = await rig.ask(proxy, '/ai/x');
  t.same(
    got.headers.map(([name]) => name.toLowerCase()).filter((name) => name.startsWith('x-')),
    ['x-four'],
  );
});

for (const keep of [true, false]) {
  e2e(
    `an early answer reaches the client, and the rest of the body is no request (${keep ? 'short' : 'long'} rest)`,
    async (t, rig) => {
      const upstream = await rig.upstream((_request, connection) => {
        connection.send(answer('{"error":"too large"}', '', '413 Content Too Large'));
      });
      const proxy = await rig.one({ url: upstream.url }, { listener: { bodyBufferBytes: 1024 } });
      const length = keep ? 100_000 : 100_000_000;
      const client = await rig.client(proxy);
      client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${length}\r\n\r\n`).send(Buffer.alloc(5000, 'a'));
      const got = await client.answer();
      t.equal(got.status, 413);
      t.equal(got.body.toString(), '{"error":"too large"}');
      upstream.script = (request, connection) => connection.send(answer(request.target));
      const next = 'GET /ai/next HTTP/1.1\r\nhost: a\r\n\r\n';
      if (keep) {
        // The rest looks like requests: it must be thrown away.
        const rest = 'GET /ai/smuggled HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(3000).slice(0, length - 5000);
        client.send(rest).send(next);
        t.equal((await client.answer()).body.toString(), '/next');
      } else {
        const flood = () => {
          while (!client.closed && client.socket.write(Buffer.alloc(65536, 'a')));
        };
        client.socket.on('drain', flood);
        flood();
        await client.ended();
      }
      t.notOk(upstream.requests.some(({ target }) => target === '/smuggled'));
      await proxy.idle();
    },
  );
}

e2e('a client that sends nothing more after an early answer does not keep its connection for ever', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(answer('no', '', '401 Unauthorized')));
  const proxy = await rig.one({ url: upstream.url }, { listener: { bodyBufferBytes: 1024 } });
  const client = await rig.client(proxy);
  client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n').send(Buffer.alloc(5000));
  t.equal((await client.answer()).status, 401);
  await client.ended();
  await proxy.idle();
});

e2e('a body that is read ahead and answered by a refusal is thrown away', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.client(proxy);
  client.send('POST /unknown/x HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\n');
  t.equal((await client.answer()).status, 404);
  client.send('GET /ai/smuggled HTTP/1.1\r\nhost: a\r\n\r\n!'.slice(0, 40));
  client.send('GET /ai/next HTTP/1.1\r\nhost: a\r\n\r\n');
  t.equal((await client.answer()).status, 200);
  t.same(
    upstream.requests.map(({ target }) => target),
    ['/next'],
  );
});

e2e(
  'bytes beyond the declared length are a bad request of their own, and the upstream is untouched',
  async (t, rig) => {
    const upstream = await rig.upstream();
    const proxy = await rig.one({ url: upstream.url });
    const client = await rig.client(proxy);
    client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello and more of it\r\n\r\n');
    t.equal((await client.answer()).status, 200);
    const second = await client.answer();
    t.equal(second.status, 400);
    t.equal(second.code, 'bad_request');
    await client.ended();
    t.equal(upstream.requests.length, 1);
    t.equal(upstream.requests[0]!.body.toString(), 'hello');
    await until('the connection is still good', () => proxy.pool().idle === 1);
  },
);

e2e('Expect: 100-continue is answered by aiproxy and not forwarded', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.client(proxy);
  client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n');
  t.equal((await client.head()).status, 100);
  client.send('hello');
  t.equal((await client.answer()).status, 200);
  t.equal(upstream.requests[0]!.get('expect'), undefined);
  t.equal(upstream.requests[0]!.body.toString(), 'hello');
});

e2e('an offer to upgrade is ignored and the request is served as it stands', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  const got = await rig.ask(proxy, '/ai/x', {
    headers: 'connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\n',
  });
  t.equal(got.status, 200);
  t.equal(upstream.requests[0]!.get('upgrade'), undefined);
  t.equal(upstream.requests[0]!.get('http2-settings'), undefined);
});

e2e('Connection: close of the client is obeyed after its answer', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.sent(proxy, '/ai/x', { headers: 'connection: close\r\n' });
  const got = await client.answer();
  t.match(got.get('connection'), /close/);
  t.equal(await client.ended(), 'fin');
  t.equal(proxy.pool().idle, 1, "the upstream's connection is another matter");
  await whileNothing(1);
});

// Several listeners, each with rules of its own: unix sockets, tokens, one upstream's alone; beside each other.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { Agent, request } from 'undici';
import { anyPort, clientTls, listenOn, serverTls, socketPath, unixAddress } from '../support/doors.ts';
import { HTTP2_CA, Http2Upstream } from '../support/http2-upstream.ts';
import { e2e, requestText } from '../support/rig.ts';
import { until, within } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';
import { OPENING, SWITCHED } from '../support/websocket.ts';

const TOKEN = 'a-token-never-to-be-seen';
const OVER_HTTP2 = { http2: { maxStreams: 10 }, tls: { ca: HTTP2_CA } };
const guarded = listenOn(anyPort, { authorize: ['another-token', TOKEN] });

/** A process that leaves a socket file behind, as one does that is killed. */
async function leaveSocketAt(path: string): Promise<void> {
  const script = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  await within('its end', once(spawn(process.execPath, ['-e', script, path]), 'exit'));
}

e2e('a unix socket serves who may open its file, and the file goes with the listener', async (t, rig) => {
  const upstream = await rig.upstream();
  const path = socketPath(rig);
  const proxy = await rig.one({ url: upstream.url }, { listen: [listenOn(unixAddress(path))] });
  t.same(proxy.listen[1], { text: `unix:${path}`, port: 0 });
  t.equal(statSync(path).mode & 0o777, 0o660);
  const agent = new Agent({ connect: { socketPath: path } });
  const got = await request('http://localhost/ai/x', { dispatcher: agent });
  t.equal(await got.body.text(), 'ok');
  await agent.close();
  await proxy.stop();
  t.equal(existsSync(path), false);
});

e2e('a socket file that nobody listens on any more is replaced', async (t, rig) => {
  const upstream = await rig.upstream();
  const path = socketPath(rig);
  await leaveSocketAt(path);
  t.equal(existsSync(path), true);
  const proxy = await rig.one({ url: upstream.url }, { listen: [listenOn(unixAddress(path))] });
  const client = await rig.clientAt(proxy.listen[1]!);
  client.send(requestText('/ai/x'));
  t.equal((await client.answer()).status, 200);
});

e2e(
  'a socket that somebody listens on, and a file that is none, are left alone with one clear line',
  async (t, rig) => {
    const upstream = await rig.upstream();
    const path = socketPath(rig);
    const listen = [listenOn(unixAddress(path))];
    const first = await rig.one({ url: upstream.url }, { listen });
    await t.rejects(rig.one({ url: upstream.url }, { listen }), {
      message: `cannot listen on unix:${path}: the address is in use`,
    });
    const client = await rig.clientAt(first.listen[1]!);
    client.send(requestText('/ai/x'));
    t.equal((await client.answer()).status, 200, 'the first one serves on');
    const plain = `${path}.txt`;
    writeFileSync(plain, 'precious');
    await t.rejects(rig.one({ url: upstream.url }, { listen: [listenOn(unixAddress(plain))] }), /not a socket/);
    t.equal(existsSync(plain), true);
    await rm(plain);
  },
);

e2e('where a token is asked for, only who brings exactly one right one gets any further', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url }, { listen: [guarded] });
  const client = await rig.clientAt(proxy.listen[1]!);
  const wrong = [
    '',
    'x-aiproxy-token:\r\n',
    'x-aiproxy-token: wrong\r\n',
    `x-aiproxy-token: ${TOKEN.slice(1)}\r\n`,
    `x-aiproxy-token: ${TOKEN}${TOKEN}\r\n`,
    `x-aiproxy-token: ${TOKEN}\r\nx-aiproxy-token: ${TOKEN}\r\n`,
    `x-aiproxy-token: ${TOKEN}\r\nX-Aiproxy-Token: wrong\r\n`,
    `x-aiproxy-token: ${TOKEN}, ${TOKEN}\r\n`,
    `authorization: Bearer ${TOKEN}\r\n`,
  ];
  const seen = new Set<string>();
  for (const headers of wrong) {
    // The path that is, one that is not, and one that is none: nobody learns which is which.
    for (const path of ['/ai/x', '/nobody/x', '/..//']) {
      client.send(`POST ${path} HTTP/1.1\r\nhost: a\r\n${headers}content-length: 5\r\n\r\nhello`);
      const got = await client.answer();
      t.equal(got.status, 401, headers);
      t.equal(got.code, 'unauthorized');
      t.equal(got.get('www-authenticate'), 'AiproxyToken');
      seen.add(got.body.toString());
    }
  }
  t.equal(seen.size, 1, 'all get the same answer');
  for (const token of [TOKEN, 'another-token']) {
    client.send(`GET /ai/right HTTP/1.1\r\nhost: a\r\nauthorization: Bearer api\r\nX-AIProxy-Token: ${token}\r\n\r\n`);
    t.equal((await client.answer()).status, 200);
  }
  t.same(
    upstream.requests.map(({ target }) => target),
    ['/right', '/right'],
  );
  t.equal(upstream.requests[0]!.get('authorization'), 'Bearer api', "the API's own credential goes on");
  t.notMatch(upstream.connections[0]!.text, /token/i);
  t.equal(proxy.stats().listener.refused.unauthorized, wrong.length * 3);
  const log = proxy.rawLog.join('');
  t.notMatch(log, TOKEN);
  t.notMatch(log, 'another-token');
  t.match(proxy.exchanges[0], { failure: 'unauthorized', status: 401, upstream: '' });
});

e2e('a token is asked for before an upgrade too, and not for /healthz', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, websocket: { max: 1 } }, { listen: [guarded] });
  const client = await rig.clientAt(proxy.listen[1]!);
  client.send(requestText('/healthz'));
  t.equal((await client.answer()).status, 200);
  const upgrade =
    'connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n';
  client.send(requestText('/ai/x', { headers: upgrade }));
  t.equal((await client.answer()).code, 'unauthorized');
  t.equal(upstream.connections.length, 0);
});

e2e('a token goes no further: not with a WebSocket, not over HTTP/2, not where none is asked for', async (t, rig) => {
  const plain = await rig.upstream(
    (request, connection) => connection.send(request.get('upgrade') ? SWITCHED : answer()),
    { allowHalfOpen: false },
  );
  const second = await Http2Upstream.start(({ stream }) => {
    stream.respond({ ':status': 200 });
    stream.end('ok');
  });
  rig.closes(second);
  const proxy = await rig.proxy({
    upstreams: { ai: { url: plain.url, websocket: { max: 1 } }, two: { url: second.url, ...OVER_HTTP2 } },
    listen: [guarded],
  });
  const token = `X-Aiproxy-Token: ${TOKEN}\r\n`;
  const socket = await rig.clientAt(proxy.listen[1]!);
  socket.send(requestText('/ai/socket', { headers: OPENING + token }));
  t.equal((await socket.head()).status, 101);
  socket.reset();
  for (const { port } of proxy.listen) {
    const client = await rig.clientAt({ text: `127.0.0.1:${port}`, port });
    for (const path of ['/ai/x', '/two/x']) {
      client.send(requestText(path, { headers: token }));
      t.equal((await client.answer()).status, 200, `${path} of ${port}`);
    }
  }
  for (const { text } of plain.connections) t.notMatch(text, /token/i);
  t.equal(second.requests.length, 2);
  for (const { raw } of second.requests) t.notMatch(raw.join(), /token/i);
  t.notMatch(proxy.rawLog.join(''), TOKEN);
});

e2e('on a listener of one upstream the whole path is that upstream’s', async (t, rig) => {
  const upstream = await rig.upstream((request, connection) => connection.send(answer(request.target)));
  const other = await rig.upstream();
  const proxy = await rig.proxy({
    upstreams: {
      ai: { url: `${upstream.url}/base`, bypass: ['/health'], cache: { rules: [{ ttlMs: 60_000 }] } },
      other: { url: other.url },
    },
    listen: [listenOn(anyPort, { upstream: 'ai' })],
  });
  const client = await rig.clientAt(proxy.listen[1]!);
  const ask = async (path: string) => {
    client.send(requestText(path));
    return await client.answer();
  };
  for (const path of ['/v1/models?limit=2', '/', '/?q', '/other/x', '/ai/x', '/healthz', '/health']) {
    t.equal((await ask(path)).body.toString(), `/base${path}`);
  }
  const odd = '/v1/a%20b%2Fc;d=%C3%A9?x=//../%zz';
  t.equal((await ask(odd)).body.toString(), `/base${odd}`, 'byte for byte');
  for (const path of ['//x', '/../x', '/a/..', '/%2e%2e/x', '/a\\b', '/x#y', 'http://evil.test/x', '*']) {
    client.send(`GET ${path} HTTP/1.1\r\nhost: a\r\n\r\n`);
    t.equal((await client.answer()).code, 'invalid_target', path);
    if (client.state === 'open' && path.startsWith('/')) continue;
    client.halfClose();
    break;
  }
  t.equal(other.requests.length, 0);
  const sent = upstream.requests.length;
  const shared = await rig.ask(proxy, '/ai/v1/models?limit=2');
  t.match(shared.get('cache-status'), /hit/, 'stored under one key, whichever way it was asked for');
  t.equal(upstream.requests.length, sent);
  const lines = proxy.exchanges.filter(({ path }) => path === '/v1/models');
  t.same(
    lines.map(({ upstream, path }) => [upstream, path]),
    [
      ['ai', '/v1/models'],
      ['ai', '/v1/models'],
    ],
  );
  t.equal(proxy.exchanges.find(({ path }) => path === '/health')!.cache, 'bypass');
});

e2e('on a listener of one upstream with a token /healthz is not open either: it is the upstream’s', async (t, rig) => {
  const upstream = await rig.upstream();
  const own = listenOn(anyPort, { upstream: 'ai', authorize: [TOKEN] });
  const proxy = await rig.one({ url: upstream.url }, { listen: [own] });
  const client = await rig.clientAt(proxy.listen[1]!);
  client.send(requestText('/healthz'));
  t.equal((await client.answer()).code, 'unauthorized');
  client.send(requestText('/healthz', { headers: `x-aiproxy-token: ${TOKEN}\r\n` }));
  t.equal((await client.answer()).body.toString(), 'ok');
  t.equal(upstream.requests.length, 1);
});

e2e('listeners of all kinds work beside each other on the same upstreams, and drain together', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.send(chunkedHead() + chunk('one')));
  const path = socketPath(rig);
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'gate' },
    {
      limiters: { gate: { maxConcurrent: 4 } },
      listen: [
        listenOn(anyPort, { tls: serverTls, authorize: [TOKEN] }),
        listenOn(unixAddress(path)),
        listenOn(anyPort, { upstream: 'ai' }),
        listenOn({ host: '::1', port: 0, path: '', text: '[::1]:0' }),
      ],
    },
  );
  const [plain, secure, unix, own, six] = proxy.listen;
  t.match(plain!.text, /^127\.0\.0\.1:\d+$/);
  t.match(six!.text, /^\[::1\]:\d+$/);
  t.equal(six!.text, `[::1]:${six!.port}`);
  const token = `x-aiproxy-token: ${TOKEN}\r\n`;
  const clients = [
    (await rig.clientAt(plain!)).send(requestText('/ai/x')),
    (await rig.clientAt(secure!, clientTls)).send(requestText('/ai/x', { headers: token })),
    (await rig.clientAt(unix!)).send(requestText('/ai/x')),
    (await rig.clientAt(own!)).send(requestText('/x')),
  ];
  for (const client of clients) {
    t.equal((await client.head()).status, 200);
    t.equal(String(await client.piece()), 'one');
  }
  const queued = (await rig.clientAt(six!)).send(requestText('/ai/x'));
  await until('the fifth waits: they share the limiter', () => proxy.limiter('gate').queued === 1);
  t.ok(upstream.requests.every(({ target }) => target === '/x'));
  const idle = [await rig.clientAt(secure!, clientTls), await rig.clientAt(unix!), await rig.clientAt(own!)];
  await until('all are there', () => proxy.stats().listener.connections === 8);
  const drained = proxy.assembly.drain.start();
  for (const client of idle) t.equal(await client.ended(), 'fin');
  for (const at of proxy.listen) await t.rejects(rig.clientAt(at), /ECONNREFUSED|ENOENT/, at.text);
  for (const { socket } of upstream.connections) socket.write(chunk('two') + LAST_CHUNK);
  for (const client of clients) {
    t.equal((await client.rest()).body.toString(), 'two');
    client.halfClose();
  }
  await queued.head();
  upstream.requests[4]!.connection.send(LAST_CHUNK);
  t.equal((await queued.rest()).ending, 'clean');
  queued.halfClose();
  t.equal(await drained, 0, 'nothing was cut');
});

e2e('a listener that cannot be had takes those before it down again', async (t, rig) => {
  const upstream = await rig.upstream();
  const path = socketPath(rig);
  const taken = { host: '127.0.0.1', port: upstream.port, path: '', text: `127.0.0.1:${upstream.port}` };
  await t.rejects(rig.one({ url: upstream.url }, { listen: [listenOn(unixAddress(path)), listenOn(taken)] }), {
    message: `cannot listen on ${taken.text}: the address is in use`,
  });
  t.equal(existsSync(path), false);
});

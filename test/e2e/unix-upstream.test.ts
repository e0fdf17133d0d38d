// Upstreams behind a unix socket.

import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { e2e, type Rig } from '../support/rig.ts';
import { until } from '../support/until.ts';

async function socketServer(rig: Rig, answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const folder = await mkdtemp(join(tmpdir(), 'aiproxy-'));
  const path = join(folder, 'api.sock');
  const server = createServer(answer);
  const seen = { sockets: 0 };
  server.on('connection', () => seen.sockets++);
  const listen = async () => {
    server.listen(path);
    await once(server, 'listening');
  };
  const close = async () => {
    if (!server.listening) return;
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  };
  await listen();
  rig.closes({
    close: async () => {
      await close();
      await rm(folder, { recursive: true });
    },
  });
  return { path, seen, listen, close };
}

e2e('requests go over a unix socket, on connections that are kept, below the base path', async (t, rig) => {
  const server = await socketServer(rig, (request, response) => {
    request.resume().on('end', () => response.end(`${request.method} ${request.url} ${request.headers.host}`));
  });
  const proxy = await rig.one({ url: `unix:${server.path}:/v1` });
  t.equal((await rig.ask(proxy, '/ai/x?q=1')).body.toString(), 'GET /v1/x?q=1 localhost');
  await until('idle', () => proxy.pool().idle === 1);
  t.equal((await rig.ask(proxy, '/ai/y', { method: 'POST', body: 'x' })).body.toString(), 'POST /v1/y localhost');
  t.equal(server.seen.sockets, 1);
  t.match(proxy.pool(), { opened: 1, reused: 1, protocol: 'h1' });
  t.equal(proxy.upstream().url, `unix:${server.path}:/v1`);
  t.equal(proxy.upstream().targets[0]!.url, `unix:${server.path}:/v1`);
});

e2e('a socket that is not there is 502 connect_failed, and is found when it is', async (t, rig) => {
  const server = await socketServer(rig, (_request, response) => response.end('ok'));
  await server.close();
  const proxy = await rig.one({ url: `unix:${server.path}` });
  const got = await rig.ask(proxy, '/ai/x');
  t.match([got.status, got.code], [502, 'connect_failed']);
  t.match(String(got.body), /ENOENT \(tcp\)/, 'nothing was looked up');
  t.match(String(got.body), /ENOENT|ECONNREFUSED/);
  t.notMatch(String(got.body), server.path, 'where it is, is nobody’s business');
  await server.listen();
  t.equal((await rig.ask(proxy, '/ai/x')).status, 200);
});

e2e('long bodies pass over a unix socket', async (t, rig) => {
  const server = await socketServer(rig, (request, response) => {
    request.pipe(response);
  });
  const proxy = await rig.one({ url: `unix:${server.path}` });
  const body = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => (i * 7) & 255));
  t.ok((await rig.ask(proxy, '/ai/x', { method: 'PUT', body })).body.equals(body));
});

e2e('a unix socket that dies within an answer is a cut, and failover leaves it', async (t, rig) => {
  const server = await socketServer(rig, (request, response) => {
    if (request.url === '/cut') {
      response.writeHead(200, { 'content-length': 10 });
      response.write('half');
      setTimeout(() => response.destroy(), 20);
    } else response.end('socket');
  });
  const other = await rig.http((_request, response) => response.end('tcp'));
  const proxy = await rig.one({
    targets: [{ url: `unix:${server.path}` }, { url: other.url, priority: 1 }],
    breaker: { consecutiveFailures: 1, openMs: 60_000 },
  });
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'socket');
  const cut = await rig.ask(proxy, '/ai/cut').catch(() => null);
  if (cut) t.not(cut.ending, 'clean');
  t.equal((await rig.ask(proxy, '/ai/x')).body.toString(), 'tcp');
});

// Python's httpx as the seed's backend uses it (one AsyncClient, JSON in and out, SSE lines), through aiproxy.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { openaiMock } from '../../src/demo/mock-openai.ts';
import { MockServer } from '../../src/demo/mock-server.ts';
import type { TestProxy } from '../support/proxy.ts';
import type { Rig } from '../support/rig.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { chunk, chunkedHead } from '../support/upstream.ts';

const script = fileURLToPath(new URL('../support/httpx_client.py', import.meta.url));
/** Debian's own first: that is where python3-httpx installs to. */
const python = ['/usr/bin/python3', 'python3'].find((path) => spawnSync(path, ['-c', 'import httpx']).status === 0);

/** Runs the calls and gives what each printed. */
async function httpx(proxy: TestProxy, ...calls: string[]): Promise<Record<string, unknown>[]> {
  const child = spawn(python!, [script, `${proxy.url}/ai/v1`, ...calls], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let err = '';
  child.stdout.on('data', (text) => {
    out += text;
  });
  child.stderr.on('data', (text) => {
    err += text;
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(err);
  return out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

async function mock(rig: Rig) {
  const server = new MockServer({ answer: openaiMock(5), tls: null });
  const url = `http://127.0.0.1:${await server.listen()}`;
  rig.closes(server);
  return { server, proxy: await rig.one({ url, pool: { connections: 5 } }) };
}

if (python === undefined) {
  const skip = 'no python3 with the module httpx here (Debian: apt install python3-httpx)';
  void t.test('httpx through aiproxy', { skip }, async () => {});
} else {
  e2e('chat, streamed chat, an 8 MB image, embeddings and an API error', async (t, rig) => {
    const { server, proxy } = await mock(rig);
    const [chat, stream, image, embeddings, error] = await httpx(
      proxy,
      'chat',
      'stream',
      'image',
      'embeddings',
      'error',
    );
    t.match(chat, { content: /105 kcal/, timing: /ttfb/ });
    t.match(stream, { content: /^A banana of 118 g .* fat\.$/, done: true });
    t.ok(Number(stream!.pieces) > 5);
    t.match(image, { content: new RegExp(`${8 << 20} bytes`) });
    t.same(embeddings!.lengths, [1536, 1536]);
    t.match(error, { status: 404, code: 'model_not_found' });
    t.equal(server.counters.requests, 5);
    t.equal(server.counters.connections, 1, 'all five over one connection');
  });

  e2e('40 calls at once share the connections there are', async (t, rig) => {
    const { server, proxy } = await mock(rig);
    const [many] = await httpx(proxy, 'many');
    t.same(many, { call: 'many', statuses: [200], count: 40 });
    t.ok(server.counters.connections <= 5);
  });

  e2e('an abort within a stream reaches the upstream', async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => {
      connection.send(chunkedHead('content-type: text/event-stream\r\n') + chunk('data: 1\n\n'));
    });
    const proxy = await rig.one({ url: upstream.url });
    const [abort] = await httpx(proxy, 'abort');
    t.same(abort, { call: 'abort', first: 'data: 1' });
    await until('the upstream is cancelled', () => upstream.connections[0]!.left, 1000);
    await proxy.idle(1000);
    t.equal(proxy.upstream().failures.client_gone, 1);
  });

  e2e('a stream that is cut raises', async (t, rig) => {
    const upstream = await rig.upstream((_request, connection) => {
      connection.send(chunkedHead('content-type: text/event-stream\r\n') + chunk('data: 1\n\n'));
      setTimeout(() => connection.end(), 50);
    });
    const proxy = await rig.one({ url: upstream.url });
    const [cut] = await httpx(proxy, 'cut');
    t.match(cut, { raised: /ReadError|RemoteProtocolError/ });
  });
}

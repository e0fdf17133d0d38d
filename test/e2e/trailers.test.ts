// What an answer says after its body reaches the client, and nothing of it can be taken for framing.

import { once } from 'node:events';
import { Agent, get, type IncomingMessage } from 'node:http';
import type { Test } from 'tap';
import type { TestProxy } from '../support/proxy.ts';
import { e2e } from '../support/rig.ts';
import { chunk, chunkedHead } from '../support/upstream.ts';

/** By a client that understands them. */
async function ask(t: Test, proxy: TestProxy, path = '/ai/x'): Promise<IncomingMessage & { text: string }> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.teardown(() => agent.destroy());
  const request = get({ port: proxy.port, host: '127.0.0.1', path, agent });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  let text = '';
  for await (const bytes of response) text += bytes;
  agent.destroy();
  return Object.assign(response, { text });
}

const body = `${chunkedHead('trailer: x-sum\r\n')}${chunk('hello')}`;

e2e('trailers pass, in their order, with duplicates', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`${body}0\r\nX-Sum: 42\r\nserver-timing: a\r\nServer-Timing: b\r\n\r\n`);
  });
  const proxy = await rig.one({ url: upstream.url });
  const got = await ask(t, proxy);
  t.equal(got.text, 'hello');
  t.same(got.rawTrailers, ['X-Sum', '42', 'server-timing', 'a', 'Server-Timing', 'b']);
});

e2e('what may not stand behind a body does not pass, and the next answer is read right', async (t, rig) => {
  const hostile =
    'Transfer-Encoding: chunked\r\nSet-Cookie: a=b\r\nHost: evil\r\nContent-Type: text/html\r\nKeep-Alive: 1\r\n';
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`${body}0\r\n${hostile}X-Sum: 42\r\n\r\n`);
  });
  const proxy = await rig.one({ url: upstream.url });
  for (const _ of '12') t.same((await ask(t, proxy)).rawTrailers, ['X-Sum', '42']);
  t.equal(upstream.requests.length, 2);
});

e2e('a Content-Length behind a body is no answer: the client’s connection is reset', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`${body}0\r\nContent-Length: 99\r\n\r\n`);
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.sent(proxy, '/ai/x');
  t.equal((await client.answer()).ending, 'reset');
  await proxy.idle();
  t.match(proxy.exchanges, [{ status: 200, failure: 'upstream_protocol_error' }]);
});

e2e('a client of HTTP/1.0 gets the body without them', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`${body}0\r\nX-Sum: 42\r\n\r\n`);
  });
  const proxy = await rig.one({ url: upstream.url });
  const client = await rig.client(proxy);
  client.send('GET /ai/x HTTP/1.0\r\nhost: a\r\n\r\n');
  const got = await client.answer();
  t.equal(got.body.toString(), 'hello');
});

e2e('who may share a fetch gets the body without them: they are not stored', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send(`${body}0\r\nX-Sum: 42\r\n\r\n`);
  });
  const proxy = await rig.one({ url: upstream.url, coalesce: true });
  const got = await ask(t, proxy);
  t.same([got.text, got.rawTrailers], ['hello', []]);
});

// Behaviour 13 of DESIGN.md: credentials and query values never reach a log line, an error body, the stats or the config dump.

import { parseConfig } from '../../src/config/load.ts';
import { assertNothingLeft, TestProxy } from '../support/proxy.ts';
import { e2e } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, type Script } from '../support/upstream.ts';

const KEY = 'sk-live-0123456789abcdef';
const HEADERS =
  `authorization: Bearer ${KEY}\r\nx-api-key: ${KEY}\r\napi-key: ${KEY}\r\nx-goog-api-key: ${KEY}\r\n` +
  `cookie: session=${KEY}\r\nproxy-authorization: Basic ${KEY}\r\n`;

/** Every way to fail at the upstream that a script can show. */
const scripts: Record<string, Script> = {
  success: (_request, connection) => connection.send(answer()),
  echo: (request, connection) =>
    connection.send(answer('x', `set-cookie: a=${KEY}\r\n`, '401 Unauthorized')) && request,
  reset: (_request, connection) => connection.resetAndDestroy(),
  fin: (_request, connection) => connection.end(),
  'junk that echoes': (request, connection) => connection.send(`JUNK ${request.text}`),
  'a bad header that echoes': (_request, connection) => connection.send(`HTTP/1.1 200 OK\r\nx: ${KEY}\x01\r\n\r\n`),
  'a bad reason that echoes': (_request, connection) =>
    connection.send(`HTTP/1.1 200 ${KEY}\x01\r\ncontent-length: 0\r\n\r\n`),
  'a bad chunk that echoes': (_request, connection) => connection.send(`${chunkedHead()}${chunk('x')}${KEY}\r\n`),
  'a head too large': (_request, connection) => connection.send(answer('x', `x: ${KEY.repeat(3000)}\r\n`)),
  silence: () => {},
  'a silent stream': (_request, connection) => connection.send(chunkedHead()),
};

e2e('credentials and query values are in no log line, no error body and no number, on every path', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.proxy({
    upstreams: {
      ai: { url: upstream.url, limiter: 'gate', timeouts: { headersMs: 60, idleMs: 60, totalMs: 2000 } },
      dead: { url: 'http://127.0.0.1:1' },
      lost: { url: 'http://no-such-host.invalid:80' },
      plain: { url: upstream.url.replace('http:', 'https:'), timeouts: { connectMs: 500 } },
    },
    limiters: { gate: { maxConcurrent: 1, maxQueue: 1, queueTimeoutMs: 100 } },
    log: { level: 'trace' },
    listener: { maxHeaders: 50 },
  });
  const bodies: string[] = [];
  const ask = async (path: string, extra = '') => {
    const got = await rig.ask(proxy, `${path}?key=${KEY}&a=1`, {
      method: 'POST',
      body: `{"key":"${KEY}"}`,
      headers: HEADERS + extra,
    });
    if (got.get('x-aiproxy-error')) bodies.push(got.text + got.body.toString());
    return got;
  };
  for (const script of Object.values(scripts)) {
    upstream.script = script;
    await ask('/ai/v1/x').catch(() => {});
    await proxy.idle();
  }
  upstream.script = (_request, connection) => connection.send('not TLS\r\n\r\n');
  for (const path of ['/dead/x', '/lost/x', '/plain/x', '/unknown/x', '/ai/../x', '/ai//x']) await ask(path);
  await ask('/ai/x', Array.from({ length: 60 }, (_, i) => `x-${i}: ${KEY}\r\n`).join(''));
  // Refused by the listener itself.
  for (const bytes of [
    `GET /ai/x?key=${KEY} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ${KEY}\r\nx y: ${KEY}\r\n\r\n`,
    `GET /ai/x?key=${KEY} HTTP/9.9\r\nhost: a\r\nauthorization: Bearer ${KEY}\r\n\r\n`,
    `GET http://user:${KEY}@a/ai/x HTTP/1.1\r\nhost: a\r\n\r\n`,
    `GET /ai/x#${KEY} HTTP/1.1\r\nhost: a\r\n\r\n`,
    `GET /ai/x HTTP/1.1\r\nhost: user:${KEY}@a\r\n\r\n`,
    `${KEY} /ai/x HTTP/1.1\r\nhost: a,\r\n\r\n`,
    `POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${KEY}\r\n\r\n`,
    `POST /ai/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n${KEY}\r\n`,
  ]) {
    const client = await rig.client(proxy);
    client.send(bytes);
    const got = await client.answer();
    bodies.push(got.text + got.body.toString());
  }
  // In the queue: full, and too long.
  upstream.script = (_request, connection) => setTimeout(() => connection.send(answer()), 50);
  await Promise.all([ask('/ai/1'), ask('/ai/2'), ask('/ai/3')]);
  upstream.script = () => {};
  const leaver = await rig.sent(proxy, `/ai/x?key=${KEY}`, { headers: HEADERS });
  await until('it is with the upstream', () => proxy.limiter('gate').in_flight === 1);
  leaver.reset();
  await proxy.idle();
  t.ok(bodies.length > 15);
  t.notOk(
    bodies.find((body) => body.includes(KEY)),
    'no error body holds the key',
  );
  const method = proxy.exchanges.filter((line) => line.method === KEY);
  t.equal(proxy.rawLog.filter((line) => line.includes(KEY)).length, method.length, 'no log line holds the key');
  t.notOk(JSON.stringify(proxy.stats()).includes(KEY), 'no number is named by it');
  const metrics = await fetch(`http://127.0.0.1:${proxy.statsPort}/metrics`);
  t.notOk((await metrics.text()).includes(KEY));
});

e2e('GET /config shows no secret', async (t, rig) => {
  const upstream = await rig.upstream();
  const text = `
listen: 127.0.0.1:0
stats: 127.0.0.1:0
upstreams:
  ai:
    url: \${BASE}
    pool: { connections: 7 }
`;
  const { dump } = parseConfig(text, 'aiproxy.yaml', { BASE: `${upstream.url}/${KEY}` }, {});
  const proxy = await TestProxy.start({ upstreams: { ai: { url: upstream.url } } }, dump);
  const shown = await (await fetch(`http://127.0.0.1:${proxy.statsPort}/config`)).text();
  t.match(shown, /"connections":\s*7/, 'it is the config');
  t.notOk(shown.includes(KEY), 'but what came from the environment is not in it');
  await assertNothingLeft(t, proxy);
});

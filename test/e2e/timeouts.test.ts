// Behaviour 6 of DESIGN.md: every timeout fires, with its own code, in time; before the head as 504 JSON, after it as a cut connection.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import type { Rig } from '../support/rig.ts';
import { e2e } from '../support/rig.ts';
import { until, whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK } from '../support/upstream.ts';

/** The precision asked for is 50 ms; the client's own turns of the loop count too. */
const EARLY_MS = 5;
const LATE_MS = 80;
/** This machine is shared: what the loop itself stood still is nobody's lateness. */
const stalls = monitorEventLoopDelay({ resolution: 5 });
stalls.enable();

/** Starts measuring. */
function clock(): number {
  stalls.reset();
  return performance.now();
}

function inTime(t: { ok(value: unknown, message: string): unknown }, started: number, expectedMs: number): void {
  const tookMs = performance.now() - started;
  const stalledMs = 2 * (stalls.max / 1e6);
  t.ok(
    tookMs >= expectedMs - EARLY_MS && tookMs <= expectedMs + LATE_MS + stalledMs,
    `after ${Math.round(tookMs)} ms, not ${expectedMs} (the loop stood still for up to ${Math.round(stalledMs / 2)} ms)`,
  );
}

e2e('headers: an upstream that accepts and says nothing is 504 headers_timeout', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url, timeouts: { headersMs: 200 } });
  const started = clock();
  const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: '{}' });
  inTime(t, started, 200);
  t.equal(got.status, 504);
  t.equal(got.code, 'headers_timeout');
  t.equal(got.get('x-should-retry'), 'false');
  await until('the upstream is cancelled', () => upstream.connections[0]!.left);
});

e2e('headers: the time runs from the request fully sent, not from its first byte', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one(
    { url: upstream.url, timeouts: { headersMs: 150 } },
    { listener: { bodyBufferBytes: 1024 } },
  );
  const client = await rig.client(proxy);
  client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 4000\r\n\r\n').send(Buffer.alloc(2000));
  await upstream.request(0);
  await whileNothing(300);
  t.equal(proxy.upstream().in_flight, 1, 'still sending after twice the timeout');
  const started = clock();
  client.send(Buffer.alloc(2000));
  t.equal((await client.answer()).code, 'headers_timeout');
  inTime(t, started, 150);
});

e2e('headers: interim answers do not put the deadline off', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    for (let i = 0; i < 10; i++) {
      await whileNothing(50);
      connection.send('HTTP/1.1 102 Processing\r\n\r\n');
    }
  });
  const proxy = await rig.one({ url: upstream.url, timeouts: { headersMs: 200 } });
  const started = clock();
  t.equal((await rig.ask(proxy, '/ai/x')).code, 'headers_timeout');
  inTime(t, started, 200);
});

e2e(
  'connect: a TLS server that never answers the handshake is 504 connect_timeout, and a retry is safe',
  async (t, rig) => {
    const silent = await rig.upstream(() => {});
    const proxy = await rig.one({ url: `https://127.0.0.1:${silent.port}`, timeouts: { connectMs: 200 } });
    const started = clock();
    const got = await rig.ask(proxy, '/ai/x', { method: 'POST', body: '{}' });
    inTime(t, started, 200);
    t.equal(got.status, 504);
    t.equal(got.code, 'connect_timeout');
    t.equal(got.get('x-should-retry'), undefined, 'nothing was sent');
    t.match(JSON.parse(got.body.toString()).error.message, /tls/);
    t.equal(proxy.upstream().retries, 0, 'the time is up: no second try');
  },
);

e2e('connect: a SYN that nobody answers is 504 connect_timeout', async (t, rig) => {
  const blackHole = await fullBacklog(rig);
  if (blackHole === null) {
    t.comment('no python3 to hold a socket that accepts nothing');
    return;
  }
  const proxy = await rig.one({ url: `http://127.0.0.1:${blackHole}`, timeouts: { connectMs: 200 } });
  const started = clock();
  const got = await rig.ask(proxy, '/ai/x');
  inTime(t, started, 200);
  t.equal(got.code, 'connect_timeout');
});

/** A port whose backlog is full, so that a SYN is dropped (Linux). Node accepts everything, so somebody else must hold it. */
async function fullBacklog(rig: Rig): Promise<number | null> {
  const source = `
import socket, sys
server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen(0)
full = []
for _ in range(4):
    s = socket.socket(); s.setblocking(False)
    s.connect_ex(server.getsockname()); full.append(s)
print(server.getsockname()[1], flush=True)
sys.stdin.read()`;
  const child = spawn('python3', ['-c', source], { stdio: ['pipe', 'pipe', 'inherit'] });
  const failed = once(child, 'error').then(() => null);
  const line = await Promise.race([failed, once(createInterface(child.stdout), 'line').then(([text]) => Number(text))]);
  if (line === null) return null;
  rig.closes({
    close: async () => {
      child.stdin.end();
      if (child.exitCode === null) await once(child, 'exit');
    },
  });
  return line;
}

for (const [kind, filler] of [
  ['blank lines', '\n'],
  [': keep-alive comments', ': keep-alive\n\n'],
] as const) {
  e2e(`first_event: an answer that holds nothing but ${kind} is cut in time`, async (t, rig) => {
    const upstream = await rig.upstream(async (_request, connection) => {
      connection.send(chunkedHead('content-type: text/event-stream\r\n'));
      while (!connection.left) {
        connection.send(chunk(filler));
        await whileNothing(30);
      }
    });
    const proxy = await rig.one({ url: upstream.url, timeouts: { firstEventMs: 250, idleMs: 100 } });
    const started = clock();
    const client = await rig.sent(proxy, '/ai/x', { method: 'POST', body: '{}' });
    t.equal((await client.head()).status, 200, 'the head and the filler pass: the client sees life');
    t.equal(String(await client.piece()), filler);
    t.equal((await client.rest()).ending, 'reset');
    inTime(t, started, 250);
    await proxy.idle();
    t.equal(proxy.upstream().failures.first_event_timeout, 1);
    await until('the upstream is cancelled', () => upstream.connections[0]!.left);
  });
}

e2e('first_event: before the head it is a 504', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one({ url: upstream.url, timeouts: { firstEventMs: 150 } });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.status, 504);
  t.equal(got.code, 'first_event_timeout');
});

e2e('first_event: one real event ends it, however long the rest takes', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    connection.send(chunkedHead()).send(chunk(': keep-alive\n\n'));
    await whileNothing(60);
    connection.send(chunk('data: {}\n\n'));
    await whileNothing(250);
    connection.send(chunk('data: [DONE]\n\n') + LAST_CHUNK);
  });
  const proxy = await rig.one({ url: upstream.url, timeouts: { firstEventMs: 150 } });
  const got = await rig.ask(proxy, '/ai/x');
  t.equal(got.ending, 'clean');
  t.match(got.body.toString(), /DONE/);
});

e2e('idle: a stream that falls silent is cut in time, and any byte puts it off', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    connection.send(chunkedHead());
    for (let i = 0; i < 5; i++) {
      connection.send(chunk(': keep-alive\n\n'));
      await whileNothing(100);
    }
  });
  const proxy = await rig.one({ url: upstream.url, timeouts: { idleMs: 200 } });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  for (let i = 0; i < 5; i++) await client.piece();
  const started = clock();
  t.equal((await client.rest()).ending, 'reset');
  inTime(t, started, 200);
  await proxy.idle();
  t.equal(proxy.upstream().failures.idle_timeout, 1);
});

e2e('idle: an upstream that stops reading a long body is 504 idle_timeout', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => connection.socket.pause());
  const proxy = await rig.one({ url: upstream.url, timeouts: { idleMs: 200 } });
  const client = await rig.client(proxy);
  client.send(`POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: ${64 << 20}\r\n\r\n`);
  const flood = () => {
    while (!client.closed && client.socket.write(Buffer.alloc(65536)));
  };
  client.socket.on('drain', flood);
  flood();
  const got = await client.answer();
  t.equal(got.status, 504);
  t.equal(got.code, 'idle_timeout');
});

e2e('idle: a client that does not read holds the upstream up, and that is not its silence', async (t, rig) => {
  const upstream = await rig.upstream((_request, connection) => {
    connection.send('HTTP/1.1 200 OK\r\n\r\n');
    for (let i = 0; i < 400; i++) connection.send(Buffer.alloc(65536));
    connection.end();
  });
  const proxy = await rig.one({ url: upstream.url, timeouts: { idleMs: 100 } });
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  client.pause();
  await whileNothing(500);
  t.equal(proxy.upstream().in_flight, 1);
  client.resume();
  const { body, ending } = await client.rest();
  t.equal(ending, 'clean');
  t.ok(body.length > 300 * 65536);
});

e2e('total: runs from acceptance, waiting in the queue included', async (t, rig) => {
  const upstream = await rig.upstream(() => {});
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'gate', timeouts: { totalMs: 250 } },
    { limiters: { gate: { maxConcurrent: 1 } } },
  );
  await rig.sent(proxy, '/ai/first');
  await upstream.request(0);
  await whileNothing(100);
  const started = clock();
  const got = await rig.ask(proxy, '/ai/second');
  inTime(t, started, 250);
  t.equal(got.status, 504);
  t.equal(got.code, 'total_timeout');
  await proxy.idle();
  t.equal(proxy.upstream().failures.total_timeout, 2);
});

e2e('total: cuts a stream that never falls silent', async (t, rig) => {
  const upstream = await rig.upstream(async (_request, connection) => {
    connection.send(chunkedHead());
    while (!connection.left) {
      connection.send(chunk('data: x\n\n'));
      await whileNothing(20);
    }
  });
  const proxy = await rig.one({ url: upstream.url, timeouts: { totalMs: 250, idleMs: 100 } });
  const started = clock();
  const client = await rig.sent(proxy, '/ai/x');
  await client.head();
  t.equal((await client.rest()).ending, 'reset');
  inTime(t, started, 250);
  await proxy.idle();
  t.equal(proxy.upstream().failures.total_timeout, 1);
});

e2e('total: a client that sends its body slowly is cut too', async (t, rig) => {
  const upstream = await rig.upstream();
  const proxy = await rig.one({ url: upstream.url, timeouts: { totalMs: 150 } });
  const client = await rig.client(proxy);
  client.send('POST /ai/x HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf');
  const got = await client.answer();
  t.equal(got.code, 'total_timeout');
  t.equal(upstream.connections.length, 0);
});

e2e('an answer in time leaves no deadline behind', async (t, rig) => {
  const upstream = await rig.upstream();
  const timeouts = { connectMs: 100, headersMs: 100, firstEventMs: 100, idleMs: 100, totalMs: 100 };
  const proxy = await rig.one({ url: upstream.url, timeouts });
  const client = await rig.client(proxy);
  for (let i = 0; i < 3; i++) {
    client.send('GET /ai/x HTTP/1.1\r\nhost: a\r\n\r\n');
    t.equal((await client.answer()).status, 200);
    await whileNothing(110);
  }
  t.equal(client.state, 'open');
  t.same(proxy.upstream().failures, {});
  t.equal(upstream.connections.length, 1);
  void answer;
});

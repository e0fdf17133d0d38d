// A storm: a thousand requests of every kind, half of them aborted at random moments; then everything is back at 0.

import type { RawClient } from '../support/raw-client.ts';
import { e2e } from '../support/rig.ts';
import { whileNothing } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

/** mulberry32: the same storm every time. */
function random(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let x = Math.imul(a ^ (a >>> 15), 1 | a);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  };
}

/** Weathers at the upstream; chosen by the path, so that the client knows what to expect. */
const weathers: Record<string, Script> = {
  whole: async (request, connection) => {
    await request.whole();
    connection.send(answer('whole'));
  },
  stream: async (_request, connection) => {
    connection.send(chunkedHead());
    for (let i = 0; i < 5; i++) {
      connection.send(chunk(`data: ${i}\n\n`));
      await whileNothing(2);
    }
    connection.send(LAST_CHUNK);
  },
  closing: (_request, connection) => connection.send(answer('bye', 'connection: close\r\n')).end(),
  cut: (_request, connection) => connection.send(`${chunkedHead()}${chunk('half')}`).end(),
  reset: (_request, connection) => connection.resetAndDestroy(),
  junk: (_request, connection) => connection.send('junk\r\n\r\n'),
  early: (_request, connection) => connection.send(answer('no', '', '413 Content Too Large')),
};

for (const seed of [1, 2]) {
  e2e(
    `after 1 000 requests, half of them aborted at random moments, everything is back at 0 (seed ${seed})`,
    async (t, rig) => {
      const chance = random(seed);
      const upstream = await rig.upstream((request, connection) =>
        weathers[request.target.slice(1).split('/')[0]!]!(request, connection),
      );
      const proxy = await rig.one(
        {
          url: upstream.url,
          limiter: 'ai',
          pool: { connections: 15, maxRequests: 20, warm: 2 },
          bypass: ['/whole/bypass'],
        },
        {
          limiters: { ai: { maxConcurrent: 20, maxQueue: 300, queueTimeoutMs: 2000 } },
          listener: { bodyBufferBytes: 20_000 },
          maintenanceMs: 100,
        },
      );
      const names = Object.keys(weathers);
      const outcomes: Record<string, number> = {};
      const run = async (n: number) => {
        const weather = chance() < 0.5 ? 'whole' : names[Math.floor(chance() * names.length)]!;
        const bypass = weather === 'whole' && chance() < 0.1 ? '/bypass' : '';
        const size = chance() < 0.1 ? 60_000 : Math.floor(chance() * 2000);
        const aborts = n % 2 === 0;
        const abortAfterMs = chance() * 40;
        const abortMidBody = chance() < 0.3;
        const how = chance() < 0.5 ? 'reset' : 'destroy';
        const operation = `op-${Math.floor(chance() * 5)}`;
        await whileNothing(chance() * 200);
        let client: RawClient;
        try {
          client = await rig.client(proxy);
        } catch {
          outcomes.unreachable = (outcomes.unreachable ?? 0) + 1;
          return;
        }
        const head = `POST /ai/${weather}${bypass} HTTP/1.1\r\nhost: a\r\nx-aiproxy-operation: ${operation}\r\ncontent-length: ${size}\r\n\r\n`;
        client.send(head).send(Buffer.alloc(aborts && abortMidBody ? size >> 1 : size));
        if (aborts) {
          await whileNothing(abortAfterMs);
          client[how]();
          return;
        }
        const got = await client
          .answer()
          .catch((error: Error) => ({ status: 0, ending: error.message, body: Buffer.alloc(0) }));
        const key = `${weather}: ${got.status} ${got.ending}`;
        outcomes[key] = (outcomes[key] ?? 0) + 1;
        if (weather === 'whole' && got.status === 200) t.equal(got.body.toString(), 'whole');
        client.destroy();
      };
      await Promise.all(Array.from({ length: 1000 }, (_, n) => run(n)));
      t.comment(JSON.stringify(outcomes));
      await proxy.idle(10_000);
      t.same(proxy.busy(), {});
      const stats = proxy.upstream();
      t.ok(stats.requests >= 900, `${stats.requests} requests reached the pipeline`);
      t.ok(stats.failures.client_gone! > 50, `${stats.failures.client_gone} clients left`);
      t.ok(upstream.open <= 17 + upstream.connections.filter(({ left, closed }) => left && !closed).length);
      for (const [outcome, count] of Object.entries(outcomes)) {
        const [weather] = outcome.split(':');
        if (weather === 'cut') t.notMatch(outcome, /200 clean/, `${count} × ${outcome}`);
        if (weather === 'whole') t.match(outcome, /200 clean|503 clean|502 clean/, `${count} × ${outcome}`);
      }
      t.equal((await rig.ask(proxy, '/ai/whole')).status, 200, 'and it serves');
    },
  );
}

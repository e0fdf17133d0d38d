// A day on which everything goes wrong at once: servers that fail in every way, clients that leave at any time, and all mechanisms on.
// Whoever gets a whole answer gets the right one, nothing that may not be repeated reaches a server twice, and nothing is left behind.

import { setTimeout as sleep } from 'node:timers/promises';
import type { UpstreamOverrides } from '../support/proxy.ts';
import { CutShort, type RawClient } from '../support/raw-client.ts';
import { e2e, requestText } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

const CLIENTS = 16;
const EACH = 20;

/** One of many ways, by luck; the good answers name the request. */
const anything: Script = async (request, connection) => {
  const name = request.target.split('/').at(-1)!;
  const luck = Math.random();
  if (luck < 0.06) return void connection.resetAndDestroy();
  if (luck < 0.1) return void connection.end();
  if (luck < 0.12) return void connection.send('junk\r\n\r\n');
  if (luck < 0.15) return; // hangs
  await request.whole();
  await sleep(Math.random() * 30);
  if (luck < 0.22) connection.send(answer('busy', 'retry-after-ms: 5\r\n', '503 Busy'));
  else if (luck < 0.26) connection.send(answer('slow', 'retry-after-ms: 5\r\n', '429 Slow'));
  else if (luck < 0.28) connection.send(`${chunkedHead('', '502 Bad')}${chunk('stalls')}`);
  else if (luck < 0.3) connection.send('HTTP/1.1 503 Busy\r\ncontent-length: 50000\r\n\r\nlong');
  else if (luck < 0.33) connection.send(`HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n${name}`).end();
  else if (luck < 0.36) connection.send(`${chunkedHead()}${chunk(name)}`).resetAndDestroy();
  else if (luck < 0.6) {
    connection.send(`${chunkedHead()}${chunk(name.slice(0, 3))}`);
    await sleep(Math.random() * 20);
    connection.send(`${chunk(name.slice(3))}${LAST_CHUNK}`);
  } else connection.send(answer(name));
};

/** @returns the answer's status and body; null = it was cut, or the client left */
async function one(client: RawClient, name: string, n: number): Promise<string | null> {
  const method = n % 3 === 0 ? 'POST' : n % 7 === 0 ? 'PUT' : 'GET';
  const path = n % 6 === 0 ? `/ai/again/${name}` : method === 'GET' ? `/ai/g/${name}` : `/ai/${name}`;
  client.send(requestText(path, method === 'GET' ? {} : { method, body: name.repeat(n % 5 === 0 ? 9000 : 3) }));
  if (Math.random() < 0.1) {
    await sleep(Math.random() * 60);
    client.reset();
    return null;
  }
  const { status, body, ending } = await client.answer();
  return ending === 'clean' ? `${status} ${body}` : null;
}

/** To name a path is to say that its requests may be sent twice. */
const HEDGED = { afterMs: 25, paths: ['/again/*', '/g*'] };

const WAYS: readonly (readonly [string, UpstreamOverrides])[] = [
  ['everything on', { breaker: { openMs: 40, maxOpenMs: 80 }, hedge: HEDGED }],
  ['no breaker', { hedge: HEDGED }],
  ['a cache', { breaker: { openMs: 40, maxOpenMs: 80 }, hedge: HEDGED, cache: { http: true } }],
];

for (const [way, ai] of WAYS) {
  e2e(`nothing is mixed up, sent twice or left behind on such a day: ${way}`, async (t, rig) => {
    const servers = [await rig.upstream(anything), await rig.upstream(anything), await rig.upstream(anything)];
    const targets = servers.map(({ url }, i) => ({ url, priority: i === 2 ? 1 : 0, weight: i + 1 }));
    const proxy = await rig.one(
      {
        targets,
        limiter: 'ai',
        pool: { connections: 10 },
        timeouts: { headersMs: 100, idleMs: 100, totalMs: 1500 },
        retries: { backoffMs: 3, maxBackoffMs: 20, budgetMin: 1000, statuses: [429, 502, 503] },
        replay: ['/again/*'],
        ...ai,
      },
      { limiters: { ai: { maxConcurrent: 8, queueTimeoutMs: 1000 } } },
    );
    const got = { whole: 0, failed: 0, cut: 0 };
    const wrong: string[] = [];
    const user = async (i: number) => {
      let client = await rig.client(proxy);
      for (let n = 0; n < EACH; n++) {
        // Now and then there is a permit to spare, or hedging would never come to it.
        if (n % 4 === 0) await sleep(Math.random() * 400);
        const name = `u${i}-n${n}-x`;
        const said = await one(client, name, n).catch((error: unknown) => {
          if (!(error instanceof CutShort)) throw error;
          return null;
        });
        if (said === null) {
          got.cut++;
          client.destroy();
          client = await rig.client(proxy);
        } else if (said === `200 ${name}`) got.whole++;
        else if (/^(429|50[234]) /.test(said)) got.failed++;
        else wrong.push(`${name}: ${said.slice(0, 200)}`);
      }
    };
    await Promise.all(Array.from({ length: CLIENTS }, (_, i) => user(i)));
    t.same(wrong, []);
    t.ok(got.whole > 80, JSON.stringify(got));
    await proxy.idle();
    const seen = new Map<string, number>();
    for (const { method, target } of servers.flatMap(({ requests }) => requests)) {
      if (method === 'POST' && !target.startsWith('/again/')) seen.set(target, (seen.get(target) ?? 0) + 1);
    }
    // 429 and 503 are no reason either: a POST is on no list.
    t.same(
      [...seen].filter(([, times]) => times > 1),
      [],
    );
    t.equal(proxy.limiter('ai').peak_in_flight, 8);
    const { targets: known, pool, hedges, retries } = proxy.upstream();
    t.ok(known.every(({ attempts, failures }) => attempts > failures && failures > 0));
    t.ok(hedges!.sent > 0 && hedges!.sent >= hedges!.won && retries > 0, 'there was something to be seen');
    await until('no more connections than there may be', () => pool.active + pool.idle <= pool.max * targets.length);
    t.match(proxy.stats().listener, { body_memory_bytes: 0, in_flight: 0 });
  });
}

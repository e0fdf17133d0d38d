// Everything that resilience is made of, at once and at random, against three servers with moods: each request has one end, the limits hold,
// and nothing is left.

import { setTimeout as sleep } from 'node:timers/promises';
import type { RawClient } from '../support/raw-client.ts';
import { e2e } from '../support/rig.ts';
import { within } from '../support/until.ts';
import { answer, chunk, chunkedHead, LAST_CHUNK, type Script } from '../support/upstream.ts';

const USERS = 40;
const ROUNDS = 50;
const PERMITS = 20;
const ATTEMPTS = 3;
const TARGETS = 3;
/** Nothing of the configuration below lets an exchange last longer. */
const LONGEST_MS = 3000;

/** A small generator, so that a failure can be seen again (Marsaglia's xorshift). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

type Pick = (below: number) => number;

function troubles(): readonly Script[] {
  return [
    (_request, connection) => connection.resetAndDestroy(),
    (_request, connection) => connection.end(),
    (_request, connection) => connection.send('junk\r\n\r\n'),
    (_request, connection) =>
      connection.send('HTTP/1.1 503 Busy\r\nretry-after-ms: 20\r\ncontent-length: 4\r\n\r\nbusy'),
    (_request, connection) => connection.send('HTTP/1.1 429 Slow down\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n'),
    (_request, connection) =>
      connection.send('HTTP/1.1 429 Slow down\r\nretry-after-ms: 10\r\ncontent-length: 0\r\n\r\n'),
    (_request, connection) => connection.send(answer('x'.repeat(40_000), '', '502 Bad Gateway')),
    (_request, connection) => connection.send(`${chunkedHead('', '503 Busy')}${chunk('half')}`).resetAndDestroy(),
    (_request, connection) => connection.send(`${chunkedHead()}${chunk('half')}`).resetAndDestroy(),
    (_request, connection) => connection.send(`${chunkedHead()}${chunk('half')}`).end(),
    (_request, connection) => connection.send(`HTTP/1.1 200 OK\r\n\r\nhalf`).resetAndDestroy(),
    (_request, connection) => connection.send(answer('no', 'connection: close\r\n', '413 Content Too Large')).end(),
  ];
}

/** These end only where there are deadlines. */
function stalls(pick: Pick): readonly Script[] {
  return [
    (_request, connection) => connection.send(`${chunkedHead('', '500 Oops')}${chunk('x'.repeat(30_000))}`),
    (_request, connection) => connection.send(`${chunkedHead('', '503 Busy')}${chunk('half')}`),
    (_request, connection) => connection.send(`${chunkedHead()}${chunk('stalls')}`),
    () => {},
    () => sleep(150),
    (_request, connection) => connection.send('HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(1 + pick(30))),
  ];
}

/** A server whose share of trouble changes every now and then. */
function moody(pick: Pick): Script {
  const short = troubles();
  const all = [...short, ...stalls(pick)];
  let share = 0;
  let until = 0;
  return async (request, connection) => {
    const now = performance.now();
    if (now >= until) {
      share = [5, 20, 60, 95][pick(4)]!;
      until = now + 100 + pick(300);
    }
    if (pick(10) > 0) await request.whole();
    const bad = request.target.startsWith('/open') ? short : all;
    if (pick(100) < share) return await bad[pick(bad.length)]!(request, connection);
    if (pick(2) === 0) await sleep(pick(40));
    const left = `x-ratelimit-limit-requests: 1000\r\nx-ratelimit-remaining-requests: ${1 + pick(1000)}\r\nx-ratelimit-reset-requests: ${1 + pick(50)}ms\r\n`;
    const head = pick(3) === 0 ? left : '';
    const what = request.target;
    if (request.method === 'HEAD') connection.send(`HTTP/1.1 200 OK\r\n${head}content-length: 5\r\n\r\n`);
    else if (pick(4) === 0) connection.send(answer('w'.repeat(200_000), head));
    else if (pick(2) === 0) connection.send(answer(what, head));
    else {
      connection.send(chunkedHead(head)).send(chunk(what));
      await sleep(pick(8));
      connection.send(LAST_CHUNK);
    }
  };
}

e2e('a storm of all that resilience is made of', async (t, rig) => {
  const seed = Number(process.env.STORM_SEED ?? Date.now() % 1e9) + 1;
  const pick = random(seed);
  const upstreams = await Promise.all(Array.from({ length: TARGETS }, () => rig.upstream(moody(pick))));
  const proxy = await rig.one(
    {
      targets: upstreams.map(({ url }, i) => ({ url, priority: i === 2 ? 1 : 0, weight: i + 1 })),
      limiter: 'ai',
      lane: 'low',
      pool: { connections: 24, keepalive: 4, maxRequests: 15, maxLifetimeMs: 300, warm: 1 },
      timeouts: { connectMs: 500, headersMs: 100, firstEventMs: 120, idleMs: 80, writeStallMs: 300, totalMs: 800 },
      bypass: ['/open/*'],
      replay: ['/again/*'],
      breaker: { consecutiveFailures: 4, minRequests: 10, windowMs: 500, openMs: 20, maxOpenMs: 80 },
      retries: {
        attempts: ATTEMPTS,
        statuses: [429, 500, 502, 503],
        backoffMs: 10,
        maxBackoffMs: 40,
        maxRetryAfterMs: 50,
      },
      hedge: { paths: ['/hedged/*', '/cached/*'], afterMs: 15 },
      rateLimits: [
        { requests: 1500, perMs: 1000, burst: 30, onLimit: 'wait' },
        { requests: 400, perMs: 1000, burst: 40, key: { header: 'x-user' }, onLimit: 'reject' },
        { requests: 300, perMs: 1000, burst: 5, key: 'credential', onLimit: 'wait' },
      ],
      feedback: { maxPauseMs: 60 },
      cache: {
        rules: [{ match: { paths: ['/cached/*'] }, ttlMs: 20, staleIfErrorMs: 40, staleWhileRevalidateMs: 20 }],
      },
    },
    {
      limiters: {
        ai: {
          maxConcurrent: PERMITS,
          maxQueue: 60,
          queueTimeoutMs: 200,
          adaptive: { min: 3, max: PERMITS, mode: 'aimd' },
          lanes: [
            { name: 'high', share: 3 },
            { name: 'low', share: 1 },
          ],
        },
      },
      listener: { bodyBufferBytes: 20_000, bodyMemoryBytes: 1_500_000 },
      flights: { maxWaiters: 6, bufferBytes: 2048, waitMs: 60 },
      maintenanceMs: 50,
    },
  );
  const problems: string[] = [];
  const ends: Record<string, number> = {};
  const paths = ['plain', 'hedged', 'again', 'cached', 'open'];
  const request = () => {
    const path = paths[pick(20) === 0 ? 4 : pick(4)]!;
    const method = path === 'cached' ? 'GET' : ['GET', 'GET', 'POST', 'PUT', 'HEAD'][pick(5)]!;
    const size = method === 'POST' || method === 'PUT' ? [0, 10, 3000, 60_000][pick(4)]! : -1;
    const fields = [
      `authorization: Bearer ${pick(3)}`,
      `x-user: ${pick(4)}`,
      `x-aiproxy-operation: op-${pick(4)}`,
      ...(pick(3) === 0 ? ['x-aiproxy-priority: high'] : []),
      ...(pick(8) === 0 ? [`x-aiproxy-deadline-ms: ${10 + pick(200)}`] : []),
      ...(size >= 0 ? [`content-length: ${size}`] : []),
    ];
    const target = `/ai/${path}/${path === 'cached' ? pick(5) : ''}`;
    return { method, head: `${method} ${target} HTTP/1.1\r\nhost: a\r\n${fields.join('\r\n')}\r\n\r\n`, size };
  };
  let asked = 0;
  const user = async () => {
    let client: RawClient | null = null;
    for (let round = 0; round < ROUNDS; round++) {
      client ??= await rig.client(proxy);
      const { method, head, size } = request();
      const leaves = pick(5) === 0;
      const body = Buffer.alloc(Math.max(0, size));
      client.send(head).send(leaves && pick(2) === 0 ? body.subarray(0, size >> 1) : body);
      asked++;
      if (leaves) {
        if (pick(4) > 0) await sleep(pick(60));
        if (pick(2) === 0) client.destroy();
        else client.reset();
        client = null;
        continue;
      }
      if (pick(6) === 0) {
        client.pause();
        setTimeout((slow: RawClient) => slow.resume(), pick(60), client);
      }
      const current: RawClient = client;
      const end = await within(`the end of ${head}`, current.answer(method === 'HEAD'), LONGEST_MS).then(
        (got) => `${got.status} ${got.get('x-aiproxy-error') ?? ''} ${got.ending}`,
        (error: Error) => {
          if (error.message.startsWith('nothing after')) problems.push(error.message);
          return error.constructor.name;
        },
      );
      ends[end] = (ends[end] ?? 0) + 1;
      if (!end.endsWith('clean') || current.state !== 'open') {
        current.destroy();
        client = null;
      }
    }
    client?.destroy();
  };
  await Promise.all(Array.from({ length: USERS }, user));
  t.comment(`seed ${seed - 1}: ${JSON.stringify(ends)}`);
  t.same(problems, [], `seed ${seed - 1}`);
  await proxy.idle();
  const { requests, retry_budget: budget, hedges, targets } = proxy.upstream();
  t.ok(requests > 0.9 * asked && requests <= asked, `${requests} of ${asked} requests reached the pipeline`);
  t.ok(budget!.spent > 0 && budget!.spent <= 0.2 * requests + 3, `${budget!.spent} retries for ${requests} requests`);
  t.ok(
    targets.filter(({ attempts }) => attempts > 0).length > 1,
    `${hedges!.sent} hedges, attempts at ${targets.map((one) => one.attempts)}`,
  );
  const limiter = proxy.limiter('ai');
  t.ok(limiter.peak_in_flight <= PERMITS, `${limiter.peak_in_flight} permits at once`);
  for (const line of proxy.exchanges) {
    const attempts = Number(line.attempts);
    if (attempts > ATTEMPTS + 1 + TARGETS) problems.push(`${attempts} attempts: ${JSON.stringify(line)}`);
    for (const key of ['queue_ms', 'connect_ms', 'ttfb_ms', 'total_ms', 'retry_ms'] as const) {
      const ms = line[key] as number | null;
      if (ms !== null && !(ms >= 0 && ms <= Number(line.total_ms))) problems.push(`${key}: ${JSON.stringify(line)}`);
    }
  }
  t.same(problems, [], `seed ${seed - 1}`);
});

// Lanes: who is in which, their shares, and the storm after an upstream's bad time.

import type { AdaptiveConfig, FeedbackConfig, RateLimitConfig } from '../../src/config/schema.ts';
import type { RawClient } from '../support/raw-client.ts';
import { e2e, type Rig, requestText } from '../support/rig.ts';
import { until } from '../support/until.ts';
import { answer } from '../support/upstream.ts';

const LANES = [
  { name: 'users', share: 75 },
  { name: 'batch', share: 25 },
];

const lane = (name: string) => `x-aiproxy-priority: ${name}\r\n`;

e2e(
  'the lane is named by the request, else by the upstream, else it is the first; the header is not forwarded',
  async (t, rig) => {
    let hold = true;
    const upstream = await rig.upstream(async (_request, connection) => {
      await until('released', () => !hold);
      connection.send(answer());
    });
    const proxy = await rig.proxy({
      upstreams: {
        ai: { url: upstream.url, limiter: 'all' },
        jobs: { url: upstream.url, limiter: 'all', lane: 'batch' },
      },
      limiters: { all: { maxConcurrent: 1, lanes: LANES } },
    });
    const asks = [rig.ask(proxy, '/ai/0', { headers: lane('batch') })];
    await upstream.request(0);
    const queued = () => Object.values(proxy.limiter('all').lanes).map(({ queued }) => queued);
    t.same(queued(), [0, 0], 'who need not wait is in no lane');
    const cases: [string, string, number[]][] = [
      ['/ai/1', '', [1, 0]],
      ['/ai/2', lane('batch'), [1, 1]],
      ['/ai/3', lane('nobody'), [2, 1]],
      ['/jobs/4', '', [2, 2]],
      ['/jobs/5', lane('users'), [3, 2]],
      ['/jobs/6', lane('nobody'), [3, 3]],
      ['/ai/7', 'X-AIProxy-Priority: batch\r\n', [3, 4]],
      ['/ai/8', lane('BATCH'), [4, 4]],
    ];
    for (const [path, headers, expected] of cases) {
      asks.push(rig.ask(proxy, path, { headers }));
      await until(`${path} is queued: ${expected}, not ${queued()}`, () => `${queued()}` === `${expected}`);
    }
    hold = false;
    for (const got of await Promise.all(asks)) t.equal(got.status, 200);
    t.match(proxy.limiter('all').lanes, { users: { share: 75, granted: 4 }, batch: { share: 25, granted: 4 } });
    t.notOk(upstream.requests.some(({ text }) => /x-aiproxy/i.test(text)));
    await proxy.idle();
    const told = new Map(proxy.exchanges.map(({ path, lane }) => [path, lane]));
    t.same([told.get('/1'), told.get('/2'), told.get('/6')], ['users', 'batch', 'batch']);
  },
);

interface Storm {
  readonly maxConcurrent: number;
  readonly adaptive?: AdaptiveConfig;
  readonly rateLimits?: readonly Partial<RateLimitConfig>[];
  readonly feedback?: Partial<FeedbackConfig>;
}

const CROWD = 500;

/**
 * A thousand in two lanes wait while the upstream is away; then it is back, slow at first.
 * @returns the lanes in the order in which the upstream saw them, and the most it had at once
 */
async function storm(rig: Rig, { maxConcurrent, adaptive, rateLimits, feedback }: Storm) {
  let isBack = false;
  let concurrent = 0;
  let most = 0;
  const lanes: string[] = [];
  const upstream = await rig.http((request, response) => {
    const name = request.headers['x-lane'] as string;
    if (name === 'first') {
      void until('back', () => isBack, 10_000).then(() => {
        response.writeHead(429, { 'retry-after': '1' });
        response.end();
      });
      return;
    }
    lanes.push(name);
    most = Math.max(most, ++concurrent);
    // What is more than it can take is refused; it takes more and more.
    const isTooMuch = adaptive !== undefined && concurrent > 4 + lanes.length / 50;
    response.on('close', () => concurrent--);
    if (isTooMuch) response.writeHead(503);
    setTimeout(() => response.end('ok'), isTooMuch ? 0 : 1 + 200 / lanes.length);
  });
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai', rateLimits: rateLimits ?? [], ...(feedback ? { feedback } : {}) },
    { limiters: { ai: { maxConcurrent, lanes: LANES, adaptive: adaptive ?? null } } },
  );
  const first = Array.from({ length: maxConcurrent }, () => rig.sent(proxy, '/ai/x', { headers: 'x-lane: first\r\n' }));
  await until('all permits are taken', () => proxy.limiter('ai').in_flight === maxConcurrent);
  const clients: RawClient[] = [];
  for (let i = 0; i < 2 * CROWD; i++) {
    const name = LANES[i % 2]!.name;
    const client = await rig.client(proxy);
    clients.push(client.send(requestText('/ai/x', { headers: `x-lane: ${name}\r\n${lane(name)}` })));
  }
  await until('a thousand wait', () => proxy.limiter('ai').queued === 2 * CROWD);
  isBack = true;
  const limits: number[] = [];
  const watch = setInterval(() => limits.push(proxy.limiter('ai').max_concurrent!), 1);
  const statuses = await Promise.all(clients.map(async (client) => (await client.answer()).status));
  clearInterval(watch);
  await Promise.all(first);
  await proxy.idle();
  return { lanes, most, proxy, limits, statuses };
}

/** The worst distance of a lane from its share, over the time in which both wait. */
function worstShare(lanes: readonly string[]): number {
  let worst = 0;
  let users = 0;
  for (let i = 0; users < CROWD - 20; i++) {
    if (lanes[i] === 'users') users++;
    if (i >= 99) worst = Math.max(worst, Math.abs(users / (i + 1) - 0.75));
  }
  return worst;
}

const STORMS: readonly [string, Storm][] = [
  ['with a fixed limit', { maxConcurrent: 10 }],
  ['after a pause by Retry-After', { maxConcurrent: 10, feedback: {} }],
  ['at a rate limit', { maxConcurrent: 10, feedback: {}, rateLimits: [{ requests: 400, perMs: 1000 }] }],
];

for (const [what, options] of STORMS) {
  e2e(`a storm ${what}: the limit is never exceeded, and lanes are served by their shares`, async (t, rig) => {
    const { lanes, most, proxy, statuses } = await storm(rig, options);
    t.ok(statuses.every((status) => status === 200));
    t.equal(lanes.length, 2 * CROWD);
    t.ok(most <= 10, `${most} at once`);
    t.equal(proxy.limiter('ai').peak_in_flight, 10);
    t.ok(worstShare(lanes) <= 0.05, `off by ${worstShare(lanes)}`);
    t.match(proxy.limiter('ai').lanes, { users: { queued: 0 }, batch: { queued: 0, granted: CROWD } });
  });
}

e2e(
  'a storm with an adaptive limit: it stays between min and max, learns, and lanes keep their shares',
  async (t, rig) => {
    const { lanes, most, limits, statuses, proxy } = await storm(rig, {
      maxConcurrent: 20,
      adaptive: { min: 3, max: 20, mode: 'aimd' },
    });
    t.ok(limits.every((limit) => limit >= 3 && limit <= 20));
    t.ok(Math.min(...limits) < 15, `it went down to ${Math.min(...limits)}`);
    t.ok(most <= 20, `${most} at once`);
    t.ok(statuses.every((status) => status === 200 || status === 503));
    t.ok(statuses.filter((status) => status === 503).length < CROWD / 2);
    t.ok(worstShare(lanes) <= 0.05, `off by ${worstShare(lanes)}`);
    t.equal(proxy.limiter('ai').peak_in_flight, 20);
  },
);

e2e('an upstream that is always too busy brings the limit down to min, and not below', async (t, rig) => {
  const upstream = await rig.http((_request, response) => {
    response.writeHead(503);
    setTimeout(() => response.end(), 2);
  });
  const proxy = await rig.one(
    { url: upstream.url, limiter: 'ai' },
    { limiters: { ai: { maxConcurrent: 10, adaptive: { min: 4, max: 10, mode: 'aimd' } } } },
  );
  await Promise.all(Array.from({ length: 200 }, () => rig.ask(proxy, '/ai/x')));
  t.equal(proxy.limiter('ai').max_concurrent, 4);
  t.ok(proxy.limiter('ai').peak_in_flight <= 10);
});

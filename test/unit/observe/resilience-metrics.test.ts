// What /metrics tells of an upstream's bad day, as a scraper reads it.
import t from 'tap';
import { renderMetrics } from '../../../src/observe/metrics.ts';
import type { StatsSnapshot } from '../../../src/observe/snapshot.ts';
import { parseExposition } from '../../support/exposition-parser.ts';
import { PLAIN_LIMITER, plainPart, spoil } from '../../support/fake-resilience.ts';
import { FakeStats, fakeTotals, HOSTILE } from '../../support/fake-stats.ts';

type Labels = Record<string, string>;

/** Every sample of a family, as [labels, value]; a scraper that finds the same labels twice refuses the page, and so does the parser. */
function reader(snapshot: StatsSnapshot) {
  const families = parseExposition(renderMetrics(snapshot, fakeTotals()));
  const samples = (name: string): [Labels, number][] => {
    return [...(families.get(name)?.series.values() ?? [])].map(({ labels, value }) => [labels, value]);
  };
  return { families, samples };
}

const URL = 'https://api.openai.com';
const EU = 'https://eu.openai.example.com:8443/tenants/one-with-a-long-name/v1';
const limit = (n: string) => ({ upstream: 'deepseek', limit: n });
const openai = { upstream: 'openai' };
const deepseek = { upstream: 'deepseek' };

t.test('targets and their breakers, by upstream and target', async (t) => {
  const snapshot = new FakeStats().stats();
  const [first, second] = snapshot.upstreams.openai!.targets;
  const { samples } = reader(snapshot);
  const of = (name: string) => samples(name).filter(([labels]) => labels.upstream === 'openai');
  const two = (a: number, b: number) => [
    [{ ...openai, target: URL, place: '0' }, a],
    [{ ...openai, target: EU, place: '1' }, b],
  ];
  t.strictSame(of('aiproxy_target_in_flight'), two(first!.in_flight, 0));
  t.strictSame(of('aiproxy_target_attempts_total'), two(first!.attempts, second!.attempts));
  t.strictSame(of('aiproxy_target_failures_total'), two(first!.failures, second!.failures));
  t.strictSame(of('aiproxy_breaker_state'), two(0, 2));
  t.strictSame(of('aiproxy_breaker_opened_total'), two(1, 7));
  t.equal(samples('aiproxy_target_attempts_total').length, 5, 'every target of every upstream');
  t.strictSame(
    samples('aiproxy_breaker_state').map(([labels]) => labels.upstream),
    ['openai', 'openai', 'deepseek'],
    'only those that have one',
  );
});

t.test('a breaker is 0 closed, 1 half open, 2 open', async (t) => {
  const source = new FakeStats();
  const seen: number[] = [];
  for (let looks = 0; looks < 20; looks++) {
    const { samples } = reader(source.stats());
    const [, state] = samples('aiproxy_breaker_state').find(([labels]) => labels.target === EU)!;
    if (seen.at(-1) !== state) seen.push(state);
  }
  t.strictSame(seen, [2, 1, 0]);
});

t.test('retries, their budget, and hedges', async (t) => {
  const snapshot = spoil(new FakeStats().stats());
  const { samples } = reader(snapshot);
  const { hedges } = snapshot.upstreams.openai!;
  t.strictSame(samples('aiproxy_retry_budget_balance'), [[openai, 0.4]]);
  t.strictSame(samples('aiproxy_retry_budget_exhausted_total'), [[openai, 2_211]]);
  t.strictSame(samples('aiproxy_hedges_total'), [[openai, hedges!.sent]]);
  t.strictSame(samples('aiproxy_hedges_won_total'), [[openai, hedges!.won]]);
  const twice = Object.fromEntries(
    samples('aiproxy_maybe_billed_twice_total').map(([labels, n]) => [labels.upstream, n]),
  );
  t.match(twice, { openai: 37, deepseek: 0, fatsecret: 0 });
});

t.test('rate limits by their place in the list, and what the upstream asked for', async (t) => {
  const snapshot = new FakeStats().stats();
  const { rate_limits: limits, feedback } = snapshot.upstreams.deepseek!;
  const { samples } = reader(snapshot);
  const both = (a: number, b: number) => [
    [limit('0'), a],
    [limit('1'), b],
  ];
  t.strictSame(samples('aiproxy_rate_limit_keys'), both(1, 212));
  t.strictSame(samples('aiproxy_rate_limit_held'), both(limits[0]!.held, 0));
  t.strictSame(samples('aiproxy_rate_limit_held_total'), both(limits[0]!.held_total, 0));
  t.strictSame(samples('aiproxy_rate_limit_refused_total'), both(0, 31));
  t.strictSame(samples('aiproxy_feedback_held'), [[deepseek, 9]]);
  t.strictSame(samples('aiproxy_feedback_held_total'), [[deepseek, feedback!.held_total]]);
  t.strictSame(samples('aiproxy_feedback_pauses_total'), [[deepseek, 14]]);
});

t.test('lanes and shared permits of a limiter', async (t) => {
  const snapshot = new FakeStats().stats();
  const ai = snapshot.limiters.ai!;
  ai.lanes.batch!.queued = 6;
  const { samples } = reader(snapshot);
  t.strictSame(samples('aiproxy_lane_queued'), [
    [{ limiter: 'ai', lane: 'interactive' }, 0],
    [{ limiter: 'ai', lane: 'batch' }, 6],
  ]);
  t.strictSame(samples('aiproxy_lane_granted_total'), [
    [{ limiter: 'ai', lane: 'interactive' }, 2_947],
    [{ limiter: 'ai', lane: 'batch' }, 1_263],
  ]);
  t.strictSame(samples('aiproxy_shared_permits_held'), [[{ limiter: 'ai' }, 100]]);
  t.strictSame(samples('aiproxy_shared_permits_waiting'), [[{ limiter: 'ai' }, ai.shared!.waiting]]);
  t.strictSame(samples('aiproxy_shared_permits_local'), [[{ limiter: 'ai' }, 0]]);
  t.strictSame(reader(spoil(snapshot)).samples('aiproxy_shared_permits_local'), [[{ limiter: 'ai' }, 1]]);
});

t.test('overload and Redis are of the process: no label', async (t) => {
  const snapshot = spoil(new FakeStats().stats());
  const { samples } = reader(snapshot);
  const { asked, tokens } = snapshot.redis!;
  const wanted = {
    aiproxy_overload_level: 2,
    aiproxy_memory_share: 0.934,
    aiproxy_redis_up: 0,
    aiproxy_redis_peers: 3,
    aiproxy_redis_questions_total: asked,
    aiproxy_redis_errors_total: 41,
    aiproxy_redis_timeouts_total: 630,
    aiproxy_redis_tokens_total: tokens.redis,
    aiproxy_local_tokens_total: tokens.local,
  };
  for (const [name, value] of Object.entries(wanted)) t.strictSame(samples(name), [[{}, value]], name);
});

t.test('Redis is up only while it answers', async (t) => {
  const snapshot = new FakeStats().stats();
  for (const [state, value] of [
    ['up', 1],
    ['connecting', 0],
    ['down', 0],
  ] as const) {
    snapshot.redis!.state = state;
    t.strictSame(reader(snapshot).samples('aiproxy_redis_up'), [[{}, value]], state);
  }
});

t.test('a share of memory that nobody knows is no number, not 0', async (t) => {
  const snapshot = new FakeStats().stats();
  snapshot.overload!.memory_share = null;
  t.match(renderMetrics(snapshot, fakeTotals()), /^aiproxy_memory_share NaN$/m);
});

t.test('what is not configured has no family', async (t) => {
  const snapshot = new FakeStats().stats();
  Object.assign(snapshot, { overload: null, redis: null });
  for (const upstream of Object.values(snapshot.upstreams)) Object.assign(upstream, plainPart(upstream.url));
  for (const limiter of Object.values(snapshot.limiters)) Object.assign(limiter, PLAIN_LIMITER);
  const there = [...reader(snapshot).families.keys()];
  t.strictSame(
    there.filter((name) =>
      /_(target|breaker|budget|hedges|rate_limit|feedback|lane|shared|overload|memory_share|redis|tokens|local)/.test(
        name,
      ),
    ),
    [
      'aiproxy_target_in_flight',
      'aiproxy_target_attempts_total',
      'aiproxy_target_failures_total',
      ...there.filter((name) => name.startsWith('aiproxy_cache_redis_')),
    ],
    'but the one target that every upstream has',
  );
});

t.test('hostile names come back as they were', async (t) => {
  const snapshot = new FakeStats().stats();
  const nasty = [HOSTILE, 'a"b', 'a\\', 'line\nbreak', '__proto__'];
  const [target] = snapshot.upstreams.openai!.targets;
  const lane = snapshot.limiters.ai!.lanes.batch!;
  snapshot.upstreams.openai!.targets = nasty.map((url) => ({ ...target!, url }));
  snapshot.limiters.ai!.lanes = Object.fromEntries(nasty.map((name) => [name, lane]));
  const { samples } = reader(snapshot);
  const targets = samples('aiproxy_breaker_state').filter(([labels]) => labels.upstream === 'openai');
  t.strictSame(
    targets.map(([labels]) => labels.target),
    nasty,
  );
  t.strictSame(
    samples('aiproxy_lane_queued').map(([labels]) => labels.lane),
    nasty,
  );
});

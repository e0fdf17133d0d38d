// What /metrics tells of breakers, retries, limits that are shared or adapt, and of the load of the process itself.

import type { Exposition, Labels, Sample } from './exposition.ts';
import type {
  FeedbackSnapshot,
  HubSnapshot,
  LaneSnapshot,
  OverloadSnapshot,
  RateLimitSnapshot,
  StatsSnapshot,
  TargetSnapshot,
  UpstreamSnapshot,
} from './snapshot.ts';

/** One family: its value is read from each part of the snapshot that has one. */
export type Row<Part> = readonly [kind: 'gauge' | 'counter', name: string, help: string, read: (part: Part) => number];

export type Labelled<Part> = readonly [labels: Labels, part: Part];

type Breaker = NonNullable<TargetSnapshot['breaker']>;
type Budget = NonNullable<UpstreamSnapshot['retry_budget']>;
type Hedges = NonNullable<UpstreamSnapshot['hedges']>;

const TARGET: readonly Row<TargetSnapshot>[] = [
  ['gauge', 'aiproxy_target_in_flight', 'Attempts under way now, by target.', (it) => it.in_flight],
  ['counter', 'aiproxy_target_attempts_total', 'Attempts, by target.', (it) => it.attempts],
  ['counter', 'aiproxy_target_failures_total', 'Attempts that failed, by target.', (it) => it.failures],
];
const STATES = { closed: 0, half_open: 1, open: 2 } as const;
const BREAKER: readonly Row<Breaker>[] = [
  ['gauge', 'aiproxy_breaker_state', '0 closed, 1 half open, 2 open.', (it) => STATES[it.state]],
  ['counter', 'aiproxy_breaker_opened_total', 'Times the breaker opened.', (it) => it.opened],
];
const BUDGET: readonly Row<Budget>[] = [
  ['gauge', 'aiproxy_retry_budget_balance', 'Retries the budget allows now.', (it) => it.balance],
  ['counter', 'aiproxy_retry_budget_exhausted_total', 'Retries not made for want of budget.', (it) => it.exhausted],
];
const HEDGES: readonly Row<Hedges>[] = [
  ['counter', 'aiproxy_hedges_total', 'Second attempts beside slow first ones.', (it) => it.sent],
  ['counter', 'aiproxy_hedges_won_total', 'Those whose answer was used.', (it) => it.won],
];
const RATE_LIMIT: readonly Row<RateLimitSnapshot>[] = [
  ['gauge', 'aiproxy_rate_limit_keys', 'Keys of the limit known now.', (it) => it.keys],
  ['gauge', 'aiproxy_rate_limit_held', 'Requests that wait for a token now.', (it) => it.held],
  ['counter', 'aiproxy_rate_limit_held_total', 'Requests that had to wait for a token.', (it) => it.held_total],
  ['counter', 'aiproxy_rate_limit_refused_total', 'Requests refused for want of a token.', (it) => it.refused],
];
const FEEDBACK: readonly Row<FeedbackSnapshot>[] = [
  ['gauge', 'aiproxy_feedback_held', 'Requests held up by what the upstream said of its limits.', (it) => it.held],
  ['counter', 'aiproxy_feedback_held_total', 'Requests that were.', (it) => it.held_total],
  ['counter', 'aiproxy_feedback_pauses_total', 'Pauses the upstream asked for.', (it) => it.pauses],
];
const LANE: readonly Row<LaneSnapshot>[] = [
  ['gauge', 'aiproxy_lane_queued', 'Requests waiting now, by lane.', (it) => it.queued],
  ['counter', 'aiproxy_lane_granted_total', 'Permits granted to those who waited, by lane.', (it) => it.granted],
];
type Shared = { held: number; waiting: number; source: string };
const SHARED: readonly Row<Shared>[] = [
  ['gauge', 'aiproxy_shared_permits_held', 'Permits leased by this process.', (it) => it.held],
  ['gauge', 'aiproxy_shared_permits_waiting', 'Permits it could use and has not got.', (it) => it.waiting],
  [
    'gauge',
    'aiproxy_shared_permits_local',
    '1 while the local share is used, else 0.',
    (it) => (it.source === 'local' ? 1 : 0),
  ],
];
const OVERLOAD: readonly Row<OverloadSnapshot>[] = [
  ['gauge', 'aiproxy_overload_level', '0 calm, 1 shrinks cache, 2 refuses, 3 closes clients.', (it) => it.level],
  ['gauge', 'aiproxy_memory_share', 'Memory in use of what there is.', (it) => it.memory_share ?? Number.NaN],
];
const HUB: readonly Row<HubSnapshot>[] = [
  ['gauge', 'aiproxy_redis_up', '1 while Redis answers, else 0.', (it) => (it.state === 'up' ? 1 : 0)],
  ['gauge', 'aiproxy_redis_peers', 'Sidecars alive on it.', (it) => it.peers],
  ['counter', 'aiproxy_redis_questions_total', 'Questions asked.', (it) => it.asked],
  ['counter', 'aiproxy_redis_errors_total', 'Those it refused or broke off.', (it) => it.errors],
  ['counter', 'aiproxy_redis_timeouts_total', 'Those answered too late.', (it) => it.timeouts],
  ['counter', 'aiproxy_redis_tokens_total', 'Rate tokens booked there.', (it) => it.tokens.redis],
  ['counter', 'aiproxy_local_tokens_total', 'Rate tokens of the local share.', (it) => it.tokens.local],
];

export function writeResilience(page: Exposition, { upstreams, limiters, overload, redis }: StatsSnapshot): void {
  const all = Object.entries(upstreams);
  const targets = all.flatMap(([upstream, part]) =>
    // With its place, as two may differ in their headers only.
    part.targets.map(
      (target, i): Labelled<TargetSnapshot> => [{ upstream, target: target.url, place: String(i) }, target],
    ),
  );
  writeRows(page, TARGET, targets);
  writeRows(
    page,
    BREAKER,
    present(targets, (target) => target.breaker),
  );
  const parts = all.map(([upstream, part]): Labelled<UpstreamSnapshot> => [{ upstream }, part]);
  writeRows(
    page,
    BUDGET,
    present(parts, (part) => part.retry_budget),
  );
  writeRows(
    page,
    HEDGES,
    present(parts, (part) => part.hedges),
  );
  writeRows(
    page,
    FEEDBACK,
    present(parts, (part) => part.feedback),
  );
  writeRows(
    page,
    RATE_LIMIT,
    all.flatMap(([upstream, part]) =>
      part.rate_limits.map((limit, i): Labelled<RateLimitSnapshot> => [{ upstream, limit: String(i) }, limit]),
    ),
  );
  const named = Object.entries(limiters);
  writeRows(
    page,
    LANE,
    named.flatMap(([limiter, part]) =>
      Object.entries(part.lanes).map(([lane, of]): Labelled<LaneSnapshot> => [{ limiter, lane }, of]),
    ),
  );
  writeRows(
    page,
    SHARED,
    present(
      named.map(([limiter, part]) => [{ limiter }, part] as const),
      (part) => part.shared,
    ),
  );
  if (overload) writeRows(page, OVERLOAD, [[{}, overload]]);
  if (redis) writeRows(page, HUB, [[{}, redis]]);
}

/** Those parts that are there. */
function present<Whole, Part>(all: readonly Labelled<Whole>[], read: (whole: Whole) => Part | null): Labelled<Part>[] {
  return all.flatMap(([labels, whole]): Labelled<Part>[] => {
    const part = read(whole);
    return part === null ? [] : [[labels, part]];
  });
}

export function writeRows<Part>(page: Exposition, rows: readonly Row<Part>[], parts: readonly Labelled<Part>[]): void {
  for (const [kind, name, help, read] of rows) {
    const samples = parts.map(([labels, part]): Sample => [labels, read(part)]);
    page.family(kind, name, help, samples);
  }
}

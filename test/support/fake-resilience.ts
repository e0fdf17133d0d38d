// The parts of FakeStats that tell of breakers, budgets, limits and overload; one mends itself as time goes on.
import type {
  HubSnapshot,
  LaneSnapshot,
  LimiterSnapshot,
  OverloadSnapshot,
  RateLimitSnapshot,
  StatsSnapshot,
  TargetSnapshot,
  UpstreamSnapshot,
} from '../../src/observe/snapshot.ts';

export type UpstreamPart = Pick<
  UpstreamSnapshot,
  'maybe_billed_twice' | 'retry_budget' | 'hedges' | 'targets' | 'rate_limits' | 'feedback'
>;
export type LimiterPart = Pick<LimiterSnapshot, 'lanes' | 'adaptive' | 'shared'>;
type Breaker = NonNullable<TargetSnapshot['breaker']>;

/** The second target's breaker: open for so long, then half open, then closed, and again. */
const CYCLE_S = 120;
const OPEN_S = 24;
const HALF_OPEN_S = 30;

export const CLOSED: Breaker = { state: 'closed', opened: 0, consecutive_failures: 0, retry_after_ms: 0 };

/** Nothing configured: one target without a breaker. */
export function plainPart(url: string, attempts = 0): UpstreamPart {
  return {
    maybe_billed_twice: 0,
    retry_budget: null,
    hedges: null,
    targets: [{ url, priority: 0, weight: 1, in_flight: 0, attempts, successes: attempts, failures: 0, breaker: null }],
    rate_limits: [],
    feedback: null,
  };
}

/** Two targets, of which the second mends; retries and hedges. */
export function failoverPart(s: number, url: string, requests: number, inFlight: number): UpstreamPart {
  const second = recovering(s);
  const taken = second.state === 'closed' ? Math.round(inFlight / 3) : second.state === 'half_open' ? 1 : 0;
  return {
    ...plainPart(url),
    maybe_billed_twice: 4,
    retry_budget: {
      balance: Math.round((48 + 30 * Math.sin(s / 11)) * 10) / 10,
      spent: 310 + Math.floor(s / 3),
      exhausted: 0,
    },
    hedges: { sent: 96 + Math.floor(s / 7), won: 41 + Math.floor(s / 15) },
    targets: [
      {
        url,
        priority: 0,
        weight: 2,
        in_flight: inFlight - taken,
        attempts: Math.round(requests * 0.7),
        successes: Math.round(requests * 0.688),
        failures: Math.round(requests * 0.0012),
        breaker: { ...CLOSED, opened: 1 },
      },
      {
        url: 'https://eu.openai.example.com:8443/tenants/one-with-a-long-name/v1',
        priority: 0,
        weight: 1,
        in_flight: taken,
        attempts: Math.round(requests * 0.3),
        successes: Math.round(requests * 0.285),
        failures: Math.round(requests * 0.004),
        breaker: second,
      },
    ],
  };
}

function recovering(s: number): Breaker {
  const [phase, opened] = [s % CYCLE_S, 7 + Math.floor(s / CYCLE_S)];
  if (phase < OPEN_S) {
    return { state: 'open', opened, consecutive_failures: 5, retry_after_ms: Math.round((OPEN_S - phase) * 1000) };
  }
  if (phase < HALF_OPEN_S) return { state: 'half_open', opened, consecutive_failures: 5, retry_after_ms: 0 };
  return { ...CLOSED, opened };
}

/** Two limits, one shared, and an upstream that now and then asks for a pause. */
export function meteredPart(s: number, url: string, requests: number): UpstreamPart {
  const pause = s % 90;
  const paused = pause < 20 ? (20 - pause) * 1000 : 0;
  return {
    ...plainPart(url, requests),
    targets: [
      { ...plainPart(url, requests).targets[0]!, in_flight: 7, failures: 12, breaker: { ...CLOSED, opened: 2 } },
    ],
    rate_limits: [
      rateLimit({
        requests: 600,
        burst: 20,
        shared: true,
        held: Math.round(3 + 3 * Math.sin(s / 6)),
        held_total: 1_841 + s,
      }),
      rateLimit({ requests: 50, per_ms: 1_000, key: 'header:x-user-id', on_limit: 'reject', keys: 212, refused: 31 }),
    ],
    feedback: {
      credentials: 2,
      held: paused > 0 ? 9 : 0,
      held_total: 377 + s,
      pauses: 14 + Math.floor(s / 90),
      paused_ms: paused,
    },
  };
}

function rateLimit(part: Partial<RateLimitSnapshot>): RateLimitSnapshot {
  const counts = { keys: 1, overflowed: 0, held: 0, held_total: 0, refused: 0 };
  return {
    requests: 600,
    per_ms: 60_000,
    burst: 1,
    key: 'global',
    on_limit: 'wait',
    shared: false,
    ...counts,
    ...part,
  };
}

/** @param waited requests that had to wait, since start */
export function lanesPart(s: number, queued: number, waited: number): LimiterPart {
  const lane = (share: number, part: number): LaneSnapshot => {
    return { share, queued: Math.round(queued * part), granted: Math.round(waited * part) };
  };
  return {
    lanes: { interactive: lane(0.75, 0.7), batch: lane(0.25, 0.3) },
    adaptive: { mode: 'aimd', min: 10, max: 120 },
    shared: { held: learntLimit(s), waiting: Math.round(4 + 4 * Math.sin(s / 8)), source: 'redis' },
  };
}

/** What the adaptive limit of lanesPart() is just now. */
export const learntLimit = (s: number) => 100 - Math.floor(15 * (1 - Math.cos(s / 30)));

export const PLAIN_LIMITER: LimiterPart = { lanes: {}, adaptive: null, shared: null };

export function overloadPart(s: number): OverloadSnapshot {
  return {
    level: s % 150 > 130 ? 1 : 0,
    memory_share: Math.round((0.46 + 0.04 * Math.sin(s / 40)) * 1000) / 1000,
    loop_lag_ms: Math.round((3.1 + Math.sin(s / 9)) * 10) / 10,
    entered: { shrink: 2 + Math.floor(s / 150), refuse: 0, close: 0 },
  };
}

export function hubPart(s: number): HubSnapshot {
  return {
    state: 'up',
    peers: 3,
    asked: 18_220 + s * 9,
    errors: 1,
    timeouts: 6,
    tokens: { redis: 41_030 + s * 9, local: 212 },
  };
}

/** Turns a busy snapshot into one of the worst kind. */
export function spoil(snapshot: StatsSnapshot): StatsSnapshot {
  const { openai, deepseek } = snapshot.upstreams;
  const { ai } = snapshot.limiters;
  snapshot.overload = { level: 2, memory_share: 0.934, loop_lag_ms: 312, entered: { shrink: 9, refuse: 2, close: 0 } };
  snapshot.redis = { ...snapshot.redis!, state: 'down', errors: 41, timeouts: 630 };
  ai!.shared = { held: 0, waiting: 0, source: 'local' };
  openai!.maybe_billed_twice = 37;
  openai!.retry_budget = { balance: 0.4, spent: 1_903, exhausted: 2_211 };
  openai!.targets.forEach((target, i) => {
    target.in_flight = 0;
    target.breaker = { state: 'open', opened: 12, consecutive_failures: 9, retry_after_ms: 22_000 + 9_000 * i };
  });
  deepseek!.targets[0]!.breaker = { state: 'half_open', opened: 3, consecutive_failures: 5, retry_after_ms: 0 };
  deepseek!.feedback!.paused_ms = 12_300;
  deepseek!.rate_limits[1]!.overflowed = 18;
  return snapshot;
}

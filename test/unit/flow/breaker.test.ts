// The circuit breaker on a fake clock: when it opens, for how long, and whose answer counts.
import fc from 'fast-check';
import t from 'tap';
import type { BreakerConfig } from '../../../src/config/schema.ts';
import { Breaker, type BreakerState, type Outcome } from '../../../src/flow/breaker.ts';

const NEVER = Number.POSITIVE_INFINITY;
const RULES: BreakerConfig = {
  consecutiveFailures: 3,
  failureRatio: 2,
  windowMs: 10_000,
  minRequests: 10,
  openMs: 1000,
  maxOpenMs: 60_000,
};
const RATIO: BreakerConfig = { ...RULES, consecutiveFailures: NEVER, failureRatio: 0.5 };

/** A breaker, its clock, and what it told of itself. */
class Scene {
  now: number;
  readonly breaker: Breaker;
  readonly changes: BreakerState[] = [];
  /** Open times are the base · (0.5 + 0.5 · random): 1 leaves them whole. */
  random = 1;

  constructor(rules: Partial<BreakerConfig> = {}, now = 5000) {
    this.now = now;
    this.breaker = new Breaker({ ...RULES, ...rules }, now, () => this.random);
    this.breaker.onChange = (state, breaker) => {
      if (breaker.state !== state) throw new Error('told before it changed');
      this.changes.push(state);
    };
  }

  /** Attempts that begin and end now. */
  attempts(...outcomes: Outcome[]): this {
    for (const outcome of outcomes) {
      if (!this.breaker.allows(this.now)) throw new Error(`refused at ${this.now}`);
      this.breaker.end(this.breaker.begin(this.now), outcome, this.now);
    }
    return this;
  }

  fail(times = 3): this {
    return this.attempts(...Array<Outcome>(times).fill('failure'));
  }

  pass(ms: number): this {
    this.now += ms;
    return this;
  }

  get allows(): boolean {
    return this.breaker.allows(this.now);
  }

  get retryAfterMs(): number {
    return this.breaker.retryAfterMs(this.now);
  }

  /** Fails the probe as soon as it may; says how long that was. */
  failProbe(): number {
    const waited = this.retryAfterMs;
    this.pass(waited).fail(1);
    return waited;
  }
}

t.test('it opens after so many failures in a row, and not before', async (t) => {
  const scene = new Scene();
  scene.attempts('failure', 'failure', 'success', 'failure', 'failure');
  t.equal(scene.breaker.consecutiveFailures, 2, 'a success begins the row anew');
  t.ok(scene.allows);
  t.equal(scene.retryAfterMs, 0);
  scene.fail(1);
  t.notOk(scene.allows);
  t.same(scene.changes, ['open']);
  t.same([scene.breaker.state, scene.breaker.opened], ['open', 1]);
});

t.test('neutral ends neither add to a row nor break it, and are not in the window', async (t) => {
  const scene = new Scene();
  scene.attempts('failure', 'neutral', 'failure', 'neutral');
  t.equal(scene.breaker.consecutiveFailures, 2);
  t.same([scene.breaker.requestsAt(scene.now), scene.breaker.failuresAt(scene.now)], [2, 2]);
  scene.fail(1);
  t.equal(scene.breaker.state, 'open');
  const ratio = new Scene(RATIO);
  ratio.attempts(...Array<Outcome>(50).fill('neutral')).fail(9);
  t.equal(ratio.breaker.state, 'closed', 'nine ended, not fifty-nine');
  ratio.fail(1);
  t.equal(ratio.breaker.state, 'open');
});

t.test('it opens at the ratio, once enough have ended', async (t) => {
  const few = new Scene(RATIO).fail(9);
  t.ok(few.allows, 'nine of nine, but ten are asked for');
  few.fail(1);
  t.notOk(few.allows);
  const below = new Scene(RATIO);
  for (let i = 0; i < 100; i++) below.attempts('success', 'success', 'failure', 'success', 'failure');
  t.ok(below.allows, 'two fifths');
  below.fail(99);
  t.ok(below.allows, '299 of 599');
  below.attempts('success').fail(1);
  t.ok(below.allows, '300 of 601');
  below.fail(1);
  t.notOk(below.allows, '301 of 602: half');
});

t.test('a success never opens it, whatever the ratio', async (t) => {
  const scene = new Scene(RATIO).fail(9).attempts('success');
  t.ok(scene.allows, 'nine of ten failed, and the last did not');
  scene.fail(1);
  t.notOk(scene.allows);
});

t.test('the window slides: a tenth of it falls out at a time', async (t) => {
  const scene = new Scene(RATIO);
  const counts = () => {
    const failures = scene.breaker.failuresAt(scene.now);
    return [scene.breaker.requestsAt(scene.now), failures];
  };
  for (let second = 0; second < 10; second++) {
    scene.attempts('success', 'success', second < 5 ? 'failure' : 'success');
    if (second < 9) scene.pass(1000);
  }
  t.same(counts(), [30, 5]);
  scene.pass(999);
  t.same(counts(), [30, 5]);
  scene.pass(1);
  t.same(counts(), [27, 4]);
  scene.pass(4000);
  t.same(counts(), [15, 0]);
  scene.pass(5000);
  t.same(counts(), [0, 0], 'read after a quiet time, nothing old is told');
  scene.fail(4).pass(1_000_000).fail(5);
  t.same(counts(), [5, 5], 'after a pause of many windows too');
  scene.pass(10_000);
  for (let second = 0; second < 40; second++) {
    scene.pass(1000).attempts('success', 'failure', 'success');
    if (second >= 9 && counts().join() !== '30,10') t.fail(`${counts()} after many turns of the window`);
  }
});

t.test('each count of the window is as of the time it is asked for', async (t) => {
  const scene = new Scene().fail(2).pass(10_000);
  t.equal(scene.breaker.requestsAt(scene.now), 0);
  scene.attempts('success', 'failure').pass(10_000);
  t.equal(scene.breaker.failuresAt(scene.now), 0);
});

t.test('failures that fell out of the window count no more', async (t) => {
  const scene = new Scene(RATIO);
  for (let minute = 0; minute < 10; minute++) scene.fail(9).pass(60_000);
  t.ok(scene.allows);
  scene.fail(9).pass(9000).fail(1);
  t.notOk(scene.allows, 'those of nine seconds ago do');
});

t.test('it opens by a single failure where the rules say so', async (t) => {
  const row = new Scene({ consecutiveFailures: 1 }).fail(1);
  t.equal(row.breaker.state, 'open');
  const ratio = new Scene({ ...RATIO, minRequests: 0 }).fail(1);
  t.equal(ratio.breaker.state, 'open');
});

t.test('while open it refuses and says how much longer', async (t) => {
  const scene = new Scene().fail();
  t.equal(scene.retryAfterMs, 1000);
  scene.pass(999.5);
  t.notOk(scene.allows);
  t.equal(scene.retryAfterMs, 0.5);
  t.equal(scene.breaker.stateAt(scene.now), 'open');
  scene.pass(0.5);
  t.ok(scene.allows);
  t.equal(scene.retryAfterMs, 0);
  t.equal(scene.breaker.stateAt(scene.now), 'half_open', 'though nobody has come yet');
  t.equal(scene.breaker.state, 'open');
  t.same(scene.changes, ['open']);
});

t.test('half-open, one real request probes and all others are refused', async (t) => {
  const scene = new Scene().fail().pass(1000);
  const probe = scene.breaker.begin(scene.now);
  t.ok(scene.breaker.isProbe(probe));
  t.same(scene.changes, ['open', 'half_open']);
  t.notOk(scene.allows);
  t.ok(scene.retryAfterMs > 0, 'and are told to wait');
  scene.pass(3_600_000);
  t.notOk(scene.allows, 'however long the probe takes');
  scene.breaker.end(probe, 'success', scene.now);
  t.ok(scene.allows);
  t.equal(scene.retryAfterMs, 0);
  t.same(scene.changes, ['open', 'half_open', 'closed']);
  t.notOk(scene.breaker.isProbe(scene.breaker.begin(scene.now)));
});

t.test('closed by a probe, it begins with a clean sheet', async (t) => {
  for (const rules of [RULES, RATIO]) {
    const scene = new Scene(rules).fail(rules === RULES ? 3 : 10);
    scene.pass(1000).attempts('success');
    t.same([scene.breaker.consecutiveFailures, scene.breaker.failuresAt(scene.now)], [0, 0]);
    t.equal(scene.breaker.requestsAt(scene.now), 0);
    scene.fail(rules === RULES ? 2 : 9);
    t.ok(scene.allows, 'what was before it opened counts no more');
    scene.fail(1);
    t.notOk(scene.allows);
  }
});

t.test('each failed probe doubles the open time, up to the maximum', async (t) => {
  const scene = new Scene().fail();
  const waits = Array.from({ length: 8 }, () => scene.failProbe());
  t.same(waits, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
  t.equal(scene.breaker.opened, 9);
  t.equal(scene.changes.filter((state) => state === 'open').length, 9, 'as often as it was told');
  t.notOk(scene.changes.includes('closed'));
});

t.test('the jitter takes up to half of the open time and never makes it longer', async (t) => {
  const scene = new Scene();
  scene.random = 0;
  scene.fail();
  t.equal(scene.failProbe(), 500);
  t.equal(scene.failProbe(), 1000, 'doubled is what it was before the jitter');
  scene.random = 0.5;
  scene.failProbe();
  t.equal(scene.failProbe(), 6000);
  for (let i = 0; i < 10; i++) scene.failProbe();
  t.equal(scene.failProbe(), 45_000, 'there is jitter at the maximum too');
  const small = new Scene({ openMs: 5000, maxOpenMs: 2000 }).fail();
  t.equal(small.retryAfterMs, 2000);
});

t.test('a breaker of its own makes its own jitter', async (t) => {
  const waits = Array.from({ length: 50 }, () => {
    const breaker = new Breaker(RULES, 0);
    for (let i = 0; i < 3; i++) breaker.end(breaker.begin(0), 'failure', 0);
    return breaker.retryAfterMs(0);
  });
  t.ok(waits.every((ms) => ms >= 500 && ms <= 1000));
  t.ok(new Set(waits).size > 1);
});

t.test(
  'an upstream that flaps is not tried at the first pace: opening again soon counts like a failed probe',
  async (t) => {
    const scene = new Scene().fail();
    const waits = [];
    for (let i = 0; i < 4; i++) {
      waits.push(scene.retryAfterMs);
      scene.pass(scene.retryAfterMs).attempts('success').pass(100).fail();
    }
    t.same(waits, [1000, 2000, 4000, 8000]);
  },
);

t.test('closed for as long as it was last open, it is trusted again', async (t) => {
  for (const [closedMs, next] of [
    [3999, 8000],
    [4000, 1000],
  ] as const) {
    const scene = new Scene().fail();
    scene.failProbe();
    scene.failProbe();
    scene.pass(scene.retryAfterMs).attempts('success').pass(closedMs).fail();
    t.equal(scene.retryAfterMs, next, `closed for ${closedMs} ms after an open time of 4000`);
  }
});

t.test('a neutral probe gives its place to another, without a verdict', async (t) => {
  const scene = new Scene().fail().pass(1000);
  scene.attempts('neutral');
  t.equal(scene.breaker.state, 'half_open');
  t.ok(scene.allows);
  t.equal(scene.retryAfterMs, 0);
  const next = scene.breaker.begin(scene.now);
  t.ok(scene.breaker.isProbe(next));
  t.notOk(scene.allows);
  scene.breaker.end(next, 'failure', scene.now);
  t.equal(scene.retryAfterMs, 2000);
  t.same(scene.changes, ['open', 'half_open', 'open'], 'no change is told twice');
});

t.test('a late success neither closes it nor ends a probe', async (t) => {
  const scene = new Scene();
  const late = [0, 1, 2].map(() => scene.breaker.begin(scene.now));
  scene.fail();
  scene.breaker.end(late[0]!, 'success', scene.now);
  t.notOk(scene.allows, 'while open');
  scene.pass(1000);
  const probe = scene.breaker.begin(scene.now);
  scene.breaker.end(late[1]!, 'success', scene.now);
  t.notOk(scene.allows, 'while a probe is under way');
  scene.breaker.end(probe, 'success', scene.now);
  scene.breaker.end(late[2]!, 'success', scene.now);
  t.equal(scene.breaker.requestsAt(scene.now), 0, 'nor does it count afterwards');
});

t.test('a late failure neither opens it nor makes it stay open longer', async (t) => {
  const scene = new Scene();
  const late = Array.from({ length: 12 }, () => scene.breaker.begin(scene.now));
  const failLate = (n: number) => {
    for (const ticket of late.splice(0, n)) scene.breaker.end(ticket, 'failure', scene.now);
  };
  scene.fail().pass(500);
  failLate(4);
  t.equal(scene.retryAfterMs, 500);
  t.equal(scene.breaker.consecutiveFailures, 3);
  scene.pass(500);
  const probe = scene.breaker.begin(scene.now);
  failLate(4);
  t.equal(scene.breaker.state, 'half_open');
  scene.breaker.end(probe, 'success', scene.now);
  failLate(4);
  t.ok(scene.allows);
  t.same([scene.breaker.consecutiveFailures, scene.breaker.failuresAt(scene.now)], [0, 0]);
  t.equal(scene.breaker.opened, 1);
});

t.test('a probe that ended is no probe of the next time', async (t) => {
  const scene = new Scene().fail().pass(1000);
  const first = scene.breaker.begin(scene.now);
  scene.breaker.end(first, 'neutral', scene.now);
  const second = scene.breaker.begin(scene.now);
  scene.breaker.end(first, 'success', scene.now);
  t.equal(scene.breaker.state, 'half_open');
  scene.breaker.end(second, 'failure', scene.now);
  scene.breaker.end(second, 'failure', scene.now);
  t.equal(scene.retryAfterMs, 2000);
  t.equal(scene.breaker.opened, 2);
});

t.test('who begins though it is refused gets no say', async (t) => {
  const scene = new Scene().fail();
  const beganOpen = scene.breaker.begin(scene.now);
  t.notOk(scene.breaker.isProbe(beganOpen));
  scene.breaker.end(beganOpen, 'success', scene.now);
  t.notOk(scene.allows);
  t.same(scene.changes, ['open']);
  scene.pass(1000);
  const probe = scene.breaker.begin(scene.now);
  const beside = scene.breaker.begin(scene.now);
  t.notOk(scene.breaker.isProbe(beside));
  scene.breaker.end(beside, 'failure', scene.now);
  t.equal(scene.breaker.state, 'half_open');
  scene.breaker.end(probe, 'success', scene.now);
  t.ok(scene.allows);
});

t.test('whoever is told of a change sees it done, and may ask', async (t) => {
  const scene = new Scene();
  const seen: unknown[] = [];
  scene.breaker.onChange = (state, breaker) =>
    seen.push([state, breaker.allows(scene.now), breaker.retryAfterMs(scene.now) > 0, breaker.opened]);
  scene.fail().pass(1000).attempts('success');
  t.same(seen, [
    ['open', false, true, 1],
    ['half_open', false, true, 1],
    ['closed', true, false, 1],
  ]);
});

// ---- whatever happens

type Step =
  | { readonly kind: 'begin'; readonly anyway: boolean }
  | { readonly kind: 'end'; readonly pick: number; readonly outcome: Outcome }
  | { readonly kind: 'pass'; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('begin' as const), anyway: fc.constant(false) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('begin' as const), anyway: fc.constant(true) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('end' as const),
      pick: fc.nat(),
      outcome: fc.constantFrom<Outcome>('failure', 'failure', 'success', 'neutral'),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.nat({ max: 3000 }) }) },
);

/** What must hold at any time, kept by bookkeeping of its own: every outcome with its time, every attempt with the state it began in. */
function runAgainstBook(steps: readonly Step[], rules: BreakerConfig, random: readonly number[]): void {
  let now = 123.25;
  let draws = 0;
  const breaker = new Breaker(rules, now, () => random[draws++ % random.length]!);
  let epoch = 0;
  let openedAt = 0;
  let outcomes: { at: number; failed: boolean }[] = [];
  let expected = false;
  breaker.onChange = (state) => {
    if (!expected) throw new Error(`${state} out of nowhere`);
    epoch++;
    if (state === 'closed') outcomes = [];
    if (state === 'open') openedAt = now;
  };
  const flying: { ticket: number; epoch: number; probe: boolean }[] = [];
  for (const step of steps) {
    const allowed = breaker.allows(now);
    const probes = flying.filter((attempt) => attempt.probe && attempt.epoch === epoch).length;
    if (probes > 1) throw new Error('two probes');
    if (allowed && breaker.state !== 'closed' && probes > 0) throw new Error('allowed beside a probe');
    if (allowed !== (breaker.retryAfterMs(now) === 0)) throw new Error('told to wait, or not, for nothing');
    if (breaker.state === 'open' && now - openedAt >= rules.maxOpenMs && !allowed) throw new Error('open for too long');
    if (breaker.state === 'open' && now - openedAt < Math.min(rules.openMs, rules.maxOpenMs) / 2 && allowed)
      throw new Error('open for too short a time');
    if (step.kind === 'pass') now += step.ms;
    else if (step.kind === 'begin') {
      if (!allowed && !step.anyway) continue;
      const wasClosed = breaker.state === 'closed';
      expected = allowed && breaker.state === 'open';
      const ticket = breaker.begin(now);
      const probe = breaker.isProbe(ticket);
      if (probe !== (allowed && !wasClosed)) throw new Error('probe or not');
      flying.push({ ticket, epoch: allowed ? epoch : -1, probe });
    } else if (flying.length > 0) {
      const [attempt] = flying.splice(step.pick % flying.length, 1);
      const counts = attempt!.epoch === epoch && step.outcome !== 'neutral';
      expected = counts && (attempt!.probe || step.outcome === 'failure');
      const before = breaker.state;
      if (counts && !attempt!.probe) outcomes.push({ at: now, failed: step.outcome === 'failure' });
      breaker.end(attempt!.ticket, step.outcome, now);
      if (attempt!.probe && counts && breaker.state !== (step.outcome === 'success' ? 'closed' : 'open'))
        throw new Error(`${breaker.state} after a probe's ${step.outcome}`);
      if (before === 'closed' && counts) {
        const row = outcomes.length - 1 - outcomes.findLastIndex(({ failed }) => !failed);
        // A whole window and nine tenths of one: what the slices hold is between the two.
        const [most, least] = [1, 0.9].map((part) => outcomes.filter(({ at }) => at > now - part * rules.windowMs));
        const share = (list: typeof outcomes) => list.filter(({ failed }) => failed).length / list.length;
        const byRow = row >= rules.consecutiveFailures;
        const sure = least!.length >= rules.minRequests && most!.length === least!.length;
        if (step.outcome === 'failure') {
          if (breaker.state === 'closed' && (byRow || (sure && share(least!) >= rules.failureRatio)))
            throw new Error('should have opened');
          if (breaker.state === 'open' && !byRow && most!.length < rules.minRequests)
            throw new Error('opened by too few');
        }
      }
    }
    expected = false;
  }
}

t.test('random attempts, late and early, agree with a book kept beside it', async () => {
  const rules = fc.record({
    consecutiveFailures: fc.constantFrom(1, 2, 4, NEVER),
    failureRatio: fc.constantFrom(0.3, 0.5, 1, 2),
    windowMs: fc.constantFrom(1000, 10_000),
    minRequests: fc.constantFrom(1, 3, 8),
    openMs: fc.constantFrom(100, 1000),
    maxOpenMs: fc.constantFrom(1000, 3000),
  });
  const random = fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), {
    minLength: 1,
    maxLength: 4,
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: 'max' }), rules, random, (steps, rules, random) =>
      runAgainstBook(steps, rules, random),
    ),
    { numRuns: 1000 },
  );
});

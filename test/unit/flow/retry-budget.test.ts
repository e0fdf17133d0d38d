// The retry budget on a fake clock: how many retries much, little and falling load may have.
import fc from 'fast-check';
import t from 'tap';
import { RetryBudget } from '../../../src/flow/retry-budget.ts';

const RATIO = 0.2;
const MIN = 3;

/** A budget, its requests and its clock, pulsed each second. */
class Scene {
  now: number;
  requests: number;
  readonly budget: RetryBudget;
  #pulseAt: number;

  constructor({ ratio = RATIO, min = MIN, now = 777.5, requests = 0 } = {}) {
    this.now = now;
    this.requests = requests;
    this.budget = new RetryBudget(ratio, min, () => this.requests, now);
    this.#pulseAt = now + 1000;
  }

  pass(ms: number): this {
    const end = this.now + ms;
    for (; this.#pulseAt <= end; this.#pulseAt += 1000) {
      this.now = this.#pulseAt;
      this.budget.pulse(this.now);
    }
    this.now = end;
    return this;
  }

  /** So many requests, evenly over `ms`. */
  load(requests: number, ms: number): this {
    for (let i = 0; i < requests; i++) {
      this.pass(ms / requests);
      this.requests++;
    }
    return this;
  }

  spend(): boolean {
    return this.budget.trySpend(this.now);
  }

  /** Spends until refused. */
  drain(): number {
    const before = this.budget.spent;
    while (this.spend());
    return this.budget.spent - before;
  }

  get balance(): number {
    return Math.round(this.budget.balance(this.now) * 1e6) / 1e6;
  }
}

t.test('a new budget has its minimum', async (t) => {
  const scene = new Scene();
  t.equal(scene.balance, 3);
  t.same([scene.spend(), scene.spend(), scene.spend(), scene.spend()], [true, true, true, false]);
  t.same([scene.budget.spent, scene.budget.exhausted], [3, 1]);
  t.equal(new Scene({ min: 0 }).spend(), false);
  scene.requests = 10;
  t.equal(scene.balance, 2, 'what was just earned is told');
  t.equal(new Scene({ requests: 1_000_000 }).balance, 3, 'requests from before it was there are not its own');
});

t.test('each request adds its share, and five of a fifth make a whole one', async (t) => {
  const scene = new Scene();
  scene.drain();
  for (let i = 0; i < 400; i++) {
    scene.requests++;
    if (scene.spend() !== (i % 5 === 4)) t.fail(`request ${i}`);
  }
  t.equal(scene.budget.spent, 83);
});

t.test(
  'after a good time it has the share of the last ten seconds’ requests, plus the minimum, and no more',
  async (t) => {
    const scene = new Scene().load(60_000, 600_000);
    // Only pulses have looked: nine to ten seconds count.
    t.ok(scene.balance >= RATIO * 900 + MIN && scene.balance <= RATIO * 1000 + MIN, `${scene.balance}`);
    scene.pass(5000);
    t.ok(scene.balance >= RATIO * 400 + MIN && scene.balance <= RATIO * 500 + MIN, 'half of it is older now');
    scene.pass(5000);
    t.equal(scene.balance, 3);
  },
);

t.test('a short bad time after a good one has all of it at once', async (t) => {
  const scene = new Scene().load(1000, 10_000);
  const drained = scene.drain();
  t.ok(drained >= 183 && drained <= 203, `${drained}`);
});

t.test('what was earned while the last ten seconds are overdrawn is lost', async (t) => {
  const scene = new Scene().load(1000, 10_000);
  const overdrawn = scene.drain();
  /** Retries in so many seconds of 100 requests each, asked for all the time. */
  const drainFor = (seconds: number) => {
    let spent = 0;
    for (let i = 0; i < seconds * 10; i++) spent += scene.load(10, 100).drain();
    return spent;
  };
  const lost = drainFor(10);
  t.ok(overdrawn + lost <= 203, `${lost}, not the 200 that 1000 requests would earn`);
  const even = Array.from({ length: 60 }, () => drainFor(1));
  t.ok(
    even.every((spent) => spent === 20 || spent === 19),
    `then a fifth, evenly: ${even}`,
  );
  t.ok(even.reduce((sum, spent) => sum + spent) >= 0.99 * 1200);
});

t.test('it is lifted to its minimum only when nobody has asked for ten seconds', async (t) => {
  const scene = new Scene();
  scene.drain();
  scene.pass(11_000);
  t.equal(scene.balance, 3);
  scene.drain();
  for (let i = 0; i < 100; i++) {
    scene.pass(9900);
    if (scene.spend()) t.fail('a retry that is refused is asked for, too: the bad time goes on');
  }
  scene.pass(11_000);
  t.equal(scene.drain(), 3);
});

t.test('a balance above the minimum is not lowered by a pause', async (t) => {
  const scene = new Scene();
  scene.drain();
  scene.pass(5000).load(1000, 8900);
  t.ok(scene.balance > 150, `${scene.balance}`);
});

t.test('where load falls, what was paid for is no debt', async (t) => {
  const scene = new Scene().load(1000, 9500);
  scene.drain();
  for (let i = 0; i < 11; i++) {
    scene.pass(1000);
    t.ok(scene.balance >= 0, `${scene.balance}`);
    scene.spend();
  }
  scene.requests += 20;
  t.equal(scene.drain(), 4, 'after eleven seconds what comes is earned again');
});

t.test('retries of the last ten seconds count also when the requests that paid for them are older', async (t) => {
  const scene = new Scene({ now: 0 });
  scene.pass(40).requests = 1000;
  scene.pass(55);
  t.equal(scene.drain(), 203);
  scene.load(100, 9000).pass(950);
  t.equal(scene.spend(), false, '203 retries, and 100 requests in the last ten seconds');
  scene.pass(100).requests += 5;
  t.equal(scene.spend(), true, 'now those are older, too');
});

t.test('without a pulse it is stricter, never more generous', async (t) => {
  const budget = (requests: () => number) => new RetryBudget(RATIO, MIN, requests, 0);
  let requests = 0;
  const unpulsed = budget(() => requests);
  const pulsed = budget(() => requests);
  for (let second = 1; second <= 60; second++) {
    requests += 10;
    pulsed.pulse(second * 1000);
  }
  t.ok(unpulsed.balance(60_000) <= pulsed.balance(60_000));
  t.ok(unpulsed.balance(60_000) >= MIN);
  t.ok(pulsed.balance(60_000) > 20);
  t.equal(unpulsed.balance(5_000_000), 3, 'after a stall too');
});

// ---- 60 % failures

/** Numbers 0..1, the same each time (Park & Miller 1988). */
function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

/** Requests at a load, up to three attempts each, 100 ms apart; a share of all attempts fails. */
function badTime(scene: Scene, perSecond: number, seconds: number, failures: number, seed: number) {
  const random = sequence(seed);
  const retries: { at: number; attempt: number }[] = [];
  const before = { requests: scene.requests, spent: scene.budget.spent };
  const end = scene.now + seconds * 1000;
  let nextAt = scene.now;
  const attempt = (n: number) => {
    if (random() >= failures || n === 3) return;
    if (scene.spend()) retries.push({ at: scene.now + 100, attempt: n + 1 });
  };
  for (;;) {
    const retry = retries[0];
    const at = Math.min(nextAt, retry?.at ?? Number.POSITIVE_INFINITY);
    if (at > end) break;
    scene.pass(at - scene.now);
    if (retry?.at === at) {
      retries.shift();
      attempt(retry.attempt);
    } else {
      scene.requests++;
      nextAt += 1000 / perSecond;
      attempt(1);
    }
  }
  scene.pass(end - scene.now);
  return { requests: scene.requests - before.requests, retries: scene.budget.spent - before.spent };
}

t.test(
  'at 60 % failures for a minute, retries are at most a fifth of the requests and three, at any load',
  async (t) => {
    for (const perSecond of [1, 2, 5, 10, 50, 333, 1000])
      for (const seed of [1, 2, 3]) {
        const { requests, retries } = badTime(new Scene(), perSecond, 60, 0.6, seed);
        const most = RATIO * requests + MIN;
        t.ok(retries <= most, `${perSecond}/s: ${retries} retries for ${requests} requests`);
        t.ok(retries >= 0.9 * most - 1, 'and nearly all of them are granted');
      }
  },
);

t.test('so also when a good time of the same load went before it', async (t) => {
  for (const perSecond of [1, 2, 5, 10, 50, 333, 1000]) {
    const scene = new Scene();
    badTime(scene, perSecond, 63.7, 0, 1);
    const { requests, retries } = badTime(scene, perSecond, 60, 0.6, 1);
    t.ok(retries <= RATIO * requests + MIN, `${perSecond}/s: ${retries} retries for ${requests} requests`);
    t.ok(retries >= RATIO * requests * 0.8, `${retries}`);
  }
});

t.test('a few independent failures are all retried', async (t) => {
  for (const perSecond of [1, 10, 100]) {
    const scene = new Scene();
    const { requests, retries } = badTime(scene, perSecond, 600, 0.1, 5);
    t.equal(scene.budget.exhausted, 0, `${retries} retries for ${requests} requests`);
    t.ok(retries > 0.08 * requests);
  }
});

// ---- whatever happens

t.test('at each retry the last ten seconds hold, and a bad time has its minimum once', async () => {
  const step = fc.record({
    requests: fc.oneof({ weight: 3, arbitrary: fc.nat({ max: 8 }) }, { weight: 1, arbitrary: fc.nat({ max: 60 }) }),
    asks: fc.nat({ max: 6 }),
    passMs: fc.oneof(fc.nat({ max: 500 }), fc.nat({ max: 4000 }), fc.nat({ max: 15_000 })),
    pulse: fc.boolean(),
  });
  const steps = fc.array(step, { maxLength: 80, size: 'max' });
  fc.assert(
    fc.property(fc.constantFrom(0.1, 0.2, 1 / 3, 1, 1.5), fc.nat({ max: 5 }), steps, (ratio, min, steps) => {
      let now = 50.5;
      const requests: number[] = [];
      const retries: number[] = [];
      let askedAt = now;
      let badSince = now;
      const budget = new RetryBudget(ratio, min, () => requests.length, now);
      const count = (times: number[], since: number) => times.filter((at) => at >= since).length;
      for (const step of steps) {
        now += step.passMs;
        for (let i = 0; i < step.requests; i++) requests.push(now);
        if (step.pulse) budget.pulse(now);
        for (let i = 0; i < step.asks; i++) {
          if (now - askedAt >= 10_000) badSince = now;
          askedAt = now;
          if (!budget.trySpend(now)) continue;
          retries.push(now);
          const holds = (since: number, paidSince: number) =>
            count(retries, since) <= ratio * count(requests, paidSince) + min + 1e-6;
          if (!holds(now - 10_000, now - 10_000)) throw new Error(`too many in the ten seconds before ${now}`);
          if (!holds(badSince, badSince - 10_000)) throw new Error(`too many since ${badSince}`);
        }
      }
      if (budget.spent !== retries.length) throw new Error('miscounted');
    }),
    { numRuns: 500 },
  );
});

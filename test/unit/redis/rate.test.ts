// Rate limits kept over a real Redis: what the script books, and several sidecars that keep one rate, also through Redis’ bad days.
import t from 'tap';
import { type RateMode, SharedRate } from '../../../src/flow/shared-rate.ts';
import type { RedisHub } from '../../../src/redis/hub.ts';
import { RedisRates } from '../../../src/redis/rate.ts';
import { now, up, withHubs } from '../../support/hubs.ts';
import { until, whileNothing } from '../../support/until.ts';

const TIMEOUT_MS = 150;
const MARGIN_MS = 350;
const HOUR_MS = 3_600_000;

/** Somebody always waits: each takes its token the moment it is ready. */
class Hungry {
  readonly rates: RedisRates;
  readonly rate: SharedRate;
  /** When one passed. */
  readonly passed: number[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;

  constructor(hub: RedisHub, intervalMs: number, burst: number, mode: RateMode = 'wait') {
    this.rates = new RedisRates(hub);
    this.rate = new SharedRate(this.rates, 'k', intervalMs, burst, mode, now);
    this.rate.onChange = () => this.#step();
  }

  start(): this {
    this.#step();
    return this;
  }

  stop(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }

  #step(): void {
    clearTimeout(this.#timer);
    while (!this.#isOver) {
      let at = this.rate.readyAt(now());
      if (at > now()) {
        this.rate.want(10);
        at = this.rate.readyAt(now());
      }
      if (at > now()) {
        if (Number.isFinite(at)) this.#timer = setTimeout(() => this.#step(), at - now());
        return;
      }
      this.rate.take(now());
      this.passed.push(now());
    }
  }
}

/** The most that passed within any time of this length. */
function densest(times: readonly number[], ms: number): number {
  const sorted = times.toSorted((a, b) => a - b);
  let most = 0;
  for (let from = 0, to = 0; to < sorted.length; to++) {
    while (sorted[to]! - sorted[from]! >= ms) from++;
    most = Math.max(most, to - from + 1);
  }
  return most;
}

withHubs('the script books by the rate, the burst first', async (t, { redis, open }) => {
  const hub = await open();
  const rates = new RedisRates(hub);
  const { waitsMs, retryMs } = await rates.book('k', HOUR_MS, 3, 5, 'wait');
  t.same(waitsMs.slice(0, 3), [0, 0, 0]);
  t.ok(Math.abs(waitsMs[3]! - HOUR_MS) < 1);
  t.ok(Math.abs(waitsMs[4]! - 2 * HOUR_MS) < 1);
  t.equal(retryMs, 0);
  const later = await rates.book('k', HOUR_MS, 3, 1, 'wait');
  t.ok(later.waitsMs[0]! > 3 * HOUR_MS - 2000 && later.waitsMs[0]! < 3 * HOUR_MS, 'behind what was booked');
  const other = await rates.book('other', HOUR_MS, 3, 1, 'wait');
  t.same(other.waitsMs, [0]);
  const ttl = Number((await redis.ask('PTTL test:r:k')).slice(1));
  t.ok(ttl > 6 * HOUR_MS - 2000 && ttl <= 6 * HOUR_MS + 2, 'the state lives until it says nothing any more');
});

withHubs('the script refuses what would have to wait, and that costs nothing', async (t, { open }) => {
  const rates = new RedisRates(await open());
  t.same(await rates.book('k', HOUR_MS, 2, 1, 'reject'), { waitsMs: [0], retryMs: 0 });
  const some = await rates.book('k', HOUR_MS, 2, 3, 'reject');
  t.same(some.waitsMs, [0]);
  t.ok(some.retryMs > HOUR_MS - 2000 && some.retryMs <= HOUR_MS, `in ${some.retryMs} ms`);
  for (let i = 0; i < 3; i++) {
    const none = await rates.book('k', HOUR_MS, 2, 1, 'reject');
    t.same(none.waitsMs, []);
    t.ok(none.retryMs <= some.retryMs);
  }
});

withHubs('a fraction of a millisecond is not lost', async (t, { open }) => {
  const rates = new RedisRates(await open());
  const intervalMs = 1 / 7;
  const { waitsMs } = await rates.book('k', intervalMs, 1, 7001, 'wait');
  t.ok(Math.abs(waitsMs[7000]! - 1000) < 0.01, `${waitsMs[7000]} ms for 7000`);
});

withHubs(
  'a clock that was set back, or rubbish in the place of the state, holds nobody up',
  async (t, { redis, open }) => {
    const rates = new RedisRates(await open());
    const ahead = (Date.now() + 10 * HOUR_MS) * 1000;
    await redis.ask(`SET test:r:k "500000.0 ${ahead}"`);
    const { waitsMs } = await rates.book('k', 1000, 1, 2, 'wait');
    t.equal(waitsMs[0], 500, 'as far ahead as it was');
    t.ok(Math.abs(waitsMs[1]! - waitsMs[0]! - 1000) < 1);
    for (const rubbish of ['x', '"x y"', '""']) {
      await redis.ask(`SET test:r:k ${rubbish}`);
      t.same((await rates.book('k', 1000, 1, 1, 'wait')).waitsMs, [0], rubbish);
    }
  },
);

withHubs('three sidecars keep one rate, and use it up', async (t, { redis, open, ends }) => {
  const [INTERVAL_MS, SECONDS] = [20, 3];
  const members: Hungry[] = [];
  for (let i = 0; i < 3; i++) members.push(new Hungry(await open(), INTERVAL_MS, 1));
  ends(() => {
    for (const member of members) member.stop();
  });
  const began = now();
  for (const member of members) member.start();
  await whileNothing(SECONDS * 500);
  await redis.ask('SCRIPT FLUSH');
  await whileNothing(SECONDS * 500);
  for (const member of members) member.stop();
  const passed = members.flatMap((member) => member.passed);
  const expected = (now() - began) / INTERVAL_MS;
  t.ok(passed.length <= expected + 1, `${passed.length} of ${expected}`);
  t.ok(passed.length > expected * 0.95, `${passed.length} of ${expected}`);
  // A loop that was held up lets those bunch that were due meanwhile.
  const most = densest(passed, 1000);
  t.ok(most <= 1000 / INTERVAL_MS + 5, `at most ${most} in a second`);
  for (const { passed } of members) t.ok(passed.length > expected / 4, `fair: ${passed.length}`);
  for (const { rates, rate, passed } of members) {
    t.same(rates.taken, { redis: passed.length, local: 0 });
    t.equal(rate.source, 'redis');
  }
});

withHubs('a burst is one for all of them together', async (t, { open, ends }) => {
  const members: Hungry[] = [];
  for (let i = 0; i < 3; i++) members.push(new Hungry(await open(), HOUR_MS, 10).start());
  ends(() => {
    for (const member of members) member.stop();
  });
  const total = () => members.reduce((sum, { passed }) => sum + passed.length, 0);
  await until('all of it is used', () => total() === 10);
  await whileNothing(100);
  t.equal(total(), 10);
});

withHubs('where nobody is to wait, what is over the rate is refused by all', async (t, { open }) => {
  const rates: SharedRate[] = [];
  for (let i = 0; i < 2; i++) {
    rates.push(new SharedRate(new RedisRates(await open()), 'k', HOUR_MS, 2, 'reject', now));
  }
  const outcomes: boolean[] = [];
  for (const rate of [rates[0]!, rates[1]!, rates[0]!, rates[1]!]) {
    rate.want(1);
    await until('known', () => Number.isFinite(rate.readyAt(now())));
    const at = rate.readyAt(now());
    outcomes.push(at <= now());
    if (at <= now()) rate.take(now());
    else t.ok(at - now() > HOUR_MS - 5000, 'when to come again');
  }
  t.same(outcomes, [true, true, false, false]);
});

withHubs(
  'a frozen Redis costs one timeout, then the local share is used, and Redis again when it is back',
  async (t, scene) => {
    const { redis, open, ends } = scene;
    const members: Hungry[] = [];
    const hubs: RedisHub[] = [];
    for (let i = 0; i < 2; i++) {
      const hub = await open({ timeoutMs: TIMEOUT_MS }, { beatMs: 50, deadMs: 5000 });
      hubs.push(hub);
      members.push(new Hungry(hub, 20, 1));
    }
    await until('they know of each other', () => hubs.every((hub) => hub.peers === 2));
    for (const member of members) member.start();
    ends(() => {
      for (const member of members) member.stop();
    });
    await until('it runs', () => members.every(({ passed }) => passed.length > 10));
    redis.freeze();
    const frozenAt = now();
    await until('local', () => members.every(({ rate }) => rate.source === 'local'));
    const took = now() - frozenAt;
    t.ok(took < TIMEOUT_MS + MARGIN_MS, `after ${took} ms`);
    const before = members.map(({ rates }) => rates.taken.local);
    const began = now();
    await whileNothing(1000);
    const expected = (now() - began) / 40;
    for (const [i, { rates }] of members.entries()) {
      const taken = rates.taken.local - before[i]!;
      t.ok(taken <= expected + 2 && taken > expected * 0.85, `half of the rate: ${taken} of ${expected}`);
    }
    for (const hub of hubs) t.equal(hub.counters.timeouts, 1);
    redis.thaw();
    for (const hub of hubs) await up(hub);
    await until('Redis again', () => members.every(({ rate }) => rate.source === 'redis'), 1000);
    for (const member of members) member.stop();
    for (const { rates } of members) t.equal(rates.whenUp.size, 0);
  },
);

t.test('windows are counted as they should be', async (t) => {
  t.equal(densest([], 10), 0);
  t.equal(densest([30, 0, 9, 10, 11], 10), 3);
});

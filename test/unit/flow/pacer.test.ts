// The pacer: what upstreams say they have left holds requests up just so long that they are not refused.
import fc from 'fast-check';
import t from 'tap';
import { type Forecast, Pacer } from '../../../src/flow/pacer.ts';

const MINUTE = 60_000;

const bucket = (remaining: number, resetMs: number, limit = 60): Forecast => ({
  kind: 'requests',
  limit,
  remaining,
  resetMs,
  refills: true,
});
const window = (remaining: number, resetMs: number, limit = 60): Forecast => ({
  ...bucket(remaining, resetMs, limit),
  refills: false,
});
const tokens = (remaining: number, resetMs: number, limit: number): Forecast => ({
  ...bucket(remaining, resetMs, limit),
  kind: 'tokens',
});

/** Sends as many as may go at `now`. */
function drain(pacer: Pacer, now: number, most = 10_000): number {
  let sent = 0;
  while (sent < most && pacer.readyAt(now) <= now) {
    pacer.take(now);
    sent++;
  }
  return sent;
}

/** Sends one at each time and says which `taken` it had. */
function send(pacer: Pacer, ...times: number[]): number {
  for (const at of times) pacer.take(at);
  return pacer.taken;
}

t.test('where nothing was said everybody is ready at once', async (t) => {
  const pacer = new Pacer();
  t.ok(pacer.readyAt(1000) <= 1000);
  t.ok(pacer.readyAt(1000, 5000) <= 1000);
  t.equal(drain(pacer, 1000), 10_000);
  t.equal(pacer.taken, 10_000);
  t.ok(pacer.isIdle(1000));
});

t.test('a bucket lets pass what is left less what was sent since, then one each time it has refilled', async (t) => {
  const pacer = new Pacer();
  const mine = send(pacer, 1000);
  send(pacer, 1000, 1000, 1000, 1000);
  pacer.observe(bucket(20, 40_000), mine, 1000);
  const passed = drain(pacer, 1000);
  t.ok(passed >= 12 && passed < 16, `${passed} of the 16 that are left pass, all but a small reserve`);
  const next = pacer.readyAt(1000);
  t.ok(next > 1000 && next <= 3000, 'and the next within about a second, at one a second');
  t.ok(pacer.readyAt(next) <= next, 'when it is due it is due');
  pacer.take(next);
  const after = pacer.readyAt(next);
  t.ok(after > next + 900 && after < next + 1500, `then one a second: ${after - next}`);
  t.ok(!pacer.isIdle(next));
});

t.test('who comes behind others is told when those have gone as well', async (t) => {
  const pacer = new Pacer();
  pacer.observe(bucket(0, MINUTE), send(pacer, 0), 0);
  const first = pacer.readyAt(0);
  const tenth = pacer.readyAt(0, 9);
  t.ok(Math.abs(tenth - first - 9000) < 1, `${tenth - first} ms for nine at one a second`);
});

t.test('nobody is held up while there is clearly room', async (t) => {
  for (const said of [bucket(500, 1, 501), bucket(300, 24_000, 500), window(300, 24_000, 500), bucket(7, 1000, 8)]) {
    const pacer = new Pacer();
    const mine = send(pacer, 0);
    pacer.observe(said, mine, 100);
    t.ok(drain(pacer, 100) > 0.85 * said.remaining, `${said.remaining} left of ${said.limit}`);
  }
});

t.test('an empty window holds up to its end, then lets one windowful pass, not everybody', async (t) => {
  const pacer = new Pacer();
  const mine = send(pacer, 0);
  pacer.observe(window(0, 10_000, 100), mine, 50);
  t.equal(pacer.readyAt(50), 10_050);
  t.equal(drain(pacer, 10_049), 0);
  t.equal(drain(pacer, 10_050), 100);
  t.ok(pacer.readyAt(10_050) > 10_050, 'what exceeds the limit waits for the answers of those');
  t.equal(pacer.readyAt(10_050), 20_050, 'one more window at most');
  t.equal(drain(pacer, 20_050), 10_000, 'after that nothing is known, and everybody passes');
});

t.test('after the end of a window whose limit is not known everybody passes', async (t) => {
  const pacer = new Pacer();
  pacer.observe(window(0, 10_000, -1), send(pacer, 0), 0);
  t.equal(pacer.readyAt(0), 10_000);
  t.equal(drain(pacer, 10_000), 10_000);
  t.ok(pacer.isIdle(10_000));
});

t.test('a bucket without a limit is taken for a window: nobody knows how fast it refills', async (t) => {
  const pacer = new Pacer();
  pacer.observe(bucket(0, 10_000, -1), send(pacer, 0), 0);
  t.equal(pacer.readyAt(0), 10_000);
  t.equal(drain(pacer, 10_000), 10_000);
});

t.test('an answer of an old window says nothing of the new one', async (t) => {
  const pacer = new Pacer();
  const early = send(pacer, 0);
  const late = send(pacer, 4000);
  pacer.observe(window(5, 5000, 10), early, 100);
  t.equal(drain(pacer, 5100, 6), 6, 'the new window has begun');
  pacer.observe(window(0, 1000, 10), late, 5200);
  t.ok(pacer.readyAt(5200) <= 5200, 'sent before the end of the old one, answered after it');
});

t.test('those that speak of one window agree on its earliest end', async (t) => {
  const pacer = new Pacer();
  const first = send(pacer, 0);
  const second = send(pacer, 10);
  pacer.observe(window(1, 10_000, 10), first, 100);
  pacer.observe(window(0, 9990, 10), second, 3000);
  t.equal(pacer.readyAt(3000), 10_100, 'the second took long, and so seems to speak of a later end');
});

t.test('an answer to an older request than the newest heard of is ignored', async (t) => {
  const pacer = new Pacer();
  const older = send(pacer, 0);
  const newer = send(pacer, 1000);
  pacer.observe(window(0, 10_000), newer, 2000);
  pacer.observe(window(60, 11_000), older, 3000);
  t.equal(pacer.readyAt(3000), 12_000);
  const other = new Pacer();
  const [first, second] = [send(other, 0), send(other, 1000)];
  other.observe(window(50, 10_000), second, 2000);
  other.observe(window(0, 60_000), first, 3000);
  t.ok(other.readyAt(3000) <= 3000);
});

t.test('what was refilled while the answer was on its way counts: it was said when the request came in', async (t) => {
  const pacer = new Pacer();
  const mine = send(pacer, 0);
  for (let second = 1; second <= 30; second++) pacer.take(second * 1000);
  pacer.observe(bucket(10, 50_000), mine, 30_000);
  t.ok(drain(pacer, 30_000) >= 5, 'thirty sent in thirty seconds at one a second: still ten left, not minus twenty');
});

t.test(
  'it is not believed to have refilled beyond what was said: perhaps it was said when the answer went out',
  async (t) => {
    const pacer = new Pacer();
    pacer.observe(bucket(5, 55_000), send(pacer, 0), 30_000);
    const passed = drain(pacer, 30_000);
    t.ok(passed >= 3 && passed <= 5, `${passed}`);
  },
);

t.test('when it is due it is due, whatever the rate', async (t) => {
  for (let limit = 1; limit < 500; limit++) {
    const pacer = new Pacer();
    pacer.observe(bucket(0, 997 * 61, limit), send(pacer, limit * 0.53), limit * 0.53);
    const at = pacer.readyAt(limit * 0.53);
    if (pacer.readyAt(at) > at) t.fail(`limit ${limit}`);
  }
});

t.test('a bucket that is full again at once is full', async (t) => {
  const pacer = new Pacer();
  pacer.observe(bucket(30, 30_000), send(pacer, 0), 50);
  pacer.observe(bucket(29, 0), send(pacer, 60), 100);
  t.ok(drain(pacer, 100) > 50, 'resets in whole seconds may be over before the answer is here');
});

t.test('more cannot be left than the limit', async (t) => {
  const pacer = new Pacer();
  pacer.observe(window(5000, 10_000, 10), send(pacer, 0), 0);
  t.equal(drain(pacer, 0), 10);
});

t.test('a full bucket does not refill', async (t) => {
  const pacer = new Pacer();
  const mine = send(pacer, 0);
  pacer.observe(bucket(59, 1000), mine, 0);
  const passed = drain(pacer, 50_000);
  t.ok(passed <= 60 && passed > 50, `${passed} pass after 50 s, not 59 + 50`);
});

t.test('one that was sent just before may not have arrived when the next was told what is left', async (t) => {
  const pacer = new Pacer();
  pacer.observe(window(10, 10_000, 10), send(pacer, 0), 1000);
  const burst = Array.from({ length: 10 }, () => send(pacer, 2000));
  t.ok(pacer.readyAt(2000) > 2000, 'all ten are sent');
  pacer.observe(window(7, 9000, 10), burst.at(-1)!, 2100);
  t.ok(pacer.readyAt(2100) > 2100, 'the last came in as the third: the seven left are for those on their way');
  // Their answers tell that they were before it after all.
  for (const [i, one] of burst.slice(0, 9).entries()) pacer.observe(window(17 - i, 9000, 10), one, 2200);
  t.ok(drain(pacer, 2200) > 0);
});

t.test('limits of other kinds, names and sizes are kept apart, and all of them must have room', async (t) => {
  const pacer = new Pacer();
  const mine = send(pacer, 0);
  pacer.observe({ ...tokens(0, 30_000, 8000), name: 'output' }, mine, 0);
  pacer.observe({ ...tokens(8000, 0, 8000), name: 'input' }, mine, 0);
  pacer.observe(bucket(59, 1000), mine, 0);
  t.ok(pacer.readyAt(0) > 0, 'one is empty');
  const other = new Pacer();
  other.observe(window(0, 5000, 500), send(other, 0), 0);
  other.observe(window(9999, 5000, 10_000), send(other, 0), 0);
  t.equal(other.readyAt(0), 5000, 'another model has room: not this one');
  const third = new Pacer();
  const one = send(third, 0);
  third.observe(bucket(59, 1000, 60), one, 0);
  third.observe(tokens(0, 60_000, 60), one, 0);
  t.ok(third.readyAt(0) > 0, 'tokens and requests of one size');
});

t.test('a forecast is believed for a minute at most', async (t) => {
  for (const said of [window(0, 86_400_000), bucket(0, 86_400_000, 200)]) {
    const pacer = new Pacer();
    pacer.observe(said, send(pacer, 0), 0);
    t.equal(pacer.readyAt(0), MINUTE, 'or a quota that was raised would help nobody before the day is over');
    t.equal(drain(pacer, MINUTE), 10_000);
    t.ok(pacer.isIdle(MINUTE));
  }
});

t.test('a pause holds up everybody, is only ever made longer, and ends', async (t) => {
  const pacer = new Pacer();
  pacer.pauseUntil(5000);
  pacer.pauseUntil(3000);
  t.equal(pacer.pausedUntil, 5000);
  t.equal(pacer.readyAt(1000), 5000);
  t.notOk(pacer.isIdle(4999));
  t.ok(pacer.isIdle(5000));
  t.equal(drain(pacer, 5000), 10_000);
  pacer.observe(window(0, 10_000), pacer.taken, 5000);
  pacer.pauseUntil(7000);
  t.equal(pacer.readyAt(5000), 15_000, 'the later of both');
});

t.test('what a request costs in tokens is learned, and what is left is reckoned in requests', async (t) => {
  const pacer = new Pacer();
  let left = 20_000;
  // 400 tokens each; a limit of 20 000 a minute refills 0.333 a ms.
  for (let i = 0; i < 20; i++) {
    const mine = send(pacer, i * 100);
    left = Math.min(20_000, left + (i > 0 ? 100 / 3 : 0)) - 400;
    pacer.observe(tokens(Math.floor(left), Math.round((20_000 - left) * 3), 20_000), mine, i * 100 + 50);
  }
  const room = left / 400;
  const passed = drain(pacer, 2000);
  t.ok(passed < room + 2 && passed > room * 0.8, `${passed} pass, there is room for ${room.toFixed(1)}`);
  const wait = pacer.readyAt(2000, 1) - pacer.readyAt(2000);
  t.ok(wait > 1000 && wait < 1400, `400 tokens take 1.2 s to refill: ${wait}`);
});

t.test('tokens of unknown cost hold up nobody while there are any', async (t) => {
  const pacer = new Pacer();
  pacer.observe(tokens(10, 59_000, 20_000), send(pacer, 0), 0);
  t.equal(drain(pacer, 0), 10_000);
  const empty = new Pacer();
  empty.observe(tokens(0, 60_000, 20_000), send(empty, 0), 0);
  t.ok(empty.readyAt(0) > 0);
});

t.test('a request that costs more than the whole limit passes when the bucket is full', async (t) => {
  const pacer = new Pacer();
  let mine = send(pacer, 0);
  pacer.observe(tokens(1000, 0, 1000), mine, 0);
  mine = send(pacer, 10);
  pacer.observe(tokens(0, 10_000, 1000), mine, 20);
  mine = send(pacer, 10_020);
  pacer.observe(tokens(200, 8000, 1000), mine, 10_030);
  mine = send(pacer, 18_030);
  pacer.observe(tokens(0, 10_000, 1000), mine, 18_040);
  const at = pacer.readyAt(18_040);
  t.ok(at > 27_000 && at <= 28_100, `about 930 each, give or take 130: at ${at} it is full`);
  t.ok(pacer.readyAt(at) <= at);
});

t.test('a refused request cost nothing', async (t) => {
  const left = (refused: boolean) => {
    const pacer = new Pacer();
    pacer.observe(tokens(9000, 6000, 10_000), send(pacer, 0), 0);
    for (let i = 1; i <= 40; i++) {
      const isOdd = i % 2 === 1;
      const mine = send(pacer, 1000);
      pacer.observe(tokens(9000 - 100 * Math.ceil(i / 2), 6000 + 60 * i, 10_000), mine, 1000, refused && !isOdd);
    }
    return drain(pacer, 1000);
  };
  const passed = left(true);
  t.ok(passed < 90, `every other one was refused: a request costs 100, and ${passed} fit`);
  t.ok(left(false) > passed + 20, 'else it would seem to cost 50');
});

t.test('others who use the same account are reckoned with', async (t) => {
  const pacer = new Pacer();
  // Each of ours costs four: three more are sent by other processes.
  for (let i = 0; i < 80; i++) pacer.observe(window(996 - 4 * i, 60_000 - i, 1000), send(pacer, i * 200), i * 200 + 50);
  const passed = drain(pacer, 16_200);
  t.ok(passed < 250, `680 are left for all: ${passed} of ours pass`);
  t.ok(passed > 100);
});

t.test('more in flight than it remembers the times of are all counted', async (t) => {
  const pacer = new Pacer();
  const mine = send(pacer, 0);
  for (let i = 0; i < 10_000; i++) pacer.take(1 + i / 100);
  pacer.observe(window(10_050, 60_000, 20_000), mine, 200);
  const passed = drain(pacer, 200);
  t.ok(passed <= 50 && passed > 30, `${passed}`);
});

t.test('so many limits at once are not kept that they could fill memory', async (t) => {
  const pacer = new Pacer();
  const mine = send(pacer, 0);
  for (let i = 1; i <= 1000; i++) pacer.observe({ ...window(0, i), name: `limit-${i}` }, mine, 0);
  t.equal(pacer.readyAt(0), 1000, 'the one that holds longest is among those kept');
  pacer.observe({ ...window(0, 5), name: 'another' }, mine, 0);
  t.equal(pacer.readyAt(0), 1000);
  const other = new Pacer();
  const one = send(other, 0);
  other.observe({ ...window(0, 1000), name: 'first' }, one, 0);
  for (let i = 1; i <= 16; i++) other.observe({ ...window(10, 5000), name: `limit-${i}` }, one, 0);
  t.ok(other.readyAt(0) <= 0, 'the one that ends first is forgotten');
});

t.test('a new window tells nothing of what a request costs', async (t) => {
  const pacer = new Pacer();
  const said = (remaining: number, resetMs: number) => ({ ...tokens(remaining, resetMs, 1000), refills: false });
  for (let i = 0; i < 9; i++) pacer.observe(said(900 - 100 * i, 10_000 - 500 * i), send(pacer, 500 * i), 500 * i + 10);
  pacer.observe(said(900, 10_000), send(pacer, 10_100), 10_110);
  const passed = drain(pacer, 10_200);
  t.ok(passed >= 7 && passed <= 9, `${passed} of 100 each`);
});

t.test('what is given back makes no request cost less than nothing', async (t) => {
  const pacer = new Pacer();
  for (let i = 0; i < 9; i++) pacer.observe(tokens(100 * i, 1000 * (10 - i), 1000), send(pacer, i), i);
  pacer.observe(tokens(0, 10_000, 1000), send(pacer, 20), 20);
  t.ok(pacer.readyAt(20, 50) >= pacer.readyAt(20));
  t.ok(pacer.readyAt(20) > 20);
});

t.test('it remembers the times of as many as are in flight', async (t) => {
  const pacer = new Pacer();
  // One a second, answered 150 s later; as many are refilled as are sent, a hundred are left.
  for (let second = 0; second < 1000; second++) {
    pacer.take(second * 1000);
    if (second >= 150) pacer.observe(bucket(100, 900_000, 1000), second - 149, second * 1000);
  }
  const passed = drain(pacer, 1_000_000);
  t.ok(passed > 80 && passed <= 101, `${passed}`);
});

t.test('what is no number says nothing', async (t) => {
  const pacer = new Pacer();
  send(pacer, 0);
  const wrong = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -2];
  for (const value of wrong) {
    for (const key of ['limit', 'remaining', 'resetMs'] as const) {
      for (const refills of [true, false]) pacer.observe({ ...bucket(0, 1000), refills, [key]: value }, 1, 0);
    }
    pacer.observe(bucket(0, 1000), value, 0);
  }
  pacer.observe(bucket(0, 1000), 2, 0);
  t.ok(pacer.isIdle(0), 'nor does an answer to what was not sent yet');
});

t.test(
  'whatever is said and done, a time comes out, and nobody waits longer than a minute for the last forecast',
  async () => {
    const amount = fc.oneof(fc.nat({ max: 100 }), fc.double({ min: 0, max: 1e15, noNaN: true }), fc.constant(0));
    const step = fc.record({
      pass: fc.nat({ max: 20_000 }),
      takes: fc.nat({ max: 30 }),
      back: fc.nat({ max: 40 }),
      kind: fc.constantFrom<'requests' | 'tokens'>('requests', 'tokens'),
      limit: fc.oneof(fc.constant(-1), amount),
      remaining: amount,
      resetMs: amount,
      refills: fc.boolean(),
      refused: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const pacer = new Pacer();
        let now = 1_000_000;
        for (const { pass, takes, back, refused, ...said } of steps) {
          now += pass;
          for (let i = 0; i < takes; i++) pacer.take(now - (i % 3));
          pacer.observe(said, Math.max(0, pacer.taken - back), now, refused);
          for (const ahead of [0, 3]) {
            const at = pacer.readyAt(now, ahead);
            if (!(at <= now + MINUTE)) throw new Error(`ready at ${at}, it is ${now}`);
          }
        }
        now += MINUTE;
        if (pacer.readyAt(now, 100) > now || !pacer.isIdle(now)) throw new Error('still held up');
      }),
      { numRuns: 500 },
    );
  },
);

/** A limit as an upstream keeps it. */
class Quota {
  readonly kind: 'requests' | 'tokens';
  readonly limit: number;
  readonly refills: boolean;
  readonly periodMs: number;
  #level: number;
  #at = 0;

  constructor(kind: 'requests' | 'tokens', limit: number, periodMs: number, refills: boolean) {
    this.kind = kind;
    this.limit = limit;
    this.periodMs = periodMs;
    this.refills = refills;
    this.#level = limit;
  }

  level(now: number): number {
    const { limit, periodMs } = this;
    if (this.refills) this.#level = Math.min(limit, this.#level + ((now - this.#at) * limit) / periodMs);
    else if (Math.floor(now / periodMs) > Math.floor(this.#at / periodMs)) this.#level = limit;
    this.#at = now;
    return this.#level;
  }

  spend(units: number): void {
    this.#level -= units;
  }

  /** Whole units and ms, as the fields have them. */
  forecast(now: number): Forecast {
    const level = this.level(now);
    const { kind, limit, refills, periodMs } = this;
    const resetMs = refills ? ((limit - level) * periodMs) / limit : periodMs - (now % periodMs);
    return { kind, limit, remaining: Math.floor(level), resetMs: Math.round(resetMs), refills };
  }
}

interface Scene {
  readonly quotas: readonly Quota[];
  readonly isPaced: boolean;
  /** In flight at most; each sends its next request when the last is answered. */
  readonly workers?: number;
  readonly minutes?: number;
  readonly latencyMs?: readonly [number, number];
  /** Each with a pacer of its own. */
  readonly processes?: number;
}

interface Outcome {
  /** Share of refused among all requests, of all and of those sent after the first ten seconds. */
  readonly refusedShare: number;
  readonly laterShare: number;
  /** What was let through, of what the tightest quota allows. */
  readonly used: number;
}

/** Clients that always have something to send, against an upstream that refuses what exceeds its quotas. */
function simulate({
  quotas,
  isPaced,
  workers = 20,
  minutes = 10,
  latencyMs = [100, 5000],
  processes = 1,
}: Scene): Outcome {
  // A fixed sequence: the same scene always ends the same.
  let seed = 7;
  const random = () => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return seed / 2 ** 32;
  };
  /** 200 to 1600 tokens, most of them small. */
  const cost = () => Math.round(100 + 100 * Math.exp(random() * 2.7));
  const events: { at: number; run: () => void }[] = [];
  const later = (at: number, run: () => void) => {
    let i = events.length;
    while (i > 0 && events[i - 1]!.at <= at) i--;
    events.splice(i, 0, { at, run });
  };
  const end = minutes * MINUTE;
  let now = 0;
  const count = { passed: 0, refused: 0, later: 0, laterRefused: 0 };
  const spent = { requests: 0, tokens: 0 };

  const answer = (pacer: Pacer, mine: number, tokens: number, done: () => void) => {
    const units = (quota: Quota) => (quota.kind === 'requests' ? 1 : tokens);
    const fits = quotas.every((quota) => quota.level(now) >= units(quota));
    if (fits) for (const quota of quotas) quota.spend(units(quota));
    count[fits ? 'passed' : 'refused']++;
    if (now > 10_000) count[fits ? 'later' : 'laterRefused']++;
    if (fits) {
      spent.requests++;
      spent.tokens += tokens;
    }
    const said = quotas.map((quota) => quota.forecast(now));
    const [least, most] = latencyMs;
    later(now + (fits ? least + random() * (most - least) : 20), () => {
      for (const forecast of said) pacer.observe(forecast, mine, now, !fits);
      // Who is refused tries again a second later.
      later(now + (fits ? 1 : 1000), done);
    });
  };

  for (let i = 0; i < processes; i++) {
    const pacer = new Pacer();
    const line: (() => void)[] = [];
    let isArmed = false;
    const pump = () => {
      while (line.length > 0) {
        const at = isPaced ? pacer.readyAt(now) : now;
        if (at > now) {
          if (!isArmed) later(at, wake);
          isArmed = true;
          return;
        }
        pacer.take(now);
        line.shift()!();
      }
    };
    const wake = () => {
      isArmed = false;
      pump();
    };
    const work = () => {
      const tokens = cost();
      line.push(() => {
        const mine = pacer.taken;
        later(now + 5 + random() * 50, () => answer(pacer, mine, tokens, work));
      });
      pump();
    };
    for (let worker = 0; worker < workers; worker++) work();
  }
  for (let next = events.pop(); next && next.at < end; next = events.pop()) {
    now = next.at;
    next.run();
  }
  const used = quotas.map(({ kind, limit, periodMs, refills }) => {
    return spent[kind] / (limit * (end / periodMs + (refills ? 1 : 0)));
  });
  return {
    refusedShare: count.refused / (count.passed + count.refused),
    laterShare: count.laterRefused / (count.later + count.laterRefused),
    used: Math.max(...used),
  };
}

const percent = (share: number) => `${(100 * share).toFixed(2)} %`;

t.test('paced, next to none is refused and next to nothing of the quota is lost; else most are refused', async (t) => {
  const requests = (limit: number, periodMs = MINUTE, refills = true) =>
    new Quota('requests', limit, periodMs, refills);
  const tokenQuota = (limit: number, refills = true) => new Quota('tokens', limit, MINUTE, refills);
  const scenes: Record<string, () => Omit<Scene, 'isPaced'>> = {
    '60 requests a minute': () => ({ quotas: [requests(60)] }),
    '20 000 tokens a minute': () => ({ quotas: [requests(600), tokenQuota(20_000)] }),
    '100 000 tokens a minute': () => ({ quotas: [requests(6000), tokenQuota(100_000)] }),
    'both about as tight': () => ({ quotas: [requests(60), tokenQuota(30_000)] }),
    '10 requests a second, quick answers': () => ({ quotas: [requests(600)], latencyMs: [20, 60] }),
    'a window of 100 in 10 s': () => ({ quotas: [requests(100, 10_000, false)], latencyMs: [50, 500] }),
    'three processes on one account': () => ({ quotas: [requests(60)], processes: 3, workers: 10 }),
  };
  for (const [name, scene] of Object.entries(scenes)) {
    const paced = simulate({ ...scene(), isPaced: true });
    const free = simulate({ ...scene(), isPaced: false });
    const text = `refused ${percent(paced.refusedShare)}, used ${percent(paced.used)}; unpaced ${percent(free.refusedShare)}`;
    t.comment(`${name}: ${text}`);
    t.ok(paced.refusedShare < 0.01, `${name}: ${text}`);
    t.ok(paced.used >= 0.9, `${name}: ${text}`);
    t.ok(free.refusedShare > 0.3, `${name}: ${text}`);
  }
});

t.test('answers that take longer than the bucket to refill cost no throughput', async (t) => {
  const scene = { workers: 100, minutes: 30, latencyMs: [30_000, 90_000] as const };
  const paced = simulate({ quotas: [new Quota('requests', 60, MINUTE, true)], isPaced: true, ...scene });
  // Nothing is known in the first seconds: of a hundred at once forty are refused.
  t.ok(paced.laterShare < 0.01, percent(paced.laterShare));
  t.ok(paced.used > 0.9, percent(paced.used));
});

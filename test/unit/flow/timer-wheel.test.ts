// The timer wheel on a fake clock: when timers fire, and that nothing else does.
import fc from 'fast-check';
import t from 'tap';
import { type Expiring, Timer, TimerWheel } from '../../../src/flow/timer-wheel.ts';
import { FakeClock, fakeWheel } from '../../support/fake-clock.ts';

const TICK_MS = 15;
/** One tick of the wheel, and up to one until the ticker comes by. */
const LATEST_MS = 2 * TICK_MS;

/** Writes down when it was woken. */
class Sleeper implements Expiring {
  readonly timer = new Timer(this);
  readonly firedAt: number[] = [];
  readonly #onFire: () => void;

  constructor(onFire: () => void = () => {}) {
    this.#onFire = onFire;
  }

  expired(now: number): void {
    this.firedAt.push(now);
    this.#onFire();
  }
}

t.test('a timer is never early and at most one tick late', async (t) => {
  for (let at = 1; at <= 100; at++) {
    const wheel = new TimerWheel(0, { start() {}, stop() {} }, TICK_MS, 8);
    const sleeper = new Sleeper();
    wheel.arm(sleeper.timer, at);
    for (let now = 0; now < at; now++) wheel.advance(now);
    if (sleeper.firedAt.length > 0) t.fail(`armed for ${at}, fired at ${sleeper.firedAt[0]}`);
    for (let now = at; now < at + TICK_MS; now++) wheel.advance(now);
    if (sleeper.firedAt.length !== 1) t.fail(`armed for ${at}, not fired by ${at + TICK_MS - 1}`);
  }
  const wheel = new TimerWheel(0, { start() {}, stop() {} }, TICK_MS, 8);
  const sleeper = new Sleeper();
  wheel.arm(sleeper.timer, 30);
  wheel.advance(29.999);
  t.same(sleeper.firedAt, []);
  wheel.advance(30);
  t.same(sleeper.firedAt, [30], 'due at the very tick fires at that tick');
});

t.test('the clock may start anywhere and has fractions', async (t) => {
  const clock = new FakeClock(987_654.321);
  const { wheel } = fakeWheel(clock);
  const sleeper = new Sleeper();
  wheel.arm(sleeper.timer, clock.time + 60_000.25);
  clock.pass(60_000.2);
  t.same(sleeper.firedAt, []);
  clock.pass(LATEST_MS);
  t.equal(sleeper.firedAt.length, 1);
});

t.test('a timer armed again counts only for its last time, earlier or later', async (t) => {
  const clock = new FakeClock();
  const { wheel } = fakeWheel(clock);
  const later = new Sleeper();
  const earlier = new Sleeper();
  wheel.arm(later.timer, 60);
  wheel.arm(earlier.timer, 6000);
  t.equal(wheel.size, 2);
  clock.pass(45);
  wheel.arm(later.timer, 600);
  wheel.arm(earlier.timer, 90);
  t.equal(wheel.size, 2, 'arming again is not another timer');
  clock.pass(100);
  t.same(earlier.firedAt, [90]);
  t.same(later.firedAt, []);
  clock.pass(10_000);
  t.same(later.firedAt, [600]);
  t.same(earlier.firedAt, [90]);
  t.equal(wheel.size, 0);
});

t.test('a timer armed for the past fires at the next tick, never within arm', async (t) => {
  const clock = new FakeClock(1000);
  const { wheel } = fakeWheel(clock);
  const past = new Sleeper();
  const now = new Sleeper();
  wheel.arm(past.timer, -5000);
  wheel.arm(now.timer, 1000);
  t.same(past.firedAt, []);
  clock.pass(LATEST_MS);
  t.equal(past.firedAt.length, 1);
  t.equal(now.firedAt.length, 1);
});

t.test('a cancelled timer does not fire, and can be armed again', async (t) => {
  const clock = new FakeClock();
  const { wheel } = fakeWheel(clock);
  const sleeper = new Sleeper();
  wheel.arm(sleeper.timer, 50);
  wheel.cancel(sleeper.timer);
  wheel.cancel(sleeper.timer);
  t.notOk(sleeper.timer.armed);
  t.equal(wheel.size, 0);
  clock.pass(500);
  t.same(sleeper.firedAt, []);
  wheel.arm(sleeper.timer, 600);
  clock.pass(500);
  t.equal(sleeper.firedAt.length, 1);
  t.ok(sleeper.firedAt[0]! >= 600 && sleeper.firedAt[0]! < 600 + LATEST_MS);
  t.equal(wheel.size, 0);
});

t.test('a callback may cancel another timer that is due in the same turn', async (t) => {
  const clock = new FakeClock();
  const { wheel } = fakeWheel(clock);
  const second: Sleeper = new Sleeper(() => wheel.cancel(first.timer));
  const first: Sleeper = new Sleeper(() => wheel.cancel(second.timer));
  const third = new Sleeper();
  wheel.arm(first.timer, 20);
  wheel.arm(second.timer, 20);
  wheel.arm(third.timer, 20);
  clock.pass(100);
  t.equal(first.firedAt.length + second.firedAt.length, 1, 'whoever came first silenced the other');
  t.equal(third.firedAt.length, 1, 'the one behind them is not lost');
  t.equal(wheel.size, 0);
});

t.test('a callback may arm itself and others again, also for now', async (t) => {
  const clock = new FakeClock();
  const { wheel } = fakeWheel(clock);
  const every: Sleeper = new Sleeper(() => {
    if (every.firedAt.length < 5) wheel.arm(every.timer, clock.time);
  });
  const postponed = new Sleeper();
  const postpones = new Sleeper(() => wheel.arm(postponed.timer, clock.time + 300));
  wheel.arm(postpones.timer, 15);
  wheel.arm(postponed.timer, 15);
  wheel.arm(every.timer, 15);
  clock.pass(15);
  t.same(every.firedAt, [15], 'not again within the same turn');
  clock.pass(1000);
  t.same(every.firedAt, [15, 30, 45, 60, 75]);
  t.same(postponed.firedAt, [315], 'due in the same turn, but postponed before its turn came');
  t.equal(wheel.size, 0);
});

t.test('a timer further off than one turn of the wheel waits for its own turn', async (t) => {
  const clock = new FakeClock();
  const { wheel } = fakeWheel(clock, TICK_MS, 8);
  const turn = 8 * TICK_MS;
  const sleepers = [1, 2, 3, 10, 1000].map((turns) => {
    const sleeper = new Sleeper();
    wheel.arm(sleeper.timer, turns * turn);
    return { at: turns * turn, sleeper };
  });
  clock.pass(1000 * turn - 1);
  t.same(sleepers.at(-1)!.sleeper.firedAt, []);
  clock.pass(LATEST_MS);
  for (const { at, sleeper } of sleepers) t.same(sleeper.firedAt, [at]);
});

t.test('after a stall of many turns everything due fires once, at once, and nothing else', async (t) => {
  for (const stallMs of [7 * TICK_MS, 8 * TICK_MS, 9 * TICK_MS, 1_000_000, 86_400_000]) {
    const clock = new FakeClock();
    const { wheel } = fakeWheel(clock, TICK_MS, 8);
    const due = Array.from({ length: 40 }, (_, i) => {
      const sleeper = new Sleeper();
      wheel.arm(sleeper.timer, (stallMs * (i + 1)) / 41 - TICK_MS);
      return sleeper;
    });
    const next = new Sleeper();
    const far = new Sleeper();
    wheel.arm(next.timer, stallMs + 20);
    wheel.arm(far.timer, stallMs + 5000);
    clock.stall(stallMs);
    t.ok(
      due.every(({ firedAt }) => firedAt.length === 1 && firedAt[0] === stallMs),
      `stall of ${stallMs} ms`,
    );
    t.same(next.firedAt, []);
    clock.pass(20 + LATEST_MS);
    t.equal(next.firedAt.length, 1);
    t.same(far.firedAt, []);
    clock.pass(5000);
    t.equal(far.firedAt.length, 1);
  }
});

t.test('Infinity is the same as cancel, and never starts the ticker', async (t) => {
  const clock = new FakeClock();
  const { wheel, ticker } = fakeWheel(clock);
  const sleeper = new Sleeper();
  wheel.arm(sleeper.timer, Number.POSITIVE_INFINITY);
  t.same([wheel.size, ticker.starts, sleeper.timer.armed], [0, 0, false]);
  wheel.arm(sleeper.timer, 50);
  wheel.arm(sleeper.timer, Number.POSITIVE_INFINITY);
  t.same([wheel.size, sleeper.timer.armed], [0, false]);
  clock.pass(1000);
  t.same(sleeper.firedAt, []);
});

t.test('the ticker runs only while something is armed', async (t) => {
  const clock = new FakeClock();
  const { wheel, ticker } = fakeWheel(clock);
  const a = new Sleeper();
  const b = new Sleeper();
  t.equal(ticker.starts, 0);
  wheel.arm(a.timer, 50);
  wheel.arm(b.timer, 200);
  t.same(ticker, { starts: 1, stops: 0 });
  clock.pass(100);
  t.same(ticker, { starts: 1, stops: 0 }, 'one is left');
  clock.pass(200);
  t.same(ticker, { starts: 1, stops: 1 });
  clock.pass(3_600_000);
  wheel.arm(a.timer, clock.time + 100);
  t.same(ticker, { starts: 2, stops: 1 });
  clock.pass(99);
  t.equal(a.firedAt.length, 1, 'after an hour of rest it is not early');
  clock.pass(1 + LATEST_MS);
  t.equal(a.firedAt.length, 2, 'nor late');
  wheel.arm(a.timer, clock.time + 100);
  wheel.cancel(a.timer);
  clock.pass(TICK_MS);
  t.same(ticker, { starts: 3, stops: 3 }, 'a cancel of the last one stops it at the next tick');
  wheel.arm(a.timer, clock.time + 10);
  wheel.cancel(a.timer);
  wheel.arm(b.timer, clock.time + 10);
  t.equal(ticker.starts, 4, 'armed again before that tick: still the same run');
});

t.test('a callback that arms keeps the ticker running', async (t) => {
  const clock = new FakeClock();
  const { wheel, ticker } = fakeWheel(clock);
  const again: Sleeper = new Sleeper(() => {
    if (again.firedAt.length === 1) wheel.arm(again.timer, clock.time + 100);
  });
  wheel.arm(again.timer, 10);
  clock.pass(1000);
  t.equal(again.firedAt.length, 2);
  t.same(ticker, { starts: 1, stops: 1 });
});

// ---- against a plain sorted list

type Step =
  | { readonly kind: 'arm'; readonly who: number; readonly delay: number }
  | { readonly kind: 'cancel'; readonly who: number }
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'stall'; readonly ms: number }
  /** What a timer does when it fires: arms another, or cancels it (delay < 0). */
  | { readonly kind: 'onFire'; readonly who: number; readonly other: number; readonly delay: number };

const TIMERS = 12;
const who = fc.nat({ max: TIMERS - 1 });
const delay = fc.oneof(fc.integer({ min: -50, max: 400 }), fc.double({ min: 0, max: 5000, noNaN: true }));
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('arm' as const), who, delay }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('cancel' as const), who }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min: 0, max: 300 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('stall' as const), ms: fc.integer({ min: 0, max: 3000 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('onFire' as const), who, other: who, delay }) },
);

/** The same by the book: a list of {who, at}, searched from the front. */
class NaiveList {
  #armed: { who: number; at: number; armedAt: number }[] = [];

  arm(who: number, at: number, armedAt: number): void {
    this.cancel(who);
    this.#armed.push({ who, at, armedAt });
    this.#armed.sort((a, b) => a.at - b.at);
  }

  cancel(who: number): void {
    this.#armed = this.#armed.filter((entry) => entry.who !== who);
  }

  get size(): number {
    return this.#armed.length;
  }

  at(who: number): number | undefined {
    return this.#armed.find((entry) => entry.who === who)?.at;
  }

  /** Who should have fired one tick ago already. */
  overdue(now: number): number[] {
    return this.#armed.filter(({ at, armedAt }) => Math.max(at, armedAt) <= now - TICK_MS).map((entry) => entry.who);
  }
}

function runAgainstList(steps: readonly Step[], slots: number): void {
  const clock = new FakeClock(7.5);
  const { wheel, ticker } = fakeWheel(clock, TICK_MS, slots);
  const list = new NaiveList();
  const reactions = new Map<number, { other: number; delay: number }>();
  const apply = (who: number, after: number) => {
    wheel.arm(sleepers[who]!.timer, clock.time + after);
    list.arm(who, clock.time + after, clock.time);
  };
  const cancel = (who: number) => {
    wheel.cancel(sleepers[who]!.timer);
    list.cancel(who);
  };
  const sleepers = Array.from({ length: TIMERS }, (_, index) => {
    return new Sleeper(() => {
      const at = list.at(index);
      if (at === undefined) throw new Error(`${index} fired though it is not armed`);
      if (at > clock.time) throw new Error(`${index} is early: ${clock.time} < ${at}`);
      list.cancel(index);
      const reaction = reactions.get(index);
      if (!reaction) return;
      if (reaction.delay < 0) cancel(reaction.other);
      else apply(reaction.other, reaction.delay);
    });
  });
  const check = () => {
    // The ticker may come by up to a tick after the wheel's own.
    const overdue = list.overdue(clock.time - TICK_MS);
    if (overdue.length > 0) throw new Error(`${overdue} still not fired at ${clock.time}`);
    if (wheel.size !== list.size) throw new Error(`size ${wheel.size}, should be ${list.size}`);
    if (wheel.size > 0 && ticker.starts === ticker.stops) throw new Error('armed, and the ticker does not run');
  };
  for (const step of steps) {
    if (step.kind === 'arm') apply(step.who, step.delay);
    else if (step.kind === 'cancel') cancel(step.who);
    else if (step.kind === 'onFire') reactions.set(step.who, step);
    else if (step.kind === 'stall') {
      clock.stall(step.ms);
      clock.pass(LATEST_MS);
    } else
      for (let ms = 0; ms < step.ms; ms += 5) {
        clock.pass(5);
        check();
      }
    check();
  }
  reactions.clear();
  clock.stall(1_000_000);
  check();
  clock.pass(TICK_MS);
  if (wheel.size !== 0) throw new Error(`${wheel.size} never fired`);
  if (ticker.starts !== ticker.stops) throw new Error('the ticker runs for nobody');
}

t.test('random arming, cancelling and re-arming agrees with a sorted list', async () => {
  const steps = fc.array(step, { maxLength: 60, size: 'max' });
  fc.assert(
    fc.property(steps, fc.constantFrom(1, 2, 8, 1024), (steps, slots) => runAgainstList(steps, slots)),
    { numRuns: 600 },
  );
});

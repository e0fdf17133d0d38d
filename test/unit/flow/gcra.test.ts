// The rate limit on a fake clock: who may pass when, also after weeks.
import fc from 'fast-check';
import t from 'tap';
import { Gcra } from '../../../src/flow/gcra.ts';

/** Takes while it may; says how many. */
function drain(gcra: Gcra, now: number): number {
  let passed = 0;
  while (gcra.readyAt(now) <= now) {
    gcra.take(now);
    passed++;
    if (passed > 10_000) throw new Error('no end');
  }
  return passed;
}

t.test('a new one lets a burst pass at once, then one each interval', async (t) => {
  const gcra = new Gcra(100, 3);
  t.equal(drain(gcra, 1000), 3);
  t.equal(gcra.readyAt(1000), 1100);
  t.equal(drain(gcra, 1099.9), 0);
  t.equal(drain(gcra, 1100), 1);
  t.equal(drain(gcra, 1350), 2, 'what was not taken in time is not lost');
  t.equal(gcra.readyAt(1350), 1400, 'nor what was left of an interval');
});

t.test('a pause gives back up to a burst, never more', async (t) => {
  const gcra = new Gcra(100, 3);
  drain(gcra, 0);
  t.equal(drain(gcra, 299), 2);
  t.equal(drain(gcra, 600), 3);
  t.equal(drain(gcra, 86_400_000), 3);
});

t.test('with a burst of one they pass an interval apart', async (t) => {
  const gcra = new Gcra(120, 1);
  const times: number[] = [];
  for (let now = 0; now <= 600; now++) if (drain(gcra, now) > 0) times.push(now);
  t.same(times, [0, 120, 240, 360, 480, 600]);
});

t.test('it says how many may pass, and when it is full', async (t) => {
  const gcra = new Gcra(100, 3);
  t.same([gcra.remaining(1000), gcra.fullAt(1000), gcra.isFull(1000)], [3, 1000, true]);
  gcra.take(1000);
  t.same([gcra.remaining(1000), gcra.fullAt(1000), gcra.isFull(1000)], [2, 1100, false]);
  gcra.take(1000);
  gcra.take(1000);
  t.same([gcra.remaining(1000), gcra.fullAt(1000), gcra.isFull(1000)], [0, 1300, false]);
  t.equal(gcra.remaining(1099), 0);
  t.equal(gcra.remaining(1100), 1);
  t.equal(gcra.remaining(1299), 2);
  t.same([gcra.isFull(1299.9), gcra.isFull(1300), gcra.remaining(1300)], [false, true, 3]);
  t.equal(gcra.fullAt(5000), 5000);
});

t.test('those ahead are counted in, each as soon as it may pass', async (t) => {
  const gcra = new Gcra(100, 3);
  t.same(
    [0, 1, 2, 3, 4].map((ahead) => Math.max(1000, gcra.readyAt(1000, ahead))),
    [1000, 1000, 1000, 1100, 1200],
  );
  drain(gcra, 1000);
  t.same(
    [0, 1, 2].map((ahead) => gcra.readyAt(1030, ahead)),
    [1100, 1200, 1300],
  );
  t.equal(gcra.readyAt(1030, 0), 1100, 'asking changes nothing');
});

// performance.now() reads 1e9 ms after twelve days; its doubles are a ten-millionth of a ms apart then.
const DAY_MS = 86_400_000;
const start = fc.oneof(
  fc.constantFrom(0, 1e9, 12 * DAY_MS + 0.1),
  fc.double({ min: 0, max: 400 * DAY_MS, noNaN: true }),
);
const interval = fc.oneof(
  fc.constantFrom(0.5, 1000 / 3, 60_000 / 500, 0.1, 1 / 3, 86_400_000 / 10_000),
  fc.double({ min: 0.01, max: 100_000, noNaN: true }),
);
const burst = fc.integer({ min: 1, max: 50 });

t.test('who comes at the time he was told passes, also where times are coarse', async () => {
  fc.assert(
    fc.property(start, interval, burst, fc.nat({ max: 60 }), (now, intervalMs, burst, ahead) => {
      const gcra = new Gcra(intervalMs, burst);
      if (drain(gcra, now) !== burst) throw new Error('a new one has no whole burst');
      const told = gcra.readyAt(now, ahead);
      for (let others = 0; others < ahead; others++) {
        const at = gcra.readyAt(now);
        if (gcra.readyAt(at) > at) throw new Error(`told ${at}, which is too early for ${others}`);
        gcra.take(at);
        now = at;
      }
      if (gcra.readyAt(now) !== told) throw new Error(`told ${told}, ready at ${gcra.readyAt(now)}`);
      if (gcra.readyAt(told) > told) throw new Error(`told ${told}, which is too early`);
    }),
  );
});

t.test('what remains is what passes, and a full one is as a new one', async () => {
  const waits = fc.array(fc.double({ min: 0, max: 8, noNaN: true }), { maxLength: 40 });
  fc.assert(
    fc.property(start, interval, burst, waits, (now, intervalMs, burst, waits) => {
      const gcra = new Gcra(intervalMs, burst);
      for (const wait of waits) {
        now += wait * intervalMs;
        const full = gcra.isFull(now);
        if (full !== gcra.fullAt(now) <= now) throw new Error('full or not');
        const remaining = gcra.remaining(now);
        if (full && remaining !== burst) throw new Error(`${remaining} of ${burst} left of a full one`);
        if (remaining > 0 !== gcra.readyAt(now) <= now) throw new Error(`${remaining} left, ready or not`);
        // Half of them, so that all fillings are met.
        if (Math.floor(wait) % 2 === 0 && drain(gcra, now) !== remaining) throw new Error(`${remaining} did not pass`);
        else if (gcra.readyAt(now) <= now) gcra.take(now);
      }
      now = gcra.fullAt(now);
      if (!gcra.isFull(now) || gcra.remaining(now) !== burst) throw new Error('not full when it should be');
    }),
  );
});

t.test('in any time, no more than a burst and one for each interval of it pass', async () => {
  const waits = fc.array(fc.double({ min: 0, max: 4, noNaN: true }), { minLength: 1, maxLength: 60, size: 'max' });
  fc.assert(
    fc.property(start, interval, burst, waits, (now, intervalMs, burst, waits) => {
      const gcra = new Gcra(intervalMs, burst);
      const times: number[] = [];
      for (const wait of waits) {
        now += wait * intervalMs;
        for (let passed = drain(gcra, now); passed > 0; passed--) times.push(now);
      }
      for (let from = 0; from < times.length; from++)
        for (let to = from; to < times.length; to++) {
          const most = burst + (times[to]! - times[from]!) / intervalMs + 1e-3;
          if (to - from + 1 > most) throw new Error(`${to - from + 1} passed where ${most} may`);
        }
    }),
    { numRuns: 300 },
  );
});

t.test('weeks of load do not shift the rate by an interval', async (t) => {
  // Always busy: each passes at the very time it may, twelve days after the process began. 1/3 has no exact double, and each
  // sum would be rounded to the clock's step there.
  const intervalMs = 1 / 3;
  const gcra = new Gcra(intervalMs, 1);
  const begin = 1e9;
  let now = begin;
  const passes = 3_000_000;
  for (let i = 0; i < passes; i++) {
    gcra.take(now);
    now = gcra.readyAt(now);
  }
  const expected = begin + passes / 3;
  t.ok(Math.abs(now - expected) < 1e-6, `${now - expected} ms off after ${passes} passes`);
});

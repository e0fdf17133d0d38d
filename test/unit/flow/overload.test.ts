// The steps of overload: at once up, down only when it is clearly better for a while.
import fc from 'fast-check';
import t from 'tap';
import { Overload, type OverloadLevel } from '../../../src/flow/overload.ts';

const RULES = { shrinkCacheAt: 0.8, refuseAt: 0.9, closeAt: 0.95, maxLoopLagMs: 200 };
const LIMIT = 1000;

/** Levels after each share of memory in turn. */
const shares = (overload: Overload, ...values: number[]) => {
  return values.map((share) => overload.measured(share * LIMIT, LIMIT, 0));
};
const lags = (overload: Overload, ...values: number[]) => values.map((ms) => overload.measured(0, LIMIT, ms));

t.test('each threshold is a level, reached at once', async (t) => {
  const table: readonly [share: number, level: OverloadLevel][] = [
    [0, 0],
    [0.799, 0],
    [0.8, 1],
    [0.899, 1],
    [0.9, 2],
    [0.949, 2],
    [0.95, 3],
    [1.2, 3],
  ];
  for (const [share, level] of table) t.same(shares(new Overload(RULES), share), [level], `${share}`);
  t.same(shares(new Overload(RULES), 0.81, 0.91, 0.96), [1, 2, 3], 'and from one to the next');
});

t.test('the level says what is done', async (t) => {
  const done: boolean[][] = [];
  for (const share of [0.5, 0.8, 0.9, 0.95]) {
    const overload = new Overload(RULES);
    overload.measured(share * LIMIT, LIMIT, 7);
    done.push([overload.shrinking, overload.refusing, overload.closing]);
    t.same([overload.memoryShare, overload.loopLagMs], [share, 7]);
  }
  t.same(done, [
    [false, false, false],
    [true, false, false],
    [true, true, false],
    [true, true, true],
  ]);
});

t.test('a level is left when memory is three points below its threshold four times in a row', async (t) => {
  const overload = new Overload(RULES);
  shares(overload, 0.91);
  t.same(shares(overload, 0.88, 0.88, 0.88, 0.88, 0.88, 0.88), [2, 2, 2, 2, 2, 2], 'not clearly below');
  t.same(shares(overload, 0.86, 0.86, 0.86, 0.88), [2, 2, 2, 2], 'three times are not enough, and it begins anew');
  t.same(shares(overload, 0.86, 0.86, 0.86, 0.86), [2, 2, 2, 1]);
  t.same(shares(overload, 0.5, 0.5, 0.5, 0.5), [1, 1, 1, 0]);
});

t.test('it goes down to the highest level that was still called for meanwhile', async (t) => {
  const overload = new Overload(RULES);
  shares(overload, 0.99);
  t.same(shares(overload, 0.5, 0.5, 0.85, 0.5), [3, 3, 3, 1]);
  shares(overload, 0.99);
  t.same(shares(overload, 0.89, 0.5, 0.5, 0.5), [3, 3, 3, 2], 'with the margin');
  t.same(shares(overload, 0.5, 0.5, 0.5, 0.5), [2, 2, 2, 0], 'and what came before that counts no more');
});

t.test('a rise while it grows calm counts at once', async (t) => {
  const overload = new Overload(RULES);
  shares(overload, 0.91);
  t.same(shares(overload, 0.5, 0.5, 0.96), [2, 2, 3]);
  t.same(shares(overload, 0.89, 0.96), [3, 3]);
  t.same(shares(overload, 0.5, 0.5, 0.5, 0.5), [3, 3, 3, 0], 'and what it had grown calm to before does not');
});

t.test('a measure that swings about a threshold enters its level once', async (t) => {
  const overload = new Overload(RULES);
  for (let i = 0; i < 100; i++) shares(overload, 0.905, 0.895, 0.86, 0.86, 0.86);
  t.same(overload.entered, { shrink: 1, refuse: 1, close: 0 });
});

t.test('an event loop that is late refuses new work, and shrinks no cache', async (t) => {
  const overload = new Overload(RULES);
  t.same(lags(overload, 200), [0], 'so much is allowed');
  t.same(lags(overload, 201), [2]);
  t.ok(overload.refusing);
  t.notOk(overload.shrinking);
  t.notOk(overload.closing);
  t.same(lags(overload, 101, 150, 101, 101, 101), [2, 2, 2, 2, 2], 'half of it must be regained');
  t.same(lags(overload, 100, 0, 0, 50), [2, 2, 2, 0]);
  t.same(overload.entered, { shrink: 0, refuse: 1, close: 0 });
});

t.test('memory and loop are judged each by itself, and the higher level counts', async (t) => {
  const overload = new Overload(RULES);
  overload.measured(0.85 * LIMIT, LIMIT, 500);
  t.same([overload.level, overload.shrinking], [2, true]);
  const levels = [1, 2, 3, 4].map(() => overload.measured(0.85 * LIMIT, LIMIT, 0));
  t.same(levels, [2, 2, 2, 1], 'the loop is well again, memory is not');
  const closing = new Overload(RULES);
  t.equal(closing.measured(0.96 * LIMIT, LIMIT, 500), 3);
  t.same(closing.entered, { shrink: 1, refuse: 1, close: 1 });
});

t.test('entries are counted, level by level', async (t) => {
  const overload = new Overload(RULES);
  shares(overload, 0.96, 0.5, 0.5, 0.5, 0.5, 0.81, 0.5, 0.5, 0.5, 0.5, 0.91, 0.96);
  t.same(overload.entered, { shrink: 3, refuse: 2, close: 2 });
});

t.test('without a known limit memory is not judged', async (t) => {
  for (const limit of [Number.POSITIVE_INFINITY, 0, Number.NaN]) {
    const overload = new Overload(RULES);
    t.equal(overload.measured(1e12, limit, 0), 0);
    t.equal(overload.memoryShare, null);
    t.equal(overload.measured(1e12, limit, 500), 2, 'the loop is');
  }
  const overload = new Overload({ ...RULES, maxLoopLagMs: Number.POSITIVE_INFINITY });
  t.same(lags(overload, 1e9), [0], 'nor the loop, if it may be as late as it likes');
});

t.test(
  'whatever is measured, it is calm after four calm measurements, and never below what is called for',
  async () => {
    const measure = fc.tuple(fc.double({ min: 0, max: 1.5, noNaN: true }), fc.nat({ max: 500 }));
    fc.assert(
      fc.property(fc.array(measure, { maxLength: 50 }), (measures) => {
        const overload = new Overload(RULES);
        for (const [share, lag] of measures) {
          const level = overload.measured(share * LIMIT, LIMIT, lag);
          const byMemory = share >= 0.95 ? 3 : share >= 0.9 ? 2 : share >= 0.8 ? 1 : 0;
          if (level < Math.max(byMemory, lag > 200 ? 2 : 0)) throw new Error(`${level} at ${share}, ${lag} ms`);
        }
        for (let i = 0; i < 4; i++) overload.measured(0, LIMIT, 0);
        if (overload.level !== 0 || overload.shrinking) throw new Error(`${overload.level}`);
      }),
    );
  },
);

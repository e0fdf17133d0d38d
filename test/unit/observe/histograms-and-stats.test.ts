// The rolling histogram and the counters.
import fc from 'fast-check';
import t from 'tap';
import { RollingHistogram } from '../../../src/observe/rolling-histogram.ts';
import { LimiterStats, OperationStats, PoolStats, Tally, UpstreamStats } from '../../../src/observe/stats.ts';

const EMPTY = { p50: 0, p95: 0, p99: 0, max: 0, count: 0 };
/** Slices of ten seconds in the window. */
const SLICES = 6;

function recorded(...values: number[]): RollingHistogram {
  const histogram = new RollingHistogram();
  for (const ms of values) histogram.record(ms);
  return histogram;
}

/** Two significant figures, and the microsecond it counts in. */
const near = (ms: number, value: number) => Math.abs(ms - value) <= value * 0.01 + 0.001;

t.test('before the first observation everything is zero', async (t) => {
  const histogram = new RollingHistogram();
  t.same(histogram.window(), EMPTY);
  t.same([histogram.mean, histogram.total], [0, 0]);
  const { bounds, counts, sum } = histogram.totals();
  t.equal(counts.length, bounds.length + 1);
  t.ok(counts.every((count) => count === 0) && sum === 0);
  histogram.rotate();
  t.same(histogram.window(), EMPTY);
});

t.test('quantiles are within two significant figures, at any size', async (t) => {
  for (const scale of [0.05, 1, 37, 1000, 60_000, 3_500_000]) {
    const histogram = recorded(...Array.from({ length: 1000 }, (_, i) => (scale * (i + 1)) / 1000));
    const { p50, p95, p99, max, count } = histogram.window();
    t.equal(count, 1000);
    t.ok(near(p50, scale * 0.5), `p50 of ${scale}: ${p50}`);
    t.ok(near(p95, scale * 0.95), `p95 of ${scale}: ${p95}`);
    t.ok(near(p99, scale * 0.99), `p99 of ${scale}: ${p99}`);
    t.ok(near(max, scale), `max of ${scale}: ${max}`);
  }
});

t.test('a quantile is one of the observations, nearest rank', async () => {
  const values = fc.array(fc.double({ min: 0.002, max: 100_000, noNaN: true }), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(values, (values) => {
      const sorted = values.toSorted((a, b) => a - b);
      const window = recorded(...values).window();
      for (const [name, share] of [
        ['p50', 0.5],
        ['p95', 0.95],
        ['p99', 0.99],
      ] as const) {
        // Rounding of the rank is the histogram's own; one neighbour either way.
        const rank = share * sorted.length;
        const candidates = [Math.floor(rank), Math.ceil(rank)].map((r) => sorted[Math.max(1, r) - 1]!);
        if (!candidates.some((value) => near(window[name], value))) {
          throw new Error(`${name} is ${window[name]}, expected one of ${candidates}`);
        }
      }
      if (!near(window.max, sorted.at(-1)!)) throw new Error(`max ${window.max} of ${sorted.at(-1)}`);
      if (window.count !== values.length) throw new Error(`count ${window.count}`);
    }),
    { numRuns: 300 },
  );
});

t.test('what is out of range counts at the end of the range', async (t) => {
  const tiny = recorded(0, 0.0001, -5);
  t.equal(tiny.window().count, 3);
  t.ok(tiny.window().max <= 0.002);
  const huge = recorded(1e12);
  t.ok(near(huge.window().max, 3_600_000), 'an hour');
  t.equal(huge.totals().counts.at(-1), 1);
});

t.test('an observation stays in the window for fifty to sixty seconds', async (t) => {
  const histogram = recorded(100);
  for (let turn = 1; turn < SLICES; turn++) {
    histogram.rotate();
    t.equal(histogram.window().count, 1, `after ${turn} turns`);
  }
  histogram.rotate();
  t.same(histogram.window(), EMPTY, 'gone after the sixth');
  t.equal(histogram.total, 1, 'but counted since start');
  t.equal(histogram.mean, 100);
});

t.test('each slice leaves the window at its own time', async (t) => {
  const histogram = new RollingHistogram();
  const seen: [number, number][] = [];
  for (let slice = 1; slice <= 20; slice++) {
    for (let i = 0; i < slice; i++) histogram.record(slice * 10);
    const { count, max } = histogram.window();
    seen.push([count, Math.round(max / 10)]);
    histogram.rotate();
  }
  const expected = Array.from({ length: 20 }, (_, i) => {
    let count = 0;
    for (let slice = Math.max(1, i + 2 - SLICES); slice <= i + 1; slice++) count += slice;
    return [count, i + 1];
  });
  t.same(seen, expected);
  for (let turn = 0; turn < SLICES; turn++) histogram.rotate();
  t.same(histogram.window(), EMPTY);
  histogram.record(5);
  t.equal(histogram.window().count, 1, 'a slice is used again after its reset');
});

t.test('reading the window does not change it', async (t) => {
  const histogram = recorded(1, 2, 3);
  histogram.rotate();
  histogram.record(4);
  t.same(histogram.window(), histogram.window());
  t.equal(histogram.window().count, 4);
});

t.test('the totals count each observation once, at the first bound it does not pass', async (t) => {
  const { bounds } = new RollingHistogram().totals();
  t.ok(
    bounds.every((bound, i) => i === 0 || bound > bounds[i - 1]!),
    'bounds rise',
  );
  for (const [i, bound] of bounds.entries()) {
    const at = recorded(bound * 1000).totals().counts;
    t.equal(at.indexOf(1), i, `${bound} s is within its own bound`);
    const above = recorded(bound * 1000 * 1.001).totals().counts;
    t.equal(above.indexOf(1), i + 1, `a little more than ${bound} s is not`);
  }
  const histogram = recorded(0.5, 1, 1.5, 20, 100, 700_000);
  const { counts, sum } = histogram.totals();
  t.equal(
    counts.reduce((a, b) => a + b, 0),
    6,
  );
  t.ok(Math.abs(sum - 700.123) < 1e-9, `seconds: ${sum}`);
  for (let turn = 0; turn < 10; turn++) histogram.rotate();
  t.same(histogram.totals().counts, counts, 'since start: turning takes nothing away');
  t.ok(Math.abs(histogram.mean - 700_123 / 6) < 1e-6);
  const kept = [...counts];
  histogram.record(0.5);
  t.same(counts, kept, 'a snapshot is not the counter itself');
});

// ---- counters

t.test('a tally counts by key', async (t) => {
  const tally = new Tally();
  for (const key of ['a', 'b', 'a']) tally.add(key);
  t.same(tally.snapshot(), { a: 2, b: 1 });
  t.same([tally.get('a'), tally.get('z')], [2, 0]);
});

t.test('statuses are counted one by one, and nonsense does not fail', async (t) => {
  const stats = new UpstreamStats();
  for (const status of [200, 200, 404, 599, 999, 0]) stats.countStatus(status);
  t.same(stats.status(), { 0: 1, 200: 2, 404: 1, 599: 1, 999: 1 });
  for (const status of [1000, -1, Number.NaN, 2.5]) stats.countStatus(status);
  t.same(stats.status(), { 0: 1, 200: 2, 404: 1, 599: 1, 999: 1 });
  stats.failed('queue_full');
  t.same(stats.failures.snapshot(), { queue_full: 1 });
});

t.test('sixty-four operations have a name, the others are other', async (t) => {
  const stats = new LimiterStats();
  t.equal(stats.operation(''), null, 'none named');
  const first = stats.operation('op0')!;
  for (let i = 0; i < 64; i++) stats.operation(`op${i}`)!.granted++;
  t.equal(stats.operation('op0'), first, 'the same label, the same counters');
  t.equal(stats.operations.size, 64);
  t.notOk(stats.operations.has('other'));
  const other = stats.operation('op64')!;
  t.equal(stats.operation('op65'), other);
  t.equal(stats.operation('other'), other);
  t.equal(stats.operations.get('other'), other);
  t.equal(stats.operations.size, 65);
  for (let i = 0; i < 10_000; i++) stats.operation(`random ${i}`);
  t.equal(stats.operations.size, 65, 'labels come from clients: their number is bounded');
  t.equal(stats.operation('op63')!.granted, 1, 'who has a name keeps it');
});

t.test('a label that is too long is other from the start', async (t) => {
  const stats = new LimiterStats();
  t.not(stats.operation('x'.repeat(64)), stats.operation('x'.repeat(65)));
  t.same([...stats.operations.keys()], ['x'.repeat(64), 'other']);
  t.equal(stats.operation('y'.repeat(10_000)), stats.operation('other'));
});

t.test('labels that are names of object properties are labels like any other', async (t) => {
  const stats = new LimiterStats();
  for (const label of ['__proto__', 'constructor', 'toString']) stats.operation(label)!.granted += 2;
  t.same(
    [...stats.operations].flatMap(([label, { granted }]) => [label, granted]),
    ['__proto__', 2, 'constructor', 2, 'toString', 2],
  );
});

t.test('an operation says what it counted', async (t) => {
  const stats = new OperationStats();
  stats.inFlight = 1;
  stats.queued = 2;
  stats.granted = 3;
  stats.waited = 4;
  stats.refused = 5;
  t.same(stats.snapshot(), { in_flight: 1, queued: 2, granted: 3, waited: 4, refused: 5, wait_ms: EMPTY });
});

t.test('a turn of the window turns every histogram', async (t) => {
  const upstream = new UpstreamStats();
  const pool = new PoolStats();
  const limiter = new LimiterStats();
  const operation = limiter.operation('chat')!;
  const all = [upstream.latency, upstream.ttfb, upstream.overhead, pool.connect, pool.dns, pool.tcp, pool.tls];
  all.push(limiter.wait, operation.wait);
  for (const histogram of all) histogram.record(10);
  for (let turn = 0; turn < SLICES; turn++) {
    t.ok(all.every((histogram) => histogram.window().count === 1));
    for (const stats of [upstream, pool, limiter]) stats.rotate();
  }
  t.ok(all.every((histogram) => histogram.window().count === 0));
});

// The caller's deadline, in the three fields that say it.
import fc from 'fast-check';
import t from 'tap';
import { parseGrpcTimeout, parseWholeMs } from '../../../src/http/deadline-fields.ts';

t.test('whole milliseconds are digits and nothing else', async (t) => {
  t.equal(parseWholeMs('1500'), 1500);
  t.equal(parseWholeMs('0'), 0, 'no time is left');
  t.equal(parseWholeMs('007'), 7);
  t.equal(parseWholeMs('999999999999999'), 999_999_999_999_999);
});

t.test('grpc-timeout knows six units', async (t) => {
  const table: readonly [value: string, ms: number][] = [
    ['1H', 3_600_000],
    ['1M', 60_000],
    ['1S', 1000],
    ['1m', 1],
    ['1u', 0.001],
    ['1n', 0.000001],
    ['250m', 250],
    ['100000u', 100],
    ['99999999H', 99_999_999 * 3_600_000],
    ['00000001S', 1000],
  ];
  for (const [value, ms] of table) t.equal(parseGrpcTimeout(value), ms, value);
});

t.test('what is malformed is no deadline', async (t) => {
  const wrong = ['', ' ', '-1', '+1', '1.5', '1e3', '0x10', ' 1', '1 ', '1\n', '١', '1,000', 'NaN', 'Infinity', '1,1'];
  for (const value of [...wrong, '1000S', '1'.repeat(16), '9'.repeat(400)])
    t.equal(parseWholeMs(value), -1, JSON.stringify(value.slice(0, 20)));
  for (const unit of ['H', 'M', 'S', 'm', 'u', 'n']) {
    for (const value of [...wrong.filter((it) => !it.endsWith(' ')), '123456789'])
      t.equal(parseGrpcTimeout(value + unit), -1, JSON.stringify(value + unit));
  }
  for (const value of ['1', '1s', '1h', '1 S', '1S ', '1SS', '1µ', 'S', '1\u0000'])
    t.equal(parseGrpcTimeout(value), -1, value);
});

t.test('any value is ms or -1', async () => {
  const value = fc.oneof(fc.string(), fc.stringMatching(/^[0-9]{0,18}[HMSmunx]?$/));
  fc.assert(
    fc.property(value, (value) => {
      for (const ms of [parseWholeMs(value), parseGrpcTimeout(value)])
        if (!(ms === -1 || (ms >= 0 && ms <= Number.MAX_SAFE_INTEGER))) throw new Error(`${ms}`);
    }),
    { numRuns: 2000 },
  );
});

// The back-off before a retry.
import fc from 'fast-check';
import t from 'tap';
import { fullJitter } from '../../../src/flow/backoff.ts';

const longest = () => 1;

t.test('the longest wait doubles with each retry, up to the maximum', async (t) => {
  const waits = [1, 2, 3, 4, 5, 6].map((retry) => fullJitter(retry, 25, 250, longest));
  t.same(waits, [25, 50, 100, 200, 250, 250]);
  t.equal(fullJitter(1, 500, 250, longest), 250, 'the maximum holds for the first too');
  t.equal(fullJitter(1_000_000, 25, 250, longest), 250);
  t.equal(fullJitter(1_000_000, 0, 250, longest), 0, 'no base, no wait');
});

t.test('the jitter is full: any time from none to the longest is as likely', async (t) => {
  t.equal(
    fullJitter(3, 100, 1000, () => 0),
    0,
  );
  t.equal(
    fullJitter(3, 100, 1000, () => 0.25),
    100,
  );
  let sum = 0;
  for (let i = 0; i < 1000; i++) sum += fullJitter(1, 100, 1000, () => (i + 0.5) / 1000);
  t.equal(Math.round(sum / 1000), 50);
  const unaided = Array.from({ length: 50 }, () => fullJitter(2, 100, 1000));
  t.ok(
    unaided.every((ms) => ms >= 0 && ms < 200),
    'Math.random by default',
  );
  t.ok(new Set(unaided).size > 1);
});

t.test('however many retries, however long or short the base, the wait is a number from 0 to the maximum', async () => {
  const ms = fc.integer({ min: 0, max: 86_400_000 });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100_000 }),
      ms,
      ms,
      fc.double({ min: 0, max: 1, noNaN: true }),
      (retry, base, max, random) => {
        const wait = fullJitter(retry, base, max, () => random);
        if (!(wait >= 0 && wait <= max)) throw new Error(`${wait}`);
        if (base === 0 && wait !== 0) throw new Error(`${wait} from a base of 0`);
      },
    ),
  );
});

// The bounded table: one value per key, room made by idle ones, and a shared one where there is none.
import fc from 'fast-check';
import t from 'tap';
import { KeyedTable } from '../../../src/flow/keyed-table.ts';

interface Value {
  readonly key: string;
  busyUntil: number;
}

function table(max: number) {
  const made: string[] = [];
  let looks = 0;
  const table = new KeyedTable<Value>(
    max,
    (key) => {
      made.push(key);
      return { key, busyUntil: 0 };
    },
    (value, now) => {
      looks++;
      return value.busyUntil <= now;
    },
  );
  const busy = (key: string, until: number, now = 0) => {
    table.get(key, now).busyUntil = until;
  };
  return { table, made, busy, looks: () => looks };
}

t.test('a key has one value, made when it first comes', async (t) => {
  const { table: keyed, made } = table(10);
  const a = keyed.get('a', 0);
  keyed.get('b', 0);
  t.equal(keyed.get('a', 1000), a);
  t.equal(keyed.get('__proto__', 0), keyed.get('__proto__', 0));
  t.same(made, ['a', 'b', '__proto__']);
  t.same([keyed.size, keyed.overflowed], [3, 0]);
});

t.test('nothing is dropped while there is room', async (t) => {
  const { table: keyed, made, looks } = table(3);
  for (const key of 'abcabcabc') keyed.get(key, 1_000_000);
  t.same([made.join(''), keyed.size, looks()], ['abc', 3, 0]);
});

t.test('a full table drops idle ones, those longest not used first', async (t) => {
  const { table: keyed, made, busy } = table(12);
  for (const key of 'abcdefghijkl') busy(key, 0);
  for (const key of 'abcd') keyed.get(key, 0);
  keyed.get('m', 0);
  t.equal(keyed.size, 5, 'eight were idle and old: all of them are gone');
  made.length = 0;
  for (const key of 'abcdm') keyed.get(key, 0);
  t.same(made, [], 'those used since are still there');
});

t.test('a busy one is never dropped', async (t) => {
  const { table: keyed, made, busy } = table(3);
  for (const key of 'abc') busy(key, 100);
  busy('b', 50);
  keyed.get('d', 50);
  t.same([...'acd'].map((key) => keyed.get(key, 50).key).join(''), 'acd');
  t.same(made.join(''), 'abcd', 'b made room');
});

t.test('when all are busy the rest share one, and are counted', async (t) => {
  const { table: keyed, made, busy } = table(2);
  busy('a', 100);
  busy('b', 100);
  const shared = keyed.get('c', 10);
  t.equal(keyed.get('d', 20), shared);
  t.equal(keyed.get('c', 30), shared);
  t.same([keyed.size, keyed.overflowed], [2, 3]);
  t.same(made, ['a', 'b', ''], 'it is made once');
  t.not(keyed.get('a', 40), shared);
  const c = keyed.get('c', 100);
  t.not(c, shared, 'as soon as there is room it has its own');
  t.equal(c.key, 'c');
  t.same([keyed.size, keyed.overflowed], [1, 3]);
});

t.test('the empty key is a key like any other', async (t) => {
  const { table: keyed, busy } = table(1);
  busy('', 100);
  const shared = keyed.get('x', 0);
  t.not(keyed.get('', 0), shared);
  t.equal(keyed.size, 1);
});

t.test('a table for nobody is all shared', async (t) => {
  const { table: keyed } = table(0);
  t.equal(keyed.get('a', 0), keyed.get('b', 0));
  t.same([keyed.size, keyed.overflowed], [0, 2]);
});

t.test('a few that stay busy for long do not hide the idle ones behind them', async (t) => {
  const { table: keyed, busy } = table(100);
  for (let i = 0; i < 100; i++) busy(`${i}`, i < 40 ? 1_000_000 : 0);
  let shared = 0;
  for (let i = 0; i < 20; i++) {
    const key = `new ${i}`;
    if (keyed.get(key, 10).key !== key) shared++;
  }
  t.ok(shared <= 40 / 8, `${shared} shared before the idle ones were found`);
});

t.test('a flood of new keys costs each of them a few looks, however large the table', async (t) => {
  const { table: keyed, busy, looks } = table(10_000);
  for (let i = 0; i < 10_000; i++) busy(`${i}`, 1_000_000);
  for (let i = 0; i < 1000; i++) keyed.get(`new ${i}`, 10);
  t.same([keyed.overflowed, keyed.size], [1000, 10_000]);
  t.equal(looks(), 8000);
  for (let i = 0; i < 10_000; i++) keyed.get(`${i}`, 10);
  t.equal(looks(), 8000, 'and those who are there none');
});

t.test('whatever comes, a table is within its bound and forgets no busy one', async () => {
  const step = fc.record({
    key: fc.constantFrom(...'abcdefghijklmnop'),
    busyMs: fc.constantFrom(0, 0, 5, 50),
    passMs: fc.nat({ max: 10 }),
  });
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 10 }), fc.array(step, { maxLength: 150, size: 'max' }), (max, steps) => {
      const { table: keyed } = table(max);
      const last = new Map<string, Value>();
      let now = 0;
      let overflowed = 0;
      for (const { key, busyMs, passMs } of steps) {
        now += passMs;
        const value = keyed.get(key, now);
        const before = last.get(key);
        if (before && before.busyUntil > now && value !== before) throw new Error(`${key} was busy and is gone`);
        if (value.key === key) {
          value.busyUntil = Math.max(value.busyUntil, now + busyMs);
          last.set(key, value);
        } else {
          overflowed++;
          if (value.key !== '') throw new Error(`${key} got the value of ${value.key}`);
          // Eight are looked at: a table of no more has been seen whole.
          const idle = [...last.values()].filter(({ busyUntil }) => busyUntil <= now).length;
          if (max > 0 && max <= 8 && last.size - idle < max) throw new Error('shared though there was room');
        }
        if (keyed.size > max || keyed.overflowed !== overflowed)
          throw new Error(`${keyed.size} of ${max}, ${overflowed}`);
      }
    }),
  );
});

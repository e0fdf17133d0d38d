// The byte budget and the queue alarm.
import fc from 'fast-check';
import t from 'tap';
import { ByteBudget } from '../../../src/flow/byte-budget.ts';
import { QueueAlarm, type QueueLevel } from '../../../src/flow/queue-alarm.ts';

t.test('a budget takes up to its last byte and refuses what does not fit', async (t) => {
  const budget = new ByteBudget(100);
  t.ok(budget.take(60));
  t.notOk(budget.take(41));
  t.ok(budget.take(40), 'a refused one has taken nothing');
  t.notOk(budget.take(1));
  t.ok(budget.take(0));
  budget.give(40);
  t.notOk(budget.take(41));
  t.ok(budget.take(40));
  t.same([budget.used, budget.peak, budget.refused], [100, 100, 3]);
});

t.test('the peak stays when bytes are given back', async (t) => {
  const budget = new ByteBudget(100);
  budget.take(70);
  budget.give(70);
  budget.take(10);
  t.same([budget.used, budget.peak, budget.refused], [10, 70, 0]);
  const unlimited = new ByteBudget(Number.POSITIVE_INFINITY);
  t.ok(unlimited.take(Number.MAX_SAFE_INTEGER));
});

t.test('whatever holders do, a budget is never passed, and is whole again at the end', async () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 60 }), { maxLength: 100, size: 'max' }), (sizes) => {
      const budget = new ByteBudget(100);
      const held: number[] = [];
      for (const bytes of sizes) {
        const used = held.reduce((sum, bytes) => sum + bytes, 0);
        if (budget.used !== used) throw new Error(`${budget.used} used, should be ${used}`);
        if (budget.take(bytes) !== used + bytes <= 100) throw new Error(`${bytes} bytes beside ${used}`);
        if (used + bytes <= 100) held.push(bytes);
        else budget.give(held.shift()!);
      }
      for (const bytes of held) budget.give(bytes);
      if (budget.used !== 0 || budget.peak > 100) throw new Error(`${budget.used} left, peak ${budget.peak}`);
    }),
  );
});

/** Grows a queue to each length in turn and says what the alarm said. */
const grow = (alarm: QueueAlarm, from: number, to: number): QueueLevel[] => {
  const said: QueueLevel[] = [];
  for (let queued = from; queued <= to; queued++) {
    const level = alarm.grown(queued);
    if (level) said.push(level);
  }
  return said;
};
const pulses = (alarm: QueueAlarm, ...queued: number[]) => queued.map((length) => alarm.pulse(length));

t.test('the alarm speaks once past ten, once past twenty, and once when the queue is well again', async (t) => {
  const alarm = new QueueAlarm();
  t.same(grow(alarm, 1, 10), [], 'ten is still well');
  t.same(grow(alarm, 11, 11), ['warning']);
  t.same(grow(alarm, 11, 20), []);
  t.same(grow(alarm, 21, 21), ['alert']);
  t.same(grow(alarm, 5, 5000), [], 'once is enough');
  t.same(pulses(alarm, 3, 3, 3, 3, 3), [null, null, null, null, 'well']);
  t.same(pulses(alarm, 0, 0, 0, 0, 0, 0), [null, null, null, null, null, null]);
  t.same(grow(alarm, 1, 30), ['warning', 'alert'], 'and all over again');
});

t.test('well is a queue of five or less, for five pulses in a row', async (t) => {
  const alarm = new QueueAlarm();
  grow(alarm, 1, 11);
  t.same(pulses(alarm, 5, 5, 5, 5, 6), [null, null, null, null, null], 'six begins anew');
  t.same(pulses(alarm, 5, 5, 5, 5, 5), [null, null, null, null, 'well']);
  t.equal(alarm.level, 'well');
});

t.test('an alert goes over into well, not back into a warning', async (t) => {
  const alarm = new QueueAlarm();
  grow(alarm, 1, 21);
  t.same(pulses(alarm, 15, 15, 12), [null, null, null]);
  t.same(grow(alarm, 12, 40), []);
  t.same(pulses(alarm, 0, 0, 0, 0, 0), [null, null, null, null, 'well']);
});

t.test('a queue that swings between two pulses does not chatter', async (t) => {
  const alarm = new QueueAlarm();
  const said = [];
  for (let second = 0; second < 60; second++) said.push(...grow(alarm, 1, 15), alarm.pulse(0));
  t.same(
    said.filter((level) => level),
    ['warning'],
    'a burst of fifteen each second: one warning in a minute',
  );
  t.same(pulses(alarm, 0, 0, 0, 0).at(-1), 'well', 'then it is well');
});

// Slots whose number changes: as an upstream says how many streams a connection takes.

import t from 'tap';
import { Limiter } from '../../../src/flow/limiter.ts';
import { Line } from '../../../src/flow/line.ts';
import { Slots } from '../../../src/flow/slots.ts';
import { NO_TURNSTILES, Waiter } from '../../../src/flow/waiters.ts';

function scene(max: number) {
  const slots = new Slots(max, 1);
  const limiter = new Limiter('l', Number.POSITIVE_INFINITY, 100, Number.POSITIVE_INFINITY);
  const line = new Line(limiter, slots.regular);
  const running: string[] = [];
  const wait = (name: string) =>
    line.enqueue(new Waiter({ granted: () => running.push(name), denied: () => {} }, 0, NO_TURNSTILES));
  return { slots, line, running, wait };
}

t.test('when there are more, those who wait run in their order', async (t) => {
  const { slots, running, wait } = scene(1);
  for (const name of ['a', 'b', 'c', 'd']) wait(name);
  t.same(running, ['a']);
  slots.max = 3;
  t.same(running, ['a', 'b', 'c']);
  t.equal(slots.max, 3);
});

t.test('when there are fewer, nobody loses his, and nobody gets one before there is room', async (t) => {
  const { slots, running, wait } = scene(3);
  for (const name of ['a', 'b', 'c', 'd']) wait(name);
  slots.max = 1;
  t.equal(slots.taken, 3);
  slots.regular.give();
  slots.regular.give();
  t.same(running, ['a', 'b', 'c']);
  slots.regular.give();
  t.same(running, ['a', 'b', 'c', 'd']);
});

// Who has waited longest: a list that is always in order, whoever leaves it.

import fc from 'fast-check';
import t from 'tap';
import { IdleList, type Waiting } from '../../../src/server/idle-list.ts';

function place(unsent = 0): Waiting {
  return { older: null, newer: null, waits: false, unsent, drop() {} };
}

t.test('the oldest is always the one added first of those that are left', (t) => {
  fc.assert(
    fc.property(fc.array(fc.record({ which: fc.nat(5), adds: fc.boolean() })), (steps) => {
      const places = Array.from({ length: 6 }, () => place());
      const list = new IdleList();
      let model: Waiting[] = [];
      for (const { which, adds } of steps) {
        const one = places[which]!;
        model = model.filter((other) => other !== one);
        if (adds) {
          list.add(one);
          model.push(one);
        } else list.remove(one);
        const seen: Waiting[] = [];
        for (let it = list.oldest; it; it = it.newer) seen.push(it);
        const back: Waiting[] = [];
        for (let it = model.at(-1) ?? null; it; it = it.older) back.unshift(it);
        if (seen.some((it, i) => it !== model[i]) || seen.length !== model.length) return false;
        if (back.some((it, i) => it !== model[i]) || back.length !== model.length) return false;
        if (places.some((it) => it.waits !== model.includes(it))) return false;
      }
      return true;
    }),
  );
  t.end();
});

t.test('one that is not in it may be taken out', (t) => {
  const list = new IdleList();
  const one = place();
  list.remove(one);
  list.add(one);
  list.remove(one);
  list.remove(one);
  t.equal(list.oldest, null);
  t.end();
});

t.test('the oldest makes room, but not before others if it still takes an answer', (t) => {
  const list = new IdleList();
  t.equal(list.choose(), null);
  const taking = [place(1), place(1)];
  const done = [place(), place()];
  for (const one of [...taking, ...done]) list.add(one);
  t.equal(list.choose(), done[0]);
  list.remove(done[0]!);
  t.equal(list.choose(), done[1]);
  list.remove(done[1]!);
  t.equal(list.choose(), taking[0], 'somebody must');
  t.end();
});

t.test('a crowd that never takes its answers holds a place only for a while, and costs no search', (t) => {
  const list = new IdleList();
  const crowd = Array.from({ length: 1000 }, () => place(1));
  for (const one of crowd) list.add(one);
  t.equal(list.choose(), crowd[16]);
  t.equal(list.oldest, crowd[16]);
  t.end();
});

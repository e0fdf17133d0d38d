// What a shared fetch holds of its body, and for how long.
import fc from 'fast-check';
import t from 'tap';
import { ByteBudget } from '../../../src/flow/byte-budget.ts';
import { Pieces } from '../../../src/proxy/pieces.ts';

function pieces(budgetBytes = 1e6, bufferBytes = 100, maxRecorded = 1000) {
  const budget = new ByteBudget(budgetBytes);
  return { budget, held: new Pieces(budget, bufferBytes, maxRecorded) };
}

const bytes = (n: number, fill = 'x') => Buffer.alloc(n, fill);

t.test('without a reason to keep them, pieces go as soon as the slowest follower has them', async (t) => {
  const { budget, held } = pieces();
  for (const name of ['a', 'b', 'c', 'd']) held.add(Buffer.from(name));
  t.equal(held.count, 4);
  held.trim(2);
  t.equal(String(held.at(2)), 'c', 'the numbers stay');
  t.equal(String(held.at(3)), 'd');
  t.notOk(held.complete, 'nobody can join any more');
  const before = budget.used;
  held.trim(1);
  t.equal(budget.used, before, 'what has gone is not given back twice');
  held.trim(4);
  t.equal(budget.used, 0);
  t.equal(held.bytes, 4, 'what came is remembered');
  held.add(Buffer.from('e'));
  t.equal(String(held.at(4)), 'e');
  held.release();
  t.equal(budget.used, 0);
});

t.test('what may be joined is held from its beginning, up to the buffer', async (t) => {
  const { held } = pieces();
  held.joinable = true;
  held.add(bytes(100));
  held.trim(1);
  t.ok(held.complete);
  held.add(bytes(1));
  t.notOk(held.joinable, 'one byte more than the buffer');
  held.trim(2);
  t.notOk(held.complete);
});

t.test('what is to be stored is held from its beginning, up to what may be stored', async (t) => {
  const { budget, held } = pieces();
  held.record = true;
  held.joinable = true;
  held.add(bytes(999, 'a'));
  held.add(bytes(1, 'b'));
  held.trim(2);
  t.ok(held.record && held.complete);
  t.notOk(held.overflowed);
  const whole = held.whole();
  t.equal(whole.length, 1000);
  t.equal(String(whole.subarray(998)), 'ab');
  t.equal(whole.buffer.byteLength, 1000, 'its memory is its own');
  held.add(bytes(1));
  t.notOk(held.record);
  t.ok(held.overflowed);
  held.trim(3);
  t.equal(budget.used, 0, 'and from then on nothing is kept');
});

t.test('when the memory of all fetches is full nothing is kept for later, but followers get what comes', async (t) => {
  const { budget, held } = pieces(150);
  held.record = true;
  held.joinable = true;
  held.add(bytes(10));
  t.ok(budget.take(budget.max - budget.used), 'others take the rest');
  held.add(bytes(10, 'n'));
  t.notOk(held.record || held.joinable);
  t.ok(held.overflowed);
  t.equal(String(held.at(1)), 'n'.repeat(10));
  t.notOk(budget.take(1), 'and others are refused until it is given back');
  held.trim(2);
  t.ok(budget.used < budget.max);
});

t.test('there is room while the slowest is less than the buffer behind', async (t) => {
  const { held } = pieces();
  held.behind = 99;
  t.ok(held.hasRoom);
  held.behind = 100;
  t.notOk(held.hasRoom);
});

t.test('when all is here, only what followers still need stays, recorded or not', async (t) => {
  const { budget, held } = pieces();
  held.record = true;
  for (let i = 0; i < 5; i++) held.add(bytes(10, String(i)));
  held.trimTo([{ next: 4 }, { next: 3 }]);
  t.equal(String(held.at(3)), '3'.repeat(10));
  const two = budget.used;
  held.trimTo([{ next: 5 }]);
  t.equal(budget.used, 0);
  t.ok(two > 0);
  held.trimTo([]);
  held.release();
  t.equal(budget.used, 0);
});

t.test('many tiny pieces count for what they cost, not for their bytes alone', async (t) => {
  const { budget, held } = pieces();
  held.record = true;
  for (let i = 0; i < 1000; i++) held.add(bytes(1));
  t.ok(budget.used >= 100_000, `${budget.used} bytes for 1 000 pieces of one byte`);
  held.release();
  t.equal(budget.used, 0);
});

t.test('whatever happens, all is given back', async () => {
  const step = fc.oneof(
    fc.record({ add: fc.nat(300) }),
    fc.record({ trim: fc.nat(50) }),
    fc.record({ trimTo: fc.array(fc.nat(50), { maxLength: 3 }) }),
  );
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 60 }),
      fc.boolean(),
      fc.boolean(),
      fc.nat(3000),
      (steps, record, joinable, budgetBytes) => {
        const { budget, held } = pieces(budgetBytes);
        held.record = record;
        held.joinable = joinable;
        let all = '';
        for (const one of steps as { add?: number; trim?: number; trimTo?: number[] }[]) {
          if (one.add !== undefined) {
            const chunk = bytes(one.add, String.fromCharCode(97 + (held.count % 26)));
            all += chunk;
            held.add(chunk);
          } else if (one.trim !== undefined) held.trim(Math.min(one.trim, held.count));
          else held.trimTo(one.trimTo!.map((next) => ({ next: Math.min(next, held.count) })));
          if (budget.used < 0) return false;
          if (held.record && held.bytes > held.maxRecorded) return false;
          if (held.complete && held.count > 0 && String(held.whole()) !== all) return false;
        }
        held.release();
        return budget.used === 0;
      },
    ),
    { numRuns: 300 },
  );
});

import t from 'tap';
import { Turnover } from '../../../src/flow/turnover.ts';

const MIB = 1024 * 1024;

t.test('every 16 MiB that pass the young generation is collected, once', async (t) => {
  const collected: object[] = [];
  const turnover = new Turnover((options) => collected.push(options));
  for (let i = 0; i < 16 * 16 - 1; i++) turnover.passed(MIB / 16);
  t.same(collected, []);
  turnover.passed(MIB / 16);
  t.same(collected, [{ type: 'minor' }]);
  turnover.passed(100 * MIB);
  t.equal(collected.length, 2, 'one large piece is one reason');
  turnover.passed(15 * MIB);
  t.equal(collected.length, 2);
  turnover.passed(MIB);
  t.equal(collected.length, 3);
});

t.test('V8 itself does it: buffers that nobody holds are gone after it', async (t) => {
  const turnover = new Turnover();
  let released = 0;
  const registry = new FinalizationRegistry(() => released++);
  for (let i = 0; i < 64; i++) registry.register(Buffer.allocUnsafeSlow(65_536), i);
  turnover.passed(16 * MIB);
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
  t.ok(released > 32, `${released} of 64`);
});

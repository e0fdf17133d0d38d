// Whether Redis may be asked: how long it is left alone after trouble, and how it is tried.
import t from 'tap';
import { RedisBreaker } from '../../../src/redis/breaker.ts';
import { until, whileNothing } from '../../support/until.ts';

t.test(
  'the rest of a breaker grows with trouble, and a connection that comes back at once does not cut it short',
  async (t) => {
    let now = 0;
    const log: string[] = [];
    let works = true;
    const probe = async () => {
      log.push('probe');
      if (!works) throw new Error('no');
    };
    const breaker = new RedisBreaker({
      probe,
      onDown: (reason) => log.push(reason),
      onUp: () => log.push('up'),
      now: () => now,
    });
    const took = async () => {
      const began = performance.now();
      await until('up', () => breaker.state === 'up');
      return performance.now() - began;
    };
    breaker.connected();
    await took();
    now = 60_000;
    breaker.trip('first');
    breaker.trip('again');
    breaker.connected();
    t.ok((await took()) >= 120, 'at least half of 250 ms');
    breaker.trip('second');
    t.ok((await took()) >= 245, 'at least half of 500 ms');
    t.same(log, ['probe', 'up', 'first', 'probe', 'up', 'second', 'probe', 'up']);
    now += 60_000;
    works = false;
    breaker.trip('third');
    now += 60_000;
    breaker.connected();
    await until('probed', () => log.filter((it) => it === 'probe').length === 4, 120);
    works = true;
    const rest = await took();
    t.ok(rest >= 240, `after a calm time 250 ms, after a failed probe 500: ${rest}`);
    breaker.trip('fourth');
    breaker.stop();
    t.equal(breaker.state, 'down');
  },
);

t.test('one probe at a time, however long it takes', async (t) => {
  let probes = 0;
  let answer = () => {};
  const probe = () => {
    probes++;
    return new Promise<void>((resolve) => {
      answer = resolve;
    });
  };
  const breaker = new RedisBreaker({ probe, onDown: () => {}, onUp: () => {}, now: () => 0 });
  breaker.connected();
  await until('probed', () => probes === 1);
  breaker.connected();
  await whileNothing(20);
  breaker.trip('lost');
  await whileNothing(300);
  t.equal(probes, 1);
  answer();
  await until('up', () => breaker.state === 'up');
  breaker.stop();
});

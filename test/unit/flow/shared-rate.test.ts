// A rate limit kept with others: what is booked and when, and the local share while nobody can be asked.
import t from 'tap';
import { type Booking, type RateMode, SharedRate } from '../../../src/flow/shared-rate.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const NEVER = Number.POSITIVE_INFINITY;
const turnOfLoop = () => new Promise(setImmediate);

/** All other sidecars, as far as a rate sees them. */
class Source {
  up = true;
  peers = 1;
  readonly whenUp = new Set<() => void>();
  readonly taken = { redis: 0, local: 0 };
  /** What was asked for. */
  readonly asked: [count: number, mode: RateMode][] = [];
  #answer: (booking: Booking) => void = () => {};
  #fail: (error: Error) => void = () => {};

  book(_key: string, _intervalMs: number, _burst: number, count: number, mode: RateMode): Promise<Booking> {
    this.asked.push([count, mode]);
    return new Promise((resolve, reject) => {
      this.#answer = resolve;
      this.#fail = reject;
    });
  }

  async answers(waitsMs: number[], retryMs = 0): Promise<void> {
    this.#answer({ waitsMs, retryMs });
    await turnOfLoop();
  }

  async fails(): Promise<void> {
    this.#fail(new Error('away'));
    await turnOfLoop();
  }

  goUp(): void {
    this.up = true;
    const waiting = [...this.whenUp];
    this.whenUp.clear();
    for (const call of waiting) call();
  }
}

class Rig {
  readonly clock = new FakeClock(100_000);
  readonly source = new Source();
  readonly rate: SharedRate;
  changes = 0;

  constructor(intervalMs = 100, burst = 1, mode: RateMode = 'wait') {
    this.rate = new SharedRate(this.source, 'key', intervalMs, burst, mode, this.clock.now);
    this.rate.onChange = () => {
      this.changes++;
    };
  }

  /** ms from now. */
  ready(ahead?: number): number {
    return this.rate.readyAt(this.clock.time, ahead) - this.clock.time;
  }

  take(): void {
    if (this.ready() > 0) throw new Error('not ready');
    this.rate.take(this.clock.time);
  }
}

t.test('what waiters need next is booked, and used at its time', async (t) => {
  const rig = new Rig();
  t.equal(rig.ready(), NEVER, 'not known');
  rig.rate.want(5);
  rig.rate.want(5);
  t.same(rig.source.asked, [[2, 'wait']], 'a small batch, one question at a time');
  t.equal(rig.ready(), NEVER);
  rig.clock.pass(3);
  await rig.source.answers([0, 100]);
  t.equal(rig.changes, 1);
  t.same([rig.ready(), rig.ready(1), rig.ready(2), rig.ready(3)], [0, 100, 200, 300], 'who is behind gets an estimate');
  rig.rate.want(5);
  t.equal(rig.source.asked.length, 1, 'enough is booked');
  rig.take();
  t.equal(rig.ready(), 100);
  rig.rate.want(4);
  t.same(rig.source.asked[1], [1, 'wait'], 'one more, in time');
  rig.clock.pass(100);
  t.equal(rig.ready(), 0);
  rig.take();
  await rig.source.answers([100]);
  t.equal(rig.ready(), 100);
  t.same(rig.source.taken, { redis: 2, local: 0 });
  t.equal(rig.rate.source, 'redis');
});

t.test('as many are booked ahead as the rate grants during a round trip, and no more than wait', async (t) => {
  const rig = new Rig(2);
  rig.rate.want(3);
  await rig.source.answers([0, 2, 4]);
  rig.rate.want(1000);
  t.same(rig.source.asked, [
    [3, 'wait'],
    [8, 'wait'],
  ]);
});

t.test('booked tokens nobody takes can be used for a while, so that few can come bunched', async (t) => {
  const rig = new Rig(100);
  rig.rate.want(2);
  rig.clock.pass(50);
  await rig.source.answers([0, 500]);
  rig.clock.pass(950);
  t.ok(rig.ready() <= 0, 'a second, as of when it was asked for');
  rig.clock.pass(1);
  t.ok(rig.ready() <= 0, 'the other');
  t.ok(rig.ready(1) > 0);
  rig.take();
  t.equal(rig.ready(), NEVER);
  const slow = new Rig(10_000);
  slow.rate.want(1);
  await slow.source.answers([0]);
  slow.clock.pass(20_000);
  t.ok(slow.ready() <= 0, 'two intervals');
  slow.clock.pass(1);
  t.equal(slow.ready(), NEVER);
  slow.rate.want(1);
  slow.clock.pass(60_000);
  await slow.source.answers([0]);
  t.equal(slow.ready(), 0, 'an answer that comes very late is good for a moment');
  slow.clock.pass(101);
  t.equal(slow.ready(), NEVER);
});

t.test('an answer that was slower than the one before it does not turn the order round', async (t) => {
  const rig = new Rig(10);
  rig.rate.want(1);
  rig.clock.pass(50);
  await rig.source.answers([10]);
  rig.rate.want(2);
  await rig.source.answers([5]);
  t.same([rig.ready(), rig.ready(1)], [10, 10]);
});

t.test('where nobody is to wait, a no holds until there will be one, and is not asked for again', async (t) => {
  const rig = new Rig(100, 2, 'reject');
  rig.rate.want(1);
  t.same(rig.source.asked, [[1, 'reject']]);
  await rig.source.answers([0]);
  t.equal(rig.ready(), 0);
  rig.take();
  rig.rate.want(3);
  await rig.source.answers([0], 80);
  t.equal(rig.ready(), 0, 'one there was');
  t.same([rig.ready(1), rig.ready(2)], [80, 180]);
  rig.take();
  rig.rate.want(1);
  rig.clock.pass(79);
  rig.rate.want(1);
  t.equal(rig.ready(), 1);
  t.equal(rig.source.asked.length, 2);
  rig.clock.pass(1);
  t.equal(rig.ready(), NEVER);
  rig.rate.want(1);
  t.equal(rig.source.asked.length, 3);
});

t.test('while nobody can be asked the local share is used at once', async (t) => {
  const rig = new Rig(100, 6);
  rig.source.up = false;
  rig.source.peers = 3;
  rig.rate.want(1);
  t.same([rig.ready(), rig.ready(1), rig.ready(2)], [-300, 0, 300], 'a burst of two, and a third of the rate');
  rig.take();
  rig.take();
  t.equal(rig.ready(), 300);
  t.equal(rig.rate.source, 'local');
  t.same(rig.source.taken, { redis: 0, local: 2 });
  t.same(rig.source.asked, []);
  rig.source.peers = 1;
  rig.rate.want(1);
  rig.rate.want(1);
  t.equal(rig.ready(), 100, 'another number of sidecars, another share');
  t.equal(rig.source.whenUp.size, 1);
  rig.source.goUp();
  t.equal(rig.changes, 1);
  t.equal(rig.ready(), NEVER, 'it can be asked');
  rig.rate.want(1);
  t.equal(rig.source.asked.length, 1);
  t.equal(rig.ready(), 100, 'meanwhile nobody who waits anyhow waits for the answer');
  await rig.source.answers([10]);
  t.equal(rig.ready(), 10);
  t.equal(rig.rate.source, 'redis');
});

t.test('where nobody is to wait, nobody is refused for a local share when there is somebody to ask', async (t) => {
  const rig = new Rig(100, 1, 'reject');
  rig.source.up = false;
  rig.rate.want(1);
  rig.take();
  t.equal(rig.ready(), 100);
  rig.source.goUp();
  rig.rate.want(1);
  t.equal(rig.ready(), NEVER);
  await rig.source.answers([0]);
  t.equal(rig.ready(), 0);
});

t.test('the local share has no burst that was just used up with the others', async (t) => {
  const rig = new Rig(100, 4);
  rig.source.peers = 2;
  rig.rate.want(1);
  await rig.source.answers([0]);
  rig.take();
  rig.clock.pass(50);
  rig.source.up = false;
  rig.rate.want(1);
  t.same([rig.ready(), rig.ready(1)], [150, 350], 'the first an interval of its share after the last that passed');
});

t.test('a question that nobody answers ends with the local share; what is booked stays good', async (t) => {
  const rig = new Rig(100, 1);
  rig.rate.want(2);
  await rig.source.answers([0, 500]);
  rig.take();
  rig.rate.want(2);
  rig.source.up = false;
  await rig.source.fails();
  t.equal(rig.changes, 2);
  t.equal(rig.ready(), 500);
  rig.clock.pass(500);
  rig.take();
  t.same(rig.source.taken, { redis: 2, local: 0 });
  t.equal(rig.ready(), 0, 'and then the share');
  t.equal(rig.source.whenUp.size, 1);
});

t.test('after an answer that is an error nobody is asked for a second', async (t) => {
  const rig = new Rig(100, 1);
  rig.rate.want(1);
  await rig.source.fails();
  t.equal(rig.ready(), 0);
  t.equal(rig.source.whenUp.size, 0);
  for (let i = 0; i < 10; i++) {
    rig.rate.want(1);
    t.ok(rig.ready() <= 0);
    rig.take();
    rig.clock.pass(100);
  }
  t.equal(rig.source.asked.length, 1);
  t.equal(rig.ready(), NEVER);
  rig.rate.want(1);
  t.equal(rig.source.asked.length, 2);
});

t.test('idle is what has nothing to lose, and nothing refers to it', async (t) => {
  const rig = new Rig(100, 3);
  const isIdle = () => rig.rate.isIdle(rig.clock.time);
  t.ok(isIdle());
  rig.rate.want(2);
  t.notOk(isIdle(), 'a question is under way');
  await rig.source.answers([0, 0]);
  t.notOk(isIdle(), 'booked');
  rig.take();
  rig.clock.pass(1001);
  t.ok(isIdle(), 'run out, and the burst is full again');
  rig.rate.want(1);
  await rig.source.answers([0]);
  rig.take();
  rig.clock.pass(299);
  t.notOk(isIdle());
  rig.clock.pass(1);
  t.ok(isIdle());
  rig.source.up = false;
  rig.rate.want(1);
  t.equal(rig.source.whenUp.size, 1);
  t.ok(isIdle());
  t.equal(rig.source.whenUp.size, 0);
  const rejecting = new Rig(100, 1, 'reject');
  rejecting.rate.want(1);
  await rejecting.source.answers([], 100);
  t.notOk(rejecting.rate.isIdle(rejecting.clock.time), 'a no is worth keeping');
  rejecting.clock.pass(100);
  t.ok(rejecting.rate.isIdle(rejecting.clock.time));
});

t.test('a token that ran out while it was being taken is taken all the same', async (t) => {
  const rig = new Rig();
  rig.rate.take(rig.clock.time);
  t.same(rig.source.taken, { redis: 0, local: 1 });
});

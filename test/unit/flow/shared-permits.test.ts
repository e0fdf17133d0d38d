// Permits leased of those that all sidecars share: what is stated when, what goes back to whom waits, and the local share.
import t from 'tap';
import { type LedgerAnswer, type LedgerMember, PERMIT_TIMES, type Statement } from '../../../src/flow/permit-ledger.ts';
import { SharedPermits } from '../../../src/flow/shared-permits.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const { pollMs, renewMs, ttlMs } = PERMIT_TIMES;
const turnOfLoop = () => new Promise(setImmediate);

class Ledger {
  up = true;
  peers = 1;
  member: LedgerMember | null = null;
  left = 0;
  /** What was stated, and not yet looked at: `<held>+<want>`, `!` = tell, `new` = nothing stated lately. */
  #said: string[] = [];
  #answer: (answer: LedgerAnswer) => void = () => {};
  #fail: (error: Error) => void = () => {};

  join(_name: string, member: LedgerMember): () => void {
    this.member = member;
    return () => {
      this.member = null;
    };
  }

  state(_name: string, { held, want, tell, isKnown }: Statement): Promise<LedgerAnswer> {
    this.#said.push(`${held}+${want}${tell ? '!' : ''}${isKnown ? '' : ' new'}`);
    return new Promise((resolve, reject) => {
      this.#answer = resolve;
      this.#fail = reject;
    });
  }

  async leave(): Promise<void> {
    this.left++;
  }

  async said(): Promise<string[]> {
    await turnOfLoop();
    return this.#said.splice(0);
  }

  async answers(granted: number, othersWait = false, claimants = othersWait ? 2 : 1): Promise<void> {
    this.#answer({ granted, othersWait, claimants });
    await turnOfLoop();
  }

  /** The answer to what is asked now, to be given when something else has been. */
  hold(): (granted: number) => Promise<void> {
    const answer = this.#answer;
    return async (granted) => {
      answer({ granted, othersWait: true, claimants: 3 });
      await turnOfLoop();
    };
  }

  async fails(): Promise<void> {
    this.#fail(new Error('away'));
    await turnOfLoop();
  }

  goDown(): void {
    this.up = false;
    this.member!.down();
  }

  goUp(): void {
    this.up = true;
    this.member!.up();
  }
}

/** Permits, and a limiter as far as they see it. */
class Rig {
  readonly clock = new FakeClock(1_000_000);
  readonly ledger = new Ledger();
  readonly permits: SharedPermits;
  inFlight = 0;
  queued = 0;
  pumps = 0;
  /** Something else that those who wait need is there. */
  canRun = true;

  constructor(max: number) {
    const every = (ms: number, run: () => void) => this.clock.every(ms, run);
    this.permits = new SharedPermits(this.ledger, 'l', max, this.clock.now, PERMIT_TIMES, every);
    this.permits.onChange = () => {
      this.pumps++;
      this.#pump();
    };
  }

  start(up = true): this {
    this.ledger.up = up;
    this.permits.start();
    return this;
  }

  arrive(count = 1): void {
    for (let i = 0; i < count; i++) {
      this.queued++;
      this.permits.changed(this.inFlight, this.queued);
      this.#pump();
    }
  }

  release(count = 1): void {
    for (let i = 0; i < count; i++) {
      this.inFlight--;
      this.permits.changed(this.inFlight, this.queued);
      this.#pump();
    }
  }

  /** Clients leave the queue. */
  leave(count = 1): void {
    this.queued -= count;
    this.permits.changed(this.inFlight, this.queued);
  }

  /** So many run, with leases. */
  async running(count: number): Promise<void> {
    this.arrive(count);
    await turnOfLoop();
    await this.ledger.answers(count);
    if (this.inFlight !== count) throw new Error('they do not run');
    await this.ledger.said();
  }

  /** Whatever happens with time. @returns what was stated */
  async pass(ms: number): Promise<string[]> {
    this.clock.pass(ms);
    return await this.ledger.said();
  }

  #pump(): void {
    while (this.canRun && this.queued > 0 && this.inFlight < this.permits.allowed) {
      this.queued--;
      this.permits.changed(this.inFlight, this.queued);
      this.inFlight++;
      this.permits.changed(this.inFlight, this.queued);
    }
  }
}

t.test('before anybody can be asked the local share is there', async (t) => {
  const rig = new Rig(20).start(false);
  t.equal(rig.permits.allowed, 20);
  rig.ledger.peers = 3;
  t.equal(rig.permits.allowed, 6);
  rig.ledger.peers = 50;
  t.equal(rig.permits.allowed, 1, 'never none');
  t.same(rig.permits.snapshot, { held: 0, waiting: 0, source: 'local' });
  t.same(await rig.pass(60_000), []);
});

t.test('who arrives gets a lease; those who arrive meanwhile get theirs together', async (t) => {
  const rig = new Rig(20).start();
  t.equal(rig.permits.allowed, 0);
  rig.arrive();
  t.same(await rig.ledger.said(), ['0+1 new']);
  rig.arrive(4);
  t.same(await rig.ledger.said(), [], 'one question at a time');
  t.same(rig.permits.snapshot, { held: 0, waiting: 5, source: 'redis' });
  await rig.ledger.answers(1);
  t.equal(rig.inFlight, 1);
  t.same(await rig.ledger.said(), ['1+4']);
  await rig.ledger.answers(4);
  t.equal(rig.inFlight, 5);
  t.equal(rig.permits.allowed, 5);
  t.same(await rig.ledger.said(), []);
  rig.arrive(30);
  t.same(await rig.ledger.said(), ['5+15'], 'never more than there are');
});

t.test('while nobody else waits leases are used again without a question', async (t) => {
  const rig = new Rig(20).start();
  await rig.running(3);
  for (let i = 0; i < 10; i++) {
    rig.release();
    rig.arrive();
    rig.arrive();
    t.equal(rig.inFlight, 3);
    rig.release();
    t.equal(rig.queued, 0);
    t.equal(rig.inFlight, 3);
    // The second of them has asked for a lease of its own, and has none to ask for any more.
    await turnOfLoop();
  }
  t.same(await rig.ledger.said(), []);
});

t.test('leases nobody uses go back after a second, those in use stay and are renewed', async (t) => {
  const rig = new Rig(20).start();
  await rig.running(4);
  rig.release(3);
  rig.arrive();
  t.same(await rig.pass(2 * pollMs), []);
  t.same(await rig.pass(pollMs), ['2+0'], 'the two that were not used all the time');
  await rig.ledger.answers(0);
  t.equal(rig.permits.allowed, 2);
  t.same(await rig.pass(renewMs - 1), []);
  t.same(await rig.pass(1), ['2+0']);
  await rig.ledger.answers(0);
  rig.release(2);
  t.same(await rig.pass(3 * pollMs), ['0+0']);
  await rig.ledger.answers(0);
  t.same(await rig.pass(60_000), [], 'with nothing there is nothing to say');
});

t.test('one who waits asks again, in case a message was lost, until he leaves', async (t) => {
  const rig = new Rig(20).start();
  rig.arrive();
  t.same(await rig.ledger.said(), ['0+1 new']);
  await rig.ledger.answers(0);
  rig.arrive();
  t.same(await rig.ledger.said(), [], 'it is known that this one waits');
  for (let i = 0; i < 3; i++) {
    t.same(await rig.pass(pollMs), ['0+2!']);
    await rig.ledger.answers(0);
  }
  rig.ledger.member!.free();
  t.same(await rig.ledger.said(), ['0+2']);
  await rig.ledger.answers(1);
  t.equal(rig.inFlight, 1);
  rig.arrive();
  t.same(await rig.ledger.said(), []);
  rig.leave(2);
  t.same(await rig.ledger.said(), ['1+0'], 'or others would wait behind nobody');
  await rig.ledger.answers(0);
  rig.ledger.member!.free();
  t.same(await rig.ledger.said(), []);
});

t.test(
  'what others wait for goes back when it comes free, before it is used again; the fair share stays',
  async (t) => {
    const rig = new Rig(6).start();
    await rig.running(6);
    rig.arrive(10);
    rig.ledger.member!.wanted(2);
    t.same(await rig.ledger.said(), [], 'all there are, in use: there is nothing to say');
    rig.release();
    t.equal(rig.inFlight, 5);
    t.same(await rig.ledger.said(), ['5+1']);
    rig.release();
    t.equal(rig.inFlight, 4);
    await rig.ledger.answers(0, true, 2);
    t.same(await rig.ledger.said(), ['4+2']);
    await rig.ledger.answers(0, true, 2);
    rig.release();
    t.equal(rig.inFlight, 3);
    t.same(await rig.ledger.said(), ['3+3']);
    await rig.ledger.answers(0, true, 2);
    for (let i = 0; i < 5; i++) rig.release();
    t.equal(rig.inFlight, 3);
    t.equal(rig.queued, 5);
    t.same(await rig.ledger.said(), [], 'the share is used again without a question');
    rig.ledger.member!.wanted(6);
    rig.release();
    t.equal(rig.inFlight, 2, 'of six a share of one');
  },
);

t.test('without a queue all that is unused goes back as soon as others wait', async (t) => {
  const rig = new Rig(6).start();
  await rig.running(4);
  rig.release(3);
  rig.ledger.member!.wanted(2);
  t.equal(rig.permits.allowed, 1);
  t.same(await rig.ledger.said(), ['1+0']);
  await rig.ledger.answers(0, true);
  rig.release();
  t.same(await rig.ledger.said(), ['0+0']);
  await rig.ledger.answers(0, false);
  t.equal(rig.permits.allowed, 0);
});

t.test('one permit for two: what was granted is used once, and goes back', async (t) => {
  const rig = new Rig(1).start();
  rig.arrive(3);
  await turnOfLoop();
  await rig.ledger.answers(1, true);
  t.equal(rig.inFlight, 1);
  t.same(await rig.ledger.said(), ['0+1 new']);
  rig.release();
  t.equal(rig.inFlight, 0, 'the others have their turn');
  t.same(await rig.ledger.said(), ['0+1']);
  await rig.ledger.answers(0, true);
  rig.ledger.member!.free();
  await rig.ledger.answers(1, true);
  t.equal(rig.inFlight, 1);
});

t.test('what cannot be used when it is granted goes back if others wait, else after a while', async (t) => {
  const rig = new Rig(4).start();
  rig.canRun = false;
  rig.arrive(4);
  await turnOfLoop();
  await rig.ledger.answers(1, true);
  t.equal(rig.permits.allowed, 1, 'within the share it may stay a moment');
  t.same(await rig.ledger.said(), ['0+4 new']);
  rig.ledger.member!.free();
  t.same(await rig.ledger.said(), ['1+3']);
  await rig.ledger.answers(3, true);
  t.same(await rig.ledger.said(), ['2+2'], 'what is above it may not');
  await rig.ledger.answers(0, true);
  for (let i = 0; i < 2; i++) {
    t.same(await rig.pass(pollMs), ['2+2!']);
    await rig.ledger.answers(0, true);
  }
  t.same(await rig.pass(pollMs), ['0+4'], 'the others can make more of it');
});

t.test('what cannot be used stays for those who wait here while nobody else does', async (t) => {
  const rig = new Rig(4).start();
  rig.canRun = false;
  rig.arrive(2);
  t.same(await rig.ledger.said(), ['0+2 new']);
  await rig.ledger.answers(2);
  t.same(await rig.pass(renewMs - 1), []);
  t.equal(rig.permits.allowed, 2);
  rig.leave(2);
  t.same(await rig.pass(1), ['0+0']);
});

t.test('what runs when the ledger is back is stated as held, even if it is too much', async (t) => {
  const rig = new Rig(4).start(false);
  rig.ledger.peers = 2;
  rig.arrive(5);
  t.equal(rig.inFlight, 2);
  rig.ledger.goUp();
  t.same(await rig.ledger.said(), ['2+2 new']);
  t.equal(rig.permits.allowed, 2);
  rig.release();
  t.equal(rig.inFlight, 1, 'it may not count');
  await rig.ledger.answers(0);
  t.equal(rig.inFlight, 2);
  rig.ledger.goDown();
  rig.ledger.peers = 1;
  rig.ledger.goUp();
  await rig.ledger.said();
  rig.ledger.goDown();
  t.equal(rig.permits.allowed, 4);
  t.equal(rig.inFlight, 4, 'and who waits is let in by the share at once');
});

t.test('when the ledger is away what runs stays, and who waits is let in below the share', async (t) => {
  const rig = new Rig(6).start();
  await rig.running(5);
  rig.ledger.peers = 2;
  rig.arrive(2);
  t.same(await rig.ledger.said(), ['5+1']);
  const answerLate = rig.ledger.hold();
  rig.ledger.goDown();
  t.equal(rig.permits.allowed, 3);
  t.equal(rig.inFlight, 5);
  rig.ledger.goUp();
  t.same(await rig.ledger.said(), ['5+0 new']);
  await answerLate(1);
  t.equal(rig.permits.snapshot.held, 5, 'an answer to what was asked before is not heard');
  await rig.ledger.answers(0);
  rig.ledger.goDown();
  rig.release(3);
  t.equal(rig.inFlight, 3);
  t.equal(rig.queued, 1);
  t.equal(rig.permits.snapshot.source, 'local');
  rig.ledger.peers = 1;
  const other = new Rig(6).start();
  other.arrive(2);
  t.equal(other.inFlight, 0);
  other.ledger.goDown();
  t.equal(other.inFlight, 2, 'at once');
});

t.test('after an outage nobody takes more than his share until all can be back', async (t) => {
  const rig = new Rig(6).start();
  rig.ledger.peers = 3;
  rig.ledger.goDown();
  rig.arrive(5);
  t.equal(rig.inFlight, 2);
  rig.ledger.goUp();
  t.same(await rig.ledger.said(), ['2+0 new']);
  await rig.ledger.answers(0);
  t.match(rig.permits.snapshot, { held: 2, waiting: 3, source: 'redis' });
  rig.release(2);
  t.equal(rig.inFlight, 2);
  t.same(await rig.pass(renewMs), ['2+0']);
  await rig.ledger.answers(0);
  t.same(await rig.pass(renewMs), ['2+0']);
  await rig.ledger.answers(0);
  t.same(await rig.pass(ttlMs - 2 * renewMs), ['2+0']);
  await rig.ledger.answers(0);
  t.same(await rig.ledger.said(), ['2+1']);
});

t.test('an answer that is an error leads to the local share, and is tried again a second later', async (t) => {
  const rig = new Rig(2).start();
  rig.arrive();
  t.same(await rig.ledger.said(), ['0+1 new']);
  await rig.ledger.fails();
  t.equal(rig.inFlight, 1);
  t.equal(rig.permits.snapshot.source, 'local');
  t.same(await rig.pass(500), []);
  t.same(await rig.pass(500), ['1+0 new']);
  await rig.ledger.answers(0);
  t.equal(rig.permits.snapshot.source, 'redis');
});

t.test('who was stopped for long does not use leases that others may have', async (t) => {
  const rig = new Rig(6).start();
  await rig.running(4);
  rig.release(2);
  t.equal(rig.permits.allowed, 4);
  rig.clock.time += ttlMs;
  t.equal(rig.permits.allowed, 2, 'only what runs anyhow');
  rig.arrive();
  t.equal(rig.inFlight, 2);
  rig.clock.pass(pollMs);
  t.same(await rig.ledger.said(), ['2+1 new']);
  await rig.ledger.answers(1);
  t.equal(rig.inFlight, 3);
});

t.test('what was lost is stated anew at once', async (t) => {
  const rig = new Rig(6).start();
  await rig.running(2);
  rig.ledger.member!.lost();
  rig.ledger.member!.lost();
  t.same(await rig.ledger.said(), ['2+0']);
  await rig.ledger.answers(0);
  t.same(await rig.ledger.said(), ['2+0'], 'it may have been lost after the first was written');
});

t.test('stop gives all back, and nothing is said or done after it', async (t) => {
  const rig = new Rig(6).start();
  await rig.running(2);
  rig.arrive();
  await rig.ledger.said();
  const { pumps } = rig;
  await rig.permits.stop();
  t.equal(rig.ledger.left, 1);
  t.equal(rig.ledger.member, null);
  await rig.ledger.answers(1);
  rig.release(2);
  t.same(await rig.pass(60_000), []);
  t.equal(rig.pumps, pumps);
  const local = new Rig(6).start(false);
  await local.permits.stop();
  t.equal(local.ledger.left, 0, 'who has leased nothing gives nothing back');
});

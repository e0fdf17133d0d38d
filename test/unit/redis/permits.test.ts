// Permits leased over a real Redis: never more than there are, in turn, and given back by who was killed.
import type { Test } from 'tap';
import { PERMIT_TIMES, type PermitTimes } from '../../../src/flow/permit-ledger.ts';
import { SharedPermits } from '../../../src/flow/shared-permits.ts';
import type { RedisHub } from '../../../src/redis/hub.ts';
import { RedisPermits } from '../../../src/redis/permits.ts';
import { type Hubs, now, up, withHubs } from '../../support/hubs.ts';
import { until, whileNothing, within } from '../../support/until.ts';

const TIMEOUT_MS = 150;
const MARGIN_MS = 350;
const FAST: PermitTimes = { ttlMs: 600, renewMs: 150, pollMs: 50 };
const BEATS = { beatMs: 50, deadMs: 5000 };

/** What all members use together. */
class Use {
  now = 0;
  most = 0;
}

/** One sidecar's limiter, as far as permits see it. */
class Member {
  readonly hub: RedisHub;
  readonly permits: SharedPermits;
  readonly #use: Use;
  inFlight = 0;
  queued = 0;
  done = 0;
  /** Called for each that runs; may release it at any time. */
  onRun: () => void = () => {};

  constructor(hub: RedisHub, max: number, use: Use, times: PermitTimes = FAST) {
    this.hub = hub;
    this.#use = use;
    this.permits = new SharedPermits(new RedisPermits(hub), 'l', max, now, times);
    this.permits.onChange = () => this.#pump();
    this.permits.start();
  }

  arrive(count = 1): void {
    for (let i = 0; i < count; i++) {
      this.queued++;
      this.permits.changed(this.inFlight, this.queued);
      this.#pump();
    }
  }

  release(): void {
    this.inFlight--;
    this.#use.now--;
    this.done++;
    this.permits.changed(this.inFlight, this.queued);
    this.#pump();
  }

  /** What runs does so for a time up to this, and somebody always waits. */
  load(longestMs: number, waiting: number): () => void {
    let isOver = false;
    this.onRun = () => {
      setTimeout(() => {
        this.release();
        if (!isOver) this.arrive();
      }, Math.random() * longestMs);
    };
    this.arrive(waiting);
    return () => {
      isOver = true;
      this.queued = 0;
      this.permits.changed(this.inFlight, 0);
    };
  }

  #pump(): void {
    while (this.queued > 0 && this.inFlight < this.permits.allowed) {
      this.queued--;
      this.inFlight++;
      this.#use.most = Math.max(this.#use.most, ++this.#use.now);
      this.permits.changed(this.inFlight, this.queued);
      this.onRun();
    }
  }
}

interface Scene extends Hubs {
  readonly use: Use;
  member(times?: PermitTimes, timeoutMs?: number): Promise<Member>;
}

function withMembers(name: string, max: number, run: (t: Test, scene: Scene) => Promise<void>): void {
  withHubs(name, async (t, hubs) => {
    const use = new Use();
    const member = async (times?: PermitTimes, timeoutMs = 5000) => {
      const hub = await hubs.open({ timeoutMs }, BEATS);
      const made = new Member(hub, max, use, times);
      hubs.ends(() => made.permits.stop());
      return made;
    };
    await run(t, { ...hubs, use, member });
  });
}

/** A member that says nothing any more, as if it had been killed. */
async function kill({ hub, permits }: Member): Promise<void> {
  // Without a connection nothing can be given back.
  await hub.stop();
  await permits.stop();
}

withMembers('all there are can be had by one, and no more', 5, async (t, { member }) => {
  const times = { ...PERMIT_TIMES, pollMs: 60_000 };
  const [a, b] = [await member(times), await member(times)];
  a.arrive(8);
  await until('they run', () => a.inFlight === 5);
  b.arrive();
  await whileNothing(150);
  t.match([a.inFlight, a.queued, b.inFlight], [5, 3, 0]);
  t.match(a.permits.snapshot, { held: 5, waiting: 0, source: 'redis' });
  t.match(b.permits.snapshot, { held: 0, waiting: 1, source: 'redis' });
  a.release();
  await until('the other is told', () => b.inFlight === 1);
  t.equal(a.inFlight, 4);
});

withMembers('a message that got lost is made up for', 1, async (t, { member, redis }) => {
  const times = { ...FAST, renewMs: 60_000, ttlMs: 120_000 };
  const [a, b] = [await member(times), await member({ ...times, pollMs: 300 })];
  a.arrive();
  await until('it runs', () => a.inFlight === 1);
  // Nobody hears anything for a moment.
  await redis.ask('CLIENT KILL TYPE pubsub');
  b.arrive();
  a.release();
  await until('the other gets it', () => b.inFlight === 1, 2000);
  t.equal(a.inFlight, 0);
});

withMembers('while nobody else waits leases are used again without asking', 10, async (t, { member }) => {
  const a = await member({ ...FAST, pollMs: 60_000, renewMs: 60_000, ttlMs: 120_000 });
  a.arrive(5);
  await until('they run', () => a.inFlight === 5);
  const { asked } = a.hub.counters;
  for (let i = 0; i < 1000; i++) {
    a.arrive();
    a.release();
  }
  await whileNothing(20);
  t.equal(a.done, 1000);
  t.ok(a.hub.counters.asked - asked < 3 + 2, 'but for who saw none free when he came');
});

withMembers('under random load never more are in use than there are', 7, async (t, { use, member, redis }) => {
  const members: Member[] = [];
  for (let i = 0; i < 3; i++) members.push(await member());
  const ends = members.map((it, i) => it.load([3, 10, 40][i]!, [20, 6, 3][i]!));
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 30; i++) {
    await whileNothing(50);
    if (i === 15) await redis.ask('SCRIPT FLUSH');
    if (i > 1) least = Math.min(least, use.now);
    // Somebody's queue is empty at times.
    const any = members[i % 3]!;
    if (i % 5 === 0) any.queued = 0;
    else any.arrive(3);
    any.permits.changed(any.inFlight, any.queued);
  }
  t.equal(use.most, 7);
  t.ok(
    members.every(({ done }) => done > 30),
    `done: ${members.map(({ done }) => done)}`,
  );
  t.ok(members.every(({ hub }) => hub.counters.errors === 0));
  for (const end of ends) end();
  await until('all is over', () => use.now === 0);
  t.same(await redis.ask("EVAL \"return #redis.call('HKEYS', 'test:p:l')\" 0"), ':3\r\n');
  for (const { permits } of members) await until('given back', () => permits.snapshot.held === 0);
});

withMembers(
  'whoever wants more than there are gets a fair part, however long another’s queue is',
  6,
  async (t, scene) => {
    const { use, member } = scene;
    const [a, b] = [await member(), await member()];
    const ends = [a.load(20, 500)];
    await until('one has all', () => a.inFlight === 6);
    await whileNothing(100);
    ends.push(b.load(20, 20));
    await until('the other has its part', () => b.inFlight >= 3);
    const before = [a.done, b.done];
    await whileNothing(1000);
    const [doneA, doneB] = [a.done - before[0]!, b.done - before[1]!];
    t.ok(Math.abs(doneA - doneB) / (doneA + doneB) < 0.15, `${doneA} and ${doneB}`);
    t.equal(use.most, 6);
    for (const end of ends) end();
    await until('all is over', () => use.now === 0);
  },
);

withMembers('one permit goes round', 1, async (t, { use, member }) => {
  const members = [await member(), await member(), await member()];
  const [first, ...others] = members as [Member, Member, Member];
  first.arrive();
  await until('it runs', () => first.inFlight === 1);
  const order: number[] = [];
  for (const [i, it] of members.entries()) {
    it.onRun = () => {
      order.push(i);
      setTimeout(() => it.release(), 2);
    };
    it.arrive(10);
  }
  await until('all wait', () => others.every(({ hub }) => hub.counters.asked >= 2));
  await whileNothing(30);
  first.release();
  await until('all have run', () => order.length === 30);
  t.equal(use.most, 1);
  for (let i = 0; i + 3 <= 30; i += 3) t.equal(new Set(order.slice(i, i + 3)).size, 3, `${order.slice(i, i + 3)}`);
});

withMembers('what a killed one had comes back when it has said nothing for long', 4, async (t, { member }) => {
  const [a, b] = [await member(), await member()];
  a.arrive(4);
  await until('they run', () => a.inFlight === 4);
  b.arrive(2);
  await whileNothing(FAST.ttlMs * 1.5);
  t.equal(b.inFlight, 0, 'who lives keeps them');
  const killedAt = now();
  await kill(a);
  await until('they are back', () => b.inFlight === 2);
  const took = now() - killedAt;
  t.ok(took > FAST.ttlMs - FAST.renewMs - 100 && took < FAST.ttlMs + MARGIN_MS, `after ${took} ms`);
});

withMembers('one who was killed while he waited is soon in nobody’s way', 2, async (t, { member }) => {
  const [a, b, c] = [await member(), await member(), await member()];
  a.arrive(2);
  await until('they run', () => a.inFlight === 2);
  b.arrive(2);
  await until('it waits', () => b.permits.snapshot.waiting === 2 && b.hub.counters.asked > 1);
  await whileNothing(30);
  await kill(b);
  c.arrive(2);
  await whileNothing(30);
  a.release();
  a.release();
  await until('both go past him', () => c.inFlight === 2, FAST.pollMs * 3 + MARGIN_MS);
  t.pass('before his leases would be over');
});

withMembers('who stops gives all back at once', 3, async (t, { member, redis }) => {
  const times = { ...PERMIT_TIMES, pollMs: 60_000 };
  const [a, b] = [await member(times), await member(times)];
  a.arrive(3);
  await until('they run', () => a.inFlight === 3);
  b.arrive(3);
  await whileNothing(30);
  await within('stopped', a.permits.stop(), 500);
  await until('the other is told', () => b.inFlight === 3);
  await b.permits.stop();
  t.equal(await redis.ask('EXISTS test:p:l'), ':0\r\n', 'nothing is left');
});

withMembers(
  'a frozen Redis costs one timeout, then there is the local share; what runs is stated when it is back',
  4,
  async (t, scene) => {
    const { redis, member } = scene;
    const [a, b] = [await member(FAST, TIMEOUT_MS), await member(FAST, TIMEOUT_MS)];
    await until('they know of each other', () => a.hub.peers === 2 && b.hub.peers === 2);
    a.arrive(4);
    await until('they run', () => a.inFlight === 4);
    redis.freeze();
    const frozenAt = now();
    b.arrive(3);
    await until('it has its share', () => b.inFlight === 2);
    t.ok(now() - frozenAt < TIMEOUT_MS + MARGIN_MS, `after ${now() - frozenAt} ms`);
    await until('both know', () => a.permits.snapshot.source === 'local');
    a.arrive(1);
    t.equal(a.inFlight, 4, 'what runs stays');
    a.release();
    a.release();
    t.equal(a.inFlight, 2);
    a.release();
    t.equal(a.inFlight, 2, 'and below the share they are let in');
    await whileNothing(200);
    t.ok(a.hub.counters.timeouts === 1 && b.hub.counters.timeouts === 1, 'one each');
    redis.thaw();
    await up(a.hub);
    await up(b.hub);
    await until('all is stated', () => a.permits.allowed === 2 && b.permits.allowed === 2);
    t.match(b.permits.snapshot, { source: 'redis', held: 2, waiting: 1 });
    await whileNothing(2 * FAST.pollMs);
    t.equal(b.inFlight, 2, 'and more than its share it does not take for a while');
    a.release();
    await whileNothing(2 * FAST.pollMs);
    t.equal(b.inFlight, 2);
    await until('then it does', () => b.inFlight === 3);
  },
);

withMembers('too many in use after an outage shrink before anybody gets one', 2, async (t, { redis, member, use }) => {
  const [a, b] = [await member(FAST, TIMEOUT_MS), await member(FAST, TIMEOUT_MS)];
  await until('they know of each other', () => a.hub.peers === 2 && b.hub.peers === 2);
  a.arrive(2);
  await until('they run', () => a.inFlight === 2);
  redis.freeze();
  b.arrive(2);
  await until('it has its share', () => b.inFlight === 1);
  redis.thaw();
  await until('both are back', () => [a, b].every(({ permits }) => permits.snapshot.source === 'redis'), 10_000);
  t.equal(use.now, 3);
  a.release();
  await whileNothing(3 * FAST.pollMs);
  t.equal(use.now, 2);
  t.equal(b.inFlight, 1);
  a.release();
  await until('now there is one', () => b.inFlight === 2);
});

withMembers('a Redis that lost everything is told again', 4, async (t, { redis, member, use }) => {
  const [a, b] = [await member(), await member()];
  a.arrive(3);
  await until('they run', () => a.inFlight === 3);
  await redis.ask('FLUSHALL');
  await whileNothing(FAST.renewMs + 2 * FAST.pollMs);
  b.arrive(3);
  await until('one was left', () => b.inFlight === 1);
  await whileNothing(3 * FAST.pollMs);
  t.equal(use.most, 4);
  await redis.ask('FLUSHALL');
  a.arrive();
  b.arrive();
  await whileNothing(FAST.renewMs * 2);
  t.equal(use.most, 4, 'who asks next finds out, and tells the others');
});

withMembers('a limiter Redis has no room for uses the local share', 3, async (t, { redis, member }) => {
  await redis.ask('SET test:p:l text');
  const a = await member();
  a.arrive(5);
  await until('they run', () => a.inFlight === 3);
  t.equal(a.permits.snapshot.source, 'local');
  t.equal(a.hub.state, 'up');
  await redis.ask('DEL test:p:l');
  await until('tried again', () => a.permits.snapshot.source === 'redis', 3000);
  t.equal(a.permits.snapshot.held, 3);
});

withHubs('who has less than his fair share comes first, then who waits longest', async (t, { open }) => {
  const [a, b, c] = [new RedisPermits(await open()), new RedisPermits(await open()), new RedisPermits(await open())];
  const state = async (permits: RedisPermits, held: number, want: number) => {
    const terms = { max: 4, tell: false, isKnown: false, ttlMs: 5000, patienceMs: 5000 };
    return await permits.state('l', { ...terms, held, want });
  };
  t.match(await state(a, 0, 3), { granted: 3 });
  t.match(await state(b, 0, 1), { granted: 1 });
  t.match(await state(a, 3, 1), { granted: 0, othersWait: false, claimants: 2 });
  t.match(await state(b, 1, 1), { granted: 0, othersWait: true });
  t.match(await state(c, 0, 2), { granted: 0, othersWait: true, claimants: 3 });
  t.match(await state(a, 2, 2), { granted: 0 }, 'who waits longest has more than his share');
  t.match(await state(c, 0, 2), { granted: 1 }, 'who has none has his turn, up to his share');
  t.match(await state(a, 1, 3), { granted: 1 }, 'among equals who waits longest');
  t.match(await state(a, 1, 3), { granted: 0 }, 'and then he is last');
  t.match(await state(b, 1, 1), { granted: 1 });
  for (const permits of [a, b, c]) await state(permits, 0, 0);
  t.match(await state(c, 0, 4), { granted: 4 }, 'all, while nobody else wants any');
  for (const permits of [a, b]) t.match(await state(permits, 0, 4), { granted: 0 });
  t.match(await state(c, 0, 0), { othersWait: true, claimants: 2 });
  t.match(await state(a, 0, 4), { granted: 2 }, 'for another waits');
  t.match(await state(b, 0, 4), { granted: 2 });
});

withHubs('what was stated before something newer, and comes after it, does not count', async (t, { open, redis }) => {
  const hub = await open();
  const permits = new RedisPermits(hub);
  const terms = { max: 4, tell: false, isKnown: false, ttlMs: 5000, patienceMs: 500 };
  t.same(await permits.state('l', { ...terms, held: 0, want: 3 }), { granted: 3, othersWait: false, claimants: 1 });
  const [field] = (await hub.ask((it) => it.hvals('test:p:l'))) as string[];
  t.match(field, /^3 1 \d+ 0 \d+$/);
  await hub.ask((it) => it.hset('test:p:l', hub.self, field!.replace(/^3 1 /, '3 9 ')));
  t.same(await permits.state('l', { ...terms, held: 0, want: 0 }), { granted: 0, othersWait: false, claimants: 1 });
  t.match(await redis.ask('HVALS test:p:l'), /\r\n3 9 /);
});

withHubs('leases from before the clock was set back do not stay for long', async (t, { open, redis }) => {
  const permits = new RedisPermits(await open());
  const later = (Date.now() + 3_600_000) * 1000;
  await redis.ask(`HSET test:p:l killed "2 1 ${later} 0 ${later}" rubbish "x y"`);
  const terms = { max: 3, held: 0, want: 3, tell: false, isKnown: false, ttlMs: 100, patienceMs: 50 };
  t.match(await permits.state('l', terms), { granted: 1, claimants: 2 });
  for (let i = 0; i < 2; i++) {
    // What is stated keeps the rest.
    await whileNothing(60);
    const granted = i === 0 ? 0 : 2;
    t.match(await permits.state('l', { ...terms, held: 1, want: 2 }), { granted, claimants: 2 - i });
  }
  t.equal(await redis.ask('HLEN test:p:l'), ':1\r\n');
});

// Turnstiles, lanes, permits and slots together, in any life: bounds hold, order is kept, nobody who could run waits.

import fc from 'fast-check';
import t from 'tap';
import { Limiter } from '../../../src/flow/limiter.ts';
import { Line } from '../../../src/flow/line.ts';
import { Slots } from '../../../src/flow/slots.ts';
import { type Pace, Turnstile } from '../../../src/flow/turnstile.ts';
import { Waiter } from '../../../src/flow/waiters.ts';
import { FakeClock, fakeWheel } from '../../support/fake-clock.ts';

const NEVER = Number.POSITIVE_INFINITY;

type Temper = 'runs' | 'fails' | 'makesAnotherLeave' | 'makesAnotherFinish' | 'comesAgain' | 'deniesAll' | 'shuts';

type Op =
  | { readonly kind: 'arrive'; readonly lane: number; readonly gates: readonly number[]; readonly temper: Temper }
  | { readonly kind: 'finish' | 'again' | 'leave'; readonly pick: number }
  | { readonly kind: 'tokens'; readonly gate: number; readonly count: number }
  | { readonly kind: 'permits'; readonly count: number }
  | { readonly kind: 'denyAll' };

/** So many tokens; the test puts some in. */
class Purse implements Pace {
  tokens = 1;

  readyAt(now: number): number {
    return this.tokens > 0 ? now : NEVER;
  }

  take(): void {
    if (--this.tokens < 0) throw new Error('a token was taken that is not there');
  }
}

interface Member {
  readonly age: number;
  readonly temper: Temper;
  readonly gates: readonly number[];
  readonly waiter: Waiter;
}

class World {
  readonly #purses = [new Purse(), new Purse(), new Purse()];
  readonly #turnstiles: readonly Turnstile[];
  readonly #counts = { held: 0, heldEver: 0, refused: 0 };
  readonly #limiter: Limiter;
  readonly #line: Line;
  readonly #slots: Slots;
  readonly #waiting = new Map<Waiter, Member>();
  readonly #running: Member[] = [];
  #age = 0;

  constructor(permits: number, connections: number, maxQueue: number, lanes: number) {
    const clock = new FakeClock();
    const { wheel } = fakeWheel(clock);
    this.#turnstiles = this.#purses.map((purse) => new Turnstile(purse, false, wheel, clock.now, this.#counts, null));
    const shares = Array.from({ length: lanes }, (_, i) => ({ name: `${i}`, share: 1 + 3 * i }));
    this.#limiter = new Limiter('ai', permits, maxQueue, NEVER, shares);
    this.#slots = new Slots(connections, 2);
    this.#line = new Line(this.#limiter, this.#slots.regular);
  }

  #couldRun({ gates }: Member): boolean {
    return (
      this.#limiter.hasPermit && this.#slots.regular.hasSlot && gates.every((gate) => this.#purses[gate]!.tokens > 0)
    );
  }

  arrive(lane: number, gates: readonly number[], temper: Temper, comesBack = false): void {
    const member: Member = {
      age: ++this.#age,
      temper: comesBack ? 'runs' : temper,
      gates,
      waiter: new Waiter(
        { granted: () => this.#granted(member), denied: () => this.#denied(member) },
        lane % this.#limiter.lanes.length,
        gates.map((gate) => this.#turnstiles[gate]!),
      ),
    };
    const { waiter } = member;
    if (comesBack) {
      this.#waiting.set(waiter, member);
      this.#line.rejoin(waiter);
      return;
    }
    if (this.#line.tryEnter(waiter.turnstiles)) {
      this.#running.push(member);
      return;
    }
    this.#waiting.set(waiter, member);
    if (this.#line.enqueue(waiter)) return;
    this.#waiting.delete(waiter);
    if (this.#waiting.size < this.#limiter.maxQueue) throw new Error('refused, and the queue is not full');
  }

  #granted(member: Member): void {
    if (!this.#waiting.delete(member.waiter)) throw new Error('granted, and does not wait');
    for (const other of this.#waiting.values()) {
      const isBefore = other.waiter.lane === member.waiter.lane && other.waiter.sequence < member.waiter.sequence;
      // What the one granted has taken is given back for this question: could the older one have had it?
      if (isBefore && this.#couldHaveRun(other, member)) throw new Error(`${member.age} passed the older ${other.age}`);
    }
    this.#running.push(member);
    switch (member.temper) {
      case 'fails':
        this.#giveBack(member);
        break;
      case 'comesAgain':
        this.#giveBack(member);
        this.arrive(member.waiter.lane, member.gates, 'runs', true);
        break;
      case 'makesAnotherLeave':
        this.leave(member.age);
        break;
      case 'makesAnotherFinish':
        this.finish(member.age);
        break;
      case 'deniesAll':
        this.#line.denyAll();
        break;
      case 'shuts':
        this.#purses[member.age % 3]!.tokens = 0;
        break;
    }
  }

  #couldHaveRun(older: Member, granted: Member): boolean {
    return older.gates.every((gate) => this.#purses[gate]!.tokens + (granted.gates.includes(gate) ? 1 : 0) > 0);
  }

  #denied(member: Member): void {
    if (!this.#waiting.delete(member.waiter)) throw new Error('denied, and does not wait');
    if (member.temper === 'makesAnotherLeave') this.leave(member.age);
    if (member.temper === 'makesAnotherFinish') this.finish(member.age);
  }

  #giveBack(member: Member): void {
    this.#running.splice(this.#running.indexOf(member), 1);
    this.#line.slots.give();
    this.#limiter.release();
  }

  finish(pick: number): void {
    const member = this.#running[pick % Math.max(1, this.#running.length)];
    if (member) this.#giveBack(member);
  }

  again(pick: number): void {
    const member = this.#running[pick % Math.max(1, this.#running.length)];
    if (!member) return;
    this.#giveBack(member);
    this.arrive(member.waiter.lane, member.gates, 'runs', true);
  }

  leave(pick: number): void {
    const all = [...this.#waiting.values()];
    const member = all[pick % Math.max(1, all.length)];
    if (!member) return;
    this.#waiting.delete(member.waiter);
    this.#line.leave(member.waiter);
  }

  tokens(gate: number, count: number): void {
    this.#purses[gate]!.tokens = count;
    this.#turnstiles[gate]!.wake();
  }

  run(op: Op): void {
    if (op.kind === 'arrive') this.arrive(op.lane, op.gates, op.temper);
    else if (op.kind === 'tokens') this.tokens(op.gate, op.count);
    else if (op.kind === 'permits') this.#limiter.maxConcurrent = op.count;
    else if (op.kind === 'denyAll') this.#denyAll();
    else this[op.kind](op.pick);
    this.check();
  }

  #denyAll(): void {
    this.#line.denyAll();
    if (this.#waiting.size > 0) throw new Error(`${this.#waiting.size} were not denied`);
  }

  check(): void {
    const { inFlight, queued, lanes } = this.#limiter;
    if (inFlight !== this.#running.length) throw new Error(`${inFlight} in flight, ${this.#running.length} run`);
    if (queued !== this.#waiting.size) throw new Error(`${queued} queued, ${this.#waiting.size} wait`);
    if (lanes.reduce((sum, lane) => sum + lane.queued, 0) !== queued) throw new Error('the lanes disagree');
    if (this.#slots.taken !== inFlight) throw new Error(`${this.#slots.taken} slots, ${inFlight} in flight`);
    const held = this.#turnstiles.reduce((sum, turnstile) => sum + turnstile.held, 0);
    if (held + this.#line.ready !== queued)
      throw new Error(`${held} held, ${this.#line.ready} ready, ${queued} queued`);
    if (this.#counts.held > held || this.#counts.held < 0)
      throw new Error(`${this.#counts.held} counted, ${held} held`);
    for (const member of this.#waiting.values()) {
      if (this.#couldRun(member)) throw new Error(`${member.age} could run, and waits`);
    }
  }

  /** All that is missing comes, until nobody is left. */
  end(): void {
    this.#limiter.maxConcurrent = 3;
    for (let rounds = 0; this.#waiting.size + this.#running.length > 0; rounds++) {
      if (rounds > 1000) throw new Error('somebody waits for ever');
      for (const gate of [0, 1, 2]) this.tokens(gate, 1);
      this.check();
      this.finish(rounds);
      this.check();
    }
    if (this.#counts.held !== 0) throw new Error(`${this.#counts.held} held at the end`);
    if (this.#turnstiles.some(({ waiting }) => waiting > 0)) throw new Error('a claim is left');
  }
}

const pick = fc.nat({ max: 1000 });
const gate = fc.nat({ max: 2 });
const gates = fc.uniqueArray(gate, { maxLength: 3 });
const temper = fc.oneof(
  { weight: 8, arbitrary: fc.constant<Temper>('runs') },
  {
    weight: 4,
    arbitrary: fc.constantFrom<Temper>('fails', 'makesAnotherLeave', 'makesAnotherFinish', 'comesAgain', 'shuts'),
  },
  { weight: 1, arbitrary: fc.constant<Temper>('deniesAll') },
);
const op: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant('arrive' as const), lane: fc.nat({ max: 2 }), gates, temper }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom('finish' as const, 'again' as const), pick }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('leave' as const), pick }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('tokens' as const), gate, count: fc.nat({ max: 4 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('permits' as const), count: fc.nat({ max: 4 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('denyAll' as const) }) },
);

t.test(
  'in any life the bounds hold, each lane is first come first served, and nobody who could run waits',
  async () => {
    const life = fc.record({
      permits: fc.integer({ min: 0, max: 4 }),
      connections: fc.integer({ min: 1, max: 4 }),
      maxQueue: fc.constantFrom(0, 3, NEVER),
      lanes: fc.integer({ min: 1, max: 3 }),
      ops: fc.array(op, { maxLength: 80, size: 'max' }),
    });
    fc.assert(
      fc.property(life, ({ permits, connections, maxQueue, lanes, ops }) => {
        const world = new World(permits, connections, maxQueue, lanes);
        for (const op of ops) world.run(op);
        world.end();
      }),
      { numRuns: 3000 },
    );
  },
);

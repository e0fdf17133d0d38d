// Limiter, lines and slots together: who runs, in which order, and that nobody is forgotten.
import fc from 'fast-check';
import t from 'tap';
import { Limiter } from '../../../src/flow/limiter.ts';
import { Line } from '../../../src/flow/line.ts';
import { type SlotGate, Slots } from '../../../src/flow/slots.ts';
import { type Grantee, Waiter } from '../../../src/flow/waiters.ts';

const NEVER = Number.POSITIVE_INFINITY;
const EXTRA = 2;

/** One who wants to run: enters, or waits and writes down when it is granted. */
class Guest implements Grantee {
  readonly name: string;
  readonly line: Line;
  readonly waiter = new Waiter(this);
  state: 'new' | 'refused' | 'waits' | 'runs' | 'gone' = 'new';
  readonly #log: string[];
  onGrant: (() => void) | null = null;

  constructor(name: string, line: Line, log: string[] = []) {
    this.name = name;
    this.line = line;
    this.#log = log;
  }

  arrive(): this {
    if (this.line.tryEnter()) {
      this.state = 'runs';
      this.#log.push(this.name);
    } else this.state = this.line.enqueue(this.waiter) ? 'waits' : 'refused';
    return this;
  }

  granted(): void {
    this.state = 'runs';
    this.#log.push(this.name);
    this.onGrant?.();
  }

  denied(): void {
    this.state = 'gone';
  }

  /** Gives slot and permit back, in the order an exchange does. */
  finish(): void {
    this.state = 'gone';
    this.line.slots.give();
    this.line.limiter.release();
  }

  leave(): void {
    this.state = 'gone';
    this.line.leave(this.waiter);
  }
}

function unlimitedSlots(): SlotGate {
  return new Slots(NEVER, EXTRA).regular;
}

/** One limiter with one line and slots that never run out. */
function oneLine(maxConcurrent: number, maxQueue = NEVER) {
  const limiter = new Limiter('ai', maxConcurrent, maxQueue, NEVER);
  const line = new Line(limiter, unlimitedSlots());
  const log: string[] = [];
  const guest = (name: string) => new Guest(name, line, log).arrive();
  return { limiter, line, log, guest };
}

/** One upstream: regular requests at `limiter`, bypass requests at one of their own. */
function upstream(limiter: Limiter, connections: number) {
  const slots = new Slots(connections, EXTRA);
  const regular = new Line(limiter, slots.regular);
  const bypass = new Line(new Limiter('bypass', NEVER, NEVER, NEVER), slots.bypass);
  return { slots, regular, bypass };
}

const states = (guests: readonly Guest[]) => guests.map(({ state }) => state).join(' ');

t.test('those who wait run in the order in which they came', async (t) => {
  const { limiter, log, guest } = oneLine(2);
  const guests = [...'abcdef'].map(guest);
  t.equal(states(guests), 'runs runs waits waits waits waits');
  guests[1]!.finish();
  guests[0]!.finish();
  guests[2]!.finish();
  t.same(log, ['a', 'b', 'c', 'd', 'e']);
  for (const i of [3, 4, 5]) guests[i]!.finish();
  t.equal(log.join(''), 'abcdef');
  t.same([limiter.inFlight, limiter.queued], [0, 0]);
  t.equal(guest('g').state, 'runs');
});

t.test('a new one never passes those who wait in its line', async (t) => {
  const { line } = oneLine(1);
  const a = new Guest('a', line).arrive();
  const b = new Guest('b', line).arrive();
  t.equal(line.tryEnter(), false);
  line.leave(b.waiter);
  t.equal(line.ready, 0);
  a.finish();
  t.equal(line.tryEnter(), true);
});

t.test('a new one does not enter past a head that waits, though permit and slot are free', async (t) => {
  const { limiter, line } = oneLine(1);
  new Guest('a', line).arrive();
  new Guest('b', line).arrive();
  limiter.inFlight = 0; // given back, and not yet pumped
  t.ok(limiter.hasPermit);
  t.equal(line.tryEnter(), false);
});

t.test('across the lines of one limiter the oldest that can run goes first', async (t) => {
  const limiter = new Limiter('ai', 2, NEVER, NEVER);
  const openai = upstream(limiter, 1).regular;
  const deepseek = upstream(limiter, 5).regular;
  const log: string[] = [];
  const [o1, d1] = [new Guest('o1', openai, log).arrive(), new Guest('d1', deepseek, log).arrive()];
  const waiting = (['o2', 'd2', 'd3', 'o3', 'd4'] as const).map((name) =>
    new Guest(name, name.startsWith('o') ? openai : deepseek, log).arrive(),
  );
  d1.finish();
  t.same(log.slice(2), ['d2'], 'o2 is older, but its upstream has no connection free: it is passed over');
  o1.finish();
  t.same(log.slice(2), ['d2', 'o2'], 'now it can run, and goes before d3');
  waiting[1]!.finish();
  t.same(log.slice(2), ['d2', 'o2', 'd3']);
  waiting[2]!.finish();
  t.same(log.slice(2), ['d2', 'o2', 'd3', 'd4'], 'o3 waits for its connection');
  waiting[0]!.finish();
  t.same(log.slice(2), ['d2', 'o2', 'd3', 'd4', 'o3']);
});

t.test('a waiter holds neither permit nor slot while the other is missing', async (t) => {
  const limiter = new Limiter('ai', 2, NEVER, NEVER);
  const narrow = upstream(limiter, 1);
  const wide = upstream(limiter, 5);
  const first = new Guest('first', narrow.regular).arrive();
  const second = new Guest('second', narrow.regular).arrive();
  t.equal(second.state, 'waits');
  t.equal(limiter.inFlight, 1, 'waits for a slot, and has no permit');
  const other = new Guest('other', wide.regular).arrive();
  t.equal(other.state, 'runs', 'so the permit serves another upstream');
  const third = new Guest('third', wide.regular).arrive();
  t.equal(wide.slots.taken, 1, 'waits for a permit, and has no slot');
  first.line.limiter.release();
  t.equal(third.state, 'runs', 'the permit came back before the connection: the head of the other line has both');
  first.line.slots.give();
  t.equal(second.state, 'waits');
  other.finish();
  t.equal(second.state, 'runs');
});

t.test('permit and slot may come back in either order', async (t) => {
  for (const slotFirst of [true, false]) {
    const limiter = new Limiter('ai', 1, NEVER, NEVER);
    const { regular } = upstream(limiter, 1);
    new Guest('a', regular).arrive();
    const b = new Guest('b', regular).arrive();
    if (slotFirst) regular.slots.give();
    else limiter.release();
    t.equal(b.state, 'waits');
    if (slotFirst) limiter.release();
    else regular.slots.give();
    t.equal(b.state, 'runs');
  }
});

t.test('a waiter that leaves from the middle does not disturb the order', async (t) => {
  for (const leaving of ['b', 'c', 'd', 'e', 'bc', 'de', 'ce', 'bcde', 'edcb', 'dc']) {
    const { limiter, line, log, guest } = oneLine(1);
    const guests = new Map([...'abcde'].map((name) => [name, guest(name)]));
    for (const name of leaving) guests.get(name)!.leave();
    const left = [...'abcde'].filter((name) => !leaving.includes(name));
    t.equal(limiter.queued, left.length - 1);
    guests.set('f', guest('f'));
    for (const name of [...left, 'f']) guests.get(name)!.finish();
    t.same(log, [...left, 'f'], `without ${leaving}`);
    t.equal(line.ready, 0);
    t.same([limiter.inFlight, limiter.queued], [0, 0]);
  }
});

t.test('leaving twice, or after the grant, or without having waited changes nothing', async (t) => {
  const { limiter, line, guest } = oneLine(1);
  const [a, b, c] = [guest('a'), guest('b'), guest('c')];
  line.leave(a.waiter);
  t.equal(limiter.queued, 2);
  b.leave();
  line.leave(b.waiter);
  t.equal(limiter.queued, 1);
  a.finish();
  t.equal(c.state, 'runs');
  line.leave(c.waiter);
  t.same([limiter.inFlight, limiter.queued], [1, 0]);
  const other = oneLine(0);
  const stranger = other.guest('x');
  line.leave(stranger.waiter);
  t.equal(other.limiter.queued, 1, 'a waiter of another line stays there');
});

t.test('a hundred thousand waiters can leave from anywhere at no cost that grows with the queue', async (t) => {
  const { limiter, line } = oneLine(0);
  const waiters = Array.from({ length: 200_000 }, () => new Waiter({ granted() {}, denied() {} }));
  for (const waiter of waiters) line.enqueue(waiter);
  // A walk along the queue, from either end, would read a link of those it passes.
  let links = 0;
  for (const end of [waiters[1]!, waiters.at(-2)!]) {
    for (const link of ['next', 'prev'] as const) {
      let value = end[link];
      const get = () => {
        links++;
        return value;
      };
      const set = (to: Waiter | null) => {
        value = to;
      };
      Object.defineProperty(end, link, { get, set });
    }
  }
  for (let i = 1000; i < waiters.length - 1000; i++) line.leave(waiters[i]!);
  t.equal(links, 0, 'nobody was passed by');
  t.equal(limiter.queued, 2000);
});

t.test('a full queue refuses, and takes again when somebody has left', async (t) => {
  const { limiter, guest } = oneLine(1, 2);
  const guests = [...'abcd'].map(guest);
  t.equal(states(guests), 'runs waits waits refused');
  t.equal(limiter.queued, 2);
  guests[1]!.leave();
  t.equal(guest('e').state, 'waits');
  t.equal(guest('f').state, 'refused');
  guests[0]!.finish();
  t.equal(guest('g').state, 'waits');
  t.same([limiter.inFlight, limiter.queued, limiter.peakQueued], [1, 2, 2]);
  const none = oneLine(1, 0);
  t.equal(states([...'ab'].map(none.guest)), 'runs refused', 'max_queue 0: nobody waits');
});

t.test('the bound on the queue is the limiter’s, not the line’s', async (t) => {
  const limiter = new Limiter('ai', 0, 3, NEVER);
  const [a, b] = [upstream(limiter, 1).regular, upstream(limiter, 1).regular];
  const guests = [a, b, a, b, a].map((line, i) => new Guest(`${i}`, line).arrive());
  t.equal(states(guests), 'waits waits waits refused refused');
});

t.test('a hundred thousand exchanges that all fail at once do not grow the stack', async (t) => {
  for (const order of ['slot first', 'permit first']) {
    const limiter = new Limiter('ai', 1, NEVER, NEVER);
    const { regular } = upstream(limiter, 1);
    const first = new Guest('first', regular).arrive();
    let depth = 0;
    let deepest = 0;
    let failed = 0;
    const fails: Grantee = {
      denied() {},
      granted() {
        deepest = Math.max(deepest, ++depth);
        failed++;
        if (order === 'slot first') {
          regular.slots.give();
          limiter.release();
        } else {
          limiter.release();
          regular.slots.give();
        }
        depth--;
      },
    };
    for (let i = 0; i < 100_000; i++) regular.enqueue(new Waiter(fails));
    first.finish();
    t.equal(failed, 100_000, order);
    t.equal(deepest, 1, 'one after the other, not one within the other');
    t.same([limiter.inFlight, limiter.queued], [0, 0]);
  }
});

t.test('a grant within which others leave, join and finish goes on with the right one', async (t) => {
  const { limiter, log, guest } = oneLine(1);
  const guests = [...'abcde'].map(guest);
  guests[1]!.onGrant = () => {
    guests[2]!.leave();
    guests.push(guest('f'));
    guests[1]!.finish();
    t.equal(guests[3]!.state, 'waits', 'the next grant comes when this one has returned');
  };
  guests[0]!.finish();
  t.same(log, ['a', 'b', 'd']);
  guests[3]!.finish();
  guests[4]!.finish();
  t.same(log, ['a', 'b', 'd', 'e', 'f']);
  t.same([limiter.inFlight, limiter.queued], [1, 0]);
});

t.test('a grant that throws does not lock the limiter', async (t) => {
  const { limiter, guest } = oneLine(1);
  const [a, b, c] = [guest('a'), guest('b'), guest('c')];
  b.onGrant = () => {
    throw new Error('a bug');
  };
  t.throws(() => a.finish(), { message: 'a bug' });
  b.finish();
  t.equal(c.state, 'runs');
  t.equal(limiter.inFlight, 1);
});

t.test('the counters tell what happened', async (t) => {
  const { limiter, guest } = oneLine(2);
  const grown: number[] = [];
  limiter.onQueueGrown = (grownLimiter) => grown.push(grownLimiter.queued);
  const guests = [...'abcdef'].map(guest);
  t.same(grown, [1, 2, 3, 4]);
  const { granted, waited, peakInFlight, peakQueued } = limiter;
  t.same({ granted, waited, peakInFlight, peakQueued }, { granted: 2, waited: 0, peakInFlight: 2, peakQueued: 4 });
  guests[5]!.leave();
  for (const i of [0, 1, 2, 3, 4]) guests[i]!.finish();
  t.same([limiter.granted, limiter.waited], [5, 3], 'who left was not granted');
  t.same([limiter.inFlight, limiter.queued, limiter.peakInFlight, limiter.peakQueued], [0, 0, 2, 4]);
  guest('g');
  t.same([limiter.granted, limiter.waited], [6, 3]);
});

t.test('Retry-After follows queue and service rate, from 1 to 60 seconds', async (t) => {
  const { limiter, guest } = oneLine(1);
  t.equal(limiter.retryAfterS(), 5, 'nothing is known yet');
  const served = (perSecond: number, seconds: number) => {
    for (let s = 0; s < seconds; s++) {
      for (let i = 0; i < perSecond; i++) {
        limiter.take();
        limiter.release();
      }
      limiter.pulse();
    }
  };
  served(10, 60);
  t.equal(limiter.retryAfterS(), 1, 'never 0');
  guest('runs');
  for (let i = 0; i < 99; i++) guest(`${i}`);
  limiter.pulse();
  served(0, 0);
  const wait = limiter.retryAfterS();
  t.ok(wait >= 10 && wait <= 15, `100 ahead at about 10 per second: ${wait} s`);
  for (let i = 0; i < 2000; i++) guest('more');
  t.equal(limiter.retryAfterS(), 60, 'never above 60');
  for (let s = 0; s < 60; s++) limiter.pulse();
  t.equal(limiter.retryAfterS(), 5, 'nobody was served for a minute: nothing is known');
});

// ---- slots

t.test('bypass requests have two connections of their own, beyond the regular ones', async (t) => {
  const { slots, regular, bypass } = upstream(new Limiter('ai', NEVER, NEVER, NEVER), 3);
  const guests = Array.from({ length: 4 }, () => new Guest('r', regular).arrive());
  t.equal(states(guests), 'runs runs runs waits');
  const passing = Array.from({ length: 3 }, () => new Guest('b', bypass).arrive());
  t.equal(states(passing), 'runs runs waits', 'whatever the regular ones do');
  t.equal(slots.taken, 5);
  passing[0]!.finish();
  t.equal(passing[2]!.state, 'runs');
  t.equal(guests[3]!.state, 'waits', 'a bypass slot is not for a regular request');
  guests[0]!.finish();
  t.equal(guests[3]!.state, 'runs');
});

t.test('bypass requests use regular connections nobody waits for, up to their number', async (t) => {
  const { slots, regular, bypass } = upstream(new Limiter('ai', NEVER, NEVER, NEVER), 5);
  const passing = Array.from({ length: 7 }, () => new Guest('b', bypass).arrive());
  t.equal(states(passing), 'runs runs runs runs runs waits waits');
  const guests = Array.from({ length: 3 }, () => new Guest('r', regular).arrive());
  t.equal(states(guests), 'runs runs waits', 'two of the five are on the bypass’s own account');
  t.equal(slots.taken, 7);
  passing[0]!.finish();
  t.equal(guests[2]!.state, 'runs', 'the regular one goes first on a regular slot');
  t.equal(passing[5]!.state, 'waits');
});

t.test('a stream of bypass requests cannot starve the regular ones', async (t) => {
  const { regular, bypass } = upstream(new Limiter('ai', NEVER, NEVER, NEVER), 1);
  const running = Array.from({ length: 20 }, () => new Guest('b', bypass).arrive());
  const starving = new Guest('r', regular).arrive();
  t.equal(starving.state, 'runs', 'the first bypass request took one of its own two');
  const second = new Guest('r', regular).arrive();
  t.equal(second.state, 'waits');
  starving.finish();
  t.equal(second.state, 'runs', 'before any of the eighteen bypass requests that wait for longer');
  t.equal(running.filter(({ state }) => state === 'runs').length, 2);
});

t.test('bypass requests on regular slots move on to their own account as soon as one comes free', async (t) => {
  const { slots, regular, bypass } = upstream(new Limiter('ai', NEVER, NEVER, NEVER), 3);
  const passing = Array.from({ length: 3 }, () => new Guest('b', bypass).arrive());
  const guests = Array.from({ length: 3 }, () => new Guest('r', regular).arrive());
  t.equal(states(guests), 'runs runs waits');
  const late = new Guest('b', bypass).arrive();
  t.equal(late.state, 'waits', 'a regular one waits: no bypass on regular slots');
  passing[0]!.finish();
  t.equal(states(guests), 'runs runs runs');
  t.equal(slots.taken, 5);
  passing[1]!.finish();
  t.equal(late.state, 'runs');
});

t.test('a bypass request that waited behind a regular one runs when that one leaves', async (t) => {
  const limiter = new Limiter('ai', 1, NEVER, NEVER);
  const elsewhere = new Guest('e', upstream(limiter, 5).regular).arrive();
  for (const how of ['leaves', 'is granted']) {
    const { regular, bypass } = upstream(limiter, 5);
    const passing = Array.from({ length: 2 }, () => new Guest('b', bypass).arrive());
    const waits = new Guest('r', regular).arrive();
    t.equal(waits.state, 'waits', 'for the permit that another upstream holds');
    const third = new Guest('b', bypass).arrive();
    t.equal(third.state, 'waits');
    if (how === 'leaves') waits.leave();
    else elsewhere.finish();
    t.equal(third.state, 'runs', `the regular one ${how}; slots are free and nobody waits for them`);
    t.equal(states(passing), 'runs runs');
  }
});

// ---- random life against the rules

/** What one does when its turn comes. */
type Temper = 'runs' | 'fails' | 'failsPermitFirst' | 'makesAnotherLeave' | 'makesAnotherFinish';

type Op =
  | { readonly kind: 'arrive'; readonly line: number; readonly temper: Temper }
  /** Gives back what is left of one that runs: the slot, the permit, or both in one of the orders. */
  | { readonly kind: 'finish'; readonly pick: number; readonly what: 'slot' | 'permit' | 'slotPermit' | 'permitSlot' }
  | { readonly kind: 'leave'; readonly pick: number };

interface Member {
  readonly line: number;
  readonly age: number;
  readonly temper: Temper;
  readonly waiter: Waiter;
  permit: boolean;
  slot: boolean;
}

/** The rules, kept by counting: lines as arrays, holders as lists. Throws at the first breach. */
class Model {
  readonly #limiters: readonly Limiter[];
  /** line → its limiter; lines come in pairs: regular and bypass of one upstream */
  readonly #lines: readonly { readonly line: Line; readonly limiter: Limiter; readonly slots: Slots }[];
  readonly #waiting: Member[][];
  readonly #holding: Member[] = [];
  readonly #counts = new Map<Limiter, { granted: number; waited: number; peakInFlight: number; peakQueued: number }>();
  #age = 0;

  constructor(maxPermits: number, connections: readonly number[], maxQueue: number) {
    const shared = new Limiter('shared', maxPermits, maxQueue, NEVER);
    const limiters = [shared];
    this.#lines = connections.flatMap((count, i) => {
      // The last upstream has a limiter of its own.
      const limiter = i > 0 && i === connections.length - 1 ? new Limiter('own', count, maxQueue, NEVER) : shared;
      const open = new Limiter('bypass', NEVER, maxQueue, NEVER);
      limiters.push(open);
      if (limiter !== shared) limiters.push(limiter);
      const slots = new Slots(count, EXTRA);
      return [
        { line: new Line(limiter, slots.regular), limiter, slots },
        { line: new Line(open, slots.bypass), limiter: open, slots },
      ];
    });
    this.#limiters = limiters;
    this.#waiting = this.#lines.map(() => []);
    for (const limiter of limiters) {
      this.#counts.set(limiter, { granted: 0, waited: 0, peakInFlight: 0, peakQueued: 0 });
    }
  }

  #inFlight(limiter: Limiter): number {
    return this.#holding.filter((member) => member.permit && this.#lines[member.line]!.limiter === limiter).length;
  }

  #queued(limiter: Limiter): number {
    return this.#waiting.reduce(
      (sum, waiting, i) => sum + (this.#lines[i]!.limiter === limiter ? waiting.length : 0),
      0,
    );
  }

  #slotsTaken(line: number): number {
    return this.#holding.filter((member) => member.slot && member.line === line).length;
  }

  #hasSlot(line: number): boolean {
    const regular = line & ~1;
    const { slots } = this.#lines[line]!;
    const [r, b] = [this.#slotsTaken(regular), this.#slotsTaken(regular + 1)];
    if (line === regular) return r + Math.max(0, b - EXTRA) < slots.max;
    return b < EXTRA || (r + b < slots.max && this.#waiting[regular]!.length === 0);
  }

  #canRun(line: number): boolean {
    const { limiter } = this.#lines[line]!;
    return this.#inFlight(limiter) < limiter.maxConcurrent && this.#hasSlot(line);
  }

  #hold(member: Member): void {
    member.permit = true;
    member.slot = true;
    this.#holding.push(member);
    const { limiter } = this.#lines[member.line]!;
    const counts = this.#counts.get(limiter)!;
    counts.granted++;
    counts.peakInFlight = Math.max(counts.peakInFlight, this.#inFlight(limiter));
  }

  arrive(line: number, temper: Temper): void {
    const { line: real, limiter } = this.#lines[line]!;
    const member: Member = {
      line,
      age: ++this.#age,
      temper,
      waiter: new Waiter({ granted: () => this.#granted(member), denied() {} }),
      permit: false,
      slot: false,
    };
    const free = this.#waiting[line]!.length === 0 && this.#canRun(line);
    if (real.tryEnter() !== free) throw new Error(`line ${line}: could${free ? '' : ' not'} enter`);
    if (free) {
      this.#hold(member);
      return;
    }
    const room = this.#queued(limiter) < limiter.maxQueue;
    if (room) {
      this.#waiting[line]!.push(member);
      const counts = this.#counts.get(limiter)!;
      counts.peakQueued = Math.max(counts.peakQueued, this.#queued(limiter));
    }
    if (real.enqueue(member.waiter) !== room) throw new Error(`line ${line}: ${room ? 'had' : 'had no'} room`);
  }

  #granted(member: Member): void {
    const { limiter } = this.#lines[member.line]!;
    if (this.#waiting[member.line]![0] !== member) throw new Error(`line ${member.line}: not the head was granted`);
    if (!this.#canRun(member.line)) throw new Error(`line ${member.line}: granted what is not free`);
    for (const [i, waiting] of this.#waiting.entries()) {
      const passed = this.#lines[i]!.limiter === limiter && waiting[0] && waiting[0].age < member.age;
      if (passed && this.#canRun(i)) throw new Error(`line ${member.line} passed the older head of line ${i}`);
    }
    this.#waiting[member.line]!.shift();
    this.#counts.get(limiter)!.waited++;
    this.#hold(member);
    if (member.temper === 'fails') this.#giveBack(member, 'slotPermit');
    else if (member.temper === 'failsPermitFirst') this.#giveBack(member, 'permitSlot');
    else if (member.temper === 'makesAnotherLeave') this.leave(member.age);
    else if (member.temper === 'makesAnotherFinish') this.finish(member.age, 'slotPermit');
  }

  #giveBack(member: Member, what: 'slot' | 'permit' | 'slotPermit' | 'permitSlot'): void {
    const { line, limiter } = this.#lines[member.line]!;
    const slot = () => {
      if (!member.slot) return;
      member.slot = false;
      line.slots.give();
    };
    const permit = () => {
      if (!member.permit) return;
      member.permit = false;
      limiter.release();
    };
    if (what === 'slot' || what === 'slotPermit') slot();
    if (what !== 'slot') permit();
    if (what === 'permitSlot') slot();
    const index = this.#holding.indexOf(member);
    if (index >= 0 && !member.slot && !member.permit) this.#holding.splice(index, 1);
  }

  finish(pick: number, what: 'slot' | 'permit' | 'slotPermit' | 'permitSlot'): void {
    const member = this.#holding[pick % Math.max(1, this.#holding.length)];
    if (member) this.#giveBack(member, what);
  }

  leave(pick: number): void {
    const all = this.#waiting.flat();
    const member = all[pick % Math.max(1, all.length)];
    if (!member) return;
    const waiting = this.#waiting[member.line]!;
    waiting.splice(waiting.indexOf(member), 1);
    this.#lines[member.line]!.line.leave(member.waiter);
  }

  check(): void {
    for (const limiter of this.#limiters) {
      const counts = this.#counts.get(limiter)!;
      const { granted, waited, peakInFlight, peakQueued, inFlight, queued } = limiter;
      const seen = JSON.stringify({ granted, waited, peakInFlight, peakQueued, inFlight, queued });
      const now = { inFlight: this.#inFlight(limiter), queued: this.#queued(limiter) };
      if (seen !== JSON.stringify({ ...counts, ...now })) {
        throw new Error(`${limiter.name}: ${seen}, should be ${JSON.stringify({ ...counts, ...now })}`);
      }
      if (inFlight > limiter.maxConcurrent || queued > limiter.maxQueue) throw new Error(`${limiter.name}: ${seen}`);
    }
    for (const [i, waiting] of this.#waiting.entries()) {
      const { line, slots } = this.#lines[i]!;
      if (slots.taken > slots.max + EXTRA) throw new Error(`${slots.taken} of ${slots.max} + ${EXTRA} slots`);
      if (line.ready !== waiting.length) throw new Error(`line ${i}: head and queue disagree`);
      if (waiting.length > 0 && this.#canRun(i)) throw new Error(`line ${i}: its head can run, and still waits`);
    }
  }

  /** Everybody who runs finishes, until nobody is left. */
  end(): void {
    for (let rounds = 0; this.#holding.length > 0; rounds++) {
      this.finish(rounds, rounds % 2 ? 'slotPermit' : 'permitSlot');
      this.check();
    }
    if (this.#waiting.flat().length > 0) throw new Error('somebody waits and nobody runs');
  }
}

const line = fc.nat({ max: 5 });
const temper = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Temper>('runs') },
  {
    weight: 3,
    arbitrary: fc.constantFrom<Temper>('fails', 'failsPermitFirst', 'makesAnotherLeave', 'makesAnotherFinish'),
  },
);
const pick = fc.nat({ max: 1000 });
const what = fc.constantFrom('slot' as const, 'permit' as const, 'slotPermit' as const, 'permitSlot' as const);
const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('arrive' as const), line, temper }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('finish' as const), pick, what }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('leave' as const), pick }) },
);

t.test('in any life the bounds hold, the oldest that can run runs, and nobody who could run waits', async () => {
  const set = fc.record({
    permits: fc.integer({ min: 1, max: 5 }),
    connections: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 3, maxLength: 3 }),
    maxQueue: fc.constantFrom(0, 1, 4, NEVER),
    ops: fc.array(op, { maxLength: 80, size: 'max' }),
  });
  fc.assert(
    fc.property(set, ({ permits, connections, maxQueue, ops }) => {
      const model = new Model(permits, connections, maxQueue);
      for (const op of ops) {
        if (op.kind === 'arrive') model.arrive(op.line, op.temper);
        else if (op.kind === 'finish') model.finish(op.pick, op.what);
        else model.leave(op.pick);
        model.check();
      }
      model.end();
    }),
    { numRuns: 1500 },
  );
});

// Ten thousand at the turnstiles: no deep stack, and no work that grows faster than the crowd.

import t from 'tap';
import { WaiterHeap } from '../../../src/flow/waiters.ts';
import { Gate, Guest, QueueScene } from '../../support/queue-scene.ts';

const CROWD = 10_000;

/** How deep in grants the stack was at most, over all guests. */
function deepest(guests: readonly Guest[], then: (guest: Guest) => void): () => number {
  let depth = 0;
  let most = 0;
  for (const guest of guests) {
    guest.onGrant = () => {
      most = Math.max(most, ++depth);
      then(guest);
      depth--;
    };
  }
  return () => most;
}

/** Counts the moves through the heaps of turnstiles. */
function countMoves(): { moves: number; restore(): void } {
  const { insert } = WaiterHeap.prototype;
  const counter = {
    moves: 0,
    restore: () => {
      WaiterHeap.prototype.insert = insert;
    },
  };
  WaiterHeap.prototype.insert = function (waiter) {
    counter.moves++;
    insert.call(this, waiter);
  };
  return counter;
}

t.test(
  'a crowd moves from one turnstile to another and back, then runs, in order and one after the other',
  async (t) => {
    const scene = new QueueScene({ permits: 1 });
    const gates = [new Gate(), new Gate(0)] as const;
    const turnstiles = gates.map((gate) => scene.turnstile(gate));
    const guests = Array.from({ length: CROWD }, (_, i) => scene.guest(`${i}`, turnstiles));
    const most = deepest(guests, (guest) => guest.finish());
    const counter = countMoves();
    t.teardown(() => counter.restore());
    const startedAt = performance.now();
    for (let round = 0; round < 4; round++) {
      const [shut, open] = [round % 2, 1 - (round % 2)];
      t.equal(turnstiles[shut]!.held, CROWD);
      gates[open]!.at = Number.POSITIVE_INFINITY;
      gates[shut]!.at = 0;
      turnstiles[shut]!.wake();
      t.equal(turnstiles[open]!.held, CROWD, 'all have moved');
      t.equal(counter.moves, (round + 1) * CROWD, 'each once');
    }
    gates[0].at = 0;
    turnstiles[0]!.wake();
    gates[1].at = 0;
    turnstiles[1]!.wake();
    t.equal(scene.ran.length, CROWD);
    t.ok(scene.ran.every((name, i) => name === `${i}`));
    t.equal(most(), 1, 'no grant within a grant');
    t.same(scene.left(...turnstiles), {});
    t.ok(performance.now() - startedAt < 2000, 'four moves and a run are a matter of milliseconds');
  },
);

t.test('a crowd that fails as soon as it runs does not grow the stack', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  const gate = new Gate();
  const turnstile = scene.turnstile(gate);
  const guests = Array.from({ length: CROWD }, (_, i) => scene.guest(`${i}`, [turnstile]));
  const most = deepest(guests, (guest) => guest.finish());
  gate.at = 0;
  turnstile.wake();
  t.same([scene.ran.length, most(), gate.taken], [CROWD, 1, CROWD]);
});

t.test('a crowd that is refused as soon as the pace is known does not grow the stack', async (t) => {
  const scene = new QueueScene();
  const gate = new Gate();
  const turnstile = scene.turnstile(gate, true);
  for (let i = 0; i < CROWD; i++) scene.guest(`${i}`, [turnstile]);
  gate.at = scene.clock.time + 1000;
  turnstile.wake();
  t.equal(scene.denied.length, CROWD);
  t.same(scene.left(turnstile), {});
});

t.test('those who go one by one into the middle of a crowd pass nobody by', async (t) => {
  const scene = new QueueScene();
  const common = scene.turnstile(new Gate());
  const own = Array.from({ length: CROWD }, () => new Gate());
  const users = own.map((gate) => scene.turnstile(gate));
  for (let i = 0; i < CROWD; i++) {
    scene.guest(`${i}`, [users[i]!, common]);
    scene.guest(`${i}`, [common]);
  }
  const startedAt = performance.now();
  for (let i = 0; i < CROWD; i++) {
    const user = (i * 7919) % CROWD;
    own[user]!.at = 0;
    users[user]!.wake();
  }
  // A list took 20 s.
  t.ok(performance.now() - startedAt < 1000, `${performance.now() - startedAt} ms`);
  t.equal(common.held, 2 * CROWD);
});

t.test('a turnstile that shuts and opens again moves a waiter, not the crowd', async (t) => {
  const scene = new QueueScene({ permits: 0 });
  const gate = new Gate(0);
  const turnstile = scene.turnstile(gate);
  for (let i = 0; i < CROWD; i++) scene.guest(`${i}`, [turnstile]);
  const counter = countMoves();
  t.teardown(() => counter.restore());
  for (let i = 0; i < 1000; i++) {
    gate.at = Number.POSITIVE_INFINITY;
    scene.limiter.maxConcurrent = 1;
    gate.at = 0;
    turnstile.wake();
    scene.limiter.maxConcurrent = 0;
    scene.limiter.inFlight = 0;
  }
  t.ok(counter.moves <= 2000, `${counter.moves} moves`);
});

t.test('a heap gives its waiters by sequence, whoever leaves from anywhere', async (t) => {
  const scene = new QueueScene();
  const heap = new WaiterHeap();
  const guests = Array.from({ length: 1000 }, () => new Guest(scene, '', []));
  for (const [i, { waiter }] of guests.entries()) {
    waiter.sequence = (i * 617) % 1000;
    heap.insert(waiter);
  }
  const stay = guests.filter(({ waiter }) => waiter.sequence % 3 !== 0);
  for (const guest of guests) if (!stay.includes(guest)) heap.remove(guest.waiter);
  const order: number[] = [];
  for (let at = heap.first; at; at = heap.first) {
    order.push(at.sequence);
    heap.remove(at);
    t.equal(at.place, -1);
  }
  t.same(
    order,
    stay.map(({ waiter }) => waiter.sequence).sort((a, b) => a - b),
  );
});

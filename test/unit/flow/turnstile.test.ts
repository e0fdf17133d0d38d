// Turnstiles: who waits for a token, who goes on when there is one, and that nobody is forgotten there.

import t from 'tap';
import { Gate, type Guest, QueueScene } from '../../support/queue-scene.ts';

t.test('those who wait for the same tokens get them in the order in which they came', async (t) => {
  const scene = new QueueScene();
  const rate = scene.rate(100);
  const guests = [...'abcdef'].map((name) => scene.guest(name, [rate]));
  t.same(scene.ran, ['a'], 'one may pass at once');
  t.equal(rate.held, 5);
  t.same([scene.counts.held, scene.counts.heldEver], [5, 5]);
  scene.clock.pass(1000);
  t.equal(scene.ran.join(''), 'abcdef');
  for (const guest of guests) guest.finish();
  t.same(scene.left(rate), {});
});

t.test('a new one never passes those who are held, even at the moment the token is there', async (t) => {
  const scene = new QueueScene();
  const rate = scene.rate(100);
  for (const name of 'abc') scene.guest(name, [rate]);
  scene.clock.time += 105; // the timer has not fired yet
  scene.guest('d', [rate]);
  t.same(scene.ran, ['a', 'b'], 'who comes finds the token, for the one before him');
  scene.clock.pass(300);
  t.same(scene.ran, ['a', 'b', 'c', 'd']);
});

t.test('a caller without tokens of his own holds up nobody else', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  const [rich, poor] = [scene.rate(1), scene.rate(10_000)];
  const first = scene.guest('poor 1', [poor]);
  for (const name of ['poor 2', 'poor 3']) scene.guest(name, [poor]);
  const waiting = ['rich 1', 'rich 2'].map((name) => scene.guest(name, [rich]));
  first.finish();
  t.same(scene.ran, ['poor 1', 'rich 1'], 'rich came later, and needs not wait for what poor lacks');
  scene.clock.pass(20);
  waiting[0]!.finish();
  t.same(scene.ran, ['poor 1', 'rich 1', 'rich 2']);
  waiting[1]!.finish();
  t.equal(scene.limiter.inFlight, 0, 'the permit is free while poor waits for his token');
  scene.clock.pass(10_000);
  t.equal(scene.ran.at(-1), 'poor 2');
});

t.test('a token is taken at the grant, not while a permit is missing', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  const gate = new Gate(0);
  const turnstile = scene.turnstile(gate);
  const first = scene.guest('a', [turnstile]);
  t.equal(gate.taken, 1);
  const b = scene.guest('b', [turnstile]);
  const c = scene.guest('c', [turnstile]);
  t.equal(gate.taken, 1, 'b waits for the permit and has taken none');
  b.leave();
  t.equal(gate.taken, 1, 'and who left has cost none');
  first.finish();
  t.same([c.state, gate.taken], ['runs', 2]);
});

t.test('a token that is gone at the grant sends the waiter back to its place', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  const gate = new Gate(0);
  const turnstile = scene.turnstile(gate);
  const first = scene.guest('a', [turnstile]);
  for (const name of 'bcd') scene.guest(name, [turnstile]);
  gate.at = scene.clock.time + 500; // a pause begins while b waits for the permit
  first.finish();
  t.same(scene.ran, ['a']);
  t.same([scene.limiter.inFlight, scene.counts.held, turnstile.held], [0, 3, 3]);
  scene.guest('x');
  t.equal(scene.ran.at(-1), 'x', 'who need not wait for it goes on');
  gate.at = 0;
  turnstile.wake();
  t.same(scene.ran, ['a', 'x'], 'x has the permit');
  scene.limiter.maxConcurrent = 10;
  t.same(scene.ran, ['a', 'x', 'b', 'c', 'd']);
});

t.test('waiters for a permit are not told to be held up by a turnstile that is open', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  const turnstile = scene.turnstile(new Gate(0));
  const guests = [...'abcdef'].map((name) => scene.guest(name, [turnstile]));
  t.same([scene.limiter.queued, scene.counts.held, scene.counts.heldEver], [5, 0, 0]);
  for (const guest of guests) guest.finish();
  t.equal(scene.ran.join(''), 'abcdef');
  t.same(scene.left(turnstile), {});
});

t.test('a waiter needs the tokens of all its turnstiles at once, and keeps none while one is missing', async (t) => {
  const scene = new QueueScene();
  const [common, user] = [new Gate(0), new Gate()];
  const turnstiles = [scene.turnstile(common), scene.turnstile(user)];
  const a = scene.guest('a', turnstiles);
  scene.guest('b', [turnstiles[0]!]);
  t.same(scene.ran, ['b'], 'a waits for its own token and leaves the common one to others');
  t.equal(common.taken, 1);
  common.at = Number.POSITIVE_INFINITY;
  user.at = 0;
  turnstiles[1]!.wake();
  t.equal(a.state, 'waits');
  t.same([common.taken, user.taken], [1, 0]);
  const c = scene.guest('c', [turnstiles[1]!]);
  t.equal(c.state, 'runs', 'a waits for the common token now, and leaves its own to others');
  common.at = 0;
  turnstiles[0]!.wake();
  t.same([a.state, common.taken, user.taken], ['runs', 2, 2]);
});

t.test('one that comes again after it waited elsewhere has its old place', async (t) => {
  const scene = new QueueScene();
  const [common, user] = [new Gate(), new Gate()];
  const [both, mine] = [scene.turnstile(common), scene.turnstile(user)];
  scene.guest('a', [mine, both]);
  for (const name of 'bcd') scene.guest(name, [both]);
  user.at = 0;
  mine.wake();
  t.equal(both.held, 4);
  common.at = 0;
  both.wake();
  t.equal(scene.ran.join(''), 'abcd', 'a came first');
});

t.test('turnstiles in either order cannot wait for each other', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  const [a, b] = [scene.rate(10), scene.rate(10)];
  const guests: Guest[] = [];
  for (let i = 0; i < 100; i++) guests.push(scene.guest(`${i}`, i % 2 ? [a, b] : [b, a]));
  for (let i = 0; i < 10_000 && guests.some(({ state }) => state !== 'gone'); i++) {
    for (const guest of guests) if (guest.state === 'runs') guest.finish();
    scene.clock.pass(5);
  }
  t.same(
    scene.ran,
    Array.from({ length: 100 }, (_, i) => `${i}`),
  );
  t.same(scene.left(a, b), {});
});

t.test(
  'one who comes back for another attempt goes before all who are held, and before the one in the line',
  async (t) => {
    for (const burst of [1, 5]) {
      const scene = new QueueScene({ permits: 2 });
      const rate = scene.rate(100, burst);
      const a = scene.guest('a', [rate]);
      const other = scene.guest('other');
      const waiting = [...'bcd'].map((name) => scene.guest(name, [rate]));
      scene.clock.pass(150); // b stands in the line
      scene.limiter.maxConcurrent = 1;
      const again = a.again();
      other.finish();
      t.same(scene.ran, ['a', 'other', "a'"], `burst ${burst}`);
      for (const guest of [again, ...waiting]) {
        scene.clock.pass(150);
        guest.finish();
      }
      t.equal(scene.ran.slice(3).join(''), 'bcd');
      t.same(scene.left(rate), {});
    }
  },
);

t.test('it may be left from anywhere: the first, the middle, the one in the line', async (t) => {
  for (const leaving of ['b', 'c', 'd', 'e', 'bc', 'de', 'bcde', 'edcb', 'cb']) {
    const scene = new QueueScene({ permits: 1 });
    const rate = scene.rate(100);
    const guests = new Map([...'abcde'].map((name) => [name, scene.guest(name, [rate])]));
    scene.clock.pass(150); // b is in the line, the others are held
    for (const name of leaving) guests.get(name)!.leave();
    const stay = [...'abcde'].filter((name) => !leaving.includes(name));
    t.equal(scene.limiter.queued, stay.length - 1);
    for (const name of stay) {
      guests.get(name)!.finish();
      scene.clock.pass(150);
    }
    t.same(scene.ran, stay, `without ${leaving}`);
    t.same(scene.left(rate), {}, `without ${leaving}`);
  }
});

t.test('all who are held may leave, and no timer stays', async (t) => {
  const scene = new QueueScene();
  const rate = scene.rate(1000);
  const guests = [...'abc'].map((name) => scene.guest(name, [rate]));
  t.equal(scene.wheel.size, 1);
  for (const guest of guests.slice(1)) guest.leave();
  guests[0]!.finish();
  t.same(scene.left(rate), {});
  guests[1]!.leave();
  t.same(scene.left(rate), {}, 'twice is as good as once');
});

t.test('a pace that did not know is asked, and its word lets the first go on', async (t) => {
  const scene = new QueueScene();
  const asked: number[] = [];
  const gate = new (class extends Gate {
    want(waiting: number): void {
      asked.push(waiting);
    }
  })();
  const turnstile = scene.turnstile(gate);
  const guests = [scene.guest('a', [turnstile]), scene.guest('b', [turnstile])];
  t.same(asked, [1, 2]);
  t.equal(scene.wheel.size, 0, 'no timer for what nobody knows');
  gate.at = scene.clock.time + 40;
  turnstile.wake();
  t.equal(scene.wheel.size, 1);
  scene.clock.pass(60);
  t.same(scene.ran, ['a', 'b']);
  for (const guest of guests) guest.finish();
  t.same(scene.left(turnstile), {});
});

t.test('reject: who would have to wait is denied and told by whom, and the others are not touched', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  const rate = scene.rate(100, 2, true);
  const a = scene.guest('a', [rate]);
  t.equal(rate.waitMs, 0);
  const b = scene.guest('b', [rate]);
  t.same([b.state, rate.waitMs], ['waits', 100], 'b waits for the permit; its token is spoken for');
  const other = scene.guest('other');
  rate.pass(); // somebody takes the token b waits with
  a.finish();
  t.same([b.state, b.deniedBy], ['denied', rate]);
  t.equal(other.state, 'runs');
  const c = scene.guest('c', [rate]);
  t.same([c.state, c.deniedBy], ['denied', rate], 'denied before enqueue returned');
  t.equal(scene.counts.refused, 2);
  other.finish();
  t.same(scene.left(rate), {});
});

t.test('reject: who asks a pace that does not know yet waits for its answer', async (t) => {
  const scene = new QueueScene();
  const gate = new Gate();
  const turnstile = scene.turnstile(gate, true);
  const a = scene.guest('a', [turnstile]);
  const b = scene.guest('b', [turnstile]);
  t.same([a.state, b.state, turnstile.waitMs], ['waits', 'waits', 0]);
  gate.at = scene.clock.time + 1000;
  turnstile.wake();
  t.same(scene.denied, ['a', 'b']);
  t.same(scene.left(turnstile), {});
});

t.test('the wait of one who comes now counts those before him', async (t) => {
  const scene = new QueueScene();
  const rate = scene.rate(100);
  t.equal(rate.waitMs, 0);
  for (const [i, name] of [...'abc'].entries()) {
    scene.guest(name, [rate]);
    t.equal(rate.waitMs, (i + 1) * 100);
  }
  scene.clock.pass(50);
  t.equal(rate.waitMs, 250);
});

t.test('one that is thrown out while it goes back to its place leaves the others behind it their turn', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  const [pause, limit] = [new Gate(0), new Gate(0)];
  const [paused, rejecting] = [scene.turnstile(pause), scene.turnstile(limit, true)];
  const first = scene.guest('first');
  const w = scene.guest('w', [paused, rejecting]);
  scene.guest('x', [rejecting]).onDeny = () => w.leave();
  const y = scene.guest('y', [paused]);
  pause.at = scene.clock.time + 100;
  limit.at = scene.clock.time + 100;
  first.finish();
  t.same(scene.denied, ['x']);
  scene.clock.pass(200);
  t.equal(y.state, 'runs');
  y.finish();
  t.same(scene.left(paused, rejecting), {});
});

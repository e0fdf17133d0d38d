// Lanes of a queue, those who come back, and a line that lets nobody in.

import t from 'tap';
import { Line } from '../../../src/flow/line.ts';
import { Slots } from '../../../src/flow/slots.ts';
import type { Turnstile } from '../../../src/flow/turnstile.ts';
import { Gate, Guest, QueueScene } from '../../support/queue-scene.ts';

const NEVER = Number.POSITIVE_INFINITY;

const LANES = [
  { name: 'users', share: 70 },
  { name: 'batch', share: 20 },
  { name: 'tests', share: 10 },
];

/** So many in each lane, taking turns. */
function fill(scene: QueueScene, perLane: readonly number[], turnstiles: readonly Turnstile[] = []): Guest[] {
  const guests: Guest[] = [];
  for (let i = 0; i < Math.max(...perLane); i++) {
    for (const [lane, count] of perLane.entries()) {
      if (i < count) guests.push(scene.guest(`${lane}:${i}`, turnstiles, lane));
    }
  }
  return guests;
}

/** Everybody who runs finishes at once, from now on. */
function serve(scene: QueueScene, guests: readonly Guest[]): void {
  for (const guest of guests) guest.onGrant = () => guest.finish();
  scene.limiter.maxConcurrent = 1;
}

/** The part of each lane in the first so many grants. */
function parts(ran: readonly string[], first: number): number[] {
  return LANES.map((_, lane) => ran.slice(0, first).filter((name) => name.startsWith(`${lane}:`)).length / first);
}

function isFifo(ran: readonly string[]): boolean {
  return LANES.every((_, lane) => {
    const places = ran.filter((name) => name.startsWith(`${lane}:`)).map((name) => Number(name.split(':')[1]));
    return places.every((place, i) => place === i);
  });
}

for (const [what, turnstilesOf] of [
  ['permits alone', () => []],
  ['a turnstile that is open', (scene) => [scene.turnstile(new Gate(0))]],
  ['a rate', (scene) => [scene.rate(1)]],
  ['two rates', (scene) => [scene.rate(1), scene.rate(0.9, 3)]],
] as [string, (scene: QueueScene) => Turnstile[]][]) {
  t.test(`a thousand who wait for ${what} are served by the shares of their lanes, each lane in order`, async (t) => {
    const scene = new QueueScene({ permits: 0, lanes: LANES });
    const turnstiles = turnstilesOf(scene);
    const guests = fill(scene, [400, 300, 300], turnstiles);
    t.same(
      scene.limiter.lanes.map(({ queued }) => queued),
      [400, 300, 300],
    );
    serve(scene, guests);
    scene.clock.pass(2000);
    // As long as all lanes wait: the first is through after 400 / 0.7 grants.
    for (const first of [100, 300, 570]) {
      for (const [lane, part] of parts(scene.ran, first).entries()) {
        const share = LANES[lane]!.share / 100;
        t.ok(Math.abs(part - share) <= 0.01, `${first}: lane ${lane} has ${part}, its share is ${share}`);
      }
    }
    t.ok(isFifo(scene.ran));
    t.equal(scene.ran.length, 1000);
    t.same(
      scene.limiter.lanes.map(({ granted }) => granted),
      [400, 300, 300],
    );
    t.same(scene.left(...turnstiles), {});
  });
}

t.test('no lane starves, however much comes in the others', async (t) => {
  const scene = new QueueScene({ permits: 1, lanes: [{ name: 'big', share: 1000 }, { name: 'small', share: 1 }] }); // biome-ignore format: one line
  let guest = scene.guest('first');
  scene.guest('small', [], 1);
  let served = 0;
  while (!scene.ran.includes('small') && served < 5000) {
    const next = scene.guest(`${served++}`, [], 0);
    guest.finish();
    guest = next.state === 'runs' ? next : guest;
  }
  t.ok(served <= 1001, `small had its turn after ${served}`);
});

t.test('a lane that was idle has no claim on the time it did not use', async (t) => {
  const scene = new QueueScene({ permits: 0, lanes: LANES.slice(0, 2) });
  const early = fill(scene, [0, 300]);
  serve(scene, early);
  t.equal(scene.ran.length, 300, 'one lane alone gets all');
  scene.ran.length = 0;
  scene.limiter.maxConcurrent = 0;
  const late = fill(scene, [700, 700]);
  serve(scene, late);
  const [users] = parts(scene.ran, 90);
  t.ok(Math.abs(users! - 70 / 90) < 0.02, `users got ${users} of the first 90`);
});

t.test('who finds everything free runs at once, in whatever lane', async (t) => {
  const scene = new QueueScene({ permits: 3, lanes: LANES });
  for (const lane of [2, 1, 0]) t.equal(scene.guest(`${lane}`, [], lane).state, 'runs');
  t.same(
    scene.limiter.lanes.map(({ granted }) => granted),
    [0, 0, 0],
    'and is not counted as served from the queue',
  );
});

t.test('a lane is found by its name; an unknown name is in the lane of the upstream, else in the first', async (t) => {
  const { limiter } = new QueueScene({ lanes: LANES });
  t.equal(limiter.laneOf('batch', null), 1);
  t.equal(limiter.laneOf('batch', 'tests'), 1);
  for (const name of ['', 'nobody', 'BATCH', '__proto__']) {
    t.equal(limiter.laneOf(name, null), 0);
    t.equal(limiter.laneOf(name, 'tests'), 2);
    t.equal(limiter.laneOf(name, 'nobody'), 0);
  }
  t.equal(new QueueScene().limiter.laneOf('batch', 'tests'), 0);
});

t.test('shares hold over several upstreams of one limiter; one without a slot is passed over', async (t) => {
  const scene = new QueueScene({ permits: 0, lanes: LANES });
  const other = new Line(scene.limiter, new Slots(NEVER, 2).regular);
  const stuck = new Line(scene.limiter, new Slots(0, 2).regular);
  const guests = fill(scene, [200, 200, 200]);
  for (let i = 0; i < 600; i++) {
    const guest = new Guest(scene, `${i % 3}:x`, [], i % 3);
    guest.onGrant = () => {
      other.slots.give();
      scene.limiter.release();
    };
    other.enqueue(guest.waiter);
    stuck.enqueue(new Guest(scene, 'stuck', [], i % 3).waiter);
  }
  serve(scene, guests);
  t.equal(scene.ran.length, 1200);
  t.notOk(scene.ran.includes('stuck'));
  for (const [lane, part] of parts(scene.ran, 500).entries()) {
    t.ok(Math.abs(part - LANES[lane]!.share / 100) <= 0.01, `lane ${lane} has ${part}`);
  }
});

t.test(
  'who comes back goes before the others of its lane, in the order of coming back, but not before other lanes',
  async (t) => {
    const scene = new QueueScene({ permits: 3, lanes: LANES.slice(0, 2) });
    const running = ['a', 'b', 'c'].map((name) => scene.guest(name));
    for (const name of ['d', 'e']) scene.guest(name);
    scene.guest('batch', [], 1);
    scene.limiter.maxConcurrent = 0;
    for (const guest of running) guest.again();
    t.equal(scene.limiter.queued, 6);
    const before = scene.ran.length;
    scene.limiter.maxConcurrent = 10;
    const ran = scene.ran.slice(before);
    t.same(
      ran.filter((name) => name !== 'batch'),
      ["a'", "b'", "c'", 'd', 'e'],
    );
    t.ok(ran.indexOf('batch') <= 1, 'the other lane has its turn all the same');
  },
);

t.test('who comes back is never refused for a full queue', async (t) => {
  const scene = new QueueScene({ permits: 1, maxQueue: 1 });
  const a = scene.guest('a');
  t.equal(scene.guest('b').state, 'waits');
  t.equal(scene.guest('c').state, 'refused');
  scene.limiter.maxConcurrent = 0;
  t.equal(a.again().state, 'waits');
  t.equal(scene.limiter.queued, 2);
});

t.test('denyAll tells all who wait, held or ready, in the order in which they came, and costs no token', async (t) => {
  const scene = new QueueScene({ permits: 1, lanes: LANES });
  const gate = new Gate(0);
  const [open, shut] = [scene.turnstile(gate), scene.turnstile(new Gate())];
  const first = scene.guest('first');
  const guests = [...'abcdefgh'].map((name, i) => {
    return scene.guest(name, i % 3 === 0 ? [] : i % 3 === 1 ? [open] : [open, shut], i % 3);
  });
  // A permit is free at that moment: nobody may slip in while the others are told.
  guests[0]!.onDeny = () => first.finish();
  guests[2]!.onDeny = () => guests[4]!.leave();
  scene.line.denyAll();
  t.same(scene.denied, ['a', 'b', 'c', 'd', 'f', 'g', 'h'], 'e has left meanwhile');
  t.same([scene.ran, gate.taken], [['first'], 0]);
  t.same(scene.left(open, shut), {});
  t.equal(scene.guest('next', [open]).state, 'runs', 'the line goes on as before');
});

t.test('denyAll within a grant, and of an empty line, do no harm', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  scene.line.denyAll();
  const first = scene.guest('first');
  const guests = [...'abc'].map((name) => scene.guest(name));
  guests[0]!.onGrant = () => scene.line.denyAll();
  first.finish();
  t.same(
    [scene.ran, scene.denied],
    [
      ['first', 'a'],
      ['b', 'c'],
    ],
  );
  guests[0]!.finish();
  t.same(scene.left(), {});
  t.equal(scene.guest('next').state, 'runs');
});

t.test('those of another line of the limiter are not denied, and have what is free afterwards', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  const other = new Line(scene.limiter, new Slots(NEVER, 2).regular);
  const first = scene.guest('first');
  scene.guest('a').onDeny = () => first.finish();
  const stranger = new Guest(scene, 'stranger', []);
  other.enqueue(stranger.waiter);
  scene.line.denyAll();
  t.same([scene.ran, scene.denied], [['first', 'stranger'], ['a']]);
});

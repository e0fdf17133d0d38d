// Turnstiles on a timer that ticks each 15 ms: the rate is kept, and never more pass than burst and rate allow.

import fc from 'fast-check';
import t from 'tap';
import type { Turnstile } from '../../../src/flow/turnstile.ts';
import { QueueScene } from '../../support/queue-scene.ts';

/** See turnstile.ts: a token may be taken so much after it was due, and counts as of then. */
const LATENESS_MS = 30;

/** Times of the grants while somebody always waits. */
function backlog(scene: QueueScene, turnstiles: readonly Turnstile[], count: number, forMs: number): number[] {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const guest = scene.guest(`${i}`, turnstiles);
    const ran = () => {
      times.push(scene.clock.time);
      guest.finish();
    };
    if (guest.state === 'runs') ran();
    else guest.onGrant = ran;
  }
  scene.clock.pass(forMs);
  return times;
}

/** The most that passed beyond burst and rate in any window; > 0 = too many. */
function worstExcess(times: readonly number[], intervalMs: number, burst: number): number {
  let worst = Number.NEGATIVE_INFINITY;
  for (let from = 0; from < times.length; from++) {
    for (let to = from; to < times.length; to++) {
      const allowed = burst + (times[to]! - times[from]! + LATENESS_MS) / intervalMs;
      worst = Math.max(worst, to - from + 1 - allowed);
    }
  }
  return worst;
}

for (const [text, intervalMs, burst, forMs] of [
  ['600/min', 100, 1, 60_000],
  ['100/s', 10, 1, 20_000],
  ['1000/s', 1, 1, 5000],
  ['500/min, burst 20', 120, 20, 60_000],
  ['7/s', 1000 / 7, 1, 60_000],
] as const) {
  t.test(`${text} is kept within 1 % in spite of the timer`, async (t) => {
    const scene = new QueueScene();
    const rate = scene.rate(intervalMs, burst);
    const due = burst + forMs / intervalMs;
    const times = backlog(scene, [rate], Math.ceil(due * 1.1), forMs);
    t.ok(times.length >= (due - 1) * 0.99, `${times.length} of ${due}`);
    t.ok(times.length <= due + LATENESS_MS / intervalMs, `${times.length} of ${due}`);
    t.ok(worstExcess(times.slice(0, 2000), intervalMs, burst) <= 1e-6);
  });
}

t.test(
  'a process that is always late by more than the lateness still gets most of a high rate, and never more',
  async (t) => {
    const scene = new QueueScene();
    const rate = scene.rate(10);
    const times: number[] = [];
    for (let i = 0; i < 1000; i++) scene.guest(`${i}`, [rate]).onGrant = () => times.push(scene.clock.time);
    for (let i = 0; i < 100; i++) scene.clock.stall(45);
    t.ok(times.length >= 250, `${times.length} in 4500 ms of stalls`);
    t.ok(worstExcess(times, 10, 1) <= 1e-6);
  },
);

t.test('a full bucket gives its burst and no more, to those who waited for permits', async (t) => {
  const scene = new QueueScene({ permits: 0 });
  const rate = scene.rate(1, 10);
  for (let i = 0; i < 200; i++) scene.guest(`${i}`, [rate]);
  scene.clock.pass(10_000);
  t.equal(scene.ran.length, 0);
  scene.limiter.maxConcurrent = 1000;
  t.equal(scene.ran.length, 10, 'nobody was held up for want of a token');
});

t.test('one who waited for a permit takes the token as of then, also when it was short before', async (t) => {
  const scene = new QueueScene({ permits: 1 });
  const rate = scene.rate(10, 2);
  const guests = [...'abcdefgh'].map((name) => scene.guest(name, [rate]));
  guests[0]!.finish();
  guests[1]!.finish();
  t.same(scene.ran, ['a', 'b'], 'the burst');
  scene.clock.pass(30); // c is due, and runs
  t.same(scene.ran, ['a', 'b', 'c']);
  scene.clock.pass(1000); // full again, and d waits for the permit of c
  scene.limiter.maxConcurrent = 1000;
  t.same(scene.ran, ['a', 'b', 'c', 'd', 'e'], 'two, as the bucket holds');
});

t.test(
  'in any life no window has more than burst, rate and lateness allow, and a backlog is served at the rate',
  async () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 200 }) }),
      fc.record({ kind: fc.constant('stall' as const), ms: fc.integer({ min: 1, max: 60 }) }),
      fc.record({ kind: fc.constant('arrive' as const), count: fc.integer({ min: 1, max: 20 }) }),
      fc.record({ kind: fc.constant('permits' as const), count: fc.constantFrom(0, 1, 3, 1000) }),
    );
    const life = fc.record({
      intervalMs: fc.constantFrom(3, 10, 100, 1000 / 7),
      burst: fc.constantFrom(1, 2, 10),
      steps: fc.array(step, { maxLength: 60, size: 'max' }),
    });
    fc.assert(
      fc.property(life, ({ intervalMs, burst, steps }) => {
        const scene = new QueueScene();
        const rate = scene.rate(intervalMs, burst);
        const times: number[] = [];
        let came = 0;
        const arrive = () => {
          const guest = scene.guest(`${came++}`, [rate]);
          const ran = () => {
            times.push(scene.clock.time);
            guest.finish();
          };
          if (guest.state === 'runs') ran();
          else guest.onGrant = ran;
        };
        for (const step of steps) {
          if (step.kind === 'pass') scene.clock.pass(step.ms);
          else if (step.kind === 'stall') scene.clock.stall(step.ms);
          else if (step.kind === 'permits') scene.limiter.maxConcurrent = step.count;
          else for (let i = 0; i < step.count; i++) arrive();
        }
        const excess = worstExcess(times, intervalMs, burst);
        if (excess > 1e-6) throw new Error(`${excess} too many at ${times.join(' ')}`);
        if (scene.ran.some((name, i) => name !== `${i}`)) throw new Error(`out of order: ${scene.ran.join(' ')}`);
        scene.limiter.maxConcurrent = 1000;
        scene.clock.pass((came - times.length) * intervalMs * 1.01 + 50);
        if (times.length !== came) throw new Error(`${came - times.length} still wait`);
        const left = JSON.stringify(scene.left(rate));
        if (left !== '{}') throw new Error(`left: ${left}`);
      }),
      { numRuns: 500 },
    );
  },
);

// The two laws of the adaptive limit, by examples, and before an upstream that bears so many and no more.
import fc from 'fast-check';
import t from 'tap';
import { type AdaptiveLimit, AimdLimit, adaptiveLimit, GradientLimit } from '../../../src/flow/adaptive-limit.ts';

/** An adaptive limit, its clock, and requests that are in flight for a ms. */
class Scene<L extends AdaptiveLimit> {
  now = 1000;
  readonly law: L;

  constructor(law: L) {
    this.law = law;
  }

  get limit(): number {
    return this.law.limit;
  }

  succeed(times: number, inFlight = this.limit, latencyMs = 1): this {
    for (let i = 0; i < times; i++) {
      const sentAt = this.now;
      this.now += 1;
      this.law.succeeded(inFlight, latencyMs, sentAt, this.now);
    }
    return this;
  }

  drop(times = 1): this {
    for (let i = 0; i < times; i++) {
      const sentAt = this.now;
      this.now += 1;
      this.law.dropped(sentAt, this.now);
      this.now += 1;
    }
    return this;
  }

  /** A whole window of one latency: as many as `samples`, over a second. */
  window(latencyMs: number, inFlight = this.limit, samples = 20): this {
    for (let i = 0; i < samples; i++) {
      this.now += i === samples - 1 ? 1000 : 0;
      this.law.succeeded(inFlight, latencyMs, this.now - latencyMs, this.now);
    }
    return this;
  }
}

const aimd = (min: number, max: number) => new Scene(new AimdLimit(min, max));
const gradient = (min: number, max: number) => new Scene(new GradientLimit(min, max));

t.test('the mode names the law', async (t) => {
  t.ok(adaptiveLimit({ min: 1, max: 5, mode: 'aimd' }) instanceof AimdLimit);
  t.ok(adaptiveLimit({ min: 1, max: 5, mode: 'gradient' }) instanceof GradientLimit);
});

t.test('AIMD starts at the maximum, and takes a tenth away at each drop', async (t) => {
  const scene = aimd(10, 200);
  t.equal(scene.limit, 200);
  t.equal(scene.drop().limit, 180);
  t.equal(scene.drop().limit, 162);
  t.equal(scene.drop().limit, 145, 'whole numbers outside');
  t.equal(scene.drop().limit, 131, 'fractions inside: 131.22, not 130.5');
  t.equal(scene.drop(100).limit, 10, 'never below the minimum');
  t.equal(aimd(5, 5).drop(3).limit, 5);
});

t.test('AIMD adds one for each limit’s worth of successes, up to the maximum', async (t) => {
  const scene = aimd(1, 20).drop();
  t.equal(scene.limit, 18);
  t.equal(scene.succeed(17).limit, 18);
  t.equal(scene.succeed(1).limit, 19, 'eighteen successes: one round trip');
  t.equal(scene.succeed(18).limit, 19);
  t.equal(scene.succeed(1).limit, 20);
  t.equal(scene.succeed(10_000).limit, 20);
  t.equal(scene.drop().limit, 18, 'nothing was saved up beyond the maximum');
});

t.test('AIMD does not grow while less than half of the limit is used', async (t) => {
  const scene = aimd(1, 20).drop();
  t.equal(scene.succeed(10_000, 8).limit, 18);
  t.equal(scene.succeed(18, 9).limit, 19);
});

t.test('AIMD counts one congestion once: drops of requests sent before the decrease say nothing new', async (t) => {
  const { law } = aimd(1, 100);
  for (let i = 0; i < 50; i++) law.dropped(1000, 1100 + i);
  t.equal(law.limit, 90);
  law.dropped(1100, 1200);
  t.equal(law.limit, 90, 'sent at that very moment');
  law.dropped(1101, 1200);
  t.equal(law.limit, 81);
  law.dropped(1150, 1300);
  t.equal(law.limit, 81, 'sent after the first, before the second');
});

t.test('AIMD does not grow by successes of requests sent before the decrease', async (t) => {
  const { law } = aimd(1, 100);
  law.dropped(1000, 1100);
  for (let i = 0; i < 1000; i++) law.succeeded(90, 500, 1000, 1500);
  t.equal(law.limit, 90);
  for (let i = 0; i < 90; i++) law.succeeded(90, 500, 1101, 1600);
  t.equal(law.limit, 91);
});

/** Callers who use all of the limit, round after round, before an upstream that takes `capacity` and refuses the rest. */
function rounds(scene: Scene<AdaptiveLimit>, capacity: number, count: number, latencyMs = 1000) {
  const { law } = scene;
  const limits: number[] = [];
  let sent = 0;
  let refused = 0;
  for (let round = 0; round < count; round++) {
    const inFlight = law.limit;
    const sentAt = scene.now;
    sent += inFlight;
    // Refusals come at once, answers after the latency.
    for (let i = capacity; i < inFlight; i++, refused++) law.dropped(sentAt, sentAt + 50);
    scene.now += latencyMs;
    for (let i = 0; i < Math.min(capacity, inFlight); i++) law.succeeded(inFlight, latencyMs, sentAt, scene.now);
    scene.now += 1;
    limits.push(law.limit);
  }
  return { limits, refused: refused / sent };
}

t.test('AIMD finds what the upstream bears and stays close to it', async (t) => {
  for (const capacity of [10, 30, 100]) {
    const scene = aimd(2, 200);
    const { limits } = rounds(scene, capacity, 60);
    t.ok(limits.indexOf(limits.find((limit) => limit <= capacity)!) < 32, 'found within 32 round trips from 200');
    const after = rounds(scene, capacity, 300);
    const [least, most] = [Math.min(...after.limits), Math.max(...after.limits)];
    t.ok(least >= Math.floor(capacity * 0.89) && most <= capacity + 1, `${least}..${most} at ${capacity}`);
    t.ok(after.refused < 0.06, `${after.refused} refused`);
  }
});

t.test('AIMD follows when the upstream bears less, and when it bears more again', async (t) => {
  const scene = aimd(2, 100);
  rounds(scene, 80, 100);
  t.ok(rounds(scene, 20, 30).limits.at(-1)! <= 21);
  const { limits } = rounds(scene, 80, 80);
  t.ok(limits.at(-1)! >= 70, `${limits.at(-1)}`);
  t.ok(
    limits.every((limit, i) => i === 0 || limit - limits[i - 1]! <= 1),
    'by one in a round trip',
  );
});

t.test('the gradient starts at twenty, or what of it the bounds allow', async (t) => {
  t.equal(gradient(5, 200).limit, 20);
  t.equal(gradient(30, 200).limit, 30);
  t.equal(gradient(2, 8).limit, 8);
});

t.test('at even latency the gradient lets four more queue, by a fifth of it with each window', async (t) => {
  const scene = gradient(5, 200);
  t.equal(scene.window(100).limit, 20, '20.8');
  t.equal(scene.window(100).limit, 21, '21.6');
  for (let i = 0; i < 3; i++) scene.window(100);
  t.equal(scene.limit, 24);
  for (let i = 0; i < 300; i++) scene.window(100);
  t.equal(scene.limit, 200);
});

t.test('the gradient bears latency up to half above the average', async (t) => {
  const scene = gradient(5, 200);
  for (let i = 0; i < 20; i++) scene.window(100);
  const before = scene.limit;
  t.ok(scene.window(145).limit >= before, '1.45 times');
});

t.test('the gradient takes away in proportion, and never more than a tenth in one window', async (t) => {
  // long = 100 after ten windows; then 100 + (x − 100) · 2/601.
  const expect = (limit: number, latencyMs: number) => {
    const long = 100 + ((latencyMs - 100) * 2) / 601;
    const g = Math.max(0.5, Math.min(1, (1.5 * long) / latencyMs));
    return 0.8 * limit + 0.2 * (g * limit + 4);
  };
  for (const latencyMs of [100, 200, 250, 299, 1000, 100_000]) {
    const scene = gradient(5, 1000);
    let exact = 20;
    for (let i = 0; i < 100; i++) {
      scene.window(100);
      exact = expect(exact, 100);
    }
    t.equal(scene.limit, Math.floor(exact + 1e-9));
    scene.window(latencyMs);
    t.equal(scene.limit, Math.floor(expect(exact, latencyMs) + 1e-9), `${latencyMs} ms`);
    if (latencyMs >= 1000) t.equal(scene.limit, Math.floor(exact * 0.9 + 0.8 + 1e-9));
  }
});

t.test('the long average is a plain mean at first, then slow', async (t) => {
  const scene = gradient(1, 1000);
  // Mean of 100 and 700 = 400: 1.5 · 400 / 700 = 0.857.
  scene.window(100);
  scene.window(700);
  t.equal(scene.limit, Math.floor(0.8 * 20.8 + 0.2 * (((1.5 * 400) / 700) * 20.8 + 4)));
});

t.test('the gradient leaves the limit alone while less than half of it is used', async (t) => {
  const scene = gradient(5, 200);
  for (let i = 0; i < 50; i++) scene.window(100, 9);
  t.equal(scene.limit, 20);
  scene.window(10_000, 9);
  t.equal(scene.limit, 20, 'a slow answer of few is no queue either');
  scene.window(100, 10);
  t.equal(scene.window(100, 11).limit, 21, 'half of it is enough, both times');
});

t.test('after a long bad time the long average comes down by a twentieth with each window', async (t) => {
  const scene = gradient(5, 1000);
  for (let i = 0; i < 10; i++) scene.window(1000);
  // Well again: without the decay the average would still be above 900 after thirty windows, and nine times the latency unseen.
  for (let i = 0; i < 30; i++) scene.window(100);
  t.equal(scene.limit, 52);
  t.equal(scene.window(900).limit, 47);
});

t.test('a window lasts a second and has ten samples, or it goes on', async (t) => {
  const short = gradient(5, 200);
  for (let i = 0; i < 999; i++) short.succeed(1, 20, 100);
  t.equal(short.limit, 20);
  const few = gradient(5, 200);
  for (let i = 0; i < 9; i++) {
    few.now += 2000;
    few.law.succeeded(20, 100, few.now - 100, few.now);
  }
  for (let i = 0; i < 5; i++) few.window(100, 20, 10);
  t.equal(few.limit, 24, 'nine in eighteen seconds are kept for the tenth');
  const faulty = gradient(5, 200);
  for (let i = 0; i < 10; i++) faulty.window(0.05);
  t.equal(faulty.limit, 20, 'less than a tenth of a ms is no latency');
});

t.test('the busiest moment of a window decides whether the limit was used', async (t) => {
  const scene = gradient(5, 200);
  for (let i = 0; i < 5; i++) {
    scene.law.succeeded(20, 100, scene.now, scene.now);
    scene.window(100, 1);
  }
  t.equal(scene.limit, 24);
  for (let i = 0; i < 5; i++) scene.window(100, 1);
  t.equal(scene.limit, 24, 'of that window only');
});

t.test('a drop takes a tenth from the gradient too, once for each congestion', async (t) => {
  const { law } = gradient(5, 200);
  for (let i = 0; i < 50; i++) law.dropped(1000, 1100 + i);
  t.equal(law.limit, 18);
  law.dropped(1101, 1200);
  t.equal(law.limit, 16);
  for (let i = 0; i < 100; i++) law.dropped(2000 + i, 2000.5 + i);
  t.equal(law.limit, 5);
});

/** An API of even latency that works on `servers` at once and queues the rest. */
function queueing(law: AdaptiveLimit, servers: number, windows: number): number[] {
  const limits: number[] = [];
  let now = 1000;
  for (let window = 0; window < windows; window++) {
    const latencyMs = 100 * Math.max(1, law.limit / servers);
    for (let sample = 0; sample < 20; sample++) {
      now += 55;
      law.succeeded(law.limit, latencyMs, now - latencyMs, now);
    }
    limits.push(law.limit);
  }
  return limits;
}

t.test('before an upstream that queues, the gradient stops where the queue begins to show', async (t) => {
  const limits = queueing(new GradientLimit(5, 1000), 50, 200);
  t.ok(Math.max(...limits) < 110, `${Math.max(...limits)} for 50 servers, of 1000 allowed`);
  t.ok(limits.at(-1)! >= 50, `${limits.at(-1)}: all servers are used`);
});

t.test('whatever an upstream does, the limit is a whole number within its bounds', async () => {
  const event = fc.record({
    kind: fc.constantFrom('success', 'success', 'success', 'drop'),
    inFlight: fc.nat({ max: 300 }),
    latencyMs: fc.oneof(fc.double({ min: 0, max: 10, noNaN: true }), fc.double({ min: 0, max: 600_000, noNaN: true })),
    passMs: fc.nat({ max: 2000 }),
    repeat: fc.integer({ min: 1, max: 30 }),
  });
  const bounds = fc
    .tuple(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 200 }))
    .map(([a, b]) => ({ min: Math.min(a, b), max: Math.max(a, b) }));
  fc.assert(
    fc.property(
      bounds,
      fc.constantFrom('aimd', 'gradient'),
      fc.array(event, { maxLength: 60 }),
      (bounds, mode, events) => {
        const law = adaptiveLimit({ ...bounds, mode });
        let now = 0;
        const check = () => {
          const { limit } = law;
          if (!Number.isInteger(limit) || limit < bounds.min || limit > bounds.max) throw new Error(`${limit}`);
        };
        check();
        for (const { kind, inFlight, latencyMs, passMs, repeat } of events)
          for (let i = 0; i < repeat; i++) {
            now += passMs / repeat;
            const before = law.limit;
            if (kind === 'success') law.succeeded(inFlight, latencyMs, now - latencyMs, now);
            else law.dropped(now - latencyMs, now);
            check();
            if (kind === 'drop' && law.limit > before) throw new Error('grew by a drop');
          }
      },
    ),
  );
});

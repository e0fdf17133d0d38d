// No path, in any encoding, leaves an upstream's base path or reaches another upstream: random targets against the rules alone, and
// through a proxy to recording upstreams. `npm run fuzz -- --targets 1000000` runs more of the first; FUZZ_SEED repeats a run.

import t from 'tap';
import { escapes } from '../support/fuzz/escapes.ts';
import { runCases, runsAndSeed } from '../support/fuzz/run.ts';
import { TargetField, TargetFuzz } from '../support/fuzz/target-field.ts';
import { TARGET_CASE } from '../support/fuzz/target-grammar.ts';

const { runs, seed } = runsAndSeed(4000);

t.setTimeout(60_000 + runs * 5);

t.test('the searcher for escapes finds them', async (t) => {
  for (const path of [
    '/up/..',
    '/up/a/../../b',
    '/up/%252e%252e/%25zz',
    '/up/..;x/y',
    '/up/..%3f',
    '/up/a\\..\\..\\b',
    '/up/%c0%ae%c0%ae/x',
    '/up/%e0%80%ae./x',
    '/up/%f0%80%80%ae./x',
    '/up/x%c0%af..%c0%af..',
    '/up/%25u002e%25u002e/x',
    '/up/.%00/../..',
  ]) {
    t.ok(escapes(path, ['up']), path);
  }
  for (const path of ['/up', '/up/a/../b', '/up/a%252f..', '/up/...', '/up/%c3%a9', '/up/%e2%82%ac'])
    t.equal(escapes(path, ['up']), null, path);
});

/** Found by random cases, and refused since. */
const FOUND = [
  '/ai/%c0%ae%c0%ae/x',
  '/ai/%e0%80%ae%e0%80%ae/x',
  '/ai/%f0%80%80%ae./x',
  '/ai/a%c0%af..%c0%af..%c0%afx',
  '/ai/%25c0%25ae./x',
  '/ai/%25u002e%25u002e/x',
  '/ai/x%c1%9c..%c1%9c..',
  // new URL() of what was decoded drops the blank.
  '/ai/..%20',
];

t.test('targets that went wrong once', async (t) => {
  const rules = await TargetFuzz.start();
  for (const target of FOUND) await rules.check({ target });
  t.same(rules.counts, { accepted: 0, refused: 2 * FOUND.length });
});

t.test(`${runs} random targets, seed ${seed}`, async (t) => {
  for (const fuzz of [await TargetFuzz.start(), await TargetField.start()]) {
    const failure = await runCases(TARGET_CASE, (one) => fuzz.check(one), runs, seed);
    t.equal(failure, null, failure ? `seed ${failure.seed}: ${failure.message}` : 'all hold');
    t.comment(JSON.stringify(fuzz.counts));
    t.ok(fuzz.counts.accepted > runs / 20, 'some are accepted, so there was something to look at');
    t.ok(fuzz.counts.refused > runs / 4, 'and a good part is refused');
    await fuzz.close();
  }
});

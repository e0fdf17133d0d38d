// npm run fuzz: many random cases of what the fuzz tests check a few thousand of. Ends at the first that goes wrong, with its seed.
import { parseArgs } from 'node:util';
import type fc from 'fast-check';
import { AnswerFuzz } from '../test/support/fuzz/answer-field.ts';
import { ANSWER_CASE } from '../test/support/fuzz/answer-grammar.ts';
import { RequestFuzz } from '../test/support/fuzz/request-field.ts';
import { REQUEST_CASE } from '../test/support/fuzz/request-grammar.ts';
import { runCases } from '../test/support/fuzz/run.ts';
import { TargetFuzz } from '../test/support/fuzz/target-field.ts';
import { TARGET_CASE } from '../test/support/fuzz/target-grammar.ts';

const USAGE = `npm run fuzz -- [--requests N] [--answers N] [--targets N] [--seed S]
  --requests  random raw requests, compared at the upstream with what Node's own parser reads
  --answers   random raw answers, compared at the client with what Node's own parser reads
  --targets   random request targets: none leaves an upstream's base path or reaches another upstream
  --seed      of the first batch of 1000 cases; each further batch has the next. A failure names the one that repeats it`;

/** A line of progress at most this often, ms. */
const TELL_EVERY_MS = 5000;

interface Kind<Case> {
  readonly cases: fc.Arbitrary<Case>;
  readonly start: () => Promise<Fuzz<Case>>;
}

interface Fuzz<Case> {
  check(one: Case): Promise<void>;
  /** What came of the cases, by name. */
  readonly counts: Readonly<Record<string, number>>;
  close(): Promise<void>;
}

process.exitCode = await main();

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      requests: { type: 'string', default: '0' },
      answers: { type: 'string', default: '0' },
      targets: { type: 'string', default: '0' },
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    },
  });
  const numbers = [values.requests, values.answers, values.targets, values.seed].map(Number);
  const [requests = 0, answers = 0, targets = 0, seed = 0] = numbers;
  if (!numbers.every((n) => Number.isSafeInteger(n) && n >= 0) || requests + answers + targets === 0) {
    console.error(USAGE);
    return 2;
  }
  const sound = [
    await run('requests', { cases: REQUEST_CASE, start: RequestFuzz.start }, requests, seed),
    await run('answers', { cases: ANSWER_CASE, start: AnswerFuzz.start }, answers, seed),
    await run('targets', { cases: TARGET_CASE, start: TargetFuzz.start }, targets, seed),
  ];
  return sound.every(Boolean) ? 0 : 1;
}

/** @returns whether nothing went wrong */
async function run<Case>(name: string, { cases, start }: Kind<Case>, runs: number, seed: number): Promise<boolean> {
  if (runs === 0) return true;
  console.log(`${name}: ${runs} cases, seed ${seed}`);
  const fuzz = await start();
  const startedAt = performance.now();
  let toldAt = startedAt;
  const failure = await runCases(
    cases,
    (one) => fuzz.check(one),
    runs,
    seed,
    (done) => {
      const now = performance.now();
      if (now - toldAt < TELL_EVERY_MS && done < runs) return;
      toldAt = now;
      console.log(`${name}: ${done} clean after ${Math.round((now - startedAt) / 1000)} s`);
    },
  );
  for (const [what, count] of Object.entries(fuzz.counts)) console.log(`${name}: ${count} ${what}`);
  await fuzz.close();
  if (failure) console.log(`${name}: FAILED, repeat with --${name} 1000 --seed ${failure.seed}\n${failure.message}`);
  return failure === null;
}

// Runs random cases in batches, so that a long run tells how far it is, and any failure by the seed of its batch.

import fc from 'fast-check';

export interface Failure {
  /** Repeats it: FUZZ_SEED of the test, `--seed` of `npm run fuzz`. */
  readonly seed: number;
  readonly message: string;
}

const BATCH = 1000;

/** Its own batches have the seeds that follow, so that any of them is repeated by itself. */
export async function runCases<Case>(
  cases: fc.Arbitrary<Case>,
  check: (one: Case) => Promise<void>,
  runs: number,
  seed: number,
  progress: (done: number) => void = () => {},
): Promise<Failure | null> {
  for (let done = 0, batch = 0; done < runs; batch++) {
    const numRuns = Math.min(BATCH, runs - done);
    const property = fc.asyncProperty(cases, check);
    const result = await fc.check(property, { numRuns, seed: seed + batch });
    if (result.failed)
      return { seed: seed + batch, message: `${result.errorInstance}\n${fc.defaultReportMessage(result)}` };
    done += numRuns;
    progress(done);
  }
  return null;
}

/** Of a test: FUZZ_RUNS and FUZZ_SEED from the environment. */
export function runsAndSeed(defaultRuns: number): { readonly runs: number; readonly seed: number } {
  const { FUZZ_RUNS, FUZZ_SEED } = process.env;
  return {
    runs: FUZZ_RUNS === undefined ? defaultRuns : Number(FUZZ_RUNS),
    seed: FUZZ_SEED === undefined ? Date.now() % 2 ** 31 : Number(FUZZ_SEED),
  };
}

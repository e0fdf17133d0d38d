// Random and mutated raw answers of an upstream through the proxy, with node:http's strict client as the oracle: for each request exactly
// one well-formed answer or a visible cut, equal in meaning to what Node reads in the same bytes, or a 502 where Node gives up; and the
// next request gets its own answer. `npm run fuzz -- --answers 100000` runs more of them; FUZZ_SEED repeats a run.

import t from 'tap';
import { AnswerFuzz } from '../support/fuzz/answer-field.ts';
import { ANSWER_CASE, type AnswerCase } from '../support/fuzz/answer-grammar.ts';
import { runCases, runsAndSeed } from '../support/fuzz/run.ts';

const { runs, seed } = runsAndSeed(2000);

t.setTimeout(60_000 + runs * 20);

/** Each went wrong before it was mended: what was done with it then. */
const FOUND: Readonly<Record<string, string>> = {
  // Passed on, though nobody knows how its body ends (seed 511).
  'an interim answer with an empty Transfer-Encoding':
    'HTTP/1.1 102 OK\r\nX-Number: ########\r\nTransfer-Encoding:\r\n\r\nhello',
  // A 502 for a good answer (seed 526).
  'a blank behind chunked':
    'HTTP/1.1 201 OK\r\nX-Number: ########\r\nTransfer-Encoding: chunked \r\n\r\n05\r\nhello\r\n0\r\n\r\n',
  // Begun, and then cut or left to a deadline.
  'a blank behind a length of 0': 'HTTP/1.1 200 OK\r\nX-Number: ########\r\nContent-Length: 0 \r\n\r\n',
  'a length beyond exact numbers':
    'HTTP/1.1 200 OK\r\nX-Number: ########\r\nContent-Length: 9007199254740992\r\n\r\nhello',
  // Passed on as they stood.
  'a coding on HTTP/1.0':
    'HTTP/1.0 200 OK\r\nX-Number: ########\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
  'HTTP/2.0 in a status line': 'HTTP/2.0 200 OK\r\nX-Number: ########\r\nContent-Length: 5\r\n\r\nhello',
  'a reason longer than any head': `HTTP/1.1 200 ${'y'.repeat(5000)}\r\nX-Number: ########\r\nContent-Length: 5\r\n\r\nhello`,
};

t.test('answers that went wrong once', async (t) => {
  const fuzz = await AnswerFuzz.start();
  for (const [name, text] of Object.entries(FOUND)) {
    for (const method of ['GET', 'HEAD'] as const) {
      for (const end of ['open', 'fin', 'reset'] as const) {
        for (const cuts of [[], [2000, 5000]]) {
          const one: AnswerCase = { text, cuts, end, method, http10: false };
          await t.resolves(fuzz.check(one), `${name}, ${method}, ${end}, ${cuts}`);
        }
      }
    }
  }
  await fuzz.close();
});

t.test(`${runs} random answers, seed ${seed}`, async (t) => {
  const fuzz = await AnswerFuzz.start();
  const failure = await runCases(ANSWER_CASE, (one) => fuzz.check(one), runs, seed);
  t.equal(failure, null, failure ? `seed ${failure.seed}: ${failure.message}` : 'all hold');
  const { passed, cut, refused, open } = fuzz.outcomes;
  t.comment(`passed ${passed}, cut ${cut}, refused ${refused}, open ${open}`);
  for (const [name, count] of fuzz.exceptions) t.comment(`${count} times ${name}`);
  t.ok(passed > runs / 5, 'a good part of the answers passes');
  t.ok(cut > runs / 50, 'some are cut');
  t.ok(refused > runs / 10, 'and a good part is refused');
  t.equal(fuzz.bugs, 0, 'no bug was met');
  await fuzz.close();
});

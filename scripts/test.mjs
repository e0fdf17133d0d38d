// Runs the tests with tap and closes with a plain line `N passed, N failed`, which no tap reporter prints.
// `npm test` runs all; `npm test -- test/unit/limiter.test.ts` runs what is named.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Parser } from 'tap-parser';

const tap = fileURLToPath(import.meta.resolve('tap')).replace(/dist.*$/, 'dist/esm/run.mjs');
const child = spawn(process.execPath, [tap, '-R', 'tap', ...process.argv.slice(2)], {
  stdio: ['inherit', 'pipe', 'inherit'],
});

let passed = 0;
let failed = 0;
let skipped = 0;
const failures = [];

/** Counts leaf assertions: a point that closes a child test only repeats the sum of its children. */
function count(parser, path) {
  const own = { failed: 0 };
  let child = own;
  parser.on('child', (childParser) => {
    child = count(childParser, [...path, childParser.name]);
  });
  parser.on('assert', (point) => {
    const name = [...path, point.name].join(' > ');
    if (point.closingTestPoint) own.failed += child.failed;
    if (point.skip || point.todo) {
      skipped++;
      console.log(`SKIPPED ${name}${typeof point.skip === 'string' ? `: ${point.skip}` : ''}`);
    } else if (point.ok) {
      if (!point.closingTestPoint) passed++;
    } else if (!(point.closingTestPoint && child.failed > 0)) {
      own.failed++;
      failed++;
      failures.push(name);
    }
  });
  return own;
}

const parser = new Parser();
count(parser, []);
child.stdout.setEncoding('utf8');
child.stdout.on('data', (chunk) => {
  parser.write(chunk);
  process.stdout.write(chunk);
});
const [code, signal] = await once(child, 'close');
parser.end();
for (const name of failures) console.log(`FAILED ${name}`);
if (failed === 0 && (code !== 0 || passed + skipped === 0)) {
  // Never a false success: tap says why above, or was killed, or no test ran.
  failed = 1;
  console.log(`FAILED tap itself: ${signal ?? `exit code ${code}`}, ${passed} passed`);
}
console.log(`${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed ? 1 : 0;

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
  parser.on('assert', (point) => {
    if (point.closingTestPoint && point.ok) return;
    if (point.skip || point.todo) {
      skipped++;
      console.log(`SKIPPED ${[...path, point.name].join(' > ')}${typeof point.skip === 'string' ? `: ${point.skip}` : ''}`);
    } else if (point.ok) passed++;
    else {
      failed++;
      failures.push([...path, point.name].join(' > '));
    }
  });
  parser.on('child', (child) => count(child, [...path, child.name]));
}

const parser = new Parser();
count(parser, []);
child.stdout.on('data', (chunk) => {
  parser.write(chunk);
  process.stdout.write(chunk);
});
const [code] = await once(child, 'close');
parser.end();
for (const name of failures) console.log(`FAILED ${name}`);
if (passed + failed === 0) failed = 1; // no test ran: that is a failure, never a success
console.log(`${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`);
process.exitCode = code || (failed ? 1 : 0);

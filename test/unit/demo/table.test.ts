// The table and the words below it, from made-up measurements.
import { PassThrough } from 'node:stream';
import t from 'tap';
import { Progress } from '../../../src/demo/progress.ts';
import { type Measurement, renderSummary, renderTable } from '../../../src/demo/table.ts';

function measurement(ms: number, connections: number, reasons: [string, number][] = []): Measurement {
  const errors = reasons.reduce((sum, [, count]) => sum + count, 0);
  const latenciesMs = Array.from({ length: 40 - errors }, () => ms);
  const load = { calls: 40, errors, reasons: new Map(reasons), latenciesMs, elapsedMs: 4000 };
  return { load, connections, reuseRate: 1 - connections / 40 };
}

t.test('the table sets before and after below each other', async (t) => {
  const text = renderTable([{ users: 1, direct: measurement(200, 40), proxied: measurement(120, 1) }], false);
  t.equal(
    text,
    [
      'users  path        p50 ms    p95 ms    calls/s   connections     reuse   errors',
      '───────────────────────────────────────────────────────────────────────────────',
      '    1  direct         200       200       10.0            40       0 %        0',
      '       aiproxy        120       120       10.0             1    97.5 %        0',
      '       change       -40 %     -40 %        0 %',
      '───────────────────────────────────────────────────────────────────────────────',
      '',
    ].join('\n'),
  );
  t.notMatch(text, '\x1b');
  t.match(renderTable([{ users: 1, direct: measurement(2, 1), proxied: measurement(1, 1) }], true), '\x1b[1m');
});

t.test('a load of which all calls failed shows no invented number', async (t) => {
  const failed = measurement(1, 0, [['ECONNRESET', 40]]);
  const text = renderTable([{ users: 1, direct: measurement(200, 40), proxied: failed }], false);
  t.match(text, /aiproxy +- +- +0\.0/);
  t.notMatch(text, 'NaN');
});

t.test('the summary names what failed, on which side and how often', async (t) => {
  const good = { users: 1, direct: measurement(200, 40), proxied: measurement(120, 0) };
  t.notMatch(renderSummary([good], 40), 'failed');
  const bad = { ...good, proxied: measurement(120, 0, [['status 502 (upstream_reset)', 2]]) };
  t.match(renderSummary([bad], 40).replaceAll('\n', ' '), 'through aiproxy: status 502 (upstream_reset) (2)');
  t.ok(
    renderSummary([bad], 40)
      .split('\n')
      .every((line) => line.length <= 79),
  );
});

t.test('progress is rewritten in place on a terminal and a plain line elsewhere', async (t) => {
  const plain = new PassThrough();
  const progress = new Progress(plain);
  progress.begin('10 users', 30);
  progress.update(15);
  progress.clear();
  t.equal(String(plain.read()), '10 users ...\n');

  const terminal = Object.assign(new PassThrough(), { isTTY: true });
  const rewriting = new Progress(terminal);
  rewriting.begin('10 users', 30);
  rewriting.clear();
  t.match(String(terminal.read(terminal.readableLength)), /^\r\x1b\[2K10 users {2}\[\.{20}\] 0\/30\r\x1b\[2K$/);
});

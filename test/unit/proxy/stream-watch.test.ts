// When a silent stream gets a heartbeat and a slow one its end, by a clock that only says what a test wants.

import t from 'tap';
import type { StreamConfig } from '../../../src/config/schema.ts';
import { EventBoundary } from '../../../src/http/event-boundary.ts';
import type { Client } from '../../../src/proxy/client.ts';
import { StreamWatch } from '../../../src/proxy/stream-watch.ts';

const CONFIG: StreamConfig = { heartbeatMs: 100, minRate: 1000, minRateWindowMs: 500, errorEvent: true };
const READS = { unsent: 0 } as Client;
const BEHIND = { unsent: 1 } as Client;
const START = 10_000;

const watching = () => new StreamWatch(CONFIG, 0, true, new EventBoundary(), START);
const judging = () => new StreamWatch(CONFIG, CONFIG.minRate, false, null, START);
const bytes = (count: number) => Buffer.alloc(count, 'x');

t.test('a heartbeat is due so long after the last byte, of either kind', async (t) => {
  const watch = watching();
  t.equal(watch.nextAt(false), START + 100);
  t.equal(watch.heartbeat(READS, START + 99), null);
  t.equal(String(watch.heartbeat(READS, START + 100)), ': heartbeat\n\n');
  t.equal(watch.nextAt(false), START + 200);
  watch.passes(Buffer.from('data: x\n\n'), START + 150);
  t.equal(watch.nextAt(false), START + 250);
  t.equal(watch.heartbeat(READS, START + 200), null);
  t.ok(watch.heartbeat(READS, START + 250));
});

t.test('within an event, or with bytes on their way, it is looked at again after as long', async (t) => {
  const watch = watching();
  t.equal(watch.heartbeat(BEHIND, START + 100), null);
  t.equal(watch.nextAt(false), START + 200);
  watch.passes(Buffer.from('data: x\n'), START + 150);
  t.equal(watch.heartbeat(READS, START + 250), null);
  t.equal(watch.nextAt(false), START + 350);
  watch.passes(Buffer.from('\n'), START + 300);
  t.ok(watch.heartbeat(READS, START + 400));
});

t.test('a window that is not kept is too slow, one that is kept is followed by the next', async (t) => {
  const watch = judging();
  t.equal(watch.nextAt(false), START + 500);
  watch.passes(bytes(500), START + 10);
  t.equal(watch.isTooSlow(START + 499, false), false);
  t.equal(watch.isTooSlow(START + 500, false), false, 'exactly enough');
  t.equal(watch.nextAt(false), START + 1000);
  watch.passes(bytes(499), START + 999);
  t.equal(watch.isTooSlow(START + 1000, false), true, 'one byte short');
});

t.test('while the upstream is paused nothing is judged, and a new window begins after it', async (t) => {
  const watch = judging();
  watch.passes(bytes(400), START + 10);
  t.equal(watch.nextAt(true), Number.POSITIVE_INFINITY);
  t.equal(watch.isTooSlow(START + 5000, true), false);
  watch.resumed(START + 6000);
  t.equal(watch.nextAt(false), START + 6500);
  t.equal(watch.isTooSlow(START + 6400, false), false);
  watch.passes(bytes(200), START + 6410);
  t.equal(watch.isTooSlow(START + 6500, false), true, 'what came before the pause does not count');
});

t.test('what nobody asked for is never due', async (t) => {
  const silent = { ...CONFIG, heartbeatMs: Number.POSITIVE_INFINITY };
  const watch = new StreamWatch(silent, 0, true, new EventBoundary(), START);
  t.equal(watch.nextAt(false), Number.POSITIVE_INFINITY);
  t.equal(watch.heartbeat(READS, START + 1e9), null);
  t.equal(watch.isTooSlow(START + 1e9, false), false);
  t.equal(judging().lastWord('upstream_cut', ''), null);
});

t.test('the last word is one line of JSON, whatever the detail', async (t) => {
  const word = String(watching().lastWord('upstream_cut', 'a\nb\r\n\n"c"'));
  const [name, line, ...rest] = word.split('\n');
  t.equal(name, 'event: error');
  t.same(rest, ['', '']);
  const { error } = JSON.parse(line!.slice('data: '.length));
  t.match(error, { code: 'upstream_cut', type: 'aiproxy_error', param: null, message: /: a\nb\r\n\n"c"$/ });
  for (const code of ['client_gone', 'client_stalled'] as const) t.equal(watching().lastWord(code, ''), null);
});

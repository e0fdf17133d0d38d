// The page in a real browser: it shows the source's numbers, and hostile names stay text.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Script } from 'node:vm';
import t, { type Test } from 'tap';
import type { StatsSnapshot } from '../../src/observe/snapshot.ts';
import { DASHBOARD_HTML, DASHBOARD_JS } from '../../src/server/dashboard.ts';
import { StatsPort } from '../../src/server/stats-port.ts';
import { PLAIN_LIMITER, plainPart, spoil } from '../support/fake-resilience.ts';
import { FakeStats, HOSTILE } from '../support/fake-stats.ts';

const CHROMIUM = '/usr/bin/chromium';
const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'],
  ...['--disable-background-networking', '--disable-component-update', '--enable-logging=stderr', '--dump-dom'],
];
t.setTimeout(100_000);

const missing = existsSync(CHROMIUM) ? false : `${CHROMIUM} is not installed`;

/** The page's DOM after some seconds of its own time, and what it wrote to the console. */
async function open(url: string, virtualMs: number): Promise<{ dom: string; complaints: string[] }> {
  const profile = mkdtempSync(join(tmpdir(), 'aiproxy-chromium-'));
  const browser = spawn(CHROMIUM, [...FLAGS, `--user-data-dir=${profile}`, `--virtual-time-budget=${virtualMs}`, url]);
  let [dom, log] = ['', ''];
  browser.stdout.on('data', (chunk) => {
    dom += chunk;
  });
  browser.stderr.on('data', (chunk) => {
    log += chunk;
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  browser.once('error', reject).once('close', () => resolve());
  await promise;
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  return { dom, complaints: log.split('\n').filter((line) => line.includes('CONSOLE')) };
}

async function show(t: Test, source: FakeStats, virtualMs = 5_000) {
  const statsPort = new StatsPort(source, []);
  t.teardown(() => statsPort.stop());
  const { port } = await statsPort.start({ host: '127.0.0.1', port: 0, path: '', text: '127.0.0.1:0' });
  return open(`http://127.0.0.1:${port}/`, virtualMs);
}

/** The busy page, opened once for all who only look at it. */
let busy: ReturnType<typeof show> | null = null;
const showBusy = () => (busy ??= show(t, new FakeStats()));

/** The text of an upstream's line about the cache; null = none is shown. */
function cachedLine(dom: string, upstream: string): string | null {
  const [, attributes, line] =
    new RegExp(`<h3>${upstream}</h3>.*?</header><p class="cached"([^>]*)>(.*?)</p>`, 's').exec(dom) ?? [];
  return line === undefined || attributes!.includes('hidden') ? null : line.replace(/<[^>]+>/g, '');
}

/** A source whose every answer is altered on its way out. */
function altered(alter: (snapshot: StatsSnapshot) => void): FakeStats {
  const source = new FakeStats();
  const stats = source.stats.bind(source);
  source.stats = () => {
    const snapshot = stats();
    alter(snapshot);
    return snapshot;
  };
  return source;
}

/** One card of the page. */
function cardOf(dom: string, name: string): string {
  const cards = [...dom.matchAll(/<article class="card [^>]*>.*?<\/article>/gs)];
  return cards.find(([it]) => it.includes(`<h3>${name}</h3>`))?.[0] ?? '';
}

/** The same without whatever is hidden inside small parts. */
function card(dom: string, name: string): string {
  return cardOf(dom, name).replace(/<b class="pill" hidden.*?<\/b>|<div hidden="">.*?<\/div>/gs, '');
}

/** The rows of a table, cells parted by |. */
function rows(dom: string, caption: string): string[] {
  const [, grid = ''] = new RegExp(`>${caption}</caption>(.*?)</table>`, 's').exec(dom) ?? [];
  return [...grid.matchAll(/<tr>(.*?)<\/tr>/gs)].map(([, cells = '']) =>
    cells.replace(/<\/t[hd]><t[hd]/g, ' | <').replace(/<[^>]*>/g, ''),
  );
}

/** The lines above everything, as [level, text]. */
function troubles(dom: string): [string, string][] {
  const [, list = ''] = /<ul id="troubles"[^>]*>(.*?)<\/ul>/s.exec(dom) ?? [];
  return [...list.matchAll(/<li data-level="(\w+)">(.*?)<\/li>/gs)].map(([, level = '', line = '']) => [
    level,
    line.replace('</b>', ': ').replace(/<[^>]*>/g, ''),
  ]);
}

t.test('the page has no inline script or style, and its script is well-formed', async (t) => {
  t.notMatch(DASHBOARD_HTML, /<style|style=|\son\w+=|<script(?![^>]*src=)/);
  t.notMatch(DASHBOARD_JS, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(/);
  t.doesNotThrow(() => new Script(DASHBOARD_JS));
});

t.test('the page shows the numbers of the source', { skip: missing }, async (t) => {
  const { dom, complaints } = await showBusy();
  t.strictSame(complaints, [], 'no console errors');
  t.match(dom, 'data-state="serving">serving<');
  t.match(dom, /0\.1\.0 .* Node 26\.10\.0 .* up 3 h 3 min/);
  t.match(dom, '<h3>openai</h3>');
  t.match(dom, 'https://api.openai.com');
  t.match(dom, /<dt>Peak queue<\/dt><dd>148<\/dd>/);
  t.match(dom, /idle timeout <b>120<\/b>/);
  t.match(dom, /<dt>Reuse<\/dt><dd>99\.\d %<\/dd>/);
  t.match(dom, /class="line" d="M[\d.]+ [\d.]+L/, 'after two looks there is a curve');
  t.match(dom, 'No requests yet', 'the upstream without traffic says so');
  t.match(dom, /id="alarm"[^>]* hidden=""/);
});

t.test('the card of the cache, and a line per upstream that has one', { skip: missing }, async (t) => {
  const { dom, complaints } = await showBusy();
  t.strictSame(complaints, []);
  t.match(dom, /<section aria-labelledby="cache-title">/, 'not hidden');
  const [, card = ''] = /<article class="card cache">(.*?)<\/article>/s.exec(dom) ?? [];
  t.match(card, /Hit rate<\/span><p class="now"><b>69\.\d %<\/b><span>of 3\d,\d{3} looked up/);
  t.match(card, /<dt>Calls saved<\/dt><dd>2\d,\d{3}<\/dd>/);
  t.match(card, /<dt>Time saved<\/dt><dd>\d h \d+ min<\/dd>/);
  t.match(card, /Memory<\/span><p class="now"><b>[\d.]+ MB<\/b><span>of 67\.1 MB/);
  t.match(
    card,
    /aria-label="[\d.]+ MB of 67\.1 MB used"><span><i data-kind="use" style="width: 6\d\.\d+%;">/,
    'the bar',
  );
  for (const name of ['Entries', 'Evicted', 'Swept']) t.match(card, new RegExp(`<dt>${name}</dt><dd>[\\d,]+</dd>`));
  for (const name of ['hits', 'coalesced', 'revalidated', 'stale', 'misses', 'bypassed']) {
    t.match(card, new RegExp(`<li data-kind="${name}">${name} <b>[\\d,]+</b>`), name);
  }
  t.match(card, /\d shared fetches, 1\.31 MB/);
  t.match(card, /class="line" d="M[\d.]+ [\d.]+/, 'calls saved per second, as a curve');
  t.match(card, /<b class="redis" data-state="up">up<\/b>/);
  t.match(card, /timeouts <b>17<\/b>/);
  t.match(
    cachedLine(dom, 'openai'),
    /^Cache 69\.\d % hits {2}· {2}2\d,\d{3} calls and .* saved {2}· {2}[\d,]+ stored, [\d.]+ MB$/,
  );
  t.equal(cachedLine(dom, 'deepseek'), null, 'it has no cache');
});

t.test('without Redis nothing is said of it, and one that is down shows', { skip: missing }, async (t) => {
  const without = altered((snapshot) => {
    snapshot.cache.redis = null;
  });
  t.match((await show(t, without)).dom, /<section hidden=""><h4>Redis/);
  const down = altered((snapshot) => {
    snapshot.cache.redis!.state = 'down';
  });
  t.match((await show(t, down)).dom, /<section><h4>Redis <b class="redis" data-state="down">down</);
});

t.test('where no upstream has a cache, nothing is shown of it', { skip: missing }, async (t) => {
  const source = altered(({ upstreams }) => {
    for (const upstream of Object.values(upstreams)) upstream.cache = null;
  });
  const { dom, complaints } = await show(t, source);
  t.strictSame(complaints, []);
  t.match(dom, /<section aria-labelledby="cache-title" hidden="">/);
  t.notMatch(dom, 'card cache');
  for (const name of ['openai', 'fatsecret']) t.equal(cachedLine(dom, name), null, name);
});

t.test('one target of two is open: said above, on the card and in its row', { skip: missing }, async (t) => {
  const { dom, complaints } = await showBusy();
  t.strictSame(complaints, []);
  t.strictSame(
    troubles(dom).map(([level, line]) => [level, line.replace(/\d+ s$/, 'N s')]),
    [
      ['warn', 'openai: 1 of 2 targets open'],
      ['warn', 'deepseek: paused for N s'],
    ],
  );
  const openai = card(dom, 'openai');
  t.match(openai, '<b class="pill" data-level="warn">1 of 2 targets open</b>');
  const [head, first, second] = rows(openai, 'Targets of openai');
  t.equal(head, 'Target | Breaker | Opened | Priority | Weight | In flight | Attempts | Failures');
  t.match(first, /^api\.openai\.com \| closed \| 1 \| 0 \| 2 \| \d+ \| [\d,]+ \| \d+$/);
  t.match(second, /^eu\.openai\.example\.com.* \| open, tries again in \d+ s \| 7 \| 0 \| 1 \| 0 \| [\d,]+ \| \d+$/);
  t.match(openai, /<dt>Retry budget<\/dt><dd>\d+ left<\/dd>/);
  t.match(openai, /<dt>Hedges<\/dt><dd>\d+, 41 won<\/dd>/);
  t.match(openai, /<dt>Maybe billed twice<\/dt><dd data-level="warn">4<\/dd>/);
  t.notMatch(openai, '<dt>Not retried', 'while there is budget');
});

t.test('limits, pauses, lanes, the adaptive limit, shared permits and Redis', { skip: missing }, async (t) => {
  const { dom } = await showBusy();
  const deepseek = card(dom, 'deepseek');
  t.match(deepseek, /<b class="pill" data-level="warn">paused for 1\d s<\/b>/);
  t.match(deepseek, /<dt>Breaker<\/dt><dd>closed, opened 2×<\/dd>/, 'quietly');
  t.match(deepseek, /<dt>Pause<\/dt><dd data-level="warn">1\d s<\/dd>/);
  t.match(deepseek, /<dt>Pauses so far<\/dt><dd>14<\/dd>/);
  const [, shared, own] = rows(deepseek, 'Rate limits of deepseek');
  t.match(shared, /^600 \/ min, burst 20 \| global, shared \| \d \| 1,8\d\d \| 0 \| 1$/);
  t.equal(own, '50 / s, burst 1 | header:x-user-id | never | – | 31 | 212');
  const ai = card(dom, 'ai');
  t.match(ai, /<dt>Adaptive limit<\/dt><dd>100, from 10 to 120<\/dd>/);
  t.match(ai, /<dt>Shared permits<\/dt><dd>100 leased, \d asked for<\/dd>/);
  t.strictSame(rows(ai, 'Lanes of ai'), [
    'Lane | Share | Queued | Granted | Of granted',
    'interactive | 75 % | 0 | 2,947 | 70 %',
    'batch | 25 % | 0 | 1,263 | 30 %',
  ]);
  const redis = card(dom, 'Redis');
  t.match(redis, '<b class="pill" data-level="good">up</b><p class="queue">3 sidecars</p>');
  t.match(redis, /<dt>Of the local share<\/dt><dd>212<\/dd>/);
  t.match(redis, 'timeouts <b>6</b>');
  t.match(dom, /<dt>Overload<\/dt><dd><b>calm<\/b><small>shrank cache 2×<\/small>/);
});

t.test('the breaker’s way back: half open, then quiet', { skip: missing }, async (t) => {
  const at = async (looks: number) => {
    const source = new FakeStats();
    for (let i = 0; i < looks; i++) source.stats();
    return (await show(t, source)).dom;
  };
  const half = await at(11);
  t.match(card(half, 'openai'), '<b class="pill" data-level="warn">1 of 2 targets half open</b>');
  t.match(rows(half, 'Targets of openai')[2], '| half open | 7 |');
  const closed = await at(20);
  t.notMatch(card(closed, 'openai'), 'class="pill"');
  t.match(rows(closed, 'Targets of openai')[2], '| closed | 7 |');
  t.notMatch(card(closed, 'openai'), /data-level="alert"/);
  t.match(closed, /<ul id="troubles"[^>]* hidden="">/, 'nothing to say');
});

t.test('a bad day says all of it, the worst in red', { skip: missing }, async (t) => {
  const { dom, complaints } = await show(t, altered(spoil));
  t.strictSame(complaints, []);
  t.strictSame(troubles(dom), [
    [
      'alert',
      'Overload: level 2. The cache is made smaller and new requests are refused. Now memory 93.4 % full, event loop 312 ms late.',
    ],
    ['alert', 'Redis: down, every sidecar keeps to its local share'],
    ['alert', 'openai: 2 of 2 targets open, tries again in 22 s; retry budget empty'],
    ['warn', 'deepseek: breaker half open; paused for 13 s'],
  ]);
  const openai = card(dom, 'openai');
  t.match(openai, '<b class="pill" data-level="alert">2 of 2 targets open, tries again in 22 s</b>', 'the soonest');
  t.match(rows(dom, 'Targets of openai')[2], 'open, tries again in 31 s');
  t.match(openai, '<dt>Retry budget</dt><dd data-level="alert">empty</dd>');
  t.match(openai, '<dt>Not retried</dt><dd data-level="warn">2,211</dd>');
  const deepseek = card(dom, 'deepseek');
  t.match(deepseek, 'breaker half open</b>');
  t.match(deepseek, '<dt>Breaker</dt><dd data-level="warn">half open, opened 3×</dd>');
  t.match(deepseek, '<td data-level="warn">212, full</td>');
  t.match(card(dom, 'ai'), '<dt>Shared permits</dt><dd data-level="warn">local share</dd>');
  t.match(card(dom, 'Redis'), '<b class="pill" data-level="alert">down</b>');
  t.match(dom, '<b data-level="alert">level 2</b>');
});

t.test('what is not configured takes no room', { skip: missing }, async (t) => {
  const source = altered((snapshot) => {
    Object.assign(snapshot, { overload: null, redis: null });
    for (const upstream of Object.values(snapshot.upstreams)) Object.assign(upstream, plainPart(upstream.url));
    for (const limiter of Object.values(snapshot.limiters)) Object.assign(limiter, PLAIN_LIMITER);
  });
  const { dom, complaints } = await show(t, source);
  t.strictSame(complaints, []);
  t.match(dom, /<ul id="troubles"[^>]* hidden="">/);
  t.match(dom, /<section aria-labelledby="redis-title" hidden="">/);
  t.match(dom, /<div hidden=""><dt>Overload/);
  t.match(card(dom, 'openai'), /<div class="guards" hidden="">/);
  const words = /<dt>(?:Retry budget|Not retried|Hedges|Maybe billed|Breaker|Adaptive|Shared)/;
  for (const name of ['openai', 'deepseek', 'fatsecret', 'ai', 'batch']) {
    t.match(card(dom, name), `<h3>${name}</h3>`);
    t.notMatch(card(dom, name), words, name);
    t.notMatch(card(dom, name), 'class="pill"', name);
  }
  t.match(dom, /<div class="scroll"[^>]*aria-label="Lanes of ai" hidden="">/);
});

t.test('hostile names of targets, lanes, keys and upstreams show as text', { skip: missing }, async (t) => {
  const source = altered((snapshot) => {
    const { openai, deepseek } = snapshot.upstreams;
    for (const target of openai!.targets) target.url = HOSTILE;
    deepseek!.rate_limits[0]!.key = `header:${HOSTILE}`;
    snapshot.limiters.ai!.lanes[HOSTILE] = { share: 1, queued: 0, granted: 3 };
    snapshot.upstreams[HOSTILE] = { ...deepseek!, url: HOSTILE };
  });
  const { dom, complaints } = await show(t, source);
  t.strictSame(complaints, []);
  t.notMatch(dom, /<img src="?x/);
  const shown = HOSTILE.replace('<', '&lt;').replace('>', '&gt;');
  t.equal(
    rows(dom, 'Targets of openai').filter((line) => line.startsWith(shown)).length,
    2,
    'two of one name, two rows',
  );
  t.ok(rows(dom, 'Rate limits of deepseek')[1]?.includes(`header:${shown}, shared`));
  t.ok(rows(dom, 'Lanes of ai').some((line) => line.startsWith(shown)));
  t.ok(troubles(dom).some(([, line]) => line.startsWith(`${shown}: paused`)));
});

t.test('a hostile operation label shows as text', { skip: missing }, async (t) => {
  const { dom, complaints } = await showBusy();
  t.ok(dom.includes(HOSTILE.replace('<', '&lt;').replace('>', '&gt;')));
  t.notMatch(dom, /<img src="?x/);
  t.strictSame(complaints, []);
});

t.test('a process without traffic, and one that drains, are shown as such', { skip: missing }, async (t) => {
  const fresh = await show(t, new FakeStats(false));
  t.match(fresh.dom, 'no requests yet');
  t.match(fresh.dom, 'nothing looked up yet');
  t.notMatch(fresh.dom, /NaN|undefined|Infinity|null/);
  t.strictSame(fresh.complaints, []);
  const source = new FakeStats();
  source.draining = true;
  const { dom } = await show(t, source);
  t.match(dom, 'data-state="draining">draining<');
});

t.test('a port that stops answering is said clearly, with the last numbers kept', { skip: missing }, async (t) => {
  const source = new FakeStats();
  let looks = 0;
  const stats = source.stats.bind(source);
  source.stats = () => {
    if (++looks > 2) throw new Error('gone');
    return stats();
  };
  const { dom } = await show(t, source, 9_000);
  t.match(dom, /The stats port cannot be reached since \d\d:\d\d:\d\d \(it answered 500\)/);
  t.match(dom, 'data-state="unreachable">unreachable<');
  t.match(dom, '<h3>openai</h3>');
});

t.test('WebSockets of an upstream that takes them', { skip: missing }, async (t) => {
  const { dom } = await showBusy();
  t.match(dom, /WebSockets<\/dt><dd[^>]*>\d+ of 200 open, [\d,]+ so far, 3 refused</);
});

t.test('HTTP/2 streams of an upstream that speaks it, and of no other', { skip: missing }, async (t) => {
  const source = altered(({ upstreams }) => {
    upstreams.deepseek!.pool.streams = { open: 12, max: 2000 };
  });
  const { dom } = await show(t, source);
  const streams = (name: string) =>
    /<div( hidden="")?><dt>HTTP\/2 streams<\/dt><dd[^>]*>(.*?)<\/dd>/.exec(cardOf(dom, name))?.slice(1);
  t.strictSame(streams('deepseek'), [undefined, '12 of 2,000']);
  t.strictSame(streams('openai'), [' hidden=""', '']);
});

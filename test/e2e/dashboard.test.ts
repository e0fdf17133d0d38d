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
import { FakeStats, HOSTILE } from '../support/fake-stats.ts';

const CHROMIUM = '/usr/bin/chromium';
const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'],
  ...['--disable-background-networking', '--disable-component-update', '--enable-logging=stderr', '--dump-dom'],
];
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
  const { port } = await statsPort.start({ host: '127.0.0.1', port: 0, text: '127.0.0.1:0' });
  return open(`http://127.0.0.1:${port}/`, virtualMs);
}

/** The text of an upstream's line about the cache; null = none is shown. */
function cachedLine(dom: string, upstream: string): string | null {
  const [, attributes, line] =
    new RegExp(`<h3>${upstream}</h3>.*?</header><p class="cached"([^>]*)>(.*?)</p>`, 's').exec(dom) ?? [];
  return line === undefined || attributes!.includes('hidden') ? null : line.replace(/<[^>]+>/g, '');
}

t.test('the page has no inline script or style, and its script is well-formed', async (t) => {
  t.notMatch(DASHBOARD_HTML, /<style|style=|\son\w+=|<script(?![^>]*src=)/);
  t.notMatch(DASHBOARD_JS, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(/);
  t.doesNotThrow(() => new Script(DASHBOARD_JS));
});

t.test('the page shows the numbers of the source', { skip: missing }, async (t) => {
  const { dom, complaints } = await show(t, new FakeStats());
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
  const { dom, complaints } = await show(t, new FakeStats());
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
  const source = new FakeStats();
  const stats = source.stats.bind(source);
  let alter = (snapshot: StatsSnapshot) => {
    snapshot.cache.redis = null;
  };
  source.stats = () => {
    const snapshot = stats();
    alter(snapshot);
    return snapshot;
  };
  t.match((await show(t, source)).dom, /<section hidden=""><h4>Redis/);
  alter = (snapshot) => {
    snapshot.cache.redis!.state = 'down';
  };
  t.match((await show(t, source)).dom, /<section><h4>Redis <b class="redis" data-state="down">down</);
});

t.test('where no upstream has a cache, nothing is shown of it', { skip: missing }, async (t) => {
  const source = new FakeStats();
  const stats = source.stats.bind(source);
  source.stats = () => {
    const snapshot = stats();
    for (const upstream of Object.values(snapshot.upstreams)) upstream.cache = null;
    return snapshot;
  };
  const { dom, complaints } = await show(t, source);
  t.strictSame(complaints, []);
  t.match(dom, /<section aria-labelledby="cache-title" hidden="">/);
  t.notMatch(dom, 'card cache');
  for (const name of ['openai', 'fatsecret']) t.equal(cachedLine(dom, name), null, name);
});

t.test('a hostile operation label shows as text', { skip: missing }, async (t) => {
  const { dom, complaints } = await show(t, new FakeStats());
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

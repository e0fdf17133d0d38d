// Is what an entry counts for in `max_bytes` what it takes? `node bench/micro/entry-memory.ts`. For OVERHEAD_BYTES of src/cache/entry.ts.
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Entry } from '../../src/cache/entry.ts';
import { MemoryStore } from '../../src/cache/memory-store.ts';

const SIZES = [200, 2000, 20_000];
const STORE_BYTES = 64 * 1024 * 1024;
/** How often the store is filled anew, so that the memory of what was evicted is used again, or is not. */
const TURNS = 5;
const COLLECT_EVERY = 500;
/** As aiproxy sets them; gc() is ours. */
const FLAGS = ['--expose-gc', '--max-semi-space-size=4', '--heap-growing-percent=40'];

const size = Number(process.argv[2] ?? 0);
if (size > 0) measure(size);
else {
  console.log(`node ${process.version}, a store of ${STORE_BYTES / 1024 / 1024} MB, per entry, bytes:`);
  for (const each of SIZES) await new Promise((resolve) => start(each).on('exit', resolve));
}

/** Each size in a fresh process. */
function start(each: number) {
  return fork(fileURLToPath(import.meta.url), [String(each)], { execArgv: FLAGS });
}

function measure(bytes: number): void {
  for (let n = 0; n < 1000; n++) entryOf(n, 0); // compiled code and its feedback are no entry's
  const before = rssWithoutGarbage();
  const store = new MemoryStore(STORE_BYTES, 16, () => performance.now());
  let n = 0;
  while (store.countersOf('openai').evicted === 0) {
    store.put(entryOf(n++, bytes));
    // Garbage that piles up once leaves holes that stay.
    if (n % COLLECT_EVERY === 0) globalThis.gc!();
  }
  const taken = rssWithoutGarbage() - before;
  const { entries } = store;
  for (const end = n * TURNS; n < end; n++) store.put(entryOf(n, bytes));
  const busy = process.memoryUsage.rss() - before;
  const perEntry = (value: number) => (value / entries).toFixed(0).padStart(6);
  console.log(
    `body ${String(bytes).padStart(5)}  counted ${perEntry(store.bytes)}  taken ${perEntry(taken)}` +
      `  after ${TURNS} turns, garbage and holes included ${perEntry(busy)}  (${entries} entries)`,
  );
}

function rssWithoutGarbage(): number {
  for (let n = 0; n < 3; n++) globalThis.gc!();
  return process.memoryUsage.rss();
}

/** Strings made from bytes, as a parser makes them: none is shared with another entry. */
function entryOf(n: number, bytes: number): Entry {
  const now = Date.now();
  const fresh = (text: string) => Buffer.from(text).toString('latin1');
  return new Entry({
    key: fresh(`${n}`.padStart(43, 'k')),
    upstream: 'openai',
    uri: fresh(`/v1/chat/completions?n=${n}`),
    status: 200,
    reason: 'OK',
    headers: [
      ['Date', new Date(now).toUTCString()],
      ['Content-Type', 'application/json'],
      ['Content-Length', String(bytes)],
      ['openai-organization', 'bench-org'],
      ['openai-processing-ms', '412'],
      ['openai-version', '2020-10-01'],
      ['x-ratelimit-remaining-requests', '9999'],
      ['x-request-id', `req_${String(n).padStart(32, '0')}`],
    ].flatMap((pair) => pair.map(fresh)),
    body: Buffer.allocUnsafeSlow(bytes).fill(n),
    requestAt: now - 400,
    responseAt: now,
    terms: {
      lifetimeMs: 3_600_000,
      initialAgeMs: 0.5,
      alwaysValidate: false,
      neverStale: false,
      staleWhileRevalidateMs: 0,
      staleIfErrorMs: 0,
      etag: '',
      lastModified: '',
    },
    vary: [],
    varyValues: [],
    costMs: 412.5 + n / 1000,
    pace: null,
  });
}

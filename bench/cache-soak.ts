// npm run soak:cache: a million different keys through the cache of one aiproxy, and whether its memory stays within bounds.
import type { AddressInfo } from 'node:net';
import { parseArgs } from 'node:util';
import type { StatsSnapshot } from '../src/observe/snapshot.ts';
import { sleep } from './processes.ts';
import { above0, SoakProxy, verdict } from './soak-proxy.ts';
import { SoakLoad, startSoakUpstream } from './soak-traffic.ts';

const USAGE = `node bench/cache-soak.ts [--keys N] [--minutes N] [--max-mb N]
  --keys      different keys, sent evenly over the time; every fifth request repeats a recent one. Default 1000000
  --minutes   default 10; it ends after half as much again, whatever is left
  --max-mb    cache.max_bytes. Default 64`;

const ALLOWED_MB = 60;
const WARM_UP_KEYS = 30_000;
const WARM_UP_SECONDS = 15;
const SAMPLE_MS = 1000;
const PRINT_EVERY = 10;
const MB = 1024 * 1024;

process.exitCode = await main();

interface Options {
  readonly keys: number;
  readonly minutes: number;
  readonly maxMb: number;
}

/** The highest readings so far. */
interface Peaks {
  rssMb: number;
  cacheBytes: number;
  loopP99Ms: number;
}

async function main(): Promise<number> {
  const options = readOptions();
  if (!options) return 2;
  const upstream = await startSoakUpstream();
  const { port } = upstream.address() as AddressInfo;
  const proxy = await SoakProxy.start(configOf(port, options.maxMb));
  const end = async () => {
    await proxy.stop();
    upstream.closeAllConnections();
    upstream.close();
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void end().then(() => process.exit(1)));
  }
  try {
    return (await soak(proxy, options)) ? 0 : 1;
  } finally {
    await end();
  }
}

/** Two upstreams that are one: by /plain nothing is stored. */
function configOf(upstream: number, maxMb: number): string {
  return `listen: 127.0.0.1:@LISTEN@
stats: 127.0.0.1:@STATS@
log: { level: warn, access: off }
cache: { max_bytes: ${maxMb}mb, sweep_interval: 1s }
upstreams:
  plain: { url: "http://127.0.0.1:${upstream}" }
  soak:
    url: http://127.0.0.1:${upstream}
    cache: { http: true, rules: [{ match: { method: POST, path: /items }, ttl: 1h }] }
`;
}

async function soak(proxy: SoakProxy, { keys, minutes, maxMb }: Options): Promise<boolean> {
  await new SoakLoad(proxy.port, '/plain').run(WARM_UP_KEYS, WARM_UP_SECONDS, WARM_UP_SECONDS * 3);
  const withoutMb = proxy.rssMb;
  console.log(`RSS after ${WARM_UP_KEYS} requests without the cache: ${withoutMb.toFixed(1)} MB`);
  const load = new SoakLoad(proxy.port, '/soak');
  const peaks: Peaks = { rssMb: 0, cacheBytes: 0, loopP99Ms: 0 };
  const ended = load.run(keys, minutes * 60, minutes * 90);
  let running = true;
  const over = ended.finally(() => {
    running = false;
  });
  over.catch(() => {});
  let last = await sample(proxy, peaks);
  for (let n = 1; running; n++) {
    await sleep(SAMPLE_MS);
    last = await sample(proxy, peaks);
    if (n % PRINT_EVERY === 0) console.log(progressOf(load.keys, proxy, last));
  }
  await over;
  console.log(progressOf(load.keys, proxy, last));
  console.log(
    `event loop p99 ${peaks.loopP99Ms.toFixed(1)} ms in the worst window; slowest answer ${load.slowestMs.toFixed(0)} ms, ` +
      'so no stall was longer (both with the waits for a core of this machine)',
  );
  const { cache } = last;
  const growthMb = peaks.rssMb - withoutMb;
  return [
    verdict('all keys were sent', load.keys, load.keys === keys),
    verdict(`RSS <= ${maxMb} + ${ALLOWED_MB} MB`, peaks.rssMb.toFixed(1), peaks.rssMb <= maxMb + ALLOWED_MB),
    verdict(
      `RSS above that without the cache <= ${maxMb} + ${ALLOWED_MB} MB`,
      growthMb.toFixed(1),
      growthMb <= maxMb + ALLOWED_MB,
    ),
    verdict(`bytes counted <= ${maxMb} MB`, (peaks.cacheBytes / MB).toFixed(2), peaks.cacheBytes <= maxMb * MB),
    verdict(
      'expired entries were swept, others evicted',
      `${cache.swept}, ${cache.evicted}`,
      cache.swept > 0 && cache.evicted > 0,
    ),
  ].every((met) => met);
}

async function sample(proxy: SoakProxy, peaks: Peaks): Promise<StatsSnapshot> {
  const snapshot = await proxy.stats();
  peaks.rssMb = Math.max(peaks.rssMb, proxy.rssMb);
  peaks.cacheBytes = Math.max(peaks.cacheBytes, snapshot.cache.bytes);
  peaks.loopP99Ms = Math.max(peaks.loopP99Ms, snapshot.process.event_loop_p99_ms);
  return snapshot;
}

function progressOf(keys: number, proxy: SoakProxy, { cache, process: { event_loop_p99_ms } }: StatsSnapshot): string {
  return (
    `${String(keys).padStart(8)} keys  RSS ${proxy.rssMb.toFixed(1)} MB  counted ${(cache.bytes / MB).toFixed(1)} MB` +
    `  entries ${cache.entries}  hits ${cache.hits}  swept ${cache.swept}  evicted ${cache.evicted}` +
    `  loop p99 ${event_loop_p99_ms.toFixed(1)} ms`
  );
}

/** Null after saying what is wrong. */
function readOptions(): Options | null {
  try {
    const { values } = parseArgs({
      options: { keys: { type: 'string' }, minutes: { type: 'string' }, 'max-mb': { type: 'string' } },
    });
    return {
      keys: above0(values.keys, 1_000_000),
      minutes: above0(values.minutes, 10),
      maxMb: above0(values['max-mb'], 64),
    };
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`);
    return null;
  }
}

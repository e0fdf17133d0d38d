// `aiproxy demo`: the seed's backend before and after, measured. Starts everything it needs, prints one table, leaves nothing behind.
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { StatsSnapshot } from '../observe/snapshot.ts';
import { type BaseUrls, type LegacyCall, legacyCalls } from './legacy-calls.ts';
import { type LoadResult, runLoad } from './legacy-client.ts';
import { Progress } from './progress.ts';
import { Stage, StageError } from './stage.ts';
import { type Comparison, type Measurement, renderSummary, renderTable } from './table.ts';

export { runUpstreams } from './upstreams.ts';

export interface DemoOptions {
  /** Round-trip time to the upstreams, in ms. */
  readonly rtt: number;
  /** Numbers of users to measure with, one after the other. */
  readonly users: readonly number[];
  /** Leave all running after the table, until interrupted. */
  readonly keep: boolean;
  /** Fewer calls: a look, not a measurement. */
  readonly quick?: boolean;
  /** The program started for the children; default: this package's own. */
  readonly bin?: string;
}

export interface DemoIo {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
  readonly signal?: AbortSignal;
}

const OWN_BIN = fileURLToPath(new URL('../../bin/aiproxy.js', import.meta.url)); // from src/demo and dist/demo alike
const END_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const CODE_INTERRUPTED = 130;

/** Gives 0 when no call through the proxy failed, 1 when one did or something could not start, 130 when interrupted. */
export async function runDemo(options: DemoOptions, io: DemoIo): Promise<number> {
  const interrupt = new AbortController();
  const signal = io.signal ? AbortSignal.any([io.signal, interrupt.signal]) : interrupt.signal;
  const progress = new Progress(io.stderr);
  const stage = new Stage(options.bin ?? OWN_BIN, signal);
  const onSignal = (): void => interrupt.abort();
  for (const name of END_SIGNALS) process.on(name, onSignal);
  try {
    return await play(options, io, stage, progress, signal);
  } catch (error) {
    progress.clear();
    if (signal.aborted) return CODE_INTERRUPTED;
    if (!(error instanceof StageError)) throw error;
    io.stderr.write(`aiproxy demo: ${error.message}\n`);
    return 1;
  } finally {
    await stage.end();
    for (const name of END_SIGNALS) process.off(name, onSignal);
  }
}

async function play(
  options: DemoOptions,
  io: DemoIo,
  stage: Stage,
  progress: Progress,
  signal: AbortSignal,
): Promise<number> {
  progress.begin(`Starting mock upstreams (round trip ${options.rtt} ms) and aiproxy`);
  await stage.start(options.rtt);
  const calls = legacyCalls();
  await warmUp(stage, calls, signal);
  const comparisons: Comparison[] = [];
  for (const users of options.users) {
    const measure = (path: Path): Promise<Measurement> =>
      measureLoad({ stage, path, users, calls, progress, signal, quick: options.quick === true });
    comparisons.push({ users, direct: await measure('direct'), proxied: await measure('aiproxy') });
  }
  progress.clear();
  const colored = 'isTTY' in io.stdout && io.stdout.isTTY === true && !process.env.NO_COLOR;
  io.stdout.write(`\n${renderTable(comparisons, colored)}\n${renderSummary(comparisons, options.rtt)}`);
  if (options.keep) await keep(stage, io, signal);
  return comparisons.some(({ proxied }) => proxied.load.errors > 0) ? 1 : 0;
}

/** A few calls each way that nobody counts: the first ones measure how V8 compiles. One user, so that no pool grows by it. */
async function warmUp(stage: Stage, calls: readonly LegacyCall[], signal: AbortSignal): Promise<void> {
  for (const baseUrls of [stage.directUrls, stage.proxiedUrls]) {
    await runLoad({
      users: 1,
      callsPerUser: calls.length,
      calls,
      baseUrls,
      ca: stage.ca,
      signal,
      onProgress: () => {},
    });
  }
}

type Path = 'direct' | 'aiproxy';

interface Phase {
  readonly stage: Stage;
  readonly path: Path;
  readonly users: number;
  readonly calls: readonly LegacyCall[];
  readonly progress: Progress;
  readonly signal: AbortSignal;
  readonly quick: boolean;
}

async function measureLoad(phase: Phase): Promise<Measurement> {
  const { stage, path, users, calls, progress, signal } = phase;
  const callsPerUser = Math.max(5, Math.round(callsOf(users) / (phase.quick ? 5 : 1)));
  const label = `${String(users).padStart(4)} ${users === 1 ? 'user ' : 'users'} ${path.padEnd(7)}`;
  progress.begin(label, users * callsPerUser);
  await stage.resetCounters();
  const before = await stage.stats();
  const baseUrls: BaseUrls = path === 'direct' ? stage.directUrls : stage.proxiedUrls;
  const onProgress = (done: number): void => progress.update(done);
  const load = await runLoad({ users, callsPerUser, calls, baseUrls, ca: stage.ca, signal, onProgress });
  const connections = Object.values(await stage.counters()).reduce((sum, one) => sum + one.connections, 0);
  const reuseRate = path === 'direct' ? directReuse(load, connections) : proxiedReuse(before, await stage.stats());
  return { load, connections, reuseRate };
}

/** Enough for a p95 with few users, and bounded with many. */
function callsOf(users: number): number {
  return users <= 1 ? 40 : users <= 20 ? 30 : Math.max(5, Math.round(1500 / users));
}

/** From what the upstreams saw: a call without a connection of its own reused one. */
function directReuse(load: LoadResult, connections: number): number {
  return Math.max(0, 1 - connections / load.calls);
}

/** From the proxy's own books, for this phase alone. */
function proxiedReuse(before: StatsSnapshot, after: StatsSnapshot): number {
  let requests = 0;
  let reused = 0;
  for (const [name, { requests: sent, pool }] of Object.entries(after.upstreams)) {
    const earlier = before.upstreams[name];
    requests += sent - (earlier?.requests ?? 0);
    reused += pool.reused - (earlier?.pool.reused ?? 0);
  }
  return requests === 0 ? 0 : reused / requests;
}

async function keep(stage: Stage, io: DemoIo, signal: AbortSignal): Promise<void> {
  io.stdout.write(`\nStill running until Ctrl-C:\n  dashboard  ${stage.dashboardUrl}\n`);
  for (const [name, url] of Object.entries(stage.proxiedUrls)) io.stdout.write(`  ${name.padEnd(9)}  ${url}\n`);
  // A timer, as nothing else keeps this process alive. Being interrupted is how this ends well.
  while (!signal.aborted) await sleep(60_000, undefined, { signal }).catch(() => {});
}

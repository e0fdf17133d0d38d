// The stream mode: many event streams at once through aiproxy, through nginx and past both, and how much later the events come.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { STREAM_PEERS, startPeer } from './peers.ts';
import { benchFile, LOAD_CORE, Process, type Stoppable, sleep } from './processes.ts';
import type { StreamCommand, StreamReport } from './stream-reader.ts';
import { type Column, medianOf, tableOf } from './table.ts';
import { usageOf } from './usage.ts';

const DIRECT = 'direct';
/** Streams before the memory is first looked at. */
const WARM_UP = { streams: 50, seconds: 5 };
const SETTLE_MS = 1000;
const SAMPLE_SECONDS = 4;
const LOADS = [
  { streams: 500, addedMs: 10 },
  { streams: 1000, addedMs: 30 },
];
const RSS_KB = 80;

interface Path {
  readonly name: string;
  readonly port: number;
  readonly pid: number | null;
}

/** One path in one round. */
interface StreamSample {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Of one core. */
  readonly cpuShare: number;
  /** Of the time: it could have run, but the machine had something else to do. */
  readonly waitedShare: number;
  /** For each stream. */
  readonly rssKb: number;
  readonly eventsPerSecond: number;
}

interface StreamRow extends StreamSample {
  readonly name: string;
  /** p99 less that of the direct path in the same round. */
  readonly addedMs: number | null;
}

const COLUMNS: readonly Column<StreamRow>[] = [
  ['path', (row) => row.name],
  ['p50 ms', (row) => row.p50Ms.toFixed(2)],
  ['p99 ms', (row) => row.p99Ms.toFixed(2)],
  ['max ms', (row) => row.maxMs.toFixed(1)],
  ['added p99 ms', (row) => (row.addedMs === null ? '-' : row.addedMs.toFixed(2))],
  ['CPU %', (row) => (row.name === DIRECT ? '-' : (row.cpuShare * 100).toFixed(0))],
  ['waited %', (row) => (row.name === DIRECT ? '-' : (row.waitedShare * 100).toFixed(0))],
  ['RSS kB/stream', (row) => (row.name === DIRECT ? '-' : row.rssKb.toFixed(0))],
  ['events/s', (row) => row.eventsPerSecond.toFixed(0)],
];

/** Prints a table for each number of streams. True when no target is missed. */
export async function runStreams(
  rounds: number,
  scratch: string,
  processes: Stoppable[],
  tell: (line: string) => void,
): Promise<boolean> {
  let met = true;
  for (const { streams, addedMs } of LOADS) {
    const own: Stoppable[] = [];
    // Those of this load alone, so that memory starts afresh.
    processes.push({ stop: async () => void (await Promise.all(own.map((each) => each.stop()))) });
    const rows = await runLoad(streams, rounds, join(scratch, `streams-${streams}`), own, tell);
    await Promise.all(own.map((each) => each.stop()));
    console.log(`\n${streams} event streams at 20 events/s each, medians of ${rounds} rounds of ${SAMPLE_SECONDS} s\n`);
    console.log(`${tableOf(COLUMNS, rows)}\n`);
    console.log(
      "waited: of the time, when it could have run and something else had its core; delays are not the proxy's then",
    );
    const aiproxy = rows.find(({ name }) => name === 'aiproxy')!;
    for (const [target, value, limit] of [
      [`added p99 at ${streams} streams < ${addedMs} ms`, aiproxy.addedMs!, addedMs],
      [`RSS per stream at ${streams} < ${RSS_KB} kB`, aiproxy.rssKb, RSS_KB],
    ] as const) {
      console.log(`${value < limit ? 'met   ' : 'MISSED'}  ${target}: ${value.toFixed(2)}`);
      met &&= value < limit;
    }
  }
  return met;
}

async function runLoad(
  streams: number,
  rounds: number,
  directory: string,
  own: Stoppable[],
  tell: (line: string) => void,
): Promise<StreamRow[]> {
  const upstream = new Process([process.execPath, benchFile('stream-upstream.ts')], LOAD_CORE, true);
  const reader = new Process([process.execPath, benchFile('stream-reader.ts')], LOAD_CORE, true);
  own.push(upstream, reader);
  const { port } = (await upstream.message()) as { port: number };
  const ask = async (command: StreamCommand): Promise<StreamReport> => {
    const answer = reader.message();
    reader.child.send(command);
    return (await answer) as StreamReport;
  };
  const paths = [{ name: DIRECT, port, pid: null }, ...(await startPaths(port, directory, own))];
  const samples = new Map<string, StreamSample[]>(paths.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (let n = 0; n < paths.length; n++) {
      const path = paths[(n + round) % paths.length]!;
      tell(`${streams} streams, round ${round + 1} of ${rounds}: ${path.name}`);
      const own = samples.get(path.name)!;
      if (own.length === 0) await warmUp(ask, path);
      own.push(await measure(ask, path, streams, own[0]));
    }
  }
  return rowsOf(samples);
}

async function startPaths(upstream: number, directory: string, own: Stoppable[]): Promise<Path[]> {
  const paths: Path[] = [];
  for (const peer of STREAM_PEERS) {
    const place = join(directory, peer.name);
    mkdirSync(place, { recursive: true });
    try {
      const { name, port, process } = await startPeer(peer, upstream, place);
      own.push(process);
      paths.push({ name, port, pid: process.pid });
    } catch (error) {
      console.log(`${peer.name} is left out: ${(error as Error).message}`);
    }
  }
  return paths;
}

type Ask = (command: StreamCommand) => Promise<StreamReport>;

async function warmUp(ask: Ask, { port }: Path): Promise<void> {
  await ask({ step: 'open', port, streams: WARM_UP.streams });
  await ask({ step: 'measure', seconds: WARM_UP.seconds });
  await ask({ step: 'close' });
  await sleep(SETTLE_MS);
}

/** @param first memory is that of the first round: later ones find what it left behind */
async function measure(
  ask: Ask,
  { name, port, pid }: Path,
  streams: number,
  first: StreamSample | undefined,
): Promise<StreamSample> {
  const before = pid === null ? null : usageOf(pid);
  await ask({ step: 'open', port, streams });
  await sleep(SETTLE_MS);
  const start = pid === null ? null : usageOf(pid);
  const { events, alive, p50, p99, max } = await ask({ step: 'measure', seconds: SAMPLE_SECONDS });
  const end = pid === null ? null : usageOf(pid);
  await ask({ step: 'close' });
  await sleep(SETTLE_MS);
  if (alive < streams) throw new Error(`${name}: only ${alive} of ${streams} streams had events`);
  return {
    p50Ms: p50 / 1000,
    p99Ms: p99 / 1000,
    maxMs: max / 1000,
    cpuShare: start && end ? (end.cpuMicros - start.cpuMicros) / (SAMPLE_SECONDS * 1e6) : 0,
    waitedShare: start && end ? (end.waitedMicros - start.waitedMicros) / (SAMPLE_SECONDS * 1e6) : 0,
    rssKb: first?.rssKb ?? (before && end ? ((end.rssMb - before.rssMb) * 1024) / streams : 0),
    eventsPerSecond: events / SAMPLE_SECONDS,
  };
}

function rowsOf(samples: ReadonlyMap<string, StreamSample[]>): StreamRow[] {
  const direct = samples.get(DIRECT)!;
  return [...samples].map(([name, own]) => ({
    name,
    p50Ms: medianOf(own, (sample) => sample.p50Ms),
    p99Ms: medianOf(own, (sample) => sample.p99Ms),
    maxMs: Math.max(...own.map((sample) => sample.maxMs)),
    cpuShare: medianOf(own, (sample) => sample.cpuShare),
    waitedShare: medianOf(own, (sample) => sample.waitedShare),
    rssKb: own[0]!.rssKb,
    eventsPerSecond: medianOf(own, (sample) => sample.eventsPerSecond),
    addedMs:
      name === DIRECT
        ? null
        : medianOf(
            own.map((sample, round) => sample.p99Ms - direct[round]!.p99Ms),
            (ms) => ms,
          ),
  }));
}

// npm run bench: the same work through aiproxy and other proxies, each alone on one core, and whether the targets are met.
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runBodies } from './bodies.ts';
import { runMemory } from './memory.ts';
import { PEERS, type RunningPeer, startPeer } from './peers.ts';
import { benchFile, canPin, LOAD_CORE, LoadGenerator, Process, type Stoppable } from './processes.ts';
import { profileFlags, profileReport } from './profile.ts';
import { CONNECTIONS, measure, runRounds } from './rounds.ts';
import { runStreams } from './streams.ts';
import { rowsOf, tablesOf, verdicts } from './table.ts';

const USAGE = `node bench/run.ts [--quick] [--rounds N] [--requests N] [--only a,b] [--json file] [--rss | --profile | --sse | --bodies]
  --quick     4 rounds of 10 000 requests instead of 10 of 20 000
  --only      some of: ${PEERS.map((peer) => peer.name).join(' ')}
              cached stands for all the hits and aiproxy
  --rss       memory over a million requests through aiproxy (or the one named by --only)
  --profile   CPU profile of aiproxy (or the one named by --only)
  --sse       only the part on event streams (half as many rounds)
  --bodies    uploads of 10 MB and downloads of 1 GB through aiproxy: memory and event loop`;

const CACHED = ['aiproxy', ...PEERS.filter((peer) => peer.work !== 'forwarded').map((peer) => peer.name)];

process.exitCode = await main();

async function main(): Promise<number> {
  const options = readOptions();
  if (!options) return 2;
  const scratch = mkdtempSync(join(tmpdir(), 'aiproxy-bench-'));
  chmodSync(scratch, 0o711); // started by root, nginx works as nobody and has its cache in there
  const processes: Stoppable[] = [];
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void end().then(() => process.exit(1)));
  }
  const end = async () => {
    await Promise.all(processes.map((each) => each.stop()));
    rmSync(scratch, { recursive: true, force: true });
  };
  try {
    if (!canPin) console.log('no taskset or one core only: processes are not pinned, expect noise');
    if (options.bodies) return (await runBodies(processes)) ? 0 : 1;
    const streams = () => runStreams(Math.ceil(options.rounds / 2), scratch, processes, progress);
    if (options.sse) return (await streams()) ? 0 : 1;
    const upstreams = {
      plain: await startUpstream(processes),
      cacheable: await startUpstream(processes, 'cacheable'),
    };
    const load = new LoadGenerator();
    processes.push(load.process);
    const peers = await startPeers(options, upstreams, scratch, processes);
    if (options.rss) return (await runMemory(load, only(peers), options.requests)) ? 0 : 1;
    if (options.profile) return await runProfile(load, only(peers), options.requests, scratch);
    const code = await compare(load, peers, options);
    if (!options.all) return code;
    for (const each of processes.splice(0)) await each.stop();
    return (await streams()) ? code : 1;
  } finally {
    await end();
  }
}

interface Options {
  readonly rounds: number;
  readonly requests: number;
  readonly names: readonly string[];
  readonly json: string | undefined;
  readonly rss: boolean;
  readonly profile: boolean;
  /** Not some proxies only. */
  readonly all: boolean;
  readonly sse: boolean;
  readonly bodies: boolean;
}

/** Null after saying what is wrong. */
function readOptions(): Options | null {
  try {
    const { values } = parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        rounds: { type: 'string' },
        requests: { type: 'string' },
        only: { type: 'string' },
        json: { type: 'string' },
        rss: { type: 'boolean', default: false },
        profile: { type: 'boolean', default: false },
        sse: { type: 'boolean', default: false },
        bodies: { type: 'boolean', default: false },
      },
    });
    const { quick, rss, profile, sse, bodies, json } = values;
    const single = rss || profile;
    const chosen = values.only?.split(',').flatMap((name) => (name === 'cached' ? CACHED : [name]));
    const names = chosen ?? (single ? ['aiproxy'] : PEERS.map((peer) => peer.name));
    const unknown = names.find((name) => PEERS.every((peer) => peer.name !== name));
    if (unknown !== undefined) throw new Error(`there is no proxy named ${unknown}`);
    return {
      rounds: count(values.rounds, quick ? 4 : 10),
      requests: count(values.requests, rss ? 1_000_000 : profile ? 200_000 : quick ? 10_000 : 20_000),
      names: single ? names.slice(0, 1) : names,
      json,
      rss,
      profile,
      all: !values.only,
      sse,
      bodies,
    };
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`);
    return null;
  }
}

function count(text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`not a whole number above 0: ${text}`);
  return value;
}

/** @returns its port */
async function startUpstream(processes: Stoppable[], ...args: string[]): Promise<number> {
  const upstream = new Process([process.execPath, benchFile('upstream.ts'), ...args], LOAD_CORE, true);
  processes.push(upstream);
  return ((await upstream.message()) as { port: number }).port;
}

/** Starts those that can start, says a word about the others. */
async function startPeers(
  { names, profile }: Options,
  upstreams: { readonly plain: number; readonly cacheable: number },
  scratch: string,
  processes: Stoppable[],
): Promise<RunningPeer[]> {
  const running: RunningPeer[] = [];
  for (const peer of PEERS) {
    if (!names.includes(peer.name)) continue;
    const directory = join(scratch, peer.name);
    mkdirSync(directory);
    const upstream = peer.work === 'forwarded' ? upstreams.plain : upstreams.cacheable;
    try {
      const started = await startPeer(peer, upstream, directory, profile ? profileFlags(scratch) : []);
      processes.push(started.process);
      running.push(started);
    } catch (error) {
      console.log(`${peer.name} is left out: ${(error as Error).message}`);
    }
  }
  return running;
}

function only(peers: readonly RunningPeer[]): RunningPeer {
  if (!peers[0]) throw new Error('the proxy to look at does not run');
  return peers[0];
}

async function runProfile(load: LoadGenerator, peer: RunningPeer, requests: number, scratch: string): Promise<number> {
  await measure(load, peer, Math.ceil(requests / 5));
  const from = monotonicMicros();
  await measure(load, peer, requests);
  const to = monotonicMicros();
  await peer.process.stop();
  console.log(profileReport(scratch, from, to));
  return 0;
}

function monotonicMicros(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

function progress(line: string): void {
  if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${line}`);
  else console.log(line);
}

async function compare(
  load: LoadGenerator,
  peers: RunningPeer[],
  { rounds, requests, json }: Options,
): Promise<number> {
  const samples = await runRounds(load, peers, rounds, requests, progress);
  if (process.stdout.isTTY) process.stdout.write('\r\x1b[K');
  const rows = rowsOf(peers, samples);
  const results = verdicts(rows);
  console.log(
    `\n${CONNECTIONS} connections, medians of ${rounds} rounds, each of ${requests} requests or more per proxy\n`,
  );
  for (const table of tablesOf(rows)) console.log(`${table}\n`);
  for (const { text } of results) console.log(text);
  if (json)
    writeFileSync(
      json,
      `${JSON.stringify({ rounds, requests, rows, verdicts: results, samples: Object.fromEntries(samples) }, null, 2)}\n`,
    );
  return results.some(({ met }) => met === false) ? 1 : 0;
}

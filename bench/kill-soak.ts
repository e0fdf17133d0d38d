// npm run soak:kill: clients and upstreams of one aiproxy are killed at random, and whether it ends with nothing left over.
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { Chance } from './chance.ts';
import type { Scene, Tally } from './kill-client.ts';
import { KillUpstream } from './kill-upstream.ts';
import { KINDS } from './kill-visitors.ts';
import { Killer } from './killer.ts';
import { quietPort, sleep } from './processes.ts';
import { above0, SoakProxy, template, verdict } from './soak-proxy.ts';

const USAGE = `node bench/kill-soak.ts [--minutes N] [--seed N] [--without a,b]
  --minutes   default 10; memory is judged from 4 on
  --seed      of all choices; default: another one each time. What happens when is still up to the machine
  --without   kinds of clients to leave out, of ${KINDS.map(({ name }) => name).join(' ')}`;

const WARM_UP_S = 20;
const PRINT_EVERY = 10;
const LEAST_JUDGED_MINUTES = 4;
const GROWTH = 1.1;
const SETTLE_MS = 30_000;
/** Names of the numbers in /stats that say what is under way. */
const GAUGES = new Set([
  'in_flight',
  'queued',
  'active',
  'connecting',
  'connections',
  'body_memory_bytes',
  'held',
  'waiting',
  'open',
  'flights',
  'flight_memory_bytes',
]);

process.exitCode = await main();

interface Options {
  readonly minutes: number;
  readonly seed: number;
  readonly without: readonly string[];
}

async function main(): Promise<number> {
  const options = readOptions();
  if (!options) return 2;
  const { seed } = options;
  console.log(`seed ${seed}`);
  const wrongs: string[] = [];
  const wrong = (what: string) => {
    if (wrongs.length < 20) console.log(`WRONG   ${what}`);
    wrongs.push(what);
  };
  const upstreams = [
    await KillUpstream.start(await quietPort(), seed + 1, wrong),
    await KillUpstream.start(await quietPort(), seed + 2, wrong),
  ];
  const config = template('kill-soak.yaml', { FIRST: upstreams[0]!.port, SECOND: upstreams[1]!.port });
  const proxy = await SoakProxy.start(config, (line) => {
    // A breaker that opens, or a queue that grows, is as it should be.
    const isWrong = /"level":[56]0|bug/.test(line) && !line.includes('the queue is very long');
    if (isWrong) wrong(`logged: ${line.slice(0, 1500)}`);
  });
  const end = async () => {
    await proxy.stop();
    for (const upstream of upstreams) upstream.close();
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => void end().then(() => process.exit(1)));
  }
  try {
    const scene: Scene = {
      port: proxy.port,
      chance: new Chance(seed),
      crew: new Set(),
      sockets: new Set(),
      wrong,
      over: false,
    };
    return (await soak(proxy, upstreams, scene, options, wrongs)) ? 0 : 1;
  } finally {
    await end();
  }
}

async function soak(
  proxy: SoakProxy,
  upstreams: readonly KillUpstream[],
  scene: Scene,
  options: Options,
  wrongs: readonly string[],
): Promise<boolean> {
  const kinds = KINDS.filter(({ name }) => !options.without.includes(name));
  const tally: Tally = new Map();
  // Without a killer, for the sockets that a proxy at rest has open.
  const visits = visitAll(kinds, scene, new Map());
  await sleep(WARM_UP_S * 1000);
  await leave(scene, visits);
  await settled(proxy);
  const fds = await fdsAtRest(proxy);
  console.log(
    `at rest after ${WARM_UP_S} s without kills: RSS ${proxy.rssMb.toFixed(1)} MB, ${fds} file descriptors besides those of pools`,
  );

  scene.over = false;
  const killer = new Killer(scene, upstreams);
  const all = [...visitAll(kinds, scene, tally), killer.run()];
  const rss = await watch(proxy, scene, killer, tally, options.minutes * 60);
  await leave(scene, all);
  for (const upstream of upstreams) while (!upstream.up) await sleep(50);
  console.log(
    `ended:${[...tally]
      .sort(([, a], [, b]) => b - a)
      .map(([what, n]) => ` ${what} ${n}`)
      .join(',')}`,
  );
  return await judge(proxy, fds, rss, options, wrongs);
}

function visitAll(kinds: typeof KINDS, scene: Scene, tally: Tally): Promise<void>[] {
  return kinds.flatMap((kind) => Array.from({ length: kind.count }, () => kind.keepComing(scene, tally)));
}

/** Everybody leaves at once. */
async function leave(scene: Scene, all: readonly Promise<void>[]): Promise<void> {
  scene.over = true;
  for (const each of [...scene.crew]) each.kill(scene.chance.pick(['fin', 'reset', 'destroy']));
  await sleep(500);
  for (const socket of scene.sockets) socket.destroy();
  await Promise.all(all);
}

/** Samples RSS every second. @returns one array per minute */
async function watch(
  proxy: SoakProxy,
  scene: Scene,
  killer: Killer,
  tally: Tally,
  seconds: number,
): Promise<number[][]> {
  const rss: number[][] = [];
  for (let second = 1; second <= seconds && proxy.process.alive; second++) {
    await sleep(1000);
    if (!proxy.process.alive) break;
    (rss[Math.floor((second - 1) / 60)] ??= []).push(proxy.rssMb);
    if (second % PRINT_EVERY !== 0) continue;
    const stats = await proxy.stats().catch((error: Error) => scene.wrong(error.message));
    if (!stats) continue;
    const requests = [...tally.values()].reduce((sum, n) => sum + n, 0);
    console.log(
      `${String(second).padStart(4)} s  requests ${requests}  kills ${killer.kills}  restarts ${killer.restarts}` +
        `  RSS ${proxy.rssMb.toFixed(1)} MB  fds ${proxy.fds}  in flight ${stats.listener.in_flight}` +
        `  loop p99 ${stats.process.event_loop_p99_ms.toFixed(1)} ms`,
    );
  }
  return rss;
}

async function judge(
  proxy: SoakProxy,
  fds: number,
  rss: readonly number[][],
  { minutes }: Options,
  wrongs: readonly string[],
): Promise<boolean> {
  if (!verdict('the process lives', proxy.process.lastWords, proxy.process.alive)) return false;
  const gauges = await settled(proxy);
  const left = await fdsLeft(proxy, fds);
  const results = [
    verdict('every gauge is zero', gauges.join(', ') || 'yes', gauges.length === 0),
    verdict(`file descriptors besides those of pools <= ${fds}`, left, left <= fds),
    verdict('wrong answers, lost exchanges and lines in the log', wrongs.length, wrongs.length === 0),
  ];
  if (minutes >= LEAST_JUDGED_MINUTES) {
    const [early, late] = [median([...rss[1]!, ...rss[2]!]), median(rss.at(-1)!)];
    const text = `${early.toFixed(1)} and ${late.toFixed(1)} MB`;
    results.push(
      verdict(`median RSS of the last minute <= ${GROWTH} x that of minutes 2 and 3`, text, late <= early * GROWTH),
    );
  }
  return results.every((met) => met);
}

/** Waits until nothing is under way. @returns the gauges that are not zero in spite of that */
async function settled(proxy: SoakProxy): Promise<string[]> {
  const until = performance.now() + SETTLE_MS;
  for (;;) {
    const left = gaugesAbove0(await proxy.stats(), '');
    if (left.length === 0 || performance.now() > until) return left;
    await sleep(250);
  }
}

function gaugesAbove0(part: object, path: string): string[] {
  return Object.entries(part).flatMap(([key, value]: [string, unknown]) => {
    if (typeof value === 'object' && value !== null) return gaugesAbove0(value, `${path}${key}.`);
    return GAUGES.has(key) && value !== 0 && typeof value === 'number' ? [`${path}${key} = ${value}`] : [];
  });
}

/** File descriptors without the idle connections that a pool knows of. */
async function besidesPools(proxy: SoakProxy): Promise<number> {
  const { upstreams } = await proxy.stats();
  return proxy.fds - Object.values(upstreams).reduce((sum, { pool }) => sum + pool.idle, 0);
}

/** One that was closed between the two looks would make it too few: so what most looks say. */
async function fdsAtRest(proxy: SoakProxy): Promise<number> {
  const looks: number[] = [];
  while (looks.length < 15) {
    looks.push(await besidesPools(proxy));
    await sleep(200);
  }
  return median(looks);
}

/** Waits until there are no more than expected. @returns how many there are in spite of that */
async function fdsLeft(proxy: SoakProxy, expected: number): Promise<number> {
  const until = performance.now() + SETTLE_MS;
  for (;;) {
    const fds = await besidesPools(proxy);
    if (fds <= expected || performance.now() > until) return fds;
    await sleep(250);
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

/** Null after saying what is wrong. */
function readOptions(): Options | null {
  try {
    const { values } = parseArgs({
      options: { minutes: { type: 'string' }, seed: { type: 'string' }, without: { type: 'string' } },
    });
    const without = values.without?.split(',') ?? [];
    const unknown = without.find((name) => KINDS.every((kind) => kind.name !== name));
    if (unknown !== undefined) throw new Error(`there is no kind of client named ${unknown}`);
    return { minutes: above0(values.minutes, 10), seed: above0(values.seed, randomInt(1, 2 ** 31)), without };
  } catch (error) {
    console.error(`${(error as Error).message}\n${USAGE}`);
    return null;
  }
}

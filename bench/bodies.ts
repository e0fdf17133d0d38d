// The body mode: a hundred uploads of 10 MB at once, downloads of 1 GB, and slow readers of them; memory and event loop of the proxy meanwhile.
import type { BodyCommand, BodyReport } from './body-load.ts';
import type { InsideReading } from './inside.ts';
import { benchFile, LOAD_CORE, Process, type Stoppable, sleep } from './processes.ts';
import { SoakProxy, template, verdict } from './soak-proxy.ts';

const MB = 1024 * 1024;
const GB = 1024 * MB;
const ALLOWED_MB = 80;
const ALLOWED_LOOP_MS = 20;

interface Phase {
  readonly name: string;
  readonly command: (port: number, prefix: string) => BodyCommand;
}

const PHASES: readonly Phase[] = [
  {
    name: '100 uploads of 10 MB',
    command: (port, prefix) => ({
      step: 'upload',
      port,
      path: `${prefix}/upload`,
      clients: 100,
      times: 2,
      bytes: 10 * MB,
    }),
  },
  {
    name: '8 downloads of 1 GB',
    command: (port, prefix) => ({
      step: 'download',
      port,
      path: `${prefix}/download/${GB}`,
      clients: 8,
      rate: 0,
      seconds: 60,
    }),
  },
  {
    name: '100 of 1 GB at 5 MB/s',
    command: (port, prefix) => ({
      step: 'download',
      port,
      path: `${prefix}/download/${GB}`,
      clients: 100,
      rate: 5 * MB,
      seconds: 15,
    }),
  },
];

/** Prints a line per phase. True when the targets are met. */
export async function runBodies(processes: Stoppable[]): Promise<boolean> {
  const upstream = new Process([process.execPath, benchFile('body-upstream.ts')], LOAD_CORE, true);
  processes.push(upstream);
  const { port } = (await upstream.message()) as { port: number };
  let heard: (reading: InsideReading) => void = () => {};
  const proxy = await SoakProxy.start(
    template('peers/aiproxy-bodies.yaml', { UPSTREAM: port }),
    (line) => (line.startsWith('{"loop') ? heard(JSON.parse(line) as InsideReading) : console.log(line)),
    ['--import', benchFile('inside.ts')],
  );
  processes.push(proxy);
  const load = new Process([process.execPath, benchFile('body-load.ts')], LOAD_CORE, true);
  processes.push(load);
  const ask = async (command: BodyCommand): Promise<BodyReport> => {
    const answer = load.message();
    load.child.send(command);
    return (await answer) as BodyReport;
  };
  const inside = (): Promise<InsideReading> => {
    const { promise, resolve } = Promise.withResolvers<InsideReading>();
    heard = resolve;
    proxy.process.child.kill('SIGUSR2');
    return promise;
  };
  // Small ones first, as every proxy has had some.
  await ask({ step: 'upload', port: proxy.port, path: '/up/upload', clients: 50, times: 400, bytes: 1000 });
  await sleep(1000);
  const warmMb = proxy.rssMb;
  console.log(`RSS ${warmMb.toFixed(1)} MB after 20 000 small requests\n`);

  let all = true;
  for (const { name, command } of PHASES) {
    await inside();
    const before = proxy.usage;
    const report = await ask(command(proxy.port, '/up'));
    const { loopP99Ms, loopMaxMs, rssMb, heapMb, buffersMb } = await inside();
    const growthMb = rssMb - warmMb;
    const after = proxy.usage;
    const share = (from: number, to: number) => `${((to - from) / report.seconds / 1e4).toFixed(0)} %`;
    console.log(
      `${name}: ${report.bodies} whole, ${report.givenUp} given up, ${(report.bytes / GB).toFixed(2)} GB in ${report.seconds.toFixed(1)} s` +
        ` (${(report.bytes / MB / report.seconds).toFixed(0)} MB/s, CPU ${share(before.cpuMicros, after.cpuMicros)}, waited for a core ${share(before.waitedMicros, after.waitedMicros)}), loop max ${loopMaxMs.toFixed(1)} ms,` +
        ` RSS at its highest ${rssMb.toFixed(0)} MB with a heap of ${heapMb.toFixed(0)} and buffers of ${buffersMb.toFixed(0)}`,
    );
    for (const what of report.wrong.slice(0, 5)) console.log(`  ${what}`);
    const met = [
      verdict('  every byte is right', report.wrong.length === 0 ? 'yes' : 'no', report.wrong.length === 0),
      verdict(`  RSS above that <= ${ALLOWED_MB} MB`, growthMb.toFixed(1), growthMb <= ALLOWED_MB),
      verdict(`  event loop p99 < ${ALLOWED_LOOP_MS} ms`, loopP99Ms.toFixed(1), loopP99Ms < ALLOWED_LOOP_MS),
    ];
    all &&= met.every(Boolean);
  }
  return all;
}

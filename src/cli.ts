// The command line: main(argv, env, io) → exit code. 0 good · 1 could not run · 2 wrong use or config.

import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { assemble } from './assemble.ts';
import { addExplain } from './cli-explain.ts';
import { ConfigError, loadConfig } from './config/load.ts';
import type { ListenConfig } from './config/schema.ts';
import { warningsOf } from './config/warnings.ts';
import { makeLog } from './observe/log.ts';

/** What main needs of a process. */
export interface Io {
  readonly stdin: NodeJS.ReadableStream;
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
  on(signal: NodeJS.Signals, listener: () => void): unknown;
  off(signal: NodeJS.Signals, listener: () => void): unknown;
}

interface RunFlags {
  readonly config: string;
  readonly listen?: string;
  readonly stats?: string;
  readonly logLevel?: string;
}

const SIGNALS: NodeJS.Signals[] = ['SIGTERM', 'SIGINT'];

const EXAMPLES = `
Examples:
  $ aiproxy --config config/aiproxy.yaml            run; the backend's base URL is http://127.0.0.1:8080/<upstream>/…
  $ aiproxy --config pools.yaml --listen :8081      the same on another address
  $ aiproxy check --config pools.yaml               say what is wrong with a config, and start nothing
  $ aiproxy explain /openai/v1/models               would a running one answer this from its cache? why not?
  $ aiproxy demo                                    see what it does, with nothing but this program
  $ curl http://127.0.0.1:8080/openai/v1/models -H "Authorization: Bearer $OPENAI_API_KEY"

Dashboard, /stats, /metrics, /healthz and /readyz are on the stats address (default http://127.0.0.1:9090).
Exit codes: 0 good, 1 could not run, 2 wrong use or config.
`;

/** Runs one command line to its end. */
export async function main(argv: readonly string[], env: NodeJS.ProcessEnv, io: Io): Promise<number> {
  let code = 0;
  const program = makeProgram(env, io, (result) => {
    code = result;
  });
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof ConfigError) {
      io.stderr.write(`${error.message}\n`);
      return 2;
    }
    io.stderr.write(`aiproxy: ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
}

function makeProgram(env: NodeJS.ProcessEnv, io: Io, done: (code: number) => void): Command {
  const program = new Command('aiproxy')
    .description(
      'Sidecar reverse proxy for backends that call AI and other HTTP APIs: warm pools, one honest queue, true numbers.',
    )
    .version(version())
    .option('-c, --config <file>', 'the YAML config (see config/aiproxy.yaml)')
    .option('--listen <address>', 'host:port or unix:/path.sock, instead of the config file’s listen')
    .option('--stats <address>', 'the same instead of its stats')
    .option('--log-level <level>', 'trace, debug, info, warn, error, fatal or silent')
    .addHelpText('after', EXAMPLES)
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
    })
    .exitOverride()
    .showHelpAfterError('(aiproxy --help shows how it is used)')
    .action(async (flags: Partial<RunFlags>, command: Command) => {
      if (!flags.config)
        command.error("error: --config <file> is missing; config/minimal.yaml is a start, 'aiproxy demo' needs none");
      done(await run(flags as RunFlags, env, io));
    });
  program
    .command('check')
    .description('say what is wrong with a config, and start nothing')
    .action((_flags, command: Command) => {
      // --config belongs to the whole program, so it may stand before or behind `check`.
      const file = command.optsWithGlobals<Partial<RunFlags>>().config;
      if (!file) command.error('error: --config <file> is missing: which config is to be checked?');
      const { config } = loadConfig(file as string, env);
      for (const warning of warningsOf(config)) io.stderr.write(`warning: ${warning}\n`);
      io.stdout.write(`good: ${config.upstreams.length} upstreams, ${config.limiters.length} limiters\n`);
    });
  addExplain(program, io, done);
  addDemo(program, io, done);
  return program;
}

function addDemo(program: Command, io: Io, done: (code: number) => void): void {
  program
    .command('demo')
    .description('a backend that opens a connection per call, first direct, then through aiproxy; all on this machine')
    .option('--rtt <ms>', 'round-trip time to the mock APIs', milliseconds, 40)
    .option('--quick', 'fewer calls', false)
    .option('--keep', 'leave all running and show the dashboard’s address', false)
    .action(async ({ rtt, keep, quick }: { rtt: number; keep: boolean; quick: boolean }) => {
      const { runDemo } = await import('./demo/run.ts');
      const stop = new AbortController();
      const interrupt = () => stop.abort();
      for (const signal of SIGNALS) io.on(signal, interrupt);
      done(
        await runDemo(
          { rtt, keep, quick, users: [1, 10, 100] },
          { stdout: io.stdout, stderr: io.stderr, signal: stop.signal },
        ),
      );
      for (const signal of SIGNALS) io.off(signal, interrupt);
    });
  program
    .command('demo-upstreams', { hidden: true })
    .option('--rtt <ms>', 'round-trip time', milliseconds, 40)
    .action(async ({ rtt }: { rtt: number }) => {
      const { runUpstreams } = await import('./demo/run.ts');
      done(await runUpstreams({ rtt }, io));
    });
}

function milliseconds(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value > 10_000)
    throw new InvalidArgumentError('must be a number of milliseconds, 0 to 10000.');
  return value;
}

/** Serves until a signal or POST /drain ends it. */
async function run(flags: RunFlags, env: NodeJS.ProcessEnv, io: Io): Promise<number> {
  const { config, dump } = loadConfig(flags.config, env, {
    ...(flags.listen === undefined ? {} : { listen: flags.listen }),
    ...(flags.stats === undefined ? {} : { stats: flags.stats }),
    ...(flags.logLevel === undefined ? {} : { logLevel: flags.logLevel }),
  });
  const { log, flush } = makeLog(config.log.level);
  let end: (cut: number) => void = () => {};
  const ended = new Promise<number>((resolve) => {
    end = resolve;
  });
  const requestDrain = (why: string) => {
    if (assembly.drain.draining) {
      assembly.drain.hurry();
      return;
    }
    log.info({ why, in_flight: assembly.gauges.snapshot().listener.in_flight }, 'draining');
    flush();
    assembly.drain.start().then(end);
  };
  const assembly = assemble(config, dump, version(), log, () => requestDrain('POST /drain'));
  const { listen, stats } = await assembly.start();
  for (const signal of SIGNALS) io.on(signal, () => requestDrain(signal));
  log.info(
    {
      version: version(),
      node: process.version,
      pid: process.pid,
      listen: listen.map(({ text }, index) => shownListen(text, config.listen[index]!)),
      stats: stats.port === 0 ? stats.text : `http://${stats.text}/`,
      upstreams: config.upstreams.map((upstream) => upstream.name),
    },
    'serving',
  );
  for (const warning of warningsOf(config)) log.warn(warning);
  flush();
  const cut = await ended;
  await assembly.stop();
  if (cut > 0) log.warn({ cut }, `stopped; ${cut} exchanges were cut`);
  else log.info({ cut }, 'stopped; nothing was cut');
  flush();
  return 0;
}

/** `127.0.0.1:8080`, `https://10.0.0.1:8443`, `unix:/run/aiproxy.sock`; behind it what else one must know to connect. */
function shownListen(text: string, { tls, upstream, address }: ListenConfig): string {
  const unix = address.path !== '';
  const notes = [...(tls && unix ? ['https'] : []), ...(upstream === null ? [] : [`${upstream} only`])];
  return (tls && !unix ? `https://${text}` : text) + (notes.length === 0 ? '' : ` (${notes.join(', ')})`);
}

function version(): string {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

// bin/aiproxy.js as a process: which Node it ends up on, with which flags, and how it ends.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  accessSync,
  constants,
  cpSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, dirname, join, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import t, { type Test } from 'tap';
import { until } from '../support/until.ts';

// tap puts a NODE_OPTIONS that loads tap into the environment of every child. Here children must run as a user's do.
const UNTAPPED = ['-c', 'unset NODE_OPTIONS; exec "$0" "$@"'];
const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const BIN = join(ROOT, 'bin', 'aiproxy.js');
const FLAG = '--max-semi-space-size=4';
const VERSION: string = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version;
const needsProc = process.platform === 'linux' ? {} : { skip: 'reads /proc' };

/** A main() that says what process it is in, and stays when told to. */
const TELLING_CLI = `
export async function main(argv, env) {
  const { pid, ppid, version, execArgv } = process;
  const signals = [];
  const asked = new Promise((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'])
      process.on(name, () => {
        signals.push(name);
        setTimeout(resolve, 200); // a second one would have come by then
      });
  });
  console.log(JSON.stringify({ argv, pid, ppid, version, execArgv, mark: env.AIPROXY_REEXECUTED ?? null }));
  if (argv[0] !== 'stay') return Number(argv[0] ?? 0);
  const timer = setInterval(() => {}, 60_000);
  await asked;
  console.log(signals.join());
  clearInterval(timer);
  return 7;
}
`;

interface Told {
  readonly argv: string[];
  readonly pid: number;
  readonly ppid: number;
  readonly version: string;
  readonly execArgv: string[];
  readonly mark: string | null;
}

/** A started process and all it has written. */
class Run {
  readonly child: ChildProcess;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;
  stdout = '';
  stderr = '';

  constructor(command: string, args: readonly string[]) {
    const stdio = ['ignore', 'pipe', 'pipe'] as const;
    // In a group of its own, as what a shell starts.
    this.child = spawn('/bin/sh', [...UNTAPPED, command, ...args], {
      env: userEnv(),
      stdio: [...stdio],
      detached: true,
    });
    this.child.stdout?.on('data', (chunk) => {
      this.stdout += chunk;
    });
    this.child.stderr?.on('data', (chunk) => {
      this.stderr += chunk;
    });
    this.ended = once(this.child, 'close').then(([code, signal]) => ({ code, signal }));
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** What TELLING_CLI said first. */
  async told(): Promise<Told> {
    await until('main() tells who it is', () => this.stdout.includes('\n') || this.child.exitCode !== null, 20_000);
    return JSON.parse(this.stdout.split('\n')[0] || `"${this.stderr}"`);
  }
}

/** The environment of a user: without what npm and tap add. */
function userEnv(): NodeJS.ProcessEnv {
  const added = /^(npm_|_?TAP|NODE_CHANNEL|AIPROXY_|INIT_CWD$)/i;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !added.test(name)));
}

/** A Node of the machine that is too old for aiproxy. */
async function findOldNode(): Promise<string | null> {
  const folders = ['/usr/local/bin', '/usr/bin', ...(process.env.PATH ?? '').split(delimiter)];
  for (const folder of new Set(folders)) {
    const node = join(folder, 'node');
    if (!isExecutable(node) || realpathSync(node).split(sep).includes('node_modules')) continue;
    const run = new Run(node, ['-p', 'process.versions.node']);
    await run.ended;
    const major = Number(run.stdout.split('.')[0]);
    if (major >= 18 && major < 22) return node;
  }
  return null;
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** bin in a folder of its own with TELLING_CLI behind it; `node` is the Node its node_modules brings, if any. */
function copyOfBin(t: Test, node?: string): string {
  const root = realpathSync(t.testdir({ dist: { 'cli.js': TELLING_CLI }, 'package.json': '{"type":"module"}' }));
  cpSync(join(ROOT, 'bin'), join(root, 'bin'), { recursive: true });
  if (node) {
    const target = join(root, PINNED!.slice(ROOT.length + 1));
    mkdirSync(dirname(target), { recursive: true });
    symlinkSync(node, target);
  }
  return join(root, 'bin', 'aiproxy.js');
}

function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

// Plain JavaScript without types, hence not a static import.
const { pinnedNode } = (await import(pathToFileURL(join(ROOT, 'bin', 'pinned-node.js')).href)) as {
  pinnedNode(root: string): string | undefined;
};
const PINNED = pinnedNode(ROOT);
const OLD_NODE = await findOldNode();
const needsOldNode = OLD_NODE && PINNED ? {} : { skip: PINNED ? 'no Node 18 to 21 in PATH' : 'no pinned Node' };

t.test('on this Node --version answers, with the flag and without a parent that stays', async (t) => {
  const version = new Run(process.execPath, [BIN, '--version']);
  t.same(await version.ended, { code: 0, signal: null }, version.stderr);
  t.equal(version.stdout.trim(), VERSION);

  const run = new Run(process.execPath, [copyOfBin(t), '3', '--x=y z']);
  const told = await run.told();
  t.equal(told.pid, run.pid, 'the process that was started is the one that runs');
  t.same(told.execArgv, [FLAG]);
  t.same(told.argv, ['3', '--x=y z']);
  t.equal(told.mark, null, 'nothing is left in the environment');
  t.same(await run.ended, { code: 3, signal: null }, 'its exit code is main’s');
});

t.test(
  'with the flag given it starts at once; another value, NODE_OPTIONS or a stray mark do not change it',
  async (t) => {
    const bin = copyOfBin(t);
    t.same((await new Run(process.execPath, [FLAG, bin]).told()).execArgv, [FLAG]);
    t.same((await new Run(process.execPath, ['--max-semi-space-size=40', bin]).told()).execArgv.at(-1), FLAG);
    const options = new Run('/usr/bin/env', [`NODE_OPTIONS=${FLAG}`, 'AIPROXY_REEXECUTED=0', process.execPath, bin]);
    t.same((await options.told()).execArgv, [FLAG]);
  },
);

t.test('it runs with all of its standard streams closed', needsProc, async (t) => {
  const script = 'exec "$0" "$1" 5 <&- >&- 2>&-';
  const run = new Run('/bin/sh', ['-c', script, process.execPath, copyOfBin(t)]);
  t.same(await run.ended, { code: 5, signal: null });
});

t.test('without its dependencies: one line and exit code 78', async (t) => {
  const bin = copyOfBin(t);
  writeFileSync(join(dirname(bin), '..', 'dist', 'cli.js'), `import 'a-package-that-is-not-there';`);
  const run = new Run(process.execPath, [bin]);
  t.same(await run.ended, { code: 78, signal: null });
  t.match(run.stderr, /^aiproxy: Cannot find package 'a-package-that-is-not-there'[^\n]*\n$/);
});

t.test('on an old Node --version answers through the pinned one', needsOldNode, async (t) => {
  const run = new Run(OLD_NODE!, [BIN, '--version']);
  t.same(await run.ended, { code: 0, signal: null }, run.stderr);
  t.equal(run.stdout.trim(), VERSION);

  const told = await new Run(OLD_NODE!, [copyOfBin(t, PINNED), '0']).told();
  t.match(told.version, /^v(22|24|26)\./);
  t.same(told.execArgv, [FLAG]);
});

t.test('on an old Node without the pinned one: one line and exit code 78', needsOldNode, async (t) => {
  const run = new Run(OLD_NODE!, [copyOfBin(t), '--version']);
  t.same(await run.ended, { code: 78, signal: null });
  t.equal(run.stdout, '');
  t.match(run.stderr, /^aiproxy: it needs Node 22\.19 or later[^\n]*\n$/);
});

t.test('a pinned Node that is itself too old, or no program, is no loop', needsOldNode, async (t) => {
  const old = new Run(OLD_NODE!, [copyOfBin(t, OLD_NODE!)]);
  t.same(await old.ended, { code: 78, signal: null });
  t.equal(old.stderr.split('\n').length, 2, old.stderr);

  const broken = new Run(OLD_NODE!, [copyOfBin(t, '/dev/null')]);
  t.same(await broken.ended, { code: 78, signal: null });
  t.match(broken.stderr, /^aiproxy: cannot start [^\n]*\n$/);
});

t.test('on an old Node signals reach the child once, and its exit code comes back', needsOldNode, async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const run = new Run(OLD_NODE!, [copyOfBin(t, PINNED), 'stay']);
    const { pid, ppid } = await run.told();
    t.equal(ppid, run.pid, 'a launcher stays');
    t.not(pid, run.pid);
    run.child.kill(signal);
    t.same(await run.ended, { code: 7, signal: null });
    t.equal(run.stdout.split('\n')[1], signal);
  }
});

t.test('on an old Node Ctrl-C, which reaches the whole group, reaches the child once', needsOldNode, async (t) => {
  const run = new Run(OLD_NODE!, [copyOfBin(t, PINNED), 'stay']);
  await run.told();
  process.kill(-run.pid, 'SIGINT');
  t.same(await run.ended, { code: 7, signal: null });
  t.equal(run.stdout.split('\n')[1], 'SIGINT');
});

t.test('on an old Node the launcher dies of what the child died of', needsOldNode, async (t) => {
  const run = new Run(OLD_NODE!, [copyOfBin(t, PINNED), 'stay']);
  process.kill((await run.told()).pid, 'SIGKILL');
  t.same(await run.ended, { code: null, signal: 'SIGKILL' });
});

t.test('on an old Node a launcher that is killed leaves no child behind', needsOldNode, async (t) => {
  const run = new Run(OLD_NODE!, [copyOfBin(t, PINNED), 'stay']);
  const { pid } = await run.told();
  run.child.kill('SIGKILL');
  t.equal((await run.ended).signal, 'SIGKILL');
  t.equal(run.stdout.split('\n')[1], 'SIGTERM', 'it is told to end in order');
  await until('the child has ended', () => !isAlive(pid));
});

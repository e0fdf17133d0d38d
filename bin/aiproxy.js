#!/usr/bin/env node
// Starts aiproxy on the right Node with the right V8 flags, then hands over to main(). Plain JavaScript: it must parse on any Node.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import module from 'node:module';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { pinnedNode } from './pinned-node.js';

// A young generation of 4 MB instead of 16 took a bare relay from 152 to 105 MB RSS at no CPU cost; v8.setFlagsFromString is too late for it.
const V8_FLAGS = ['--max-semi-space-size=4'];
// Set for the second start only, which never starts a third: a loop is impossible whatever the binary found is.
const MARK = 'AIPROXY_REEXECUTED';
const FORWARDED = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR2'];
const CANNOT_START = 78; // EX_CONFIG of sysexits.h

const self = fileURLToPath(import.meta.url);
const root = join(dirname(self), '..');
const [major, minor] = process.versions.node.split('.').map(Number);
const nodeFits = (major === 22 && minor >= 19) || major === 24 || major >= 26; // "engines" of package.json
// Only the command line counts: NODE_OPTIONS would hand the flag on to whatever else is started.
const flagsAreSet = V8_FLAGS.every((flag) => process.execArgv.includes(flag));
const isSecondStart = process.env[MARK] === '1';
delete process.env[MARK];

if (nodeFits && (flagsAreSet || isSecondStart)) await run();
else if (isSecondStart) refuse(`the Node it brought is ${process.version}, not the one it needs`);
else startAgain();

async function run() {
  // Behind a child's launcher: when that is killed, its end of the channel closes, and this process must not stay for ever.
  if (process.channel) {
    process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
    process.channel.unref();
  }
  // `aiproxy --help | head`: who no longer reads has seen enough.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error) => {
      if (error.code !== 'EPIPE') throw error;
    });
  }
  // The old generation grows by 40 % between two collections, not up to 300 %: RSS over a million requests went up and down by 33 MB.
  setFlagsFromString('--heap-growing-percent=40');
  // Buffers count with the heap when V8 decides to collect. By themselves they are a reason at every 64 MB: half the CPU of a large download.
  // (An older V8 complains of the flag.)
  if (major >= 26) setFlagsFromString('--external-memory-accounted-in-global-limit');
  const source = join(root, 'src', 'cli.ts');
  const fromSource = existsSync(source);
  const entry = fromSource ? source : join(root, 'dist', 'cli.js');
  // A clone keeps its stripped and compiled code between starts: half the start-up time, and 25 MB less (no stripper is loaded).
  if (fromSource) module.enableCompileCache?.(join(root, 'node_modules', '.cache', 'aiproxy'));
  let main;
  try {
    ({ main } = await import(pathToFileURL(entry).href));
  } catch (error) {
    if (error?.code !== 'ERR_MODULE_NOT_FOUND') throw error;
    refuse(error.message.split('\n')[0]);
  }
  process.exitCode = await main(process.argv.slice(2), process.env, process);
}

function startAgain() {
  const binary = nodeFits ? process.execPath : pinnedNode(root);
  if (!binary) refuse(`it needs Node 22.19 or later, 24, 26 or later; this is ${process.version}`);
  const args = [...process.execArgv, ...V8_FLAGS, self, ...process.argv.slice(2)];
  const env = { ...process.env, [MARK]: '1' };
  // execve replaces this process, so no parent stays and signals arrive directly (Node >= 22.15, not Windows).
  if (typeof process.execve === 'function') {
    try {
      process.execve(binary, [binary, ...args], env);
    } catch {
      // Unavailable here, or the binary does not start: a child can tell which.
    }
  }
  startChild(binary, args, env);
}

/** Stays as a launcher: hands signals down, and the child's end up. */
function startChild(binary, args, env) {
  const child = spawn(binary, args, {
    // The channel carries no messages: its closing tells the child that this process is gone.
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    // A group of its own: Ctrl-C reaches a whole group, and with ours handed down the child would get two, which means "at once".
    detached: process.platform !== 'win32',
    env,
  });
  for (const signal of FORWARDED) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => refuse(`cannot start ${binary}: ${error.message}`));
  child.on('exit', (code, signal) => {
    if (!signal) process.exit(code ?? 1);
    // Die of the same signal, so that a supervisor sees the truth; as process 1 it would be ignored, hence the code too.
    process.exitCode = 128 + (constants.signals[signal] ?? 0);
    for (const name of FORWARDED) process.removeAllListeners(name);
    process.kill(process.pid, signal);
  });
}

function refuse(why) {
  const hint = existsSync(join(root, 'package-lock.json'))
    ? `run "npm ci" in ${root}, which brings a Node of its own`
    : 'install a newer Node, or install aiproxy again';
  console.error(`aiproxy: ${why}: ${hint}`);
  process.exit(CANNOT_START);
}

#!/usr/bin/env node
// Starts aiproxy on the right Node with the right V8 flags, then hands over to main(). Plain JavaScript: it must parse on any Node.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { pinnedNode } from './pinned-node.js';

// A young generation of 4 MB instead of 16 took a bare relay from 152 to 105 MB RSS at no CPU cost; v8.setFlagsFromString is too late for it.
const V8_FLAGS = ['--max-semi-space-size=4'];
const MARK = 'AIPROXY_REEXECUTED';
const root = join(dirname(fileURLToPath(import.meta.url)), '..');

const [major, minor] = process.versions.node.split('.').map(Number);
const nodeIsNewEnough = (major === 22 && minor >= 19) || major >= 24;
const flagsAreSet = V8_FLAGS.every(
  (flag) => process.execArgv.includes(flag) || (process.env.NODE_OPTIONS ?? '').includes(flag),
);

if (nodeIsNewEnough && (flagsAreSet || process.env[MARK])) {
  delete process.env[MARK];
  const source = join(root, 'src', 'cli.ts');
  const entry = existsSync(source) ? source : join(root, 'dist', 'cli.js');
  const { main } = await import(pathToFileURL(entry).href);
  process.exitCode = await main(process.argv.slice(2), process.env, process);
} else {
  reexecute();
}

function reexecute() {
  const binary = nodeIsNewEnough ? process.execPath : pinnedNode(root);
  if (!binary) {
    console.error(
      `aiproxy needs Node >= 22.19; this is ${process.version}. Run "npm ci" in ${root} (it brings a Node of its own), or use a newer Node.`,
    );
    process.exit(78);
  }
  const args = [...process.execArgv, ...V8_FLAGS, ...process.argv.slice(1)];
  const env = { ...process.env, [MARK]: '1' };
  // execve replaces this process, so no parent stays and signals arrive directly (Node >= 22.15).
  if (typeof process.execve === 'function') {
    try {
      process.execve(binary, [binary, ...args], env);
    } catch {
      // Not available on this platform (Windows): fall through to a child.
    }
  }
  const child = spawn(binary, args, { stdio: 'inherit', env });
  const signals = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2'];
  for (const signal of signals) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => {
    console.error(`aiproxy: cannot start ${binary}: ${error.message}`);
    process.exit(78);
  });
  child.on('exit', (code, signal) => {
    if (!signal) process.exit(code ?? 1);
    // Die of the same signal, so that a supervisor sees the truth.
    for (const name of signals) process.removeAllListeners(name);
    process.kill(process.pid, signal);
  });
}

// Starting, pinning, watching and ending the processes of the benchmark.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { availableParallelism } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { LoadCommand, LoadReport } from './load.ts';

const START_TIMEOUT_MS = 10_000;
const STOP_TIMEOUT_MS = 5_000;

/** True where processes can be tied to a core (taskset of util-linux, two cores or more). */
export const canPin: boolean = availableParallelism() > 1 && runs('taskset', '-V');
const endsWithParent = runs('setpriv', '--version');

export const PROXY_CORE = 1;
export const LOAD_CORE = 0;

export interface Stoppable {
  stop(): Promise<void>;
}

export class Process {
  readonly pid: number;
  readonly child: ChildProcess;
  private errors = '';
  private gone = false;

  /** `ipc` gives it a channel for messages; `onLine` hears what it prints. Throws if the program does not exist. */
  constructor(command: readonly string[], core: number, ipc = false, onLine: ((line: string) => void) | null = null) {
    const pin = canPin ? ['taskset', '-c', String(core)] : [];
    // If this process is killed hard, the kernel ends the child.
    const tie = endsWithParent ? ['setpriv', '--pdeathsig', 'TERM', '--'] : [];
    const [program, ...args] = [...tie, ...pin, ...command];
    const stdio = ['ignore', onLine ? 'pipe' : 'ignore', 'pipe', ...(ipc ? (['ipc'] as const) : [])] as const;
    this.child = spawn(program!, args, { stdio: [...stdio] });
    if (onLine) createInterface(this.child.stdout!).on('line', onLine);
    this.child.on('error', (error) => this.ended(error.message));
    this.child.on('exit', () => this.ended(''));
    this.child.stderr?.on('data', (chunk) => {
      this.errors = `${this.errors}${chunk}`.slice(-2000);
    });
    this.pid = this.child.pid ?? 0;
  }

  get alive(): boolean {
    return !this.gone;
  }

  /** Its last words, on one line. */
  get lastWords(): string {
    return this.errors.trim().split('\n').slice(0, 3).join(' / ') || 'it ended without a word';
  }

  async listening(port: number): Promise<void> {
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (!this.gone && Date.now() < deadline) {
      if (await accepts(port)) return;
      await sleep(20);
    }
    throw new Error(this.gone ? this.lastWords : `it did not listen within ${START_TIMEOUT_MS} ms`);
  }

  /** Resolves with the next message. Rejects if the process ends first. */
  async message(): Promise<unknown> {
    const aborter = new AbortController();
    const ended = once(this.child, 'exit', aborter).then(() => Promise.reject(new Error(this.lastWords)));
    ended.catch(() => {});
    try {
      const [message] = await Promise.race([once(this.child, 'message', aborter), ended]);
      return message;
    } finally {
      aborter.abort();
    }
  }

  /** SIGTERM, and SIGKILL to what is left. */
  async stop(): Promise<void> {
    if (this.gone || this.pid === 0) return;
    const exit = once(this.child, 'exit');
    this.child.kill('SIGTERM');
    const killer = setTimeout(() => this.child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await exit;
    clearTimeout(killer);
  }

  private ended(why: string): void {
    this.errors += why;
    this.gone = true;
  }
}

/** The load generator as a process. */
export class LoadGenerator {
  readonly process: Process;

  constructor() {
    this.process = new Process([process.execPath, benchFile('load.ts')], LOAD_CORE, true);
  }

  /** Throws what the generator says went wrong. */
  async ask(command: LoadCommand): Promise<LoadReport> {
    const answer = this.process.message();
    this.process.child.send(command);
    const report = (await answer) as LoadReport;
    if (report.step === 'failed') throw new Error(report.reason);
    return report;
  }
}

export function benchFile(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

/**
 * A free port that the system gives to no connection of its own accord: for a server that goes away and comes back. On another, a
 * client that connects while nobody listens may be connected with itself.
 */
export async function quietPort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    if (!(await accepts(port))) return port;
  }
}

/** A port of 127.0.0.1 that was free just now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (!address || typeof address !== 'object') throw new Error('no free port');
  return address.port;
}

export function runs(program: string, ...args: string[]): boolean {
  return spawnSync(program, args, { stdio: 'ignore' }).status === 0;
}

function accepts(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, '127.0.0.1');
  socket.on('connect', () => resolve(true));
  socket.on('error', () => resolve(false));
  return promise.finally(() => socket.destroy());
}

/** RST. Not while a FIN is on its way: Node 26 would neither close that socket nor ever end the process. */
export function reset(socket: Socket): void {
  if (socket.writableEnded && !socket.writableFinished) socket.destroy();
  else socket.resetAndDestroy();
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// A real redis-server on a unix socket of its own, which can be frozen, killed and started again.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { within } from './until.ts';

const START_WITHIN_MS = 10_000;
const POLL_MS = 5;

/** The path of the program; null = not installed. */
function findRedis(): string | null {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(directory, 'redis-server');
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {}
  }
  return null;
}

/** For tap: `{ skip: redisMissing() }`. Says so where nobody can overlook it. */
export function redisMissing(): string | false {
  if (findRedis()) return false;
  const reason = 'redis-server is not installed: tests that need it are skipped';
  console.error(`!!! ${reason}`);
  return reason;
}

export class TestRedis {
  /** Of the unix socket. */
  readonly path: string;
  readonly #directory: string;
  readonly #options: readonly string[];
  #process: ChildProcess | null = null;

  private constructor(directory: string, options: readonly string[]) {
    this.#directory = directory;
    this.#options = options;
    this.path = join(directory, 'redis.sock');
  }

  /** @param options further arguments, like `--requirepass x` */
  static async start(...options: string[]): Promise<TestRedis> {
    const redis = new TestRedis(await mkdtemp(join(tmpdir(), 'aiproxy-redis-')), options);
    await redis.restart();
    return redis;
  }

  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error('redis-server does not run');
    return pid;
  }

  /** Its connections stay, and nobody answers. */
  freeze(): void {
    process.kill(this.pid, 'SIGSTOP');
  }

  thaw(): void {
    process.kill(this.pid, 'SIGCONT');
  }

  /** At once, its socket file stays behind. */
  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await within('redis-server is gone', exited);
  }

  /** Empty, on the same socket. */
  async restart(): Promise<void> {
    await this.kill();
    const program = findRedis();
    if (!program) throw new Error('redis-server is not installed');
    const fixed = ['--port', '0', '--unixsocket', this.path, '--dir', this.#directory];
    const child = spawn(program, [...fixed, '--save', '', '--appendonly', 'no', ...this.#options], { stdio: 'ignore' });
    this.#process = child;
    this.#dieWithUs(child);
    const failed = once(child, 'exit').then(([code]) => {
      throw new Error(`redis-server ended with ${code}`);
    });
    failed.catch(() => {});
    await Promise.race([failed, this.#accepts()]);
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** Sends one inline command on a connection of its own. @returns the whole answer as it comes, of at most one piece */
  async ask(command: string): Promise<string> {
    const socket = await this.#connect();
    try {
      socket.write(`${command}\r\n`);
      const [answer] = await within(`an answer to ${command}`, once(socket, 'data'));
      return String(answer);
    } finally {
      socket.destroy();
    }
  }

  /** A test that ends early, or that tap ends, leaves no server behind: a frozen one would stay for ever. */
  #dieWithUs(child: ChildProcess): void {
    const exiting = () => child.kill('SIGKILL');
    const terminated = () => {
      child.kill('SIGKILL');
      process.off('SIGTERM', terminated);
      process.kill(process.pid, 'SIGTERM');
    };
    process.on('exit', exiting);
    process.on('SIGTERM', terminated);
    child.once('exit', () => {
      process.off('exit', exiting);
      process.off('SIGTERM', terminated);
    });
  }

  async #accepts(): Promise<void> {
    const giveUpAt = performance.now() + START_WITHIN_MS;
    for (;;) {
      const answer = await this.ask('PING').catch((error: unknown) => String(error));
      if (/^[+-]/.test(answer)) return;
      if (performance.now() > giveUpAt) throw new Error(`redis-server does not accept: ${answer}`);
      await sleep(POLL_MS);
    }
  }

  async #connect(): Promise<Socket> {
    const socket = connect(this.path);
    await once(socket, 'connect');
    return socket;
  }
}

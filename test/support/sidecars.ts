// Real aiproxy processes from one config, and an upstream that writes down what it gets from all of them.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, createServer, get, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { StatsSnapshot } from '../../src/observe/snapshot.ts';
import { until } from './until.ts';

const BIN = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'bin', 'aiproxy.js');

export class Sidecar {
  readonly #child: ChildProcess;
  readonly #directory: string;
  #out = '';
  port = 0;
  statsPort = 0;

  private constructor(yaml: string) {
    this.#directory = mkdtempSync(join(tmpdir(), 'aiproxy-sidecar-'));
    const file = join(this.#directory, 'pools.yaml');
    writeFileSync(file, `listen: 127.0.0.1:0\nstats: 127.0.0.1:0\nlog: { access: 'off' }\n${yaml}`);
    const { NODE_OPTIONS: _, ...env } = process.env;
    this.#child = spawn(process.execPath, [BIN, '--config', file], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    this.#child.stdout!.on('data', (chunk) => {
      this.#out += chunk;
    });
    const exiting = () => this.#child.kill('SIGKILL');
    process.on('exit', exiting);
    this.#child.once('exit', () => process.off('exit', exiting));
  }

  static async start(yaml: string): Promise<Sidecar> {
    const sidecar = new Sidecar(yaml);
    const line = /^.*"listen".*$/m;
    await until('the sidecar listens', () => line.test(sidecar.#out), 20_000);
    const said = JSON.parse(line.exec(sidecar.#out)![0]) as { listen: string[]; stats: string };
    sidecar.port = Number(String(said.listen).split(':').at(-1));
    sidecar.statsPort = Number(new URL(said.stats).port);
    return sidecar;
  }

  async stats(): Promise<StatsSnapshot> {
    return (await (await fetch(`http://127.0.0.1:${this.statsPort}/stats`)).json()) as StatsSnapshot;
  }

  async end(signal: 'SIGTERM' | 'SIGKILL' = 'SIGKILL'): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const exited = once(this.#child, 'exit');
      this.#child.kill(signal);
      await exited;
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

export class CountingUpstream {
  /** When each request came, ms. */
  readonly arrivals: number[] = [];
  inFlight = 0;
  peak = 0;
  readonly #server: Server;

  private constructor(serviceMs: () => number) {
    this.#server = createServer((_request, response) => {
      this.arrivals.push(performance.now());
      this.peak = Math.max(this.peak, ++this.inFlight);
      const timer = setTimeout(() => response.end('ok'), serviceMs());
      response.once('close', () => {
        clearTimeout(timer);
        this.inFlight--;
      });
    });
  }

  static async start(serviceMs: () => number): Promise<CountingUpstream> {
    const upstream = new CountingUpstream(serviceMs);
    upstream.#server.listen(0, '127.0.0.1');
    await once(upstream.#server, 'listening');
    return upstream;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The most that came within any time of this length. */
  mostWithin(ms: number): number {
    const { arrivals } = this;
    let most = 0;
    for (let first = 0, last = 0; last < arrivals.length; last++) {
      while (arrivals[last]! - arrivals[first]! >= ms) first++;
      most = Math.max(most, last - first + 1);
    }
    return most;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

export interface Outcome {
  /** 0 = the connection broke */
  readonly status: number;
  readonly ms: number;
}

/** So many users, each with one request after the other until told to stop. */
export class Crowd {
  readonly outcomes: Outcome[] = [];
  readonly #agent = new Agent({ keepAlive: true });
  #stopped = false;
  readonly #done: Promise<unknown>;

  constructor(sidecar: Sidecar, users: number) {
    this.#done = Promise.all(Array.from({ length: users }, () => this.#user(sidecar)));
  }

  async #user({ port }: Sidecar): Promise<void> {
    while (!this.#stopped) {
      const startedAt = performance.now();
      const status = await new Promise<number>((resolve) => {
        const request = get({ port, host: '127.0.0.1', path: '/ai/x', agent: this.#agent }, (response) => {
          response.resume();
          response.once('close', () => resolve(response.complete ? response.statusCode! : 0));
        });
        request.once('error', () => resolve(0));
      });
      this.outcomes.push({ status, ms: performance.now() - startedAt });
      if (status === 0) return;
    }
  }

  /** Those under way get their answers. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
    this.#agent.destroy();
  }
}

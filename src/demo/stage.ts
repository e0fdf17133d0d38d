// What the demo plays on: the mock upstreams and the real proxy, each in a process of its own so that no one's CPU time hides in another's.
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { StatsSnapshot } from '../observe/snapshot.ts';
import { Child } from './child.ts';
import type { BaseUrls } from './legacy-calls.ts';
import { type ProxyPorts, proxyConfig } from './proxy-config.ts';
import type { UpstreamCounters, UpstreamsReady } from './upstreams.ts';

const START_LIMIT_MS = 15_000;
const POLL_MS = 25;
/** How long counters may lag behind the client: half a round trip, and a busy upstream. */
const SETTLE_MS = 50;

/** Something the demo needs did not start or ended early; the message is for the user. */
export class StageError extends Error {}

export class Stage {
  readonly #bin: string;
  readonly #signal: AbortSignal;
  readonly #children: { readonly child: Child; readonly politely: boolean }[] = [];
  readonly #folder = mkdtempSync(join(tmpdir(), 'aiproxy-demo-'));
  readonly #removeFolder = (): void => rmSync(this.#folder, { recursive: true, force: true });
  #upstreams: UpstreamsReady | undefined;
  #ports: ProxyPorts | undefined;

  /** `bin` is the program that knows `demo-upstreams` and `--config`. */
  constructor(bin: string, signal: AbortSignal) {
    this.#bin = bin;
    this.#signal = signal;
    process.once('exit', this.#removeFolder);
  }

  async start(rttMs: number): Promise<void> {
    const mocks = this.#spawn(['demo-upstreams', '--rtt', String(rttMs)], false);
    const line = await this.#until('the mock upstreams', mocks, async () => mocks.firstLine);
    this.#upstreams = JSON.parse(line) as UpstreamsReady;
    const ports = await freePorts();
    this.#ports = ports;
    const caPath = join(this.#folder, 'ca.pem');
    const configPath = join(this.#folder, 'aiproxy.yaml');
    writeFileSync(caPath, this.#upstreams.ca);
    writeFileSync(configPath, proxyConfig(ports, this.#upstreams, caPath));
    const proxy = this.#spawn(['--config', configPath], true);
    const isReady = async (): Promise<true | null> =>
      (await fetch(`http://127.0.0.1:${ports.stats}/readyz`)).status === 200 || null;
    await this.#until('aiproxy', proxy, isReady);
  }

  get ca(): string {
    return this.#started.ca;
  }

  /** Straight to the upstreams, with the relays' round-trip time. */
  get directUrls(): BaseUrls {
    const { openai, deepseek, fatsecret } = this.#started.ports;
    const url = (port: number): string => `https://127.0.0.1:${port}`;
    return { openai: url(openai), deepseek: url(deepseek), fatsecret: url(fatsecret) };
  }

  /** The same APIs through the proxy. */
  get proxiedUrls(): BaseUrls {
    const url = (name: string): string => `http://127.0.0.1:${this.#ports?.listen}/${name}`;
    return { openai: url('openai'), deepseek: url('deepseek'), fatsecret: url('fatsecret') };
  }

  get dashboardUrl(): string {
    return `http://127.0.0.1:${this.#ports?.stats}/`;
  }

  /** What the proxy says of itself. */
  async stats(): Promise<StatsSnapshot> {
    return (await this.#ask(`${this.dashboardUrl}stats`)) as StatsSnapshot;
  }

  /** What the upstreams saw since the last reset. */
  async counters(): Promise<UpstreamCounters> {
    await sleep(SETTLE_MS);
    return (await this.#ask(`http://127.0.0.1:${this.#started.control}/counters`)) as UpstreamCounters;
  }

  async resetCounters(): Promise<void> {
    await this.#ask(`http://127.0.0.1:${this.#started.control}/reset`, 'POST');
  }

  /** Ends every process, the proxy first, and removes the temporary files. Safe at any moment, also twice. */
  async end(): Promise<void> {
    for (const { child, politely } of this.#children.reverse()) await child.end(politely);
    this.#children.length = 0;
    process.off('exit', this.#removeFolder);
    this.#removeFolder();
  }

  get #started(): UpstreamsReady {
    if (this.#upstreams === undefined) throw new Error('the stage has not been started');
    return this.#upstreams;
  }

  #spawn(args: readonly string[], politely: boolean): Child {
    const child = new Child(this.#bin, args);
    this.#children.push({ child, politely });
    return child;
  }

  /** Asks until there is an answer; a probe that throws is one that has none yet. */
  async #until<T>(name: string, child: Child, probe: () => Promise<T | null>): Promise<T> {
    const limit = performance.now() + START_LIMIT_MS;
    while (performance.now() < limit && !child.ended) {
      const answer = await probe().catch(() => null);
      if (answer !== null) return answer;
      await sleep(POLL_MS, undefined, { signal: this.#signal });
    }
    const what = child.ended ? 'ended while starting' : `was not ready after ${START_LIMIT_MS / 1000} s`;
    throw new StageError(`${name} ${what}${child.output === '' ? '' : `:\n${child.output}`}`);
  }

  async #ask(url: string, method = 'GET'): Promise<unknown> {
    const response = await fetch(url, { method, signal: this.#signal }).catch((error: Error) => {
      if (this.#signal.aborted) throw error;
      const output = this.#children.map(({ child }) => child.output).join('\n');
      throw new StageError(`${method} ${url} failed: a process of the demo is gone or hangs. ${output}`.trim());
    });
    if (response.status !== 200) throw new StageError(`${method} ${url} was answered with ${response.status}`);
    return await response.json();
  }
}

/** Two ports that nobody listens on. Another program could take one before the proxy does; it would then say so. */
async function freePorts(): Promise<ProxyPorts> {
  const servers = [createServer(), createServer()];
  const ports: number[] = [];
  for (const server of servers) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    ports.push((server.address() as AddressInfo).port);
  }
  for (const server of servers) server.close();
  return { listen: ports[0]!, stats: ports[1]! };
}

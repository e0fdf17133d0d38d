// The aiproxy that a soak works on: a process of its own, with its statistics and what the kernel says of it.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StatsSnapshot } from '../src/observe/snapshot.ts';
import { benchFile, freePort, PROXY_CORE, Process } from './processes.ts';
import { type Usage, usageOf } from './usage.ts';

/** Without it bin/aiproxy.js would execute itself again, without our other flags. */
const FLAGS = ['--max-semi-space-size=4'];

export class SoakProxy {
  readonly port: number;
  readonly process: Process;
  readonly #stats: number;
  readonly #directory: string;

  private constructor(port: number, stats: number, directory: string, process: Process) {
    this.port = port;
    this.#stats = stats;
    this.#directory = directory;
    this.process = process;
  }

  /**
   * @param config a text with @LISTEN@ and @STATS@ where those ports belong
   * @param onLine hears each line of its log
   */
  static async start(
    config: string,
    onLine: ((line: string) => void) | null = null,
    nodeFlags: readonly string[] = [],
  ): Promise<SoakProxy> {
    const directory = mkdtempSync(join(tmpdir(), 'aiproxy-soak-'));
    const [listen, stats] = [await freePort(), await freePort()];
    const file = join(directory, 'aiproxy.yaml');
    writeFileSync(file, config.replaceAll('@LISTEN@', String(listen)).replaceAll('@STATS@', String(stats)));
    const process = new Process(
      [globalThis.process.execPath, ...FLAGS, ...nodeFlags, benchFile('../bin/aiproxy.js'), '--config', file],
      PROXY_CORE,
      false,
      onLine,
    );
    const proxy = new SoakProxy(listen, stats, directory, process);
    try {
      await process.listening(listen);
    } catch (error) {
      await proxy.stop();
      throw error;
    }
    return proxy;
  }

  async stop(): Promise<void> {
    await this.process.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  get rssMb(): number {
    return usageOf(this.process.pid).rssMb;
  }

  get usage(): Usage {
    return usageOf(this.process.pid);
  }

  /** File descriptors that it has open. */
  get fds(): number {
    return readdirSync(`/proc/${this.process.pid}/fd`).length;
  }

  /** On a connection of its own that is gone afterwards: it must not count among the file descriptors. */
  stats(): Promise<StatsSnapshot> {
    const { promise, resolve, reject } = Promise.withResolvers<StatsSnapshot>();
    const request = get({ port: this.#stats, host: '127.0.0.1', path: '/stats', agent: false, timeout: 10_000 });
    request.on('timeout', () => request.destroy(new Error('/stats does not answer')));
    request.on('error', reject);
    request.on('response', (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      answer.on('end', () => resolve(JSON.parse(text) as StatsSnapshot));
    });
    return promise;
  }
}

export function template(name: string, values: Readonly<Record<string, number>>): string {
  let text = readFileSync(benchFile(name), 'utf8');
  for (const [key, value] of Object.entries(values)) text = text.replaceAll(`@${key}@`, String(value));
  return text;
}

export function verdict(target: string, value: string | number, met: boolean): boolean {
  console.log(`${met ? 'met   ' : 'MISSED'}  ${target}: ${value}`);
  return met;
}

/** A number above 0 of the command line. */
export function above0(text: string | undefined, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text);
  if (!(value > 0)) throw new Error(`not a number above 0: ${text}`);
  return value;
}

// All three mock upstreams, each behind a relay, in a process of their own (`aiproxy demo-upstreams`), told what to do on a control port.
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { makeAuthority, makeCertificate } from './certificate.ts';
import { deepseekMock } from './mock-deepseek.ts';
import { fatsecretMock } from './mock-fatsecret.ts';
import { openaiMock } from './mock-openai.ts';
import { type Counters, MockServer, sendJson } from './mock-server.ts';
import { Relay } from './relay.ts';

export const UPSTREAM_NAMES = ['openai', 'deepseek', 'fatsecret'] as const;
export type UpstreamName = (typeof UPSTREAM_NAMES)[number];
type ByUpstream<T> = Record<UpstreamName, T>;

export interface UpstreamsOptions {
  /** Round-trip time that the relays add, in ms. */
  readonly rtt: number;
  /** How long each upstream thinks before it answers, in ms. */
  readonly thinkMs?: Partial<ByUpstream<number>>;
}

/** The one line of JSON that the process prints when it is ready. */
export interface UpstreamsReady {
  /** Port of each upstream's relay; TLS for `localhost` and 127.0.0.1. */
  readonly ports: ByUpstream<number>;
  /** PEM of the authority that signed the upstreams' certificate. */
  readonly ca: string;
  /** Loopback port: GET /counters, POST /reset. */
  readonly control: number;
}

export type UpstreamCounters = ByUpstream<Counters>;

const MOCKS = { openai: openaiMock, deepseek: deepseekMock, fatsecret: fatsecretMock };
const THINK_MS: ByUpstream<number> = { openai: 60, deepseek: 80, fatsecret: 40 };

/** Mocks and relays in this process; for tests, and for runUpstreams. */
export class Upstreams {
  readonly #mocks = {} as ByUpstream<MockServer>;
  readonly #relays: Relay[] = [];

  async start(options: UpstreamsOptions): Promise<Omit<UpstreamsReady, 'control'>> {
    const authority = makeAuthority();
    const tls = makeCertificate({ names: ['localhost', '127.0.0.1'], issuer: authority });
    const ports = {} as ByUpstream<number>;
    for (const name of UPSTREAM_NAMES) {
      const mock = new MockServer({ answer: MOCKS[name](options.thinkMs?.[name] ?? THINK_MS[name]), tls });
      this.#mocks[name] = mock;
      const relay = new Relay({ targetPort: await mock.listen(), rttMs: options.rtt });
      this.#relays.push(relay);
      ports[name] = await relay.listen();
    }
    return { ports, ca: authority.cert };
  }

  get counters(): UpstreamCounters {
    const { openai, deepseek, fatsecret } = this.#mocks;
    return { openai: openai.counters, deepseek: deepseek.counters, fatsecret: fatsecret.counters };
  }

  resetCounters(): void {
    for (const mock of Object.values(this.#mocks)) mock.resetCounters();
  }

  async close(): Promise<void> {
    const parts = [...this.#relays, ...Object.values(this.#mocks)];
    await Promise.all(parts.map((part) => part.close()));
  }
}

/** Runs until stdin closes (so that it never outlives the demo that started it) or the signal fires. Gives an exit code. */
export async function runUpstreams(
  options: UpstreamsOptions,
  io: { stdin: NodeJS.ReadableStream; stdout: NodeJS.WritableStream; signal?: AbortSignal },
): Promise<number> {
  const upstreams = new Upstreams();
  const started = await upstreams.start(options);
  const control = createServer((request, response) => {
    if (request.method === 'POST') upstreams.resetCounters();
    sendJson(response, 200, upstreams.counters);
  });
  control.listen(0, '127.0.0.1');
  await once(control, 'listening');
  const ready: UpstreamsReady = { ...started, control: (control.address() as AddressInfo).port };
  // Ctrl-C in a terminal reaches the whole process group; the demo ends us in its own order.
  const ignore = (): void => {};
  process.on('SIGINT', ignore);
  io.stdout.write(`${JSON.stringify(ready)}\n`);
  await ended(io.stdin, io.signal);
  process.off('SIGINT', ignore);
  control.closeAllConnections();
  control.close();
  await upstreams.close();
  return 0;
}

function ended(stdin: NodeJS.ReadableStream, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    stdin.once('end', resolve);
    stdin.once('close', resolve);
    stdin.once('error', () => resolve());
    stdin.resume();
    signal?.addEventListener('abort', () => resolve(), { once: true });
  });
}

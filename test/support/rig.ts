// What an e2e test works with: upstreams, a proxy and clients that are all closed and checked when the test is over.

import type { RequestListener } from 'node:http';
import type { ConnectionOptions, TlsOptions } from 'node:tls';
import t, { type Test } from 'tap';
import type { ListeningAt } from '../../src/server/listener.ts';
import { assertNothingLeft, type ConfigOverrides, SECRET, TestProxy, type UpstreamOverrides } from './proxy.ts';
import { type RawAnswer, RawClient } from './raw-client.ts';
import { until } from './until.ts';
import { answer, HttpUpstream, RawUpstream, type RawUpstreamOptions, type Script } from './upstream.ts';

export interface Ask {
  readonly method?: string;
  readonly headers?: string;
  readonly body?: string | Uint8Array;
}

/** The bytes of a request; without headers it carries the credential that must not be logged. */
export function requestText(path: string, { method = 'GET', headers = '', body }: Ask = {}): string {
  const length = body === undefined ? '' : `content-length: ${Buffer.byteLength(body)}\r\n`;
  const head = `${method} ${path} HTTP/1.1\r\nhost: proxy.test\r\nauthorization: Bearer ${SECRET}\r\n${headers}${length}\r\n`;
  return body === undefined ? head : head + (typeof body === 'string' ? body : Buffer.from(body).toString('latin1'));
}

export class Rig {
  readonly #t: Test;
  readonly #clients: RawClient[] = [];
  readonly #proxies: TestProxy[] = [];
  readonly #upstreams: { close(): Promise<void> }[] = [];
  readonly #before = handles();

  constructor(test: Test) {
    this.#t = test;
  }

  /** An upstream on bare sockets; without a script it answers `ok` to everything. */
  async upstream(
    script: Script = async (request, connection) => {
      await request.whole();
      connection.send(answer());
    },
    options: RawUpstreamOptions = {},
  ): Promise<RawUpstream> {
    const upstream = await RawUpstream.start(script, options);
    this.#upstreams.push(upstream);
    return upstream;
  }

  async http(handler: RequestListener, tls?: TlsOptions): Promise<HttpUpstream> {
    const upstream = await HttpUpstream.start(handler, tls);
    this.#upstreams.push(upstream);
    return upstream;
  }

  /** Anything else that must be closed after the proxy. */
  closes(thing: { close(): Promise<void> }): void {
    this.#upstreams.push(thing);
  }

  /** @param wallClock ms since the epoch; the rest of the proxy keeps real time */
  async proxy(overrides: ConfigOverrides, wallClock = Date.now): Promise<TestProxy> {
    const proxy = await TestProxy.start(overrides, {}, wallClock);
    this.#proxies.push(proxy);
    return proxy;
  }

  /** A proxy with the one upstream `ai`. */
  async one(upstream: UpstreamOverrides, rest: Omit<ConfigOverrides, 'upstreams'> = {}): Promise<TestProxy> {
    return await this.proxy({ ...rest, upstreams: { ai: upstream } });
  }

  async client(proxy: TestProxy): Promise<RawClient> {
    const client = await RawClient.connect(proxy.port);
    this.#clients.push(client);
    return client;
  }

  /** A client of any listener of a proxy; without TLS options it speaks none. */
  async clientAt(at: ListeningAt, tls?: ConnectionOptions): Promise<RawClient> {
    const client = await RawClient.reach(at, tls);
    this.#clients.push(client);
    return client;
  }

  /** A client that has sent one request. */
  async sent(proxy: TestProxy, path: string, ask: Ask = {}): Promise<RawClient> {
    const client = await this.client(proxy);
    return client.send(requestText(path, ask));
  }

  /** One request on a connection of its own, and its whole answer. */
  async ask(proxy: TestProxy, path: string, ask: Ask = {}): Promise<RawAnswer> {
    const client = await this.sent(proxy, path, ask);
    const got = await client.answer(ask.method === 'HEAD');
    client.destroy();
    return got;
  }

  /** Closes everything and asserts that nothing is left behind. */
  async close(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    for (const proxy of this.#proxies) await assertNothingLeft(this.#t, proxy);
    for (const upstream of this.#upstreams) await upstream.close();
    const t = this.#t;
    await until('no handle left', () =>
      Object.entries(handles()).every(([kind, n]) => n <= (this.#before[kind] ?? 0)),
    ).catch(() => t.same(handles(), this.#before, 'no socket and no timer is left'));
  }
}

/** Sockets, servers and timers that keep the process alive. */
function handles(): Record<string, number> {
  const counts: Record<string, number> = {
    TCPSocketWrap: 0,
    TCPServerWrap: 0,
    PipeWrap: 0,
    PipeServerWrap: 0,
    Timeout: 0,
  };
  for (const kind of process.getActiveResourcesInfo()) {
    if (kind in counts) counts[kind]!++;
  }
  return counts;
}

/** A test with a rig. */
export function e2e(name: string, run: (t: Test, rig: Rig) => Promise<void>): void {
  void t.test(name, async (t) => {
    const rig = new Rig(t);
    try {
      await run(t, rig);
    } finally {
      await rig.close();
    }
  });
}

// A proxy with an HTTP cache that is told the time, an upstream that answers by path, and what became of a request.

import type { Test } from 'tap';
import type { CacheOverrides, TestProxy, UpstreamOverrides } from './proxy.ts';
import { type RawAnswer, RawClient } from './raw-client.ts';
import type { Rig } from './rig.ts';
import { answer, type RawUpstream, type Script, type UpstreamRequest } from './upstream.ts';

const NOON = Date.UTC(2026, 8, 14, 12, 0, 0);

/** The HTTP date so many seconds after a scene opened. */
export function date(seconds: number): string {
  return new Date(NOON + seconds * 1000).toUTCString();
}

/** Lines of a head. */
export function lines(...fields: readonly string[]): string {
  return fields.map((field) => `${field}\r\n`).join('');
}

export interface Asking {
  readonly method?: string | undefined;
  readonly fields?: readonly string[];
  readonly body?: string;
}

export class Scene {
  readonly proxy: TestProxy;
  readonly upstream: RawUpstream;
  readonly #replies = new Map<string, (string | Script)[]>();
  readonly #clock: { now: number };
  readonly #base: string;

  private constructor(proxy: TestProxy, upstream: RawUpstream, clock: { now: number }, base: string) {
    this.#base = base;
    this.proxy = proxy;
    this.upstream = upstream;
    this.#clock = clock;
    upstream.script = async (request, connection) => {
      const replies = this.#replies.get(request.target) ?? [answer()];
      const reply = replies.length > 1 ? replies.shift()! : replies[0]!;
      if (typeof reply !== 'string') return await reply(request, connection);
      await request.whole();
      if (request.method === 'HEAD') connection.send(reply.slice(0, reply.indexOf('\r\n\r\n') + 4));
      else connection.send(reply);
    };
  }

  /** @param base prefix of all paths at the upstream; it is left out everywhere else */
  static async open(
    rig: Rig,
    cache: CacheOverrides = {},
    more: Partial<UpstreamOverrides> = {},
    base = '',
  ): Promise<Scene> {
    const upstream = await rig.upstream();
    const clock = { now: NOON };
    const ai = { url: upstream.url + base, cache: { http: true, ...cache }, ...more };
    const proxy = await rig.proxy({ upstreams: { ai } }, () => clock.now);
    return new Scene(proxy, upstream, clock, base);
  }

  /** Time passes. */
  later(seconds: number): void {
    this.#clock.now += seconds * 1000;
  }

  /** It is noon again. */
  backToStart(): void {
    this.#clock.now = NOON;
  }

  /** What the upstream gives at a path, in turn; the last one again and again. */
  replies(path: string, ...replies: (string | Script)[]): void {
    this.#replies.set(this.#base + path, replies);
  }

  /** The requests that came for a path. */
  asked(path: string): UpstreamRequest[] {
    return this.upstream.requests.filter(({ target }) => target === this.#base + path);
  }

  async sent(path: string, { method = 'GET', fields = [], body }: Asking = {}): Promise<RawClient> {
    const client = await RawClient.connect(this.proxy.port);
    const length = body === undefined ? '' : `content-length: ${Buffer.byteLength(body)}\r\n`;
    return client.send(
      `${method} /ai${path} HTTP/1.1\r\nhost: proxy.test\r\n${lines(...fields)}${length}\r\n${body ?? ''}`,
    );
  }

  /** One request without credentials, and its whole answer. */
  async ask(path: string, asking: Asking = {}): Promise<RawAnswer> {
    const client = await this.sent(path, asking);
    try {
      return await client.answer(asking.method === 'HEAD');
    } finally {
      client.destroy();
    }
  }

  async get(path: string, ...fields: readonly string[]): Promise<RawAnswer> {
    return await this.ask(path, { fields });
  }
}

/** What aiproxy says of an answer: its own member of Cache-Status, the last one. A key without a value is ''. */
export function cacheStatus(got: RawAnswer): Record<string, string> {
  const own = got.all('cache-status').at(-1) ?? '';
  const [name, ...parameters] = own.split(';').map((part) => part.trim());
  if (name !== 'aiproxy') return {};
  return Object.fromEntries(parameters.map((parameter) => [parameter.split('=')[0]!, parameter.split('=')[1] ?? '']));
}

/** What became of a request: from the store, fresh or stale; the upstream asked whether the stored one holds; fetched anew. */
export type Fate = 'hit' | 'stale' | 'validated' | 'fetched';

export async function fateOf(scene: Scene, path: string, asking: Asking): Promise<{ fate: Fate; got: RawAnswer }> {
  const before = scene.asked(path).length;
  const got = await scene.ask(path, asking);
  const status = cacheStatus(got);
  if ('hit' in status) return { fate: Number(status.ttl) >= 0 ? 'hit' : 'stale', got };
  const request = scene.asked(path)[before];
  if (!request) throw new Error(`neither hit nor asked: ${got.text}`);
  const asks = request.get('if-none-match') ?? request.get('if-modified-since');
  return { fate: asks === undefined ? 'fetched' : 'validated', got };
}

/** One rule: an answer is given to a first request, and then this becomes of a second one. */
export interface Row {
  readonly rule: string;
  /** The answer's fields, beside its Content-Length. */
  readonly says: readonly string[];
  readonly status?: string;
  /** The first request; of the second one where `again` does not say otherwise. */
  readonly asks?: readonly string[];
  readonly method?: string;
  readonly again?: readonly string[];
  /** Seconds between the two. */
  readonly after?: number;
  readonly fate: Fate;
  /** Default: unless it is fetched anew. */
  readonly stored?: boolean;
}

/** A test per row, on a path of its own. */
export async function walk(t: Test, scene: Scene, rows: readonly Row[]): Promise<void> {
  for (const [i, row] of rows.entries()) {
    const { rule, says, status, asks = [], method, again = asks, after = 0, fate, stored = fate !== 'fetched' } = row;
    const path = `/row${i}`;
    scene.replies(path, answer('body', lines(...says), status));
    await t.test(rule, async (t) => {
      scene.backToStart();
      const first = await scene.ask(path, { method, fields: asks });
      t.equal('stored' in cacheStatus(first), stored, 'the first answer says whether it is stored');
      scene.later(after);
      const { got, ...second } = await fateOf(scene, path, { fields: again });
      t.equal(second.fate, fate);
      t.equal(got.body.toString(), first.body.toString());
      if (fate === 'hit') t.equal(scene.asked(path).length, 1);
    });
  }
}

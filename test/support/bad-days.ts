// What tests of an upstream's bad days share: answers by path, requests that are held until released, and the state of a breaker.

import type { TestProxy } from './proxy.ts';
import { until } from './until.ts';
import { answer, type RawUpstream, type Script, type UpstreamConnection, type UpstreamRequest } from './upstream.ts';

/** `/503` is answered 503, `/reset` is reset, `/hang` is never answered; anything else 200 with the path as its body. */
export const byPath: Script = async (request, connection) => {
  await request.whole();
  const path = request.target.split('/').at(-1)!;
  if (path === 'reset') connection.resetAndDestroy();
  else if (/^\d{3}$/.test(path)) connection.send(answer(path, '', `${path} Told`));
  else if (path !== 'hang') connection.send(answer(path));
};

/** Answers each request in its turn; the last reply again and again. */
export function inTurn(...replies: readonly (string | Script)[]): Script {
  let turn = 0;
  return async (request, connection) => {
    const reply = replies[Math.min(turn++, replies.length - 1)]!;
    if (typeof reply !== 'string') return await reply(request, connection);
    await request.whole();
    connection.send(reply);
  };
}

export const resets: Script = async (request, connection) => {
  await request.whole();
  connection.resetAndDestroy();
};

export const hangs: Script = () => {};

/** Requests whose target ends so are kept until they are released; the others are answered by path. */
export class Hold {
  readonly #ending: string;
  readonly #upstream: RawUpstream;
  #seen = 0;
  readonly held: { request: UpstreamRequest; connection: UpstreamConnection }[] = [];

  constructor(upstream: RawUpstream, ending = '/held') {
    this.#ending = ending;
    this.#upstream = upstream;
    upstream.script = async (request, connection) => {
      if (!request.target.endsWith(this.#ending)) return await byPath(request, connection);
      await request.whole();
      this.held.push({ request, connection });
      this.#seen++;
    };
  }

  /** Waits until so many were held, ever. */
  async count(many: number): Promise<void> {
    await until(`${many} held at the upstream, of ${this.#upstream.requests.length}`, () => this.#seen >= many);
  }

  /** Answers the one that has been held longest. */
  release(bytes: string = answer('released')): void {
    this.held.shift()!.connection.send(bytes);
  }
}

/** Of an upstream's n-th target. */
export function targetOf(proxy: TestProxy, index = 0, name = 'ai') {
  return proxy.upstream(name).targets[index]!;
}

export function breakerOf(proxy: TestProxy, index = 0, name = 'ai') {
  return targetOf(proxy, index, name).breaker!;
}

/** A port on which nothing listens, as a base URL. */
export async function refusing(upstream: RawUpstream): Promise<string> {
  const { url } = upstream;
  await upstream.close();
  return url;
}

// Identical requests, sent at one time on connections of their own, and what became of them.

import type { Test } from 'tap';
import type { TestProxy, UpstreamOverrides } from './proxy.ts';
import type { RawAnswer, RawClient } from './raw-client.ts';
import type { Rig } from './rig.ts';
import { until } from './until.ts';
import type { Script } from './upstream.ts';

export const FRESH = 'cache-control: max-age=60\r\n';
export const RULE: Partial<UpstreamOverrides> = { cache: { rules: [{ ttlMs: 60_000 }] } };
export const HTTP: Partial<UpstreamOverrides> = { cache: { http: true } };
export const COALESCE: Partial<UpstreamOverrides> = { coalesce: true };

/** A request without credentials. @param fields whole lines */
export function get(path: string, fields = ''): string {
  return `GET ${path} HTTP/1.1\r\nhost: proxy.test\r\n${fields}\r\n`;
}

export function post(path: string, body: string, fields = ''): string {
  return `POST ${path} HTTP/1.1\r\nhost: proxy.test\r\n${fields}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

/** Reads the request and leaves the answer to the test. */
export const silent: Script = () => {};

export async function sent(rig: Rig, proxy: TestProxy, text: string): Promise<RawClient> {
  return (await rig.client(proxy)).send(text);
}

/** One request on a connection of its own, and its whole answer. */
export async function ask(rig: Rig, proxy: TestProxy, text: string): Promise<RawAnswer> {
  const client = await sent(rig, proxy, text);
  const got = await client.answer(text.startsWith('HEAD '));
  client.destroy();
  return got;
}

/** So many requests, in this order; all of them are under way when this resolves. */
export async function twins(
  rig: Rig,
  proxy: TestProxy,
  n: number,
  text: string | ((i: number) => string),
): Promise<RawClient[]> {
  const before = proxy.upstream().requests;
  const clients: RawClient[] = [];
  for (let i = 0; i < n; i++) clients.push(await rig.client(proxy));
  for (const [i, client] of clients.entries()) {
    client.send(typeof text === 'string' ? text : text(i));
    // The first leads, the others come in their order.
    await until(`request ${i} is under way`, () => proxy.upstream().requests === before + i + 1);
  }
  return clients;
}

export function answers(clients: readonly RawClient[]): Promise<RawAnswer[]> {
  return Promise.all(clients.map((client) => client.answer()));
}

/** Every client gets exactly this next. */
export async function allGet(t: Test, clients: readonly RawClient[], piece: string, message: string): Promise<void> {
  const pieces = await Promise.all(clients.map((client) => client.piece()));
  t.ok(
    pieces.every((got) => String(got) === piece),
    message,
  );
}

/** Nothing of shared fetches is left. */
export async function landed(proxy: TestProxy): Promise<void> {
  await until('no flight and no memory of one', () => {
    const { flights, flight_memory_bytes } = proxy.stats().cache;
    return flights === 0 && flight_memory_bytes === 0;
  }).catch((error: Error) => {
    throw new Error(`${error.message}: ${JSON.stringify(proxy.stats().cache)}`);
  });
}

/** Bytes that come with `date`, `server-timing` and the like differ; these may not. */
function substance(got: RawAnswer): unknown {
  return [got.status, got.get('content-type'), got.body.toString('base64'), got.ending];
}

/** The same answer for all. */
export function alike(t: Test, all: readonly RawAnswer[], message: string): void {
  const [first, ...others] = all;
  t.ok(
    others.every((one) => JSON.stringify(substance(one)) === JSON.stringify(substance(first!))),
    message,
  );
}

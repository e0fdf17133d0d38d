// Throws answers out of Redis: those of a key, a URI, the URIs that begin alike, or all; and the messages that tell the other sidecars.

import type { Redis } from 'ioredis';
import { DEFAULT_VARIANT, type RedisLayout, splitMember, variantsIn } from './redis-layout.ts';

/** Members of one URI's set, and keys SCAN looks at, per round trip. */
const SLICE = 500;

/** What to throw out; null = any. A URI goes with its upstream. */
export interface PurgeMessage {
  readonly upstream: string | null;
  readonly uri: string | null;
  /** Beginning of the URI. */
  readonly prefix: string | null;
  readonly key: string | null;
}

export const EVERYTHING: PurgeMessage = { upstream: null, uri: null, prefix: null, key: null };

/** @returns how many answers are gone; throws what ioredis throws */
export async function unlinkAnswers(redis: Redis, layout: RedisLayout, purge: PurgeMessage): Promise<number> {
  const { upstream, uri, prefix, key } = purge;
  if (key !== null) return await unlinkKey(redis, layout, key);
  if (upstream !== null && uri !== null) return await unlinkPlace(redis, layout, layout.place(upstream, uri));
  if (upstream === null && prefix === null) return await unlinkAll(redis, layout);
  let count = 0;
  for await (const found of scan(redis, layout.places(upstream, prefix ?? ''))) {
    for (const place of found) {
      if (layout.isPlace(place, upstream, prefix ?? '')) count += await unlinkPlace(redis, layout, place);
    }
  }
  return count;
}

export function writeMessage(from: string, { upstream, uri, prefix, key }: PurgeMessage): string {
  return JSON.stringify({ from, upstream, uri, prefix, key });
}

/** @returns null for one's own. One that cannot be read may have meant anything. */
export function readMessage(self: string, text: string): PurgeMessage | null {
  try {
    const { from, upstream, uri, prefix, key } = JSON.parse(text);
    if (from === self) return null;
    const isNames = [upstream, uri, prefix, key].every((it) => it === null || typeof it === 'string');
    return isNames ? { upstream, uri, prefix, key } : EVERYTHING;
  } catch {
    return EVERYTHING;
  }
}

async function unlinkKey(redis: Redis, layout: RedisLayout, key: string): Promise<number> {
  const index = layout.index(key);
  const variants = variantsIn(await redis.get(index));
  const answers = [DEFAULT_VARIANT, ...variants].map((variant) => layout.answer(key, variant));
  const [count] = await Promise.all([redis.unlink(answers), redis.unlink(index)]);
  return count;
}

/** All of one URI, in as many steps as it has slices. */
async function unlinkPlace(redis: Redis, layout: RedisLayout, place: string): Promise<number> {
  let count = 0;
  for (;;) {
    const members = await redis.zrange(place, 0, `${SLICE - 1}`);
    if (members.length === 0) return count;
    const found = members.map((member) => splitMember(member));
    const [, gone] = await Promise.all([
      // First, so that an answer put in between is listed anew.
      redis.zrem(place, members),
      redis.unlink(found.map(([variant, key]) => layout.answer(key, variant))),
      redis.unlink(found.map(([, key]) => layout.index(key))),
    ]);
    count += gone;
  }
}

async function unlinkAll(redis: Redis, layout: RedisLayout): Promise<number> {
  let count = 0;
  for await (const found of scan(redis, layout.everything)) {
    const answers = found.filter((it) => layout.isAnswer(it));
    const others = found.filter((it) => !layout.isAnswer(it));
    if (answers.length > 0) count += await redis.unlink(answers);
    if (others.length > 0) await redis.unlink(others);
  }
  return count;
}

async function* scan(redis: Redis, pattern: string): AsyncGenerator<string[]> {
  let cursor = '0';
  do {
    const [next, found] = await redis.scan(cursor, 'MATCH', pattern, 'COUNT', SLICE);
    cursor = next;
    yield found;
  } while (cursor !== '0');
}

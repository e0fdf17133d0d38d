// A script that Redis keeps by its hash; it is sent along only when Redis does not have it (yet, or any more).

import { hash } from 'node:crypto';
import type { Redis } from 'ioredis';

/** Server time in µs. Needs Redis 5: what a script writes after it asked for the time is replicated as effects. */
export const NOW_US = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
`;

/** Server time in ms. */
export const NOW_MS = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

export class RedisScript {
  readonly #lua: string;
  readonly #sha: string;

  constructor(lua: string) {
    this.#lua = lua;
    this.#sha = hash('sha1', lua);
  }

  /** Rejects with what ioredis rejects with. */
  async run(redis: Redis, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> {
    try {
      return await redis.evalsha(this.#sha, keys.length, ...keys, ...args);
    } catch (error) {
      if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error;
      return await redis.eval(this.#lua, keys.length, ...keys, ...args);
    }
  }
}

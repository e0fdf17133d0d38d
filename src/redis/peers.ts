// How many sidecars share this Redis: each says every few seconds that it is alive, by the server's clock.

import type { Redis } from 'ioredis';
import { NOW_MS, RedisScript } from './script.ts';

export interface PeerTimes {
  /** Each says so this often. */
  readonly beatMs: number;
  /** One that has not said so for this long is gone. */
  readonly deadMs: number;
}

export const PEER_TIMES: PeerTimes = { beatMs: 3000, deadMs: 10_000 };

/** KEYS: sorted set of sidecars, scored by when they count as gone. ARGV: self, ms until then. @returns how many are alive */
const BEAT = new RedisScript(`${NOW_MS}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
`);

type Ask = (run: (redis: Redis) => Promise<number>) => Promise<number>;

export class Peers {
  /** As last known; at least 1. */
  count = 1;
  readonly #key: string;
  readonly #self: string;
  readonly #times: PeerTimes;
  readonly #now: () => number;
  /** Until then those who are missing may not have found Redis again yet. */
  #completeAt = 0;
  #timer: NodeJS.Timeout | undefined;

  /** @param now a monotonic clock, ms */
  constructor(prefix: string, self: string, times: PeerTimes, now: () => number) {
    this.#key = `${prefix}peers`;
    this.#self = self;
    this.#times = times;
    this.#now = now;
  }

  /** Redis is there (again), perhaps for the first of them only. */
  async arrive(redis: Redis): Promise<void> {
    if (this.count > 1) this.#completeAt = this.#now() + this.#times.deadMs;
    this.#count(await this.#beat(redis));
  }

  /** @param ask rejects while Redis is away; the count stays as it was then */
  start(ask: Ask): void {
    const beat = () => {
      // What comes too late is from before an outage.
      ask((redis) => this.#beat(redis)).then(
        (alive) => this.#count(alive),
        () => {},
      );
    };
    this.#timer ??= setInterval(beat, this.#times.beatMs).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async leave(redis: Redis): Promise<void> {
    await redis.zrem(this.#key, this.#self);
  }

  async #beat(redis: Redis): Promise<number> {
    return Number(await BEAT.run(redis, [this.#key], [this.#self, this.#times.deadMs]));
  }

  #count(alive: number): void {
    if (alive > this.count || this.#now() >= this.#completeAt) this.count = Math.max(1, alive);
  }
}

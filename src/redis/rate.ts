// Rate limits in Redis: one script books tokens by the generic cell rate algorithm and the server's clock, so that all sidecars agree.

import type { RedisHub } from './hub.ts';
import { NOW_US, RedisScript } from './script.ts';

/**
 * KEYS: the limit's state, `<ahead> <written>`: when it was written, the theoretical arrival time was so far ahead. It goes when that time
 * is over. As a distance it is exact to a millionth of a µs, which the time itself in a double is not.
 * ARGV: interval in µs, burst, count, `wait` or `reject`.
 * Returns in µs from now: until one more could be had (`reject`; 0 = there are as many as asked for), and until each token.
 */
const BOOK = new RedisScript(`${NOW_US}
local interval = tonumber(ARGV[1])
local tolerance = (tonumber(ARGV[2]) - 1) * interval
local ahead, written = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%S+)$')
-- A clock that was set back leaves the distance as it is.
ahead = math.max(0, (tonumber(ahead) or 0) - math.max(0, now - (tonumber(written) or 0)))
local times = { 0 }
for i = 1, tonumber(ARGV[3]) do
  local wait = math.max(0, ahead - tolerance)
  if wait > 0 and ARGV[4] == 'reject' then
    times[1] = math.ceil(wait)
    break
  end
  times[#times + 1] = math.floor(wait)
  ahead = ahead + interval
end
if #times > 1 then
  local ttl = string.format('%.0f', math.ceil(ahead / 1000) + 1)
  redis.call('SET', KEYS[1], string.format('%.6f %.0f', ahead, now), 'PX', ttl)
end
return times
`);

/** See RateSource in src/flow/shared-rate.ts, which this is. */
export class RedisRates {
  readonly whenUp = new Set<() => void>();
  readonly taken = { redis: 0, local: 0 };
  readonly #hub: RedisHub;

  constructor(hub: RedisHub) {
    this.#hub = hub;
    hub.countPeers();
    hub.use({
      onUp: () => {
        const waiting = [...this.whenUp];
        this.whenUp.clear();
        for (const call of waiting) call();
      },
    });
  }

  get up(): boolean {
    return this.#hub.redis !== null;
  }

  get peers(): number {
    return this.#hub.peers;
  }

  async book(
    key: string,
    intervalMs: number,
    burst: number,
    count: number,
    mode: 'wait' | 'reject',
  ): Promise<{ waitsMs: number[]; retryMs: number }> {
    const args = [intervalMs * 1000, burst, count, mode];
    const keys = [`${this.#hub.config.prefix}r:${key}`];
    const [retry = 0, ...waits] = (await this.#hub.ask((redis) => BOOK.run(redis, keys, args))) as number[];
    return { waitsMs: waits.map((us) => us / 1000), retryMs: retry / 1000 };
  }
}

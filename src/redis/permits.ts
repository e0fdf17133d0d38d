// Permits in Redis: every sidecar states what it holds of each limiter and gets what is free, in turn, by the server's clock.

import type { RedisHub } from './hub.ts';
import { NOW_US, RedisScript } from './script.ts';

/**
 * KEYS: hash of one limiter, sidecar → `<held> <number of the statement> <holds until> <waits since, 0 = not> <written>`, times in µs.
 * ARGV: sidecar, number of the statement, held, wanted besides, permits in all, ms a statement holds, ms one who waits keeps his place,
 * 1 = tell the others (again) that this one waits, 1 = it has stated before, channel.
 *
 * What is stated counts, even if it is more than there is: then nobody gets any. Those who wait have their turns: first who has less than
 * his fair share, then who waits longest, and who has got some goes to the end. One permit is left to each who comes first. While others
 * wait nobody gets more than what his fair share lacks, or one.
 *
 * Returns what was granted, 1 = others wait, and how many hold or want any.
 */
const STATE = new RedisScript(`${NOW_US}
local self, number, held, want, max = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local ttl, patience, channel = ARGV[6] * 1000, ARGV[7] * 1000, ARGV[10]
local mine, sum, claimants, waiting = nil, 0, 0, {}

local function put(id, it)
  local text = string.format('%d %.0f %.0f %.0f %.0f', it.held, it.number, it.last, it.since, it.seen)
  redis.call('HSET', KEYS[1], id, text)
end

local share = 0
local function earlier(a, b)
  if (a.held < share) ~= (b.held < share) then return a.held < share end
  if a.since ~= b.since then return a.since < b.since end
  return a.id < b.id
end

local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local a, b, c, d, e = string.match(all[i + 1], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  local it = { id = all[i], held = tonumber(a), number = tonumber(b), last = tonumber(c), since = tonumber(d), seen = tonumber(e) }
  if not it.held or it.last <= now then
    redis.call('HDEL', KEYS[1], it.id)
  elseif it.id == self then
    mine = it
  else
    if it.last > now + 10 * ttl then -- the clock was set back
      it.last = now + ttl
      put(it.id, it)
    end
    local waits = it.since > 0 and it.seen > now - patience
    if waits then waiting[#waiting + 1] = it end
    if waits or it.held > 0 then claimants = claimants + 1 end
    sum = sum + it.held
  end
end
-- One that was under way when its sidecar gave up on it.
if mine and mine.number >= number then return { 0, 0, 1 } end

local lost = ARGV[9] == '1' and not mine
local since = mine and mine.seen > now - patience and mine.since or 0
local isNew = want > 0 and since == 0
if isNew then since = now end
local granted = 0
if want > 0 or held > 0 then claimants = claimants + 1 end
share = math.floor(max / math.max(1, claimants))
-- If something was lost: until the others have stated anew what they hold, nobody knows what is free.
if want > 0 and not lost then
  local free = max - sum - held
  for _, it in ipairs(waiting) do
    if earlier(it, { held = held, since = since, id = self }) then free = free - 1 end
  end
  local fair = want
  if #waiting > 0 then fair = math.max(1, share - held) end
  granted = math.max(0, math.min(want, free, fair))
  if granted > 0 then since = now end
end
if granted >= want then since = 0 end
held = held + granted
put(self, { held = held, number = number, last = now + ttl, since = since, seen = now })
redis.call('PEXPIRE', KEYS[1], ARGV[6])

if lost then redis.call('PUBLISH', channel, 'lost ' .. self) end
if claimants > 1 and since > 0 and (isNew or ARGV[8] == '1') then
  redis.call('PUBLISH', channel, 'wanted ' .. self .. ' ' .. claimants)
end
local free = math.min(max - sum - held, #waiting)
if free > 0 then
  table.sort(waiting, earlier)
  local turn = 'free'
  for i = 1, free do turn = turn .. ' ' .. waiting[i].id end
  redis.call('PUBLISH', channel, turn)
end
return { granted, #waiting > 0 and 1 or 0, math.max(1, claimants) }
`);

interface Statement {
  readonly max: number;
  readonly held: number;
  readonly want: number;
  readonly tell: boolean;
  readonly isKnown: boolean;
  readonly ttlMs: number;
  readonly patienceMs: number;
}

interface Member {
  up(): void;
  down(): void;
  wanted(claimants: number): void;
  free(): void;
  lost(): void;
}

/** See PermitLedger in src/flow/shared-permits.ts, which this is. */
export class RedisPermits {
  readonly #hub: RedisHub;
  /** Of statements, over all limiters. */
  #number = 0;

  constructor(hub: RedisHub) {
    this.#hub = hub;
    hub.countPeers();
  }

  get up(): boolean {
    return this.#hub.redis !== null;
  }

  get peers(): number {
    return this.#hub.peers;
  }

  join(name: string, member: Member): () => void {
    let isIn = true;
    this.#hub.listen(this.#key(name), {
      onMessage: (text) => {
        if (isIn) this.#hear(member, text);
      },
    });
    const leave = this.#hub.use({ onUp: () => member.up(), onDown: () => member.down() });
    return () => {
      isIn = false;
      leave();
    };
  }

  async state(
    name: string,
    { max, held, want, tell, isKnown, ttlMs, patienceMs }: Statement,
  ): Promise<{ granted: number; othersWait: boolean; claimants: number }> {
    const key = this.#key(name);
    const flags = [tell ? 1 : 0, isKnown ? 1 : 0];
    const args = [this.#hub.self, ++this.#number, held, want, max, ttlMs, patienceMs, ...flags, key];
    const answer = (await this.#hub.ask((redis) => STATE.run(redis, [key], args))) as number[];
    return { granted: answer[0]!, othersWait: answer[1] === 1, claimants: answer[2]! };
  }

  /** Gives all back. Never rejects, and is soon done. */
  async leave(name: string, max: number, ttlMs: number): Promise<void> {
    const key = this.#key(name);
    const args = [this.#hub.self, ++this.#number, 0, 0, max, ttlMs, ttlMs, 0, 0, key];
    await this.#hub.farewell(async (redis) => {
      await Promise.all([STATE.run(redis, [key], args), redis.hdel(key, this.#hub.self)]);
    });
  }

  #key(name: string): string {
    return `${this.#hub.config.prefix}p:${name}`;
  }

  #hear(member: Member, text: string): void {
    const [what, ...words] = text.split(' ');
    const isOurs = words[0] === this.#hub.self;
    if (what === 'free' && words.includes(this.#hub.self)) member.free();
    else if (what === 'wanted' && !isOurs) member.wanted(Math.max(2, Number(words[1]) || 2));
    else if (what === 'lost' && !isOurs) member.lost();
  }
}

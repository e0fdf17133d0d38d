// How stored answers lie in Redis: the names of the keys, the index of a key's variants, and the scripts that keep both in order.
//
//   <prefix>v:{<key>}:<variant>       one answer; variant `d` is the one without Vary
//   <prefix>i:{<key>}                 the index: variants by Vary, a line each, newest first
//   <prefix>u:<upstream>:<uri>        sorted set of `<variant> <key>` of one URI, scored by when they expire
//   <prefix>purge                     pub/sub channel
//
// The {hash tag} keeps what belongs to one key on one slot of a Cluster. Each has an expiry; the index and the set live as long as the
// longest of what they list, so that `maxmemory-policy volatile-ttl` throws answers out before what finds them again.

import { hash } from 'node:crypto';

/** The variant of an answer without Vary. Never in the index: it is fetched along with it. */
export const DEFAULT_VARIANT = 'd';

/** 96 bits: the values themselves are compared once the answer is there. */
const VARIANT_CHARS = 16;
const NONE: readonly string[] = [];

const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

/**
 * Puts a variant at the head of the index; what has expired or is too much leaves it, with its answer.
 * A line is `<variant> <expires, ms> <responseAt, ms> <names with commas>`.
 *
 * KEYS: index. ARGV: variant, ttl in ms, rest of the line, the most variants, what the keys of answers begin with.
 */
export const LIST_VARIANT = `${NOW}
local last = now + ARGV[2]
local lines = { string.format('%s %.0f %s', ARGV[1], last, ARGV[3]) }
for line in string.gmatch(redis.call('GET', KEYS[1]) or '', '[^\\n]+') do
  local variant, expires = string.match(line, '^(%S+) (%d+) ')
  if variant and variant ~= ARGV[1] and tonumber(expires) > now then
    if #lines < tonumber(ARGV[4]) then
      lines[#lines + 1] = line
      last = math.max(last, tonumber(expires))
    else
      redis.call('UNLINK', ARGV[5] .. variant)
    end
  end
end
redis.call('SET', KEYS[1], table.concat(lines, '\\n'), 'PX', string.format('%.0f', last - now))
`;

/** KEYS: set of the URI. ARGV: member, ttl in ms. Members that have expired leave, so the set is no larger than what lives. */
export const LIST_URI = `${NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
`;

export class RedisLayout {
  readonly channel: string;
  readonly #prefix: string;

  constructor(prefix: string) {
    this.#prefix = prefix;
    this.channel = `${prefix}purge`;
  }

  answer(key: string, variant: string): string {
    return `${this.#prefix}v:{${key}}:${variant}`;
  }

  isAnswer(redisKey: string): boolean {
    return redisKey.startsWith(`${this.#prefix}v:`);
  }

  index(key: string): string {
    return `${this.#prefix}i:{${key}}`;
  }

  place(upstream: string, uri: string): string {
    return `${this.#prefix}u:${upstream}:${uri}`;
  }

  /** For SCAN: everything of the cache. */
  get everything(): string {
    return `${escapeGlob(this.#prefix)}[viu]:*`;
  }

  /** For SCAN: the sets of an upstream's URIs; null = of all. May match more: see isPlace. */
  places(upstream: string | null, uriPrefix: string): string {
    return `${escapeGlob(this.#prefix)}u:${upstream ?? '*'}:${escapeGlob(uriPrefix)}*`;
  }

  isPlace(redisKey: string, upstream: string | null, uriPrefix: string): boolean {
    const from = this.#prefix.length + 'u:'.length;
    // An upstream's name has no colon.
    const colon = redisKey.indexOf(':', from);
    if (colon < 0 || (upstream !== null && redisKey.slice(from, colon) !== upstream)) return false;
    return redisKey.startsWith(uriPrefix, colon + 1);
  }
}

export function memberOf(key: string, variant: string): string {
  return `${variant} ${key}`;
}

/** @returns [variant, key] */
export function splitMember(member: string): [string, string] {
  const space = member.indexOf(' ');
  return [member.slice(0, space), member.slice(space + 1)];
}

export function variantOf(vary: readonly string[], values: readonly string[]): string {
  if (vary.length === 0) return DEFAULT_VARIANT;
  return hash('sha256', JSON.stringify([vary, values]), 'base64url').slice(0, VARIANT_CHARS);
}

/** What Redis gets to see of values of the fields that Vary names: any of them may be a credential. */
export function hashedValues(values: readonly string[]): string[] {
  return values.map((value) => hash('sha256', value, 'base64url'));
}

/** The end of an index line. Field names have neither blank nor comma. */
export function lineRest(vary: readonly string[], responseAt: number): string {
  return `${Math.floor(responseAt)} ${vary.join(',')}`;
}

/** The newest variant in an index that this request may have, and when it was got; null = none. A line that makes no sense is none. */
export function newestMatch(
  index: string,
  varyOf: (entryVary: readonly string[]) => readonly string[],
): { readonly variant: string; readonly responseAt: number } | null {
  let best: { variant: string; responseAt: number } | null = null;
  for (const line of index.split('\n')) {
    const [variant, , at, names = ''] = line.split(' ');
    const responseAt = Number(at);
    if (names === '' || (best && !(responseAt > best.responseAt))) continue;
    const vary = names.split(',');
    if (variantOf(vary, varyOf(vary)) === variant) best = { variant, responseAt };
  }
  return best;
}

/** The variants an index lists. */
export function variantsIn(index: string | null): readonly string[] {
  return index ? index.split('\n').map((line) => line.slice(0, line.indexOf(' '))) : NONE;
}

function escapeGlob(text: string): string {
  return text.replace(/[*?[\]\\]/g, '\\$&');
}

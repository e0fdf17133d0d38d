// Sends stored answers: whole, a part, or the news that the client has it already. No limiter, no pool, no promise, no copy of the body.

import { notModified, notModifiedHeaders } from '../cache/conditional.ts';
import type { Entry } from '../cache/entry.ts';
import { freshUntil } from '../cache/judge.ts';
import { partialHeaders, rangeOf, unsatisfiableHeaders } from '../cache/ranges.ts';
import type { CacheUse } from './cache-use.ts';
import type { Exchange } from './exchange.ts';
import { REPLAY_ABOVE, Replay } from './replay.ts';

/**
 * Answers the exchange from an entry; `use` says how it came to that.
 * @returns false when only the upstream can answer (several ranges)
 */
export function serve(exchange: Exchange, use: CacheUse, entry: Entry): boolean {
  const cache = exchange.upstream.cache!;
  const { fields } = use;
  const { method } = exchange.client;
  const range = fields.range !== '' && method === 'GET' && entry.status === 200 ? rangeOf(entry, fields) : 'whole';
  if (range === 'pass') {
    use.outcome = 'miss';
    use.forwarded = 'partial';
    use.detail = 'several_ranges';
    return false;
  }
  const now = exchange.shared.wallClock();
  count(exchange, entry, use);
  cache.memory.touch(entry);
  const ttlS = Math.floor((freshUntil(entry) - now) / 1000);
  const own = ['age', String(Math.floor(entry.ageMs(now) / 1000)), 'cache-status', use.cacheStatus(ttlS)];
  const isConditional = fields.ifNoneMatch !== '' || fields.ifModifiedSince !== '';
  // RFC 9110 sections 13.1.2 and 14.2: of other methods (a rule's POST) they say nothing.
  if (isConditional && (method === 'GET' || method === 'HEAD')) {
    if (notModified(entry, fields)) {
      if (exchange.begin(304, '', notModifiedHeaders(entry.headers).concat(own))) exchange.finish(null);
      return true;
    }
  }
  if (range === 'unsatisfiable') {
    if (exchange.begin(416, '', unsatisfiableHeaders(entry.body.length).concat(own))) exchange.finish(null);
  } else if (range === 'whole') sendWhole(exchange, entry, own);
  else {
    const { from, to } = range;
    const headers = partialHeaders(entry.headers, from, to, entry.body.length).concat(own);
    if (exchange.begin(206, '', headers, true)) send(exchange, entry.body.subarray(from, to + 1), null);
  }
  return true;
}

function sendWhole(exchange: Exchange, entry: Entry, own: string[]): void {
  if (!exchange.begin(entry.status, entry.reason, entry.headers.concat(own), true)) return;
  if (exchange.client.method === 'HEAD') exchange.finish(null);
  else send(exchange, entry.body, entry.pace);
}

/** A body that one write takes goes at once, by reference; another in pieces, as the client takes them. */
function send(exchange: Exchange, body: Buffer, pace: readonly number[] | null): void {
  if (pace === null && body.length <= REPLAY_ABOVE) exchange.finish(body);
  else new Replay(exchange, body, pace).start();
}

function count(exchange: Exchange, entry: Entry, { outcome, wasForwarded }: CacheUse): void {
  const { counters } = exchange.upstream.cache!;
  if (outcome === 'revalidated') {
    counters.revalidated++;
    return;
  }
  if (outcome === 'hit') counters.hits++;
  else counters.stale++;
  if (wasForwarded) return;
  counters.savedRequests++;
  counters.savedMs += entry.costMs;
}

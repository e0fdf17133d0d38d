// May a stored answer be used for this request, now? (RFC 9111 section 4.2, 5.2.1; RFC 5861.) Runs for each look-up: no allocation.

import { ageMs, type Entry, type EntryParts } from './entry.ts';
import type { RequestFields } from './request-fields.ts';

/** The first three may be sent; `stale_while_revalidate` wants a fetch in the background as well. The others say why not. */
export type Judgement =
  | 'fresh'
  | 'stale_allowed'
  | 'stale_while_revalidate'
  | 'expired'
  | 'no_cache'
  | 'request_no_cache'
  | 'request_max_age'
  | 'request_min_fresh';

/** So long past its lifetime an entry with a validator is worth its memory: a 304 is cheaper than the answer. */
export const KEEP_MS = 24 * 3600 * 1000;

/** @param now wall clock, ms */
export function judge(entry: Pick<EntryParts, 'terms' | 'responseAt'>, request: RequestFields, now: number): Judgement {
  if (request.noCache) return 'request_no_cache';
  const terms = entry.terms;
  if (terms.alwaysValidate) return 'no_cache';
  const age = ageMs(entry, now);
  // Section 4.2: fresh while its age is less than its lifetime, so staleness begins at 0.
  const staleness = age - terms.lifetimeMs;
  // Section 5.2.1.1: max-stale relaxes it by as much.
  if (request.maxAgeMs >= 0 && age > request.maxAgeMs + Math.max(0, request.maxStaleMs)) return 'request_max_age';
  if (request.minFreshMs >= 0 && -staleness < request.minFreshMs) return 'request_min_fresh';
  if (staleness < 0) return 'fresh';
  if (terms.neverStale) return 'expired';
  if (request.maxStaleMs >= staleness) return 'stale_allowed';
  // Who says how fresh it must be has not asked for this.
  if (request.maxAgeMs >= 0 || request.minFreshMs >= 0) return 'expired';
  return staleness < terms.staleWhileRevalidateMs ? 'stale_while_revalidate' : 'expired';
}

/** The upstream failed: may the entry stand in for it? (RFC 5861 section 4.) A request's own stale-if-error counts too. */
export function mayServeOnError(entry: Entry, request: RequestFields, now: number): boolean {
  const terms = entry.terms;
  // Both want the upstream's word, and there is none.
  if (terms.alwaysValidate || request.noCache) return false;
  const staleness = entry.ageMs(now) - terms.lifetimeMs;
  // Fresh, but the request wanted it fresher: still better than an error. must-revalidate speaks of stale answers only.
  if (staleness < 0) return true;
  return !terms.neverStale && staleness < Math.max(terms.staleIfErrorMs, request.staleIfErrorMs);
}

/** Some request could still make use of it: for the sweeper. */
export function worthKeeping(entry: Entry, now: number): boolean {
  const terms = entry.terms;
  const staleness = entry.ageMs(now) - terms.lifetimeMs;
  if (staleness < KEEP_MS && (terms.etag !== '' || terms.lastModified !== '')) return true;
  return !terms.alwaysValidate && staleness < longestStale(entry);
}

function longestStale({ terms }: Entry): number {
  return terms.neverStale ? 0 : Math.max(terms.staleWhileRevalidateMs, terms.staleIfErrorMs);
}

/** When it stops being fresh: wall clock, ms. */
export function freshUntil(entry: Entry): number {
  return entry.responseAt + entry.terms.lifetimeMs - entry.terms.initialAgeMs;
}

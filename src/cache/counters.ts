// What happened in the cache, counted per upstream.

export class CacheCounters {
  /** Gauges, kept by the memory store. */
  entries = 0;
  bytes = 0;
  /** Answered from a stored answer that is fresh, or was found valid by the upstream. */
  hits = 0;
  /** Had to be fetched: nothing stored would do. */
  misses = 0;
  /** Answered from a stored answer past its freshness: max-stale, stale-while-revalidate, stale-if-error. */
  stale = 0;
  /** Stored answers that the upstream's 304 renewed. */
  revalidated = 0;
  /** Answered by a fetch that another request had begun. */
  coalesced = 0;
  /** Not looked up at all: no rule, another method, no-store, a body too large. */
  bypassed = 0;
  stores = 0;
  /** Thrown out to make room. */
  evicted = 0;
  /** Cleaned up when of no more use. */
  swept = 0;
  /** Thrown out by an unsafe method, DELETE /cache, or an answer that contradicts them. */
  invalidated = 0;
  /** Would have been stored but for its size. */
  tooLarge = 0;
  /** Followers that went on their own: the fetch was not for sharing, full, or took too long. */
  unshared = 0;
  /** Time the upstream would have taken, ms, and calls it did not get. */
  savedMs = 0;
  savedRequests = 0;
}

// One stored answer: its bytes, and what may be done with them.

/** What RFC 9111 (or a rule of the config) allows to be done with a stored answer. Times in ms. */
export interface Terms {
  /** Freshness lifetime (section 4.2.1); 0 = stale from the start. */
  readonly lifetimeMs: number;
  /** corrected_initial_age (section 4.2.3), at `responseAt`. */
  readonly initialAgeMs: number;
  /** no-cache: never used without a word from the upstream. */
  readonly alwaysValidate: boolean;
  /** must-revalidate, proxy-revalidate or s-maxage: never used stale, whatever else is said. */
  readonly neverStale: boolean;
  /** RFC 5861: how long past its lifetime it may be used; 0 = not. */
  readonly staleWhileRevalidateMs: number;
  readonly staleIfErrorMs: number;
  /** Validators as they came, '' = none. */
  readonly etag: string;
  readonly lastModified: string;
}

/** Everything of an entry but its derived size. */
export interface EntryParts {
  /** The primary key: see key.ts. */
  readonly key: string;
  readonly upstream: string;
  /** Path and query below the upstream, as the request had them: what unsafe methods invalidate and a prefix purges. */
  readonly uri: string;
  readonly status: number;
  readonly reason: string;
  /** Flat raw pairs to send; without hop-by-hop fields, Age, and those that may not be stored. */
  readonly headers: readonly string[];
  /** The whole body, as the upstream encoded it; its memory belongs to the entry alone. */
  readonly body: Buffer;
  /** Wall clock, ms since the epoch: the request was sent, the head of its answer came. */
  readonly requestAt: number;
  readonly responseAt: number;
  readonly terms: Terms;
  /** Lower-case names of the answer's Vary, sorted, and the normalised values of the request that got it. */
  readonly vary: readonly string[];
  readonly varyValues: readonly string[];
  /** What the upstream took for it, ms: what a hit saves. */
  readonly costMs: number;
  /** When its pieces came: pairs of end offset in the body and ms after the head; null = not recorded. */
  readonly pace: readonly number[] | null;
}

/** What an entry costs beside its bytes: objects, map slots, list links, the backing store of its body. Measured by bench/micro/entry-memory.ts. */
const OVERHEAD_BYTES = 1280;

/**
 *   the store's list:      newest ⇄ entry ⇄ … ⇄ oldest        (newer / older)
 *   entries of one URI:    first ⇄ entry ⇄ …                  (before / after)
 */
export class Entry implements EntryParts {
  readonly key: string;
  readonly upstream: string;
  readonly uri: string;
  readonly status: number;
  readonly reason: string;
  readonly headers: readonly string[];
  readonly body: Buffer;
  readonly requestAt: number;
  readonly responseAt: number;
  readonly terms: Terms;
  readonly vary: readonly string[];
  readonly varyValues: readonly string[];
  readonly costMs: number;
  readonly pace: readonly number[] | null;
  /** What it counts for in `max_bytes`. */
  readonly bytes: number;

  // Links of the memory store; null outside it.
  newer: Entry | null = null;
  older: Entry | null = null;
  before: Entry | null = null;
  after: Entry | null = null;
  /** Another variant of the same key. */
  next: Entry | null = null;

  constructor(parts: EntryParts) {
    this.key = parts.key;
    this.upstream = parts.upstream;
    this.uri = ownText(parts.uri);
    this.status = parts.status;
    this.reason = parts.reason;
    this.headers = parts.headers;
    this.body = parts.body;
    this.requestAt = parts.requestAt;
    this.responseAt = parts.responseAt;
    this.terms = parts.terms;
    this.vary = parts.vary;
    this.varyValues = parts.varyValues.map(ownText);
    this.costMs = parts.costMs;
    this.pace = parts.pace;
    this.bytes = sizeOf(parts);
  }

  /** current_age (RFC 9111 section 4.2.3), ms. A clock that was set back counts as no time. */
  ageMs(now: number): number {
    return ageMs(this, now);
  }
}

export function ageMs({ terms, responseAt }: Pick<EntryParts, 'terms' | 'responseAt'>, now: number): number {
  return terms.initialAgeMs + Math.max(0, now - responseAt);
}

/** Part of a request's head, and V8 would keep all of that head for it: a copy of its own. */
function ownText(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}

function sizeOf({ key, uri, headers, body, vary, varyValues, pace }: EntryParts): number {
  let bytes = OVERHEAD_BYTES + key.length + uri.length + body.length + (pace ? pace.length * 8 : 0);
  for (const text of headers) bytes += text.length + 16;
  for (const text of vary) bytes += text.length + 16;
  for (const text of varyValues) bytes += text.length + 16;
  return bytes;
}

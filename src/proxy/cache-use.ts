// What one exchange has to do with the cache, and how that is told: Cache-Status (RFC 9211), the log, the counters.

import type { Entry } from '../cache/entry.ts';
import type { RequestFields } from '../cache/request-fields.ts';
import type { CompiledRule } from '../cache/rules.ts';

/** How the answer came about, as the log and /stats say it. */
export type CacheOutcome = 'hit' | 'stale' | 'revalidated' | 'coalesced' | 'miss' | 'bypass';

/** Why a request went on to the upstream (RFC 9211 section 2.2). */
export type Forwarded = 'bypass' | 'method' | 'uri-miss' | 'vary-miss' | 'stale' | 'request' | 'partial';

export class CacheUse {
  /** The primary key; '' = not looked up. */
  key = '';
  readonly fields: RequestFields;
  /** Path and query below the upstream. */
  readonly uri: string;
  rule: CompiledRule | null = null;
  /** Fields that are known to tell the answers under this key apart: Vary of one of them. */
  vary: readonly string[] = [];
  /** A stored answer that needs the upstream's word. */
  entry: Entry | null = null;
  outcome: CacheOutcome = 'bypass';
  forwarded: Forwarded = 'bypass';
  /** What exactly stood against a stored answer, one word of ours. */
  detail = '';
  /** Its answer is being stored. */
  stored = false;
  /** It shares the fetch of another. */
  collapsed = false;
  /** only-if-cached, and nothing stored would do: neither a hit nor forwarded. */
  refused = false;
  /** The upstream was asked, whatever was sent in the end. */
  wasForwarded = false;
  /** Status of the upstream's own answer where another was sent (a 304 that renewed an entry, an error that a stale one hides); 0 = the same. */
  forwardStatus = 0;
  /** Has learnt that it must not share a fetch. */
  alone = false;
  /** The second-level store was asked already. */
  recalled = false;
  /** What it had, to be looked at once in place of what is in memory. */
  offered: Entry | null = null;

  constructor(fields: RequestFields, uri: string) {
    this.fields = fields;
    this.uri = uri;
  }

  /** @param ttlS seconds the served entry is still fresh; negative = stale for so long; NaN = none was served */
  cacheStatus(ttlS: number): string {
    if (!this.wasForwarded && (this.outcome === 'hit' || this.outcome === 'stale')) {
      return this.detail === ''
        ? `aiproxy; hit; ttl=${ttlS}`
        : `aiproxy; hit; ttl=${ttlS}; detail=${shown(this.detail)}`;
    }
    if (this.refused) return `aiproxy; detail=${shown(this.forwarded)}`;
    let text = `aiproxy; fwd=${this.forwarded}`;
    if (this.forwardStatus > 0) text += `; fwd-status=${this.forwardStatus}`;
    if (!Number.isNaN(ttlS)) text += `; ttl=${ttlS}`;
    if (this.stored) text += '; stored';
    if (this.collapsed) text += '; collapsed';
    return this.detail === '' ? text : `${text}; detail=${shown(this.detail)}`;
  }
}

/** A token, or else a string (RFC 9211 section 2.8, RFC 8941 section 3.3). */
function shown(detail: string): string {
  return /^[a-z][a-z0-9_-]*$/.test(detail) ? detail : `"${detail.replace(/["\\]/g, '\\$&')}"`;
}

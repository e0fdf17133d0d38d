// What the cache has to do with a request: the key to look it up by, or why it is not; and which stored answer will do.

import type { AnswerCache } from '../cache/answer-cache.ts';
import type { Entry } from '../cache/entry.ts';
import { judge } from '../cache/judge.ts';
import { readRequestFields } from '../cache/request-fields.ts';
import { sameVariant } from '../cache/vary.ts';
import type { RequestHead } from '../http/request-head.ts';
import type { Target } from '../http/target.ts';
import { CacheUse } from './cache-use.ts';
import type { AnswerTap } from './exchange.ts';
import { Refresh } from './refresh.ts';

/** As much of an exchange as it takes to say what the cache would do: `aiproxy explain` asks without one. */
export interface Asked {
  readonly target: Target;
  readonly head: RequestHead;
  readonly client: { readonly method: string };
  readonly body: { readonly complete: boolean; bytes(): Buffer } | null;
  readonly upstream: { readonly cache: AnswerCache | null };
  readonly shared: { readonly wallClock: () => number };
  cacheUse: CacheUse | null;
  tap: AnswerTap | null;
}

/** Decides it once per exchange; `key` is '' when there is nothing to look up. */
export function planCacheUse(exchange: Asked): CacheUse {
  const { target, head, client } = exchange;
  const cache = exchange.upstream.cache!;
  const { method } = client;
  const path = target.queryAt === 0 ? '/' : target.rest.slice(0, target.queryAt);
  const uri = target.queryAt === 0 ? `/${target.rest}` : target.rest;
  const fields = readRequestFields(head.forward);
  const use = new CacheUse(fields, uri);
  exchange.cacheUse = use;
  const rule = cache.ruleFor(method, path, head.operation, head.forward);
  if (!rule && isUnsafe(method)) {
    use.forwarded = 'method';
    cache.counters.bypassed++;
    exchange.tap = new Refresh(cache, use, method);
    return use;
  }
  const { body } = exchange;
  if (fields.noStore) use.detail = 'request_no_store';
  else if (fields.precondition) use.detail = 'request_precondition';
  else if (rule) {
    use.rule = rule;
    if (body && !body.complete) use.detail = 'body_too_large';
    else use.key = cache.keys.ruleKeys(rule, method, uri, head.forward, body ? body.bytes() : null);
  } else if (method !== 'GET' && (method !== 'HEAD' || !cache.http)) use.forwarded = 'method';
  else if (body) use.detail = 'body';
  else if (cache.http || !cache.stores) use.key = cache.keys.httpKey(uri, head.forward);
  else use.detail = 'no_rule';
  if (use.key === '') cache.counters.bypassed++;
  return use;
}

/** Another sidecar may have stored it, or a newer one than is here. Not worth asking for who wants the upstream's word anyway. */
export function mayBeShared(cache: AnswerCache, use: CacheUse): boolean {
  if (cache.remote === null || use.recalled) return false;
  return use.entry === null || !(use.fields.noCache || use.entry.terms.alwaysValidate);
}

/** RFC 9110 section 9.2.1, and what nobody knows is not safe. */
function isUnsafe(method: string): boolean {
  return method !== 'GET' && method !== 'HEAD' && method !== 'OPTIONS' && method !== 'TRACE';
}

/**
 * The stored answer that may be sent now, or null; `use` then says why not, and which one the upstream could be asked about.
 * @param variants linked by `next`
 */
export function choose(exchange: Asked, use: CacheUse, variants: Entry | null): Entry | null {
  let entry = variants;
  while (entry && !sameVariant(entry, exchange.head.forward)) entry = entry.next;
  use.entry = entry;
  use.detail = '';
  use.outcome = 'miss';
  if (variants) use.vary = variants.vary;
  if (!entry) {
    use.forwarded = variants ? 'vary-miss' : 'uri-miss';
    return null;
  }
  const judgement = judge(entry, use.fields, exchange.shared.wallClock());
  switch (judgement) {
    case 'fresh':
      use.outcome = 'hit';
      return entry;
    case 'stale_allowed':
    case 'stale_while_revalidate':
      use.outcome = 'stale';
      use.detail = judgement;
      return entry;
    case 'expired':
      use.forwarded = 'stale';
      return null;
    case 'no_cache':
      use.forwarded = 'stale';
      break;
    default:
      use.forwarded = 'request';
  }
  use.detail = judgement;
  return null;
}

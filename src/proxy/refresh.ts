// Watches answers that pass by the cache for what they say about stored ones: unsafe methods (RFC 9111 section 4.4) and HEAD (section 4.3.5).

import type { AnswerCache } from '../cache/answer-cache.ts';
import { describesSame, tellsSameLength, validatorsOf } from '../cache/conditional.ts';
import { placeOf } from '../cache/purge.ts';
import { valuesOf } from '../fields.ts';
import type { CacheUse } from './cache-use.ts';
import type { AnswerTap, Exchange } from './exchange.ts';

export class Refresh implements AnswerTap {
  readonly #cache: AnswerCache;
  readonly #use: CacheUse;
  readonly #method: string;

  constructor(cache: AnswerCache, use: CacheUse, method: string) {
    this.#cache = cache;
    this.#use = use;
    this.#method = method;
  }

  answered(exchange: Exchange, status: number, headers: readonly string[]): void {
    if (this.#method === 'HEAD') this.#refreshHead(exchange, status, headers);
    else if (status >= 200 && status < 400) this.#invalidate(exchange, headers);
  }

  #invalidate(exchange: Exchange, headers: readonly string[]): void {
    const { uri } = this.#use;
    this.#invalidateUri(exchange, uri);
    for (const field of ['location', 'content-location']) {
      for (const value of valuesOf(headers, field)) {
        const other = sameOriginUri(value, exchange);
        if (other !== null && other !== uri) this.#invalidateUri(exchange, other);
      }
    }
  }

  #invalidateUri(exchange: Exchange, target: string): void {
    const { upstream } = this.#cache;
    const uri = placeOf(target);
    exchange.shared.flights.purge({ upstream, uri, prefix: null, key: null });
    const query = target.indexOf('?');
    if (this.#cache.mayHold(query < 0 ? target : target.slice(0, query))) this.#cache.invalidate(uri);
  }

  /** A HEAD that describes the stored answer renews it; one that contradicts it makes it useless. */
  #refreshHead(exchange: Exchange, status: number, headers: readonly string[]): void {
    const { entry } = this.#use;
    // What was thrown out or replaced meanwhile is not to come back.
    if (!entry || status !== entry.status || !this.#cache.memory.holds(entry)) return;
    const { etag, lastModified } = validatorsOf(headers);
    // Nothing to compare: it neither confirms nor contradicts.
    if (etag === '' && lastModified === '' && tellsSameLength(entry, headers)) return;
    if (!describesSame(entry, headers, 'HEAD')) {
      this.#cache.drop(entry);
      return;
    }
    const now = exchange.shared.wallClock();
    const times = { requestAt: now, responseAt: now };
    this.#cache.renew(entry, headers, this.#use.rule, this.#use.fields, exchange.head.forward, times);
  }
}

/** Path and query below the upstream that a Location or Content-Location leads to; null = another origin, or not below it. */
function sameOriginUri(value: string, exchange: Exchange): string | null {
  const { origin, basePath } = exchange.upstream.config;
  const base = `${origin}${basePath}${exchange.cacheUse!.uri}`;
  const url = URL.parse(value, base);
  if (!url || url.origin !== origin) return null;
  const whole = url.pathname + url.search;
  if (!whole.startsWith(`${basePath}/`)) return null;
  return whole.slice(basePath.length);
}

// The head of an answer that was fetched for several requests: who may have it, for how long, and what is stored of it.

import type { AnswerCache } from '../cache/answer-cache.ts';
import type { Appraisal, Times } from '../cache/appraise.ts';
import { notModified } from '../cache/conditional.ts';
import { dated } from '../cache/dates.ts';
import { parseDirectives } from '../cache/directives.ts';
import { Entry } from '../cache/entry.ts';
import { judge } from '../cache/judge.ts';
import type { RequestFields } from '../cache/request-fields.ts';
import { varyNames, varyValues } from '../cache/vary.ts';
import { valuesOf } from '../fields.ts';
import type { CacheUse } from './cache-use.ts';

/** What these find wrong may be in a field that is not part of the key. */
const OF_ONE_REQUEST = new Set([400, 406, 408, 411, 412, 413, 414, 415, 416, 417, 421, 431]);

export class SharedAnswer {
  readonly status: number;
  readonly reason: string;
  /** As the upstream sent them: for the one whose request it was. */
  readonly headers: readonly string[];
  /** For the others: what may not be stored (Set-Cookie, the fields of a qualified private) is not for them either. */
  readonly shared: readonly string[];
  /** Also of an answer that is not stored: an error, or where nothing is. */
  readonly vary: readonly string[];
  readonly appraisal: Appraisal;
  /** Infinity = not declared */
  readonly declaredLength: number;
  readonly #times: Times;

  /** @param use of the request that was sent */
  constructor(
    cache: AnswerCache,
    use: CacheUse,
    method: string,
    status: number,
    reason: string,
    headers: readonly string[],
    times: Times,
  ) {
    const appraisal = cache.appraise(use.rule, method, use.fields, status, headers, times);
    const names = varyNames(headers);
    this.status = status;
    this.reason = reason;
    this.headers = headers;
    this.appraisal = appraisal;
    this.shared = appraisal.storable ? appraisal.headers.concat(pairsOf(headers, 'age')) : withoutSetCookie(headers);
    this.vary = Array.isArray(names) ? names : [];
    this.declaredLength = declaredLength(headers);
    this.#times = times;
  }

  /** Why not everybody may have it. */
  get why(): string {
    return this.appraisal.storable ? 'not_shared' : this.appraisal.why;
  }

  /** It could be used for a request that comes now. */
  get isFresh(): boolean {
    if (!this.appraisal.storable) return false;
    const { alwaysValidate, lifetimeMs, initialAgeMs } = this.appraisal.terms;
    return !alwaysValidate && lifetimeMs > initialAgeMs;
  }

  /** Were it stored already, it would be a hit. */
  isFreshFor(fields: RequestFields, now: number): boolean {
    if (!this.appraisal.storable) return false;
    return judge({ terms: this.appraisal.terms, responseAt: this.#times.responseAt }, fields, now) === 'fresh';
  }

  /** The client's own condition was kept from the upstream, so that the answer is whole; it is judged here. */
  isKnownTo(fields: RequestFields): boolean {
    if (fields.ifNoneMatch === '' && fields.ifModifiedSince === '') return false;
    const { appraisal, status, headers } = this;
    if (!appraisal.storable) return false;
    return notModified({ status, headers, terms: appraisal.terms, responseAt: this.#times.responseAt }, fields);
  }

  /** May those whose request it was not have it too? */
  isForAll(cache: AnswerCache): boolean {
    const { appraisal, status } = this;
    if (appraisal.storable) return true;
    if (OF_ONE_REQUEST.has(status)) return false;
    // A bad answer for one is a bad answer for his twins: no stampede. What a credential is refused is not for other credentials.
    if (status === 429 || status >= 500) return cache.partitioned || !isDeclaredPrivate(this.headers);
    if (status >= 400) return cache.partitioned;
    // Nothing is stored here, so it need not be storable: it is as fresh as an answer of their own.
    return !cache.stores && !appraisal.isPrivate;
  }

  /**
   * What is stored of it. Only of one that is storable.
   * @param pairs of the request that was sent
   */
  entry(
    { key, upstream, uri }: { readonly key: string; readonly upstream: string; readonly uri: string },
    pairs: readonly string[],
    body: Buffer,
    costMs: number,
    pace: readonly number[] | null,
  ): Entry {
    const { appraisal, status, reason } = this;
    if (!appraisal.storable) throw new Error('an answer that is not storable was recorded');
    const { terms, vary } = appraisal;
    const headers = dated(appraisal.headers, this.#times.responseAt);
    const varied = { vary, varyValues: varyValues(vary, pairs) };
    return new Entry({
      key,
      upstream,
      uri,
      status,
      reason,
      headers,
      body,
      terms,
      costMs,
      pace,
      ...varied,
      ...this.#times,
    });
  }
}

/** RFC 5861 section 4 for what is stored by the RFC; a rule means every sign that the upstream has a bad day. */
export function isBadDay(status: number, byRule: boolean): boolean {
  if (byRule) return status === 429 || status >= 500;
  return status === 500 || status === 502 || status === 503 || status === 504;
}

/** Infinity = not declared */
export function declaredLength(headers: readonly string[]): number {
  const [declared] = valuesOf(headers, 'content-length');
  return declared === undefined ? Number.POSITIVE_INFINITY : Number(declared);
}

function isDeclaredPrivate(headers: readonly string[]): boolean {
  return parseDirectives(valuesOf(headers, 'cache-control')).has('private');
}

function pairsOf(headers: readonly string[], lower: string): string[] {
  return valuesOf(headers, lower).flatMap((value) => [lower, value]);
}

function withoutSetCookie(headers: readonly string[]): readonly string[] {
  if (valuesOf(headers, 'set-cookie').length === 0) return headers;
  return headers.filter((_, i) => headers[i - (i % 2)]!.toLowerCase() !== 'set-cookie');
}

// What ops and developers may ask of the cache: throw this out, and why was that a miss?

import type { AnswerCache } from '../cache/answer-cache.ts';
import type { Entry } from '../cache/entry.ts';
import { freshUntil, judge } from '../cache/judge.ts';
import type { KeyPart } from '../cache/key-parts.ts';
import type { MemoryStore } from '../cache/memory-store.ts';
import { type Purge, placeOf } from '../cache/purge.ts';
import { rangeOf } from '../cache/ranges.ts';
import type { RedisStore } from '../cache/redis-store.ts';
import { sameVariant, varyValues } from '../cache/vary.ts';
import { type RequestHead, readRequestHead } from '../http/request-head.ts';
import { parseTarget, type Target } from '../http/target.ts';
import type { CacheUse } from '../proxy/cache-use.ts';
import { type Asked, choose, planCacheUse } from '../proxy/reuse.ts';
import type { Routes } from '../proxy/routes.ts';

/** DELETE /cache: all that is given must match. */
export interface PurgeOrder {
  readonly upstream: string | null;
  readonly prefix: string | null;
  readonly key: string | null;
}

/** A request as POST /cache/explain takes it. */
export interface Explained {
  readonly method: string;
  /** A path below the proxy (`/openai/v1/models?x=1`), or such a URL. */
  readonly url: string;
  /** Flat raw pairs. */
  readonly headers: readonly string[];
  readonly body: Buffer | null;
}

export interface Explanation {
  readonly upstream: string;
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** hit, stale, miss or bypass: what would happen now */
  readonly verdict: string;
  /** The same in words. */
  readonly because: string;
  /** `rule 0`, `http`, `coalesce` or null */
  readonly policy: string | null;
  readonly key: string | null;
  readonly parts: readonly KeyPart[];
  readonly stored: readonly StoredVariant[];
}

interface StoredVariant {
  readonly where: 'memory' | 'redis';
  /** Selected by this request. */
  readonly selected: boolean;
  readonly vary: readonly string[];
  readonly status: number;
  readonly bytes: number;
  readonly age_s: number;
  readonly fresh_until: string;
  readonly judgement: string;
}

interface Found {
  readonly entry: Entry;
  readonly where: 'memory' | 'redis';
}

/** The last moment that a Date can tell. */
const LAST_DATE = 8.64e15;

/** What stands against a stored answer, in words. */
const REASONS: Readonly<Record<string, string>> = {
  no_rule: 'no rule of cache.rules matches this request, and cache.http is off',
  only_shared: 'nothing of this upstream is stored: a request can only share the fetch of a twin',
  request_no_store: 'the request says Cache-Control: no-store',
  request_precondition: 'If-Match and If-Unmodified-Since are for the upstream to judge',
  body_too_large: 'its body is larger than body_buffer',
  body: 'a GET with a body is not looked up without a rule',
  no_cache: 'the stored answer says no-cache: the upstream is asked each time',
  request_no_cache: 'the request wants the word of the upstream (no-cache, Pragma, or a directive that cannot be read)',
  request_max_age: 'the stored answer is older than the max-age of the request',
  request_min_fresh: 'the stored answer will not stay fresh for as long as min-fresh asks',
  stale_allowed: 'the stored answer is stale, and max-stale of the request allows that',
  stale_while_revalidate: 'the stored answer is stale and would be renewed behind the answer (stale-while-revalidate)',
  hit_for_miss:
    'nothing is stored, and a recent answer of this key was not for sharing: for ten seconds none waits for a twin',
  method: 'a request of this method is neither stored nor shared',
  'uri-miss': 'nothing is stored under this key',
  'vary-miss': 'what is stored under this key was for other values of the fields its Vary names',
  several_ranges: 'several ranges of a stored answer are for the upstream to cut',
  stale: 'the stored answer is stale',
  hit: 'a stored answer is fresh',
};

/** What else decides, apart from the stores. */
export interface Surroundings {
  readonly wallClock: () => number;
  readonly bodyBufferBytes: number;
  /** The key has a hit-for-miss mark. */
  readonly isMarked: (key: string) => boolean;
  /** What is being fetched now is not stored any more. */
  readonly outdate: (what: Purge) => void;
}

export class CacheDesk {
  readonly #memory: MemoryStore;
  readonly #redis: RedisStore | null;
  readonly #routes: Routes;
  readonly #around: Surroundings;

  constructor(memory: MemoryStore, redis: RedisStore | null, routes: Routes, around: Surroundings) {
    this.#memory = memory;
    this.#redis = redis;
    this.#routes = routes;
    this.#around = around;
  }

  /** @returns entries thrown out here, and of the shared store */
  async purge({ upstream, prefix, key }: PurgeOrder): Promise<{ memory: number; redis: number | null }> {
    const what = { upstream, uri: null, prefix, key };
    this.#around.outdate(what);
    // At once, both: what is asked of Redis meanwhile must not come back from there.
    const shared = this.#redis?.purge(upstream, prefix, key);
    const memory = await this.#memory.purge(what);
    return { memory, redis: shared ? await shared : null };
  }

  /** @returns a sentence when the request is none */
  async explain(request: Explained): Promise<Explanation | string> {
    const { method } = request;
    const target = parseTarget(pathOf(request.url));
    if (typeof target === 'string') return `url: ${target}`;
    const route = this.#routes.match(target);
    if (!route) return `url: no upstream has this name; known are ${this.#routes.known}`;
    const head = readRequestHead(request.headers, false);
    if (head.problem) return `headers: ${head.problem}`;
    const { upstream } = route;
    const path = target.queryAt === 0 ? '/' : target.rest.slice(0, target.queryAt);
    const base = { upstream: upstream.name, method, path };
    const nothing = { ...base, verdict: 'bypass', policy: null, key: null, parts: [], stored: [] };
    const { cache } = upstream;
    if (!cache) return { ...nothing, because: 'this upstream has neither cache nor coalesce' };
    if (route.way !== upstream.regular) return { ...nothing, because: 'its path is in bypass of the upstream' };
    const asked = this.#asked(request, target, head, upstream);
    const { bypassed } = cache.counters;
    const use = planCacheUse(asked);
    cache.counters.bypassed = bypassed; // it counts, but a question is no request
    const policy = policyOf(use, cache);
    if (use.key === '') return { ...nothing, policy, because: reason(use) };
    const known = await this.#variants(use, head.forward);
    const verdict = this.#judge(asked, use, known.first, cache);
    return {
      ...base,
      ...verdict,
      policy,
      key: use.key,
      parts: cache.keys.parts(use.rule, method, use.uri, head.forward, request.body),
      stored: known.all.map((it) => shown(it, use, head.forward, this.#around.wallClock())),
    };
  }

  #asked({ method, body }: Explained, target: Target, head: RequestHead, upstream: Asked['upstream']): Asked {
    const { wallClock, bodyBufferBytes } = this.#around;
    return {
      target,
      head,
      client: { method },
      body: body ? { complete: body.length <= bodyBufferBytes, bytes: () => body } : null,
      upstream,
      shared: { wallClock },
      cacheUse: null,
      tap: null,
    };
  }

  /** What the stages `reuse` and `coalesce` would come to. */
  #judge(asked: Asked, use: CacheUse, first: Entry | null, cache: AnswerCache): { verdict: string; because: string } {
    const chosen = choose(asked, use, first);
    if (chosen && !(asked.client.method === 'GET' && rangeOf(chosen, use.fields) === 'pass')) {
      return { verdict: use.outcome, because: use.detail === '' ? REASONS.hit! : reason(use) };
    }
    if (chosen) use.detail = 'several_ranges';
    else if (!use.entry && this.#around.isMarked(use.key)) use.detail = 'hit_for_miss';
    else if (policyOf(use, cache) === 'coalesce') use.detail = 'only_shared';
    const others = use.detail === '' && !first ? this.#memory.countAt(cache.upstream, placeOf(use.uri)) : 0;
    const beside =
      others === 0
        ? ''
        : `; under other keys of this URI: ${others}, so one of the parts below is not what it was then`;
    const end = use.fields.onlyIfCached ? '; it says only-if-cached, so the answer is 504' : '';
    return { verdict: 'miss', because: reason(use) + beside + end };
  }

  /** Those in memory; else the one of the shared store that this request would get. */
  async #variants(use: CacheUse, pairs: readonly string[]) {
    const all: Found[] = [];
    const first = this.#memory.find(use.key);
    for (let entry = first; entry; entry = entry.next) all.push({ entry, where: 'memory' });
    const redis = this.#redis;
    if (first || !redis) return { first, all };
    const entry = await new Promise<Entry | null>((resolve) => {
      redis.get(use.key, (names) => varyValues(names, pairs), resolve);
    });
    return { first: entry, all: entry ? [{ entry, where: 'redis' as const }] : [] };
  }
}

/** Who decides whether such an answer is stored; `coalesce`: none is, twins share a fetch. */
function policyOf({ rule }: CacheUse, { http, stores }: AnswerCache): string | null {
  if (rule) return `rule ${rule.index}`;
  if (http) return 'http';
  return stores ? null : 'coalesce';
}

function shown({ entry, where }: Found, use: CacheUse, pairs: readonly string[], now: number): StoredVariant {
  return {
    where,
    selected: sameVariant(entry, pairs),
    vary: entry.vary,
    status: entry.status,
    bytes: entry.bytes,
    age_s: Math.floor(entry.ageMs(now) / 1000),
    fresh_until: new Date(Math.min(freshUntil(entry), LAST_DATE)).toISOString(),
    judgement: judge(entry, use.fields, now),
  };
}

function reason(use: CacheUse): string {
  return REASONS[use.detail] ?? REASONS[use.forwarded] ?? use.forwarded;
}

/** A whole URL is taken for its path. */
function pathOf(url: string): string {
  const parsed = /^https?:\/\//i.test(url) ? URL.parse(url) : null;
  return parsed ? parsed.pathname + parsed.search : url;
}

// One upstream's part in the cache: what of its answers is stored, under which key, by which rules.

import type { CacheConfig } from '../config/schema.ts';
import { type Appraisal, appraiseHttp, appraiseRule, type Times } from './appraise.ts';
import { mergedHead } from './conditional.ts';
import type { CacheCounters } from './counters.ts';
import { dated } from './dates.ts';
import { Entry } from './entry.ts';
import { KEEP_MS, worthKeeping } from './judge.ts';
import { KeyMaker } from './key.ts';
import type { MemoryStore } from './memory-store.ts';
import type { RequestFields } from './request-fields.ts';
import { type CompiledRule, compileRules, matchRule, mayMatchPath } from './rules.ts';
import { varyValues } from './vary.ts';

/** A store that all sidecars share; slower than memory, and it may be away. */
export interface RemoteStore {
  /** Calls `done` exactly once, at the latest after its timeout. */
  get(key: string, varyOf: (vary: readonly string[]) => readonly string[], done: (entry: Entry | null) => void): void;
  put(entry: Entry, ttlMs: number): void;
  /** Never rejects. @returns how many */
  purgeUri(upstream: string, uri: string): Promise<number>;
}

const NO_POLICY = { storeSetCookie: false, heuristicFraction: 0, heuristicMaxMs: 0 };

export class AnswerCache {
  readonly upstream: string;
  /** null = nothing is stored, twins only share a fetch. */
  readonly config: CacheConfig | null;
  readonly coalesce: boolean;
  readonly keys: KeyMaker;
  readonly memory: MemoryStore;
  readonly remote: RemoteStore | null;
  readonly counters: CacheCounters;
  readonly rules: readonly CompiledRule[];
  readonly #maxEntryBytes: number;

  constructor(
    upstream: string,
    config: CacheConfig | null,
    coalesce: boolean,
    memory: MemoryStore,
    maxEntryBytes: number,
    remote: RemoteStore | null,
  ) {
    this.upstream = upstream;
    this.config = config;
    this.coalesce = coalesce;
    this.memory = memory;
    this.remote = config ? remote : null;
    this.keys = new KeyMaker(upstream, config?.partition ?? 'credential', config?.partitionHeaders ?? []);
    this.counters = memory.countersOf(upstream);
    this.rules = compileRules(config?.rules ?? []);
    this.#maxEntryBytes = maxEntryBytes;
  }

  /** Anything is stored at all. */
  get stores(): boolean {
    return this.config !== null;
  }

  /** By RFC 9111 what no rule speaks of. */
  get http(): boolean {
    return this.config?.http ?? false;
  }

  get partitioned(): boolean {
    return this.config?.partition !== 'shared';
  }

  /** @param path without the query */
  ruleFor(method: string, path: string, operation: string, pairs: readonly string[]): CompiledRule | null {
    return this.rules.length === 0 ? null : matchRule(this.rules, method, path, operation, pairs);
  }

  /** May this answer be stored, and on what terms? Of an upstream that stores nothing: might it be? */
  appraise(
    rule: CompiledRule | null,
    method: string,
    fields: RequestFields,
    status: number,
    headers: readonly string[],
    times: Times,
  ): Appraisal {
    if (rule) return appraiseRule(rule.config, fields, status, headers, times, this.partitioned);
    if (this.config) return appraiseHttp(method, fields, status, headers, times, this.config);
    // Those who share a fetch have shown the same credential: the permission is for who stores.
    return appraiseHttp(method, { ...fields, authorized: false }, status, headers, times, NO_POLICY);
  }

  /** An answer of this path may be stored: worth a word to both stores when an unsafe method has changed it. */
  mayHold(path: string): boolean {
    return this.http || mayMatchPath(this.rules, path);
  }

  maxEntryBytes(rule: CompiledRule | null): number {
    if (!this.stores) return 0;
    return rule ? Math.min(rule.config.maxEntryBytes, this.#maxEntryBytes) : this.#maxEntryBytes;
  }

  store(entry: Entry): void {
    if (!this.memory.put(entry)) {
      this.counters.tooLarge++;
      return;
    }
    this.counters.stores++;
    this.remote?.put(entry, remainingMs(entry));
  }

  /**
   * A stored answer under a new head of the upstream, a 304 or one to HEAD (RFC 9111 sections 4.3.4 and 4.3.5), stored again.
   * @param pairs of the request that brought it
   * @returns null when what it says now forbids to keep it; then it is gone
   */
  renew(
    stored: Entry,
    headers: readonly string[],
    rule: CompiledRule | null,
    fields: RequestFields,
    pairs: readonly string[],
    times: Times,
  ): Entry | null {
    const merged = mergedHead(stored.headers, dated(headers, times.responseAt));
    const appraisal = this.appraise(rule, 'GET', fields, stored.status, merged, times);
    if (!appraisal.storable) {
      // With `partition: shared` one client's credential may not wipe out what others may have.
      const anyone = { ...fields, authorized: false };
      if (!this.appraise(rule, 'GET', anyone, stored.status, merged, times).storable) this.drop(stored);
      return null;
    }
    const { terms, vary } = appraisal;
    const entry = new Entry({
      ...stored,
      ...times,
      terms,
      vary,
      headers: appraisal.headers,
      varyValues: varyValues(vary, pairs),
    });
    this.memory.remove(stored); // its Vary may have changed, and with it what it would replace
    this.store(entry);
    return entry;
  }

  /** What is stored is known to be of no use any more. */
  drop(entry: Entry): void {
    this.memory.remove(entry);
    this.counters.invalidated++;
    // Or it would come back from there.
    void this.remote?.purgeUri(entry.upstream, entry.uri);
  }

  /** An entry of the shared store becomes one of ours too. @param now wall clock, ms */
  adopt(entry: Entry, now: number): void {
    if (worthKeeping(entry, now)) this.memory.put(entry);
  }

  /** Nothing stored of this URI is used any more, whatever its variant or credential. */
  invalidate(uri: string): void {
    this.memory.invalidate(this.upstream, uri);
    void this.remote?.purgeUri(this.upstream, uri);
  }
}

/** How long the shared store keeps it. */
function remainingMs({ terms }: Entry): number {
  const keepMs = terms.etag !== '' || terms.lastModified !== '' ? KEEP_MS : 0;
  const stale = Math.max(terms.staleIfErrorMs, terms.staleWhileRevalidateMs, keepMs);
  return Math.max(1, Math.ceil(terms.lifetimeMs - terms.initialAgeMs + stale));
}

// The second level of the cache: answers shared by all sidecars over Redis. Best effort: whatever goes wrong is a miss, soon.

import type { Redis } from 'ioredis';
import type { RedisState } from '../redis/breaker.ts';
import type { RedisHub } from '../redis/hub.ts';
import { isReply } from '../redis/link.ts';
import { Entry } from './entry.ts';
import {
  DEFAULT_VARIANT,
  hashedValues,
  LIST_URI,
  LIST_VARIANT,
  lineRest,
  memberOf,
  RedisLayout,
  variantOf,
} from './redis-layout.ts';
import { RedisCounters, RedisLookups, type VaryOf } from './redis-lookups.ts';
import { EVERYTHING, type PurgeMessage, readMessage, unlinkAnswers, writeMessage } from './redis-purge.ts';

/** What writes that Redis has not confirmed may take together. */
const MAX_PENDING_BYTES = 8 * 1024 * 1024;
/** Purges remembered while Redis is down; more of them become one of everything. */
const MAX_OWED = 256;
const MAX_TTL_MS = 365 * 24 * 3600 * 1000;

export interface RedisStoreParts {
  readonly hub: RedisHub;
  /** Variants with Vary kept of one key, beside the one without. */
  readonly maxVariants: number;
  readonly encode: (entry: Entry) => Buffer;
  /** null = not an entry of this version. */
  readonly decode: (bytes: Buffer) => Entry | null;
  /** Another sidecar threw something out; all null when messages may have been missed. */
  readonly onPurge: (message: PurgeMessage) => void;
}

export class RedisStore {
  readonly counters = new RedisCounters();
  readonly #parts: RedisStoreParts;
  readonly #layout: RedisLayout;
  readonly #hub: RedisHub;
  readonly #lookups: RedisLookups;
  /** Purges to be made good before Redis is used again. */
  readonly #owed = new Set<PurgeMessage>();
  #pendingBytes = 0;
  #stopped = false;

  constructor(parts: RedisStoreParts) {
    this.#parts = parts;
    const { hub } = parts;
    this.#hub = hub;
    this.#layout = new RedisLayout(hub.config.prefix);
    this.#lookups = new RedisLookups(this.#layout, hub.config.timeoutMs, parts.decode, this.counters, {
      onLate: () => hub.late(),
      onError: (error) => this.#trouble(error),
    });
    hub.use({ beforeUp: (redis) => this.#makeGood(redis), onDown: () => this.#lookups.giveUp() });
    hub.listen(this.#layout.channel, {
      onMessage: (text) => {
        const message = readMessage(hub.self, text);
        if (!message) return;
        this.#lookups.purging(message);
        this.#lookups.purged(message);
        parts.onPurge(message);
      },
      onSubscribed: (missed) => {
        if (missed) parts.onPurge(EVERYTHING);
      },
      onRefused: () => {
        this.counters.errors++;
      },
    });
  }

  get state(): RedisState {
    return this.#hub.state;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** Before the hub stops: drops everything at once; whoever waits for an answer gets null. */
  stop(): void {
    this.#stopped = true;
    this.#lookups.giveUp();
  }

  /**
   * The newest variant that this request may have; null = none, or Redis did not say so in time.
   * @param varyOf the request's normalised values of these fields
   * @param done called exactly once, at once while Redis is down
   */
  get(key: string, varyOf: VaryOf, done: (entry: Entry | null) => void): void {
    this.counters.gets++;
    const redis = this.#redis();
    if (redis) this.#lookups.begin(redis, key, varyOf, done);
    else done(null);
  }

  /** Stores it, if that is easily done. Nobody is told. */
  put(entry: Entry, ttlMs: number): void {
    if (!(ttlMs > 0)) return;
    const redis = this.#redis();
    if (!redis || this.#pendingBytes + entry.bytes > MAX_PENDING_BYTES) {
      this.counters.dropped++;
      return;
    }
    const bytes = this.#parts.encode(withoutSecrets(entry));
    this.counters.puts++;
    this.#pendingBytes += entry.bytes;
    this.#write(redis, entry, bytes, String(Math.min(Math.ceil(ttlMs), MAX_TTL_MS)))
      .catch((error) => this.#trouble(error))
      .finally(() => {
        this.#pendingBytes -= entry.bytes;
      });
  }

  /** Throws out every answer of one URI, here and, by a message, in the memory of the other sidecars. @returns how many; 0 when Redis is down: made good later */
  purgeUri(upstream: string, uri: string): Promise<number> {
    return this.#purge({ upstream, uri, prefix: null, key: null });
  }

  /** As purgeUri. null = any; a key is thrown out whatever the others say. */
  purge(upstream: string | null, prefix: string | null, key: string | null): Promise<number> {
    return this.#purge({ upstream, uri: null, prefix, key });
  }

  #redis(): Redis | null {
    return this.#stopped ? null : this.#hub.redis;
  }

  async #write(redis: Redis, entry: Entry, bytes: Buffer, ttl: string): Promise<void> {
    const { key, vary } = entry;
    const variant = variantOf(vary, entry.varyValues);
    const answer = this.#layout.answer(key, variant);
    const steps: Promise<unknown>[] = [redis.set(answer, bytes, 'PX', ttl)];
    if (variant !== DEFAULT_VARIANT) {
      const line = lineRest(vary, entry.responseAt);
      const answers = this.#layout.answer(key, '');
      const index = this.#layout.index(key);
      steps.push(redis.eval(LIST_VARIANT, 1, index, variant, ttl, line, this.#parts.maxVariants, answers));
    }
    // Last: a purge between the steps then leaves an answer that the next purge finds.
    const place = this.#layout.place(entry.upstream, entry.uri);
    steps.push(redis.eval(LIST_URI, 1, place, memberOf(key, variant), ttl));
    try {
      await Promise.all(steps);
    } catch (error) {
      // An answer that could not be listed would outlive a purge.
      if (isReply(error)) redis.unlink(answer).catch(() => {});
      throw error;
    }
  }

  async #purge(message: PurgeMessage): Promise<number> {
    const redis = this.#redis();
    this.#lookups.purging(message);
    try {
      if (redis) return await this.#carryOut(redis, message);
    } catch (error) {
      this.#trouble(error);
      if (isReply(error)) return 0;
    } finally {
      this.#lookups.purged(message);
    }
    this.#owe(message);
    return 0;
  }

  async #carryOut(redis: Redis, message: PurgeMessage): Promise<number> {
    const count = await unlinkAnswers(redis, this.#layout, message);
    // Afterwards, so that nobody fills its memory from what is about to go.
    await redis.publish(this.#layout.channel, writeMessage(this.#hub.self, message));
    return count;
  }

  #owe(message: PurgeMessage): void {
    if (this.#stopped) return;
    if (this.#owed.size >= MAX_OWED) {
      this.#owed.clear();
      this.#owed.add(EVERYTHING);
    } else this.#owed.add(message);
  }

  /** Throws out what should have gone while Redis was not there. */
  async #makeGood(redis: Redis): Promise<void> {
    for (const message of this.#owed) {
      await this.#carryOut(redis, message).catch((error) => this.#countReply(error));
      this.#owed.delete(message);
    }
  }

  #countReply(error: unknown): void {
    if (!isReply(error)) throw error;
    this.counters.errors++;
  }

  /** An error reply is one command's trouble, anything else is the connection's. */
  #trouble(error: unknown): void {
    if (this.#stopped) return;
    this.counters.errors++;
    this.#hub.trouble(error);
  }
}

function withoutSecrets(entry: Entry): Entry {
  return entry.vary.length === 0 ? entry : new Entry({ ...entry, varyValues: hashedValues(entry.varyValues) });
}

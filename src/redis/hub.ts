// The one connection of this process to Redis, and the one judgement of whether it may be asked: its trouble costs one timeout, whoever asks.

import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import type { RedisConfig } from '../config/schema.ts';
import { RedisBreaker, type RedisState } from './breaker.ts';
import { type Hearing, isReply, RedisLink, reasonOf } from './link.ts';
import { PEER_TIMES, Peers, type PeerTimes } from './peers.ts';

/** Stopping waits so long for a last word to Redis. */
const FAREWELL_MS = 250;

/** What a user of Redis is told. */
export interface HubUser {
  /** Must succeed before anybody asks Redis again. An error reply is counted, and no reason to stay down. */
  readonly beforeUp?: (redis: Redis) => Promise<void>;
  readonly onUp?: () => void;
  /** @param reason without secrets */
  readonly onDown?: (reason: string) => void;
}

export class HubCounters {
  /** Questions by ask(). */
  asked = 0;
  /** Refused or broken off by Redis. */
  errors = 0;
  /** Questions that were too late; Redis is down from then on, and those beside them are given up uncounted. */
  timeouts = 0;
}

/** Redis owes an answer. */
interface Question {
  readonly reject: (error: unknown) => void;
  readonly timer: NodeJS.Timeout;
}

export class RedisHub {
  /** This process, at random: it is another one after a restart. */
  readonly self = randomUUID();
  readonly config: RedisConfig;
  readonly counters = new HubCounters();
  readonly #users = new Set<HubUser>();
  readonly #open = new Set<Question>();
  readonly #link: RedisLink;
  readonly #breaker: RedisBreaker;
  readonly #peers: Peers;
  #countsPeers = false;
  /** At the end Redis was not heard of in time: no further words. */
  #isMute = false;
  #stopped = false;

  /** @param now a monotonic clock, ms */
  constructor(config: RedisConfig, now: () => number, peerTimes: PeerTimes = PEER_TIMES) {
    this.config = config;
    this.#breaker = new RedisBreaker({
      probe: () => this.#probe(),
      onDown: (reason) => {
        this.#giveUp(new Error(`Redis is away: ${reason}`));
        for (const user of this.#users) user.onDown?.(reason);
      },
      onUp: () => {
        for (const user of this.#users) user.onUp?.();
      },
      now,
    });
    this.#link = new RedisLink(config.url, config.timeoutMs, {
      onReady: () => this.#breaker.connected(),
      onLost: (reason) => this.#breaker.trip(reason),
    });
    this.#peers = new Peers(config.prefix, this.self, peerTimes, now);
  }

  get state(): RedisState {
    return this.#breaker.state;
  }

  /** For commands; null unless it is up. */
  get redis(): Redis | null {
    return this.#breaker.state === 'up' ? this.#link.commands : null;
  }

  /** Sidecars alive that count on this Redis and prefix, as last known; at least 1. */
  get peers(): number {
    return this.#peers.count;
  }

  /** From here on this sidecar counts as a peer. Those who share nothing that is divided need not. */
  countPeers(): void {
    if (this.#countsPeers) return;
    this.#countsPeers = true;
    this.use({ beforeUp: (redis) => this.#peers.arrive(redis) });
    this.#peers.start((run) => this.ask(run));
  }

  /** @returns takes it out again */
  use(user: HubUser): () => void {
    this.#users.add(user);
    return () => this.#users.delete(user);
  }

  /** One hearing per channel, for good. */
  listen(channel: string, hearing: Hearing): void {
    this.#link.listen(channel, hearing);
  }

  /** Rejects at once unless Redis is up, as soon as it is down, and after `timeoutMs` without an answer, from when on it is. */
  ask<T>(run: (redis: Redis) => Promise<T>): Promise<T> {
    const redis = this.redis;
    if (!redis) return Promise.reject(new Error('Redis is away'));
    this.counters.asked++;
    let answer: Promise<T>;
    try {
      answer = run(redis);
    } catch (error) {
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      const question: Question = {
        reject,
        timer: setTimeout(() => this.#late(question), this.config.timeoutMs).unref(),
      };
      this.#open.add(question);
      answer.then(
        (value) => {
          if (this.#close(question)) resolve(value);
        },
        (error) => {
          if (!this.#close(question)) return;
          this.trouble(error);
          reject(error);
        },
      );
    });
  }

  /** For those who keep their deadline themselves: an answer was too late. */
  late(): void {
    this.counters.timeouts++;
    this.#breaker.trip(`no answer within ${this.config.timeoutMs} ms`);
  }

  /** For those who use `redis` themselves. An error reply is one command's trouble, anything else is the connection's. */
  trouble(error: unknown): void {
    if (this.#stopped) return;
    this.counters.errors++;
    if (!isReply(error)) this.#breaker.trip(reasonOf(error));
  }

  /** Begins to connect; does not wait for it, and does not fail. */
  start(): void {
    void this.#link.connect();
  }

  /** Whoever waits for an answer is rejected at once; soon nothing is left. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    const redis = this.redis;
    this.#peers.stop();
    this.#breaker.stop();
    this.#giveUp(new Error('Redis is not asked any more'));
    if (this.#countsPeers) await this.#lastWord(redis, (it) => this.#peers.leave(it));
    await this.#link.stop();
  }

  /** For those who stop before the hub does: says so, as far as that is soon done. Never rejects. */
  farewell(run: (redis: Redis) => Promise<unknown>): Promise<void> {
    return this.#lastWord(this.redis, run);
  }

  async #lastWord(redis: Redis | null, run: (redis: Redis) => Promise<unknown>): Promise<void> {
    if (!redis || this.#isMute) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      const isLate = () => {
        this.#isMute = true;
        resolve();
      };
      timer = setTimeout(isLate, Math.min(FAREWELL_MS, this.config.timeoutMs));
    });
    await Promise.race([run(redis).catch(() => {}), late]);
    clearTimeout(timer);
  }

  #late(question: Question): void {
    // If it was us who stalled, the answer is read in this turn of the loop.
    setImmediate(() => {
      if (!this.#open.has(question)) return;
      this.late();
    });
  }

  /** @returns false when it was given up before */
  #close(question: Question): boolean {
    clearTimeout(question.timer);
    return this.#open.delete(question);
  }

  #giveUp(reason: Error): void {
    for (const question of [...this.#open]) {
      this.#close(question);
      question.reject(reason);
    }
  }

  /** Redis is there, and what its users owe it is done. */
  async #probe(): Promise<void> {
    try {
      const redis = this.#link.commands;
      if (!redis) throw new Error('no connection');
      await redis.ping();
      for (const { beforeUp } of this.#users) await beforeUp?.(redis).catch((error) => this.#countReply(error));
    } catch (error) {
      this.#breaker.trip(reasonOf(error));
      throw error;
    }
  }

  #countReply(error: unknown): void {
    if (!isReply(error)) throw error;
    this.counters.errors++;
  }
}

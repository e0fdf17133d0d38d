// Two connections to Redis that come back by themselves: one for commands, one that listens. ioredis is loaded only when they are wanted.

import type { Redis, RedisOptions } from 'ioredis';

const CONNECT_TIMEOUT_MS = 2000;
const LONGEST_RETRY_MS = 1000;
/** A connection that owes an answer for so long is dead, whatever TCP says. */
const SILENCE_MS = 5000;
/** So often the listening connection, which nothing else asks, must show that it is alive. */
const PING_EVERY_MS = 15_000;
/** ioredis waits so long for the server's FIN before it destroys the socket; its default of 2 s would hold stop() up. */
const DISCONNECT_TIMEOUT_MS = 1;

export interface LinkEvents {
  /** Commands may be sent. */
  readonly onReady: () => void;
  /** The connection for commands is gone, or there was none. @param reason without secrets */
  readonly onLost: (reason: string) => void;
}

/** Who listens on a channel. */
export interface Hearing {
  readonly onMessage: (text: string) => void;
  /** @param missed messages may have been sent while nobody listened */
  readonly onSubscribed?: (missed: boolean) => void;
  /** The server will not let us listen. */
  readonly onRefused?: () => void;
}

interface Channel {
  readonly name: string;
  readonly hearing: Hearing;
  missed: boolean;
}

export class RedisLink {
  /** For commands; null before the first attempt to connect. */
  commands: Redis | null = null;
  readonly #url: string;
  readonly #timeoutMs: number;
  readonly #events: LinkEvents;
  readonly #channels = new Map<string, Channel>();
  #listening: Redis | null = null;
  #stopped = false;
  #pinger: NodeJS.Timeout | undefined;

  constructor(url: string, timeoutMs: number, events: LinkEvents) {
    this.#url = url;
    this.#timeoutMs = timeoutMs;
    this.#events = events;
  }

  /** One hearing per channel. */
  listen(name: string, hearing: Hearing): void {
    const channel = { name, hearing, missed: false };
    this.#channels.set(name, channel);
    const redis = this.#listening;
    if (redis?.status === 'wait') redis.connect().catch(ignore);
    else if (redis?.status === 'ready') this.#subscribe(redis, channel);
  }

  /** Resolves once connecting is under way. Never rejects. */
  async connect(): Promise<void> {
    try {
      const { Redis } = await import('ioredis');
      if (this.#stopped) return;
      const options = this.#options();
      this.commands = this.#watchCommands(new Redis(addressOf(this.#url), options));
      this.#listening = this.#watchListening(new Redis(addressOf(this.#url), options));
    } catch (error) {
      // No retry: a URL that cannot be parsed, or no ioredis.
      this.#events.onLost(reasonOf(error));
      return;
    }
    this.commands.connect().catch(ignore);
    if (this.#channels.size > 0) this.#listening.connect().catch(ignore);
    this.#pinger = setInterval(() => this.#ping(), PING_EVERY_MS);
    this.#pinger.unref();
  }

  #ping(): void {
    if (this.#channels.size > 0) this.#listening?.ping().catch(ignore);
  }

  /** Resolves when no socket and no timer is left. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#pinger);
    await Promise.all([shut(this.commands), shut(this.#listening)]);
  }

  #options() {
    return {
      lazyConnect: true,
      connectionName: 'aiproxy',
      connectTimeout: CONNECT_TIMEOUT_MS,
      disconnectTimeout: DISCONNECT_TIMEOUT_MS,
      socketTimeout: Math.max(SILENCE_MS, 2 * this.#timeoutMs),
      retryStrategy: (times: number) =>
        Math.min(25 * 2 ** Math.min(times, 10), LONGEST_RETRY_MS) * (0.5 + Math.random() / 2),
      // A command is sent at once, and never again on another connection.
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      // After a fail-over this server is a replica, and the name may lead to the new master.
      reconnectOnError: (error: Error) => error.message.startsWith('READONLY'),
      // Done here, where it is known whether something was missed.
      autoResubscribe: false,
    } satisfies RedisOptions;
  }

  #watchCommands(redis: Redis): Redis {
    redis.on('ready', () => {
      if (!this.#stopped) this.#events.onReady();
    });
    const lost = (reason: string) => {
      if (!this.#stopped) this.#events.onLost(reason);
    };
    redis.on('error', (error) => lost(reasonOf(error)));
    redis.on('close', () => lost('connection closed'));
    return redis;
  }

  #watchListening(redis: Redis): Redis {
    redis.on('ready', () => {
      for (const channel of this.#channels.values()) this.#subscribe(redis, channel);
    });
    redis.on('message', (name: string, text: string) => {
      if (!this.#stopped) this.#channels.get(name)?.hearing.onMessage(text);
    });
    // The other connection tells what is wrong.
    redis.on('error', ignore);
    redis.on('close', () => {
      for (const channel of this.#channels.values()) channel.missed = true;
    });
    return redis;
  }

  /** Each on its own: what a user may listen on can differ by channel. */
  #subscribe(redis: Redis, channel: Channel): void {
    redis.subscribe(channel.name).then(
      () => {
        if (this.#stopped) return;
        const { missed } = channel;
        channel.missed = false;
        channel.hearing.onSubscribed?.(missed);
      },
      (error) => {
        if (!this.#stopped && isReply(error)) channel.hearing.onRefused?.();
      },
    );
  }
}

/** An answer of the server that is an error, as against no answer. */
export function isReply(error: unknown): boolean {
  return error instanceof Error && error.name === 'ReplyError';
}

/** What may be logged: an error reply can repeat the arguments of AUTH, and an invalid URL is itself a secret. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown error';
  if (isReply(error)) return `answered ${error.message.split(' ', 1)[0]}`;
  const code = (error as NodeJS.ErrnoException).code;
  if (typeof code === 'string') return code;
  return error.message.startsWith('Socket timeout') ? 'connection without an answer' : 'connection closed';
}

/** As ioredis understands it. It does not know `unix:`, and would take `REDISS:` for a connection without TLS. */
function addressOf(url: string): string {
  const scheme = /^(?:unix|rediss?):/i.exec(url)?.[0].toLowerCase();
  if (!scheme) return url;
  const rest = url.slice(scheme.length);
  return scheme === 'unix:' ? rest.replace(/^\/\/(?=\/)/, '') : scheme + rest;
}

async function shut(redis: Redis | null): Promise<void> {
  const stream = redis?.stream;
  redis?.disconnect();
  if (stream && !stream.closed) await new Promise((resolve) => stream.once('close', resolve));
}

function ignore(): void {}

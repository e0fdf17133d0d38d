// The configuration: its types, defaults and rules.

/** A TCP address to listen on. `text` is how the config wrote it. */
export interface Address {
  readonly host: string;
  readonly port: number;
  readonly text: string;
}

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';
export type AccessLog = 'all' | 'errors' | 'off';

/** Ready numbers: durations in ms, sizes in bytes; `none` and `unlimited` are Infinity. Nothing is parsed after start. */
export interface Config {
  readonly listen: readonly Address[];
  readonly stats: Address;
  /** Names allowed in the Host header of the stats port besides IP literals and localhost, lower case. */
  readonly allowedHosts: readonly string[];
  readonly log: { readonly level: LogLevel; readonly access: AccessLog };
  readonly drain: { readonly acceptForMs: number; readonly timeoutMs: number };
  readonly maintenance: { readonly intervalMs: number };
  readonly listener: ListenerConfig;
  readonly cache: CacheStoreConfig;
  readonly flights: FlightsConfig;
  readonly limiters: readonly LimiterConfig[];
  readonly upstreams: readonly UpstreamConfig[];
}

/** What the listener grants to clients. */
export interface ListenerConfig {
  readonly maxConnections: number;
  /** An idle client connection is kept this long. */
  readonly keepAliveTimeoutMs: number;
  /** A request head must be whole after this long. */
  readonly headTimeoutMs: number;
  readonly maxHeadBytes: number;
  readonly maxHeaders: number;
  /** Requests that may wait behind the running one on one connection. */
  readonly maxPipelined: number;
  /** Request body read ahead per exchange before a permit is asked for. */
  readonly bodyBufferBytes: number;
  /** Request bodies of all exchanges together. */
  readonly bodyMemoryBytes: number;
  /** Bytes per second that a request body must bring while we wait for it; 0 = no minimum. */
  readonly bodyMinRate: number;
}

/** Where stored answers are kept, for all upstreams together. */
export interface CacheStoreConfig {
  readonly store: 'memory' | 'redis';
  /** In memory, entries' bookkeeping included. */
  readonly maxBytes: number;
  /** A larger answer passes without being stored. */
  readonly maxEntryBytes: number;
  /** Variants (by Vary) kept of one key. */
  readonly maxVariants: number;
  readonly sweepIntervalMs: number;
  /** Only with `store: redis`. */
  readonly redis: RedisConfig | null;
}

export interface RedisConfig {
  /** redis://…, rediss://… or the path of a unix socket; a secret. */
  readonly url: string;
  /** Before every key. */
  readonly prefix: string;
  /** For one look-up; while there is no connection none is made. */
  readonly timeoutMs: number;
}

/** Bounds of fetches that several requests share. */
export interface FlightsConfig {
  /** The upstream is paused when the slowest follower is so far behind. */
  readonly bufferBytes: number;
  /** What all flights hold together. */
  readonly memoryBytes: number;
  readonly maxWaiters: number;
  /** A follower that has waited so long for the head of the answer goes on its own; Infinity = waits. */
  readonly waitMs: number;
}

/** What an upstream's answers are stored by. */
export interface CacheConfig {
  /** By RFC 9111. Rules come first. */
  readonly http: boolean;
  readonly rules: readonly CacheRuleConfig[];
  readonly partition: 'credential' | 'shared';
  /** Lower-case names that count as credentials besides the usual ones. */
  readonly partitionHeaders: readonly string[];
  /** HTTP mode: answers with Set-Cookie are stored, with that field. */
  readonly storeSetCookie: boolean;
  /** HTTP mode: share of the time since Last-Modified that an answer without freshness counts as fresh; 0 = none. */
  readonly heuristicFraction: number;
  readonly heuristicMaxMs: number;
}

export interface CacheRuleConfig {
  /** An empty list matches all. */
  readonly match: {
    readonly methods: readonly string[];
    readonly paths: readonly string[];
    readonly operations: readonly string[];
    /** Lower-case names and the exact value wanted. */
    readonly headers: readonly (readonly [name: string, value: string])[];
  };
  readonly ttlMs: number;
  readonly staleIfErrorMs: number;
  readonly staleWhileRevalidateMs: number;
  readonly key: {
    readonly body: 'canonical' | 'exact';
    /** Names of query parameters that do not count. */
    readonly queryIgnore: readonly string[];
    /** Lower-case names of headers that do. */
    readonly headers: readonly string[];
  };
  readonly statuses: readonly number[];
  readonly maxEntryBytes: number;
  /** How a stored stream is sent again: at once, or as it came. */
  readonly pace: 'fast' | 'recorded';
}

export interface LimiterConfig {
  readonly name: string;
  readonly maxConcurrent: number;
  readonly maxQueue: number;
  readonly queueTimeoutMs: number;
}

export interface UpstreamConfig {
  readonly name: string;
  readonly protocol: 'http:' | 'https:';
  readonly hostname: string;
  readonly port: number;
  /** `https://api.openai.com` or `http://127.0.0.1:9000`, without a path. */
  readonly origin: string;
  /** '' or '/path' without a slash at the end. */
  readonly basePath: string;
  /** Name of the limiter it shares, or null. */
  readonly limiter: string | null;
  readonly pool: PoolConfig;
  readonly timeouts: TimeoutsConfig;
  /** Paths below the upstream's name (`/health`, `/static/*`) that skip the limiter, the cache and the deadlines. */
  readonly bypass: readonly string[];
  /** Paths whose requests may be sent again after a reused connection died under them, whatever the method. */
  readonly replay: readonly string[];
  readonly cache: CacheConfig | null;
  /** Identical requests in flight share one fetch. */
  readonly coalesce: boolean;
  /** Limit on an answer's head. */
  readonly maxHeadBytes: number;
  /** PEM texts, already read; null = Node's own. Only with https. */
  readonly tls: TlsConfig;
}

export interface PoolConfig {
  readonly connections: number;
  readonly keepalive: number;
  readonly idleTimeoutMs: number;
  readonly maxLifetimeMs: number;
  readonly maxRequests: number;
  readonly warm: number;
}

export interface TimeoutsConfig {
  readonly connectMs: number;
  readonly headersMs: number;
  readonly firstEventMs: number;
  readonly idleMs: number;
  /** A client that takes not a byte for so long while bytes wait for it is gone. */
  readonly writeStallMs: number;
  readonly totalMs: number;
}

export interface TlsConfig {
  readonly ca: string | null;
  readonly servername: string | null;
  readonly cert: string | null;
  readonly key: string | null;
}

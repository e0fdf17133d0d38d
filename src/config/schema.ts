// The configuration: its types, defaults and rules.

/** Where to listen: a TCP address or a unix socket. `text` is how the config wrote it. */
export interface Address {
  /** '' for a unix socket, whose port is 0. */
  readonly host: string;
  readonly port: number;
  /** Absolute path of the unix socket; '' = TCP. */
  readonly path: string;
  readonly text: string;
}

/** One listener. */
export interface ListenConfig {
  readonly address: Address;
  /** null = not encrypted. */
  readonly tls: ListenTlsConfig | null;
  /** Secrets. A request must carry one of them in x-aiproxy-token; empty = none is asked for. */
  readonly authorize: readonly string[];
  /** Name of the upstream that every path on this listener goes to, whole; null = its first segment names it. */
  readonly upstream: string | null;
}

/** PEM texts, already read. */
export interface ListenTlsConfig {
  readonly cert: string;
  readonly key: string;
  /** A client must show a certificate of one of these; null = it is not asked for one. */
  readonly clientCa: string | null;
}

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';
export type AccessLog = 'all' | 'errors' | 'off';

/** Ready numbers: durations in ms, sizes in bytes; `none` and `unlimited` are Infinity. Nothing is parsed after start. */
export interface Config {
  /** Those of upstreams included, which come last. */
  readonly listen: readonly ListenConfig[];
  readonly stats: Address;
  /** Names allowed in the Host header of the stats port besides IP literals and localhost, lower case. */
  readonly allowedHosts: readonly string[];
  readonly log: { readonly level: LogLevel; readonly access: AccessLog };
  readonly drain: { readonly acceptForMs: number; readonly timeoutMs: number };
  readonly maintenance: { readonly intervalMs: number };
  readonly listener: ListenerConfig;
  /** The server that sidecars share: for stored answers, rate limits and permits, whichever ask for it. */
  readonly redis: RedisConfig | null;
  /** null = the process does not watch itself. */
  readonly overload: OverloadConfig | null;
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
}

export interface RedisConfig {
  /** redis://…, rediss://… or the path of a unix socket; a secret. */
  readonly url: string;
  /** Before every key. */
  readonly prefix: string;
  /** For one question; while there is no connection none is asked. */
  readonly timeoutMs: number;
}

/** When the process itself has too much to do. Shares are of `memoryBytes`, each above the one before. */
export interface OverloadConfig {
  /** What there is; null = the limit of the cgroup, and without one memory is not watched. */
  readonly memoryBytes: number | null;
  /** The cache in memory is made smaller from here on. */
  readonly shrinkCacheAt: number;
  /** New requests are refused from here on. */
  readonly refuseAt: number;
  /** Clients' connections are closed after their answer, and idle ones at once, from here on. */
  readonly closeAt: number;
  /** New requests are refused while the event loop is this late; Infinity = it may be. */
  readonly maxLoopLagMs: number;
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
  /** With `adaptive`, its `max`. */
  readonly maxConcurrent: number;
  readonly maxQueue: number;
  readonly queueTimeoutMs: number;
  /** null = the limit is fixed. */
  readonly adaptive: AdaptiveConfig | null;
  /** The permits are shared by all sidecars on one Redis. */
  readonly shared: boolean;
  /** Lanes of its queue; a request that names none of them is in the first. Empty = one queue. */
  readonly lanes: readonly LaneConfig[];
}

export interface AdaptiveConfig {
  readonly min: number;
  readonly max: number;
  /** aimd: by 429, 503 and timeouts; gradient: by latency, for APIs of even latency. */
  readonly mode: 'aimd' | 'gradient';
}

/** A lane gets grants in proportion to its share while several lanes wait. */
export interface LaneConfig {
  readonly name: string;
  readonly share: number;
}

/** One of the servers of an upstream. */
export interface TargetConfig {
  /** Absolute path of its unix socket, `hostname` is localhost then; '' = TCP. */
  readonly socketPath: string;
  readonly protocol: 'http:' | 'https:';
  readonly hostname: string;
  readonly port: number;
  readonly origin: string;
  readonly basePath: string;
  /** Lowest first; a higher one is used while all of the lower are open or refuse. */
  readonly priority: number;
  /** Its part of the load among targets of one priority. */
  readonly weight: number;
  /** Set on every request to it, in place of the client's fields of that name. Lower-case names; values are secrets. */
  readonly headers: readonly (readonly [name: string, value: string])[];
}

/** One breaker per target. */
export interface BreakerConfig {
  /** Failures in a row that open it; Infinity = only the ratio counts. */
  readonly consecutiveFailures: number;
  /** Share of failures within `windowMs` that opens it, 0..1; above 1 = only failures in a row count. */
  readonly failureRatio: number;
  readonly windowMs: number;
  /** The ratio counts from so many requests in the window on. */
  readonly minRequests: number;
  /** First open time, doubled each time the probe fails, up to the second; each with jitter. */
  readonly openMs: number;
  readonly maxOpenMs: number;
}

/** Attempts beyond the first, by policy. What was never written is sent again once in any case. */
export interface RetriesConfig {
  /** All attempts together. */
  readonly attempts: number;
  readonly statuses: readonly number[];
  /** Methods that may be sent again wherever they go; others only on `replay` paths. */
  readonly methods: readonly string[];
  /** A longer request body is never sent again. */
  readonly replayLimitBytes: number;
  /** Full jitter: random between 0 and this doubled with each attempt, up to the second. */
  readonly backoffMs: number;
  readonly maxBackoffMs: number;
  /** A longer Retry-After of the upstream goes to the client with its answer. */
  readonly maxRetryAfterMs: number;
  /** A failure later than this after its attempt began is not retried; Infinity = any is. */
  readonly withinMs: number;
  /** Retries are at most this share of the requests of the last 10 s, plus `budgetMin`. */
  readonly budgetRatio: number;
  readonly budgetMin: number;
}

/** A second attempt beside a slow first one. */
export interface HedgeConfig {
  readonly paths: readonly string[];
  /** ms after the first attempt began; null = the 95th percentile of the time to the head of the answer. */
  readonly afterMs: number | null;
}

export interface RateLimitConfig {
  readonly requests: number;
  readonly perMs: number;
  /** So many may come at once after a pause. */
  readonly burst: number;
  /** One limit for all, one for each credential, or one for each value of a header (lower-case name). */
  readonly key: 'global' | 'credential' | { readonly header: string };
  readonly onLimit: 'wait' | 'reject';
  /** Kept by all sidecars on one Redis together. */
  readonly shared: boolean;
}

/** What the upstream's answers say about its limits is obeyed. */
export interface FeedbackConfig {
  /** Retry-After on 429 and 503 pauses upstream and credential, at most this long; 0 = not. */
  readonly maxPauseMs: number;
  /** x-ratelimit-remaining-* and -reset-* pace requests before the upstream refuses them. */
  readonly pace: boolean;
}

/** What is done about answers that take long to come whole. */
export interface StreamConfig {
  /** An event stream (text/event-stream) that is silent for so long gets a comment line, between two events; Infinity = none. */
  readonly heartbeatMs: number;
  /** Bytes per second that the body of an answer must bring over `minRateWindowMs`; 0 = no minimum. */
  readonly minRate: number;
  readonly minRateWindowMs: number;
  /** An event stream that was cut says so in an event of its own before the connection ends. */
  readonly errorEvent: boolean;
}

export interface UpstreamConfig {
  readonly name: string;
  readonly socketPath: string;
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
  /** At least one; the fields above are those of the first. */
  readonly targets: readonly TargetConfig[];
  readonly breaker: BreakerConfig | null;
  readonly retries: RetriesConfig | null;
  readonly hedge: HedgeConfig | null;
  readonly rateLimits: readonly RateLimitConfig[];
  readonly feedback: FeedbackConfig | null;
  /** Lane of the limiter for requests that name none; null = its first. */
  readonly lane: string | null;
  readonly stream: StreamConfig;
  /** null = a client that asks for a WebSocket is refused. */
  readonly websocket: { readonly max: number } | null;
  /** null = HTTP/1.1 only; else offered in TLS (ALPN). `maxStreams`: exchanges at once on one connection, or fewer if the peer says so. */
  readonly http2: { readonly maxStreams: number } | null;
  /** Limits on an answer's head. */
  readonly maxHeadBytes: number;
  readonly maxHeaders: number;
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

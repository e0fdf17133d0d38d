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
  readonly totalMs: number;
}

export interface TlsConfig {
  readonly ca: string | null;
  readonly servername: string | null;
  readonly cert: string | null;
  readonly key: string | null;
}

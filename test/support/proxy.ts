// The real object graph in this process, and the rule that every e2e test ends with: nothing is left behind.

import type { Test } from 'tap';
import { type Assembly, assemble } from '../../src/assemble.ts';
import { parseBaseUrl } from '../../src/config/base-url.ts';
import type {
  BreakerConfig,
  CacheConfig,
  CacheRuleConfig,
  CacheStoreConfig,
  Config,
  FeedbackConfig,
  FlightsConfig,
  HedgeConfig,
  LimiterConfig,
  ListenConfig,
  ListenerConfig,
  OverloadConfig,
  PoolConfig,
  RateLimitConfig,
  RedisConfig,
  RetriesConfig,
  StreamConfig,
  TargetConfig,
  TimeoutsConfig,
  TlsConfig,
} from '../../src/config/schema.ts';
import { makeLog } from '../../src/observe/log.ts';
import type { StatsSnapshot } from '../../src/observe/snapshot.ts';
import type { ListeningAt } from '../../src/server/listener.ts';
import { until } from './until.ts';

export interface CacheOverrides extends Partial<Omit<CacheConfig, 'rules'>> {
  readonly rules?: readonly CacheRuleOverrides[];
}

export interface CacheRuleOverrides extends Partial<Omit<CacheRuleConfig, 'match' | 'key'>> {
  readonly ttlMs: number;
  readonly match?: Partial<CacheRuleConfig['match']>;
  readonly key?: Partial<CacheRuleConfig['key']>;
}

export type TargetOverrides = { readonly url: string } & Partial<Pick<TargetConfig, 'priority' | 'weight' | 'headers'>>;

/** A section that is written, though with nothing in it (`breaker: {}`), is on with its defaults. */
export interface UpstreamOverrides {
  /** This or `targets`. */
  readonly url?: string;
  readonly targets?: readonly TargetOverrides[];
  readonly limiter?: string;
  readonly pool?: Partial<PoolConfig>;
  readonly timeouts?: Partial<TimeoutsConfig>;
  readonly bypass?: readonly string[];
  readonly replay?: readonly string[];
  readonly cache?: CacheOverrides;
  /** Default: as there is a cache. */
  readonly coalesce?: boolean;
  readonly breaker?: Partial<BreakerConfig>;
  readonly retries?: Partial<RetriesConfig>;
  readonly hedge?: Partial<HedgeConfig>;
  readonly rateLimits?: readonly Partial<RateLimitConfig>[];
  readonly feedback?: Partial<FeedbackConfig>;
  readonly lane?: string;
  readonly stream?: Partial<StreamConfig>;
  readonly websocket?: { readonly max: number };
  readonly http2?: { readonly maxStreams: number };
  readonly maxHeadBytes?: number;
  readonly maxHeaders?: number;
  readonly tls?: Partial<TlsConfig>;
}

export interface ConfigOverrides {
  /** Further listeners behind the plain one of `url`. */
  readonly listen?: readonly ListenConfig[];
  readonly upstreams: Readonly<Record<string, UpstreamOverrides>>;
  readonly limiters?: Readonly<Record<string, Partial<Omit<LimiterConfig, 'name'>>>>;
  readonly listener?: Partial<ListenerConfig>;
  readonly log?: Partial<Config['log']>;
  readonly drain?: Partial<Config['drain']>;
  readonly maintenanceMs?: number;
  readonly redis?: RedisConfig;
  readonly overload?: Partial<OverloadConfig>;
  readonly cache?: Partial<CacheStoreConfig>;
  readonly flights?: Partial<FlightsConfig>;
}

const NEVER = Number.POSITIVE_INFINITY;

/** The schema's defaults, in ready numbers, with what a test wants different. */
export function makeConfig(overrides: ConfigOverrides): Config {
  const address = { host: '127.0.0.1', port: 0, path: '', text: '127.0.0.1:0' };
  return {
    listen: [{ address, tls: null, authorize: [], upstream: null }, ...(overrides.listen ?? [])],
    stats: address,
    allowedHosts: [],
    log: { level: 'info', access: 'all', ...overrides.log },
    drain: { acceptForMs: 0, timeoutMs: 5000, ...overrides.drain },
    maintenance: { intervalMs: overrides.maintenanceMs ?? 30_000 },
    listener: {
      maxConnections: 10_000,
      keepAliveTimeoutMs: 75_000,
      headTimeoutMs: 10_000,
      maxHeadBytes: 32 << 10,
      maxHeaders: 200,
      maxPipelined: 16,
      bodyBufferBytes: 256 << 10,
      bodyMemoryBytes: 64 << 20,
      bodyMinRate: 1024,
      ...overrides.listener,
    },
    redis: overrides.redis ?? null,
    overload: overrides.overload
      ? {
          memoryBytes: null,
          shrinkCacheAt: 0.8,
          refuseAt: 0.9,
          closeAt: 0.95,
          maxLoopLagMs: NEVER,
          ...overrides.overload,
        }
      : null,
    cache: {
      store: 'memory',
      maxBytes: 64 << 20,
      maxEntryBytes: 8 << 20,
      maxVariants: 16,
      sweepIntervalMs: 30_000,
      ...overrides.cache,
    },
    flights: { bufferBytes: 1 << 20, memoryBytes: 64 << 20, maxWaiters: 1000, waitMs: NEVER, ...overrides.flights },
    limiters: Object.entries(overrides.limiters ?? {}).map(([name, limiter]) => ({
      name,
      maxConcurrent: NEVER,
      maxQueue: 10_000,
      queueTimeoutMs: NEVER,
      adaptive: null,
      shared: false,
      lanes: [],
      ...limiter,
    })),
    upstreams: Object.entries(overrides.upstreams).map(([name, upstream]) => {
      const targets = (upstream.targets ?? [{ url: upstream.url! }]).map(makeTarget);
      const { socketPath, protocol, hostname, port, origin, basePath } = targets[0]!;
      return {
        name,
        socketPath,
        protocol,
        hostname,
        port,
        origin,
        basePath,
        limiter: upstream.limiter ?? null,
        pool: {
          connections: 50,
          keepalive: 20,
          idleTimeoutMs: 30_000,
          maxLifetimeMs: 600_000,
          maxRequests: NEVER,
          warm: 0,
          ...upstream.pool,
        },
        timeouts: {
          connectMs: 5000,
          headersMs: 60_000,
          firstEventMs: NEVER,
          idleMs: 60_000,
          writeStallMs: 75_000,
          totalMs: NEVER,
          ...upstream.timeouts,
        },
        bypass: upstream.bypass ?? [],
        replay: upstream.replay ?? [],
        cache: upstream.cache ? makeCache(upstream.cache) : null,
        coalesce: upstream.coalesce ?? upstream.cache !== undefined,
        targets,
        ...makeResilience(upstream),
        stream: { heartbeatMs: NEVER, minRate: 0, minRateWindowMs: 30_000, errorEvent: false, ...upstream.stream },
        websocket: upstream.websocket ?? null,
        http2: upstream.http2 ?? null,
        maxHeadBytes: upstream.maxHeadBytes ?? 32 << 10,
        maxHeaders: upstream.maxHeaders ?? 200,
        tls: { ca: null, servername: null, cert: null, key: null, ...upstream.tls },
      };
    }),
  };
}

function makeCache({ rules = [], ...cache }: CacheOverrides): CacheConfig {
  return {
    http: false,
    partition: 'credential',
    partitionHeaders: [],
    storeSetCookie: false,
    heuristicFraction: 0,
    heuristicMaxMs: 86_400_000,
    ...cache,
    rules: rules.map(({ match, key, ...rule }) => ({
      staleIfErrorMs: 0,
      staleWhileRevalidateMs: 0,
      statuses: [200],
      maxEntryBytes: 1 << 20,
      pace: 'fast',
      ...rule,
      match: { methods: ['GET', 'POST'], paths: [], operations: [], headers: [], ...match },
      key: { body: 'canonical', queryIgnore: [], headers: [], ...key },
    })),
  };
}

function makeTarget({ url, ...rest }: TargetOverrides): TargetConfig {
  const base = parseBaseUrl(url);
  if (typeof base === 'string') throw new Error(`${url}: ${base}`);
  return { ...base, priority: 0, weight: 1, headers: [], ...rest };
}

function makeResilience({ breaker, retries, hedge, rateLimits = [], feedback, lane }: UpstreamOverrides) {
  return {
    breaker: breaker ? { ...BREAKER, ...breaker } : null,
    retries: retries ? { ...RETRIES, ...retries } : null,
    hedge: hedge ? { paths: ['/*'], afterMs: null, ...hedge } : null,
    rateLimits: rateLimits.map((limit) => ({ ...RATE_LIMIT, ...limit })),
    feedback: feedback ? { maxPauseMs: 60_000, pace: true, ...feedback } : null,
    lane: lane ?? null,
  };
}

const BREAKER: BreakerConfig = {
  consecutiveFailures: 5,
  failureRatio: 0.5,
  windowMs: 10_000,
  minRequests: 20,
  openMs: 1000,
  maxOpenMs: 60_000,
};

const RETRIES: RetriesConfig = {
  attempts: 3,
  statuses: [429, 502, 503, 504],
  methods: ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'],
  replayLimitBytes: 64 << 10,
  backoffMs: 100,
  maxBackoffMs: 5000,
  maxRetryAfterMs: 10_000,
  withinMs: NEVER,
  budgetRatio: 0.2,
  budgetMin: 3,
};

const RATE_LIMIT: RateLimitConfig = {
  requests: 500,
  perMs: 60_000,
  burst: 1,
  key: 'global',
  onLimit: 'wait',
  shared: false,
};

/** A line of the log. */
export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [key: string]: unknown;
}

/** Sent by `Rig.ask` with every request; no log line may ever hold it. */
export const SECRET = 'sk-s3cr3t-never-to-be-seen';

export class TestProxy {
  readonly port: number;
  /** All listeners, in the order of the config. */
  readonly listen: readonly ListeningAt[];
  readonly statsPort: number;
  readonly assembly: Assembly;
  /** Log lines as written. */
  readonly rawLog: string[];
  #stopped: Promise<void> | null = null;

  private constructor(assembly: Assembly, listen: readonly ListeningAt[], statsPort: number, rawLog: string[]) {
    this.assembly = assembly;
    this.listen = listen;
    this.port = listen[0]!.port;
    this.statsPort = statsPort;
    this.rawLog = rawLog;
  }

  static async start(overrides: ConfigOverrides, dump: unknown = {}, wallClock = Date.now): Promise<TestProxy> {
    const rawLog: string[] = [];
    const config = makeConfig(overrides);
    const { log } = makeLog(config.log.level, {
      write: (line: string) => {
        rawLog.push(line);
      },
    });
    const assembly = assemble(config, dump, '0.0.0-test', log, () => void assembly.drain.start(), wallClock);
    const { listen, stats } = await assembly.start();
    return new TestProxy(assembly, listen, stats.port, rawLog);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  stats(): StatsSnapshot {
    return this.assembly.gauges.snapshot();
  }

  upstream(name = 'ai') {
    return this.stats().upstreams[name]!;
  }

  pool(name = 'ai') {
    return this.upstream(name).pool;
  }

  limiter(name: string) {
    return this.stats().limiters[name]!;
  }

  get log(): LogLine[] {
    return this.rawLog.map((line) => JSON.parse(line) as LogLine);
  }

  /** One access line per exchange (and per refused request), in the order they ended. */
  get exchanges(): LogLine[] {
    return this.log.filter((line) => line.msg === 'exchange');
  }

  /** Gauges that are not back at 0, by name; {} when all is well. */
  busy(): Record<string, number> {
    const { listener, limiters, upstreams } = this.stats();
    const gauges: [string, number][] = [
      ['listener.in_flight', listener.in_flight],
      ['listener.body_memory_bytes', listener.body_memory_bytes],
    ];
    for (const [name, limiter] of Object.entries(limiters)) {
      gauges.push([`${name}.in_flight`, limiter.in_flight], [`${name}.queued`, limiter.queued]);
      for (const [label, operation] of Object.entries(limiter.operations)) {
        gauges.push([`${name}.${label}.in_flight`, operation.in_flight], [`${name}.${label}.queued`, operation.queued]);
      }
    }
    for (const [name, upstream] of Object.entries(upstreams)) {
      gauges.push([`${name}.in_flight`, upstream.in_flight]);
      gauges.push([`${name}.websocket.open`, upstream.websocket?.open ?? 0]);
      gauges.push([`${name}.pool.active`, upstream.pool.active], [`${name}.pool.connecting`, upstream.pool.connecting]);
      for (const { url, in_flight } of upstream.targets) gauges.push([`${name}.${url}.in_flight`, in_flight]);
    }
    return Object.fromEntries(gauges.filter(([, value]) => value !== 0));
  }

  /** Waits until every gauge is back at 0. */
  async idle(withinMs = 5000): Promise<void> {
    await until(
      `all gauges at 0, but ${JSON.stringify(this.busy())}`,
      () => Object.keys(this.busy()).length === 0,
      withinMs,
    ).catch(() => {
      throw new Error(`not back at 0: ${JSON.stringify(this.busy())}`);
    });
  }

  stop(): Promise<void> {
    this.#stopped ??= this.assembly.stop();
    return this.#stopped;
  }

  /** What is wrong after all clients have left; [] when nothing is left behind. Stops the proxy. */
  async leftovers(): Promise<string[]> {
    const wrong: string[] = [];
    await this.idle().catch((error: Error) => wrong.push(error.message));
    await until('all client connections gone', () => this.stats().listener.connections === 0).catch(() =>
      wrong.push(`${this.stats().listener.connections} client connections are still counted`),
    );
    for (const [name, { pool }] of Object.entries(this.stats().upstreams)) {
      const open = pool.opened - pool.closed;
      if (open !== pool.active + pool.idle)
        wrong.push(`${name}: ${open} connections open, but ${pool.active + pool.idle} known`);
      const reasons = Object.values(pool.closed_by).reduce((sum, count) => sum + count, 0);
      if (reasons !== pool.closed) wrong.push(`${name}: ${pool.closed} closed, but ${reasons} reasons`);
    }
    await this.stop();
    for (const line of this.log) {
      if (line.msg.includes('bug')) wrong.push(`a bug line: ${JSON.stringify(line)}`);
    }
    wrong.push(...this.#lineProblems());
    const leak = this.rawLog.find((line) => line.includes(SECRET));
    if (leak) wrong.push(`a credential is in the log: ${leak}`);
    return wrong;
  }

  /** Every exchange has exactly one access line. */
  #lineProblems(): string[] {
    const { upstreams } = this.stats();
    const lines = this.exchanges;
    if (lines.length === 0) return [];
    const wrong: string[] = [];
    for (const [name, { requests, status }] of Object.entries(upstreams)) {
      const told = lines.filter((line) => line.upstream === name).length;
      const counted = Object.values(status).reduce((sum, count) => sum + count, 0);
      if (told !== requests || counted !== requests) {
        wrong.push(`${name}: ${requests} requests, ${told} access lines, ${counted} counted by status`);
      }
    }
    return wrong;
  }
}

/** Fails the test for each thing left behind. */
export async function assertNothingLeft(t: Test, proxy: TestProxy): Promise<void> {
  t.same(await proxy.leftovers(), [], 'nothing is left behind');
}

// The form of the YAML file as a zod schema: every key with its kind, bounds, default and description.
//
// Durations and sizes stay texts here, so that the form can be shown again as the file writes it; resolve.ts turns it
// into numbers. The JSON Schema for editors is exported from this too.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { z } from 'zod';
import { flightKeys, store, upstreamCache } from './form-cache.ts';
import { limiter, overload, redis } from './form-limits.ts';
import { listen, PEM_RULE } from './form-listen.ts';
import { resilienceKeys } from './form-resilience.ts';
import { streamKeys } from './form-stream.ts';
import {
  address,
  baseUrl,
  count,
  duration,
  filledText,
  flag,
  hostName,
  name,
  named,
  oneOf,
  pathPattern,
  section,
  size,
  whole,
} from './leaves.ts';
import { fileRules, keepaliveDefault, poolRules, upstreamRules, whateverElse } from './rules.ts';
import { cacheFileRules, coalesceDefault, entryDefault } from './rules-cache.ts';
import { listenFileRules } from './rules-listen.ts';
import { replayDefault, resilienceFileRules, targetsRules } from './rules-resilience.ts';
import { DEADLINE_OR_NONE, GIB, KIB, LONGEST_MS, LONGEST_TIMER_MS, MIB } from './units.ts';

/** For what one of Node's own timers measures. */
const TIMER = { min: 1, max: LONGEST_TIMER_MS } as const;
const TIMER_OR_ZERO = { min: 0, max: LONGEST_TIMER_MS } as const;

const log = section({
  level: oneOf(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .default('info')
    .describe('The least serious log line that is written. Default info.'),
  access: oneOf(['all', 'errors', 'off'])
    .default('all')
    .describe('One log line per exchange: for all, for failed ones (errors), or none (off). Default all.'),
});

const drain = section({
  accept_for: duration(TIMER_OR_ZERO)
    .default('0s')
    .describe('Duration that new connections are still served after SIGTERM, while /readyz says 503. Default 0s.'),
  timeout: duration(TIMER_OR_ZERO)
    .default('30s')
    .describe('Duration that exchanges in flight get to finish; what is left is cut. Default 30s.'),
});

const maintenance = section({
  interval: duration({ min: 100, max: LONGEST_TIMER_MS })
    .default('30s')
    .describe('Duration between two closings of surplus and old upstream connections. Default 30s.'),
});

const listener = section({
  max_connections: whole({ min: 1, max: 1_000_000 })
    .default(10_000)
    .describe(
      'Client connections open at once on one listener; for a further one the one idle for longest makes room. Default 10000.',
    ),
  keepalive_timeout: duration(TIMER)
    .default('75s')
    .describe('Duration that an idle client connection is kept. Default 75s.'),
  head_timeout: duration(TIMER)
    .default('10s')
    .describe('Duration in which the head of a request must arrive whole, and a TLS handshake be over. Default 10s.'),
  max_head: size({ min: KIB, max: MIB }).default('32kb').describe('Size limit of a request head. Default 32kb.'),
  max_headers: whole({ min: 1, max: 10_000 })
    .default(200)
    .describe('Number of header lines a request may have. Default 200.'),
  max_pipelined: whole({ min: 0, max: 1000 })
    .default(16)
    .describe('Number of requests that may wait behind the running one on one client connection. Default 16.'),
});

const pool = section({
  connections: whole({ min: 1, max: 65_535 })
    .default(50)
    .describe(
      'Number of connections to this upstream at most; each carries one request at a time, many with HTTP/2. Default 50.',
    ),
  keepalive: whole({ min: 0, max: 65_535 })
    .optional()
    .meta({ default: 20 })
    .describe('Number of idle connections kept. Default 20, or `connections` where that is less.'),
  idle_timeout: duration(TIMER)
    .default('30s')
    .describe('Duration after which an idle connection is closed. Default 30s.'),
  max_lifetime: duration({ min: 1, max: LONGEST_MS, word: 'none' })
    .default('10m')
    .describe('Duration after which a connection is no longer reused, give or take 20 %, or none. Default 10m.'),
  max_requests: count({ min: 1, max: 1_000_000_000 })
    .default('unlimited')
    .describe('Number of requests one connection carries before it is closed, or unlimited. Default unlimited.'),
  warm: whole({ min: 0, max: 65_535 })
    .default(0)
    .describe('Number of connections opened before the first request, and again after a close. Default 0.'),
})
  .superRefine(poolRules, whateverElse)
  .transform(keepaliveDefault);

const timeouts = section({
  connect: duration(TIMER).default('5s').describe('Duration to open a connection, with DNS and TLS. Default 5s.'),
  headers: duration(DEADLINE_OR_NONE)
    .default('600s')
    .describe('Duration from the request fully sent to the head of the answer, or none. Default 600s.'),
  first_event: duration(DEADLINE_OR_NONE)
    .default('none')
    .describe('Duration to the first event of a stream, not counting keep-alive filler, or none. Default none.'),
  idle: duration(DEADLINE_OR_NONE)
    .default('60s')
    .describe('Duration between two pieces of an answer, or none. Default 60s.'),
  write_stall: duration(DEADLINE_OR_NONE)
    .default('75s')
    .describe('Duration without the client taking a byte while some wait for it, or none. Default 75s.'),
  total: duration(DEADLINE_OR_NONE)
    .default('none')
    .describe('Duration of the whole exchange, waiting included, or none. Default none.'),
});

const tls = section({
  ca: filledText(PEM_RULE)
    .optional()
    .describe('Certificates to trust: PEM file, relative to the config file. Default: those of Node.'),
  servername: hostName()
    .optional()
    .describe('Name asked for (SNI) and checked in the certificate. Default: the host of `url`.'),
  cert: filledText(PEM_RULE)
    .optional()
    .describe('Client certificate: PEM file, relative to the config file; needs `key`. Default: none.'),
  key: filledText(PEM_RULE)
    .optional()
    .describe('Private key of `cert`: PEM file, relative to the config file, unencrypted. Default: none.'),
});

const upstream = section({
  url: baseUrl()
    .optional()
    .describe(
      'Where requests go: http or https, host, and a path put before theirs; or unix:/path.sock. Required, or `targets`.',
    ),
  listen: listen()
    .optional()
    .describe('Listeners of its own, in the forms of `listen`; the whole path goes to this upstream. Default: none.'),
  limiter: name('a limiter').optional().describe('Name of the limiter this upstream shares. Default: none.'),
  pool: pool.prefault({}).describe('Connections to this upstream.'),
  timeouts: timeouts.prefault({}).describe('Deadlines; each has its own failure code.'),
  bypass: z
    .array(pathPattern())
    .default([])
    .describe(
      'Paths (/health, /static/*) that skip limiter, cache and deadlines except connect and write_stall. Default [].',
    ),
  replay: z
    .array(pathPattern())
    .default([])
    .describe('Paths whose requests are safe to send twice, whatever the method. Default [].'),
  cache: upstreamCache
    .optional()
    .describe('Which answers are stored and used again: http, or a mapping of keys. Default: none.'),
  coalesce: flag()
    .optional()
    .describe('Identical requests in flight share one fetch. Default: true with a `cache`, else false.'),
  ...resilienceKeys,
  ...streamKeys,
  tls: tls.prefault({}).describe('TLS to this upstream; only with https.'),
})
  .superRefine(upstreamRules, whateverElse)
  .superRefine(targetsRules, whateverElse)
  .meta({ oneOf: ['url', 'targets'].map((key) => ({ properties: { [key]: true }, required: [key] })) })
  .transform(coalesceDefault);

const file = section({
  listen: listen()
    .default('127.0.0.1:8080')
    .describe(
      'Where clients connect: host:port (port 0 = any free), unix:/path.sock, a mapping, or a list. Default 127.0.0.1:8080.',
    ),
  stats: address()
    .default('127.0.0.1:9090')
    .describe(
      'Address of the stats port (dashboard, /stats, /metrics, /readyz), or unix:/path.sock. Default 127.0.0.1:9090.',
    ),
  allowed_hosts: z
    .array(hostName())
    .default([])
    .describe('Names accepted in the Host header of the stats port besides IP addresses and localhost. Default [].'),
  log: log.prefault({}).describe('What is logged.'),
  drain: drain.prefault({}).describe('How the proxy stops.'),
  maintenance: maintenance.prefault({}).describe('The regular tidying of the pools.'),
  body_buffer: size({ min: KIB, max: GIB })
    .default('256kb')
    .describe('Size of the request body read ahead before a permit is asked for. Default 256kb.'),
  body_memory: size({ min: KIB, max: 64 * GIB })
    .default('64mb')
    .describe('Size of all request bodies waiting together; beyond it the answer is 503. Default 64mb.'),
  body_min_rate: size({ min: 0, max: GIB })
    .default('1kb')
    .describe('Size per second that a request body must bring while it is waited for; 0 = no minimum. Default 1kb.'),
  listener: listener.prefault({}).describe('What clients are granted.'),
  redis: redis.optional().describe('The Redis server that instances share. Default: none.'),
  overload: overload.optional().describe('What is done when the process itself has too much to do. Default: nothing.'),
  cache: store.prefault({}).describe('Where the stored answers of all upstreams are kept.'),
  ...flightKeys,
  limiters: named('a limiter', [], limiter)
    .default({})
    .describe('Concurrency limits by name; an upstream takes part in one by naming it. Default {}.'),
  upstreams: named('an upstream', ['healthz'], upstream)
    .refine((upstreams) => Object.keys(upstreams).length > 0, 'must have at least one upstream')
    .meta({ minProperties: 1 })
    .describe('The APIs behind the proxy by name: the first segment of a request path. Required.'),
})
  .superRefine(fileRules, whateverElse)
  .superRefine(listenFileRules, whateverElse)
  .superRefine(cacheFileRules, whateverElse)
  .superRefine(resilienceFileRules, whateverElse);

export const form = file.transform(({ upstreams, ...rest }) => ({
  ...rest,
  upstreams: mapValues(upstreams, (upstream) => ({
    ...upstream,
    retries: upstream.retries && {
      ...upstream.retries,
      replay_limit: replayDefault(upstream.retries.replay_limit, rest.body_buffer),
    },
    cache: upstream.cache && {
      ...upstream.cache,
      rules: upstream.cache.rules.map((rule) => ({
        ...rule,
        max_entry: entryDefault(rule.max_entry, rest.cache.max_entry),
      })),
    },
  })),
}));

function mapValues<T, U>(map: Readonly<Record<string, T>>, change: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(map).map(([name, value]) => [name, change(value)]));
}

/** The file after validation: defaults filled in, durations and sizes still texts. */
export type Form = z.output<typeof form>;

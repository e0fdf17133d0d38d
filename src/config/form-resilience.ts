// The part of the form for an upstream's bad days: its targets, and how failures and limits are dealt with.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { z } from 'zod';
import {
  baseUrl,
  count,
  duration,
  flag,
  fraction,
  fractionOrNone,
  headerValue,
  limitKey,
  method,
  name,
  oneOf,
  pathPattern,
  rate,
  requestHeaderName,
  section,
  size,
  switched,
  whole,
} from './leaves.ts';
import { whateverElse } from './rules.ts';
import { breakerRules, feedbackRules, retriesRules, targetRules } from './rules-resilience.ts';
import type { SecretMeta } from './secrets.ts';
import { DAY_MS, GIB, LONGEST_MS } from './units.ts';

const HOUR_MS = DAY_MS / 24;
const SECRET: SecretMeta = { secret: 'value' };

/** `shared: true` would not say over what. */
export function sharedOver() {
  return z.enum(['redis'], { error: 'must be redis, the place it is shared in, or be left out' }).optional();
}

const target = section(
  {
    url: baseUrl().describe('Where requests to this target go, as the `url` of an upstream. Required.'),
    priority: whole({ min: 0, max: 100 })
      .default(0)
      .describe('Lowest first; the next is used while all targets of a lower one are open or refuse. Default 0.'),
    weight: whole(
      { min: 1, max: 1000 },
      'must be a whole number of at least 1: to give a target nothing, leave it out, or raise its priority',
    )
      .default(1)
      .describe('Part of the load among targets of one priority, 1 to 1000. Default 1.'),
    headers: z
      .record(requestHeaderName(), headerValue().meta(SECRET))
      .meta(SECRET)
      .default({})
      .describe('Headers by name, put in place of the client’s; values are secrets, given by ${NAME}. Default {}.'),
  },
  'must be a mapping such as { url: "https://host" }',
).superRefine(targetRules, whateverElse);

const breaker = switched({
  consecutive_failures: count({ min: 1, max: 1_000_000 })
    .default(5)
    .describe('Number of failures in a row that open it, or unlimited. Default 5.'),
  failure_ratio: fractionOrNone({ min: 0.01, max: 1 })
    .default(0.5)
    .describe('Share of failures within `window` that opens it, or none. Default 0.5.'),
  window: duration({ min: 1000, max: HOUR_MS })
    .default('10s')
    .describe('Duration over which `failure_ratio` is counted. Default 10s.'),
  min_requests: whole({ min: 1, max: 1_000_000 })
    .default(20)
    .describe('Number of requests within `window` from which on `failure_ratio` counts. Default 20.'),
  open: duration({ min: 1, max: DAY_MS })
    .default('1s')
    .describe('Duration it stays open, give or take; doubled each time the probe after it fails. Default 1s.'),
  max_open: duration({ min: 1, max: DAY_MS }).default('60s').describe('Longest duration it stays open. Default 60s.'),
}).superRefine(breakerRules, whateverElse);

const retries = switched({
  attempts: whole({ min: 2, max: 10 }, 'must be a whole number of at least 2: the first attempt is one of them')
    .default(3)
    .describe('Number of attempts in all, the first included. Default 3.'),
  statuses: z
    .array(whole({ min: 400, max: 599 }))
    .default([429, 502, 503, 504])
    .describe('Statuses of answers that are tried again. Default [429, 502, 503, 504].'),
  methods: z
    .array(method())
    .default(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])
    .describe('Methods tried again; others only on `replay` paths. Default [GET, HEAD, OPTIONS, PUT, DELETE].'),
  replay_limit: size({ min: 0, max: GIB })
    .optional()
    .meta({ default: '64kb' })
    .describe('Size of a request body that is sent again at most. Default 64kb, or `body_buffer` where that is less.'),
  backoff: duration({ min: 0, max: HOUR_MS })
    .default('100ms')
    .describe('Duration waited before the second attempt at most, doubled for each further one. Default 100ms.'),
  max_backoff: duration({ min: 0, max: HOUR_MS })
    .default('5s')
    .describe('Longest duration to which that is doubled. Default 5s.'),
  max_retry_after: duration({ min: 0, max: HOUR_MS })
    .default('10s')
    .describe('Duration of a Retry-After that is waited for; an answer with a longer one is passed on. Default 10s.'),
  within: duration({ min: 1, max: LONGEST_MS, word: 'none' })
    .default('none')
    .describe(
      'Duration after the begin of an attempt after which its failure is not tried again, or none. Default none.',
    ),
  budget_ratio: fraction({ min: 0, max: 1 })
    .default(0.2)
    .describe('Share of the requests of the last 10 s that may be attempts beyond the first. Default 0.2.'),
  budget_min: whole({ min: 0, max: 1000 })
    .default(3)
    .describe('Number of them that is allowed besides, however few the requests. Default 3.'),
}).superRefine(retriesRules, whateverElse);

const hedge = switched(
  {
    paths: z
      .array(pathPattern())
      .min(1, 'must have at least one path')
      .describe('Paths whose slow requests get a second attempt beside the first. Required.'),
    after: duration({ min: 1, max: LONGEST_MS, word: 'p95' })
      .default('p95')
      .describe('Duration until then, or p95: longer than 95 % take to the head of the answer. Default p95.'),
  },
  'must be a mapping of keys with paths, or be left out',
);

const rateLimit = section({
  requests: rate().describe('Number of requests per s, min, h or d, such as 500/min. Required.'),
  burst: whole({ min: 1, max: 1_000_000 })
    .default(1)
    .describe('Number of requests that may come at once after a pause. Default 1: evenly spread.'),
  key: limitKey()
    .default('global')
    .describe(
      'What has a limit of its own: all together (global), each credential, or each value of a header (`header:<name>`). Default global.',
    ),
  on_limit: oneOf(['wait', 'reject'])
    .default('wait')
    .describe('Whether a request beyond it waits in the queue, or is answered 429. Default wait.'),
  shared: sharedOver().describe('redis: all instances on one `redis` keep it together. Default: each its own.'),
});

const feedback = switched({
  max_pause: duration({ min: 0, max: 60_000 })
    .default('60s')
    .describe('Longest duration that Retry-After on 429 and 503 pauses upstream and credential; 0 = not. Default 60s.'),
  pace: flag()
    .default(true)
    .describe('x-ratelimit-remaining-* and -reset-* slow requests down before the 429. Default true.'),
}).superRefine(feedbackRules, whateverElse);

/** Keys of an upstream. */
export const resilienceKeys = {
  targets: z
    .array(target)
    .min(1, 'must have at least one target')
    .max(32, 'must have at most 32 targets')
    .optional()
    .describe('The servers of this upstream, in place of `url`. Default: one, the `url`.'),
  breaker: breaker.optional().describe('Refuses for a while what would fail, one for each target. Default: none.'),
  retries: retries.optional().describe('Further attempts after a failure. Default: none.'),
  hedge: hedge.optional().describe('A second attempt beside a slow first one. Default: none.'),
  rate_limits: z
    .array(rateLimit)
    .max(8, 'must have at most 8 limits')
    .default([])
    .describe('Limits on requests per time, each for itself. Default [].'),
  feedback: feedback.optional().describe('Obeys what answers say about their limits. Default: not.'),
  lane: name('a lane').optional().describe('Lane of the limiter for requests that name none. Default: its first.'),
};

// The part of the form for what instances share and what protects the process: Redis, limiters, overload.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { sharedOver } from './form-resilience.ts';
import {
  concurrency,
  count,
  duration,
  fraction,
  keyPrefix,
  oneOf,
  ordered,
  redisUrl,
  section,
  size,
  switched,
  whole,
} from './leaves.ts';
import { whateverElse } from './rules.ts';
import { adaptiveRules, limiterRules, overloadRules } from './rules-resilience.ts';
import { DEADLINE_OR_NONE, GIB, MIB } from './units.ts';

export const redis = section({
  url: redisUrl().describe('redis://, rediss:// or unix:/path; a secret, so better given by ${NAME}. Required.'),
  prefix: keyPrefix().default('aiproxy:').describe('Text before every key in Redis. Default aiproxy:.'),
  timeout: duration({ min: 1, max: 10_000 })
    .default('100ms')
    .describe('Duration of one question; then it goes on without an answer. Default 100ms.'),
});

const SHARE = { min: 0.1, max: 1 } as const;

export const overload = switched({
  memory: size({ min: 16 * MIB, max: 1024 * GIB, word: 'cgroup' })
    .default('cgroup')
    .describe('Size of the memory there is, or cgroup: as the container’s limit says. Default cgroup.'),
  shrink_cache_at: fraction(SHARE)
    .default(0.8)
    .describe('Share of `memory` from which on the cache is made smaller. Default 0.8.'),
  refuse_at: fraction(SHARE)
    .default(0.9)
    .describe('Share of `memory` from which on new requests are answered 503. Default 0.9.'),
  close_at: fraction(SHARE)
    .default(0.95)
    .describe('Share of `memory` from which on client connections are closed after their answer. Default 0.95.'),
  max_loop_lag: duration({ min: 10, max: 60_000, word: 'none' })
    .default('none')
    .describe('Duration the event loop may be late before new requests are answered 503, or none. Default none.'),
}).superRefine(overloadRules, whateverElse);

const CONCURRENT = { min: 1, max: 1_000_000 } as const;

const adaptive = section(
  {
    min: whole(CONCURRENT).default(1).describe('Number of requests below which the limit never goes. Default 1.'),
    max: whole(CONCURRENT).describe('Number of requests above which the limit never goes. Required.'),
    mode: oneOf(['aimd', 'gradient'])
      .default('aimd')
      .describe(
        'What lowers it: 429, 503 and timeouts (aimd), or latency too, where that is even (gradient). Default aimd.',
      ),
  },
  'must be a mapping such as { min: 4, max: 64 }',
).superRefine(adaptiveRules, whateverElse);

export const limiter = section({
  max_concurrent: concurrency(
    CONCURRENT,
    section({ adaptive: adaptive.describe('A limit found by trying, between two bounds.') }),
  ).describe(
    'Number of requests that run at once in all upstreams that name this limiter, unlimited, or `adaptive`. Required.',
  ),
  max_queue: count({ min: 0, max: 10_000_000 })
    .default(10_000)
    .describe('Number of requests that may wait for their turn, or unlimited; 0 = refuse at once. Default 10000.'),
  queue_timeout: duration(DEADLINE_OR_NONE)
    .default('none')
    .describe('Duration a request may wait for its turn, or none. Default none.'),
  shared: sharedOver().describe('redis: all instances on one `redis` share the permits. Default: each its own.'),
  lanes: ordered('a lane', whole({ min: 1, max: 1000 }), 'must be a mapping such as { interactive: 4, batch: 1 }')
    .refine((lanes) => Object.keys(lanes).length <= 16, 'must have at most 16 lanes')
    .meta({ maxProperties: 16 })
    .default({})
    .describe(
      'Lanes of the queue by name, and the share of each, 1 to 1000; the first is for who names none. Default {}.',
    ),
}).superRefine(limiterRules, whateverElse);

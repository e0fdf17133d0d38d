// The cache's part of the form: where answers are kept, the fetches that are shared, and what an upstream stores.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { z } from 'zod';
import {
  duration,
  filledText,
  flag,
  fraction,
  headerName,
  headerValue,
  oneOf,
  oneOrMore,
  pathPattern,
  section,
  size,
  status,
  whole,
} from './leaves.ts';
import { whateverElse } from './rules.ts';
import { storeRules, upstreamCacheRules } from './rules-cache.ts';
import { DEADLINE_OR_NONE, GIB, KIB, LONGEST_MS, LONGEST_TIMER_MS } from './units.ts';

const LIFETIME = { min: 1, max: LONGEST_MS } as const;
const LIFETIME_OR_ZERO = { min: 0, max: LONGEST_MS } as const;

export const store = section({
  store: oneOf(['memory', 'redis'])
    .default('memory')
    .describe('Where stored answers are kept: memory, or redis to share them over `redis`. Default memory.'),
  max_bytes: size({ min: KIB, max: 64 * GIB })
    .default('64mb')
    .describe('Size of all stored answers in memory, bookkeeping included. Default 64mb.'),
  max_entry: size({ min: KIB, max: GIB })
    .default('8mb')
    .describe('Size of one stored answer; a larger one passes without being stored. Default 8mb.'),
  max_variants: whole({ min: 1, max: 1000 })
    .default(16)
    .describe('Number of variants (by Vary) kept of one answer. Default 16.'),
  sweep_interval: duration({ min: 100, max: LONGEST_TIMER_MS })
    .default('30s')
    .describe('Duration between two removals of answers too old for any use. Default 30s.'),
}).superRefine(storeRules, whateverElse);

/** Keys of the file itself. */
export const flightKeys = {
  flight_buffer: size({ min: KIB, max: GIB })
    .default('1mb')
    .describe(
      'Size by which the slowest reader of a shared fetch may be behind before the upstream is paused. Default 1mb.',
    ),
  flight_memory: size({ min: KIB, max: 64 * GIB })
    .default('64mb')
    .describe('Size of what all shared fetches hold together. Default 64mb.'),
  flight_waiters: whole({ min: 0, max: 1_000_000 })
    .default(1000)
    .describe('Number of requests that may join one shared fetch; further ones go on their own. Default 1000.'),
  flight_wait: duration(DEADLINE_OR_NONE)
    .default('none')
    .describe('Duration a request waits for a shared fetch to begin before it goes on its own, or none. Default none.'),
};

const match = section({
  method: oneOrMore(oneOf(['GET', 'POST', 'QUERY']), 'GET, POST or QUERY')
    .default(['GET', 'POST'])
    .describe('Method, or list of methods: GET, POST, QUERY. Default GET and POST.'),
  path: oneOrMore(pathPattern(), 'a path that starts with /, with * only as its last character and no query')
    .default([])
    .describe('Path (/v1/embeddings, /static/*), or list of paths, below the upstream. Default []: all.'),
  operation: oneOrMore(headerValue(), 'the value of an x-aiproxy-operation header')
    .default([])
    .describe('Value, or list of values, of the x-aiproxy-operation header. Default []: all, and none.'),
  header: z
    .record(headerName(), headerValue())
    .default({})
    .describe('Headers by name, and the exact value each must have. Default {}.'),
});

const key = section({
  body: oneOf(['canonical', 'exact'])
    .default('canonical')
    .describe('Bodies are the same if they are equal as JSON (canonical) or byte by byte (exact). Default canonical.'),
  query_ignore: z
    .array(filledText('must be the name of a query parameter'))
    .default([])
    .describe('Names of query parameters that do not count, such as a nonce. Default [].'),
  headers: z.array(headerName()).default([]).describe('Names of headers that count too. Default [].'),
});

const rule = section({
  match: match.prefault({}).describe('Which requests the rule is for; the first rule that fits counts.'),
  ttl: duration(LIFETIME).describe('Duration that an answer is used, whatever it says itself. Required.'),
  stale_if_error: duration(LIFETIME_OR_ZERO)
    .default('0s')
    .describe('Duration beyond `ttl` that an answer is used if the upstream fails. Default 0s.'),
  stale_while_revalidate: duration(LIFETIME_OR_ZERO)
    .default('0s')
    .describe('Duration beyond `ttl` that an answer is used while a new one is fetched. Default 0s.'),
  key: key.prefault({}).describe('What makes two requests the same.'),
  statuses: z
    .array(status())
    .min(1, 'must have at least one status')
    .default([200])
    .describe('Statuses of answers that are stored. Default [200].'),
  max_entry: size({ min: KIB, max: GIB })
    .optional()
    .meta({ default: '1mb' })
    .describe('Size of one stored answer. Default 1mb, or `cache.max_entry` where that is less.'),
  pace: oneOf(['fast', 'recorded'])
    .default('fast')
    .describe('How a stored stream is sent again: at once (fast), or as it came (recorded). Default fast.'),
});

export const upstreamCache = z
  .strictObject(
    {
      http: flag()
        .default(false)
        .describe(
          'Answers are stored as they say themselves (RFC 9111); `cache: http` is short for this alone. Default false.',
        ),
      partition: oneOf(['credential', 'shared'])
        .default('credential')
        .describe('Whether each credential has answers of its own, or all clients share them. Default credential.'),
      partition_headers: z
        .array(headerName())
        .default([])
        .describe('Names of further headers that tell users apart, besides Authorization and its like. Default [].'),
      store_set_cookie: flag()
        .default(false)
        .describe('With `http`: answers with Set-Cookie are stored, and sent again with it. Default false.'),
      heuristic_fraction: fraction({ min: 0, max: 0.5 })
        .default(0)
        .describe('With `http`: share of its age that an answer without a lifetime is used; 0 = not. Default 0.'),
      heuristic_max: duration(LIFETIME)
        .default('24h')
        .describe('With `http`: longest duration that `heuristic_fraction` gives. Default 24h.'),
      rules: z
        .array(rule)
        .default([])
        .describe('What is stored whatever the answer says of itself. They come before `http`. Default [].'),
    },
    { error: ({ code }) => (code === 'invalid_type' ? 'must be http or a mapping of keys' : undefined) },
  )
  .superRefine(upstreamCacheRules, whateverElse)
  // Read by json-schema.ts and load.ts.
  .meta({ shorthand: 'http' });

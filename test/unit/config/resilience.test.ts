// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import t, { type Test } from 'tap';
import { ConfigError, type Env, parseConfig } from '../../../src/config/load.ts';
import { makeConfig } from '../../support/proxy.ts';

function problems(yaml: string, env: Env = {}): readonly string[] {
  try {
    parseConfig(yaml, 'f.yaml', env);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems;
  }
}

const MINIMAL = 'upstreams: { a: { url: "http://a" } }\n';
const withUpstream = (rest: string) => `upstreams: { a: { url: "https://a", ${rest} } }\n`;
const withLimiter = (rest: string) => `${MINIMAL}limiters: { l: { ${rest} } }\n`;
const upstreamOf = (yaml: string, env: Env = {}) => parseConfig(yaml, 'f.yaml', env).config.upstreams[0]!;
const limiterOf = (rest: string, env: Env = {}) => parseConfig(withLimiter(rest), 'f.yaml', env).config.limiters[0]!;

/** Each text has exactly one problem; told without its place and what `prefix` says of its path. */
function refused(t: Test, write: (rest: string) => string, prefix: string, lines: readonly [string, string][]) {
  for (const [yaml, problem] of lines) {
    const told = problems(write(yaml)).map((one) => one.replace(/^f\.yaml:\d+:\d+ /, ''));
    t.same(told, [prefix + problem], yaml);
  }
}

t.test('every key of resilience reaches the config', async (t) => {
  const { config } = parseConfig(
    `redis: { url: "redis://h" }
overload: { memory: 512mb, shrink_cache_at: 0.5, refuse_at: 0.6, close_at: 1, max_loop_lag: 200ms }
limiters:
  found: { max_concurrent: { adaptive: { min: 2, max: 50, mode: gradient } }, lanes: { zeta: 4, alpha: 1 } }
  shared: { max_concurrent: 20, shared: redis }
upstreams:
  a:
    targets:
      - url: https://x:1/v1/
        weight: 3
        headers: { Authorization: Bearer one, X-Org: "5" }
      - { url: "http://[::1]:9", priority: 2 }
    limiter: found
    lane: alpha
    breaker: { consecutive_failures: 7, failure_ratio: 1, window: 1m, min_requests: 5, open: 2s, max_open: 2s }
    retries: { attempts: 2, statuses: [500], methods: [POST, M-SEARCH], replay_limit: 0, backoff: 0, max_backoff: 1s,
               max_retry_after: 0, within: 3s, budget_ratio: 1, budget_min: 0 }
    hedge: { paths: [/v1/embeddings, /x/*], after: 250ms }
    rate_limits:
      - { requests: 500/min, burst: 10, key: "header:X-User-Id", on_limit: reject, shared: redis }
      - { requests: 10000/day, key: credential }
    feedback: { max_pause: 0, pace: true }
  b: { url: "https://b", breaker: { consecutive_failures: unlimited }, rate_limits: [] }
  c: { url: "https://c", breaker: { failure_ratio: none } }
`,
    'f.yaml',
    {},
  );
  t.same(config.overload, {
    memoryBytes: 512 * 1024 ** 2,
    shrinkCacheAt: 0.5,
    refuseAt: 0.6,
    closeAt: 1,
    maxLoopLagMs: 200,
  });
  t.match(config.limiters, [
    { maxConcurrent: 50, adaptive: { min: 2, max: 50, mode: 'gradient' }, shared: false },
    { maxConcurrent: 20, adaptive: null, shared: true, lanes: [] },
  ]);
  t.same(config.limiters[0]?.lanes, [
    { name: 'zeta', share: 4 },
    { name: 'alpha', share: 1 },
  ]);
  const [a, b, c] = config.upstreams;
  const first = { socketPath: '', protocol: 'https:', hostname: 'x', port: 1, origin: 'https://x:1', basePath: '/v1' };
  t.match(a, first, 'the upstream has the place of its first target');
  t.same(a?.targets, [
    {
      ...first,
      priority: 0,
      weight: 3,
      headers: [
        ['authorization', 'Bearer one'],
        ['x-org', '5'],
      ],
    },
    {
      socketPath: '',
      protocol: 'http:',
      hostname: '::1',
      port: 9,
      origin: 'http://[::1]:9',
      basePath: '',
      priority: 2,
      weight: 1,
      headers: [],
    },
  ]);
  t.same(a?.breaker, {
    consecutiveFailures: 7,
    failureRatio: 1,
    windowMs: 60_000,
    minRequests: 5,
    openMs: 2000,
    maxOpenMs: 2000,
  });
  t.same(a?.retries, {
    attempts: 2,
    statuses: [500],
    methods: ['POST', 'M-SEARCH'],
    replayLimitBytes: 0,
    backoffMs: 0,
    maxBackoffMs: 1000,
    maxRetryAfterMs: 0,
    withinMs: 3000,
    budgetRatio: 1,
    budgetMin: 0,
  });
  t.same(a?.hedge, { paths: ['/v1/embeddings', '/x/*'], afterMs: 250 });
  t.same(a?.rateLimits, [
    { requests: 500, perMs: 60_000, burst: 10, key: { header: 'x-user-id' }, onLimit: 'reject', shared: true },
    { requests: 10_000, perMs: 86_400_000, burst: 1, key: 'credential', onLimit: 'wait', shared: false },
  ]);
  t.same(a?.feedback, { maxPauseMs: 0, pace: true });
  t.equal(a?.lane, 'alpha');
  t.equal(b?.breaker?.consecutiveFailures, Number.POSITIVE_INFINITY);
  t.ok(c!.breaker!.failureRatio > 1, 'no share of failures is above it');
});

t.test('the defaults are those that tests are made with', async (t) => {
  const { config } = parseConfig(
    `overload: {}
limiters: { l: { max_concurrent: 5 } }
upstreams: { a: { url: "https://a/v1", breaker: {}, retries: {}, hedge: { paths: [/*] }, feedback: {},
                  rate_limits: [{ requests: 500/min }] },
             b: { targets: [{ url: "https://b" }, { url: "http://c:1" }] } }
`,
    'f.yaml',
    {},
  );
  const made = makeConfig({
    overload: {},
    limiters: { l: { maxConcurrent: 5 } },
    upstreams: {
      a: { url: 'https://a/v1', breaker: {}, retries: {}, hedge: {}, feedback: {}, rateLimits: [{}] },
      b: { targets: [{ url: 'https://b' }, { url: 'http://c:1' }] },
    },
  });
  t.same(made.overload, config.overload);
  t.same(made.limiters, config.limiters);
  for (const [index, one] of made.upstreams.entries()) {
    // Not as the file has it: a test does not wait ten minutes for a head.
    const { timeouts: _, ...rest } = one;
    const { timeouts: __, ...expected } = config.upstreams[index]!;
    t.same(rest, expected);
  }
  const off = makeConfig({ upstreams: { a: { url: 'http://a' } } });
  const smallest = parseConfig(MINIMAL, 'f.yaml', {}).config;
  t.same([off.redis, off.overload], [smallest.redis, smallest.overload]);
  t.same({ ...off.upstreams[0], timeouts: 0 }, { ...smallest.upstreams[0], timeouts: 0 });
});

t.test('a section that is off where it is left out says what it is where nothing stands behind it', async (t) => {
  const rule = 'must be a mapping of keys, {} for all its defaults, or be left out, got';
  for (const key of ['breaker', 'retries', 'feedback']) {
    t.same(problems(withUpstream(`${key}: `)), [`f.yaml:1:37 upstreams.a.${key}: ${rule} nothing`]);
    t.match(problems(withUpstream(`${key}: true`)), [`upstreams.a.${key}: ${rule} true`]);
    t.match(problems(withUpstream(`${key}: off`)), [`upstreams.a.${key}: ${rule} "off"`]);
    t.same(problems(withUpstream(`${key}: {}`)), []);
  }
  t.same(problems(`${MINIMAL}overload:\n  # memory: 1gb\n`), [`f.yaml:2:1 overload: ${rule} nothing`]);
  t.match(problems(withUpstream('hedge: ')), [
    'hedge: must be a mapping of keys with paths, or be left out, got nothing',
  ]);
  t.match(problems(withUpstream('hedge: {}')), ['hedge.paths: is required and must be a list, got nothing']);
  t.same(problems(withUpstream('rate_limits: ')), [], 'a list with nothing in it is empty');
});

t.test('every key of breaker, retries, hedge and feedback refuses the wrong kind of value', async (t) => {
  const duration = 'must be a duration such as 250ms, 30s, 10m, 1h or 2d';
  const share = 'must be a number from 0.01 to 1, or none';
  const percent = '; 50% is written 0.5';
  const failures = 'must be a whole number of at least 1, or unlimited';
  refused(t, (rest) => withUpstream(`breaker: { ${rest} }`), 'upstreams.a.breaker.', [
    ['consecutive_failures: 0', `consecutive_failures: ${failures}, got 0`],
    ['consecutive_failures: none', `consecutive_failures: ${failures}, got "none"`],
    ['failure_ratio: 0', `failure_ratio: ${share}, got 0`],
    ['failure_ratio: 50', `failure_ratio: ${share}${percent}, got 50`],
    ['failure_ratio: 50%', `failure_ratio: ${share}${percent}, got "50%"`],
    ['failure_ratio: 12.5 %', `failure_ratio: ${share}${percent}, got "12.5 %"`],
    ['failure_ratio: unlimited', `failure_ratio: ${share}, got "unlimited"`],
    ['failure_ratio: 101', `failure_ratio: ${share}, got 101`],
    ['window: 100ms', 'window: must be a duration of at least 1s, got "100ms"'],
    ['window: 2h', 'window: must be a duration of at most 1h, got "2h"'],
    ['min_requests: 0', 'min_requests: must be a whole number of at least 1, got 0'],
    ['open: 0', 'open: must be a duration of at least 1ms, got 0'],
    ['max_open: none', `max_open: ${duration}, got "none"`],
    ['max_open: 2d', 'max_open: must be a duration of at most 1d, got "2d"'],
  ]);
  refused(t, (rest) => withUpstream(`retries: { ${rest} }`), 'upstreams.a.retries.', [
    ['attempts: 1', 'attempts: must be a whole number of at least 2: the first attempt is one of them, got 1'],
    ['attempts: 11', 'attempts: must be a whole number of at most 10, got 11'],
    ['statuses: 503', 'statuses: must be a list, got 503'],
    ['statuses: [503, 200]', 'statuses[1]: must be a whole number of at least 400, got 200'],
    ['statuses: [600]', 'statuses[0]: must be a whole number of at most 599, got 600'],
    ['statuses: [5xx]', 'statuses[0]: must be a whole number of at least 400, got "5xx"'],
    ['methods: [GET, post]', 'methods[1]: must be a method in upper case, such as GET, got "post"'],
    ['methods: POST', 'methods: must be a list, got "POST"'],
    ['replay_limit: 64', 'replay_limit: must be a size such as 10b, 256kb, 64mb or 1gb, got 64'],
    ['backoff: none', `backoff: ${duration}, got "none"`],
    ['max_backoff: 2h', 'max_backoff: must be a duration of at most 1h, got "2h"'],
    ['max_retry_after: none', `max_retry_after: ${duration}, got "none"`],
    ['within: 0', 'within: must be a duration of at least 1ms, or none, got 0'],
    ['budget_ratio: 20%', `budget_ratio: must be a number from 0 to 1${percent}, got "20%"`],
    ['budget_ratio: -0.1', 'budget_ratio: must be a number from 0 to 1, got -0.1'],
    ['budget_min: 1001', 'budget_min: must be a whole number of at most 1000, got 1001'],
    ['budget: 3', 'budget: unknown key'],
  ]);
  refused(t, (rest) => withUpstream(`hedge: { paths: [/a], ${rest} }`), 'upstreams.a.hedge.', [
    ['after: p99', `after: ${duration}, or p95, got "p99"`],
    ['after: 0', 'after: must be a duration of at least 1ms, or p95, got 0'],
  ]);
  t.match(problems(withUpstream('hedge: { paths: [] }')), [
    'hedge.paths: must have at least one path, got an empty list',
  ]);
  t.match(problems(withUpstream('hedge: { paths: [a] }')), ['hedge.paths[0]: must be a path that starts with /']);
  refused(t, (rest) => withUpstream(`feedback: { ${rest} }`), 'upstreams.a.feedback.', [
    ['max_pause: 61s', 'max_pause: must be a duration of at most 1m, got "61s"'],
    ['max_pause: none', `max_pause: ${duration}, got "none"`],
    ['pace: on', 'pace: must be true or false, got "on"'],
  ]);
});

t.test('every key of a rate limit refuses the wrong kind of value and tells its rule', async (t) => {
  const rate = 'must be a whole number per s, min, h or d (or sec, second, minute, hour, day), such as 500/min';
  const key = 'must be global, credential or header:<name>';
  refused(t, (rest) => withUpstream(`rate_limits: [{ ${rest} }]`), 'upstreams.a.rate_limits[0].', [
    ['burst: 1', `requests: is required and ${rate}, got nothing`],
    ['requests: 500', `requests: ${rate}, got 500`],
    ['requests: 500/m', `requests: ${rate}, got "500/m"`],
    ['requests: 500 / min', `requests: ${rate}, got "500 / min"`],
    ['requests: 1.5/s', `requests: ${rate}, got "1.5/s"`],
    ['requests: 1/toString', `requests: ${rate}, got "1/toString"`],
    [
      'requests: 0/min',
      'requests: must be at least 1 request; a longer time, as in 1/h or 1/d, is a lower rate, got "0/min"',
    ],
    ['requests: 1000000001/s', 'requests: must be at most 1000000000 requests, got "1000000001/s"'],
    ['requests: 1/s, burst: 0', 'burst: must be a whole number of at least 1, got 0'],
    ['requests: 1/s, key: user', `key: ${key}, got "user"`],
    ['requests: 1/s, key: { header: x }', `key: ${key}, got a mapping`],
    [
      'requests: 1/s, key: "header:"',
      `key: ${key}, with the name of the header behind the colon, such as header:x-user-id, got "header:"`,
    ],
    [
      'requests: 1/s, key: header',
      `key: ${key}, with the name of the header behind the colon, such as header:x-user-id, got "header"`,
    ],
    [
      'requests: 1/s, key: "header: x-user-id"',
      `key: ${key}, without blanks, such as header:x-user-id, got "header: x-user-id"`,
    ],
    ['requests: 1/s, on_limit: refuse', 'on_limit: must be one of wait, reject, got "refuse"'],
    ['requests: 1/s, shared: true', 'shared: must be redis, the place it is shared in, or be left out, got true'],
    ['requests: 1/s, brust: 1', 'brust: unknown key, did you mean "burst"?'],
  ]);
  t.match(problems(withUpstream('rate_limits: { requests: 1/s }')), ['rate_limits: must be a list, got a mapping']);
  const many = Array.from({ length: 9 }, () => '{ requests: 1/s }').join();
  t.match(problems(withUpstream(`rate_limits: [${many}]`)), ['rate_limits: must have at most 8 limits, got a list']);
});

t.test('a rate is a number of requests per unit of time', async (t) => {
  const perMs = { s: 1e3, sec: 1e3, second: 1e3, min: 6e4, minute: 6e4, h: 36e5, hour: 36e5, d: 864e5, day: 864e5 };
  for (const [unit, ms] of Object.entries(perMs)) {
    const { rateLimits } = upstreamOf(withUpstream(`rate_limits: [{ requests: "\${N}/${unit}" }]`), { N: '7' });
    t.match(rateLimits, [{ requests: 7, perMs: ms }], unit);
  }
});

t.test('every key of limiters and overload refuses the wrong kind of value and tells its rule', async (t) => {
  const limit = 'must be a whole number of at least 1, or unlimited, or { adaptive: { max: … } }';
  const bounds = 'must be a mapping such as { min: 4, max: 64 }';
  refused(t, (rest) => withLimiter(`max_concurrent: ${rest}`), 'limiters.l.', [
    ['0', `max_concurrent: ${limit}, got 0`],
    ['adaptive', `max_concurrent: ${limit}, got "adaptive"`],
    ['[1]', `max_concurrent: ${limit}, got a list`],
    ['{}', `max_concurrent.adaptive: is required and ${bounds}, got nothing`],
    ['{ adaptive: true }', `max_concurrent.adaptive: ${bounds}, got true`],
    [
      '{ adaptive: {} }',
      'max_concurrent.adaptive.max: is required and must be a whole number of at least 1, got nothing',
    ],
    ['{ adaptive: { max: 0 } }', 'max_concurrent.adaptive.max: must be a whole number of at least 1, got 0'],
    ['{ adaptive: { max: 9, min: 0 } }', 'max_concurrent.adaptive.min: must be a whole number of at least 1, got 0'],
    [
      '{ adaptive: { max: 9, mode: vegas } }',
      'max_concurrent.adaptive.mode: must be one of aimd, gradient, got "vegas"',
    ],
    ['{ adaptive: { max: 9, maxx: 9 } }', 'max_concurrent.adaptive.maxx: unknown key, did you mean "max"?'],
    ['5, adaptive: { max: 9 }', 'adaptive: unknown key, did you mean "max_concurrent.adaptive"?'],
    ['5, shared: true', 'shared: must be redis, the place it is shared in, or be left out, got true'],
    ['5, lanes: [a]', 'lanes: must be a mapping such as { interactive: 4, batch: 1 }, got a list'],
    ['5, lanes: { a: 0 }', 'lanes.a: must be a whole number of at least 1, got 0'],
    ['5, lanes: { a: 1001 }', 'lanes.a: must be a whole number of at most 1000, got 1001'],
    [
      '5, lanes: { "1": 1 }',
      'lanes.1: must be a name of letters, digits, _ . and -, starting with a letter, for a lane, got "1"',
    ],
    [
      `5, lanes: { ${Array.from({ length: 17 }, (_, n) => `l${n}: 1`).join()} }`,
      'lanes: must have at most 16 lanes, got a mapping',
    ],
  ]);
  t.same(problems(withLimiter('max_concurrent: { max: 5 }')), [
    `f.yaml:2:18 limiters.l.max_concurrent.adaptive: is required and ${bounds}, got nothing`,
    'f.yaml:2:36 limiters.l.max_concurrent.max: unknown key, did you mean "adaptive.max"?',
  ]);
  t.same(limiterOf('max_concurrent: { adaptive: { max: "${N}" } }', { N: '7' }).adaptive, {
    min: 1,
    max: 7,
    mode: 'aimd',
  });
  const share = 'must be a number from 0.1 to 1';
  refused(t, (rest) => `${MINIMAL}overload: { ${rest} }\n`, 'overload.', [
    ['memory: 1mb', 'memory: must be a size of at least 16mb, or cgroup, got "1mb"'],
    ['memory: 80%', 'memory: must be a size such as 10b, 256kb, 64mb or 1gb, or cgroup, got "80%"'],
    ['shrink_cache_at: 0', `shrink_cache_at: ${share}, got 0`],
    ['refuse_at: 90', `refuse_at: ${share}; 50% is written 0.5, got 90`],
    ['close_at: 1.1', `close_at: ${share}, got 1.1`],
    ['max_loop_lag: 1ms', 'max_loop_lag: must be a duration of at least 10ms, or none, got "1ms"'],
    [
      'max_loop_lag: unlimited',
      'max_loop_lag: must be a duration such as 250ms, 30s, 10m, 1h or 2d, or none, got "unlimited"',
    ],
    ['max_lag: 1s', 'max_lag: unknown key'],
  ]);
});

t.test('the rules between keys', async (t) => {
  t.same(problems(withUpstream('breaker: { open: 2m }')), [
    'f.yaml:1:54 upstreams.a.breaker.open: must be at most max_open ("60s"), got "2m"',
  ]);
  t.same(problems(withUpstream('breaker: { max_open: 500ms }')), [
    'f.yaml:1:58 upstreams.a.breaker.open: must be at most max_open ("500ms"), got "1s"',
  ]);
  t.same(problems(withUpstream('breaker: { consecutive_failures: unlimited, failure_ratio: none }')), [
    'f.yaml:1:96 upstreams.a.breaker.failure_ratio: must be a number where consecutive_failures is off too ("unlimited"), got "none"',
  ]);
  t.same(problems(withUpstream('retries: { backoff: 6s }')), [
    'f.yaml:1:57 upstreams.a.retries.backoff: must be at most max_backoff ("5s"), got "6s"',
  ]);
  t.same(problems(withUpstream('retries: { budget_ratio: 0, budget_min: 0 }')), [
    'f.yaml:1:77 upstreams.a.retries.budget_min: must be at least 1 where budget_ratio is nothing too (0), got 0',
  ]);
  t.same(problems(withUpstream('retries: { budget_ratio: 0 }')), []);
  t.same(problems(withUpstream('feedback: { max_pause: 0s, pace: false }')), [
    'f.yaml:1:70 upstreams.a.feedback.pace: must be true where max_pause is nothing too ("0s"), got false',
  ]);
  t.same(problems(withLimiter('max_concurrent: { adaptive: { min: 6, max: 5 } }')), [
    'f.yaml:2:53 limiters.l.max_concurrent.adaptive.min: must be at most max (5), got 6',
  ]);
  t.same(problems(`${MINIMAL}overload: { shrink_cache_at: 0.9 }`), [
    'f.yaml:2:30 overload.shrink_cache_at: must be below refuse_at (0.9), got 0.9',
  ]);
  t.same(problems(`${MINIMAL}overload: { refuse_at: 0.97 }`), [
    'f.yaml:2:24 overload.refuse_at: must be below close_at (0.95), got 0.97',
  ]);
});

t.test('permits are shared only where their number is fixed', async (t) => {
  const server = 'redis: { url: "redis://h" }\n';
  const rule = 'f.yaml:2:53 limiters.l.shared: needs a fixed number as max_concurrent';
  t.same(problems(withLimiter('max_concurrent: unlimited, shared: redis') + server), [
    `${rule} ("unlimited"), got "redis"`,
  ]);
  t.match(problems(withLimiter('max_concurrent: { adaptive: { max: 5 } }, shared: redis') + server), [
    /limiters\.l\.shared: needs a fixed number as max_concurrent \(a mapping\), got "redis"$/,
  ]);
  t.same(problems(withLimiter('max_concurrent: 5, shared: redis') + server), []);
});

t.test('a lane that is named exists', async (t) => {
  const named = (lane: string, limiter = 'lanes: { interactive: 4, batch: 1 }') =>
    problems(`limiters: { l: { max_concurrent: 1, ${limiter} } }\n${withUpstream(`limiter: l, lane: ${lane}`)}`);
  t.same(named('batch'), []);
  t.same(named('bacth'), [
    'f.yaml:2:55 upstreams.a.lane: must be a lane of limiters.l: interactive, batch, got "bacth", did you mean "batch"?',
  ]);
  t.same(named('toString'), [
    'f.yaml:2:55 upstreams.a.lane: must be a lane of limiters.l: interactive, batch, got "toString"',
  ]);
  t.same(named('batch', 'lanes: {}'), [
    'f.yaml:2:55 upstreams.a.lane: must be a lane, and limiters.l has none, got "batch"',
  ]);
  t.same(problems(withUpstream('lane: batch')), [
    'f.yaml:1:43 upstreams.a.lane: needs a limiter with this lane beside it, got "batch"',
  ]);
  t.match(problems(withUpstream('lane: batch, limiter: nope')), [/limiter: must name a limiter/], 'one mistake');
  t.match(problems(withUpstream('lane: [batch]')), [/upstreams\.a\.lane: must be the name of a lane, got a list$/]);
});

t.test('what is sent again has been read ahead', async (t) => {
  t.same(problems(withUpstream('retries: { replay_limit: 512kb }')), [
    'f.yaml:1:62 upstreams.a.retries.replay_limit: must be at most body_buffer ("256kb"), got "512kb"',
  ]);
  t.same(problems(`${withUpstream('retries: { replay_limit: 512kb }')}body_buffer: 1mb\n`), []);
  const small = parseConfig(`${withUpstream('retries: {}')}body_buffer: 16kb\n`, 'f.yaml', {});
  t.equal(small.config.upstreams[0]?.retries?.replayLimitBytes, 16_384, 'the default follows');
  t.match(small.dump, { upstreams: { a: { retries: { replay_limit: '16kb', attempts: 3 } } } });
});

t.test('a value that was filled in is in no problem of resilience', async (t) => {
  const found = problems(
    `overload: { memory: "\${S}", refuse_at: "\${P}" }
limiters: { l: { max_concurrent: "\${S}", shared: "\${S}", lanes: { a: "\${N}" } } }
upstreams:
  a: { targets: "\${S}", breaker: "\${S}", retries: { methods: ["\${S}"], budget_ratio: "\${P}" }, lane: "\${S}" }
  b: { targets: [{ url: "\${S}", weight: "\${N}" }], rate_limits: [{ requests: "\${R}", key: "\${K}" }], limiter: l,
       lane: "\${A}" }
`,
    { S: 'hush', P: '77%', N: '98765', R: '0/min', K: 'header:hu sh', A: 'aa' },
  );
  t.ok(found.length >= 13, `${found.length} problems`);
  for (const problem of found) t.notMatch(problem, /hush|77|98765|0\/min|hu sh|"aa"|did you mean/);
});

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import t from 'tap';
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
const withCache = (cache: string) => `upstreams:\n  a:\n    url: http://a\n    cache: ${cache}\n`;
const upstream = (cache: string, env: Env = {}) => problems(withCache(cache), env);
const rule = (rest: string, env: Env = {}) => upstream(`{ rules: [{ ttl: 1h, ${rest} }] }`, env);
const file = (rest: string, env: Env = {}) => problems(`${MINIMAL}${rest}\n`, env);
const cacheOf = (cache: string, env: Env = {}) =>
  parseConfig(withCache(cache), 'f.yaml', env).config.upstreams[0]?.cache;

t.test('the one word http stands for a mapping', async (t) => {
  const http = cacheOf('{ http: true }');
  t.match(http, { http: true, rules: [], partition: 'credential', heuristicFraction: 0, heuristicMaxMs: 86_400_000 });
  t.same(cacheOf('http'), http);
  t.same(cacheOf('${C}', { C: 'http' }), http);
  t.match(parseConfig(withCache('http'), 'f.yaml', {}).dump, { upstreams: { a: { cache: { http: true } } } });
  const other = 'f.yaml:4:12 upstreams.a.cache: must be http or a mapping of keys, got';
  t.same(upstream('htp'), [`${other} "htp"`]);
  t.same(upstream('true'), [`${other} true`]);
  t.same(upstream('[http]'), [`${other} a list`]);
  t.same(upstream('"${C}"', { C: 'hush' }), [`${other} "\${C}"`]);
  t.same(problems('upstreams: { a: { url: "http://a", pool: http } }'), [
    'f.yaml:1:42 upstreams.a.pool: must be a mapping of keys, got "http"',
  ]);
});

t.test('every key of the cache reaches the config', async (t) => {
  const { config } = parseConfig(
    `redis: { url: "redis://h:1/2" }
cache: { store: redis, max_bytes: 1gb, max_entry: 2mb, max_variants: 3, sweep_interval: 1s }
flight_buffer: 2kb
flight_memory: 3kb
flight_waiters: 0
flight_wait: 5s
upstreams:
  a:
    url: http://a
    coalesce: false
    timeouts: { write_stall: none }
    cache:
      http: true
      partition_headers: [X-User, x-user, X-Team]
      store_set_cookie: true
      heuristic_fraction: 0.1
      heuristic_max: 1h
      rules:
        - match: { method: [GET, QUERY], path: /a/*, operation: [x, y], header: { X-Foo: Bar } }
          ttl: 1h
          stale_if_error: 1d
          stale_while_revalidate: 1m
          key: { body: exact, query_ignore: [nonce], headers: [Accept-Language, accept-language] }
          statuses: [200, 404]
          max_entry: 1kb
          pace: recorded
        - match: { method: [], path: [/b], operation: x }
          ttl: 1ms
  b: { url: http://b, cache: { partition: shared, rules: [{ ttl: 1h }] } }
  c: { url: http://c, coalesce: true }
`,
    'f.yaml',
    {},
  );
  t.same(config.cache, {
    store: 'redis',
    maxBytes: 1024 ** 3,
    maxEntryBytes: 2 * 1024 ** 2,
    maxVariants: 3,
    sweepIntervalMs: 1000,
  });
  t.same(config.flights, { bufferBytes: 2048, memoryBytes: 3072, maxWaiters: 0, waitMs: 5000 });
  const [a, b, c] = config.upstreams;
  t.equal(a?.timeouts.writeStallMs, Number.POSITIVE_INFINITY);
  t.same(
    [a, b, c].map((one) => [one?.cache !== null, one?.coalesce]),
    [
      [true, false],
      [true, true],
      [false, true],
    ],
    'coalescing goes with the cache, unless it is said',
  );
  const defaults = {
    ttlMs: 3_600_000,
    staleIfErrorMs: 0,
    staleWhileRevalidateMs: 0,
    key: { body: 'canonical', queryIgnore: [], headers: [] },
    statuses: [200],
    maxEntryBytes: 1024 ** 2,
    pace: 'fast',
  };
  t.same(a?.cache, {
    http: true,
    partition: 'credential',
    partitionHeaders: ['x-user', 'x-team'],
    storeSetCookie: true,
    heuristicFraction: 0.1,
    heuristicMaxMs: 3_600_000,
    rules: [
      {
        match: { methods: ['GET', 'QUERY'], paths: ['/a/*'], operations: ['x', 'y'], headers: [['x-foo', 'Bar']] },
        ttlMs: 3_600_000,
        staleIfErrorMs: 86_400_000,
        staleWhileRevalidateMs: 60_000,
        key: { body: 'exact', queryIgnore: ['nonce'], headers: ['accept-language'] },
        statuses: [200, 404],
        maxEntryBytes: 1024,
        pace: 'recorded',
      },
      { ...defaults, match: { methods: ['GET', 'POST'], paths: ['/b'], operations: ['x'], headers: [] }, ttlMs: 1 },
    ],
  });
  t.match(b?.cache, { http: false, partition: 'shared' });
  t.same(b?.cache?.rules, [
    { ...defaults, match: { methods: ['GET', 'POST'], paths: [], operations: [], headers: [] } },
  ]);
});

t.test('the defaults are those that tests are made with', async (t) => {
  const { config } = parseConfig(withCache('{ rules: [{ ttl: 1h }] }'), 'f.yaml', {});
  const made = makeConfig({ upstreams: { a: { url: 'http://a', cache: { rules: [{ ttlMs: 3_600_000 }] } } } });
  t.same(made.cache, config.cache);
  t.same(made.flights, config.flights);
  t.same(made.upstreams[0]?.cache, config.upstreams[0]?.cache);
  t.equal(made.upstreams[0]?.coalesce, true);
  t.equal(made.upstreams[0]?.timeouts.writeStallMs, config.upstreams[0]?.timeouts.writeStallMs);
});

t.test('an unknown key in a list of sections is named with what was probably meant', async (t) => {
  t.same(
    upstream(
      '\n      rules:\n        - ttl: 1h\n        - tttl: 1h\n          ttl: 1h\n          key: { boby: exact }',
    ),
    [
      'f.yaml:7:11 upstreams.a.cache.rules[1].tttl: unknown key, did you mean "ttl"?',
      'f.yaml:9:18 upstreams.a.cache.rules[1].key.boby: unknown key, did you mean "body"?',
    ],
  );
  t.match(rule('path: /x'), [/upstreams\.a\.cache\.rules\[0\]\.path: unknown key, did you mean "match\.path"\?$/]);
  t.match(upstream('{ http: true, ttl: 1h }'), [
    /upstreams\.a\.cache\.ttl: unknown key, did you mean "rules\[\]\.ttl"\?$/,
  ]);
  t.same(upstream('{ http: true, rules: [{ match: {} }] }'), [
    'f.yaml:4:34 upstreams.a.cache.rules[0].ttl: is required and must be a duration such as 250ms, 30s, 10m, 1h or 2d, got nothing',
  ]);
});

t.test('every key of the cache refuses the wrong kind of value and tells its rule', async (t) => {
  const methods = 'must be GET, POST or QUERY, or a list of them';
  const path = 'must be a path that starts with /, with * only as its last character and no query';
  const value = 'must be the value of a header, in quotes where it looks like a number';
  const ofRule: [string, string][] = [
    ['match: { method: post }', `match.method: ${methods}, got "post"`],
    [
      'match: { method: [GET, PSOT] }',
      'match.method[1]: must be one of GET, POST, QUERY, got "PSOT", did you mean "POST"?',
    ],
    ['match: { method: ~ }', `match.method: ${methods}, got nothing`],
    ['match: { path: x }', `match.path: ${path}, got "x"`],
    ['match: { path: [/a, "/a*b"] }', `match.path[1]: ${path}, got "/a*b"`],
    [
      'match: { operation: 5 }',
      'match.operation: must be the value of an x-aiproxy-operation header, or a list of them, got 5',
    ],
    ['match: { operation: [""] }', `match.operation[0]: ${value}, got ""`],
    ['match: { header: [x] }', 'match.header: must be a mapping of keys, got a list'],
    ['match: { header: { x: 5 } }', `match.header.x: ${value}, got 5`],
    ['match: { header: { x: "a " } }', `match.header.x: ${value}, got "a "`],
    ['match: { header: { "x y": a } }', 'match.header."x y": must be the name of a header, got "x y"'],
    ['stale_if_error: none', 'stale_if_error: must be a duration such as 250ms, 30s, 10m, 1h or 2d, got "none"'],
    ['stale_while_revalidate: 366d', 'stale_while_revalidate: must be a duration of at most 365d, got "366d"'],
    ['key: { body: json }', 'key.body: must be one of canonical, exact, got "json"'],
    ['key: { query_ignore: [""] }', 'key.query_ignore[0]: must be the name of a query parameter, got ""'],
    ['key: { query_ignore: x }', 'key.query_ignore: must be a list, got "x"'],
    ['key: { headers: ["a:"] }', 'key.headers[0]: must be the name of a header, got "a:"'],
    ['statuses: 200', 'statuses: must be a list, got 200'],
    ['statuses: []', 'statuses: must have at least one status, got an empty list'],
    ['statuses: [199]', 'statuses[0]: must be a whole number of at least 200, got 199'],
    ['statuses: [600]', 'statuses[0]: must be a whole number of at most 599, got 600'],
    ['statuses: [200, 206]', 'statuses[1]: must not be 206 or 304: these are no whole answers, got 206'],
    ['statuses: [ok]', 'statuses[0]: must be a whole number of at least 200, got "ok"'],
    ['max_entry: 5', 'max_entry: must be a size such as 10b, 256kb, 64mb or 1gb, got 5'],
    ['pace: slow', 'pace: must be one of fast, recorded, got "slow"'],
  ];
  for (const [yaml, problem] of ofRule) {
    t.same(
      rule(yaml).map((one) => one.replace(/^f\.yaml:4:\d+ upstreams\.a\.cache\.rules\[0\]\./, '')),
      [problem],
      yaml,
    );
  }
  const ofUpstream: [string, string][] = [
    ['http: yes', 'http: must be true or false, got "yes"'],
    ['http: 1', 'http: must be true or false, got 1'],
    ['partition: user', 'partition: must be one of credential, shared, got "user"'],
    ['partition_headers: ["x y"]', 'partition_headers[0]: must be the name of a header, got "x y"'],
    ['store_set_cookie: no', 'store_set_cookie: must be true or false, got "no"'],
    ['heuristic_fraction: 0.6', 'heuristic_fraction: must be a number from 0 to 0.5, got 0.6'],
    ['heuristic_fraction: .nan', 'heuristic_fraction: must be a number from 0 to 0.5, got NaN'],
    ['heuristic_fraction: 10%', 'heuristic_fraction: must be a number from 0 to 0.5; 50% is written 0.5, got "10%"'],
    ['heuristic_max: 0', 'heuristic_max: must be a duration of at least 1ms, got 0'],
  ];
  for (const [yaml, problem] of ofUpstream) {
    t.same(
      upstream(`{ ${yaml}, rules: [{ ttl: 1h }] }`).map((one) =>
        one.replace(/^f\.yaml:4:\d+ upstreams\.a\.cache\./, ''),
      ),
      [problem],
      yaml,
    );
  }
  const ofFile: [string, string][] = [
    ['cache: http', 'cache: must be a mapping of keys, got "http"'],
    ['cache: { store: disk }', 'cache.store: must be one of memory, redis, got "disk"'],
    [
      'cache: { max_bytes: unlimited }',
      'cache.max_bytes: must be a size such as 10b, 256kb, 64mb or 1gb, got "unlimited"',
    ],
    ['cache: { max_variants: 1001 }', 'cache.max_variants: must be a whole number of at most 1000, got 1001'],
    ['cache: { sweep_interval: 99ms }', 'cache.sweep_interval: must be a duration of at least 100ms, got "99ms"'],
    ['flight_buffer: 0', 'flight_buffer: must be a size of at least 1kb, got 0'],
    ['flight_waiters: 1000001', 'flight_waiters: must be a whole number of at most 1000000, got 1000001'],
    ['flight_wait: 0s', 'flight_wait: must be a duration of at least 1ms, or none, got "0s"'],
  ];
  for (const [yaml, problem] of ofFile) {
    t.same(
      file(yaml).map((one) => one.replace(/^f\.yaml:2:\d+ /, '')),
      [problem],
      yaml,
    );
  }
  t.same(rule('ttl: 2h'), ['f.yaml:4:33 upstreams.a.cache.rules[0].ttl: is written twice, first in line 4']);
  t.match(upstream('{ rules: [{ ttl: 0 }] }'), [/rules\[0\]\.ttl: must be a duration of at least 1ms, got 0$/]);
  t.match(problems('upstreams: { a: { url: "http://a", coalesce: on } }'), [
    /coalesce: must be true or false, got "on"$/,
  ]);
});

t.test('a cache that could store nothing is a mistake, a section with nothing in it is left out', async (t) => {
  const problem = 'f.yaml:4:12 upstreams.a.cache: must have http: true or at least one rule, got';
  t.same(upstream('{}'), [`${problem} an empty mapping`]);
  t.same(upstream('{ http: false, rules: [] }'), [`${problem} a mapping`]);
  t.same(upstream('{ partition: shared, rules: }'), [`${problem} a mapping`]);
  t.same(upstream('\n      # http: true'), []);
  t.equal(cacheOf('~'), null);
  t.same(file('cache:\n  # store: redis\n'), []);
});

t.test('headers that tell users apart need answers to be kept apart', async (t) => {
  t.same(upstream('{ http: true, partition: shared, partition_headers: [x-user] }'), [
    'f.yaml:4:64 upstreams.a.cache.partition_headers: needs partition: credential beside it, got a list',
  ]);
  t.same(upstream('{ http: true, partition: shared, partition_headers: [] }'), []);
});

t.test('one entry fits into all, one flight into all flights', async (t) => {
  t.same(file('cache: { max_entry: 65mb }'), [
    'f.yaml:2:21 cache.max_entry: must be at most max_bytes ("64mb"), got "65mb"',
  ]);
  t.same(file('cache: { max_bytes: 1mb }'), [
    'f.yaml:2:21 cache.max_entry: must be at most max_bytes ("1mb"), got "8mb"',
  ]);
  t.same(file('flight_memory: 512kb'), [
    'f.yaml:2:16 flight_buffer: must be at most flight_memory ("512kb"), got "1mb"',
  ]);
  t.same(rule('max_entry: 9mb'), [
    'f.yaml:4:44 upstreams.a.cache.rules[0].max_entry: must be at most cache.max_entry ("8mb"), got "9mb"',
  ]);
  t.same(problems(`${withCache('{ rules: [{ ttl: 1h, max_entry: 9mb }] }')}cache: { max_entry: 16mb }\n`), []);
  const small = parseConfig(`${withCache('{ rules: [{ ttl: 1h }] }')}cache: { max_entry: 4kb }\n`, 'f.yaml', {});
  t.equal(small.config.upstreams[0]?.cache?.rules[0]?.maxEntryBytes, 4096, 'the default follows');
  t.match(small.dump, { upstreams: { a: { coalesce: true, cache: { rules: [{ max_entry: '4kb' }] } } } });
});

t.test('variables hold true, false and fractions too', async (t) => {
  const cache = cacheOf('{ http: "${H}", heuristic_fraction: "${F}", store_set_cookie: "${S}" }', {
    H: 'true',
    S: 'false',
    F: '0.25',
  });
  t.match(cache, { http: true, storeSetCookie: false, heuristicFraction: 0.25 });
  t.match(upstream('{ http: "${H}", rules: [{ ttl: 1h }] }', { H: 'hush' }), [
    /cache\.http: must be true or false, got "\$\{H\}"$/,
  ]);
  t.match(rule('statuses: ["${N}"], pace: "${T}"', { N: '2000', T: 'true' }), [
    /statuses\[0\]: must be a whole number of at most 599, got "\$\{N\}"$/,
    /pace: must be one of fast, recorded, got "\$\{T\}"$/,
  ]);
});

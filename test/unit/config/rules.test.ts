// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import t from 'tap';
import { ConfigError, type Env, type Overrides, parseConfig } from '../../../src/config/load.ts';

function problems(yaml: string, env: Env = {}, overrides: Overrides = {}): readonly string[] {
  try {
    parseConfig(yaml, 'pools.yaml', env, overrides);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems;
  }
}

const MINIMAL = 'upstreams: { a: { url: "http://a" } }\n';
const upstream = (rest: string) => problems(`upstreams: { a: { url: "https://a", ${rest} } }\n`);
const file = (rest: string) => problems(`${MINIMAL}${rest}\n`);
/** Exactly one problem, and it says this. */
const only = (t: { same(a: unknown, b: unknown): unknown }, found: readonly string[], expected: string) =>
  t.same(found, [`pools.yaml:${expected}`]);

t.test('the smallest config is complete by its defaults', async (t) => {
  const { config } = parseConfig(MINIMAL, 'pools.yaml', {});
  const none = Number.POSITIVE_INFINITY;
  t.same(config, {
    listen: [
      {
        address: { host: '127.0.0.1', port: 8080, path: '', text: '127.0.0.1:8080' },
        tls: null,
        authorize: [],
        upstream: null,
      },
    ],
    stats: { host: '127.0.0.1', port: 9090, path: '', text: '127.0.0.1:9090' },
    allowedHosts: [],
    log: { level: 'info', access: 'all' },
    drain: { acceptForMs: 0, timeoutMs: 30_000 },
    maintenance: { intervalMs: 30_000 },
    listener: {
      maxConnections: 10_000,
      keepAliveTimeoutMs: 75_000,
      headTimeoutMs: 10_000,
      maxHeadBytes: 32_768,
      maxHeaders: 200,
      maxPipelined: 16,
      bodyBufferBytes: 262_144,
      bodyMemoryBytes: 67_108_864,
      bodyMinRate: 1024,
    },
    redis: null,
    overload: null,
    cache: {
      store: 'memory',
      maxBytes: 67_108_864,
      maxEntryBytes: 8_388_608,
      maxVariants: 16,
      sweepIntervalMs: 30_000,
    },
    flights: { bufferBytes: 1_048_576, memoryBytes: 67_108_864, maxWaiters: 1000, waitMs: none },
    limiters: [],
    upstreams: [
      {
        name: 'a',
        socketPath: '',
        protocol: 'http:',
        hostname: 'a',
        port: 80,
        origin: 'http://a',
        basePath: '',
        limiter: null,
        pool: {
          connections: 50,
          keepalive: 20,
          idleTimeoutMs: 30_000,
          maxLifetimeMs: 600_000,
          maxRequests: none,
          warm: 0,
        },
        timeouts: {
          connectMs: 5000,
          headersMs: 600_000,
          firstEventMs: none,
          idleMs: 60_000,
          writeStallMs: 75_000,
          totalMs: none,
        },
        bypass: [],
        replay: [],
        cache: null,
        coalesce: false,
        targets: [
          {
            socketPath: '',
            protocol: 'http:',
            hostname: 'a',
            port: 80,
            origin: 'http://a',
            basePath: '',
            priority: 0,
            weight: 1,
            headers: [],
          },
        ],
        breaker: null,
        retries: null,
        hedge: null,
        rateLimits: [],
        feedback: null,
        lane: null,
        stream: { heartbeatMs: none, minRate: 0, minRateWindowMs: 30_000, errorEvent: false },
        websocket: null,
        http2: null,
        maxHeadBytes: 32_768,
        maxHeaders: 200,
        tls: { ca: null, servername: null, cert: null, key: null },
      },
    ],
  });
});

t.test('what the file says is what the config holds', async (t) => {
  const { config } = parseConfig(
    `listen: [":1", "[::1]:2"]
allowed_hosts: [Proxy.Internal]
log: { level: debug, access: errors }
drain: { accept_for: 5s, timeout: 0 }
body_min_rate: 0
limiters: { ai: { max_concurrent: unlimited, max_queue: 0, queue_timeout: 2d } }
upstreams:
  a.b-c_1:
    url: https://x:1/v1/
    limiter: ai
    pool: { max_lifetime: none, max_requests: 7, connections: 3 }
    timeouts: { total: 1h, headers: none }
    bypass: [/health, /static/*, "/*"]
    replay: [/v1/embeddings]
    max_head: 64KiB
`,
    'pools.yaml',
    {},
  );
  t.same(
    config.listen.map((one) => [one.address.host, one.address.port]),
    [
      ['0.0.0.0', 1],
      ['::1', 2],
    ],
  );
  t.same(config.allowedHosts, ['proxy.internal']);
  t.same(config.drain, { acceptForMs: 5000, timeoutMs: 0 });
  t.equal(config.listener.bodyMinRate, 0);
  const off = { adaptive: null, shared: false, lanes: [] };
  t.same(config.limiters, [
    { name: 'ai', maxConcurrent: Number.POSITIVE_INFINITY, maxQueue: 0, queueTimeoutMs: 172_800_000, ...off },
  ]);
  const [upstream] = config.upstreams;
  t.match(upstream, { name: 'a.b-c_1', port: 1, basePath: '/v1', limiter: 'ai', maxHeadBytes: 65_536 });
  t.match(upstream?.pool, { connections: 3, keepalive: 3, maxLifetimeMs: Number.POSITIVE_INFINITY, maxRequests: 7 });
  t.match(upstream?.timeouts, { totalMs: 3_600_000, headersMs: Number.POSITIVE_INFINITY, idleMs: 60_000 });
  t.same(upstream?.bypass, ['/health', '/static/*', '/*']);
});

t.test('a mistake is told as file:line:column path: rule, got value', async (t) => {
  const yaml = 'upstreams:\n  openai:\n    url: http://a\n    pool:\n      connections: many\n      warm: 0\n';
  only(t, problems(yaml), '5:20 upstreams.openai.pool.connections: must be a whole number of at least 1, got "many"');
});

t.test('an unknown key is named with what was probably meant', async (t) => {
  only(t, upstream('timeoutt: {}'), '1:37 upstreams.a.timeoutt: unknown key, did you mean "timeouts"?');
  only(t, upstream('connections: 5'), '1:37 upstreams.a.connections: unknown key, did you mean "pool.connections"?');
  only(
    t,
    upstream('pool: { conections: 5 }'),
    '1:45 upstreams.a.pool.conections: unknown key, did you mean "connections"?',
  );
  only(t, file('xyzzyx: 1'), '2:1 xyzzyx: unknown key');
  only(t, file('cache: { redis: {} }'), '2:10 cache.redis: unknown key here: redis stands at the top of the file');
  only(t, file('drain: { store: redis }'), '2:10 drain.store: unknown key, did you mean "cache.store"?');
  only(
    t,
    upstream('lanes: {}'),
    '1:37 upstreams.a.lanes: unknown key, did you mean "lane" or "limiters.<name>.lanes"?',
  );
  only(t, upstream('burst: 1'), '1:37 upstreams.a.burst: unknown key, did you mean "rate_limits[].burst"?');
  only(t, upstream('retry: {}'), '1:37 upstreams.a.retry: unknown key, did you mean "retries"?');
  only(t, file('retry: {}'), '2:1 retry: unknown key');
  only(t, file('limiters: { a: { max_concurrent: 1, que: 2 } }'), '2:37 limiters.a.que: unknown key');
  only(t, file('__proto__: 1'), '2:1 __proto__: is not a key');
  t.equal(file('constructor: 1').length, 1);
});

t.test('a word that is not one of the words is told the words', async (t) => {
  const levels = 'trace, debug, info, warn, error, fatal, silent';
  only(t, file('log: { level: inof }'), `2:15 log.level: must be one of ${levels}, got "inof", did you mean "info"?`);
  only(t, file('log: { access: 5 }'), '2:16 log.access: must be one of all, errors, off, got 5');
});

t.test('every key refuses the wrong kind of value and tells its rule', async (t) => {
  const lines: [string, string][] = [
    ['stats: 9090', 'stats: must be host:port such as 127.0.0.1:8080'],
    ['stats: [":1"]', 'stats: must be host:port'],
    ['listen: 8080', 'listen: must be host:port such as 127.0.0.1:8080, unix:/path.sock, a mapping such as'],
    ['listen: []', 'listen: must have at least one address, got an empty list'],
    ['listen: [":1", x]', 'listen[1]: must be host:port'],
    ['listen: [":1", 5]', 'listen[1]: must be host:port'],
    ['allowed_hosts: x', 'allowed_hosts: must be a list, got "x"'],
    ['allowed_hosts: ["x y"]', 'allowed_hosts[0]: must be a host name, got "x y"'],
    ['log: loud', 'log: must be a mapping of keys, got "loud"'],
    ['log: [1]', 'log: must be a mapping of keys, got a list'],
    ['drain: { timeout: none }', 'drain.timeout: must be a duration such as'],
    ['drain: { timeout: 25d }', 'drain.timeout: must be a duration of at most 24d'],
    ['drain: { accept_for: 5 }', 'drain.accept_for: must be a duration such as'],
    ['maintenance: { interval: 10ms }', 'maintenance.interval: must be a duration of at least 100ms'],
    ['body_buffer: 5', 'body_buffer: must be a size such as'],
    ['body_buffer: 1b', 'body_buffer: must be a size of at least 1kb'],
    ['body_memory: 65gb', 'body_memory: must be a size of at most 64gb'],
    ['body_min_rate: none', 'body_min_rate: must be a size such as'],
    ['listener: { max_connections: 0 }', 'listener.max_connections: must be a whole number of at least 1'],
    ['listener: { max_connections: unlimited }', 'listener.max_connections: must be a whole number of at least 1'],
    ['listener: { keepalive_timeout: 0 }', 'listener.keepalive_timeout: must be a duration of at least 1ms'],
    ['listener: { head_timeout: none }', 'listener.head_timeout: must be a duration such as'],
    ['listener: { max_head: 2mb }', 'listener.max_head: must be a size of at most 1mb'],
    ['listener: { max_headers: 0 }', 'listener.max_headers: must be a whole number of at least 1'],
    ['listener: { max_pipelined: -1 }', 'listener.max_pipelined: must be a whole number of at least 0'],
    [
      'limiters: { l: {} }',
      'limiters.l.max_concurrent: is required and must be a whole number of at least 1, or unlimited',
    ],
    [
      'limiters: { l: { max_concurrent: 0 } }',
      'limiters.l.max_concurrent: must be a whole number of at least 1, or unlimited',
    ],
    [
      'limiters: { l: { max_concurrent: 1, max_queue: -1 } }',
      'limiters.l.max_queue: must be a whole number of at least 0',
    ],
    [
      'limiters: { l: { max_concurrent: 1, queue_timeout: 0s } }',
      'limiters.l.queue_timeout: must be a duration of at least 1ms, or none',
    ],
    ['limiters: { "l!": { max_concurrent: 1 } }', 'limiters."l!": must be a name of letters'],
    ['limiters: [1]', 'limiters: must be a mapping of keys, got a list'],
  ];
  for (const [yaml, rule] of lines) {
    const found = file(yaml);
    t.equal(found.length, 1, yaml);
    t.ok(found[0]?.replace(/^pools\.yaml:2:\d+ /, '').startsWith(rule), `${yaml} gives ${found[0]}`);
  }
});

t.test('every key of an upstream refuses the wrong kind of value and tells its rule', async (t) => {
  const whole = 'must be a whole number of at least';
  const lines: [string, string][] = [
    ['limiter: 5', 'limiter: must be the name of a limiter, got 5'],
    ['pool: { connections: 0 }', `pool.connections: ${whole} 1, got 0`],
    ['pool: { connections: "5" }', `pool.connections: ${whole} 1, got "5"`],
    ['pool: { connections: 1.5 }', `pool.connections: ${whole} 1, got 1.5`],
    ['pool: { connections: 65536 }', 'pool.connections: must be a whole number of at most 65535'],
    ['pool: { connections: ~ }', `pool.connections: ${whole} 1, got nothing`],
    ['pool: { keepalive: -1 }', `pool.keepalive: ${whole} 0`],
    ['pool: { idle_timeout: none }', 'pool.idle_timeout: must be a duration such as'],
    ['pool: { max_lifetime: 366d }', 'pool.max_lifetime: must be a duration of at most 365d, or none'],
    ['pool: { max_requests: 0 }', `pool.max_requests: ${whole} 1, or unlimited`],
    ['pool: { warm: some }', `pool.warm: ${whole} 0`],
    ['timeouts: { connect: none }', 'timeouts.connect: must be a duration such as'],
    ['timeouts: { connect: 25d }', 'timeouts.connect: must be a duration of at most 24d'],
    ['timeouts: { headers: 0 }', 'timeouts.headers: must be a duration of at least 1ms, or none'],
    ['timeouts: { first_event: x }', 'timeouts.first_event: must be a duration such as'],
    ['timeouts: { idle: 60 }', 'timeouts.idle: must be a duration such as 250ms, 30s, 10m, 1h or 2d, or none, got 60'],
    ['timeouts: { write_stall: 0 }', 'timeouts.write_stall: must be a duration of at least 1ms, or none'],
    ['timeouts: { total: [1s] }', 'timeouts.total: must be a duration such as'],
    ['bypass: /health', 'bypass: must be a list, got "/health"'],
    ['bypass: [health]', 'bypass[0]: must be a path that starts with /'],
    ['bypass: ["/a*b"]', 'bypass[0]: must be a path that starts with /'],
    ['bypass: ["/a?b=c"]', 'bypass[0]: must be a path that starts with /'],
    ['replay: ["/ok", "*"]', 'replay[1]: must be a path that starts with /'],
    ['max_head: 100b', 'max_head: must be a size of at least 1kb'],
    ['tls: { servername: "a b" }', 'tls.servername: must be a host name'],
    ['tls: { ca: "" }', 'tls.ca: must be the path of a PEM file'],
  ];
  for (const [yaml, rule] of lines) {
    const found = upstream(yaml);
    t.equal(found.length, 1, yaml);
    t.ok(found[0]?.replace(/^pools\.yaml:1:\d+ upstreams\.a\./, '').startsWith(rule), `${yaml} gives ${found[0]}`);
  }
});

t.test('there must be an upstream, with a url and a good name', async (t) => {
  only(t, problems('listen: ":1"\n'), '1:1 upstreams: is required and must be a mapping of keys, got nothing');
  only(t, problems('upstreams: {}\n'), '1:12 upstreams: must have at least one upstream, got an empty mapping');
  only(t, problems('upstreams:\n'), '1:1 upstreams: must have at least one upstream, got an empty mapping');
  only(t, problems('upstreams: [a]\n'), '1:12 upstreams: must be a mapping of keys, got a list');
  const url = 'is required (or `targets`, a list) and must be a URL such as https://api.openai.com, got nothing';
  only(t, problems('upstreams:\n  a:\n'), `2:3 upstreams.a.url: ${url}`);
  for (const name of ['.', '..', '-a', '_a', 'a b', 'a/b', 'é', 'a'.repeat(65)]) {
    t.match(
      problems(`upstreams: { "${name}": { url: "http://a" } }\n`),
      [/must be a name of letters, digits, _ \. and -/],
      name,
    );
  }
  const taken = '1:14 upstreams.healthz: must be another name: this one is taken by the proxy itself, got "healthz"';
  only(t, problems('upstreams: { healthz: { url: "http://a" } }\n'), taken);
  only(
    t,
    problems('upstreams: { a: { url: "http://a?x" } }\n'),
    '1:24 upstreams.a.url: must have no query, got "http://a?x"',
  );
});

t.test('a section or list with nothing in it counts as left out', async (t) => {
  t.same(file('log:\ndrain:\nlimiters:\nallowed_hosts:\n'), []);
  t.same(problems('upstreams:\n  a:\n    url: http://a\n    pool:\n    tls:\n      # ca: x\n    bypass:\n'), []);
});

t.test('keepalive and warm fit into connections', async (t) => {
  only(
    t,
    upstream('pool: { connections: 10, keepalive: 11 }'),
    '1:73 upstreams.a.pool.keepalive: must be at most connections (10), got 11',
  );
  only(
    t,
    upstream('pool: { keepalive: 51 }'),
    '1:56 upstreams.a.pool.keepalive: must be at most connections (50), got 51',
  );
  only(
    t,
    upstream('pool: { keepalive: 3, warm: 4 }'),
    '1:65 upstreams.a.pool.warm: must be at most keepalive (3), got 4',
  );
  only(
    t,
    upstream('pool: { connections: 5, warm: 6 }'),
    '1:67 upstreams.a.pool.warm: must be at most keepalive (5), got 6',
  );
  t.same(upstream('pool: { connections: 5, keepalive: 5, warm: 5 }'), []);
  t.same(upstream('pool: { connections: 5 }'), [], 'the default of keepalive follows');
  t.equal(upstream('pool: { connections: many, keepalive: 500 }').length, 1, 'no rule judges what is already refused');
});

t.test('one body buffer fits into the memory of all', async (t) => {
  only(t, file('body_buffer: 128mb'), '2:14 body_buffer: must be at most body_memory ("64mb"), got "128mb"');
  only(t, file('body_memory: 100kb'), '2:14 body_buffer: must be at most body_memory ("100kb"), got "256kb"');
});

t.test('a limiter that is named exists', async (t) => {
  const limiters = 'limiters: { ai: { max_concurrent: 1 }, batch: { max_concurrent: 1 } }\n';
  const named = (name: string) => problems(`${limiters}upstreams: { a: { url: "http://a", limiter: ${name} } }\n`);
  only(t, named('bach'), '2:45 upstreams.a.limiter: must be a limiter: ai, batch, got "bach", did you mean "batch"?');
  only(t, named('constructor'), '2:45 upstreams.a.limiter: must be a limiter: ai, batch, got "constructor"');
  t.same(named('batch'), []);
  only(t, upstream('limiter: ai'), '1:46 upstreams.a.limiter: must name a limiter, and limiters has none, got "ai"');
});

t.test('no two addresses share a port', async (t) => {
  only(
    t,
    file('listen: [":80", "127.0.0.1:80"]'),
    '2:17 listen[1]: must not share the port of listen[0] (":80"), got "127.0.0.1:80"',
  );
  only(t, file('listen: ":9090"'), '2:9 stats: must not share the port of listen (":9090"), got "127.0.0.1:9090"');
  only(
    t,
    file('listen: ":80"\nstats: localhost:80'),
    '3:8 stats: must not share the port of listen (":80"), got "localhost:80"',
  );
  t.same(file('listen: [":0", ":0"]\nstats: ":0"'), []);
});

t.test('all mistakes are told at once, in the order of the file', async (t) => {
  const found = problems(
    `upstreams:
  a: { url: nope, limiter: ai, pool: { connections: 2, keepalive: 3 } }
  a: { url: http://twice }
  b:
    url: \${B_URL}
    bypass: [x]
log: { level: loud }
listen: ["x", ":80", ":80"]
wrong: 1
`,
    {},
    { stats: 'nowhere', logLevel: 'inf' },
  );
  t.same(
    found.map((problem) => problem.replace(/^(pools.yaml:\d+:\d+ )?([^:]+):.*$/, '$1$2')),
    [
      '--stats',
      '--log-level',
      'pools.yaml:2:13 upstreams.a.url',
      'pools.yaml:2:28 upstreams.a.limiter',
      'pools.yaml:2:67 upstreams.a.pool.keepalive',
      'pools.yaml:3:3 upstreams.a',
      'pools.yaml:5:10 upstreams.b.url',
      'pools.yaml:6:14 upstreams.b.bypass[0]',
      'pools.yaml:8:10 listen[0]',
      'pools.yaml:8:22 listen[2]',
      'pools.yaml:9:1 wrong',
    ],
  );
});

t.test('flags take the place of what the file says, and their mistakes have their names', async (t) => {
  const { config } = parseConfig(
    `${MINIMAL}listen: [nonsense, "\${UNSET}"]\nlog: { access: off }\n`,
    'pools.yaml',
    {},
    {
      listen: ':1',
      stats: 'localhost:2',
      logLevel: 'warn',
    },
  );
  t.same([config.listen[0]?.address.port, config.stats.port, config.log], [1, 2, { level: 'warn', access: 'off' }]);
  const rule =
    'must be host:port such as 127.0.0.1:8080, [::1]:8080, localhost:8080 or :8080 (all interfaces), or unix:/path.sock';
  t.match(
    problems(`${MINIMAL}stats: \${UNSET}\n`, {}, { stats: 'x' }),
    [/^--stats: must be/],
    'not excused by the file',
  );
  t.same(problems(MINIMAL, {}, { stats: 'x' }), [`--stats: ${rule}, got "x"`]);
  t.same(problems(MINIMAL, {}, { listen: '${X}' }), [`--listen: ${rule}, got "\${X}"`]);
  t.match(problems(MINIMAL, {}, { logLevel: 'infoo' }), [
    /^--log-level: must be one of .*, got "infoo", did you mean "info"\?$/,
  ]);
});

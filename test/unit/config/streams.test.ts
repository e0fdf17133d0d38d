// How bytes pass, in the config: unix sockets of upstreams, streams, WebSockets, HTTP/2, heads of answers.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import t from 'tap';
import { parseBaseUrl, shownUrl } from '../../../src/config/base-url.ts';
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
const withUpstream = (rest: string) => `upstreams: { a: { url: "https://a", ${rest} } }\n`;
const upstream = (rest: string, env: Env = {}) => parseConfig(withUpstream(rest), 'f.yaml', env).config.upstreams[0]!;

t.test('the url of an upstream can be a unix socket, with a base path behind it', async (t) => {
  const base = { protocol: 'http:', hostname: 'localhost', port: 80, origin: 'http://localhost' };
  t.same(parseBaseUrl('unix:/run/api.sock'), { ...base, socketPath: '/run/api.sock', basePath: '' });
  t.same(parseBaseUrl('unix:/run/api.sock:/v1/'), { ...base, socketPath: '/run/api.sock', basePath: '/v1' });
  t.same(parseBaseUrl('unix:/run/api.sock:/'), { ...base, socketPath: '/run/api.sock', basePath: '' });
  t.same(parseBaseUrl('unix:/a:/b:c'), { ...base, socketPath: '/a', basePath: '/b:c' });
  const { config } = parseConfig(
    'upstreams: { a: { url: "unix:/a:/v1" }, b: { targets: [{ url: "unix:/b" }, { url: "https://c" }] } }',
    'f.yaml',
    {},
  );
  t.match(config.upstreams[0], { ...base, socketPath: '/a', basePath: '/v1' });
  t.match(config.upstreams[1], { ...base, socketPath: '/b', basePath: '' });
  t.match(config.upstreams[1]?.targets, [{ socketPath: '/b' }, { socketPath: '', origin: 'https://c' }]);
  for (const url of ['unix:/a', 'unix:/a:/v1', 'https://a', 'http://a:1/v1'])
    t.equal(shownUrl(parseBaseUrl(url) as Exclude<ReturnType<typeof parseBaseUrl>, string>), url);
});

t.test('the url of a unix socket keeps the rules of paths and of sockets', async (t) => {
  const cases: Record<string, string> = {
    'unix:': 'must be unix: and an absolute path',
    'unix:a.sock': 'must be unix: and an absolute path',
    'unix:@a': 'must be a socket with a path: an abstract one',
    'unix://a.sock': 'must have no // in the path of its socket',
    [`unix:/${'x'.repeat(107)}`]: 'must have a path of at most 107 bytes',
    'unix:/a:': 'must have a path behind the :',
    'unix:/a:v1': 'must have a path behind the :',
    'unix:/a:8080/v1': 'must have a path behind the :',
    'unix:/a b': 'must have no spaces',
    'unix:/a?x': 'must have no query',
    'unix:/a#x': 'must have no fragment',
    'unix:/a\\b': 'must have no backslash',
    'unix:/a:/b?x': 'must have no query',
    'unix:/a:/b#x': 'must have no fragment',
    'unix:/a:/b c': 'must have no spaces',
    'unix:/a:/b/../c': 'must have no dot segments',
    'unix:/a:/b//c': 'must have no //',
    'unix:/a:/%2e': 'must have no %2e',
    'unix:/a:/%5c': 'must have no %5c',
    'unix:/a:/b\\c': 'must have no backslash',
    'http://unix:/run/a.sock': 'must be written unix:/path.sock or unix:/path.sock:/base, without http://',
    'http://unix:/run/a.sock:/v1': 'must be written unix:/path.sock',
  };
  for (const [url, rule] of Object.entries(cases)) {
    t.ok(String(parseBaseUrl(url)).startsWith(rule), JSON.stringify([url, parseBaseUrl(url)]));
    t.match(problems(`upstreams: { a: { url: ${JSON.stringify(url)} } }`), [`f.yaml:1:24 upstreams.a.url: ${rule}`]);
    t.match(problems(`upstreams: { a: { targets: [{ url: ${JSON.stringify(url)} }] } }`), [
      `f.yaml:1:36 upstreams.a.targets[0].url: ${rule}`,
    ]);
  }
});

t.test('TLS and HTTP/2 need https everywhere', async (t) => {
  const one = (url: string, rest: string) => problems(`upstreams: { a: { url: "${url}", ${rest} } }`);
  const several = (rest: string) =>
    problems(`upstreams: { a: { targets: [{ url: "https://a" }, { url: "unix:/b" }, { url: "http://c" }], ${rest} } }`);
  t.same(one('unix:/a', 'tls: { servername: x }'), [
    'f.yaml:1:54 upstreams.a.tls.servername: needs an upstream with an https url, got "x"',
  ]);
  t.same(several('tls: { servername: x }'), [
    'f.yaml:1:112 upstreams.a.tls.servername: needs targets that are all https ("unix:/b"), got "x"',
  ]);
  for (const url of ['http://a', 'unix:/a']) {
    t.match(one(url, 'http2: true'), [`upstreams.a.http2: needs an upstream with an https url ("${url}"), got true`]);
    t.match(one(url, 'http2: {}'), [`upstreams.a.http2: needs an upstream with an https url ("${url}"), got an empty`]);
    t.same(one(url, 'http2: false'), []);
  }
  t.same(several('http2: true'), [
    'f.yaml:1:100 upstreams.a.http2: needs targets that are all https ("unix:/b"), got true',
  ]);
  t.same(one('https://a', 'http2: true'), []);
});

t.test('WebSockets and HTTP/2 are off, on, or on with a number', async (t) => {
  t.same([upstream('').websocket, upstream('').http2], [null, null]);
  t.same([upstream('websocket: false, http2: false').websocket, upstream('http2: false').http2], [null, null]);
  t.same(upstream('websocket: true').websocket, { max: 1000 });
  t.same(upstream('websocket: {}').websocket, { max: 1000 });
  t.same(upstream('websocket: { max: 1000000 }').websocket, { max: 1_000_000 });
  t.same(upstream('http2: true').http2, { maxStreams: 100 });
  t.same(upstream('http2: {}').http2, { maxStreams: 100 });
  t.same(upstream('http2: { max_streams: 1 }').http2, { maxStreams: 1 });
  const env = { YES: 'true', NO: 'false', N: '7' };
  t.same(upstream('websocket: "${YES}", http2: "${YES}"', env).http2, { maxStreams: 100 });
  t.same(upstream('websocket: "${NO}"', env).websocket, null);
  t.same(upstream('websocket: { max: "${N}" }', env).websocket, { max: 7 });
  t.match(parseConfig(withUpstream('websocket: true'), 'f.yaml', {}).dump, {
    upstreams: { a: { websocket: true, http2: false } },
  });
});

t.test('what a stream is granted reaches the config', async (t) => {
  const { stream, maxHeaders } = upstream(
    'stream: { heartbeat: 15s, min_rate: 1kb, min_rate_window: 1m, error_event: true }, max_headers: 10000',
  );
  t.same(stream, { heartbeatMs: 15_000, minRate: 1024, minRateWindowMs: 60_000, errorEvent: true });
  t.equal(maxHeaders, 10_000);
  t.same(upstream('stream: { heartbeat: none }').stream.heartbeatMs, Number.POSITIVE_INFINITY);
  t.same(upstream('stream:').stream, upstream('').stream, 'nothing behind it is all defaults');
});

t.test('the defaults are those that tests are made with', async (t) => {
  const made = makeConfig({ upstreams: { a: { url: 'unix:/a:/b' } } }).upstreams[0]!;
  const [parsed] = parseConfig('upstreams: { a: { url: "unix:/a:/b" } }', 'f.yaml', {}).config.upstreams;
  t.same({ ...made, timeouts: 0 }, { ...parsed, timeouts: 0 });
});

t.test('every key refuses the wrong kind of value and tells its rule, at its place', async (t) => {
  const websocket = 'must be true, false or a mapping such as { max: 200 }';
  const http2 = 'must be true, false or a mapping such as { max_streams: 100 }';
  const cases: [string, string][] = [
    ['stream: true', '45 upstreams.a.stream: must be a mapping of keys, got true'],
    [
      'stream: { heartbeat: 999ms }',
      '58 upstreams.a.stream.heartbeat: must be a duration of at least 1s, or none, got "999ms"',
    ],
    ['stream: { heartbeat: 0 }', '58 upstreams.a.stream.heartbeat: must be a duration of at least 1s, or none, got 0'],
    [
      'stream: { heartbeat: 15 }',
      '58 upstreams.a.stream.heartbeat: must be a duration such as 250ms, 30s, 10m, 1h or 2d, or none, got 15',
    ],
    [
      'stream: { min_rate: none }',
      '57 upstreams.a.stream.min_rate: must be a size such as 10b, 256kb, 64mb or 1gb, got "none"',
    ],
    ['stream: { min_rate: 2gb }', '57 upstreams.a.stream.min_rate: must be a size of at most 1gb, got "2gb"'],
    [
      'stream: { min_rate_window: 10ms }',
      '64 upstreams.a.stream.min_rate_window: must be a duration of at least 1s, got "10ms"',
    ],
    [
      'stream: { min_rate_window: none }',
      '64 upstreams.a.stream.min_rate_window: must be a duration such as 250ms, 30s, 10m, 1h or 2d, got "none"',
    ],
    ['stream: { error_event: yes }', '60 upstreams.a.stream.error_event: must be true or false, got "yes"'],
    ['stream: { hartbeat: 1s }', '47 upstreams.a.stream.hartbeat: unknown key, did you mean "heartbeat"?'],
    ['websocket: yes', `48 upstreams.a.websocket: ${websocket}, got "yes"`],
    ['websocket: 5', `48 upstreams.a.websocket: ${websocket}, got 5`],
    ['websocket:', `37 upstreams.a.websocket: ${websocket}, got nothing`],
    ['websocket: []', `48 upstreams.a.websocket: ${websocket}, got an empty list`],
    ['websocket: { max: 0 }', '55 upstreams.a.websocket.max: must be a whole number of at least 1, got 0'],
    [
      'websocket: { max: 1000001 }',
      '55 upstreams.a.websocket.max: must be a whole number of at most 1000000, got 1000001',
    ],
    [
      'websocket: { max: unlimited }',
      '55 upstreams.a.websocket.max: must be a whole number of at least 1, got "unlimited"',
    ],
    ['websocket: { maxx: 1 }', '50 upstreams.a.websocket.maxx: unknown key, did you mean "max"?'],
    ['http2: "true"', `44 upstreams.a.http2: ${http2}, got "true"`],
    ['http2:', `37 upstreams.a.http2: ${http2}, got nothing`],
    [
      'http2: { max_streams: 10001 }',
      '59 upstreams.a.http2.max_streams: must be a whole number of at most 10000, got 10001',
    ],
    [
      'http2: { max_streams: many }',
      '59 upstreams.a.http2.max_streams: must be a whole number of at least 1, got "many"',
    ],
    ['max_headers: 0', '50 upstreams.a.max_headers: must be a whole number of at least 1, got 0'],
    ['max_headers: 10001', '50 upstreams.a.max_headers: must be a whole number of at most 10000, got 10001'],
    ['heartbeat: 15s', '37 upstreams.a.heartbeat: unknown key, did you mean "stream.heartbeat"?'],
    ['max_streams: 5', '37 upstreams.a.max_streams: unknown key, did you mean "http2.max_streams"?'],
  ];
  for (const [yaml, expected] of cases) t.same(problems(withUpstream(yaml)), [`f.yaml:1:${expected}`], yaml);
  t.match(problems(withUpstream('websocket: "${W}"'), { W: 'hush' }), [/must be true, .*, got "\$\{W\}"$/]);
});

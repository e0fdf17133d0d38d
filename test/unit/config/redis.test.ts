// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import t from 'tap';
import { ConfigError, type Env, parseConfig } from '../../../src/config/load.ts';

const MINIMAL = 'upstreams: { a: { url: "http://a" } }\n';
const parse = (rest: string, env: Env = {}) => parseConfig(`${MINIMAL}${rest}\n`, 'f.yaml', env);

function file(rest: string, env: Env = {}): readonly string[] {
  try {
    parse(rest, env);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems;
  }
}

const STORE = 'cache: { store: redis }\n';
const redis = (url: string) => `${STORE}redis: { url: ${JSON.stringify(url)} }`;
const urlOf = (url: string) => parse(redis(url)).config.redis?.url;

t.test('the server reaches the config, with its defaults', async (t) => {
  t.equal(parse('').config.redis, null);
  const { config } = parse(`${STORE}redis: { url: "redis://h:1/2", prefix: "p:", timeout: 5ms }`);
  t.same(config.redis, { url: 'redis://h:1/2', prefix: 'p:', timeoutMs: 5 });
  t.same(parse(redis('redis://h')).config.redis, { url: 'redis://h', prefix: 'aiproxy:', timeoutMs: 100 });
});

t.test('Redis needs a use, and every use needs Redis', async (t) => {
  const server = 'redis: { url: "redis://h" }\n';
  const limiter = 'limiters: { l: { max_concurrent: 1, shared: redis } }\n';
  const limited =
    'upstreams: { a: { url: "http://a", rate_limits: [{ requests: 1/s }, { requests: 1/h, shared: redis }] } }\n';
  t.same(file(server), [
    'f.yaml:2:8 redis: needs a use: cache.store: redis, or shared: redis in a limiter or a rate limit, got a mapping',
  ]);
  t.same(file('redis:\n  # url: x\n'), [], 'a section with nothing in it is left out');
  const required = (use: string) => `redis.url: is required by ${use} ("redis"), got nothing`;
  t.same(file(STORE), [`f.yaml:2:17 ${required('cache.store')}`]);
  t.same(file(`${STORE}redis:\n`), [`f.yaml:2:17 ${required('cache.store')}`]);
  t.same(file(limiter), [`f.yaml:2:45 ${required('limiters.l.shared')}`]);
  const only = (yaml: string) => {
    try {
      parseConfig(yaml, 'f.yaml', {});
      return [];
    } catch (error) {
      return (error as ConfigError).problems;
    }
  };
  t.same(only(limited), [`f.yaml:1:94 ${required('upstreams.a.rate_limits[1].shared')}`]);
  for (const yaml of [`${MINIMAL}${STORE}`, `${MINIMAL}${limiter}`, limited])
    t.same(only(`${yaml}${server}`), [], yaml);
  const unsaid = 'a use that is not said well is a use';
  const store = 'f.yaml:3:17 cache.store: must be one of memory, redis, got "redi", did you mean "redis"?';
  t.same(file(`${server}cache: { store: redi }`), [store], unsaid);
  const shared = 'limiters.l.shared: must be redis, the place it is shared in, or be left out, got true';
  t.same(file(`${server}limiters: { l: { max_concurrent: 1, shared: true } }`), [`f.yaml:3:45 ${shared}`], unsaid);
  t.same(file('cache: { store: redis, redis: { url: "redis://h" } }'), [
    `f.yaml:2:17 ${required('cache.store')}`,
    'f.yaml:2:24 cache.redis: unknown key here: redis stands at the top of the file',
  ]);
});

t.test('every key of Redis refuses the wrong kind of value and tells its rule', async (t) => {
  t.match(file(`${STORE}redis: { prefix: a }`), [
    /^f\.yaml:3:1 redis\.url: is required and must be a Redis URL such as .*, got nothing$/,
  ]);
  t.match(file(`${STORE}redis: { url: "redis://h", prefix: "a*" }`), [
    /redis\.prefix: must be 1 to 64 letters, digits and _ \. : \/ - \{ \}, got "a\*"$/,
  ]);
  t.match(file(`${STORE}redis: { url: "redis://h", timeout: 11s }`), [
    /redis\.timeout: must be a duration of at most 10s, got "11s"$/,
  ]);
  t.match(file(`${STORE}redis: { url: 6379 }`), [/must be a Redis URL .*, got 6379$/]);
});

t.test('the address of Redis is a URL or a socket', async (t) => {
  const good = ['redis://h', 'redis://127.0.0.1:6379', 'rediss://u:p@h:1/15', 'redis://[::1]:6379/', '/run/redis.sock'];
  for (const url of good) t.equal(urlOf(url), url);
  t.equal(urlOf('unix:/run/redis.sock'), '/run/redis.sock');
  t.equal(urlOf('unix:///run/redis.sock'), '/run/redis.sock');
  const form =
    'must be a Redis URL such as redis://127.0.0.1:6379 or rediss://host/0, or a socket such as unix:/run/redis.sock';
  const bad: [string, string][] = [
    ['', form],
    ['h:6379', form],
    ['http://h', form],
    ['redis://', form],
    ['redis:///0', form],
    ['redis://h:0', form],
    ['redis://h:x', form],
    ['unix:run/redis.sock', form],
    ['//h', form],
    ['redis://h/db', 'must have no path but the number of a database'],
    ['redis://h?tls=false', 'must have no query and no fragment'],
    ['/run/redis.sock?db=1', 'must have no query and no fragment'],
    ['redis://h#1', 'must have no query and no fragment'],
    ['redis://h /', 'must have no spaces or control characters'],
  ];
  for (const [url, problem] of bad) {
    t.same(file(redis(url)), [`f.yaml:3:15 redis.url: ${problem}, got [secret]`], url);
  }
});

t.test('the password of Redis is never told', async (t) => {
  const shown = (url: string, env: Env = {}) => (parse(redis(url), env).dump as { redis: { url: string } }).redis.url;
  t.equal(shown('redis://h:1/2'), 'redis://h:1/2');
  t.equal(shown('redis://user:hush@h:1/2'), 'redis://***@h:1/2');
  t.equal(shown('rediss://:hu@sh@h'), 'rediss://***@h');
  t.equal(shown('${R}', { R: 'redis://:hush@h' }), '${R}');
  t.equal(shown('${R:-redis://:hush@h}'), '${R:-redis://***@h}');
  t.equal(shown('redis://:${P}@h', { P: 'hush' }), 'redis://***@h');

  const told = (url: string, env: Env = {}) => file(redis(url), env).map((one) => one.replace(/^.*, got /, ''));
  t.same(told('redis:hush@h'), ['[secret]']);
  t.same(told('redis://:hush@h/x'), ['[secret]']);
  t.same(told('redis://:hush@${HOST}'), ['[secret]'], 'nor by the template it stands in');
  t.same(told('hush@${P}', { P: 'hush' }), ['[secret]']);
  t.same(told('${R:-hush@h}'), ['[secret]']);
  t.same(told('${R}', { R: 'hush' }), ['"${R}"']);
  t.match(file(redis('${R}')), [/needs the environment variable R, which is not set, got "\$\{R\}"$/]);
});

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Ajv } from 'ajv';
import t from 'tap';
import { parse } from 'yaml';
import { jsonSchema } from '../../../src/config/json-schema.ts';
import { loadConfig, parseConfig } from '../../../src/config/load.ts';
import type { UpstreamConfig } from '../../../src/config/schema.ts';
import { makeCertificate } from '../../../src/demo/certificate.ts';

const directory = fileURLToPath(new URL('../../../config/', import.meta.url));
const read = (name: string) => readFileSync(directory + name, 'utf8');
const shipped = readdirSync(directory).filter((name) => name.endsWith('.yaml'));
const validate = new Ajv({ strict: true, allowUnionTypes: true, strictTypes: false }).compile(jsonSchema());

interface Node {
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Node>>;
  readonly additionalProperties?: Node | boolean;
  readonly items?: Node;
  readonly anyOf?: readonly Node[];
}

/** What a word can stand for, or what is in the list: where the keys of a node are. */
function sectionOf(node: Node): Node {
  return node.anyOf?.find((one) => one.properties) ?? (node.items?.properties ? node.items : node);
}

/** Every key of the schema as [path, node]; `*` stands for a name the user chooses. */
function keys(outer: Node, path: readonly string[] = []): [string, Node][] {
  const node = sectionOf(outer);
  const own = Object.entries(node.properties ?? {});
  if (typeof node.additionalProperties === 'object') own.push(['*', node.additionalProperties]);
  return own.flatMap(([key, below]) => [
    [[...path, key].join('.'), below] as [string, Node],
    ...keys(below, [...path, key]),
  ]);
}

t.test('every shipped file loads without any variable being set, and names the schema in its first line', async (t) => {
  t.ok(shipped.includes('aiproxy.yaml') && shipped.includes('minimal.yaml'));
  for (const name of shipped) {
    t.doesNotThrow(() => loadConfig(directory + name, {}), name);
    t.equal(read(name).split('\n')[0], '# yaml-language-server: $schema=./aiproxy.schema.json', name);
    t.ok(validate(parse(read(name))), `${name}: ${JSON.stringify(validate.errors)}`);
  }
});

t.test('aiproxy.yaml shows every key of the schema, with a comment', async (t) => {
  const lines = read('aiproxy.yaml').split('\n');
  for (const [path] of keys(jsonSchema() as Node)) {
    const key = path.split('.').at(-1)!;
    if (key === '*') continue;
    // An optional key may stand there as a comment.
    const at = lines.findIndex((line) => new RegExp(`^ *(# *)?(- )?${key}:( |$)`).test(line));
    t.ok(at >= 0, `${path} is there`);
  }
  const undocumented = lines.filter((line, index) => {
    const previous = lines[index - 1]?.trim() ?? '';
    return /^ {0,12}[a-z_]+: \S/.test(line) && index < lines.indexOf('  deepseek:') && !previous.startsWith('#');
  });
  t.same(undocumented, [], 'every value of the long part has a comment above it');
});

t.test('aiproxy.yaml carries the numbers of the backend that asked for it', async (t) => {
  const { config } = loadConfig(`${directory}aiproxy.yaml`, {});
  const numbers = config.upstreams.map(({ name, origin, limiter, pool, timeouts }) => [
    name,
    origin,
    limiter,
    pool.connections,
    pool.keepalive,
    timeouts.headersMs,
  ]);
  t.same(numbers, [
    ['openai', 'https://api.openai.com', 'ai', 50, 20, 60_000],
    ['deepseek', 'https://api.deepseek.com', 'ai', 30, 10, 60_000],
    ['fatsecret', 'https://platform.fatsecret.com', null, 30, 10, 30_000],
  ]);
  t.same(
    config.upstreams.map(({ cache, coalesce }) => [cache?.http, cache?.rules.map((rule) => rule.match), coalesce]),
    [
      [false, [{ methods: ['POST'], paths: ['/v1/embeddings'], operations: [], headers: [] }], true],
      [undefined, undefined, false],
      [
        false,
        [{ methods: ['GET'], paths: ['/rest/foods/search/*', '/rest/food/v*'], operations: [], headers: [] }],
        true,
      ],
    ],
    'what it stores is safe to store',
  );
  const none = Number.POSITIVE_INFINITY;
  const off = { adaptive: null, shared: false, lanes: [] };
  t.same(config.limiters, [{ name: 'ai', maxConcurrent: 100, maxQueue: none, queueTimeoutMs: none, ...off }]);
});

/** The text with one example, a key that stands there as a comment with all below it, made real. */
function uncommented(text: string, key: string): string {
  const lines = text.split('\n');
  const first = lines.findIndex((line) => new RegExp(`^ *# ${key}:`).test(line));
  const margin = lines[first]!.slice(0, lines[first]!.indexOf('#'));
  let end = first + 1;
  while (lines[end]!.startsWith(`${margin}#   `)) end++;
  const real = lines.slice(first, end).map((line) => margin + line.slice(margin.length + 2));
  return [...lines.slice(0, first), ...real, ...lines.slice(end)].join('\n');
}

t.test('what stands in aiproxy.yaml as a comment works too', async (t) => {
  const load = (text: string) => parseConfig(text, `${directory}aiproxy.yaml`, {}).config;
  const text = read('aiproxy.yaml');
  const all = load(
    ['redis', 'overload', 'shared', 'lanes', 'targets', 'lane', 'hedge', 'rate_limits'].reduce(
      uncommented,
      text.replace(/^ {4}url: https:\/\/api\.openai\.com\n/m, ''),
    ),
  );
  t.match(all, { redis: { prefix: 'aiproxy:', timeoutMs: 100 }, overload: { memoryBytes: null, refuseAt: 0.9 } });
  t.match(all.limiters[0], { shared: true, lanes: [{ name: 'interactive', share: 4 }, { name: 'batch' }] });
  t.match(all.upstreams[0], {
    targets: [{ origin: 'https://api.openai.com', headers: [['authorization', 'Bearer none']] }, { priority: 1 }],
    hedge: { paths: ['/v1/embeddings'], afterMs: null },
    rateLimits: [{ requests: 500, perMs: 60_000, shared: true }],
    lane: 'interactive',
  });
  const adaptive = load(uncommented(text.replace(/^ {4}max_concurrent: 100\n/m, ''), 'max_concurrent'));
  t.same(adaptive.limiters[0]?.adaptive, { min: 4, max: 100, mode: 'aimd' });
});

t.test('the listeners, WebSockets and HTTP/2 of its comments work too', async (t) => {
  const { cert, key } = makeCertificate({ names: ['x'] });
  const env = { CERT: cert, KEY: key, AIPROXY_TOKEN: 'a'.repeat(16), AIPROXY_OLD_TOKEN: 'b'.repeat(16) };
  const text = read('aiproxy.yaml')
    .replace(/^listen: .*\n/m, '')
    .replace(/^ {4}(websocket|http2): false\n/gm, '')
    .replace(/server\.pem|clients-ca\.pem/g, '${CERT}')
    .replace('${file:/run/secrets/server-key.pem}', '${KEY}');
  const all = ['listen', 'listen', 'websocket', 'http2'].reduce(uncommented, text);
  const { config } = parseConfig(all, 'f.yaml', env);
  const tls = { cert, key, clientCa: cert };
  t.match(config.listen, [
    { address: { port: 8080 }, tls: null, authorize: [], upstream: null },
    { address: { path: '/run/aiproxy/api.sock' } },
    { address: { port: 8443 }, tls, authorize: ['a'.repeat(16), 'b'.repeat(16)] },
    { address: { port: 8081 }, upstream: 'openai' },
  ]);
  t.match(config.upstreams[0], { websocket: { max: 200 }, http2: { maxStreams: 100 } });
});

t.test('what aiproxy.yaml says are the defaults of a section are', async (t) => {
  const { config } = loadConfig(`${directory}aiproxy.yaml`, {});
  const { config: defaults } = parseConfig(
    'upstreams: { a: { url: "http://a", breaker: {}, retries: {}, feedback: {} } }\noverload: {}\n',
    'f.yaml',
    {},
  );
  const pick = ({ breaker, retries, feedback, stream, websocket, http2, maxHeaders }: UpstreamConfig) => ({
    ...{ breaker, retries, feedback },
    ...{ stream, websocket, http2, maxHeaders },
  });
  t.same(pick(config.upstreams[0]!), pick(defaults.upstreams[0]!));
  const { config: written } = parseConfig(uncommented(read('aiproxy.yaml'), 'overload'), 'f.yaml', {});
  t.same(written.overload, defaults.overload);
});

t.test('every key of the schema says what it is, and its default', async (t) => {
  for (const [path, node] of keys(jsonSchema() as Node)) {
    if (path.endsWith('*')) continue;
    t.ok(node.description, path);
    if (!node.properties) t.match(node.description, /Default|Required/, path);
  }
});

t.test('the JSON Schema in config/ is the one of the code (run scripts/write-json-schema.ts)', async (t) => {
  t.same(JSON.parse(read('aiproxy.schema.json')), JSON.parse(JSON.stringify(jsonSchema())));
});

t.test('the JSON Schema lets an editor see the plain mistakes, and takes templates anywhere', async (t) => {
  const upstream = (rest: object) => ({ upstreams: { a: { url: 'http://a', ...rest } } });
  const good = [
    upstream({}),
    upstream({
      pool: { connections: '${N}', max_requests: '${N}' },
      timeouts: { idle: '${T}', total: 'none', headers: 0 },
    }),
    { ...upstream({}), log: { level: '${L}' }, listen: [':1', '${X}'], body_buffer: '64MiB' },
    { ...upstream({}), limiters: { ai: { max_concurrent: 'unlimited', max_queue: 0 } } },
    upstream({ cache: 'http', coalesce: false }),
    upstream({ cache: '${C}', coalesce: '${C}' }),
    upstream({ cache: { http: '${H}', heuristic_fraction: 0.1, rules: [{ ttl: '1h', match: { method: 'POST' } }] } }),
    upstream({
      cache: { rules: [{ ttl: '1h', match: { method: ['GET'], header: { 'x-a': '1' } }, statuses: [404] }] },
    }),
    { ...upstream({}), cache: { store: 'redis' }, redis: { url: 'unix:/run/redis.sock' } },
    { upstreams: { a: { targets: [{ url: 'https://a', weight: 3, headers: { 'x-a': 'b' } }, { url: '${B}' }] } } },
    { ...upstream({}), limiters: { ai: { max_concurrent: { adaptive: { max: 5 } }, lanes: { a: 1, b: 2 } } } },
    { ...upstream({}), limiters: { ai: { max_concurrent: '${N}', shared: 'redis' } }, overload: {} },
    upstream({ breaker: {}, retries: { statuses: [429] }, feedback: { pace: '${P}' } }),
    upstream({ breaker: { failure_ratio: 'none' }, hedge: { paths: ['/a'], after: 'p95' } }),
    upstream({
      rate_limits: [
        { requests: '5/h', key: 'header:x-user' },
        { requests: '${R}', shared: 'redis' },
      ],
    }),
    { ...upstream({}), listen: 'unix:/a', stats: 'unix:/b' },
    {
      ...upstream({}),
      listen: [{ address: ':1', tls: { cert: 'c', key: '${K}' }, authorize: 'a'.repeat(16) }, { address: '${A}' }],
    },
    upstream({ listen: { address: 'unix:/a', authorize: ['${T}', 'a'.repeat(16)] } }),
    upstream({ websocket: true, http2: false }),
    upstream({ websocket: { max: '${N}' }, http2: { max_streams: 5 } }),
    upstream({ websocket: '${W}', http2: {}, max_headers: 1 }),
    upstream({ url: 'unix:/a:/b', stream: { heartbeat: '15s', min_rate: 0, error_event: '${E}' } }),
  ];
  for (const value of good) t.ok(validate(value), JSON.stringify([value, validate.errors]));
  const bad = [
    {},
    { upstreams: {} },
    { upstreams: { a: {} } },
    { upstreams: { healthz: { url: 'http://a' } } },
    { upstreams: { 'a b': { url: 'http://a' } } },
    upstream({ timeoutt: {} }),
    upstream({ url: 'ftp://a' }),
    upstream({ pool: { connections: 0 } }),
    upstream({ pool: { connections: '5' } }),
    upstream({ timeouts: { connect: 'none' } }),
    upstream({ timeouts: { idle: 60 } }),
    upstream({ bypass: ['x'] }),
    { ...upstream({}), log: { level: 'loud' } },
    { ...upstream({}), limiters: { ai: {} } },
    { ...upstream({}), listen: [] },
    upstream({ cache: 'htp' }),
    upstream({ cache: { http: 'yes' } }),
    upstream({ cache: { heuristic_fraction: 1 } }),
    upstream({ cache: { rules: [{}] } }),
    upstream({ cache: { rules: [{ ttl: '1h', tttl: '1h' }] } }),
    upstream({ cache: { rules: [{ ttl: '1h', statuses: [206] }] } }),
    upstream({ cache: { rules: [{ ttl: '1h', match: { header: { 'x a': '1' } } }] } }),
    { ...upstream({}), redis: {} },
    { ...upstream({}), redis: { url: 'http://a' } },
    { ...upstream({}), cache: { redis: { url: 'redis://a' } } },
    upstream({ targets: [{ url: 'https://a' }] }),
    { upstreams: { a: { targets: [] } } },
    { upstreams: { a: { targets: [{ url: 'https://a', weight: 0 }] } } },
    { ...upstream({}), limiters: { ai: { max_concurrent: { adaptive: {} } } } },
    { ...upstream({}), limiters: { ai: { max_concurrent: 'adaptive' } } },
    { ...upstream({}), limiters: { ai: { max_concurrent: 5, shared: true } } },
    { ...upstream({}), limiters: { ai: { max_concurrent: 5, lanes: { 1: 1 } } } },
    { ...upstream({}), overload: { refuse_at: 90 } },
    upstream({ breaker: true }),
    upstream({ breaker: { failure_ratio: 'off' } }),
    upstream({ retries: { attempts: 1 } }),
    upstream({ hedge: {} }),
    upstream({ rate_limits: [{ requests: 500 }] }),
    upstream({ rate_limits: [{ requests: '500/m' }] }),
    upstream({ rate_limits: [{ requests: '500/min', key: 'header:' }] }),
    { ...upstream({}), listen: {} },
    { ...upstream({}), listen: 'unix:a' },
    { ...upstream({}), listen: { address: ':1', tls: { cert: 'c' } } },
    { ...upstream({}), listen: [{ address: ':1', authorize: 'short' }] },
    { ...upstream({}), listen: [{ address: ':1', authorize: [] }] },
    { ...upstream({}), stats: [':1'] },
    upstream({ listen: { address: ':1', upstream: 'a' } }),
    upstream({ websocket: 5 }),
    upstream({ websocket: { max: 0 } }),
    upstream({ http2: 'yes' }),
    upstream({ max_headers: 0 }),
    upstream({ stream: { heartbeat: 15 } }),
    upstream({ url: 'unix:a' }),
  ];
  for (const value of bad) t.notOk(validate(value), JSON.stringify(value));
});

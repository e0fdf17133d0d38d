// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import t, { type Test } from 'tap';
import { ConfigError, type Env, parseConfig } from '../../../src/config/load.ts';

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
const withTargets = (targets: string, rest = '') => `upstreams: { a: { targets: [${targets}]${rest} } }\n`;
const upstreamOf = (yaml: string, env: Env = {}) => parseConfig(yaml, 'f.yaml', env).config.upstreams[0]!;

/** Each text has exactly one problem; told without its place and what `prefix` says of its path. */
function refused(t: Test, write: (rest: string) => string, prefix: string, lines: readonly [string, string][]) {
  for (const [yaml, problem] of lines) {
    const told = problems(write(yaml)).map((one) => one.replace(/^f\.yaml:\d+:\d+ /, ''));
    t.same(told, [prefix + problem], yaml);
  }
}

t.test('an upstream has one url, or targets', async (t) => {
  const neither =
    'upstreams.a.url: is required (or `targets`, a list) and must be a URL such as https://api.openai.com';
  t.same(problems('upstreams: { a: {} }'), [`f.yaml:1:14 ${neither}, got nothing`]);
  t.same(problems(withUpstream('targets: [{ url: "https://b" }]')), [
    'f.yaml:1:46 upstreams.a.targets: must stand in place of url, not beside it ("https://a"), got a list',
  ]);
  t.same(problems('upstreams: { a: { targets: } }'), [`f.yaml:1:14 ${neither}, got nothing`]);
});

t.test('every key of a target refuses the wrong kind of value and tells its rule', async (t) => {
  const url = 'must be a URL such as https://api.openai.com, http://127.0.0.1:9000/v1 or unix:/run/api.sock';
  const mapping = 'must be a mapping such as { url: "https://host" }';
  const least = 'must be a whole number of at least 1: to give a target nothing, leave it out, or raise its priority';
  refused(t, withTargets, 'upstreams.a.targets', [
    ['', ': must have at least one target, got an empty list'],
    [Array.from({ length: 33 }, () => '{ url: "https://a" }').join(), ': must have at most 32 targets, got a list'],
    ['"https://a"', `[0]: ${mapping}, got "https://a"`],
    ['{ url: "https://a" }, ~', `[1].url: is required and ${url}, got nothing`],
    ['[]', `[0]: ${mapping}, got an empty list`],
    ['{ weight: 1 }', `[0].url: is required and ${url}, got nothing`],
    ['{ url: a }', `[0].url: ${url}, got "a"`],
    ['{ url: "https://a?b" }', '[0].url: must have no query, got "https://a?b"'],
    ['{ url: "https://a", weight: 0 }', `[0].weight: ${least}, got 0`],
    ['{ url: "https://a", weight: 1001 }', '[0].weight: must be a whole number of at most 1000, got 1001'],
    ['{ url: "https://a", weight: half }', '[0].weight: must be a whole number of at least 1, got "half"'],
    ['{ url: "https://a", priority: -1 }', '[0].priority: must be a whole number of at least 0, got -1'],
    ['{ url: "https://a", priority: 101 }', '[0].priority: must be a whole number of at most 100, got 101'],
    ['{ url: "https://a", wieght: 1 }', '[0].wieght: unknown key, did you mean "weight"?'],
  ]);
  t.same(problems('upstreams: { a: { targets: "https://a" } }'), [
    'f.yaml:1:28 upstreams.a.targets: must be a list, got "https://a"',
  ]);
  t.match(problems(withUpstream('target: []')), [/unknown key, did you mean "targets"\?$/]);
});

t.test('a target sets no header that the proxy itself sets, and none twice', async (t) => {
  const own = 'must be another header: this one is set by the proxy itself';
  const names = 'Host content-length TRANSFER-ENCODING connection keep-alive expect upgrade te trailer http2-settings';
  for (const name of `${names} proxy-authorization Proxy-Connection proxy-foo X-AIProxy-Operation`.split(' ')) {
    t.same(
      problems(withTargets(`{ url: "https://a", headers: { ${name}: x } }`)),
      [`f.yaml:1:60 upstreams.a.targets[0].headers.${name}: ${own}`],
      name,
    );
  }
  for (const name of ['authorization', 'X-Api-Key', 'Cookie', 'user-agent', 'hosts', 'x-aiprox']) {
    t.same(problems(withTargets(`{ url: "https://a", headers: { ${name}: x } }`)), [], name);
  }
  t.match(problems(withTargets('{ url: "https://a", headers: { "x y": x } }')), [
    /headers\."x y": must be the name of a header$/,
  ]);
  t.same(problems(withTargets('{ url: "https://a", headers: { Api-Key: a, x: b, api-key: c } }')), [
    'f.yaml:1:87 upstreams.a.targets[0].headers.api-key: is there already, written "Api-Key", got [secret]',
  ]);
});

t.test('the headers of a target are never told', async (t) => {
  const write = (value: string) => withTargets(`{ url: "https://a", headers: { authorization: ${value} } }`);
  const env = { K: 'hush', BAD: 'hush\nhush' };
  const shown = (value: string) => {
    const { dump } = parseConfig(write(value), 'f.yaml', env);
    t.notMatch(JSON.stringify(dump), /hush/);
    const { upstreams } = dump as { upstreams: { a: { targets: { headers: { authorization: string } }[] } } };
    return upstreams.a.targets[0]!.headers.authorization;
  };
  t.same(upstreamOf(write('"Bearer ${K}"'), env).targets[0]?.headers, [['authorization', 'Bearer hush']]);
  t.equal(shown('Bearer hush'), '[secret]');
  t.equal(shown('"${K}"'), '${K}');
  t.equal(shown('"Bearer ${K}"'), 'Bearer ${K}');
  t.equal(shown('"${K:-hush}"'), '[secret]');
  t.equal(shown('"Bearer ${NOT:-hush}"'), '[secret]');
  t.equal(shown('"${file:-hush}"'), '[secret]', 'the default of a variable called file');
  t.equal(shown('"hush-${K}"'), '[secret]');
  t.equal(shown('"hush-1 ${K}"'), '[secret]');
  t.equal(shown('"${K}${K}"'), '[secret]');
  t.equal(shown('"${K} hush"'), '[secret]');

  const told = (yaml: string) => {
    const found = problems(yaml, env);
    t.ok(found.length > 0, yaml);
    t.notMatch(found.join('\n'), /hush|12345/);
    return found.map((one) => one.replace(/^.*, got /, ''));
  };
  t.same(told(write('"hush\\n"')), ['[secret]']);
  t.same(told(write('12345')), ['[secret]']);
  t.same(told(write('"${BAD}"')), ['"${BAD}"']);
  t.same(told(write('"hush ${UNSET} hush"')), ['[secret]']);
  t.same(told(write('"Bearer ${UNSET}"')), ['"Bearer ${UNSET}"']);
  t.same(told(write('{ hush: hush }')), ['a mapping']);
  t.same(told(write('[hush]')), ['a list']);
  t.same(told(write('')), ['nothing']);
  const headers = (value: string) => withTargets(`{ url: "https://a", headers: ${value} }`);
  t.same(told(headers('"authorization: hush"')), ['[secret]']);
  t.same(told(headers('[{ authorization: hush }]')), ['a list']);
  t.same(told(headers('"${K}"')), ['"${K}"']);
  told(headers('{ host: hush }'));
});

t.test('TLS is for targets that are all https', async (t) => {
  const tls = ', tls: { servername: x }';
  t.same(problems(withTargets('{ url: "https://a" }, { url: "http://b" }, { url: "http://c" }', tls)), [
    'f.yaml:1:113 upstreams.a.tls.servername: needs targets that are all https ("http://b"), got "x"',
  ]);
  t.same(problems(withTargets('{ url: "https://a" }, { url: "https://b" }', tls)), []);
  t.same(problems(withTargets('{ url: "http://a" }, { url: "https://b" }')), []);
});

// Listeners in the config: their forms, their rules, and that neither token nor key is ever shown.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { join } from 'node:path';
import t from 'tap';
import { collide, isLocal, parseAddress } from '../../../src/config/address.ts';
import { ConfigError, type Env, type Overrides, parseConfig } from '../../../src/config/load.ts';
import type { Address } from '../../../src/config/schema.ts';
import { warningsOf } from '../../../src/config/warnings.ts';
import { makeCertificate } from '../../../src/demo/certificate.ts';
import { makeConfig } from '../../support/proxy.ts';

const MINIMAL = 'upstreams: { a: { url: "http://a" } }\n';
const TOKEN = 'hush-0123456789-token';
const OTHER = 'hush-9876543210-token';

function problems(yaml: string, env: Env = {}, overrides: Overrides = {}, name = 'f.yaml'): readonly string[] {
  try {
    parseConfig(yaml, name, env, overrides);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems;
  }
}
const listening = (yaml: string, env: Env = {}) =>
  parseConfig(`${MINIMAL}listen: ${yaml}\n`, 'f.yaml', env).config.listen;
const refused = (yaml: string, env: Env = {}) => problems(`${MINIMAL}listen: ${yaml}\n`, env);
const plain = { tls: null, authorize: [], upstream: null };
const at = (host: string, port: number, text: string) => ({ host, port, path: '', text });
const socket = (path: string) => ({ host: '', port: 0, path, text: `unix:${path}` });

t.test('a listener is an address, a mapping with one, or a list of both', async (t) => {
  t.same(listening('":81"'), [{ ...plain, address: at('0.0.0.0', 81, ':81') }]);
  t.same(listening('unix:/run/a.sock'), [{ ...plain, address: socket('/run/a.sock') }]);
  t.same(listening('{ address: "unix:/run/a.sock" }'), [{ ...plain, address: socket('/run/a.sock') }]);
  t.same(listening(`[":81", unix:/a, { address: ":82", authorize: ${TOKEN} }, { address: unix:/b }]`), [
    { ...plain, address: at('0.0.0.0', 81, ':81') },
    { ...plain, address: socket('/a') },
    { ...plain, address: at('0.0.0.0', 82, ':82'), authorize: [TOKEN] },
    { ...plain, address: socket('/b') },
  ]);
  t.same(listening(`{ address: ":82", authorize: [${TOKEN}, "${'~'.repeat(1024)}"] }`)[0]?.authorize, [
    TOKEN,
    '~'.repeat(1024),
  ]);
  t.same(
    listening('["${A}", { address: "${B}" }]', { A: ':1', B: 'unix:/b' }).map(({ address }) => address.text),
    [':1', 'unix:/b'],
  );
  t.same(makeConfig({ upstreams: { a: { url: 'http://a' } } }).listen, [
    { ...parseConfig(MINIMAL, 'f.yaml', {}).config.listen[0], address: at('127.0.0.1', 0, '127.0.0.1:0') },
  ]);
});

t.test('listeners of upstreams come last and know whose they are', async (t) => {
  const yaml = `upstreams:
  b: { url: http://b, listen: [":3", { address: unix:/b, authorize: "\${T}" }] }
  a: { url: http://a, listen: { address: ":4" } }
  c: { url: http://c, listen: unix:/c }
  d: { url: http://d }
listen: [":1", ":2"]
`;
  const { config, dump } = parseConfig(yaml, 'f.yaml', { T: TOKEN });
  t.same(
    config.listen.map(({ address, upstream, authorize }) => [address.text, upstream, authorize]),
    [
      [':1', null, []],
      [':2', null, []],
      [':3', 'b', []],
      ['unix:/b', 'b', [TOKEN]],
      [':4', 'a', []],
      ['unix:/c', 'c', []],
    ],
  );
  t.match(dump, { upstreams: { b: { listen: [':3', { address: 'unix:/b', authorize: '${T}' }] } } });
});

t.test('a unix socket has an absolute path that fits', async (t) => {
  const longest = `/${'x'.repeat(106)}`;
  t.same(parseAddress(`unix:${longest}`), socket(longest));
  t.same(parseAddress('unix:/run/ä b:1.sock'), socket('/run/ä b:1.sock'));
  const absolute = 'must be unix: and an absolute path such as unix:/run/api.sock';
  const double = 'must have no // in the path of its socket: it is written unix:/run/api.sock';
  const cases: [string, string][] = [
    ['unix:', absolute],
    ['unix:run/a.sock', absolute],
    ['unix:/', absolute],
    ['unix:/run/', absolute],
    ['unix:///run/a.sock', double],
    ['unix:/run//a.sock', double],
    ['unix:@abstract', 'must be a socket with a path: an abstract one (unix:@…) has no permissions to guard it'],
    ['unix:/a\0b', 'must have no control characters in the path of its socket'],
    ['unix:/a\nb', 'must have no control characters in the path of its socket'],
    [`unix:${longest}y`, 'must have a path of at most 107 bytes to its socket'],
    [`unix:/${'ä'.repeat(54)}`, 'must have a path of at most 107 bytes to its socket'],
  ];
  for (const [text, rule] of cases) {
    t.equal(parseAddress(text), rule, JSON.stringify(text));
    t.match(refused(JSON.stringify(text)), [`f.yaml:2:9 listen: ${rule}, got `], JSON.stringify(text));
    t.match(problems(`${MINIMAL}stats: ${JSON.stringify(text)}\n`), [`f.yaml:2:8 stats: ${rule}, got `]);
  }
  t.same(parseConfig(`${MINIMAL}stats: unix:/run/s.sock\n`, 'f.yaml', {}).config.stats, socket('/run/s.sock'));
});

t.test('every key of a listener refuses the wrong kind of value and tells its rule, at its place', async (t) => {
  const any =
    'must be host:port such as 127.0.0.1:8080, unix:/path.sock, a mapping such as { address: ":8443" }, or a list of them';
  const one = 'must be host:port such as 127.0.0.1:8080, unix:/path.sock or a mapping such as { address: ":8443" }';
  const tcp =
    'must be host:port such as 127.0.0.1:8080, [::1]:8080, localhost:8080 or :8080 (all interfaces), or unix:/path.sock';
  const token = 'must be 16 to 1024 printable ASCII characters without spaces: a token, better given by ${NAME}';
  const pem = 'must be the path of a PEM file, or PEM text given by ${NAME} or ${file:path}';
  const tls = 'must be a mapping such as { cert: cert.pem, key: key.pem }, or be left out';
  const cases: [string, string | string[]][] = [
    ['8080', `2:9 listen: ${any}, got 8080`],
    ['', `2:1 listen: ${any}, got nothing`],
    ['[]', '2:9 listen: must have at least one address, got an empty list'],
    ['[8080]', `2:10 listen[0]: ${one}, got 8080`],
    ['[~]', `2:10 listen[0]: ${one}, got nothing`],
    ['[[":1"]]', `2:10 listen[0]: ${one}, got a list`],
    ['x', `2:9 listen: ${tcp}, got "x"`],
    ['{}', `2:1 listen.address: is required and ${tcp}, got nothing`],
    ['{ address: x }', `2:20 listen.address: ${tcp}, got "x"`],
    ['[":1", { address: 5 }]', `2:27 listen[1].address: ${tcp}, got 5`],
    [
      '{ adress: ":1" }',
      [
        `2:1 listen.address: is required and ${tcp}, got nothing`,
        '2:11 listen.adress: unknown key, did you mean "address"?',
      ],
    ],
    ['{ address: ":1", tsl: {} }', '2:26 listen.tsl: unknown key, did you mean "tls"?'],
    [
      '[{ address: ":1", tls: { ca: x, cert: c, key: k } }]',
      [
        '2:34 listen[0].tls.ca: unknown key, did you mean "upstreams.<name>.tls.ca"?',
        '2:47 listen[0].tls.cert: must be a readable PEM file (no such file), got "c"',
        '2:55 listen[0].tls.key: must be a readable PEM file (no such file), got "k"',
      ],
    ],
    ['{ address: ":1", tls: }', `2:26 listen.tls: ${tls}, got nothing`],
    ['{ address: ":1", tls: true }', `2:31 listen.tls: ${tls}, got true`],
    [
      '{ address: ":1", tls: {} }',
      [
        `2:26 listen.tls.cert: is required and ${pem}, got nothing`,
        `2:26 listen.tls.key: is required and ${pem}, got nothing`,
      ],
    ],
    ['{ address: ":1", authorize: }', '2:26 listen.authorize: must be a token, or a list of them, got nothing'],
    ['{ address: ":1", authorize: [] }', '2:37 listen.authorize: must have at least one token, got an empty list'],
    [
      '{ address: ":1", authorize: {} }',
      '2:37 listen.authorize: must be a token, or a list of them, got an empty mapping',
    ],
    ['{ address: ":1", authorize: "" }', `2:37 listen.authorize: ${token}, got [secret]`],
    ['{ address: ":1", authorize: hush-56789-1234 }', `2:37 listen.authorize: ${token}, got [secret]`],
    [
      '{ address: ":1", authorize: 4321432143214321 }',
      '2:37 listen.authorize: must be a token, or a list of them, got [secret]',
    ],
    [`{ address: ":1", authorize: "hush ${TOKEN}" }`, `2:37 listen.authorize: ${token}, got [secret]`],
    [`{ address: ":1", authorize: "hush-ä-${TOKEN}" }`, `2:37 listen.authorize: ${token}, got [secret]`],
    [`{ address: ":1", authorize: "${'h'.repeat(1025)}" }`, `2:37 listen.authorize: ${token}, got [secret]`],
    [`[{ address: ":1", authorize: [${TOKEN}, hush] }]`, `2:62 listen[0].authorize[1]: ${token}, got [secret]`],
    [`[{ address: ":1", authorize: [${TOKEN}, 4321] }]`, `2:62 listen[0].authorize[1]: ${token}, got [secret]`],
  ];
  for (const [yaml, expected] of cases) {
    const found = refused(yaml);
    t.same(
      found,
      [expected].flat().map((line) => `f.yaml:${line}`),
      yaml,
    );
    t.notMatch(found.join(), /hush|4321|hhhh/);
  }
  t.same(problems('upstreams: { a: { url: "http://a", listen: [":1", { address: x }] } }'), [
    `f.yaml:1:62 upstreams.a.listen[1].address: ${tcp}, got "x"`,
  ]);
  t.match(problems(`authorize: ${TOKEN}\n${MINIMAL}`), [
    'f.yaml:1:1 authorize: unknown key, did you mean "listen.authorize"?',
  ]);
});

t.test('a token is never told, whatever it came from, and a missing one is no open door', async (t) => {
  const short = { T: 'hush' };
  for (const key of ['listen', 'upstreams: { b: { url: "http://b" } }\nlisten']) {
    const yaml = (value: string) =>
      `${key}: [{ address: ":1", authorize: ${value} }]\n${key === 'listen' ? MINIMAL : ''}`;
    t.match(problems(yaml('"${T}"'), short), [/without spaces: .*, got "\$\{T\}"$/]);
    t.match(problems(yaml('["${T}"]'), short), [/\[0\].*without spaces: .*, got "\$\{T\}"$/]);
    t.match(problems(yaml('"hush-${T}"'), short), [/got \[secret\]$/]);
    t.match(problems(yaml('"${T:-hush}"'), {}), [/got \[secret\]$/]);
    t.match(problems(yaml('"${T}"'), {}), [
      /authorize: needs the environment variable T, which is not set, got "\$\{T\}"$/,
    ]);
    t.match(problems(yaml('["hush-${T}"]'), {}), [/authorize\[0\]: needs the environment .*, got \[secret\]$/]);
    t.match(problems(yaml('"${T}"'), { T: '' }), [/without spaces/]);
  }
});

t.test('the dump shows where a token or a key comes from, and neither of them', async (t) => {
  const { cert, key } = makeCertificate({ names: ['x'] });
  const dir = t.testdir({ 'cert.pem': cert, 'key.pem': key, token: `${OTHER}\n` });
  const yaml = `listen:
  - { address: ":1", authorize: ${TOKEN}, tls: { cert: cert.pem, key: "\${KEY}", client_ca: "\${file:cert.pem}" } }
  - { address: ":2", authorize: ["\${T}", ${TOKEN}, "\${file:token}", "\${T:-${TOKEN}}", "x\${T}"] }
upstreams:
  a:
    url: http://a
    listen: { address: ":3", authorize: [${TOKEN}, "\${T}"], tls: { cert: ${JSON.stringify(cert)}, key: key.pem } }
`;
  const { config, dump } = parseConfig(yaml, join(dir, 'f.yaml'), { T: OTHER, KEY: key });
  t.notMatch(JSON.stringify(dump), /hush|BEGIN/);
  t.match(dump, {
    listen: [
      { authorize: '[secret]', tls: { cert: 'cert.pem', key: '${KEY}', client_ca: '${file:cert.pem}' } },
      { authorize: ['${T}', '[secret]', '${file:token}', '[secret]', '[secret]'] },
    ],
    upstreams: { a: { listen: { authorize: ['[secret]', '${T}'], tls: { cert: '[pem]', key: 'key.pem' } } } },
  });
  t.same(config.listen[0]?.tls, { cert, key, clientCa: cert.trimEnd() });
  t.same(config.listen[1]?.tls, null);
  t.same(config.listen[2]?.tls, { cert, key, clientCa: null });
  t.same(config.listen[1]?.authorize, [OTHER, TOKEN, OTHER, OTHER, `x${OTHER}`]);
});

t.test('certificates and keys of listeners that cannot work are mistakes at their keys', async (t) => {
  const { cert, key } = makeCertificate({ names: ['x'] });
  const dir = t.testdir({ cert, key, other: makeCertificate({ names: ['y'] }).key, words: 'no pem' });
  const tls = (rest: string) =>
    problems(`${MINIMAL}listen: [{ address: ":1", tls: { ${rest} } }]`, {}, {}, join(dir, 'f.yaml')).map((problem) =>
      problem.replace(/^.*f\.yaml:2:\d+ listen\[0\]\.tls\./, ''),
    );
  t.same(tls('cert: cert, key: key, client_ca: cert'), []);
  t.same(tls('cert: cert, key: other'), ['key: must be the private key of tls.cert, got "other"']);
  t.same(tls('cert: words, key: key'), ['cert: must be a PEM certificate (-----BEGIN CERTIFICATE-----), got "words"']);
  t.same(tls('cert: cert, key: key, client_ca: key'), [
    'client_ca: must be a PEM certificate (-----BEGIN CERTIFICATE-----), got "key"',
  ]);
  const needsKey = 'key: is required and must be the path of a PEM file, or PEM text given by ${NAME} or ${file:path}';
  t.same(tls('cert: cert'), [`${needsKey}, got nothing`]);
  t.same(tls(`cert: cert, key: ${JSON.stringify(key)}`), [
    'key: must be a file path, ${NAME} or ${file:path}: a private key has no place in this file, got [pem]',
  ]);
  const ofUpstream = `upstreams: { a: { url: "http://a", listen: { address: ":1", tls: { cert: cert, key: other } } } }`;
  t.match(problems(ofUpstream, {}, {}, join(dir, 'f.yaml')), [
    /upstreams\.a\.listen\.tls\.key: must be the private key of/,
  ]);
});

t.test('no two listeners share a port or a socket, the stats port included', async (t) => {
  const cases: [string, string][] = [
    [
      'listen: [unix:/a, { address: unix:/a }]',
      '2:30 listen[1].address: must not share the socket of listen[0] ("unix:/a"), got "unix:/a"',
    ],
    [
      'listen: unix:/a\nstats: unix:/./a',
      '3:8 stats: must not share the socket of listen ("unix:/a"), got "unix:/./a"',
    ],
    [
      'listen: [{ address: ":1" }, ":1"]',
      '2:29 listen[1]: must not share the port of listen[0].address (":1"), got ":1"',
    ],
  ];
  for (const [yaml, expected] of cases) t.same(problems(`${MINIMAL}${yaml}\n`), [`f.yaml:${expected}`], yaml);
  const two = (a: string, b: string, rest = '') =>
    problems(`upstreams:\n  a: { url: http://a, listen: ${a} }\n  b: { url: http://b, listen: ${b} }\n${rest}`);
  t.same(two('":1"', '{ address: "127.0.0.1:1" }'), [
    'f.yaml:3:42 upstreams.b.listen.address: must not share the port of upstreams.a.listen (":1"), got "127.0.0.1:1"',
  ]);
  t.same(two('":8080"', '":1"'), [
    'f.yaml:2:31 upstreams.a.listen: must not share the port of listen ("127.0.0.1:8080"), got ":8080"',
  ]);
  t.same(two('":2"', '":9090"'), [
    'f.yaml:3:31 stats: must not share the port of upstreams.b.listen (":9090"), got "127.0.0.1:9090"',
  ]);
  t.same(two('unix:/a', 'unix:/b', 'stats: unix:/c\nlisten: unix:/d\n'), []);
  const of = (text: string) => parseAddress(text) as Address;
  t.equal(collide(of('unix:/a'), of(':0')), false);
  t.equal(collide(of('unix:/a'), of('unix:/b')), false);
});

t.test('--listen and --stats take sockets too, and take the place of tokens and TLS', async (t) => {
  const yaml = `${MINIMAL}listen: [{ address: nonsense, authorize: "\${UNSET}", tls: { key: nope } }]\nstats: 5\n`;
  const { config, dump } = parseConfig(yaml, 'f.yaml', {}, { listen: 'unix:/l', stats: 'unix:/s' });
  t.same([config.listen, config.stats], [[{ ...plain, address: socket('/l') }], socket('/s')]);
  t.match(dump, { listen: 'unix:/l', stats: 'unix:/s' });
  t.match(problems(MINIMAL, {}, { listen: 'unix:l' }), ['--listen: must be unix: and an absolute path']);
  t.same(problems(MINIMAL, {}, { listen: 'unix:/s', stats: 'unix:/s' }), [
    '--stats: must not share the socket of listen ("unix:/s"), got "unix:/s"',
  ]);
  const kept = parseConfig('upstreams: { a: { url: "http://a", listen: ":5" } }', 'f.yaml', {}, { listen: ':4' });
  t.same(
    kept.config.listen.map(({ address }) => address.text),
    [':4', ':5'],
  );
});

t.test('a token that would cross the network unencrypted is warned of', async (t) => {
  const { cert, key } = makeCertificate({ names: ['x'] });
  const warned = (item: string) =>
    warningsOf(parseConfig(`${MINIMAL}listen: ${item}\n`, 'f.yaml', { T: TOKEN, CERT: cert, KEY: key }).config);
  t.match(warned('{ address: ":1", authorize: "${T}" }'), [/^:1 asks for a token .* unencrypted/]);
  t.notMatch(warned('{ address: ":1", authorize: "${T}" }').join(), TOKEN);
  t.equal(warned('[{ address: "10.0.0.1:1", authorize: "${T}" }, { address: "x:2", authorize: "${T}" }]').length, 2);
  t.same(warned('{ address: ":1", authorize: "${T}", tls: { cert: "${CERT}", key: "${KEY}" } }'), []);
  t.same(warned('":1"'), []);
  for (const address of ['127.0.0.1:1', '127.8.8.8:1', '[::1]:1', '[0:0::1]:1', 'LOCALHOST:1', 'unix:/a'])
    t.same(warned(`{ address: "${address}", authorize: "\${T}" }`), [], address);
  t.notOk(isLocal(parseAddress('127.evil.example:1') as Address));
});

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ConfigError, type Env, loadConfig, parseConfig } from '../../../src/config/load.ts';
import { makeCertificate } from '../../../src/demo/certificate.ts';

const MINIMAL = 'upstreams: { a: { url: "http://a" } }\n';

function problems(run: () => unknown): readonly string[] {
  try {
    run();
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems;
  }
}
const parsing = (yaml: string, env: Env = {}) => problems(() => parseConfig(yaml, 'f.yaml', env));

t.test('a file that is not YAML is told where', async (t) => {
  const told: [string, string][] = [
    ['a:\n\tb: 1\n', 'f.yaml:2:1 YAML: Tabs are not allowed as indentation'],
    ['a: "x\nb: 2\n', 'f.yaml:3:1 YAML: Missing closing "quote'],
    ['a: b: c\n', 'f.yaml:1:4 YAML: Nested mappings are not allowed in compact mappings'],
    ['a: 1\n---\nb: 2\n', 'f.yaml:2:1 YAML: must be one YAML document, without a second ---'],
    ['a: !foo 1\n', 'f.yaml:1:4 YAML: Unresolved tag: !foo'],
    [
      'a: { b: ${N} }\n',
      'f.yaml:1:10 YAML: Unexpected flow-map-start at node end; inside { } and [ ] write "${NAME}" in quotes',
    ],
  ];
  for (const [yaml, problem] of told) t.same(parsing(yaml), [problem], JSON.stringify(yaml));
  t.same(parsing('a: @x\nb: %y\n'), [
    'f.yaml:1:4 YAML: Plain value cannot start with reserved character @',
    'f.yaml:2:4 YAML: Plain value cannot start with directive indicator character %',
  ]);
  t.match(parsing('['.repeat(10_000)), [/^f.yaml:1:\d+ YAML: is nested too deep$/]);
});

t.test('a file that holds no mapping is told what it holds', async (t) => {
  const empty = 'f.yaml:1:1 file: is empty, and at least one upstream is needed (config/minimal.yaml shows the least)';
  for (const yaml of ['', '\n\n', '# nothing\n', '---\n', '~']) t.same(parsing(yaml), [empty], JSON.stringify(yaml));
  t.same(parsing('\n- a\n'), ['f.yaml:2:1 file: must be a mapping of keys, got a list']);
  t.same(parsing('just words'), ['f.yaml:1:1 file: must be a mapping of keys, got a single value']);
});

t.test('a key written twice is a mistake, and what the first one holds is judged too', async (t) => {
  t.same(parsing('upstreams:\n  a: { url: x? }\n  a: { url: "http://a" }\n'), [
    'f.yaml:2:13 upstreams.a.url: must be a URL such as https://api.openai.com, http://127.0.0.1:9000/v1 or unix:/run/api.sock, got "x?"',
    'f.yaml:3:3 upstreams.a: is written twice, first in line 2',
  ]);
});

t.test('an alias stands for what its anchor names, a bounded number of times', async (t) => {
  const { config } = parseConfig(
    'upstreams:\n  a: { url: http://a, pool: &pool { connections: 7 } }\n  b: { url: http://b, pool: *pool }\n',
    'f.yaml',
    {},
  );
  t.same(
    config.upstreams.map((one) => one.pool.connections),
    [7, 7],
  );
  t.same(parsing(`${MINIMAL}log: *nope\n`), ['f.yaml:2:6 log: needs the anchor &nope before it']);
  t.match(parsing('a: &a [*a]\n'), [/upstreams/, /unknown key/, /a(\[0\])+: is nested too deep/]);
  const laughs = Array.from({ length: 20 }, (_, n) => `l${n + 1}: &l${n + 1} [*l${n}, *l${n}, *l${n}]`).join('\n');
  t.ok(parsing(`l0: &l0 [x]\n${laughs}\n`).some((one) => one.endsWith('has more than 100 aliases in the file')));
  t.same(
    parsing(`${MINIMAL}stats: &s "x"\nlisten: *s\n`).map((one) => one.slice(0, 15)),
    ['f.yaml:2:11 sta', 'f.yaml:3:9 list'],
  );
});

t.test('a file that cannot be read is one clear line', async (t) => {
  const dir = t.testdir({ 'latin1.yaml': Buffer.from([0x61, 0x3a, 0xe9]), 'large.yaml': '#'.repeat(1024 * 1024 + 1) });
  const loading = (path: string) => problems(() => loadConfig(path, {}));
  t.same(loading(join(dir, 'nope.yaml')), [`cannot read ${join(dir, 'nope.yaml')}: no such file`]);
  t.same(loading(dir), [`cannot read ${dir}: it is a directory`]);
  t.same(loading(join(dir, 'latin1.yaml')), [`cannot read ${join(dir, 'latin1.yaml')}: it is not UTF-8 text`]);
  t.same(loading(join(dir, 'large.yaml')), [`cannot read ${join(dir, 'large.yaml')}: it is larger than 1mb`]);
  t.same(loading('/dev/zero'), ['cannot read /dev/zero: it is larger than 1mb']);
  t.same(loading('a\0b'), ['cannot read a\0b: no such file']);
});

t.test('a byte order mark and Windows line ends are no mistake', async (t) => {
  t.same(parsing(`\ufeffupstreams:\r\n  a:\r\n    url: http://a\r\n`), []);
});

t.test('the message of a ConfigError is all its problems, a line each', async (t) => {
  t.throws(() => parseConfig('a: 1\nb: 2\n', 'f.yaml', {}), {
    name: 'ConfigError',
    message: /^f\.yaml:1:1 .*\nf\.yaml:1:1 .*\nf\.yaml:2:1 [^\n]*$/,
  });
});

t.test('variables, defaults and files are filled in', async (t) => {
  const dir = t.testdir({ secret: 'from-file\n', 'two-lines': 'x\n\n' });
  const yaml = `
allowed_hosts:
  - \${HOST}
  - pre-\${HOST}.\${TLD:-internal}
  - \${UNSET:-default}
  - \${EMPTY:-default}
  - \${file:secret}
  - \${file:${dir}/secret}
upstreams: { a: { url: "\${URL:-http://x:1/a}", replay: ["/$\${literal}", "/a$b", "/\${HOST}"] } }
`;
  const { config } = parseConfig(yaml, join(dir, 'f.yaml'), { HOST: 'h', EMPTY: '' });
  t.same(config.allowedHosts, ['h', 'pre-h.internal', 'default', 'default', 'from-file', 'from-file']);
  t.equal(config.upstreams[0]?.origin, 'http://x:1');
  t.same(config.upstreams[0]?.replay, ['/${literal}', '/a$b', '/h']);
});

t.test('only values are filled in, and a value cannot become YAML', async (t) => {
  t.match(parsing(`${MINIMAL}\${KEY}: 1\n`, { KEY: 'stats' }), [/^f\.yaml:2:1 "\$\{KEY\}": unknown key$/]);
  t.match(parsing(`${MINIMAL}stats: \${S}\n`, { S: '":1"\nlog: { level: debug }' }), [
    /^f\.yaml:2:8 stats: must be host:port/,
  ]);
  t.match(parsing(`${MINIMAL}log: \${S}\n`, { S: '{ level: debug }' }), [
    /^f\.yaml:2:6 log: must be a mapping of keys, got "\$\{S\}"$/,
  ]);
  t.match(
    parsing(`${MINIMAL}stats: \${S}\n`, { S: '${OTHER}' }),
    [/stats: must be host:port/],
    'and is filled in once',
  );
});

t.test('the text of a variable is a number where a number is wanted, and text where text is', async (t) => {
  const yaml = `
limiters: { "7": { max_concurrent: "\${N}", max_queue: "\${U:-unlimited}" } }
upstreams:
  a:
    url: http://a
    limiter: \${N}
    pool:
      connections: \${N}
      keepalive: "\${K:-3}"
    timeouts: { total: "\${T}" }
`;
  const { config, dump } = parseConfig(yaml, 'f.yaml', { N: '7', T: '5s' });
  t.match(config.upstreams[0], { limiter: '7', pool: { connections: 7, keepalive: 3 }, timeouts: { totalMs: 5000 } });
  t.match(config.limiters[0], { maxConcurrent: 7, maxQueue: Number.POSITIVE_INFINITY });
  t.match(dump, { upstreams: { a: { pool: { connections: '${N}', keepalive: '${K:-3}' } } } });
  t.same(parsing(yaml, { N: '70000', T: '5s' }).slice(1), [
    'f.yaml:8:20 upstreams.a.pool.connections: must be a whole number of at most 65535, got "${N}"',
  ]);
  t.match(parsing(yaml, { N: 'x', T: '5s' }), [
    /max_concurrent: .*got "\$\{N\}"/,
    /a\.limiter/,
    /connections: .*got "\$\{N\}"/,
  ]);
  t.match(
    parsing(yaml, { N: '7', T: '5' }),
    [/timeouts\.total: must be a duration .*, got "\$\{T\}"$/],
    'a deadline needs its unit',
  );
  const pieces = `upstreams: { a: { url: "http://a", pool: { connections: "1\${N}" } } }`;
  t.match(parsing(pieces, { N: '7' }), [/connections: .*got "1\$\{N\}"$/], 'a number is not pieced together');
});

t.test('what cannot be filled in is named at its key, together with all other mistakes', async (t) => {
  const yaml = `stats: \${STATS}
allowed_hosts: ["\${file:/nope/x}", "\${bad name}", "\${open", "\${A:-\${B}}", "\${}"]
upstreams:
  a: { url: "http://\${HOST}:\${PORT}", limiter: "\${L}", tls: { ca: "x\${CA}" } }
wrong: 1
`;
  const form = 'must be written ${NAME}, ${NAME:-default} or ${file:path} ($${ is a literal ${)';
  t.same(parsing(yaml), [
    'f.yaml:1:8 stats: needs the environment variable STATS, which is not set, got "${STATS}"',
    'f.yaml:2:17 allowed_hosts[0]: cannot read /nope/x: no such file, got "${file:/nope/x}"',
    `f.yaml:2:36 allowed_hosts[1]: ${form}, got "\${bad name}"`,
    'f.yaml:2:51 allowed_hosts[2]: must close its ${ with a }, got "${open"',
    'f.yaml:2:61 allowed_hosts[3]: must not have one ${…} inside another, got "${A:-${B}}"',
    `f.yaml:2:75 allowed_hosts[4]: ${form}, got "\${}"`,
    'f.yaml:4:13 upstreams.a.url: needs the environment variable HOST, which is not set, got "http://${HOST}:${PORT}"',
    'f.yaml:4:13 upstreams.a.url: needs the environment variable PORT, which is not set, got "http://${HOST}:${PORT}"',
    'f.yaml:4:48 upstreams.a.limiter: needs the environment variable L, which is not set, got "${L}"',
    'f.yaml:4:67 upstreams.a.tls.ca: needs the environment variable CA, which is not set, got "x${CA}"',
    'f.yaml:5:1 wrong: unknown key',
  ]);
});

t.test('a value that was filled in is never in a problem nor in the dump', async (t) => {
  const dir = t.testdir({ secret: 'hush-file' });
  const everywhere = `
listen: ["\${S}", ":9090"]
stats: "\${PORT}"
allowed_hosts: ["\${S} \${file:secret}"]
log: { level: "\${LEVEL}", access: "\${S}" }
drain: { timeout: "\${S}" }
body_buffer: "\${S}"
listener: "\${S}"
limiters: { batch: { max_concurrent: "\${S}" } }
upstreams:
  a: { url: "http://\${S}@x", limiter: "\${S}", pool: { connections: "\${N}", keepalive: 9999, warm: "\${N2}" },
       bypass: ["\${S}"], replay: "\${S}", tls: { ca: "\${S}", key: "\${P}", cert: "\${S}", servername: "\${S} " } }
  b: "\${S}"
  c: { url: "https://x", limiter: "\${NEAR}", tls: { ca: "\${S}", key: "\${P}", cert: "\${S}" } }
`;
  const pem = '-----BEGIN PRIVATE KEY-----\nhush-key\n-----END PRIVATE KEY-----';
  const env = { S: 'hush', N: '4321', N2: '98765', P: pem, NEAR: 'bach', LEVEL: 'inof', PORT: ':9090x' };
  const found = problems(() => parseConfig(everywhere, join(dir, 'f.yaml'), env));
  t.ok(found.length > 20, `${found.length} problems`);
  for (const problem of found) t.notMatch(problem, /hush|4321|98765|BEGIN|"bach"|inof|did you mean/);
  t.ok(found.some((one) => one.endsWith('pool.keepalive: must be at most connections ("${N}"), got 9999')));

  const fine = `
allowed_hosts: ["\${S}", "\${file:secret}"]
upstreams: { a: { url: "https://\${S}/v1", replay: ["/\${S}", "/plain"], pool: { connections: "\${N}" } } }
`;
  const { config, dump } = parseConfig(fine, join(dir, 'f.yaml'), env);
  t.equal(config.upstreams[0]?.hostname, 'hush');
  t.notMatch(JSON.stringify(dump), /hush|4321/);
  t.match(dump, {
    allowed_hosts: ['${S}', '${file:secret}'],
    upstreams: { a: { url: 'https://${S}/v1', replay: ['/${S}', '/plain'], pool: { connections: '${N}' } } },
  });
});

t.test('a password or a private key written into the file is not repeated either', async (t) => {
  const yaml = `upstreams:
  a:
    url: https://user:hush@x
    tls:
      cert: x.pem
      key: |
        -----BEGIN PRIVATE KEY-----
        hush
`;
  const found = parsing(yaml);
  t.notMatch(found.join('\n'), /hush/);
  t.match(found, [
    /3:10 upstreams\.a\.url: must have no user name or password.*, got "https:\/\/\*\*\*@x"$/,
    /5:13 upstreams\.a\.tls\.cert: must be a readable PEM file \(no such file\), got "x\.pem"$/,
    /6:12 upstreams\.a\.tls\.key: .*a private key has no place in this file, got \[pem\]$/,
  ]);
});

t.test('the dump is the effective config in the names of the file, defaults filled in', async (t) => {
  const { dump } = parseConfig(
    `${MINIMAL}limiters: { l: { max_concurrent: 2 } }\n`,
    'f.yaml',
    {},
    { stats: ':1', logLevel: 'warn' },
  );
  t.match(dump, {
    listen: '127.0.0.1:8080',
    stats: ':1',
    log: { level: 'warn', access: 'all' },
    drain: { accept_for: '0s', timeout: '30s' },
    body_memory: '64mb',
    limiters: { l: { max_concurrent: 2, max_queue: 10_000, queue_timeout: 'none' } },
    upstreams: {
      a: { url: 'http://a', pool: { keepalive: 20, max_requests: 'unlimited' }, timeouts: { headers: '600s' } },
    },
  });
  const overridden = parseConfig(`${MINIMAL}stats: \${S}\n`, 'f.yaml', { S: ':5' }, { stats: ':1' });
  t.match(overridden.dump, { stats: ':1' });
});

t.test('certificates and keys are read from files, variables and secrets', async (t) => {
  const { cert, key } = makeCertificate({ names: ['client'] });
  const dir = t.testdir({ 'cert.pem': cert, 'key.pem': key });
  mkdirSync(join(dir, 'sub'));
  const yaml = `upstreams:
  files: { url: https://a, tls: { ca: ../cert.pem, cert: "${dir}/cert.pem", key: ../key.pem, servername: other } }
  env: { url: https://a, tls: { ca: "\${CA}", cert: "\${file:../cert.pem}", key: "\${file:../key.pem}" } }
`;
  const { config, dump } = parseConfig(yaml, join(dir, 'sub', 'f.yaml'), { CA: cert + cert });
  t.same(config.upstreams[0]?.tls, { ca: cert, cert, key, servername: 'other' });
  t.same(config.upstreams[1]?.tls, { ca: cert + cert, cert: cert.trimEnd(), key: key.trimEnd(), servername: null });
  t.notMatch(JSON.stringify(dump), /BEGIN/);
  t.match(dump, {
    upstreams: { files: { tls: { key: '../key.pem' } }, env: { tls: { ca: '${CA}', key: '${file:../key.pem}' } } },
  });
  const inline = `upstreams: { a: { url: "https://a", tls: { ca: ${JSON.stringify(cert)} } } }`;
  t.match(parseConfig(inline, 'f.yaml', {}).dump, { upstreams: { a: { tls: { ca: '[pem]' } } } });
});

t.test('certificates and keys that cannot work are mistakes at their keys', async (t) => {
  const { cert, key } = makeCertificate({ names: ['client'] });
  const damaged = cert.replace(/\n[A-Za-z0-9+/]{10}/, '\nAAAAAAAAAA');
  const dir = t.testdir({ cert, key, damaged, words: 'not pem', other: makeCertificate({ names: ['x'] }).key });
  writeFileSync(
    join(dir, 'encrypted'),
    '-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n',
  );
  writeFileSync(join(dir, 'broken-key'), key.replace(/\n.*\n/, '\nAAAA\n'));
  const tls = (rest: string, url = 'https://a') =>
    problems(() => parseConfig(`upstreams: { a: { url: "${url}", tls: { ${rest} } } }`, join(dir, 'f.yaml'), {})).map(
      (problem) => problem.replace(/^.*f\.yaml:1:\d+ upstreams\.a\.tls\./, ''),
    );
  t.same(tls('ca: nope'), ['ca: must be a readable PEM file (no such file), got "nope"']);
  t.same(tls('ca: "."'), ['ca: must be a readable PEM file (it is a directory), got "."']);
  t.same(tls('ca: words'), ['ca: must be a PEM certificate (-----BEGIN CERTIFICATE-----), got "words"']);
  t.same(tls('ca: key'), ['ca: must be a PEM certificate (-----BEGIN CERTIFICATE-----), got "key"']);
  t.same(tls('ca: damaged'), ['ca: must be a PEM certificate, and this one is damaged, got "damaged"']);
  t.same(tls('cert: cert, key: cert'), ['key: must be a PEM private key (-----BEGIN PRIVATE KEY-----), got "cert"']);
  t.same(tls('cert: cert, key: encrypted'), ['key: must be a PEM private key without a passphrase, got "encrypted"']);
  t.same(tls('cert: cert, key: broken-key'), [
    'key: must be a PEM private key, and this one is damaged, got "broken-key"',
  ]);
  t.same(tls('cert: cert, key: other'), ['key: must be the private key of tls.cert, got "other"']);
  t.same(tls('cert: cert'), ['cert: needs tls.key beside it, got "cert"']);
  t.same(tls('key: key'), ['key: needs tls.cert beside it, got "key"']);
  t.same(tls('servername: b, ca: cert', 'http://a'), [
    'servername: needs an upstream with an https url, got "b"',
    'ca: needs an upstream with an https url, got "cert"',
  ]);
  t.same(tls('', 'http://a'), []);
});

// What the real process says about where it listens: sockets, TLS, listeners of one upstream, and warnings.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request as ask } from 'node:http';
import { request as askSecurely } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { main } from '../../src/cli.ts';
import { makeCertificate } from '../../src/demo/certificate.ts';
import type { LogLine } from '../support/proxy.ts';
import { until, within } from '../support/until.ts';

const BIN = join(fileURLToPath(import.meta.url), '..', '..', '..', 'bin', 'aiproxy.js');
const TOKEN = 'hush-0123456789-token';

/** Short: the path of a socket has 107 bytes at most. */
function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'aiproxy-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A started aiproxy that serves; ended with the test. */
async function start(t: Test, config: string, ...flags: string[]) {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(_?TAP|NODE_OPTIONS$)/.test(name));
  const env = { ...Object.fromEntries(inherited), TOKEN };
  const child = spawn(process.execPath, ['--max-semi-space-size=4', BIN, '--config', config, ...flags], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (piece) => {
      text += piece;
    });
  }
  const closed = once(child, 'close');
  const lines = () =>
    text
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as LogLine);
  const serving = await until('it serves', () => lines().find(({ msg }) => msg === 'serving'), 20_000);
  const stop = async () => {
    child.kill('SIGTERM');
    await within('the end of the process', closed, 10_000);
    return text;
  };
  return { serving, lines, stop };
}

/** Status of GET /healthz. */
async function health(to: object, secure = false): Promise<number | undefined> {
  const asked = (secure ? askSecurely : ask)({ ...to, path: '/healthz', agent: false, rejectUnauthorized: false });
  asked.end();
  const [response] = await once(asked, 'response');
  response.resume();
  await once(response, 'end');
  return response.statusCode;
}

t.setTimeout(60_000);

t.test('the line it serves with says how to connect to each listener, and each can be connected to', async (t) => {
  const dir = folder(t);
  const { cert, key } = makeCertificate({ names: ['localhost'] });
  writeFileSync(join(dir, 'cert.pem'), cert);
  writeFileSync(join(dir, 'key.pem'), key);
  const tls = '{ cert: cert.pem, key: key.pem }';
  writeFileSync(
    join(dir, 'f.yaml'),
    `listen:
  - 127.0.0.1:0
  - unix:${dir}/a.sock
  - { address: "[::1]:0", tls: ${tls} }
  - { address: "unix:${dir}/tls.sock", tls: ${tls} }
  - { address: ":0", authorize: "\${TOKEN}" }
stats: unix:${dir}/s.sock
upstreams:
  ai: { url: "unix:${dir}/up.sock:/v1", listen: ["unix:${dir}/ai.sock", { address: "127.0.0.1:0", tls: ${tls} }] }
`,
  );
  const { serving, lines, stop } = await start(t, join(dir, 'f.yaml'));
  const listen = serving.listen as string[];
  const expected = [
    /^127\.0\.0\.1:(\d+)$/,
    `unix:${dir}/a.sock`,
    /^https:\/\/\[::1\]:(\d+)$/,
    `unix:${dir}/tls.sock (https)`,
    /^0\.0\.0\.0:(\d+)$/,
    `unix:${dir}/ai.sock (ai only)`,
    /^https:\/\/127\.0\.0\.1:(\d+) \(ai only\)$/,
  ];
  t.match(listen, expected);
  t.equal(serving.stats, `unix:${dir}/s.sock`);
  const warnings = lines().filter(({ level }) => level === 40);
  t.match(warnings, [{ msg: /^:0 asks for a token \(authorize\) that crosses the network unencrypted/ }]);
  t.equal(warnings.length, 1);

  const portOf = (index: number) => Number(/:(\d+)( |$)/.exec(listen[index]!)?.[1]);
  t.equal(await health({ port: portOf(0), host: '127.0.0.1' }), 200);
  t.equal(await health({ socketPath: `${dir}/a.sock` }), 200);
  t.equal(await health({ port: portOf(2), host: '::1' }, true), 200);
  t.equal(await health({ socketPath: `${dir}/tls.sock` }, true), 200);
  t.equal(await health({ socketPath: `${dir}/s.sock` }), 200);
  for (const name of ['a', 'tls', 'ai', 's']) t.equal(statSync(`${dir}/${name}.sock`).mode & 0o777, 0o660, name);

  const said = await stop();
  t.notMatch(said, TOKEN);
  for (const name of ['a', 'tls', 'ai', 's']) t.notOk(existsSync(`${dir}/${name}.sock`), `${name} is gone`);
});

t.test('--listen and --stats take unix sockets', async (t) => {
  const dir = folder(t);
  writeFileSync(join(dir, 'f.yaml'), 'upstreams: { ai: { url: "http://127.0.0.1:9" } }\n');
  const flags = ['--listen', `unix:${dir}/l.sock`, '--stats', `unix:${dir}/s.sock`];
  const { serving, stop } = await start(t, join(dir, 'f.yaml'), ...flags);
  t.match(serving, { listen: [`unix:${dir}/l.sock`], stats: `unix:${dir}/s.sock` });
  t.equal(await health({ socketPath: `${dir}/l.sock` }), 200);
  t.ok(lstatSync(`${dir}/s.sock`).isSocket());
  await stop();
});

t.test('check warns of a token that would cross the network, and calls the config good', async (t) => {
  const file = join(folder(t), 'f.yaml');
  writeFileSync(
    file,
    'listen: { address: ":1", authorize: "${TOKEN}" }\nupstreams: { ai: { url: "http://127.0.0.1:9" } }\n',
  );
  const [input, output, errors] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const io = { stdin: input, stdout: output, stderr: errors, on: () => {}, off: () => {} };
  t.equal(await main(['check', '--config', file], { TOKEN }, io), 0);
  t.match(String(errors.read()), /^warning: :1 asks for a token \(authorize\) that [^\n]*\n$/);
  t.equal(String(output.read()), 'good: 1 upstreams, 0 limiters\n');
});

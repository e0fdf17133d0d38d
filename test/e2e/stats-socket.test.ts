// The stats port on a unix socket: who may ask, what becomes of the file, and how the command line finds it.

import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, lstatSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import t, { type Test } from 'tap';
import { main } from '../../src/cli.ts';
import { isWellFormedHost } from '../../src/server/stats-guard.ts';
import { StatsPort } from '../../src/server/stats-port.ts';
import { FakeStats } from '../support/fake-stats.ts';

const at = (path: string) => ({ host: '', port: 0, path, text: `unix:${path}` });

/** Short: the path of a socket has 107 bytes at most. */
function pathFor(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'aiproxy-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'stats.sock');
}

async function serve(t: Test, path: string) {
  const source = new FakeStats();
  const port = new StatsPort(source, [], (error) => t.fail(String(error)));
  const told = await port.start(at(path));
  t.teardown(() => port.stop());
  return { source, port, told };
}

async function raw(path: string, text: string): Promise<{ status: number; text: string }> {
  const socket = connect({ path });
  socket.on('error', () => {});
  socket.write(text);
  let got = '';
  socket.on('data', (chunk) => {
    got += chunk;
  });
  await once(socket, 'close');
  return { status: Number(/^HTTP\/1\.1 (\d{3}) /.exec(got)?.[1]), text: got };
}

const request = (line: string, headers: string) => `${line} HTTP/1.1\r\n${headers}\r\nConnection: close\r\n\r\n`;

t.test('it says where it listens, user and group may connect, and the file is gone at stop', async (t) => {
  const path = pathFor(t);
  const { port, told } = await serve(t, path);
  t.same(told, { text: `unix:${path}`, host: '', port: 0 });
  t.equal(statSync(path).mode & 0o777, 0o660);
  t.equal((await raw(path, request('GET /healthz', 'Host: localhost'))).status, 200);
  await port.stop();
  t.notOk(existsSync(path));
});

t.test('its peers are on this machine: they may change state, under any one well-formed Host', async (t) => {
  const path = pathFor(t);
  const { source } = await serve(t, path);
  const asked = async (line: string, headers: string) => (await raw(path, request(line, headers))).status;
  for (const host of ['localhost', 'aiproxy', 'evil.example:80', '[::1]:1', '10.0.0.1'])
    t.equal(await asked('GET /stats', `Host: ${host}`), 200, host);
  for (const host of ['', 'a b', 'a/b', 'user@a', '[x'])
    t.not(await asked('GET /stats', `Host: ${host}`), 200, JSON.stringify(host));
  t.equal(await asked('GET /stats', 'X-No-Host: 1'), 403);
  t.equal(await asked('GET /stats', 'Host: a\r\nHost: b'), 403);
  t.equal(source.drains, 0);
  t.equal(await asked('POST /drain', 'Host: aiproxy\r\nContent-Length: 0'), 202);
  t.equal(source.drains, 1);
  const page = 'Host: aiproxy\r\nOrigin: http://evil.example\r\nContent-Length: 0';
  t.equal(await asked('POST /drain', page), 403, 'a page of another site that something relays');
  t.notOk(isWellFormedHost(undefined));
});

t.test(
  'what a killed process left is replaced; what is in use or no socket is one clear line, and stays',
  async (t) => {
    const path = pathFor(t);
    const program = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => name !== 'NODE_OPTIONS'));
    spawnSync(process.execPath, ['-e', program], { env });
    t.ok(lstatSync(path).isSocket());
    await serve(t, path);
    t.equal((await raw(path, request('GET /healthz', 'Host: a'))).status, 200);

    const second = new StatsPort(new FakeStats(), []);
    const where = `cannot listen on unix:${path}`;
    await t.rejects(second.start(at(path)), { message: `${where} (stats): the address is in use` });
    await second.stop();
    t.equal((await raw(path, request('GET /healthz', 'Host: a'))).status, 200, 'the first one goes on');

    const file = `${path}.txt`;
    writeFileSync(file, 'precious');
    const third = new StatsPort(new FakeStats(), []);
    await t.rejects(third.start(at(file)), {
      message: `cannot listen on unix:${file} (stats): what is at this path is not a socket, and is left alone`,
    });
    await third.stop();
    t.equal(statSync(file).size, 8);
    await t.rejects(new StatsPort(new FakeStats(), []).start(at('/no/such/dir/a.sock')), {
      message: 'cannot listen on unix:/no/such/dir/a.sock (stats): its directory: no such directory',
    });
  },
);

async function cli(...args: string[]) {
  const [input, output, errors] = [new PassThrough(), new PassThrough(), new PassThrough()];
  input.end();
  const code = await main(args, {}, { stdin: input, stdout: output, stderr: errors, on: () => {}, off: () => {} });
  return { code, stdout: String(output.read() ?? ''), stderr: String(errors.read() ?? '') };
}

t.test('explain asks there, and says what is wrong with it', async (t) => {
  const path = pathFor(t);
  await serve(t, path);
  const said = await cli('explain', '--stats', `unix:${path}`, '/openai/v1/models');
  t.equal(said.code, 0, said.stderr);
  t.match(said.stdout, /^(HIT|MISS|STALE|BYPASS): /);
  t.match(await cli('explain', '--stats', `unix:${path}.not`, '/x'), {
    code: 1,
    stderr: `the stats port at unix:${path}.not cannot be reached: there is no such socket`,
  });
  t.match(await cli('explain', '--stats', 'unix:relative', '/x'), {
    code: 2,
    stderr: /error: --stats must be unix: and an absolute path/,
  });
  if (process.getuid?.() === 0) return; // who may connect to everything
  chmodSync(path, 0);
  t.match(await cli('explain', '--stats', `unix:${path}`, '/x'), { code: 1, stderr: /permission denied/ });
});

// Whether the path of a unix socket can be listened on: stale files go, everything else stays.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, lstatSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { freeSocketPath, SOCKET_MODE } from '../../../src/server/socket-path.ts';

/** Short: the path of a socket has 107 bytes at most, and that of the test may be longer. */
function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'aiproxy-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** As a process that was killed leaves it. */
async function staleSocket(path: string): Promise<void> {
  const program = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => name !== 'NODE_OPTIONS'));
  await once(spawn(process.execPath, ['-e', program], { env, stdio: 'ignore' }), 'close');
}

async function listening(t: Test, path: string) {
  const server = createServer((socket) => socket.on('error', () => {}).resume()).listen(path);
  await once(server, 'listening');
  t.teardown(() => server.close());
  return server;
}

t.test('a path where nothing is stays so', async (t) => {
  const path = join(folder(t), 'a.sock');
  await freeSocketPath(path);
  t.notOk(existsSync(path));
});

t.test('a socket that a killed process left is removed, and the path can be had', async (t) => {
  const path = join(folder(t), 'a.sock');
  await staleSocket(path);
  t.ok(lstatSync(path).isSocket(), 'it is there');
  await freeSocketPath(path);
  t.notOk(existsSync(path));
  await listening(t, path);
});

t.test('a socket that somebody answers on is in use, and stays', async (t) => {
  const path = join(folder(t), 'a.sock');
  const server = await listening(t, path);
  const seen = once(server, 'connection');
  await t.rejects(freeSocketPath(path), { message: 'the address is in use' });
  t.ok(lstatSync(path).isSocket());
  await seen; // nothing was sent there
});

t.test('what is no socket is never removed', async (t) => {
  const dir = folder(t);
  const file = join(dir, 'file');
  writeFileSync(file, 'precious');
  symlinkSync(file, join(dir, 'link'));
  symlinkSync(join(dir, 'nowhere'), join(dir, 'dangling'));
  for (const name of ['file', 'link', 'dangling', '.']) {
    const message = 'what is at this path is not a socket, and is left alone';
    await t.rejects(freeSocketPath(join(dir, name)), { message }, name);
    t.ok(lstatSync(join(dir, name)), name);
  }
  t.equal(statSync(file).size, 8);
});

t.test('a link to a stale socket is no socket either: the file it leads to stays', async (t) => {
  const dir = folder(t);
  await staleSocket(join(dir, 'a.sock'));
  symlinkSync(join(dir, 'a.sock'), join(dir, 'link'));
  await t.rejects(freeSocketPath(join(dir, 'link')), /not a socket/);
  t.ok(lstatSync(join(dir, 'a.sock')).isSocket());
});

t.test('a directory that is not there, or that may not be looked into, is said', async (t) => {
  const dir = folder(t);
  writeFileSync(join(dir, 'file'), '');
  await t.rejects(freeSocketPath(join(dir, 'no', 'a.sock')), { message: 'its directory: no such directory' });
  await t.rejects(freeSocketPath(join(dir, 'file', 'a.sock')), { message: 'a part of the path is no directory' });
});

t.test(
  'a socket of another user is in nobody’s way',
  { skip: process.getuid?.() === 0 && 'root may connect' },
  async (t) => {
    const path = join(folder(t), 'a.sock');
    await listening(t, path);
    chmodSync(path, 0o000);
    await t.rejects(freeSocketPath(path), { message: 'permission denied' });
  },
);

t.test('user and group may connect, nobody else', async (t) => {
  t.equal(SOCKET_MODE & 0o777, 0o660);
});

// `aiproxy demo` as a user runs it: the table with the real proxy, and nothing left behind on any way out.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';

const BIN = fileURLToPath(new URL('../../bin/aiproxy.js', import.meta.url));

interface Demo {
  readonly child: ChildProcessWithoutNullStreams;
  readonly folder: string;
  readonly text: () => string;
  readonly code: Promise<number | null>;
}

/** Its temporary files go to a folder of their own, so that what it leaves can be seen. */
function startDemo(t: Test, args: string[]): Demo {
  const folder = mkdtempSync(join(tmpdir(), 'demo-test-'));
  const env = { ...process.env, TMPDIR: folder, TMP: folder, TEMP: folder };
  const child = spawn(process.execPath, ['--max-semi-space-size=4', BIN, 'demo', ...args], { env });
  t.teardown(() => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (more: string) => (text += more));
  child.stderr.setEncoding('utf8').on('data', (more: string) => (text += more));
  const code = once(child, 'close').then(([exitCode]) => exitCode as number | null);
  return { child, folder, text: () => text, code };
}

async function until(holds: () => boolean): Promise<void> {
  for (let i = 0; i < 600 && !holds(); i++) await sleep(50);
}

/** True while something listens there. */
function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

t.test('the demo prints before and after for 1, 10 and 100 users, without an error through aiproxy', async (t) => {
  const demo = startDemo(t, ['--quick', '--rtt', '20']);
  t.equal(await demo.code, 0, demo.text());
  const rows = demo.text().match(/^ +aiproxy +\d+ .*$/gm) ?? [];
  t.equal(rows.length, 3);
  for (const row of rows) t.match(row, / 0$/, 'no errors');
  t.match(demo.text(), /^ +1 {2}direct /m);
  t.match(demo.text(), /^ +100 {2}direct /m);
  t.match(demo.text(), 'OPENAI_BASE_URL=');
  t.same(readdirSync(demo.folder), [], 'temporary files are removed');
});

t.test('an interrupted demo ends its processes and removes its files', async (t) => {
  const demo = startDemo(t, ['--rtt', '20']);
  await until(() => demo.text().includes('1 user'));
  const [folder = ''] = readdirSync(demo.folder);
  const config = readFileSync(join(demo.folder, folder, 'aiproxy.yaml'), 'utf8');
  const ports = [...config.matchAll(/127\.0\.0\.1:(\d+)/g)].map(([, port]) => Number(port));
  t.equal(ports.length, 5, 'listen, stats and three relays');
  t.same(await Promise.all(ports.map(isOpen)), [true, true, true, true, true]);
  demo.child.kill('SIGTERM');
  t.equal(await demo.code, 130);
  t.same(await Promise.all(ports.map(isOpen)), [false, false, false, false, false]);
  t.same(readdirSync(demo.folder), []);
});

t.test('--keep leaves all running with the dashboard, until interrupted', async (t) => {
  const demo = startDemo(t, ['--quick', '--keep', '--rtt', '1']);
  await until(() => demo.text().includes('fatsecret'));
  const dashboard = /dashboard +(http:\S+)/.exec(demo.text())?.[1] ?? '';
  const openai = /openai +(http:\S+)/.exec(demo.text())?.[1] ?? '';
  t.equal((await fetch(`${dashboard}stats`)).status, 200, demo.text());
  const models = await fetch(`${openai}/v1/models`, { headers: { authorization: 'Bearer sk-demo' } });
  t.equal(models.status, 200);
  demo.child.kill('SIGINT');
  t.equal(await demo.code, 0);
  t.equal(await isOpen(Number(new URL(dashboard).port)), false, 'the proxy ended');
  t.same(readdirSync(demo.folder), []);
});

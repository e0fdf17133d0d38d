// The packed tarball, installed in a folder elsewhere and run: type stripping does not work inside node_modules, so it must hold JavaScript.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, relative, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import t, { type Test } from 'tap';
import { until } from '../support/until.ts';

// tap puts a NODE_OPTIONS that loads tap into the environment of every child. Here children must run as a user's do.
const UNTAPPED = ['-c', 'unset NODE_OPTIONS; exec "$0" "$@"'];
const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const VERSION: string = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version;
/** Not copied: no part of what is packed, or too large. */
const LEFT_OUT = new Set(['.git', 'node_modules', '.tap', 'dist', 'test', 'bench']);
const needsShell = process.platform === 'win32' ? { skip: 'needs a POSIX shell' } : {};
const { packed } = (await import(pathToFileURL(join(ROOT, 'scripts', 'pack.mjs')).href)) as {
  packed(original: Record<string, unknown>): Record<string, unknown>;
};

interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** This Node first in PATH, so that the shebang of an installed bin finds it; without what npm and tap add for their children. */
function env(): NodeJS.ProcessEnv {
  const added = /^(npm_(package|lifecycle|command|execpath|node)|_?TAP|NODE_CHANNEL|AIPROXY_|INIT_CWD$)/i;
  const kept = Object.entries(process.env).filter(([name]) => !added.test(name));
  return {
    ...Object.fromEntries(kept),
    PATH: [dirname(process.execPath), process.env.PATH].join(delimiter),
    NO_UPDATE_NOTIFIER: '1',
  };
}

async function run(cwd: string, command: string, args: readonly string[]): Promise<Result> {
  const child = spawn('/bin/sh', [...UNTAPPED, command, ...args], {
    cwd,
    env: env(),
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 80_000,
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const [code] = await once(child, 'close');
  return { code, stdout, stderr };
}

/** Paths of the files below `folder`, with slashes. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).replaceAll(sep, '/'))
    .sort();
}

/** The registry is out of reach, or silent until npm was stopped: nothing that this project did. */
const unreachable = (npm: Result) =>
  npm.code === null ||
  /\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT|ENOTCACHED)\b/.test(
    npm.stderr,
  );

t.test('the packed package.json has nothing that harms an installer', async (t) => {
  const original = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  const manifest = packed(original);
  for (const key of ['name', 'version', 'license', 'type', 'engines', 'bin', 'files', 'dependencies'])
    t.same(manifest[key], original[key], `${key} stays`);
  for (const key of ['devDependencies', 'optionalDependencies', 'allowScripts', 'tap'])
    t.notOk(key in manifest, `${key} goes`);
  const scripts = Object.keys(manifest.scripts as object);
  t.notOk(
    scripts.some((name) => /install|^prepare|^prepublish|^dependencies$/.test(name)),
    'no script runs on install',
  );
});

t.test('the tarball installs elsewhere and runs', { timeout: 110_000, ...needsShell }, async (t) => {
  // Outside the repository, where its node_modules cannot be found by looking upwards.
  const root = realpathSync(mkdtempSync(join(tmpdir(), 'aiproxy-package-')));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  const tree = join(root, 'tree');
  const elsewhere = join(root, 'elsewhere');
  mkdirSync(tree);
  mkdirSync(elsewhere);
  writeFileSync(join(elsewhere, 'package.json'), '{"private":true}');
  for (const name of readdirSync(ROOT))
    if (!LEFT_OUT.has(name) && !name.endsWith('.tgz')) cpSync(join(ROOT, name), join(tree, name), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(tree, 'node_modules'), 'junction');
  const manifest = () => readFileSync(join(tree, 'package.json'), 'utf8');
  const before = manifest();

  const cut = await run(tree, process.execPath, ['scripts/pack.mjs', 'prepare']);
  t.equal(cut.code, 0, cut.stderr);
  t.not(manifest(), before, 'a packing that was cut short leaves its package.json');
  const pack = await run(tree, 'npm', ['pack', '--pack-destination', root]);
  t.equal(pack.code, 0, pack.stderr);
  t.equal(manifest(), before, 'the next one puts the original back, to the byte');
  t.notOk(existsSync(join(tree, '.package.json.before-pack')));

  const tarball = join(root, `aiproxy-${VERSION}.tgz`);
  const install = await run(elsewhere, 'npm', [
    ...['install', '--omit=optional', '--no-audit', '--no-fund', '--prefer-offline'],
    ...['--fetch-retries=2', '--fetch-retry-mintimeout=500', '--fetch-retry-maxtimeout=1000', tarball],
  ]);
  if (install.code !== 0 && unreachable(install)) {
    t.pass('installs from the registry', { skip: 'the npm registry cannot be reached' });
    return;
  }
  t.equal(install.code, 0, install.stderr);
  const installed = join(elsewhere, 'node_modules', 'aiproxy');
  checkFiles(t, installed);

  const bin = join(elsewhere, 'node_modules', '.bin', 'aiproxy');
  const version = await run(elsewhere, bin, ['--version']);
  t.same(version, { code: 0, stdout: `${VERSION}\n`, stderr: '' });
  await serve(t, elsewhere, bin);
});

/** The tarball holds what runs and what is read, and none of what it was made from. */
function checkFiles(t: Test, installed: string): void {
  const files = filesBelow(installed).filter((file) => !file.startsWith('node_modules/'));
  for (const name of ['bin/aiproxy.js', 'dist/cli.js', 'config/aiproxy.yaml', 'deploy/kubernetes/aiproxy.yaml'])
    t.ok(files.includes(name), name);
  for (const name of [
    'LICENSE',
    'CHANGELOG.md',
    'package.json',
    ...(existsSync(join(ROOT, 'README.md')) ? ['README.md'] : []),
  ])
    t.ok(files.includes(name), name);
  t.same(
    files.filter((file) => file.endsWith('.ts') || !/^((bin|dist|config|deploy)\/|[^/]+$)/.test(file)),
    [],
    'no sources, no tests',
  );
  const sources = filesBelow(join(ROOT, 'src')).map((file) => `dist/${file.replace(/\.ts$/, '.js')}`);
  t.same(
    files.filter((file) => file.startsWith('dist/')),
    sources,
    'dist is src, compiled',
  );
  for (const file of files.filter((it) => it.startsWith('dist/') && it.endsWith('.js')))
    t.notMatch(readFileSync(join(installed, file), 'utf8'), /^(?:import|export)\b.*from '\..*\.ts'/m, file);
  t.notOk(existsSync(join(installed, '..', '.bin', 'node')), 'no Node is put into the installer’s .bin');
}

/** Starts it on free ports, asks the proxy port how it is, ends it with SIGTERM. */
async function serve(t: Test, folder: string, bin: string): Promise<void> {
  // The tarball's own example; it opens no connection before it is asked to.
  const config = join(folder, 'node_modules', 'aiproxy', 'config', 'minimal.yaml');
  const args = ['--config', config, '--listen', '127.0.0.1:0', '--stats', '127.0.0.1:0'];
  const child = spawn('/bin/sh', [...UNTAPPED, bin, ...args], {
    cwd: folder,
    env: env(),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => {
      output += chunk;
    });
  const ended = once(child, 'close');
  await until('it serves or ends', () => /"msg":"serving"/.test(output) || child.exitCode !== null, 20_000);
  const address = /"listen":\["([^"]+)"/.exec(output)?.[1];
  t.ok(address, output);
  const answer = await fetch(`http://${address}/healthz`);
  await answer.arrayBuffer();
  t.equal(answer.status, 200);
  if (process.platform === 'linux') {
    const commandLine = readFileSync(`/proc/${child.pid}/cmdline`, 'utf8').split('\0');
    t.ok(commandLine.includes('--max-semi-space-size=4'), 'the process that serves has the V8 flag');
  }
  child.kill('SIGTERM');
  t.same(await ended, [0, null], output);
}

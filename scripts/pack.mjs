// `npm pack`: prepack compiles src to dist and takes out of package.json what would harm an installer; postpack puts the file back.
// Type stripping does not work inside node_modules, and the node-* packages would put their Node into the installer's .bin.
// `private` stays: it does not keep a tarball from being installed, only from being published by accident.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
// Beside the original and not in "files": shown by git status, never packed.
const BACKUP = '.package.json.before-pack';

/** The package.json that is packed. What npm runs in the source tree only would be missing files to an installer. */
export function packed(original) {
  const manifest = { ...original };
  for (const key of ['devDependencies', 'optionalDependencies', 'allowScripts', 'tap']) delete manifest[key];
  // npm reads package.json again after packing, so postpack must still stand there. In a source tree whose packing was
  // cut short the others put the original back and go on with it; an installer runs none of them.
  const again = (name) => `node scripts/pack.mjs restore && npm run ${name} --`;
  manifest.scripts = { postpack: 'node scripts/pack.mjs restore' };
  for (const name of ['start', 'demo', 'test']) manifest.scripts[name] = again(name);
  return manifest;
}

/** Puts back the package.json of a packing that ended, or never did. */
export function restore(root = ROOT) {
  const backup = join(root, BACKUP);
  if (existsSync(backup)) renameSync(backup, join(root, 'package.json'));
}

function prepare(root) {
  restore(root);
  compile(root);
  const file = join(root, 'package.json');
  const text = readFileSync(file, 'utf8');
  // Written whole under another name first: a backup is complete or does not exist.
  writeFileSync(join(root, `${BACKUP}.new`), text);
  renameSync(join(root, `${BACKUP}.new`), join(root, BACKUP));
  writeFileSync(file, `${JSON.stringify(packed(JSON.parse(text)), null, 2)}\n`);
}

function compile(root) {
  const dist = join(root, 'dist');
  rmSync(dist, { recursive: true, force: true });
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status } = spawnSync(process.execPath, [tsc, '-p', join(root, 'tsconfig.build.json')], {
    cwd: root,
    stdio: ['ignore', process.stderr, process.stderr],
  });
  if (status !== 0) throw new Error('tsc failed; nothing was packed');
  // What stands beside the sources and is read at run time.
  cpSync(join(root, 'src'), dist, { recursive: true, filter: (path) => !path.endsWith('.ts') });
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const command = { prepare, restore, compile }[process.argv[2]];
  if (!command) throw new Error('usage: node scripts/pack.mjs prepare | restore | compile');
  command(ROOT);
}

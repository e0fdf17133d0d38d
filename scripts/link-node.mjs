// Links node_modules/.bin/node to the pinned Node that came as an optional platform package.
// npm 10 puts the link on its trash list when the packages of other platforms fail to install, so npm alone cannot be trusted with it.
// Plain JavaScript: it must run on any Node that can run npm. Never fails an install: without the pinned Node, bin/aiproxy.js says what is missing.
import { existsSync, lstatSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pinnedNode } from '../bin/pinned-node.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const binary = pinnedNode(root);
const binFolder = join(root, 'node_modules', '.bin');
const link = join(binFolder, process.platform === 'win32' ? 'node.cmd' : 'node');

if (binary && !existsSync(link)) {
  try {
    mkdirSync(binFolder, { recursive: true });
    if (lstatSync(link, { throwIfNoEntry: false })) rmSync(link);
    if (process.platform === 'win32') writeFileSync(link, `@"${binary}" %*\r\n`);
    else symlinkSync(binary, link);
  } catch (error) {
    console.error(`link-node: could not link ${link}: ${error.message}; scripts run on this Node (${process.version})`);
  }
}

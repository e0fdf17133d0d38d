// Reads the small text files a config names, with one clear word when that fails.

import { closeSync, openSync, readSync } from 'node:fs';

/** No config, certificate or secret is larger; /dev/zero is. */
const MAX_BYTES = 1024 * 1024;

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  ENOTDIR: 'no such file',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EISDIR: 'it is a directory',
  ERR_INVALID_ARG_VALUE: 'no such file', // a NUL byte in the name
  ERR_ENCODING_INVALID_ENCODED_DATA: 'it is not UTF-8 text',
};

export type ReadText = (path: string) => { readonly text: string } | { readonly problem: string };

export function readTextFile(path: string): { text: string } | { problem: string } {
  try {
    const bytes = readUpTo(path, MAX_BYTES);
    if (bytes === null) return { problem: 'it is larger than 1mb' };
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes) };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
    return { problem: REASONS[code] ?? code };
  }
}

/** null when the file holds more. Read in pieces, as pipes and /dev files have no size to ask for. */
function readUpTo(path: string, limit: number): Uint8Array | null {
  const file = openSync(path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(64 * 1024);
    const pieces: Buffer[] = [];
    let length = 0;
    for (let count = -1; (count = readSync(file, buffer)) > 0; ) {
      length += count;
      if (length > limit) return null;
      pieces.push(Buffer.from(buffer.subarray(0, count)));
    }
    return Buffer.concat(pieces);
  } finally {
    closeSync(file);
  }
}

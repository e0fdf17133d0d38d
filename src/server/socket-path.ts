// Makes the path of a unix socket free to listen on: a socket file that nobody listens on any more is removed.

import { lstat, stat, unlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname } from 'node:path';

/**
 * Of the socket files we listen on: the user aiproxy runs as and its group may connect, which takes the right to write.
 * Set after listening, as only then the file is there; under the usual umask it was open to the user alone until then.
 */
export const SOCKET_MODE = 0o660;

/**
 * A process that was killed leaves its socket file behind, and no other can listen there until it is gone. Two that start
 * at the same time on one path can still take it from each other: the one whose file is removed is then never asked.
 *
 * @throws Error with the reason alone, to stand behind "cannot listen on unix:…: "
 */
export async function freeSocketPath(path: string): Promise<void> {
  const there = await lstat(path).catch((error: NodeJS.ErrnoException) => error);
  if (there instanceof Error) {
    // libuv says "permission denied" for a directory that is not there.
    if (there.code === 'ENOENT') return await needDirectory(dirname(path));
    throw new Error(reason(there), { cause: there });
  }
  if (!there.isSocket()) throw new Error('what is at this path is not a socket, and is left alone');
  const answer = await knock(path);
  if (answer === 'ENOENT') return; // it has gone by itself
  // Only a refusal proves that nobody listens: with EAGAIN somebody does, who is busy.
  if (answer !== 'ECONNREFUSED')
    throw new Error(answer === 'EACCES' ? reason({ code: answer }) : 'the address is in use');
  await unlink(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw new Error(`an old socket cannot be removed: ${reason(error)}`, { cause: error });
  });
}

async function needDirectory(directory: string): Promise<void> {
  const found = await stat(directory).catch((error: NodeJS.ErrnoException) => error);
  if (found instanceof Error) throw new Error(`its directory: ${reason(found)}`, { cause: found });
}

/** The code of the refusal, or '' when somebody answers. */
function knock(path: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const socket = connect({ path });
  socket.on('connect', () => {
    socket.destroy();
    resolve('');
  });
  socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'unknown'));
  return promise;
}

function reason(error: { readonly code?: string | undefined; readonly message?: string }): string {
  return REASONS[error.code ?? ''] ?? error.message ?? 'unknown error';
}

const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  ENOENT: 'no such directory',
  ENOTDIR: 'a part of the path is no directory',
};

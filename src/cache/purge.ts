// What is to be thrown out, of entries and of fetches that would become some.

import { hash } from 'node:crypto';

/** All that is given must match; null = any. */
export interface Purge {
  readonly upstream: string | null;
  /** See placeOf. */
  readonly uri: string | null;
  /** Beginning of the path below the upstream. */
  readonly prefix: string | null;
  readonly key: string | null;
}

interface Stored {
  readonly upstream: string;
  readonly uri: string;
  readonly key: string;
}

export function isMeant(purge: Purge, { upstream, uri, key }: Stored): boolean {
  if (purge.upstream !== null && purge.upstream !== upstream) return false;
  if (purge.uri !== null && purge.uri !== uri) return false;
  if (purge.key !== null && purge.key !== key) return false;
  return purge.prefix === null || uri.startsWith(purge.prefix);
}

/**
 * The path of a target below the upstream and a hash of its query: where answers are found that an unsafe method made void.
 * A query may hold a key or a signature, and the names of things in Redis are shown by its tools.
 */
export function placeOf(uri: string): string {
  const at = uri.indexOf('?');
  return at < 0 ? uri : `${uri.slice(0, at)}?${hash('sha256', uri.slice(at), 'base64url')}`;
}

// What is to be thrown out, of entries and of fetches that would become some.

/** All that is given must match; null = any. */
export interface Purge {
  readonly upstream: string | null;
  /** Path and query below the upstream. */
  readonly uri: string | null;
  /** Beginning of that. */
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

// Reads where a Redis server is: a URL, or the path of a unix socket. Either may hold a password.

const RULE =
  'must be a Redis URL such as redis://127.0.0.1:6379 or rediss://host/0, or a socket such as unix:/run/redis.sock';

/** What ioredis takes (a URL, or the plain path of a socket), or the rule it breaks. */
export function parseRedisUrl(raw: unknown): { readonly url: string } | string {
  if (typeof raw !== 'string') return RULE;
  if (/[\x00-\x20\x7f]/.test(raw)) return 'must have no spaces or control characters';
  // ioredis reads a query as options, of a socket's path too: they would undo the proxy's own.
  if (/[?#]/.test(raw)) return 'must have no query and no fragment';
  const path = /^(?:unix:(?:\/\/)?)?(\/(?!\/).+)$/.exec(raw)?.[1];
  if (path !== undefined) return { url: path };
  const url = /^rediss?:\/\/[^/]/.test(raw) ? URL.parse(raw) : null;
  if (url === null || url.hostname === '' || url.port === '0') return RULE;
  return /^(\/[0-9]{0,4})?$/.test(url.pathname) ? { url: raw } : 'must have no path but the number of a database';
}

/** The text without what stands before its last @, but for a scheme. */
export function withoutPassword(text: string): string {
  return text.replace(/^(.*?:\/\/)?.*@/s, '$1***@');
}

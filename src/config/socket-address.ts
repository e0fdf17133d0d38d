// Reads the path of a unix socket, as it stands behind `unix:` in an address or a URL.

/** sun_path of Linux holds 108 bytes, the last one 0. macOS has 104, and says so at start. */
const MAX_BYTES = 107;

export const SOCKET_PREFIX = 'unix:';

/** null when one can be made there, else the rule that is broken. */
export function socketPathRule(path: string): string | null {
  if (path.startsWith('@'))
    return 'must be a socket with a path: an abstract one (unix:@…) has no permissions to guard it';
  if (!path.startsWith('/') || path.endsWith('/'))
    return 'must be unix: and an absolute path such as unix:/run/api.sock';
  if (path.includes('//')) return 'must have no // in the path of its socket: it is written unix:/run/api.sock';
  if (/[\x00-\x1f\x7f]/.test(path)) return 'must have no control characters in the path of its socket';
  if (Buffer.byteLength(path) > MAX_BYTES) return `must have a path of at most ${MAX_BYTES} bytes to its socket`;
  return null;
}

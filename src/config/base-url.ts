// Reads an upstream's `url`: the origin of its connections and the path put before every request's own.

import { SOCKET_PREFIX, socketPathRule } from './socket-address.ts';

export interface BaseUrl {
  /** Absolute path of a unix socket; '' = TCP. */
  readonly socketPath: string;
  readonly protocol: 'http:' | 'https:';
  /** Without the brackets of an IPv6 address; localhost for a unix socket. */
  readonly hostname: string;
  readonly port: number;
  readonly origin: string;
  /** '' or '/path' without a slash at the end. */
  readonly basePath: string;
}

/** What a base URL may not hold, in the order it is looked for, and the rule to name. */
const REFUSED: readonly (readonly [RegExp, string])[] = [
  [/[\x00-\x20\x7f]/, 'must have no spaces or control characters'],
  [/\\/, 'must have no backslash'],
  [/\?/, 'must have no query'],
  [/#/, 'must have no fragment'],
  [/^https?:\/\/[^/]*@/, 'must have no user name or password: send credentials in a header'],
  [/%2e/i, 'must have no %2e in its path'],
  [/%5c|%00/i, 'must have no %5c or %00 in its path'],
  [/^https?:\/\/[^/]*\/(.*\/)?\.{1,2}(\/|$)/, 'must have no dot segments in its path'],
  [/^https?:\/\/.*\/\//, 'must have no // in its path'],
];

/**
 * The parts of the URL, or the rule it breaks. The text itself is judged before URL reads it, because URL resolves dot
 * segments and turns backslashes into slashes without a word.
 */
export function parseBaseUrl(raw: unknown): BaseUrl | string {
  const rule = 'must be a URL such as https://api.openai.com, http://127.0.0.1:9000/v1 or unix:/run/api.sock';
  if (typeof raw === 'string' && raw.startsWith(SOCKET_PREFIX)) return parseSocketUrl(raw.slice(SOCKET_PREFIX.length));
  if (typeof raw !== 'string' || !/^https?:\/\/[^/]/.test(raw)) return rule;
  // As nginx has it. It would be the host `unix`.
  if (/^https?:\/\/unix:\//.test(raw))
    return 'must be written unix:/path.sock or unix:/path.sock:/base, without http://';
  for (const [pattern, refusal] of REFUSED) if (pattern.test(raw)) return refusal;
  const url = URL.parse(raw);
  if (url === null || url.port === '0') return rule;
  const protocol = url.protocol as BaseUrl['protocol'];
  return {
    socketPath: '',
    protocol,
    hostname: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? (protocol === 'https:' ? 443 : 80) : Number(url.port),
    origin: url.origin,
    basePath: url.pathname.replace(/\/$/, ''),
  };
}

/** `/path.sock` or `/path.sock:/base/path`, as nginx has it behind `http://unix:`. */
function parseSocketUrl(text: string): BaseUrl | string {
  const [socketPath, ...rest] = text.split(':') as [string, ...string[]];
  const basePath = rest.join(':');
  if (rest.length > 0 && !basePath.startsWith('/'))
    return 'must have a path behind the : such as unix:/run/api.sock:/v1';
  // A `?` could be in the name of a file, and never is.
  const broken = socketPathRule(socketPath) ?? REFUSED.slice(0, 4).find(([pattern]) => pattern.test(socketPath))?.[1];
  if (broken !== undefined) return broken;
  const base = parseBaseUrl(`http://localhost${basePath}`);
  return typeof base === 'string' ? base : { ...base, socketPath };
}

/** Host and port, as a Host field or `:authority` says them. */
export function authorityOf(origin: string): string {
  return origin.slice(origin.indexOf('//') + 2);
}

/** As the config writes it, for people. */
export function shownUrl({
  socketPath,
  origin,
  basePath,
}: Pick<BaseUrl, 'socketPath' | 'origin' | 'basePath'>): string {
  if (socketPath === '') return origin + basePath;
  return SOCKET_PREFIX + socketPath + (basePath === '' ? '' : `:${basePath}`);
}

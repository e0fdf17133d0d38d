// Reads an upstream's `url`: the origin of its connections and the path put before every request's own.

export interface BaseUrl {
  readonly protocol: 'http:' | 'https:';
  /** Without the brackets of an IPv6 address. */
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
  const rule = 'must be a URL such as https://api.openai.com or http://127.0.0.1:9000/v1';
  if (typeof raw !== 'string' || !/^https?:\/\/[^/]/.test(raw)) return rule;
  for (const [pattern, refusal] of REFUSED) if (pattern.test(raw)) return refusal;
  const url = URL.parse(raw);
  if (url === null || url.port === '0') return rule;
  const protocol = url.protocol as BaseUrl['protocol'];
  return {
    protocol,
    hostname: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? (protocol === 'https:' ? 443 : 80) : Number(url.port),
    origin: url.origin,
    basePath: url.pathname.replace(/\/$/, ''),
  };
}

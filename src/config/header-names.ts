// Names of headers: how they are spelt, and which ones the proxy sets itself on what it sends.

/** A token of RFC 9110 section 5.6.2. */
export const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** Hop by hop (RFC 9110 section 7.6.1), framing (RFC 9112 section 6), and what is answered by the proxy. */
const GOVERNED = new Set([
  'connection',
  'content-length',
  'expect',
  'host',
  'http2-settings',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);
const GOVERNED_PREFIXES = ['proxy-', 'x-aiproxy-'];

/** True for a header that nobody but the proxy may set. */
export function isGoverned(name: string): boolean {
  const lower = name.toLowerCase();
  return GOVERNED.has(lower) || GOVERNED_PREFIXES.some((prefix) => lower.startsWith(prefix));
}

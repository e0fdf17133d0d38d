// What an answer says after its body (RFC 9110 section 6.5), as far as it goes on to the client.

const NONE: readonly string[] = [];

/**
 * Fields that may not stand behind a body, as who reads them there has acted without them: framing, routing, authentication, what
 * says how the body is to be read (RFC 9110 section 6.5.1), and what belongs to the connection.
 */
const NOT_BEHIND = new Set([
  'age',
  'authorization',
  'cache-control',
  'connection',
  'content-encoding',
  'content-length',
  'content-range',
  'content-type',
  'cookie',
  'expires',
  'host',
  'keep-alive',
  'location',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'retry-after',
  'set-cookie',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'vary',
  'www-authenticate',
]);

/**
 * @param raw flat pairs of name and value bytes as undici's parser gives them; null = there are none
 * @param max fields at most. Beyond that none passes: the body is whole, and trailers may be dropped (RFC 9110 section 6.5)
 * @returns flat pairs for the client; of a field that could break its message apart, nothing
 */
export function readTrailers(raw: readonly Buffer[] | null | undefined, max: number): readonly string[] {
  if (!raw || raw.length === 0 || raw.length > 2 * max) return NONE;
  const trailers: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i]!.toString('latin1');
    const value = raw[i + 1]!.toString('latin1');
    if (!NOT_BEHIND.has(name.toLowerCase()) && isHarmless(name) && isHarmless(value)) trailers.push(name, value);
  }
  return trailers;
}

function isHarmless(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if ((c < 0x20 && c !== 0x09) || c === 0x7f) return false;
  }
  return true;
}

// The bytes of a request head → request line and raw header pairs. Strict: whatever two parsers could read differently is refused.
// RFC 9112 sections 2.2 (no bare CR or LF), 3 (request line), 5 (no space before the colon, no line folding).

/** A head taken apart, or `problem` set. */
export interface HeadLines {
  readonly method: string;
  readonly url: string;
  readonly http10: boolean;
  /** Flat raw pairs, values without surrounding white space. */
  readonly raw: string[];
}

const CR = 0x0d;
const LF = 0x0a;
const SP = 0x20;
const HT = 0x09;
const COLON = 0x3a;

/** 1 for the characters of a token (RFC 9110 section 5.6.2). */
const TOKEN = new Uint8Array(256);
for (const c of "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
  TOKEN[c.charCodeAt(0)] = 1;

/** May be part of a field name. */
export function isTokenByte(c: number): boolean {
  return TOKEN[c] === 1;
}

/**
 * @param text the head as latin1, each line with its CRLF, without the empty line at the end
 * @returns the parts, or a sentence that says what is wrong
 */
export function parseHeadLines(text: string): HeadLines | string {
  const lineEnd = text.indexOf('\r\n');
  const methodEnd = text.indexOf(' ');
  if (methodEnd <= 0 || methodEnd > lineEnd) return 'it does not begin with a method, a target and a version';
  for (let i = 0; i < methodEnd; i++) if (TOKEN[text.charCodeAt(i)] === 0) return 'its method is not a token';
  const urlEnd = lineEnd - 9;
  // A target has no space, so the version is exactly the last word of the line.
  if (urlEnd <= methodEnd + 1 || text.charCodeAt(urlEnd) !== SP)
    return 'it does not begin with a method, a target and a version';
  const version = text.slice(urlEnd + 1, lineEnd);
  if (version !== 'HTTP/1.1' && version !== 'HTTP/1.0') return 'only HTTP/1.1 and HTTP/1.0 are spoken here';
  for (let i = methodEnd + 1; i < urlEnd; i++) {
    const c = text.charCodeAt(i);
    if (c <= SP || c >= 0x7f) return 'its target has a character that must be percent-encoded';
  }
  const raw: string[] = [];
  const problem = readFields(text, lineEnd + 2, raw);
  if (problem) return problem;
  return {
    method: text.slice(0, methodEnd),
    url: text.slice(methodEnd + 1, urlEnd),
    http10: version === 'HTTP/1.0',
    raw,
  };
}

/** Reads `name: value CRLF` lines from `at` to the end of the text. */
function readFields(text: string, at: number, raw: string[]): string {
  let i = at;
  while (i < text.length) {
    const nameStart = i;
    while (TOKEN[text.charCodeAt(i)] === 1) i++;
    if (i === nameStart) return 'a header line does not begin with a name (folded lines are not allowed)';
    if (text.charCodeAt(i) !== COLON) return 'a header name is not followed by a colon';
    const name = text.slice(nameStart, i);
    i++;
    while (text.charCodeAt(i) === SP || text.charCodeAt(i) === HT) i++;
    const valueStart = i;
    let valueEnd = i;
    for (;;) {
      const c = text.charCodeAt(i);
      if (c === CR) break;
      if ((c < SP && c !== HT) || c === 0x7f) return 'a header value has a control character';
      i++;
      if (c !== SP && c !== HT) valueEnd = i;
    }
    if (text.charCodeAt(i + 1) !== LF) return 'a header value has a bare CR';
    raw.push(name, text.slice(valueStart, valueEnd));
    i += 2;
  }
  return '';
}

/** A partial head that can no longer become a good one: a line feed without its carriage return. */
export function hasBareLineFeed(bytes: Buffer): boolean {
  for (let i = bytes.indexOf(LF); i >= 0; i = bytes.indexOf(LF, i + 1)) {
    if (i === 0 || bytes[i - 1] !== CR) return true;
  }
  return false;
}

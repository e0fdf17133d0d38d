// Which request targets are allowed, and what of them goes to the upstream. Only ever refuses or forwards the very bytes that came.
// Sources: RFC 9112 section 3.2; the prefix escapes of other proxies (GHSA-qmw8-3v4g-gwj4, GHSA-2q7r-29rg-6m5h, CVE-2026-44373).

/** A target taken apart: `/openai/v1/x?q` is name `openai`, rest `/v1/x?q`, with the query at `queryAt` in rest (or its length). */
export interface Target {
  readonly name: string;
  readonly rest: string;
  readonly queryAt: number;
}

/** How often an encoded path is decoded to see what a careless upstream would make of it. */
const MAX_DECODINGS = 4;

const SPACE = 0x20;
const SLASH = 0x2f;
const QUESTION = 0x3f;
const HASH = 0x23;
const PERCENT = 0x25;
const BACKSLASH = 0x5c;
const DOT = 0x2e;
const SEMICOLON = 0x3b;

/**
 * Takes the origin-form of a request target apart.
 * @param only name of the upstream that the whole path belongs to; '' = the first segment names it
 * @returns the target, or a sentence that says what is wrong with it (without the query)
 */
export function parseTarget(url: string, only = ''): Target | string {
  if (url.charCodeAt(0) !== SLASH) {
    return url === '*'
      ? 'asterisk-form (*) names no upstream'
      : 'use a path such as /openai/v1/models, not an absolute URL';
  }
  let pathEnd = url.length;
  let nameEnd = only === '' ? -1 : 0;
  let previous = 0;
  let suspicious = false;
  for (let i = 0; i < url.length; i++) {
    const c = url.charCodeAt(i);
    if (c <= 0x20 || c >= 0x7f) return 'it has a character that must be percent-encoded';
    if (c === HASH) return 'a fragment (#) never belongs in a request';
    if (c === QUESTION) {
      pathEnd = i;
      break;
    }
    if (c === BACKSLASH) return 'it has a backslash';
    if (c === SLASH) {
      if (previous === SLASH) return 'it has an empty segment (//)';
      if (i > 0 && nameEnd < 0) nameEnd = i;
    } else if (c === PERCENT || (c === DOT && previous === SLASH)) suspicious = true;
    previous = c;
  }
  for (let i = pathEnd; i < url.length; i++) {
    const c = url.charCodeAt(i);
    if (c <= 0x20 || c >= 0x7f) return 'its query has a character that must be percent-encoded';
    if (c === HASH) return 'a fragment (#) never belongs in a request';
  }
  if (nameEnd < 0) nameEnd = pathEnd;
  if (suspicious) {
    const problem = problemOfPath(url.slice(0, pathEnd));
    if (problem) return problem;
  }
  const name = only === '' ? url.slice(1, nameEnd) : only;
  return { name, rest: url.slice(nameEnd), queryAt: pathEnd - nameEnd };
}

/** Looks at a path as it stands and as it would look after one or more rounds of percent-decoding. */
function problemOfPath(path: string): string | null {
  let text = path;
  for (let round = 0; round <= MAX_DECODINGS; round++) {
    if (hasDotSegment(text)) return 'it has a dot segment (. or ..)';
    if (round > 0 && hasForbiddenByte(text)) return 'it has an encoded backslash or control character';
    if (round > 0 && hasOddEncoding(text)) return 'it has a character in an overlong or %u encoding';
    if (!text.includes('%')) return null;
    const decoded = decodeOnce(text);
    // What is malformed only now (`%25zz`) a lenient server leaves as it is, and goes on with the rest.
    if (decoded.malformed && round === 0) return 'it has a % that is not followed by two hex digits';
    if (decoded.text === text) return null;
    text = decoded.text;
  }
  return 'it is percent-encoded too many times';
}

/** A segment `.` or `..`, also with something behind it that some servers cut off before they resolve: `..;x`, `..?x`, `.. `. */
function hasDotSegment(path: string): boolean {
  for (let start = 0; start <= path.length; ) {
    let end = start;
    while (end < path.length && path.charCodeAt(end) !== SLASH && path.charCodeAt(end) !== BACKSLASH) end++;
    let dots = start;
    while (dots < end && path.charCodeAt(dots) === DOT) dots++;
    if ((dots === start + 1 || dots === start + 2) && (dots === end || endsSegment(path.charCodeAt(dots)))) return true;
    start = end + 1;
  }
  return false;
}

function endsSegment(c: number): boolean {
  return c === SEMICOLON || c === QUESTION || c === HASH || c === SPACE;
}

function hasForbiddenByte(path: string): boolean {
  for (let i = 0; i < path.length; i++) {
    const c = path.charCodeAt(i);
    if (c < 0x20 || c === 0x7f || c === BACKSLASH) return true;
  }
  return false;
}

/** UTF-8 longer than need be, which lenient decoders take for a dot or a slash (CVE-2008-2938), and the `%u002e` of IIS. */
function hasOddEncoding(path: string): boolean {
  for (let i = 0; i < path.length; i++) {
    const c = path.charCodeAt(i);
    const next = path.charCodeAt(i + 1);
    if ((c === 0xc0 || c === 0xc1) && next >= 0x80 && next < 0xc0) return true;
    if ((c === 0xe0 && next >= 0x80 && next < 0xa0) || (c === 0xf0 && next >= 0x80 && next < 0x90)) return true;
    if (c === PERCENT && (next | 0x20) === 0x75 && hexDigit(path.charCodeAt(i + 2)) >= 0) return true;
  }
  return false;
}

/** One round of percent-decoding, bytes as latin1; a malformed % stays as it is. */
function decodeOnce(text: string): { text: string; malformed: boolean } {
  let out = '';
  let malformed = false;
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) !== PERCENT) {
      out += text[i];
      continue;
    }
    const high = hexDigit(text.charCodeAt(i + 1));
    const low = hexDigit(text.charCodeAt(i + 2));
    if (high < 0 || low < 0) {
      malformed = true;
      out += '%';
      continue;
    }
    out += String.fromCharCode(high * 16 + low);
    i += 2;
  }
  return { text: out, malformed };
}

function hexDigit(c: number): number {
  if (c >= 0x30 && c <= 0x39) return c - 0x30;
  const lower = c | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/** The path sent to the upstream: its base path, then the rest byte for byte. */
export function upstreamPath(basePath: string, target: Target): string {
  if (target.queryAt === 0) return `${basePath}/${target.rest}`;
  return basePath === '' ? target.rest : basePath + target.rest;
}

/** Ready test for path patterns such as `/health` and `/static/*` (a star only at the end), on the rest of a target. */
export class PathPatterns {
  readonly #exact: Set<string>;
  readonly #prefixes: readonly string[];

  constructor(patterns: readonly string[]) {
    this.#exact = new Set(patterns.filter((pattern) => !pattern.endsWith('*')));
    this.#prefixes = patterns.filter((pattern) => pattern.endsWith('*')).map((pattern) => pattern.slice(0, -1));
  }

  matches(target: Target): boolean {
    if (this.#exact.size === 0 && this.#prefixes.length === 0) return false;
    // Without a path of its own it is sent as `/`.
    const path = target.queryAt === 0 ? '/' : target.rest.slice(0, target.queryAt);
    if (this.#exact.has(path)) return true;
    for (const prefix of this.#prefixes) if (path.startsWith(prefix)) return true;
    return false;
  }
}

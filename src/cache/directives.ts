// Reads Cache-Control (RFC 9111 section 5.2), strictly: what cannot be read is never taken for a permission.

/** Section 1.2.2: a larger number of seconds counts as this one. */
const MOST_SECONDS = 2 ** 31;

const TAB = 0x09;
const SPACE = 0x20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const EQUALS = 0x3d;
const BACKSLASH = 0x5c;

/** The directives of one head, all its Cache-Control lines together. Names are asked for in lower case. */
export class Directives {
  /** The syntax is broken somewhere. What could be told apart is still here, for directives that forbid. */
  malformed = false;
  readonly #names: string[] = [];
  /** null = no argument */
  readonly #arguments: (string | null)[] = [];

  add(name: string, argument: string | null): void {
    this.#names.push(name);
    this.#arguments.push(argument);
    // A list of field names that cannot be read might have named any of them.
    if (argument !== null && (name === 'private' || name === 'no-cache') && listed(argument, []) === null) {
      this.malformed = true;
    }
  }

  has(name: string): boolean {
    return this.#names.includes(name);
  }

  /** It is there, and nowhere with an argument. */
  isBare(name: string): boolean {
    return this.has(name) && this.#names.every((other, i) => other !== name || this.#arguments[i] === null);
  }

  /** -1 = absent, NaN = malformed, or several that differ (section 4.2.1). */
  seconds(name: string): number {
    let seconds = -1;
    for (let i = 0; i < this.#names.length; i++) {
      if (this.#names[i] !== name) continue;
      const next = deltaSeconds(this.#arguments[i]!);
      if (Number.isNaN(next) || (seconds >= 0 && next !== seconds)) return Number.NaN;
      seconds = next;
    }
    return seconds;
  }

  /** The lower-case names that a qualified `private` or `no-cache` lists; null = absent, or it means the whole answer. */
  fieldNames(name: string): string[] | null {
    const all: string[] = [];
    for (let i = 0; i < this.#names.length; i++) {
      if (this.#names[i] !== name) continue;
      const argument = this.#arguments[i]!;
      const before = all.length;
      // `private=""` names nothing: taken for `private`, as undici had to learn (CVE-2026-13697).
      if (argument === null || listed(argument, all) === null || all.length === before) return null;
    }
    return all.length > 0 ? all : null;
  }
}

/** @param values of all Cache-Control lines of one head, in their order */
export function parseDirectives(values: readonly string[]): Directives {
  const directives = new Directives();
  for (const line of values) {
    let at = skipBlanks(line, 0);
    while (at < line.length) {
      // Empty list elements are to be skipped (RFC 9110 section 5.6.1.2).
      at = line.charCodeAt(at) === COMMA ? at + 1 : readDirective(directives, line, at);
      at = skipBlanks(line, at);
    }
  }
  return directives;
}

/** `token [ "=" ( token / quoted-string ) ]` at `start`. @returns where the next element's comma is, or the end */
function readDirective(directives: Directives, line: string, start: number): number {
  const nameEnd = tokenEnd(line, start);
  let end = nameEnd;
  let argument: string | null = null;
  if (nameEnd > start && line.charCodeAt(nameEnd) === EQUALS) {
    end = nameEnd + 1;
    if (line.charCodeAt(end) !== QUOTE) {
      end = tokenEnd(line, end);
      argument = line.slice(nameEnd + 1, end);
    } else {
      const closed = quotedEnd(line, end);
      if (closed > 0) {
        argument = unescaped(line.slice(end + 1, closed - 1));
        end = closed;
      }
    }
  }
  const next = skipBlanks(line, end);
  const whole = nameEnd > start && (next === line.length || line.charCodeAt(next) === COMMA);
  if (!whole) directives.malformed = true;
  if (nameEnd > start) directives.add(line.slice(start, nameEnd).toLowerCase(), argument);
  if (whole) return next;
  const comma = line.indexOf(',', end);
  return comma < 0 ? line.length : comma;
}

/** `1*DIGIT` (section 1.2.2), else NaN. */
export function deltaSeconds(text: string | null): number {
  if (text === null || text === '') return Number.NaN;
  let seconds = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return Number.NaN;
    seconds = Math.min(seconds * 10 + digit, MOST_SECONDS);
  }
  return seconds;
}

/** `tchar` of RFC 9110 section 5.6.2. */
function isTokenCharacter(c: number): boolean {
  if ((c >= 0x61 && c <= 0x7a) || (c >= 0x41 && c <= 0x5a) || (c >= 0x30 && c <= 0x39)) return true;
  if (c === 0x21 || c === 0x7c || c === 0x7e) return true; // ! | ~
  if (c >= 0x23 && c <= 0x27) return true; // # $ % & '
  return c === 0x2a || c === 0x2b || c === 0x2d || c === 0x2e || (c >= 0x5e && c <= 0x60); // * + - . ^ _ `
}

function tokenEnd(text: string, start: number): number {
  let end = start;
  while (end < text.length && isTokenCharacter(text.charCodeAt(end))) end++;
  return end;
}

export function isToken(text: string): boolean {
  return text !== '' && tokenEnd(text, 0) === text.length;
}

/** Optional white space of RFC 9110 section 5.6.3. */
function skipBlanks(text: string, start: number): number {
  let at = start;
  while (at < text.length && (text.charCodeAt(at) === SPACE || text.charCodeAt(at) === TAB)) at++;
  return at;
}

/** Behind the closing quote of the quoted-string (RFC 9110 section 5.6.4) at `start`; -1 = it has none, or holds a control. */
function quotedEnd(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    let c = text.charCodeAt(i);
    if (c === QUOTE) return i + 1;
    if (c === BACKSLASH) c = text.charCodeAt(++i);
    if ((c < SPACE && c !== TAB) || c === 0x7f) return -1;
  }
  return -1;
}

function unescaped(text: string): string {
  return text.includes('\\') ? text.replace(/\\(.)/gs, '$1') : text;
}

/** Adds the field names of a list, in lower case. null = something in it is none. */
function listed(argument: string, names: string[]): string[] | null {
  for (const element of argument.split(',')) {
    const name = element.replace(/^[ \t]+|[ \t]+$/g, '').toLowerCase();
    if (name === '') continue;
    if (!isToken(name)) return null;
    names.push(name);
  }
  return names;
}

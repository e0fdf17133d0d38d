// What of a request's fields and query counts in a cache key, and in which spelling.
import { sameName, valuesOf } from '../fields.ts';
import type { PartSink } from './key-parts.ts';

const TAB = 0x09;
const SPACE = 0x20;
const QUOTE = 0x22;
const PERCENT = 0x25;
const PLUS = 0x2b;
const COMMA = 0x2c;

/** A field of the request whose lines count, and the name of the part they are. */
export interface KeyField {
  /** Lower case. */
  readonly name: string;
  readonly part: string;
}

/** Sorted, each once: the order in a config says nothing. @param role why they count: `header accept` is not `accept` */
export function keyFields(role: string, names: readonly string[]): KeyField[] {
  const unique = new Set(names.map((name) => name.toLowerCase()));
  return [...unique].sort().map((name) => ({ name, part: `${role} ${name}` }));
}

/** The lines of a field, each by itself: absent, empty and twice are three different things. */
export function addLines(sink: PartSink, pairs: readonly string[], lower: string): void {
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i]!.length === lower.length && sameName(pairs[i]!, lower)) sink.text(lower, pairs[i + 1]!);
  }
}

export function addSecretLines(sink: PartSink, pairs: readonly string[], { name, part }: KeyField): void {
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i]!.length === name.length && sameName(pairs[i]!, name)) sink.secret(part, pairs[i + 1]!);
  }
}

export function addListLines(sink: PartSink, pairs: readonly string[], lower: string): void {
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i]!.length === lower.length && sameName(pairs[i]!, lower))
      sink.text(lower, normalisedList(pairs[i + 1]!));
  }
}

/**
 * Lower case, without blanks around commas. A value with a quote or beyond ASCII stays as it is: commas and capitals
 * mean something else there. Such a value never equals a normalised one, which has neither.
 */
export function normalisedList(value: string): string {
  let plain = true;
  for (let i = 0; i < value.length; i++) {
    const c = value.charCodeAt(i);
    if (c === QUOTE || c > 0x7e) return value;
    if (c >= 0x41 && c <= 0x5a) plain = false;
    else if (isBlank(c) && (isEdge(value, i - 1) || isEdge(value, i + 1))) plain = false;
  }
  return plain ? value : respelt(value);
}

/** A comma, an end of the value, or a blank that may lead to one. */
function isEdge(value: string, at: number): boolean {
  if (at < 0 || at >= value.length) return true;
  const c = value.charCodeAt(at);
  return c === COMMA || isBlank(c);
}

function respelt(value: string): string {
  let out = '';
  for (let start = 0; start <= value.length; ) {
    const comma = value.indexOf(',', start);
    const end = comma < 0 ? value.length : comma;
    let from = start;
    let to = end;
    while (from < to && isBlank(value.charCodeAt(from))) from++;
    while (to > from && isBlank(value.charCodeAt(to - 1))) to--;
    out += value.slice(from, to);
    if (comma >= 0) out += ',';
    start = end + 1;
  }
  return out.toLowerCase();
}

function isBlank(c: number): boolean {
  return c === SPACE || c === TAB;
}

/**
 * The raw query without the parameters that do not count, the rest untouched and in its order.
 * @param at where the question mark stands, -1 = there is none
 * @param ignored decoded names, bytes as latin1
 * @returns null where there is no query or nothing of it is left
 */
export function countedQuery(path: string, at: number, ignored: readonly string[]): string | null {
  if (at < 0) return null;
  if (ignored.length === 0) return path.slice(at + 1);
  let kept: string | null = null;
  let run = -1;
  for (let start = at + 1; start <= path.length; ) {
    const ampersand = path.indexOf('&', start);
    const end = ampersand < 0 ? path.length : ampersand;
    if (!isIgnored(path, start, end, ignored)) {
      if (run < 0) run = start;
    } else if (run >= 0) {
      kept = joined(kept, path.slice(run, start - 1));
      run = -1;
    }
    start = end + 1;
  }
  return run < 0 ? kept : joined(kept, path.slice(run));
}

function joined(before: string | null, run: string): string {
  return before === null ? run : `${before}&${run}`;
}

function isIgnored(path: string, start: number, end: number, ignored: readonly string[]): boolean {
  for (const name of ignored) if (isNamed(path, start, end, name)) return !hasSemicolon(path, start, end);
  return false;
}

/** To some servers `;` starts the next parameter: nobody may hide one that counts in one that does not. */
function hasSemicolon(path: string, start: number, end: number): boolean {
  const at = path.indexOf(';', start);
  return at >= 0 && at < end;
}

/** Compares the name of a parameter as it decodes; a malformed % stands for itself. */
function isNamed(path: string, start: number, end: number, name: string): boolean {
  let at = start;
  for (let i = 0; i < name.length; i++) {
    if (at >= end) return false;
    let c = path.charCodeAt(at++);
    if (c === 0x3d) return false;
    if (c === PLUS) c = SPACE;
    else if (c === PERCENT) {
      const byte = hexDigit(path.charCodeAt(at)) * 16 + hexDigit(path.charCodeAt(at + 1));
      if (byte >= 0) {
        c = byte;
        at += 2;
      }
    }
    if (c !== name.charCodeAt(i)) return false;
  }
  return at === end || path.charCodeAt(at) === 0x3d;
}

/** NaN for anything else, so that no sum with it is a byte. */
function hexDigit(c: number): number {
  if (c >= 0x30 && c <= 0x39) return c - 0x30;
  const lower = c | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : Number.NaN;
}

/** May the body be read as JSON? Without Content-Type it is tried; with another charset or coding its bytes are not JSON's. */
export function saysJson(pairs: readonly string[]): boolean {
  for (const coding of valuesOf(pairs, 'content-encoding')) {
    if (coding.trim().toLowerCase() !== 'identity') return false;
  }
  const types = valuesOf(pairs, 'content-type');
  return types.length === 0 || (types.length === 1 && isJsonType(types[0]!.toLowerCase()));
}

function isJsonType(value: string): boolean {
  const semicolon = value.indexOf(';');
  const type = (semicolon < 0 ? value : value.slice(0, semicolon)).trim();
  if (type !== 'application/json' && !type.endsWith('+json')) return false;
  const parameters = semicolon < 0 ? '' : value.slice(semicolon + 1).trim();
  if (!parameters.includes('charset')) return true;
  return parameters === 'charset=utf-8' || parameters === 'charset="utf-8"';
}

// Vary (RFC 9111 section 4.1): which request fields an answer depends on, and whether two requests agree in them.

import { sameName, valuesOf } from '../fields.ts';
import { isToken } from './directives.ts';
import type { EntryParts } from './entry.ts';

/** More names than this make a key that nothing hits, and a comparison that costs. */
const MOST_NAMES = 32;

/** A request without the field; no field value can be this one, so it differs from an empty field. */
export const ABSENT = '\u0000';

/** Lower-case names, sorted, each once. '*' = no other request is the same; null = malformed, or too many names. */
export function varyNames(headers: readonly string[]): string[] | '*' | null {
  const elements = valuesOf(headers, 'vary')
    .join(',')
    .toLowerCase()
    .split(',')
    .map((element) => element.replace(/^[ \t]+|[ \t]+$/g, ''))
    .filter((element) => element !== '');
  if (elements.includes('*')) return '*';
  if (elements.length > MOST_NAMES || !elements.every(isToken)) return null;
  return [...new Set(elements)].sort();
}

/** The normalised values of the named fields, in the order of the names. */
export function varyValues(names: readonly string[], requestPairs: readonly string[]): string[] {
  const values: string[] = [];
  for (let i = 0; i < names.length; i++) values.push(varyValue(names[i]!, requestPairs));
  return values;
}

/** The request would have got this variant. Allocates nothing where the answer had no Vary. */
export function sameVariant(entry: Pick<EntryParts, 'vary' | 'varyValues'>, requestPairs: readonly string[]): boolean {
  for (let i = 0; i < entry.vary.length; i++) {
    if (varyValue(entry.vary[i]!, requestPairs) !== entry.varyValues[i]) return false;
  }
  return true;
}

function varyValue(name: string, pairs: readonly string[]): string {
  let value = ABSENT;
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i]!.length !== name.length || !sameName(pairs[i]!, name)) continue;
    value = value === ABSENT ? pairs[i + 1]! : `${value}, ${pairs[i + 1]!}`;
  }
  if (value === ABSENT) return value;
  const plain = normalised(value);
  // Their words are case-insensitive (RFC 9110 sections 12.5.1, 12.5.3, 12.5.4); of other fields we know nothing.
  const anyCase = name === 'accept' || name === 'accept-encoding' || name === 'accept-language';
  return anyCase ? plain.toLowerCase() : plain;
}

/** Commas become ', ' and outer blanks go; what is in a quoted string stays as it is. */
function normalised(value: string): string {
  let text = '';
  let start = 0;
  let quoted = false;
  for (let i = 0; i < value.length; i++) {
    const c = value.charCodeAt(i);
    if (c === 0x5c && quoted) i++;
    else if (c === 0x22) quoted = !quoted;
    else if (c === 0x2c && !quoted) {
      text += `${trimmed(value, start, i)}, `;
      start = i + 1;
    }
  }
  return text + trimmed(value, start, value.length);
}

function trimmed(text: string, start: number, end: number): string {
  let from = start;
  let to = end;
  while (from < to && isBlank(text.charCodeAt(from))) from++;
  while (to > from && isBlank(text.charCodeAt(to - 1))) to--;
  return from === 0 && to === text.length ? text : text.slice(from, to);
}

function isBlank(c: number): boolean {
  return c === 0x20 || c === 0x09;
}

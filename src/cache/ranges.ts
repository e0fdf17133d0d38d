// Parts of a stored whole answer (RFC 9110 section 14): single byte ranges are cut here, anything else is left to the upstream.

import { sameName, valuesOf } from '../fields.ts';
import { isStrong } from './conditional.ts';
import { parseHttpDate } from './dates.ts';
import type { EntryParts } from './entry.ts';
import type { RequestFields } from './request-fields.ts';

/** Offsets of the first and the last byte, both included. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** `whole` = send all of it; `pass` = several ranges: ask the upstream; `unsatisfiable` = 416. */
export type RangeVerdict = 'whole' | 'pass' | 'unsatisfiable' | Span;

type Ranged = Pick<EntryParts, 'status' | 'headers' | 'body' | 'terms'>;

export function rangeOf(entry: Ranged, request: RequestFields): RangeVerdict {
  // Section 14.2: a Range counts only where the answer would have been a 200, and its If-Range holds.
  if (request.range === '' || entry.status !== 200) return 'whole';
  if (request.ifRange !== '' && !ifRangeHolds(entry, request.ifRange)) return 'whole';
  return readRange(request.range, entry.body.length);
}

/** Section 13.1.5: the same strong validator. */
function ifRangeHolds(entry: Ranged, ifRange: string): boolean {
  if (ifRange.endsWith('"')) return isStrong(ifRange) && ifRange === entry.terms.etag;
  const modified = parseHttpDate(entry.terms.lastModified);
  if (parseHttpDate(ifRange) !== modified) return false;
  // Section 8.8.2.2: a date is strong when no second change can have happened in the same second.
  const date = parseHttpDate(valuesOf(entry.headers, 'date')[0] ?? '');
  return date - modified >= 1000;
}

/** Section 14.2: a set of ranges that is not well formed is ignored, as is an unknown unit. */
function readRange(text: string, total: number): RangeVerdict {
  if (text.length < 6 || !sameName(text, 'bytes=')) return 'whole';
  let found: RangeVerdict = 'whole';
  let count = 0;
  for (const element of text.slice(6).split(',')) {
    const spec = element.replace(/^[ \t]+|[ \t]+$/g, '');
    if (spec === '') continue;
    const range = readSpec(spec, total);
    if (range === null) return 'whole';
    found = range;
    count++;
  }
  return count > 1 ? 'pass' : found;
}

/** `first-[last]` or `-suffix` (section 14.1.2). null = malformed */
function readSpec(spec: string, total: number): RangeVerdict | null {
  const dash = spec.indexOf('-');
  if (dash < 0) return null;
  const first = position(spec, 0, dash);
  const last = position(spec, dash + 1, spec.length);
  if (Number.isNaN(first) || Number.isNaN(last) || (first < 0 && last < 0)) return null;
  if (first < 0) {
    if (last === 0) return 'unsatisfiable';
    // Any suffix of nothing is satisfiable, but there is no way to say so in Content-Range.
    return total === 0 ? 'whole' : { from: Math.max(0, total - last), to: total - 1 };
  }
  if (last >= 0 && last < first) return null;
  if (first >= total) return 'unsatisfiable';
  return { from: first, to: last < 0 ? total - 1 : Math.min(last, total - 1) };
}

/** -1 = empty, NaN = no number. Inexact or Infinity beyond any body. */
function position(spec: string, start: number, end: number): number {
  if (start === end) return -1;
  let value = 0;
  for (let i = start; i < end; i++) {
    const digit = spec.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return Number.NaN;
    value = value * 10 + digit;
  }
  return value;
}

/** The head of a 206 (section 15.3.7.1) for the bytes `from` to `to`, both included, of `total`. */
export function partialHeaders(headers: readonly string[], from: number, to: number, total: number): string[] {
  const part: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!;
    if (name.length === 14 && sameName(name, 'content-length')) continue;
    if (name.length === 13 && sameName(name, 'content-range')) continue;
    part.push(name, headers[i + 1]!);
  }
  part.push('Content-Range', `bytes ${from}-${to}/${total}`, 'Content-Length', String(to - from + 1));
  return part;
}

/** The head of a 416 without a body (section 15.5.17). */
export function unsatisfiableHeaders(total: number): string[] {
  return ['Content-Range', `bytes */${total}`, 'Content-Length', '0'];
}

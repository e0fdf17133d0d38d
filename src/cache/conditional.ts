// Validators: requests that carry them, requests that we make of them, and what a 304 or HEAD says of a stored answer.
// RFC 9110 section 13, RFC 9111 sections 3.2 and 4.3.

import { valuesOf } from '../fields.ts';
import { parseHttpDate } from './dates.ts';
import type { EntryParts, Terms } from './entry.ts';
import type { RequestFields } from './request-fields.ts';

const CONDITIONALS = new Set([
  'if-none-match',
  'if-modified-since',
  'if-range',
  'range',
  'if-match',
  'if-unmodified-since',
]);

/** Of a 304: they describe the body that stays, or another exchange. */
const KEPT_FROM_STORED = new Set([
  'content-length',
  'content-encoding',
  'content-range',
  'transfer-encoding',
  'server-timing',
]);

/** A longer one is not sent: many servers take no more than 8 kB of a head, and would refuse every revalidation. */
const MOST_ETAG = 4096;

/** One entity-tag (RFC 9110 section 8.8.3). Latin-1: obs-text is allowed. */
const ENTITY_TAG = /^(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"$/;
/** The next of a list, with the commas before it. */
const NEXT_TAG = /[ \t,]*((?:W\/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|$)/gy;

export type Validators = Pick<Terms, 'etag' | 'lastModified'>;

/** The validators of a head that can be compared: one well-formed entity-tag, one date. '' = none */
export function validatorsOf(headers: readonly string[]): Validators {
  const etag = onlyValue(headers, 'etag');
  const lastModified = onlyValue(headers, 'last-modified');
  return {
    etag: ENTITY_TAG.test(etag) ? etag : '',
    lastModified: Number.isNaN(parseHttpDate(lastModified)) ? '' : lastModified,
  };
}

/** The value of a field that may come once; '' = absent, or several that differ. */
function onlyValue(headers: readonly string[], lower: string): string {
  const values = valuesOf(headers, lower);
  return values.every((value) => value === values[0]) ? (values[0] ?? '') : '';
}

/** @param etag well formed, or '' */
export function isStrong(etag: string): boolean {
  return etag.startsWith('"');
}

/** Weak comparison (RFC 9110 section 8.8.3.2). */
function weaklyEqual(a: string, b: string): boolean {
  return opaque(a) === opaque(b);
}

function opaque(etag: string): string {
  return isStrong(etag) ? etag : etag.slice(2);
}

/** The client has this answer already: 304 (RFC 9110 section 13.2.2, RFC 9111 section 4.3.2). */
export function notModified(
  entry: Pick<EntryParts, 'status' | 'headers' | 'terms' | 'responseAt'>,
  request: RequestFields,
): boolean {
  // RFC 9110 section 13.2.1: conditions count only where the answer would have been a success.
  if (entry.status < 200 || entry.status > 299) return false;
  if (request.ifNoneMatch !== '') return matchesAny(request.ifNoneMatch, entry.terms.etag);
  if (request.ifModifiedSince === '' || entry.status !== 200) return false;
  // False where it is no date (NaN).
  return modifiedAt(entry) <= parseHttpDate(request.ifModifiedSince);
}

/** RFC 9111 section 4.3.2: Last-Modified, else Date, else when it was received. */
function modifiedAt({ headers, terms, responseAt }: Pick<EntryParts, 'headers' | 'terms' | 'responseAt'>): number {
  if (terms.lastModified !== '') return parseHttpDate(terms.lastModified);
  const date = parseHttpDate(onlyValue(headers, 'date'));
  return Number.isNaN(date) ? responseAt : date;
}

function matchesAny(ifNoneMatch: string, etag: string): boolean {
  if (ifNoneMatch === '*') return true;
  // Stops at what is no entity-tag: the rest of such a list cannot be told apart.
  for (const [, tag] of ifNoneMatch.matchAll(NEXT_TAG)) if (weaklyEqual(tag!, etag)) return true;
  return false;
}

/** What makes a request conditional on this entry (RFC 9111 section 4.3.1); empty = it has no validator. */
export function revalidationPairs({ terms }: Pick<EntryParts, 'terms'>): string[] {
  const pairs: string[] = [];
  if (terms.etag !== '' && terms.etag.length <= MOST_ETAG) pairs.push('If-None-Match', terms.etag);
  if (terms.lastModified !== '') pairs.push('If-Modified-Since', terms.lastModified);
  return pairs;
}

/** The request without its own conditions and ranges: its answer is whole, and good for everybody. */
export function withoutConditionals(pairs: readonly string[]): string[] {
  return filtered(pairs, (name) => !CONDITIONALS.has(name));
}

/** The stored head after a 304 (RFC 9111 section 3.2): its fields replace ours, in their place; new ones come last. */
export function mergedHead(stored: readonly string[], fresh: readonly string[]): string[] {
  const news = Map.groupBy(linesOf(fresh), (line) => line.name);
  for (const name of KEPT_FROM_STORED) news.delete(name);
  const replaced = new Set<string>();
  const merged: string[] = [];
  for (const line of linesOf(stored)) {
    const lines = news.get(line.name);
    if (!lines) merged.push(line.spelled, line.value);
    else if (!replaced.has(line.name)) for (const next of lines) merged.push(next.spelled, next.value);
    if (lines) replaced.add(line.name);
  }
  for (const line of linesOf(fresh)) {
    if (news.has(line.name) && !replaced.has(line.name)) merged.push(line.spelled, line.value);
  }
  return merged;
}

/**
 * The head of a 304, or of an answer to HEAD, speaks of the stored answer (RFC 9111 sections 4.3.4, 4.3.5).
 * If not, a 304 is of no use, and what a HEAD tells of is no longer what we have.
 */
export function describesSame(
  entry: Pick<EntryParts, 'terms' | 'body'>,
  freshHeaders: readonly string[],
  source: '304' | 'HEAD',
): boolean {
  if (source === 'HEAD' && !tellsSameLength(entry, freshHeaders)) return false;
  const { etag, lastModified } = validatorsOf(freshHeaders);
  // A strong one must be ours to the letter; a weak one claims less, and may have been made of our strong one (nginx with gzip).
  if (isStrong(etag)) return etag === entry.terms.etag;
  if (etag !== '') return weaklyEqual(etag, entry.terms.etag);
  if (lastModified !== '') return parseHttpDate(lastModified) === parseHttpDate(entry.terms.lastModified);
  // We asked about this one entry alone.
  return source === '304';
}

/** Or no length. */
export function tellsSameLength({ body }: Pick<EntryParts, 'body'>, headers: readonly string[]): boolean {
  return valuesOf(headers, 'content-length').every((length) => length === String(body.length));
}

/** The head of our own 304 (RFC 9110 section 15.4.5): all but what describes the body. */
export function notModifiedHeaders(headers: readonly string[]): string[] {
  return filtered(headers, (name) => !name.startsWith('content-') || name === 'content-location');
}

function filtered(pairs: readonly string[], wanted: (lower: string) => boolean): string[] {
  const left: string[] = [];
  for (const line of linesOf(pairs)) if (wanted(line.name)) left.push(line.spelled, line.value);
  return left;
}

function linesOf(pairs: readonly string[]): { name: string; spelled: string; value: string }[] {
  const lines = [];
  for (let i = 0; i < pairs.length; i += 2) {
    lines.push({ name: pairs[i]!.toLowerCase(), spelled: pairs[i]!, value: pairs[i + 1]! });
  }
  return lines;
}

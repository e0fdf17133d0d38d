// May an answer be stored in a cache that many share, and on what terms? (RFC 9111 sections 3 and 4.2; or a rule of the config.)

import type { CacheConfig, CacheRuleConfig } from '../config/schema.ts';
import { valuesOf } from '../fields.ts';
import { type Validators, validatorsOf } from './conditional.ts';
import { parseHttpDate } from './dates.ts';
import { type Directives, deltaSeconds, parseDirectives } from './directives.ts';
import type { Terms } from './entry.ts';
import type { RequestFields } from './request-fields.ts';
import { varyNames } from './vary.ts';

export interface Storable {
  readonly storable: true;
  readonly terms: Terms;
  /** Lower-case, sorted, each once. */
  readonly vary: string[];
  /** What is to be stored of the head. Whoever shares the answer gets this one, not the raw head. */
  readonly headers: string[];
  readonly isPrivate: false;
}

export interface Unstorable {
  readonly storable: false;
  /** A short phrase for `explain`. */
  readonly why: string;
  /** It must not reach anyone but the requester, not even who waits for the same answer at this moment. */
  readonly isPrivate: boolean;
}

export type Appraisal = Storable | Unstorable;

/** Wall clock, ms: the request was sent, the head of its answer came. */
export interface Times {
  readonly requestAt: number;
  readonly responseAt: number;
}

export type HttpPolicy = Pick<CacheConfig, 'storeSetCookie' | 'heuristicFraction' | 'heuristicMaxMs'>;

/** Those whose requirements on caches we meet, for must-understand (section 5.2.2.3). */
const UNDERSTOOD = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501]);
/** RFC 9110 section 15.1: may be stored without explicit freshness. 206 is in that list, but we store no parts. */
const CACHEABLE_BY_DEFAULT = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501]);
/** Section 3.1: for one hop only. Age is computed anew; Server-Timing tells of another exchange. */
const NEVER_STORED = ['age', 'server-timing', 'proxy-authenticate', 'proxy-authentication-info', 'proxy-authorization'];

/** By RFC 9111. @param headers flat raw pairs, hop-by-hop fields already gone */
export function appraiseHttp(
  method: string,
  request: RequestFields,
  status: number,
  headers: readonly string[],
  times: Times,
  policy: HttpPolicy,
): Appraisal {
  const control = parseDirectives(valuesOf(headers, 'cache-control'));
  const vary = varyNames(headers);
  // What makes it private comes first: the reason given must not hide it.
  const secret = whySecret(request, status, control, vary) || whySecretHttp(request, headers, control, policy);
  if (secret !== '') return { storable: false, why: secret, isPrivate: true };
  if (method !== 'GET') return refused('method not cacheable');
  const never = whyNever(status, headers);
  if (never !== '') return refused(never);

  const dropped = [...(fieldsOf(control, 'private') ?? []), ...(fieldsOf(control, 'no-cache') ?? [])];
  const kept = without(headers, new Set([...NEVER_STORED, ...dropped]));
  const lifetime = explicitLifetimeMs(control, headers, times.responseAt);
  const open = CACHEABLE_BY_DEFAULT.has(status) || control.has('public');
  // Section 3: explicit freshness, public, or a status that may be stored without.
  if (lifetime === NONE && !open) return refused('status not cacheable');
  const terms = httpTerms(control, headers, times, policy, lifetime, validatorsOf(kept));
  if (!isUseful(terms)) return refused('no freshness and no validator');
  return { storable: true, terms, vary: vary as string[], headers: kept, isPrivate: false };
}

/** By a rule of the config, which knows better than the answer how long it is good, but not whom it is for. */
export function appraiseRule(
  rule: CacheRuleConfig,
  request: RequestFields,
  status: number,
  headers: readonly string[],
  _times: Times,
  partitioned: boolean,
): Appraisal {
  const control = parseDirectives(valuesOf(headers, 'cache-control'));
  const vary = varyNames(headers);
  // In a partition everybody shows the same credential, and private and Set-Cookie are for the one who has it.
  const secret = whySecret(request, status, control, vary) || (partitioned ? '' : whyPersonal(control, headers));
  if (secret !== '') return { storable: false, why: secret, isPrivate: true };
  const never = whyNever(status, headers) || (rule.statuses.includes(status) ? '' : 'status not in the rule');
  if (never !== '') return refused(never);
  const personal = partitioned ? ['set-cookie'] : (fieldsOf(control, 'private') ?? []);
  const dropped = [...personal, ...(fieldsOf(control, 'no-cache') ?? [])];
  const kept = without(headers, new Set([...NEVER_STORED, ...dropped]));
  const terms: Terms = {
    lifetimeMs: rule.ttlMs,
    initialAgeMs: 0,
    alwaysValidate: false,
    neverStale: false,
    staleWhileRevalidateMs: rule.staleWhileRevalidateMs,
    staleIfErrorMs: rule.staleIfErrorMs,
    ...validatorsOf(kept),
  };
  return { storable: true, terms, vary: vary as string[], headers: kept, isPrivate: false };
}

function refused(why: string): Unstorable {
  return { storable: false, why, isPrivate: false };
}

/** In both modes: why it is for the requester alone; '' = it is not. */
function whySecret(request: RequestFields, status: number, control: Directives, vary: string[] | '*' | null): string {
  if (control.malformed) return 'malformed Cache-Control';
  if (request.noStore) return 'request no-store';
  // Section 5.2.2.3: no-store is there for caches that do not know must-understand.
  if (control.has('must-understand')) {
    if (!UNDERSTOOD.has(status)) return 'must-understand with an unknown status';
  } else if (control.has('no-store')) return 'response no-store';
  if (vary === '*') return 'Vary: *';
  return vary === null ? 'malformed Vary' : '';
}

function whySecretHttp(
  request: RequestFields,
  headers: readonly string[],
  control: Directives,
  policy: HttpPolicy,
): string {
  // Section 3.5
  const permitted = control.has('public') || control.has('must-revalidate') || control.has('s-maxage');
  if (request.authorized && !permitted) return 'Authorization without permission to share';
  return whyPersonal(control, policy.storeSetCookie ? [] : headers);
}

function whyPersonal(control: Directives, headers: readonly string[]): string {
  if (isUnqualified(control, 'private')) return 'response private';
  // Even if a qualified directive names it: those who share the answer while it comes would get it.
  return valuesOf(headers, 'set-cookie').length > 0 ? 'Set-Cookie' : '';
}

/** In both modes: why no such answer is ever stored. */
function whyNever(status: number, headers: readonly string[]): string {
  if (status < 200) return 'status not final';
  if (status === 206 || status === 304) return `status ${status} is no whole answer`;
  return valuesOf(headers, 'content-range').length > 0 ? 'Content-Range without 206' : '';
}

/** The fields that a qualified directive keeps out; null = absent, or it means the whole answer. */
function fieldsOf(control: Directives, directive: string): string[] | null {
  const names = control.fieldNames(directive);
  // Without these the stored body would be read as something else.
  return names?.some((name) => name.startsWith('content-')) ? null : names;
}

function isUnqualified(control: Directives, directive: string): boolean {
  return control.has(directive) && fieldsOf(control, directive) === null;
}

function without(headers: readonly string[], dropped: ReadonlySet<string>): string[] {
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2) {
    if (!dropped.has(headers[i]!.toLowerCase())) kept.push(headers[i]!, headers[i + 1]!);
  }
  return kept;
}

const NONE = -1;

/** Section 4.2.1. NONE = it says nothing; NaN = what it says cannot be read. */
function explicitLifetimeMs(control: Directives, headers: readonly string[], responseAt: number): number {
  const shared = control.seconds('s-maxage');
  const maxAge = control.seconds('max-age');
  if (Number.isNaN(shared) || Number.isNaN(maxAge)) return Number.NaN;
  if (shared >= 0) return shared * 1000;
  if (maxAge >= 0) return maxAge * 1000;
  const expires = valuesOf(headers, 'expires');
  if (expires.length === 0) return NONE;
  const end = expires.every((value) => value === expires[0]) ? parseHttpDate(expires[0]!, responseAt) : Number.NaN;
  // Section 5.3: an invalid date, "0" above all, is a time in the past.
  return Number.isNaN(end) ? 0 : Math.max(0, end - dateOf(headers, responseAt));
}

function httpTerms(
  control: Directives,
  headers: readonly string[],
  times: Times,
  policy: HttpPolicy,
  explicit: number,
  validators: Validators,
): Terms {
  const ageMs = statedAgeMs(headers);
  // Neither its age nor its lifetime is known, then: stale, and for how long nobody can say.
  const unreadable = Number.isNaN(explicit) || Number.isNaN(ageMs);
  const date = dateOf(headers, times.responseAt);
  const lifetimeMs = explicit === NONE ? heuristicMs(validators.lastModified, date, policy) : explicit;
  const alwaysValidate = isUnqualified(control, 'no-cache');
  const neverStale = control.has('must-revalidate') || control.has('proxy-revalidate') || control.has('s-maxage');
  const bound = unreadable || neverStale || alwaysValidate;
  return {
    lifetimeMs: unreadable ? 0 : lifetimeMs,
    initialAgeMs: initialAgeMs(times, date, ageMs || 0),
    alwaysValidate,
    neverStale,
    staleWhileRevalidateMs: bound ? 0 : windowMs(control, 'stale-while-revalidate'),
    staleIfErrorMs: bound ? 0 : windowMs(control, 'stale-if-error'),
    ...validators,
  };
}

/** Section 4.2.2. The status was looked at before: without explicit freshness it is cacheable by default, or public. */
function heuristicMs(lastModified: string, date: number, policy: HttpPolicy): number {
  if (lastModified === '' || policy.heuristicFraction <= 0) return 0;
  const unchangedMs = Math.max(0, date - parseHttpDate(lastModified, date));
  return Math.min(unchangedMs * policy.heuristicFraction, policy.heuristicMaxMs);
}

/** Section 4.2.3, corrected_initial_age. */
function initialAgeMs({ requestAt, responseAt }: Times, date: number, ageMs: number): number {
  const apparent = Math.max(0, responseAt - date);
  const corrected = ageMs + Math.max(0, responseAt - requestAt);
  return Math.max(apparent, corrected);
}

/** 0 = no Age, NaN = malformed, or several that differ. */
function statedAgeMs(headers: readonly string[]): number {
  const ages = valuesOf(headers, 'age').map(deltaSeconds);
  if (ages.length === 0) return 0;
  return ages.every((age) => age === ages[0]) ? ages[0]! * 1000 : Number.NaN;
}

/** RFC 9110 section 6.6.1: without a Date that can be read, the time of receipt. */
function dateOf(headers: readonly string[], responseAt: number): number {
  const date = parseHttpDate(valuesOf(headers, 'date')[0] ?? '', responseAt);
  return Number.isNaN(date) ? responseAt : date;
}

/** RFC 5861; absent or malformed = 0. */
function windowMs(control: Directives, name: string): number {
  const seconds = control.seconds(name);
  return seconds > 0 ? seconds * 1000 : 0;
}

/** Somebody could be given it, or at least ask whether it is still good. */
function isUseful(terms: Terms): boolean {
  if (terms.etag !== '' || terms.lastModified !== '') return true;
  if (terms.alwaysValidate) return false;
  return terms.initialAgeMs < terms.lifetimeMs + Math.max(terms.staleWhileRevalidateMs, terms.staleIfErrorMs);
}

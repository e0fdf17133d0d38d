// What a request says about the cache, read in one pass over its fields.

import { sameName } from '../fields.ts';
import { type Directives, parseDirectives } from './directives.ts';

/** Durations in ms. */
export interface RequestFields {
  /** Request directives (RFC 9111 section 5.2.1); `Pragma: no-cache` counts where there is no Cache-Control (section 5.4). */
  noStore: boolean;
  /** no-cache, or a directive that cannot be read: ask the upstream. */
  noCache: boolean;
  onlyIfCached: boolean;
  /** -1 = not given */
  maxAgeMs: number;
  minFreshMs: number;
  /** Infinity = max-stale without a value */
  maxStaleMs: number;
  /** RFC 5861 section 4 */
  staleIfErrorMs: number;
  /** It has an Authorization field. */
  authorized: boolean;
  /** '' = none */
  ifNoneMatch: string;
  ifModifiedSince: string;
  range: string;
  ifRange: string;
  /** If-Match or If-Unmodified-Since: only the upstream can judge those. */
  precondition: boolean;
}

/** Of a request that says nothing about the cache. */
export const NO_FIELDS: Readonly<RequestFields> = Object.freeze(noFields());

function noFields(): RequestFields {
  return {
    noStore: false,
    noCache: false,
    onlyIfCached: false,
    maxAgeMs: -1,
    minFreshMs: -1,
    maxStaleMs: -1,
    staleIfErrorMs: -1,
    authorized: false,
    ifNoneMatch: '',
    ifModifiedSince: '',
    range: '',
    ifRange: '',
    precondition: false,
  };
}

/** @param pairs flat raw pairs of the request */
export function readRequestFields(pairs: readonly string[]): RequestFields {
  const fields = noFields();
  let control: string[] | null = null;
  let pragma = '';
  for (let i = 0; i < pairs.length; i += 2) {
    const name = pairs[i]!;
    // Most names are told apart by their length alone.
    switch (name.length) {
      case 5:
        if (sameName(name, 'range')) fields.range = joined(fields.range, pairs[i + 1]!);
        break;
      case 6:
        if (sameName(name, 'pragma')) pragma = joined(pragma, pairs[i + 1]!);
        break;
      case 8:
        if (sameName(name, 'if-range')) fields.ifRange = joined(fields.ifRange, pairs[i + 1]!);
        else if (sameName(name, 'if-match')) fields.precondition = true;
        break;
      case 13:
        if (sameName(name, 'cache-control')) {
          if (control === null) control = [];
          control.push(pairs[i + 1]!);
        } else if (sameName(name, 'authorization')) fields.authorized = true;
        else if (sameName(name, 'if-none-match')) fields.ifNoneMatch = joined(fields.ifNoneMatch, pairs[i + 1]!);
        break;
      case 17:
        if (sameName(name, 'if-modified-since')) {
          fields.ifModifiedSince = joined(fields.ifModifiedSince, pairs[i + 1]!);
        }
        break;
      case 19:
        if (sameName(name, 'if-unmodified-since')) fields.precondition = true;
        break;
    }
  }
  if (control !== null) readControl(fields, parseDirectives(control));
  else if (pragma !== '' && parseDirectives([pragma]).has('no-cache')) fields.noCache = true;
  return fields;
}

/** Lines of one field are one list (RFC 9110 section 5.3). Of fields that are no list this makes a value that nothing matches. */
function joined(before: string, value: string): string {
  return before === '' ? value : `${before}, ${value}`;
}

function readControl(fields: RequestFields, control: Directives): void {
  fields.noStore = control.has('no-store');
  fields.noCache = control.has('no-cache') || control.malformed;
  fields.onlyIfCached = control.has('only-if-cached');
  fields.maxAgeMs = duration(fields, control, 'max-age');
  fields.minFreshMs = duration(fields, control, 'min-fresh');
  fields.staleIfErrorMs = duration(fields, control, 'stale-if-error');
  // Section 5.2.1.2: without a value, any staleness will do.
  fields.maxStaleMs = control.isBare('max-stale') ? Number.POSITIVE_INFINITY : duration(fields, control, 'max-stale');
}

function duration(fields: RequestFields, control: Directives, name: string): number {
  const seconds = control.seconds(name);
  if (seconds >= 0) return seconds * 1000;
  // It asked for something that we cannot tell: the upstream's answer is right in any case.
  if (Number.isNaN(seconds)) fields.noCache = true;
  return -1;
}

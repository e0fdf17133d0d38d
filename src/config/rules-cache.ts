// The rules between keys of the cache, and the defaults that follow from another key.
//
// As in rules.ts, they run whether or not the keys themselves are right.

import type { Key } from './path.ts';
import { atMost, fields, type Report, sizeRule } from './rules.ts';
import { parseSize } from './units.ts';

const ANY = { min: 0, max: Number.POSITIVE_INFINITY };
/** Of one answer by a rule. */
const ENTRY = '1mb';

export function storeRules(section: unknown, report: Report): void {
  sizeRule('max_entry', 'max_bytes', section, report);
}

export function upstreamCacheRules(cache: unknown, report: Report): void {
  const { http, rules, partition, partition_headers: headers } = fields(cache);
  if (http === false && Array.isArray(rules) && rules.length === 0) {
    report.addIssue({ code: 'custom', path: [], message: 'must have http: true or at least one rule', input: cache });
  }
  if (partition === 'shared' && Array.isArray(headers) && headers.length > 0) {
    const message = 'needs partition: credential beside it';
    report.addIssue({ code: 'custom', path: ['partition_headers'], message, input: headers });
  }
}

/** Between the file's own keys and those of its upstreams. */
export function cacheFileRules(file: unknown, report: Report): void {
  sizeRule('flight_buffer', 'flight_memory', file, report);
  const { cache, upstreams } = fields(file);
  const limit = fields(cache).max_entry;
  const most = parseSize(limit, ANY);
  for (const [name, upstream] of Object.entries(fields(upstreams))) {
    const { rules } = fields(fields(upstream).cache);
    if (!Array.isArray(rules)) continue;
    for (const [index, rule] of rules.entries()) {
      const input = fields(rule).max_entry;
      const size = parseSize(input, ANY);
      if (typeof size === 'string' || typeof most === 'string' || size <= most) continue;
      const path: Key[] = ['upstreams', name, 'cache', 'rules', index, 'max_entry'];
      report.addIssue(atMost(path, input, ['cache', 'max_entry'], limit));
    }
  }
}

/** Coalescing goes with the cache. */
export function coalesceDefault<T extends { cache?: unknown; coalesce?: boolean | undefined }>(upstream: T) {
  return { ...upstream, coalesce: upstream.coalesce ?? upstream.cache !== undefined };
}

type Size = string | 0;

/** A rule's `max_entry`, of which the default must fit into the store's. */
export function entryDefault(written: Size | undefined, store: Size): Size {
  return written ?? (Number(parseSize(store, ANY)) < Number(parseSize(ENTRY, ANY)) ? store : ENTRY);
}

// The cache rules of an upstream, ready to be asked: which one speaks for this request?
import type { CacheRuleConfig } from '../config/schema.ts';
import { sameName } from '../fields.ts';
import { type KeyField, keyFields } from './key-fields.ts';

export interface CompiledRule {
  /** Its place in the config, from 0. */
  readonly index: number;
  readonly config: CacheRuleConfig;
  /** Null matches all, here and below. */
  readonly methods: ReadonlySet<string> | null;
  readonly paths: { readonly exact: ReadonlySet<string>; readonly prefixes: readonly string[] } | null;
  readonly operations: ReadonlySet<string> | null;
  /**
   * For keys: the rule's place and what of its settings decides which requests share a key. With it, a store that outlives
   * a change of the config, or is shared by two, never takes an answer kept under other settings for this rule's.
   */
  readonly label: string;
  /** Percent-decoded bytes as latin1. */
  readonly queryIgnore: readonly string[];
  readonly keyHeaders: readonly KeyField[];
}

export function compileRules(rules: readonly CacheRuleConfig[]): CompiledRule[] {
  return rules.map(compileRule);
}

function compileRule(config: CacheRuleConfig, index: number): CompiledRule {
  const { match, key } = config;
  const keyHeaders = keyFields('header', key.headers);
  const queryIgnore = [...new Set(key.queryIgnore)].sort();
  return {
    index,
    config,
    methods: match.methods.length ? new Set(match.methods) : null,
    paths: match.paths.length ? compilePaths(match.paths) : null,
    operations: match.operations.length ? new Set(match.operations) : null,
    label: JSON.stringify({ index, body: key.body, queryIgnore, headers: keyHeaders.map(({ name }) => name) }),
    queryIgnore: queryIgnore.map((name) => Buffer.from(name, 'utf8').toString('latin1')),
    keyHeaders,
  };
}

function compilePaths(patterns: readonly string[]) {
  const stars = patterns.filter((pattern) => pattern.endsWith('*'));
  return {
    exact: new Set(patterns.filter((pattern) => !pattern.endsWith('*'))),
    prefixes: stars.map((pattern) => pattern.slice(0, -1)),
  };
}

/**
 * The first rule that matches.
 * @param path without query, '/' when empty
 * @param operation '' = none
 */
export function matchRule(
  rules: readonly CompiledRule[],
  method: string,
  path: string,
  operation: string,
  pairs: readonly string[],
): CompiledRule | null {
  for (const rule of rules) {
    if (rule.methods && !rule.methods.has(method)) continue;
    if (rule.operations && !rule.operations.has(operation)) continue;
    if (rule.paths && !matchesPath(rule.paths.exact, rule.paths.prefixes, path)) continue;
    if (matchesHeaders(rule.config.match.headers, pairs)) return rule;
  }
  return null;
}

/** Some rule could store an answer of this path. */
export function mayMatchPath(rules: readonly CompiledRule[], path: string): boolean {
  for (const { paths } of rules) if (!paths || matchesPath(paths.exact, paths.prefixes, path)) return true;
  return false;
}

function matchesPath(exact: ReadonlySet<string>, prefixes: readonly string[], path: string): boolean {
  if (exact.has(path)) return true;
  for (const prefix of prefixes) if (path.startsWith(prefix)) return true;
  return false;
}

function matchesHeaders(wanted: CacheRuleConfig['match']['headers'], pairs: readonly string[]): boolean {
  for (const header of wanted) if (!hasOneLine(pairs, header[0], header[1])) return false;
  return true;
}

/** A field sent twice means different things to different servers: it matches nothing. */
function hasOneLine(pairs: readonly string[], lower: string, value: string): boolean {
  let found = false;
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i]!.length !== lower.length || !sameName(pairs[i]!, lower)) continue;
    if (found || pairs[i + 1] !== value) return false;
    found = true;
  }
  return found;
}

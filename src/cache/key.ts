// The cache keys of one upstream's requests: who asks, for what, in which form.
import { canonicalJson } from './canonical-json.ts';
import { KeyAliases } from './key-aliases.ts';
import {
  addLines,
  addListLines,
  addSecretLines,
  countedQuery,
  type KeyField,
  keyFields,
  saysJson,
} from './key-fields.ts';
import { type BodyForm, HashSink, type KeyPart, type PartSink, ShownParts } from './key-parts.ts';
import type { CompiledRule } from './rules.ts';

/** Requests that differ in one of these have nothing in common. */
const CREDENTIALS = ['authorization', 'x-api-key', 'api-key', 'x-goog-api-key', 'cookie'];
const MAX_ALIASES = 10_000;
const NONE: readonly string[] = [];

export class KeyMaker {
  readonly #upstream: string;
  readonly #credentials: readonly KeyField[];
  /** Part of every key, so that no answer kept for all is given to one whose credentials count now. */
  readonly #partition: string;
  readonly #sink = new HashSink();
  readonly #aliases = new KeyAliases(MAX_ALIASES);

  /** @param partitionHeaders names that count as credentials besides the usual ones */
  constructor(upstream: string, partition: 'credential' | 'shared', partitionHeaders: readonly string[]) {
    const shared = partition === 'shared';
    this.#upstream = upstream;
    this.#credentials = shared ? [] : keyFields('credential', [...CREDENTIALS, ...partitionHeaders]);
    this.#partition = shared ? 'shared' : `credential: ${this.#credentials.map(({ name }) => name).join(', ')}`;
  }

  get aliases(): number {
    return this.#aliases.size;
  }

  /** HTTP mode: GET and HEAD share it, Vary does the rest. @param path with its query */
  httpKey(path: string, pairs: readonly string[]): string {
    return this.#hash(null, '', path, pairs, 'none', null);
  }

  /**
   * @param path with its query
   * @param body null = none
   */
  ruleKeys(rule: CompiledRule, method: string, path: string, pairs: readonly string[], body: Buffer | null): string {
    const exact = this.#hash(rule, method, path, pairs, body ? 'exact' : 'none', body);
    if (!body || rule.config.key.body === 'exact') return exact;
    // A request seen before costs one hash. What decides whether its body is JSON is part of the exact key.
    const known = this.#aliases.get(exact);
    if (known !== undefined) return known;
    const canonical = canonicalBody(rule, pairs, body);
    const key = canonical ? this.#hash(rule, method, path, pairs, 'canonical', canonical) : exact;
    this.#aliases.set(exact, key);
    return key;
  }

  /** What the key is made of, for people. @param rule null = HTTP mode */
  parts(
    rule: CompiledRule | null,
    method: string,
    path: string,
    pairs: readonly string[],
    body: Buffer | null,
  ): KeyPart[] {
    const shown = new ShownParts();
    const counted = rule ? body : null;
    const canonical = rule && counted ? canonicalBody(rule, pairs, counted) : null;
    const form = canonical ? 'canonical' : counted ? 'exact' : 'none';
    this.#addParts(shown, rule, method, path, pairs, form, canonical ?? counted);
    return shown.parts;
  }

  #hash(
    rule: CompiledRule | null,
    method: string,
    path: string,
    pairs: readonly string[],
    form: BodyForm,
    body: Buffer | null,
  ): string {
    this.#addParts(this.#sink, rule, method, path, pairs, form, body);
    return this.#sink.digest();
  }

  /** The only list of what counts. Nothing else may reach a sink. */
  #addParts(
    sink: PartSink,
    rule: CompiledRule | null,
    method: string,
    path: string,
    pairs: readonly string[],
    form: BodyForm,
    body: Buffer | null,
  ): void {
    sink.text('mode', rule ? 'rule' : 'http');
    sink.text('upstream', this.#upstream);
    if (rule) {
      sink.text('rule', rule.label);
      sink.text('method', method);
    }
    const at = path.indexOf('?');
    sink.text('path', at < 0 ? path : path.slice(0, at));
    const query = countedQuery(path, at, rule ? rule.queryIgnore : NONE);
    if (query !== null) sink.query(query);
    sink.text('partition', this.#partition);
    for (const field of this.#credentials) addSecretLines(sink, pairs, field);
    if (rule) addRuleFields(sink, rule, pairs, form !== 'none');
    sink.body(form, body);
  }
}

function addRuleFields(sink: PartSink, rule: CompiledRule, pairs: readonly string[], withBody: boolean): void {
  // They may be anything, a tenant's token too: never shown.
  for (const field of rule.keyHeaders) addSecretLines(sink, pairs, field);
  addListLines(sink, pairs, 'accept');
  addListLines(sink, pairs, 'accept-encoding');
  if (!withBody) return;
  addLines(sink, pairs, 'content-type');
  addLines(sink, pairs, 'content-encoding');
}

function canonicalBody(rule: CompiledRule, pairs: readonly string[], body: Buffer): Buffer | null {
  return rule.config.key.body === 'canonical' && saysJson(pairs) ? canonicalJson(body) : null;
}

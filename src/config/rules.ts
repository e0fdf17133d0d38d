// The rules between keys: what must fit together in a pool, in an upstream, in the whole file.
//
// They run whether or not the keys themselves are right, so that all mistakes are found at once. What they read may
// therefore be anything, and a rule says nothing about a value of the wrong kind: its own key has done so.

import { type Key, pathText } from './path.ts';
import { suggest } from './suggest.ts';
import { parseSize } from './units.ts';

/** What a rule tells about itself besides its text; zod hands it through. */
export type RuleParams = {
  /** The other key of the rule: its value is shown, and its place is used where the file does not write the first. */
  readonly other?: { readonly path: Key[]; readonly value: unknown };
  /** Length of the issue's path inside the section of the rule: `other.path` starts at that section. */
  readonly depth?: number;
  /** Did you mean. */
  readonly meant?: string | null;
};

type Issue = {
  readonly code: 'custom';
  readonly path: Key[];
  readonly message: string;
  readonly input: unknown;
  readonly params?: RuleParams;
};
export interface Report {
  addIssue(issue: Issue): void;
}

/** Run the rule though keys inside it were refused. */
export const whateverElse = { when: () => true };

/** `keepalive` depends on its sibling, which a zod default cannot. */
export function keepaliveDefault<T extends { connections: number; keepalive?: number | undefined }>(pool: T) {
  return { ...pool, keepalive: keepaliveOf(pool.keepalive, pool.connections) };
}

export function poolRules(pool: unknown, report: Report): void {
  const { connections, keepalive, warm } = fields(pool);
  if (isNumber(keepalive) && isNumber(connections) && keepalive > connections) {
    report.addIssue(atMost(['keepalive'], keepalive, ['connections'], connections));
  }
  if (!isNumber(warm) || warm === 0 || !isNumber(connections)) return;
  if (isNumber(keepalive) && warm > keepalive) report.addIssue(atMost(['warm'], warm, ['keepalive'], keepalive));
  const kept = keepaliveOf(undefined, connections);
  if (keepalive === undefined && warm > kept) report.addIssue(atMost(['warm'], warm, ['keepalive'], kept));
}

export function upstreamRules(upstream: unknown, report: Report): void {
  const { tls } = fields(upstream);
  for (const [key, other] of [
    ['cert', 'key'],
    ['key', 'cert'],
  ] as const) {
    const input = fields(tls)[key];
    if (input === undefined || fields(tls)[other] !== undefined) continue;
    report.addIssue({ code: 'custom', path: ['tls', key], message: `needs tls.${other} beside it`, input });
  }
}

export function fileRules(file: unknown, report: Report): void {
  const { limiters, upstreams } = fields(file);
  // Limiters of the wrong kind are one mistake, not one more in every upstream.
  if (typeof limiters === 'object') limiterNameRules(fields(limiters), fields(upstreams), report);
  sizeRule('body_buffer', 'body_memory', file, report);
}

/** The one size is at most the other; both are keys of the section. */
export function sizeRule(key: string, other: string, section: unknown, report: Report): void {
  const bounds = { min: 0, max: Number.POSITIVE_INFINITY };
  const { [key]: input, [other]: limit } = fields(section);
  const [size, most] = [parseSize(input, bounds), parseSize(limit, bounds)];
  if (isNumber(size) && isNumber(most) && size > most) report.addIssue(atMost([key], input, [other], limit));
}

function limiterNameRules(limiters: Record<string, unknown>, upstreams: Record<string, unknown>, report: Report): void {
  const known = Object.keys(limiters);
  for (const [name, upstream] of Object.entries(upstreams)) {
    const input = fields(upstream).limiter;
    if (typeof input !== 'string' || Object.hasOwn(limiters, input)) continue;
    report.addIssue({
      code: 'custom',
      path: ['upstreams', name, 'limiter'],
      message:
        known.length === 0 ? 'must name a limiter, and limiters has none' : `must be a limiter: ${known.join(', ')}`,
      input,
      params: { meant: suggest(input, known) },
    });
  }
}

/** Both paths start at the section of the rule. */
export function atMost(path: Key[], input: unknown, other: Key[], value: unknown): Issue {
  const params = { depth: path.length, other: { path: other, value } };
  return { code: 'custom', path, message: `must be at most ${pathText(other)}`, input, params };
}

function keepaliveOf(written: number | undefined, connections: number): number {
  return written ?? Math.min(20, connections);
}

export function fields(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number';
}

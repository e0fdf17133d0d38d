// The kinds of value a config key can have, each a zod schema whose refusal says the rule in one sentence.
//
// The parsers of units.ts and its neighbours are the only judges; the patterns given to zod as metadata are the rough
// shape an editor needs, and end up in the JSON Schema.

import { z } from 'zod';
import { isHostName, parseAddress } from './address.ts';
import { parseBaseUrl } from './base-url.ts';
import { parseRedisUrl } from './redis-url.ts';
import { type Bounds, DURATION, parseCount, parseDuration, parseSize, SIZE } from './units.ts';

/** Says the rule the value breaks, in a text; anything else means that it is fine. */
type Judge = (raw: unknown) => unknown;

export const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;
const PATH_PATTERN = /^\/[^\s?#*]*\*?$/;
/** A token of RFC 9110 section 5.6.2. */
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Field content without blanks around it (RFC 9110 section 5.5). */
const HEADER_VALUE = /^[!-~\x80-\xff]([\t -~\x80-\xff]*[!-~\x80-\xff])?$/;
/** No character that a Redis pattern gives a meaning. */
const KEY_PREFIX = /^[A-Za-z0-9_.:/{}-]{1,64}$/;

export function duration(bounds: Bounds) {
  return quantity((raw) => parseDuration(raw, bounds), withWord(DURATION, bounds));
}

export function size(bounds: Bounds) {
  return quantity((raw) => parseSize(raw, bounds), withWord(SIZE, bounds));
}

export function whole(bounds: { readonly min: number; readonly max: number }) {
  const judge = (raw: unknown) => parseCount(raw, bounds);
  return z
    .number({ error: refusal(judge) })
    .superRefine(refine(judge))
    .meta(integer(bounds));
}

/** A whole number, or `unlimited`. */
export function count(bounds: { readonly min: number; readonly max: number }) {
  const judge = (raw: unknown) => parseCount(raw, { ...bounds, word: 'unlimited' });
  const words = z.union([z.number().meta(integer(bounds)), z.literal('unlimited')], { error: refusal(judge) });
  return words.superRefine(refine(judge));
}

/** A number with a fraction. */
export function fraction({ min, max }: { readonly min: number; readonly max: number }) {
  const judge = (raw: unknown) =>
    typeof raw === 'number' && raw >= min && raw <= max ? null : `must be a number from ${min} to ${max}`;
  return z
    .number({ error: refusal(judge) })
    .superRefine(refine(judge))
    .meta({ minimum: min, maximum: max });
}

/** A status of an answer that is whole and final. */
export function status() {
  const judge = (raw: unknown) => {
    if (raw === 206 || raw === 304) return 'must not be 206 or 304: these are no whole answers';
    return parseCount(raw, { min: 200, max: 599 });
  };
  return z
    .number({ error: refusal(judge) })
    .superRefine(refine(judge))
    .meta({ ...integer({ min: 200, max: 599 }), not: { enum: [206, 304] } });
}

export function flag() {
  return z.boolean({ error: 'must be true or false' });
}

/** A value, or a list of them. */
export function oneOrMore<T extends z.ZodType>(value: T, what: string) {
  return z.union([value, z.array(value)], { error: `must be ${what}, or a list of them` });
}

export function oneOf<const T extends readonly string[]>(words: T) {
  return z.enum(words, { error: `must be one of ${words.join(', ')}` });
}

export function address() {
  return text(parseAddress, '^.*:[0-9]{1,5}$');
}

export function baseUrl() {
  return text(parseBaseUrl, '^https?://');
}

/** Its value is never shown: `writeOnly` is JSON Schema's word for that. */
export function redisUrl() {
  return text(parseRedisUrl, '^(rediss?://|(unix:(//)?)?/)').meta({ writeOnly: true });
}

export function keyPrefix() {
  const rule = 'must be 1 to 64 letters, digits and _ . : / - { }';
  return text((raw) => (typeof raw === 'string' && KEY_PREFIX.test(raw) ? null : rule), KEY_PREFIX.source);
}

export function headerName() {
  const rule = 'must be the name of a header';
  return text((raw) => (typeof raw === 'string' && HEADER_NAME.test(raw) ? null : rule), HEADER_NAME.source);
}

export function headerValue() {
  const rule = 'must be the value of a header, in quotes where it looks like a number';
  return text((raw) => (typeof raw === 'string' && HEADER_VALUE.test(raw) ? null : rule), HEADER_VALUE.source);
}

export function hostName() {
  return text((raw) => (isHostName(raw) ? null : 'must be a host name'), '^[A-Za-z0-9_.-]+$');
}

export function name(what: string) {
  return text((raw) => (typeof raw === 'string' && NAME.test(raw) ? null : `must be the name of ${what}`), NAME.source);
}

/** `/health`, `/static/*`: compared with the path below the upstream's name. */
export function pathPattern() {
  const rule = 'must be a path that starts with /, with * only as its last character and no query';
  return text((raw) => (typeof raw === 'string' && PATH_PATTERN.test(raw) ? null : rule), PATH_PATTERN.source);
}

export function filledText(rule: string) {
  return text((raw) => (typeof raw === 'string' && raw.trim() !== '' ? null : rule));
}

/** A mapping with these keys and no others. Left out, it is empty and so all defaults. */
export function section<T extends z.ZodRawShape>(shape: T) {
  return z.strictObject(shape);
}

/** A mapping from names, chosen by who writes the config, to sections of one kind. */
export function named<T extends z.ZodType>(what: string, refusedNames: readonly string[], value: T) {
  const rule = `must be a name of letters, digits, _ . and -, starting with a letter or digit, for ${what}`;
  const judge = (raw: unknown) => {
    if (typeof raw !== 'string' || !NAME.test(raw)) return rule;
    return refusedNames.includes(raw) ? 'must be another name: this one is taken by the proxy itself' : null;
  };
  const refused = refusedNames.length === 0 ? '' : `(?!(${refusedNames.join('|')})$)`;
  return z.record(text(judge, NAME.source.replace('^', `^${refused}`)), value);
}

/** Text or plain 0, as YAML reads `0` without a unit as a number. */
function quantity(judge: Judge, pattern: string) {
  return z.union([z.literal(0), z.string().meta({ pattern })], { error: refusal(judge) }).superRefine(refine(judge));
}

function text(judge: Judge, pattern?: string) {
  const schema = z.string({ error: refusal(judge) }).superRefine(refine(judge));
  return pattern === undefined ? schema : schema.meta({ pattern });
}

function refine(judge: Judge) {
  return (raw: unknown, ctx: z.RefinementCtx<unknown>) => {
    const verdict = judge(raw);
    if (typeof verdict === 'string') ctx.addIssue({ code: 'custom', message: verdict, input: raw });
  };
}

function refusal(judge: Judge) {
  return (issue: { readonly input?: unknown }): string | undefined => {
    const verdict = judge(issue.input);
    return typeof verdict === 'string' ? verdict : undefined;
  };
}

/** Not z.int(): what it refuses ends the parse of everything around it, and then not all mistakes are found. */
function integer({ min, max }: { readonly min: number; readonly max: number }) {
  return { type: 'integer', minimum: min, maximum: max } as const;
}

function withWord(pattern: RegExp, bounds: Bounds): string {
  const word = bounds.word === undefined ? '' : `|${bounds.word}`;
  return `^(0${word}|${pattern.source.slice(1, -1)})$`;
}

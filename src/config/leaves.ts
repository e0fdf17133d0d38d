// The kinds of value a config key can have, each a zod schema whose refusal says the rule in one sentence.
//
// The parsers of units.ts and its neighbours are the only judges; the patterns given to zod as metadata are the rough
// shape an editor needs, and end up in the JSON Schema.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the templates of the config look like those of JS

import { z } from 'zod';
import { isHostName, parseAddress } from './address.ts';
import { parseBaseUrl } from './base-url.ts';
import { HEADER_NAME, isGoverned } from './header-names.ts';
import { LIMIT_KEY, parseLimitKey, parseRate, RATE } from './rate.ts';
import { parseRedisUrl } from './redis-url.ts';
import type { SecretMeta } from './secrets.ts';
import { type Bounds, DURATION, parseCount, parseDuration, parseFraction, parseSize, SIZE } from './units.ts';

/** Says the rule the value breaks, in a text; anything else means that it is fine. */
type Judge = (raw: unknown) => unknown;

export const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;
const WORD_NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;
const PATH_PATTERN = /^\/[^\s?#*]*\*?$/;
const METHOD = /^[!#$%&'*+.^_`|~0-9A-Z-]+$/;
/** Field content without blanks around it (RFC 9110 section 5.5). */
const HEADER_VALUE = /^[!-~\x80-\xff]([\t -~\x80-\xff]*[!-~\x80-\xff])?$/;
/** Long enough not to be guessed, and what a header can carry as it is. */
const TOKEN = /^[!-~]{16,1024}$/;
/** No character that a Redis pattern gives a meaning. */
const KEY_PREFIX = /^[A-Za-z0-9_.:/{}-]{1,64}$/;

export function duration(bounds: Bounds) {
  return quantity((raw) => parseDuration(raw, bounds), withWord(DURATION, bounds));
}

export function size(bounds: Bounds) {
  return quantity((raw) => parseSize(raw, bounds), withWord(SIZE, bounds));
}

/** `instead` is told of a number below the least one, where that says more. */
export function whole(bounds: { readonly min: number; readonly max: number }, instead?: string) {
  const judge = (raw: unknown) =>
    instead !== undefined && typeof raw === 'number' && raw < bounds.min ? instead : parseCount(raw, bounds);
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

/** As `count`, or a mapping in its place, by which the number is found. */
export function concurrency<T extends z.ZodType>(bounds: { readonly min: number; readonly max: number }, found: T) {
  const judge = (raw: unknown) => {
    if (typeof raw === 'object' && raw !== null && !Array.isArray(raw)) return null;
    const verdict = parseCount(raw, { ...bounds, word: 'unlimited' });
    return typeof verdict === 'string' ? `${verdict}, or { adaptive: { max: … } }` : null;
  };
  const words = z.union([z.number().meta(integer(bounds)), z.literal('unlimited'), found], { error: refusal(judge) });
  return words.superRefine(refine(judge));
}

/** A number with a fraction. */
export function fraction({ min, max }: { readonly min: number; readonly max: number }) {
  const judge = (raw: unknown) => parseFraction(raw, { min, max });
  return z
    .number({ error: refusal(judge) })
    .superRefine(refine(judge))
    .meta({ minimum: min, maximum: max });
}

/** A number with a fraction, or `none`. */
export function fractionOrNone({ min, max }: { readonly min: number; readonly max: number }) {
  const judge = (raw: unknown) => parseFraction(raw, { min, max, word: 'none' });
  const number = z.number().meta({ minimum: min, maximum: max });
  return z.union([number, z.literal('none')], { error: refusal(judge) }).superRefine(refine(judge));
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
  return text(parseAddress, '^(.*:[0-9]{1,5}|unix:/.*)$');
}

export function baseUrl() {
  return text(parseBaseUrl, '^(https?://|unix:/)');
}

export function redisUrl() {
  return text(parseRedisUrl, '^(rediss?://|(unix:(//)?)?/)').meta({ secret: 'url' } satisfies SecretMeta);
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

/** A header that a request may be given; the proxy's own are none. */
export function requestHeaderName() {
  const rule = 'must be the name of a header';
  const judge = (raw: unknown) => {
    if (typeof raw !== 'string' || !HEADER_NAME.test(raw)) return rule;
    return isGoverned(raw) ? 'must be another header: this one is set by the proxy itself' : null;
  };
  return text(judge, HEADER_NAME.source);
}

/** What clients show to be let in. */
export function token() {
  const rule = 'must be 16 to 1024 printable ASCII characters without spaces: a token, better given by ${NAME}';
  const judge = (raw: unknown) => (typeof raw === 'string' && TOKEN.test(raw) ? null : rule);
  return text(judge, TOKEN.source).meta({ secret: 'value' } satisfies SecretMeta);
}

/** 500/min */
export function rate() {
  return text(parseRate, RATE.source);
}

/** Whose requests a rate limit counts together. */
export function limitKey() {
  return text(parseLimitKey, LIMIT_KEY.source);
}

/** A method is a token in which case counts (RFC 9110 section 9.1); the known ones are all in upper case. */
export function method() {
  const rule = 'must be a method in upper case, such as GET';
  return text((raw) => (typeof raw === 'string' && METHOD.test(raw) ? null : rule), METHOD.source);
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
export function section<T extends z.ZodRawShape>(shape: T, rule?: string) {
  return z.strictObject(shape, { error: ofKind(rule) });
}

/** A section that is off where it is left out, and on where it is written, though it be `{}`. */
export function switched<T extends z.ZodRawShape>(
  shape: T,
  rule = 'must be a mapping of keys, {} for all its defaults, or be left out',
) {
  // Read by load.ts: a key with nothing behind it could mean either.
  return section(shape, rule).meta({ switched: true });
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

/** As `named`, where the order of writing counts: a JS object would put names such as `1` and `10` first. */
export function ordered<T extends z.ZodType>(what: string, value: T, example: string) {
  const rule = `must be a name of letters, digits, _ . and -, starting with a letter, for ${what}`;
  const judge = (raw: unknown) => (typeof raw === 'string' && WORD_NAME.test(raw) ? null : rule);
  return z.record(text(judge, WORD_NAME.source), value, { error: ofKind(example) });
}

/** Says the rule of what is no mapping at all; without one, mistakes.ts does. */
function ofKind(rule: string | undefined) {
  return ({ code }: { readonly code?: string }) => (code === 'invalid_type' ? rule : undefined);
}

/** Text or plain 0, as YAML reads `0` without a unit as a number. */
function quantity(judge: Judge, pattern: string) {
  return z.union([z.literal(0), z.string().meta({ pattern })], { error: refusal(judge) }).superRefine(refine(judge));
}

/** Text that the judge has nothing against; the pattern is for editors. */
export function text(judge: Judge, pattern?: string) {
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

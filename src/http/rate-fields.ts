// What an answer says of its upstream's rate limits: Retry-After, and the fields that tell how much is left.

import { sameName } from '../fields.ts';

/** What an answer said of one limit. */
export interface RateReport {
  /** Tells apart the limits of one kind in one answer: the vendor's word, or the name of the policy. */
  readonly name: string;
  readonly kind: 'requests' | 'tokens';
  /** -1 = unknown */
  readonly limit: number;
  readonly remaining: number;
  /** From now. */
  readonly resetMs: number;
  /** True: a bucket that refills steadily and is full at the reset; false: a window that ends at the reset. */
  readonly refills: boolean;
}

/** Longer is absurd, and is taken for this: a month and a day. */
const LONGEST_MS = 32 * 86_400_000;
/** From here on a reset in seconds is a time since 1970, or it would be 31 years away; from the second on it is in ms (OpenRouter). */
const EPOCH_S = 1e9;
const EPOCH_MS = 1e12;
/** Of a list so many members are read. */
const MAX_POLICIES = 8;

/**
 * What the server asks to wait for. Retry-After is whole seconds or a date (RFC 9110 section 10.2.3); AI vendors also send fractions,
 * and `retry-after-ms` (Azure OpenAI), which their SDKs prefer.
 * @param headers flat raw pairs
 * @param wallNow ms since 1970
 * @returns ms from now, 0 for a date in the past; -1 = there is none, or none that is understood
 */
export function retryAfterMs(headers: readonly string[], wallNow: number): number {
  let found = -1;
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!;
    if (name.length === 14 && sameName(name, 'retry-after-ms')) {
      const ms = decimal(headers[i + 1]!);
      if (ms >= 0) return Math.min(ms, LONGEST_MS);
    } else if (name.length === 11 && found < 0 && sameName(name, 'retry-after')) {
      found = delayMs(headers[i + 1]!, wallNow);
    }
  }
  return found;
}

function delayMs(text: string, wallNow: number): number {
  const seconds = decimal(text);
  if (seconds >= 0) return Math.min(seconds * 1000, LONGEST_MS);
  const date = httpDate(text.trim(), wallNow);
  return Number.isNaN(date) ? -1 : until(date, wallNow);
}

/** The fields of one limit are a group; its members are its limit, what remains, and its reset. */
interface Group {
  readonly name: string;
  readonly kind: 'requests' | 'tokens';
  /** A bucket, where the reset is a duration with units or a date. In plain seconds it is a window (Azure OpenAI). */
  readonly isBucket: boolean;
  readonly fields: readonly [limit: string, remaining: string, reset: string];
}

const GROUPS: readonly Group[] = [
  // OpenAI, "Rate limits in headers": 1s, 6m0s; Azure OpenAI has the same names with whole seconds.
  openAi('requests'),
  openAi('tokens'),
  // Anthropic, "Rate limits: response headers": a token bucket, full at the reset (RFC 3339).
  anthropic('requests', 'requests'),
  anthropic('tokens', 'tokens'),
  anthropic('input-tokens', 'tokens'),
  anthropic('output-tokens', 'tokens'),
  // Everybody else's; in seconds from now or since 1970.
  generic('x-ratelimit'),
  // draft-ietf-httpapi-ratelimit-headers-03 to -06; GitLab puts a time since 1970 into them.
  generic('ratelimit'),
];

function openAi(kind: 'requests' | 'tokens'): Group {
  const field = (part: string) => `x-ratelimit-${part}-${kind}`;
  return { name: kind, kind, isBucket: true, fields: [field('limit'), field('remaining'), field('reset')] };
}

function anthropic(name: string, kind: 'requests' | 'tokens'): Group {
  const field = (part: string) => `anthropic-ratelimit-${name}-${part}`;
  return { name, kind, isBucket: true, fields: [field('limit'), field('remaining'), field('reset')] };
}

function generic(prefix: string): Group {
  const field = (part: string) => `${prefix}-${part}`;
  return { name: '', kind: 'requests', isBucket: false, fields: [field('limit'), field('remaining'), field('reset')] };
}

/** Of draft 7 and later. */
const LIST = 'ratelimit';
const POLICY = 'ratelimit-policy';
const SLOTS = GROUPS.length * 3 + 2;
const LIST_SLOT = SLOTS - 2;
const POLICY_SLOT = SLOTS - 1;

/** By the length of the name, which tells most fields apart from all of these: names, and where their values are put. */
const BY_LENGTH: readonly (readonly { readonly name: string; readonly slot: number }[] | undefined)[] = byLength();

function byLength() {
  const table: { name: string; slot: number }[][] = [];
  const names = [...GROUPS.flatMap((group) => group.fields), LIST, POLICY];
  for (const [slot, name] of names.entries()) {
    table[name.length] ??= [];
    table[name.length]!.push({ name, slot });
  }
  // Without holes: a hole is looked up along the prototype.
  return Array.from(table);
}

const NONE: readonly RateReport[] = Object.freeze([]);

/**
 * What an answer says is left of its upstream's limits, in the forms of OpenAI, Azure OpenAI, Anthropic, `X-RateLimit-*` and the
 * IETF's drafts. Malformed values are ignored, and so is a limit whose reset or rest is not known: it can hold up nobody.
 * @param headers flat raw pairs
 * @param wallNow ms since 1970
 * @returns a shared empty array when there is nothing
 */
export function readRateFields(headers: readonly string[], wallNow: number): readonly RateReport[] {
  let found: string[] | null = null;
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]!;
    const candidates = name.length < BY_LENGTH.length ? BY_LENGTH[name.length] : undefined;
    if (candidates === undefined) continue;
    for (let j = 0; j < candidates.length; j++) {
      const candidate = candidates[j]!;
      if (!sameName(name, candidate.name)) continue;
      found ??= new Array<string>(SLOTS).fill('');
      const { slot } = candidate;
      // Lists may be split over several lines; of others the first counts.
      if (found[slot] === '') found[slot] = headers[i + 1]!;
      else if (slot >= LIST_SLOT) found[slot] += `,${headers[i + 1]!}`;
      break;
    }
  }
  if (found === null) return NONE;
  const reports: RateReport[] = [];
  for (let i = 0; i < GROUPS.length; i++) readGroup(GROUPS[i]!, found, i * 3, wallNow, reports);
  if (found[LIST_SLOT] !== '') readList(found[LIST_SLOT]!, found[POLICY_SLOT]!, reports);
  return reports.length > 0 ? reports : NONE;
}

function readGroup(group: Group, found: readonly string[], at: number, wallNow: number, reports: RateReport[]): void {
  // Azure OpenAI sends -1 where it does not count.
  const remaining = decimal(found[at + 1]!);
  const reset = found[at + 2]!;
  const resetS = decimal(reset);
  const resetMs = resetS >= 0 ? fromSeconds(resetS, wallNow) : group.isBucket ? fromText(reset, wallNow) : -1;
  if (remaining < 0 || resetMs < 0) return;
  const limit = limitOf(found[at]!);
  reports.push({
    name: group.name,
    kind: group.kind,
    limit,
    remaining,
    resetMs,
    refills: group.isBucket && resetS < 0,
  });
}

/** Up to draft 6 the limit may be followed by the policies: `100, 100;w=60`. */
function limitOf(text: string): number {
  let end = 0;
  while (end < text.length && text.charCodeAt(end) !== COMMA && text.charCodeAt(end) !== SEMICOLON) end++;
  return decimal(text.slice(0, end));
}

function fromSeconds(seconds: number, wallNow: number): number {
  if (seconds >= EPOCH_MS) return until(seconds, wallNow);
  if (seconds >= EPOCH_S) return until(seconds * 1000, wallNow);
  return Math.min(seconds * 1000, LONGEST_MS);
}

function fromText(text: string, wallNow: number): number {
  const ms = duration(text);
  if (ms >= 0) return Math.min(ms, LONGEST_MS);
  const date = rfc3339(text);
  return Number.isNaN(date) ? -1 : until(date, wallNow);
}

function until(at: number, wallNow: number): number {
  return Math.min(Math.max(0, at - wallNow), LONGEST_MS);
}

const TAB = 0x09;
const SPACE = 0x20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const DOT = 0x2e;
const ZERO = 0x30;
const SEMICOLON = 0x3b;
const EQUALS = 0x3d;
const BACKSLASH = 0x5c;

function isDigit(c: number): boolean {
  return c >= ZERO && c <= 0x39;
}

/** Digits with or without a fraction, white space around them; no sign, no exponent. -1 = something else. */
function decimal(text: string): number {
  let end = text.length;
  let i = 0;
  while (i < end && (text.charCodeAt(i) === SPACE || text.charCodeAt(i) === TAB)) i++;
  while (end > i && (text.charCodeAt(end - 1) === SPACE || text.charCodeAt(end - 1) === TAB)) end--;
  const first = i;
  let value = 0;
  for (; i < end && isDigit(text.charCodeAt(i)); i++) value = value * 10 + text.charCodeAt(i) - ZERO;
  if (i === first) return -1;
  if (i < end) {
    if (text.charCodeAt(i++) !== DOT || i === end) return -1;
    for (let unit = 0.1; i < end; i++, unit /= 10) {
      if (!isDigit(text.charCodeAt(i))) return -1;
      value += (text.charCodeAt(i) - ZERO) * unit;
    }
  }
  return Math.min(value, Number.MAX_SAFE_INTEGER);
}

/** As Go prints it: `1h2m3.5s`, `120ms`, `0s`. @returns ms, -1 = something else */
function duration(text: string): number {
  let ms = 0;
  let i = 0;
  while (i < text.length) {
    const first = i;
    while (i < text.length && (isDigit(text.charCodeAt(i)) || text.charCodeAt(i) === DOT)) i++;
    const value = decimal(text.slice(first, i));
    const unitStart = i;
    while (i < text.length && !isDigit(text.charCodeAt(i))) i++;
    const unit = unitMs(text.slice(unitStart, i));
    if (value < 0 || unit === 0) return -1;
    ms += value * unit;
  }
  return text === '' ? -1 : ms;
}

function unitMs(unit: string): number {
  switch (unit) {
    case 'd':
      return 86_400_000;
    case 'h':
      return 3_600_000;
    case 'm':
      return 60_000;
    case 's':
      return 1000;
    case 'ms':
      return 1;
    case 'us':
    case 'µs':
      return 1e-3;
    case 'ns':
      return 1e-6;
    default:
      return 0;
  }
}

/** `2026-05-04T12:34:56.789Z`, `…+02:00` (RFC 3339 section 5.6). ms since 1970, or NaN. */
function rfc3339(text: string): number {
  // Date.parse also understands much that is no such time: with these in their places and a zone it is one, or NaN.
  if (text.length < 20 || text.length > 40) return Number.NaN;
  const isShaped = text[4] === '-' && text[7] === '-' && text[10] === 'T' && text[13] === ':' && text[16] === ':';
  const zone = text.length - 6;
  const hasZone = text.endsWith('Z') || ((text[zone] === '+' || text[zone] === '-') && text[zone + 3] === ':');
  return isShaped && hasZone ? Date.parse(text) : Number.NaN;
}

/** The three forms of RFC 9110 section 5.6.7. ms since 1970, or NaN. */
function httpDate(text: string, wallNow: number): number {
  const words = text.split(' ');
  // `Sun, 06 Nov 1994 08:49:37 GMT`
  if (words.length === 6 && words[5] === 'GMT') return instant(words[1]!, words[2]!, words[3]!, words[4]!);
  if (words.length === 4 && words[3] === 'GMT') {
    // `Sunday, 06-Nov-94 08:49:37 GMT`: the latest year that is not more than 50 years ahead.
    const [day = '', month = '', year = ''] = words[1]!.split('-');
    if (year.length !== 2 || !isDigit(year.charCodeAt(0))) return Number.NaN;
    const thisYear = new Date(wallNow).getUTCFullYear();
    let full = thisYear - (thisYear % 100) + 100 + Number(year);
    while (full > thisYear + 50) full -= 100;
    return instant(day, month, String(full), words[2]!);
  }
  // `Sun Nov  6 08:49:37 1994`
  const [, month = '', ...rest] = words.filter((word) => word !== '');
  return rest.length === 3 ? instant(rest[0]!.padStart(2, '0'), month, rest[2]!, rest[1]!) : Number.NaN;
}

function instant(day: string, month: string, year: string, time: string): number {
  const text = `${day} ${month} ${year} ${time} GMT`;
  const date = new Date(text);
  // Printed again it must be the same: Date.parse takes more than dates, and the 31st of June for the 1st of July.
  return !Number.isNaN(date.getTime()) && date.toUTCString().slice(5) === text ? date.getTime() : Number.NaN;
}

/** A member of a list: `key=value` or `"name";parameter=value` (RFC 9651). */
interface Member {
  readonly name: string;
  /** Of `key=value`. */
  readonly value: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** `RateLimit` of draft 7, `limit=100, remaining=50, reset=30`, and of draft 8 and later, `"default";r=50;t=30`. */
function readList(text: string, policyText: string, reports: RateReport[]): void {
  const members = parseList(text);
  const numberOf = (name: string) => decimal(members.find((member) => member.name === name)?.value ?? '');
  const remaining = numberOf('remaining');
  const reset = numberOf('reset');
  if (remaining >= 0 && reset >= 0) {
    const resetMs = Math.min(reset * 1000, LONGEST_MS);
    reports.push({ name: '', kind: 'requests', limit: numberOf('limit'), remaining, resetMs, refills: false });
    return;
  }
  const policies = parseList(policyText);
  for (const { name, parameters } of members) {
    const policy = policies.find((it) => it.name === name)?.parameters;
    const kind = kindOf(policy?.get('qu') ?? 'requests');
    const left = decimal(parameters.get('r') ?? '');
    const seconds = decimal(parameters.get('t') ?? '');
    if (kind === null || left < 0 || seconds < 0) continue;
    const resetMs = Math.min(seconds * 1000, LONGEST_MS);
    reports.push({ name, kind, limit: decimal(policy?.get('q') ?? ''), remaining: left, resetMs, refills: false });
  }
}

/** What is not counted in one of these cannot be reckoned with here: bytes, requests at once. */
function kindOf(unit: string): 'requests' | 'tokens' | null {
  return unit === 'requests' || unit === 'tokens' ? unit : null;
}

/** The first few members; of what is not well formed only so much as can be read. */
function parseList(text: string): Member[] {
  const members: Member[] = [];
  for (let i = 0; i < text.length && members.length < MAX_POLICIES; ) {
    const end = endOf(text, i, COMMA);
    const member = text.slice(i, end);
    let at = endOf(member, 0, SEMICOLON);
    const [name, value] = keyAndValue(member.slice(0, at));
    const parameters = new Map<string, string>();
    while (at < member.length) {
      const next = endOf(member, at + 1, SEMICOLON);
      parameters.set(...keyAndValue(member.slice(at + 1, next)));
      at = next;
    }
    members.push({ name, value, parameters });
    i = end + 1;
  }
  return members;
}

/** Where the next delimiter is that stands in no quotes, or the end. */
function endOf(text: string, from: number, delimiter: number): number {
  let isQuoted = false;
  for (let i = from; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === QUOTE) isQuoted = !isQuoted;
    else if (isQuoted && c === BACKSLASH) i++;
    else if (!isQuoted && c === delimiter) return i;
  }
  return text.length;
}

function keyAndValue(text: string): [key: string, value: string] {
  const equals = endOf(text, 0, EQUALS);
  return [unquoted(text.slice(0, equals)), unquoted(text.slice(equals + 1))];
}

function unquoted(text: string): string {
  const bare = text.trim();
  return bare.startsWith('"') && bare.endsWith('"') ? bare.slice(1, -1) : bare;
}

/** An sf-integer has at most 15 digits (RFC 9651 section 3.3.1). */
function integer(value: number, least: number): string {
  return String(Math.min(999_999_999_999_999, Math.max(least, Math.ceil(value))));
}

/**
 * The fields of our own refusals, of draft-ietf-httpapi-ratelimit-headers-10: what the policy is, and what is left of it.
 * @param limit requests in `windowS` seconds
 * @param resetS until more is granted
 * @param retryAfterS what Retry-After says, 0 = nothing; the reset is not later (section "Server Behavior")
 * @returns flat pairs; Retry-After is not among them
 */
export function rateLimitAnswerFields(
  limit: number,
  windowS: number,
  remaining: number,
  resetS: number,
  retryAfterS = 0,
): string[] {
  const waitS = retryAfterS > 0 ? Math.min(resetS, retryAfterS) : resetS;
  return [
    'ratelimit-policy',
    `"default";q=${integer(limit, 0)};w=${integer(windowS, 1)}`,
    'ratelimit',
    `"default";r=${integer(Math.floor(remaining), 0)};t=${integer(waitS, 0)}`,
  ];
}

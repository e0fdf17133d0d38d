// Reads what a rate limit counts: a rate such as `500/min`, and the key that says whose requests count together.

import { HEADER_NAME } from './header-names.ts';
import { DAY_MS } from './units.ts';

export interface Rate {
  readonly requests: number;
  readonly perMs: number;
}

export type LimitKey = 'global' | 'credential' | { readonly header: string };

const HOUR_MS = DAY_MS / 24;
const UNITS: Readonly<Record<string, number>> = {
  s: 1000,
  sec: 1000,
  second: 1000,
  min: HOUR_MS / 60,
  minute: HOUR_MS / 60,
  h: HOUR_MS,
  hour: HOUR_MS,
  d: DAY_MS,
  day: DAY_MS,
};
const MOST = 1_000_000_000;

export const RATE = new RegExp(`^([0-9]{1,10})/(${Object.keys(UNITS).join('|')})$`);
export const LIMIT_KEY = new RegExp(`^(global|credential|header:${HEADER_NAME.source.slice(1, -1)})$`);

/** `500/min`: 500 requests in each minute. */
export function parseRate(raw: unknown): Rate | string {
  const match = typeof raw === 'string' ? RATE.exec(raw) : null;
  if (!match) return 'must be a whole number per s, min, h or d (or sec, second, minute, hour, day), such as 500/min';
  const requests = Number(match[1]);
  if (requests < 1) return 'must be at least 1 request; a longer time, as in 1/h or 1/d, is a lower rate';
  if (requests > MOST) return `must be at most ${MOST} requests`;
  return { requests, perMs: UNITS[match[2]!]! };
}

/** `global`, `credential` or `header:x-user-id`; the name in lower case. */
export function parseLimitKey(raw: unknown): { readonly key: LimitKey } | string {
  if (raw === 'global' || raw === 'credential') return { key: raw };
  const rule = 'must be global, credential or header:<name>';
  if (typeof raw !== 'string' || !/^headers?(:|$)/.test(raw)) return rule;
  const name = /^header:(.*)$/s.exec(raw)?.[1];
  if (!name) return `${rule}, with the name of the header behind the colon, such as header:x-user-id`;
  if (!HEADER_NAME.test(name)) return `${rule}, without blanks, such as header:x-user-id`;
  return { key: { header: name.toLowerCase() } };
}

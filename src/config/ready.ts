// Ready numbers out of the validated form: its bounds were checked key by key, so that here a text means a bug.

import { parseCount, parseDuration, parseSize } from './units.ts';

/** Infinity for none. */
export function ms(text: string | 0): number {
  return ready(parseDuration(text, { min: 0, max: Number.POSITIVE_INFINITY, word: 'none' }));
}

export function bytes(text: string | 0): number {
  return ready(parseSize(text, { min: 0, max: Number.POSITIVE_INFINITY }));
}

/** Infinity for unlimited. */
export function number(value: number | 'unlimited'): number {
  return ready(parseCount(value, { min: 0, max: Number.POSITIVE_INFINITY, word: 'unlimited' }));
}

/** A text from a parser is the rule that was broken. */
export function ready<T extends number | object>(parsed: T | string): T {
  if (typeof parsed === 'string') throw new Error(`the validated form is wrong: ${parsed}`);
  return parsed;
}

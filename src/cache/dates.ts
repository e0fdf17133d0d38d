// HTTP dates (RFC 9110 section 5.6.7): the three forms, exactly; whatever else Date.parse would make of a text is no date.

import { valuesOf } from '../fields.ts';

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const MONTH = `(${MONTHS.join('|')})`;
const TIME = '([0-9]{2}):([0-9]{2}):([0-9]{2})';
const DAY = '(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)';
const LONG_DAY = '(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)';

/** `Sun, 06 Nov 1994 08:49:37 GMT` */
const IMF_FIXDATE = new RegExp(`^${DAY}, ([0-9]{2}) ${MONTH} ([0-9]{4}) ${TIME} GMT$`);
/** `Sunday, 06-Nov-94 08:49:37 GMT` */
const RFC_850 = new RegExp(`^${LONG_DAY}, ([0-9]{2})-${MONTH}-([0-9]{2}) ${TIME} GMT$`);
/** `Sun Nov  6 08:49:37 1994` */
const ASCTIME = new RegExp(`^${DAY} ${MONTH} ([0-9]{2}| [0-9]) ${TIME} ([0-9]{4})$`);

/**
 * Milliseconds since the epoch, or NaN. The name of the day is not checked against the date: it tells nothing.
 * @param now for years of two digits
 */
export function parseHttpDate(text: string, now: number = Date.now()): number {
  let parts = IMF_FIXDATE.exec(text);
  if (parts) return instant(parts[3]!, parts[2]!, parts[1]!, parts[4]!, parts[5]!, parts[6]!);
  parts = RFC_850.exec(text);
  if (parts) return recent(parts, now);
  parts = ASCTIME.exec(text);
  if (parts) return instant(parts[6]!, parts[1]!, parts[2]!, parts[3]!, parts[4]!, parts[5]!);
  return Number.NaN;
}

/** The latest year with these two digits that is not more than 50 years ahead (section 5.6.7). */
function recent(parts: readonly string[], now: number): number {
  const limit = new Date(now);
  limit.setUTCFullYear(limit.getUTCFullYear() + 50);
  let year = limit.getUTCFullYear() - (limit.getUTCFullYear() % 100) + Number(parts[3]);
  // Whether the day exists depends on the year, so an impossible one is looked for in the earlier century as well.
  for (let i = 0; i < 2; i++, year -= 100) {
    const time = instant(String(year), parts[2]!, parts[1]!, parts[4]!, parts[5]!, parts[6]!);
    if (time <= limit.getTime()) return time;
  }
  return Number.NaN;
}

function instant(year: string, month: string, day: string, hour: string, minute: string, second: string): number {
  // 60 is a leap second.
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 60) return Number.NaN;
  const date = new Date(0);
  // Not Date.UTC: it takes the years 0 to 99 for 1900 to 1999.
  date.setUTCFullYear(Number(year), MONTHS.indexOf(month), Number(day));
  if (date.getUTCDate() !== Number(day)) return Number.NaN;
  return date.setUTCHours(Number(hour), Number(minute), Number(second));
}

/** RFC 9110 section 6.6.1: who stores an answer without Date adds when it came. @param at wall clock, ms */
export function dated(headers: readonly string[], at: number): readonly string[] {
  if (valuesOf(headers, 'date').length > 0) return headers;
  return [...headers, 'date', new Date(at).toUTCString()];
}

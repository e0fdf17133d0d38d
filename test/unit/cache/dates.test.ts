// HTTP dates: RFC 9110 section 5.6.7.
import fc from 'fast-check';
import t from 'tap';
import { parseHttpDate } from '../../../src/cache/dates.ts';

const NOW = Date.UTC(2026, 8, 14, 12, 0, 0);
const parse = (text: string) => parseHttpDate(text, NOW);
const SAMPLE = Date.UTC(1994, 10, 6, 8, 49, 37);

t.test('the three forms are read (RFC 9110 section 5.6.7)', async (t) => {
  const table: [text: string, time: number][] = [
    ['Sun, 06 Nov 1994 08:49:37 GMT', SAMPLE],
    ['Sunday, 06-Nov-94 08:49:37 GMT', SAMPLE],
    ['Sun Nov  6 08:49:37 1994', SAMPLE],
    ['Sun Nov 06 08:49:37 1994', SAMPLE],
    ['Wed Nov 16 08:49:37 1994', SAMPLE + 10 * 86_400_000],
    ['Thu, 01 Jan 1970 00:00:00 GMT', 0],
    ['Thu, 29 Feb 2024 23:59:59 GMT', Date.UTC(2024, 1, 29, 23, 59, 59)],
    ['Sat, 31 Dec 2016 23:59:60 GMT', Date.UTC(2017, 0, 1)],
    ['Mon, 06 Nov 1994 08:49:37 GMT', SAMPLE],
    ['Fri, 31 Dec 9999 23:59:59 GMT', Date.UTC(9999, 11, 31, 23, 59, 59)],
    ['Mon, 01 Jan 0001 00:00:00 GMT', -62_135_596_800_000],
  ];
  for (const [text, time] of table) t.equal(parse(text), time, text);
});

t.test('a year of two digits is at most 50 years ahead (RFC 9110 section 5.6.7)', async (t) => {
  const table: [text: string, now: number, year: number][] = [
    ['Monday, 14-Sep-76 12:00:00 GMT', NOW, 2076],
    ['Monday, 14-Sep-76 12:00:01 GMT', NOW, 1976],
    ['Monday, 01-Jan-77 00:00:00 GMT', NOW, 1977],
    ['Monday, 01-Jan-26 00:00:00 GMT', NOW, 2026],
    ['Monday, 01-Jan-99 00:00:00 GMT', NOW, 1999],
    ['Monday, 01-Jan-00 00:00:00 GMT', NOW, 2000],
    ['Monday, 01-Jan-05 00:00:00 GMT', Date.UTC(2099, 0, 1), 2105],
    ['Monday, 01-Jan-98 00:00:00 GMT', Date.UTC(2099, 0, 1), 2098],
    ['Tuesday, 29-Feb-00 00:00:00 GMT', Date.UTC(2060, 0, 1), 2000],
  ];
  for (const [text, now, year] of table) t.equal(new Date(parseHttpDate(text, now)).getUTCFullYear(), year, text);
  t.ok(Number.isNaN(parse('Tuesday, 29-Feb-23 00:00:00 GMT')));
});

t.test('anything else is no date, whatever Date.parse says (RFC 9110 section 5.6.7)', async (t) => {
  const bad = [
    '',
    '0',
    '-1',
    'Sun, 06 Nov 1994 08:49:37',
    'Sun, 06 Nov 1994 08:49:37 UTC',
    'Sun, 06 Nov 1994 08:49:37 gmt',
    'Sun, 06 Nov 1994 08:49:37 +0000',
    'sun, 06 Nov 1994 08:49:37 GMT',
    'Sun, 06 NOV 1994 08:49:37 GMT',
    'Sun,  06 Nov 1994 08:49:37 GMT',
    ' Sun, 06 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 08:49:37 GMT ',
    'Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT',
    'Sun, 6 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 94 08:49:37 GMT',
    'Sun, 06-Nov-1994 08:49:37 GMT',
    'Sun, 06-Nov-94 08:49:37 GMT',
    'Sunday, 06 Nov 1994 08:49:37 GMT',
    'Sun Nov 6 08:49:37 1994',
    'Sun Nov  6 08:49:37 1994 GMT',
    'Sun, 06 Foo 1994 08:49:37 GMT',
    'Xyz, 06 Nov 1994 08:49:37 GMT',
    'Sun, 31 Nov 1994 08:49:37 GMT',
    'Sun, 00 Nov 1994 08:49:37 GMT',
    'Sun, 29 Feb 2023 08:49:37 GMT',
    'Sun, 06 Nov 1994 24:00:00 GMT',
    'Sun, 06 Nov 1994 08:60:37 GMT',
    'Sun, 06 Nov 1994 08:49:61 GMT',
    'Sun, 06 Nov 1994 8:49:37 GMT',
    '1994-11-06T08:49:37Z',
    '784111777',
  ];
  for (const text of bad) t.ok(Number.isNaN(parse(text)), text);
});

t.test('what toUTCString writes is read (property)', async (t) => {
  const seconds = fc.integer({ min: -62_135_596_800, max: 253_402_300_799 });
  const property = fc.property(seconds, (s) => parse(new Date(s * 1000).toUTCString()) === s * 1000);
  t.doesNotThrow(() => fc.assert(property));
});

// Reads the units of the config: durations to milliseconds, sizes to bytes, counts to numbers.
//
// Every parser returns the number, or a text with the rule that the value breaks. Whole numbers only: `1.5s` and
// `1h30m` would be second spellings of `1500ms` and `90m`.

/** The least and the largest number allowed, and the word that means Infinity where there is one. */
export interface Bounds {
  readonly min: number;
  readonly max: number;
  readonly word?: 'none' | 'unlimited' | 'cgroup' | 'p95';
}

const DURATION_UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
/** Binary multiples under both spellings: `kb` and `KiB` are 1024 bytes. */
const SIZE_UNITS = { b: 1, kb: 1024, mb: 1024 ** 2, gb: 1024 ** 3 } as const;

export const DURATION = /^([0-9]{1,12})(ms|s|m|h|d)$/;
export const SIZE = /^([0-9]{1,12})([kKmMgG][iI]?)?[bB]$/;

const PERCENT = /^[0-9]{1,3}(\.[0-9]+)? ?%$/;

export const KIB = SIZE_UNITS.kb;
export const MIB = SIZE_UNITS.mb;
export const GIB = SIZE_UNITS.gb;

export const DAY_MS = DURATION_UNITS.d;
/** No duration of the config is longer. */
export const LONGEST_MS = 365 * DAY_MS;
/** Node's own timers take at most 2^31-1 ms and fire at once beyond it. */
export const LONGEST_TIMER_MS = 24 * DAY_MS;
/** For what the timer wheel measures; 0 is refused because it could be read as "none". */
export const DEADLINE_OR_NONE = { min: 1, max: LONGEST_MS, word: 'none' } as const;

/** Milliseconds of `250ms`, `30s`, `10m`, `1h`, `2d`; plain `0` needs no unit. */
export function parseDuration(raw: unknown, bounds: Bounds): number | string {
  if (bounds.word !== undefined && raw === bounds.word) return Number.POSITIVE_INFINITY;
  const ms = raw === 0 || raw === '0' ? 0 : readDuration(raw);
  if (ms === null) return `must be a duration such as 250ms, 30s, 10m, 1h or 2d${orWord(bounds)}`;
  return within(ms, bounds, 'a duration', formatDuration);
}

/** Bytes of `10b`, `256kb`, `64mb`, `1gb`, also `KiB`, `MiB`, `GiB`; plain `0` needs no unit. */
export function parseSize(raw: unknown, bounds: Bounds): number | string {
  if (bounds.word !== undefined && raw === bounds.word) return Number.POSITIVE_INFINITY;
  const bytes = raw === 0 || raw === '0' ? 0 : readSize(raw);
  if (bytes === null) return `must be a size such as 10b, 256kb, 64mb or 1gb${orWord(bounds)}`;
  return within(bytes, bounds, 'a size', formatSize);
}

/** A whole number; quoted digits are text and so refused. */
export function parseCount(raw: unknown, bounds: Bounds): number | string {
  if (bounds.word !== undefined && raw === bounds.word) return Number.POSITIVE_INFINITY;
  // A value of the wrong kind is told the lower bound too: it is what one needs to know next.
  const count = Number.isSafeInteger(raw) ? (raw as number) : Number.NEGATIVE_INFINITY;
  return within(count, bounds, 'a whole number', String);
}

/** A number with a fraction. What looks like a percentage is told how it is written here. */
export function parseFraction(raw: unknown, bounds: Bounds): number | string {
  if (bounds.word !== undefined && raw === bounds.word) return Number.POSITIVE_INFINITY;
  if (typeof raw === 'number' && raw >= bounds.min && raw <= bounds.max) return raw;
  const percent = typeof raw === 'string' ? PERCENT.test(raw) : Number(raw) >= 2 && Number(raw) <= 100;
  // Not the value itself: it may come from a variable.
  const hint = percent ? '; 50% is written 0.5' : '';
  return `must be a number from ${bounds.min} to ${bounds.max}${orWord(bounds)}${hint}`;
}

/** The shortest exact spelling: 90000 is `90s`, 120000 is `2m`. */
export function formatDuration(ms: number): string {
  return spell(ms, DURATION_UNITS, 's');
}

export function formatSize(bytes: number): string {
  return spell(bytes, SIZE_UNITS, 'b');
}

function readDuration(raw: unknown): number | null {
  const match = typeof raw === 'string' ? DURATION.exec(raw) : null;
  return match && Number(match[1]) * DURATION_UNITS[match[2] as keyof typeof DURATION_UNITS];
}

function readSize(raw: unknown): number | null {
  const match = typeof raw === 'string' ? SIZE.exec(raw) : null;
  if (!match) return null;
  const unit = `${(match[2] ?? '').charAt(0).toLowerCase()}b` as keyof typeof SIZE_UNITS;
  return Number(match[1]) * SIZE_UNITS[unit];
}

function within(value: number, bounds: Bounds, what: string, format: (value: number) => string): number | string {
  if (value < bounds.min) return `must be ${what} of at least ${format(bounds.min)}${orWord(bounds)}`;
  if (value > bounds.max) return `must be ${what} of at most ${format(bounds.max)}${orWord(bounds)}`;
  return value;
}

function orWord(bounds: Bounds): string {
  return bounds.word === undefined ? '' : `, or ${bounds.word}`;
}

function spell(value: number, units: Readonly<Record<string, number>>, ofZero: string): string {
  if (value === 0) return `0${ofZero}`;
  const [unit, factor] = Object.entries(units).findLast(([, factor]) => value % factor === 0) ?? [ofZero, 1];
  return `${value / factor}${unit}`;
}

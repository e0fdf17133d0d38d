// Medians over the rounds, the table, and the verdict on the targets.
import type { RunningPeer } from './peers.ts';
import type { Sample, Samples } from './rounds.ts';
import type { Work } from './work.ts';

/** Median over the rounds, and the quartiles that show how far to trust it. */
export interface Ratio {
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

export interface Row extends Sample {
  readonly name: string;
  readonly work: Work;
  /** CPU per request as a multiple of another's in the same round: of nginx with the same work; null when that one did not run. */
  readonly toNginx: Ratio | null;
  readonly toHttpProxy3: Ratio | null;
  /** Of aiproxy forwarding. */
  readonly toForwarded: Ratio | null;
}

export interface Verdict {
  readonly target: string;
  /** null = not measured. */
  readonly met: boolean | null;
  readonly text: string;
}

export function rowsOf(peers: readonly RunningPeer[], samples: Samples): Row[] {
  const rows: Row[] = [];
  for (const { name, work } of peers) {
    const own = samples.get(name)!;
    rows.push({
      name,
      work,
      perSecond: median(own.map((sample) => sample.perSecond)),
      p50Micros: median(own.map((sample) => sample.p50Micros)),
      p99Micros: median(own.map((sample) => sample.p99Micros)),
      cpuMicros: median(own.map((sample) => sample.cpuMicros)),
      rssMb: own.at(-1)!.rssMb,
      toNginx: ratio(own, samples.get(work === 'forwarded' ? 'nginx' : `nginx-${work}`)),
      toHttpProxy3: ratio(own, samples.get('http-proxy-3')),
      toForwarded: ratio(own, samples.get('aiproxy')),
    });
  }
  return rows.sort((a, b) => a.cpuMicros - b.cpuMicros);
}

/** Ratios of the same round, then their median: the machine's mood cancels out. */
function ratio(own: readonly Sample[], other: readonly Sample[] | undefined): Ratio | null {
  if (!other) return null;
  const ratios = own.map((sample, round) => sample.cpuMicros / other[round]!.cpuMicros);
  return { median: median(ratios), low: quantile(ratios, 0.25), high: quantile(ratios, 0.75) };
}

export function verdicts(rows: readonly Row[]): Verdict[] {
  const [aiproxy, post, get] = ['', '-post-hit', '-get-hit'].map((suffix) =>
    rows.find((row) => row.name === `aiproxy${suffix}`),
  );
  return [
    verdict('CPU per request <= 3.5 x nginx', aiproxy?.toNginx?.median, (value) => value <= 3.5),
    verdict('CPU per request < 0.5 x http-proxy-3', aiproxy?.toHttpProxy3?.median, (value) => value < 0.5),
    verdict('CPU per POST hit <= 0.6 x forwarded', post?.toForwarded?.median, (value) => value <= 0.6),
    verdict('CPU per GET hit <= 0.6 x forwarded', get?.toForwarded?.median, (value) => value <= 0.6),
  ];
}

function verdict(target: string, value: number | null | undefined, isMet: (value: number) => boolean): Verdict {
  if (value == null) return { target, met: null, text: `not measured  ${target}` };
  const met = isMet(value);
  return { target, met, text: `${met ? 'met         ' : 'MISSED      '}  ${target}: ${value.toFixed(2)}` };
}

export type Column<T> = readonly [title: string, cell: (row: T) => string];

const X_HTTP_PROXY_3: Column<Row> = ['x http-proxy-3', (row) => shown(row.toHttpProxy3)];
const X_FORWARDED: Column<Row> = ['x aiproxy forwarded', (row) => shown(row.toForwarded)];
const columns = (title: string, compared: Column<Row>): readonly Column<Row>[] => [
  [title, (row) => row.name],
  ['CPU us/req', (row) => row.cpuMicros.toFixed(1)],
  ['x nginx', (row) => shown(row.toNginx)],
  compared,
  ['req/s', (row) => row.perSecond.toFixed(0)],
  ['p50 ms', (row) => (row.p50Micros / 1000).toFixed(2)],
  ['p99 ms', (row) => (row.p99Micros / 1000).toFixed(2)],
  ['RSS MB', (row) => row.rssMb.toFixed(0)],
];

/** One of what was forwarded and one of what came from a cache, as far as either was measured. */
export function tablesOf(rows: readonly Row[]): string[] {
  const forwarded = rows.filter((row) => row.work === 'forwarded');
  const hits = rows.filter((row) => row.work !== 'forwarded');
  return [
    ...(forwarded.length ? [tableOf(columns('proxy', X_HTTP_PROXY_3), forwarded)] : []),
    ...(hits.length ? [tableOf(columns('from its cache', X_FORWARDED), hits)] : []),
  ];
}

export function tableOf<T>(columns: readonly Column<T>[], rows: readonly T[]): string {
  const lines = [columns.map(([title]) => title), ...rows.map((row) => columns.map(([, cell]) => cell(row)))];
  const widths = columns.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  return lines
    .map((line) => line.map((cell, n) => (n === 0 ? cell.padEnd(widths[n]!) : cell.padStart(widths[n]!))).join('  '))
    .join('\n');
}

/** `3.26 (3.10-3.52)`: the median and the quartiles. */
function shown(ratio: Ratio | null): string {
  return ratio ? `${ratio.median.toFixed(2)} (${ratio.low.toFixed(2)}-${ratio.high.toFixed(2)})` : '-';
}

export function medianOf<T>(items: readonly T[], of: (item: T) => number): number {
  return median(items.map(of));
}

function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** With linear interpolation between neighbours. */
function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const place = (sorted.length - 1) * share;
  const below = sorted[Math.floor(place)]!;
  const above = sorted[Math.ceil(place)]!;
  return below + (above - below) * (place - Math.floor(place));
}

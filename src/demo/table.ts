// The before/after table and the sentences below it, as text.
import { styleText } from 'node:util';
import { type LoadResult, quantile } from './legacy-client.ts';

/** One number of users, on one path. */
export interface Measurement {
  readonly load: LoadResult;
  /** TLS connections that the upstreams saw during it. */
  readonly connections: number;
  /** Calls sent on a connection that was open already / calls; 0..1. */
  readonly reuseRate: number;
}

export interface Comparison {
  readonly users: number;
  readonly direct: Measurement;
  readonly proxied: Measurement;
}

const HEADINGS = ['users', 'path', 'p50 ms', 'p95 ms', 'calls/s', 'connections', 'reuse', 'errors'];
const WIDTHS = [5, 8, 8, 8, 9, 12, 8, 7];

/** As wide as the table. */
const TEXT_WIDTH = 79;

/** `colored` only adds bold and dim escapes. */
export function renderTable(comparisons: readonly Comparison[], colored: boolean): string {
  const bold = (text: string): string => (colored ? styleText('bold', text, { validateStream: false }) : text);
  const dim = (text: string): string => (colored ? styleText('dim', text, { validateStream: false }) : text);
  const rule = dim(WIDTHS.map((width) => '─'.repeat(width)).join('──'));
  const lines = [bold(row(HEADINGS)), rule];
  for (const { users, direct, proxied } of comparisons) {
    const change = ['', 'change', ...latencyChange(direct, proxied), '', '', ''];
    lines.push(row([String(users), 'direct', ...cells(direct)]));
    lines.push(bold(row(['', 'aiproxy', ...cells(proxied)])));
    lines.push(dim(row(change)), rule);
  }
  return `${lines.join('\n')}\n`;
}

/** Numbers to the right, the path to the left. */
function row(texts: readonly string[]): string {
  return texts
    .map((text, i) => (i === 1 ? text.padEnd(WIDTHS[i]!) : text.padStart(WIDTHS[i]!)))
    .join('  ')
    .trimEnd();
}

function cells({ load, connections, reuseRate }: Measurement): string[] {
  const ms = (share: number): string => number(quantile(load.latenciesMs, share), 0);
  const throughput = number(callsPerSecond(load), 1);
  return [ms(0.5), ms(0.95), throughput, String(connections), `${percent(reuseRate)} %`, String(load.errors)];
}

function latencyChange(direct: Measurement, proxied: Measurement): string[] {
  const at = (share: number): string =>
    change(quantile(direct.load.latenciesMs, share), quantile(proxied.load.latenciesMs, share));
  return [at(0.5), at(0.95), change(callsPerSecond(direct.load), callsPerSecond(proxied.load))];
}

function callsPerSecond(load: LoadResult): number {
  return load.latenciesMs.length / (load.elapsedMs / 1000);
}

function change(before: number, after: number): string {
  const percents = Math.round((after / before - 1) * 100);
  if (!Number.isFinite(percents)) return '-';
  return `${percents > 0 ? '+' : ''}${percents} %`;
}

/** Rounded down to a tenth below 100, so that "100 %" means all of them. */
function percent(share: number): string {
  return share === 1 ? '100' : (Math.floor(share * 1000) / 10).toFixed(1).replace(/\.0$/, '');
}

function number(value: number, digits: number): string {
  return Number.isFinite(value) ? value.toFixed(digits) : '-';
}

/** What the table means, in words that do not promise more than it shows. */
export function renderSummary(comparisons: readonly Comparison[], rttMs: number): string {
  const [first] = comparisons;
  const last = comparisons.at(-1);
  if (first === undefined || last === undefined) return '';
  const saved = quantile(first.direct.load.latenciesMs, 0.5) - quantile(first.proxied.load.latenciesMs, 0.5);
  const verb = saved >= 0 ? 'saves' : 'costs';
  const connections = comparisons.reduce((sum, { proxied }) => sum + proxied.connections, 0);
  const calls = comparisons.reduce((sum, { proxied }) => sum + proxied.load.calls, 0);
  const proxiedErrors = comparisons.reduce((sum, { proxied }) => sum + proxied.load.errors, 0);
  const paragraphs = [
    `With ${plural(first.users, 'user')} aiproxy ${verb} ${Math.abs(saved).toFixed(0)} ms on the median call: a new connection costs a TCP and a TLS handshake, two round trips of ${rttMs} ms here, and a warm one costs neither (${plural(connections, 'connection')} for ${calls} calls, besides those it opens at its start). It cannot make a model think faster: the mocks think for 40 to 80 ms, a real one often for seconds, so expect the milliseconds rather than the percentage. All parts share this machine, so with ${plural(last.users, 'user')} the numbers contain its CPU too, on the direct side mostly that of TLS handshakes.`,
    ...faults(comparisons, proxiedErrors),
    'Your own backend: npm start, then change only its base URLs, for example OPENAI_BASE_URL=http://127.0.0.1:8080/openai/v1 (the first path segment picks an upstream of config/aiproxy.yaml).',
  ];
  return `${paragraphs.map((text) => wrap(text, TEXT_WIDTH)).join('\n\n')}\n`;
}

/** Why calls failed, when some did. */
function faults(comparisons: readonly Comparison[], proxiedErrors: number): string[] {
  const all = comparisons.flatMap(({ direct, proxied }) => [
    ...[...direct.load.reasons].map(([reason, count]) => `direct: ${reason} (${count})`),
    ...[...proxied.load.reasons].map(([reason, count]) => `through aiproxy: ${reason} (${count})`),
  ]);
  if (all.length === 0) return [];
  const verdict =
    proxiedErrors > 0 ? 'Calls through aiproxy failed, which must not happen' : 'Only direct calls failed';
  return [`${verdict}. ${all.join(', ')}.`];
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function wrap(text: string, width: number): string {
  const lines = [''];
  for (const word of text.split(' ')) {
    const line = lines.at(-1)!;
    if (line !== '' && line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines.join('\n');
}

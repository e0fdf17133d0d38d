// Prometheus' text exposition format 0.0.4, written by hand: families, labels, numbers, histograms.
// Source: https://prometheus.io/docs/instrumenting/exposition_formats/
import type { HistogramTotals } from './snapshot.ts';

export type Labels = Readonly<Record<string, string>>;
export type Sample = readonly [labels: Labels, value: number];
export type HistogramSample = readonly [labels: Labels, totals: HistogramTotals];

/** Collects families in the order given. A family without samples is left out: an empty one tells nothing. */
export class Exposition {
  #text = '';

  family(kind: 'gauge' | 'counter', name: string, help: string, samples: readonly Sample[]): void {
    if (samples.length === 0) return;
    this.#head(name, kind, help);
    for (const [labels, value] of samples) this.#line(name, labels, value);
  }

  histogram(name: string, help: string, samples: readonly HistogramSample[]): void {
    if (samples.length === 0) return;
    this.#head(name, 'histogram', help);
    for (const [labels, totals] of samples) this.#series(name, labels, totals);
  }

  toString(): string {
    return this.#text;
  }

  /** Our counts are per bucket; the format wants each bucket to hold all smaller ones too, and +Inf to equal the count. */
  #series(name: string, labels: Labels, totals: HistogramTotals): void {
    let below = 0;
    for (let i = 0; i < totals.bounds.length; i++) {
      below += totals.counts[i] ?? 0;
      this.#line(`${name}_bucket`, { ...labels, le: numberText(totals.bounds[i]!) }, below);
    }
    below += totals.counts[totals.bounds.length] ?? 0;
    this.#line(`${name}_bucket`, { ...labels, le: '+Inf' }, below);
    this.#line(`${name}_sum`, labels, totals.sum);
    this.#line(`${name}_count`, labels, below);
  }

  #head(name: string, type: string, help: string): void {
    this.#text += `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n# TYPE ${name} ${type}\n`;
  }

  #line(name: string, labels: Labels, value: number): void {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
    this.#text += `${name}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${numberText(value)}\n`;
  }
}

/** Operation labels come from clients, so a value may hold anything a header can. */
export function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

/** As Go's ParseFloat reads it. */
export function numberText(value: number): string {
  if (value === Infinity) return '+Inf';
  if (value === -Infinity) return '-Inf';
  return String(value);
}

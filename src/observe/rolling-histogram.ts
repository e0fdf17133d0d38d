// Percentiles over the last 60 s, and totals since start for Prometheus.

import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import type { HistogramTotals, WindowMs } from './snapshot.ts';

/** The window moves in steps of 10 s: what it covers is between 50 and 60 s. */
const SLICES = 6;
export const SLICE_MS = 10_000;
/** Microseconds; two figures keep a slice small (the default three figures take 0.2 MB each). */
const LIMITS = { lowest: 1, highest: 3_600_000_000, figures: 2 } as const;
/** Seconds. From a cache hit to a model that thinks for ten minutes. */
const BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600] as const;

export class RollingHistogram {
  /** Made when first written to: most operations of most limiters stay empty. */
  readonly #slices: (RecordableHistogram | null)[] = new Array(SLICES).fill(null);
  #index = 0;
  readonly #counts = new Array<number>(BOUNDS.length + 1).fill(0);
  #sumMs = 0;
  #total = 0;

  /** @param ms anything below one microsecond counts as one */
  record(ms: number): void {
    const us = Math.round(ms * 1000);
    const slice = this.#slices[this.#index] ?? this.#open();
    slice.record(Math.min(Math.max(us, 1), LIMITS.highest));
    this.#sumMs += ms;
    this.#total++;
    const seconds = ms / 1000;
    let i = 0;
    while (i < BOUNDS.length && seconds > BOUNDS[i]!) i++;
    this.#counts[i]!++;
  }

  #open(): RecordableHistogram {
    const slice = createHistogram(LIMITS);
    this.#slices[this.#index] = slice;
    return slice;
  }

  /** Every SLICE_MS: goes on to the next slice, the oldest is forgotten. */
  rotate(): void {
    this.#index = (this.#index + 1) % SLICES;
    this.#slices[this.#index]?.reset();
  }

  /** Milliseconds since start / observations since start; 0 before the first. */
  get mean(): number {
    return this.#total === 0 ? 0 : this.#sumMs / this.#total;
  }

  get total(): number {
    return this.#total;
  }

  window(): WindowMs {
    const merged = createHistogram(LIMITS);
    for (const slice of this.#slices) if (slice && slice.count > 0) merged.add(slice);
    if (merged.count === 0) return { p50: 0, p95: 0, p99: 0, max: 0, count: 0 };
    const ms = (us: number) => Math.round(us) / 1000;
    return {
      p50: ms(merged.percentile(50)),
      p95: ms(merged.percentile(95)),
      p99: ms(merged.percentile(99)),
      max: ms(merged.max),
      count: Number(merged.count),
    };
  }

  totals(): HistogramTotals {
    return { bounds: BOUNDS, counts: [...this.#counts], sum: this.#sumMs / 1000 };
  }
}

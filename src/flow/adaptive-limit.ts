// How many requests an upstream takes at once, learnt from its answers: by what it refuses (AIMD), or by its latency (gradient).

import type { AdaptiveConfig } from '../config/schema.ts';

/** Times in ms on one clock. */
export interface AdaptiveLimit {
  /** A whole number, min..max. */
  readonly limit: number;
  /** @param inFlight how many were in flight with it, itself among them */
  succeeded(inFlight: number, latencyMs: number, sentAt: number, now: number): void;
  /** The upstream had too much: 429, 503, timeout, no connection. */
  dropped(sentAt: number, now: number): void;
}

export function adaptiveLimit({ min, max, mode }: AdaptiveConfig): AdaptiveLimit {
  return mode === 'aimd' ? new AimdLimit(min, max) : new GradientLimit(min, max);
}

/** Netflix concurrency-limits, for all of its laws. */
const DROP_FACTOR = 0.9;
/** Sums of fractions that make a whole one but for the last bits. */
const ROUNDING = 1e-9;

/**
 * Additive increase, multiplicative decrease: ×0.9 when the upstream drops, +1 for each `limit` successes while at least half of the
 * limit is used.
 *
 * The decrease and the rule of use are Netflix's AIMDLimit. Its increase of 1 with *each* success is not: that doubles the limit in one
 * round trip (TCP's slow start, without its end), and is bearable there only because each of a burst of drops counts. Here one
 * congestion counts once, as in TCP (RFC 6582): a drop of a request sent before the last decrease says nothing new, and fifty 429
 * to one burst would leave ×0.005. The increase that balances this is TCP's congestion avoidance, 1 per round trip (RFC 5681 §3.1;
 * Chiu & Jain 1989): what one congestion takes from a limit L is back after L/10 round trips.
 *
 * It starts at `max`, the number that would stand there without `adaptive`: it only ever takes away what the upstream did not bear,
 * and a new start of the process costs nobody a ramp of minutes. A start far too high costs some drops: a tenth of it is
 * reached after 22 congestions, which an upstream that refuses at once reports within seconds.
 */
export class AimdLimit implements AdaptiveLimit {
  limit: number;
  readonly #min: number;
  readonly #max: number;
  #exact: number;
  #decreasedAt = Number.NEGATIVE_INFINITY;

  constructor(min: number, max: number) {
    this.#min = min;
    this.#max = max;
    this.#exact = max;
    this.limit = max;
  }

  succeeded(inFlight: number, _latencyMs: number, sentAt: number, _now: number): void {
    // One sent before the decrease tells of the load that was there before it: no reason to take it back.
    if (sentAt <= this.#decreasedAt || 2 * inFlight < this.limit) return;
    this.#set(Math.min(this.#max, this.#exact + 1 / this.limit));
  }

  dropped(sentAt: number, now: number): void {
    if (sentAt <= this.#decreasedAt) return;
    this.#decreasedAt = now;
    this.#set(Math.max(this.#min, this.#exact * DROP_FACTOR));
  }

  #set(exact: number): void {
    this.#exact = exact;
    this.limit = Math.floor(exact + ROUNDING);
  }
}

/** Defaults of Netflix's Gradient2Limit and WindowedLimit. */
const INITIAL_LIMIT = 20;
const SMOOTHING = 0.2;
const QUEUE = 4;
const TOLERANCE = 1.5;
const LONG_WINDOW = 600;
const LONG_WARM_UP = 10;
const WINDOW_MS = 1000;
const WINDOW_SAMPLES = 10;
/** A latency below this is no latency of an upstream. */
const MIN_LATENCY_MS = 0.1;

/**
 * Netflix's Gradient2Limit: the limit follows the ratio of a long average of the latency to that of the last window.
 *
 *     gradient = clamp(1.5 · long / short, 0.5, 1)
 *     limit    = 0.8 · limit + 0.2 · (gradient · limit + 4)
 *
 * Unchanged when less than half of the limit was used. It starts at 20, as there, not at `max`: the long average must first see
 * latencies without a queue.
 *
 * Two things differ. A window is over after 1 s *and* 10 samples, where WindowedLimit throws the samples of a window with fewer away: an
 * upstream with 5 requests a second would never be measured. And a drop counts ×0.9, once for each congestion (see AimdLimit):
 * Gradient2 is deaf to it, and a refusal comes fast, so that latency alone would let the limit grow.
 */
export class GradientLimit implements AdaptiveLimit {
  limit: number;
  readonly #min: number;
  readonly #max: number;
  #exact: number;
  #decreasedAt = Number.NEGATIVE_INFINITY;
  #longMs = 0;
  #longSamples = 0;
  #windowEndsAt = 0;
  #sumMs = 0;
  #samples = 0;
  #peakInFlight = 0;

  constructor(min: number, max: number) {
    this.#min = min;
    this.#max = max;
    this.#exact = Math.max(min, Math.min(max, INITIAL_LIMIT));
    this.limit = this.#exact;
  }

  succeeded(inFlight: number, latencyMs: number, _sentAt: number, now: number): void {
    if (latencyMs < MIN_LATENCY_MS) return;
    if (this.#samples === 0) this.#windowEndsAt = now + WINDOW_MS;
    this.#samples++;
    this.#sumMs += latencyMs;
    if (inFlight > this.#peakInFlight) this.#peakInFlight = inFlight;
    if (now >= this.#windowEndsAt && this.#samples >= WINDOW_SAMPLES) this.#endWindow();
  }

  dropped(sentAt: number, now: number): void {
    if (sentAt <= this.#decreasedAt) return;
    this.#decreasedAt = now;
    this.#set(this.#exact * DROP_FACTOR);
  }

  #endWindow(): void {
    const shortMs = this.#sumMs / this.#samples;
    const inFlight = this.#peakInFlight;
    this.#samples = 0;
    this.#sumMs = 0;
    this.#peakInFlight = 0;
    const longMs = this.#average(shortMs);
    // Well again after a long bad time: the average would need ten minutes to see it.
    if (longMs / shortMs > 2) this.#longMs *= 0.95;
    if (inFlight < this.#exact / 2) return;
    const gradient = Math.max(0.5, Math.min(1, (TOLERANCE * longMs) / shortMs));
    this.#set((1 - SMOOTHING) * this.#exact + SMOOTHING * (gradient * this.#exact + QUEUE));
  }

  /** The plain mean of the first ten windows, then an exponential average over about 600. */
  #average(shortMs: number): number {
    const share = this.#longSamples < LONG_WARM_UP ? 1 / ++this.#longSamples : 2 / (LONG_WINDOW + 1);
    this.#longMs += share * (shortMs - this.#longMs);
    return this.#longMs;
  }

  #set(exact: number): void {
    this.#exact = Math.max(this.#min, Math.min(this.#max, exact));
    this.limit = Math.floor(this.#exact + ROUNDING);
  }
}

// How long to wait before a retry: exponential back-off with full jitter.

/** 2³¹ times any base is above any maximum; more could overflow, and 0 · Infinity is no time to wait. */
const MAX_DOUBLINGS = 31;

/**
 * Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): of the variants compared there, full jitter makes those
 * who failed together the least work together.
 * @param retry 1 for the first
 * @param random 0..1
 * @returns ms, uniform in 0..min(maxMs, baseMs · 2^(retry−1))
 */
export function fullJitter(retry: number, baseMs: number, maxMs: number, random: () => number = Math.random): number {
  return random() * Math.min(maxMs, baseMs * 2 ** Math.min(retry - 1, MAX_DOUBLINGS));
}

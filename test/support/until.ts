// Waits for a condition with a deadline; there are no fixed sleeps in tests.

import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 2;

/** Resolves with the first truthy value of `condition`; throws `what` once `withinMs` have passed. */
export async function until<T>(what: string, condition: () => T, withinMs = 5000): Promise<NonNullable<T>> {
  const giveUpAt = performance.now() + withinMs;
  for (;;) {
    const value = condition();
    if (value) return value as NonNullable<T>;
    if (performance.now() > giveUpAt) throw new Error(`still not so after ${withinMs} ms: ${what}`);
    await sleep(POLL_MS);
  }
}

/** For showing that something does *not* happen: gives it this long to go wrong. */
export async function whileNothing(ms: number): Promise<void> {
  await sleep(ms);
}

/** The promise's value, or an error that says what was waited for. */
export async function within<T>(what: string, promise: Promise<T>, ms = 5000): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing after ${ms} ms: ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// Finds the word that was probably meant, for the "did you mean" of the config problems.

/** The candidate nearest to `word`, or null when none is near enough to be a slip of the finger. */
export function suggest(word: string, candidates: readonly string[]): string | null {
  const limit = word.length <= 3 ? 1 : word.length <= 6 ? 2 : 3;
  let best: string | null = null;
  let bestDistance = limit + 1;
  for (const candidate of candidates) {
    const found = distance(word.toLowerCase(), candidate.toLowerCase());
    // A distance of the whole word would suggest `b` for `a`.
    if (found < bestDistance && found < candidate.length) {
      best = candidate;
      bestDistance = found;
    }
  }
  return best;
}

/** How other programs call what has another name here. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  backends: 'targets',
  circuit_breaker: 'breaker',
  failover: 'targets',
  hedging: 'hedge',
  outlier_detection: 'breaker',
  priorities: 'lanes',
  retry: 'retries',
  servers: 'targets',
  throttle: 'rate_limits',
};

/** The name of that here, if it is one of the candidates. */
export function nameHere(word: string, candidates: readonly string[]): string | null {
  const name = Object.hasOwn(ELSEWHERE, word) ? ELSEWHERE[word]! : null;
  return name !== null && candidates.includes(name) ? name : null;
}

/** Damerau-Levenshtein (optimal string alignment): insertions, deletions, changes and swaps of neighbours. */
export function distance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let least = Math.min(last[column]! + 1, current[column - 1]! + 1, last[column - 1]! + (same ? 0 : 1));
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        least = Math.min(least, beforeLast[column - 2]! + 1);
      }
      current.push(least);
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length]!;
}

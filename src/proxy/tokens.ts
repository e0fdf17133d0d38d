// The secrets that a listener takes requests with, compared so that the time it takes tells nothing of them.

import { hash, timingSafeEqual } from 'node:crypto';

export class Tokens {
  /** Digests are of one length, whatever the secrets' are. */
  readonly #digests: readonly Buffer[];

  constructor(secrets: readonly string[]) {
    this.#digests = secrets.map((secret) => digest(Buffer.from(secret)));
  }

  /** @param token as the head has it: bytes as latin1; '' = none, or more than one */
  includes(token: string): boolean {
    if (token === '') return false;
    const given = digest(Buffer.from(token, 'latin1'));
    let found = false;
    // All of them, also behind the one that fits: which one it is shows no more than whether.
    for (const known of this.#digests) if (timingSafeEqual(given, known)) found = true;
    return found;
  }
}

function digest(bytes: Buffer): Buffer {
  return hash('sha256', bytes, 'buffer');
}

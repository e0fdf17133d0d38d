// Counts the bytes that are read, and has the young generation collected every so many of them.
//
// Node reads into a new 64 kB buffer each time, and V8 lets some 35 MB of used ones pile up before it looks. With large bodies that was
// 86 to 156 MB more RSS, most of it garbage (`npm run bench -- --bodies`); collected so often it is 28 to 46.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const EVERY_BYTES = 16 * 1024 * 1024;

type Collect = (options: { readonly type: 'minor' }) => void;

export class Turnover {
  readonly #collect: Collect;
  #bytes = 0;

  constructor(collect: Collect = collectorOfV8()) {
    this.#collect = collect;
  }

  passed(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < EVERY_BYTES) return;
    this.#bytes = 0;
    this.#collect({ type: 'minor' });
  }
}

/** V8 gives it to contexts made after the flag was set; the code of this process does not see it. */
function collectorOfV8(): Collect {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as Collect;
}

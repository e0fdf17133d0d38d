// The measures of how hard-pressed the process is: memory against its limit, and how late the event loop is.
//
// Memory is the working set as Kubernetes counts it: usage less inactive_file, the page cache that the kernel drops first (cAdvisor;
// Linux, "Control Group v2", memory.current and memory.stat; "cgroup-v1/memory").

import { closeSync, openSync, readSync } from 'node:fs';

interface Version {
  /** Where its hierarchy is mounted. */
  readonly mount: string;
  readonly limit: string;
  readonly usage: string;
  /** With the line break before it: `total_inactive_file` is another key. */
  readonly inactive: string;
}

const V2: Version = {
  mount: '/sys/fs/cgroup',
  limit: 'memory.max',
  usage: 'memory.current',
  inactive: '\ninactive_file ',
};
const V1: Version = {
  mount: '/sys/fs/cgroup/memory',
  limit: 'memory.limit_in_bytes',
  usage: 'memory.usage_in_bytes',
  inactive: '\ntotal_inactive_file ',
};

/** A limit from here on is none: v1 has no word for it and says 2^63 less a page. */
const NO_LIMIT = 2 ** 50;
/** Readings between two looks for the limits themselves, which may be changed under a running process (in-place resize of a pod). */
const READINGS_PER_SURVEY = 40;
const MAX_FILE_BYTES = 16_384;

/** A cgroup with a limit of its own: the process's, or one around it. */
interface Bound {
  readonly limit: number;
  readonly usagePath: string;
  readonly statPath: string;
  readonly inactive: string;
}

/** Memory used, and how much there is. `read` takes a few small synchronous reads of pseudo-files: tens of microseconds, never a disk. */
export class MemoryGauge {
  /** Bytes at the last reading. */
  used = 0;
  /** Bytes; Infinity = not known. */
  limit = Number.POSITIVE_INFINITY;
  readonly #memoryBytes: number | null;
  readonly #root: string;
  readonly #rss: () => number;
  readonly #buffer = Buffer.alloc(MAX_FILE_BYTES);
  #bounds: readonly Bound[] = [];
  #readings = 0;

  /**
   * @param memoryBytes what there is for this process alone, measured by its RSS; null = as the cgroups say
   * @param root before every path; for tests
   */
  constructor(memoryBytes: number | null, root = '', rss: () => number = process.memoryUsage.rss) {
    this.#memoryBytes = memoryBytes;
    this.#root = root;
    this.#rss = rss;
  }

  /** Sets `used` and `limit`, those of the cgroup that is nearest to its limit. Never throws. */
  read(): void {
    if (this.#memoryBytes !== null) {
      this.#set(this.#rss(), this.#memoryBytes);
      return;
    }
    if (this.#readings++ % READINGS_PER_SURVEY === 0) this.#bounds = this.#survey();
    let used = -1;
    let limit = 0;
    for (const bound of this.#bounds) {
      const inUse = this.#workingSet(bound);
      if (used < 0 || inUse / bound.limit > used / limit) {
        used = inUse;
        limit = bound.limit;
      }
    }
    if (used < 0) this.#set(this.#rss(), Number.POSITIVE_INFINITY);
    else this.#set(used, limit);
  }

  #set(used: number, limit: number): void {
    this.used = used;
    this.limit = limit;
  }

  /** @returns -1 = it cannot be read */
  #workingSet({ usagePath, statPath, inactive }: Bound): number {
    const usage = this.#number(usagePath);
    if (usage < 0) return -1;
    const length = this.#readFile(statPath);
    const at = length > 0 ? this.#buffer.indexOf(inactive, 0, 'latin1') : -1;
    // What is found behind `length`, of an earlier file, is no number to numberAt.
    const cache = at >= 0 ? numberAt(this.#buffer, at + inactive.length, length) : -1;
    return Math.max(0, usage - Math.max(0, cache));
  }

  /** The limits of this process's cgroup and of all around it that can be seen from here. */
  #survey(): Bound[] {
    const length = this.#readFile('/proc/self/cgroup');
    const lines = length > 0 ? this.#buffer.toString('latin1', 0, length).split('\n') : [];
    // `hierarchy:controllers:path`; where v1 has the memory controller v2 has none.
    const fields = lines.map((line) => line.split(':'));
    const v1 = fields.find((it) => it[1]?.split(',').includes('memory'));
    const v2 = fields.find((it) => it[0] === '0' && it[1] === '');
    if (v1) return this.#boundsAlong(V1, v1.slice(2).join(':'));
    return v2 ? this.#boundsAlong(V2, v2.slice(2).join(':')) : [];
  }

  #boundsAlong({ mount, limit, usage, inactive }: Version, path: string): Bound[] {
    const bounds: Bound[] = [];
    // A path that leads out of what is mounted here (`/../..`) leaves the mount itself, as does one that is not found below it.
    const steps = path.split('/').filter((step) => step !== '');
    for (let depth = steps.includes('..') ? 0 : steps.length; depth >= 0; depth--) {
      const folder = [mount, ...steps.slice(0, depth)].join('/');
      const bytes = this.#number(`${folder}/${limit}`);
      if (bytes <= 0 || bytes >= NO_LIMIT) continue;
      bounds.push({
        limit: bytes,
        usagePath: `${folder}/${usage}`,
        statPath: `${folder}/memory.stat`,
        inactive,
      });
    }
    return bounds;
  }

  /** The number that a file begins with; -1 = it has none (`max`), or cannot be read. */
  #number(path: string): number {
    const length = this.#readFile(path);
    return length > 0 ? numberAt(this.#buffer, 0, length) : -1;
  }

  /** @returns bytes in the buffer, -1 = it cannot be read */
  #readFile(path: string): number {
    try {
      const file = openSync(this.#root + path, 'r');
      try {
        return readSync(file, this.#buffer, 0, MAX_FILE_BYTES, 0);
      } finally {
        closeSync(file);
      }
    } catch {
      return -1;
    }
  }
}

function numberAt(bytes: Buffer, from: number, end: number): number {
  let value = 0;
  let i = from;
  for (; i < end && bytes[i]! >= 0x30 && bytes[i]! <= 0x39; i++) value = value * 10 + bytes[i]! - 0x30;
  return i === from ? -1 : value;
}

/**
 * How late the event loop is: by how much a check that repeats comes later than planned.
 *
 * Not perf_hooks.monitorEventLoopDelay: it wakes an idle process 50 to 100 times a second (3 to 6 ms of CPU a second, measured on
 * Node 26, where four checks a second cost nothing measurable), and to tell what is late now its histogram must be read and reset
 * at each check anyway.
 */
export class LoopLag {
  readonly #everyMs: number;
  #lastAt = -1;
  #lastLateMs = 0;
  /** Lateness that each of the last two checks had. */
  ms = 0;

  /** @param everyMs between two checks */
  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  /**
   * At each check.
   * @param now ms on a clock that only goes forward
   * @returns `ms`: one long pause (a collection, a reload, a suspended machine) is over when it is seen, and refusing would come too
   * late; a loop that has too much to do is late each time
   */
  tick(now: number): number {
    const lateMs = this.#lastAt < 0 ? 0 : Math.max(0, now - this.#lastAt - this.#everyMs);
    this.ms = Math.min(lateMs, this.#lastLateMs);
    this.#lastLateMs = lateMs;
    this.#lastAt = now;
    return this.ms;
  }
}

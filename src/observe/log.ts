// The log: pino to stdout without a worker, and the one line per exchange.

import { type DestinationStream, destination, type Logger, pino } from 'pino';
import type { AccessLog, LogLevel } from '../config/schema.ts';
import type { FailureCode } from '../errors.ts';

export type Log = Logger;

/** `out` is for tests; by default lines go to stdout, collected up to 4 kB and written at least every second. */
export function makeLog(level: LogLevel, out?: DestinationStream): { log: Log; flush: () => void } {
  const stream = out ?? toStdout();
  const log = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream);
  return {
    log,
    flush: () => {
      if ('flushSync' in stream && typeof stream.flushSync === 'function') {
        try {
          stream.flushSync();
        } catch {
          // The destination is not open yet or already gone; there is nowhere left to say so.
        }
      }
    },
  };
}

function toStdout(): DestinationStream {
  const stream = destination({ fd: 1, sync: false, minLength: 4096, periodicFlush: 1000 });
  // The reader of the log went away: that must not end the proxy, and there is nowhere left to say so.
  stream.on('error', () => {});
  return stream;
}

/** One exchange as the log tells it. Milliseconds; null when a phase was not reached. */
export interface AccessLine {
  readonly upstream: string;
  readonly method: string;
  /** Without the query: its values are not logged. */
  readonly path: string;
  readonly status: number;
  readonly failure: FailureCode | null;
  readonly queue_ms: number | null;
  readonly connect_ms: number | null;
  readonly ttfb_ms: number | null;
  readonly total_ms: number;
  readonly bytes_in: number;
  readonly bytes_out: number;
  readonly reused: boolean | null;
  readonly attempts: number;
  /** hit, stale, revalidated, coalesced, miss or bypass; null = this upstream has no cache */
  readonly cache: string | null;
  readonly operation: string | null;
  /** A second attempt set out beside a slow first one; not among `attempts` */
  readonly hedged: boolean;
  /** Lane of the queue it waited in; null = it did not wait, or there is only one */
  readonly lane: string | null;
  /** The server of the last attempt; null = none, or the upstream has only one */
  readonly target: string | null;
  /** From failed attempts to the next ones, in all */
  readonly retry_ms: number | null;
  /** Of a WebSocket: the code of the first Close frame, from either side; null = it was none, or there was no such frame */
  readonly close_code: number | null;
}

/** Writes access lines as configured. A path is cut at so many characters: it comes from outside. */
const MAX_PATH = 512;

export class AccessLogger {
  readonly #log: Log;
  readonly mode: AccessLog;

  constructor(log: Log, mode: AccessLog) {
    this.#log = log;
    this.mode = log.isLevelEnabled('info') ? mode : 'off';
  }

  wants(failure: FailureCode | null, status: number): boolean {
    return this.mode === 'all' || (this.mode === 'errors' && (failure !== null || status >= 500));
  }

  write(line: AccessLine): void {
    const path = line.path.length > MAX_PATH ? `${line.path.slice(0, MAX_PATH)}…` : line.path;
    this.#log.info({ ...line, path }, 'exchange');
  }
}

// The words of the pipeline: what a stage is and says, and what a route is.

import type { Upstream, Way } from '../upstream/upstream.ts';
import type { Exchange } from './exchange.ts';

/** What a stage says: go on, over (an answer was given), or wait (somebody will unpark the exchange). */
export const NEXT = 0;
export const DONE = 1;
export const WAIT = 2;
export type StageResult = typeof NEXT | typeof DONE | typeof WAIT;
export type Stage = (exchange: Exchange) => StageResult;

/** One way to an upstream, and what an exchange does on it. See pipeline.ts. */
export interface Route {
  readonly upstream: Upstream;
  readonly way: Way;
  readonly stages: readonly Stage[];
  /** Number of the stage a delayed retry goes on with. */
  readonly retryFrom: number;
  /** Of the fetch that requests on this one share. */
  readonly flight: Route | null;
  /** Of a second attempt beside a slow one; null = there is none. */
  readonly hedge: Route | null;
}

/** Where an exchange waits. Told to forget it when it stops waiting for another reason than its turn. */
export interface Holder {
  forget(exchange: Exchange): void;
}

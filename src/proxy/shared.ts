// What all exchanges of a process share: clocks, bounds, and whom they tell.

import type { FlightTable } from '../cache/flight-table.ts';
import type { ByteBudget } from '../flow/byte-budget.ts';
import type { TimerWheel } from '../flow/timer-wheel.ts';
import type { AccessLogger } from '../observe/log.ts';
import type { Exchange } from './exchange.ts';
import type { Flight } from './flight.ts';
import type { Tunnel } from './tunnel.ts';

export interface Shared {
  readonly now: () => number;
  /** ms since the epoch */
  readonly wallClock: () => number;
  readonly wheel: TimerWheel;
  readonly bodyMemory: ByteBudget;
  /** Hears of every piece of a body, and of a WebSocket, as it is read. */
  readonly turnover: { passed(bytes: number): void };
  readonly bodyBufferBytes: number;
  /** Bytes per second */
  readonly bodyMinRate: number;
  readonly flights: FlightTable<Flight>;
  readonly flightMemory: ByteBudget;
  readonly flightBufferBytes: number;
  readonly flightWaiters: number;
  readonly flightWaitMs: number;
  readonly access: AccessLogger;
  /** null = it is not watched */
  readonly overload: { readonly refusing: boolean } | null;
  /** See pipeline.ts. */
  readonly launchHedge: (exchange: Exchange) => void;
  /** A bug was caught; the exchange has failed with internal_error. */
  readonly onBug: (error: unknown) => void;
  /** An exchange or a tunnel has given everything back. */
  readonly onSettled: (settled: Exchange | Tunnel) => void;
}

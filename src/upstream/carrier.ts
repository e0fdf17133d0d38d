// What one attempt is given by a pool: an HTTP/1 connection, or a place for one stream on an HTTP/2 connection.

import type { Dispatcher } from 'undici';
import type { SlotGate } from '../flow/slots.ts';

/** Why a connection was closed, as /stats counts it. */
export type CloseReason =
  | 'idle_timeout'
  | 'lifetime'
  | 'max_requests'
  | 'surplus'
  | 'upstream'
  | 'upstream_asked'
  | 'unexpected_bytes'
  | 'error'
  | 'aborted'
  | 'shutdown';

/** `code` of the error of a request that the upstream says it never looked at. */
export const NEVER_PROCESSED = 'AIPROXY_NEVER_PROCESSED';
/** `code` of the error of an answer that is not HTTP/2 as it should be. */
export const PROTOCOL_ERROR = 'AIPROXY_PROTOCOL_ERROR';

export interface Carrier {
  /** Was used before, or warmed: the peer may have closed it meanwhile. */
  readonly isReused: boolean;
  /** Since when it was idle when it was taken, ms. */
  readonly idleSince: number;
  /** The slot of the exchange that runs on it; comes back when the next one may run here, or it is closed. */
  slot: SlotGate | null;
  /** The socket's own error, where an answer can end with the connection. */
  readonly socketError: NodeJS.ErrnoException | null;
  /** Of the head that an attempt is being told of: 11 = HTTP/1.1 and all that is like it. */
  readonly answerVersion: number;
  /** The protocol says where an answer ends: without a length it does not go on until the connection closes. */
  readonly marksEnds: boolean;
  /** Runs one request. Once, for a place on an HTTP/2 connection. */
  send(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void;
  /** Ends what runs here at once. */
  close(reason: CloseReason): void;
  /** Its exchange has the last byte. Said before that gives its permit back. */
  answered(): void;
  /** The exchange keeps its slot for another attempt. */
  takeSlotBack(): SlotGate | null;
}

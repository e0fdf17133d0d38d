// What the pipeline knows of a client's connection: one request to read, one answer to write. The listener's connection is one (server/client-connection.ts).

import type { RequestHead } from '../http/request-head.ts';

/** Who is told what happens on the client's side. */
export interface ClientListener {
  bodyData(chunk: Buffer): void;
  bodyEnd(): void;
  /** The client takes bytes again after `write` returned false. */
  drained(): void;
  /** The client broke the protocol within its body. */
  malformed(detail: string): void;
  /** The process will end: told to what would not end by itself. */
  stopping?(): void;
  /** The process ends and cannot wait any longer. */
  stopped(): void;
  /** The client left; nothing can be written any more. */
  gone(): void;
}

export interface Client {
  readonly method: string;
  /** Origin-form target, as sent. */
  readonly url: string;
  readonly head: RequestHead;
  readonly http10: boolean;
  /** Bytes of the answer that the client has not taken yet. */
  readonly unsent: number;
  listener: ClientListener | null;
  /** When the last of those who share the answer gives up, ms; not there = the exchange knows itself. */
  readonly waitedForUntil?: number;
  /** The body starts to flow into the listener. */
  readBody(): void;
  pauseBody(): void;
  resumeBody(): void;
  /** An interim answer (1xx), at once; left out for a client that would not understand it. @throws as begin */
  interim(status: number, reason: string, headers: readonly string[]): void;
  /**
   * The head of the answer: leaves with the first bytes of the body, at the latest at the end of this turn.
   * @param reason the reason phrase, '' = the standard one
   * @param stored the body's bytes are sent by reference, never copied: they are others' too
   * @throws when a field may not be sent
   */
  begin(status: number, reason: string, headers: string[], stored?: boolean): void;
  /** @returns false when the client reads slower than we write: wait for `drained` */
  write(chunk: Buffer): boolean;
  /**
   * @param last the last bytes, if they are known to be the last
   * @param trailers fields after the body, flat; left out where the client's framing has no place for them
   */
  finish(last: Buffer | null, trailers?: readonly string[]): void;
  /**
   * Resets the connection: what was sent must not look complete.
   * @param last of a body whose end shows (in chunks): these bytes leave first, behind what was written, and a FIN where its end
   * would be
   */
  abort(last?: Buffer | null): void;
}

/** A client with a connection of its own, whose bytes can be anything after an upgrade. */
export interface UpgradableClient extends Client {
  /**
   * Answers 101. From now on bytes pass as they are: the listener gets the client's by `bodyData` and its FIN by `bodyEnd`,
   * `pauseBody` and `resumeBody` work on them, `write` sends without framing, `finish` sends a FIN after what was written, `abort` resets.
   * After a `finish` without a listener the client's FIN is awaited for seconds only.
   * @param headers flat pairs, Connection and Upgrade included
   * @throws as begin
   */
  switchProtocols(headers: readonly string[]): void;
}

// Where all sidecars state what they hold of a limiter's permits, as one of them sees it: what it says, and what it is told.

/** What a sidecar says where all do. */
export interface Statement {
  /** Permits of all sidecars together. */
  readonly max: number;
  /** Leases it has, without those it gives back. */
  readonly held: number;
  /** So many more it could use. */
  readonly want: number;
  /** The others are to be told (again) that somebody waits. */
  readonly tell: boolean;
  /** It has stated something not long ago: if that is not known, it was lost. */
  readonly isKnown: boolean;
  /** It holds for so long. */
  readonly ttlMs: number;
  /** One who waits keeps his place for so long. */
  readonly patienceMs: number;
}

export interface LedgerAnswer {
  /** Leases it has got besides. */
  readonly granted: number;
  /** Other sidecars wait. */
  readonly othersWait: boolean;
  /** Sidecars that hold or want any, at least 1. */
  readonly claimants: number;
}

/** What is told to a sidecar about one limiter. Messages may get lost. */
export interface LedgerMember {
  /** The ledger can be asked (again). */
  up(): void;
  down(): void;
  /** Others wait for permits. */
  wanted(claimants: number): void;
  /** There are free ones, and it is this sidecar's turn. */
  free(): void;
  /** What the sidecars have stated was lost. */
  lost(): void;
}

/** Where all sidecars state what they hold; src/redis/permits.ts is one. */
export interface PermitLedger {
  readonly up: boolean;
  /** Sidecars alive, as last known; at least 1. */
  readonly peers: number;
  /** @returns takes it out again */
  join(name: string, member: LedgerMember): () => void;
  state(name: string, statement: Statement): Promise<LedgerAnswer>;
  /** Gives all back, as far as that is soon done. Never rejects. */
  leave(name: string, max: number, ttlMs: number): Promise<void>;
}

export interface PermitTimes {
  /** A sidecar that says nothing for so long has no leases any more. */
  readonly ttlMs: number;
  readonly renewMs: number;
  /** Who waits asks again so often, should a message have got lost; a lease nobody uses goes back after two of it. */
  readonly pollMs: number;
}

export const PERMIT_TIMES: PermitTimes = { ttlMs: 10_000, renewMs: 3000, pollMs: 500 };

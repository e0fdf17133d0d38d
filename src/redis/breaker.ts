// Whether Redis may be asked at all: after trouble it is left alone for a while, and then tried in the background, never with a client's request.

export type RedisState = 'connecting' | 'up' | 'down';

const FIRST_REST_MS = 250;
const LONGEST_REST_MS = 10_000;
/** So long without trouble, and the next rest is a short one again. */
const CALM_MS = 10_000;

export interface BreakerParts {
  /** Resolves once Redis is as it should be. May take as long as it likes: a late answer is as good as any. */
  readonly probe: () => Promise<void>;
  readonly onDown: (reason: string) => void;
  readonly onUp: () => void;
  /** Of a monotonic clock, ms. */
  readonly now: () => number;
}

/**
 *   connecting ──probe succeeds──► up
 *        │                        ▲  │
 *      trip        probe succeeds │  │ trip
 *        ▼                        │  ▼
 *      down ──rest, probe fails──► down, with a longer rest
 */
export class RedisBreaker {
  state: RedisState = 'connecting';
  readonly #parts: BreakerParts;
  #restMs = FIRST_REST_MS;
  /** Not probed before, however soon the connection is there again: a server that accepts and then fails would be asked all the time. */
  #restUntil = 0;
  #upSince = 0;
  #probing = false;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: BreakerParts) {
    this.#parts = parts;
  }

  /** There is a connection (again). */
  connected(): void {
    if (this.state === 'up') return;
    this.#probeIn(this.#restUntil - this.#parts.now());
  }

  trip(reason: string): void {
    if (this.state === 'down' || this.#stopped) return;
    const now = this.#parts.now();
    const wasCalm = this.state === 'connecting' || now - this.#upSince > CALM_MS;
    this.#restMs = wasCalm ? FIRST_REST_MS : longer(this.#restMs);
    this.state = 'down';
    const restMs = jittered(this.#restMs);
    this.#restUntil = now + restMs;
    this.#probeIn(restMs);
    this.#parts.onDown(reason);
  }

  stop(): void {
    this.#stopped = true;
    this.state = 'down';
    clearTimeout(this.#timer);
  }

  #probeIn(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    this.#timer = setTimeout(() => this.#probe(), Math.max(0, ms));
    this.#timer.unref();
  }

  #probe(): void {
    // One that a frozen server owes an answer to is still under way: it ends with that answer, or with the connection.
    if (this.#probing) return;
    this.#probing = true;
    this.#parts.probe().then(
      () => {
        this.#probing = false;
        this.#up();
      },
      () => {
        this.#probing = false;
        // Before the first connection there is no trip yet: the link will say when it is there, or why it is not.
        if (this.state !== 'down') return;
        this.#restMs = longer(this.#restMs);
        this.#probeIn(jittered(this.#restMs));
      },
    );
  }

  #up(): void {
    if (this.#stopped || this.state === 'up') return;
    clearTimeout(this.#timer);
    this.state = 'up';
    this.#upSince = this.#parts.now();
    this.#parts.onUp();
  }
}

function longer(restMs: number): number {
  return Math.min(restMs * 2, LONGEST_REST_MS);
}

/** Between half of it and all of it, so that sidecars do not come back in step. */
function jittered(ms: number): number {
  return ms * (0.5 + Math.random() / 2);
}

// A circuit breaker: refuses an upstream that keeps failing, and lets one real request at a time probe whether it is well again.

import type { BreakerConfig } from '../config/schema.ts';

export type BreakerState = 'closed' | 'open' | 'half_open';
/** Neutral says nothing of the upstream: the client left, the proxy refused, 429. */
export type Outcome = 'success' | 'failure' | 'neutral';

/** Given to who begins though it is refused; its end counts for nothing. */
const VOID_TICKET = -1;

/**
 *                too many failures
 *     closed ──────────────────────────► open ◄─────────────┐
 *        ▲                                │ open time over, │ the probe failed:
 *        │ the probe succeeded            ▼ a probe begins  │ twice the open time
 *        └──────────────────────────── half_open ───────────┘
 *
 * As linkerd2-proxy's failure accrual, with Envoy's growing ejection time for upstreams that flap: the open time starts at `openMs`
 * again only after it stayed closed for as long as its last open time; before that, opening again counts like a failed probe.
 */
export class Breaker {
  readonly rules: BreakerConfig;
  /** As of the last call; see stateAt(). */
  state: BreakerState = 'closed';
  consecutiveFailures = 0;
  /** Times it opened, also after a failed probe. */
  opened = 0;
  /** Called after the state changed. */
  onChange: ((state: BreakerState, breaker: Breaker) => void) | null = null;
  readonly #random: () => number;
  readonly #window: OutcomeWindow;
  /** The one ticket whose end counts: even for all who begin while it is closed, odd for a probe, of nobody otherwise. */
  #ticket = 0;
  /** Before jitter. */
  #openTimeMs = 0;
  #openUntil = 0;
  #closedAt: number;

  /** @param random 0..1 */
  constructor(rules: BreakerConfig, now: number, random: () => number = Math.random) {
    this.rules = rules;
    this.#random = random;
    this.#window = new OutcomeWindow(rules.windowMs, now);
    this.#closedAt = now;
  }

  /** half_open also when the open time is over and nobody has come to probe. */
  stateAt(now: number): BreakerState {
    return this.state === 'open' && now >= this.#openUntil ? 'half_open' : this.state;
  }

  allows(now: number): boolean {
    if (this.state === 'closed') return true;
    return now >= this.#openUntil && !this.isProbe(this.#ticket);
  }

  /**
   * An attempt begins; after allows(). Who begins without it is not counted.
   * @returns the ticket for its end()
   */
  begin(now: number): number {
    if (this.state === 'closed') return this.#ticket;
    if (!this.allows(now)) return VOID_TICKET;
    const ticket = this.#renew(1);
    if (this.state === 'open') this.#become('half_open');
    return ticket;
  }

  isProbe(ticket: number): boolean {
    return ticket % 2 === 1;
  }

  /**
   * Once for each ticket. Attempts begun before the last change of state are ignored: a late success must not close it, a late
   * failure not open it again or for longer. A neutral probe makes room for another without a verdict.
   */
  end(ticket: number, outcome: Outcome, now: number): void {
    if (ticket !== this.#ticket) return;
    if (!this.isProbe(ticket)) this.#count(outcome, now);
    else if (outcome === 'failure') this.#open(now);
    else if (outcome === 'success') this.#close(now);
    else this.#renew(0);
  }

  /** ms until it may be tried again; 0 when it allows. */
  retryAfterMs(now: number): number {
    // Nobody knows when a probe ends; the shortest open time is as good a guess as any.
    if (this.isProbe(this.#ticket)) return this.rules.openMs;
    return Math.max(0, this.#openUntil - now);
  }

  /** Attempts of the window that ended in success or failure. */
  requestsAt(now: number): number {
    this.#window.advance(now);
    return this.#window.requests;
  }

  failuresAt(now: number): number {
    this.#window.advance(now);
    return this.#window.failures;
  }

  #count(outcome: Outcome, now: number): void {
    if (outcome === 'neutral') return;
    const window = this.#window;
    window.add(outcome === 'failure', now);
    // Only a failure opens it, whatever the ratio: a success is no reason to refuse.
    if (outcome === 'success') {
      this.consecutiveFailures = 0;
      return;
    }
    this.consecutiveFailures++;
    const { consecutiveFailures, failureRatio, minRequests } = this.rules;
    const isRow = this.consecutiveFailures >= consecutiveFailures;
    if (isRow || (window.requests >= minRequests && window.failures / window.requests >= failureRatio)) this.#open(now);
  }

  #open(now: number): void {
    const { openMs, maxOpenMs } = this.rules;
    const soon = this.state === 'half_open' || now - this.#closedAt < this.#openTimeMs;
    this.#openTimeMs = Math.min(maxOpenMs, soon ? this.#openTimeMs * 2 : openMs);
    // Half to all of it ("equal jitter"): never above the maximum, and spread there too, where linkerd's 1..1.5 times cut off at the
    // maximum lets all sidecars of one long outage probe in step.
    this.#openUntil = now + this.#openTimeMs * (0.5 + 0.5 * this.#random());
    this.opened++;
    this.#renew(0);
    this.#become('open');
  }

  #close(now: number): void {
    this.#closedAt = now;
    this.consecutiveFailures = 0;
    this.#window.clear();
    this.#renew(0);
    this.#become('closed');
  }

  #renew(probe: 0 | 1): number {
    this.#ticket += 2 - (this.#ticket % 2) + probe;
    return this.#ticket;
  }

  #become(state: BreakerState): void {
    this.state = state;
    this.onChange?.(state, this);
  }
}

const SLICES = 10;

/** Outcomes of the last `windowMs`, in ten slices: one falls out at a time, so it holds nine tenths to all of the window. */
class OutcomeWindow {
  requests = 0;
  failures = 0;
  readonly #sliceMs: number;
  readonly #requests = new Float64Array(SLICES);
  readonly #failures = new Float64Array(SLICES);
  #slice: number;

  constructor(windowMs: number, now: number) {
    this.#sliceMs = windowMs / SLICES;
    this.#slice = Math.floor(now / this.#sliceMs);
  }

  add(failed: boolean, now: number): void {
    this.advance(now);
    const i = this.#slice % SLICES;
    this.requests++;
    this.#requests[i]!++;
    if (!failed) return;
    this.failures++;
    this.#failures[i]!++;
  }

  /** Forgets what fell out of the window. */
  advance(now: number): void {
    const slice = Math.floor(now / this.#sliceMs);
    if (slice <= this.#slice) return;
    if (slice - this.#slice >= SLICES) this.clear();
    else {
      for (let passed = this.#slice + 1; passed <= slice; passed++) {
        const i = passed % SLICES;
        this.requests -= this.#requests[i]!;
        this.failures -= this.#failures[i]!;
        this.#requests[i] = 0;
        this.#failures[i] = 0;
      }
    }
    this.#slice = slice;
  }

  clear(): void {
    this.requests = 0;
    this.failures = 0;
    this.#requests.fill(0);
    this.#failures.fill(0);
  }
}

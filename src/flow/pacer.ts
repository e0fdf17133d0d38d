// Paces requests before the upstream refuses them, by what its answers said of its limits. Knows no HTTP; the clock is an argument.
//
// An answer tells what was left when its request reached the limit. What is left now is that, less what was sent since, plus what
// was refilled since. A request costs one unit where requests are counted; what it costs in tokens is learned from the answers.

/** What one answer said of one limit. */
export interface Forecast {
  readonly kind: 'requests' | 'tokens';
  /** Tells apart the limits of one kind that one answer speaks of. */
  readonly name?: string;
  /** Units; -1 = unknown. */
  readonly limit: number;
  /** Units left. */
  readonly remaining: number;
  /** Until the bucket is full, or the window ends. */
  readonly resetMs: number;
  /** True: a bucket that refills steadily; false: a window, whole again at its end. */
  readonly refills: boolean;
}

/** What was said is believed no longer: a quota may be raised at any time, and the upstream's own refusal says more than ours. */
const MAX_BELIEF_MS = 60_000;
/** Limits told apart at once: the models of one account may have limits of their own. */
const MAX_GAUGES = 16;

export class Pacer {
  /** Sent so far. Who sends remembers it right after its own `take`, for `observe`. */
  taken = 0;
  pausedUntil = 0;
  readonly #gauges: Gauge[] = [];
  readonly #sends = new SendTimes();

  /** The earliest time at which one more may be sent if `ahead` others go before it, ms; at or before `now`: at once. */
  readyAt(now: number, ahead = 0): number {
    let at = this.pausedUntil;
    for (let i = 0; i < this.#gauges.length; i++) at = Math.max(at, this.#gauges[i]!.readyAt(now, ahead));
    return at;
  }

  /** One is sent. */
  take(now: number): void {
    this.#sends.add(++this.taken, now);
    for (let i = 0; i < this.#gauges.length; i++) this.#gauges[i]!.spend(now);
  }

  /**
   * An answer said what is left.
   * @param takenBefore `taken` right after the `take` of its request
   * @param refused the request was refused for its rate, and so cost nothing
   */
  observe(forecast: Forecast, takenBefore: number, now: number, refused = false): void {
    const { limit, remaining, resetMs } = forecast;
    // Written so that NaN fails as well.
    if (!(remaining >= 0 && resetMs >= 0 && limit >= -1 && takenBefore >= 0 && takenBefore <= this.taken)) return;
    if (!Number.isFinite(limit + remaining + resetMs)) return;
    this.#gaugeFor(forecast).observe(forecast, takenBefore, now, this.#sends, refused);
  }

  /** Nothing before `at`; a later end stands. */
  pauseUntil(at: number): void {
    if (at > this.pausedUntil) this.pausedUntil = at;
  }

  /** Nothing is known that would hold anybody up. */
  isIdle(now: number): boolean {
    return this.pausedUntil <= now && this.#gauges.every((gauge) => gauge.believedUntil <= now);
  }

  /** The limit is part of what tells gauges apart: models have limits of their own, and what one has left says nothing of another. */
  #gaugeFor({ kind, name = '', limit }: Forecast): Gauge {
    const gauges = this.#gauges;
    let stalest = 0;
    for (let i = 0; i < gauges.length; i++) {
      const gauge = gauges[i]!;
      if (gauge.limit === limit && gauge.kind === kind && gauge.name === name) return gauge;
      if (gauge.believedUntil < gauges[stalest]!.believedUntil) stalest = i;
    }
    const made = new Gauge(kind, name, limit);
    gauges[gauges.length < MAX_GAUGES ? gauges.length : stalest] = made;
    return made;
  }
}

/** Sends so shortly before another may have reached the limit after it. */
const JITTER_MS = 100;

/** What is left of one limit, as far as one can tell. */
class Gauge {
  readonly kind: 'requests' | 'tokens';
  readonly name: string;
  readonly limit: number;
  readonly #cost: Cost;
  /** Until then it holds up who does not fit; afterwards nothing is known. */
  believedUntil = 0;
  /** Units left at #at. May be negative. */
  #level = 0;
  #at = 0;
  /** 0 = a window */
  #refillPerMs = 0;
  /** The bucket is full, or the window ends; Infinity = not known. */
  #resetAt = 0;
  /** From empty to full, or the longest that a window was said to last. */
  #periodMs = 0;
  /** The last window ended. */
  #rolledAt = Number.NEGATIVE_INFINITY;
  /** Sent since the last observation came. */
  #sentSince = 0;
  /** Units not counted as left though the newest observation said so. */
  #doubt = 0;
  /** The newest observation: of which request, what it said, when the request was sent, when its window ends. */
  #seen = -1;
  #seenRemaining = 0;
  #seenAt = 0;
  #seenResetAt = 0;

  constructor(kind: 'requests' | 'tokens', name: string, limit: number) {
    this.kind = kind;
    this.name = name;
    this.limit = limit;
    this.#cost = new Cost(kind === 'requests');
  }

  readyAt(now: number, ahead: number): number {
    if (now >= this.believedUntil) return 0;
    this.#advance(now);
    const cost = this.#cost.mean;
    let one = Math.max(1, cost + this.#margin());
    // A full bucket lets one pass, whatever it is thought to cost.
    if (this.limit >= 0 && one > this.limit) one = this.limit;
    const missing = one + ahead * cost - this.#level;
    // Sums of fractions: what is due must not be put off by a rounding error.
    if (missing <= 1e-6) return 0;
    const at = this.#refillPerMs > 0 ? now + missing / this.#refillPerMs : this.#resetAt;
    return Math.min(at, this.believedUntil);
  }

  spend(now: number): void {
    this.#sentSince++;
    if (now >= this.believedUntil) return;
    this.#advance(now);
    this.#level -= this.#cost.mean;
  }

  observe(said: Forecast, takenBefore: number, now: number, sends: SendTimes, refused: boolean): void {
    if (refused) this.#cost.refused();
    // What an older request was told is older, however late its answer comes.
    if (takenBefore <= this.#seen) {
      const isDoubtful = takenBefore < this.#seen && sends.timeOf(takenBefore, now) >= this.#seenAt - JITTER_MS;
      if (isDoubtful && said.remaining > this.#seenRemaining) this.#settle();
      return;
    }
    const sentAt = sends.timeOf(takenBefore, now);
    const isBucket = said.refills && this.limit >= 0;
    // Its window is over.
    if (!isBucket && sentAt + said.resetMs < this.#rolledAt) return;
    const remaining = this.limit >= 0 ? Math.min(said.remaining, this.limit) : said.remaining;
    const wasBelieved = now < this.believedUntil;
    if (wasBelieved) this.#advance(now);
    const before = wasBelieved ? this.#level : Number.POSITIVE_INFINITY;
    this.#learnCost(remaining, takenBefore, sentAt, now);
    this.#learnTimes(said, remaining, isBucket, sentAt, now);
    this.#seen = takenBefore;
    this.#seenRemaining = remaining;
    this.#seenAt = sentAt;
    this.#seenResetAt = this.#resetAt;
    this.#replay(remaining, isBucket && said.resetMs === 0, takenBefore, sentAt, now, sends);
    this.#doubt = 0;
    if (this.#level > before) {
      // Those sent just before may not have arrived when this was said, and are not in it.
      const doubtful = sends.countBefore(takenBefore, sentAt - JITTER_MS) * this.#cost.mean;
      this.#doubt = Math.min(doubtful, this.#level - before);
      this.#level -= this.#doubt;
    }
  }

  /** One sent before the newest observation's was told of more that is left: it did arrive before. */
  #settle(): void {
    const settled = Math.min(this.#doubt, this.#cost.mean);
    this.#doubt -= settled;
    this.#level += settled;
  }

  /** The level now, from what was left when the request was sent: each later one in its turn, for a full bucket does not refill. */
  #replay(remaining: number, isFull: boolean, sent: number, sentAt: number, now: number, sends: SendTimes): void {
    const first = Math.max(sent + 1, sends.oldest);
    this.#sentSince = first - sent - 1;
    this.#level = isFull ? this.limit : remaining - this.#sentSince * this.#cost.mean;
    const most = this.#level;
    this.#at = this.#refillPerMs > 0 ? sentAt : now;
    for (let i = first; i <= sends.count; i++) this.spend(sends.timeOf(i, now));
    this.#advance(now);
    // Where it was said when the answer went out, not when the request came in, nothing was refilled since.
    if (this.#level > most) this.#level = most;
  }

  /** Requests that wait for an answer, and what they may cost more than the mean, are not to empty the bucket. */
  #margin(): number {
    const isWindow = this.#refillPerMs === 0;
    if (this.kind === 'requests' && isWindow) return 0;
    const deviation = this.kind === 'requests' ? 0.5 : 2.5 * this.#cost.deviation;
    const margin = deviation * Math.sqrt(1 + this.#sentSince);
    return this.limit >= 0 ? Math.min(margin, this.limit / 8) : margin;
  }

  #advance(to: number): void {
    if (to <= this.#at) return;
    if (this.#refillPerMs > 0) this.#level = Math.min(this.limit, this.#level + this.#refillPerMs * (to - this.#at));
    else if (to >= this.#resetAt && this.limit >= 0) {
      this.#level = this.limit;
      this.#rolledAt = this.#resetAt;
      this.#resetAt = Number.POSITIVE_INFINITY;
    }
    this.#at = to;
  }

  #learnTimes(said: Forecast, remaining: number, isBucket: boolean, sentAt: number, now: number): void {
    let resetAt = now + said.resetMs;
    if (isBucket) {
      // A bucket said to be full tells nothing of how it fills.
      if (said.resetMs > 0 && remaining < this.limit) this.#refillPerMs = (this.limit - remaining) / said.resetMs;
      this.#periodMs = this.#refillPerMs > 0 ? this.limit / this.#refillPerMs : 0;
    } else {
      this.#refillPerMs = 0;
      this.#periodMs = Math.max(this.#periodMs, said.resetMs);
      // It was said between sending and answer; all that speak of one window are right at their earliest end.
      if (sentAt + said.resetMs < this.#resetAt) resetAt = Math.min(resetAt, Math.max(this.#resetAt, now));
    }
    this.#resetAt = resetAt;
    // The limit still stands after the reset: what passes then is one bucketful, not everybody. For one more period at most.
    const until = resetAt + (this.limit >= 0 ? this.#periodMs : 0);
    this.believedUntil = Math.min(until, now + MAX_BELIEF_MS);
  }

  #learnCost(remaining: number, takenBefore: number, sentAt: number, now: number): void {
    if (this.#seen < 0) return;
    let before = this.#seenRemaining;
    if (this.#refillPerMs > 0) before = Math.min(this.limit, before + this.#refillPerMs * (sentAt - this.#seenAt));
    // Another window; and one that is used up tells nothing of what was asked of it.
    else if (now >= this.#seenResetAt || remaining > before || remaining < 1) return;
    this.#cost.learn(before - remaining, takenBefore - this.#seen);
  }
}

/** Requests that count for a new estimate as much as all before. */
const MEMORY = 50;
/** Up to here a request that seems to cost more than one is a matter of order; above, others use the same account. */
const ORDER = 1.3;

/** Units that a request costs, learned from sums over the last requests. */
class Cost {
  mean: number;
  /** Standard deviation of a single request's cost. */
  deviation = 0;
  readonly #isRequests: boolean;
  #spent: number;
  #sent: number;
  #squares = 0;
  /** Refused since the last sample. */
  #refused = 0;

  constructor(isRequests: boolean) {
    this.#isRequests = isRequests;
    // Unknown = 0: it passes as long as there is anything at all.
    this.mean = isRequests ? 1 : 0;
    this.#spent = isRequests ? 10 : 0;
    this.#sent = this.#spent;
  }

  refused(): void {
    this.#refused++;
  }

  /** @param spent may be negative: answers are not told in the order in which requests arrive, and only sums are right */
  learn(spent: number, sent: number): void {
    const paid = Math.max(0, sent - this.#refused);
    this.#refused = 0;
    const kept = Math.exp(-sent / MEMORY);
    const off = this.#sent > 0 ? spent - paid * (this.#spent / this.#sent) : 0;
    this.#spent = this.#spent * kept + spent;
    this.#sent = this.#sent * kept + paid;
    this.#squares = this.#squares * kept + off * off;
    if (!(this.#sent > 0)) return;
    const mean = Math.max(0, this.#spent / this.#sent);
    this.mean = this.#isRequests && mean < ORDER ? 1 : mean;
    this.deviation = Math.sqrt(this.#squares / Math.max(1, this.#sent));
  }
}

const MAX_TIMES = 4096;

/** When the last requests were sent, by their number, which begins at 1. */
class SendTimes {
  count = 0;
  /** The first of those kept. */
  oldest = 1;
  #times = new Float64Array(64);

  add(number: number, at: number): void {
    this.count = number;
    this.#times[number & (this.#times.length - 1)] = at;
    if (number - this.oldest >= this.#times.length) this.oldest++;
  }

  /** Of those no longer kept the oldest kept, of none `now`: later than true, so that less was refilled. */
  timeOf(number: number, now: number): number {
    if (this.count === 0) return now;
    if (number < this.oldest) {
      this.#grow();
      number = this.oldest;
    }
    return this.#times[number & (this.#times.length - 1)]!;
  }

  /** How many before this one were sent at or after `since`. */
  countBefore(number: number, since: number): number {
    let count = 0;
    for (let i = number - 1; i >= this.oldest && this.timeOf(i, since) >= since; i--) count++;
    return count;
  }

  /** Answers come for requests that are kept no longer: more are in flight than there is room for. */
  #grow(): void {
    const old = this.#times;
    if (old.length >= MAX_TIMES || this.count < old.length) return;
    this.#times = new Float64Array(old.length * 2);
    for (let i = this.oldest; i <= this.count; i++)
      this.#times[i & (this.#times.length - 1)] = old[i & (old.length - 1)]!;
  }
}

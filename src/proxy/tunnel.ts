// One WebSocket: from its request to the switch of protocols, or to the answer that it got instead. Once it is open a Relay has it.
//
//   place under the cap → target → handshake ─┬─ 101 ──► Relay         ─┐
//        │                  ▲        │        ├─ other ► TunnelAnswer  ─┼─► settle()
//        └─ 503             └─ again ┴ failed ┴─ answer of ours ───────┘
//
// It takes a place of its own kind: no permit of the limiter, no connection of the pool, no token.

import type { Socket } from 'node:net';
import { answerFor, FAILURES, type FailureCode } from '../errors.ts';
import type { Outcome } from '../flow/breaker.ts';
import { type Expiring, Timer } from '../flow/timer-wheel.ts';
import { type Target, upstreamPath } from '../http/target.ts';
import type { WebSocketStats } from '../observe/stats.ts';
import type { Upstream, Way } from '../upstream/upstream.ts';
import type { UpstreamTarget } from '../upstream/upstream-target.ts';
import type { ClientListener, UpgradableClient } from './client.ts';
import { seconds } from './refusal.ts';
import type { Route } from './route.ts';
import type { Shared } from './shared.ts';
import { TunnelAnswer } from './tunnel-answer.ts';
import { Facade } from './tunnel-facade.ts';
import { Handshake, type HandshakeListener, type PlainAnswer } from './tunnel-handshake.ts';
import { Relay } from './tunnel-relay.ts';
import { reportTunnel } from './tunnel-report.ts';
import { outcomeOf } from './verdict.ts';

const SWITCHING = 101;
/** Places come free one by one, nobody knows when. */
const LIMIT_RETRY_S = 1;
/** No ticket of a breaker. */
const UNJUDGED = -1;

export class Tunnel implements ClientListener, HandshakeListener, Expiring {
  readonly shared: Shared;
  readonly upstream: Upstream;
  readonly way: Way;
  readonly client: UpgradableClient;
  readonly target: Target;
  readonly stats: WebSocketStats;
  readonly acceptedAt: number;
  readonly #timer = new Timer(this);
  #hasPlace = false;
  #handshake: Handshake | null = null;
  #facade: Facade | null = null;
  #ticket = UNJUDGED;
  /** The attempt's outcome has been told. */
  #judged = false;
  /** The `bit`s of the servers tried. */
  #tried = 0;

  /** The server of the last attempt, which carries it until the end. */
  via: UpstreamTarget | null = null;
  attempts = 0;
  // What happened when, in ms on the shared clock; -1 = not reached.
  startedAt = -1;
  sentAt = -1;
  headAt = -1;

  // The outcome.
  status = 0;
  failure: FailureCode | null = null;
  /** Of the first Close frame; null = none was seen. */
  closeCode: number | null = null;
  bytesIn = 0;
  bytesOut = 0;
  #settled = false;

  constructor(shared: Shared, { upstream, way }: Route, client: UpgradableClient, target: Target) {
    this.shared = shared;
    this.upstream = upstream;
    this.way = way;
    this.client = client;
    this.target = target;
    this.stats = upstream.webSockets!;
    this.acceptedAt = shared.now();
    client.listener = this;
    upstream.stats.requests++;
    upstream.stats.inFlight++;
  }

  start(): void {
    const { stats, upstream } = this;
    if (stats.open >= upstream.config.websocket!.max) {
      stats.refused++;
      this.#fail('websocket_limit', '');
      return;
    }
    stats.open++;
    this.#hasPlace = true;
    upstream.stats.sent++;
    this.#attempt();
  }

  #attempt(): void {
    const { upstream, shared, way } = this;
    const isBypass = way === upstream.bypass;
    const now = shared.now();
    const via = upstream.targets.pick(now, this.#tried) ?? (isBypass ? upstream.targets.all[0]! : null);
    if (!via) {
      this.#fail('breaker_open', '');
      return;
    }
    if (this.attempts++ > 0) upstream.stats.retries++;
    this.via = via;
    this.#judged = false;
    this.#tried |= via.bit;
    this.startedAt = now;
    // Counted until the tunnel ends: whoever carries many of them has more to do than one who carries none.
    via.inFlight++;
    via.attempts++;
    this.#ticket = via.breaker && !isBypass ? via.breaker.begin(now) : UNJUDGED;
    this.#facade = new Facade();
    const path = upstreamPath(via.config.basePath, this.target);
    this.#handshake = new Handshake(this, via, path, this.client.head.forward, this.#facade);
    this.#handshake.start();
  }

  // ---- the handshake's word

  requestSent(): void {
    this.sentAt = this.shared.now();
    this.shared.wheel.arm(this.#timer, this.sentAt + this.way.timeouts.headersMs);
  }

  interim(status: number, reason: string, headers: readonly string[]): void {
    try {
      this.client.interim(status, reason, headers);
    } catch (error) {
      this.#fail('upstream_protocol_error', (error as Error).message);
    }
  }

  switched(headers: string[], socket: Socket): void {
    this.#headCame();
    try {
      this.client.switchProtocols(headers);
    } catch (error) {
      this.#fail('upstream_protocol_error', (error as Error).message);
      return;
    }
    this.status = SWITCHING;
    this.#judge(outcomeOf(null, SWITCHING));
    this.stats.opened++;
    this.#handshake = null;
    new Relay(this, this.#facade!, socket).start();
  }

  answered(answer: PlainAnswer): void {
    this.#headCame();
    try {
      new TunnelAnswer(this, answer).start();
      this.status = answer.status;
      this.#judge(outcomeOf(null, answer.status));
    } catch (error) {
      this.#fail('upstream_protocol_error', (error as Error).message);
    }
  }

  #headCame(): void {
    this.headAt = this.shared.now();
    this.shared.wheel.cancel(this.#timer);
  }

  handshakeFailed(code: FailureCode, detail: string, wasSent: boolean): void {
    const { targets } = this.upstream;
    // Another server may be well; the same one has had its time.
    if (!wasSent && this.attempts === 1 && targets.hasOpen(this.shared.now(), this.#tried)) {
      this.#leaveTarget(outcomeOf(code, 0));
      this.#attempt();
    } else this.#fail(code, detail);
  }

  expired(): void {
    this.#fail('headers_timeout', '');
  }

  // ---- the client's word, before it has an answer

  gone(): void {
    this.#fail('client_gone', '');
  }

  malformed(detail: string): void {
    this.#fail('bad_request', detail);
  }

  stopping(): void {
    this.#fail('draining', 'no new WebSockets');
  }

  stopped(): void {
    this.#fail('draining', '');
  }

  // It has no body, and takes nothing yet.
  bodyData(): void {}
  bodyEnd(): void {}
  drained(): void {}

  // ---- the end

  /** Ends it before it has an answer, with one of ours. */
  #fail(code: FailureCode, detail: string): void {
    if (this.#settled) return;
    const { client } = this;
    client.listener = null;
    if (code === 'client_gone') {
      this.status = FAILURES[code].status;
      client.abort();
    } else {
      const answer = answerFor(code, detail, this.#retryAfterS(code));
      this.status = answer.status;
      this.bytesOut += answer.body.length;
      client.begin(answer.status, '', answer.headers);
      client.finish(answer.body);
    }
    this.settle(code);
  }

  #retryAfterS(code: FailureCode): number {
    if (code === 'websocket_limit') return LIMIT_RETRY_S;
    if (code !== 'breaker_open') return 0;
    return seconds(this.upstream.targets.retryAfterMs(this.shared.now()));
  }

  /** Gives everything back, in this order: timer, handshake, stats, log, target, place. Runs once. */
  settle(failure: FailureCode | null): void {
    if (this.#settled) return;
    this.#settled = true;
    const { shared, upstream, stats } = this;
    this.failure = failure;
    shared.wheel.cancel(this.#timer);
    this.#handshake?.cancel();
    try {
      reportTunnel(this);
    } catch (error) {
      shared.onBug(error);
    } finally {
      upstream.stats.inFlight--;
      shared.onSettled(this);
      this.#leaveTarget(failure === null ? 'neutral' : outcomeOf(failure, 0));
      if (this.#hasPlace) stats.open--;
    }
  }

  #leaveTarget(outcome: Outcome): void {
    const { via } = this;
    if (!via) return;
    this.#judge(outcome);
    via.inFlight--;
    this.via = null;
  }

  /** What became of the handshake. Once an attempt: what a tunnel comes to after that says nothing of whether the server takes new ones. */
  #judge(outcome: Outcome): void {
    const { via } = this;
    if (!via || this.#judged) return;
    this.#judged = true;
    if (outcome === 'failure') via.failures++;
    else if (outcome === 'success') via.successes++;
    via.breaker?.end(this.#ticket, outcome, this.shared.now());
  }
}

// Passes on the answer of an upstream that does not switch protocols, as any other answer: in the turn it comes in, with back pressure.

import type { FailureCode } from '../errors.ts';
import { type Expiring, Timer } from '../flow/timer-wheel.ts';
import type { ClientListener } from './client.ts';
import type { Tunnel } from './tunnel.ts';
import type { PlainAnswer } from './tunnel-handshake.ts';

export class TunnelAnswer implements ClientListener, Expiring {
  readonly #tunnel: Tunnel;
  readonly #answer: PlainAnswer;
  readonly #timer = new Timer(this);
  #lastByteAt = 0;
  #pausedAt = -1;
  #unsentBefore = -1;
  #over = false;

  constructor(tunnel: Tunnel, answer: PlainAnswer) {
    this.#tunnel = tunnel;
    this.#answer = answer;
  }

  /** @throws when its head may not be sent */
  start(): void {
    const { client, shared } = this.#tunnel;
    const { status, reason, headers, body } = this.#answer;
    client.begin(status, reason, headers);
    client.listener = this;
    this.#lastByteAt = shared.now();
    this.#rearm();
    body.on('data', (chunk: Buffer) => this.#pass(chunk));
    body.on('end', () => this.#ended(body.complete ? null : 'upstream_cut'));
    body.on('error', () => this.#ended('upstream_cut'));
    body.on('close', () => this.#ended('upstream_cut'));
  }

  #pass(chunk: Buffer): void {
    if (this.#over) return;
    const { client, shared } = this.#tunnel;
    this.#lastByteAt = shared.now();
    this.#tunnel.bytesOut += chunk.length;
    if (client.write(chunk)) return;
    this.#pausedAt = this.#lastByteAt;
    this.#unsentBefore = client.unsent;
    this.#answer.body.pause();
    this.#rearm();
  }

  drained(): void {
    this.#pausedAt = -1;
    this.#lastByteAt = this.#tunnel.shared.now();
    this.#rearm();
    this.#answer.body.resume();
  }

  gone(): void {
    this.#ended('client_gone');
  }

  stopped(): void {
    this.#ended('draining');
  }

  // What the client sends on has no meaning any more, and its connection ends with this answer.
  bodyData(): void {}
  bodyEnd(): void {}
  malformed(): void {}

  expired(now: number): void {
    const { client } = this.#tunnel;
    if (now < this.#deadline()) this.#rearm();
    else if (this.#pausedAt < 0) this.#ended('idle_timeout');
    else if (client.unsent === this.#unsentBefore) this.#ended('client_stalled');
    else {
      this.#unsentBefore = client.unsent;
      this.#pausedAt = now;
      this.#rearm();
    }
  }

  /** While we pause the upstream its silence is ours, and the client's. */
  #deadline(): number {
    const { idleMs, writeStallMs } = this.#tunnel.way.timeouts;
    return this.#pausedAt < 0 ? this.#lastByteAt + idleMs : this.#pausedAt + writeStallMs;
  }

  #rearm(): void {
    const at = this.#deadline();
    if (at < this.#timer.at) this.#tunnel.shared.wheel.arm(this.#timer, at);
  }

  #ended(failure: FailureCode | null): void {
    if (this.#over) return;
    this.#over = true;
    const { client, shared } = this.#tunnel;
    shared.wheel.cancel(this.#timer);
    client.listener = null;
    if (failure === null) client.finish(null);
    else client.abort();
    this.#tunnel.settle(failure);
  }
}

// An open tunnel: bytes pass both ways as they come, and each end's end is passed on for what it is, a FIN as a FIN and a cut as a cut.
//
//   client ──bodyData──► inward watch ──push──► facade ──pipe──► upstream          (the pipes are http-proxy-3's)
//   client ◄───write──── outward watch ◄─────── facade ◄──pipe── upstream
//
// The watches follow the frames: whether one of ours may be put in, and how the conversation was closed.

import type { Socket } from 'node:net';
import type { FailureCode } from '../errors.ts';
import { type Expiring, Timer } from '../flow/timer-wheel.ts';
import { closeFrame, FrameWatch, maskedCloseFrame } from '../http/websocket-frames.ts';
import type { WebSocketStats } from '../observe/stats.ts';
import type { ClientListener, UpgradableClient } from './client.ts';
import type { Tunnel } from './tunnel.ts';
import type { Facade, FacadeEnd } from './tunnel-facade.ts';

/** One end has ended, or both have said Close: the other follows within this much silence. After our own Close, within this much time. */
const CLOSING_MS = 5000;
/** After a FIN that was overdue, or when the listener stops and the client has left already. */
const LAST_WORD_MS = 1000;
const GOING_AWAY = 1001;
const GOODBYE = 'aiproxy is shutting down';
const NEVER = Number.POSITIVE_INFINITY;

export class Relay implements ClientListener, FacadeEnd, Expiring {
  readonly #tunnel: Tunnel;
  readonly #client: UpgradableClient;
  readonly #stats: WebSocketStats;
  readonly #facade: Facade;
  readonly #upstream: Socket;
  readonly #inward = new FrameWatch(true);
  readonly #outward = new FrameWatch(false);
  readonly #timer = new Timer(this);

  // Who has said that it sends no more, and whose connection is gone.
  #clientEnded = false;
  #clientGone = false;
  #upstreamEnded = false;
  #upstreamGone = false;
  /** The one whose bytes ended first; null = neither yet. */
  #firstToEnd: 'client' | 'upstream' | null = null;
  /** They get no more from us. */
  #clientFinished = false;
  #upstreamFinished = false;
  #over = false;

  /** The client reads slower: called when it has caught up. */
  #taken: (() => void) | null = null;
  /** The upstream reads slower. */
  #clientPaused = false;
  /** When to see whether those who owe it have taken a byte; and what they had taken when that was last looked at. */
  #lookAt = NEVER;
  #takenByClient = 0;
  #takenByUpstream = 0;

  /** It must be over by then. */
  #closeBy = NEVER;
  /** The listener stops; and the client has been told. */
  #leaving = false;
  #saidGoodbye = false;

  constructor(tunnel: Tunnel, facade: Facade, upstream: Socket) {
    this.#tunnel = tunnel;
    this.#client = tunnel.client;
    this.#stats = tunnel.stats;
    this.#facade = facade;
    this.#upstream = upstream;
  }

  start(): void {
    this.#client.listener = this;
    this.#facade.relay = this;
    this.#upstream.on('end', () => this.#upstreamHasEnded());
    this.#upstream.on('close', () => this.#upstreamIsGone());
  }

  // ---- client → upstream

  bodyData(bytes: Buffer): void {
    const { messages } = this.#inward;
    this.#tunnel.shared.turnover.passed(bytes.length);
    this.#inward.pass(bytes);
    // What leads nowhere keeps nothing open, and nobody has taken it.
    if (this.#upstreamGone || this.#upstreamFinished) return;
    this.#tunnel.bytesIn += bytes.length;
    this.#stats.bytesIn += bytes.length;
    this.#stats.messagesIn += this.#inward.messages - messages;
    if (this.#closeBy !== NEVER) this.#closingGoesOn();
    if (!this.#facade.push(bytes)) {
      this.#clientPaused = true;
      this.#client.pauseBody();
    }
    if (this.#upstream.writableLength > 0) this.#watchTakers();
    if (this.#inward.closeCode !== 0) this.#closeSeen(this.#inward.closeCode);
  }

  wantsMore(): void {
    if (!this.#clientPaused) return;
    this.#clientPaused = false;
    this.#client.resumeBody();
  }

  bodyEnd(): void {
    if (this.#clientEnded) return;
    this.#clientEnded = true;
    this.#firstToEnd ??= 'client';
    this.#endUpstream();
    this.#beginClosing();
    this.#settleIfOver();
  }

  #endUpstream(): void {
    if (this.#upstreamFinished) return;
    this.#upstreamFinished = true;
    // In the name of the client, which has left without a word of its own.
    if (this.#saidGoodbye && this.#inward.atBoundary) this.#facade.push(maskedCloseFrame(GOING_AWAY, GOODBYE));
    this.#facade.push(null);
  }

  // ---- upstream → client

  fromUpstream(bytes: Buffer, taken: () => void): void {
    this.#tunnel.shared.turnover.passed(bytes.length);
    if (this.#clientFinished || this.#saidGoodbye) {
      taken();
      return;
    }
    const outward = this.#outward;
    const { messages } = outward;
    const end = outward.pass(bytes, this.#leaving);
    const isTurn = this.#leaving && outward.atBoundary;
    const part = isTurn ? bytes.subarray(0, end) : bytes;
    this.#tunnel.bytesOut += part.length;
    this.#stats.bytesOut += part.length;
    this.#stats.messagesOut += outward.messages - messages;
    if (this.#closeBy !== NEVER) this.#closingGoesOn();
    if (this.#client.write(part) || isTurn) taken();
    else this.#taken = taken;
    if (isTurn) this.#sayGoodbye();
    if (this.#client.unsent > 0) this.#watchTakers();
    if (outward.closeCode !== 0) this.#closeSeen(outward.closeCode);
  }

  drained(): void {
    const taken = this.#taken;
    this.#taken = null;
    taken?.();
  }

  upstreamDone(): void {
    this.#finishClient();
  }

  #finishClient(): void {
    if (this.#clientFinished) return;
    this.#clientFinished = true;
    if (!this.#clientGone) this.#client.finish(null);
    this.#settleIfOver();
  }

  // ---- the ends

  #upstreamHasEnded(): void {
    this.#upstreamEnded = true;
    this.#firstToEnd ??= 'upstream';
    this.#beginClosing();
    this.#settleIfOver();
  }

  #upstreamIsGone(): void {
    if (this.#over) return;
    this.#upstreamGone = true;
    // The last word has come, whatever happened to the connection behind it.
    const isWhole = this.#upstreamEnded || this.#outward.closeCode !== 0 || this.#clientFinished;
    if (!isWhole && !this.#saidGoodbye) {
      this.#cut('upstream_cut');
      return;
    }
    // A paused client would never be seen to leave.
    this.wantsMore();
    this.#facade.end();
    this.#beginClosing();
    this.#settleIfOver();
  }

  gone(): void {
    if (this.#over) return;
    this.#clientGone = true;
    const isWhole = this.#clientEnded || this.#inward.closeCode !== 0 || this.#outward.closeCode !== 0;
    if (!isWhole && !this.#saidGoodbye) {
      this.#cut('client_gone');
      return;
    }
    this.#clientFinished = true;
    this.drained();
    this.#endUpstream();
    if (this.#leaving) this.#closeWithin(LAST_WORD_MS);
    else this.#beginClosing();
    this.#settleIfOver();
  }

  stopped(): void {
    this.#cut('draining');
  }

  // The client is in the tunnel: nothing is HTTP any more.
  malformed(): void {}

  // ---- closing

  #closeSeen(code: number): void {
    this.#tunnel.closeCode ??= code;
    if (this.#inward.closeCode !== 0 && this.#outward.closeCode !== 0) this.#beginClosing();
  }

  #beginClosing(): void {
    if (this.#closeBy === NEVER) this.#closeWithin(CLOSING_MS);
  }

  #closeWithin(ms: number): void {
    this.#closeBy = this.#tunnel.shared.now() + ms;
    this.#rearm();
  }

  #closingGoesOn(): void {
    if (!this.#saidGoodbye) this.#closeBy = this.#tunnel.shared.now() + CLOSING_MS;
  }

  /** The listener stops. */
  stopping(): void {
    if (this.#leaving || this.#over) return;
    this.#leaving = true;
    if (this.#outward.atBoundary && !this.#clientFinished) this.#sayGoodbye();
    else if (this.#outward.closeCode !== 0) this.#beginClosing();
  }

  /**
   * Between two frames of the upstream, which has said its last to the client. The client's answer goes on to the upstream, which ends
   * the connection then: so both have a close by the book.
   */
  #sayGoodbye(): void {
    this.#saidGoodbye = true;
    this.#tunnel.closeCode ??= GOING_AWAY;
    this.#client.write(closeFrame(GOING_AWAY, GOODBYE));
    this.#closeWithin(CLOSING_MS);
    this.drained();
  }

  // ---- deadlines

  /** Bytes wait for somebody: has he taken any when `write_stall` has passed? */
  #watchTakers(): void {
    if (this.#lookAt !== NEVER) return;
    this.#lookAt = this.#tunnel.shared.now() + this.#tunnel.way.timeouts.writeStallMs;
    this.#takenByClient = this.#tunnel.bytesOut - this.#client.unsent;
    this.#takenByUpstream = this.#tunnel.bytesIn - this.#waitingForUpstream;
    this.#rearm();
  }

  get #waitingForUpstream(): number {
    return this.#upstream.writableLength + this.#facade.readableLength;
  }

  expired(now: number): void {
    if (now >= this.#lookAt && !this.#everybodyTakes()) return;
    if (now >= this.#closeBy) this.#waitedEnough();
    else this.#rearm();
  }

  /** @returns false when somebody does not, and the tunnel is over */
  #everybodyTakes(): boolean {
    const { bytesIn, bytesOut } = this.#tunnel;
    const { unsent } = this.#client;
    const waiting = this.#waitingForUpstream;
    const clientStalls = unsent > 0 && bytesOut - unsent === this.#takenByClient;
    const upstreamStalls = waiting > 0 && bytesIn - waiting === this.#takenByUpstream;
    this.#lookAt = NEVER;
    if (clientStalls || upstreamStalls) this.#cut(clientStalls ? 'client_stalled' : 'idle_timeout');
    else if (unsent > 0 || waiting > 0) this.#watchTakers();
    return !clientStalls && !upstreamStalls;
  }

  /** Both ends get their FIN, if they have not; then the end, whatever they do. */
  #waitedEnough(): void {
    if (this.#saidGoodbye) {
      this.#cut(this.#inward.closeCode === 0 ? 'draining' : null);
      return;
    }
    if (this.#client.unsent > 0 || this.#waitingForUpstream > 0) {
      // Whoever takes nothing of it is given up by `write_stall`.
      this.#watchTakers();
      this.#closeWithin(CLOSING_MS);
      return;
    }
    if (this.#clientFinished && this.#upstreamFinished) {
      this.#cut(null);
      return;
    }
    this.#finishClient();
    this.#endUpstream();
    this.#closeWithin(LAST_WORD_MS);
  }

  #rearm(): void {
    const at = Math.min(this.#closeBy, this.#lookAt);
    if (at < this.#timer.at) this.#tunnel.shared.wheel.arm(this.#timer, at);
  }

  // ---- the end

  /** Whoever is left has nothing more to hear or to say. */
  #settleIfOver(): void {
    if (this.#over) return;
    const clientIsDone = this.#clientEnded && this.#clientFinished && this.#client.unsent === 0;
    const upstreamIsDone = this.#upstreamEnded && this.#upstreamFinished && this.#waitingForUpstream === 0;
    if (!(this.#clientGone || clientIsDone) || !(this.#upstreamGone || upstreamIsDone)) return;
    this.#client.listener = null;
    this.#upstream.destroySoon();
    this.#settle(null);
  }

  /** @param code null = all was said: what is on its way may arrive */
  #cut(code: FailureCode | null): void {
    if (this.#over) return;
    if (!this.#clientGone) {
      this.#client.listener = null;
      if (code === null) this.#client.finish(null);
      else this.#client.abort();
    }
    if (!this.#upstreamGone) this.#cutUpstream(code);
    this.#settle(code);
  }

  #cutUpstream(code: FailureCode | null): void {
    const upstream = this.#upstream;
    if (code === 'draining' && this.#inward.atBoundary && this.#waitingForUpstream === 0) {
      // Leaves in this call, as nothing waits before it.
      upstream.write(maskedCloseFrame(GOING_AWAY, GOODBYE));
      upstream.destroy();
      return;
    }
    // While a FIN is on the way a reset is refused, see ClientConnection.abort().
    const ends = upstream.writableEnded && upstream.writableLength === 0;
    if (code === null || ends || 'encrypted' in upstream || upstream.remoteAddress === undefined) upstream.destroy();
    else upstream.resetAndDestroy();
  }

  #settle(code: FailureCode | null): void {
    this.#over = true;
    this.#tunnel.shared.wheel.cancel(this.#timer);
    this.#facade.relay = null;
    this.#facade.destroy();
    this.#tunnel.settle(this.#failure(code));
  }

  /** An end that was announced by a Close frame is none, nor is one that we cannot judge. */
  #failure(code: FailureCode | null): FailureCode | null {
    if (code === 'client_stalled' || code === 'idle_timeout') return code;
    const clientSaidClose = this.#inward.closeCode !== 0;
    if ((code === 'draining' || this.#saidGoodbye) && !clientSaidClose) return 'draining';
    if (clientSaidClose || this.#outward.closeCode !== 0) return null;
    if (code !== null) return code;
    if (this.#inward.lost || this.#outward.lost) return null;
    return this.#firstToEnd === 'upstream' ? 'upstream_cut' : 'client_gone';
  }
}

// What http-proxy-3 holds in place of a client's connection: one end of a tunnel, with the relay (tunnel-relay.ts) behind it.

import { Duplex } from 'node:stream';

/** In each direction, when the other side reads slower. */
const HIGH_WATER = 64 * 1024;

export interface FacadeEnd {
  /** Bytes of the upstream. @param done they are taken: more may come */
  fromUpstream(bytes: Buffer, done: () => void): void;
  /** No more will come, and all that came are taken. */
  upstreamDone(): void;
  /** The upstream takes bytes again after `push` returned false. */
  wantsMore(): void;
}

/** `push` is what the client sends; what is written to it is for the client. */
export class Facade extends Duplex {
  /** null = there is no tunnel yet, or no more. */
  relay: FacadeEnd | null = null;
  #sawHead = false;

  constructor() {
    super({ readableHighWaterMark: HIGH_WATER, writableHighWaterMark: HIGH_WATER });
  }

  override _write(bytes: Buffer, _encoding: unknown, done: () => void): void {
    // The library begins with a head of its own. The client has had ours.
    if (!this.#sawHead) this.#sawHead = true;
    else if (this.relay) {
      this.relay.fromUpstream(bytes, done);
      return;
    }
    done();
  }

  override _read(): void {
    this.relay?.wantsMore();
  }

  override _final(done: () => void): void {
    this.relay?.upstreamDone();
    done();
  }

  // What the library expects of a net.Socket. The connection behind it has it all set.

  setTimeout(): this {
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  /** Asked for after an error of the upstream's connection: what that means for the client, the relay says. */
  destroySoon(): void {}
}

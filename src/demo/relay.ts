// A TCP relay that makes loopback cost what the internet costs: one round trip to connect, half of one for every byte each way.
//
//   client ── connect ──▶ relay ··· wait one round trip ··· ── connect ──▶ target
//   client ── bytes ────▶ relay ··· half a round trip ···── bytes ──────▶ target    (a DelayLine each way)
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { DelayLine } from './delay-line.ts';

export interface RelayOptions {
  readonly targetPort: number;
  readonly targetHost?: string;
  /** Time to the target and back, in ms. */
  readonly rttMs: number;
}

export class Relay {
  readonly #options: RelayOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #accepted = 0;

  constructor(options: RelayOptions) {
    this.#options = options;
    // Paused until the simulated handshake is over: what the client already sends waits in the kernel, which bounds it.
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
      this.#accepted++;
      this.#adopt(socket);
      setTimeout(() => this.#forward(socket), options.rttMs);
    });
  }

  /** Listens on a free loopback port and gives it. */
  async listen(): Promise<number> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections accepted so far. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Sockets open now, on both sides. */
  get open(): number {
    return this.#sockets.size;
  }

  /** Stops accepting and cuts what is open. */
  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #adopt(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    // A reset is passed on when the socket closes; without a listener it would end the process.
    socket.on('error', () => {});
  }

  #forward(client: Socket): void {
    if (client.destroyed) return;
    const { targetPort, targetHost = '127.0.0.1', rttMs } = this.#options;
    const target = connect({ port: targetPort, host: targetHost, allowHalfOpen: true, noDelay: true });
    this.#adopt(target);
    const up = new DelayLine(client, target, rttMs / 2);
    const down = new DelayLine(target, client, rttMs / 2);
    passReset(client, up, target, down, rttMs / 2);
    passReset(target, down, client, up, rttMs / 2);
    client.resume(); // pauseOnConnect outlives a data listener
  }
}

/** When `socket` is cut rather than ended, its peer is cut too, half a round trip later. An orderly end travels in the line. */
function passReset(socket: Socket, fromIt: DelayLine, peer: Socket, toIt: DelayLine, delayMs: number): void {
  socket.once('close', (hadError: boolean) => {
    toIt.stop();
    if (fromIt.ended && !hadError) return;
    fromIt.stop();
    setTimeout(() => peer.resetAndDestroy(), delayMs);
  });
}

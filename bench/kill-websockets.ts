// The WebSockets of the kill soak, both ends: an upstream that says everything again, and clients that listen whether it does.
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type RawData, WebSocket, WebSocketServer } from 'ws';
import type { Chance } from './chance.ts';
import { HUNG_MS, type Killable, type KillHow, type Scene, type Tally } from './kill-client.ts';
import { patternAt } from './pattern.ts';
import { reset, sleep } from './processes.ts';

const MOST_MESSAGES = 40;
const LARGE = 64 * 1024;

/** Takes the offers of one upstream: most of them, some after a while, some not at all. */
export class EchoServer {
  readonly #server = new WebSocketServer({ noServer: true });
  readonly #chance: Chance;

  constructor(chance: Chance) {
    this.#chance = chance;
  }

  async take(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const chance = this.#chance;
    socket.on('error', () => {});
    if (chance.happens(0.05)) return; // never an answer
    if (chance.happens(0.2)) await sleep(chance.between(1, 300));
    if (socket.destroyed) return;
    if (chance.happens(0.05)) {
      socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno');
      return;
    }
    this.#server.handleUpgrade(request, socket, head, (websocket) => {
      websocket.on('error', () => {});
      websocket.on('message', (message, isBinary) => {
        websocket.send(message, { binary: isBinary });
        if (chance.happens(0.02)) websocket.ping();
        if (chance.happens(0.01)) websocket.close(1011, 'enough');
      });
    });
  }
}

/** A client's WebSocket, as the killer sees it. */
class Talk implements Killable {
  readonly socket: WebSocket;
  readonly #scene: Scene;
  killed = false;
  opened = false;
  refused = 0;

  constructor(scene: Scene) {
    this.#scene = scene;
    const target = `${scene.chance.pick(['plain', 'ai'])}/ws`;
    this.socket = new WebSocket(`ws://127.0.0.1:${scene.port}/${target}`, { perMessageDeflate: false });
    this.socket.on('error', () => {});
    this.socket.on('unexpected-response', (_request, answer) => {
      this.refused = answer.statusCode ?? 0;
      answer.resume();
      this.socket.terminate();
    });
    this.socket.on('upgrade', ({ socket }) => {
      scene.sockets.add(socket);
      socket.on('close', () => scene.sockets.delete(socket));
    });
    this.socket.on('close', () => scene.crew.delete(this));
    scene.crew.add(this);
  }

  kill(how: KillHow): void {
    this.killed = true;
    this.#scene.crew.delete(this);
    // ws keeps its socket to itself.
    const { _socket: raw } = this.socket as unknown as { _socket: Socket | null };
    if (how === 'destroy' || !raw) this.socket.terminate();
    else if (how === 'reset') reset(raw);
    else if (how === 'half-close') raw.end();
    else this.socket.close(1000);
  }

  /** @returns the code of the close, 0 = it never opened, -1 = nothing happens any more */
  talk(messages: number): Promise<number> {
    const { promise, resolve } = Promise.withResolvers<number>();
    const { chance, wrong } = this.#scene;
    let said = Buffer.alloc(0);
    let left = messages;
    let heardAt = performance.now();
    const say = () => {
      said = Buffer.from(patternAt(chance.between(0, 1000), chance.happens(0.1) ? LARGE : chance.between(1, 500)));
      this.socket.send(said, { binary: chance.happens(0.5) });
    };
    const watch = setInterval(() => {
      if (performance.now() - heardAt > HUNG_MS) resolve(-1);
    }, 1000);
    this.socket.on('open', () => {
      this.opened = true;
      say();
    });
    this.socket.on('message', (message: RawData) => {
      heardAt = performance.now();
      if (!said.equals(message as Buffer))
        wrong(`a WebSocket said ${said.length} bytes and heard ${(message as Buffer).length}`);
      if (--left === 0) this.socket.close(1000);
      else setTimeout(say, chance.between(0, 60));
    });
    this.socket.on('close', (code) => resolve(this.opened ? code : 0));
    return promise.finally(() => clearInterval(watch));
  }
}

/** One WebSocket after another until the soak is over. */
export async function keepTalking(scene: Scene, tally: Tally): Promise<void> {
  while (!scene.over) {
    const talk = new Talk(scene);
    const code = await talk.talk(scene.chance.between(1, MOST_MESSAGES));
    if (code === -1 && !scene.over) scene.wrong(`a WebSocket is forgotten, ${talk.opened ? 'open' : 'not open'}`);
    const what = talk.opened ? `ws ${code}` : `ws refused ${talk.refused || ''}`;
    const key = talk.killed ? 'ws left' : what.trim();
    tally.set(key, (tally.get(key) ?? 0) + 1);
    talk.socket.terminate();
    await sleep(scene.chance.between(0, 60));
  }
}

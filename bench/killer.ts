// The killer of the kill soak: at random moments ends clients, and cuts, stalls and restarts upstreams.
import { KILL_HOWS, type Scene } from './kill-client.ts';
import type { KillUpstream } from './kill-upstream.ts';
import { reset, sleep } from './processes.ts';

/** Between two deeds, on average. */
const EVERY_MS = 40;
const RESTART_SHARE = 0.005;

export class Killer {
  kills = 0;
  restarts = 0;
  readonly #scene: Scene;
  readonly #upstreams: readonly KillUpstream[];

  constructor(scene: Scene, upstreams: readonly KillUpstream[]) {
    this.#scene = scene;
    this.#upstreams = upstreams;
  }

  async run(): Promise<void> {
    const { chance, crew } = this.#scene;
    while (!this.#scene.over) {
      await sleep(-Math.log(1 - chance.next()) * EVERY_MS);
      const upstream = chance.pick(this.#upstreams);
      if (chance.happens(RESTART_SHARE)) this.#restart(upstream);
      else if (chance.happens(0.5) && crew.size > 0) {
        this.kills++;
        chance.pick([...crew]).kill(chance.pick(KILL_HOWS));
      } else if (upstream.sockets.size > 0) this.#hurt(upstream);
    }
  }

  #hurt(upstream: KillUpstream): void {
    const { chance } = this.#scene;
    const socket = chance.pick([...upstream.sockets]);
    this.kills++;
    if (chance.happens(0.2)) upstream.stall(socket, chance.between(100, 6000));
    else if (chance.happens(0.5)) reset(socket);
    else socket.end();
  }

  #restart(upstream: KillUpstream): void {
    this.restarts++;
    const { chance } = this.#scene;
    upstream
      .restart(chance.between(200, 2000))
      .catch((error: Error) => this.#scene.wrong(`an upstream: ${error.message}`));
  }
}

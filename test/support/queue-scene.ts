// A queue for unit tests: a limiter whose guests wait for permit, slot and tokens, on a clock that passes when a test says so.

import { Gcra } from '../../src/flow/gcra.ts';
import { Limiter } from '../../src/flow/limiter.ts';
import { Line } from '../../src/flow/line.ts';
import { Slots } from '../../src/flow/slots.ts';
import { type Pace, Turnstile } from '../../src/flow/turnstile.ts';
import { type Grantee, NO_TURNSTILES, Waiter } from '../../src/flow/waiters.ts';
import { FakeClock, fakeWheel } from './fake-clock.ts';

const NEVER = Number.POSITIVE_INFINITY;

/** One who wants to run: enters, or waits; writes down when it may. */
export class Guest implements Grantee {
  readonly name: string;
  readonly waiter: Waiter;
  readonly #scene: QueueScene;
  state: 'new' | 'refused' | 'waits' | 'runs' | 'gone' | 'denied' = 'new';
  deniedBy: Turnstile | null = null;
  grantedAt = -1;
  onGrant: (() => void) | null = null;
  onDeny: (() => void) | null = null;

  constructor(scene: QueueScene, name: string, turnstiles: readonly Turnstile[], lane = 0) {
    this.#scene = scene;
    this.name = name;
    this.waiter = new Waiter(this, lane, turnstiles);
  }

  arrive(): this {
    const { line } = this.#scene;
    if (line.tryEnter(this.waiter.turnstiles)) this.granted();
    else {
      this.state = 'waits';
      if (!line.enqueue(this.waiter)) this.state = 'refused';
    }
    return this;
  }

  granted(): void {
    this.state = 'runs';
    this.grantedAt = this.#scene.clock.time;
    this.#scene.ran.push(this.name);
    this.onGrant?.();
  }

  denied(by: Turnstile | null): void {
    this.state = 'denied';
    this.deniedBy = by;
    this.#scene.denied.push(this.name);
    this.onDeny?.();
  }

  finish(): void {
    this.state = 'gone';
    this.#scene.line.slots.give();
    this.#scene.limiter.release();
  }

  leave(): void {
    this.state = 'gone';
    this.#scene.line.leave(this.waiter);
  }

  /** Another attempt: gives back what it has and comes again. @returns the same guest with another place */
  again(): Guest {
    this.finish();
    const guest = new Guest(this.#scene, `${this.name}'`, this.waiter.turnstiles, this.waiter.lane);
    guest.state = 'waits';
    this.#scene.line.rejoin(guest.waiter);
    return guest;
  }
}

export interface SceneOptions {
  readonly permits?: number;
  readonly connections?: number;
  readonly maxQueue?: number;
  readonly lanes?: readonly { readonly name: string; readonly share: number }[];
}

export class QueueScene {
  readonly clock = new FakeClock(1000);
  readonly wheel = fakeWheel(this.clock).wheel;
  readonly counts = { held: 0, heldEver: 0, refused: 0 };
  readonly limiter: Limiter;
  readonly line: Line;
  /** Names, in the order in which they ran, or were denied. */
  readonly ran: string[] = [];
  readonly denied: string[] = [];

  constructor({ permits = NEVER, connections = NEVER, maxQueue = NEVER, lanes }: SceneOptions = {}) {
    this.limiter = new Limiter('ai', permits, maxQueue, NEVER, lanes);
    this.line = new Line(this.limiter, new Slots(connections, 2).regular);
  }

  turnstile(pace: Pace, rejects = false): Turnstile {
    return new Turnstile(pace, rejects, this.wheel, this.clock.now, this.counts, null);
  }

  /** One token each `intervalMs`. */
  rate(intervalMs: number, burst = 1, rejects = false): Turnstile {
    return this.turnstile(new Gcra(intervalMs, burst), rejects);
  }

  guest(name: string, turnstiles: readonly Turnstile[] = NO_TURNSTILES, lane = 0): Guest {
    return new Guest(this, name, turnstiles, lane).arrive();
  }

  /** What is not back at 0. */
  left(...turnstiles: readonly Turnstile[]): Record<string, number> {
    const { limiter, line, counts, wheel } = this;
    const gauges: [string, number][] = [
      ['inFlight', limiter.inFlight],
      ['queued', limiter.queued],
      ['limiter.ready', limiter.ready],
      ['line.ready', line.ready],
      ['held', counts.held],
      ['timers', wheel.size],
      ...limiter.lanes.map(({ name, queued }): [string, number] => [`lane ${name}`, queued]),
      ...turnstiles.map(({ waiting }, i): [string, number] => [`turnstile ${i}`, waiting]),
    ];
    return Object.fromEntries(gauges.filter(([, value]) => value !== 0));
  }
}

/** A gate that a test opens and closes. */
export class Gate implements Pace {
  /** It is open at or after this time. */
  at: number;
  taken = 0;

  constructor(at = NEVER) {
    this.at = at;
  }

  readyAt(): number {
    return this.at;
  }

  take(): void {
    this.taken++;
  }
}

// The connection slots of one upstream: how many exchanges may be on its connections at once, with a few kept for bypass requests.

import type { Line } from './line.ts';

/** One way to a slot: the regular one, or the bypass. */
export interface SlotGate {
  line: Line | null;
  readonly hasSlot: boolean;
  take(): void;
  /** Gives one slot back; the line before this gate moves on. */
  give(): void;
  /** Nobody waits in this gate's line any more. */
  lineEmptied(): void;
}

/**
 * `max` slots for regular exchanges and `extra` more that only bypass requests use.
 * Bypass requests also use regular slots nobody waits for; those who do so never keep a regular request from its turn for longer
 * than they run, because none is admitted there while one waits.
 */
export class Slots {
  #max: number;
  readonly extra: number;
  readonly regular: SlotGate;
  readonly bypass: SlotGate;
  #regularTaken = 0;
  #bypassTaken = 0;

  constructor(max: number, extra: number) {
    this.#max = max;
    this.extra = extra;
    this.regular = new Gate(
      () => this.#regularTaken + Math.max(0, this.#bypassTaken - this.extra) < this.max,
      (n) => {
        this.#regularTaken += n;
      },
      () => this.#pump(),
      // Bypass requests keep off regular slots while somebody waits for them; those who came meanwhile move on now.
      () => this.#pumpBypass(),
    );
    this.bypass = new Gate(
      () => this.#bypassTaken < this.extra || (this.taken < this.max && !this.regular.line?.ready),
      (n) => {
        this.#bypassTaken += n;
      },
      () => this.#pump(),
      () => {},
    );
  }

  get max(): number {
    return this.#max;
  }

  /** Those who hold one keep it; who waits moves on when there are more. */
  set max(max: number) {
    const grew = max > this.#max;
    this.#max = max;
    if (grew) this.#pump();
  }

  get taken(): number {
    return this.#regularTaken + this.#bypassTaken;
  }

  #pump(): void {
    if (this.regular.line?.ready) this.regular.line.limiter.pump();
    this.#pumpBypass();
  }

  #pumpBypass(): void {
    if (this.bypass.line?.ready) this.bypass.line.limiter.pump();
  }
}

class Gate implements SlotGate {
  line: Line | null = null;
  readonly #free: () => boolean;
  readonly #add: (n: 1 | -1) => void;
  readonly #given: () => void;
  readonly lineEmptied: () => void;

  constructor(free: () => boolean, add: (n: 1 | -1) => void, given: () => void, lineEmptied: () => void) {
    this.#free = free;
    this.#add = add;
    this.#given = given;
    this.lineEmptied = lineEmptied;
  }

  get hasSlot(): boolean {
    return this.#free();
  }

  take(): void {
    this.#add(1);
  }

  give(): void {
    this.#add(-1);
    this.#given();
  }
}
